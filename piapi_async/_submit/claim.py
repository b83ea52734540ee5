"""The claim of a submission: the ledger's row that says "this process is sending this key now".

It is held only while the POST may be on its way, so that a process that is killed at any other time
leaves no doubt behind.  Without a ledger there is a `NoClaim`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import anyio
from attrs import define, field

from ..errors import LedgerError
from ..ledger._entries import NOTHING_KEPT, EndedAttempt, Kept, LedgerEntry, LedgerState, SubmissionKey
from ..ledger._recovery import SentAs, Taken
from ..observe._emitter import Events
from ..tasks import TaskId, TaskRef

if TYPE_CHECKING:
    from ..ledger._writer import LedgerWriter

# Seconds between two looks at a key that another is sending: they double, up to the longest.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

_WORTH_A_WORD = 5.0  # seconds; waiting any longer for another's submission is logged

_ASK_AGAIN = (
    "Nothing was sent by this call, nothing was paid by it: submit the key again, which returns the "
    "same task once the other submission has ended"
)


Details: TypeAlias = Callable[[], SentAs | None]
"""Makes what a later process needs to find the task of a submission, None if it could not be found."""


class NoClaim:
    """What a submission without a ledger has in the place of a claim: nothing is recorded."""

    key: str | None = None
    attempt: int = 1
    ledger_path: str | None = None
    may_be_held: bool = False
    """Whether the ledger may have a row that says so."""
    row: tuple[str, str] | None = None
    """The owner's name and the key in that row."""

    async def release(self) -> None:
        """Do nothing."""

    async def lose(self, sent: tuple[float, float, float | None]) -> None:
        """Do nothing."""

    async def give(self, task_id: TaskId, found: str) -> Taken:
        """Do nothing; return that the submission has the task."""
        del found
        return Taken(task_id)

    async def told_elsewhere(self) -> LedgerEntry | None:
        """Return None, as no other process can have heard of a task."""

    async def end(self, *, unknown: bool, refused: TaskId | None = None) -> TaskId | None:
        """Do nothing; return None, as no other process can have heard of a task."""


@define(eq=False, repr=False)
class Claim:
    """The claim of one submission on a key of a ledger."""

    _ledger: LedgerWriter
    _identity: SubmissionKey
    _events: Events
    _kept: Kept = NOTHING_KEPT
    _replaces: EndedAttempt | None = None
    may_be_held: bool = field(default=False, init=False)

    @property
    def attempt(self) -> int:
        """The number of the attempt that it is a claim for, from 1."""
        if self._replaces is None:
            return 1
        return self._replaces.number + 1

    @property
    def key(self) -> str:
        """The key, which was made up if the caller gave none."""
        return self._identity.key

    @property
    def ledger_path(self) -> str:
        """Where the ledger is."""
        return str(self._ledger.path)

    @property
    def row(self) -> tuple[str, str]:
        """The owner's name and the key in the ledger's row, while the claim is held."""
        return self._ledger.store.owner, self.key

    async def hold(self, patience: float, sent_as: Details) -> LedgerEntry | None:
        """Return None once the key is ours to send, or the entry of what it stands for: a task, or *unknown*.

        `sent_as` makes what is kept for a later process; it is not held beyond this call, as it knows
        the submission, which has the claim: masks of megabytes would wait for the garbage collector.

        A submission of the same key that is on its way elsewhere is waited for, for `patience`
        seconds: as long as ours may take, as its process may have been stopped, or be out of
        sight.  Raises `LedgerError` when that is over, and `KeyReused` if the key stands for
        another request.
        """
        waited = 0.0
        pause = _FIRST_PAUSE

        while True:
            entry = await self._try_to_hold(sent_as)
            if entry is None or entry.state is not LedgerState.SENDING:
                return entry

            if waited >= patience:
                end = f"It did not end within {patience:g} s. {_ASK_AGAIN}"
                raise LedgerError(self._sent_elsewhere(entry, end))

            pause = min(pause, patience - waited)
            await anyio.sleep(pause)

            if waited < _WORTH_A_WORD <= waited + pause:
                text = self._sent_elsewhere(entry, f"Waiting for it, {patience:g} s at most.")
                self._events.notice(logging.WARNING, text, key=self.key)
            waited += pause
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _try_to_hold(self, sent_as: Details) -> LedgerEntry | None:
        # A caller that is cancelled here cannot know: what the ledger was asked for is done all the
        # same.
        self.may_be_held = True
        try:
            entry = await self._ledger.claim(self._identity, sent_as(), self._kept, self._replaces)
        except LedgerError as error:
            self.may_be_held = False
            raise LedgerError(f"{str(error).rstrip('.')}. Nothing was sent, nothing was paid.") from error
        except ValueError:
            self.may_be_held = False
            raise

        self.may_be_held = entry is None
        return entry

    async def told_elsewhere(self) -> LedgerEntry | None:
        """Return the entry of the key if another process has heard which task this attempt has made."""
        try:
            entry = await self._ledger.find(self.key)
        except LedgerError:  # the delivery may come here as well
            return None
        if entry is None or entry.task_id is None or entry.attempt != self.attempt:
            return None
        return entry

    async def release(self) -> None:
        """Let go of the key, as nothing is on its way.  Raises `LedgerError`."""
        try:
            await self._ledger.forget(self._identity)
        except LedgerError as error:
            raise LedgerError(f"{str(error).rstrip('.')}. Nothing was paid.") from error
        self.may_be_held = False

    async def accept(self, task_id: TaskId) -> str | None:
        """Record the task that the response names; return None, or the key of another submission that has it.

        Raises `LedgerError`, whose `ref` carries the id.
        """
        identity = self._identity
        ref = TaskRef(identity.origin, identity.family, task_id)
        taken = await self._ledger.accept(identity, ref)
        if taken is None:
            return None
        if taken.taken_from:
            tell_taken_back(self._events, task_id, taken.taken_from)
        return taken.other_key

    async def lose(self, sent: tuple[float, float, float | None]) -> None:
        """Note that its response was lost, and when it was sent; a failure is logged."""
        try:
            await self._ledger.lose(self._identity, sent)
        except LedgerError as error:
            text = f"that the response to submission {self.key} was lost could not be recorded: {error}"
            self._events.notice(logging.WARNING, text, key=self.key)

    async def give(self, task_id: TaskId, found: str) -> Taken:
        """Record the task of the lost submission, if no other submission has it; `found` says how.

        Raises `LedgerError`, whose `ref` carries the id.
        """
        return await self._ledger.give_lost(self._identity, task_id, found)

    async def end(self, *, unknown: bool, refused: TaskId | None = None) -> TaskId | None:
        """Record that it has ended: without a task or, if `unknown`, with one or without.

        `refused` is the task that its refusal has named.  Returns its task if another process has
        recorded one.

        Does not raise: the error that ended the submission matters more, and a row that is left
        counts as *unknown*.
        """
        try:
            if unknown:
                return await self._ledger.mark_unknown(self._identity)
            await self._ledger.forget(self._identity, refused)
        except LedgerError as error:
            text = f"submission {self.key} could not be recorded: {error}"
            self._events.notice(logging.WARNING, text, key=self.key)
        return None

    def _sent_elsewhere(self, entry: LedgerEntry, what: str) -> str:
        age = time.time() - entry.at
        return (
            f"The submission {self.key!r} has been under way elsewhere for {age:.0f} s, in this process "
            f"or another. {what}"
        )


def tell_taken_back(events: Events, task_id: TaskId, keys: tuple[str, ...] = ()) -> None:
    """Log that a response names a task that the history had seemed to give to others, of these keys."""
    others = ", ".join(map(repr, keys)) or "another submission"
    text = (
        f"task {task_id}, which was found in the history for {others}, is another's: its own "
        "response names it. What it was found for is unknown again"
    )
    events.notice(logging.WARNING, text, task_id=task_id)


AnyClaim: TypeAlias = Claim | NoClaim

NO_CLAIM = NoClaim()
