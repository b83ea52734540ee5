"""A fleet without its workers: what stands in the database, who is given up, and what may be sent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fleets import empty_database, host
from support.picture_tasks import PNG

import piapi_async.fleet as fleet_package
from piapi_async import (
    CreateTask,
    DownloadError,
    Imagine,
    InvalidRequestError,
    PiAPIError,
    RateLimitError,
    Reroll,
    SubmissionUnknown,
    TaskFailed,
    TaskRef,
    TransportError,
    WaitTimeout,
)
from piapi_async.batch import BatchItem
from piapi_async.fleet import Fleet
from piapi_async.fleet import _codec as codec
from piapi_async.fleet._database import CAN_SQLITE, Database, KeyNote, Serializer, check_url
from piapi_async.fleet._intents import Intents
from piapi_async.fleet._keys import Ranks, item_of, key_of
from piapi_async.fleet._presence import Presence, Watchlist
from piapi_async.models.flux import TextToImage
from piapi_async.tasks import TaskId
from piapi_async.unified import UNIFIED

REF = TaskRef("https://api.piapi.ai", "unified", TaskId("t-1"))
CAT = CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": "a cat"})


def task(status: str = "completed") -> Any:
    return UNIFIED.read(
        {"task_id": "t-1", "status": status, "output": {"image_url": "https://x/1.png"}}, REF.task_id
    )


def skip_without_sqlite() -> None:
    if not CAN_SQLITE:
        pytest.skip("the engine needs SQLite 3.42 on Python 3.12 and later")


# -- values ---------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(key=st.text(min_size=1), attempt=st.integers(1, 99))
def test_an_item_tells_its_key_and_attempt_whatever_the_key_has_in_it(key: str, attempt: int) -> None:
    assert key_of(item_of(key, attempt)) == (key, attempt)


def test_items_are_taken_in_the_order_in_which_they_came_however_many_came_at_once() -> None:
    times = [1_800_000_000.0] * 3 + [1_800_000_001.0, 9e18]
    ranks = Ranks(lambda: times.pop(0))
    taken = [ranks.next() for _ in range(5)]

    assert taken == sorted(taken)
    assert len({*taken}) == 5
    assert taken[3] - taken[0] == 8
    assert taken[4] == 2**31 - 1


@pytest.mark.parametrize("request_", [CAT, Reroll("p", prompt="a cat"), TextToImage(prompt="a cat")])
def test_a_request_is_what_the_host_would_have_received_and_is_named_as_its_own_class(request_: Any) -> None:
    stored = Serializer().deserialize(Serializer().serialize(codec.encode_request(request_)))
    rebuilt = codec.decode_request(stored)

    assert rebuilt.to_http() == request_.to_http()
    assert type(rebuilt).__name__ == type(request_).__name__
    assert rebuilt.family.name == request_.family.name


def test_a_worker_s_receiver_may_add_its_endpoint_where_the_protocol_has_it() -> None:
    for request_ in (CAT, Imagine("a cat")):
        with_hook: Any = evolve(request_, webhook_endpoint="https://me/hook", webhook_secret="s")
        rebuilt: Any = codec.decode_request(codec.encode_request(request_))
        addressed = evolve(rebuilt, webhook_endpoint="https://me/hook", webhook_secret="s")
        assert Serializer().deserialize(addressed.to_http().body.decode()) == Serializer().deserialize(
            with_hook.to_http().body.decode()
        )


def test_a_secret_has_no_place_in_the_database() -> None:
    with pytest.raises(ValueError, match="a secret has no place"):
        codec.encode_request(Imagine("a cat", webhook_endpoint="https://me/hook", webhook_secret="s"))


@pytest.mark.parametrize(
    "error",
    [
        TaskFailed("it failed", task=task("failed")),
        RateLimitError("slow down", status=429, message="busy", retry_after=3.0),
        SubmissionUnknown("who knows", request=CAT, at=12.5, key="k", ref=REF),
        DownloadError("no room", url="https://x/1.png", path=Path("/mnt/1.png"), status=500),
        WaitTimeout("late", ref=REF),
    ],
)
def test_an_error_comes_back_with_its_class_its_text_and_its_values(error: PiAPIError) -> None:
    back = codec.decode_error(codec.encode_error(error), CAT, task("failed"))

    assert type(back) is type(error)
    assert str(back) == str(error)
    for name, value in vars(error).items():
        if name not in ("task", "request"):
            assert getattr(back, name) == value


def test_an_error_of_a_foreign_class_is_told_as_what_it_was() -> None:
    back = codec.decode_error(codec.encode_error(KeyError("x")), CAT, None)

    assert type(back) is PiAPIError
    assert "KeyError('x')" in str(back)


def test_an_outcome_has_the_task_and_where_its_files_are() -> None:
    saved = {"https://x/1.png": "/mnt/t-1.png"}
    data = codec.encode_outcome(codec.DONE, ref=REF, task=task(), saved=saved)
    outcome = codec.decode_outcome(data, key="k", index=3, request=CAT)

    assert outcome.ok
    assert (outcome.key, outcome.index, outcome.ref) == ("k", 3, REF)
    assert outcome.files == (Path("/mnt/t-1.png"),)
    assert outcome.task is not None
    assert outcome.task.files[0].saved_as == Path("/mnt/t-1.png")
    assert codec.decode_outcome(codec.without_answer(data), key="k", index=3, request=CAT).task is None


def test_what_our_own_code_did_not_foresee_is_stored_as_text_and_not_as_a_pickle() -> None:
    stored = Serializer().serialize(ValueError("x"))

    assert stored == '{"exception":"ValueError(\'x\')"}'
    with pytest.raises(TypeError):
        Serializer().serialize(object())


# -- the right to send ----------------------------------------------------------------------------


def test_a_token_is_good_once_in_the_process_that_minted_it() -> None:
    intents, others = Intents(5.0), Intents(5.0)
    token = intents.mint()

    assert others.take(token) is None
    permit = intents.take(token)
    assert permit is not None
    assert permit.holds()
    assert intents.take(token) is None


@pytest.mark.parametrize(
    "ages", [(6.0, 0.0), (0.0, 6.0), (0.0, -1.0)], ids=["slept", "stood", "clock set back"]
)
def test_who_stood_still_by_either_clock_may_not_send(ages: tuple[float, float]) -> None:
    clocks = [100.0, 1000.0]
    intents = Intents(5.0, lambda: (clocks[0], clocks[1]))
    permit = intents.take(intents.mint())
    assert permit is not None

    clocks[0] += ages[0]
    clocks[1] += ages[1]
    assert not permit.holds()


# -- who is alive ---------------------------------------------------------------------------------


def test_only_a_counter_that_stood_still_for_a_lease_of_our_own_clock_is_given_up() -> None:
    watchlist = Watchlist(10.0)

    assert watchlist.note({"a": 1, "b": 1}, 0.0) == []
    assert watchlist.note({"a": 2, "b": 1}, 9.0) == []
    assert watchlist.note({"a": 2, "b": 1}, 10.0) == [("b", 1)]
    watchlist.start_over()
    assert watchlist.note({"a": 2, "b": 1}, 30.0) == []


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    skip_without_sqlite()
    opened = Database.open(f"sqlite:///{empty_database(tmp_path)}")
    yield opened
    opened.close()


def test_of_two_who_see_a_worker_stand_still_one_takes_over(database: Database) -> None:
    times = iter(range(100))
    one, other = (
        Presence(database, name, 8.0, clock=lambda: float(next(times))) for name in ("one", "other")
    )
    database.beat("dead")
    for _ in range(5):
        one.beat()
        other.beat()

    assert set(database.beats()) == {"one", "other"}
    assert not database.give_up_worker("dead", 0)


def test_a_task_belongs_to_one_item_and_its_own_response_wins_over_a_finding(database: Database) -> None:
    assert database.take_task(REF, "a#1", found=True)
    assert database.take_task(REF, "a#1", found=True)
    assert not database.take_task(REF, "b#1", found=True)
    assert database.take_task(REF, "b#1")
    assert not database.take_task(REF, "a#1")
    assert database.task_of("a#1") is None
    assert database.task_of("b#1") == (REF, False)
    assert database.known_tasks(REF.origin, ["t-1", "t-2"]) == {"t-1"}


def test_an_older_attempt_says_nothing_about_a_key_any_more(database: Database) -> None:
    database.note_end(KeyNote("k", 2, codec.UNKNOWN, "d"))
    database.note_end(KeyNote("k", 1, codec.REFUSED, "d"))

    assert database.notes(["k"])["k"].state == codec.UNKNOWN


@pytest.mark.parametrize("url", ["", "mysql://u:hunter2@h/db", "run.db", "sqlite://", None])
def test_a_url_that_is_no_database_s_is_refused_without_its_password(url: Any) -> None:
    with pytest.raises(ValueError, match=r"url: .* is not allowed") as caught:
        check_url(url)

    assert "hunter2" not in str(caught.value)


# -- the service's side ---------------------------------------------------------------------------


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    skip_without_sqlite()
    async with Fleet(f"sqlite:///{empty_database(tmp_path)}", poll=0.05) as opened:
        yield opened


async def test_a_key_is_one_job_and_stands_for_one_request(fleet: Fleet) -> None:
    await fleet.submit(CAT, key="k")
    await fleet.submit(CAT, key="k")
    await fleet.submit_many([BatchItem(CAT, "k"), BatchItem(CAT, "l"), BatchItem(CAT)])

    assert (await fleet.counts())["queued"] == 3
    with pytest.raises(ValueError, match="stands for another request"):
        await fleet.submit(Reroll("p"), key="k")


async def test_a_queued_job_that_is_cancelled_ends_without_a_task_and_may_be_submitted_again(
    fleet: Fleet,
) -> None:
    job = await fleet.submit(CAT, key="k")
    assert await job.cancel()
    outcome = await job.wait(10)

    assert outcome.ref is None
    assert "nothing was paid" in str(outcome.error)
    assert await job.cancel()
    assert (await fleet.counts())["cancelled"] == 1

    await fleet.submit(CAT, key="k")
    await fleet.submit(CAT, key="k")
    counts = await fleet.counts()
    assert (counts["queued"], counts["cancelled"]) == (1, 0)


async def test_a_wait_that_is_over_leaves_the_work_going(fleet: Fleet) -> None:
    job = await fleet.submit(CAT)

    with pytest.raises(WaitTimeout, match="The fleet goes on with it"):
        await job.wait(0.05)


async def test_a_file_of_this_machine_is_refused_where_it_cannot_be_uploaded(
    fleet: Fleet, tmp_path: Path
) -> None:
    request = CreateTask("m", "t", {"image": PurePath(tmp_path / "cat.png")})

    with pytest.raises(ValueError, match=r"cat.png is a file of this machine.*uploads=piapi"):
        await fleet.submit(request)


async def test_what_cannot_be_resolved_cancelled_or_pruned_says_so(fleet: Fleet) -> None:
    await fleet.submit(CAT, key="k")

    for key in ("k", "never heard of"):
        with pytest.raises(ValueError, match="is not an unknown job"):
            await fleet.resolve(key, resubmit=True)
    with pytest.raises(ValueError, match="give either"):
        await fleet.resolve("k")
    with pytest.raises(ValueError, match="is not a job of this fleet"):
        await fleet.cancel("never heard of")
    with pytest.raises(ValueError, match="has no time zone"):
        await fleet.prune(datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused
    assert await fleet.prune(datetime.now(UTC) + timedelta(days=1)) == 0
    assert await fleet.unknown() == []


async def test_a_fleet_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with Fleet"):
        await Fleet("sqlite:///nowhere.db").counts()


async def test_what_the_database_could_not_give_back_is_refused(fleet: Fleet) -> None:
    with pytest.raises(ValueError, match="extra: a fleet keeps no dict"):
        await fleet.submit_many([BatchItem(CAT, extra={"row": 7})])


async def test_what_is_no_task_s_request_is_refused(fleet: Fleet) -> None:
    with pytest.raises(TypeError, match="makes no task"):
        await fleet.submit(InvalidRequestError("x", status=400))  # type: ignore[arg-type]


def test_a_missing_engine_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dbos", None)
    monkeypatch.delitem(sys.modules, "piapi_async.fleet._worker", raising=False)

    with pytest.raises(ModuleNotFoundError, match=r"needs dbos: pip install 'piapi_async\[fleet\]'"):
        fleet_package.__getattr__("Worker")
    monkeypatch.setitem(sys.modules, "piapi_async.fleet._worker", None)
    with pytest.raises(ModuleNotFoundError, match=r"fleet\._worker"):
        fleet_package.__getattr__("Worker")  # no missing extra: a fault of ours is not explained away
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        fleet_package.__getattr__("Nonsense")


async def test_a_job_is_found_by_its_key_in_any_process_until_it_is_pruned(fleet: Fleet) -> None:
    await fleet.submit(CAT, key="k")
    found = await fleet.find("k")

    assert found is not None
    assert repr(found) == "<FleetJob k>"
    assert found.request.to_http() == CAT.to_http()
    assert await fleet.find("never heard of") is None


async def test_files_of_this_machine_are_uploaded_before_a_job_enters_the_database(tmp_path: Path) -> None:
    skip_without_sqlite()
    picture = tmp_path / "cat.png"
    picture.write_bytes(PNG)
    request = CreateTask("Qubico/flux1-dev", "img2img", {"prompt": "a cat", "image": picture})
    url = f"sqlite:///{empty_database(tmp_path)}"
    async with host() as (emulator, piapi), Fleet(url, uploads=piapi) as fleet:
        await fleet.submit(request, key="k")
        await fleet.submit(request, key="k")  # the link is another day's, the request is the same
        found = await fleet.find("k")
        assert found is not None
        [link] = {
            value for value in orjson.loads(found.request.to_http().body)["input"].values() if "http" in value
        }
        assert emulator.seen.requests["upload"] == 1
        assert link.startswith(piapi.origin)

        with pytest.raises(TransportError, match="a file could not be uploaded"):
            await fleet.submit(CreateTask("m", "t", {"image": tmp_path / "dog.png"}), key="l")
        assert (await fleet.counts())["queued"] == 1


async def test_waits_end_with_their_fleet(fleet: Fleet) -> None:
    job = await fleet.submit(CAT)
    waiting = asyncio.create_task(job.wait())
    await asyncio.sleep(0)
    await fleet.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RuntimeError, match="it is not open"):
        await job.wait()
