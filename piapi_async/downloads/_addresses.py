"""Which addresses a link may lead to.  Pure.

Links are the host's text, and a redirect may be anyone's: one that leads into the network of this
process (another service of this machine, a router, the cloud's metadata) would make us fetch what
its author cannot reach.  So links to loopback, private and link-local addresses are refused, unless
the API itself is at such an address: then its files are expected there too, like an emulator's on
this machine, or a self-hosted API's within a company's network.

The ranges are listed here instead of asking `ipaddress` for `is_private`: that includes the ranges
for documentation and benchmarks, and the latter (198.18.0.0/15) is where VPN clients put every name
of the public internet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(StrEnum):
    """How far an address reaches."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"


_RANGES: Mapping[Reach, str] = {
    # 0.0.0.0 and :: connect to this machine.
    Reach.LOOPBACK: "127.0.0.0/8 0.0.0.0/8 ::1/128 ::/128",
    # Includes carrier-grade NAT (some clouds have their metadata there), multicast and reserved ranges.
    Reach.PRIVATE: (
        "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 224.0.0.0/3 "  # IPv4
        "fc00::/7 fec0::/10 ff00::/8"
    ),
    Reach.LINK_LOCAL: "169.254.0.0/16 fe80::/10",
}
_NETWORKS = [
    (ipaddress.ip_network(text), reach)  # in the order of `Reach`
    for reach, texts in _RANGES.items()
    for text in texts.split()
]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_LAST_32_BITS = 0xFFFFFFFF


@lru_cache(maxsize=1024)
def reach_of(text: str) -> Reach | None:
    """Return how far an address reaches, None for a name.

    The names of this machine (``localhost``) count as its address.
    """
    host = text.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return Reach.LOOPBACK

    try:
        address = _embedded(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None

    for network, reach in _NETWORKS:
        if network.version == address.version and address in network:
            return reach
    return Reach.PUBLIC


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & _LAST_32_BITS)
    return address.ipv4_mapped or address.sixtofour or address


def first_refused(addresses: Iterable[str], allowed: frozenset[Reach]) -> str | None:
    """Return the first address that a link must not lead to, None if all are allowed."""
    for address in addresses:
        reach = reach_of(address)
        if reach is not None and reach is not Reach.PUBLIC and reach not in allowed:
            return address
    return None
