"""Faults to put into a copy of the package, to see that the simulation would find them."""

from __future__ import annotations

from .mutation import Mutant

MUTANTS = (
    # -- the channel and the verdict
    Mutant(
        "a kept connection is used again whatever was said on it, and any id is believed",
        "_calls/connector.py",
        "if protocol is not None and not has_unread(protocol):",
        "if protocol is not None:",
        also=(
            ("_calls/connector.py", "        if data:  # aiohttp hands on nothing, too", "        if False:"),
            (
                "_calls/connector.py",
                (
                    "        if should_close:\n"
                    "            super()._release(key, protocol, should_close=True)\n"
                    "            return\n"
                ),
                "        super()._release(key, protocol, should_close=should_close)\n        return\n",
            ),
            (
                "_submit/known_ids.py",
                "        if mark in self._young or mark in self._old or mark in self._oldest:\n",
                "        if False:\n",
            ),
        ),
    ),
    Mutant(
        "an id that belongs to another submission is accepted",
        "_submit/known_ids.py",
        "        if mark in self._young or mark in self._old or mark in self._oldest:\n",
        "        if False:\n",
    ),
    Mutant(
        "a response that names a task may be retried",
        "_verdict.py",
        "    verdict = Verdict.NAMED\n    if named is None:\n        verdict = _judge_unnamed(status, words)",
        "    verdict = _judge_unnamed(status, words)",
        also=(("_protocol/words.py", "bare_id=mentioned_task(body, data, request),", 'bare_id="",'),),
    ),
    Mutant(
        "a 2xx without a yes is a refusal",
        "_verdict.py",
        "    if words.match(_KNOWN_REFUSAL):\n        return Verdict.RAISE\n    return Verdict.UNKNOWN\n",
        "    return Verdict.RAISE\n",
    ),
    Mutant(
        "a gateway's phrase is the host's own word",
        "_protocol/words.py",
        "spoiled = any(",
        "spoiled = False and any(",
    ),
    Mutant(
        "a 303 is a refusal",
        "_verdict.py",
        "    if status == HTTPStatus.SEE_OTHER or _claims_success(words):",
        "    if _claims_success(words):",
    ),
    Mutant(
        "a submission that was lost after sending began is repeated",
        "_verdict.py",
        "        return Judgement(Verdict.UNKNOWN, error)\n    return Judgement(Verdict.RAISE, error)",
        "        return Judgement(Verdict.RETRY, error)\n    return Judgement(Verdict.RAISE, error)",
    ),
    Mutant(
        "408 is retried",
        "_verdict.py",
        "    if status in _GAVE_UP or _claims_success(words):\n        return Verdict.UNKNOWN\n",
        "    if status in _GAVE_UP:\n        return Verdict.RETRY\n",
    ),
    # -- the history.  That a response may name what was taken from it (`Finder.was_taken`) is not among them: no life
    # here comes to that while the first of these is in force.
    Mutant(
        "a row is taken though a twin is still sent",
        "_submit/recovery.py",
        "for fitting in _fits(sending, tasks, api_key_id)",
        "for fitting in _fits(sending[:0], tasks, api_key_id)",
    ),
    Mutant(
        "a row of another time is taken",
        "_submit/recovery.py",
        "        return created is not None and self.earliest <= created[0] and created[1] <= self.latest",
        "        return True",
    ),
    Mutant(
        "a row with another input is taken",
        "_submit/recovery.py",
        '    return trace.input is not None and covers(trace.input, lost.body["input"])',
        "    return trace.input is not None",
    ),
    Mutant(
        "a row is taken though more fit than are lost",
        "_submit/recovery.py",
        "        if len(owners) == len(matching):",
        "        if True:",
    ),
    Mutant(
        "a row that another submission has is taken",
        "_submit/finder.py",
        "            and row.task_id not in known\n            and not self._is_known(row.task_id)\n",
        "",
        also=(
            (
                "ledger/_recovery.py",
                "    if other is not None:\n        return Taken(None, other)\n",
                "",
            ),
            (
                "_submit/finder.py",
                (
                    "        ids = [row.task_id for row in rows if self._history.is_to_read(row)]\n"
                    "        if self._ledger is not None and ids:\n"
                ),
                "        ids = [row.task_id for row in rows]\n        if False:\n",
            ),
        ),
    ),
    Mutant(
        "the task that a refusal has named is forgotten",
        "_submit/ending.py",
        "        submission.refused_id = ref.task_id\n        self._finder.note(ref.task_id)\n",
        "",
    ),
    Mutant(
        "two attempts of one key are looked for under one mark",
        "_submit/finder.py",
        '    return f"\\0{id(submission)}"',
        '    return submission.claim.key or f"\\0{id(submission)}"',
    ),
    # -- the life of a submission
    Mutant(
        "a cancelled caller stops a submission that is on its way",
        "_submit/submitter.py",
        "if not submission.send_state.begun and submission.task is not None:",
        "if submission.task is not None:",
    ),
    Mutant(
        "a submission whose caller has gone ends in silence",
        "_submit/telling.py",
        "    elif isinstance(end, SubmitResult) and not recorded:",
        "    elif False:",
    ),
    Mutant(
        "an unknown submission whose caller has gone ends in silence",
        "_submit/telling.py",
        '    elif isinstance(end, SubmissionUnknown) or getattr(end, "ref", None) is not None:',
        "    elif False:",
    ),
    Mutant(
        "the key is freed although a task may exist",
        "_submit/claim.py",
        "if unknown:",
        "if False:",
    ),
    Mutant(
        "a submission is sent without its claim",
        "_submit/submitter.py",
        "            entry = await claim.hold(self._patience(submission), sent_as)\n            if entry is None:",
        "            entry = None\n            if entry is None:",
    ),
    Mutant(
        "an accepted task is not recorded",
        "_submit/submitter.py",
        "        return await claim.accept(task_id)",
        "        return None",
    ),
    # -- the ledger
    Mutant(
        "a key that is being sent elsewhere is given out again",
        "ledger/_store.py",
        "        is_new = connection.execute(statement, new_row).rowcount > 0\n",
        "        row = self._row_of(connection, identity.key)\n"
        "        is_new = connection.execute(statement, new_row).rowcount > 0 or row['task_id'] is None\n",
    ),
    Mutant(
        "a submission of a dead process is forgotten",
        "ledger/_store.py",
        "        row = self._row_of(connection, identity.key)\n        assert row is not None",
        "        connection.execute(\"DELETE FROM submits WHERE state = 'sending' AND owner != ?\", (self.owner,))\n"
        "        if connection.execute(statement, new_row).rowcount:\n"
        "            self._owned[identity.key] = identity\n"
        "            return None\n"
        "        row = self._row_of(connection, identity.key)\n        assert row is not None",
    ),
    Mutant(
        "a key may stand for another request",
        "ledger/_store.py",
        "        _require_same(row, identity)\n",
        "",
    ),
    Mutant(
        "a new attempt takes the place of whatever is the last one",
        "ledger/_attempts.py",
        "WHERE key = :key AND task_id = :task_id AND state IN ('accepted', 'ended')\",",
        "WHERE key = :key AND state IN ('accepted', 'ended')\",",
        also=(
            (
                "ledger/_attempts.py",
                "WHERE key = :key AND task_id = :task_id AND origin = :origin AND state IN",
                "WHERE key = :key AND origin = :origin AND state IN",
            ),
        ),
    ),
    Mutant(
        "a ledger that was moved away is written to",
        "ledger/_place.py",
        "    def check_names(self) -> None:",
        "    def check_names(self) -> None:\n        return\n\n    def _unused(self) -> None:",
        also=(
            (
                "ledger/_place.py",
                "    def check(self, connection",
                "    def check(self, *_: object) -> None:\n        return\n\n    def _no(self, connection",
            ),
            (
                "ledger/_place.py",
                "    def check_name(self) -> None:",
                "    def check_name(self) -> None:\n        return\n\n    def _nor(self) -> None:",
            ),
        ),
    ),
    # -- waiting
    Mutant(
        "a timer is asked for its time, which not every loop's can tell",
        "_wait/poller.py",
        "            if self._timer_at == when:",
        "            if self._timer.when() == when:",
    ),
    Mutant(
        "a wait that is over is not woken",
        "_wait/poller.py",
        "if not wait.woken.done():",
        "if not wait.woken.done() and wait.deadline < 1e9:",
    ),
    Mutant(
        "deadlines are not kept",
        "_wait/schedule.py",
        "        expired = self._deadlines.pop_due(now)",
        "        expired = self._deadlines.pop_due(now - 30.0)",
    ),
    Mutant(
        "an entry that cannot be read is asked for by multi-fetch again",
        "_wait/schedule.py",
        "        record.note(error, now)\n        record.poll_singly = True\n",
        "        record.note(error, now)\n",
    ),
    Mutant(
        "another task's entry is taken for this one's",
        "_protocol/reading.py",
        "    return not text or text == asked.lower()\n",
        "    return True\n",
    ),
    Mutant(
        "an edge's page is the host's own refusal of a read",
        "_verdict.py",
        'case APIError(status=408) | APIError(message=""):',
        "case APIError(status=408):",
    ),
    Mutant(
        "a fault makes everybody poll at once",
        "_wait/schedule.py",
        "        return self._reschedule(queue, watch, now + delay)",
        "        return self._reschedule(queue, watch, now + delay * 0.01)",
    ),
    Mutant(
        "polls are put off for ever where webhooks are trusted",
        "_wait/timing.py",
        "        put_off = max(seconds, min(seconds * self.trust.patience, longest))",
        "        put_off = max(seconds, 3600.0)",
    ),
    Mutant(
        "a task that failed is returned like one that is done",
        "errors.py",
        "    if task.state is TaskState.FAILED:",
        "    if False:",
    ),
    # -- batches and closing
    Mutant(
        "a batch that waits for room repeats what has named a task",
        "_verdict.py",
        "    if isinstance(error, APIError) and error.ref is not None:\n        return False\n",
        "",
    ),
    Mutant(
        "on_progress ends a batch's worker",
        "batch/_run.py",
        "        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a callback's own",
        "        except ZeroDivisionError as error:",
    ),
    Mutant(
        "outcomes that nobody takes are not told",
        "batch/_run.py",
        "            log_left(self.runtime.events, self.left, recorded=self.runtime.ledger is not None)\n",
        "",
    ),
    Mutant(
        "closing does not wait for submissions",
        "_runtime.py",
        "            last.push_async_callback(self.submitter.finish)\n",
        "",
    ),
    Mutant(
        "closing leaves the connections open",
        "_runtime.py",
        "            last.push_async_callback(self.sender.transport.close)\n",
        "",
    ),
    # -- files, costs, cancellations
    Mutant(
        "a file that broke off gets its name",
        "downloads/_transfer.py",
        "[*waiting, _left_in(content)])\n            raise\n",
        '[*waiting, _left_in(content)])\n            return b""\n',
    ),
    Mutant(
        "a file is gone on with wherever its server begins, and whatever it is by now",
        "downloads/_progress.py",
        '        if found is None or int(found[1]) != self.size or "Content-Encoding" in response.headers:',
        "        if True:\n            return True\n        if found is None:",
    ),
    Mutant(
        "a page in the place of a picture is saved",
        "downloads/_transfer.py",
        "        if body.fault:",
        "        if False:",
    ),
    Mutant(
        "what is half-written stays when a file is given up",
        "downloads/_transfer.py",
        "            with anyio.CancelScope(shield=True):\n                await progress.discard()\n",
        "            pass\n",
    ),
    Mutant(
        "what dead processes have left of files stays",
        "downloads/_folder.py",
        "        clear_once(folder)\n",
        "",
    ),
    Mutant(
        "max_cost is looked at when it is passed, not before",
        "batch/_budget.py",
        "        return spent + price.amount <= self._limit\n",
        "        return spent <= self._limit\n",
    ),
    Mutant(
        "what may have been made costs nothing while no price is known",
        "batch/_budget.py",
        "            self._keep_unpriced(kind, cost)\n",
        "",
    ),
    Mutant(
        "a refused cancellation counts as done",
        "_wait/bulk.py",
        "    if refusal is not None:\n        raise refusal\n",
        "",
    ),
    Mutant(
        "a task is cancelled although its caller only leaves",
        "handle.py",
        '            if on_cancel == "cancel_remote":',
        "            if True:",
    ),
    Mutant(
        "a task that was left to be cancelled goes on",
        "_client/run.py",
        '            if self.on_cancel == "cancel_remote":',
        "            if False:",
    ),
    Mutant(
        "a task that had begun when it was left to be cancelled is nobody's",
        "_client/run.py",
        "        elif self._cancelled:",
        '        elif self.on_cancel == "cancel_remote":',
    ),
    Mutant(
        "run waits longer than it was told",
        "_client/run.py",
        "                return await handle.wait(self.timeout)\n",
        "                return await handle.wait(self.timeout and self.timeout + 20.0)\n",
    ),
    Mutant(
        "recover() beside close() opens a ledger that nobody closes",
        "_submit/unknown_rows.py",
        "        if self._closing:\n            return []\n",
        "",
    ),
    Mutant(
        "the API key is shown in errors",
        "_calls/transport.py",
        "TransportError(text, sent=begun",
        'TransportError(text + " " + str(self._headers), sent=begun',
    ),
)

MONEY_FAULTS = {
    "an answer that is a yes, or none at all, is read as a refusal": (
        "a 2xx without a yes is a refusal",
        "a gateway's phrase is the host's own word",
        "a 303 is a refusal",
    ),
    "a busy answer that names a task is retried": (
        "a response that names a task may be retried",
        "a batch that waits for room repeats what has named a task",
    ),
    "an unasked answer on a kept connection becomes the next submission's": (
        "a kept connection is used again whatever was said on it, and any id is believed",
        "an id that belongs to another submission is accepted",
    ),
    "waits rely on timers that tell their time": (
        "a timer is asked for its time, which not every loop's can tell",
    ),
    "a paid task cannot be waited for, as multi-fetch never tells of it": (
        "an entry that cannot be read is asked for by multi-fetch again",
        "another task's entry is taken for this one's",
    ),
    "a ledger's file is moved under a running client": ("a ledger that was moved away is written to",),
    "a batch loses what is paid for when something beside the tasks fails": (
        "on_progress ends a batch's worker",
        "outcomes that nobody takes are not told",
    ),
}
"""The seven faults that have cost money or results, and the mutants that take back what mended each."""
