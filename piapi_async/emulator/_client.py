"""The one place where the emulator meets the client that it is made for: it hands one out, set up for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import PiAPI
from ..policy import PollPolicy


def client(api_key: str, base_url: str, speed: float, options: Mapping[str, Any]) -> PiAPI:
    """Return a client with these settings, unless the options say otherwise."""
    given: dict[str, Any] = {"base_url": base_url, "poll": PollPolicy().at_speed(speed), **options}
    return PiAPI(given.pop("api_key", api_key), **given)
