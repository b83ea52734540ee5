"""Connections that fall out of step: what a server says unasked, or twice, is nobody's answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import trustme
from attrs import define, field
from support.creating import http_answer, json_answer, raw_host
from support.families import CASES, FamilyCase
from support.serving import turns

from piapi_async import Ledger, PiAPI, PiAPIError, RetryPolicy, SubmissionUnknown
from piapi_async._calls.connector import SteadyConnector, SubmitConnector, has_unread
from piapi_async._submit.known_ids import KnownIds
from piapi_async.ledger import LedgerState
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime

KEY = "sk-test-5eCr3t"


def made(case: FamilyCase, task_id: str) -> bytes:
    return json_answer(200, json.loads(case.accepted.replace(b"t1", task_id.encode())))


Script = Callable[["Line", int], Awaitable[None]]


@define(eq=False)
class Line:
    """One connection of a scripted server; `requests` are the bodies that came on it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes] = field(factory=list)

    async def say(self, *answers: bytes) -> None:
        self.writer.write(b"".join(answers))
        await self.writer.drain()


@define(eq=False)
class Server:
    """Hands every request to a script, with its number over all connections."""

    script: Script
    tls: ssl.SSLContext | None = None
    lines: list[Line] = field(factory=list)
    bodies: list[bytes] = field(factory=list)
    tasks: set[asyncio.Task[None]] = field(factory=set)
    url: str = ""

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self.serve(Line(reader, writer)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, line: Line) -> None:
        self.lines.append(line)
        try:
            while True:
                head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = head.partition("content-length:")[2].partition("\r\n")[0]
                line.requests.append(await line.reader.readexactly(int(length or 0)))
                self.bodies.append(line.requests[-1])
                await self.script(line, len(self.bodies) - 1)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away, or the script had enough
        finally:
            line.writer.transport.abort()

    def later(self, seconds: float, line: Line, *answers: bytes) -> None:
        async def speak() -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(ConnectionError):
                await line.say(*answers)

        task = asyncio.get_running_loop().create_task(speak())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@asynccontextmanager
async def scripted(
    script: Callable[[Server], Script], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(lambda *_: asyncio.sleep(0), tls)
    server.script = script(server)
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in list(server.tasks):
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await listening.wait_closed()


@asynccontextmanager
async def client_of(server: Server, session: str, authority: trustme.CA) -> AsyncIterator[PiAPI]:
    """Return a client with sessions of its own, or with one of the user's."""
    known = ssl.create_default_context()
    authority.configure_trust(known)
    async with contextlib.AsyncExitStack() as stack:
        users = None
        if session == "the user's":
            connector = aiohttp.TCPConnector(ssl=known)
            users = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        piapi = await stack.enter_async_context(
            PiAPI(KEY, base_url=server.url, session=users, multi_fetch_size=1)
        )
        if users is None and server.tls is not None:  # our own sessions trust what the system trusts
            for keep_alive in (2.0, 15.0):
                own = piapi._runtime.sender.transport._open_session(keep_alive)
                assert isinstance(own.connector, SteadyConnector)
                own.connector._ssl = known
        yield piapi


@pytest.fixture
def certificate(authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return tls


every_way = pytest.mark.parametrize("way", ["plain", "TLS"])
every_session = pytest.mark.parametrize("session", ["our own", "the user's"])

UNASKED: dict[str, Callable[[bytes], bytes]] = {
    "the answer again": lambda answer: answer,
    "the half of it": lambda answer: answer[: len(answer) // 2],
    "a made-up id": lambda answer: answer.replace(b"t0", b"tX"),
    "a balancer's 408": lambda _: http_answer(408, b"<html>idle too long</html>", "Connection: close"),
    "an error of a proxy": lambda _: http_answer(502, b""),
    "one byte": lambda _: b"H",
    "noise": lambda _: b"\x00\xff" * 20,
}


# -- what is said while a connection is idle ----------------------------------------------------------------------


@pytest.mark.storm
@every_way
@every_session
@pytest.mark.parametrize("unasked", UNASKED)
async def test_what_is_said_on_an_idle_connection_is_nobodys_answer(  # noqa: PLR0917 - three tables and fixtures
    unasked: str, session: str, way: str, case: FamilyCase, certificate: ssl.SSLContext, authority: trustme.CA
) -> None:
    def script(server: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            said = made(case, f"t{number}")
            await line.say(said)
            server.later(0.05, line, UNASKED[unasked](said))

        return answer

    async with (
        scripted(script, certificate if way == "TLS" else None) as server,
        client_of(server, session, authority) as piapi,
    ):
        for number in range(4):
            assert (await piapi.submit(case.reroll("p"))).task_id == f"t{number}"
            await asyncio.sleep(0.1)

        assert [len(line.requests) for line in server.lines] == [1, 1, 1, 1]


@every_session
async def test_what_is_said_unasked_is_no_answer_to_a_fetch_either(
    session: str, authority: trustme.CA
) -> None:
    case = CASES["unified"]

    def script(server: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            said = json_answer(200, {"code": 200, "data": {"task_id": "t", "status": f"word{number}"}})
            await line.say(said)
            server.later(0.05, line, said)

        return answer

    async with scripted(script) as server, client_of(server, session, authority) as piapi:
        for number in range(4):
            assert (await piapi.fetch("t", family=case.family)).status == f"word{number}"
            await asyncio.sleep(0.1)


async def test_a_connection_that_stays_silent_is_used_again(case: FamilyCase, authority: trustme.CA) -> None:
    def script(_: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            await line.say(made(case, f"t{number}"))

        return answer

    async with scripted(script) as server, client_of(server, "our own", authority) as piapi:
        for _ in range(5):
            await piapi.submit(case.reroll("p"))

        assert [len(line.requests) for line in server.lines] == [5]


async def test_what_the_kernel_holds_unread_counts_before_the_loop_has_read_it(authority: trustme.CA) -> None:
    case = CASES["legacy"]

    def script(_: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            await line.say(made(case, f"t{number}"))

        return answer

    async with scripted(script) as server, client_of(server, "our own", authority) as piapi:
        await piapi.submit(case.reroll("p"))
        connector = piapi._runtime.sender.transport._own[2.0].connector
        assert isinstance(connector, SubmitConnector)
        ((kept, _),) = next(iter(connector._conns.values()))
        assert not has_unread(kept)
        server.lines[0].writer.transport.write(b"HTTP/1.1 200 OK\r\n")  # the loop has had no turn to read it

        assert has_unread(kept)
        assert (await piapi.submit(case.reroll("p"))).task_id == "t1"
        assert [len(line.requests) for line in server.lines] == [1, 1]


async def test_no_connection_asks_the_system_for_the_room_of_each_response(authority: trustme.CA) -> None:
    case = CASES["legacy"]

    def script(_: Server) -> Script:
        async def answer(line: Line, _: int) -> None:
            await line.say(made(case, "t0"))  # to a read as well

        return answer

    async with scripted(script) as server, client_of(server, "our own", authority) as piapi:
        await (await piapi.submit(case.reroll("p"))).refresh()
        connectors: list[Any] = [own.connector for own in piapi._runtime.sender.transport._own.values()]
        kept = [protocol for one in connectors for ((protocol, _),) in one._conns.values()]
        rooms = [protocol.transport.max_size for protocol in kept]

    assert len(rooms) == 2
    assert max(rooms) < 128 * 1024  # glibc's and musl's limit, beyond which they have it mapped


# -- what crosses the next request --------------------------------------------------------------------------------


async def test_an_answer_that_comes_again_across_the_next_request_is_not_accepted(
    case: FamilyCase, authority: trustme.CA, tmp_path: Path
) -> None:
    def script(_: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            again = [made(case, "t0")] if number == 1 else []
            await line.say(*again, made(case, f"t{number}"))

        return answer

    ledger = Ledger(tmp_path / "run.db")
    async with scripted(script) as server, PiAPI(KEY, base_url=server.url, ledger=ledger, recover=0) as piapi:
        await piapi.submit(case.reroll("p"), key="k0")
        with pytest.raises(SubmissionUnknown, match="t0, which belongs to another submission") as caught:
            await piapi.submit(case.reroll("p"), key="k1")
        for number in (2, 3):  # the connection that was out of step is gone
            assert (await piapi.submit(case.reroll("p"), key=f"k{number}")).task_id == f"t{number}"

        assert caught.value.ref == piapi.attach("t0", family=case.family).ref
        entry = await ledger.find("k1")
        assert entry is not None
        assert (entry.state, entry.task_id) == (LedgerState.UNKNOWN, None)
        assert [len(line.requests) for line in server.lines] == [2, 2]


async def test_a_busy_answer_that_comes_again_does_not_make_one_task_two(case: FamilyCase) -> None:
    busy = json_answer(429, {"message": "slow down"})

    def script(_: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            if number == 0:
                await line.say(busy)
            else:
                repeated = [busy] if len(line.requests) > 1 else []
                await line.say(*repeated, made(case, f"t{number}"))

        return answer

    async with scripted(script) as server, PiAPI(KEY, base_url=server.url) as piapi:
        assert (await piapi.submit(case.reroll("p"))).task_id == "t1"

        assert [len(line.requests) for line in server.lines] == [1, 1]


async def test_an_id_that_the_ledger_has_for_another_submission_is_not_accepted(
    case: FamilyCase, tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    async with raw_host(lambda _: made(case, "same")) as host:
        async with PiAPI(KEY, base_url=host.url, ledger=Ledger(path)) as piapi:
            await piapi.submit(case.reroll("p"), key="first")
        async with PiAPI(KEY, base_url=host.url, ledger=Ledger(path)) as piapi:
            with pytest.raises(SubmissionUnknown, match="'first'") as caught:
                await piapi.submit(case.reroll("p"), key="second")
            assert caught.value.ref is not None
            assert caught.value.ref.task_id == "same"
            ledger = Ledger(path)
            states = {entry.key: (entry.state, entry.task_id) async for entry in ledger}
            await ledger.close()

    assert states == {"first": (LedgerState.ACCEPTED, "same"), "second": (LedgerState.UNKNOWN, None)}


def test_known_ids_are_remembered_within_bounds() -> None:
    known = KnownIds()
    for number in range(50_000):
        assert known.take(TaskId(f"t{number}"))

    assert not known.take(TaskId("t49999"))
    assert not known.take(TaskId("t40001"))
    assert 10_000 <= len(known) <= 15_000


# -- a connection that is refused, given up, or closed with the client --------------------------------------------


async def test_connections_of_submissions_do_not_run_out_however_these_end(case: FamilyCase) -> None:
    answers = [
        json_answer(429, {"message": "slow down"}),
        json_answer(400, {"message": "invalid prompt"}),
        http_answer(502, b"<html>"),
        http_answer(200, b""),
        json_answer(200, {"status": "failed"}),
    ]
    async with (
        raw_host(lambda number: answers[number % len(answers)]) as host,
        PiAPI(KEY, base_url=host.url, connections=1, retry=RetryPolicy.never(), timeout=5.0) as piapi,
    ):
        for _ in range(3 * len(answers)):
            with pytest.raises(PiAPIError):
                await piapi.submit(case.reroll("p"))
        cancelled = asyncio.ensure_future(piapi.submit(case.reroll("p")))
        await turns(3)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        with pytest.raises(PiAPIError):
            await piapi.submit(case.reroll("p"))

        connector = piapi._runtime.sender.transport._own[2.0].connector
        assert isinstance(connector, SubmitConnector)
        assert not connector._unjudged
        assert not connector._acquired


# -- under fire ---------------------------------------------------------------------------------------------------


@define(eq=False)
class Fire:
    """Answers every create with an id of its own, and repeats, delays, cuts and invents at random."""

    case: FamilyCase
    random: Random
    ids: dict[str, str] = field(factory=dict)  # by the prompt that made them

    def script(self, server: Server) -> Script:
        async def answer(line: Line, number: int) -> None:
            prompt = json.loads(line.requests[-1])
            prompt = prompt.get("remixPrompt") or prompt.get("input", prompt)["prompt"]
            assert prompt not in self.ids  # nothing is paid for twice
            self.ids[prompt] = f"t{number}"
            said = made(self.case, f"t{number}")
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.random() * 0.05)
            if self.random.random() < 0.03:
                await line.say(said[: self.random.randrange(len(said))])
                raise ConnectionResetError
            await line.say(said)
            for _ in range(self.random.choice([0, 0, 0, 1, 1, 2])):
                self.shoot(server, line, said)

        return answer

    def shoot(self, server: Server, line: Line, said: bytes) -> None:
        """Say something more, now or soon: before, while or after the connection is used again."""
        unasked = self.random.choice(
            [
                *[said] * 4,
                said[: self.random.randrange(len(said))],
                http_answer(408, b"", "Connection: close"),
                json_answer(429, {"message": "slow down"}),
                json_answer(400, {"message": "invalid prompt"}),
                http_answer(502, b"<html>"),
            ]
        )
        server.later(self.random.choice([0.0, 0.0, 0.001, 0.01, 0.05]) * self.random.random(), line, unasked)


async def fire(case: FamilyCase, count: int, seed: int) -> None:
    """Submit under fire, and compare the id that each submission was given with the one that its prompt made."""
    storm = Fire(case, Random(seed))  # noqa: S311 - chance, not a secret
    wrong: list[tuple[str, str, str | None]] = []
    unknown = 0

    async def worker(numbers: range) -> None:
        nonlocal unknown
        for number in numbers:
            prompt = f"prompt {number}"
            try:
                task_id = (await piapi.submit(case.reroll("p", prompt=prompt))).task_id
            except PiAPIError:
                unknown += 1
            else:
                if storm.ids.get(prompt) != task_id:
                    wrong.append((prompt, task_id, storm.ids.get(prompt)))

    async with (
        scripted(storm.script) as server,
        PiAPI(
            KEY, base_url=server.url, connections=8, timeout=5.0, retry=RetryPolicy(initial=0.01), recover=0
        ) as piapi,
    ):
        await asyncio.gather(*(worker(range(start, count, 20)) for start in range(20)))

    assert not wrong
    assert unknown < count / 2


async def test_no_submission_is_given_the_id_of_another_under_fire(case: FamilyCase) -> None:
    await fire(case, 150, 7)


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(5))
async def test_none_of_ten_thousand_submissions_is_given_the_id_of_another_under_fire(
    seed: int, case: FamilyCase
) -> None:
    await fire(case, 1_000, seed)
