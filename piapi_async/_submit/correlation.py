"""Which submission a webhook delivery belongs to, and which wait it ends.

A delivery carries a shared secret in plain text and no signature, may be lost, may come twice and
out of order (the vendor's page).  So it is trusted to wake, not to decide: it makes the poller poll
at once, and what the poll finds counts.

::

    receiver --> deliver --> a task that is waited for: the poller polls it, or takes it as it is
                         --> an open submission here: its `ExpectedDelivery` names the task
                         --> an open submission of an earlier process or another: `OpenSubmissions`

A submission is sent with an endpoint of its own, whose query holds a nonce (see `nonces`).  The
host shows that endpoint only to those who read the task.  So if the response to a submission was
lost, the task that a delivery names is read, and it belongs to that submission if the endpoint that
the host echoes carries its nonce.  The delivery itself proves nothing: the secret and the URL are
shown to any holder of a task id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define, evolve, field, frozen

from .._calls.sender import Sender
from .._families import FAMILIES
from .._protocol.family import Family, TaskRequest
from .._verdict import judge_read
from .._wait.poller import Poller
from .._wait.watch import Watch
from ..errors import ClientClosed, PiAPIError, UnexpectedAnswer
from ..tasks import Task, TaskId
from .deliveries import Delivery, ExpectedDelivery, WebhookSettings
from .nonces import echoed_nonce, endpoint_with, is_same_nonce, nonce_of, signed_endpoint
from .open_submissions import LedgerSubmissions, OpenSubmissions

if TYPE_CHECKING:
    from ..ledger._writer import LedgerWriter

K = TypeVar("K")

_MOST_REMEMBERED = 10_000  # deliveries, nonces; beyond, the oldest are forgotten
_READ_AGAIN_AFTER = 5.0  # seconds
_READS_AT_ONCE = 8

_NO_ENDPOINT_FIELD = "no such field"


@frozen(eq=False, repr=False)
class _Unclaimed:
    """A delivery about a task that is not known here."""

    task_id: TaskId
    nonce: str
    digest: bytes


@define(eq=False, repr=False)
class Correlation:
    """Finds the submission, or the wait, that a delivery is for; idle without a receiver."""

    counts: Counter[str] = field(factory=Counter, init=False)

    _sender: Sender
    _poller: Poller
    _ledger: LedgerWriter | None
    _origin: str
    _settings: WebhookSettings | None = field(default=None, init=False)
    _open: OpenSubmissions | None = field(init=False)
    _seen: OrderedDict[bytes, None] = field(factory=OrderedDict, init=False)
    _expected: dict[str, ExpectedDelivery] = field(factory=dict, init=False)
    _accepted: OrderedDict[str, None] = field(factory=OrderedDict, init=False)
    """Nonces of submissions whose task is known."""
    _given_up: bool = field(default=False, init=False)
    _unclaimed: list[_Unclaimed] = field(factory=list, init=False)
    _chores: set[asyncio.Task[None]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._open = None
        if self._ledger is not None:
            self._open = LedgerSubmissions(self._ledger, self._origin)

    def look_in(self, submissions: OpenSubmissions) -> None:
        """Look for the submissions of deliveries there, where the client has no ledger."""
        self._open = submissions

    def begin(self, settings: WebhookSettings) -> None:
        """Have submissions carry endpoints from now on.  Raises `ValueError` the second time."""
        if self._settings is not None:
            raise ValueError("piapi: this client has a WebhookReceiver already")
        self._settings = settings
        self._sender.transport.secrets.add(settings.secret)

    # -- for the submitter ------------------------------------------------------------------------

    def address(
        self,
        request: TaskRequest[Any],
        key: str | None,
        attempt: int = 1,
    ) -> tuple[TaskRequest[Any], ExpectedDelivery | None]:
        """Return a request with an endpoint of its own, and what is expected there.

        One that brings an endpoint, or can have none, is returned as it is, as all are without a
        receiver.
        """
        settings = self._settings
        if settings is None or getattr(request, "webhook_endpoint", _NO_ENDPOINT_FIELD) is not None:
            return request, None

        nonce = nonce_of(key or secrets.token_hex(16), settings.secret, attempt=attempt)
        expected = ExpectedDelivery(request.family, nonce)
        self._expected[nonce] = expected  # now, as a delivery may outrun the response

        webhook: dict[str, str] = {}
        if hasattr(request, "webhook_secret"):
            webhook["webhook_endpoint"] = endpoint_with(settings.url, nonce)
            webhook["webhook_secret"] = settings.secret
        else:
            webhook["webhook_endpoint"] = signed_endpoint(settings.url, nonce, settings.secret)
        return cast("TaskRequest[Any]", evolve(cast("Any", request), **webhook)), expected

    def endpoint_of(self, request: TaskRequest[Any], key: str, attempt: int = 1) -> str | None:
        """Return the endpoint that a request is sent with, its own or one of ours, None without any."""
        endpoint: str | None = getattr(request, "webhook_endpoint", _NO_ENDPOINT_FIELD)
        if endpoint == _NO_ENDPOINT_FIELD:
            return None
        if endpoint is None and self._settings is not None:
            nonce = nonce_of(key, self._settings.secret, attempt=attempt)
            return endpoint_with(self._settings.url, nonce)
        return endpoint or None

    def patience(self, request: TaskRequest[Any]) -> float:
        """Return for how many seconds a delivery may name a request's task; 0 without an endpoint of ours."""
        if self._settings is None or getattr(request, "webhook_endpoint", _NO_ENDPOINT_FIELD) is not None:
            return 0.0
        return self._settings.adopt_timeout

    def expects(self, expected: ExpectedDelivery | None) -> bool:
        """Return whether a delivery may still name the task of a submission."""
        if self._settings is None or expected is None:
            return False
        return not self._given_up or not expected.candidates.empty()

    async def find_task(self, expected: ExpectedDelivery | None) -> TaskId | None:
        """Return the task id of a submission whose response was lost, once its webhook arrives.

        Returns None if none does, within `adopt_timeout`.
        """
        settings = self._settings
        if settings is None or expected is None:
            return None
        if self._given_up and expected.candidates.empty():
            return None

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.adopt_timeout):
                task_id = await self._first_made_by(expected)
                self.counts["adopted"] += task_id is not None
                return task_id
        return None

    def stop_expecting(self, expected: ExpectedDelivery | None, *, accepted: bool) -> None:
        """Note that a submission has ended; if `accepted`, its nonce stands for a task that is known."""
        if expected is None:
            return
        if self._expected.get(expected.nonce) is expected:  # else a later one with the same key is there
            del self._expected[expected.nonce]
        if accepted:
            _remember(self._accepted, expected.nonce)
            return
        while self._ledger is None and not expected.candidates.empty():  # named, and not examined here
            task_id = expected.candidates.get_nowait()
            if task_id is not None:
                self._seek(_Unclaimed(task_id, expected.nonce, b""))

    def give_up(self) -> None:
        """Stop waiting for deliveries, because the client is closing."""
        self._given_up = True
        for expected in self._expected.values():
            expected.give_up()

    async def finish(self) -> None:
        """Wait for what deliveries have started, for as long as one call may take."""
        if not self._chores:
            return
        _, late = await asyncio.wait(self._chores, timeout=self._sender.timeout)
        for chore in late:
            chore.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _first_made_by(self, expected: ExpectedDelivery) -> TaskId | None:
        """Return the first task that is named and was made by the submission, None if none is to come."""
        while True:
            task_id = await expected.candidates.get()
            if task_id is None:
                return None

            try:
                task = await self._read_if_made_with(expected.nonce, expected.family, task_id)
            except PiAPIError as error:
                if self._given_up:
                    text = f"task {task_id} may be of a submission whose response was lost: {error}"
                    self._warn(text, task_id=task_id)
                    continue
                expected.name(task_id)
                await asyncio.sleep(_READ_AGAIN_AFTER)
            else:
                if task is not None:
                    return task_id

    async def _read_if_made_with(self, nonce: str, family: Family[Any], task_id: TaskId) -> Task[Any] | None:
        """Return a task if the endpoint it was made with carries the nonce, else None.

        One that an earlier submission of the same key has made may carry it too, and is no other's.
        Raises as `PiAPI.fetch`, and `LedgerError`.
        """
        if self._ledger is not None and await self._ledger.is_spent(self._origin, task_id):
            return None

        try:
            task = await self._sender.call(family.fetch(task_id), judge_read)
        except ClientClosed:  # what was delivered before must not be lost
            task = await self._sender.last_read(family.fetch(task_id))

        if is_same_nonce(echoed_nonce(task.raw), nonce):
            return task
        text = f"a delivery names task {task_id} for a submission that has not made it: is the secret known?"
        self._warn(text, task_id=task_id)
        return None

    # -- for the receiver -------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        """Take in one delivery that carried the secret."""
        self.counts["accepted"] += 1
        duplicate = delivery.digest in self._seen
        family = FAMILIES.get(delivery.family)
        watch = None
        if family is not None:
            watch = self._poller.schedule.find(family, delivery.task_id)
        self._sender.events.webhook(
            delivery.task_id, delivery.family, delivery.state, waited=watch is not None, duplicate=duplicate
        )

        if duplicate:
            self.counts["duplicate"] += 1
            return
        _remember(self._seen, delivery.digest)

        if watch is not None:
            self._report(watch, delivery)
            return

        if delivery.state.terminal:
            if family is not None and self._poller.reported_late(family, delivery.task_id):
                return
            self._poller.reported_early(delivery.task_id)
        if delivery.nonce not in self._accepted:  # else it is a task of ours without waits
            self._claim(delivery)

    def _report(self, watch: Watch, delivery: Delivery) -> None:
        """Tell the poller of a task that is waited for."""
        settings = self._settings
        has_ended = delivery.state.terminal
        if has_ended and (settings is None or settings.confirm):
            self._poller.poll_now(watch)
            return

        task = self._read(watch.family, delivery)
        if task is not None:
            self._poller.reported(watch, task)
        elif has_ended:
            self._poller.poll_now(watch)

    def _read(self, family: Family[Any], delivery: Delivery) -> Task[Any] | None:
        try:
            return family.read(dict(delivery.raw), delivery.task_id)
        except UnexpectedAnswer as error:
            self._warn(
                f"a delivery about task {delivery.task_id} is not understood: {error}",
                task_id=delivery.task_id,
            )
            return None

    def _claim(self, delivery: Delivery) -> None:
        """Find the submission of a task that is not known here."""
        unclaimed = _Unclaimed(delivery.task_id, delivery.nonce, delivery.digest)
        expected = self._expected.get(delivery.nonce)
        if not delivery.nonce:
            self._note_foreign()
        elif expected is not None:
            expected.name(delivery.task_id)
        elif len(self._unclaimed) >= _MOST_REMEMBERED:
            self._forget(unclaimed)
        else:
            _remember(self._accepted, delivery.nonce)
            self._seek(unclaimed)

    def _seek(self, unclaimed: _Unclaimed) -> None:
        """Look for the submission of a delivery where submissions are written down."""
        self._unclaimed.append(unclaimed)
        if len(self._unclaimed) == 1:  # else a look is to come already
            self._start(self._attach_all())

    def _note_foreign(self) -> None:
        """Count a delivery about a task that is not ours: another process shares the URL and the secret."""
        self.counts["unknown"] += 1
        self._sender.counters.foreign_deliveries += 1

    def _forget(self, unclaimed: _Unclaimed) -> None:
        """Forget a delivery without a submission, so that it is examined again if it comes again."""
        self._accepted.pop(unclaimed.nonce, None)
        self._seen.pop(unclaimed.digest, None)
        self._note_foreign()

    # -- open submissions -------------------------------------------------------------------------

    async def _attach_all(self) -> None:
        """Give open submissions, of an earlier process or one that still waits, the tasks that deliveries name.

        One look serves all deliveries that have come meanwhile, however many they are.
        """
        while self._unclaimed:
            batch, self._unclaimed = self._unclaimed, []
            names = await self._open_names(batch)

            for start in range(0, len(batch), _READS_AT_ONCE):
                few = batch[start : start + _READS_AT_ONCE]
                attached = await asyncio.gather(*[self._attach(one, names.get(one.nonce)) for one in few])
                for one, was_attached in zip(few, attached, strict=True):
                    if not was_attached:
                        self._forget(one)

    async def _open_names(self, batch: list[_Unclaimed]) -> Mapping[str, str]:
        """Return the names of the submissions without a task, by their nonces; {} if they cannot be read."""
        settings = self._settings
        if self._open is None or settings is None:
            return {}
        try:
            return await self._open.names([one.task_id for one in batch], settings.secret)
        except PiAPIError as error:
            ids = ", ".join(one.task_id for one in batch)
            self._warn(f"deliveries could not be matched with submissions (tasks {ids}): {error}")
            return {}

    async def _attach(self, unclaimed: _Unclaimed, name: str | None) -> bool:
        """Record a task as the submission's that made it; return whether that was done."""
        submissions = self._open
        if submissions is None or name is None:
            return False

        try:
            family = await submissions.family_of(name)
            if family is None:
                return False
            task = await self._read_if_made_with(unclaimed.nonce, family, unclaimed.task_id)
            if task is None:
                return False
            key = await submissions.attach(name, family, task)
        except PiAPIError as error:
            text = f"task {unclaimed.task_id} could not be attached to its submission: {error}"
            self._warn(text, task_id=unclaimed.task_id, key=name)
            return False
        if key is None:
            return False

        self._sender.events.recovered(unclaimed.task_id, family.name, "webhook", key=key)
        self.counts["adopted"] += 1
        return True

    def _warn(self, text: str, **details: str) -> None:
        self._sender.events.notice(logging.WARNING, text, **details)

    def _start(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(chore, name="piapi_async webhook")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _remember(memory: OrderedDict[K, None], key: K) -> None:
    """Remember a key, and forget the oldest if those are too many."""
    memory.setdefault(key, None)
    while len(memory) > _MOST_REMEMBERED:
        memory.popitem(last=False)
