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
from pathlib import PurePath
from typing import Any, Protocol, TypeVar, cast

import anyio
from attrs import define, field, frozen

from ._caller import Caller
from ._ledger_file import Intent, LedgerEntry, LedgerState
from ._transport import Sending
from ._wire import Attaching, TaskRequest, Verdict, judge_submit, label
from .errors import APIError, ClientClosed, LedgerError, PiAPIError, SubmissionUnknown, TransportError
from .ledger import Ledger
from .tasks import TaskId, TaskRef

logger = logging.getLogger("piapi_async")

R = TypeVar("R")


@frozen
class Accepted:
    """The task of a submit; `known` is what the ledger knew of it before, None for a task that was made just now.

    `announced`: a webhook will tell of its end.
    """

    task_id: TaskId
    known: LedgerEntry | None = None
    announced: bool = False


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

    def came_early(self, task_id: TaskId, /) -> bool:
        """Tell, once, whether the end of a task was delivered while nobody waited for it."""
        ...


@frozen(eq=False)
class _Flight:
    """A submit under way: what has left of it, and the future that its caller awaits."""

    sending: Sending
    arrived: asyncio.Future[Accepted]


Uploading = Callable[[Iterable[PurePath]], Awaitable[Mapping[PurePath, str]]]
"""What brings files to the host and gives their URLs."""


@define(eq=False)
class Submitter:
    """Sends the submits of one client, and owns those under way."""

    webhooks: Addressing | None = field(default=None, init=False)

    _caller: Caller
    _origin: str
    _ledger: Ledger | None
    _upload: Uploading
    _under_way: dict[asyncio.Task[Accepted | None], _Flight] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Give the number of submits under way."""
        return len(self._under_way)

    @property
    def sending(self) -> bool:
        """Whether anything has begun to leave that is not answered."""
        return any(flight.sending.begun for flight in self._under_way.values())

    async def submit(self, request: TaskRequest[Any], key: str | None, timeout: float | None) -> Accepted:
        """Give the task that the request made, or that its key has made before.  Raises as `PiAPI.submit`."""
        sending = Sending(self._caller.timeout if timeout is None else timeout)
        # What the caller awaits is a future of its own, for a task that is awaited is cancelled with whoever awaits it.
        arrived: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        flight = _Flight(sending, arrived)
        task = asyncio.create_task(self._own(request, key, flight), name="piapi_async submit")
        self._under_way[task] = flight
        task.add_done_callback(self._never_ran)
        try:
            return await arrived
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):  # by `close`, not with the caller
                if sending.begun:
                    raise self._unknown(request, key, sending, "the client was closed before it was answered") from None
                raise ClientClosed(f"{label(request)}: the client was closed before it was sent") from None
            self._abandon(task, sending)
            if arrived.done() and not arrived.cancelled():  # it arrived in the very turn in which the caller left
                self._report(arrived.exception() or arrived.result())
            raise

    async def finish(self) -> list[TaskId]:
        """Stop what has not begun to leave, wait for the rest up to its time-out, and give the ids that arrived."""
        tasks = list(self._under_way)
        patience = max((flight.sending.timeout for flight in self._under_way.values()), default=0.0)
        for task, flight in self._under_way.items():
            self._abandon(task, flight.sending)
        if self.webhooks is not None:
            self.webhooks.give_up()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [accepted.task_id for task in tasks if not task.cancelled() and (accepted := task.result())]

    async def settle(self) -> None:
        """Wait until the submits whose callers have gone have arrived, no longer than their time-outs."""
        gone = {task: flight.sending.timeout for task, flight in self._under_way.items() if flight.sending.abandoned}
        if gone:
            await asyncio.wait(gone, timeout=max(gone.values()))

    @staticmethod
    def _abandon(task: asyncio.Task[Accepted | None], sending: Sending) -> None:
        """Let what has begun to leave arrive, and send nothing more."""
        sending.abandoned = True
        if not sending.begun:
            task.cancel()

    async def _own(self, request: TaskRequest[Any], key: str | None, flight: _Flight) -> Accepted | None:
        """Run a submit and hand what came of it to whoever still listens; give the task, None if there is none."""
        task = cast("asyncio.Task[Accepted | None]", asyncio.current_task())
        task.remove_done_callback(self._never_ran)
        accepted = None
        try:
            accepted = await self._run(request, key, flight.sending)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            if flight.arrived.done():
                self._report(error)
            else:
                flight.arrived.set_exception(error)
        except BaseException:
            flight.arrived.cancel()
            raise
        else:
            if flight.arrived.done():
                self._report(accepted)
            else:
                flight.arrived.set_result(accepted)
        finally:
            del self._under_way[task]
        return accepted

    def _never_ran(self, task: asyncio.Task[Accepted | None]) -> None:
        # Only a task that is cancelled before its first step still has this callback: taken away by the step itself,
        # it spares every other submit a turn of the loop.
        self._under_way.pop(task).arrived.cancel()

    def _report(self, end: Accepted | BaseException) -> None:
        """Log the end of a submit whose caller has gone: nobody else is left to hear of a task that is paid for."""
        if isinstance(end, LedgerError):
            logger.error("%s", end)
        elif isinstance(end, Accepted) and self._ledger is None:
            logger.warning("a submit whose caller had gone was accepted: task %s", end.task_id)

    async def _run(self, request: TaskRequest[Any], key: str | None, sending: Sending) -> Accepted:
        if self._ledger is None:
            task_id = await self._send(request, key, sending)
            return Accepted(task_id, announced=sending.announced)
        intent = Intent.of(request.to_http(), key=key, origin=self._origin, family=request.family.name)
        try:
            if (known := await self._claim(self._ledger, intent, request)) is not None:
                return known
        except LedgerError as error:
            raise LedgerError(f"{error} Nothing was sent, nothing was paid.") from error
        except asyncio.CancelledError as error:
            await asyncio.shield(self._give_up(self._ledger, intent, error, sending))
            raise
        try:
            task_id = await self._send(request, intent.key, sending)
        except BaseException as error:
            await asyncio.shield(self._give_up(self._ledger, intent, error, sending))
            raise
        await self._ledger.accept(intent, TaskRef(self._origin, request.family.name, task_id))
        return Accepted(task_id, announced=sending.announced)

    async def _claim(self, ledger: Ledger, intent: Intent, request: TaskRequest[Any]) -> Accepted | None:
        """Make the key ours and give None, or give the task that it stands for, waiting for another's submit."""
        pause = 0.02
        while (entry := await ledger.claim(intent)) is not None:
            if entry.task_id is not None:
                return Accepted(entry.task_id, entry)
            if entry.state is LedgerState.UNKNOWN:
                raise self._unknown(
                    request, intent.key, Sending(begun_at=entry.at), "an earlier submit of this key was never answered"
                )
            await anyio.sleep(pause)
            pause = min(2 * pause, 0.5)
        return None

    async def _send(self, request: TaskRequest[Any], key: str | None, sending: Sending) -> TaskId:
        """Give the id of the task that the request made, by its answer or, where that is lost, by its webhook."""
        files = cast("Attaching", request).local_files() if hasattr(request, "local_files") else ()
        links = await self._upload_for(request, files) if files else {}
        webhooks, nonce_key, addressed = self.webhooks, "", request
        if webhooks is not None:
            nonce_key = key or secrets.token_hex(16)
            addressed = webhooks.address(request, nonce_key)
            sending.announced = addressed is not request
        if links:
            addressed = cast("TaskRequest[Any]", cast("Attaching", addressed).with_links(links))
        task_id: TaskId | None = None
        try:
            task_id = await self._caller.call(
                addressed, judge_submit, timeout=sending.timeout, sending=sending, submit=True
            )
        except Exception as error:
            if isinstance(error, APIError):
                error.request = request  # as the caller made it, without our secret
            if not _leaves_open(error, sending):
                raise
            task_id = await webhooks.adopted(nonce_key) if webhooks is not None else None
            if task_id is None:
                what = str(error) if isinstance(error, PiAPIError) else repr(error)
                raise self._unknown(request, key, sending, what) from error
        finally:
            if webhooks is not None:
                webhooks.settled(nonce_key, accepted=task_id is not None)
        return task_id

    async def _upload_for(self, request: TaskRequest[Any], files: Iterable[PurePath]) -> Mapping[PurePath, str]:
        """Upload the files that stand in a request, and give their URLs."""
        try:
            return await self._upload(files)
        except (OSError, ValueError) as error:
            text = f"{label(request)}: a file could not be uploaded: {error}. Nothing was submitted, nothing was paid."
            raise TransportError(text, sent=False) from error
        except PiAPIError as error:
            error.args = (f"{label(request)}: a file could not be uploaded: {error} Nothing was submitted.",)
            raise

    async def _give_up(self, ledger: Ledger, intent: Intent, error: BaseException, sending: Sending) -> None:
        # Once sending has begun, only an answer that was understood as a refusal says that nothing was made.
        unknown = isinstance(error, SubmissionUnknown)
        doubtful = unknown or (sending.begun and not isinstance(error, PiAPIError))
        try:
            await (ledger.doubt(intent) if doubtful else ledger.release(intent))
        except LedgerError as failure:  # the submit's own error matters more; the row counts as unknown anyway
            logger.warning("submit %s could not be recorded: %s", intent.key, failure)

    def _unknown(self, request: TaskRequest[Any], key: str | None, sending: Sending, what: str) -> SubmissionUnknown:
        advice = "look at your account's tasks before you submit it again"
        if self._ledger is not None:
            advice += (
                ", then tell the ledger: "
                + shlex.join(["piapi-async", "ledger", "resolve", str(self._ledger.path), key or ""])
                + " --task-id ID, or --resubmit if there is none"
            )
        return SubmissionUnknown(
            f"{label(request)} may have been accepted: a task may exist and may have been paid for, but its id did not "
            f"arrive. It is not sent again by itself; {advice}. What happened: {what}",
            request=request,
            at=sending.begun_at or time.time(),
            key=key,
        )


def _leaves_open(error: Exception, sending: Sending) -> bool:
    """Tell whether a submit that ended so may have made a task.

    A request class that fails on its own answer does not undo what was sent.
    """
    if isinstance(error, PiAPIError):
        return judge_submit(error) is Verdict.UNKNOWN
    return sending.begun
