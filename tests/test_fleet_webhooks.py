"""Webhooks of a fleet: a delivery reaches any worker, and a lost submission may be another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fleets import NEEDS_SQLITE, at_work, cat, host
from support.hooking import HEADERS, LOST, PUBLIC, SECRET, SILENT, delivery, made, nonce_of
from support.processes import becomes_true

from piapi_async import Imagine, PiAPI, SubmissionUnknown, WebhookReceiver
from piapi_async.emulator import Dialect, Emulator
from piapi_async.fleet import Fleet
from piapi_async.fleet._database import Database
from piapi_async.fleet._deliveries import FleetSubmissions
from piapi_async.tasks import TaskId
from piapi_async.unified import UNIFIED

pytestmark = [pytest.mark.storm, pytest.mark.measured, NEEDS_SQLITE]

IMPATIENT: Mapping[str, Any] = {"timeout": 0.3}


class Recoveries:
    """An observer of the submissions that are found again."""

    def __init__(self) -> None:
        self.seen: list[tuple[str | None, str]] = []

    def on_event(self, event: Any) -> None:
        if type(event).__name__ == "SubmissionRecovered":
            self.seen.append((event.key, event.how))


@asynccontextmanager
async def another_client(emulator: Emulator, url: str, **options: Any) -> AsyncIterator[PiAPI]:
    async with PiAPI(emulator.api_key, base_url=url, **options) as piapi:
        yield piapi


def receiver_of(piapi: PiAPI, **options: Any) -> WebhookReceiver:
    return WebhookReceiver(piapi, secret=SECRET, url=PUBLIC, **options)


async def deliver(receiver: WebhookReceiver, emulator: Emulator, task_id: str) -> None:
    await receiver.handle(HEADERS, delivery(task_id), query=nonce_of(emulator, task_id))


async def test_a_delivery_finds_the_lost_submission_of_a_worker_that_is_gone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    recoveries = Recoveries()
    async with (
        host({**IMPATIENT}, webhook_faults=SILENT) as (emulator, first),
        another_client(emulator, first.origin, observers=[recoveries]) as second,
        Fleet(url, poll=0.05) as fleet,
    ):
        receiver_of(first)
        receiver = receiver_of(second)
        emulator.fail("create", LOST, times=1)
        job = await fleet.submit(Imagine("a cat"), key="order 17")
        async with at_work(url, first):
            await becomes_true(lambda: made(emulator))

        [task_id] = made(emulator)
        async with at_work(url, second):
            await deliver(receiver, emulator, task_id)
            outcome = await job.wait(30)

        assert outcome.ok, outcome.error
        assert outcome.ref is not None
        assert outcome.ref.task_id == task_id
        assert len(made(emulator)) == 1
        assert recoveries.seen == [("order 17", "webhook")]


async def test_a_job_that_was_left_unknown_is_resolved_by_a_delivery(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    async with (
        host({**IMPATIENT}, webhook_faults=SILENT) as (emulator, piapi),
        Fleet(url, poll=0.05) as fleet,
    ):
        receiver = receiver_of(piapi, adopt_timeout=0.1)
        emulator.fail("create", LOST, times=1)
        job = await fleet.submit(Imagine("a cat"), key="order 17")
        async with at_work(url, piapi, lease=0.2):
            assert isinstance((await job.wait(30)).error, SubmissionUnknown)
            [task_id] = made(emulator)
            await deliver(receiver, emulator, task_id)
            await becomes_true(lambda: receiver.counts["adopted"])

            async def settled() -> bool:
                return not await fleet.unknown()

            while not await settled():
                await asyncio.sleep(0.05)
            assert (await job.wait(30)).ok
        assert len(made(emulator)) == 1


async def test_an_endpoint_of_ours_does_not_hide_a_task_from_the_history(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    async with (
        host(webhook_faults=SILENT, dialect=Dialect(history=True)) as (emulator, piapi),
        Fleet(url, poll=0.05) as fleet,
    ):
        receiver_of(piapi)
        emulator.fail("create", LOST, times=1)
        async with at_work(url, piapi):
            job = await fleet.submit(cat("lost"))
            outcome = await job.wait(30)
        assert outcome.ok, outcome.error
        assert len(made(emulator)) == 1


async def test_a_delivery_about_a_task_that_is_somebody_s_is_matched_with_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    database = Database.open(url)
    try:
        submissions = FleetSubmissions(database, "https://api.piapi.ai")
        async with Fleet(url) as fleet:
            await fleet.submit(cat("queued"), key="k")
        names = await submissions.names([TaskId("t-1")], SECRET)
        assert list(names.values()) == ["k#1"]
        assert await submissions.family_of("k#1") is UNIFIED
        task = UNIFIED.read({"task_id": "t-1", "status": "completed"}, TaskId("t-1"))
        assert await submissions.attach("k#1", UNIFIED, task) == "k"

        assert await submissions.names([TaskId("t-1")], SECRET) == {}
        assert await submissions.family_of("k#1") is None
        assert await submissions.attach("l#1", UNIFIED, task) is None
    finally:
        database.close()
