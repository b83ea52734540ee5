"""What a run has cost, what is frozen for its tasks in flight, and whether another may be submitted.

A task's price is not known before it is submitted.  What the host freezes when it accepts a task is
what that is expected to cost, and tasks of one kind cost about the same.  A kind is a model, a task
type, and every input that a price may depend on: all but texts, links and seeds, of which it counts
only whether they are there.  Of each task type one item at a time goes first whose kind was never
seen, while the highest price of its task type is reserved for it; the others wait until its figure is
known.  An item is submitted if what was consumed, what is frozen, and its own price stay within the
limit; if they may once the tasks in flight have ended, it waits for these.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs
import orjson
from attrs import define, field, frozen

from .._protocol.family import TaskRequest
from .._text import label
from ..tasks import Cost

_PRICED_BY = frozenset({"mode", "process_mode", "duration", "resolution", "version", "quality", "model"})
"""Inputs that may be words, and on which the vendor's prices depend (vendor page)."""
_LONGEST_WORD = 24
_FREE = r"(?i)prompt|text|lyric|title|tag|message|id$|url|link|image|video|audio|file|mask"
"""Inputs that anything may stand in, by parts of their names."""


@frozen
class Kind:
    """What tasks of about one price have in common: the path, the model and the task type, and the inputs."""

    base: tuple[str, str, str]
    inputs: tuple[tuple[str, str], ...]


def _amounts() -> defaultdict[str, float]:
    return defaultdict(int)  # whole amounts stay whole


class LimitError(ValueError):
    """A limit that cannot be kept, which ends the run."""


@define(eq=False)
class Budget:
    """The money of one run, by unit; `limit` is `max_cost`, None without any.

    Items are told from each other by their index.
    """

    limit: float | None = None
    _consumed: defaultdict[str, float] = field(factory=_amounts, init=False)
    _kept: defaultdict[str, float] = field(factory=_amounts, init=False)
    """What is frozen for tasks that nobody here waits for any more, or that may have been made."""
    _frozen: dict[int, Cost] = field(factory=dict, init=False)
    _unpriced: dict[int, Kind] = field(factory=dict, init=False)
    """The kinds of items that may have made a task before the price of any was known."""
    _guessed: set[int] = field(factory=set, init=False)
    """The items for which the price of another kind is frozen, as the host has not told their own."""
    _priced_late: dict[int, Cost] = field(factory=dict, init=False)
    """What is kept for such items since it is known."""

    # With a limit:
    _kinds: dict[int, Kind] = field(factory=dict, init=False)  # of the items that may cost something yet
    _prices: dict[Kind, Cost] = field(factory=dict, init=False)
    _units: set[str] = field(factory=set, init=False)  # of the prices
    _highest: dict[tuple[str, str, str], Cost] = field(factory=dict, init=False)
    _going_first: dict[tuple[str, str, str], int] = field(factory=dict, init=False)
    # kinds of which a task ended, and no figure came
    _priceless: set[Kind] = field(factory=set, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _closed: bool = field(default=False, init=False)

    # -- figures ----------------------------------------------------------------------------------

    def costs(self) -> tuple[Cost, ...]:
        """Return what was consumed, in each unit."""
        return tuple(Cost(amount, unit) for unit, amount in self._consumed.items())

    def frozen(self) -> tuple[Cost, ...]:
        """Return what is frozen, in each unit."""
        amounts = self._kept.copy()
        for cost in self._frozen.values():
            amounts[cost.unit] += cost.amount
        return tuple(Cost(amount, unit) for unit, amount in amounts.items())

    # -- one item ---------------------------------------------------------------------------------

    async def reserve(self, index: int, request: TaskRequest[Any]) -> bool:
        """Return True once an item may be submitted, its price being reserved; False if it may not.

        Raises `LimitError` if the limit cannot be kept: see `why_no_price`, and `_check_kind`.
        """
        if self.limit is None:
            return True

        reason = why_no_price(request)
        if reason:
            raise LimitError(reason)
        kind = kind_of(request)

        while not self._closed:
            self._check_kind(kind, request)
            if self._try_to_reserve(index, kind):
                return True
            if not self._kinds or self._is_too_much(kind):
                return False
            await self._changed.wait()
        return False

    def freeze(self, index: int, cost: Cost | None) -> None:
        """Note what an item's task is expected to cost, as the host said when it accepted it."""
        if cost is None:
            return
        self._frozen[index] = cost
        self._guessed.discard(index)
        self._learn(index, cost)
        self._notify()

    def consume(self, index: int, cost: Cost | None, *, is_done: bool) -> None:
        """Note what an item's ended task has cost: what was frozen, if the host says nothing."""
        frozen = self._frozen.pop(index, None)
        if index in self._guessed:
            frozen = None
        if cost is not None and (is_done or cost.amount):  # one that failed may cost nothing
            self._learn(index, cost)
        cost = cost or frozen
        if cost is not None:
            self._consumed[cost.unit] += cost.amount
        if self.limit is None:  # then no kind is known
            return

        kind = self._kinds.get(index)
        if is_done and kind is not None and kind not in self._prices:
            self._priceless.add(kind)
        self._release(index)

    def keep(self, index: int) -> Cost | None:
        """Keep an item's price counted, and return it: its task goes on unwatched, or may have been made."""
        kind = self._kinds.get(index)
        cost = self._frozen.pop(index, None)
        if kind is not None:
            cost = cost or self._prices.get(kind)
        if cost is not None:
            self._kept[cost.unit] += cost.amount

        if kind is not None and kind not in self._prices:  # counted once another task of its kind has a price
            self._unpriced[index] = kind
            if cost is not None:  # which was guessed
                self._priced_late[index] = cost
        self._release(index)
        return cost

    def revive(self, index: int, kept: Cost | None) -> None:
        """Note that an item whose price was kept has a task, which is waited for."""
        self._unpriced.pop(index, None)
        kept = self._priced_late.pop(index, None) or kept
        if kept is None:
            return
        self._kept[kept.unit] -= kept.amount
        if not self._kept[kept.unit]:
            del self._kept[kept.unit]
        self._frozen[index] = kept

    def release(self, index: int) -> None:
        """Note that an item has made no task."""
        self._frozen.pop(index, None)
        self._release(index)

    def close(self) -> None:
        """Let no item wait any more, nor be submitted."""
        self._closed = True
        self._notify()

    # -- the limit --------------------------------------------------------------------------------

    def _try_to_reserve(self, index: int, kind: Kind) -> bool:
        price = self._prices.get(kind)
        is_guessed = price is None
        if is_guessed:
            price = self._guess(kind)
            if self._going_first.setdefault(kind.base, index) != index:
                return False

        if not self._has_room(self._spent(), price):
            self._give_up_first(index, kind)
            return False
        if price is not None:
            self._frozen[index] = price
        if is_guessed:
            self._guessed.add(index)
        self._kinds[index] = kind
        return True

    def _guess(self, kind: Kind) -> Cost | None:
        """Return the highest price of all kinds with this task type, None if none is known."""
        return self._highest.get(kind.base)

    def _has_room(self, spent: float, price: Cost | None) -> bool:
        if price is None:
            return spent < self._limit
        return spent + price.amount <= self._limit

    @property
    def _limit(self) -> float:
        return math.inf if self.limit is None else self.limit

    def _spent(self) -> float:
        """Return what has been spent or may still be."""
        return self._lasting() + sum(cost.amount for cost in self._frozen.values())

    def _lasting(self) -> float:
        return sum(self._consumed.values()) + sum(self._kept.values())

    def _is_too_much(self, kind: Kind) -> bool:
        """Return whether an item does not fit in even when all tasks in flight have ended."""
        return not self._has_room(self._lasting(), self._prices.get(kind) or self._guess(kind))

    def _check_kind(self, kind: Kind, request: TaskRequest[Any]) -> None:
        """Raise `LimitError` if the figures do not allow a limit: several units, or none for this kind."""
        if len(self._units) > 1:
            raise LimitError(
                f"max_cost: the tasks of this run cost {' and '.join(sorted(self._units))}, which "
                "cannot be added: run them one after the other. Nothing more is submitted"
            )
        if kind in self._priceless:
            raise LimitError(
                f"max_cost: the host does not tell what {label(request)} costs, so it cannot be "
                "kept. Nothing more is submitted"
            )

    def _learn(self, index: int, cost: Cost) -> None:
        """Note the price of a kind: the highest that was seen, in whatever unit came last."""
        kind = self._kinds.get(index)
        if kind is None:
            return

        known = self._prices.get(kind)
        if known is None or known.unit != cost.unit or known.amount < cost.amount:
            self._prices[kind] = cost
            self._units.add(cost.unit)
            highest = self._highest.get(kind.base)
            if highest is None or highest.amount < cost.amount:
                self._highest[kind.base] = cost
            self._keep_unpriced(kind, cost)
        self._give_up_first(index, kind)

    def _keep_unpriced(self, kind: Kind, cost: Cost) -> None:
        """Count what may have been made before anybody knew what it costs."""
        for index in [index for index, other in self._unpriced.items() if other == kind]:
            del self._unpriced[index]
            guessed = self._priced_late.get(index)
            if guessed is not None:
                self._kept[guessed.unit] -= guessed.amount
            self._priced_late[index] = cost
            self._kept[cost.unit] += cost.amount

    def _give_up_first(self, index: int, kind: Kind) -> None:
        if self._going_first.get(kind.base) == index:
            del self._going_first[kind.base]

    def _release(self, index: int) -> None:
        self._guessed.discard(index)
        kind = self._kinds.pop(index, None)
        if kind is not None:
            self._give_up_first(index, kind)
        self._notify()

    def _notify(self) -> None:
        if self.limit is not None:
            self._changed.set()
            self._changed = asyncio.Event()


def why_no_price(request: TaskRequest[Any]) -> str:
    """Return why no limit can be kept for a request, "" if one can."""
    family = request.family
    if family.tells_price:
        return ""
    return (
        f"max_cost: the protocol {family.name!r} counts a quota, and does not tell what "
        f"{label(request)} costs. Nothing was submitted for it: run it without max_cost, or bound "
        "it by max_submits"
    )


def kind_of(request: TaskRequest[Any]) -> Kind:
    """Return what tasks of about one price have in common."""
    sent = request.to_http()
    body = orjson.loads(sent.body or b"{}")
    inputs = body.get("input")
    if not isinstance(inputs, dict):
        inputs = body

    words = _PRICED_BY | _choices_of(type(request))
    return Kind(model_of(sent.path, body), tuple(sorted(_counted(inputs, words))))


def _counted(inputs: Mapping[str, Any], words: frozenset[str], depth: int = 3) -> Iterator[tuple[str, str]]:
    """Yield the names of inputs, and what counts of them: numbers, flags, words, the lengths of lists."""
    for name, value in inputs.items():
        if "seed" in name:
            continue
        if isinstance(value, dict) and depth:
            yield from ((f"{name}.{inner}", counts) for inner, counts in _counted(value, words, depth - 1))
        elif isinstance(value, (bool, int, float)):
            yield name, str(value)
        elif isinstance(value, list):
            yield name, f"{len(value)} of them"
        elif isinstance(value, str) and (name in words or _is_word(name, value)):
            yield name, value
        else:  # that it is there
            yield name, ""


def _is_word(name: str, value: str) -> bool:
    """Return whether an input is a word such as "1024x1024", not a text, an id or a link."""
    return len(value) <= _LONGEST_WORD and not re.search(r"\s", value) and not re.search(_FREE, name)


@lru_cache(maxsize=256)
def _choices_of(request_class: type[Any]) -> frozenset[str]:
    """Return the inputs of a request class that are one of some words."""
    if not attrs.has(request_class):  # a user's own
        return frozenset()
    return frozenset(each.name for each in attrs.fields(request_class) if "words" in each.metadata)


def model_of(path: str, body: Any) -> tuple[str, str, str]:  # noqa: ANN401 - JSON
    """Return the model and the task type of a request's JSON, as far as it names them, and its path."""
    if not isinstance(body, dict):
        body = {}
    return path, str(body.get("model", "")), str(body.get("task_type", ""))
