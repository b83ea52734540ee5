"""What type checkers see of the public names.  Never run: mypy and pyright, both strict, read it.

A line that must be refused carries an ignore, which both report once the line is accepted.
"""

# mypy: warn-unused-ignores
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

from piapi_async import (
    LEGACY,
    BatchRunner,
    Blend,
    Describe,
    Family,
    HTTPRequest,
    HTTPResponse,
    Imagine,
    Inpaint,
    Ledger,
    LedgerEntry,
    MidjourneyResult,
    Outpaint,
    Pan,
    PiAPI,
    PiAPIError,
    PollPolicy,
    Request,
    Reroll,
    RetryPolicy,
    Seed,
    SubmissionUnknown,
    Task,
    TaskFailed,
    TaskHandle,
    TaskRef,
    TaskRequest,
    TaskState,
    Upscale,
    Variation,
    WaitTimeout,
    as_completed,
    download,
    wait_all,
)
from piapi_async.midjourney import Fetch
from piapi_async.models import flux, kling
from piapi_async.models._outputs import ImageOutput
from piapi_async.tasks import TaskId


async def submit_mixed_requests(piapi: PiAPI) -> None:
    requests: list[TaskRequest[Any]] = [Imagine("a cute cat"), Reroll("6886fc4d"), Seed("6886fc4d")]
    requests.append(flux.TextToImage(prompt="a cute cat"))
    for request in requests:
        assert_type(await piapi.submit(request), TaskHandle[Any])
    for outcome in await BatchRunner(piapi).run(requests):
        assert_type(outcome.request, TaskRequest[Any])
        assert_type(outcome.error, Exception | None)
    read: Request[Task[MidjourneyResult]] = Fetch("6886fc4d")
    assert_type(read.to_http(), HTTPRequest)
    assert_type(read.parse(HTTPResponse(200)), Task[MidjourneyResult])


async def submit_each_verb(piapi: PiAPI) -> None:
    assert_type(await piapi.submit(Imagine("a cute cat")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Reroll("6886fc4d", prompt="a cute cat")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Upscale("6886fc4d", index="1")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Variation("6886fc4d", index="2")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Inpaint("6886fc4d", mask="iVBORw0K")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Outpaint("6886fc4d", zoom_ratio="2")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Pan("6886fc4d", direction="up")), TaskHandle[MidjourneyResult])
    assert_type(await piapi.submit(Describe("https://a.b/c.png")), TaskHandle[MidjourneyResult])
    assert_type(
        await piapi.submit(Blend(["https://a.b/1.png", "https://a.b/2.png"])), TaskHandle[MidjourneyResult]
    )
    assert_type(await piapi.submit(Seed("6886fc4d"), key="mine", timeout=5), TaskHandle[MidjourneyResult])


def what_a_request_takes_besides_the_words_of_the_wire(image: bytes, urls: Sequence[str]) -> None:
    Upscale("6886fc4d", index=1)
    Upscale("6886fc4d", 2)
    Variation("6886fc4d", "high_variation", prompt="a cat")
    Upscale("6886fc4d", "5x")  # type: ignore[arg-type]
    Pan("6886fc4d", direction="north")  # type: ignore[arg-type]
    Variation("6886fc4d", index=4)
    Outpaint("6886fc4d", zoom_ratio=1.5)
    Inpaint("6886fc4d", mask=image)
    assert_type(Inpaint("6886fc4d", mask=image).mask, str)
    assert_type(Blend(urls).image_urls, tuple[str, ...])
    assert_type(Upscale("6886fc4d", index=1).index, str)


async def whatever_stands_for_a_task(
    piapi: PiAPI,
    task: Task[MidjourneyResult],
    handle: TaskHandle[ImageOutput],
    ref: TaskRef,
    entry: LedgerEntry,
) -> None:
    assert_type(Upscale(task, 2).origin_task_id, str)
    Upscale(handle, index="subtle")
    kling.ExtendVideo(ref)
    Upscale(6886)  # type: ignore[arg-type, call-arg]
    Imagine("a cat", process_mode="fats")  # type: ignore[arg-type]
    Imagine("a cat", process_mode="fast")
    Blend(["https://a.b/1.png", "https://a.b/2.png"], dimension="round")  # type: ignore[arg-type]
    Outpaint(task, zoom_ratio="3")  # type: ignore[arg-type]
    Outpaint(task, zoom_ratio="1.5")
    assert_type(piapi.attach(handle), TaskHandle[ImageOutput])
    assert_type(piapi.attach(task), TaskHandle[Any])
    assert_type(piapi.attach(entry), TaskHandle[Any])
    assert_type(await piapi.fetch(handle), Task[ImageOutput])
    assert_type(await piapi.fetch_many([ref, "6886fc4d"]), dict[str, Task[Any] | None])
    await piapi.cancel(handle, ref, "6886fc4d")
    assert_type(await download(handle, "pictures"), list[Path | str])
    assert_type(ref.to_token(), str)
    assert_type(TaskRef.from_token("AAAA", origin=piapi.origin), TaskRef)


async def in_one_call(piapi: PiAPI) -> None:
    def show(task: Task[MidjourneyResult]) -> None:
        print(task.progress)

    async def edit(task: Task[MidjourneyResult]) -> None:
        print(task.progress)

    request = Reroll("6886fc4d")
    task = await piapi.run(
        request, timeout=600, on_update=show, download=Path("pictures"), key="k", note={"a": 1}
    )
    assert_type(task, Task[MidjourneyResult])
    assert_type(await piapi.run(request, on_update=edit, on_cancel="cancel_remote"), Task[MidjourneyResult])
    assert_type(task.to_dict(), dict[str, Any])
    assert_type((task.done, task.ok), tuple[bool, bool])
    assert_type(piapi.ledger, Ledger | None)
    await piapi.submit(request, note=[1])
    await piapi.run(request, on_cancel="stop")  # type: ignore[arg-type]


async def wait_for_one(piapi: PiAPI) -> None:
    handle = await piapi.submit(Reroll("6886fc4d"))
    task = await handle.wait(timeout=600)
    assert_type(task, Task[MidjourneyResult])
    assert_type(await handle.wait(), Task[MidjourneyResult])
    assert_type(await handle.wait(5, on_cancel="cancel_remote"), Task[MidjourneyResult])
    assert_type(await handle.refresh(), Task[MidjourneyResult])
    async for seen in handle.updates(timeout=5):
        assert_type(seen, Task[MidjourneyResult])
    await handle.cancel()

    assert_type(handle.task_id, str)
    assert_type(handle.ref, TaskRef)
    assert_type(handle.task, Task[MidjourneyResult] | None)
    assert_type(handle.error, PiAPIError | None)


async def what_a_task_holds(task: Task[MidjourneyResult]) -> None:
    assert_type(task.result, MidjourneyResult)
    assert_type(task.result.image_url, str)
    assert_type(task.result.actions, tuple[str, ...])
    assert_type(task.result.quota_used, float | None)
    assert_type(task.images, tuple[str, ...])
    assert_type(task.state, TaskState)
    assert_type(task.status, str)
    assert_type(task.progress, int | None)
    assert_type(task.task_type, str)
    assert_type(task.created_at, datetime | None)
    assert_type(task.ended_at, datetime | None)
    assert_type(task.error, str)
    assert_type(task.raw, Mapping[str, Any])
    assert_type(await download(task, "pictures"), list[Path | str])
    assert_type(await download(task, Path("pictures"), timeout=5), list[Path])


async def resume_and_read(piapi: PiAPI, ref: TaskRef) -> None:
    assert_type(piapi.attach("c0d39b5a"), TaskHandle[MidjourneyResult])
    assert_type(piapi.attach(ref), TaskHandle[Any])
    assert_type(piapi.attach(ref, family=LEGACY), TaskHandle[MidjourneyResult])
    assert_type(await piapi.fetch("c0d39b5a"), Task[MidjourneyResult])
    assert_type(await piapi.fetch_many(["c0d39b5a"]), dict[str, Task[MidjourneyResult] | None])
    assert_type(await piapi.fetch_many(iter(["c0d39b5a"])), dict[str, Task[MidjourneyResult] | None])
    await piapi.cancel("c0d39b5a", "11112222")
    assert_type(TaskRef.from_json(ref.to_json()), TaskRef)


async def wait_for_several(handles: list[TaskHandle[MidjourneyResult]]) -> None:
    async for handle in as_completed(handles, timeout=5):
        assert_type(handle, TaskHandle[MidjourneyResult])
    async for handle in as_completed(handle for handle in handles):
        assert_type(handle, TaskHandle[MidjourneyResult])
    outcomes = await wait_all(handles, timeout=5)
    assert_type(outcomes, list[Task[MidjourneyResult] | PiAPIError])
    for outcome in outcomes:
        if isinstance(outcome, PiAPIError):
            assert_type(str(outcome), str)
        else:
            assert_type(outcome.result, MidjourneyResult)


async def make_a_client() -> None:
    async with PiAPI() as piapi:
        assert_type(piapi, PiAPI)
    piapi = PiAPI(
        "a-key",
        base_url="https://api.piapi.ai",
        timeout=5,
        retry=RetryPolicy.never(),
        poll=PollPolicy.every(2),
        rate_limit=(5, 1.0),
        ledger=Ledger("run.db"),
        session=None,
        trust_env=True,
    )
    await piapi.close()


async def what_an_error_holds(handle: TaskHandle[MidjourneyResult]) -> None:
    try:
        await handle.wait()
    except WaitTimeout as error:
        assert_type(error.ref, TaskRef | None)
        for ref in error.refs:
            assert_type(ref, TaskRef)
    except SubmissionUnknown as error:
        assert_type(error.key, str | None)
        assert_type(error.at, float)
    except TaskFailed as error:
        assert_type(error.task.error, str)


# -- another family of tasks, as a user of another API may write one ------------------------------------------------


class Song:
    url: str = ""


class Sing:
    """Makes a task of another family: a protocol is all it takes."""

    @property
    def family(self) -> Family[Song]:
        raise NotImplementedError

    def to_http(self) -> HTTPRequest:
        raise NotImplementedError

    def parse(self, response: HTTPResponse, /) -> TaskId:
        raise NotImplementedError


async def another_family(piapi: PiAPI, songs: Family[Song], ref: TaskRef) -> None:
    handle = await piapi.submit(Sing())
    assert_type(handle, TaskHandle[Song])
    assert_type((await handle.wait()).result, Song)
    assert_type(piapi.attach(ref, family=songs), TaskHandle[Song])
    assert_type(await piapi.fetch("c0d39b5a", family=songs), Task[Song])
    assert_type(await piapi.fetch_many(["c0d39b5a"], family=songs), dict[str, Task[Song] | None])
    assert_type(await wait_all([handle]), list[Task[Song] | PiAPIError])


# -- what must be refused -------------------------------------------------------------------------------------------


async def what_makes_no_task_is_not_submitted(piapi: PiAPI) -> None:
    await piapi.submit(Fetch(TaskId("c0d39b5a")))  # type: ignore[arg-type]
    await piapi.submit("c0d39b5a")  # type: ignore[arg-type]
    await piapi.submit(LEGACY)  # type: ignore[arg-type]


def misspelt_fields_are_refused(url: str) -> None:
    Reroll("6886fc4d", promt="a cute cat")  # type: ignore[call-arg]
    Reroll("6886fc4d", "a cute cat")  # type: ignore[call-arg]
    Reroll()  # type: ignore[call-arg]
    Upscale("6886fc4d")  # type: ignore[call-arg]
    Imagine(5)  # type: ignore[arg-type]
    Pan("6886fc4d", direction=1)  # type: ignore[arg-type]
    PiAPI(url, api_kee="a-key")  # type: ignore[call-arg]
    PiAPI("a-key", url)  # type: ignore[call-arg]


async def values_are_not_changed(request: Reroll, task: Task[MidjourneyResult], ref: TaskRef) -> None:
    request.prompt = "other"  # type: ignore[misc]
    task.status = "finished"  # type: ignore[misc]
    ref.origin = "https://a.b"  # type: ignore[misc]


async def words_and_types_are_checked(
    piapi: PiAPI, handle: TaskHandle[MidjourneyResult], songs: Family[Song]
) -> None:
    await handle.wait(on_cancel="drop")  # type: ignore[arg-type]
    await handle.wait(5, "leave")  # type: ignore[call-arg]
    piapi.attach(5)  # type: ignore[call-overload]
    piapi.attach("c0d39b5a", songs)  # type: ignore[call-overload]
    task = await handle.wait()
    await download(task.result, "pictures")  # type: ignore[call-overload]
    str(task.result.image_link)  # type: ignore[attr-defined]
    as_songs(handle)  # type: ignore[arg-type]


def as_songs(handle: TaskHandle[Song]) -> TaskHandle[Song]:
    return handle
