"""Other processes, as tests run them: waited for by what they say, and ended whatever happens.

No test waits for a clock.  What tells of itself (a line on a pipe, the end of a process) is waited for here as it
comes; what does not (a request that an emulator in another thread has seen, a file, a row) is looked for by
`wait_until`, or `becomes_true` in an event loop.  `PATIENCE` bounds them all: what hangs fails, and shows what it said.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import IO, Any, NoReturn

PATIENCE = 60.0
"""Seconds after which what is waited for will not come: half of what a whole test is given, so that it can tell."""

_PAUSE = 0.0005


def wait_until(happened: Callable[[], object]) -> None:
    """Wait until something is true that only a look can tell, in a thread that nothing else needs."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until, f"this did not come true within {PATIENCE:.0f} s: {happened}"
        time.sleep(_PAUSE)  # noqa: TID251 - the one place where there is nothing better


async def becomes_true(happened: Callable[[], object]) -> None:
    """Wait until something is true that only a look can tell, while the loop goes on."""
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(_PAUSE)


@contextmanager
def started(*command: str, **options: Any) -> Iterator[Child]:
    """Give a process that is gone after the block."""
    child = Child(*command, **options)
    try:
        yield child
    finally:
        child.kill()


def ended(*command: str, **options: Any) -> Child:
    """Return a process that has come to its end by itself."""
    with started(*command, **options) as child:
        child.finish()
        return child


_REAPER = """
import os, signal, sys
alive = set()
for line in sys.stdin:
    {"+": alive.add, "-": alive.discard}[line[0]](int(line[1:]))
for group in alive:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        _note("+", self.process.pid)
"""


@contextmanager
def _hangups_heeded() -> Iterator[None]:
    """Have a process that is started here heed SIGHUP, though the tests run under nohup."""
    inherited = signal.getsignal(signal.SIGHUP)
    if inherited is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return

    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, inherited)


@cache
def _reaper() -> IO[str]:
    """Give what tells a process of ours about children: should we be killed, it sees to it that none is left."""
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REAPER], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    assert reaper.stdin is not None
    atexit.register(reaper.wait)
    atexit.register(reaper.stdin.close)  # before the wait: what was registered last is called first
    return reaper.stdin


def _note(sign: str, child: int) -> None:
    _reaper().write(f"{sign}{child}\n")
    _reaper().flush()


class Child:
    """A process: `printed` and `said` are what has come on its stdout and stderr so far."""

    def __init__(
        self, *command: str, env: Mapping[str, str] | None = None, patience: float = PATIENCE, **pipes: Any
    ) -> None:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | pipes
        # A crash or a SIGABRT shows where every thread stood; a session of its own, so that its children end with it.
        environment = {**(os.environ if env is None else env), "PYTHONFAULTHANDLER": "1"}
        with _hangups_heeded():
            self.process: subprocess.Popen[str] = subprocess.Popen(
                command,
                env=environment,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                **streams,
            )
        _note("+", self.process.pid)
        self._patience = patience
        self._news = threading.Condition()
        self._texts = {"stdout": "", "stderr": ""}
        self._heard = 0
        self._open = 0  # streams that may still bring something
        self._listeners: list[threading.Thread] = []
        for name, stream in (("stdout", self.process.stdout), ("stderr", self.process.stderr)):
            if stream is not None:
                self._open += 1
                self._listeners.append(
                    threading.Thread(target=self._listen, args=(name, stream), daemon=True)
                )
        for listener in self._listeners:
            listener.start()

    def _listen(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    self._texts[name] += line
                    self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    @property
    def printed(self) -> str:
        return self._texts["stdout"]

    @property
    def said(self) -> str:
        return self._texts["stderr"]

    def prints(self, pattern: str) -> re.Match[str]:
        """Wait until stdout has `pattern` somewhere; `^` and `$` are those of lines."""
        return self._tells("stdout", pattern)

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until stderr has it."""
        return self._tells("stderr", pattern)

    def hear(self) -> str:
        """Return the next line of stdout that has not been heard yet."""
        self._wait(lambda: "\n" in self.printed[self._heard :], "did not write another line to stdout")
        end = self.printed.index("\n", self._heard) + 1
        line, self._heard = self.printed[self._heard : end], end
        return line

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        return self.process.poll()

    def signal(self, kind: signal.Signals) -> None:
        self.process.send_signal(kind)

    def finish(self) -> int:
        """Wait for its end and everything it said; return its exit code, which a signal makes negative."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            code = self.process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._fail("did not end")
        for listener in self._listeners:
            listener.join(self._patience)
        return code

    def kill(self) -> None:
        """End it and its children, if there is anything to end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        _note("-", self.process.pid)
        for listener in self._listeners:  # nobody writes any more: they end once they have read it all
            listener.join(PATIENCE)

    def _tells(self, name: str, pattern: str) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def search() -> bool:
            found.extend(re.finditer(pattern, self._texts[name], re.MULTILINE))
            return bool(found)

        self._wait(search, f"did not write {pattern!r} to {name}")
        return found[0]

    def _wait(self, so: Callable[[], bool], complaint: str) -> None:
        """Wait until what was written makes something so; fail if nothing more can come, or nothing comes."""
        with self._news:
            self._news.wait_for(lambda: so() or not self._open, self._patience)
            if so():
                return
        self._fail(complaint)

    def _fail(self, complaint: str) -> NoReturn:
        """End it in a way that shows where it stood, and fail with all it said."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.kill()
        raise AssertionError(
            f"{self.process.args!r} {complaint}.\n-- stdout:\n{self.printed}\n-- stderr:\n{self.said}"
        )
