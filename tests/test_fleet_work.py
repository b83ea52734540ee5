"""One item at a worker, without the engine: what is sent, what a late, odd or missing answer comes to, what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from support.fleets import NEEDS_SQLITE, cat, empty_database, host

from piapi_async import DownloadError, PiAPI, PiAPIError, SubmissionUnknown, TaskRef
from piapi_async._submit.searching import Finding
from piapi_async.client import runtime_of
from piapi_async.emulator import Emulator, Status
from piapi_async.fleet import _codec as codec
from piapi_async.fleet._database import Database
from piapi_async.fleet._intents import Intents
from piapi_async.fleet._looking import Lookout
from piapi_async.fleet._persistence import Persistence
from piapi_async.fleet._work import Work
from piapi_async.tasks import TaskId

pytestmark = [NEEDS_SQLITE, pytest.mark.looptime]

INTENT = {"at": 1_800_000_000.0, "offset": 0.0, "hook": {"seconds": 0.0, "endpoint": None}}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(f"sqlite:///{empty_database(tmp_path)}")
    yield opened
    opened.close()


def work_of(piapi: PiAPI, database: Database, **options: Any) -> Work:
    runtime = runtime_of(piapi)
    runtime.enter()
    persistence = Persistence(runtime.events)
    parts: dict[str, Any] = {
        "intents": Intents(5.0),
        "downloads": None,
        "lookout": Lookout(runtime, database, persistence, 1.0),
        "give_up": lambda _: None,
        "home": asyncio.get_running_loop(),
    }
    return Work(runtime, database, persistence, **{**parts, **options})


@asynccontextmanager
async def at_hand(database: Database, **options: Any) -> AsyncIterator[tuple[Emulator, PiAPI, Work]]:
    async with host(durations=0.05) as (emulator, piapi):
        yield emulator, piapi, work_of(piapi, database, **options)


RECORDED = codec.decode_request(codec.encode_request(cat("one")))


async def sent(work: Work, item: str = "k#1", **intent: Any) -> dict[str, Any]:
    token = intent.pop("token", None) or work.intents.mint()
    return await work._send(item, RECORDED, {**INTENT, "token": token}, 0, INTENT["at"])  # type: ignore[arg-type]


async def test_a_worker_that_stood_still_between_its_token_and_its_post_sends_nothing_then(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [100.0]
    intents = Intents(5.0, lambda: (clock[0], 1000.0))
    async with at_hand(database, intents=intents) as (emulator, _, work):
        token = intents.mint()
        clock[0] += 5.1  # paused, and perhaps given up meanwhile
        assert await sent(work, token=token) == {"later": 0.0, "late": True}
        assert "unknown" in await sent(work, token=token)  # a token is good once
        assert not emulator.engine.tasks
        assert "ref" in await sent(work)
        assert len(emulator.engine.tasks) == 1
    [record] = [record for record in caplog.records if "too much time had passed" in record.getMessage()]
    assert vars(record)["key"] == "k"


async def test_a_response_that_names_another_item_s_task_leaves_this_one_unknown(database: Database) -> None:
    async with at_hand(database) as (emulator, piapi, work):
        named = {"code": 200, "message": "success", "data": {"task_id": "t-1", "status": "pending"}}
        emulator.fail("create", Status(200, body=named, made=False), times=1)
        assert database.take_task(TaskRef(piapi.origin, "unified", TaskId("t-1")), "other#1")
        got = await sent(work)

    error = codec.decode_error(got["unknown"], RECORDED, None)
    assert isinstance(error, SubmissionUnknown)
    assert "t-1, which belongs to another submission of this fleet" in str(error)
    assert database.task_of("k#1") is None


async def test_a_task_that_was_found_and_is_another_s_by_its_own_response_leaves_the_item_unknown(
    database: Database,
) -> None:
    async with at_hand(database) as (_, _, work):
        got = await sent(work, "b#1")
        ref = codec.decode_ref(got["ref"])
        found = {"ref": got["ref"], "found": True}
        outcome = await work._conclude("a#1", RECORDED, found)
        kept = await work._conclude("b#1", RECORDED, found)

    assert (outcome["state"], kept["state"]) == (codec.UNKNOWN, codec.DONE)
    assert "is another's by its own response" in str(outcome["error"])
    assert database.task_of("b#1") == (ref, False)


async def test_what_a_wait_or_a_save_comes_to_is_an_outcome_and_never_a_fault(database: Database) -> None:
    class FullDisk:
        async def save(self, *_: Any, **__: Any) -> None:
            raise OSError("no space left on device")

    async with at_hand(database, downloads=FullDisk()) as (_, piapi, work):
        never = TaskRef(piapi.origin, "unified", TaskId("never-heard-of"))
        lost = await work._conclude("a#1", RECORDED, {"ref": codec.encode_ref(never)})
        done = await work._conclude("b#1", RECORDED, await sent(work, "b#1"))

    assert (lost["state"], done["state"]) == (codec.FAILED, codec.DONE)
    outcome = codec.decode_outcome(done, key="b", index=0, request=cat("one"))
    assert outcome.task is not None
    assert isinstance(outcome.download_error, DownloadError)
    assert "It is done, and stays paid for" in str(outcome.download_error)


async def test_a_worker_whose_client_is_closed_begins_nothing_and_fails_nothing(database: Database) -> None:
    async with at_hand(database) as (_, piapi, work):
        await piapi.close()
        assert await sent(work) == {"later": 0.0}
        assert work._not_accepted("k#1", ValueError("no JSON"), 0, 0.0).keys() == {"refused"}
        beginning = asyncio.create_task(work._unless_draining("k#1"))
        waiting = asyncio.create_task(
            work._conclude(
                "k#1", RECORDED, {"ref": codec.encode_ref(TaskRef(piapi.origin, "unified", TaskId("t")))}
            )
        )
        for _ in range(20):
            await asyncio.sleep(0)
        assert not beginning.done()
        assert not waiting.done()
        for task in (beginning, waiting):
            task.cancel()
        await asyncio.gather(beginning, waiting, return_exceptions=True)
        assert not work.sending


async def test_a_worker_that_leaves_begins_nothing_more(database: Database) -> None:
    async with at_hand(database) as (_, _, work):
        work.draining.set()
        beginning = asyncio.create_task(work._unless_draining("k#1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not work.sending
        beginning.cancel()


async def test_a_cancellation_that_the_host_refuses_is_told_of_and_asked_for_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class Handle:
        task_id = "t-1"

        async def cancel(self) -> None:
            raise PiAPIError("task has already started")

    async with at_hand(database) as (_, _, work):
        database.ask_cancel("k#1")
        database.ask_cancel("elsewhere#1")
        work.held["k#1"] = Handle()  # type: ignore[assignment]
        await work.cancel_asked()

    assert database.cancels() == ["elsewhere#1"]
    [record] = [record for record in caplog.records if "could not be cancelled" in record.getMessage()]
    assert (vars(record)["key"], vars(record)["task_id"]) == ("k", "t-1")


async def test_a_look_into_the_history_outlives_the_database(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    class Finder:
        looks = 0

        async def look_again(self, _: Any) -> dict[str, Finding]:
            self.looks += 1
            if self.looks == 1:
                raise OperationalError("SELECT 1", {}, Exception("gone"))
            return {"k#1": Finding(is_final=self.looks == 3)}

    finder: Any = Finder()
    async with at_hand(database) as (_, _, work):
        no_later_look_helps = [await work.lookout._look_in_history(finder, "k#1") for _ in range(3)]

    assert no_later_look_helps == [False, False, True]

    assert "the look for k#1 waits for the fleet's database: gone" in caplog.text


def test_a_write_that_is_refused_is_not_repeated_and_one_of_a_process_that_ends_is_given_up() -> None:
    class Notices:
        def __init__(self) -> None:
            self.levels: list[int] = []

        def notice(self, level: int, _: str, **__: Any) -> None:
            self.levels.append(level)
            persistence.give_up.set()

    notices = Notices()
    persistence = Persistence(notices)  # type: ignore[arg-type]
    gone = OperationalError("INSERT", {}, Exception("gone"))

    def work() -> None:
        raise gone

    with pytest.raises(OperationalError):
        persistence.run(work, "task t-1")
    assert notices.levels == [logging.WARNING]
