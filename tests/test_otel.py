"""Spans and metrics, as OpenTelemetry's own SDK collects them; HTTP spans by its instrumentation of aiohttp."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import create_trace_config
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.batching import WIDE, rerolls
from support.hooking import LOST, hooked
from support.serving import now, serving

from piapi_async import (
    BatchRunner,
    Imagine,
    InvalidRequestError,
    Ledger,
    Reroll,
    SubmissionUnknown,
)
from piapi_async.emulator import Emulator, Status
from piapi_async.models import flux
from piapi_async.observe import Event, SubmissionAccepted
from piapi_async.observe.otel import OpenTelemetryObserver

pytestmark = pytest.mark.looptime

SECOND = 10**9


class Telemetry:
    """An observer, whose spans begin and end by the loop's clock, and what was collected of it."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = self.provider.get_tracer("test")
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.provider,
            meter_provider=MeterProvider(metric_readers=[self._reader]),
            clock=lambda: int(now() * SECOND),
        )

    @property
    def tasks(self) -> list[ReadableSpan]:
        """The spans of tasks."""
        return [span for span in self._spans.get_finished_spans() if span.name.startswith("generate_content")]

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        """The data points of one metric."""
        data: Any = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        [metric] = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return list(metric.data.data_points)

    def by(self, label: str, name: str) -> dict[str, float]:
        """The values of a counter by one of its labels."""
        values: Counter[str] = Counter()
        for point in self.points(name):
            values[point.attributes[label]] += point.value
        return dict(values)


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: Any) -> tuple[int, int]:
    """Return what tells a span, or a parent, or a link, from others."""
    context = getattr(span, "context", span)
    return context.trace_id, context.span_id


class Fate:
    """Has the tenth task fail, and the twentieth be cancelled before it begins."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.accepted: list[str] = []

    def on_event(self, event: Event) -> None:
        if not isinstance(event, SubmissionAccepted):
            return
        self.accepted.append(event.task_id)
        if len(self.accepted) == 10:
            self.emulator.end(event.task_id, error="out of memory")
        if len(self.accepted) == 20:
            self.emulator.engine.cancel(event.task_id, now=self.emulator.now)


def sums(telemetry: Telemetry, name: str) -> tuple[int, float]:
    """Return the number of the values of a histogram, and their sum."""
    points = telemetry.points(name)
    return sum(point.count for point in points), sum(point.sum for point in points)


async def test_a_hundred_rerolls_have_a_hundred_spans_with_times_states_and_parents() -> None:
    telemetry = Telemetry()
    emulator = Emulator(adopt_parents=True, durations=30.0, **WIDE)
    fate = Fate(emulator)
    async with (
        emulator.run() as base_url,
        aiohttp.ClientSession(
            trace_configs=[create_trace_config(tracer_provider=telemetry.provider)]
        ) as session,
        emulator.client(observers=[fate, telemetry.observer], session=session, base_url=base_url) as piapi,
    ):
        emulator.fail("reroll", LOST, nth=50)
        runner = BatchRunner(piapi, concurrency=40)
        with telemetry.tracer.start_as_current_span("the caller's"):
            outcomes = await runner.run(rerolls(100))

        totals = runner.totals
        [caller] = telemetry.spans("the caller's")
        assert 100 == len(telemetry.tasks) == len(outcomes)
        assert {ids(caller)} == {ids(span.parent) for span in telemetry.tasks}
        assert {SpanKind.CLIENT} == {span.kind for span in telemetry.tasks}

        by_outcome: dict[str, list[ReadableSpan]] = {}
        for span in telemetry.tasks:
            by_outcome.setdefault(attributes_of(span)["piapi.outcome"], []).append(span)
        assert {"done": 97, "failed": 1, "cancelled": 1, "unknown": 1} == {
            outcome: len(spans) for outcome, spans in by_outcome.items()
        }
        assert {StatusCode.UNSET} == {
            span.status.status_code for span in by_outcome["done"] + by_outcome["cancelled"]
        }
        assert {StatusCode.ERROR} == {
            span.status.status_code for span in by_outcome["failed"] + by_outcome["unknown"]
        }
        assert "out of memory" == by_outcome["failed"][0].status.description

        # Each span is as long as its task, and what it takes to see its end.
        tasks = {task_id: task for task_id, task in emulator.engine.tasks.items() if not task.adopted}
        for span in by_outcome["done"]:
            task = tasks[attributes_of(span)["piapi.task.id"]]
            assert span.start_time is not None
            assert span.end_time is not None
            assert 30.0 <= (span.end_time - span.start_time) / SECOND <= 40.0
            assert ["task running"] == [event.name for event in span.events][-1:]
            # the host rounds
            assert attributes_of(span)["piapi.task.run_seconds"] == pytest.approx(30.0, abs=4.0)
            assert task.task_id in fate.accepted

        # HTTP requests: a POST is its task's, polls are nobody's.
        posts = telemetry.spans("POST")
        submits = [span for span in posts if "reroll" in str(attributes_of(span)["http.url"])]
        assert {ids(span) for span in telemetry.tasks} == {ids(span.parent) for span in submits}
        polls = [span for span in posts if span not in submits]
        assert len(polls) == piapi.stats.polls > 10
        assert {None} == {span.parent for span in polls}

        # The metrics are the batch's totals.
        outcomes_told = telemetry.by("piapi.outcome", "piapi.tasks")
        assert totals.done == outcomes_told["done"] == 97
        assert totals.failed == outcomes_told["failed"] + outcomes_told["cancelled"]
        assert totals.unknown == outcomes_told["unknown"]
        assert 0 == sum(point.value for point in telemetry.points("piapi.tasks.in_flight"))
        number, seconds = sums(telemetry, "gen_ai.client.operation.duration")
        assert 100 == number
        assert seconds == pytest.approx(98 * 32, rel=0.1)
        polled = [attributes_of(span).get("piapi.task.polls", 0) for span in telemetry.tasks]
        assert (99, sum(polled)) == sums(telemetry, "piapi.task.polls")
        assert piapi.stats.detection_seconds == pytest.approx(
            sums(telemetry, "piapi.task.detection_delay")[1]
        )
        assert piapi.stats.polls == sum(telemetry.by("piapi.family", "piapi.polls").values())


async def test_a_submission_that_makes_no_task_ends_its_span_with_the_error_and_without_the_prompt() -> None:
    telemetry = Telemetry()
    async with serving({"observers": [telemetry.observer]}) as (emulator, piapi):
        emulator.fail("imagine", Status(400, body={"message": "no"}))
        with pytest.raises(InvalidRequestError):
            await piapi.submit(Imagine("nobody's business"))
        emulator.fail("imagine", LOST)
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(Imagine("nobody's business"))
        piapi._runtime.sender.throttle.pause(10.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(piapi.submit(Imagine("nobody's business")), 1.0)

    refused, unknown, withdrawn = telemetry.tasks
    outcomes = [attributes_of(span)["piapi.outcome"] for span in telemetry.tasks]
    assert ["refused", "unknown", "not_sent"] == outcomes
    errors = [attributes_of(span)["error.type"] for span in telemetry.tasks]
    assert ["InvalidRequestError", "SubmissionUnknown", "CancelledError"] == errors
    assert [StatusCode.ERROR] * 3 == [span.status.status_code for span in telemetry.tasks]
    assert "Imagine was refused" in str(refused.status.description)
    assert ["exception"] == [event.name for event in unknown.events]
    assert withdrawn.start_time is not None
    assert SECOND == pytest.approx((withdrawn.end_time or 0) - withdrawn.start_time, rel=0.01)
    assert "business" not in "".join(span.to_json() for span in telemetry.tasks)


async def test_what_a_task_cost_and_how_it_was_found_are_told() -> None:
    telemetry = Telemetry()
    client = {"observers": [telemetry.observer], "recover": 60.0}
    async with serving(client, durations=5.0) as (emulator, piapi):
        emulator.fail("create", LOST)
        task = await (await piapi.submit(flux.TextToImage("a cat"))).wait()

    [span] = telemetry.tasks
    assert task.cost is not None
    told = attributes_of(span)
    assert task.cost.amount == told["piapi.cost.amount"]
    assert {task.cost.unit: task.cost.amount} == telemetry.by("piapi.cost.unit", "piapi.task.cost")
    assert ("history", "piapi", "image") == (
        told["piapi.recovered"],
        told["gen_ai.provider.name"],
        told["gen_ai.output.type"],
    )
    assert "generate_content Qubico/flux1-schnell" == span.name
    assert "txt2img" == told["piapi.task.type"]


# -- who sees the end -----------------------------------------------------------------------------


async def test_a_fetch_that_sees_the_end_ends_the_span_and_the_wait_after_it_counts_no_second_task() -> None:
    telemetry = Telemetry()
    async with serving({"observers": [telemetry.observer]}, durations=5.0) as (_, piapi):
        handle = await piapi.submit(Reroll("p"))
        await piapi.fetch(handle.task_id)
        await asyncio.sleep(10.0)
        assert not telemetry.tasks
        await piapi.fetch(handle.task_id)
        [span] = telemetry.tasks
        await handle.wait()

    assert "done" == attributes_of(span)["piapi.task.state"]
    assert {"done": 1} == telemetry.by("piapi.outcome", "piapi.tasks")


@pytest.mark.parametrize("failure_rate", [0.0, 1.0])
async def test_a_webhook_that_nobody_waits_for_ends_the_span(failure_rate: float) -> None:
    telemetry = Telemetry()
    client = {"observers": [telemetry.observer]}
    async with hooked(client=client, durations=5.0, failure_rate=failure_rate) as (_, piapi, _receiver):
        await piapi.submit(Reroll("p"))
        await asyncio.sleep(10.0)
        [span] = telemetry.tasks

    state = "failed" if failure_rate else "done"
    assert {state: 1} == telemetry.by("piapi.outcome", "piapi.tasks")
    assert (StatusCode.ERROR if failure_rate else StatusCode.UNSET) is span.status.status_code


async def test_the_end_of_a_task_from_elsewhere_is_counted_without_a_span() -> None:
    telemetry = Telemetry()
    async with serving(durations=5.0) as (emulator, submitting):
        handle = await submitting.submit(Reroll("p"))
        async with emulator.client(observers=[telemetry.observer]) as waiting:
            await waiting.attach(handle.task_id).wait()

    assert not telemetry.tasks
    assert {"done": 1} == telemetry.by("piapi.outcome", "piapi.tasks")


async def test_a_client_that_is_closed_ends_the_spans_of_its_own_tasks_alone() -> None:
    telemetry = Telemetry()
    client = {"observers": [telemetry.observer]}
    async with serving(client) as (emulator, piapi):
        await piapi.submit(Reroll("p"))
        async with emulator.client(**client) as other:
            handle = await other.submit(Reroll("q"))

        [span] = telemetry.tasks
        assert handle.task_id == attributes_of(span)["piapi.task.id"]
        assert attributes_of(span)["piapi.left"]
        assert 1 == sum(point.value for point in telemetry.points("piapi.tasks.in_flight"))


async def test_spans_of_tasks_that_nobody_waits_for_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piapi_async.observe.otel._MOST_OPEN", 3)
    telemetry = Telemetry()
    async with serving({"observers": [telemetry.observer]}, **WIDE) as (_, piapi):
        for request in rerolls(5):
            await piapi.submit(request)

        assert [True, True] == [attributes_of(span)["piapi.left"] for span in telemetry.tasks]
        assert 3 == sum(point.value for point in telemetry.points("piapi.tasks.in_flight"))


# -- one process after another --------------------------------------------------------------------


async def test_what_is_resumed_links_to_the_span_under_which_it_was_submitted(tmp_path: Path) -> None:
    first, second = Telemetry(), Telemetry()
    ledger = tmp_path / "run.db"
    async with serving({"observers": [first.observer], "ledger": Ledger(ledger)}, durations=5.0) as (
        emulator,
        piapi,
    ):
        await piapi.submit(Reroll("p"), key="k")
        await piapi.submit(Reroll("p"), key="k")

        settings: dict[str, Any] = {"observers": [second.observer], "ledger": Ledger(ledger)}
        async with emulator.client(**settings) as again:
            await (await again.submit(Reroll("p"), key="k")).wait()

    same, submitted = first.tasks  # the second one had ended at once: its task has a span already
    [resumed] = second.tasks
    for span in (same, resumed):
        assert attributes_of(span)["piapi.resumed"]
        assert ids(submitted) in {ids(link.context) for link in span.links}
    assert "k" == attributes_of(resumed)["piapi.key"]
    assert {"done": 1} == second.by("piapi.outcome", "piapi.tasks")


async def test_without_a_provider_nothing_is_made_and_nothing_fails(tmp_path: Path) -> None:
    observer = OpenTelemetryObserver()
    client = {"observers": [observer], "ledger": Ledger(tmp_path / "run.db")}
    async with serving(client, durations=5.0) as (_, piapi):
        await (await piapi.submit(Reroll("p"), key="k")).wait()
        assert piapi.ledger is not None
        entry = await piapi.ledger.find("k")

    assert entry is not None
    assert entry.trace is None
    assert observer.trace_of(-1) is None


@pytest.mark.parametrize("text", ["", "no trace", "00-0-0-00"])
async def test_a_text_in_the_ledger_that_is_no_trace_is_no_link(tmp_path: Path, text: str) -> None:
    class Other:
        def on_event(self, _: Event) -> None:
            pass

        def trace_of(self, _: int) -> str:
            return text

    telemetry = Telemetry()
    ledger = tmp_path / "run.db"
    async with serving({"observers": [Other()], "ledger": Ledger(ledger)}, durations=5.0) as (
        emulator,
        piapi,
    ):
        await piapi.submit(Reroll("p"), key="k")
        async with emulator.client(observers=[telemetry.observer], ledger=Ledger(ledger)) as again:
            await again.submit(Reroll("p"), key="k")

    [span] = telemetry.tasks
    assert not span.links


async def test_the_caller_s_context_is_left_as_it_was() -> None:
    telemetry = Telemetry()
    async with serving({"observers": [telemetry.observer]}, durations=5.0) as (_, piapi):
        with telemetry.tracer.start_as_current_span("the caller's") as caller:
            await (await piapi.submit(Reroll("p"))).wait()
            assert caller is trace.get_current_span()
