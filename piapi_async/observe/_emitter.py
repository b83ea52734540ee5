"""`Events`: the one place from which the parts of a client tell what happens.

The parts call the method for what has happened; here it is decided whether anybody listens, and an
event is made only then.  An observer may do anything but harm: what it raises is logged once, and it
is told no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import define, field

from .._http import Request
from .._protocol.family import TaskRequest
from .._text import brief, label
from ..errors import LedgerError, PiAPIError, RateLimitError
from ..tasks import Cost, Task, TaskFile, TaskId, TaskState
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
    SubmissionRecovered,
    SubmissionRefused,
    SubmissionSending,
    SubmissionStarted,
    TaskEnded,
    TaskRead,
    TaskStateChanged,
    WebhookReceived,
)
from ._log import LogObserver, logger
from ._observer import Observer

_NUMBERS = itertools.count(1)
_CLIENTS = itertools.count(1)

# Every submission and poll asks, and mostly nobody listens: a name of the module is found faster than
# an attribute of another.
_is_logged = logger.isEnabledFor
_DEBUG, _INFO = logging.DEBUG, logging.INFO

_OBSERVERS_OWN = (Exception, asyncio.CancelledError)
"""What an observer may raise by itself; nobody cancels it."""


@define(eq=False, repr=False)
class Subject:
    """What all events of one submission and of its task have in common.

    `started_at` is a time of the loop.  The key is known only once the submission has a claim.
    """

    submission: int
    request: str
    family: str
    started_at: float
    key: str | None = None
    attempts: int = 0


@define(eq=False, repr=False)
class Events:
    """Tells the observers of one client what happens, and the log."""

    origin: str = ""
    _observers: tuple[Observer, ...] = ()
    client: int = field(factory=_CLIENTS.__next__, init=False)
    _log: LogObserver = field(factory=LogObserver, init=False)

    @property
    def heard(self) -> bool:
        """Whether anybody hears of the steps of a task's life."""
        if self._observers:
            return True
        return _is_logged(_INFO)

    @property
    def heard_in_detail(self) -> bool:
        """Whether anybody hears of every poll, commit and change."""
        if self._observers:
            return True
        return _is_logged(_DEBUG)

    @property
    def logs_requests(self) -> bool:
        """Whether the log has a line for every HTTP request; observers are told of what it was for."""
        return _is_logged(_DEBUG)

    def emit(self, event: Event) -> None:
        """Tell of an event.  Never raises, but for what ends a program."""
        with contextlib.suppress(Exception):  # a log handler must not lose a task that was paid for
            self._log.on_event(event)

        for observer in self._observers:
            try:
                observer.on_event(event)
            except _OBSERVERS_OWN as error:
                self._drop(observer, error)

    def _drop(self, observer: Observer, error: BaseException) -> None:
        self._observers = tuple(other for other in self._observers if other is not observer)
        text = f"{_name_of(observer)} raised {error!r}, and is told of nothing more; all else goes on"
        self.notice(logging.ERROR, text, exception=error)

    def notice(self, level: int, text: str, **details: Any) -> None:  # noqa: ANN401 - attributes of log records
        """Tell what no other event says.

        `details` become attributes of the log's line; an `exception` is shown with its traceback.
        """
        self.emit(Notice(origin=self.origin, client=self.client, level=level, text=text, details=details))

    def answered(self, request: Request[Any], status: int, seconds: float) -> None:
        """Tell the log of one HTTP request; only to be called if it `logs_requests`."""
        self.notice(
            logging.DEBUG,
            f"{label(request)}: HTTP {status} in {seconds * 1000:.0f} ms",
            request=type(request).__name__,
            task_id=getattr(request, "task_id", None),
            seconds=seconds,
        )

    # -- submissions ------------------------------------------------------------------------------

    def started(self, request: TaskRequest[Any], family: str, key: str | None) -> Subject | None:
        """Tell that `submit` was called; return what later events name it by, None if nobody listens."""
        if not self._observers and not _is_logged(_INFO):  # `heard`, without the price of a property
            return None

        now = asyncio.get_running_loop().time()
        subject = Subject(next(_NUMBERS), type(request).__name__, family, now, key)
        self.emit(
            SubmissionStarted(origin=self.origin, client=self.client, task_request=request, **_of(subject))
        )
        return subject

    def trace_of(self, subject: Subject | None) -> str | None:
        """Return the text that an observer has for the ledger."""
        if subject is None:
            return None

        for observer in self._observers:
            trace_of = getattr(observer, "trace_of", None)
            if trace_of is None:
                continue
            try:
                trace = trace_of(subject.submission)
            except _OBSERVERS_OWN as error:
                self._drop(observer, error)
                continue
            if isinstance(trace, str):
                return trace
        return None

    def sending(self, subject: Subject | None) -> None:
        """Tell that a submission is handed to the transport."""
        if subject is not None and self._observers:
            subject.attempts += 1
            self.emit(
                SubmissionSending(
                    origin=self.origin, client=self.client, attempt=subject.attempts, **_of(subject)
                )
            )

    def accepted(
        self,
        subject: Subject | None,
        task_id: TaskId,
        now: float,
        *,
        resumed: bool = False,
        frozen: Cost | None = None,
        trace: str | None = None,
        ledger_error: LedgerError | None = None,
    ) -> None:
        """Tell that the host has named the task of a submission, or had before."""
        if subject is None:
            return
        self.emit(
            SubmissionAccepted(
                origin=self.origin,
                client=self.client,
                task_id=task_id,
                seconds=now - subject.started_at,
                resumed=resumed,
                frozen=frozen,
                trace=trace,
                ledger_error=ledger_error,
                **_of(subject),
            )
        )

    def not_accepted(
        self, subject: Subject | None, error: BaseException, now: float, *, unknown: bool
    ) -> None:
        """Tell that a submission has made no task or, if `unknown`, may have."""
        if subject is None:
            return
        kind = SubmissionBecameUnknown if unknown else SubmissionRefused
        self.emit(
            kind(
                origin=self.origin,
                client=self.client,
                error=error,
                seconds=now - subject.started_at,
                **_of(subject),
            )
        )

    def recovered(
        self,
        task_id: TaskId,
        family: str,
        how: str,
        *,
        key: str | None = None,
        subject: Subject | None = None,
    ) -> None:
        """Tell that the task of a submission whose response was lost was found.

        `how` is "history", "webhook" or "ledger".
        """
        if not self.heard:
            return
        known: dict[str, Any] = {"family": family, "key": key}
        if subject is not None:
            known = _of(subject)
        self.emit(
            SubmissionRecovered(origin=self.origin, client=self.client, task_id=task_id, how=how, **known)
        )

    # -- tasks ------------------------------------------------------------------------------------

    def state_changed(
        self, subject: Subject | None, family: str, task: Task[Any], previous: TaskState | None
    ) -> None:
        """Tell that a wait has seen a task in another state."""
        self.emit(
            TaskStateChanged(
                origin=self.origin,
                client=self.client,
                task_id=task.task_id,
                state=task.state,
                previous=previous,
                status=task.status,
                progress=task.progress,
                **_of_task(subject, family),
            )
        )

    def ended(
        self,
        subject: Subject | None,
        family: str,
        task: Task[Any],
        now: float,
        *,
        polls: int,
        detection_seconds: float | None,
    ) -> None:
        """Tell that a wait has seen the end of a task; only to be called if it is `heard`."""
        seconds = None
        if subject is not None:
            seconds = now - subject.started_at
        self.emit(
            TaskEnded(
                origin=self.origin,
                client=self.client,
                task_id=task.task_id,
                task=task,
                seconds=seconds,
                polls=polls,
                detection_seconds=detection_seconds,
                **_of_task(subject, family),
            )
        )

    def read(self, family: str, tasks: Iterable[Task[Any] | None]) -> None:
        """Tell that tasks were read which nobody need be waiting for."""
        if not self.heard_in_detail:
            return
        for task in tasks:
            if task is not None:
                self.emit(
                    TaskRead(
                        origin=self.origin, client=self.client, task_id=task.task_id, family=family, task=task
                    )
                )

    def webhook(
        self, task_id: TaskId, family: str, state: TaskState, *, waited: bool, duplicate: bool = False
    ) -> None:
        """Tell that a delivery has come."""
        if not self.heard_in_detail:
            return
        self.emit(
            WebhookReceived(
                origin=self.origin,
                client=self.client,
                task_id=task_id,
                family=family,
                state=state,
                waited=waited,
                duplicate=duplicate,
            )
        )

    def saved(self, task: Task[Any], file: TaskFile, seconds: float) -> None:
        """Tell that a file of a task was saved."""
        if not self.heard_in_detail:
            return
        family = "" if task.ref is None else task.ref.family
        self.emit(
            FileSaved(
                origin=self.origin,
                client=self.client,
                task_id=task.task_id,
                family=family,
                file=file,
                seconds=seconds,
            )
        )

    # -- requests and the ledger ------------------------------------------------------------------

    def polled(
        self, family: str, tasks: int, seconds: float, *, ended: int = 0, error: PiAPIError | None = None
    ) -> None:
        """Tell that the poller has asked for tasks."""
        if self.heard_in_detail:
            event = PollMade(
                origin=self.origin,
                client=self.client,
                family=family,
                tasks=tasks,
                seconds=seconds,
                ended=ended,
                error=error,
            )
            self.emit(event)

    def rate_limited(self, error: RateLimitError, pause: float) -> None:
        """Tell that the host asks to slow down."""
        if self.heard_in_detail:
            self.emit(RateLimited(origin=self.origin, client=self.client, pause=pause, error=error))

    def retried(
        self, request: Request[Any], error: PiAPIError, pause: float, attempt: int, attempts: int
    ) -> None:
        """Tell that a call is tried again."""
        if not self.heard:
            return
        name = type(request).__name__
        self.emit(
            CallRetried(
                origin=self.origin,
                client=self.client,
                request=name,
                error=error,
                reason=str(error).replace(label(request), name).rstrip("."),
                pause=pause,
                attempt=attempt,
                attempts=attempts,
            )
        )

    def ledger_written(self, path: Path, operations: int, failed: int, seconds: float) -> None:
        """Tell that the ledger has committed."""
        if self.heard_in_detail:
            event = LedgerWritten(
                origin=self.origin,
                client=self.client,
                path=path,
                operations=operations,
                failed=failed,
                seconds=seconds,
            )
            self.emit(event)

    def shut_down(self) -> None:
        """Tell that the client is closed."""
        if self._observers:
            self.emit(ClientShutDown(origin=self.origin, client=self.client))


def check_observers(observers: Iterable[Observer]) -> tuple[Observer, ...]:
    """Return observers as a tuple; raise `TypeError` for what is none."""
    checked = tuple(observers)
    for observer in checked:
        if not callable(getattr(observer, "on_event", None)) or isinstance(observer, type):
            raise TypeError(
                f"observers: {brief(observer)} is not allowed; it must have a method on_event(event)"
            )
    return checked


def _of(subject: Subject) -> dict[str, Any]:
    return {
        "submission": subject.submission,
        "request": subject.request,
        "family": subject.family,
        "key": subject.key,
    }


def _of_task(subject: Subject | None, family: str) -> dict[str, Any]:
    if subject is None:
        return {"family": family}
    return _of(subject)


def _name_of(observer: Observer) -> str:
    return f"The observer {type(observer).__name__}"
