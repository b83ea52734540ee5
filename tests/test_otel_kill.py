"""Spans over the kill of a process: what is resumed links to the trace under which it was submitted."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from support import traced_batch
from support.processes import Child, started
from support.threaded_emulator import end_all, threaded_emulator

pytestmark = pytest.mark.storm


def told(child: Child, what: str) -> list[list[str]]:
    return [line.split()[1:] for line in child.printed.splitlines() if line.startswith(f"{what} ")]


def test_a_batch_that_was_killed_links_to_the_spans_of_its_first_life(tmp_path: Path) -> None:
    with threaded_emulator(durations=3600.0) as (emulator, host):
        words = (sys.executable, traced_batch.__file__, host, emulator.api_key, str(tmp_path / "run.db"))
        with started(*words) as first:
            first.prints(r"(?s)(?:^accepted .*?){6}$")
            first.signal(signal.SIGKILL)
            assert -signal.SIGKILL == first.finish()
        end_all(emulator)
        with started(*words) as second:
            assert 0 == second.finish(), second.said

    assert [] == told(first, "ended")
    submitted = {span for [span] in told(first, "began")}
    resumed = {key: links for key, *links in told(second, "ended")}

    assert {f"item-{number}" for number in range(traced_batch.ITEMS)} == set(resumed)
    assert [1] * traced_batch.ITEMS == [len(links) for links in resumed.values()]
    assert submitted == {link for links in resumed.values() for link in links}
    assert submitted.isdisjoint(span for [span] in told(second, "began"))
    assert all(re.fullmatch("[0-9a-f]{32}-[0-9a-f]{16}", span) for span in submitted)
    assert traced_batch.ITEMS == len(emulator.engine.tasks)
