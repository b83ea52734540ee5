"""Without a loop set, pytest-asyncio makes none of its own on Python 3.11, which it would leave to be collected."""

from __future__ import annotations

import asyncio

asyncio.set_event_loop(None)
