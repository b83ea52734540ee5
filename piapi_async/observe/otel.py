"""OpenTelemetry: one span for each task, and metrics (``pip install 'piapi_async[otel]'``).

::

    from piapi_async.observe.otel import OpenTelemetryObserver

    async with PiAPI(observers=[OpenTelemetryObserver()]) as piapi:
        ...

A task's span begins at `submit`, under the span that is current there, and ends when its end is
seen: by a wait, a fetch or a webhook.  If aiohttp is instrumented, the span of its POST is its
child; those of polls, which serve many tasks, are roots.  What a killed process has submitted is
resumed under a span of its own, which links to the one before; the ledger remembers that.

Names are those of the conventions for generative AI where there is one, and ``piapi.*`` else.
Neither spans nor metrics hold prompts.  The metrics:

==================================  ============  ==================================================
``piapi.tasks``                     counter       by ``piapi.outcome``: done, failed, cancelled,
                                                  refused, not_sent, unknown
``piapi.tasks.in_flight``           up/down       submitted, and not seen to end
``gen_ai.client.operation.duration``  histogram   seconds from `submit` to the end
``piapi.task.queue_time``           histogram     seconds until the host began to work on it
``piapi.task.detection_delay``      histogram     seconds from the end until it was seen (estimate)
``piapi.task.polls``                histogram     polls that asked for a task
``piapi.task.cost``                 counter       what the host consumed, by ``piapi.cost.unit``
``piapi.polls``                     counter       requests for waits
``piapi.rate_limited``              counter       times the host asked to slow down
==================================  ============  ==================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import define, field

from .._http import Request
from .._protocol.family import TaskRequest
from .._text import label
from .._version import __version__
from ..errors import APIError, end_error
from ..tasks import Task, TaskState
from ._attributes import OPERATION, Labels, facts_of, host_of, labels_of, labels_of_task, seconds_between
from ._events import (
    ClientShutDown,
    Event,
    PollMade,
    RateLimited,
    SubmissionAccepted,
    SubmissionBecameUnknown,
    SubmissionRecovered,
    SubmissionRefused,
    SubmissionSending,
    SubmissionStarted,
    TaskEnded,
    TaskEvent,
    TaskRead,
    TaskStateChanged,
    WebhookReceived,
)

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:  # pragma: no cover - the tests have it
    raise ModuleNotFoundError(
        "OpenTelemetryObserver needs opentelemetry: pip install 'piapi_async[otel]'", name=error.name
    ) from error

_MOST_OPEN = 100_000  # spans; a task that nobody waits for would keep its own for ever

_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
_DELAYS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
_POLLS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 200)

_Key: TypeAlias = tuple[str, str, str]  # origin, family, task id


@define(eq=False)
class _Life:
    """A submission that has begun, and its task, until that is seen to end."""

    client: int
    submission: int
    request: TaskRequest[Any]
    labels: Labels
    span: trace.Span
    attached: bool = False  # whether the task that sends it has the span as its current one
    key: _Key | None = None


class OpenTelemetryObserver:
    """Makes a span for each task, and counts and measures; one may serve several clients.

    `tracer_provider` and `meter_provider` are the global ones unless given; `clock` returns the
    nanoseconds since 1970 at which spans begin and end, for tests in virtual time.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self._tracer = trace.get_tracer("piapi_async", __version__, tracer_provider)
        self._meters = _Meters(metrics.get_meter("piapi_async", __version__, meter_provider))
        self._lives: dict[int, _Life] = {}
        self._tasks: dict[_Key, _Life] = {}
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            SubmissionStarted: self._started,
            SubmissionSending: self._sending,
            SubmissionAccepted: self._accepted,
            SubmissionRefused: self._refused,
            SubmissionBecameUnknown: self._unknown,
            SubmissionRecovered: self._recovered,
            TaskStateChanged: self._changed,
            TaskEnded: self._ended,
            TaskRead: self._read,
            WebhookReceived: self._delivered,
            PollMade: self._polled,
            RateLimited: self._limited,
            ClientShutDown: self._shut_down,
        }

    def on_event(self, event: Event) -> None:
        """Take in an event."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    def trace_of(self, submission: int) -> str | None:
        """Return the W3C ``traceparent`` of a submission's span, for the ledger."""
        life = self._lives.get(submission)
        if life is None:
            return None
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(life.span))
        return carrier.get("traceparent")

    # -- submissions ------------------------------------------------------------------------------

    def _started(self, event: SubmissionStarted) -> None:
        labels = labels_of(event)
        attributes: dict[str, str | int] = {**labels, "piapi.request": event.request}
        if event.key is not None:
            attributes["piapi.key"] = event.key

        span = self._tracer.start_span(
            f"{OPERATION} {labels['gen_ai.request.model']}",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._clock(),
        )
        life = _Life(event.client, event.submission, event.task_request, labels, span)
        self._lives[event.submission] = life
        self._meters.in_flight.add(1, labels)

        if len(self._lives) > _MOST_OPEN:
            self._leave(next(iter(self._lives.values())))

    def _sending(self, event: SubmissionSending) -> None:
        life = self._lives.get(event.submission)
        if life is None:
            return
        life.span.set_attribute("piapi.attempts", event.attempt)
        if not life.attached:
            # This runs in the task that sends, whose context is its own, so that it need not be
            # taken back; what is requested there, the POST above all, is under the task's span.
            life.attached = True
            context.attach(trace.set_span_in_context(life.span))

    def _accepted(self, event: SubmissionAccepted) -> None:
        life = self._lives.get(event.submission)
        if life is None:
            return

        span = life.span
        span.set_attributes(
            {
                "piapi.task.id": event.task_id,
                "gen_ai.response.id": event.task_id,
                "piapi.resumed": event.resumed,
            }
        )
        if event.key is not None:
            span.set_attribute("piapi.key", event.key)
        if event.frozen is not None:
            span.set_attribute("piapi.cost.expected", event.frozen.amount)
        if event.ledger_error is not None:
            _add_error(span, event.ledger_error, life.request)
        if event.trace is not None:
            _link(span, event.trace)

        life.key = (event.origin, event.family, event.task_id)
        other = self._tasks.get(life.key)
        if other is None:
            self._tasks[life.key] = life
            return

        # The key was submitted here before, and its task has a span already.
        span.add_link(other.span.get_span_context())
        life.key = None
        self._end(life)

    def _refused(self, event: SubmissionRefused) -> None:
        outcome = "not_sent"
        if isinstance(event.error, APIError):
            outcome = "refused"
        self._fail(event, outcome)

    def _unknown(self, event: SubmissionBecameUnknown) -> None:
        self._fail(event, "unknown")

    def _fail(self, event: SubmissionRefused | SubmissionBecameUnknown, outcome: str) -> None:
        life = self._lives.get(event.submission)
        if life is None:
            return
        error_type = type(event.error).__name__
        text = _add_error(life.span, event.error, life.request)
        life.span.set_attribute("error.type", error_type)
        life.span.set_status(trace.StatusCode.ERROR, text)
        self._meters.duration.record(event.seconds, {**life.labels, "error.type": error_type})
        self._end(life, outcome)

    def _recovered(self, event: SubmissionRecovered) -> None:
        life = None
        if event.submission is not None:
            life = self._lives.get(event.submission)
        if life is not None:
            life.span.set_attribute("piapi.recovered", event.how)

    # -- tasks ------------------------------------------------------------------------------------

    def _changed(self, event: TaskStateChanged) -> None:
        life = self._tasks.get(_key(event))
        if life is None:
            return
        attributes: dict[str, str | int] = {
            "piapi.task.state": event.state.value,
            "piapi.task.status": event.status,
        }
        if event.progress is not None:
            attributes["piapi.task.progress"] = event.progress
        life.span.add_event(f"task {event.state.value}", attributes, self._clock())

    def _ended(self, event: TaskEnded) -> None:
        life = self._tasks.get(_key(event))
        if life is not None:
            self._conclude(life, event.task, event)
        elif event.submission is None:  # attached: submitted by another client, so that there is no span
            self._measure(labels_of_task(event), event.task, event)

    def _read(self, event: TaskRead) -> None:
        life = self._tasks.get(_key(event))
        if life is not None and event.state.terminal:
            self._conclude(life, event.task)

    def _delivered(self, event: WebhookReceived) -> None:
        life = self._tasks.get(_key(event))
        if life is None or event.waited or not event.state.terminal:
            return
        life.span.set_attribute("piapi.task.state", event.state.value)
        if event.state is TaskState.FAILED:
            life.span.set_status(trace.StatusCode.ERROR)
        self._end(life, event.state.value)

    def _conclude(self, life: _Life, task: Task[Any], ended: TaskEnded | None = None) -> None:
        """Say on a task's span how it ended, and end that."""
        span = life.span
        span.set_attributes(facts_of(task))
        if ended is not None:
            span.set_attribute("piapi.task.polls", ended.polls)
            if ended.detection_seconds is not None:
                span.set_attribute("piapi.task.detection_delay", ended.detection_seconds)

        if task.state is TaskState.FAILED:
            span.set_attribute("error.type", "TaskFailed")
            failure = end_error(task)
            if failure is not None:
                _add_error(span, failure, life.request)
            span.set_status(trace.StatusCode.ERROR, task.error)

        self._measure(life.labels, task, ended)
        self._end(life)

    def _measure(self, labels: Labels, task: Task[Any], ended: TaskEnded | None) -> None:
        """Count and measure a task that has ended."""
        meters = self._meters
        meters.tasks.add(1, {**labels, "piapi.outcome": task.state.value})
        queue_seconds = seconds_between(task.created_at, task.started_at)
        if queue_seconds is not None:
            meters.queue_time.record(queue_seconds, labels)
        if task.cost is not None:
            meters.cost.add(max(0.0, task.cost.amount), {**labels, "piapi.cost.unit": task.cost.unit})
        if ended is None:
            return

        meters.polls_per_task.record(ended.polls, labels)
        if ended.detection_seconds is not None:
            meters.detection_delay.record(ended.detection_seconds, labels)
        if ended.seconds is not None:
            of_error = {"error.type": "TaskFailed"} if task.state is TaskState.FAILED else {}
            meters.duration.record(ended.seconds, {**labels, **of_error})

    def _end(self, life: _Life, outcome: str | None = None) -> None:
        """End a span; with an `outcome` count it, too."""
        if outcome is not None:
            life.span.set_attribute("piapi.outcome", outcome)
            self._meters.tasks.add(1, {**life.labels, "piapi.outcome": outcome})

        life.span.end(self._clock())
        self._meters.in_flight.add(-1, life.labels)
        self._lives.pop(life.submission, None)
        if life.key is not None:
            self._tasks.pop(life.key, None)

    def _leave(self, life: _Life) -> None:
        """End the span of a task that nobody here will see the end of; it goes on at the host."""
        life.span.set_attribute("piapi.left", value=True)
        self._end(life)

    # -- clients ----------------------------------------------------------------------------------

    def _polled(self, event: PollMade) -> None:
        labels: Labels = {"piapi.family": event.family, "server.address": host_of(event.origin)}
        if event.error is not None:
            labels["error.type"] = type(event.error).__name__
        self._meters.polls.add(1, labels)

    def _limited(self, event: RateLimited) -> None:
        self._meters.rate_limited.add(1, {"server.address": host_of(event.origin)})

    def _shut_down(self, event: ClientShutDown) -> None:
        for life in [life for life in self._lives.values() if life.client == event.client]:
            self._leave(life)


@define(eq=False)
class _Meters:
    """The instruments."""

    _meter: metrics.Meter
    tasks: metrics.Counter = field(init=False)
    in_flight: metrics.UpDownCounter = field(init=False)
    duration: metrics.Histogram = field(init=False)
    queue_time: metrics.Histogram = field(init=False)
    detection_delay: metrics.Histogram = field(init=False)
    polls_per_task: metrics.Histogram = field(init=False)
    cost: metrics.Counter = field(init=False)
    polls: metrics.Counter = field(init=False)
    rate_limited: metrics.Counter = field(init=False)

    def __attrs_post_init__(self) -> None:
        meter = self._meter
        self.tasks = meter.create_counter("piapi.tasks", "{task}", "Submissions and tasks by how they ended.")
        self.in_flight = meter.create_up_down_counter(
            "piapi.tasks.in_flight", "{task}", "Tasks that were submitted and have not been seen to end."
        )
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration: from the submission to the end that was seen.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.queue_time = meter.create_histogram(
            "piapi.task.queue_time",
            "s",
            "From a task's creation to the beginning of the work on it, by the host's times.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.detection_delay = meter.create_histogram(
            "piapi.task.detection_delay",
            "s",
            "From a task's end until that was seen, estimated.",
            explicit_bucket_boundaries_advisory=_DELAYS,
        )
        self.polls_per_task = meter.create_histogram(
            "piapi.task.polls",
            "{poll}",
            "Polls that asked for a task.",
            explicit_bucket_boundaries_advisory=_POLLS,
        )
        self.cost = meter.create_counter(
            "piapi.task.cost", "", "What the host says that tasks have consumed."
        )
        self.polls = meter.create_counter("piapi.polls", "{request}", "Requests made for waits.")
        self.rate_limited = meter.create_counter(
            "piapi.rate_limited", "{time}", "Times a host asked to slow down."
        )


def _key(event: TaskEvent) -> _Key:
    return event.origin, event.family, event.task_id


def _add_error(span: trace.Span, error: BaseException, request: Request[Any]) -> str:
    """Record an error on a span without the prompt; return its text."""
    text = str(error).replace(label(request), type(request).__name__)
    span.add_event("exception", {"exception.type": type(error).__name__, "exception.message": text})
    return text


def _link(span: trace.Span, traceparent: str) -> None:
    """Link to the span of the process that submitted the task, if the text is one's."""
    earlier = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context.Context())
    linked = trace.get_current_span(earlier).get_span_context()
    if linked.is_valid:
        span.add_link(linked, {"piapi.link": "submitted by"})
