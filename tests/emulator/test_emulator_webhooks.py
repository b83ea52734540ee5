"""Webhooks out, received by a bare aiohttp server in the same loop."""

from __future__ import annotations

import asyncio

import pytest
from support.emulating import Caller, Inbox, emulating

from piapi_async.emulator import WebhookFaults

pytestmark = pytest.mark.looptime


async def _create(caller: Caller, inbox: Inbox, **more: object) -> str:
    return await caller.create("imagine", prompt="a cat", webhook_endpoint=inbox.url, **more)


async def test_the_end_is_posted_as_the_bare_fetch_object_with_the_secret() -> None:
    async with Inbox().open() as inbox, emulating(durations=60.0) as caller:
        loop = asyncio.get_running_loop()
        began = loop.time()
        task_id = await _create(caller, inbox, webhook_secret="hush")
        await asyncio.sleep(100)

        ((at, body, secret),) = inbox.posts
        assert at - began == pytest.approx(60, abs=0.1)
        assert secret == "hush"
        assert await caller.fetch(task_id) == body
        (delivery,) = caller.emulator.seen.deliveries
        assert (task_id, 200, 1, "finished") == (
            delivery.task_id,
            delivery.answer,
            delivery.attempt,
            delivery.status_word,
        )


async def test_without_a_secret_there_is_no_header_and_a_failure_is_posted_too() -> None:
    async with Inbox().open() as inbox, emulating(durations=60.0, failure_rate=1.0) as caller:
        await _create(caller, inbox)
        await asyncio.sleep(100)
        assert [(body["status"], secret) for _, body, secret in inbox.posts] == [("failed", None)]


async def test_progress_is_posted_when_asked_for() -> None:
    async with Inbox().open() as inbox, emulating(durations=60.0, progress_step=25) as caller:
        await _create(caller, inbox, notify_progress=True)
        await asyncio.sleep(100)

        assert inbox.words == ["processing"] * 4 + ["finished"]
        assert [body["task_result"]["task_progress"] for _, body, _ in inbox.posts] == [0, 25, 50, 75, 100]


async def test_anything_but_200_is_tried_three_times_five_seconds_apart() -> None:
    async with Inbox(500, 204, 302, 200).open() as inbox, emulating(durations=60.0) as caller:
        await _create(caller, inbox)
        await asyncio.sleep(200)

        first, second, third = (at for at, _, _ in inbox.posts)
        assert [second - first, third - second] == pytest.approx([5, 5], abs=0.1)
        assert [delivery.answer for delivery in caller.emulator.seen.deliveries] == [500, 204, 302]


async def test_a_receiver_that_is_not_there_counts_as_no_answer() -> None:
    async with emulating(durations=60.0) as caller:
        async with Inbox().open() as gone:
            pass
        await _create(caller, gone)
        await asyncio.sleep(200)
        assert [delivery.answer for delivery in caller.emulator.seen.deliveries] == [0, 0, 0]


@pytest.mark.parametrize(
    ("faults", "words", "lost"),
    [
        (WebhookFaults(lost=1.0), [], 5),
        (
            WebhookFaults(duplicated=1.0),
            [word for word in ["processing"] * 4 + ["finished"] for _ in "12"],
            0,
        ),
    ],
)
async def test_posts_are_lost_and_duplicated_on_request(
    faults: WebhookFaults, words: list[str], lost: int
) -> None:
    async with (
        Inbox().open() as inbox,
        emulating(durations=60.0, progress_step=25, webhook_faults=faults) as caller,
    ):
        await _create(caller, inbox, notify_progress=True)
        await asyncio.sleep(100)
        assert words == inbox.words
        assert lost == sum(delivery.lost for delivery in caller.emulator.seen.deliveries)


async def test_posts_are_delayed_by_emulated_seconds_on_request() -> None:
    faults = WebhookFaults(delayed=1.0, delay=30.0)
    async with (
        Inbox().open() as inbox,
        emulating(durations=60.0, speed=10.0, webhook_faults=faults) as caller,
    ):
        began = asyncio.get_running_loop().time()
        await _create(caller, inbox)
        await asyncio.sleep(30)
        assert [pytest.approx(9.0, abs=0.1)] == [at - began for at, _, _ in inbox.posts]


async def test_posts_overtake_each_other_on_request() -> None:
    faults = WebhookFaults(reordered=0.5, delay=25.0)
    async with (
        Inbox().open() as inbox,
        emulating(durations=60.0, progress_step=20, seed=4, webhook_faults=faults) as caller,
    ):
        await _create(caller, inbox, notify_progress=True)
        await asyncio.sleep(200)

        progress = [body["task_result"]["task_progress"] for _, body, _ in inbox.posts]
        assert sorted(progress) == [0, 20, 40, 60, 80, 100]
        assert sorted(progress) != progress


async def test_a_post_held_for_a_later_one_goes_alone_when_none_comes() -> None:
    faults = WebhookFaults(reordered=1.0, delay=25.0)
    async with Inbox().open() as inbox, emulating(durations=60.0, webhook_faults=faults) as caller:
        began = asyncio.get_running_loop().time()
        await _create(caller, inbox)
        await asyncio.sleep(200)
        assert [at - began for at, _, _ in inbox.posts] == pytest.approx([85], abs=0.1)


async def test_what_is_under_way_at_the_stop_is_given_up() -> None:
    async with Inbox(500).open() as inbox:
        async with emulating(durations=60.0) as caller:
            await _create(caller, inbox)
            await asyncio.sleep(61)
        await asyncio.sleep(60)
        assert len(inbox.posts) == 1


async def test_a_task_ended_by_hand_is_posted_at_once() -> None:
    async with Inbox().open() as inbox, emulating() as caller:
        task_id = await _create(caller, inbox)
        assert caller.emulator.end(task_id, error="stopped")
        await asyncio.sleep(1)
        assert inbox.words == ["failed"]
        assert inbox.posts[0][1]["task_result"]["error_messages"][0] == "stopped"
