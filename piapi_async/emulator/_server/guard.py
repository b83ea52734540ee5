"""Who may talk to an emulator on a developer's machine, and to whom it may talk.  Pure.

A page in the developer's own browser can reach loopback.  With a host name that is rebound to
127.0.0.1 it has the same origin as the emulator, and could read prompts, create tasks with the
well-known key, and have webhooks posted into the inner network.  So an emulator that is not exposed
answers only to names that no DNS server can rebind, and posts webhooks only to them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from attrs import frozen

from .._service.checks import is_loopback

#: For every response that a browser might show: its content type is what it says it is.
NO_SNIFFING: Mapping[str, str] = {"x-content-type-options": "nosniff"}


@frozen
class Guard:
    """Decides by the names of hosts.

    `own` are those of the emulator's public URL, `hooks` those that webhooks may go to.
    `exposed`: everyone who reaches the emulator is trusted, so nothing is refused.
    """

    exposed: bool = False
    own: frozenset[str] = frozenset()
    hooks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *, exposed: bool, public_url: str, hooks: Iterable[str]) -> Guard:
        """Return the guard of an emulator with these settings."""
        own = {urlsplit(public_url).hostname or ""} - {""}
        return cls(exposed, frozenset(own), frozenset(host.lower() for host in hooks))

    def refusal(self, hosts: Iterable[str], origins: Iterable[str]) -> tuple[int, str] | None:
        """Return status and message of the refusal of a request, None if it is served.

        `hosts` and `origins` are the values of its `Host` and `Origin` headers.
        """
        if self.exposed:
            return None

        for host in hosts:
            if not self._is_own(_host_of(f"//{host}")):
                return (
                    421,
                    f"this emulator does not serve the host {host[:100]!r}; expose it, or set its public URL",
                )
        for origin in origins:
            if not self._is_own(_host_of(origin)):
                return 403, f"this emulator is not there for pages of the origin {origin[:100]!r}"
        return None

    def allows_webhook(self, endpoint: str) -> bool:
        """Return whether a webhook may be posted there."""
        host = _host_of(endpoint)
        return self.exposed or is_loopback(host) or host in self.hooks

    def _is_own(self, host: str) -> bool:
        return is_loopback(host) or host in self.own


def _host_of(url: str) -> str:
    """Return the host of a URL in lower case, "" if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def page_headers(html: bytes) -> Mapping[str, str]:
    """Return the headers of the live page, which runs and loads only what is in it and its own server's JSON.

    Inline scripts and styles are allowed by their digests, so that nothing injected would run.
    """
    policy = (
        "default-src 'none'",
        f"script-src {_digests(html, 'script')}",
        f"style-src {_digests(html, 'style')}",
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
