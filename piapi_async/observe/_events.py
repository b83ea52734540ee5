"""What happens in a client, as frozen values.  Pure.

Every event is one thing that has happened, and says all that is known of it at that moment; nothing
of it is read anew.  Events are equal only to themselves: comparing tasks and errors means little,
and a class that does not compare is made in less than half the time, as is one whose repr is that of
its base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, fields, frozen

from .._protocol.family import TaskRequest
from ..errors import LedgerError, PiAPIError, RateLimitError
from ..tasks import Cost, Task, TaskFile, TaskId, TaskState


@frozen(kw_only=True, eq=False, repr=False)
class Event:
    """The base of all events.

    `origin` is the host, as in ``https://api.piapi.ai``, "" if there is none (`download`).  `client`
    numbers the clients of this process, as one observer may serve several.
    """

    origin: str
    client: int

    def __repr__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(type(self)) if f.repr]
        return f"{type(self).__name__}({', '.join(shown)})"


# -- submissions -----------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionEvent(Event):
    """A step of one submission.

    `submission` is its number in this process, the same in all its events and in those of its task;
    `request` is the class of what was asked for, `key` its key in the ledger, None as long as it
    has none.
    """

    submission: int
    request: str
    family: str
    key: str | None


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionStarted(SubmissionEvent):
    """`submit` was called; nothing has been sent.  Told in the caller's own context.

    `task_request` is what is to be made, prompt included.
    """

    task_request: TaskRequest[Any] = field(repr=False)


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionSending(SubmissionEvent):
    """The request is handed to the transport, for the first time or again.

    Told in the context of the task that sends it, which is a copy of the caller's.
    """

    attempt: int


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionAccepted(SubmissionEvent):
    """The host has named a task, which is paid for.

    seconds
        Since `SubmissionStarted`, by the loop's clock.
    resumed
        Whether the ledger had the task already: nothing was sent, nothing was paid.
    frozen
        What it is expected to cost, if the host told.
    trace
        What a `TracingObserver` of the process that sent it had stored in the ledger.
    ledger_error
        Why the task could not be recorded; `submit` raises that.
    """

    task_id: TaskId
    seconds: float
    resumed: bool = False
    frozen: Cost | None = None
    trace: str | None = None
    ledger_error: LedgerError | None = None


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionRefused(SubmissionEvent):
    """There is no task: the host has refused it, or nothing was sent.

    `error` is what `submit` raises, a `CancelledError` if its caller was cancelled before the
    request had begun to leave.
    """

    error: BaseException
    seconds: float


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionBecameUnknown(SubmissionEvent):
    """A task may have been made and paid for, and nobody here can tell; `submit` raises `error`."""

    error: BaseException
    seconds: float


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionRecovered(Event):
    """The task of a submission whose response was lost has been found.

    `how` is where: "history", "webhook" or "ledger" (another process found it).  `submission` and
    `request` are None and "" if it was sent by an earlier process; else `SubmissionAccepted`
    follows, unless the submission has been told to be unknown before.
    """

    task_id: TaskId
    family: str
    how: str
    key: str | None = None
    request: str = ""
    submission: int | None = None


# -- tasks -----------------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False, repr=False)
class TaskEvent(Event):
    """Something about one task.

    `request`, `key` and `submission` are those of its submission, "" and None if it was not
    submitted by this client.
    """

    task_id: TaskId
    family: str
    request: str = ""
    key: str | None = None
    submission: int | None = None


@frozen(kw_only=True, eq=False, repr=False)
class TaskStateChanged(TaskEvent):
    """A wait has seen a task in another state than before; `previous` is None the first time.

    `status` is the host's word.  Its end is told by `TaskEnded` alone.
    """

    state: TaskState
    previous: TaskState | None
    status: str
    progress: int | None = None


@frozen(kw_only=True, eq=False, repr=False)
class TaskEnded(TaskEvent):
    """A wait has seen the end of a task; once for each task that is waited for.

    seconds
        From `submit` to now, by the loop's clock; None if it was not submitted by this client.
    polls
        The polls that have asked for it.
    detection_seconds
        Since it ended, estimated: half the time since it was last seen alive, 0 if a webhook
        reported the end.  None if it was never seen alive.
    """

    task: Task[Any] = field(repr=False)
    seconds: float | None = None
    polls: int = 0
    detection_seconds: float | None = None

    @property
    def state(self) -> TaskState:
        """How it ended."""
        return self.task.state


@frozen(kw_only=True, eq=False, repr=False)
class TaskRead(TaskEvent):
    """A task was read by `fetch`, `fetch_many` or `refresh`, in whatever state."""

    task: Task[Any] = field(repr=False)

    @property
    def state(self) -> TaskState:
        """What it was read as."""
        return self.task.state


@frozen(kw_only=True, eq=False, repr=False)
class WebhookReceived(TaskEvent):
    """A delivery has come that carries the secret.

    `waited` says that the task is waited for here, so that a poll will confirm what it reports;
    `duplicate` that the same delivery came before.
    """

    state: TaskState
    waited: bool
    duplicate: bool = False


@frozen(kw_only=True, eq=False, repr=False)
class FileSaved(TaskEvent):
    """A file of a task was saved, as its `saved_as` says; `seconds` is how long that took.

    Told of what `run`, a batch or a worker saves; `piapi_async.download` has no client, and no
    observers.
    """

    file: TaskFile = field(repr=False)
    seconds: float

    @property
    def path(self) -> Path | str | None:
        """Where it is."""
        return self.file.saved_as


# -- requests and the ledger -----------------------------------------------------------------------


@frozen(kw_only=True, eq=False, repr=False)
class PollMade(Event):
    """The poller has asked for tasks in one request, which took `seconds`.

    `ended` is how many of them it found to have ended; `error` is why it failed, None if it did
    not.
    """

    family: str
    tasks: int
    seconds: float
    ended: int = 0
    error: PiAPIError | None = None


@frozen(kw_only=True, eq=False, repr=False)
class RateLimited(Event):
    """The host asks to slow down.

    `pause` is the seconds for which all requests of the client are held back, 0 if only what was
    refused is.
    """

    pause: float
    error: RateLimitError


@frozen(kw_only=True, eq=False, repr=False)
class CallRetried(Event):
    """A call had no effect, and will be tried again in `pause` seconds, as number `attempt` of `attempts`.

    `reason` is the error's text without the prompt.
    """

    request: str
    error: PiAPIError
    reason: str
    pause: float
    attempt: int
    attempts: int


@frozen(kw_only=True, eq=False, repr=False)
class LedgerWritten(Event):
    """The ledger has committed `operations` together, of all the clients that share it.

    `failed` is how many of them it could not record.
    """

    path: Path
    operations: int
    failed: int
    seconds: float


@frozen(kw_only=True, eq=False, repr=False)
class ClientShutDown(Event):
    """The client is closed: nothing will be told of its tasks any more."""


@frozen(kw_only=True, eq=False, repr=False)
class Notice(Event):
    """Something else that an operator should know, as the log has it.

    `level` is that of `logging`; `details` has what else is known, by the names of the other
    events' attributes.
    """

    level: int
    text: str
    details: Mapping[str, Any] = field(factory=dict)
