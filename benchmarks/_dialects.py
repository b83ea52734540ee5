"""The measuring host's tasks in the words of other SDKs, so that each can be pointed at it as it comes.

All tell as much of a task as the legacy protocol does, but fal's status, which tells next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from attrs import frozen

ID_HEAD = "00000000-0000-4000-8000-"
"""What all ids begin with; the rest is the task's number, so that no id has to be looked up."""

_NUMBER = "#" * 12
ID = ID_HEAD + _NUMBER
"""An id in an answer to be prepared."""


@frozen
class Prepared:
    """An answer that lacks the task's number, wherever it belongs."""

    _pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Prepared:
        """Prepare an answer that tells of the task `ID`."""
        return cls(tuple(orjson.dumps(answer).split(_NUMBER.encode())))

    def about(self, number: bytes) -> bytes:
        """Give it for the task of that number."""
        return number.join(self._pieces)


@frozen
class Dialect:
    """How one SDK makes a task and looks at it: `reads` are the beginnings and ends of paths around a task's id."""

    creates: bytes
    created: Prepared
    reads: tuple[tuple[bytes, bytes], ...]
    running: Prepared
    done: Prepared

    def asks_for(self, path: bytes) -> bytes | None:
        """Give the number of the task that a path asks for."""
        for before, after in self.reads:
            if path.startswith(before) and path.endswith(after):
                start = len(before) + len(ID_HEAD)
                return path[start : start + len(_NUMBER)]
        return None


def dialects(running: Mapping[str, Any], done: Mapping[str, Any]) -> tuple[Dialect, ...]:
    """Give those of replicate, fal and legnext, for tasks as the legacy protocol shows them."""
    return (_replicate(running, done), _fal(), _fal_results(done), _legnext(running, done))


def _replicate(running: Mapping[str, Any], done: Mapping[str, Any]) -> Dialect:
    def prediction(status: str, task: Mapping[str, Any] | None) -> Prepared:
        return Prepared.of(
            {
                "id": ID,
                "model": "a/model",
                "version": "v" * 64,
                "status": status,
                "input": {"prompt": "a landscape"},
            }
            | {"output": task, "logs": "", "error": None, "metrics": {}, "completed_at": None}
            | {"created_at": "2023-11-14T22:13:20Z", "started_at": "2023-11-14T22:13:23Z"}
            | {"urls": dict.fromkeys(("get", "cancel"), f"http://127.0.0.1/v1/predictions/{ID}")}
        )

    return Dialect(
        b"/v1/predictions",
        prediction("starting", None),
        ((b"/v1/predictions/", b""),),
        prediction("processing", running),
        prediction("succeeded", done),
    )


_FAL = b"/mj/reroll"


def _fal() -> Dialect:
    url = f"http://127.0.0.1/mj/reroll/requests/{ID}"
    urls = {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}
    said: dict[str, Any] = {"request_id": ID, "logs": None, "metrics": {}, **urls}
    return Dialect(
        _FAL,
        Prepared.of({"status": "IN_QUEUE", "queue_position": 0, **said}),
        ((_FAL + b"/requests/", b"/status?logs=false"), (_FAL + b"/requests/", b"/status?logs=False")),
        Prepared.of({"status": "IN_PROGRESS", **said}),
        Prepared.of({"status": "COMPLETED", **said}),
    )


def _fal_results(done: Mapping[str, Any]) -> Dialect:
    """Give fal's second way to read a task: the result, which is asked for once it is there."""
    result = Prepared.of(done)
    return Dialect(b"", result, ((_FAL + b"/requests/", b""),), result, result)


def _legnext(running: Mapping[str, Any], done: Mapping[str, Any]) -> Dialect:
    def job(status: str, task: Mapping[str, Any] | None) -> Prepared:
        found = {} if task is None else dict(task["task_result"])
        output = {"image_url": found.pop("image_url", ""), "image_urls": found.pop("image_urls", []), **found}
        meta = {"created_at": "2023-11-14T22:13:20Z", "started_at": "2023-11-14T22:13:23Z", "ended_at": None}
        usage = {"usage": {"type": "point", "frozen": 80, "consume": 80}}
        return Prepared.of(
            {"job_id": ID, "model": "midjourney", "task_type": "reroll", "status": status, "output": output}
            | {"config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}}}
            | {
                "input": None if task is None else task["meta"],
                "meta": {**meta, **usage},
                "detail": None,
                "logs": [],
            }
            | {"error": {"code": 0, "raw_message": "", "message": "", "detail": None}}
        )

    return Dialect(
        b"/v1/reroll",
        job("pending", None),
        ((b"/v1/job/", b""),),
        job("processing", running),
        job("completed", done),
    )
