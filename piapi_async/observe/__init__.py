"""What a client does, as typed events: for metrics, traces, logs, and a page of your own.

::

    from piapi_async.observe import Event, TaskEnded

    class Bill:
        def on_event(self, event: Event) -> None:
            if isinstance(event, TaskEnded) and event.task.cost:
                book(event.key, event.task.cost)

    async with PiAPI(observers=[Bill()]) as piapi:
        ...

An observer is called at once, in the event loop, for everything that happens: it must be quick, and
must not wait.  One that raises is logged once and dropped; nothing that was paid for is lost by it.
Without observers an event costs a look whether anybody listens.

The package's own log is such an observer.  Its lines go to the logger ``piapi_async``, and each
carries the attributes `event`, `task_id`, `request`, `key`, `origin`, `family`, `submission`,
`state`, `seconds` and `error` (None where there is none), for a formatter or a filter.  Prompts are
in no line below WARNING but those of DEBUG.

`piapi_async.observe.otel` has spans and metrics (``pip install 'piapi_async[otel]'``).  Without it,
Prometheus can read the counters of a client (`PiAPI.stats`) whenever it scrapes::

    from prometheus_client import REGISTRY
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    class PiAPICollector:
        def __init__(self, piapi):
            self.piapi = piapi

        def collect(self):
            stats = self.piapi.stats
            for name in ("waiting", "submitting"):
                yield GaugeMetricFamily(f"piapi_{name}", "See piapi_async.Stats.", getattr(stats, name))
            for name in ("polls", "ended", "retries", "rate_limited", "poll_faults", "detection_seconds"):
                yield CounterMetricFamily(f"piapi_{name}", "See piapi_async.Stats.", getattr(stats, name))

    REGISTRY.register(PiAPICollector(piapi))

May import: _version, _http, _text, tasks, errors, _protocol.
"""

from ._events import (
    CallRetried,
    ClientShutDown,
    Event,
    FileSaved,
    LedgerWritten,
    Notice,
    PollMade,
    RateLimited,
    SubmissionAccepted,
    SubmissionBecameUnknown,
    SubmissionEvent,
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
from ._observer import Observer, TracingObserver

__all__ = [
    "CallRetried",
    "ClientShutDown",
    "Event",
    "FileSaved",
    "LedgerWritten",
    "Notice",
    "Observer",
    "PollMade",
    "RateLimited",
    "SubmissionAccepted",
    "SubmissionBecameUnknown",
    "SubmissionEvent",
    "SubmissionRecovered",
    "SubmissionRefused",
    "SubmissionSending",
    "SubmissionStarted",
    "TaskEnded",
    "TaskEvent",
    "TaskRead",
    "TaskStateChanged",
    "TracingObserver",
    "WebhookReceived",
]
