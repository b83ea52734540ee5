"""All families by name (what a name in a ref, a ledger or a command line stands for), and by host.  Pure.

A family's module is imported when the family is asked for: most programs use one protocol of six, and
making its request classes takes longer than all else that this package does to be imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from ._protocol.family import Family

_PLACES = MappingProxyType(
    {
        "legacy": ("midjourney", "LEGACY"),
        "unified": ("unified", "UNIFIED"),
        "face-swap": ("legacy", "FACE_SWAP"),
        "dream-machine": ("legacy", "DREAM_MACHINE"),
        "legacy-kling": ("legacy", "LEGACY_KLING"),
        "legnext": ("_legnext.requests", "LEGNEXT"),
    }
)
"""The module of each family, and its name there."""

_AT_HOME = ("legacy", "legnext")
"""What bare ids mean at each vendor's own host."""


class _Families(Mapping[str, Family[Any]]):
    def __getitem__(self, name: str) -> Family[Any]:
        module, place = _PLACES[name]
        family: Family[Any] = getattr(import_module(f".{module}", __package__), place)
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __contains__(self, name: object) -> bool:
        return name in _PLACES


FAMILIES: Mapping[str, Family[Any]] = _Families()


def family_at(base_url: str) -> Family[Any] | None:
    """Return what bare ids mean at a vendor's own base URL, None for a host that is not known."""
    for name in _AT_HOME:
        family = FAMILIES[name]
        if family.service is not None and family.service.base_url == base_url:
            return family
    return None
