"""Sends each submission exactly once, whatever happens to its caller.

The POST runs in a task of its own.  A caller that is cancelled before it has begun to leave stops
it; one that is cancelled later only stops listening: the response is still read, and the id still
reaches the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from attrs import define, field

from .._calls.sender import Sender
from .._calls.throttle import now
from .._calls.transport import SendState
from .._protocol.family import Attaching, Family, TaskRequest
from .._text import label
from .._verdict import Judgement, Verdict
from .._wait.bulk import cancel_for_leaver
from ..errors import (
    ClientClosed,
    PiAPIError,
    RateLimitError,
    SubmissionUnknown,
)
from ..ledger._entries import Kept, LedgerEntry, SubmissionKey
from ..observe._emitter import Subject
from ..policy import Backoff
from ..tasks import TaskId, TaskRef
from .claim import NO_CLAIM, Claim
from .correlation import Correlation
from .ending import Ending
from .finder import Finder
from .known_ids import KnownIds
from .searching import NOTHING
from .submission import NO_TERMS, Submission, SubmissionState, SubmitResult, Terms
from .telling import report_left, tell_accepted, tell_failed, tell_found
from .uploads import Uploader

if TYPE_CHECKING:
    from ..ledger._writer import LedgerWriter

# Shorter waits keep the ledger claim: releasing it would cost more than it saves.
_LONG_PAUSE = 0.5  # seconds


@define(eq=False, repr=False)
class Submitter:
    """Sends the submissions of one client, and owns those under way."""

    _sender: Sender
    _origin: str
    _ledger: LedgerWriter | None
    _uploader: Uploader
    _correlation: Correlation
    _recover: float  # seconds
    _under_way: set[Submission] = field(factory=set, init=False)
    finder: Finder = field(init=False)
    _ending: Ending = field(init=False)

    def __attrs_post_init__(self) -> None:
        ids = KnownIds()
        self.finder = Finder(self._sender, self._origin, self._ledger, self._recover, ids, self._under_way)
        self._ending = Ending(self._sender, self._origin, self._correlation, self.finder, ids)

    def __len__(self) -> int:
        """Return the number of submissions under way."""
        return len(self._under_way)

    @property
    def sending(self) -> bool:
        """Whether anything has begun to leave that is not answered."""
        return any(submission.send_state.begun for submission in self._under_way)

    # -- the caller's side ------------------------------------------------------------------------

    async def submit(
        self,
        request: TaskRequest[Any],
        family: Family[Any],
        key: str | None,
        timeout: float | None,
        *,
        identity: SubmissionKey | None = None,
        terms: Terms = NO_TERMS,
        subject: Subject | None = None,
    ) -> SubmitResult:
        """Return the task that the request has made, or that its key has made before.

        `family` is the request's, which may be of anybody's class, so that it is asked for once;
        `identity` is the request's with that key, if the caller has made it already; `subject` is
        what observers know the submission by.  Raises as `PiAPI.submit`.
        """
        # The caller awaits a future of its own: awaiting the task would cancel it with the caller.
        loop = asyncio.get_running_loop()
        result: asyncio.Future[SubmitResult] = loop.create_future()
        submission = Submission(
            request,
            family,
            self._sender.timeout if timeout is None else timeout,
            time.time(),
            NO_CLAIM,
            SendState(),
            result,
            terms,
            subject=subject,
        )
        self._under_way.add(submission)
        owner = self._own(submission, key, identity)
        submission.task = task = loop.create_task(owner, name="piapi_async submit")
        if not submission.has_run:  # an eager loop has made the first step already
            task.add_done_callback(self._never_ran)

        try:
            return await result
        except asyncio.CancelledError:
            self._abandon(submission)
            # It may have arrived in the very turn in which the caller left.
            if result.done() and not result.cancelled():
                await self._end_without_caller(submission, result.exception() or result.result())
            raise

    async def finish(self) -> None:
        """Stop what has not begun to leave, and wait for the rest, up to its time-out.

        An id that has arrived is waited for until it is recorded, however long the ledger takes.
        """
        submissions = {one.task: one for one in self._under_way if one.task is not None}
        patience = max((submission.timeout for submission in submissions.values()), default=0.0)

        for submission in submissions.values():
            self._abandon(submission)
        self._correlation.give_up()
        self.finder.close()
        if not submissions:
            await self.finder.finish()
            return

        _, late = await asyncio.wait(submissions, timeout=patience)
        for task in late:
            if submissions[task].state is not SubmissionState.ACCEPTED:
                task.cancel()
        await asyncio.gather(*submissions, return_exceptions=True)
        await self.finder.finish()

    async def wait_for_abandoned(self) -> None:
        """Wait for the submissions whose callers have gone, no longer than their time-outs."""
        abandoned = [submission for submission in self._under_way if submission.send_state.abandoned]
        tasks = [submission.task for submission in abandoned if submission.task is not None]
        self.finder.hasten()
        if tasks:
            await asyncio.wait(tasks, timeout=max(submission.timeout for submission in abandoned))

    @staticmethod
    def _abandon(submission: Submission) -> None:
        """Let what has begun to leave arrive, and send nothing more."""
        submission.send_state.abandoned = True
        if not submission.send_state.begun and submission.task is not None:
            submission.task.cancel()

    @staticmethod
    def _closed_under(submission: Submission) -> PiAPIError:
        """Return what a caller hears whose submission was ended by `close`."""
        if submission.send_state.begun:
            return submission.unknown(_CLOSED_UNANSWERED)
        return ClientClosed(f"{label(submission.request)}: the client was closed before it was sent")

    # -- the task that owns it --------------------------------------------------------------------

    async def _own(
        self, submission: Submission, key: str | None, identity: SubmissionKey | None
    ) -> SubmitResult | None:
        """Run a submission; tell the caller how it ends, or the log if the caller has gone."""
        submission.has_run = True
        if submission.task is not None:
            submission.task.remove_done_callback(self._never_ran)

        accepted = None
        events = self._sender.events
        try:
            accepted = await self._run(submission, key, identity)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            tell_failed(events, submission, error)
            if submission.result.done():
                await self._end_without_caller(submission, error)
            else:
                submission.result.set_exception(error)
        except BaseException as error:
            tell_failed(events, submission, error)
            if not submission.result.done():
                submission.result.set_exception(self._closed_under(submission))
            elif submission.send_state.begun and submission.task_id is None:
                self._report(submission, submission.unknown(_CLOSED_UNANSWERED))
            raise
        else:
            tell_accepted(events, submission, accepted)
            if submission.result.done():
                await self._end_without_caller(submission, accepted)
            else:
                submission.result.set_result(accepted)
        finally:
            self._under_way.discard(submission)
        return accepted

    def _never_ran(self, task: asyncio.Task[SubmitResult | None]) -> None:
        # Only a task that is cancelled before its first step still has this callback: as the step
        # itself takes it off, it costs other submissions no turn of the loop.
        for submission in [one for one in self._under_way if one.task is task and not one.has_run]:
            self._under_way.discard(submission)
            tell_failed(self._sender.events, submission, asyncio.CancelledError())
            if not submission.result.done():
                submission.result.set_exception(self._closed_under(submission))

    async def _end_without_caller(self, submission: Submission, end: SubmitResult | BaseException) -> None:
        """Log the end of a submission whose caller has gone, and cancel its task if that was asked for."""
        self._report(submission, end)
        task_id = None
        if isinstance(end, SubmitResult):
            task_id = end.task_id
        elif submission.state is SubmissionState.ACCEPTED:  # its task could not be recorded
            task_id = submission.task_id
        if submission.terms.cancel_if_left and task_id is not None:
            await cancel_for_leaver(self._sender, submission.family, task_id)

    def _report(self, submission: Submission, end: SubmitResult | BaseException) -> None:
        report_left(self._sender.events, submission, end, recorded=self._ledger is not None)

    def _claim_for(
        self, submission: Submission, ledger: LedgerWriter, key: str | None, identity: SubmissionKey | None
    ) -> Claim:
        if identity is None:
            sent = submission.request.to_http()
            family = submission.family.name
            identity = SubmissionKey.of(sent, key=key, origin=self._origin, family=family)

        events, subject = self._sender.events, submission.subject
        if subject is not None:
            subject.key = identity.key
        terms = submission.terms
        kept = Kept(terms.note, events.trace_of(subject))
        return Claim(ledger, identity, events, kept, terms.replaces)

    async def _run(
        self, submission: Submission, key: str | None, identity: SubmissionKey | None
    ) -> SubmitResult:
        """Return the task of a submission, once it is recorded.  Raises as `submit`."""
        if self._ledger is None:
            submission.enter(SubmissionState.CLAIMED)
        else:
            submission.claim = self._claim_for(submission, self._ledger, key, identity)

        claim = submission.claim
        try:
            known = None
            if self._ledger is not None:
                known = await self._hold_claim(submission)
            if known is None:
                known = await self._send(submission)
        except BaseException as error:
            state = submission.fail(error)
            if not claim.may_be_held:
                raise  # at once: a cancellation in another turn of the loop would take the error's place

            is_unknown = state is SubmissionState.UNKNOWN
            task_id = await asyncio.shield(claim.end(unknown=is_unknown, refused=submission.refused_id))
            if task_id is None or not isinstance(error, SubmissionUnknown):
                raise
            submission.accept(task_id)  # another process has heard of it
            tell_found(self._sender.events, submission, task_id, "ledger")
            return SubmitResult(task_id, has_webhook=True)

        if known is not None:
            return known

        task_id = cast("TaskId", submission.task_id)
        if isinstance(claim, Claim) and not submission.recorded:
            await self._record(submission, claim, task_id)
        return SubmitResult(
            task_id,
            has_webhook=submission.expected is not None,
            frozen=submission.frozen,
            found=submission.found,
        )

    async def _record(self, submission: Submission, claim: Claim, task_id: TaskId) -> None:
        """Write down the task that the host has named."""
        other_key = await self._record_id(submission, claim, task_id)
        if other_key is not None:
            submission.enter(SubmissionState.UNKNOWN)
            ref = TaskRef(self._origin, submission.family.name, task_id)
            other = f"which the ledger has for another submission, {other_key!r}"
            raise submission.unknown(f"the response names task {ref}, {other}", ref=ref)

    @staticmethod
    async def _record_id(submission: Submission, claim: Claim, task_id: TaskId) -> str | None:
        """Record a task; return None, or the key of another submission that has it."""
        if submission.found:
            taken = await claim.give(task_id, submission.found)
            if taken.task_id is not None or taken.other_key is not None:
                return taken.other_key
        return await claim.accept(task_id)

    # -- the claim, and waiting with or without it ------------------------------------------------

    async def _hold_claim(self, submission: Submission) -> SubmitResult | None:
        """Make the key ours and return None, or return the task that it stands for already."""
        claim = submission.claim
        if not isinstance(claim, Claim):
            submission.enter(SubmissionState.CLAIMED)
            return None

        while True:
            sent_as = partial(self._ending.sent_as, submission)
            entry = await claim.hold(self._patience(submission), sent_as)
            if entry is None:
                submission.enter(SubmissionState.CLAIMED)
                return None

            if entry.task_id is None:
                entry = await self._look_again(submission, entry)
            if entry is not None and entry.task_id is not None:
                submission.enter(SubmissionState.ACCEPTED)
                return SubmitResult(entry.task_id, entry, found=entry.found)

    def _patience(self, submission: Submission) -> float:
        """Return the seconds for which another submission of the same key may be under way."""
        if self.finder.can_find(submission.family):
            return submission.timeout + self.finder.patience
        return submission.timeout

    async def _look_again(self, submission: Submission, entry: LedgerEntry) -> LedgerEntry | None:
        """Look once more for the task of a key that is *unknown*; return what has become of its entry.

        Raises `SubmissionUnknown` if nothing has.
        """
        finding = NOTHING
        if (
            submission.terms.looks_again
            and self.finder.can_find(submission.family)
            and self._ledger is not None
        ):
            submission.enter(SubmissionState.LOOKING)
            findings = await self.finder.look_again({entry.key})
            finding = findings.get(entry.key, NOTHING)
            now_known = await self._ledger.find(entry.key)
            if now_known is None:
                submission.enter(SubmissionState.QUEUED)
                return None
            if now_known.task_id is not None:
                return now_known

        what = "an earlier submission of this key was never answered"
        candidates = finding.refs(self._origin, submission.family.name)
        raise submission.unknown(what, at=entry.at, candidates=candidates, trouble=finding.trouble)

    async def _release_claim(self, submission: Submission) -> None:
        """Release the claim while waiting, so that a crash here is not an unknown submission."""
        await submission.claim.release()
        submission.enter(SubmissionState.QUEUED)

    def _may_go(self, submission: Submission) -> bool:
        """Return whether it may be sent at once, as nearly all may."""
        return self._sender.throttle.is_open and submission.state is SubmissionState.CLAIMED

    async def _wait_for_turn(self, submission: Submission) -> SubmitResult | None:
        """Return None once it may be sent under a claim, or the task that its key has come to stand for."""
        ticket = submission.terms.ticket or self._sender.throttle.ticket()
        while True:
            seconds = ticket.seconds_to_wait()
            if seconds > 0:
                await self._pause(submission, seconds)
            elif submission.state is SubmissionState.CLAIMED:
                return None
            else:
                known = await self._hold_claim(submission)  # then ask the throttle again: time has passed
                if known is not None:
                    return known

    async def _pause(self, submission: Submission, seconds: float) -> None:
        """Sleep, without the claim if that is worth it.

        Raises `ClientClosed` as soon as the client is closed.
        """
        if seconds >= _LONG_PAUSE and submission.state is SubmissionState.CLAIMED:
            await self._release_claim(submission)
        await self._sender.throttle.sleep(seconds)

    # -- sending ----------------------------------------------------------------------------------

    async def _send(self, submission: Submission) -> SubmitResult | None:
        """Upload its files and send it; return None, or the task that its key has come to stand for.

        Its task is known by the response or, if that is lost, by a delivery.
        """
        links: Mapping[PurePath, str] = {}
        if hasattr(submission.request, "local_files"):
            links = await self._upload_files(submission)

        claim = submission.claim
        nonce_key = claim.key or submission.terms.nonce_key
        addressed, submission.expected = self._correlation.address(
            submission.request, nonce_key, claim.attempt
        )
        if links:
            addressed = cast("TaskRequest[Any]", cast("Attaching", addressed).with_links(links))
            submission.has_links = True
        submission.addressed = addressed
        self._sender.transport.secrets.add(getattr(addressed, "webhook_secret", None))

        try:
            return await self._deliver(submission, addressed)
        finally:
            submission.send_state.settle(reuse=False)
            if submission.expected is not None:
                accepted = submission.task_id is not None
                self._correlation.stop_expecting(submission.expected, accepted=accepted)

    async def _upload_files(self, submission: Submission) -> Mapping[PurePath, str]:
        """Upload the files that stand in a request, without the claim; return their URLs."""
        files = cast("Attaching", submission.request).local_files()
        if not files:
            return {}

        await self._release_claim(submission)
        return await self._uploader.links_for(submission.request, files)

    async def _deliver(self, submission: Submission, addressed: TaskRequest[Any]) -> SubmitResult | None:
        """Send until the verdict is final.  Returns and raises as `_send`.

        The claim is held only while the POST may be on its way.
        """
        started_at = now()
        backoff: Backoff | None = None  # made at the first failure: most submissions have none

        while True:
            if not self._may_go(submission):
                known = await self._wait_for_turn(submission)
                if known is not None:
                    return known

            if submission.terms.may_leave is not None:
                submission.check_leave()
            submission.enter(SubmissionState.SENDING)
            self._sender.events.sending(submission.subject)
            try:
                answer = await self._sender.try_to_create(
                    addressed,
                    submission.send_state,
                    submission.timeout,
                )
            except Exception as error:
                if not submission.send_state.begun:
                    raise
                # A request class that fails does not undo what was sent.
                submission.accept(await self._ending.look_for(submission, error))
                return None

            if not isinstance(answer, Judgement):
                task_id = submission.take_in(answer)
                if not self._ending.takes(submission, task_id):
                    task_id = await self._ending.mixed_up(submission, task_id)
                submission.accept(task_id)
                return None

            backoff = backoff or self._sender.backoff(started_at, submission.terms.retry)
            pause = self._pause_after(submission, answer, backoff)
            if pause is None:
                submission.accept(await self._ending.conclude(submission, answer))
                return None

            submission.put_off()
            await self._pause(submission, pause)

    def _pause_after(self, submission: Submission, judgement: Judgement, backoff: Backoff) -> float | None:
        """Return the seconds until it may be sent again, None if it must not be."""
        submission.send_state.settle(reuse=False)
        is_passing = judgement.verdict is Verdict.RETRY
        if isinstance(judgement.error, RateLimitError):
            self._sender.counters.put_off += 1
            self._sender.slow_down(judgement.error, pause=is_passing)

        if not is_passing or submission.send_state.abandoned:
            return None
        if isinstance(judgement.error, RateLimitError) and not submission.terms.waits_if_busy:
            return None
        return self._sender.pause_after(submission.request, judgement.error, backoff)


_CLOSED_UNANSWERED = "the client was closed before it was answered"
