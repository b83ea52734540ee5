"""A task group whose errors come out as themselves."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from piapi_async._calls.groups import unwrapped_group
from piapi_async.errors import DownloadError


async def test_the_first_error_is_raised_as_itself_with_its_own_cause_and_ends_the_others() -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise DownloadError("no room") from OSError("disk full")

    async def go_on() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    with pytest.raises(DownloadError, match="no room") as caught:
        async with unwrapped_group() as group:
            group.start_soon(go_on)
            await anyio.lowlevel.checkpoint()
            group.start_soon(fail)

    assert isinstance(caught.value.__cause__, OSError)
    assert ["cancelled"] == ended


async def test_an_error_of_the_body_is_raised_as_itself_too() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with unwrapped_group() as group:
            group.start_soon(anyio.sleep_forever)
            raise KeyError("mine")


async def test_without_errors_all_tasks_end() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(number)

    async with unwrapped_group() as group:
        for number in range(3):
            group.start_soon(work, number)

    assert [0, 1, 2] == sorted(done)
