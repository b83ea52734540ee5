"""How a submit is sent exactly once, whatever happens to whoever asked for it.

The POST runs in a task of its own.  A caller that is cancelled before it has begun to leave stops it; one that is
cancelled later only stops listening: the answer is still read, and the id still reaches the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shlex
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any, Protocol, TypeVar, cast

import anyio
from attrs import define, field

from .._calls.sender import Sender
from .._calls.transport import SendState
from .._protocol.family import Attaching, Family, TaskRequest
from .._text import label
from .._verdict import Judgement, Verdict
from ..errors import (
    APIError,
    ClientClosed,
    LedgerError,
    NotFoundError,
    PiAPIError,
    SubmissionUnknown,
    TransportError,
    UnexpectedAnswer,
)
from ..ledger._entries import LedgerEntry, LedgerState, SubmissionKey
from ..ledger._writer import LedgerWriter
from ..tasks import Cost, Created, TaskId, TaskRef, TaskState

logger = logging.getLogger("piapi_async")

R = TypeVar("R")


@define
class SubmitResult:
    """The task of a submit; `known` is what the ledger knew of it before, None for a task that was made just now.

    `announced`: a webhook will tell of its end.  `frozen` is what it is expected to cost, if the answer told.
    """

    task_id: TaskId
    known: LedgerEntry | None = None
    announced: bool = False
    frozen: Cost | None = None


class Addressing(Protocol):
    """What a webhook receiver does for submits."""

    def address(self, request: TaskRequest[R], key: str, /) -> TaskRequest[R]:
        """Give the request with an endpoint of its own."""
        ...

    async def adopted(self, key: str, /) -> TaskId | None:
        """Give the task of a submit whose answer was lost, when its delivery comes; None if it does not."""
        ...

    def settled(self, key: str, /, *, accepted: bool) -> None:
        """Take note that nobody waits for the delivery of a submit any more, because it was accepted or else."""
        ...

    def give_up(self) -> None:
        """Let nobody wait for a delivery any more."""
        ...

    async def finish(self) -> None:
        """Wait for what deliveries have set going."""
        ...


@define(eq=False)
class _Flight:
    """A submit under way; `arrived` is what its caller awaits, `task_id` what the answer named."""

    request: TaskRequest[Any]
    family: Family[Any]  # the request's, asked for before it is paid for: it may be anybody's class
    key: str | None
    identity: SubmissionKey | None  # if the caller has made it already
    sending: SendState
    arrived: asyncio.Future[SubmitResult]
    task: asyncio.Task[SubmitResult | None] | None = None
    task_id: TaskId | None = None
    frozen: Cost | None = None
    ran: bool = False


class _Taken(Exception):
    """Somebody else has submitted the same key while we were waiting."""

    def __init__(self, by: SubmitResult) -> None:
        super().__init__()
        self.by = by


_REMEMBERED = 10_000


@define(eq=False)
class _KnownIds:
    """The tasks of a client's latest submissions, ten thousand at least: no two submissions share one.

    They are kept as hashes, so that no host decides how much memory they take, in two generations of which the older
    is dropped when the younger is full.
    """

    _young: set[int] = field(factory=set, init=False)
    _old: set[int] = field(factory=set, init=False)

    def has(self, task_id: TaskId) -> bool:
        """Tell whether a task is known, of whatever family: all answers of a host come by the same connections."""
        mark = hash(task_id)
        return mark in self._young or mark in self._old

    def take(self, task_id: TaskId) -> bool:
        """Note the task of a submission; tell whether it was new."""
        mark = hash(task_id)
        if mark in self._young or mark in self._old:
            return False
        if len(self._young) >= _REMEMBERED:
            self._old, self._young = self._young, set()
        self._young.add(mark)
        return True


Uploading = Callable[[Iterable[PurePath]], Awaitable[Mapping[PurePath, str]]]
"""What brings files to the host and gives their URLs."""


@define(eq=False)
class Submitter:
    """Sends the submits of one client, and owns those under way."""

    webhooks: Addressing | None = field(default=None, init=False)

    _sender: Sender
    _origin: str
    _ledger: LedgerWriter | None
    _upload: Uploading
    _under_way: set[_Flight] = field(factory=set, init=False)
    _ids: _KnownIds = field(factory=_KnownIds, init=False)

    def __len__(self) -> int:
        """Give the number of submits under way."""
        return len(self._under_way)

    @property
    def sending(self) -> bool:
        """Whether anything has begun to leave that is not answered."""
        return any(flight.sending.begun for flight in self._under_way)

    async def submit(
        self,
        request: TaskRequest[Any],
        key: str | None,
        timeout: float | None,
        identity: SubmissionKey | None = None,
    ) -> SubmitResult:
        """Give the task that the request made, or that its key has made before.  Raises as `PiAPI.submit`."""
        sending = SendState(self._sender.timeout if timeout is None else timeout)
        # What the caller awaits is a future of its own, for a task that is awaited is cancelled with whoever awaits it.
        arrived: asyncio.Future[SubmitResult] = asyncio.get_running_loop().create_future()
        flight = _Flight(request, request.family, key, identity, sending, arrived)
        self._under_way.add(flight)
        flight.task = task = asyncio.create_task(self._own(flight), name="piapi_async submit")
        if not flight.ran:  # an eager loop has made the first step already
            task.add_done_callback(self._never_ran)
        try:
            return await arrived
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):  # by `close`, not with the caller
                if sending.begun:
                    raise self._unknown(flight, "the client was closed before it was answered") from None
                raise ClientClosed(f"{label(request)}: the client was closed before it was sent") from None
            self._abandon(flight)
            if arrived.done() and not arrived.cancelled():  # it arrived in the very turn in which the caller left
                self._report(arrived.exception() or arrived.result())
            raise

    async def finish(self) -> list[TaskId]:
        """Stop what has not begun to leave, wait for the rest up to its time-out, and give the ids that arrived.

        An id that has arrived is waited for until it is recorded, however long the ledger takes.
        """
        flights = {flight.task: flight for flight in self._under_way if flight.task is not None}
        patience = max((flight.sending.timeout for flight in flights.values()), default=0.0)
        for flight in flights.values():
            self._abandon(flight)
        if self.webhooks is not None:
            self.webhooks.give_up()
        if flights:
            _, late = await asyncio.wait(flights, timeout=patience)
            for task in late:
                if flights[task].task_id is None:
                    task.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
        return [accepted.task_id for task in flights if not task.cancelled() and (accepted := task.result())]

    async def settle(self) -> None:
        """Wait until the submits whose callers have gone have arrived, no longer than their time-outs."""
        gone = {flight.task: flight.sending.timeout for flight in self._under_way if flight.sending.abandoned}
        if tasks := [task for task in gone if task is not None]:
            await asyncio.wait(tasks, timeout=max(gone.values()))

    @staticmethod
    def _abandon(flight: _Flight) -> None:
        """Let what has begun to leave arrive, and send nothing more."""
        flight.sending.abandoned = True
        if not flight.sending.begun and flight.task is not None:
            flight.task.cancel()

    async def _own(self, flight: _Flight) -> SubmitResult | None:
        """Run a submit and hand what came of it to whoever still listens; give the task, None if there is none."""
        flight.ran = True
        if flight.task is not None:
            flight.task.remove_done_callback(self._never_ran)
        accepted = None
        try:
            accepted = await self._run(flight)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            if flight.arrived.done():
                self._report(error)
            else:
                flight.arrived.set_exception(error)
        except BaseException:
            if not flight.arrived.cancel() and flight.sending.begun and flight.task_id is None:
                self._report(self._unknown(flight, "the client was closed before it was answered"))
            raise
        else:
            if flight.arrived.done():
                self._report(accepted)
            else:
                flight.arrived.set_result(accepted)
        finally:
            self._under_way.discard(flight)
        return accepted

    def _never_ran(self, task: asyncio.Task[SubmitResult | None]) -> None:
        # Only a task that is cancelled before its first step still has this callback: taken away by the step itself,
        # it spares every other submit a turn of the loop.
        for flight in [flight for flight in self._under_way if flight.task is task and not flight.ran]:
            self._under_way.discard(flight)
            flight.arrived.cancel()

    def _report(self, end: SubmitResult | BaseException) -> None:
        """Log the end of a submit whose caller has gone: nobody else is left to hear of a task that is paid for."""
        if isinstance(end, LedgerError):
            logger.error("%s", end)
        elif isinstance(end, SubmissionUnknown) or getattr(end, "ref", None) is not None:
            logger.warning("%s", end)  # a refusal that names a task is the last that is heard of it
        elif isinstance(end, SubmitResult) and self._ledger is None:
            logger.warning("a submit whose caller had gone was accepted: task %s", end.task_id)

    async def _run(self, flight: _Flight) -> SubmitResult:
        sending, ledger, request = flight.sending, self._ledger, flight.request
        if ledger is None:
            task_id = await self._send(flight)
            return SubmitResult(task_id, announced=sending.announced, frozen=flight.frozen)
        intent = flight.identity
        if intent is None:
            intent = SubmissionKey.of(request.to_http(), key=flight.key, origin=self._origin, family=flight.family.name)
        flight.key = intent.key
        try:
            known = await self._claim(ledger, intent, flight)
        except asyncio.CancelledError as error:
            await asyncio.shield(self._give_up(ledger, intent, error, sending))
            raise
        if known is not None:
            return known
        sending.aside = partial(self._aside, ledger, intent, flight)
        try:
            flight.task_id = await self._send(flight)
        except _Taken as taken:
            return taken.by
        except BaseException as error:
            told = await asyncio.shield(self._give_up(ledger, intent, error, sending))
            if told is not None and isinstance(error, SubmissionUnknown):
                return SubmitResult(told, announced=True)
            raise
        ref = TaskRef(self._origin, flight.family.name, flight.task_id)
        other = await ledger.accept(intent, ref)
        if other is not None:
            what = f"the answer names task {ref}, which the ledger has for another submission, {other!r}"
            raise self._unknown(flight, what, ref)
        return SubmitResult(flight.task_id, announced=sending.announced, frozen=flight.frozen)

    async def _claim(self, ledger: LedgerWriter, intent: SubmissionKey, flight: _Flight) -> SubmitResult | None:
        """Make the key ours and give None, or give the task that it stands for, waiting for another's submit.

        Another's is waited for as long as one of ours may take: whoever sends it may be stopped, or out of sight.
        """
        waited, pause = 0.0, 0.02
        while True:
            try:
                entry = await ledger.claim(intent)
            except LedgerError as error:
                raise LedgerError(f"{str(error).rstrip('.')}. Nothing was sent, nothing was paid.") from error
            if entry is None:
                return None
            if entry.task_id is not None:
                return SubmitResult(entry.task_id, entry)
            if entry.state is LedgerState.UNKNOWN:
                flight.sending.started_at = entry.at
                raise self._unknown(flight, "an earlier submit of this key was never answered")
            patience = flight.sending.timeout
            if waited >= patience:
                raise LedgerError(_taken(intent, entry, f"It did not end within {patience:g} s. {_ASK_AGAIN}"))
            pause = min(pause, patience - waited)
            await anyio.sleep(pause)
            if waited < _WORTH_A_WORD <= waited + pause:
                logger.warning("%s", _taken(intent, entry, f"Waiting for it, {patience:g} s at most."))
            waited += pause
            pause = min(2 * pause, 0.5)

    async def _aside(
        self, ledger: LedgerWriter, intent: SubmissionKey, flight: _Flight, wait: Callable[[], Awaitable[None]]
    ) -> None:
        """Wait without the claim: as long as nothing is under way, a process that is killed leaves no doubt behind."""
        try:
            await ledger.forget(intent)
        except LedgerError as error:
            raise LedgerError(f"{str(error).rstrip('.')}. Nothing was paid.") from error
        await wait()
        if (known := await self._claim(ledger, intent, flight)) is not None:
            raise _Taken(known)

    async def _send(self, flight: _Flight) -> TaskId:
        """Give the id of the task that the request made, by its answer or, where that is lost, by its webhook."""
        request, sending = flight.request, flight.sending
        files = cast("Attaching", request).local_files() if hasattr(request, "local_files") else ()
        links = await self._links_of(flight, files) if files else {}
        webhooks, nonce_key, addressed = self.webhooks, "", request
        if webhooks is not None:
            nonce_key = flight.key or secrets.token_hex(16)
            addressed = webhooks.address(request, nonce_key)
            sending.announced = addressed is not request
        if links:
            addressed = cast("TaskRequest[Any]", cast("Attaching", addressed).with_links(links))
        self._sender.transport.secrets.add(getattr(addressed, "webhook_secret", None))
        task_id: TaskId | None = None
        try:
            task_id = await self._make(flight, addressed, nonce_key)
        finally:
            sending.settle(reuse=False)
            if webhooks is not None:
                webhooks.settled(nonce_key, accepted=task_id is not None)
        return task_id

    async def _make(self, flight: _Flight, addressed: TaskRequest[Any], nonce_key: str) -> TaskId:
        """Return the id of the task that a request made; raise what became of it instead, by the one judgement."""
        sending = flight.sending
        try:
            answer = await self._sender.submit(addressed, sending)
        except (PiAPIError, _Taken):
            raise
        except Exception as error:  # a request class that fails does not undo what was sent
            if not sending.begun:
                raise
            return await self._lost(flight, nonce_key, error)
        if isinstance(answer, Created):
            flight.frozen, answer = answer.frozen, answer.task_id
        if not isinstance(answer, Judgement):
            if not self._ids.take(answer):
                return await self._lost(flight, nonce_key, *self._mistaken(flight, answer))
            sending.settle(reuse=True)
            return answer
        if isinstance(answer.error, APIError):
            answer.error.request = flight.request  # as the caller made it, without our secret
        if answer.named is not None:
            return await self._look_at(flight, nonce_key, answer.named, answer.error)
        if answer.verdict is Verdict.UNKNOWN:
            return await self._lost(flight, nonce_key, answer.error)
        raise answer.error

    async def _look_at(self, flight: _Flight, nonce_key: str, named: TaskId, error: PiAPIError) -> TaskId:
        """Return a task that an answer names without saying yes, if it lives; it is read once, and tells."""
        ref = TaskRef(self._origin, flight.family.name, named)
        if self._ids.has(named):
            return await self._lost(flight, nonce_key, *self._mistaken(flight, named))
        try:
            task = await self._sender.attempt(flight.family.fetch(named))
        except NotFoundError as denial:
            if not denial.message:  # an edge's page, not the host's word
                return await self._lost(flight, nonce_key, error, ref, f"; reading it failed: {denial}")
            raise _refused(error, ref, "which the host does not know: nothing was paid") from None
        except Exception as failure:  # noqa: BLE001 - a family of the user's may raise anything: the id must not be lost
            return await self._lost(flight, nonce_key, error, ref, f"; reading it failed: {failure}")
        if task.state in (TaskState.FAILED, TaskState.CANCELLED) and isinstance(error, APIError):
            raise _refused(error, ref, f"which is {task.status}{f': {task.error}' if task.error else ''}")
        if not self._ids.take(named):
            return await self._lost(flight, nonce_key, *self._mistaken(flight, named))
        return named

    def _mistaken(self, flight: _Flight, task_id: TaskId) -> tuple[PiAPIError, TaskRef]:
        """Return why an id that belongs to another submission is not this one's: the two answers were mixed up."""
        text = f"The response names task {task_id}, which belongs to another submission of this client already"
        return UnexpectedAnswer(text, path="task_id"), TaskRef(self._origin, flight.family.name, task_id)

    async def _lost(
        self, flight: _Flight, nonce_key: str, error: Exception, ref: TaskRef | None = None, also: str = ""
    ) -> TaskId:
        """Return the task of a submission whose answer leaves open what it made, if it is told of in another way.

        Everything that is *unknown* comes by here, and nowhere else; raises `SubmissionUnknown`.
        """
        task_id = await self.webhooks.adopted(nonce_key) if self.webhooks is not None else None
        if task_id is None:
            what = str(error) if isinstance(error, PiAPIError) else repr(error)
            raise self._unknown(flight, what + also, ref) from error
        self._ids.take(task_id)
        return task_id

    async def _links_of(self, flight: _Flight, files: Iterable[PurePath]) -> Mapping[PurePath, str]:
        """Upload the files that stand in a request, and give their URLs."""
        links: dict[PurePath, str] = {}

        async def upload() -> None:
            links.update(await self._upload_for(flight.request, files))

        await (upload() if flight.sending.aside is None else flight.sending.aside(upload))
        return links

    async def _upload_for(self, request: TaskRequest[Any], files: Iterable[PurePath]) -> Mapping[PurePath, str]:
        try:
            return await self._upload(files)
        except (OSError, ValueError) as error:
            text = f"{label(request)}: a file could not be uploaded: {error}. Nothing was submitted, nothing was paid."
            raise TransportError(text, sent=False) from error
        except PiAPIError as error:
            error.args = (f"{label(request)}: a file could not be uploaded: {error} Nothing was submitted.",)
            raise

    async def _give_up(
        self, ledger: LedgerWriter, intent: SubmissionKey, error: BaseException, sending: SendState
    ) -> TaskId | None:
        """Write down that a submit has failed; give its task if another process has heard of it."""
        # Once sending has begun, only an answer that was understood as a refusal says that nothing was made.
        unknown = isinstance(error, SubmissionUnknown)
        doubtful = unknown or (sending.begun and not isinstance(error, PiAPIError))
        try:
            if doubtful:
                return await ledger.mark_unknown(intent)
            await ledger.forget(intent)
        except LedgerError as failure:  # the submit's own error matters more; the row counts as unknown anyway
            logger.warning("submit %s could not be recorded: %s", intent.key, failure)
        return None

    def _unknown(self, flight: _Flight, what: str, ref: TaskRef | None = None) -> SubmissionUnknown:
        advice = "look at your account's tasks before you submit it again"
        if self._ledger is not None:
            advice += (
                ", then tell the ledger: "
                + shlex.join(["piapi-async", "ledger", "resolve", str(self._ledger.path), flight.key or ""])
                + " --task-id ID, or --resubmit if there is none"
            )
        return SubmissionUnknown(
            f"{label(flight.request)} may have been accepted: a task may exist and may have been paid for, but its id "
            f"did not arrive. It is not sent again by itself; {advice}. What happened: {what}",
            request=flight.request,
            at=flight.sending.started_at or time.time(),
            key=flight.key,
            ref=ref,
        )


_WORTH_A_WORD = 5.0  # seconds for which another's submit is waited for in silence
_ASK_AGAIN = (
    "Nothing was sent by this call, nothing was paid by it: submit the key again, which gives the same task when the "
    "other has ended"
)


def _taken(intent: SubmissionKey, entry: LedgerEntry, what: str) -> str:
    """Say that somebody else is sending the same submit."""
    age = time.time() - entry.at
    return f"The submit {intent.key!r} has been under way elsewhere for {age:.0f} s, in this process or another. {what}"


def _refused(error: PiAPIError, ref: TaskRef, what: str) -> PiAPIError:
    """Return an error that also tells of the task which the refusal names."""
    error.args = (f"{error} It names task {ref}, {what}.",)
    if isinstance(error, APIError):
        error.ref = ref
    return error
