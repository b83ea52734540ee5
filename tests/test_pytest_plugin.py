from __future__ import annotations

import sys

import pytest
from support.processes import PATIENCE, ended

MODES = ["auto", "strict"]

BOT = """
    import asyncio
    import pytest
    from piapi_async import Reroll, Upscale

    @pytest.mark.asyncio
    @pytest.mark.looptime
    async def test_my_bot_rerolls_and_upscales(piapi, piapi_emulator):
        grid = await (await piapi.submit(Reroll("6886fc4d", prompt="a cute cat"))).wait(timeout=600)
        picture = await (await piapi.submit(Upscale(grid.task_id, index=2))).wait(timeout=600)
        assert len(picture.images) == 1
        assert piapi_emulator.seen.requests["reroll"] == 1
        assert asyncio.get_running_loop().time() > 10

    @pytest.mark.asyncio
    @pytest.mark.piapi_emulator(failure_rate=1.0, speed=300)
    async def test_my_bot_tells_of_failures(piapi, piapi_emulator):
        handle = await piapi.submit(Reroll("6886fc4d"))
        async for task in handle.updates():
            pass
        assert task.state.value == "failed"
        assert piapi_emulator.speed == 300

    @pytest.mark.asyncio
    async def test_without_a_virtual_clock_it_is_sped_up(piapi_emulator):
        assert piapi_emulator.speed == 50
"""


@pytest.mark.parametrize("mode", MODES)
def test_the_fixtures_serve_tests_in_either_mode(mode: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_bot=BOT)
    pytester.makeini(f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n")

    result = pytester.runpytest_inprocess("-q", "-W", "error", "--strict-markers")

    result.assert_outcomes(passed=3)


@pytest.mark.storm
def test_without_pytest_asyncio_the_plugin_still_loads(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_plain="def test_plain(): pass")

    result = pytester.runpytest_subprocess(
        "-q", "-p", "no:asyncio", "-p", "no:looptime_plugin", "--fixtures", timeout=PATIENCE
    )

    result.stdout.fnmatch_lines(["*piapi_emulator*"])


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    code = "import piapi_async.pytest_plugin, sys; print(*{'aiohttp', 'PIL', 'click', 'anyio'} & sys.modules.keys())"
    done = ended(sys.executable, "-c", code)

    assert (done.code, done.printed.strip()) == (0, "")
