from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import time
import warnings
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.families import FamilyCase
from support.serving import KEY, PASSING, REROLL, TICK, after, assert_at_rest, no_leaks, now, serving, turns
from support.strict_server import Act, free_port, http, strict_server

from piapi_async import (
    LEGACY,
    UNIFIED,
    Family,
    PiAPI,
    PollPolicy,
    RetryPolicy,
    TaskHandle,
    TaskRef,
    TaskState,
    wait_all,
)
from piapi_async.emulator import Dialect, Drop, Emulator, Huge, Refuse, SlowFirstByte, Status, TaskFails, Truncated
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    InvalidRequestError,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
    TaskCancelled,
    TransportError,
)
from piapi_async.midjourney import Fetch, MultiFetch
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime


# -- making a client ----------------------------------------------------------------------------------------------


def test_a_client_is_made_without_a_loop_and_without_input_or_output() -> None:
    piapi = PiAPI(KEY)

    assert piapi.origin == "https://api.piapi.ai"
    assert piapi.attach("x").ref == TaskRef("https://api.piapi.ai", "legacy", TaskId("x"))


def test_the_environment_stands_in_for_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIAPI_API_KEY", "from-env")
    monkeypatch.setenv("PIAPI_BASE_URL", "https://env.example/")

    assert PiAPI().origin == "https://env.example"
    assert PiAPI()._caller.transport._api_key == "from-env"
    assert PiAPI("mine", base_url="https://mine.example").origin == "https://mine.example"
    assert PiAPI("mine")._caller.transport._api_key == "mine"


def test_an_empty_environment_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIAPI_API_KEY", "")
    monkeypatch.setenv("PIAPI_BASE_URL", "")

    assert PiAPI(KEY).origin == "https://api.piapi.ai"
    with pytest.raises(ValueError, match="PIAPI_API_KEY"):
        PiAPI()


def test_a_bad_environment_is_refused_like_a_bad_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIAPI_BASE_URL", "http://api.piapi.example")

    with pytest.raises(ValueError, match="base_url"):
        PiAPI(KEY)
    assert PiAPI(KEY, allow_insecure=True).origin == "http://api.piapi.example"


@pytest.mark.parametrize("name", ["timeout", "connections", "multi_fetch_size"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_numbers_that_make_no_sense_are_refused_by_name(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=name):
        PiAPI(KEY, **options)


@pytest.mark.parametrize("name", ["connections", "multi_fetch_size"])
@pytest.mark.parametrize("value", [2.5, 20.0, math.inf, "20", None])
def test_what_is_counted_is_a_whole_number(name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=f"{name}: .* is not allowed; it must be a whole number above 0"):
        PiAPI(KEY, **options)


@pytest.mark.parametrize("rate_limit", [(0, 1.0), (5, 0.0), (-1, 1.0), (5, -1.0)])
def test_a_rate_that_makes_no_sense_is_refused(rate_limit: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="TokenBucket"):
        PiAPI(KEY, rate_limit=rate_limit)


def test_a_repr_counts_and_holds_no_key() -> None:
    assert repr(PiAPI(KEY)) == "<PiAPI https://api.piapi.ai: 0 waiting, 0 submitting>"
    assert KEY not in repr(PiAPI(KEY, base_url="https://x.example"))


def test_a_client_that_was_never_used_needs_no_closing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PiAPI(KEY)
        with pytest.raises(ValueError, match="timeout"):
            PiAPI(KEY, timeout=0)
        gc.collect()


# -- submitting ---------------------------------------------------------------------------------------------------


async def test_a_submit_gives_the_handle_of_the_task_it_made() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)

        made = emulator.task(handle.task_id)
        assert made is not None
        assert (made.verb, made.origin, made.prompt) == ("reroll", REROLL.origin_task_id, "a cute cat")
        assert handle.task is None
        assert handle.error is None
        assert handle.ref == TaskRef(piapi.origin, "legacy", TaskId(handle.task_id))
        assert emulator.seen.requests == {"reroll": 1}


BUSY = ["No available bot", "the bot is inactive", "server overloaded", "rate limit reached", "Too many requests"]


@pytest.mark.parametrize(
    "fault",
    [
        Status(429),
        Status(429, body=""),
        Status(429, retry_after=3),
        Status(429, retry_after="soon"),
        Status(429, retry_after=-5),
        *(Status(400, body={"message": text}) for text in BUSY),
        Status(409, body={"message": "no available bot"}),
        Refuse(2.0),
    ],
    ids=str,
)
async def test_a_submit_that_certainly_made_nothing_is_repeated(fault: Any, case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", fault)

        await piapi.submit(case.reroll("p"))

        assert emulator.seen.creates == 1
        assert emulator.seen.requests[case.create] == (1 if isinstance(fault, Refuse) else 2)


RAISED: list[tuple[Any, type[APIError]]] = [
    (Status(400), InvalidRequestError),
    (Status(422, body={"message": "prompt: required"}), InvalidRequestError),
    (Status(400, body={"message": "derive from origin task: parent task is outdated"}), ParentOutdatedError),
    (Status(400, body={"message": "derive from origin task: parent task not found"}), NotFoundError),
    (Status(401), AuthenticationError),
    (Status(403, body=""), AuthenticationError),
    (Status(404, body="<html>"), NotFoundError),
    (Status(402, body={"message": "no credit"}), APIError),
    (Status(409, body=""), APIError),
    (Status(302, body=""), APIError),
    (Status(500), ServerError),
    (Status(500, body={"status": "failed"}), ServerError),
    (Status(503, body={"message": "service unavailable"}), ServerError),
    (Status(502, body={"status": "failed", "message": "bad day"}), ServerError),
    (Status(200, body={"task_id": "", "status": "failed", "message": "banned prompt words: x"}), APIError),
    (Status(200, body={"status": "failed"}), APIError),
    (Status(200, body={"success": False}), APIError),
    (Status(200, body={"success": False, "message": "no credit"}), APIError),
    (Status(200, body={"message": "no credit"}), APIError),
]


@pytest.mark.parametrize(("fault", "kind"), RAISED, ids=str)
async def test_a_submit_that_was_refused_is_raised_and_not_repeated(
    fault: Any, kind: type[APIError], case: FamilyCase
) -> None:
    request = case.reroll("p")
    async with serving() as (emulator, piapi):
        emulator.fail("create", fault, times=None)

        with pytest.raises(kind) as caught:
            await piapi.submit(request)

        assert type(caught.value) is kind
        assert caught.value.status == fault.status
        assert caught.value.request is request
        gateways = fault.status == 503
        assert ("a task may exist" if gateways else "nothing was paid") in str(caught.value)
        assert emulator.seen.requests[case.create] == 1
        assert emulator.seen.creates == 0


UNKNOWN: list[Any] = [
    Drop(before_body=True),
    Drop(after_body=True),
    Drop(after_body=True, made=False),
    Drop(inside_answer=True),
    SlowFirstByte(100.0),
    Status(408),
    Status(408, made=True),
    Status(502),
    Status(503),
    Status(504, made=True),
    Status(500, body=""),
    Status(500, body="<html>"),
    Status(520, body="<html>"),
    Status(500, body={}),
    Status(500, body={"message": ""}),
    Status(500, body={"message": "timeout"}),
    Status(500, body={"message": "the request timed out"}),
    Status(504, body={"message": "upstream Time-out"}),
    Status(500, body={"status": "failed", "message": "context deadline exceeded"}),
    Status(200, body=""),
    Status(200, body="<html>"),
    Status(200, body="[]"),
    Status(200, body={}),
    Status(200, body={"status": "success"}),
    Status(200, body={"task_id": "", "status": "success", "message": ""}),
    Status(200, body={"task_id": None, "status": "success"}),
    Status(204, body=""),
    Truncated(0.5),
    Truncated(0.0),
    Huge(17 * 2**20),
]


@pytest.mark.parametrize("fault", UNKNOWN, ids=str)
async def test_a_submit_that_may_have_made_a_task_is_unknown_and_never_repeated(fault: Any, case: FamilyCase) -> None:
    request = case.reroll("p")
    async with serving() as (emulator, piapi):
        emulator.fail("create", fault, times=None)
        began = time.time()

        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(request)

        error = caught.value
        assert error.request is request
        assert error.key is None
        assert began <= error.at <= time.time()
        assert isinstance(error.__cause__, PiAPIError)
        assert "may exist" in str(error)
        assert "paid" in str(error)
        assert emulator.seen.requests[case.create] == 1
        assert emulator.seen.creates <= 1
        assert_at_rest(piapi)
        await asyncio.sleep(100)  # not later either
        assert emulator.seen.requests[case.create] == 1


async def test_an_answer_with_both_an_id_and_a_message_is_an_accepted_task() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(200, body={"task_id": "t1", "status": "success", "message": "queued"}))

        assert (await piapi.submit(REROLL)).task_id == "t1"


async def test_a_host_that_stays_busy_is_given_up_after_the_policys_tries() -> None:
    async with serving({"retry": RetryPolicy(attempts=4)}) as (emulator, piapi):
        emulator.fail("reroll", Status(429), times=None)

        with pytest.raises(RateLimitError):
            await piapi.submit(REROLL)

        assert emulator.seen.requests["reroll"] == 4


async def test_without_retries_every_failure_comes_at_once() -> None:
    async with serving({"retry": RetryPolicy.never()}) as (emulator, piapi):
        emulator.fail("reroll", Status(429), times=None)
        began = now()

        with pytest.raises(RateLimitError):
            await piapi.submit(REROLL)

        assert emulator.seen.requests["reroll"] == 1
        assert now() == pytest.approx(began, abs=TICK)


async def test_a_host_that_asks_for_more_time_than_the_policy_has_is_given_up_at_once() -> None:
    async with serving({"retry": RetryPolicy(total=60.0)}) as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=61), times=None)
        began = now()

        with pytest.raises(RateLimitError) as caught:
            await piapi.submit(REROLL)

        assert caught.value.retry_after == 61
        assert emulator.seen.requests["reroll"] == 1
        assert now() == pytest.approx(began, abs=TICK)


async def test_the_time_a_host_asks_for_is_never_cut_short() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=20))
        began = now()

        await piapi.submit(REROLL)

        assert 20.0 <= now() - began <= 27.0


async def test_the_time_a_host_asks_for_holds_the_whole_client() -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        emulator.fail("reroll", Status(429, retry_after=20))
        began = now()
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)

        await asyncio.gather(piapi.fetch("t1"), piapi.submit(REROLL), piapi.attach("t1").wait())

        assert now() - began >= 20.0
        assert emulator.seen.requests["fetch"] == 2
        await submit


async def test_a_pause_does_not_save_up_what_the_rate_allows() -> None:
    async with serving({"rate_limit": (1, 1.0)}) as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=60))
        ends: list[float] = []

        async def one() -> None:
            await piapi.submit(REROLL)
            ends.append(now())

        began = now()
        await asyncio.gather(*[one() for _ in range(12)])

        assert ends[0] - began >= 60.0
        assert ends[-1] - ends[0] >= 10.0


async def test_a_host_that_cannot_be_reached_is_an_error_that_says_nothing_was_sent() -> None:
    async with no_leaks(), PiAPI(KEY, base_url=f"http://127.0.0.1:{free_port()}") as piapi:
        with pytest.raises(TransportError) as caught:
            await piapi.submit(REROLL)

    assert caught.value.sent is False
    assert "Reroll" in str(caught.value)


async def test_the_time_a_submit_began_to_leave_is_told_not_the_time_it_was_asked_for() -> None:
    acts = [Act(say=http(b'{"message": "too many requests"}', status=429)), Act(then="close")]
    async with no_leaks(), strict_server(*acts) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(REROLL)

        first, second = server.received
        assert first.at < caught.value.at <= second.at


async def test_a_submit_has_a_timeout_of_its_own() -> None:
    async with serving(latency=5.0) as (_, piapi):
        began = now()
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(REROLL, timeout=2.0)
        assert now() - began == pytest.approx(2.0, abs=TICK)
        await asyncio.sleep(5.0)


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan])
async def test_a_timeout_that_bounds_nothing_is_refused_before_anything_is_sent(timeout: float) -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match="timeout"):
            await piapi.submit(REROLL, timeout=timeout)

        assert emulator.seen.requests == {}


async def test_a_key_needs_a_ledger() -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match="ledger"):
            await piapi.submit(REROLL, key="k")

        assert emulator.seen.requests == {}


async def test_what_makes_no_task_cannot_be_submitted() -> None:
    fetch: Any = Fetch(TaskId("x"))
    async with serving() as (emulator, piapi):
        with pytest.raises(TypeError, match="Fetch"):
            await piapi.submit(fetch)

        assert emulator.seen.requests == {}


async def test_a_hundred_submits_at_once_make_a_hundred_tasks() -> None:
    async with serving(concurrency=100) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(100)])

        assert len({handle.task_id for handle in handles}) == 100
        assert emulator.seen.creates == 100


# -- attaching, handles, refs -------------------------------------------------------------------------------------


async def test_a_task_is_taken_up_again_by_its_id_or_its_ref_and_nobody_is_asked() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        by_id, by_ref = piapi.attach(f"  {handle.task_id}\n"), piapi.attach(handle.ref)
        by_text = piapi.attach(TaskRef.from_json(handle.ref.to_json()))

        assert emulator.seen.requests == {"reroll": 1}
        assert by_id == by_ref == by_text == handle
        assert len({by_id, by_ref, by_text, handle}) == 1
        assert (await by_ref.wait()).task_id == handle.task_id


def test_a_ref_of_another_host_or_family_is_refused() -> None:
    piapi, other = PiAPI(KEY, base_url="https://a.example"), PiAPI(KEY, base_url="https://b.example")
    unified: Family[Any] = attrs.evolve(LEGACY, name="unified", fetch_many=None)

    with pytest.raises(ValueError, match=r"b\.example"):
        piapi.attach(other.attach("x").ref)
    with pytest.raises(ValueError, match="unified"):
        piapi.attach(piapi.attach("x", family=unified).ref)
    assert piapi.attach(piapi.attach("x", family=unified).ref, family=unified).task_id == "x"


@pytest.mark.parametrize("task_id", ["", "  ", "\n"])
def test_an_empty_id_is_refused(task_id: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        PiAPI(KEY).attach(task_id)


@pytest.mark.parametrize("task_id", [None, 5, b"x"])
def test_an_id_that_is_no_text_is_refused(task_id: Any) -> None:
    with pytest.raises(TypeError):
        PiAPI(KEY).attach(task_id)


def test_handles_are_equal_by_host_family_and_id() -> None:
    a, b = PiAPI(KEY, base_url="https://a.example"), PiAPI("another", base_url="https://a.example/v2")
    c = PiAPI(KEY, base_url="https://c.example")
    other: Family[Any] = attrs.evolve(LEGACY, name="other", fetch_many=None)

    assert a.attach("x") == b.attach("x")
    assert hash(a.attach("x")) == hash(b.attach("x"))
    assert a.attach("x") != a.attach("y")
    assert a.attach("x") != c.attach("x")
    assert a.attach("x") != a.attach("x", family=other)
    assert a.attach("x") != "x"
    assert "x" in repr(a.attach("x"))


def test_a_ref_travels_and_holds_no_key() -> None:
    ref = PiAPI(KEY).attach("x").ref

    assert pickle.loads(pickle.dumps(ref)) == ref  # noqa: S301 - our own
    assert copy.deepcopy(ref) == ref
    assert TaskRef.from_json(ref.to_json()) == ref
    assert KEY.encode() not in pickle.dumps(ref) + ref.to_json().encode()


# -- reading now --------------------------------------------------------------------------------------------------


async def test_fetch_gives_the_task_whatever_its_state(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", TaskFails("bad luck"))
        handle = await piapi.submit(case.reroll("p"))

        assert (await piapi.fetch(handle.task_id)).state in {TaskState.WAITING, TaskState.RUNNING}
        await asyncio.sleep(40)
        task = await piapi.fetch(handle.task_id)
        assert (task.state, task.error) == (TaskState.FAILED, "bad luck")


async def test_fetch_of_an_unknown_id_is_refused_at_once(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        began = now()
        with pytest.raises(NotFoundError):
            await piapi.fetch("nope", family=case.family)

        assert now() == pytest.approx(began, abs=TICK)
        assert emulator.seen.requests == {case.read: 1}


@pytest.mark.parametrize("fault", PASSING, ids=str)
async def test_a_read_is_repeated_on_faults_that_pass(fault: Any, case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        emulator.adopt("t2")
        emulator.fail("read", fault, times=2)
        emulator.fail("multi_fetch", fault, times=1)

        assert (await piapi.fetch("t1", family=case.family)).state is TaskState.DONE
        found = await piapi.fetch_many(["t1", "t2"], family=case.family)
        assert [task and task.state for task in found.values()] == [TaskState.DONE] * 2


async def test_refresh_reads_now_and_tells_the_handle() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)

        task = await handle.refresh()

        assert handle.task is task
        assert emulator.seen.requests["fetch"] == 1
        await asyncio.sleep(40)
        done = await handle.refresh()
        assert done.state is TaskState.DONE
        assert await handle.wait() is done
        assert emulator.seen.requests["fetch"] == 2


async def test_refresh_is_seen_by_its_own_handle_though_another_is_waiting() -> None:
    async with serving() as (_, piapi):
        task_id = (await piapi.submit(REROLL)).task_id
        mine, other = piapi.attach(task_id), piapi.attach(task_id)
        waiting = asyncio.create_task(other.wait())
        await asyncio.sleep(3.0)

        task = await mine.refresh()

        assert mine.task is task
        await waiting


async def test_refresh_that_finds_the_end_ends_the_waits(case: FamilyCase) -> None:
    async with serving({"poll": PollPolicy.every(1000.0)}) as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(40.0)
        began = now()

        await handle.refresh()

        assert (await waiting).state is TaskState.DONE
        assert now() == pytest.approx(began, abs=TICK)
        assert emulator.seen.requests[case.read] == 1


async def test_refresh_raises_what_fetch_raises() -> None:
    async with serving() as (_, piapi):
        with pytest.raises(NotFoundError):
            await piapi.attach("nope").refresh()


async def test_fetch_many_reads_any_number_in_chunks_and_gives_none_for_the_unknown() -> None:
    async with serving() as (emulator, piapi):
        ids = [f"t{number}" for number in range(45)]
        for task_id in ids:
            emulator.adopt(task_id)

        found = await piapi.fetch_many(["nope", *ids, "t3", " t4 "])

        assert list(found) == ["nope", *ids]
        assert found["nope"] is None
        assert all(task is not None and task.task_id == task_id for task_id, task in found.items() if task_id != "nope")
        assert emulator.seen.ids_per_request == {20: 2, 6: 1}


async def test_fetch_many_of_nothing_asks_nobody() -> None:
    async with serving() as (emulator, piapi):
        assert await piapi.fetch_many([]) == {}
        assert emulator.seen.requests == {}


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_fetch_many_of_a_host_without_multi_fetch_asks_singly_and_remembers(status: int) -> None:
    async with serving(dialect=Dialect(multi_fetch=False, multi_fetch_off_status=status)) as (emulator, piapi):
        for task_id in "abc":
            emulator.adopt(task_id)
        began = now()

        found = await piapi.fetch_many(["a", "b", "c", "nope"])
        await piapi.fetch_many(["a", "b"])

        assert [task and task.task_id for task in found.values()] == ["a", "b", "c", None]
        assert emulator.seen.requests == {"multi_fetch": 1, "fetch": 6}
        assert now() - began < 1.0


@pytest.mark.parametrize("fault", [Status(200, body="<html>"), Status(200, body={}), Truncated(0.5)], ids=str)
async def test_fetch_many_of_a_host_that_answers_nonsense_soon_asks_singly(fault: Any) -> None:
    async with serving() as (emulator, piapi):
        for task_id in "abc":
            emulator.adopt(task_id)
        emulator.fail("multi_fetch", fault, times=None)
        began = now()

        assert None not in (await piapi.fetch_many("abc")).values()
        assert None not in (await piapi.fetch_many("abc")).values()

        assert emulator.seen.requests["multi_fetch"] <= 2
        assert now() - began < 2.0


async def test_fetch_many_of_a_host_that_takes_fewer_learns_how_many() -> None:
    async with serving(dialect=Dialect(multi_fetch_max=6)) as (emulator, piapi):
        ids = [f"t{number}" for number in range(30)]
        for task_id in ids:
            emulator.adopt(task_id)

        assert None not in (await piapi.fetch_many(ids)).values()
        assert None not in (await piapi.fetch_many(ids)).values()

        assert emulator.seen.refused == {"too many task_ids: 20, at most 6": 1, "too many task_ids: 10, at most 6": 1}


async def test_fetch_many_of_a_host_that_refuses_all_for_one_that_is_unknown_finds_the_others() -> None:
    async with serving() as (emulator, piapi):
        for name in "abcdefghij":
            emulator.adopt(name)
        emulator.fail("multi_fetch", Status(400, body={"message": "task not found"}), times=None)

        found = await piapi.fetch_many(["nope", *"abcdefghij"])

        assert [None, *"abcdefghij"] == [task and task.task_id for task in found.values()]
        assert piapi._poller.book.size(LEGACY) == 20


async def test_fetch_many_with_a_wrong_key_asks_once_and_learns_nothing() -> None:
    async with (
        serving(dialect=Dialect(fetch_needs_key=True)) as (emulator, first),
        PiAPI("wrong", base_url=first._caller.transport.base_url) as piapi,
    ):
        with pytest.raises(AuthenticationError):
            await piapi.fetch_many([f"t{number}" for number in range(20)])

        assert emulator.seen.requests == {"multi_fetch": 1}
        assert piapi._poller.book.size(LEGACY) == 20


async def test_fetch_many_of_a_family_without_multi_fetch_asks_singly() -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("a")
        emulator.adopt("b")

        found = await piapi.fetch_many(["a", "nope", "b"], family=UNIFIED)

        assert [task and task.task_id for task in found.values()] == ["a", None, "b"]
        assert emulator.seen.requests == {"task_read": 3}


async def test_fetch_many_of_a_family_without_multi_fetch_asks_for_eight_at_a_time() -> None:
    async with serving(latency={"task_read": 1.0}) as (emulator, piapi):
        ids = [f"t{number}" for number in range(20)]
        for task_id in ids:
            emulator.adopt(task_id)
        began = now()

        assert ids == list(await piapi.fetch_many(ids, family=UNIFIED))

        assert now() - began == pytest.approx(3.0, abs=0.1)


async def test_fetch_many_of_a_family_without_multi_fetch_ends_with_the_first_error_and_leaves_no_task() -> None:
    async with no_leaks(), serving({"retry": RetryPolicy.never()}, latency={"task_read": 1.0}) as (emulator, piapi):
        emulator.fail("task_read", Status(502))

        with pytest.raises(ServerError):
            await piapi.fetch_many([f"t{number}" for number in range(20)], family=UNIFIED)

        assert emulator.seen.requests["task_read"] <= 8


async def test_fetch_many_of_a_family_that_leaves_ids_out_ends() -> None:
    class Forgetful(MultiFetch):
        def parse(self, response: Any, /) -> Any:
            return {task_id: task for task_id, task in super().parse(response).items() if task is not None}

    family: Family[Any] = attrs.evolve(LEGACY, name="forgetful", fetch_many=Forgetful)
    async with serving() as (emulator, piapi):
        emulator.adopt("a")
        emulator.adopt("c")

        found = await asyncio.wait_for(piapi.fetch_many(["nope", "a", "b", "c"], family=family), 100)

        assert [task and task.task_id for task in found.values()] == [None, "a", None, "c"]


async def test_cancel_takes_back_what_has_not_started(case: FamilyCase) -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        running, staged = await piapi.submit(case.reroll("p")), await piapi.submit(case.reroll("p"))
        await asyncio.sleep(10.0)

        await staged.cancel()

        with pytest.raises(TaskCancelled) as caught:
            await staged.wait()
        assert caught.value.task.state is TaskState.CANCELLED
        assert isinstance(staged.error, TaskCancelled)
        with pytest.raises(InvalidRequestError):
            await running.cancel()
        assert (await running.wait()).state is TaskState.DONE
        assert emulator.seen.requests[case.cancel] == 2


async def test_cancel_of_many_is_one_request_and_of_none_is_none() -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(4)]

        await piapi.cancel()
        assert emulator.seen.requests["cancel"] == 0
        await piapi.cancel(*[handle.task_id for handle in handles[1:]])
        assert emulator.seen.requests["cancel"] == 1
        with pytest.raises(NotFoundError):
            await piapi.cancel("nope")


# -- life ---------------------------------------------------------------------------------------------------------


async def test_a_plain_client_may_be_closed_by_another_task_and_twice() -> None:
    async with no_leaks(), Emulator(api_keys=[KEY], adopt_parents=True).run() as base_url:
        piapi = PiAPI(KEY, base_url=base_url)
        handle = await asyncio.create_task(piapi.submit(REROLL))
        await asyncio.create_task(handle.refresh())

        await asyncio.create_task(piapi.close())
        await piapi.close()

        assert "closed" in repr(piapi)


async def test_a_context_may_be_left_by_another_task_than_it_was_entered_by() -> None:
    async with no_leaks(), Emulator(api_keys=[KEY], adopt_parents=True).run() as base_url:
        piapi = PiAPI(KEY, base_url=base_url)
        await asyncio.create_task(piapi.__aenter__())
        handle = await piapi.submit(REROLL)
        await asyncio.create_task(handle.wait())

        await asyncio.create_task(piapi.__aexit__(None, None, None))


async def test_two_closes_at_once_do_no_harm() -> None:
    async with serving(latency=3.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)

        await asyncio.gather(piapi.close(), piapi.close())

        assert (await submit).task_id in emulator.machine.tasks


async def test_of_two_closes_at_once_neither_returns_before_all_is_closed() -> None:
    async with serving(latency=3.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        first = asyncio.create_task(piapi.close())
        await asyncio.sleep(0)

        await piapi.close()

        assert first.done()
        assert (await submit).task_id in emulator.machine.tasks


async def test_close_ends_every_wait(case: FamilyCase) -> None:
    async with serving(concurrency=9) as (_, piapi):
        handles = [await piapi.submit(case.reroll("p")) for _ in range(3)]
        waits = [asyncio.create_task(handle.wait()) for handle in handles]

        async def read() -> None:
            async for _ in handles[0].updates():
                pass

        reading, everything = asyncio.create_task(read()), asyncio.create_task(wait_all(handles))
        await asyncio.sleep(10.0)
        began = now()

        await piapi.close()

        outcomes = await asyncio.gather(*waits, reading, return_exceptions=True)
        several = await everything
        assert [type(outcome) for outcome in outcomes] == [ClientClosed] * 4
        assert [type(outcome) for outcome in several] == [ClientClosed] * 3
        assert len({id(outcome) for outcome in (*outcomes, *several)}) == 7
        for handle, error in zip([*handles, handles[0], *handles], [*outcomes, *several], strict=True):
            assert str(error).startswith(f"Task {handle.task_id} goes on, but this wait for it is over")
            assert "The client was closed" in str(error)
        assert now() == pytest.approx(began, abs=TICK)


async def test_close_lets_a_submit_that_has_begun_to_leave_arrive(case: FamilyCase) -> None:
    async with serving(latency=4.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(case.reroll("p")))
        await asyncio.sleep(1.0)
        began = now()

        await piapi.close()

        assert now() - began == pytest.approx(3.0, abs=0.01)
        assert (await submit).task_id in emulator.machine.tasks


async def test_close_lets_a_submit_with_a_long_timeout_of_its_own_arrive() -> None:
    async with serving(latency=45.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL, timeout=60.0))
        await asyncio.sleep(1.0)

        await piapi.close()

        assert (await submit).task_id in emulator.machine.tasks


async def test_close_waits_no_longer_than_the_timeout_for_a_submit() -> None:
    async with no_leaks(), strict_server(Act(then="stall")) as server:
        piapi = PiAPI(KEY, base_url=server.base_url, timeout=7.0)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await turns()
        began = now()

        await piapi.close()

        assert now() - began <= 7.0 + TICK
        with pytest.raises(SubmissionUnknown):
            await submit
        assert len(server.received) == 1


async def test_close_stops_a_submit_that_waits_for_another_try_and_sends_nothing_more() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=50))
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(10.0)
        began = now()

        await piapi.close()

        assert now() == pytest.approx(began, abs=TICK)
        with pytest.raises(ClientClosed):
            await submit
        await asyncio.sleep(100.0)
        assert emulator.seen.requests["reroll"] == 1
        assert emulator.seen.creates == 0


async def test_close_under_a_submit_that_is_then_put_off_sends_nothing_more_and_does_not_hang() -> None:
    async with serving(latency=2.0) as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=50))
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        began = now()

        await piapi.close()

        assert now() - began == pytest.approx(1.0, abs=0.01)
        with pytest.raises((ClientClosed, RateLimitError)):
            await submit
        assert emulator.seen.creates == 0


async def test_close_wakes_a_read_that_waits_out_a_pause() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("fetch", Status(429, retry_after=50))
        reads = [asyncio.create_task(after(seconds, piapi.fetch("x"))) for seconds in (0.0, 0.5, 0.6)]
        await asyncio.sleep(1.0)
        began = now()

        await piapi.close()

        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ClientClosed] * 3
        assert now() == pytest.approx(began, abs=TICK)


async def test_a_closed_client_sends_nothing_and_says_why() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        await piapi.close()
        sent = emulator.seen.requests.total()

        calls: list[Any] = [
            piapi.submit(REROLL),
            piapi.fetch("x"),
            piapi.fetch_many(["x", "y"]),
            piapi.cancel("x"),
            handle.wait(),
            handle.wait(timeout=0),
            handle.refresh(),
            handle.cancel(),
            anext(handle.updates()),
            piapi.__aenter__(),
        ]
        for call in calls:
            with pytest.raises(ClientClosed):
                await call
        with pytest.raises(ClientClosed, match=f"^Task {handle.task_id} goes on.*: The client is closed"):
            await handle.wait()
        assert emulator.seen.requests.total() == sent


async def test_a_client_closed_before_it_was_used_stays_closed() -> None:
    piapi = PiAPI(KEY)
    await piapi.close()
    await piapi.close()

    with pytest.raises(ClientClosed):
        await piapi.fetch("x")


async def test_a_users_session_that_is_closed_under_a_wait_ends_it() -> None:
    import aiohttp  # noqa: PLC0415 - only here

    async with serving() as (_, first):
        session = aiohttp.ClientSession()
        async with PiAPI(KEY, base_url=first._caller.transport.base_url, session=session) as piapi:
            handle = await piapi.submit(REROLL)
            waiting = asyncio.create_task(handle.wait())
            await asyncio.sleep(5.0)

            await session.close()

            with pytest.raises(ClientClosed, match="session"):
                await asyncio.wait_for(waiting, 100.0)


async def test_nothing_of_a_callers_context_reaches_the_looks() -> None:
    import contextvars  # noqa: PLC0415 - only here

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    class Nosy(Fetch):
        def to_http(self) -> Any:
            seen.append(user.get())
            return super().to_http()

    family: Family[Any] = attrs.evolve(LEGACY, name="nosy", fetch=Nosy, fetch_many=None)
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        user.set("alice")

        await piapi.attach("t1", family=family).wait()

    assert seen == ["nobody"]


def test_a_second_event_loop_is_told_so() -> None:
    async def use(piapi: PiAPI, base_url: str) -> None:
        with pytest.raises(TransportError):
            await piapi.fetch(base_url)
        await piapi.close()

    async def use_again(piapi: PiAPI, handle: TaskHandle[Any]) -> None:
        calls: list[Any] = [piapi.submit(REROLL), piapi.fetch("x"), handle.wait(), piapi.__aenter__(), piapi.close()]
        for call in calls:
            with pytest.raises(RuntimeError, match="event loop"):
                await call

    piapi = PiAPI(KEY, base_url=f"http://127.0.0.1:{free_port()}", retry=RetryPolicy.never())
    asyncio.run(use(piapi, "x"))
    asyncio.run(use_again(piapi, piapi.attach("x")))


def drop(clients: list[PiAPI]) -> None:
    clients.clear()
    gc.collect()


async def test_a_client_dropped_open_warns() -> None:
    async with Emulator(api_keys=[KEY]).run() as base_url:
        piapi = PiAPI(KEY, base_url=base_url)
        await piapi.__aenter__()

        clients = [piapi]
        del piapi
        with pytest.warns(ResourceWarning, match="close") as caught:
            drop(clients)

    assert KEY not in "".join(str(warning.message) for warning in caught)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_hundred_loops_one_after_another_leave_nothing() -> None:
    async def one() -> None:
        emulator = Emulator(api_keys=[KEY], adopt_parents=True, durations=2.0, speed=1000.0)
        async with emulator.run() as base_url, PiAPI(KEY, base_url=base_url, poll=PollPolicy.every(0.002)) as piapi:
            handle = await piapi.submit(REROLL)
            task = await handle.wait(timeout=10.0)

            assert task.state is TaskState.DONE
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(one())
        gc.collect()
        before = open_files()
        for _ in range(100):
            asyncio.run(one())
        gc.collect()

    assert open_files() == before


def test_a_loop_that_ends_under_a_wait_leaves_nothing() -> None:
    async def one() -> None:
        async with strict_server(*[Act(then="stall")] * 3) as server:
            async with PiAPI(KEY, base_url=server.base_url, timeout=0.05) as piapi:
                waits = [asyncio.create_task(piapi.attach(f"t{number}").wait()) for number in range(3)]
                await asyncio.sleep(0.01)
            for wait in waits:
                with pytest.raises(ClientClosed):
                    await wait

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(one())
        gc.collect()
