"""The emulator is easy to use right: a client of it, settings that take effect, ids that are not another prompt's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.emulating import emulating
from support.systems import PROMPT

from piapi_async import PollPolicy, Reroll
from piapi_async.emulator import Emulator

pytestmark = pytest.mark.looptime


class TestTheClient:
    async def test_is_set_up_for_its_emulator(self) -> None:
        emulator = Emulator(adopt_parents=True, api_keys=["one"], speed=20.0)
        async with emulator.run(), emulator.client() as piapi:
            task = await (await piapi.submit(Reroll("6886fc4d"))).wait(timeout=60)
            assert task.state.value == "done"
            assert emulator.seen.polls[task.task_id] < 40
            assert emulator.seen.detection[task.task_id] < 20 * emulator.speed

    async def test_takes_the_options_of_any(self) -> None:
        emulator = Emulator(adopt_parents=True, durations=60.0, api_keys=["one", "two"])
        options: dict[str, Any] = {"api_key": "two", "poll": PollPolicy.every(1.0)}
        async with emulator.run(), emulator.client(**options) as piapi:
            task = await (await piapi.submit(Reroll("6886fc4d"))).wait()
            assert emulator.seen.polls[task.task_id] > 40
            assert emulator.seen.creates_by_key == {"two": 1}

    async def test_is_not_to_be_had_without_a_run(self) -> None:
        with pytest.raises(RuntimeError, match="is not running: make its client inside"):
            Emulator().client()


class TestSettings:
    async def test_of_the_tasks_are_honoured_at_any_time(self) -> None:
        async with emulating(durations=10.0) as caller:
            caller.emulator.failure_rate = 1.0
            assert (await caller.done("imagine", **PROMPT))["status"] == "failed"
            caller.emulator.failure_rate = 0.0
            caller.emulator.banned_words = ("cat",)
            assert (await caller.post("imagine", prompt="a cat"))[1]["message"] == "banned prompt words: cat"
            caller.emulator.adopt_parents = True
            assert (await caller.post("reroll", origin_task_id="x"))[0] == 200

    @pytest.mark.parametrize(
        "name", ["speed", "latency", "public_url", "links_expire_after", "state", "webhook_hosts"]
    )
    async def test_of_a_run_are_refused_in_it(self, name: str) -> None:
        async with emulating() as caller:
            with pytest.raises(AttributeError, match=f"{name} of an emulator is set before it runs"):
                setattr(caller.emulator, name, getattr(caller.emulator, name))

    async def test_of_a_run_are_honoured_before_it(self) -> None:
        emulator = Emulator(durations=1000.0)
        emulator.speed = 500.0
        emulator.public_url = "https://emulator.test"
        async with emulator.run(), emulator.client() as piapi:
            assert str(piapi) != ""
            await asyncio.sleep(2)
            assert emulator.now == pytest.approx(1000, rel=0.1)

    @pytest.mark.parametrize(
        "name", ["seed", "api_keys", "plan", "concurrency", "dialect", "durations", "signed_links"]
    )
    def test_of_what_it_is_made_of_are_refused(self, name: str) -> None:
        with pytest.raises(
            AttributeError, match=f"{name} of an emulator is set when it is made, and has no effect now"
        ):
            setattr(Emulator(), name, getattr(Emulator(), name))

    @pytest.mark.parametrize("speed", [0, -1, float("inf"), float("nan")])
    def test_are_checked_whenever_they_are_set(self, speed: float) -> None:
        with pytest.raises(ValueError, match="speed must be above 0"):
            Emulator(speed=speed)
        emulator = Emulator()
        with pytest.raises(ValueError, match="speed must be above 0"):
            emulator.speed = speed


class TestIds:
    async def test_are_the_same_for_the_same_seed_and_requests(self) -> None:
        ids = []
        for _ in range(2):
            async with emulating(adopt_parents=True) as caller:
                ids.append(
                    [
                        await caller.create("imagine", **PROMPT),
                        await caller.create("reroll", origin_task_id="x"),
                    ]
                )
        assert ids[0] == ids[1]

    async def test_of_one_prompt_are_never_anothers(self) -> None:
        ids = []
        for prompt in ("a cat", "a dog"):
            async with emulating() as caller:
                ids.append(await caller.create("imagine", prompt=prompt))
        assert ids[0] != ids[1]

    async def test_do_not_hang_on_who_is_told(self) -> None:
        ids = []
        for port in (1, 2):
            async with emulating() as caller:
                hook = {"webhook_endpoint": f"http://127.0.0.1:{port}/", "webhook_secret": f"secret {port}"}
                ids.append(await caller.create("imagine", prompt="a cat", **hook))
        assert ids[0] == ids[1]
