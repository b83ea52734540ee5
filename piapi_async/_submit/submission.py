"""One submission: its states as a table, and what each of them means for the money.  Pure.

::

    QUEUED <----> CLAIMED <----> SENDING ----> ACCEPTED
                                         |---> REFUSED
                                         `---> LOOKING ----> ACCEPTED
                                                      `----> UNKNOWN ----> ACCEPTED

| step | when |
|---|---|
| QUEUED -> CLAIMED | the ledger has given it its key |
| CLAIMED -> QUEUED | it has long to wait, and lets go of the key for that time |
| CLAIMED -> SENDING | it is handed to the transport; `SendState.begun` tells whether it has begun to leave |
| SENDING -> CLAIMED | the host has put it off, or it never left: it may be sent again |
| SENDING -> ACCEPTED, REFUSED, UNKNOWN | so says the verdict on the response, or on its loss |
| SENDING -> LOOKING | the response is lost, and a delivery or the host's history may tell of its task |
| QUEUED -> LOOKING | the ledger has its key as *unknown*: the history is looked at once more |
| LOOKING -> ACCEPTED, UNKNOWN | its task was found, or not |
| LOOKING -> QUEUED | a person has allowed its key to be submitted again meanwhile |
| UNKNOWN -> ACCEPTED | another process knows its task |
| QUEUED -> ACCEPTED, UNKNOWN | so the ledger has its key already |
| QUEUED, CLAIMED -> REFUSED | it is given up before it was sent |

| state | what is certain | its row in the ledger |
|---|---|---|
| QUEUED | nothing has left | none |
| CLAIMED | nothing has left, or the host has put it off | *sending* |
| SENDING | the POST may be on its way | *sending* |
| LOOKING | a task may exist, and is looked for | *sending*, with the times at which it was sent |
| ACCEPTED | the host has named its task | *accepted* |
| REFUSED | there is no task: the host has refused it, or nothing was sent | none |
| UNKNOWN | a task may exist, and may have been paid for | *unknown* |

A process that is killed leaves the row as it is, and a row of a dead process that says *sending*
counts as *unknown*. So a submission that has long to wait goes back to QUEUED first: then a crash
leaves no doubt behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson
from attrs import define, field, frozen

from .._calls.throttle import Ticket
from .._protocol.family import Family, TaskRequest
from .._text import label
from ..errors import APIError, PiAPIError, SubmissionUnknown, TransportError
from ..ledger._entries import resolve_command
from ..policy import RetryPolicy
from ..tasks import Cost, Created, TaskId, TaskRef
from .recovery import body_as_listed, body_as_sent

if TYPE_CHECKING:
    import asyncio

    from .._calls.transport import SendState
    from ..ledger._entries import EndedAttempt, LedgerEntry
    from ..observe._emitter import Subject
    from .claim import AnyClaim
    from .deliveries import ExpectedDelivery

_NAMED = 10  # candidates that a message names


class SubmissionState(Enum):
    """How far a submission has come; see the module's text."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    SENDING = "sending"
    LOOKING = "looking"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    # States are looked up at every step; an enum's own hash is computed from its name, in Python.
    __hash__ = object.__hash__


_QUEUED, _CLAIMED, _SENDING = SubmissionState.QUEUED, SubmissionState.CLAIMED, SubmissionState.SENDING
_LOOKING = SubmissionState.LOOKING
_ACCEPTED, _REFUSED, _UNKNOWN = SubmissionState.ACCEPTED, SubmissionState.REFUSED, SubmissionState.UNKNOWN

_HAS_ROW = frozenset({_CLAIMED, _SENDING, _LOOKING, _ACCEPTED})

NEXT_STATES: Mapping[SubmissionState, frozenset[SubmissionState]] = {
    _QUEUED: frozenset({_CLAIMED, _LOOKING, _ACCEPTED, _REFUSED, _UNKNOWN}),
    _CLAIMED: frozenset({_QUEUED, _SENDING, _REFUSED}),
    _SENDING: frozenset({_CLAIMED, _LOOKING, _ACCEPTED, _REFUSED, _UNKNOWN}),
    _LOOKING: frozenset({_QUEUED, _ACCEPTED, _UNKNOWN}),
    _ACCEPTED: frozenset({_UNKNOWN}),  # the ledger has the task for another: two responses were mixed up
    _REFUSED: frozenset(),
    _UNKNOWN: frozenset({_ACCEPTED}),
}


@define  # every submission makes one, and a frozen one would take twice as long
class SubmitResult:
    """The task of a submission.

    `ledger_entry` is what the ledger knew of its key before, None for a task that was made just
    now; `has_webhook` tells that a delivery will report its end; `frozen` is what it is expected to
    cost, if the response told.  `found` tells how its task was found if the response was lost
    ("history", "webhook", "read"), "" if it was not.
    """

    task_id: TaskId
    ledger_entry: LedgerEntry | None = None
    has_webhook: bool = False
    frozen: Cost | None = None
    found: str = ""


@frozen(kw_only=True, eq=False, repr=False)
class Terms:
    """How one submission differs from the others of its client.

    `retry` takes the place of the client's policy.  `may_leave` is asked each time before it is
    sent: if it says no, nothing is sent, and the submission ends with a `TransportError`
    (``sent=False``).  `ticket` is its place in the client's rate limit, if it has waited there already.
    `replaces` is an attempt of its key in whose place it is a new one.  With
    `cancel_if_left` the task of a caller who is cancelled before it has its id is cancelled at the
    host.  `looks_again` tells whether a key that is *unknown* is looked for, and `recovers` whether
    the task of a lost response is looked for here, in deliveries and in the host's history.  `note`
    is the caller's own, as JSON, for the ledger.  Unless it `waits_if_busy` a host that puts it off
    ends it with the `RateLimitError` at once.  Where no ledger has its key,
    observers know it by `key`, and the nonce of its endpoint is made from `nonce_key`.
    """

    retry: RetryPolicy | None = None
    may_leave: Callable[[], bool] | None = None
    ticket: Ticket | None = None
    replaces: EndedAttempt | None = None
    cancel_if_left: bool = False
    looks_again: bool = True
    recovers: bool = True
    waits_if_busy: bool = True
    note: str | None = None
    key: str | None = None
    nonce_key: str | None = None


NO_TERMS = Terms()


@define(eq=False, repr=False)
class Submission:
    """One submission, from `submit` until it is accepted, refused or unknown.

    `family` is the request's: it is asked for before anything is paid, as the request may be of
    anybody's class. `timeout` is the seconds that one attempt may take, `queued_at` a unix time in
    seconds.  The caller awaits `result`; `task` runs it, and `has_run` tells whether that has made
    its first step.
    """

    request: TaskRequest[Any]
    family: Family[Any]
    timeout: float
    queued_at: float
    claim: AnyClaim
    send_state: SendState
    result: asyncio.Future[SubmitResult]
    terms: Terms = NO_TERMS
    task: asyncio.Task[SubmitResult | None] | None = None
    has_run: bool = False
    subject: Subject | None = None  # what observers know it by
    state: SubmissionState = field(default=SubmissionState.QUEUED, init=False)
    task_id: TaskId | None = field(default=None, init=False)
    frozen: Cost | None = field(default=None, init=False)
    expected: ExpectedDelivery | None = field(default=None, init=False)
    addressed: TaskRequest[Any] | None = field(default=None, init=False)
    """The request as it is sent: with its webhook endpoint, and links in the place of files."""
    has_links: bool = field(default=False, init=False)
    """Whether links stand in the place of its files by now."""
    refused_id: TaskId | None = field(default=None, init=False)
    named: TaskRef | None = field(default=None, init=False)
    """The task that its response names, while it is not certain whether that is its own."""
    """The task that its refusal has named: not its own, and of no later submission."""
    found: str = field(default="", init=False)
    """How its task was found if the response was lost."""
    recorded: bool = field(default=False, init=False)
    """Whether its task is in the ledger already."""
    _body: dict[str, Any] | None = field(default=None, init=False)

    @property
    def row(self) -> tuple[str, str] | None:
        """The owner and the key of the ledger's row that is its own, None while it has none.

        One that waits for its key has not: the row is that of the one who is sending the key, maybe
        in another process.
        """
        if self.state in _HAS_ROW and self.claim.may_be_held:
            return self.claim.row
        return None

    def body(self) -> dict[str, Any]:
        """Return its body as it was sent, for comparison with tasks; {} if it is no JSON object."""
        if self._body is None:
            self._body = {}
            with contextlib.suppress(Exception):  # a request may be of anybody's class
                body = orjson.loads((self.addressed or self.request).to_http().body)
                if self.family.listed_as:
                    self._body = body_as_listed(body, self.family.listed_as)
                else:
                    self._body = body_as_sent(body)
        return self._body

    def enter(self, state: SubmissionState) -> None:
        """Go on to a state.  Raises `RuntimeError` where the table has no such step."""
        if state not in NEXT_STATES[self.state]:
            raise RuntimeError(
                f"{label(self.request)}: a submission that is {self.state.value} cannot be {state.value}"
            )
        self.state = state

    def check_leave(self) -> None:
        """Raise `TransportError` if its terms do not allow it to be sent any more."""
        may_leave = self.terms.may_leave
        if may_leave is None or may_leave():
            return
        raise TransportError(
            f"{label(self.request)} was not sent: it may not leave any more, as too much time has passed. "
            "Nothing was paid; submit it again.",
            sent=False,
        )

    def put_off(self) -> None:
        """Note that the host has refused what was sent for now, so that nothing is on its way."""
        self.enter(SubmissionState.CLAIMED)
        self.send_state.started_at = None

    def take_in(self, answer: TaskId | Created) -> TaskId:
        """Note what an acceptance says of the price; return the task that it names."""
        if not isinstance(answer, Created):
            return answer
        self.frozen = answer.frozen
        return answer.task_id

    def accept(self, task_id: TaskId) -> None:
        """Note the task that the host has named for it."""
        self.enter(SubmissionState.ACCEPTED)
        self.task_id = task_id

    def fail(self, error: BaseException) -> SubmissionState:
        """Enter and return the state in which an error ends it.

        Once sending has begun, only an answer that is understood as a refusal says that nothing was
        made.
        """
        not_understood = not isinstance(error, PiAPIError)
        is_open = isinstance(error, SubmissionUnknown) or self.state is SubmissionState.LOOKING
        if is_open or (self.send_state.begun and not_understood):
            self.enter(SubmissionState.UNKNOWN)
        else:
            self.enter(SubmissionState.REFUSED)
        return self.state

    def unknown(
        self,
        what: str,
        *,
        ref: TaskRef | None = None,
        at: float | None = None,
        candidates: tuple[TaskRef, ...] = (),
        trouble: str = "",
    ) -> SubmissionUnknown:
        """Return the error that says so: what happened, and what to do.

        `at` is the unix time at which sending began, if it was not begun here; `candidates` are
        tasks that fit it and are too many; `trouble` is why its task was not looked for.
        """
        advice = "look at your account's tasks before you submit it again"
        path = self.claim.ledger_path
        if path is not None:
            command = resolve_command(path, self.claim.key or "")
            advice += f", then tell the ledger: {command} --task-id ID, or --resubmit if there is none"

        if candidates:
            ids = ", ".join(map(str, candidates[:_NAMED]))
            what += f"; {len(candidates)} tasks in the host's history fit it, too many to tell which is its own: {ids}"

        if trouble:
            what += f"; its task could not be looked for: {trouble}"

        which = "its id did not arrive"
        ref = ref or self.named
        if ref is not None:
            which = f"it is not certain to be task {ref}, which the response names"
        return SubmissionUnknown(
            f"{label(self.request)} may have been accepted: a task may exist and may have been paid for, "
            f"but {which}. It will not be retried automatically; {advice}. "
            f"What happened: {what}",
            request=self.request,
            at=at or self.send_state.started_at or self.queued_at,
            key=self.claim.key,
            ref=ref,
            candidates=candidates,
        )


def refusal_naming(error: PiAPIError, ref: TaskRef, what: str) -> PiAPIError:
    """Return a refusal that also names a task, and says what became of it."""
    error.args = (f"{error} It names task {ref}, {what}.",)
    if isinstance(error, APIError):
        error.ref = ref
    return error
