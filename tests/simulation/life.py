"""One life from a seed: play it, and say what did not hold; make the story short where something did not."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from .play import play
from .story import Story, make, shrink
from .truth import counts, violations

# Patience of the ledger's thread with a loop that runs beside it: here the loop waits while the "thread" works.
_THREAD_PAUSES = ("_LOOP_PATIENCE", "_GATHER", "_LOOP_GRACE", "_LINGER")


@frozen
class Finding:
    """What did not hold in a story, which is as short as it could be made."""

    story: Story
    violations: tuple[str, ...]

    def __str__(self) -> str:
        what = "\n".join(f"-> {violation}" for violation in self.violations)
        replay = f"pytest tests/test_simulation.py --simulation-seed={self.story.seed}"
        return f"{self.story.words}\n{what}\nreplay: {replay}"


@frozen
class Life:
    """What came of playing a story."""

    violations: tuple[str, ...]
    counts: Counter[str]


def live(story: Story) -> Life:
    """Play a story."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory in memory, where a commit costs little
    with _no_pauses(), tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        record = play(story, Path(folder))
        return Life(tuple(violations(record)), counts(record))


def look_for_faults(seed: int, *, short: bool = True) -> tuple[Finding | None, Counter[str]]:
    """Return what a seed finds, None if all holds, and what happened in that life."""
    story = make(seed)
    life = live(story)
    if not life.violations:
        return None, life.counts
    whole = Finding(story, life.violations)
    if not short:
        return whole, life.counts

    kind = kind_of(life.violations[0])
    shrunk = shrink(
        story, lambda candidate: any(kind == kind_of(other) for other in live(candidate).violations)
    )
    found = live(shrunk).violations
    if not found:  # it has come once only: what was seen is told
        return whole, life.counts
    return Finding(shrunk, found), life.counts


def kind_of(violation: str) -> str:
    """Return a violation without its ids and numbers."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|\d+", "N", violation)[:60]


@contextmanager
def _no_pauses() -> Iterator[None]:
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("piapi_async.")]
    before = [
        (module, name, getattr(module, name))
        for module in modules
        for name in _THREAD_PAUSES
        if hasattr(module, name)
    ]
    for module, name, _ in before:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
