"""The unified task API, ``/api/v1/task``: one protocol for every model behind it.  Pure.

`CreateTask` makes a task of any model from the names that the vendor's page of that model gives.
The modules of `piapi_async.models` say the same in typed requests; all of them are one family, so
submitting, waiting, the ledger, batches, downloads and webhooks are those of every other task.  The
wire rules are the vendor's (piapi.ai/docs/unified-api) unless a comment says "observed" or "our
choice".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args
from urllib.parse import quote

import attrs
from attrs import field, frozen

from ._http import HTTPRequest, HTTPResponse
from ._protocol import fields, webhook_fields
from ._protocol.actions import read_action
from ._protocol.checks import around
from ._protocol.decoding import Structure
from ._protocol.envelope import check_confirmed, find_task_object, read_envelope, unpack_task, without_secrets
from ._protocol.family import Family, Trace
from ._protocol.kinds import UNKNOWN, Kind, kind_of
from ._protocol.reading import (
    failure_text,
    object_at,
    pick_images,
    read_percent,
    read_state,
    read_time,
    read_usage,
)
from ._protocol.requests import FileRequest, is_input, request, set_inputs
from ._protocol.result_files import find_files
from ._verdict import read_created
from .account import PIAPI
from .tasks import (
    Created,
    Life,
    Reader,
    Task,
    TaskFile,
    TaskId,
    TaskState,
    check_task_id,
    task_with_raw,
    waiting_task,
)

__all__ = ["UNIFIED", "CreateTask", "ModelRequest", "family_of", "request"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Output = Mapping[str, Any]
"""The `output` of a task whose shape is not documented: JSON as received."""

_PATH = "/api/v1/task"


# -- making a task ---------------------------------------------------------------------------------


@request
class _Create(FileRequest, Generic[R_co]):
    """What all requests of this protocol share: the envelope, the webhook."""

    service_mode: str | None = around(fields.choice("", "public", "private", default=None))
    webhook_endpoint: str | None = around(webhook_fields.webhook_url())
    webhook_secret: str | None = around(webhook_fields.webhook_secret())

    @property
    def family(self) -> Family[R_co]:
        """The unified family, with this request's result."""
        return cast("Family[R_co]", _family_of(self._result))

    @property
    def _result(self) -> Any:  # noqa: ANN401 - a class
        return _result_of(self._class)

    @property
    def names(self) -> tuple[str, str]:
        """Model and task type, as the wire has them."""
        raise NotImplementedError

    @property
    def kind(self) -> Kind:
        """The kind of its tasks: the model and the task type, in the mode that it is asked for."""
        mode = getattr(self, "mode", None)
        return kind_of(*self.names, mode if isinstance(mode, str) else "")

    def inputs(self) -> Mapping[str, Any]:
        """Return the `input` object, files still as paths."""
        raise NotImplementedError

    def to_http(self) -> HTTPRequest:
        """Return the request as it is sent; a file that has no link yet stands as ``file:NAME``."""
        model, task_type = self.names
        body: dict[str, Any] = {"model": model, "task_type": task_type, "input": self.inputs()}
        config: dict[str, Any] = {}
        if self.service_mode is not None:
            config["service_mode"] = self.service_mode
        if self.webhook_endpoint is not None:
            secret = self.webhook_secret or ""
            config["webhook_config"] = {"endpoint": self.webhook_endpoint, "secret": secret}
        if config:
            body["config"] = config
        return HTTPRequest("POST", _PATH, self.to_json(body))

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        """Return the new task, with its price if the response tells.

        Raises `APIError` (refused) or `UnexpectedAnswer` (a task may have been made).
        """
        return read_created(response, self)


@request
class CreateTask(_Create[Output]):
    """Any task of any model, by the names of the vendor's page; its result is the `output` object.

    A `pathlib.Path` in `input` is a local file, which is uploaded before the task is made.
    """

    model: str = fields.text(kw_only=False)
    task_type: str = fields.text(kw_only=False)
    input: Mapping[str, Any] = fields.json_object(kw_only=False)

    @property
    def names(self) -> tuple[str, str]:
        """Model and task type, as the wire has them."""
        return self.model, self.task_type

    def inputs(self) -> Mapping[str, Any]:
        """Return the `input` object, files still as paths."""
        return self.input


@request
class ModelRequest(_Create[R_co]):
    """The base of the typed requests in `piapi_async.models`.

    A class says the model and the task type, or has fields `model` and `task_type` (made with
    ``names=True``) where there is a choice; all its other fields are inputs.  `extra` takes inputs
    that are newer than this release.
    """

    _model: ClassVar[str] = ""
    _task_type: ClassVar[str] = ""

    extra: Mapping[str, Any] = around(fields.json_object(default=attrs.Factory(dict)))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        doubled = self.extra.keys() & set(_input_names(self._class))
        if doubled:
            names = ", ".join(sorted(doubled))
            place = f"{type(self).__name__}.extra"
            raise ValueError(f"{place}: {names} is not allowed; there is a field of that name")

    @property
    def names(self) -> tuple[str, str]:
        """Model and task type, as the wire has them."""
        chosen = {name: getattr(self, name) for name in _chosen_names(self._class)}
        return chosen.get("model", self._model), chosen.get("task_type", self._task_type)

    def inputs(self) -> Mapping[str, Any]:
        """Return the `input` object, files still as paths."""
        return {**set_inputs(self), **self.extra}


@cache
def _chosen_names(cls: Any) -> tuple[str, ...]:  # noqa: ANN401 - a class
    return tuple(f.name for f in attrs.fields(cls) if f.metadata.get("names"))


@cache
def _input_names(cls: Any) -> tuple[str, ...]:  # noqa: ANN401 - a class
    return tuple(f.name for f in attrs.fields(cls) if is_input(f))


def known_names(cls: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a class
    """Return every pair of model and task type that a request class can make."""
    words = {f.name: f.metadata["words"] for f in attrs.fields(cls) if f.metadata.get("names")}
    models = words.get("model", (cls._model,))
    task_types = words.get("task_type", (cls._task_type,))
    return [(model, task_type) for model in models for task_type in task_types]


@cache
def _result_of(cls: Any) -> type[Any]:  # noqa: ANN401 - a class
    """Return what the tasks of a request class end in: `R` of the ``ModelRequest[R]`` it derives from.

    Python keeps that in `__orig_bases__` of the class that says so, which may be any ancestor.
    """
    for base in cls.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            arguments = get_args(generic)
            if arguments and not isinstance(arguments[0], TypeVar):
                return cast("type[Any]", arguments[0])
    return cast("type[Any]", Output)


# -- calls about tasks -----------------------------------------------------------------------------


@frozen
class GetTask(Generic[R_co]):
    """Read one task; there is no way to read many at a time."""

    task_id: TaskId = field(converter=check_task_id)
    _reader: Reader[R_co] = field(repr=False)

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", f"{_PATH}/{quote(self.task_id, safe='')}")

    def parse(self, response: HTTPResponse, /) -> Task[R_co]:
        data = find_task_object(response, self, self.task_id)
        return _read_task(data, self.task_id, self._reader, "data", body=response.body)


@frozen
class CancelTask:
    """Ask to cancel one task; only one that is still pending can be."""

    task_id: TaskId = field(converter=check_task_id)

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("DELETE", f"{_PATH}/{quote(self.task_id, safe='')}")

    def parse(self, response: HTTPResponse, /) -> None:
        check_confirmed(read_envelope(response, self))


def _cancel(task_ids: Sequence[TaskId]) -> tuple[CancelTask, ...]:
    return tuple(CancelTask(task_id) for task_id in task_ids)


# -- responses ---------------------------------------------------------------------------------------


def _read_task(
    data: dict[str, Any], asked: TaskId, reader: Reader[R], path: str = "", *, body: bytes | None = None
) -> Task[R]:
    """Return the task of an object; raise `UnexpectedAnswer` without a status, or for another task.

    `body` is the response that the object was found in, with any secrets; without it the object has
    none.
    """
    status, state = read_state(data, asked, path)
    output = _read_output(data)
    progress = read_percent(output.get("progress", output.get("percent")))  # `percent` is Hailuo's
    images = pick_images(output)

    if body is not None:
        if not state.terminal:
            return waiting_task(asked, status, state, progress, images, body, reader)
        data = without_secrets(data, body)

    error = ""
    if state is TaskState.FAILED:
        error = failure_text(data, output)

    return task_with_raw(asked, status, state, progress, error, images, data, reader)


def _read_output(raw: Mapping[str, Any]) -> Output:
    return object_at(raw, "output")


def _read_life(raw: Mapping[str, Any]) -> Life:
    meta = object_at(raw, "meta")
    task_type = raw.get("task_type")
    if not isinstance(task_type, str):
        task_type = ""

    return Life(
        task_type=task_type,
        created_at=read_time(meta.get("created_at")),
        started_at=read_time(meta.get("started_at")),
        ended_at=read_time(meta.get("ended_at")),
    )


def _read_trace(raw: Mapping[str, Any]) -> Trace:
    created_at = _read_life(raw).created_at
    inputs = raw.get("input")
    if not isinstance(inputs, dict):
        inputs = None

    config = object_at(raw, "config")
    return Trace(
        model=_text(raw.get("model")),
        task_type=_text(raw.get("task_type")),
        input=inputs,
        created_at=None if created_at is None else created_at.timestamp(),
        endpoint=_text(object_at(config, "webhook_config").get("endpoint")),
        service_mode=_text(config.get("service_mode")),
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return ""


def _read_result(structure: Structure[R], raw: Mapping[str, Any]) -> R:
    return structure.salvage(raw.get("output"))


def _read_files(raw: Mapping[str, Any]) -> tuple[TaskFile, ...]:
    return find_files(raw.get("output"), "output")  # a list or a string for some undocumented models


def _derive(task_id: TaskId, word: str, inputs: Mapping[str, Any]) -> CreateTask:
    verb, told = read_action(word)
    return CreateTask("midjourney", verb, {"origin_task_id": task_id, **told, **inputs})


def _read_kind(raw: Mapping[str, Any]) -> Kind:
    names = raw.get("model"), raw.get("task_type")
    mode = object_at(raw, "input").get("mode")
    if not all(isinstance(name, str) and name for name in names):
        return UNKNOWN
    return kind_of(str(names[0]), str(names[1]), mode if isinstance(mode, str) else "")


@cache
def _family_of(result: Any) -> Family[Any]:  # noqa: ANN401 - a class, or `Output`
    # Tasks and requests hold the reader and must pickle, so its functions are those of a module.
    read_result: Any = _read_output
    if result is not Output:
        structure = Structure(result)
        structure.prepare()  # it may be a user's class, and its family is asked for before anything is paid
        read_result = partial(_read_result, structure)
    reader = Reader(
        result=read_result,
        life=_read_life,
        cost=read_usage,
        files=_read_files,
        unpack=unpack_task,
        derive=getattr(result, "derive", _derive),  # Midjourney's own, whose requests are typed
    )

    def fetch(task_id: TaskId) -> GetTask[Any]:
        return GetTask(task_id, reader)

    def read(data: dict[str, Any], asked: TaskId) -> Task[Any]:
        inner = data.get("data")
        if "status" not in data and isinstance(inner, dict):  # in its envelope, as a webhook has it
            data = inner
        return _read_task(data, asked, reader)

    return Family(name="unified", service=PIAPI, fetch=fetch, cancel=_cancel, read=read, trace=_read_trace)


def family_of(result: type[R]) -> Family[R]:
    """Return the unified family of the tasks that end in a `result`, for `attach` and `fetch`.

    ``piapi.attach(task_id, family=family_of(ImageOutput))``; all of them are one family to ledgers
    and refs.
    """
    kind: Any = result
    return cast("Family[R]", _family_of(kind))


UNIFIED: Family[Output] = _family_of(Output)
"""Tasks of the unified API; the result is the `output` object as received."""
