"""Commands as processes: what becomes of ids and results when stdout fails, signals come, or a terminal is narrow."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.hooking import HEADERS, SECRET, delivery
from support.processes import PATIENCE, Child, ended, started, wait_until
from support.threaded_emulator import end_all, threaded_emulator, unmeasured

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.emulator import Emulator, Status

Host = tuple[Emulator, dict[str, str]]

storm = pytest.mark.storm
"""For what is left to the gate: a process for each costs the developer's line too much."""

COMMAND = (sys.executable, "-m", "piapi_async")

_QUICK = """
from functools import partial
from piapi_async import PollPolicy
from piapi_async.cli import _session
_session.PiAPI = partial(_session.PiAPI, poll=PollPolicy.every(0.02))
from piapi_async.__main__ import main
main()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slow() -> Iterator[Host]:
    """Give a host whose tasks take until they are told to end."""
    with threaded_emulator(durations=1e6) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


@pytest.fixture
def host() -> Iterator[Host]:
    with threaded_emulator() as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


def quick(*words: str) -> list[str]:
    return [sys.executable, "-c", _QUICK, *words]


def environment(host: Host, **more: str) -> dict[str, str]:
    return {**os.environ, **host[1], "NO_COLOR": "1", **more}


def five(count: int = 5) -> str:
    lines = [json.dumps({"verb": "reroll", "origin_task_id": f"p{number}"}) for number in range(count)]
    Path("in.jsonl").write_text("\n".join(lines) + "\n", "ascii")
    return "in.jsonl"


def made(host: Host) -> set[str]:
    return {task_id for task_id, task in list(host[0].engine.tasks.items()) if task.account}


@contextmanager
def batch(host: Host, *words: str, tasks: int = 3, **options: Any) -> Iterator[Child]:
    with started(*quick("batch", *words), env=environment(host), **options) as process:
        wait_until(lambda: len(host[0].seen.polls) >= tasks)
        yield process


# -- ids are never only in memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [pytest.param(signal.SIGINT, marks=storm), pytest.param(signal.SIGTERM, marks=storm), signal.SIGHUP],
)
def test_without_a_ledger_the_first_signal_names_what_is_in_flight_and_how_to_wait_for_it(
    kind: signal.Signals, slow: Host
) -> None:
    with batch(slow, five(), "--concurrency", "3", "--download", "my files") as process:
        process.signal(kind)
        resume = process.says(r"^To wait for them: piapi-async (.*)$")[1]
        ids = made(slow)
        assert len(ids) == 3
        assert all(f"Task {task_id} is in flight" in process.said for task_id in ids)
        assert process.code is None  # it goes on to their ends
        end_all(slow[0])
        code = process.finish()

    assert code == 130
    assert {json.loads(line)["task_id"] for line in process.printed.splitlines()} == ids
    waited = CliRunner().invoke(cli, shlex.split(resume), env=slow[1])
    assert waited.exit_code == 0
    assert {json.loads(line)["task_id"] for line in waited.stdout.splitlines()} == ids
    assert resume.endswith(" --download 'my files'")


@storm
@pytest.mark.parametrize("words", [["batch", "in.jsonl"], ["imagine", "a cat"]])
def test_what_nobody_can_hear_any_more_is_kept_in_a_file(words: list[str], slow: Host, here: Path) -> None:
    five(1)
    with closing(Terminal(80)) as terminal:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.end)
        with started(*quick(*words), env=environment(slow), **pipes) as process:
            os.close(terminal.end)
            wait_until(lambda: len(slow[0].seen.polls) >= 1)
            terminal.close()
            process.signal(signal.SIGHUP)
            end_all(slow[0])
            assert process.finish() in {1, 130}

    [task_id] = made(slow)
    [kept] = here.glob("piapi-async-*-untold.txt")
    assert task_id in kept.read_text("utf-8")


@storm
def test_under_nohup_a_closed_terminal_stops_nothing(slow: Host) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);" + _QUICK
    words = [sys.executable, "-c", code, "batch", five(), "--concurrency", "3"]
    with started(*words, env=environment(slow)) as process:
        wait_until(lambda: len(slow[0].seen.polls) >= 3)
        process.signal(signal.SIGHUP)
        end_all(slow[0])
        assert process.finish() == 0

    assert "Stopping" not in process.said
    assert len(process.printed.splitlines()) == 5


@storm
def test_with_a_ledger_nothing_needs_to_be_named(slow: Host) -> None:
    with batch(slow, five(), "--concurrency", "3", "--ledger", "run.db") as process:
        process.signal(signal.SIGTERM)
        process.says("^Stopping")
        end_all(slow[0])
        assert process.finish() == 130

    assert "Task" not in process.said
    assert "To go on: " in process.said


@pytest.mark.storm
@pytest.mark.measured
def test_a_reader_of_stdout_that_leaves_costs_no_id(slow: Host) -> None:
    reading, writing = os.pipe()
    with batch(slow, five(), "--concurrency", "3", stdout=writing) as process:
        os.close(writing)
        ids = made(slow)
        os.close(reading)
        slow[0].end(min(ids))
        code = process.finish()

    assert code == 1
    assert "Traceback" not in process.said
    assert "the outcome of line" in process.said
    assert "could not be written (Broken pipe)" in process.said
    assert all(task_id in process.said for task_id in made(slow))
    untold = json.loads(next(line for line in process.said.splitlines() if line.startswith("{")))
    assert untold["task_id"] == min(ids)
    assert untold["result"]


@storm
def test_a_disk_that_is_full_costs_no_outcome(slow: Host) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);" + _QUICK
    )
    words = [sys.executable, "-c", code, "batch", five(), "--concurrency", "3", "--out", "out.jsonl"]
    with started(*words, env={**unmeasured(), **slow[1]}) as process:
        wait_until(lambda: len(slow[0].seen.polls) >= 3)
        for task_id in sorted(made(slow)):
            slow[0].end(task_id)
        assert process.finish() == 1

    rows = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]  # none is cut off
    untold = [json.loads(line) for line in process.said.splitlines() if line.startswith("{")]
    told = {row["task_id"] for row in rows + untold} | set(
        re.findall(r"Task (\S+) is in flight", process.said)
    )
    assert "could not be written (File too large)" in process.said
    assert made(slow) <= told | set(re.findall(r"[0-9a-f-]{36}", process.said))


@storm
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_a_single_wait_that_is_stopped_tells_how_to_resume(kind: signal.Signals, slow: Host) -> None:
    with started(*quick("imagine", "a cat"), env=environment(slow)) as process:
        task_id = process.says(r"^submitted (\S+)$")[1]
        process.signal(kind)
        assert process.finish() == 130

    assert f"Task {task_id} goes on. To wait for it: piapi-async wait {task_id}" in process.said


# -- stdin -----------------------------------------------------------------------------------------------------------


@storm
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_what_is_read_from_stdin_stays_in_no_file(kind: signal.Signals, slow: Host, here: Path) -> None:
    (here / "tmp").mkdir()
    command = quick("batch", "-", "--concurrency", "3")
    with started(*command, env=environment(slow, TMPDIR=str(here / "tmp"))) as process:
        for line in Path(five()).read_text("ascii").splitlines():
            process.tell(line)
        assert process.process.stdin is not None
        process.process.stdin.close()
        process.process.stdin = None
        wait_until(lambda: len(slow[0].seen.polls) >= 3)
        assert not list((here / "tmp").iterdir())
        process.signal(kind)
        if kind != signal.SIGKILL:
            process.says("^Stopping")
            process.signal(kind)
        process.finish()

    assert not list((here / "tmp").iterdir())


@storm
def test_stdin_that_cannot_be_kept_is_a_sentence(host: Host) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);" + _QUICK
    )
    with Path(five(200)).open("rb") as lines:
        done = ended(sys.executable, "-c", code, "batch", "-", stdin=lines, env={**unmeasured(), **host[1]})

    assert done.code == 1
    assert "standard input could not be copied to" in done.said
    assert "Nothing was submitted" in done.said
    assert "Traceback" not in done.said
    assert not host[0].seen.requests


# -- stdout ----------------------------------------------------------------------------------------------------------

NEEDING_STDOUT = {
    "a verb": ["imagine", "a cat"],
    "no-wait": ["imagine", "a cat", "--no-wait"],
    "run": ["run", "flux/txt2img", "prompt=a cat"],
    "batch": ["batch", "in.jsonl"],
    "fetch": ["fetch", "one"],
    "account": ["account"],
    "listen": ["listen", "--port", "0"],
}


@storm
@pytest.mark.parametrize("words", NEEDING_STDOUT.values(), ids=NEEDING_STDOUT)
def test_stdout_that_is_closed_is_told_before_anything_is_sent(words: list[str], host: Host) -> None:
    five()
    shell = f"{shlex.join([*COMMAND, *words])} >&-"
    done = ended("/bin/sh", "-c", shell, env=environment(host, PIAPI_WEBHOOK_SECRET="secret"))

    assert done.code == 1
    assert "standard output is closed, so no result could be told. Nothing was sent." in done.said
    assert "Traceback" not in done.said
    assert not host[0].seen.requests


@contextmanager
def only_for_reading() -> Iterator[int]:
    with Path(os.devnull).open("rb") as nothing:
        yield nothing.fileno()


@contextmanager
def without_a_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@storm
@pytest.mark.parametrize("stdout", [only_for_reading, without_a_reader])
def test_stdout_that_cannot_be_written_to_is_told_before_anything_is_sent(
    stdout: Callable[[], AbstractContextManager[int]], host: Host
) -> None:
    with stdout() as number:
        done = ended(*COMMAND, "imagine", "a cat", env=environment(host), stdout=number)

    assert done.code == 1
    assert re.search("standard output (cannot be written to|has no reader any more)", done.said)
    assert not host[0].seen.requests


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        pytest.param(["imagine", "猫 😀 ключ"], {"PYTHONIOENCODING": "cp1252"}, marks=storm),
        pytest.param(["imagine", "猫 😀 ключ"], {"LANG": "C", "LC_ALL": "C"}, marks=storm),
        pytest.param(["batch", "in.jsonl"], {"PYTHONIOENCODING": "ascii"}, marks=storm),
        pytest.param(["batch", "in.jsonl"], C_LOCALE, marks=storm),
    ],
)
def test_a_stdout_of_few_letters_gets_escapes(
    words: list[str], encoding: Mapping[str, str], host: Host
) -> None:
    Path("in.jsonl").write_text('{"verb": "imagine", "prompt": "猫 😀 ключ"}\n', "utf-8")
    done = ended(*quick(*words), env=environment(host, **encoding))

    assert done.code == 0, done.said
    printed = json.loads(done.printed)
    assert printed["state"] == "done"
    assert "Traceback" not in done.said


@storm
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("words", [["--help"], ["batch", "run", "--help"], ["wait", "--help"], ["models"]])
def test_help_is_for_any_terminal(words: list[str], encoding: str) -> None:
    done = ended(*COMMAND, *words, env={**os.environ, "PYTHONIOENCODING": encoding})

    assert done.code == 0, done.said
    assert done.said == ""


@storm
def test_a_listing_whose_reader_has_enough_ends_quietly(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    CliRunner().invoke(cli, ["batch", five(300), "--ledger", "run.db"], env=host[1])
    shell = f"{shlex.join([*COMMAND, 'ledger', 'show', 'run.db'])} | head -n 1"
    done = ended("/bin/sh", "-c", shell, env=environment(host))

    assert json.loads(done.printed)["state"] == "ended"
    assert done.said == ""


@storm
def test_a_delivery_that_nobody_reads_ends_the_listener(host: Host) -> None:
    import http.client  # noqa: PLC0415 - for this test alone

    reading, writing = os.pipe()
    command = (*COMMAND, "listen", "--port", "0")
    with started(*command, stdout=writing, env=environment(host, PIAPI_WEBHOOK_SECRET=SECRET)) as process:
        os.close(writing)
        port = int(process.says(r"Listening at http://\S+:(\d+)/")[1])
        os.close(reading)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request("POST", "/", delivery("t1"), HEADERS)
            assert connection.getresponse().status == 500
        assert process.finish() == 1

    assert '"task_id": "t1"' in process.said
    assert "Traceback" not in process.said


# -- terminals -------------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of so many columns, and all that was shown on it."""

    def __init__(self, columns: int) -> None:
        self._master, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.shown = ""

    def show(self, pattern: str | None = None) -> None:
        """Read on until the pattern is there, or nobody writes any more."""
        while pattern is None or not re.search(pattern, self.shown):
            readable, _, _ = select.select([self._master], [], [], PATIENCE)
            assert readable, self.shown
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # how Linux says that nobody is there any more
                return
            self.shown += chunk.decode()

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
        self._master = -1


def screen(shown: str) -> str:
    """Return what stands on a terminal in the end, its lines never wrapped."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part.startswith("\x1b"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def on_terminal(
    host: Host, *words: str, columns: int, shows: str, stdout: int | None = None
) -> tuple[str, str]:
    """Run a command on a terminal until it shows a pattern, let its tasks end; return all it wrote and what is left."""
    with closing(Terminal(columns)) as terminal:
        pipes = {
            "stdin": terminal.end,
            "stdout": terminal.end if stdout is None else stdout,
            "stderr": terminal.end,
        }
        env = {
            name: value for name, value in environment(host).items() if name not in {"COLUMNS", "NO_COLOR"}
        }
        with started(*quick(*words), env={**env, "TERM": "xterm"}, **pipes) as process:
            os.close(terminal.end)
            terminal.show(shows)
            end_all(host[0])
            terminal.show()
            assert process.finish() == 0, terminal.shown
        return terminal.shown, screen(terminal.shown)


@pytest.mark.parametrize("columns", [pytest.param(80, marks=storm), 40])
def test_on_a_terminal_the_json_stands_alone(columns: int, slow: Host) -> None:
    shown, left = on_terminal(slow, "imagine", "a cat", columns=columns, shows=r"(pending|processing|staged)")

    said, _, printed = left.partition("\n")
    [task_id] = made(slow)
    assert said == f"submitted {task_id}"
    assert printed.startswith("{\n  ")  # pretty, and at the beginning of its line
    assert json.loads(printed)["task_id"] == task_id
    assert "0:00:0" in shown
    frames = [
        line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[\??[\d;]*[A-Za-z]", "", shown)) if "━" in line
    ]
    assert frames
    assert all(len(frame) <= columns for frame in frames), frames


@storm
def test_the_results_of_several_waits_are_not_wiped_away(slow: Host) -> None:
    ids = [
        CliRunner().invoke(cli, ["imagine", "a cat", "--no-wait"], env=slow[1]).stdout.strip()
        for _ in range(3)
    ]
    _, left = on_terminal(slow, "wait", *ids, columns=80, shows="(?s)(pending.*|processing.*|staged.*){3}")

    decoder, rest, told = json.JSONDecoder(), left, []
    while rest:
        value, end = decoder.raw_decode(rest)
        told.append(value["task_id"])
        rest = rest[end:].lstrip()
    assert sorted(told) == sorted(ids)


@storm
@pytest.mark.parametrize("words", [["imagine", "a cat"], ["batch", "in.jsonl"]])
def test_stdout_is_for_results_alone_though_bars_are_on_the_terminal(words: list[str], slow: Host) -> None:
    five(1)
    with Path("results").open("wb") as file:
        _, left = on_terminal(
            slow, *words, columns=80, shows="(pending|processing|waiting 1)", stdout=file.fileno()
        )

    [line] = Path("results").read_text("utf-8").splitlines()
    assert json.loads(line)["state"] == "done"
    assert '"state"' not in left


@storm
@pytest.mark.parametrize("columns", [80, 40])
def test_a_batch_shows_how_far_it_is_in_any_width(columns: int, slow: Host) -> None:
    shown, left = on_terminal(
        slow, "batch", five(3), "--out", "out.jsonl", columns=columns, shows="submitted 3"
    )

    assert re.search(r"━.* 0/3 0\.00/s \? left", re.sub(r"\x1b\[[\d;]*m", "", shown))
    assert "staged" not in shown
    assert left.startswith("3 done, 0 failed")


def test_what_the_host_says_reaches_no_terminal_as_an_escape(host: Host) -> None:
    nasty = "no cats \x1b]0;gone\x07\x1b[2J\x9b2J\u202e\rError: paid"
    host[0].fail("imagine", Status(400, body={"message": nasty}), times=2)
    refused = CliRunner().invoke(cli, ["imagine", "a cat"], env=host[1])
    host[0].fail(
        "imagine", Status(200, body={"task_id": "t\x1b[31m\x9b1m", "status": "success", "message": ""})
    )
    accepted = CliRunner().invoke(cli, ["imagine", "a cat", "--no-wait"], env=host[1])

    assert refused.exit_code == 3
    for text in (refused.stderr, accepted.stderr, accepted.stdout):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), text
    assert "no cats" in refused.stderr
