"""A process that is forked from one that uses a client or a ledger: it is told at once, and harms nothing."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest
from support.ledgers import accept, opened
from support.processes import ended
from support.serving import KEY, REROLL
from support.strict_server import ok, strict_server

from piapi_async import Ledger, LedgerError, PiAPI
from piapi_async.ledger._ledger import writer_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

PRELUDE = """
    import asyncio, os, sys, warnings
    from support.processes import PATIENCE
    from support.ledgers import accept, identity, opened, states_of
    from support.serving import KEY, REROLL
    from support.strict_server import ok, strict_server
    from piapi_async import Ledger, LedgerError, PiAPI, WaitTimeout
    from piapi_async.ledger._ledger import writer_of

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of fork itself, where there are threads
    path = sys.argv[1]

    def in_child(work):
        # Return what a forked process, which may end in no other way, says of its work.
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            try:
                said = work()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, str(said).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        return said

    async def told(awaitable):
        try:
            return await asyncio.wait_for(awaitable, PATIENCE / 2)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
"""


def run(program: str, path: Path) -> str:
    """Run a program in a process of its own, which forks; return what it prints."""
    done = ended(
        *(sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(program), str(path)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.code == 0, done.said
    assert "Exception ignored" not in done.said
    return done.printed


def test_a_ledger_that_was_open_raises_at_once_and_one_that_was_not_starts_afresh(tmp_path: Path) -> None:
    said = run(
        """
        async def take(ledger, key):
            await accept(ledger, key)
            await ledger.close()

        async def main():
            ledger = Ledger(path)
            await accept(ledger, "before")
            print(in_child(lambda: asyncio.run(told(writer_of(ledger).claim(identity("in the child"))))))
            print(in_child(lambda: asyncio.run(told(ledger.find("before")))))
            print(in_child(lambda: asyncio.run(told(Ledger(path).find("before")))))
            print(in_child(lambda: asyncio.run(told(ledger.close()))))
            await accept(ledger, "after")
            await ledger.close()
            print(in_child(lambda: asyncio.run(told(take(ledger, "by one that was closed")))))
            print(in_child(lambda: asyncio.run(told(take(Ledger(path), "by a new one")))))
            print(sorted(await states_of(path)))

        asyncio.run(main())
        """,
        tmp_path / "run.db",
    ).splitlines()

    assert all(line.startswith("LedgerError: ") and "forked" in line for line in said[:3]), said
    assert ["None", "None", "None", "['after', 'before', 'by a new one', 'by one that was closed']"] == said[
        3:
    ]


def test_a_client_that_was_used_raises_at_once(tmp_path: Path) -> None:
    said = run(
        """
        async def setting_out():
            server = strict_server()
            strict = await server.__aenter__()
            strict.usual = ok(b'{"task_id": "t", "status": "success", "message": "success"}')
            piapi = PiAPI(KEY, base_url=strict.base_url, ledger=Ledger(path))
            return server, strict, piapi, await piapi.submit(REROLL, key="before")

        loop = asyncio.new_event_loop()
        server, strict, piapi, handle = loop.run_until_complete(setting_out())
        for in_loop in asyncio.run, loop.run_until_complete:
            for use in (
                lambda: piapi.submit(REROLL, key="in the child"),
                lambda: handle.wait(1),
                lambda: handle.refresh(),
                lambda: handle.cancel(),
            ):
                print(in_child(lambda: in_loop(told(use()))))
            print(in_child(lambda: in_loop(told(piapi.close()))))

        loop.run_until_complete(piapi.cancel("t"))
        loop.run_until_complete(piapi.close())
        loop.run_until_complete(server.__aexit__(None, None, None))
        loop.close()
        print(len(strict.received))
        """,
        tmp_path / "run.db",
    ).splitlines()

    told = [*said[:4], *said[5:9]]
    assert all(line.startswith("RuntimeError: ") and "forked" in line for line in told), said
    assert ["None", "None", "2"] == [said[4], said[9], said[10]]


@pytest.mark.storm
def test_a_client_that_was_not_used_works_in_the_child(tmp_path: Path) -> None:
    said = run(
        """
        async def work(piapi):
            async with piapi:
                return (await piapi.submit(REROLL, key="k")).task_id

        async def main():
            async with strict_server() as strict:
                strict.usual = ok(b'{"task_id": "t", "status": "success", "message": "success"}')
                piapi = PiAPI(KEY, base_url=strict.base_url, ledger=Ledger(path))
                loop = asyncio.get_running_loop()
                print(await loop.run_in_executor(None, in_child, lambda: asyncio.run(told(work(piapi)))))

        asyncio.run(main())
        """,
        tmp_path / "run.db",
    ).splitlines()

    assert ["t"] == said


# What a forked process does, in this one: another id is what it goes by.


async def test_another_process_is_known_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.db"
    async with opened(path) as ledger:
        await accept(ledger, "before")
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 1)
            for inherited in (ledger, Ledger(path)):
                with pytest.raises(LedgerError, match="forked"):
                    await inherited.find("before")
            await ledger.close()
        assert await ledger.find("before") is not None
        await ledger.close()
        thread = writer_of(ledger)._thread
        assert thread is not None
        thread.shutdown()  # a forked process has no thread but its own

        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 1)
            await accept(ledger, "in the child")
            await ledger.close()


async def test_a_client_of_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ok(b'{"task_id": "t", "status": "success", "message": "success"}')
    async with strict_server() as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        server.usual = answer
        handle = await piapi.submit(REROLL)
        sessions = list(piapi._runtime.sender.transport._own.values())
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 1)
            for use in (handle.wait, handle.refresh, handle.cancel, piapi.account):
                with pytest.raises(RuntimeError, match="forked"):
                    await use()
            await piapi.close()

        assert sessions
        assert not any(session.closed for session in sessions)
