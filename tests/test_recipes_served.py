"""The recipes that need processes of their own: a service of several workers, and a notebook's kernel."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import nbformat
import pytest
from nbclient import NotebookClient
from support.processes import PATIENCE, started
from support.recipes import PROGRAMS
from support.threaded_emulator import call_in_thread, threaded_emulator

from piapi_async.emulator import Emulator

pytestmark = pytest.mark.storm


async def until_it_answers(url: str) -> None:
    """Wait until a server listens: a refused connection is asked for again, at the next turn of the loop."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def post(session: aiohttp.ClientSession, prompt: str, key: str) -> tuple[int, Any]:
    async with session.post("/tasks", params={"prompt": prompt}, headers={"Idempotency-Key": key}) as answer:
        if answer.status != HTTPStatus.ACCEPTED:
            return answer.status, await answer.text()
        return answer.status, await answer.json()


async def test_a_service_of_several_workers_pays_once_streams_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.py").write_text("\n".join(PROGRAMS["A service"]))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with threaded_emulator(durations=3600.0) as (emulator, host):
        base = f"http://127.0.0.1:{port}"
        for name, value in {
            "PIAPI_BASE_URL": host,
            "PIAPI_API_KEY": "emulator-key",
            "WEBHOOK_SECRET": "a secret of tests",
            "WEBHOOK_URL": f"{base}/piapi",
        }.items():
            monkeypatch.setenv(name, value)
        words = [
            "-m",
            "uvicorn",
            "service:app",
            "--workers",
            "2",
            "--port",
            str(port),
            "--log-level",
            "warning",
        ]
        with started(sys.executable, *words, cwd=tmp_path) as server:
            # so that every request may meet another worker
            connector = aiohttp.TCPConnector(force_close=True)
            async with aiohttp.ClientSession(base, connector=connector) as session, asyncio.timeout(PATIENCE):
                await until_it_answers(f"{base}/tasks/none")
                await use(emulator, session)
                _, body = await post(session, "a slow cat", "order 2")
                async with session.get(f"/tasks/{body['task_id']}/events") as stream:
                    await stream.content.readuntil(b"data: ")
                    server.signal(signal.SIGTERM)
                    assert b"event: failed" in await stream.content.read()  # a last event, and a proper end
                assert 0 == await asyncio.to_thread(server.finish)


async def use(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    answers = await asyncio.gather(*(post(session, "a cute cat", "order 1") for _ in range(8)))
    assert {202} == {status for status, _ in answers}
    [task_id] = {body["task_id"] for _, body in answers}
    assert 1 == emulator.seen.requests["imagine"]
    assert (409, "This key stands for another request.") == await post(session, "a cute dog", "order 1")

    async with session.get(f"/tasks/{task_id}") as answer:
        assert "done" != (await answer.json())["state"]
    async with session.get(f"/tasks/{task_id}/events") as stream:
        assert "text/event-stream" == stream.content_type
        await stream.content.readuntil(b"data: ")
        call_in_thread(emulator, lambda: emulator.end(task_id))
        text = (await stream.content.read()).decode()
    assert "event: done" in text

    async with session.get("/tasks/no-such-id") as answer:
        assert 404 == answer.status
    async with session.post("/piapi", json={}) as answer:
        assert 403 == answer.status


def test_a_notebook_runs_cell_by_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(code) for code in PROGRAMS["A notebook"]])
    with threaded_emulator(speed=50.0) as (_, host):
        monkeypatch.setenv("PIAPI_BASE_URL", host)
        monkeypatch.setenv("PIAPI_API_KEY", "emulator-key")
        client = NotebookClient(notebook, timeout=PATIENCE, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()

    first, second, _ = notebook.cells
    assert "<Task " in first.outputs[0].data["text/plain"]
    assert "task_id" in second.outputs[0].data["text/html"]
    assert 16 == len(list((tmp_path / "pictures").iterdir()))
