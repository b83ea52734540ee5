"""`batch --dry-run`: what a run would do, and what it may cost by what such tasks have cost before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import orjson
from attrs import evolve

from ..._client.earlier import WITHOUT_RESULT
from ..._families import FAMILIES
from ..._protocol.family import TaskRequest
from ...batch._budget import model_of
from ...client import runtime_of
from ...errors import PiAPIError
from ...ledger import LedgerEntry, LedgerState
from ...ledger._queries import ended_well
from ...ledger._writer import LedgerWriter
from ...tasks import Cost
from .._output import print_json
from .._session import client
from .._setup import Setup
from ._check import identified
from ._lines import BatchInput

_LATEST = 1_000  # tasks whose costs are looked at

Prices = Mapping[Hashable, Cost]
"""What a task of a model and a task type has cost on average."""


async def rehearse(setup: Setup, requests: BatchInput, good: int, *, retry_failed: bool) -> None:
    """Print what a run would do; creates no ledger."""
    counts = {"items": good, "submit": 0, "resume": 0, "unknown": 0}
    if retry_failed:
        counts["retry"] = 0
    if setup.ledger is not None and not setup.ledger.exists():
        setup = evolve(setup, ledger=None)

    costs: defaultdict[str, float] = defaultdict(int)
    unpriced = 0
    async with client(setup) as piapi:
        ledger = runtime_of(piapi).ledger
        prices: Prices = {}
        if ledger is not None:
            await ledger.counts()  # which also marks what has become unknown
            prices = _prices(await ledger.run(ended_well, piapi.origin, _LATEST))

        async for item in identified(piapi, requests):
            fate = await _fate_of(item.key, ledger, retry_failed=retry_failed)
            counts[fate] += 1
            if fate in {"submit", "retry"}:
                price = prices.get(_kind(item.request))
                unpriced += price is None
                if price is not None:
                    costs[price.unit] += price.amount

    found: dict[str, Any] = dict(counts)
    if setup.ledger is not None:  # without one nothing is known of what anything has cost
        found["estimated_cost"] = [{"amount": amount, "unit": unit} for unit, amount in costs.items()]
        found["of_unknown_cost"] = unpriced
    print_json(found)


async def _fate_of(key: str | None, ledger: LedgerWriter | None, *, retry_failed: bool) -> str:
    """Return what a run would do with the line of a key."""
    if ledger is None or not key:
        return "submit"

    known = await ledger.find(key)
    if known is None:
        return "submit"
    if known.state is LedgerState.UNKNOWN:
        return "unknown"
    if retry_failed and known.outcome in WITHOUT_RESULT:
        return "retry"
    return "resume"


def _kind(request: TaskRequest[Any]) -> Hashable:
    sent = request.to_http()
    return model_of(sent.path, orjson.loads(sent.body or b"{}"))


def _prices(entries: Iterable[LedgerEntry]) -> Prices:
    """Return the average costs of tasks that are done."""
    costs: defaultdict[Hashable, list[Cost]] = defaultdict(list)
    for entry in entries:
        path, _, body = entry.request.partition(" ")
        cost = _cost_of(entry)
        if cost is not None:
            costs[model_of(path, orjson.loads(body))].append(cost)

    prices: dict[Hashable, Cost] = {}
    for kind, known in costs.items():
        unit = known[0].unit  # of the latest
        amounts = [cost.amount for cost in known if cost.unit == unit]
        prices[kind] = Cost(sum(amounts) / len(amounts), unit)
    return prices


def _cost_of(entry: LedgerEntry) -> Cost | None:
    family = FAMILIES.get(entry.family)
    if family is None or entry.task_id is None or not entry.answer:
        return None
    try:
        task = family.read(orjson.loads(entry.answer), entry.task_id)
    except (PiAPIError, ValueError):
        return None
    cost: Cost | None = task.cost
    return cost
