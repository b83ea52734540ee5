"""What happens to one item, whoever dies meanwhile.

Theory of operation
-------------------
An item is a workflow of the engine: what its steps return is recorded, so that the worker that takes
it over goes on behind the last one.

::

    intend   a token is minted, and recorded
    send     one POST, if this very process has minted the token; else "unknown": another may have
             sent it.  What has never left, or was put off, is repeated from the top after a pause
    look     an unknown one is looked for: in the answers of workers that were given up but lived on,
             in the host's history, in webhook deliveries
    wait     no step: its outcome is the item's own

The engine runs workflows in an event loop of its own; everything that touches the client runs at
home, in the loop of the `Worker`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from random import Random
from typing import Any, TypeVar

from attrs import define, field
from dbos import DBOS

from .._calls.threads import in_thread
from .._calls.throttle import Ticket
from .._families import FAMILIES
from .._runtime import Runtime
from .._submit.recovery import digest_text
from .._submit.submission import Terms
from .._verdict import may_pass
from ..downloads._saver import Downloads
from ..errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    DownloadError,
    InsufficientCreditError,
    PiAPIError,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TransportError,
)
from ..handle import TaskHandle
from ..policy import RetryPolicy
from ..tasks import Task, TaskRef, with_files
from . import _codec as codec
from . import _jobs as jobs
from ._codec import RecordedRequest, decode_request, encode_error, encode_outcome
from ._database import NOBODY, Database, KeyNote
from ._intents import Intents, Permit
from ._keys import item_of, key_of, nonce_key_of
from ._looking import Lookout
from ._persistence import Persistence

T = TypeVar("T")
Json = dict[str, Any]

_ONCE = RetryPolicy.never()
_ENDED = {TaskFailed: codec.FAILED, TaskCancelled: codec.CANCELLED}


@define(eq=False)
class Work:
    """What one worker does with items; `give_up` is told what no item can be worked on with."""

    runtime: Runtime
    database: Database
    persistence: Persistence
    intents: Intents
    lookout: Lookout
    downloads: Downloads | None
    give_up: Callable[[PiAPIError], None]
    home: asyncio.AbstractEventLoop
    draining: asyncio.Event = field(factory=asyncio.Event)
    held: dict[str, TaskHandle[Any]] = field(factory=dict, init=False)
    """The tasks that are waited for, by their items."""
    sending: set[str] = field(factory=set, init=False)
    """Items between the mint of a token and the record of what became of it."""
    tickets: dict[str, Ticket] = field(factory=dict, init=False)
    """The turns of items in the client's rate limit."""
    unwanted: set[str] = field(factory=set, init=False)
    """Items that somebody wants cancelled, by the last look."""
    _rng: Random = field(factory=Random, init=False)

    # -- the workflow, in the engine's loop -------------------------------------------------------

    async def process(self, item: str, payload: Mapping[str, Any]) -> Json:
        """Return the outcome of an item."""
        request = decode_request(payload["request"])
        if payload.get("ref") is not None:
            got: Json = {"ref": payload["ref"]}
        else:
            got = await self._submitted(item, request, payload["digest"])

        outcome = await self._at_home(self._conclude(item, request, got))
        if outcome["state"] != codec.DONE:
            key, attempt = key_of(item)
            note = KeyNote(key, attempt, outcome["state"], payload["digest"])
            note_end = partial(self.database.note_end, note)
            await self.persistence.in_thread(note_end, f"the end of {key}", key=key)
        return outcome

    async def _submitted(self, item: str, request: RecordedRequest, digest: str) -> Json:
        """Return the task of an item as ``{"ref": …}``, or why there is none."""
        tries = 0
        began: float | None = None
        while True:
            await self._at_home(self._unless_draining(item))
            try:
                intent: Json = await DBOS.run_step_async({"name": "intend"}, self._intend, item, request)
                began = began or intent["at"]
                send = partial(self._send, item, request, intent, tries, began)
                got: Json = await DBOS.run_step_async({"name": "send"}, self._at_home_step, send)
            finally:
                self.home.call_soon_threadsafe(self._is_sent, item)

            if "later" in got:
                tries += 1
                if got.get("late"):  # it has waited here for its turn, and the host was not asked
                    tries, began = 0, None
                await DBOS.sleep_async(got["later"])
                continue
            if "unknown" in got:
                look = partial(self.lookout.look, item, request, intent, got["unknown"], digest)
                return await DBOS.run_step_async({"name": "look"}, self._at_home_step, look)
            return got

    async def _intend(self, item: str, request: RecordedRequest) -> Json:
        about = await self._at_home(self._about(item, request))
        return {"token": self.intents.mint(), "at": time.time(), **about}

    async def _about(self, item: str, request: RecordedRequest) -> Json:
        """Return by what the task of an item can be found, should the response be lost."""
        correlation = self.runtime.correlation
        seconds = correlation.patience(request)
        endpoint = None
        if seconds:
            endpoint = digest_text(correlation.endpoint_of(request, nonce_key_of(item)) or "")
        return {
            "offset": self.runtime.sender.clock.offset(),
            "hook": {"seconds": seconds, "endpoint": endpoint},
        }

    async def _at_home_step(self, work: Callable[[], Coroutine[Any, Any, Json]]) -> Json:
        return await self._at_home(work())

    async def _at_home(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns in the worker's own loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.home))

    # -- at home ----------------------------------------------------------------------------------

    async def _unless_draining(self, item: str) -> None:
        """Begin a submission when it is its turn, or wait to be stopped if the worker is leaving.

        The client's rate limit is waited for here, as a token is good for half a lease only.
        """
        throttle = self.runtime.sender.throttle
        ticket = throttle.ticket()
        try:
            while seconds := ticket.seconds_to_wait():
                await throttle.sleep(seconds)
        except ClientClosed:
            await _for_ever()
        if self.draining.is_set():
            await _for_ever()
        self.sending.add(item)
        self.tickets[item] = ticket

    def _is_sent(self, item: str) -> None:
        self.sending.discard(item)
        self.tickets.pop(item, None)

    async def _send(
        self, item: str, request: RecordedRequest, intent: Json, tries: int, began: float
    ) -> Json:
        """Return what came of one POST."""
        permit = self.intents.take(intent["token"])
        if permit is None:
            error = SubmissionUnknown(
                f"{item} may have been accepted: the worker that was to send it was lost before "
                "it had written down what came of it. It will not be retried automatically",
                request=request,
                at=intent["at"],
                key=key_of(item)[0],
            )
            return {"unknown": encode_error(error), "lost": True}

        instead = await self._instead(item)
        if instead is not None:
            return instead
        try:
            watch, _ = await self.runtime.submit(request, None, None, terms=self._terms(item, permit))
        except Exception as error:  # noqa: BLE001 - a request that cannot be sent, say: nothing has left
            await self._keep_refused(error)
            if isinstance(error, TransportError) and not error.sent and not permit.holds():
                self._tell_late(item)
                return {"later": 0.0, "late": True}
            return self._not_accepted(item, error, tries, began)

        ref = TaskRef(self.runtime.origin, request.family.name, watch.task_id)
        if await self._take(ref, item):
            return {"ref": codec.encode_ref(ref)}

        other = f"{item}: the response names task {ref}, which belongs to another submission of this fleet"
        mixed_up = SubmissionUnknown(other, request=request, at=intent["at"], key=key_of(item)[0], ref=ref)
        return {"unknown": encode_error(mixed_up)}

    def _tell_late(self, item: str) -> None:
        key = key_of(item)[0]
        text = f"{key} was not sent: since its token was recorded too much time had passed. It is tried again"
        self.runtime.events.notice(logging.WARNING, text, key=key)

    async def _instead(self, item: str) -> Json | None:
        """Return what makes a POST needless: it is not wanted any more, or an attempt of its key has made a task.

        The latter becomes known of a late answer, after a person has said that it made none.
        """
        key, attempt = key_of(item)
        if item in self.unwanted:
            error = PiAPIError(f"{key} was cancelled before it was submitted; nothing was paid.")
            return {"cancelled": encode_error(error)}
        if attempt == 1:
            return None

        look = partial(self.database.task_of_any, [item_of(key, number) for number in range(1, attempt + 1)])
        known = await self.persistence.in_thread(look, f"attempt {attempt} of {key}", key=key)
        if known is None:
            return None
        ref, owner = known
        move = partial(self.database.move_task, ref, owner, item)
        if not await self.persistence.in_thread(move, f"task {ref} of {item}", key=key):
            return None
        return {"ref": codec.encode_ref(ref)}

    async def _take(self, ref: TaskRef, item: str, *, found: bool = False) -> bool:
        """Return whether a task that a response has named is this item's."""
        take = partial(self.database.take_task, ref, item, found=found)
        key = key_of(item)[0] if item else None
        return await self.persistence.in_thread(take, f"task {ref}", key=key, task_id=ref.task_id)

    async def _keep_refused(self, error: Exception) -> None:
        """Write down as nobody's the task that a refusal has named.

        It was made with the inputs and the nonce of the key's next submission.  So no worker may find it
        for that one; only a response can give it away.
        """
        if isinstance(error, APIError) and error.ref is not None:
            await self._take(error.ref, NOBODY, found=True)

    def _terms(self, item: str, permit: Permit) -> Terms:
        """Return the terms of one POST: what follows from its end is decided, and recorded, here."""
        return Terms(
            retry=_ONCE,
            may_leave=permit.holds,
            ticket=self.tickets.get(item),
            recovers=False,
            key=key_of(item)[0],
            nonce_key=nonce_key_of(item),
        )

    def _not_accepted(self, item: str, error: Exception, tries: int, began: float) -> Json:
        """Return what follows from an error: it is unknown, repeated later, or over."""
        match error:
            case SubmissionUnknown():
                error.key = key_of(item)[0]
                return {"unknown": encode_error(error)}
            case AuthenticationError() | InsufficientCreditError():
                self.give_up(error)  # the next worker may have another key, or credit by then
                return {"later": 1.0}
            case ClientClosed():
                return {"later": 0.0}
            case PiAPIError():
                return self._refused(error, tries, began)
        return {"refused": encode_error(error)}

    def _refused(self, error: PiAPIError, tries: int, began: float) -> Json:
        """Return that a submission which made nothing is repeated later, or is over."""
        if may_pass(error):
            policy = self.runtime.sender.retry
            elapsed = max(0.0, time.time() - began)
            retry_after = getattr(error, "retry_after", None)
            pause = policy.delay(tries + 1, elapsed=elapsed, retry_after=retry_after, rng=self._rng)
            if pause is not None:
                return {"later": pause}
        return {"refused": encode_error(error)}

    async def _conclude(self, item: str, request: RecordedRequest, got: Json) -> Json:
        """Return the outcome of what was submitted: wait for its task, and save its files."""
        if "refused" in got:
            return encode_outcome(codec.REFUSED, error=got["refused"])
        if "cancelled" in got:
            return encode_outcome(codec.CANCELLED, error=got["cancelled"])
        if "unknown" in got:
            return encode_outcome(codec.UNKNOWN, error=got["unknown"])

        ref = codec.decode_ref(got["ref"])
        outcome = await self._awaited(item, request, ref)
        if got.get("found") and await self._is_lost(item):
            text = (
                f"{item} is unknown again: task {ref}, which was found for it, is another's by its "
                "own response"
            )
            lost = SubmissionUnknown(text, request=request, at=time.time(), key=key_of(item)[0])
            return encode_outcome(codec.UNKNOWN, error=lost)
        return outcome

    async def _is_lost(self, item: str) -> bool:
        """Return whether the task that was found for an item has turned out to be another's."""
        look = partial(self.database.task_of, item)
        return await self.persistence.in_thread(look, f"the end of {item}", key=key_of(item)[0]) is None

    async def _awaited(self, item: str, request: RecordedRequest, ref: TaskRef) -> Json:
        """Return the outcome of a task, once it has ended, and its files are saved."""
        family = FAMILIES[ref.family]
        handle: TaskHandle[Any] = TaskHandle(self.runtime, self.runtime.watch(family, ref.task_id))
        self.held[item] = handle
        try:
            task = await handle.wait()
        except (TaskFailed, TaskCancelled) as error:
            return encode_outcome(_ENDED[type(error)], ref=ref, task=error.task, error=error)
        except AuthenticationError as error:
            self.give_up(error)
        except ClientClosed:
            pass
        except PiAPIError as error:
            return encode_outcome(codec.FAILED, ref=ref, error=error)
        else:
            return await self._saved(ref, request, task)
        finally:
            self.held.pop(item, None)
        await _for_ever()
        raise AssertionError

    async def _saved(self, ref: TaskRef, request: RecordedRequest, task: Task[Any]) -> Json:
        if self.downloads is None:
            return encode_outcome(codec.DONE, ref=ref, task=task)
        try:
            files = await self.downloads.save(task, verb=request.verb, just_ended=True, again=True)
        except DownloadError as error:
            return encode_outcome(codec.DONE, ref=ref, task=task, error=error)
        except Exception as cause:  # noqa: BLE001 - a file system may raise anything; the task is done
            text = f"Task {task.task_id} was not saved: {cause!r}. It is done, and stays paid for."
            return encode_outcome(codec.DONE, ref=ref, task=task, error=DownloadError(text))

        task = with_files(task, files)
        saved = {file.url: str(file.saved_as) for file in files if file.saved_as is not None}
        return encode_outcome(codec.DONE, ref=ref, task=task, saved=saved)

    async def settle_found(self) -> None:
        """Resolve what stayed unknown and whose task is known by now: an answer came very late, say."""
        await in_thread(partial(jobs.settle_found, self.database))

    async def cancel_asked(self) -> None:
        """Ask the host to cancel the tasks that somebody wants cancelled, of those that are held here."""
        asked = await in_thread(self.database.cancels)
        self.unwanted = set(asked)
        for item in asked:
            handle = self.held.get(item)
            if handle is None:
                continue
            try:
                await handle.cancel()
            except PiAPIError as error:
                key, task_id = key_of(item)[0], handle.task_id
                text = f"task {task_id} of {key} could not be cancelled: {error}"
                self.runtime.events.notice(logging.WARNING, text, key=key, task_id=task_id)
            await in_thread(partial(self.database.forget_cancel, item))


async def _for_ever() -> None:
    """Wait to be stopped; the item goes on at another worker."""
    await asyncio.Event().wait()
