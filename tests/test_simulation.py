"""The whole system in a simulated world: see `simulation`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from simulation.life import live, look_for_faults
from simulation.mutants import MONEY_FAULTS, MUTANTS
from simulation.plans import CreatePlan, FilePlan
from simulation.steps import Batch, Close, Freeze, FullDisk, Jump, Leave, Recover, Submit, Weather
from simulation.story import Story, make

import piapi_async

FIXED_SEEDS = 20
GATE_SEEDS = 240  # many more are lived by `python -m benchmarks.simulate`


def faults_of(seeds: Iterable[int]) -> list[str]:
    return [str(found) for seed in seeds if (found := look_for_faults(seed)[0]) is not None]


# Each of these once broke a promise.  They are told as short as the simulation could make them.
FOUND = {
    "a disk is full when the task of a caller who has left, and wants it cancelled, is accepted": Story(
        54005660, processes=1, ledger=True, webhooks=False, steps=(
            Submit(
                5.05, process=0, intent=10, keyed=True, unified=True, runs=True, cancels=True,
                plans=(CreatePlan(delay=25.0, at=0.89),), leave=Leave("cancel", 14),
            ),
            Submit(11.71, process=0, intent=3, keyed=True, unified=True, seconds=9.4, wait=0.0),
            FullDisk(24.35, seconds=9.1),
        ),
    ),
    "a process stands still for longer than a time-out, and its response has come meanwhile": Story(
        920522, processes=1, ledger=True, webhooks=False, steps=(
            Batch(
                2.04, process=0, intents=(3, 4), unified=True, concurrency=2, max_cost=10.0, price=25.0, plans=(),
            ),
            Freeze(2.2, 37.7, process=0),
        ),
    ),
    "a caller leaves a submission whose answer names a task that has failed": Story(
        54, processes=1, ledger=False, webhooks=False, steps=(
            Submit(
                1.0, process=0, intent=1, keyed=False, unified=False, seconds=1.5, end="failed", wait=0.0,
                plans=(CreatePlan("is busy and names a task", delay=2.0),), leave=Leave("cancel", 7),
            ),
        ),
    ),
    "a batch is left while the answer to its submission is lost": Story(
        516, processes=1, ledger=False, webhooks=False, steps=(
            Batch(
                1.0, process=0, intents=(1,), unified=False, concurrency=2, leave=Leave("group", 11),
                plans=((1, CreatePlan("answers through an HTML 502, having made a task")),),
            ),
        ),
    ),
    "a batch's reader leaves with an unknown submission untaken": Story(
        2021, processes=1, ledger=False, webhooks=False, steps=(
            Batch(
                1.0, process=0, intents=(1, 2, 3, 4, 5), unified=True, concurrency=8, stop_after=0,
                plans=(
                    (2, CreatePlan("answers through Go, having made a task")), (5, CreatePlan(travel="dropped")),
                ),
            ),
        ),
    ),
    "an answer is repeated on a kept connection": Story(
        861, processes=1, ledger=False, webhooks=False, steps=(
            Submit(
                1.0, process=0, intent=1, keyed=False, unified=True, wait=0.0,
                plans=(CreatePlan(delay=0.0, travel="twice", at=0.73),),
            ),
            Submit(1.1, process=0, intent=2, keyed=False, unified=False, wait=0.0, plans=(CreatePlan(delay=25.0),)),
        ),
    ),
    "two attempts of one key are looked for in the history at the same time": Story(
        1992680, processes=2, ledger=True, webhooks=True, steps=(
            Submit(
                14.76, process=1, intent=5, keyed=True, unified=True, seconds=4.2, end="failed", wait=0.0,
                plans=(CreatePlan("accepts", delay=0.2, travel="stalled", at=0.16),),
            ),
            Batch(
                40.22, process=1, intents=(2, 3, 4), unified=True, concurrency=2, failing=(3, 4),
                plans=((4, CreatePlan("answers through Go, having made a task", delay=2.0, at=0.92)),),
            ),
            Batch(
                90.22, process=1, intents=(2, 3, 4), unified=True, concurrency=8, retry_failed=True,
                plans=((4, CreatePlan("answers through AWS, having made a task", delay=25.0, travel="cut", at=0.85)),),
            ),
        ),
    ),
    "a client is closed while its batch holds an item whose answer was lost": Story(
        1900317, processes=1, ledger=True, webhooks=False, steps=(
            Batch(
                0.15, process=0, intents=(2, 3, 4), unified=True, concurrency=1,
                plans=((2, CreatePlan(travel="dropped")),),
            ),
            Close(10.83, process=0),
        ),
    ),
    "a refusal names a task that failed, and the response to the next submission of its key is lost": Story(
        880659, processes=1, ledger=True, webhooks=True, steps=(
            Submit(
                26.76, process=0, intent=1, keyed=True, unified=True, seconds=43.4, wait=0.0,
                plans=(CreatePlan(travel="reset before"),),
            ),
            Batch(
                55.77, process=0, intents=(2, 3, 4, 5), unified=True, concurrency=8, failing=(3, 4),
                plans=(
                    (3, CreatePlan("is busy and names a task", delay=25.0, travel="twice", at=0.05)),
                    (4, CreatePlan("has no bot")),
                ),
            ),
            Batch(
                87.31, process=0, intents=(2, 3), unified=True, concurrency=8,
                plans=((3, CreatePlan(travel="dropped")),),
            ),
        ),
    ),
    "a batch that waits for room is refused, and the refusal names a task that has failed": Story(
        3106408, processes=1, ledger=True, webhooks=False, steps=(
            Freeze(35.27, 32.7, process=0),
            Weather(54.18, 34.6, "502 pages"),
            Batch(
                55.61, process=0, intents=(1, 2, 3), unified=True, concurrency="auto", failing=(3,),
                plans=((3, CreatePlan("is busy and names a task", delay=25.0)),),
            ),
        ),
    ),
    "webhooks report all ends but one, of a kind whose durations spread widely": Story(
        39, processes=1, ledger=False, webhooks=True, steps=(
            Submit(5.21, process=0, intent=8, keyed=False, unified=False, seconds=1.7, end="failed", wait=0.0),
            Batch(
                5.63, process=0, intents=(2, 3, 4, 5, 6, 7), unified=False, concurrency=8,
                plans=((3, CreatePlan("names it in a list", travel="twice", at=0.53)),),
            ),
            Submit(
                9.02, process=0, intent=1, keyed=False, unified=True, seconds=13.0, end="failed", wait=5.0,
                plans=(CreatePlan("names it in a list"),),
            ),
            Submit(14.98, process=0, intent=19, keyed=False, unified=False, seconds=16.7, wait=0.0),
            Submit(15.26, process=0, intent=17, keyed=False, unified=False, seconds=43.7, end="failed"),
            Batch(16.88, process=0, intents=(15,), unified=False, concurrency=1),
            Submit(36.48, process=0, intent=20, keyed=False, unified=False, seconds=9.1, end="failed", wait=0.0),
        ),
    ),
    "a response comes when its task has failed and the next attempt is made": Story(
        914019, processes=2, ledger=True, webhooks=True, steps=(
            Submit(28.62, process=0, intent=7, keyed=False, unified=False, seconds=10.5, wait=0.0),
            Freeze(43.42, 88.6, process=1),
            Batch(55.71, process=1, intents=(1,), unified=False, concurrency=1, plans=((1, CreatePlan(delay=25.0)),)),
            Batch(
                73.74, process=1, intents=(1, 2), unified=False, concurrency=2, failing=(1, 2), retry_failed=True,
            ),
        ),
    ),
    "recover() is under way when its client is closed": Story(
        1, processes=1, ledger=True, webhooks=False, steps=(
            Submit(
                1.0, process=0, intent=1, keyed=True, unified=True, wait=0.0,
                plans=(CreatePlan(travel="dropped"),),
            ),
            Recover(120.0, process=0),
            Close(120.002, process=0),
        ),
    ),
    "a caller leaves a task to be cancelled, and a stranger answers that": Story(
        8145662, processes=1, ledger=False, webhooks=False, steps=(
            Weather(6.23, 39.8, "junk"),
            Submit(
                17.93, process=0, intent=6, keyed=False, unified=True, seconds=9.6, runs=True, cancels=True,
                leave=Leave("scope", 28),
            ),
        ),
    ),
    "a caller leaves a task to be cancelled that has begun, and nobody else has its id": Story(
        295, processes=1, ledger=False, webhooks=False, steps=(
            Submit(
                1.0, process=0, intent=1, keyed=False, unified=False, seconds=35.0, runs=True, cancels=True,
                leave=Leave("cancel", 28),
            ),
            Jump(120.0, 5.0),
        ),
    ),
    "what may have been made is not counted, as the price of its kind became known only later": Story(
        1420, processes=1, ledger=False, webhooks=False, steps=(
            Batch(
                1.0, process=0, intents=(1, 2, 3), unified=True, concurrency=1, max_cost=60.0, price=25.0,
                plans=((1, CreatePlan(travel="dropped")),),
            ),
        ),
    ),
    "a client is closed while its batch with a limit has items left": Story(
        3328, processes=1, ledger=True, webhooks=False, steps=(
            Batch(
                36.89, process=0, intents=(5, 6, 7), unified=True, concurrency=1, max_cost=10.0, price=25.0,
            ),
            Close(45.77, process=0),
        ),
    ),
    "a caller's scope is cancelled while files are saved": Story(
        3378, processes=1, ledger=False, webhooks=False, steps=(
            Submit(
                1.0, process=0, intent=1, keyed=False, unified=False, runs=True, leave=Leave("scope", 216),
                files=FilePlan(("chunks cut off", "reset", "nothing")),
            ),
            Jump(150.0, 5.0),
        ),
    ),
    "a key is waited for by a process that has lost the answer to an equal request": Story(
        8154035, processes=2, ledger=True, webhooks=False, alike=True, shows_models=True, steps=(
            Batch(
                93.87, process=1, intents=(3, 5), unified=True, concurrency=2,
                plans=(
                    (3, CreatePlan(delay=25.0, travel="stalled", at=0.27)),
                    (5, CreatePlan(delay=25.0, travel="408 after", at=0.84)),
                    (5, CreatePlan("refuses, quoting 'overloaded'", delay=0.2, travel="dropped", at=0.73)),
                ),
            ),
            Batch(95.04, process=0, intents=(5, 6), unified=True, concurrency=8),
        ),
    ),
}  # fmt: skip


class TestALife:
    def test_of_fixed_seeds_breaks_no_promise(self, request: pytest.FixtureRequest) -> None:
        asked = request.config.getoption("--simulation-seed")
        seeds = range(FIXED_SEEDS) if asked is None else [asked]

        assert faults_of(seeds) == []

    @pytest.mark.parametrize("story", FOUND.values(), ids=FOUND)
    def test_that_once_broke_a_promise_breaks_none(self, story: Story) -> None:
        assert live(story).violations == ()

    @pytest.mark.storm
    @pytest.mark.parametrize("part", range(12))
    def test_of_many_seeds_breaks_no_promise(self, part: int) -> None:
        assert faults_of(range(1000 + part, 1000 + GATE_SEEDS, 12)) == []

    def test_of_the_same_seed_is_the_same_life(self) -> None:
        for seed in range(5):
            assert live(make(seed)) == live(make(seed))


class TestAMutant:
    def test_finds_each_of_its_places_once_in_the_present_code(self) -> None:
        package = Path(piapi_async.__file__).parent

        assert [place for mutant in MUTANTS for place in mutant.missed_places(package)] == []

    def test_stands_for_each_fault_that_has_cost_money(self) -> None:
        assert {name for names in MONEY_FAULTS.values() for name in names} <= {
            mutant.what for mutant in MUTANTS
        }
