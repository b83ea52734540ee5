"""pytest fixtures for programs that use `piapi_async`: `piapi_emulator` and `piapi`.

The emulator runs in the test's own event loop.  Under a virtual clock (looptime) it runs at life
speed, and a task of a minute takes milliseconds; without one it runs fifty times faster than life.
A test sets it up by a marker::

    @pytest.mark.piapi_emulator(seed=7, failure_rate=0.1)
    async def test_my_bot(piapi, piapi_emulator): ...

pytest loads this module in every run of everybody who has the package installed, so it imports
nothing else until a fixture is asked for.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .client import PiAPI
    from .emulator import Emulator

SPEED = 50.0
"""How much faster than life the emulator runs where the clock is real."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures with whichever plugin runs async tests."""
    config.addinivalue_line("markers", "piapi_emulator(**options): make the piapi_emulator fixture with these options")
    fixture: Any = pytest.fixture
    if config.pluginmanager.has_plugin("asyncio"):
        import pytest_asyncio  # noqa: PLC0415 - not everybody has it

        fixture = pytest_asyncio.fixture
    fixtures: Any = ModuleType("piapi_async_fixtures")  # pytest looks for fixtures in modules and classes only
    fixtures.piapi_emulator, fixtures.piapi = fixture(piapi_emulator), fixture(piapi)
    config.pluginmanager.register(fixtures, "piapi_async_fixtures")


async def piapi_emulator(request: pytest.FixtureRequest) -> AsyncGenerator[Emulator, None]:
    """Give an emulator that is running and knows any parent task; the marker of this name sets it up otherwise."""
    from .emulator import Emulator  # noqa: PLC0415 - see the module's text

    marker = request.node.get_closest_marker("piapi_emulator")
    speed = 1.0 if _clock_is_virtual(request) else SPEED
    options = {"adopt_parents": True, "speed": speed, **(marker.kwargs if marker else {})}
    emulator = Emulator(**options)
    async with emulator.run():
        yield emulator


async def piapi(piapi_emulator: Emulator) -> AsyncGenerator[PiAPI, None]:
    """Give a client of the emulator; it is closed after the test."""
    async with piapi_emulator.client() as client:
        yield client


def _clock_is_virtual(request: pytest.FixtureRequest) -> bool:
    if not request.config.pluginmanager.has_plugin("looptime_plugin"):
        return False
    return request.node.get_closest_marker("looptime") is not None or bool(request.config.getoption("looptime", None))
