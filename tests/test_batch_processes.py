"""`piapi-async batch` as a process: signals, two at once, terminals, the display, a full disk."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.processes import PATIENCE, Child, ended, started, wait_until
from support.threaded_emulator import call_in_thread, end_all, threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.emulator import Emulator

Host = tuple[Emulator, dict[str, str]]

_QUICK = """
from functools import partial
from piapi_async import PollPolicy
from piapi_async.cli import _session
from piapi_async.cli._batch import _display
_session.PiAPI = partial(_session.PiAPI, poll=PollPolicy.every(0.02))
_display.PLAIN_EVERY = 0.05
from piapi_async.__main__ import main
main()
"""
"""The command, but in a poll_now: it looks at its tasks, and tells how they are, many times a second."""

FIVE = {f"p{number}": 1 for number in range(1, 6)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory of one's own, where commands in this process are in a poll_now, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.02)))
    return tmp_path


@pytest.fixture
def slow() -> Iterator[Host]:
    """Give a host whose tasks take until they are told to end."""
    with threaded_emulator(durations=1e6) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


def write(name: str, *parents: str, first: str = "") -> str:
    lines = [json.dumps({"verb": "reroll", "origin_task_id": parent}) for parent in parents]
    Path(name).write_text(first + "\n".join(lines) + "\n", "ascii")
    return name


def five() -> str:
    return write("in.jsonl", *FIVE)


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", _QUICK, "batch", *words]


def environment(host: Host) -> dict[str, str]:
    return {**os.environ, **host[1], "COLUMNS": "100", "NO_COLOR": "1"}


def run(host: Host, *words: str) -> Result:
    return CliRunner().invoke(cli, words, env=host[1])


@contextmanager
def batch(host: Host, *words: str, tasks: int = 3, **options: Any) -> Iterator[Child]:
    """Give a batch that looks at so many tasks, which it has therefore been told of."""
    with started(*command(*words), env=environment(host), **options) as process:
        wait_until(lambda: len(host[0].seen.polls) >= tasks)
        yield process


# -- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.storm)])
def test_the_first_signal_drains_and_the_printed_command_goes_on(kind: signal.Signals, slow: Host) -> None:
    name = write("in.jsonl", *FIVE, first="nonsense\n")
    words = ("--ledger", "run.db", "--out", "my out.jsonl", "--concurrency", "3", "--skip-invalid")
    with batch(slow, name, *words) as process:
        process.signal(kind)
        process.says("tasks in flight are finished first")
        assert process.code is None
        end_all(slow[0])
        code = process.finish()

    assert code == 130
    assert "3 done" in process.said
    assert slow[0].seen.creates == 3
    assert len(rows("my out.jsonl")) == 3

    [resume] = re.findall(r"^To go on: piapi-async (.*)$", process.said, re.MULTILINE)
    result = run(slow, *shlex.split(resume))
    assert result.exit_code == 0, result.output
    assert FIVE == dict(slow[0].seen.creates_by_parent)
    assert len(rows("my out.jsonl")) == 5


@pytest.mark.storm
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once_and_prints_the_command_too(kind: signal.Signals, slow: Host) -> None:
    with batch(slow, five(), "--ledger", "run.db", "--out", "out.jsonl", "--concurrency", "3") as process:
        process.signal(kind)
        process.says("^Stopping")
        process.signal(kind)
        code = process.finish()

    assert code == 130
    assert (
        "To go on: piapi-async --ledger run.db batch in.jsonl --out out.jsonl --concurrency 3" in process.said
    )
    assert "Traceback" not in process.said
    assert slow[0].seen.creates == 3


@pytest.mark.storm
def test_without_a_ledger_the_second_signal_names_the_tasks_that_go_on(slow: Host) -> None:
    with batch(slow, five(), "--concurrency", "3") as process:
        process.signal(signal.SIGINT)
        process.says("^Stopping")
        process.signal(signal.SIGINT)
        code = process.finish()

    assert code == 130
    made = [task_id for task_id, task in slow[0].engine.tasks.items() if task.account]
    assert len(made) == 3
    assert all(task_id in process.said for task_id in made)


@pytest.mark.storm
def test_two_processes_do_not_write_one_file(slow: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")
    with batch(slow, *words, "--concurrency", "3") as process:
        result = run(slow, "batch", *words)
        assert result.exit_code == 2
        assert "another run is writing out.jsonl" in result.stderr

        status = run(slow, "batch", "status", "run.db")
        assert json.loads(status.stdout) == {"accepted": 3}
        process.signal(signal.SIGINT)
        process.says("^Stopping")
        end_all(slow[0])
        assert process.finish() == 130


@pytest.mark.storm
def test_a_full_disk_ends_the_run_with_a_sentence(slow: Host) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    end_all(slow[0])
    with Path("/dev/full").open("wb") as full:
        done = ended(*command(five(), "--ledger", "run.db"), stdout=full, env=environment(slow))

    assert done.code == 1
    assert "No space left" in done.said
    assert "Traceback" not in done.said
    assert "To go on: piapi-async" in done.said


# -- the display ----------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of its own, and all that was shown on it."""

    def __init__(self) -> None:
        self._master, self.end = pty.openpty()
        self.shown = ""

    def show(self, *patterns: str) -> None:
        """Read on until all of the patterns are there, or nobody writes any more."""
        while not patterns or not all(re.search(pattern, self.shown) for pattern in patterns):
            readable, _, _ = select.select([self._master], [], [], PATIENCE)
            assert readable, self.shown
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # how Linux says that nobody is there any more
                return
            self.shown += chunk.decode()

    def close(self) -> None:
        os.close(self._master)


def on_a_terminal(host: Host, *words: str, shows: tuple[str, ...] = ()) -> tuple[str, int]:
    """Run a batch on a terminal until it shows all these; then let its tasks end; give all it showed, and its code."""
    with closing(Terminal()) as terminal:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.end)
        with batch(host, *words, tasks=5, **pipes) as process:
            os.close(terminal.end)
            if shows:
                terminal.show(*shows)
            end_all(host[0])
            terminal.show()
            code = process.finish()
        return terminal.shown, code


def screen_of(shown: str) -> list[str]:
    """Give what stands on a terminal after all that was written: lines, the cursor going up, lines that are erased."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b["):
            count = int(part[2:-1] or 1) if part[2:-1].isdigit() or not part[2:-1] else 1
            if part.endswith("A"):
                row = max(0, row - count)
            elif part.endswith("K"):
                lines[row] = "" if part == "\x1b[2K" else lines[row][:column]
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


NAMES = ("submitted", "resumed", "waiting", "running", "done", "failed", "unknown")
TABLE = (*(rf"{name} +\S" for name in NAMES), r"0/5 +0\.00/s +\? left", "done +0 of 5", "submitted +5")


@pytest.mark.storm
def test_a_terminal_shows_a_bar_with_its_figures_and_in_the_end_the_account(slow: Host) -> None:
    shown, code = on_a_terminal(slow, five(), "--out", "out.jsonl", shows=TABLE)

    assert code == 0
    assert all(re.search(pattern, shown) for pattern in TABLE), shown
    screen = "\n".join(screen_of(shown))
    assert "5 done, 0 failed" in screen
    assert "0 of 5" not in screen  # the table has been taken away


@pytest.mark.storm
def test_outcomes_on_a_terminal_are_not_wiped_away_by_the_table(slow: Host) -> None:
    shown, code = on_a_terminal(slow, five())

    assert code == 0
    text = "".join(screen_of(shown))
    assert len(re.findall(r'"state": "done"', text)) == 5, screen_of(shown)


@pytest.mark.storm
def test_elsewhere_a_plain_line_tells_every_few_seconds(slow: Host) -> None:
    with batch(slow, five(), tasks=5) as process:
        process.says(
            r"^submitted 5, resumed 0, waiting \d, running \d, done 0 of 5, failed 0, unknown 0, rate 0.00/s, left \?$"
        )
        end_all(slow[0])
        code = process.finish()

    assert code == 0
    assert "\x1b" not in process.printed + process.said


@pytest.mark.storm
def test_the_display_leaves_out_what_the_results_have_already(slow: Host) -> None:
    words = ("in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")
    write("in.jsonl", "p1", "p2")
    with batch(slow, *words, tasks=2) as process:
        for task_id in list(slow[0].engine.tasks):
            call_in_thread(slow[0], partial(slow[0].end, task_id))
        assert process.finish() == 0

    write("in.jsonl", "p1", "p2", "p3")
    with started(*command(*words), env=environment(slow)) as process:
        process.says("done 0 of 1")
        end_all(slow[0])
        assert process.finish() == 0
