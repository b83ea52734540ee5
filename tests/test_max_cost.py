"""What a batch has cost, and `max_cost`: what is submitted within it, and where it cannot be kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.batching import WIDE, rerolls
from support.serving import serving

from piapi_async import (
    BatchItem,
    BatchRunner,
    Cost,
    CreateTask,
    Ledger,
    PiAPI,
    Reroll,
    SubmissionUnknown,
    WaitTimeout,
)
from piapi_async.batch._budget import Budget, Kind, kind_of
from piapi_async.emulator import Drop, TaskFails
from piapi_async.models import veo3

pytestmark = pytest.mark.looptime

PICTURE = CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": "a cat"})
FILM = CreateTask("luma", "video_generation", {"prompt": "a cat"})
SONG = CreateTask("music-u", "generate_music", {"gpt_description_prompt": "a cat"})


UNIT = "llm"
"""What the emulator charges for pictures."""


def pictures(count: int) -> list[Any]:
    return [evolve(PICTURE, input={"prompt": f"a cat, number {number}"}) for number in range(count)]


async def price_of(piapi: PiAPI, request: Any = PICTURE) -> float:
    """Return what the emulator charges for a request."""
    [outcome] = await BatchRunner(piapi).run([request])
    assert outcome.cost is not None
    return outcome.cost.amount


async def test_a_run_tells_what_it_has_cost_and_what_is_frozen() -> None:
    seen: list[Any] = []
    async with serving({}, durations=5.0, **WIDE) as (_, piapi):
        price = await price_of(piapi)
        runner = BatchRunner(piapi, concurrency=4, on_progress=seen.append)
        outcomes = await runner.run(pictures(8))
        legacy = BatchRunner(piapi)
        await legacy.run(rerolls(2))
        mixed = BatchRunner(piapi)
        await mixed.run([*pictures(1), *rerolls(1)])

    assert runner.totals.cost == Cost(8 * price, UNIT)
    assert runner.totals.frozen is None
    assert [outcome.cost for outcome in outcomes] == [Cost(price, UNIT)] * 8
    assert max(totals.frozen.amount for totals in seen if totals.frozen) == 4 * price
    assert legacy.totals.cost == Cost(6, "quota")
    assert (mixed.totals.cost, len(mixed.totals.costs)) == (None, 2)


async def test_what_is_left_unfinished_stays_frozen_and_what_failed_costs_nothing() -> None:
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        price = await price_of(piapi)
        emulator.fail("create", TaskFails("no luck"))
        runner = BatchRunner(piapi, concurrency=1)
        await runner.run(pictures(2))
        late = BatchRunner(piapi, timeout=1.0)
        [outcome] = await late.run(pictures(1))

    assert runner.totals.cost == Cost(price, UNIT)
    assert isinstance(outcome.error, WaitTimeout)
    assert (late.totals.cost, late.totals.frozen) == (None, Cost(price, UNIT))


@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_nothing_is_submitted_by_which_a_run_could_cost_more(concurrency: int) -> None:
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        price = await price_of(piapi)
        runner = BatchRunner(piapi, concurrency=concurrency, max_cost=7.5 * price)
        outcomes = await runner.run(pictures(40))

    assert [outcome.ok for outcome in outcomes] == [True] * 7
    assert emulator.seen.creates == 1 + 7
    assert runner.totals.cost == Cost(7 * price, UNIT)
    assert runner.totals.skipped >= 1


async def test_an_item_waits_for_what_is_frozen_if_that_may_come_back() -> None:
    """Half of the tasks fail and cost nothing, so that there is money for others."""
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        price = await price_of(piapi)
        emulator.fail("create", TaskFails("no luck"), times=4)
        runner = BatchRunner(piapi, concurrency=20, max_cost=4 * price)
        outcomes = await runner.run(pictures(40))

    assert sum(outcome.ok for outcome in outcomes) == 4
    assert runner.totals.cost == Cost(4 * price, UNIT)
    assert emulator.seen.creates == 1 + 8


async def test_of_a_kind_without_a_price_one_goes_first() -> None:
    in_flight: list[int] = []
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        price = await price_of(piapi)
        emulator.engine.tasks.clear()
        emulator.fail("create", Drop(after_body=True))  # the first is lost: the next one is first
        runner = BatchRunner(
            piapi,
            concurrency=30,
            max_cost=3 * price,
            on_progress=lambda totals: in_flight.append(totals.submitted),
        )
        outcomes = await runner.run(pictures(30))

    assert isinstance(outcomes[0].error, SubmissionUnknown)
    assert sum(outcome.ok for outcome in outcomes) == 2  # the lost one counts, now that a price is known


async def test_an_unknown_submission_counts(tmp_path: Path) -> None:
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        price = await price_of(piapi)
        emulator.fail("create", Drop(after_body=True), nth=2)
        runner = BatchRunner(piapi, concurrency=1, max_cost=3 * price)
        outcomes = await runner.run(pictures(9))

    assert [type(outcome.error) for outcome in outcomes] == [type(None), SubmissionUnknown, type(None)]
    assert (runner.totals.cost, runner.totals.frozen) == (Cost(2 * price, UNIT), Cost(price, UNIT))


async def test_what_an_earlier_run_submitted_does_not_count(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (_, piapi):
        price = await price_of(piapi)
        first = BatchRunner(piapi, max_cost=2 * price)
        await first.run(pictures(9))
        second = BatchRunner(piapi, max_cost=0)
        outcomes = await second.run(pictures(9))

    assert [outcome.resumed for outcome in outcomes] == [True] * 2
    assert second.totals.resumed == 2
    assert second.totals.cost is None
    assert second.totals.skipped == 9 - 2


async def test_a_new_attempt_needs_money_too(tmp_path: Path) -> None:
    item = BatchItem(PICTURE, key="k")
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("create", TaskFails("no luck"))
        await BatchRunner(piapi).run([item])
        [poor] = await BatchRunner(piapi, retry_failed=True, max_cost=0).run([item])
        [rich] = await BatchRunner(piapi, retry_failed=True, max_cost=1e9).run([item])

    assert (poor.resumed, poor.ok) == (True, False)
    assert (rich.resumed, rich.ok) == (False, True)


@pytest.mark.parametrize(
    ("items", "reason"),
    [([Reroll("p")], "counts a quota"), ([PICTURE, Reroll("p")], "counts a quota")],
)
async def test_a_protocol_that_tells_no_price_is_refused(items: list[Any], reason: str) -> None:
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=1, max_cost=1e9)
        with pytest.raises(ValueError, match=reason) as caught:
            await runner.run([*items, *items])

    assert emulator.seen.requests["reroll"] == 0
    assert len(getattr(caught.value, "outcomes")) == len(items) - 1  # noqa: B009 - an exception has no such attribute


async def test_prices_in_several_units_are_refused() -> None:
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=1, max_cost=1e9)
        with pytest.raises(ValueError, match=r"cost llm and point, which cannot be added"):
            await runner.run([*pictures(2), FILM, *pictures(9)])

    assert emulator.seen.creates == 3


async def test_a_host_that_tells_no_price_at_all_is_refused() -> None:
    budget = Budget(1e9)
    assert await budget.reserve(0, PICTURE)
    others = [asyncio.ensure_future(budget.reserve(number, PICTURE)) for number in (1, 2)]
    await asyncio.sleep(1)
    waiting = [other.done() for other in others]
    budget.freeze(0, None)
    budget.consume(0, None, is_done=False)  # it failed: that it cost nothing says nothing
    await asyncio.sleep(1)
    first, second = others
    alone = (first.done(), second.done())
    budget.consume(1, None, is_done=True)

    assert waiting == [False, False]
    assert alone == (True, False)
    with pytest.raises(ValueError, match="the host does not tell what CreateTask"):
        await second


async def test_what_was_counted_late_counts_once_when_its_task_is_found() -> None:
    budget = Budget(1e9)
    assert await budget.reserve(0, PICTURE)
    kept = budget.keep(0)
    assert await budget.reserve(1, PICTURE)
    budget.freeze(1, Cost(3, UNIT))
    counted = budget.frozen()
    budget.revive(0, kept)
    found = budget.frozen()
    budget.consume(0, Cost(2, UNIT), is_done=True)

    assert counted == found == (Cost(6, UNIT),)
    assert (budget.costs(), budget.frozen()) == ((Cost(2, UNIT),), (Cost(3, UNIT),))


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), True, "much"])
async def test_a_limit_is_an_amount(amount: Any) -> None:
    with pytest.raises(ValueError, match=r"max_cost: .* is not allowed"):
        BatchRunner(PiAPI("key"), max_cost=amount)


def test_what_the_price_depends_on_makes_a_kind() -> None:
    other = evolve(PICTURE, input={"prompt": "a dog"})
    longer = evolve(PICTURE, input={"prompt": "a cat", "duration": 10})

    assert kind_of(PICTURE) == kind_of(other)
    assert len({kind_of(PICTURE), kind_of(longer), kind_of(SONG), kind_of(Reroll("p"))}) == 4


def test_any_input_may_make_the_price_but_for_texts_links_and_seeds() -> None:
    video = veo3.Video("a cat")
    dearer = [
        evolve(video, generate_audio=True),
        evolve(video, image_url="https://img.example.org/a.png"),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "steps": 40}),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "images": ["a"]}),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "size": "1024x1024"}),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "size": "2048x2048"}),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "camera": {"config": {"zoom": 5}}}),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "camera": {"config": {"zoom": 6}}}),
        CreateTask("veo3", "veo3-video", {"prompt": "a cat", "images": ["a", "b"]}),
    ]
    alike = [
        evolve(video, prompt="a dog"),
        CreateTask("veo3", "veo3-video", {"prompt": "a", "seed": 5}),
        CreateTask("veo3", "veo3-video", {"prompt": "b", "seed": 6}),
    ]

    assert len({kind_of(video), *map(kind_of, dearer)}) == 10
    assert {kind_of(each) for each in alike} == {
        kind_of(CreateTask("veo3", "veo3-video", {"prompt": "a cat"}))
    }


async def test_what_an_input_makes_dearer_is_learned_before_more_of_it_is_submitted() -> None:
    silent, loud = veo3.Video("a cat"), evolve(veo3.Video("a cat"), generate_audio=True)
    budget = Budget(200)
    assert await budget.reserve(0, silent)
    budget.freeze(0, Cost(10, UNIT))

    assert await budget.reserve(1, loud)  # goes first, with the other's price reserved
    assert (Cost(20, UNIT),) == budget.frozen()
    others = [asyncio.create_task(budget.reserve(index, loud)) for index in (2, 3)]
    await asyncio.sleep(0)
    assert not any(other.done() for other in others)

    budget.freeze(1, Cost(100, UNIT))
    await asyncio.sleep(0)
    assert not any(other.done() for other in others)  # 110 of 200 are frozen, and another takes 100
    budget.consume(0, Cost(0, UNIT), is_done=True)
    assert [True] == [other.result() for other in (await asyncio.wait(others, timeout=1))[0]]
    budget.close()
    assert sorted(await asyncio.gather(*others)) == [False, True]


def test_a_guess_is_no_cost() -> None:
    budget, kinds = Budget(100), [Kind(("/", "a", "b"), (("steps", str(number)),)) for number in range(2)]
    assert budget._try_to_reserve(0, kinds[0])
    budget.freeze(0, Cost(10))
    assert budget._try_to_reserve(1, kinds[1])
    assert (Cost(20),) == budget.frozen()
    budget.consume(1, None, is_done=False)
    budget.consume(0, None, is_done=True)

    assert ((Cost(10),), ()) == (budget.costs(), budget.frozen())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60),
    st.floats(0, 50),
    st.tuples(*[st.floats(0.5, 20)] * 3),
)
def test_the_limit_holds_whatever_happens_in_whatever_order(
    steps: list[tuple[int, int]], limit: float, prices: tuple[float, float, float]
) -> None:
    """What was spent or is frozen passes the limit by one task at most, whose price nobody could know."""
    budget = Budget(limit)
    kinds = [Kind(("/", "a", "b"), (("duration", str(number)),)) for number in range(3)]
    alive: list[tuple[int, float]] = []
    for index, (what, number) in enumerate(steps):
        price = prices[number]
        if what == 0 or not alive:
            is_known = kinds[number] in budget._prices
            before = sum(cost.amount for cost in (*budget.costs(), *budget.frozen()))
            if budget._try_to_reserve(index, kinds[number]):
                budget.freeze(index, Cost(price))
                alive.append((index, price))
                assert before + price <= limit or not is_known
        elif what == 1:
            ended, price = alive.pop(0)
            budget.consume(ended, Cost(price), is_done=True)
        elif what == 2:
            budget.keep(alive.pop()[0])
        else:
            budget.release(alive.pop()[0])

        spent = sum(cost.amount for cost in (*budget.costs(), *budget.frozen()))
        assert spent <= limit + max(prices) + 1e-9
