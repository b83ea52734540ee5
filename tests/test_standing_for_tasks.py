"""Whatever knows a task stands for it: a task, its handle, its ref, an entry of the ledger, an outcome, an id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.families import FamilyCase
from support.serving import serving

from piapi_async import (
    LEGACY,
    UNIFIED,
    BatchRunner,
    Imagine,
    Ledger,
    PiAPI,
    Reroll,
    Seed,
    TaskRef,
    TaskState,
    Upscale,
    download,
    legnext,
)
from piapi_async._families import FAMILIES
from piapi_async.emulator import Status
from piapi_async.models import kling, midjourney, seedance
from piapi_async.models.flux import TextToImage
from piapi_async.tasks import TaskId, check_task_id

ORIGIN = "https://api.piapi.ai"
UUID = "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10"
REF = TaskRef(ORIGIN, "unified", TaskId(UUID))


# -- requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda parent: Upscale(parent, 2).origin_task_id,
        lambda parent: Reroll(parent).origin_task_id,
        lambda parent: midjourney.Upscale(parent, 2).origin_task_id,
        lambda parent: kling.ExtendVideo(parent).origin_task_id,
        lambda parent: kling.Sound(origin_task_id=parent).origin_task_id,
        lambda parent: seedance.Video("a cat", parent_task_id=parent).parent_task_id,
        lambda parent: legnext.Reroll(parent).job_id,
    ],
)
def test_a_parent_may_be_given_as_itself_and_a_wrong_one_is_told_how(make: Any) -> None:
    assert UUID == make(REF) == make(UUID)
    for wrong in (5, {"task_id": UUID}, b"6886fc4d", object()):
        with pytest.raises(ValueError, match=r"pass task\.task_id"):
            make(wrong)


@pytest.mark.looptime
async def test_whatever_the_client_hands_out_stands_for_its_task(case: FamilyCase, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.db")
    async with serving({"ledger": ledger}) as (emulator, piapi):
        handle = await piapi.submit(case.reroll("6886fc4d"), key="a")
        [entry] = await ledger.pending()
        paths = await download(handle, tmp_path / "pictures")
        task = await piapi.fetch(handle)
        [outcome] = await BatchRunner(piapi).run([case.reroll("7")])
        other = PiAPI("other", base_url=emulator.base_url)

        assert case.files == len(paths)
        assert task.state is TaskState.DONE
        for given_ in (handle, task, entry, handle.ref, other.attach(handle.ref)):
            attached = piapi.attach(given_)
            assert attached == handle
            assert (await attached.wait()).task_id == task.task_id
            assert Upscale(given_, 1).origin_task_id == task.task_id
        assert piapi.attach(outcome).ref == outcome.ref
        await other.close()


@pytest.mark.looptime
async def test_a_client_saves_and_reads_the_files_of_whatever_stands_for_a_task(
    case: FamilyCase, tmp_path: Path
) -> None:
    async with serving({"family": case.family}) as (_, piapi):
        handle = await piapi.submit(case.reroll("6886fc4d"))  # an id and a ref are waited for
        (grid,) = await piapi.download(handle.task_id, tmp_path / "by id", grid=True)
        task = await piapi.fetch(handle)
        saved = []
        for given_ in (handle.ref, handle, task):
            saved.append([path.name for path in await piapi.download(given_, tmp_path)])
        read = await piapi.read(handle.ref, all_files=True)

    assert saved[0] == saved[1] == saved[2]
    assert case.files == len(saved[0])
    assert grid.read_bytes() in read
    assert case.files < len(read)


@pytest.mark.looptime
async def test_what_a_handle_knows_is_saved_though_the_host_has_forgotten_it(tmp_path: Path) -> None:
    async with serving({}) as (emulator, piapi):
        handle = await piapi.submit(Reroll("6886fc4d"))
        await handle.wait()
        emulator.fail("fetch", Status(404, body={"message": "task not found"}), times=100)

        assert len(await piapi.download(handle, tmp_path)) == len(await piapi.read(handle))


def test_an_error_shows_the_beginning_of_what_was_given() -> None:
    files: Any = (b"GIF89a" * 400, b"GIF89a" * 400)
    token = "A" * 9999
    makers: list[Any] = [
        lambda: Upscale(files, 2),
        lambda: check_task_id(files),
        lambda: TaskRef.from_token(token, origin=""),
    ]
    for make in makers:
        with pytest.raises((ValueError, TypeError)) as caught:
            make()
        assert len(str(caught.value)) < 300


@pytest.mark.looptime
async def test_a_handles_family_keeps_the_type_of_its_result() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(TextToImage("a cat"))
        typed = await piapi.attach(handle).wait()
        plain = await piapi.attach(handle.ref).wait()

    assert typed.result.image_url == plain.result["image_url"]


@pytest.mark.looptime
async def test_tasks_of_several_families_are_read_and_cancelled_together() -> None:
    async with serving(concurrency=1) as (_, piapi):
        running = await piapi.submit(Imagine("x"))
        handles = [await piapi.submit(request) for request in (Imagine("a cat"), TextToImage("a cat"))]
        found = await piapi.fetch_many([*handles, running.task_id, "nobody"])

        assert [*(handle.task_id for handle in handles), running.task_id, "nobody"] == list(found)
        assert [handle.ref for handle in handles] == [found[handle.task_id].ref for handle in handles]  # type: ignore[union-attr]
        assert found["nobody"] is None
        await piapi.cancel(*handles)
        tasks = await piapi.fetch_many(handles)
        assert [TaskState.CANCELLED] * 2 == [task.state for task in tasks.values() if task is not None]


async def test_a_task_of_another_host_or_family_is_refused() -> None:
    async with PiAPI("k") as piapi:
        assert UNIFIED.name == piapi.attach(REF).ref.family
        with pytest.raises(ValueError, match=r"lives at https://other\.test"):
            piapi.attach(TaskRef("https://other.test", "legacy", TaskId("a")))
        with pytest.raises(ValueError, match="'mine', which is not known here: pass family="):
            piapi.attach(TaskRef(ORIGIN, "mine", TaskId("a")))
        with pytest.raises(ValueError, match="of the family 'legacy': pass family="):
            piapi.attach(TaskRef(ORIGIN, "legacy", TaskId("a")), family=UNIFIED)
        with pytest.raises(TypeError, match=r"pass task\.task_id"):
            piapi.attach(5)  # type: ignore[call-overload]
        for wrong, told in ((5, r"pass the Task"), ("an id", r"piapi\.download"), (REF, r"piapi\.attach")):
            with pytest.raises(TypeError, match=told):
                await download(wrong, "pictures")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"pass task\.task_id"):
            await piapi.download(5, "pictures")  # type: ignore[call-overload]


def test_an_id_is_told_from_what_only_looks_like_one() -> None:
    by_hand = LEGACY.read({"status": "finished"}, TaskId(UUID))
    assert by_hand.ref is None
    assert UUID == check_task_id(REF) == check_task_id(by_hand)
    with pytest.raises(TypeError, match=r"must be a str.*pass task\.task_id"):
        check_task_id(Seed("a"))  # type: ignore[arg-type]


# -- tokens -------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([*FAMILIES, "mine"]),
    st.uuids().map(str) | st.uuids().map(lambda one: one.hex) | st.text(min_size=1, max_size=36),
)
@example("legacy", "A" * 36)
@example("unified", "é" * 12)
def test_a_token_is_short_and_gives_its_ref_back(family: str, task_id: str) -> None:
    try:
        ref = TaskRef(ORIGIN, family, check_task_id(task_id))
    except ValueError:
        return
    token = ref.to_token()

    assert ref == TaskRef.from_token(token, origin=ORIGIN)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    if task_id.isascii() and family != "mine":
        assert len(token) <= 60


@given(st.text(max_size=70) | st.binary(max_size=60).map(lambda data: data.hex()))
def test_any_other_text_is_refused_as_a_value(text: str) -> None:
    with pytest.raises(ValueError, match="no token of a task"):
        TaskRef.from_token(text, origin=ORIGIN)


def test_a_token_of_another_host_or_one_that_was_cut_off_is_refused() -> None:
    token = REF.to_token()
    for origin, given_ in [
        ("https://other.test", token),
        *((ORIGIN, token[:end]) for end in range(len(token))),
    ]:
        with pytest.raises(ValueError, match="no token of a task"):
            TaskRef.from_token(given_, origin=origin)


def test_tokens_in_old_messages_are_read_for_ever() -> None:
    legacy = TaskRef(ORIGIN, "legacy", TaskId(UUID))
    assert LEGACY_TOKEN == legacy.to_token()
    assert UNIFIED_TOKEN == REF.to_token()
    assert MINE_TOKEN == TaskRef(ORIGIN, "mine", TaskId("order 17")).to_token()


LEGACY_TOKEN = "AZchvFHd2GiG_E2dnUo7ilUrbZodLxA"
UNIFIED_TOKEN = "BWrybjGBlGiG_E2dnUo7ilUrbZodLxA"
MINE_TOKEN = "_ARtaW5l6LiwL7lqb3JkZXIgMTc"
