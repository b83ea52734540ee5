"""Three older protocols, each for one kind of task: Face Swap, Dream Machine and Kling.  Pure.

All of them are in the unified API today (`piapi_async.models`), which new programs should use;
these serve accounts and hosts that still speak the old ones.  They have no call to cancel a task,
and none to read many at a time.  Paths, bodies and answers were read off the vendor's former pages
(goapi.ai/docs, piapi.ai/docs) and clients that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import PurePath
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from ._http import HTTPRequest, HTTPResponse, Request, post
from ._protocol.decoding import Structure
from ._protocol.envelope import read_task_object
from ._protocol.family import Family, no_cancel
from ._protocol.fields import flag, json_object, link, number, open_choice, ratio, text, whole
from ._protocol.kinds import Kind, kind_of
from ._protocol.reading import (
    classify,
    failure_text,
    from_unix,
    object_at,
    read_cost,
    read_number,
    read_status,
    read_time,
)
from ._protocol.requests import FileRequest, request, set_inputs
from ._protocol.result_files import find_files
from ._verdict import read_created
from .account import PIAPI
from .tasks import Cost, Created, Life, Reader, Task, TaskFile, TaskId, TaskState, check_task_id

__all__ = ["DREAM_MACHINE", "FACE_SWAP", "LEGACY_KLING", "DreamMachine", "FaceSwap", "LegacyKling"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

# -- results -----------------------------------------------------------------------------


@frozen
class FaceSwapResult:
    """The picture, as a link."""

    image: str = ""


@frozen
class Clip:
    """A video, and a picture of it."""

    url: str = ""
    width: int | None = None
    height: int | None = None
    thumbnail: str = ""


@frozen
class Generation:
    """What Dream Machine says of its work."""

    id: str = ""
    prompt: str = ""
    state: str = ""
    video: Clip = field(factory=Clip)


@frozen
class DreamMachineResult:
    """The `generation` of a task."""

    generation: Generation = field(factory=Generation)


@frozen
class KlingFile:
    """A file of a work, with and without the watermark; `duration` in milliseconds."""

    resource: str = ""
    resource_without_watermark: str = field(default="", alias="resourceWithoutWatermark")
    width: int | None = None
    height: int | None = None
    duration: float | None = None


@frozen
class KlingWork:
    """One of the works of a task."""

    content_type: str = field(default="", alias="contentType")
    type: str = ""
    resource: KlingFile = field(factory=KlingFile)
    cover: KlingFile = field(factory=KlingFile)


@frozen
class LegacyKlingResult:
    """The works of a task."""

    works: tuple[KlingWork, ...] = ()


# -- making a task ---------------------------------------------------------------------------------


@request
class _Create(FileRequest):
    """What the three share: the body is the inputs, the response has the new task's id."""

    _path: ClassVar[str] = ""
    _model: ClassVar[str] = ""  # as the history lists its tasks

    @property
    def kind(self) -> Kind:
        """The kind of its tasks: all of a protocol, but for Kling's in professional mode."""
        mode = ""
        if getattr(self, "professional_mode", None):
            mode = "professional"
        return kind_of(self._model, "", mode)

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("POST", self._path, self.to_json(set_inputs(self)))

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        return read_created(response, self)


@request
class FaceSwap(_Create):
    """Give a picture the face of another."""

    _path = "/api/face_swap/v1/async"
    _model = "Qubico/image-toolkit"
    target_image: str | PurePath = link(base64=True, kw_only=False)
    swap_image: str | PurePath = link(base64=True)
    result_type: str = open_choice("url", default="url")

    @property
    def family(self) -> Family[FaceSwapResult]:
        return FACE_SWAP


@request
class DreamMachine(_Create):
    """Make a video from a prompt, or from a picture and perhaps a last one."""

    _path = "/api/luma/v1/video"
    _model = "luma"
    _needs = (("prompt", "image_url"),)
    prompt: str | None = text(default=None, kw_only=False)
    expand_prompt: bool | None = flag(default=None)
    image_url: str | PurePath | None = link(default=None)
    image_end_url: str | PurePath | None = link(default=None)
    aspect_ratio: str | None = ratio(default=None)
    loop: bool | None = flag(default=None)

    @property
    def family(self) -> Family[DreamMachineResult]:
        return DREAM_MACHINE


@request
class LegacyKling(_Create):
    """Make a video from a prompt, or from a picture; `duration` in seconds."""

    _path = "/api/kling/v1/video"
    _model = "kling"
    _needs = (("prompt", "image_url"),)
    prompt: str | None = text(default=None, kw_only=False)
    negative_prompt: str | None = text(default=None)
    image_url: str | PurePath | None = link(default=None)
    duration: int | None = whole(1, default=None)
    aspect_ratio: str | None = ratio(default=None)
    professional_mode: bool | None = flag(default=None)
    creativity: float | None = number(0, 1, default=None)
    version: str | None = text(default=None)
    camera_control: Mapping[str, Any] | None = json_object(default=None)

    @property
    def family(self) -> Family[LegacyKlingResult]:
        return LEGACY_KLING


# -- calls about tasks -----------------------------------------------------------------------------


@frozen
class _Get(Generic[R_co]):
    """Read one task."""

    task_id: TaskId = field(converter=check_task_id)
    _protocol: _Protocol[R_co] = field(repr=False)

    def to_http(self) -> HTTPRequest:
        return self._protocol.ask(self.task_id)

    def parse(self, response: HTTPResponse, /) -> Task[R_co]:
        return self._protocol.read(read_task_object(response, self, self.task_id), self.task_id)


@frozen(eq=False)
class _Protocol(Generic[R]):
    """One of the three: how a task is read, and in which field of the response its result is."""

    name: str
    listed_as: str
    ask: Callable[[TaskId], HTTPRequest]
    place: str
    _structure: Structure[R]

    def family(self) -> Family[R]:
        return Family(
            name=self.name,
            service=PIAPI,
            tells_price=False,
            fetch=self._get,
            cancel=no_cancel(self.name),
            read=self._read_whole,
            listed_as=self.listed_as,
            kind=self._kind,
        )

    def _kind(self, _raw: Mapping[str, Any]) -> Kind:
        return kind_of(self.listed_as, "")

    def _get(self, task_id: TaskId) -> Request[Task[R]]:
        return _Get(task_id, self)

    def _read_whole(self, data: dict[str, Any], asked: TaskId) -> Task[R]:
        inner = data.get("data")
        if "status" not in data and isinstance(inner, dict):  # in its envelope, as a webhook has it
            data = inner
        return self.read(data, asked)

    def read(self, data: dict[str, Any], asked: TaskId) -> Task[R]:
        """Return the task that a response's `data` tells of."""
        status = read_status(data, asked, "data")
        state = classify(status)

        error = ""
        images: tuple[str, ...] = ()
        if state is TaskState.FAILED:
            error = failure_text(data, data.get(self.place))
        if self.place == "image":
            images = tuple(file.url for file in self._files(data))

        return Task(
            task_id=asked,
            status=status,
            state=state,
            error=error,
            images=images,
            raw=data,
            reader=Reader(result=self._result, life=_read_life, cost=_read_cost, files=self._files),
        )

    def _result(self, raw: Mapping[str, Any]) -> R:
        return self._structure.salvage({self.place: raw.get(self.place)})

    def _files(self, raw: Mapping[str, Any]) -> tuple[TaskFile, ...]:
        return find_files({self.place: raw.get(self.place)})


def _read_life(raw: Mapping[str, Any]) -> Life:
    metadata = object_at(raw, "metadata")
    return Life(
        created_at=_read_time(metadata.get("created_at")),
        started_at=_read_time(metadata.get("started_at")),
        ended_at=_read_time(metadata.get("ended_at")),
    )


def _read_cost(raw: Mapping[str, Any]) -> Cost | None:
    return read_cost(object_at(raw, "metadata").get("quota_usage"), "quota")


def _read_time(value: object) -> datetime | None:
    """Return a time, which hosts write as ISO 8601 or as unix time."""
    try:
        return read_time(value) or from_unix(read_number(value))
    except TypeError:
        return None


def _ask_at(path: str, task_id: TaskId) -> HTTPRequest:
    return HTTPRequest("GET", f"{path}/{quote(task_id, safe='')}")


def _ask_face_swap(task_id: TaskId) -> HTTPRequest:
    return post("/api/face_swap/v1/fetch", {"task_id": task_id})


FACE_SWAP: Family[FaceSwapResult] = _Protocol(
    name="face-swap",
    listed_as="Qubico/image-toolkit",
    ask=_ask_face_swap,
    place="image",
    structure=Structure(FaceSwapResult),
).family()
"""Tasks of the old Face Swap protocol, `/api/face_swap/v1/…`."""

DREAM_MACHINE: Family[DreamMachineResult] = _Protocol(
    name="dream-machine",
    listed_as="luma",
    ask=partial(_ask_at, "/api/luma/v1/video"),
    place="generation",
    structure=Structure(DreamMachineResult),
).family()
"""Tasks of the old Dream Machine protocol, `/api/luma/v1/…`."""

LEGACY_KLING: Family[LegacyKlingResult] = _Protocol(
    name="legacy-kling",
    listed_as="kling",
    ask=partial(_ask_at, "/api/kling/v1/video"),
    place="works",
    structure=Structure(LegacyKlingResult),
).family()
"""Tasks of the old Kling protocol, `/api/kling/v1/…`."""
