"""What a client's arguments, the environment and the defaults come to: arguments beat the environment."""

from __future__ import annotations

import math
import os
from typing import Any

from attrs import frozen

from .._calls.secrets import Hidden
from .._calls.transport import check_base_url, check_key
from .._families import family_at
from .._protocol.family import Family
from .._runtime import Home
from .._submit.uploads import upload_url_for
from .._text import brief
from ..account import PIAPI
from ..midjourney import LEGACY
from ..policy import PollPolicy


@frozen(eq=False, repr=False)
class Endpoint:
    """Where a client's requests and uploads go, and with which key."""

    key: Hidden
    base_url: str
    upload_url: str
    home: Home

    @classmethod
    def of(
        cls,
        key: Hidden,
        base_url: str | None,
        upload_url: str | None,
        family: Family[Any] | None,
        *,
        allow_insecure: bool,
    ) -> Endpoint:
        """Return the endpoint of a client of a family, completed from the environment of its vendor.

        Raises `ValueError` for a missing key and for a URL that is not allowed.
        """
        service = PIAPI
        if family is not None and family.service is not None:
            service = family.service
        variable = f"{service.variables}_API_KEY"
        if key.value is None:
            key = Hidden(os.environ.get(variable))

        if base_url is None:  # "" is probably an unset variable, and must not mean the host that costs money
            base_url = os.environ.get(f"{service.variables}_BASE_URL") or service.base_url
        base_url = check_base_url(base_url, allow_insecure=allow_insecure)
        upload_url = check_base_url(
            upload_url or os.environ.get(f"{service.variables}_UPLOAD_URL") or upload_url_for(base_url),
            allow_insecure=allow_insecure,
            name="upload_url",
        )
        key = check_key(key, client=service.client, variable=variable)
        return cls(key, base_url, upload_url, _home(family, base_url))


def _home(family: Family[Any] | None, base_url: str) -> Home:
    """Return where requests go that are sent to a base URL, by a client of a family."""
    known = family or family_at(base_url)
    if known is None or known.service is None:
        return Home(known or LEGACY, PIAPI, known=False)
    return Home(known, known.service, known=True)


def poll_policy(poll: PollPolicy | None, base_url: str) -> PollPolicy:
    """Return how closely tasks are polled.

    An emulator on this machine may be faster than life, as PIAPI_POLL_SPEED says then; a host that is
    asked over https is not.  Raises `ValueError` for a speed that is none.
    """
    if poll is not None:
        return poll
    text = os.environ.get("PIAPI_POLL_SPEED", "").strip()
    if not text or base_url.startswith("https:"):
        return PollPolicy()

    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise ValueError(f"PIAPI_POLL_SPEED: {brief(text)} is not allowed; it must be a number above 0")
    return PollPolicy().at_speed(speed)


def check_whole(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: {brief(value)} is not allowed; it must be a whole number above 0")


def check_class(name: str, value: object, kind: type[Any]) -> None:
    """Raise `TypeError` unless `value` is of a class, or None."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name}: {brief(value)} is not allowed; it must be a {kind.__name__}")


def check_recover(seconds: object) -> None:
    """Raise `ValueError` unless a lost submission can be looked for so long."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise ValueError(f"recover: {brief(seconds)} is not allowed; it must be 0 or more seconds")
