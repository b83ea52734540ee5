"""A batch with a ledger, whose spans are told on stdout: ``python traced_batch.py HOST KEY LEDGER``.

A line is written when a span begins, as a process that is killed ends none: ``began TRACE-SPAN``; when a submission is
accepted: ``accepted KEY``; and when a span ends: ``ended KEY``, with the ``TRACE-SPAN`` of each of its links.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext

from piapi_async import BatchItem, BatchRunner, CreateTask, Ledger, PiAPI, PollPolicy
from piapi_async.observe import Event, Observer, SubmissionAccepted
from piapi_async.observe.otel import OpenTelemetryObserver

ITEMS = 6


class Teller(SpanProcessor):
    """Tells of each span at its beginning and at its end; also an observer of what is accepted."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        del parent_context
        say("began", text_of(span.get_span_context()))

    def on_end(self, span: ReadableSpan) -> None:
        say(
            "ended",
            str((span.attributes or {})["piapi.key"]),
            *[text_of(link.context) for link in span.links],
        )

    def on_event(self, event: Event) -> None:
        if isinstance(event, SubmissionAccepted):
            say("accepted", str(event.key))


def text_of(context: SpanContext) -> str:
    return f"{context.trace_id:032x}-{context.span_id:016x}"


def say(*words: str) -> None:
    print(*words, flush=True)


async def main(host: str, key: str, ledger: str) -> None:
    teller = Teller()
    provider = TracerProvider()
    provider.add_span_processor(teller)
    observers: list[Observer] = [OpenTelemetryObserver(tracer_provider=provider), teller]
    items = [
        BatchItem(CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": f"cat {number}"}), f"item-{number}")
        for number in range(ITEMS)
    ]
    async with PiAPI(
        key, base_url=host, ledger=Ledger(Path(ledger)), observers=observers, poll=PollPolicy.every(0.05)
    ) as piapi:
        outcomes = await BatchRunner(piapi, concurrency=ITEMS).run(items)
    assert all(outcome.ok for outcome in outcomes), outcomes


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
