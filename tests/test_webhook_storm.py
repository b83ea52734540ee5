"""Many tasks, and deliveries that are lost, doubled, late, or meet a receiver that is down."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from support.families import FamilyCase
from support.hooking import (
    LOST,
    SECRET,
    SPREAD,
    asked,
    hooked,
    later_process,
    listening,
    made,
    port_of,
    rerolls,
)
from support.serving import KEY, no_leaks, read, serving
from support.strict_server import free_port

from piapi_async import (
    Ledger,
    PollPolicy,
    Reroll,
    TaskState,
    WebhookReceiver,
    wait_all,
)
from piapi_async.emulator import Emulator, WebhookFaults

pytestmark = [pytest.mark.looptime, pytest.mark.storm]


async def test_a_thousand_tasks_end_though_deliveries_are_lost_doubled_and_reordered() -> None:
    faults = WebhookFaults(lost=0.1, duplicated=0.1, reordered=0.1)
    async with hooked(
        {"poll": PollPolicy()},
        durations={"reroll": SPREAD},
        concurrency=1000,
        seed=7,
        latency={"fetch": 0.05, "multi_fetch": 0.05},
        webhook_faults=faults,
    ) as (emulator, piapi, receiver):
        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(1000)))
        tasks = await wait_all(handles)
        await asyncio.sleep(60.0)

        assert all(not isinstance(task, Exception) for task in tasks)
        came = {sent.task_id: sent.at for sent in reversed(emulator.seen.deliveries) if not sent.lost}
        told = Counter(sent.task_id for sent in emulator.seen.deliveries if not sent.lost)
        assert len(came) < 930
        assert receiver.counts["accepted"] == told.total()
        after = [
            max(0.0, emulator.seen.detection[task_id] - (at - (emulator.engine.tasks[task_id].ended or 0.0)))
            for task_id, at in came.items()
        ]
        assert sum(after) / len(after) < 0.2
        assert asked(emulator) - len(came) <= 200


async def test_progress_of_many_that_is_lost_doubled_and_reordered_leads_to_the_end_all_the_same() -> None:
    faults = WebhookFaults(lost=0.1, duplicated=0.1, reordered=0.3, delayed=0.1, delay=10.0)
    async with hooked(
        {"poll": PollPolicy()},
        durations={"reroll": SPREAD},
        concurrency=100,
        progress_step=20,
        webhook_faults=faults,
    ) as (emulator, piapi, _):
        requests = [Reroll("6886fc4d", prompt=f"cat {number}", notify_progress=True) for number in range(100)]
        handles = await asyncio.gather(*(piapi.submit(request) for request in requests))
        runs = await asyncio.gather(*(read(handle.updates()) for handle in handles))

        for seen, error in runs:
            assert error is None
            assert seen[-1].state is TaskState.DONE
            progress = [task.progress or 0 for task in seen]
            assert progress == sorted(progress)
        assert asked(emulator) <= 130


async def test_a_receiver_that_is_down_for_a_while_loses_nothing(case: FamilyCase) -> None:
    async with serving({"poll": PollPolicy()}, durations={"reroll": SPREAD}, concurrency=60) as (_, piapi):
        at = socket.create_server(("127.0.0.1", 0))
        port = port_of(at)
        receiver = WebhookReceiver(piapi, secret=SECRET, url=f"http://127.0.0.1:{port}/piapi")

        async def serve(seconds: float, at: socket.socket) -> None:
            application = web.Application()
            application.add_routes(receiver.routes())
            async with listening(application, at):
                await asyncio.sleep(seconds)

        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(60, case.reroll)))
        waits = asyncio.create_task(wait_all(handles))
        await serve(30.0, at)
        await asyncio.sleep(15.0)
        await serve(200.0, socket.create_server(("127.0.0.1", port)))

        assert all(not isinstance(task, Exception) for task in await waits)
        assert 0 < receiver.counts["accepted"] < 60


async def test_a_process_that_starts_again_in_the_middle_loses_nothing(
    tmp_path: Path, case: FamilyCase
) -> None:
    emulator = Emulator(
        api_keys=(KEY,), adopt_parents=True, durations={"reroll": SPREAD}, concurrency=50, seed=5
    )
    async with no_leaks(), emulator.run():
        port = free_port()
        async with later_process(emulator, port, Ledger(tmp_path / "ledger")) as (piapi, receiver):
            emulator.fail("create", LOST, nth=31, times=20)
            submits = [
                asyncio.create_task(piapi.submit(request, key=f"k{number}"))
                for number, request in enumerate(rerolls(50, case.reroll))
            ]
            await asyncio.sleep(20.0)
            adopted = receiver.counts["adopted"]
        assert 0 < adopted < 20
        await asyncio.gather(*submits, return_exceptions=True)
        async with later_process(emulator, port, Ledger(tmp_path / "ledger")) as (piapi, receiver):
            await asyncio.sleep(200.0)
            handles = [
                await piapi.submit(request, key=f"k{number}")
                for number, request in enumerate(rerolls(50, case.reroll))
            ]
            tasks = await wait_all(handles)

            assert receiver.counts["adopted"] == 20 - adopted
            assert all(not isinstance(task, Exception) for task in tasks)
            assert {handle.task_id for handle in handles} == set(made(emulator))
            assert emulator.seen.creates == 50
