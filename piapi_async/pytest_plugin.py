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
    marker = "piapi_emulator(**options): make the piapi_emulator fixture with these options"
    config.addinivalue_line("markers", marker)

    fixture: Any = pytest.fixture
    if config.pluginmanager.has_plugin("asyncio"):
        import pytest_asyncio  # noqa: PLC0415 - it may not be installed

        fixture = pytest_asyncio.fixture

    # pytest looks for fixtures in modules and classes only.
    fixtures: Any = ModuleType("piapi_async_fixtures")
    fixtures.piapi_emulator, fixtures.piapi = fixture(piapi_emulator), fixture(piapi)
    config.pluginmanager.register(fixtures, "piapi_async_fixtures")


async def piapi_emulator(request: pytest.FixtureRequest) -> AsyncGenerator[Emulator, None]:
    """Run an emulator that knows any parent task; the marker of this name changes its settings."""
    from .emulator import Emulator  # noqa: PLC0415 - see the module's docstring

    speed = 1.0 if _clock_is_virtual(request) else SPEED
    options: dict[str, Any] = {"adopt_parents": True, "speed": speed}
    marker = request.node.get_closest_marker("piapi_emulator")
    if marker is not None:
        options |= marker.kwargs

    emulator = Emulator(**options)
    async with emulator.run():
        yield emulator


async def piapi(piapi_emulator: Emulator) -> AsyncGenerator[PiAPI, None]:
    """Open a client of the emulator; it is closed after the test."""
    async with piapi_emulator.client() as client:
        yield client


def _clock_is_virtual(request: pytest.FixtureRequest) -> bool:
    if not request.config.pluginmanager.has_plugin("looptime_plugin"):
        return False
    if request.node.get_closest_marker("looptime") is not None:
        return True
    return bool(request.config.getoption("looptime", None))
