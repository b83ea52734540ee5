"""How often a batch makes the bytes of an item's request: a mask in it may have megabytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from attrs import define, frozen

from piapi_async import LEGACY, BatchItem, BatchRunner, Ledger, PiAPI, PollPolicy, Reroll
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.family import Family
from piapi_async.midjourney import MidjourneyResult
from piapi_async.tasks import Created, TaskId

from ._goals import Goal

_WITHOUT, _WITH = 1, 2


@define
class _Count:
    made: int = 0


@frozen
class _Counted:
    """A reroll that counts how often it is encoded."""

    reroll: Reroll
    count: _Count
    family: Family[MidjourneyResult] = LEGACY

    def to_http(self) -> HTTPRequest:
        self.count.made += 1
        return self.reroll.to_http()

    def parse(self, response: HTTPResponse) -> TaskId | Created:
        return self.reroll.parse(response)


async def encoding_goals(base_url: str, key: str, parent: str) -> list[Goal]:
    """Run an item without a ledger and one with, and hold the number of encodings against the goals."""
    with tempfile.TemporaryDirectory() as folder:
        without = await _encodings(base_url, key, parent, None)
        recorded = await _encodings(base_url, key, parent, Ledger(Path(folder, "run.db")))
    return [
        _goal("without a ledger", without, _WITHOUT),
        _goal("with a ledger", recorded, _WITH),
    ]


async def _encodings(base_url: str, key: str, parent: str, ledger: Ledger | None) -> int:
    count = _Count()
    async with PiAPI(key, base_url=base_url, poll=PollPolicy.every(0.05), ledger=ledger) as piapi:
        [outcome] = await BatchRunner(piapi).run([BatchItem(_Counted(Reroll(parent), count))])
    assert outcome.ok  # noqa: S101 - a run that failed has measured nothing
    return count.made


def _goal(how: str, made: int, most: int) -> Goal:
    return Goal(f"times that an item's request is encoded, {how}", f"{made}", f"<= {most}", made <= most)
