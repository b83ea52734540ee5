"""How to go on: the command line that waits again for tasks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from ..midjourney import LEGACY
from ._saving import Saving
from ._setup import Setup


def wait_command(setup: Setup, task_ids: Iterable[str], family: str, saving: Saving) -> str:
    """Return the command that waits for tasks, and saves their files as was asked for."""
    words = ["piapi-async", *setup.words(), "wait", *task_ids]
    if family != LEGACY.name:
        words += ["--family", family]
    return shlex.join([*words, *saving.words()])


def how_to_wait(setup: Setup, task_id: str, family: str, saving: Saving) -> str:
    """Return the command that waits for a task, or why there is none."""
    if setup.emulator and setup.ledger is None:
        return "not possible: the embedded emulator ends with this command, and its tasks with it."
    return wait_command(setup, [task_id], family, saving)
