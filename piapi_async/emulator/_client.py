"""The one place where the emulator imports the client: it makes one for its user, set up for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import PiAPI
from ..policy import PollPolicy


def client(api_key: str, base_url: str, speed: float, options: Mapping[str, Any]) -> PiAPI:
    """Return a client with these settings; the options take precedence."""
    poll = PollPolicy().at_speed(speed)
    given: dict[str, Any] = {"base_url": base_url, "poll": poll, **options}
    return PiAPI(given.pop("api_key", api_key), **given)
