"""Who is sending what: a submit under way is never taken for lost, and a lost one is not waited for without end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.ledgers import accept, identity, opened, ref, states_of
from support.processes import PATIENCE, Child, becomes_true, started
from support.serving import KEY, REROLL
from support.strict_server import Act, StrictServer, ok, strict_server

from piapi_async import Ledger, LedgerError, PiAPI, SubmissionUnknown
from piapi_async.ledger import LedgerState
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._owners import PRESUMED_ALIVE
from piapi_async.ledger._sqlite import is_held, lock_file, touch
from piapi_async.tasks import TaskId

SENDING, ACCEPTED, ENDED, UNKNOWN = LedgerState


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def locks_beside(path: Path) -> list[Path]:
    return list(path.parent.glob("*-owner-*"))


def path_of_lock(ledger: Ledger) -> Path:
    store = writer_of(ledger)._store
    return store._file._owners.path_of(store.owner)


async def let_go_of_lock(ledger: Ledger, *, keep_file: bool) -> None:
    """Have an owner's lock free, as when its process was killed, or gone."""
    await writer_of(ledger).run(lambda _: writer_of(ledger)._store._file._owners.leave(keep_file=keep_file))


async def make_older(ledger: Ledger, seconds: float) -> None:
    await writer_of(ledger).run(
        lambda connection: connection.execute("UPDATE submits SET at = at - ?", (seconds,))
    )


@asynccontextmanager
async def sending_elsewhere(path: Path) -> AsyncIterator[tuple[Child, str]]:
    """Have another process send `REROLL` under the key "k", to a host that never answers; give it and the host."""
    async with strict_server(Act(then="stall")) as server:
        program = """
            import asyncio, sys
            from support.serving import KEY, REROLL
            from piapi_async import Ledger, PiAPI

            async def main():
                async with PiAPI(KEY, base_url=sys.argv[2], ledger=Ledger(sys.argv[1])) as piapi:
                    await piapi.submit(REROLL, key="k", timeout=600)

            asyncio.run(main())
        """
        words = (sys.executable, "-c", textwrap.dedent(program), str(path), server.base_url)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with started(*words, env=environment) as process:
            await becomes_true(lambda: server.received)
            yield process, server.base_url


# -- one ledger by two names --------------------------------------------------------------------------------------


async def test_a_ledger_that_is_reached_by_a_link_has_its_lock_beside_the_file(
    path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = folder / "link.db"
    link.symlink_to(path)
    async with opened(path) as real, opened(link) as linked:
        await accept(real, "by its name")
        await accept(linked, "by the link")

        assert 2 == len(locks_beside(path))
        assert [] == locks_beside(link)
        assert not list(folder.glob("*-wal"))


@pytest.mark.parametrize("sender", ["real", "linked"])
async def test_a_submit_under_way_by_one_name_is_under_way_by_the_other(
    sender: str, path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.symlink_to(tmp_path, target_is_directory=True)
    names = {"real": path, "linked": folder / "run.db"}
    async with opened(names.pop(sender)) as mine, opened(*names.values()) as other:
        await writer_of(mine).claim(identity())

        entry = await writer_of(other).claim(identity())
        assert entry is not None
        assert entry.state is SENDING
        with pytest.raises(LedgerError, match="sending, not unknown"):
            await other.resolve("k", resubmit=True)


# -- what proves that somebody has died ---------------------------------------------------------------------------


async def test_a_missing_lock_is_no_proof_for_a_young_submit(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        await writer_of(mine).claim(identity())
        for lock in locks_beside(path):
            lock.unlink()

        assert [] == await other.unknown()
        with pytest.raises(LedgerError, match="sending, not unknown"):
            await other.resolve("k", resubmit=True)
        await writer_of(mine).accept(identity(), ref())
        assert ["k"] == [entry.key for entry in await other.pending()]


async def test_a_missing_lock_is_proof_enough_for_an_old_one(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        await writer_of(mine).claim(identity())
        for lock in locks_beside(path):
            lock.unlink()
        await make_older(other, PRESUMED_ALIVE + 1)

        assert ["k"] == [entry.key for entry in await other.unknown()]


async def test_an_owner_whose_lock_was_removed_takes_it_again(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        await writer_of(mine).claim(identity())
        for lock in locks_beside(path):
            lock.unlink()
        await mine.find("any")
        await make_older(other, PRESUMED_ALIVE + 1)

        assert [] == await other.unknown()


async def test_a_lock_that_nobody_holds_is_proof_of_any_age(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        await writer_of(mine).claim(identity("first"))
        await writer_of(mine).claim(identity("second"))
        await let_go_of_lock(mine, keep_file=True)

        assert ["first", "second"] == [entry.key for entry in await other.unknown()]


async def test_what_the_dead_have_left_is_unknown_before_their_locks_are_removed(path: Path) -> None:
    async with opened(path) as mine:
        await writer_of(mine).claim(identity())
        await let_go_of_lock(mine, keep_file=True)
        async with opened(path) as other:
            await other.find("any")

            assert 1 == len(locks_beside(path))
            assert ["k"] == [entry.key for entry in await other.unknown()]


async def test_a_ledger_that_is_closed_while_it_sends_leaves_an_unknown_submit(path: Path) -> None:
    async with opened(path) as ledger:
        await writer_of(ledger).claim(identity())

    assert [] == locks_beside(path)
    assert {"k": UNKNOWN} == await states_of(path)


async def test_a_lock_that_cannot_be_opened_is_no_proof_either(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        await writer_of(mine).claim(identity())
        await other.find("any")
        await let_go_of_lock(mine, keep_file=False)
        path_of_lock(mine).mkdir()

        assert [] == await other.unknown()
        await make_older(other, PRESUMED_ALIVE + 1)
        assert ["k"] == [entry.key for entry in await other.unknown()]


# -- waiting for another owner ------------------------------------------------------------------------------------


async def test_another_owner_is_waited_for_no_longer_than_the_time_out(path: Path) -> None:
    async with strict_server() as server, opened(path) as other:
        async with a_client(server, path) as piapi:
            await claim_for(other, piapi)
            with pytest.raises(
                LedgerError, match=r"'k' has been under way elsewhere.*within 0.3 s.*nothing was paid"
            ):
                await piapi.submit(REROLL, key="k", timeout=0.3)

        assert [] == server.received


def a_client(server: StrictServer, path: Path) -> PiAPI:
    return PiAPI(KEY, base_url=server.base_url, ledger=Ledger(path))


async def claim_for(ledger: Ledger, piapi: PiAPI) -> None:
    mine = type(identity()).of(REROLL.to_http(), key="k", origin=piapi.origin, family=REROLL.family.name)
    assert await writer_of(ledger).claim(mine) is None


async def test_whoever_waits_for_another_owner_is_told(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async._submit.claim._WORTH_A_WORD", 0.1)
    async with strict_server() as server, opened(path) as other, a_client(server, path) as piapi:
        await claim_for(other, piapi)
        with pytest.raises(LedgerError):
            await piapi.submit(REROLL, key="k", timeout=0.3)

    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "'k' has been under way elsewhere" in record.getMessage()
    assert "0.3 s at most" in record.getMessage()


@pytest.mark.storm
@pytest.mark.measured
@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be stopped there")
async def test_a_stopped_process_is_waited_for_no_longer_than_the_time_out(path: Path) -> None:
    async with sending_elsewhere(path) as (process, base_url):
        process.signal(signal.SIGSTOP)
        async with PiAPI(KEY, base_url=base_url, ledger=Ledger(path)) as piapi:
            with pytest.raises(LedgerError, match="under way elsewhere"):
                await piapi.submit(REROLL, key="k", timeout=0.2)
            process.kill()
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(REROLL, key="k", timeout=PATIENCE)


async def test_a_lock_of_a_dead_process_that_cannot_be_opened_holds_nobody_up_for_ever(path: Path) -> None:
    async with strict_server() as server, opened(path) as other:
        server.usual = ok()
        async with a_client(server, path) as piapi:
            await claim_for(other, piapi)
            await let_go_of_lock(other, keep_file=False)
            path_of_lock(other).mkdir()
            with pytest.raises(LedgerError, match="under way elsewhere"):
                await piapi.submit(REROLL, key="k", timeout=0.2)
            await make_older(other, PRESUMED_ALIVE + 1)
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(REROLL, key="k", timeout=PATIENCE)

        assert [] == server.received


async def test_a_lock_that_another_process_holds_is_told_from_one_that_nobody_does(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert is_held(lock) is None
    assert not lock.exists()
    touch(lock)
    assert is_held(lock) is False
    holder = lock_file(lock)
    assert is_held(lock) is True
    holder.close()
    assert is_held(lock) is False
    lock.write_bytes(b"no database, but long enough to be read as the beginning of one" * 20)
    assert is_held(lock) is None


async def test_a_delivery_gives_a_submission_no_task_that_another_has_or_a_refusal_has_named(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "run.db") as ledger:
        await accept(ledger, "other")
        other = await ledger.find("other")
        assert other is not None
        assert other.task_id is not None
        writer = writer_of(ledger)
        refused, again = identity("k"), identity("k")
        await writer.claim(refused)
        await writer.forget(refused, TaskId("t refused"))
        await writer.claim(again)  # its endpoint has the nonce of the submission that was refused

        given = [
            await writer.attach_task("k", one) for one in ("t refused", other.task_id, "t mine", "t late")
        ]
        entry = await ledger.find("k")

    assert [False, False, True, False] == given
    assert entry is not None
    assert (entry.task_id, entry.found) == ("t mine", "webhook")
