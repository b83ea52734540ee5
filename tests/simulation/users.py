"""What users do with the clients of their processes, and what they are told."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from attrs import define

from piapi_async import (
    BatchRunner,
    CreateTask,
    Imagine,
    Ledger,
    PiAPIError,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    WaitTimeout,
    legnext,
)
from piapi_async.batch import BatchItem

from .host import Host
from .processes import Process, Processes
from .record import Attempt, Record, failure_state
from .steps import OTHER, Batch, OtherRequest, Resolve, Submit
from .world import World


class SourceError(Exception):
    """Raised by a user's own code."""


@define(eq=False)
class Users:
    """All users of a life: each of their calls is a coroutine that a process runs."""

    record: Record
    folder: Path
    processes: Processes

    @property
    def world(self) -> World:
        """Where they live."""
        return self.record.world

    @property
    def host(self) -> Host:
        """The service that they use."""
        return self.record.host

    async def submit(self, step: Submit, process: Process) -> None:
        attempt = self._attempt(step.intent, process, keyed=step.keyed)
        key = str(step.intent) if step.keyed else None
        try:
            handle = await process.client.submit(self._request(step.intent, unified=step.unified), key=key)
        except BaseException as error:
            self._note_failure(attempt, error)
            if not isinstance(error, Exception):
                raise
            return
        attempt.state, attempt.task_id, attempt.accepted_at = "accepted", handle.task_id, self.world.now
        if step.wait:
            await self._wait(attempt, handle, None if step.wait == float("inf") else step.wait)

    async def run(self, step: Submit, process: Process) -> None:
        attempt = self._attempt(step.intent, process, keyed=step.keyed)
        request = self._request(step.intent, unified=step.unified)
        key = str(step.intent) if step.keyed else None
        note = {"intent": step.intent} if self.record.story.ledger else None
        timeout = None if step.wait == float("inf") else step.wait
        try:
            task = await process.client.run(request, key=key, timeout=timeout, note=note)
            attempt.task_id, attempt.ended = task.task_id, task.state.value
        except (TaskFailed, TaskCancelled) as error:
            attempt.task_id, attempt.ended = error.task.task_id, type(error).__name__
        except WaitTimeout as error:
            attempt.task_id, attempt.ended = error.ref.task_id if error.ref else "", "WaitTimeout"
        except BaseException as error:
            self._note_failure(attempt, error)
            if not isinstance(error, Exception):
                raise
            return
        attempt.state = "accepted"  # when, nobody was told: so how late its end was noticed is not judged

    def _request(self, intent: int, *, unified: bool) -> Any:
        """Return the request of an intent: a number stands in the prompt, and in what an error says of it."""
        subject = self.record.story.subject(intent)
        if unified:
            return CreateTask(f"simulated/#{subject}", "txt2img", {"prompt": f"a cat, #{subject}"})
        return self._imagine(f"a cat, #{subject}")

    def _imagine(self, prompt: str) -> Any:
        if self.record.story.legnext:
            return legnext.Imagine(prompt)
        return Imagine(prompt)

    async def _wait(self, attempt: Attempt, handle: TaskHandle[Any], timeout: float | None) -> None:
        attempt.waiting, attempt.timeout, attempt.waited_from = True, timeout, self.world.now
        try:
            task = await handle.wait(timeout)
            attempt.ended = task.state.value
            if any(attempt.task_id not in link for link in (task.task_id, *task.images)):
                wrong = f"a wait for {attempt.task_id} returned {task.task_id}, and {task.images}"
                self.record.wrong.append(wrong)
        except PiAPIError as error:
            attempt.ended = type(error).__name__
            attempt.error = str(error)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"a wait raised {error!r}")
        finally:
            attempt.waiting = False
            attempt.ended_at = self.world.now

    async def batch(self, step: Batch, process: Process) -> None:
        runner = BatchRunner(
            process.client,
            concurrency=step.concurrency,
            retry_failed=step.retry_failed,
            on_progress=_raise if step.progress_fails else None,
        )
        attempts = {
            intent: self._attempt(intent, process, keyed=self.record.story.ledger) for intent in step.intents
        }
        outcomes: list[Any] = []
        try:
            async with runner.stream(self._items(step)) as stream:
                async for outcome in stream:
                    outcomes.append(outcome)
                    if step.stop_after is not None and len(outcomes) > step.stop_after:
                        break
        except SourceError:
            pass
        except Exception as error:  # noqa: BLE001 - a user's own exception may come out, nothing else
            self.record.wrong.append(f"a batch raised {error!r}")
        finally:
            for outcome in outcomes:
                self._note_outcome(attempts[step.intents[outcome.index]], outcome)
            for attempt in attempts.values():
                if attempt.state == "started":
                    attempt.state = (
                        "cancelled"  # not handed over: known through the log or the ledger, or not made
                    )

    async def _items(self, step: Batch) -> AsyncIterator[BatchItem[Any]]:
        for intent in step.intents:
            key = str(intent) if self.record.story.ledger else None
            yield BatchItem(self._request(intent, unified=step.unified), key=key)
        if step.source_fails:
            raise SourceError

    def _note_outcome(self, attempt: Attempt, outcome: Any) -> None:
        if outcome.ref is not None:
            attempt.state, attempt.task_id = "accepted", outcome.ref.task_id
            attempt.ended = "done" if outcome.error is None else type(outcome.error).__name__
        elif outcome.error is not None:
            self._note_failure(attempt, outcome.error)

    async def other_request(self, step: OtherRequest, process: Process) -> None:
        attempt = self._attempt(OTHER + step.intent, process, keyed=True)
        request = self._imagine(f"something else, #{attempt.intent}")
        try:
            handle = await process.client.submit(request, key=str(step.intent))
        except Exception as error:  # noqa: BLE001 - noted
            self._note_failure(attempt, error)
        else:  # the key was free after all
            attempt.state, attempt.task_id = "accepted", handle.task_id

    async def recover(self, process: Process) -> None:
        try:
            report = await process.client.recover()
        except PiAPIError:
            return  # the client was closed, or the ledger is gone
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"recover() raised {error!r}")
        else:
            self.host.happened["recover: found"] += len(report.found)
            self.host.happened["recover: unknown"] += len(report.unknown)

    async def resolve(self, step: Resolve, _: Process) -> None:
        ledger = Ledger(self.folder / "run.db")
        key = str(step.intent)
        try:
            entry = await ledger.find(key)
            if entry is None or entry.state.value != "unknown":
                return
            if self.record.has_twin(step.intent):
                return  # nobody can tell whose task is whose
            before = self.earlier_tasks(refused=True).get(key, [])
            made = self.host.by_intent.get(intent_of(entry.request), [])
            made = [task for task in made if task.task_id not in before]
            if made:
                await ledger.resolve(key, task_id=made[0].task_id)
            else:
                await ledger.resolve(key, resubmit=True)
        except (PiAPIError, ValueError):
            return  # somebody was faster, or the ledger is gone
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(PiAPIError):
                await ledger.close()

    async def compact(self, _: Process) -> None:
        ledger = Ledger(self.folder / "run.db")
        soon = datetime.fromtimestamp(self.world.wall_time() + 1, UTC)
        try:
            await ledger.compact(soon)
        except PiAPIError:
            return  # the ledger is gone, or its disk is full
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(PiAPIError):
                await ledger.close()

    def earlier_tasks(self, *, refused: bool) -> dict[str, list[str]]:
        """Return by key the tasks of the attempts before the last, in order; perhaps those that refusals named, too."""
        found: dict[str, list[str]] = {}
        with contextlib.closing(sqlite3.connect(self.folder / "run.db")) as connection:
            for key, task_id, outcome in connection.execute(
                "SELECT key, task_id, outcome FROM earlier ORDER BY attempt"
            ):
                if refused or outcome != "refused":
                    found.setdefault(key, []).append(task_id)
        return found

    async def close(self, process: Process) -> None:
        before = process.client
        process.client, process.receiver = self.processes.client()
        await before.close()

    def _attempt(self, intent: int, process: Process, *, keyed: bool) -> Attempt:
        attempt = Attempt(intent, process.number, keyed, process.life, id(process.client))
        self.record.attempts.append(attempt)
        return attempt

    def _note_failure(self, attempt: Attempt, error: BaseException) -> None:
        attempt.error = str(error)
        attempt.state = failure_state(error)
        if attempt.state == "odd":
            self.record.wrong.append(f"a submission of intent {attempt.intent} raised {error!r}")
        ref = getattr(error, "ref", None)
        if ref is not None:
            attempt.task_id = ref.task_id


def intent_of(text: str) -> int:
    """Return the intent that a request asks for, by the number in its prompt."""
    found = re.search(r"#(\d+)", text)
    assert found is not None, f"a request without its number: {text}"
    return int(found[1])


def _raise(_: object) -> None:
    raise SourceError
