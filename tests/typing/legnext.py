"""What type checkers see of LegNext's family.  Never run: mypy and pyright, both strict, read it."""

# mypy: warn-unused-ignores
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from typing import assert_type

from piapi_async import MidjourneyResult, PiAPI, TaskHandle, legnext


async def submit_and_attach() -> None:
    async with legnext.client("key", timeout=10.0) as piapi:
        assert_type(piapi, PiAPI)
        handle = await piapi.submit(legnext.Pan("job", 1, direction="up", scale=1.5))
        assert_type(handle, TaskHandle[legnext.LegNextResult])
        assert_type(piapi.attach("job", family=legnext.LEGNEXT), TaskHandle[legnext.LegNextResult])
        assert_type(piapi.attach("job"), TaskHandle[MidjourneyResult])  # which each of its results is

        result: MidjourneyResult = (await handle.wait()).result
        assert_type(result.seed, str)


def words_are_checked() -> None:
    legnext.Inpaint("job", 1, mask=[legnext.Area(1024, 768, (0, 0, 9, 0, 9, 9))])
    legnext.Inpaint("job", 1, mask="https://example.org/mask.png", prompt="a hat")
    legnext.Edit("job", 1, canvas=legnext.Canvas(9, 9), img_pos={"x": 0}, prompt="a hat", mask=None)
    legnext.Pan("job", 1, direction=2)  # type: ignore[arg-type]
    legnext.Upscale("job", 1, type="4x", webhook_endpoint=None)
    legnext.Reroll("job", prompt="a dog")  # type: ignore[call-arg]
