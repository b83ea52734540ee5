"""A batch that is killed, at any moment, again and again: what was paid, what is known, what the results say.

The children are forked from a process that has imported everything and does nothing else, so each costs milliseconds
(nor is their coverage measured, since it would die with them); the host is an emulator in a thread of this process.  A
child that is to die at a share of its work is killed when the host has made so many tasks, so that the moment is the
same however fast the machine is.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import evolve
from support.processes import Child, wait_until
from support.threaded_emulator import threaded_emulator, unmeasured

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.emulator import Dialect, Drop, Emulator
from piapi_async.models import catalog

pytestmark = pytest.mark.storm

KEY = "emulator-key"
ITEMS = 60
CONCURRENCY = 8
NAMED_BY = {"reroll": "origin_task_id", "flux/txt2img": "prompt"}
"""A verb of each family, and its field that tells one item from another."""


def zygote() -> None:
    """Fork a child for each line of words, which runs them as a command."""
    catalog()
    for lazy in ("anyio._backends._asyncio", "anyio.streams.memory", "rich._emoji_codes"):
        import_module(lazy)
    for line in sys.stdin:
        orders = json.loads(line)
        child = os.fork()
        if child == 0:
            command(orders)
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def command(orders: dict[str, Any]) -> None:
    os.environ.update(orders["environment"])
    for stream, number in ((orders["stdout"], 1), (orders["stderr"], 2)):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))  # noqa: B010 - a class to mypy, a maker to us
    code: Any = 1
    try:
        cli(orders["words"], prog_name="piapi-async")
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Zygote:
    """The process that children are forked from."""

    def __init__(self) -> None:
        self._child = Child(sys.executable, __file__, env=unmeasured())
        self._pid = 0

    def start(self, url: str, *words: str, stderr: str = "stderr") -> int:
        """Start a command and give its process id."""
        environment = {"PIAPI_BASE_URL": url, "PIAPI_API_KEY": KEY, "NO_COLOR": "1"}
        orders = {"words": words, "environment": environment, "stdout": f"{stderr}-out", "stderr": stderr}
        self._child.tell(json.dumps(orders))
        self._pid = self._hear("pid")
        return self._pid

    def finish(self) -> int:
        """Wait for its end, and give the exit code; below 0 it is the signal that killed it."""
        self._pid = 0
        return self._hear("code")

    def kill(self) -> None:
        assert self._pid > 1
        with suppress(ProcessLookupError):  # it has come to its end in this very moment
            os.kill(self._pid, signal.SIGKILL)

    def clear(self) -> None:
        """End a command that a failed test has left."""
        if self._pid:
            self.kill()
            self.finish()

    def _hear(self, what: str) -> int:
        return int(json.loads(self._child.hear())[what])

    def run(self, url: str, *words: str) -> int:
        self.start(url, *words)
        return self.finish()

    def close(self) -> None:
        self._child.kill()


@pytest.fixture(scope="module")
def zygotes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Zygote, Zygote]]:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("kill"))  # where the children will be
    try:
        with closing(Zygote()) as one, closing(Zygote()) as other:
            yield one, other
    finally:
        os.chdir(before)


class Run:
    """One input, one ledger, one file of results, and whatever is done to them."""

    def __init__(
        self, zygotes: tuple[Zygote, Zygote], emulator: Emulator, url: str, folder: Path, verb: str
    ) -> None:
        self.zygotes, self.emulator, self.url, self.folder = zygotes, emulator, url, folder
        names = [*(f"p{number}" for number in range(ITEMS - 2)), "twice", "twice"]
        lines = [{"verb": verb, NAMED_BY[verb]: name} for name in names]
        self.out, self.ledger = folder / "out.jsonl", folder / "run.db"
        (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")

    def words(self, out: str = "out.jsonl") -> list[str]:
        words = ["batch", str(self.folder / "in.jsonl"), "--ledger", str(self.ledger)]
        return [*words, "--out", str(self.folder / out), "--concurrency", str(CONCURRENCY)]

    def start(self, which: int = 0, out: str = "out.jsonl") -> int:
        return self.zygotes[which].start(
            self.url, *self.words(out), stderr=str(self.folder / f"said-{which}")
        )

    def said(self, which: int = 0) -> str:
        return (self.folder / f"said-{which}").read_text("utf-8")

    def to_the_end(self) -> int:
        self.start()
        return self.zygotes[0].finish()

    def kill_when(self, ready: Callable[[], bool]) -> bool:
        """Start a run and kill it as soon as something is so; tell whether it was still there."""
        child = self.start()
        wait_until(lambda: ready() or self._over(child))
        self.zygotes[0].kill()
        return self.zygotes[0].finish() == -signal.SIGKILL

    @staticmethod
    def _over(child: int) -> bool:
        try:
            state = Path(f"/proc/{child}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    def rows(self, out: str = "out.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / out).read_text("utf-8").splitlines()]

    def states(self) -> Counter[str]:
        with closing(sqlite3.connect(self.ledger)) as file:
            return Counter(state for (state,) in file.execute("SELECT state FROM submits"))

    def tasks(self) -> dict[str, str]:
        """Give the names of all tasks that were made (their parents, or their prompts), by id."""
        tasks = self.emulator.engine.tasks
        return {task_id: task.origin or task.prompt for task_id, task in tasks.items() if not task.adopted}

    def posts(self) -> int:
        """Give how many creates have come, made or not."""
        return self.emulator.seen.requests["reroll"] + self.emulator.seen.requests["task_create"]

    def check(self, code: int) -> int:
        """Check that a run that came to its end accounts for everything, and give how many are unknown."""
        rows = self.rows()
        assert sorted(row["line"] for row in rows) == list(range(1, ITEMS + 1))
        assert len({row["key"] for row in rows}) == ITEMS
        unknown = [row for row in rows if row["error_type"] == "SubmissionUnknown"]
        assert all(row["state"] == "done" for row in rows if row not in unknown)
        assert code == (6 if unknown else 0)

        made = self.tasks()
        parents = Counter(made.values())
        assert parents.pop("twice", 0) <= 2
        assert set(parents.values()) <= {1}
        assert self.emulator.seen.creates == len(made)
        known = [row["task_id"] for row in rows if row not in unknown]
        assert len(set(known)) == len(known) == ITEMS - len(unknown)
        assert set(known) <= made.keys()
        assert ITEMS - len(unknown) <= len(made) <= ITEMS
        assert self.said().count("may have been accepted") == len(unknown)
        return len(unknown)


@contextmanager
def running(
    zygotes: tuple[Zygote, Zygote], folder: Path, verb: str = "reroll", **options: Any
) -> Iterator[Run]:
    with threaded_emulator(queue=1000, **options) as (emulator, url):
        try:
            yield Run(zygotes, emulator, url, folder, verb)
        finally:
            for each in zygotes:
                each.clear()


@pytest.fixture
def run(zygotes: tuple[Zygote, Zygote], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    with running(zygotes, tmp_path, getattr(request, "param", "reroll")) as run:
        yield run


every_family = pytest.mark.parametrize("run", NAMED_BY, indirect=True)


def made(run: Run, count: int) -> Callable[[], bool]:
    return lambda: run.emulator.seen.creates >= count


def written(run: Run, count: int) -> Callable[[], bool]:
    return lambda: run.out.exists() and run.out.read_bytes().count(b"\n") >= count


@every_family
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("moment", [made, written])
def test_a_run_that_is_killed_is_continued_and_pays_once(
    share: float, moment: Callable[[Run, int], Callable[[], bool]], run: Run
) -> None:
    run.kill_when(moment(run, int(share * ITEMS)))  # on a busy machine it may have ended by then
    unknown = run.check(run.to_the_end())

    assert unknown <= CONCURRENCY


@every_family
def test_a_run_that_is_killed_again_and_again_is_continued_and_pays_once(run: Run) -> None:
    killed = [run.kill_when(made(run, count)) for count in (1, 6, 20, 35, 50, 58)]
    run.check(run.to_the_end())

    assert sum(killed) >= 4


@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_is_killed_at_a_random_moment_is_continued_and_pays_once(seed: int, run: Run) -> None:
    moment = time.monotonic() + Random(seed).uniform(0.01, 0.15)  # noqa: S311 - the moments are to be the same again
    run.kill_when(lambda: time.monotonic() > moment)
    run.check(run.to_the_end())


@every_family
def test_what_is_unknown_is_told_by_every_run_and_never_repeated(run: Run) -> None:
    run.emulator._host.view = evolve(run.emulator._host.view, dialect=Dialect(history=False))
    run.emulator.fail("create", Drop(after_body=True), nth=5, times=3)
    run.kill_when(made(run, 30))
    first = run.check(run.to_the_end())
    posts, rows = run.posts(), sorted(row["key"] for row in run.rows())
    second = run.check(run.to_the_end())

    assert first == second >= 3
    assert run.posts() == posts
    assert sorted(row["key"] for row in run.rows()) == rows
    states = run.states()
    assert states["unknown"] == first
    # The kill may come between an item's row and the ledger's note of its end, which then stays to be read at the host.
    assert states["ended"] + states["accepted"] == ITEMS - first


def test_a_dry_run_after_a_kill_tells_what_a_run_will_find(run: Run) -> None:
    run.kill_when(made(run, 20))
    assert run.zygotes[0].run(run.url, *run.words(), "--dry-run") == 0
    told = json.loads(Path("stderr-out").read_text("utf-8"))
    creates = run.emulator.seen.requests["reroll"]
    unknown = run.check(run.to_the_end())

    assert told["items"] == ITEMS
    assert told["unknown"] == unknown
    assert told["submit"] == run.emulator.seen.requests["reroll"] - creates


def test_a_kill_leaves_nothing_beside_the_files_that_a_rerun_does_not_remove(run: Run) -> None:
    run.kill_when(made(run, 20))
    run.check(run.to_the_end())

    names = {path.name for path in run.folder.iterdir()}
    assert names == {"in.jsonl", "out.jsonl", "run.db", "said-0", "said-0-out"}


@every_family
def test_two_processes_on_one_input_and_ledger_pay_once_together(run: Run) -> None:
    for which, out in enumerate(("out.jsonl", "other.jsonl")):
        run.start(which, out)
    codes = [each.finish() for each in run.zygotes]

    assert codes == [0, 0]
    assert run.emulator.seen.creates == ITEMS
    for out in ("out.jsonl", "other.jsonl"):
        rows = run.rows(out)
        assert len({row["line"] for row in rows}) == len(rows) == ITEMS
        assert {row["task_id"] for row in rows} == run.tasks().keys()
    assert sum(not row["resumed"] for out in ("out.jsonl", "other.jsonl") for row in run.rows(out)) == ITEMS


def test_two_processes_on_the_same_results_too_are_one_too_many(
    zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    with running(zygotes, tmp_path, latency={"reroll": 0.1}) as run:
        run.start(0)
        wait_until(run.out.exists)
        run.start(1)
        codes = [each.finish() for each in zygotes]

        assert codes == [0, 2]
        assert "another run is writing" in run.said(1)
        assert len(run.rows()) == ITEMS
        assert run.emulator.seen.creates == ITEMS


@every_family
def test_one_of_two_processes_is_killed_and_the_other_comes_to_the_end(run: Run) -> None:
    run.start(0, "other.jsonl")
    run.start(1)
    wait_until(made(run, ITEMS // 3))
    run.zygotes[0].kill()
    codes = [each.finish() for each in run.zygotes]

    rows = run.rows()
    unknown = [row for row in rows if row["error_type"] == "SubmissionUnknown"]
    assert codes[0] == -signal.SIGKILL
    assert codes[1] == (6 if unknown else 0)
    assert len({row["line"] for row in rows}) == len(rows) == ITEMS
    assert len(unknown) <= CONCURRENCY
    parents = Counter(run.tasks().values())
    assert parents.pop("twice", 0) <= 2
    assert set(parents.values()) <= {1}


if __name__ == "__main__":
    zygote()
