"""What happens in one and the same turn of the loop: no end of a submission is lost between two of them."""

from __future__ import annotations

import asyncio

import pytest
from support.strict_server import Act, strict_server

from piapi_async import PiAPI, Reroll, RetryPolicy

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("turns", range(12))
async def test_a_time_out_a_close_and_a_cancelled_caller_at_once_leave_the_unknown_in_the_log(
    turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    async with strict_server() as server:
        server.usual = Act(then="stall")
        piapi = PiAPI("k" * 20, base_url=server.base_url, timeout=5.0, retry=RetryPolicy.never())
        caller = asyncio.create_task(piapi.submit(Reroll("t0", prompt="cat")))
        while not piapi._runtime.submitter.sending:
            await asyncio.sleep(0)
        closing = asyncio.create_task(piapi.close())

        def leave(left: int) -> None:
            if left:
                loop.call_soon(leave, left - 1)
            else:
                caller.cancel()

        loop.call_later(5.0, leave, turns)
        [told] = await asyncio.gather(caller, return_exceptions=True)
        await closing

    texts = [str(told), *(record.getMessage() for record in caplog.records)]
    assert any("may have been accepted" in text for text in texts)
