"""A ledger's file that is moved, deleted, replaced or overwritten while it is open: nothing more is paid for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.ledgers import accept, identity, opened, ref, states_of
from support.serving import KEY, REROLL
from support.strict_server import ok, strict_server

from piapi_async import Ledger, LedgerError, PiAPI
from piapi_async.ledger import LedgerState
from piapi_async.ledger._ledger import writer_of

KEYS = [f"key {number}" for number in range(7)]
ANSWER = ok(b'{"task_id": "t", "status": "success", "message": "success"}')


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a ledger that knows seven keys, and a backup from before the last four."""
    folder = tmp_path_factory.mktemp("template")

    async def fill(*keys: str) -> None:
        async with opened(folder / "run.db") as ledger:
            await accept(ledger, *keys)

    asyncio.run(fill(*KEYS[:3]))
    shutil.copy(folder / "run.db", folder / "backup.db")
    asyncio.run(fill(*KEYS[3:]))
    return folder


@pytest.fixture
async def path(tmp_path: Path, template: Path) -> Path:
    shutil.copytree(template, tmp_path / "ledgers")
    return tmp_path / "ledgers" / "run.db"


def move_all(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    for file in path.parent.glob("run.db*"):
        file.rename(elsewhere / file.name)


def move_database(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def delete_all(path: Path) -> None:
    for file in path.parent.glob("run.db*"):
        file.unlink()


def delete_database(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    (path.parent / "backup.db").replace(path)


def replace_when_moved(path: Path) -> None:
    move_database(path)
    shutil.copy(path.parent / "backup.db", path)


def overwrite(path: Path) -> None:
    shutil.copy(path.parent / "backup.db", path)


def overwrite_with_its_times(path: Path) -> None:
    shutil.copy2(path.parent / "backup.db", path)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def delete_log(path: Path) -> None:
    path.with_name("run.db-wal").unlink()


def delete_index_of_log(path: Path) -> None:
    path.with_name("run.db-shm").unlink()


def rename_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


each_way = pytest.mark.parametrize(
    "lose",
    [
        move_all,
        move_database,
        delete_all,
        delete_database,
        replace,
        replace_when_moved,
        overwrite,
        overwrite_with_its_times,
        empty,
        delete_log,
        delete_index_of_log,
        rename_directory,
        remove_directory,
    ],
)

each_way_that_leaves_the_content = pytest.mark.parametrize(
    "lose",
    [
        move_all,
        move_database,
        delete_all,
        delete_database,
        replace,
        replace_when_moved,
        delete_log,
        delete_index_of_log,
        rename_directory,
    ],
)


@each_way
async def test_nothing_is_sent_any_more(lose: Callable[[Path], None], path: Path) -> None:
    async with strict_server() as server:
        server.usual = ANSWER
        async with PiAPI(KEY, base_url=server.base_url, ledger=Ledger(path)) as piapi:
            await piapi.submit(REROLL, key="first")
            lose(path)
            for key in ("second", KEYS[0], "third"):
                with pytest.raises(LedgerError, match=r"in use.*Nothing was sent, nothing was paid"):
                    await piapi.submit(REROLL, key=key)

        assert 1 == len(server.received)


@each_way_that_leaves_the_content
async def test_what_was_recorded_is_in_the_file_that_the_error_names(lose: Callable[[Path], None], path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "late")
        lose(path)
        with pytest.raises(LedgerError) as caught:
            await writer_of(ledger).claim(identity("next"))
        with pytest.raises(LedgerError) as again:
            await ledger.find("late")

    assert str(caught.value) == str(again.value)
    named = re.search(r"All that was recorded is in ([^:,]+?)(?:, where it is now)?(?::|\. Then)", str(caught.value))
    assert named is not None, str(caught.value)
    assert dict.fromkeys([*KEYS, "late"], LedgerState.ACCEPTED) == await states_of(Path(named[1]))


@each_way_that_leaves_the_content
async def test_where_the_system_keeps_no_names_of_open_files_a_copy_is_made(
    lose: Callable[[Path], None], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async.ledger._place._OPEN_FILES", tmp_path / "none")
    async with opened(path) as ledger:
        await accept(ledger, "late")
        lose(path)
        for _ in range(2):
            with pytest.raises(LedgerError) as caught:
                await writer_of(ledger).claim(identity("next"))

    if lose is rename_directory:
        assert "still holds the file" in str(caught.value)
        return
    (saved,) = path.parent.glob("run.db-saved-*")
    assert f"is in {saved}: put that in its place" in str(caught.value)
    assert dict.fromkeys([*KEYS, "late"], LedgerState.ACCEPTED) == await states_of(saved)


async def test_a_file_that_is_moved_in_the_midst_of_a_transaction_is_noticed_before_it_ends(path: Path) -> None:
    async with opened(path) as ledger:
        claimed = asyncio.ensure_future(writer_of(ledger).claim(identity("next")))
        moved = asyncio.ensure_future(writer_of(ledger).run(lambda _: move_database(path)))
        for work in claimed, moved:
            with pytest.raises(LedgerError, match="moved or deleted"):
                await work

    assert set(KEYS) == set(await states_of(path.with_name("elsewhere.db")))


@pytest.mark.parametrize("lose", [move_database, rename_directory])
async def test_a_file_that_is_put_back_is_used_again(lose: Callable[[Path], None], path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "late")
        lose(path)
        with pytest.raises(LedgerError, match="moved or deleted"):
            await writer_of(ledger).claim(identity("next"))
        if lose is move_database:
            path.with_name("elsewhere.db").rename(path)
        else:
            path.parent.with_name("renamed").rename(path.parent)
        await accept(ledger, "later")

    assert {*KEYS, "late", "later"} == set(await states_of(path))


async def test_where_nothing_can_be_saved_the_error_says_who_holds_the_file(path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "late")
        remove_directory(path)
        with pytest.raises(LedgerError, match=rf"process {os.getpid()} still holds the file"):
            await writer_of(ledger).claim(identity("next"))


async def test_an_id_that_arrives_when_the_file_has_gone_is_on_the_error(path: Path) -> None:
    async with opened(path) as ledger:
        mine = identity("late")
        await writer_of(ledger).claim(mine)
        delete_all(path)
        with pytest.raises(LedgerError, match="moved or deleted") as caught:
            await writer_of(ledger).accept(mine, ref("paid"))

    assert ref("paid") == caught.value.ref


async def test_a_link_that_is_led_to_another_file_is_noticed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "current.db"
    link.symlink_to(path)
    async with opened(link) as ledger:
        await accept(ledger, "late")
        link.unlink()
        link.symlink_to(path.parent / "backup.db")
        with pytest.raises(LedgerError, match="replaced by another file"):
            await writer_of(ledger).claim(identity("next"))

    assert "late" in await states_of(path)


def cut_off(path: Path) -> None:
    os.truncate(path, 4096)


def fill_with_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(path.stat().st_size - 4096))


@pytest.mark.parametrize("spoil", [cut_off, fill_with_zeros])
async def test_an_overwriting_is_noticed_though_another_ledger_has_written_meanwhile(
    spoil: Callable[[Path], None], path: Path
) -> None:
    async with opened(path) as ledger:
        await asyncio.gather(*(accept(ledger, f"of many {number}") for number in range(200)))
    async with opened(path) as mine, opened(path) as other:
        await mine.find("any")
        await accept(other, "theirs")
        spoil(path)
        with pytest.raises(LedgerError, match="overwritten"):
            await writer_of(mine).claim(identity("next"))


async def test_what_other_ledgers_write_back_is_no_overwriting(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        await accept(mine, "mine")
        await writer_of(other).run(lambda connection: connection.execute("PRAGMA wal_autocheckpoint = 1"))
        before = path.stat().st_mtime_ns
        await accept(other, "theirs")
        assert before != path.stat().st_mtime_ns

        await accept(mine, "mine again")


async def test_a_vacuum_by_hand_is_no_overwriting(path: Path) -> None:
    async with opened(path) as ledger:
        await asyncio.gather(*(accept(ledger, f"of many {number}") for number in range(200)))
        await writer_of(ledger).run(
            lambda connection: connection.execute("DELETE FROM submits WHERE key LIKE 'of many%'")
        )
    async with opened(path) as ledger:
        await accept(ledger, "before")
        length = path.stat().st_size
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as by_hand:
            by_hand.execute("VACUUM")
            by_hand.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < length
        await accept(ledger, "after")

    assert {*KEYS, "before", "after"} == set(await states_of(path))


@pytest.mark.storm
async def test_processes_that_come_and_go_on_one_ledger_take_each_other_for_no_other_program(path: Path) -> None:
    hammers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.hammering", str(path), "5"),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    told = [await hammer.communicate() for hammer in hammers]

    assert [0] * 4 == [hammer.returncode for hammer in hammers]
    assert len(KEYS) + sum(int(out) for out, _ in told) == len(await states_of(path))


async def test_a_second_name_of_the_file_is_refused(path: Path) -> None:
    second = path.with_name("second.db")
    second.hardlink_to(path)
    for name in (path, second):
        async with opened(name) as ledger:
            with pytest.raises(LedgerError, match="2 names"):
                await writer_of(ledger).claim(identity("next"))
    second.unlink()

    assert set(KEYS) == set(await states_of(path))


async def test_the_name_under_which_a_killed_process_made_the_file_is_no_second_one(path: Path) -> None:
    first = path.with_name(".run.db.0123456789abcdef.new")
    first.hardlink_to(path)

    assert set(KEYS) == set(await states_of(path))
    assert not first.exists()
