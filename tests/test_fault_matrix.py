"""Every fault of a network and a host, over real sockets: what a submit costs, and what its caller hears.

``python -m benchmarks.duplicates --ours`` runs the same table with 1,000 submits per fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from benchmarks._faults import FAULTS, LEGNEXT_FAULTS, UNIFIED_FAULTS, Fault
from benchmarks.duplicates import our_tally
from piapi_async import Ledger
from piapi_async.ledger import LedgerState

SUBMITS = 8


def cases(family: str, faults: Iterable[Fault], *marks: pytest.MarkDecorator) -> list[ParameterSet]:
    return [pytest.param(fault, id=f"{family}-{fault.name}", marks=marks) for fault in faults]


every_fault = pytest.mark.parametrize(
    "fault",
    [
        *cases("legacy", FAULTS),
        *cases("unified", UNIFIED_FAULTS),
        *cases("legnext", LEGNEXT_FAULTS, pytest.mark.storm),
    ],
)

# How many tasks a host could have made of one submit, by what its caller was told.
BILLABLE = {"recovers": {1}, "unknown": {0, 1}, "refused": {0}}


@every_fault
@pytest.mark.looptime
async def test_no_submit_reaches_a_host_twice_and_the_caller_hears_the_truth(fault: Fault) -> None:
    tally = await our_tally(fault, SUBMITS)

    assert Counter({fault.outcome: SUBMITS}) == tally.outcomes
    assert {creates for creates, _ in tally.counts} <= BILLABLE[fault.outcome]


@every_fault
@pytest.mark.storm
@pytest.mark.looptime
async def test_the_ledger_remembers_what_the_caller_heard(fault: Fault, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    tally = await our_tally(fault, 2, ledger=path)

    ledger = Ledger(path)
    states = Counter([entry.state async for entry in ledger])
    await ledger.close()
    kept = 1 if fault.kept else 0  # the submit before, which nothing befell
    expected = {
        "recovers": {LedgerState.ACCEPTED: 2 + 2 * kept},
        "unknown": {LedgerState.UNKNOWN: 2, LedgerState.ACCEPTED: 2 * kept},
        "refused": {},
    }
    assert Counter({fault.outcome: 2}) == tally.outcomes
    assert +Counter(expected[fault.outcome]) == states
