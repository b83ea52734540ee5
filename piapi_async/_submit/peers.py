"""The clients of one event loop that speak to one host: their submissions are no strangers to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from attrs import define, field

from .known_ids import KnownIds


class Peer(Protocol):
    """What a client lets the others know."""

    @property
    def under_way(self) -> AbstractSet[Any]:
        """Its submissions under way."""
        ...

    def open_searches(self) -> list[Any]:
        """Return what it looks for."""
        ...


@define(eq=False, repr=False)
class Peers:
    """What the clients of a loop know of each other: the tasks they have, and what they are sending."""

    ids: KnownIds = field(factory=KnownIds)
    _clients: WeakSet[Peer] = field(factory=WeakSet, init=False)

    def join(self, client: Peer) -> None:
        """Count one client more."""
        self._clients.add(client)

    def under_way(self) -> Iterator[Any]:
        """Yield the submissions under way of all clients."""
        for client in list(self._clients):
            yield from client.under_way

    def searches(self) -> Iterator[Any]:
        """Yield what all clients look for."""
        for client in list(self._clients):
            yield from client.open_searches()


_PEERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Peers]] = WeakKeyDictionary()


def peers_at(origin: str) -> Peers:
    """Return the clients of the running loop that speak to a host."""
    of_loop = _PEERS.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault(origin, Peers())
