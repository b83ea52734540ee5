"""Time limits of requests: they cancel as `asyncio.timeout` does, all on one timer."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from piapi_async._calls.deadlines import Deadlines

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def held(deadlines: Deadlines, limit: float, seconds: float) -> float:
    """Stay in a block, and return when it was left."""
    with deadlines.within(limit):
        await asyncio.sleep(seconds)
    return now()


async def test_each_block_has_its_own_limit() -> None:
    deadlines = Deadlines()
    limits = (3.0, 1.0, 2.0, 9.0)
    ends = await asyncio.gather(*[held(deadlines, limit, 5.0) for limit in limits], return_exceptions=True)

    assert [type(end) for end in ends[:3]] == [TimeoutError] * 3
    assert ends[3] == now() == 5.0


@pytest.mark.parametrize("limit", [1.0, 2.0, 3.0])
async def test_a_limit_holds_to_the_moment_after_others_were_left(limit: float) -> None:
    deadlines = Deadlines()
    await held(deadlines, 2.0, 0.5)  # its timer stays set
    with pytest.raises(TimeoutError):
        await held(deadlines, limit, 9.0)

    assert now() == 0.5 + limit
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # there is one


async def test_what_is_within_its_limit_is_left_alone() -> None:
    deadlines = Deadlines()
    for _ in range(5):
        await held(deadlines, 1.0, 0.9)
    await asyncio.sleep(9.0)

    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # there is one


async def test_a_block_that_raises_at_its_limit_raises_that() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="own"), deadlines.within(1.0):
        try:
            await asyncio.sleep(5.0)
        except asyncio.CancelledError:
            raise ValueError("own") from None

    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # there is one


@pytest.mark.parametrize("at", [0.9, 1.0])
async def test_somebody_elses_cancellation_stays_one_even_at_the_limit(at: float) -> None:
    task = asyncio.create_task(held(Deadlines(), 1.0, 5.0))
    asyncio.get_running_loop().call_later(at, task.cancel)
    await asyncio.wait([task])

    assert task.cancelled()


async def test_limits_within_limits_and_within_scopes() -> None:
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.within(1.0):
        await held(deadlines, 2.0, 5.0)
    assert now() == 1.0

    with anyio.move_on_after(0.5) as scope:
        await held(deadlines, 2.0, 5.0)
    assert scope.cancelled_caught
    assert now() == 1.5


async def test_a_close_keeps_the_limits_of_what_is_open_and_leaves_no_timer() -> None:
    deadlines = Deadlines()
    short, long = (asyncio.create_task(held(deadlines, limit, 5.0)) for limit in (1.0, 9.0))
    await asyncio.sleep(0.5)
    deadlines.close()
    await asyncio.wait([short, long])

    assert isinstance(short.exception(), TimeoutError)
    assert long.result() == now() == 5.0
    assert deadlines._timer is None


async def test_a_block_that_takes_its_time_to_end_is_cancelled_once() -> None:
    deadlines = Deadlines()

    async def end_slowly() -> None:
        with deadlines.within(1.0):
            try:
                await asyncio.sleep(9.0)
            finally:
                await asyncio.sleep(2.0)

    slow = asyncio.create_task(end_slowly())
    others = [asyncio.create_task(held(deadlines, limit, 9.0)) for limit in (1.5, 2.0, 2.5)]
    await asyncio.wait([slow, *others])

    assert isinstance(slow.exception(), TimeoutError)
    assert not slow.cancelling()
    assert [type(other.exception()) for other in others] == [TimeoutError] * 3
    assert now() == 3.0


def test_a_limit_outside_of_a_task_is_refused() -> None:
    async def enter_in_a_callback() -> BaseException:
        told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

        def enter() -> None:
            try:
                with Deadlines().within(1.0):
                    pass
            except RuntimeError as error:
                told.set_result(error)

        asyncio.get_running_loop().call_soon(enter)
        return await told

    assert "needs a task" in str(asyncio.run(enter_in_a_callback()))
