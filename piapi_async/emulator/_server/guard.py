"""Who may talk to an emulator on a developer's machine, and whom it may talk to.  Pure.

A page in the developer's own browser can reach loopback.  With a host name that is rebound to 127.0.0.1 it is of the
same origin as the emulator and could read prompts, create tasks with the well-known key, and have webhooks posted into
the inner network.  So an emulator that is not exposed answers only to names that no DNS server can rebind, and posts
webhooks only to them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from attrs import frozen

from .._service.checks import is_loopback

#: Of every answer that a browser might show: the type is what it says it is.
NO_SNIFFING: Mapping[str, str] = {"x-content-type-options": "nosniff"}


@frozen
class Guard:
    """Decides by names alone: `own` are those of the emulator's public URL, `hooks` those that webhooks may go to.

    `exposed`: whoever reaches the emulator is trusted, so nothing is refused.
    """

    exposed: bool = False
    own: frozenset[str] = frozenset()
    hooks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *, exposed: bool, public_url: str, hooks: Iterable[str]) -> Guard:
        """Return the guard of an emulator with these settings."""
        own = {urlsplit(public_url).hostname or ""} - {""}
        return cls(exposed, frozenset(own), frozenset(host.lower() for host in hooks))

    def refuses(self, hosts: Iterable[str], origins: Iterable[str]) -> tuple[int, str] | None:
        """Return status and text of the refusal of a request with these `Host` and `Origin` headers, None for none."""
        if self.exposed:
            return None
        for host in hosts:
            if not self._is_own(_name_of(host)):
                return 421, f"this emulator does not serve the host {host[:100]!r}; expose it, or set its public URL"
        for origin in origins:
            if not self._is_own(_host_of(origin)):
                return 403, f"this emulator is not there for pages of the origin {origin[:100]!r}"
        return None

    def lets_out(self, endpoint: str) -> bool:
        """Tell whether a webhook may be posted there."""
        host = _host_of(endpoint)
        return self.exposed or is_loopback(host) or host in self.hooks

    def _is_own(self, host: str) -> bool:
        return is_loopback(host) or host in self.own


def _host_of(url: str) -> str:
    """Return the host of a URL in lower case, "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _name_of(host: str) -> str:
    """Return the name in a `Host` header, without its port."""
    return _host_of(f"//{host}")


def page_headers(html: bytes) -> Mapping[str, str]:
    """Return the headers of the live page: it runs and loads nothing but what stands in it and its own server's JSON.

    Inline scripts and styles are allowed by their digests, so that nothing injected would run.
    """
    script, style = (_digests(html, tag) for tag in ("script", "style"))
    policy = (
        "default-src 'none'",
        f"script-src {script}",
        f"style-src {style}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "referrer-policy": "no-referrer",
        **NO_SNIFFING,
    }


def _digests(html: bytes, tag: str) -> str:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
