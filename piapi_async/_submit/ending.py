"""What follows the response to a submission: its task by its id, by one read, or by looking for it."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import orjson
from attrs import define

from .._calls.sender import Sender
from .._verdict import Judgement, Verdict
from .._wait.faults import NOT_FOUND_GRACE
from ..errors import APIError, NotFoundError, PiAPIError, UnexpectedAnswer
from ..ledger._recovery import SentAs, Taken
from ..tasks import Task, TaskId, TaskRef, TaskState
from .claim import tell_taken_back
from .correlation import Correlation
from .finder import Finder
from .known_ids import KnownIds
from .recovery import digest_text
from .searching import FIRST_PAUSE, NOTHING, Finding, first_found
from .submission import Submission, SubmissionState, refusal_naming
from .unknown_rows import HISTORY

_LONGEST_PAUSE = 30.0
"""Seconds, at most, between two looks at what other processes have written down of a lost submission."""


@define(eq=False, repr=False)
class Ending:
    """Determines how the submissions of one client end once they have begun to leave."""

    _sender: Sender
    _origin: str
    _correlation: Correlation
    _finder: Finder
    _ids: KnownIds

    def takes(self, submission: Submission, task_id: TaskId) -> bool:
        """Note the task that a plain acceptance names; return whether no other submission has it."""
        if not self._ids.take(task_id):
            if not self._finder.was_taken(task_id):
                return False
            if submission.claim.key is None:  # else the ledger tells whose it seemed to be
                tell_taken_back(self._sender.events, task_id)
        self._finder.note(task_id)
        submission.send_state.settle(reuse=True)
        return True

    async def mixed_up(self, submission: Submission, task_id: TaskId) -> TaskId:
        """Return the task of a submission whose response names another's: two responses were mixed up.

        Raises `SubmissionUnknown` if it is not found.
        """
        text = f"The response names task {task_id}, which belongs to another submission of this client"
        error = UnexpectedAnswer(text, path="task_id")
        return await self.look_for(submission, error, self._ref(submission, task_id))

    async def conclude(self, submission: Submission, answer: Judgement) -> TaskId:
        """Return the task that was made though the response is no plain acceptance; raise what it says instead."""
        if isinstance(answer.error, APIError):
            answer.error.request = submission.request  # as the caller made it, without our secret
        if answer.named is not None:
            return await self._read_named(submission, answer.named, answer.error)
        if answer.verdict is Verdict.UNKNOWN:
            return await self.look_for(submission, answer.error)
        raise answer.error

    async def _read_named(self, submission: Submission, named: TaskId, error: PiAPIError) -> TaskId:
        """Return a task that a response names without saying yes, if a read of it shows that it lives."""
        ref = self._ref(submission, named)
        if self._ids.has(named):
            return await self.mixed_up(submission, named)

        submission.named = ref
        try:
            task = await self._read_once_known(submission, named)
        except NotFoundError as denial:
            if not denial.message:  # an edge's page, not the host's word
                return await self.look_for(submission, error, ref, f"; reading it failed: {denial}")
            raise self._refusal(
                submission, error, ref, "which the host does not know: nothing was paid"
            ) from None
        except Exception as failure:  # noqa: BLE001 - a user's family may raise anything
            return await self.look_for(submission, error, ref, f"; reading it failed: {failure}")

        if task.state in (TaskState.FAILED, TaskState.CANCELLED) and isinstance(error, APIError):
            reason = f": {task.error}" if task.error else ""
            raise self._refusal(submission, error, ref, f"which is {task.status}{reason}")
        if not self._ids.take(named):
            return await self.mixed_up(submission, named)
        self._finder.note(named)
        submission.found = "read"
        return named

    async def _read_once_known(self, submission: Submission, named: TaskId) -> Task[Any]:
        """Return a task as the host shows it; raise its denial if it still denies it after some seconds.

        A task that was made just now may not be visible yet, as in a wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + NOT_FOUND_GRACE
        while True:
            try:
                return await self._sender.attempt(submission.family.fetch(named))
            except NotFoundError as denial:
                if not denial.message or loop.time() + FIRST_PAUSE > deadline:
                    raise
            await asyncio.sleep(FIRST_PAUSE)

    def _refusal(self, submission: Submission, error: PiAPIError, ref: TaskRef, what: str) -> PiAPIError:
        """Return a refusal that names a task; note that no submission is ever to be given that task.

        It was made with the inputs of this submission, and with the nonce of its key.  So it would fit
        the next submission of that key, and take the place of what that has made and is paid for.
        """
        submission.refused_id = ref.task_id
        self._finder.note(ref.task_id)
        return refusal_naming(error, ref, what)

    # -- if the response was lost ------------------------------------------------------------------

    def sent_as(self, submission: Submission) -> SentAs | None:
        """Return what the claim keeps, so that a later process can find the task in the host's history."""
        if not self._finder.can_find(submission.family):
            return None

        claim = submission.claim
        body = None
        if submission.has_links:
            body = orjson.dumps(submission.body()).decode()
        elif endpoint := self._correlation.endpoint_of(submission.request, claim.key or "", claim.attempt):
            config = {
                "service_mode": getattr(submission.request, "service_mode", None),
                "endpoint": digest_text(endpoint),
            }
            body = orjson.dumps({"config": config}).decode()

        patience = self._sender.retry.total + submission.timeout
        return SentAs(body=body, latest=time.time() + patience, offset=self._sender.clock.offset())

    async def look_for(
        self, submission: Submission, error: Exception, ref: TaskRef | None = None, also: str = ""
    ) -> TaskId:
        """Return the task of a submission whose response leaves open what it made, if it is found.

        All that is *unknown* comes through here.  Raises `SubmissionUnknown`.
        """
        finding = await self._find(submission)
        if finding.task_id is None:
            what = str(error) if isinstance(error, PiAPIError) else repr(error)
            candidates = finding.refs(self._origin, submission.family.name)
            raise submission.unknown(
                what + also, ref=ref, candidates=candidates, trouble=finding.trouble
            ) from error

        self._ids.take(finding.task_id)
        self._finder.note(finding.task_id)
        submission.found = finding.how
        return finding.task_id

    async def _find(self, submission: Submission) -> Finding:
        """Look for the task of a lost submission, in its delivery and in the history, whichever is first."""
        # Where nothing can tell, nothing is awaited: a cancellation in a later turn would take the
        # error's place.
        by_delivery = submission.terms.recovers and self._correlation.expects(submission.expected)
        by_history = submission.terms.recovers and self._finder.can_find(submission.family)
        if not by_delivery and not by_history:
            return NOTHING

        submission.enter(SubmissionState.LOOKING)
        submission.send_state.settle(reuse=False)
        sent = self._sent(submission)
        await submission.claim.lose(sent)

        searches = []
        if by_history:
            searches.append(self._finder.find(submission, partial(self._give, submission)))
        if by_delivery:
            searches.append(self._find_delivery(submission))
        finding = await first_found(searches)

        _, _, offset = sent
        if finding.task_id is None and offset is None:  # it may have become known, for those who look later
            await submission.claim.lose(self._sent(submission))
        return finding

    async def _find_delivery(self, submission: Submission) -> Finding:
        """Wait for the delivery about the task, which may come to another process of the same ledger."""
        here = asyncio.create_task(self._correlation.find_task(submission.expected))
        elsewhere = asyncio.create_task(self._heard_elsewhere(submission))
        try:
            await asyncio.wait({here, elsewhere}, return_when=asyncio.FIRST_COMPLETED)
            if not here.done():
                return elsewhere.result()
            task_id = here.result()
        finally:
            here.cancel()
            elsewhere.cancel()
            await asyncio.gather(here, elsewhere, return_exceptions=True)

        if task_id is None:
            return NOTHING
        return Finding(task_id, "webhook")

    @staticmethod
    async def _heard_elsewhere(submission: Submission) -> Finding:
        """Return the task once another process has written it down; look for that ever more seldom."""
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            entry = await submission.claim.told_elsewhere()
            if entry is not None and entry.task_id is not None:
                return Finding(entry.task_id, entry.found or "webhook")
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _give(self, submission: Submission, task_id: TaskId) -> Taken:
        """Record the task that was found in the history."""
        taken = await submission.claim.give(task_id, HISTORY)
        submission.recorded = taken.task_id is not None
        return taken

    def _sent(self, submission: Submission) -> tuple[float, float, float | None]:
        """Return when a submission was sent, until when it may have been, and the clock's offset then."""
        state = submission.send_state
        sent_at = state.started_at or submission.queued_at
        host = self._sender.clock.at(state.began_at)
        offset = None
        if host is not None:
            offset = host - sent_at
        return sent_at, sent_at + submission.timeout, offset

    def _ref(self, submission: Submission, task_id: TaskId) -> TaskRef:
        return TaskRef(self._origin, submission.family.name, task_id)
