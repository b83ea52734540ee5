"""Where the families differ: refusals by a code, no bulk read, cancels one by one, secrets in another place.

What they have in common is tested where it always was, with the fixture `case`.
"""

from __future__ import annotations

import asyncio
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from support.families import UNIFIED_CASE
from support.serving import KEY, no_leaks, serving
from support.strict_server import Act, http, strict_server

from piapi_async import (
    UNIFIED,
    CreateTask,
    Family,
    Ledger,
    LedgerError,
    PiAPI,
    Reroll,
    RetryPolicy,
    TaskState,
    wait_all,
)
from piapi_async._families import FAMILIES, family_at
from piapi_async.emulator import SlowFirstByte, Status
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    InsufficientCreditError,
    InvalidRequestError,
    NotFoundError,
    PiAPIError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
    WaitTimeout,
    end_error,
)
from piapi_async.models._outputs import ImageOutput
from piapi_async.tasks import TaskId
from piapi_async.unified import family_of

pytestmark = pytest.mark.looptime

REROLL = UNIFIED_CASE.reroll("p")


def coded(code: object, message: str = "", data: object = None) -> Status:
    """Give an answer of HTTP 200 that says more in its envelope."""
    return Status(200, body={"code": code, "data": data, "message": message})


# -- refusals by a code -------------------------------------------------------------------------------------------

NOBODY = {"task_id": "", "status": ""}

RAISED: list[tuple[Status, type[APIError]]] = [
    (coded(400, "invalid input", NOBODY), InvalidRequestError),
    (coded("400", "invalid input"), InvalidRequestError),
    (coded(400), InvalidRequestError),
    (coded(401, "Invalid API key"), AuthenticationError),
    (coded(403, "Insufficient plan level"), AuthenticationError),
    (coded(402, "not enough credits"), InsufficientCreditError),
    (coded({"a": 1}, "invalid input"), APIError),
    (coded(404, "no such model"), NotFoundError),
    (coded(500, "failed to freeze credits", NOBODY), InsufficientCreditError),
    (coded(10_000, "something else"), APIError),
    (Status(500, body={"code": 500, "data": NOBODY, "message": "the model failed"}), ServerError),
]


@pytest.mark.parametrize(("answer", "kind"), RAISED, ids=str)
async def test_a_refusal_by_its_code_is_raised_and_not_repeated(answer: Status, kind: type[APIError]) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", answer, times=None)
        with pytest.raises(kind, match="nothing was paid") as caught:
            await piapi.submit(REROLL)

        assert type(caught.value) is kind
        assert caught.value.request is REROLL
        assert emulator.seen.requests["task_create"] == 1


@pytest.mark.parametrize("answer", [coded(429, "slow down"), coded(400, "no available bot")], ids=str)
async def test_a_busy_host_by_its_code_is_asked_again(answer: Status) -> None:
    async with serving({"retry": RetryPolicy(attempts=3)}) as (emulator, piapi):
        emulator.fail("create", answer, times=2)
        await piapi.submit(REROLL)
        emulator.fail("create", answer, times=None)
        with pytest.raises(RateLimitError):
            await piapi.submit(REROLL)

        assert (emulator.seen.creates, emulator.seen.requests["task_create"]) == (1, 6)


UNKNOWN: list[Status] = [
    coded(200, "success"),
    coded(200, "success", {}),
    coded(200, "the task was queued", NOBODY),  # a good code with a message is no "no"
    coded(0, "ok", [1]),
    coded(200, "success", {"task_id": True}),
    coded(200, "success", {"task_id": ["a"]}),
    coded(1),
    coded(408, "request time-out"),
    coded(500, "context deadline exceeded"),
    coded(500),
    coded(502),
    coded(504, data=NOBODY),
    Status(500, body={"code": 500, "data": NOBODY, "message": ""}),
    Status(500, body={"code": 500, "data": NOBODY, "message": "timeout"}),
]


@pytest.mark.parametrize("answer", UNKNOWN, ids=str)
async def test_a_code_that_leaves_open_whether_a_task_was_made_is_unknown_and_never_repeated(
    answer: Status,
) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", answer, times=None)
        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(REROLL)
        await asyncio.sleep(100)

        assert emulator.seen.requests["task_create"] == 1
        assert caught.value.ref is None


@pytest.mark.parametrize("code", [0, 200, "200", 201, 202, None])
async def test_an_id_beside_a_good_code_is_an_accepted_task(code: object) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", coded(code, "accepted", {"task_id": " t1 ", "status": "pending"}))

        assert (await piapi.submit(REROLL)).task_id == "t1"


# -- rubbish in the envelope of a read ----------------------------------------------------------------------------

RUBBISH: list[Any] = [
    {},
    {"code": 200},
    {"code": 200, "data": None, "message": "success"},
    {"code": 200, "data": [], "message": "success"},
    {"code": 200, "data": "completed"},
    {"code": 200, "data": {}},
    {"code": 200, "data": {"status": None}},
    {"code": 200, "data": {"status": ["completed"]}},
    {"code": 200, "data": {"status": "completed", "task_id": "another"}},
    {"code": [], "data": {"status": "completed"}},
    {"code": 500, "data": {"status": "completed"}},
    '{"code": 1e400, "data": {"status": "completed"}}',
]


@pytest.mark.parametrize("rubbish", RUBBISH, ids=str)
async def test_rubbish_ends_no_wait_and_is_one_error_of_a_fetch(rubbish: Any) -> None:
    async with serving({"retry": RetryPolicy.never()}) as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        emulator.fail("task_read", Status(200, body=rubbish))
        with pytest.raises(PiAPIError):
            await handle.refresh()
        emulator.fail("task_read", Status(200, body=rubbish), times=40)

        assert (await handle.wait()).state is TaskState.DONE


ODD: list[dict[str, Any]] = [
    {"output": None},
    {"output": "https://h.test/a.png"},
    {"output": [{"image_url": "https://h.test/a.png"}]},
    {"output": {"image_url": {"image_url": 7}, "progress": "much", "image_urls": {"a": 1}}},
    {"meta": [], "error": "none", "task_type": {}, "config": None, "logs": 7},
    {"meta": {"created_at": 7, "started_at": "soon", "ended_at": "0001-01-01T00:00:00Z"}},
    {"meta": {"created_at": "9999-12-31T23:59:59+14:00", "ended_at": "0001-01-01T00:00:00+14:00"}},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
async def test_a_finished_task_is_finished_however_odd_the_rest(odd: dict[str, Any]) -> None:
    async with serving() as (emulator, piapi):
        answer = {"code": 200, "data": {"task_id": "t1", "status": "Completed", **odd}, "message": "success"}
        emulator.fail("task_read", Status(200, body=answer), times=None)
        task = await piapi.attach("t1", family=UNIFIED).wait()

        assert task.state is TaskState.DONE
        assert all(file.url.startswith("https://") for file in task.files)
        assert (task.task_type, task.started_at, task.ended_at) == ("", None, None)
        assert isinstance(task.result, dict)


# -- no bulk read -------------------------------------------------------------------------------------------------


async def test_many_tasks_are_read_singly_and_never_by_more_requests_at_once_than_the_bound() -> None:
    async with serving({"connections": 8}, concurrency=100, latency={"read": 0.2}) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(60)])
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(piapi._runtime.poller._polls))
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        tasks = await wait_all(handles)
        watching.cancel()

        assert {getattr(task, "state", task) for task in tasks} == {TaskState.DONE}
        assert 1 <= most <= 2  # a quarter of the connections
        assert set(emulator.seen.ids_per_request) == {1}


async def test_a_look_that_hangs_holds_up_no_other_task() -> None:
    async with serving({"connections": 8}, concurrency=100) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(20)])
        emulator.fail("task_read", SlowFirstByte(1000.0))
        waits = [asyncio.create_task(handle.wait()) for handle in handles]
        await asyncio.sleep(40.0)

        assert sum(wait.done() for wait in waits) >= 19
        await asyncio.gather(*waits)
        await asyncio.sleep(1000.0)


async def test_tasks_of_both_families_are_waited_for_side_by_side() -> None:
    async with serving(concurrency=100) as (_, piapi):
        unified = [await piapi.submit(REROLL) for _ in range(3)]
        legacy = [piapi.attach(handle.task_id) for handle in unified]  # one machine is behind both
        tasks = await wait_all([*unified, *legacy])

        assert [getattr(task, "status", task) for task in tasks] == ["completed"] * 3 + ["finished"] * 3
        assert len(set(unified) | set(legacy)) == 6


# -- cancels one by one -------------------------------------------------------------------------------------------


async def test_one_that_has_begun_is_no_reason_not_to_cancel_the_others() -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        running, *staged = [await piapi.submit(REROLL) for _ in range(4)]
        await asyncio.sleep(10.0)

        with pytest.raises(InvalidRequestError, match="already started") as caught:
            await piapi.cancel(
                running.task_id, "nope", *[handle.task_id for handle in staged], family=UNIFIED
            )

        assert running.task_id in str(caught.value)  # the first that was refused
        assert emulator.seen.requests["task_cancel"] == 5
        assert [(await handle.refresh()).state for handle in staged] == [TaskState.CANCELLED] * 3
        assert (await running.wait()).state is TaskState.DONE


@pytest.mark.parametrize("fault", [Status(502), Status(401)], ids=str)
async def test_a_host_that_is_away_or_a_key_that_is_wrong_is_not_asked_again_for_each_of_many(
    fault: Status,
) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("task_cancel", fault, times=None)
        with pytest.raises((ServerError, AuthenticationError)):
            await piapi.cancel(*[f"t{number}" for number in range(100)], family=UNIFIED)

        assert emulator.seen.requests["task_cancel"] < 10


async def test_a_cancel_of_many_that_is_cancelled_itself_asks_no_more() -> None:
    async with serving(concurrency=1, latency={"cancel": 1.0}) as (emulator, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(9)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await piapi.cancel(*[handle.task_id for handle in handles], family=UNIFIED)
        await asyncio.sleep(100.0)

        assert emulator.seen.requests["task_cancel"] == 3


# -- one ledger ---------------------------------------------------------------------------------------------------


async def test_a_key_stands_for_a_request_of_one_family(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}) as (emulator, piapi):
        handle = await piapi.submit(Reroll("p"), key="legacy")
        await piapi.submit(REROLL, key="unified")
        with pytest.raises((ValueError, LedgerError)):
            await piapi.submit(REROLL, key="legacy")
        with pytest.raises((ValueError, LedgerError)):
            await piapi.submit(Reroll("p"), key="unified")

        assert emulator.seen.creates == 2
        with pytest.raises(ValueError, match="of the family 'legacy'"):
            piapi.attach(handle.ref, family=UNIFIED)


# -- secrets ------------------------------------------------------------------------------------------------------

SECRET = "hook-5eCr3t"


async def test_the_secret_that_the_host_echoes_is_in_no_task_error_log_or_file(
    tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    request = CreateTask(
        "midjourney",
        "imagine",
        {"prompt": "a cat"},
        webhook_endpoint="https://h.test/",
        webhook_secret=SECRET,
    )
    shown = [repr(request)]
    async with serving({"ledger": Ledger(tmp_path / "run.db"), "retry": RetryPolicy.never()}) as (
        emulator,
        piapi,
    ):
        handle = await piapi.submit(request, key="k")
        with pytest.raises(WaitTimeout) as late:
            await handle.wait(timeout=10.0)
        task = await handle.wait()
        assert task.raw["config"]["webhook_config"] == {"endpoint": "https://h.test/", "secret": ""}
        echo = '{"code":400,"data":{"config":{"webhook_config":{"secret": "' + SECRET + '"}}},"message":'
        errors: list[BaseException] = [late.value]
        for body in (
            echo + '"no"}',
            echo,
            echo.replace("400", "200") + '"success"}',
            echo.replace("400", "500"),
        ):
            for status in (200, 400, 500):
                emulator.fail("*", Status(status, body=body), times=2)
                errors += await asyncio.gather(
                    piapi.submit(request), handle.refresh(), return_exceptions=True
                )  # type: ignore[arg-type]  # all are errors
        assert all(isinstance(error, PiAPIError) for error in errors)
        shown += ["".join(traceback.format_exception(error)) + repr(vars(error)) for error in errors]
        shown += [str(task), repr(task), str(task.raw), repr(handle), repr(piapi)]

    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    shown += [record.getMessage() for record in everything_logged.records]
    assert not [text for text in shown if SECRET in text or KEY in text]
    assert SECRET.encode() not in files
    assert KEY.encode() not in files


async def test_an_odd_id_stays_one_part_of_the_path() -> None:
    odd = ("../../../account/info", "a/b?c=d#e", "%2e%2e", "a\r\nX-Evil: 1")
    async with (
        no_leaks(),
        strict_server(*[Act(say=http(b"{}", status=404))] * len(odd)) as server,
        PiAPI(KEY, base_url=server.base_url, retry=RetryPolicy.never()) as piapi,
    ):
        for task_id in odd:
            with pytest.raises(NotFoundError):
                await piapi.fetch(task_id, family=UNIFIED)
        for task_id in (".", " .. "):  # which no quoting keeps a part of the path
            with pytest.raises(ValueError, match="not a task id"):
                await piapi.fetch(task_id, family=UNIFIED)

    paths = [received.line.split(" ")[1] for received in server.received]
    assert [path.rpartition("/")[0] for path in paths] == ["/api/v1/task"] * len(odd)
    assert not any(name == "x-evil" for received in server.received for name, _ in received.headers)


# -- what is known of a task travels ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", [*FAMILIES.values(), family_of(ImageOutput)], ids=lambda family: family.name
)
def test_a_task_and_the_errors_about_it_pickle_in_every_family(family: Family[Any]) -> None:
    task = family.read({"task_id": "t1", "status": "failed"}, TaskId("t1"))
    failure = end_error(task)
    refusal = NotFoundError("no", status=404, request=family.fetch(TaskId("t1")))
    twin, other = pickle.loads(pickle.dumps((failure, refusal)))  # noqa: S301 - our own

    assert (str(twin), twin.task, twin.task.result, twin.task.files) == (
        str(failure),
        task,
        task.result,
        task.files,
    )
    assert other.request.to_http() == family.fetch(TaskId("t1")).to_http()


# -- a request stays as it was made -------------------------------------------------------------------------------


async def test_what_becomes_of_its_makers_dict_does_not_change_a_request() -> None:
    given: dict[str, Any] = {"prompt": "", "images": [{"url": "https://h.test/a.png"}]}
    requests = []
    for number in range(3):
        given["prompt"] = f"cat {number}"
        requests.append(CreateTask("kling", "video_generation", given))
    given["images"][0]["url"] = "https://h.test/b.png"
    async with serving() as (emulator, piapi):
        handles = [await piapi.submit(request) for request in requests]
        made = [emulator.engine.tasks[handle.task_id].input for handle in handles]

    assert [task["prompt"] for task in made] == ["cat 0", "cat 1", "cat 2"]
    assert {str(task["images"]) for task in made} == {"[{'url': 'https://h.test/a.png'}]"}


def test_every_family_is_found_by_its_name_and_every_vendor_by_its_host() -> None:
    assert [family.name for family in FAMILIES.values()] == list(FAMILIES)

    services = {family.service for family in FAMILIES.values() if family.service is not None}
    at_home = [family_at(service.base_url) for service in services]
    assert {family.service for family in at_home if family is not None} == services
