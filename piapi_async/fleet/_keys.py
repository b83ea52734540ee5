"""Keys and their attempts: which item of the engine a key stands for.  Pure.

An item is one attempt of a key.  A key has a second attempt only if a person has resolved an unknown
first one, or the first was refused, so that nothing was made.
"""

from __future__ import annotations

import os
import time

_MARK = "#"


def item_of(key: str, attempt: int = 1) -> str:
    """Return the id of the item that is an attempt of a key."""
    return f"{key}{_MARK}{attempt}"


def key_of(item: str) -> tuple[str, int]:
    """Return the key of an item, and which of its attempts it is."""
    key, _, attempt = item.rpartition(_MARK)
    return key, int(attempt)


def mint_key() -> str:
    """Return a key that no other submission has."""
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"
