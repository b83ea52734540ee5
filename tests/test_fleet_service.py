"""The recipe of a service of several machines: the kill of a replica or of a worker, as its client sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import fleet_worker
from support.postgres import postgres
from support.processes import PATIENCE, becomes_true, started
from support.recipes import PROGRAMS
from support.threaded_emulator import end_all, threaded_emulator, unmeasured

from piapi_async.emulator import Emulator
from piapi_async.fleet._database import Database

pytestmark = pytest.mark.storm

ORDERS = {f"order {number}": f"a cute cat, number {number}" for number in range(4)}


class Client:
    """A client of the service, which goes to the next replica when one does not answer."""

    def __init__(self, session: aiohttp.ClientSession, bases: list[str]) -> None:
        self._session = session
        self.bases = bases

    async def call(self, method: str, order: str, **params: str) -> tuple[int, Any]:
        while True:
            base = self.bases[0]
            try:
                async with self._session.request(method, f"{base}/pictures/{order}", params=params) as answer:
                    return answer.status, await answer.json()
            except aiohttp.ClientConnectionError:  # gone, or not there yet
                if base == self.bases[0]:  # else another call has turned to the next one already
                    self.bases = self.bases[1:] + self.bases[:1]
                await asyncio.sleep(0.05)

    async def wait(self, order: str) -> dict[str, Any]:
        while True:
            status, body = await self.call("GET", order)
            if status == HTTPStatus.OK:
                return dict(body)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def test_its_client_sees_neither_the_kill_of_a_replica_nor_of_a_worker(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("\n".join(PROGRAMS["A service of several machines"]))
    with ExitStack() as stack:
        url = stack.enter_context(postgres())
        emulator, host = stack.enter_context(threaded_emulator(durations=3600.0))
        workers = [
            stack.enter_context(
                started(sys.executable, fleet_worker.__file__, url, host, emulator.api_key, "4")
            )
            for _ in range(2)
        ]
        ports = [free_port(), free_port()]
        replicas = {
            f"http://127.0.0.1:{port}": stack.enter_context(replica(port, url, tmp_path)) for port in ports
        }
        database = Database.open(url)
        stack.callback(database.close)
        for worker in workers:
            await asyncio.to_thread(worker.prints, "ready")

        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            client = Client(session, [*replicas])
            for order, prompt in ORDERS.items():
                assert (202, {"state": "working"}) == await client.call("PUT", order, prompt=prompt)
            assert 409 == (await client.call("PUT", "order 0", prompt="a dog"))[0]
            assert 404 == (await client.call("GET", "order 99"))[0]

            waits = [asyncio.create_task(client.wait(order)) for order in ORDERS]
            await becomes_true(lambda: all_known(emulator, host, database))
            serving = client.bases[0]  # at which all waits are
            for victim in (replicas[serving], workers[0]):
                os.kill(victim.process.pid, signal.SIGKILL)
            end_all(emulator)
            bodies = await asyncio.gather(*waits)

        assert {"done"} == {body["state"] for body in bodies}
        assert Counter(ORDERS.values()) == prompts(emulator)
        assert [-signal.SIGKILL, None] == [replicas[base].code for base in (serving, client.bases[0])]
        assert [-signal.SIGKILL, None] == [worker.code for worker in workers]


def replica(port: int, url: str, folder: Path) -> Any:
    words = (
        "-m",
        "uvicorn",
        "service:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
        "--app-dir",
        str(folder),
    )
    return started(sys.executable, *words, env={**unmeasured(), "DATABASE_URL": url})


def prompts(emulator: Emulator) -> Counter[str]:
    return Counter(str(task.given["prompt"]) for task in emulator.engine.tasks.values())


def all_known(emulator: Emulator, host: str, database: Database) -> bool:
    """Return whether every order has a task, which the fleet has written down."""
    ids = list(emulator.engine.tasks)
    return len(ids) == len(ORDERS) and database.known_tasks(host, ids) == {*ids}
