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
from support.processes import started
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
    # Renamed first, so that it is gone at once: a ledger that notices in the middle puts a file into it.
    gone = path.parent.rename(path.parent.with_name("gone"))
    shutil.rmtree(gone)


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


async def test_what_is_overwritten_in_the_middle_of_a_transaction_is_noticed_at_the_next(path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "first")
        await writer_of(ledger).run(lambda _: overwrite(path))
        with pytest.raises(LedgerError, match="overwritten"):
            await writer_of(ledger).claim(identity("second"))


@each_way_that_leaves_the_content
async def test_what_was_recorded_is_in_the_file_that_the_error_names(
    lose: Callable[[Path], None], path: Path
) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "late")
        lose(path)
        with pytest.raises(LedgerError) as caught:
            await writer_of(ledger).claim(identity("next"))
        with pytest.raises(LedgerError) as again:
            await ledger.find("late")

    assert str(caught.value) == str(again.value)
    named = re.search(
        r"All that was recorded is in ([^:,]+?)(?:, where it is now)?(?::|\. Then)", str(caught.value)
    )
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


async def test_a_file_that_is_moved_in_the_midst_of_a_transaction_is_noticed_before_it_ends(
    path: Path,
) -> None:
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


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def truncate_log(path: Path) -> None:
    os.truncate(log_of(path), 0)


def cut_log_in_the_middle(path: Path) -> None:
    os.truncate(log_of(path), log_of(path).stat().st_size // 2)


def garble_log(path: Path, content: bytes = b"x" * 40) -> None:
    with log_of(path).open("r+b") as file:
        file.write(content)


def zero_header_of_log(path: Path) -> None:
    garble_log(path, bytes(32))


def garble_salts_of_log(path: Path) -> None:
    header = log_of(path).read_bytes()[:32]
    garble_log(path, header[:16] + bytes(8) + header[24:])


def rewrite_log(path: Path) -> None:
    log_of(path).write_bytes(b"x" * 200_000)


each_way_to_damage_the_log = pytest.mark.parametrize(
    "damage",
    [truncate_log, cut_log_in_the_middle, garble_log, zero_header_of_log, garble_salts_of_log, rewrite_log],
)


@each_way_to_damage_the_log
async def test_nothing_is_sent_once_the_log_is_damaged(damage: Callable[[Path], None], path: Path) -> None:
    async with strict_server() as server:
        server.usual = ANSWER
        async with PiAPI(KEY, base_url=server.base_url, ledger=Ledger(path)) as piapi:
            await piapi.submit(REROLL, key="first")
            damage(path)
            for key in ("second", KEYS[0], "third"):
                with pytest.raises(
                    LedgerError, match=r"run\.db-wal.*in use.*Nothing was sent, nothing was paid"
                ):
                    await piapi.submit(REROLL, key=key)

        assert 1 == len(server.received)


@each_way_to_damage_the_log
async def test_a_damaged_log_is_noticed_though_another_ledger_has_written_meanwhile(
    damage: Callable[[Path], None], path: Path
) -> None:
    async with opened(path) as mine, opened(path) as other:
        await accept(mine, "mine")
        await accept(other, "theirs")
        damage(path)
        with pytest.raises(LedgerError, match=r"run\.db-wal"):
            await writer_of(mine).claim(identity("next"))


@each_way_to_damage_the_log
async def test_what_a_damaged_log_had_is_written_anew(damage: Callable[[Path], None], path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "late")
        damage(path)
        with pytest.raises(LedgerError, match=f"All that was recorded is in {re.escape(str(path))}"):
            await writer_of(ledger).claim(identity("next"))
        alone = path.with_name("as after a kill.db")
        shutil.copy(path, alone)

    assert dict.fromkeys([*KEYS, "late"], LedgerState.ACCEPTED) == await states_of(alone)
    assert not list(path.parent.glob("*-saved-*"))


@each_way_to_damage_the_log
async def test_where_the_rest_of_a_damaged_log_is_said_to_be_it_is(
    damage: Callable[[Path], None], path: Path
) -> None:
    async with opened(path) as ledger, opened(path) as other:
        await accept(ledger, *(f"late {number}" for number in range(19)))
        await accept(other, "late 19")  # and the pages that our connection remembers are out of date
        damage(path)
        with pytest.raises(LedgerError) as caught:
            await writer_of(ledger).claim(identity("next"))
        with pytest.raises(LedgerError) as again:
            await ledger.find("late 1")

    assert str(caught.value) == str(again.value)

    named = re.search(r"All that was recorded is in ([^:]+?)(?::|\. Then)", str(caught.value))
    if named is None:
        assert "may be missing" in str(caught.value)
        assert damage in {truncate_log, cut_log_in_the_middle, rewrite_log}
        return
    assert {*KEYS, *(f"late {number}" for number in range(20))} == set(await states_of(Path(named[1])))


async def test_where_a_damaged_log_cannot_be_written_anew_a_copy_is_named(path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "late")
        await writer_of(ledger).run(lambda connection: connection.execute("PRAGMA busy_timeout = 0"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM submits").fetchone()  # so that the log cannot be begun anew
            garble_log(path)
            with pytest.raises(LedgerError, match=r"put that in its place, and remove run\.db-wal"):
                await writer_of(ledger).claim(identity("next"))

    (saved,) = path.parent.glob("run.db-saved-*")
    assert dict.fromkeys([*KEYS, "late"], LedgerState.ACCEPTED) == await states_of(saved)


async def test_an_older_log_that_is_copied_over_the_present_one_is_noticed(path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, *(f"early {number}" for number in range(20)))
        older = log_of(path).read_bytes()
        checkpoint(path, "TRUNCATE")
        await accept(ledger, "late")
        log_of(path).write_bytes(older)
        with pytest.raises(LedgerError, match=r"run\.db-wal"):
            await writer_of(ledger).claim(identity("next"))


def checkpoint(path: Path, mode: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as by_hand:
        assert 0 == by_hand.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
async def test_a_log_that_another_connection_begins_anew_is_not_damaged(mode: str, path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        for number in range(3):
            await accept(mine, f"mine {number}")
            await accept(other, f"theirs {number}")
            checkpoint(path, mode)
            await mine.find("any")
            await accept(other, f"theirs again {number}")
            checkpoint(path, mode)
            await accept(other, f"theirs once more {number}")
            await accept(mine, f"mine again {number}")

    assert len(KEYS) + 15 == len(await states_of(path))


async def test_a_log_that_another_connection_cuts_off_is_not_damaged(path: Path) -> None:
    async with opened(path) as ledger:
        for number in range(3):
            await accept(ledger, f"mine {number}")
            checkpoint(path, "TRUNCATE")
            assert 0 == log_of(path).stat().st_size

    assert len(KEYS) + 3 == len(await states_of(path))


async def test_a_log_that_is_begun_anew_by_a_commit_that_fails_is_not_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async.ledger._place._full_log", lambda _: 1)  # every commit moves it, below

    def fill_and_fail(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("UPDATE submits SET answer = randomblob(100000)")
        raise sqlite3.OperationalError("database or disk is full")

    async with opened(path) as ledger:
        await writer_of(ledger).run(lambda connection: connection.execute("PRAGMA wal_autocheckpoint = 1"))
        await accept(ledger, "before")
        header = log_of(path).read_bytes()[:32]
        with pytest.raises(LedgerError, match="full"):
            await writer_of(ledger).run(fill_and_fail)
        assert header != log_of(path).read_bytes()[:32]
        await accept(ledger, "after")

    assert {*KEYS, "before", "after"} == set(await states_of(path))


async def test_a_log_that_was_damaged_when_the_ledger_was_opened_is_replaced(path: Path) -> None:
    log_of(path).write_bytes(b"x" * 5000)
    async with opened(path) as ledger:
        await ledger.find("any")
        await accept(ledger, "first")
        await accept(ledger, "second")

    assert {*KEYS, "first", "second"} == set(await states_of(path))


async def test_a_log_that_was_damaged_before_a_second_ledger_is_opened_is_noticed_by_that_too(
    path: Path,
) -> None:
    async with opened(path) as first:
        await accept(first, "mine")
        garble_log(path)
        async with opened(path) as second:
            await writer_of(second).claim(identity("theirs"))
            with pytest.raises(LedgerError, match=r"run\.db-wal"):
                await writer_of(second).claim(identity("next"))


@pytest.mark.storm
async def test_processes_that_come_and_go_on_one_ledger_take_each_other_for_no_other_program(
    path: Path,
) -> None:
    words = (sys.executable, "-m", "support.hammering", str(path), "5")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with contextlib.ExitStack() as stack:
        hammers = [stack.enter_context(started(*words, env=environment)) for _ in range(4)]
        codes = [hammer.finish() for hammer in hammers]

    assert [0] * 4 == codes, [hammer.said for hammer in hammers]
    assert len(KEYS) + sum(int(hammer.printed) for hammer in hammers) == len(await states_of(path))


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
