"""Runs a command to its exit code: every error ends as a sentence."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from ..errors import PiAPIError, WaitTimeout
from ._exit import ExitCode, exit_code
from ._output import end_if_unread
from ._stderr import say

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a command to stop.

    SIGHUP comes when the terminal is closed; under nohup it is ignored, and stays so.
    """
    kinds = list(_STOPPING)
    for kind in _STOPPING:
        if kind.name == "SIGHUP" and signal.getsignal(kind) is signal.SIG_IGN:
            kinds.remove(kind)
    return tuple(kinds)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command; SIGTERM and SIGHUP count as Ctrl-C, and a reader that leaves (``| head``) ends it quietly."""

    async def stoppable() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for kind in stopping_signals():
            if kind != signal.SIGINT:  # asyncio handles that one
                with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
                    loop.add_signal_handler(kind, lambda: task and task.cancel())
        await main

    try:
        asyncio.run(stoppable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted.")
        sys.exit(ExitCode.INTERRUPTED)
    except PiAPIError as error:
        say(f"Error: {explain(error)}")
        sys.exit(exit_code(error))
    except OSError as error:
        end_if_unread(error)
        say(f"Error: {error}")
        sys.exit(ExitCode.OTHER)


def explain(error: BaseException) -> str:
    """Return an error's text; that of a time-out without its advice, which is for Python."""
    if not isinstance(error, WaitTimeout):
        return str(error)

    text = f"Timed out waiting for task {error.ref}; "
    if error.task is None:
        text += "no response told its status."
    elif error.task.progress is None:
        text += f"it was last seen {error.task.status}."
    else:
        text += f"it was last seen {error.task.status} at {error.task.progress} %."

    if error.__cause__:
        text += f" The last poll failed: {error.__cause__}"
    return text
