"""Keys and their attempts: which item of the engine a key stands for.  Pure.

An item is one attempt of a key.  A key has a second attempt only if a person has resolved an unknown
first one, or the first was refused, so that nothing was made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from attrs import define, field

_MARK = "#"
_FIRST_MOMENT = 1_767_225_600.0  # the beginning of 2026, a Unix time
_PER_SECOND = 8  # ranks, so that they last for eight years
_LAST_RANK = 2**31 - 1


def item_of(key: str, attempt: int = 1) -> str:
    """Return the id of the item that is an attempt of a key."""
    return f"{key}{_MARK}{attempt}"


def key_of(item: str) -> tuple[str, int]:
    """Return the key of an item, and which of its attempts it is."""
    key, _, attempt = item.rpartition(_MARK)
    return key, int(attempt)


def nonce_key_of(item: str) -> str:
    """Return what the nonce of an item's webhook endpoint is made from; no ledger's key has a line feed."""
    return f"fleet\n{item}"


def mint_key() -> str:
    """Return a key that no other submission has."""
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"


@define(eq=False)
class Ranks:
    """The order in which items are taken: by the time at which they came, each of a process by itself.

    What was taken from a dead worker must be taken again before anything else, because its tasks are
    at the host already.  The time at which the engine stores an item does not tell: it is the same
    for all of a transaction.
    """

    _clock: Callable[[], float] = time.time
    _last: int = field(default=0, init=False)

    def next(self) -> int:
        """Return the rank of one more item, above all before it."""
        by_time = int((self._clock() - _FIRST_MOMENT) * _PER_SECOND)
        self._last = min(max(self._last + 1, by_time, 1), _LAST_RANK)
        return self._last
