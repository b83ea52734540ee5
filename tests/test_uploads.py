"""Files that are here and must be there: what is uploaded, when, how often, where the key goes, and what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from support.picture_tasks import PNG
from support.serving import KEY, PASSING, no_leaks, now, serving, turns
from support.strict_server import Act, StrictServer, http, strict_server

from piapi_async import BatchRunner, CreateTask, Ledger, PiAPI, PollPolicy, RetryPolicy, TaskState
from piapi_async._submit.uploads import _look_at
from piapi_async.emulator import Drop, SlowFirstByte, Status
from piapi_async.errors import (
    AuthenticationError,
    ClientClosed,
    InvalidRequestError,
    SubmissionUnknown,
    TransportError,
    UnexpectedAnswer,
)
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime

UPLOADED = http(b'{"code": 200, "data": {"url": "https://img.test/1.png"}, "message": "success"}')


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    return path


def with_image(image: object, prompt: str = "a cat") -> CreateTask:
    return CreateTask("kling", "video_generation", {"prompt": prompt, "image_url": image})


def uploads(emulator: Any) -> int:
    return int(emulator.seen.requests["upload"])


def given(emulator: Any, task_id: str) -> str:
    """Give the link that a task was made with."""
    return str(emulator.engine.tasks[task_id].input["image_url"])


# -- an upload of its own -----------------------------------------------------------------------------------------


async def test_a_path_is_uploaded_under_its_own_name_and_bytes_under_one_that_is_given(cat: Path) -> None:
    async with serving() as (emulator, piapi):
        for call in (
            piapi.upload(cat),
            piapi.upload(str(cat)),
            piapi.upload(PNG, name="cat.PNG"),
            piapi.upload(bytearray(PNG), name="cat.png"),
            piapi.upload(memoryview(PNG), name="cat.png"),
        ):
            assert (await call).startswith(f"{emulator.base_url}/ephemeral/")

        assert {upload.content for upload in emulator._host.uploads.files.values()} == {PNG}
        assert uploads(emulator) == 4  # the path and its text are one file


@pytest.mark.parametrize(
    ("file", "name", "problem"),
    [
        (PNG, None, "bytes need a name"),
        (
            PNG,
            "cat.gif",
            "'cat.gif' is not allowed; it must end in one of jpeg, jpg, mp3, mp4, png, wav, webp",
        ),
        (PNG, "png", "'png' is not allowed"),
        (PNG, "", "'' is not allowed"),
        (PNG, "c" * 125 + ".png", "a name of 129 characters is not allowed; 128 at most"),
        (b"", "cat.png", "cat.png is empty"),
        (bytes(10 * 2**20 + 1), "cat.png", "10485761 bytes; the host takes 10 MiB at most"),
    ],
    ids=["no name", "suffix", "no suffix", "empty name", "long name", "empty", "large"],
)
async def test_what_the_host_would_refuse_is_not_sent(file: bytes, name: str | None, problem: str) -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match=problem):
            await piapi.upload(file, name=name)

        assert not emulator.seen.requests


async def test_the_largest_and_longest_that_are_allowed_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(10 * 2**20))
    async with serving() as (_, piapi):
        assert await piapi.upload(path, name="c" * 124 + ".mp4")


async def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match="1099511627776 bytes"):
            await piapi.upload(path)

        assert not emulator.seen.requests


async def test_a_file_that_cannot_be_read_is_the_errors_own(tmp_path: Path) -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(FileNotFoundError):
            await piapi.upload(tmp_path / "nope.png")

        assert not emulator.seen.requests


async def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    async with serving() as (emulator, piapi):
        for endless in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
            with pytest.raises(ValueError, match="not a regular file"):
                await piapi.upload(endless, name="cat.png")

        assert not emulator.seen.requests


async def test_a_plan_without_uploads_and_a_refused_file_are_clear_errors(cat: Path) -> None:
    async with serving(plan="free-hya") as (emulator, piapi):
        with pytest.raises(
            AuthenticationError, match=r"Upload\('cat.png'\) was refused: HTTP 403: Insufficient plan"
        ):
            await piapi.upload(cat)
        emulator.fail("upload", Status(400))
        with pytest.raises(InvalidRequestError):
            await piapi.upload(cat)

        assert uploads(emulator) == 2


@pytest.mark.parametrize("fault", PASSING, ids=str)
async def test_an_upload_whose_answer_is_lost_is_sent_again(fault: Any, cat: Path) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("upload", fault, times=2)

        assert (await piapi.upload(cat)).startswith(str(emulator.base_url))
        assert uploads(emulator) == 3


RUBBISH: list[Any] = [
    {},
    {"url": ""},
    {"url": None},
    {"url": "ftp://h/x"},
    {"url": ["https://h.test/x.png"]},
    "https://h",
]


@pytest.mark.parametrize("data", RUBBISH, ids=str)
async def test_an_answer_without_a_link_is_not_believed(data: Any, cat: Path) -> None:
    async with serving({"retry": RetryPolicy.never()}) as (emulator, piapi):
        emulator.fail(
            "upload", Status(200, body={"code": 200, "data": data, "message": "success"}), times=None
        )
        with pytest.raises(UnexpectedAnswer, match="Upload"):
            await piapi.upload(cat)
        with pytest.raises(UnexpectedAnswer, match="Nothing was submitted"):
            await piapi.submit(with_image(cat))

        assert emulator.seen.creates == 0


# -- where the key goes -------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_hosts(**options: Any) -> AsyncIterator[tuple[StrictServer, StrictServer, PiAPI]]:
    """Give a base host and an upload host, and a client of both."""
    made = http(b'{"code": 200, "data": {"task_id": "t1"}, "message": "success"}')
    async with no_leaks(), strict_server() as base, strict_server() as aside:
        base.usual, aside.usual = Act(say=made), Act(say=UPLOADED)
        upload_url = f"{aside.base_url}/put/here"
        async with PiAPI(KEY, base_url=base.base_url, upload_url=upload_url, **options) as piapi:
            yield base, aside, piapi


async def test_the_key_goes_to_the_base_origin_and_the_upload_host_and_what_is_sent_is_as_documented(
    cat: Path,
) -> None:
    async with two_hosts() as (base, aside, piapi):
        await piapi.submit(with_image(cat))

        [upload], [create] = aside.received, base.received
        assert upload.line == "POST /put/here HTTP/1.1"
        assert json.loads(upload.body) == {
            "file_name": "cat.png",
            "file_data": base64.b64encode(PNG).decode(),
        }
        assert json.loads(create.body)["input"]["image_url"] == "https://img.test/1.png"
        assert [dict(received.headers)["x-api-key"] for received in (upload, create)] == [KEY] * 2


async def test_a_redirect_of_an_upload_is_not_followed(cat: Path) -> None:
    async with two_hosts(retry=RetryPolicy.never()) as (base, aside, piapi):
        aside.usual = Act(say=http(b"", f"Location: {base.base_url}/elsewhere", status=307))
        with pytest.raises(Exception, match="Redirects are not followed"):
            await piapi.upload(cat)

        assert base.received == []


@pytest.mark.parametrize(
    "url", ["http://upload.example.org/x", "ftp://h.test", "//h.test", "https://u:p@h.test/"]
)
def test_an_upload_host_that_the_key_must_not_go_to_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="upload_url"):
        PiAPI(KEY, upload_url=url)


def test_uploads_go_beside_the_base_url_unless_that_is_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    def host_of(piapi: PiAPI) -> str:
        return piapi._runtime.uploader._sender.transport.base_url

    assert host_of(PiAPI(KEY)) == "https://upload.theapi.app/api/ephemeral_resource"
    assert host_of(PiAPI(KEY, base_url="https://h.test/")) == "https://h.test/api/ephemeral_resource"
    monkeypatch.setenv("PIAPI_UPLOAD_URL", "https://put.test/x")
    assert host_of(PiAPI(KEY)) == "https://put.test/x"
    assert host_of(PiAPI(KEY, upload_url="https://mine.test/y")) == "https://mine.test/y"


# -- each file once -----------------------------------------------------------------------------------------------


async def test_a_file_is_uploaded_once_until_it_changes_or_its_link_grows_old(cat: Path) -> None:
    async with serving() as (emulator, piapi):
        for _ in range(3):
            first = await piapi.upload(cat)
        assert uploads(emulator) == 1
        cat.write_bytes(PNG + b"more")
        second = await piapi.upload(cat)
        await piapi.upload(cat, name="dog.png")
        assert uploads(emulator) == 3
        await asyncio.sleep(13 * 3600.0)
        third = await piapi.upload(cat)

        assert len({first, second, third}) == 3
        assert uploads(emulator) == 4


async def test_a_link_that_the_host_let_live_shorter_is_not_given_again(cat: Path) -> None:
    """The clock runs from before the upload: a slow one gives no link that is older than it is thought to be."""
    async with serving({"timeout": 4 * 3600.0}) as (emulator, piapi):
        emulator.fail("upload", SlowFirstByte(3 * 3600.0))
        await piapi.upload(cat)
        await asyncio.sleep(9.5 * 3600.0)
        await piapi.upload(cat)

        assert uploads(emulator) == 2


async def test_submits_of_one_file_at_once_upload_it_once(cat: Path) -> None:
    async with serving(latency={"upload": 5.0}, concurrency=50) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(with_image(cat, str(number))) for number in range(50)])

        assert uploads(emulator) == 1
        assert emulator.seen.creates == 50
        assert len({given(emulator, handle.task_id) for handle in handles}) == 1


@pytest.mark.parametrize("leaver", [0, 1])
async def test_whoever_is_cancelled_does_not_spoil_the_upload_of_the_other(leaver: int, cat: Path) -> None:
    async with serving(latency={"upload": 5.0}) as (emulator, piapi):
        submits = [asyncio.create_task(piapi.submit(with_image(cat, str(number)))) for number in range(2)]
        await asyncio.sleep(1.0)
        submits[leaver].cancel()
        handle = await submits[1 - leaver]

        assert now() == pytest.approx(5.0, abs=0.1)
        assert (uploads(emulator), emulator.seen.creates) == (1, 1)
        assert (await handle.wait()).state is TaskState.DONE


async def test_a_failed_upload_fails_all_who_wanted_it_and_is_not_remembered(cat: Path) -> None:
    async with serving({"retry": RetryPolicy.never()}, latency={"upload": 1.0}) as (emulator, piapi):
        emulator.fail("upload", Status(400))
        outcomes = await asyncio.gather(
            *[piapi.submit(with_image(cat)) for _ in range(3)], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [InvalidRequestError] * 3
        assert [str(outcome).count("Nothing was submitted") for outcome in outcomes] == [1] * 3
        await piapi.submit(with_image(cat))

        assert (uploads(emulator), emulator.seen.creates) == (2, 1)


async def test_no_more_than_four_files_are_sent_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        path.write_bytes(PNG)
    async with serving(latency={"upload": 10.0}) as (emulator, piapi):
        began = now()
        await asyncio.gather(*[piapi.upload(path) for path in paths])

        assert now() - began == pytest.approx(30.0, abs=0.1)
        assert uploads(emulator) == 12


async def test_a_large_file_has_more_time_on_a_slow_line_than_a_small_one(tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(10 * 2**20))
    async with serving({"retry": RetryPolicy.never()}, latency={"upload": 120.0}) as (_, piapi):
        assert await piapi.upload(large)
        assert await piapi.upload(bytes(10 * 2**20), name="other.mp4")
        with pytest.raises(TransportError, match="within 30"):
            await piapi.upload(PNG, name="small.png")


async def test_many_files_are_remembered_and_no_more_than_a_thousand(tmp_path: Path) -> None:
    async with serving() as (emulator, piapi):
        for number in range(1_010):
            path = tmp_path / f"{number}.png"
            path.write_bytes(b"x")
            piapi._runtime.uploader._links[_look_at(path), path.name] = ("https://h.test/x", 1e9)
        (tmp_path / "last.png").write_bytes(b"x")
        await piapi.upload(tmp_path / "last.png")

        assert len(piapi._runtime.uploader._links) == 1_000
        assert uploads(emulator) == 1


# -- a file in a request ------------------------------------------------------------------------------------------


async def test_files_are_uploaded_before_the_submit_wherever_they_stand(cat: Path, tmp_path: Path) -> None:
    dog = tmp_path / "dog.jpg"
    dog.write_bytes(PNG)
    request = CreateTask(
        "kling",
        "effects",
        {
            "effect": "hug",
            "image_url": cat,
            "images": [cat, {"deep": (dog,)}],
            "elements": [{"image_url": dog}],
        },
    )
    async with serving(latency={"upload": 1.0}) as (emulator, piapi):
        handle = await piapi.submit(request)
        said = emulator.engine.tasks[handle.task_id].input

        assert uploads(emulator) == 2
        assert "file:" not in json.dumps(said)
        assert said["image_url"] == said["images"][0]  # type: ignore[index]  # a list
        assert request.local_files() == (cat, dog)  # as it was: it can be submitted again


async def test_a_file_that_cannot_be_uploaded_costs_nothing_and_leaves_no_row(
    tmp_path: Path, cat: Path
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    (tmp_path / "cat.gif").write_bytes(b"GIF89a")
    async with serving({"ledger": ledger, "retry": RetryPolicy.never()}) as (emulator, piapi):
        for path, reason in (
            ("nope.png", "No such file"),
            ("cat.gif", "must end in one of"),
            ("", "not a regular file"),
        ):
            with pytest.raises(TransportError, match=reason) as caught:
                await piapi.submit(with_image(tmp_path / path), key="k")
            assert not caught.value.sent
            assert "nothing was paid" in str(caught.value)
        for fault in (Status(400), Status(502), Drop(after_body=True)):
            emulator.fail("upload", fault)
            with pytest.raises(Exception, match="Nothing was submitted"):
                await piapi.submit(with_image(cat), key="k")

        assert emulator.seen.requests["task_create"] == 0
        assert [entry async for entry in ledger] == []
        assert (await piapi.submit(with_image(cat), key="k")).task_id  # the key is free


async def test_a_key_that_has_its_task_needs_no_upload_though_the_file_is_gone(
    tmp_path: Path, cat: Path
) -> None:
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}) as (emulator, piapi):
        handle = await piapi.submit(with_image(cat), key="k")
        cat.unlink()
        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as later:
            assert await later.submit(with_image(cat), key="k") == handle
            with pytest.raises(ValueError, match="another request"):
                await later.submit(with_image(cat.with_name("dog.png")), key="k")

        assert (uploads(emulator), emulator.seen.creates) == (1, 1)


async def test_a_submit_that_is_unknown_is_not_sent_again_for_a_new_link(tmp_path: Path, cat: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True))
        for _ in range(2):
            with pytest.raises(SubmissionUnknown) as caught:
                await piapi.submit(with_image(cat), key="k")
            assert caught.value.request == with_image(cat)
            await asyncio.sleep(13 * 3600.0)

        assert (uploads(emulator), emulator.seen.requests["task_create"]) == (1, 1)


async def test_a_submit_cancelled_while_its_file_is_uploaded_sends_nothing_and_frees_its_key(
    tmp_path: Path, cat: Path
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, latency={"upload": 5.0}) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(with_image(cat), key="k"))
        await asyncio.sleep(1.0)
        submit.cancel()
        await asyncio.gather(submit, return_exceptions=True)
        await asyncio.sleep(0.5)
        assert [entry async for entry in ledger] == []
        await asyncio.sleep(60.0)

        assert emulator.seen.requests["task_create"] == 0
        await piapi.submit(with_image(cat), key="k")
        assert (uploads(emulator), emulator.seen.creates) == (1, 1)  # what had begun was of use


@pytest.mark.parametrize("what", ["upload", "submit", "upload of bytes"])
async def test_close_while_uploading_ends_it_and_sends_nothing_more(what: str, cat: Path) -> None:
    async with serving(latency={"upload": 1000.0}) as (emulator, piapi):
        calls: dict[str, Any] = {
            "upload": lambda: piapi.upload(cat),
            "submit": lambda: piapi.submit(with_image(cat)),
            "upload of bytes": lambda: piapi.upload(PNG, name="cat.png"),
        }
        call = asyncio.create_task(calls[what]())
        await asyncio.sleep(1.0)
        await asyncio.wait_for(piapi.close(), 40.0)
        outcome: object = (await asyncio.gather(call, return_exceptions=True))[0]

        assert isinstance(outcome, ClientClosed), repr(outcome)
        assert emulator.seen.requests["task_create"] == 0


@pytest.mark.parametrize("step", range(0, 60, 4))
async def test_an_upload_cancelled_at_any_step_leaves_nothing(step: int, cat: Path) -> None:
    async with serving() as (emulator, piapi):
        task = asyncio.create_task(piapi.upload(cat))
        await turns(step)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(1.0)

        assert piapi._runtime.uploader._under_way == {}
        assert uploads(emulator) <= 1
        assert await piapi.upload(cat)


async def test_a_file_that_is_not_a_path_of_this_machine_is_a_path_all_the_same(cat: Path) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(with_image(PurePosixPath(str(cat))))

        assert given(emulator, handle.task_id).startswith(str(emulator.base_url))


@pytest.mark.storm
async def test_a_batch_of_many_lines_with_one_file_uploads_it_once(cat: Path) -> None:
    async with serving({"poll": PollPolicy.every(20.0)}, concurrency=100) as (emulator, piapi):
        requests = (with_image(cat, str(number)) for number in range(300))
        outcomes = await BatchRunner(piapi, concurrency=100).run(requests)

        assert all(outcome.ok for outcome in outcomes)
        assert (uploads(emulator), emulator.seen.creates) == (1, 300)


# -- the account --------------------------------------------------------------------------------------------------


async def test_the_account_tells_who_one_is_and_what_one_has() -> None:
    async with serving() as (_, piapi):
        account = await piapi.account()

        assert (account.name, account.plan) == ("emulator", "pro-hya")
        assert account.id
        assert account.equivalent_in_usd
        assert account.raw["credit_pack_info"]["total_credits"] > 0
        assert "point_remain" not in repr(account)  # of `raw`, which is long


async def test_an_account_told_in_other_words_is_read_too() -> None:
    async with serving() as (emulator, piapi):
        data = {"account_id": 7, "account_name": "me", "account_plan": "creator", "equivalent_in_usd": "1.5"}
        emulator.fail("account_info", Status(200, body={"code": 200, "data": data, "message": "success"}))
        account = await piapi.account()

        assert (account.id, account.name, account.plan, account.equivalent_in_usd) == (
            "7",
            "me",
            "creator",
            1.5,
        )


async def test_active_tasks_are_counted_by_provider() -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        assert await piapi.active_tasks() == {}
        for _ in range(3):
            await piapi.submit(CreateTask("kling", "video_generation", {"prompt": "a cat"}))
        await asyncio.sleep(10.0)
        active = await piapi.active_tasks()

        assert list(active) == ["kling"]
        counts = active["kling"]
        assert (counts.staged_count, counts.pending_count + counts.processing_count) == (2, 1)
        assert len(counts.active_tasks) == 3
        emulator.fail(
            "active_tasks", Status(200, body={"code": 200, "data": {"x": None, "y": {"pending_count": 1}}})
        )
        assert (await piapi.active_tasks())["y"].pending_count == 1


async def test_a_wrong_key_is_told_by_both() -> None:
    async with (
        serving() as (_, first),
        PiAPI("wrong", base_url=first._runtime.sender.transport.base_url) as piapi,
    ):
        for call in (piapi.account(), piapi.active_tasks(), piapi.upload(PNG, name="cat.png")):
            with pytest.raises(AuthenticationError):
                await call


async def test_what_is_pending_can_be_cancelled_by_age_and_model() -> None:
    async with serving(concurrency=1, epoch=1_700_000_000.0) as (_, piapi):
        kling = [
            await piapi.submit(CreateTask("kling", "video_generation", {"prompt": "a cat"})) for _ in range(3)
        ]
        luma = await piapi.submit(CreateTask("luma", "video_generation", {"prompt": "a cat"}))
        await asyncio.sleep(10.0)
        at = datetime.fromtimestamp(1_700_000_000 + 5, UTC)
        await piapi.cancel_pending(datetime.fromtimestamp(1_600_000_000, UTC))  # before any was made
        assert (await kling[1].refresh()).state is TaskState.WAITING
        await piapi.cancel_pending(at, "kling")

        states = [(await handle.refresh()).state for handle in (*kling, luma)]
        assert states[1:] == [TaskState.CANCELLED] * 2 + [TaskState.WAITING]
        assert not states[0].terminal  # it had begun
        await piapi.cancel_pending(at)
        assert (await luma.refresh()).state is TaskState.CANCELLED


async def test_a_time_without_a_zone_and_a_model_that_cannot_be_are_refused() -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match="created_before"):
            await piapi.cancel_pending(datetime(2025, 1, 1))  # noqa: DTZ001 - the mistake
        with pytest.raises(ValueError, match="model"):
            await piapi.cancel_pending(datetime.now(UTC), "flux")

        assert not emulator.seen.requests


async def test_closing_under_these_is_told(cat: Path) -> None:
    async with serving() as (_, piapi):
        await piapi.close()
        for call in (
            piapi.account(),
            piapi.active_tasks(),
            piapi.upload(cat),
            piapi.cancel_pending(datetime.now(UTC)),
        ):
            with pytest.raises(ClientClosed):
                await call


async def test_an_unknown_state_of_the_ledger_is_not_made_by_a_closed_upload(
    tmp_path: Path, cat: Path
) -> None:
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}, latency={"upload": 1000.0}) as (_, piapi):
        submit = asyncio.create_task(piapi.submit(with_image(cat), key="k"))
        await asyncio.sleep(1.0)
        await piapi.close()
        assert isinstance((await asyncio.gather(submit, return_exceptions=True))[0], ClientClosed)
    ledger = Ledger(path)
    states: list[LedgerState] = [entry.state async for entry in ledger]
    await ledger.close()

    assert states == []
