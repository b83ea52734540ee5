"""Requests and outcomes as JSON, as they stand in the database.  Pure.

A request is stored as what the host receives, so that a worker needs none of the caller's classes.
An outcome is stored as what the host said; its error as its class, its text and its plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import orjson
from attrs import evolve, field, frozen

from .. import errors
from .._families import FAMILIES
from .._http import HTTPRequest, HTTPResponse
from .._protocol.family import Family, TaskRequest
from .._verdict import read_created
from ..batch import Outcome
from ..errors import DownloadError, PiAPIError
from ..tasks import Created, Task, TaskId, TaskRef, found_at

Json = dict[str, Any]

DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"
REFUSED = "refused"
UNKNOWN = "unknown"

# -- requests --------------------------------------------------------------------------------------

_OWN_ENDPOINT = ""
"""Stands for an endpoint that is in the body already, or that the API cannot have."""


@frozen
class RecordedRequest:
    """A request as the host receives it; its class, whose name this one takes, is not needed."""

    subject: str
    family: Family[Any] = field(kw_only=True)
    path: str = field(kw_only=True)
    body: bytes = field(kw_only=True, repr=False)
    verb: str = field(kw_only=True, default="")
    webhook_endpoint: str | None = field(kw_only=True, default=None)
    webhook_secret: str | None = field(kw_only=True, default=None, repr=False)

    def to_http(self) -> HTTPRequest:
        """Return the request as it is sent."""
        if not self.webhook_endpoint:
            return HTTPRequest("POST", self.path, self.body)

        body = orjson.loads(self.body)
        if self.family.name == "unified":
            hook = {"endpoint": self.webhook_endpoint, "secret": self.webhook_secret or ""}
            body["config"] = {**body.get("config", {}), "webhook_config": hook}
        else:
            body["webhook_endpoint"] = self.webhook_endpoint
            body["webhook_secret"] = self.webhook_secret
        return HTTPRequest("POST", self.path, orjson.dumps(body))

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        """Return the new task; raise `APIError` or `UnexpectedAnswer`."""
        return read_created(response, self)


@cache
def _named(name: str) -> type[RecordedRequest]:
    """Return the class under the name of the caller's, as messages and counters show it."""
    return type(name, (RecordedRequest,), {})


def encode_request(request: TaskRequest[Any]) -> Json:
    """Return a request as JSON values.

    Raises `ValueError` for one that carries a webhook secret, which has no place in a shared
    database, and for a family that no worker knows.
    """
    name = type(request).__name__
    family = request.family
    if family.name not in FAMILIES:
        raise ValueError(f"{name}: its family, {family.name!r}, is not one that workers know")
    if getattr(request, "webhook_secret", None):
        raise ValueError(
            f"{name}.webhook_secret: a secret has no place in a shared database. Leave it out, "
            "and give the worker's client a WebhookReceiver, which adds its own"
        )

    sent = request.to_http()
    endpoint = getattr(request, "webhook_endpoint", _OWN_ENDPOINT)
    takes_ours = endpoint is None and family.name in ("legacy", "unified")
    return {
        "name": name,
        "subject": _subject(request),
        "family": family.name,
        "path": sent.path,
        "body": sent.body.decode(),
        "verb": getattr(request, "verb", ""),
        "webhook": takes_ours,
    }


def decode_request(data: Mapping[str, Any]) -> RecordedRequest:
    """Return the request that `encode_request` was given, but for its class."""
    endpoint = None
    if not data["webhook"]:
        endpoint = _OWN_ENDPOINT
    return _named(data["name"])(
        data["subject"],
        family=FAMILIES[data["family"]],
        path=data["path"],
        body=data["body"].encode(),
        verb=data["verb"],
        webhook_endpoint=endpoint,
    )


def _subject(request: TaskRequest[Any]) -> str:
    """Return what a request is about, for messages: the first value of its body."""
    body = orjson.loads(request.to_http().body or b"{}")
    values = [body.get("input"), body] if isinstance(body, dict) else []
    for part in values:
        if isinstance(part, dict):
            texts = [value for name, value in part.items() if isinstance(value, str) and name in _TELLING]
            if texts:
                return str(texts[0])[:100]
    return ""


_TELLING = frozenset({"prompt", "origin_task_id", "image_url", "text"})

# -- refs, errors, outcomes ------------------------------------------------------------------------


def encode_ref(ref: TaskRef) -> Json:
    """Return a ref as JSON values."""
    return {"origin": ref.origin, "family": ref.family, "task_id": ref.task_id}


def decode_ref(data: Mapping[str, Any]) -> TaskRef:
    """Return the ref of `encode_ref`."""
    return TaskRef(data["origin"], data["family"], TaskId(data["task_id"]))


_PLAIN = (str, int, float, bool, type(None))
_LEFT_OUT = ("task", "request", "files")  # they are in the outcome itself


def encode_error(error: BaseException) -> Json:
    """Return an error as JSON values: its class, its text, and those of its values that are plain."""
    values: Json = {}
    for name, value in vars(error).items():
        if name.startswith("_") or name in _LEFT_OUT:
            continue
        if isinstance(value, TaskRef):
            values[name] = {"ref": encode_ref(value)}
        elif isinstance(value, tuple) and all(isinstance(each, TaskRef) for each in value):
            values[name] = {"refs": [encode_ref(each) for each in value]}
        elif isinstance(value, PurePath):
            values[name] = {"path": str(value)}
        elif isinstance(value, _PLAIN):
            values[name] = value

    text = str(error)
    if not isinstance(error, PiAPIError):
        text = repr(error)
    return {"type": type(error).__name__, "text": text, "values": values}


def decode_error(data: Mapping[str, Any], request: object, task: Task[Any] | None) -> PiAPIError:
    """Return the error of `encode_error`; one of a foreign class is a `PiAPIError` that names it."""
    cls = getattr(errors, data["type"], None)
    if not (isinstance(cls, type) and issubclass(cls, PiAPIError)):
        return PiAPIError(f"The worker met with {data['text']}")

    error = cls.__new__(cls, data["text"])
    error.args = (data["text"],)
    for name, value in data["values"].items():
        error.__dict__[name] = _decode_value(value)
    for name, value in (("request", request), ("task", task)):
        error.__dict__.setdefault(name, value)
    if cls is DownloadError:
        error.__dict__.setdefault("files", ())
    return error


def _decode_value(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        if "ref" in value:
            return decode_ref(value["ref"])
        if "refs" in value:
            return tuple(decode_ref(each) for each in value["refs"])
        return Path(value["path"])
    return value


def encode_outcome(
    state: str,
    *,
    ref: TaskRef | None = None,
    task: Task[Any] | None = None,
    saved: Mapping[str, str] | None = None,
    error: BaseException | Json | None = None,
) -> Json:
    """Return what became of an item as JSON values; `saved` is where files are, by their links."""
    raw = None
    if task is not None:
        raw = dict(task.raw)
    if isinstance(error, BaseException):
        error = encode_error(error)
    return {
        "state": state,
        "ref": encode_ref(ref) if ref is not None else None,
        "raw": raw,
        "saved": dict(saved or {}),
        "error": error,
    }


def without_answer(outcome: Mapping[str, Any]) -> Json:
    """Return an outcome without the host's JSON: what is kept of a pruned item."""
    return {**outcome, "raw": None}


def decode_outcome(
    data: Mapping[str, Any], *, key: str, index: int, request: TaskRequest[Any]
) -> Outcome[Any]:
    """Return the outcome of `encode_outcome`."""
    ref = None
    if data["ref"] is not None:
        ref = decode_ref(data["ref"])

    task: Task[Any] | None = None
    if data["raw"] is not None and ref is not None:
        # The request as its caller made it reads the result in its own terms.
        task = request.family.read(dict(data["raw"]), ref.task_id)
        found_at(task, ref)
        task = _with_places(task, data["saved"])

    error = None
    if data["error"] is not None:
        error = decode_error(data["error"], request, task)
    download_error = None
    if isinstance(error, DownloadError):
        download_error = error

    return Outcome(
        index=index,
        request=request,
        key=key,
        ref=ref,
        task=task,
        files=tuple(_place(where) for where in data["saved"].values()),
        error=error,
        download_error=download_error,
    )


def _with_places(task: Task[Any], saved: Mapping[str, str]) -> Task[Any]:
    if saved:
        files = tuple(
            evolve(file, saved_as=_place(saved[file.url])) if file.url in saved else file
            for file in task.files
        )
        task.__dict__["files"] = files
    return task


def _place(where: str) -> Any:  # noqa: ANN401 - a path, or the URL of a sink
    if "://" in where:
        return where
    return Path(where)
