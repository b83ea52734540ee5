"""`piapi-async listen`, as a process: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.hooking import HEADERS, SECRET, delivery, unified
from support.processes import PATIENCE, Child, started
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, Reroll
from piapi_async.cli import cli
from piapi_async.webhooks._event import MAX_BYTES

PARENT = "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10"


@contextmanager
def listener(*words: str, **environment: str) -> Iterator[tuple[Child, int]]:
    """Give the command as a process, and the port that it says it listens at; it is gone after the block."""
    command = (sys.executable, "-m", "piapi_async", "listen", "--port", "0", *words)
    with started(*command, env={**os.environ, **environment}) as process:
        found = process.says(r"\AListening at http://\S+:(\d+)/ for deliveries that carry the secret\.\n")
        yield process, int(found[1])


def stop(process: Child, kind: signal.Signals = signal.SIGINT) -> tuple[list[str], list[str]]:
    """Interrupt it; give the lines on stdout and on stderr."""
    process.signal(kind)
    assert process.finish() == 130
    assert "Traceback" not in process.said
    assert SECRET not in process.printed + process.said
    return process.printed.splitlines(), process.said.splitlines()


def post(port: int, body: bytes, headers: dict[str, str], path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def run(*words: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["listen", *words], env={"PIAPI_WEBHOOK_SECRET": None, **environment})
    return result.exit_code, result.stderr


def test_deliveries_are_json_lines_and_what_is_rejected_is_said_on_stderr() -> None:
    echo = {"webhook_config": {"endpoint": "https://bot.example.org/", "secret": SECRET}}
    with listener(PIAPI_WEBHOOK_SECRET=SECRET) as (process, port):
        statuses = [
            post(port, delivery("t1", message="ключ \x1b[31m"), HEADERS),
            post(port, delivery("t2"), {}),
            post(port, delivery("t3"), {"x-webhook-secret": "guess"}),
            post(port, b"{", HEADERS),
            post(port, unified("t4", config=echo), HEADERS, "/any/path?will=do"),
            post(port, b"x" * (MAX_BYTES + 1), HEADERS),
        ]
        printed, said = stop(process)

    assert statuses == [200, 403, 403, 403, 200, 403]
    first, second = map(json.loads, printed)
    assert (first["task_id"], first["status"], first["family"]) == ("t1", "finished", "legacy")
    assert first["task"]["task_result"]["message"] == "ключ \x1b[31m"
    assert "\x1b" not in printed[0]
    assert (second["task_id"], second["status"], second["family"]) == ("t4", "completed", "unified")
    assert len([line for line in said if line.startswith("rejected: ")]) == 4
    assert said[-1] == "Interrupted."


@pytest.mark.storm
def test_a_task_is_told_of_as_it_goes_along(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    # The file is meant, whatever the environment says.
    with (
        threaded_emulator(durations=0.05) as (emulator, base_url),
        listener("--secret-file", str(tmp_path / "secret"), PIAPI_WEBHOOK_SECRET="another") as (
            process,
            port,
        ),
    ):
        request = Reroll(
            PARENT, webhook_endpoint=f"http://127.0.0.1:{port}/", webhook_secret=SECRET, notify_progress=True
        )

        async def submit() -> str:
            async with PiAPI(emulator.api_key, base_url=base_url) as piapi:
                return (await piapi.submit(request)).task_id

        task_id = asyncio.run(submit())
        lines = [json.loads(process.hear())]  # each is there as soon as it has come
        while lines[-1]["status"] != "finished":
            lines.append(json.loads(process.hear()))
        stop(process, signal.SIGTERM)

    assert {line["task_id"] for line in lines} == {task_id}
    assert {line["status"] for line in lines} == {"processing", "finished"}
    assert len(lines[-1]["task"]["task_result"]["actions"]) == 9


@pytest.mark.storm
def test_it_ends_at_once_though_a_post_hangs() -> None:
    with (
        listener(PIAPI_WEBHOOK_SECRET=SECRET) as (process, port),
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow.sendall(
            f"POST / HTTP/1.1\r\nHost: bot\r\nX-Webhook-Secret: {SECRET}\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        with socket.create_connection(("127.0.0.1", port)) as gone:
            gone.sendall(b"POST / HTTP/1.1\r\nHost: bot\r\nContent-Length: 9\r\n\r\n{")
        assert post(port, delivery("t1"), HEADERS) == 200
        printed, _ = stop(process)

    assert len(printed) == 1


@pytest.mark.parametrize("secret", [None, "", " \n"])
def test_without_a_secret_it_does_not_listen(secret: str | None) -> None:
    code, said = run(**({} if secret is None else {"PIAPI_WEBHOOK_SECRET": secret}))

    assert code == 2
    assert "PIAPI_WEBHOOK_SECRET" in said


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_secret_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    code, said = run("--secret-file", str(tmp_path / "secret"), PIAPI_WEBHOOK_SECRET=SECRET)

    assert code == 2
    assert SECRET not in said


def test_a_file_that_is_not_there_is_refused() -> None:
    assert run("--secret-file", "nowhere")[0] == 2


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = run("--port", str(port), PIAPI_WEBHOOK_SECRET=SECRET)

    assert code == 2
    assert f"127.0.0.1:{port}" in said


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    assert run("--port", port, PIAPI_WEBHOOK_SECRET=SECRET)[0] == 2
