"""All families by name (what a name in a ref, a ledger or a command line stands for), and by host.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._legnext.requests import LEGNEXT
from ._protocol.family import Family
from .legacy import DREAM_MACHINE, FACE_SWAP, LEGACY_KLING
from .midjourney import LEGACY
from .unified import UNIFIED

FAMILIES: Mapping[str, Family[Any]] = {
    family.name: family for family in (LEGACY, UNIFIED, FACE_SWAP, DREAM_MACHINE, LEGACY_KLING, LEGNEXT)
}


def family_at(base_url: str) -> Family[Any] | None:
    """Return what bare ids mean at a vendor's own base URL, None for a host that is not known."""
    for family in FAMILIES.values():
        if family.service is not None and family.service.base_url == base_url:
            return family
    return None
