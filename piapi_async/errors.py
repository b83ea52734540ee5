"""Everything that can go wrong, by what the caller can do about it.

::

    PiAPIError
    ├── TransportError         no response; .sent False: never left, True: may have arrived
    ├── APIError               the server refused: .status, .message, .body, .request
    │   ├── AuthenticationError    401, 403: the key
    │   ├── InvalidRequestError    400, 422: the values
    │   ├── InsufficientCreditError  402, or a message about money: buy credit first
    │   ├── NotFoundError          no such task on this host
    │   ├── ParentOutdatedError    the parent task is too old to derive from
    │   ├── RateLimitError         slow down; .retry_after seconds or None
    │   └── ServerError            5xx
    ├── UnexpectedAnswer       answered, but not understood: .path inside the JSON, .excerpt
    ├── SubmissionUnknown      may have been accepted and paid: .request, .key, .at, .ref
    ├── TaskFailed             the task ended without a result: .task
    ├── TaskCancelled          the task was cancelled: .task
    ├── WaitTimeout            we stopped waiting, the task goes on: .ref or .refs, .task
    ├── ClientClosed           the client was closed under a call
    ├── LedgerError            the ledger file cannot be used: .ref of a task it could not record
    ├── WebhookRejected        a delivery that is not accepted
    └── DownloadError          a finished result could not be saved: .url, .path, .status

Beside them there is `KeyReused`, a `ValueError`: the ledger has the key for another request.

Each class takes its message as the one positional argument and keeps the rest as attributes.  All
of them pickle.  `str(error)` is for operators: it names ids, files and commands.  `error.reason` is
for those who use what you build, in a chat say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ._text import plain, shorten
from .tasks import TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._http import Request
    from .tasks import Task, TaskRef


def _rebuild(cls: type[PiAPIError], args: tuple[Any, ...]) -> PiAPIError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError, and so WaitTimeout, leaves this to __init__
    return error


class PiAPIError(Exception):
    """The base of every error that this package raises by itself."""

    _for_users: ClassVar[str] = "Something went wrong."
    """What an end user is told if the host has said nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def reason(self) -> str:
        """What happened in a sentence for end users: the host's own words, if it has said any.

        It holds no ids, links, paths or commands, and no more than 300 characters.
        """
        return plain(self._words_of_the_host()) or self._for_users

    def _words_of_the_host(self) -> str:
        return ""

    def __reduce__(self) -> tuple[Any, ...]:
        # The inherited way calls `cls(*args)`, which cannot fill keyword-only attributes.
        return _rebuild, (type(self), self.args), self.__dict__


class TransportError(PiAPIError):
    """No response came.

    `sent` is False if the request certainly never left this machine, True if it may have arrived.
    `untrusted` says that the server's certificate is not trusted here, which no retry mends.
    """

    _for_users = "The service could not be reached."

    def __init__(self, message: str, *, sent: bool, untrusted: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.untrusted = untrusted


class APIError(PiAPIError):
    """The server refused.

    `status` is the HTTP status; `message` the server's own text ("" if the body was not PiAPI's
    JSON); `body` an excerpt of the body; `request` the request as the caller made it, or None (that
    of a refused upload holds the file's bytes, which its repr leaves out).  `ref` is the task that
    a refused create names nevertheless, because it has failed or is unknown to the host; else None.
    """

    _for_users = "The service refused the request."

    def __init__(
        self,
        text: str,
        *,
        status: int,
        message: str = "",
        body: str = "",
        request: Request[Any] | None = None,
        ref: TaskRef | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.message = message
        self.body = body
        self.request = request
        self.ref = ref

    def _words_of_the_host(self) -> str:
        return self.message


class AuthenticationError(APIError):
    """The API key is missing, wrong, or not allowed to do this."""

    _for_users = "The service does not accept this account."


class InvalidRequestError(APIError):
    """The server does not accept the values of the request; nothing was made."""


class InsufficientCreditError(APIError):
    """The account lacks credit: HTTP 402, or a refusal that speaks of money.  Nothing was paid."""

    _for_users = "The account has no credit left."


class NotFoundError(APIError):
    """The host does not know the task.  `status` is the HTTP status that it came with, often 400."""

    _for_users = "The service does not know this task."


class ParentOutdatedError(APIError):
    """The parent task is too old to derive from: submit its `Imagine` again and derive from that."""

    _for_users = "The picture is too old for this; make it again first."


class RateLimitError(APIError):
    """Too many requests, or no free bot; `retry_after` is what the server asked for in seconds."""

    _for_users = "The service is busy; try again later."

    def __init__(
        self,
        text: str,
        *,
        status: int,
        message: str = "",
        body: str = "",
        request: Request[Any] | None = None,
        ref: TaskRef | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status=status, message=message, body=body, request=request, ref=ref)
        self.retry_after = retry_after


class ServerError(APIError):
    """The server failed (5xx)."""

    _for_users = "The service has a fault; try again later."


class UnexpectedAnswer(PiAPIError):
    """The server's response is not understood.

    `path` is the place inside the JSON (`task_result.image_urls[2]`, "" for the whole), `excerpt`
    what stood there.
    """

    _for_users = "The service gave an answer that could not be understood."

    def __init__(self, message: str, *, path: str = "", excerpt: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.excerpt = excerpt


class SubmissionUnknown(PiAPIError):
    """A submission that may have been accepted, and paid, and must not be repeated blindly.

    `request` is what was submitted, `key` its ledger key (None without a ledger), `at` the unix
    time in seconds at which sending began; `ref` is the task that the response names, if it could
    not be read or belongs to another submission, else None; `candidates` are tasks of the host's
    history that fit it, if they are more than the submissions that lost theirs; `__cause__` is the
    error that left the outcome open.
    """

    _for_users = "It is not certain whether the request was accepted."

    def __init__(
        self,
        message: str,
        *,
        request: Request[Any],
        at: float,
        key: str | None = None,
        ref: TaskRef | None = None,
        candidates: Sequence[TaskRef] = (),
    ) -> None:
        super().__init__(message)
        self.request = request
        self.key = key
        self.at = at
        self.ref = ref
        self.candidates = tuple(candidates)


class _TaskEnded(PiAPIError):
    def __init__(self, message: str, *, task: Task[Any]) -> None:
        super().__init__(message)
        self.task = task

    def _words_of_the_host(self) -> str:
        return self.task.error


class TaskFailed(_TaskEnded):
    """The task ended without a result; `task.error` has the server's reasons."""

    _for_users = "The task failed, and the service gives no reason."


class TaskCancelled(_TaskEnded):
    """The task was cancelled before it started."""

    _for_users = "The task was cancelled."


class WaitTimeout(PiAPIError, TimeoutError):
    """We stopped waiting; the task itself goes on and stays paid for.

    It is a `TimeoutError`, too.  `ref` is the task of a single wait (else None), `refs` all tasks
    that had not ended, `task` the last observation of a single task.  Resume with
    `piapi.attach(error.ref).wait()`.
    """

    _for_users = "It takes longer than expected, and goes on."

    def __init__(
        self,
        message: str,
        *,
        ref: TaskRef | None = None,
        refs: Sequence[TaskRef] = (),
        task: Task[Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.ref = ref
        self.refs: tuple[TaskRef, ...] = tuple(refs)
        if ref is not None and not refs:
            self.refs = (ref,)
        self.task = task


class ClientClosed(PiAPIError):
    """The client was closed, before the call or under it.  Tasks at the server go on."""

    _for_users = "The service is being restarted; try again later."


class LedgerError(PiAPIError):
    """The ledger cannot be used; `ref` is a task that was accepted but could not be recorded."""

    _for_users = "The request could not be recorded."

    def __init__(self, message: str, *, ref: TaskRef | None = None) -> None:
        super().__init__(message)
        self.ref = ref


class WebhookRejected(PiAPIError):
    """A webhook delivery that is not genuine, or not readable."""

    _for_users = "The delivery was refused."


class DownloadError(PiAPIError):
    """A finished result could not be saved; the task is done and stays paid for.

    `url` is the link, `path` where the file should have gone, `status` the HTTP status of its host
    or None; `task` is the task, and `files` those of its files that were saved nevertheless.
    """

    _for_users = "The result is ready, but could not be saved."

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        path: Path | str | None = None,
        status: int | None = None,
        task: Task[Any] | None = None,
        files: Sequence[Path | str] = (),
    ) -> None:
        super().__init__(message)
        self.url = url
        self.path = path
        self.status = status
        self.task = task
        self.files = tuple(files)

    @property
    def reason(self) -> str:
        """What happened, for end users; that a result is ready is said only if there is one."""
        if self.task is None and not self.url:  # found out before anything was submitted, say
            return "Results cannot be saved at the moment."
        return self._for_users


class KeyReused(ValueError):
    """The ledger has the key for another request.  Nothing was sent, nothing was paid.

    `str(error)` shows the other request, so end users get `reason` here, too.
    """

    reason: ClassVar[str] = "This key stands for another request."


def end_error(task: Task[Any]) -> TaskFailed | TaskCancelled | None:
    """Return what to raise for a task that ended without a result, None for any other."""
    if task.state is TaskState.FAILED:
        reason = shorten(task.error) or "the host gives no reason"
        return TaskFailed(f"Task {task.task_id} failed: {reason}.", task=task)
    if task.state is TaskState.CANCELLED:
        return TaskCancelled(f"Task {task.task_id} was cancelled.", task=task)
    return None
