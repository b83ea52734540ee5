"""What users do with the clients of their processes, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import anyio
from attrs import define

from piapi_async import (
    BatchRunner,
    CreateTask,
    DownloadError,
    Imagine,
    Ledger,
    PiAPIError,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    WaitTimeout,
    download,
    legnext,
)
from piapi_async.batch import BatchItem
from piapi_async.ledger import compact

from .files import PICTURES, is_whole
from .processes import Process, Processes
from .record import Attempt, Part, failure_state
from .steps import OTHER, Batch, CancelTask, OtherRequest, Resolve, Submit, Weather


class SourceError(Exception):
    """Raised by a user's own code."""


@define(eq=False)
class Users(Part):
    """All users of a life: each of their calls is a coroutine that a process runs."""

    folder: Path
    processes: Processes

    async def submit(self, step: Submit, process: Process) -> None:
        """Submit a request, and perhaps wait for its task."""
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
        attempt.ref = handle.ref
        if step.wait:
            attempt.cancels = step.cancels
            await self._wait(attempt, handle, None if step.wait == float("inf") else step.wait)
        if attempt.ended == "done" and step.files is not None and handle.task is not None:
            await self._save(attempt, handle.task)

    async def run(self, step: Submit, process: Process) -> None:
        """Have a request seen through by one call."""
        attempt = self._attempt(step.intent, process, keyed=step.keyed)
        attempt.cancels = step.cancels
        request = self._request(step.intent, unified=step.unified)
        key = str(step.intent) if step.keyed else None
        note = {"intent": step.intent} if self.record.story.ledger else None
        timeout = None if step.wait == float("inf") else step.wait
        try:
            task = await process.client.run(
                request,
                key=key,
                timeout=timeout,
                note=note,
                download=None if step.files is None else str(self.pictures),
                on_cancel=_on_cancel(attempt),
            )
            attempt.task_id, attempt.ended = task.task_id, task.state.value
            if step.files is not None:
                self._check_saved(attempt, [file.saved_as for file in task.files if file.saved_as])
        except DownloadError as error:
            attempt.task_id = "" if error.task is None else error.task.task_id
            attempt.ended, attempt.saved, attempt.error = "done", "DownloadError", str(error)
            self._check_named(attempt, error)
        except (TaskFailed, TaskCancelled) as error:
            attempt.task_id, attempt.ended = error.task.task_id, type(error).__name__
        except WaitTimeout as error:
            attempt.task_id, attempt.ended = error.ref.task_id if error.ref else "", "WaitTimeout"
        except BaseException as error:
            self._note_failure(attempt, error)
            self._note_accepted(attempt, process, timeout)
            if not isinstance(error, Exception):
                raise
            return
        attempt.state = "accepted"
        self._note_accepted(attempt, process, timeout)

    def _note_accepted(self, attempt: Attempt, process: Process, timeout: float | None) -> None:
        """Note when a call of `run` learnt of its task, which its user was not told but an observer was."""
        told_at = self.record.accepted.get((process.number, process.life, attempt.task_id), [])
        accepted_at = [at for at in told_at if at >= attempt.called_at]
        is_rough = self.record.story.subject(attempt.intent) in self.host.rough
        if not accepted_at or (attempt.saved and is_rough):
            return  # it has no task, or saving may take any time

        attempt.accepted_at = attempt.waited_from = accepted_at[0]
        attempt.ended_at = self.world.now
        if not self._has_company(attempt):  # else another was told, and this one a little later
            attempt.timeout = timeout

    def _has_company(self, attempt: Attempt) -> bool:
        """Return whether another had the same submitted by the same client when it was accepted."""
        return any(
            other is not attempt
            and (other.intent, other.process, other.life) == (attempt.intent, attempt.process, attempt.life)
            and other.called_at <= attempt.accepted_at
            for other in self.record.attempts
        )

    # -- files --------------------------------------------------------------------------------------------------------

    @property
    def pictures(self) -> Path:
        """The folder in which all save."""
        return self.folder / "pictures"

    async def _save(self, attempt: Attempt, task: Task[Any]) -> None:
        try:
            paths = await download(task, self.pictures)
        except DownloadError as error:
            attempt.saved, attempt.error = "DownloadError", str(error)
            self._check_named(attempt, error)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"download() raised {error!r}")
        else:
            self._check_saved(attempt, paths)

    async def save_nothing(self, process: Process) -> None:
        """Run an empty batch, as any later process may: it clears its folder of what killed ones have left."""
        await BatchRunner(process.client, download=str(self.pictures)).run([])

    def _check_named(self, attempt: Attempt, error: DownloadError) -> None:
        """What could not be saved says whose it is, and what was saved all the same is whole."""
        if error.task is None or error.task.task_id != attempt.task_id or attempt.task_id not in str(error):
            self.record.wrong.append(f"a DownloadError does not name {attempt.task_id}: {error}")
        self._check_whole(attempt, error.files)

    def _check_saved(self, attempt: Attempt, paths: Sequence[Path | str]) -> None:
        attempt.saved = "whole"
        if len(paths) != PICTURES:
            self.record.wrong.append(f"of intent {attempt.intent} {len(paths)} pictures were saved: {paths}")
        self._check_whole(attempt, paths)

    def _check_whole(self, attempt: Attempt, paths: Sequence[Path | str]) -> None:
        for path in map(Path, paths):
            if (
                attempt.task_id not in path.name
                or not path.exists()
                or not is_whole(path.name, path.read_bytes())
            ):
                self.record.wrong.append(f"a picture of intent {attempt.intent} is not whole: {path.name}")

    # -- requests, waits ----------------------------------------------------------------------------------------------

    def _request(self, intent: int, *, unified: bool) -> Any:
        """Return the request of an intent: a number stands in the prompt, and in what an error says of it."""
        subject = self.record.story.subject(intent)
        if unified:
            model = f"simulated/#{self.record.story.model_number(intent)}"
            return CreateTask(model, "txt2img", {"prompt": f"a cat, #{subject}"})
        return self._imagine(f"a cat, #{subject}")

    def _imagine(self, prompt: str) -> Any:
        if self.record.story.legnext:
            return legnext.Imagine(prompt)
        return Imagine(prompt)

    async def _wait(self, attempt: Attempt, handle: TaskHandle[Any], timeout: float | None) -> None:
        attempt.waiting, attempt.timeout, attempt.waited_from = True, timeout, self.world.now
        try:
            task = await handle.wait(timeout, on_cancel=_on_cancel(attempt))
            attempt.ended = task.state.value
            if any(attempt.task_id not in link for link in (task.task_id, *task.images)):
                wrong = f"a wait for {attempt.task_id} returned {task.task_id}, and {task.images}"
                self.record.wrong.append(wrong)
        except PiAPIError as error:
            attempt.ended = type(error).__name__
            attempt.error = str(error)
        except asyncio.CancelledError:
            attempt.left, attempt.left_at = "waiting", self.world.now
            raise
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"a wait raised {error!r}")
        finally:
            attempt.waiting = False
            attempt.ended_at = self.world.now

    # -- batches ------------------------------------------------------------------------------------------------------

    async def batch(self, step: Batch, process: Process) -> None:
        """Run a batch, and note what came of each of its items."""
        runner = BatchRunner(
            process.client,
            concurrency=step.concurrency,
            retry_failed=step.retry_failed,
            max_cost=step.max_cost,
            download=None if step.files is None else str(self.pictures),
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
            if step.max_cost is None or not str(error).startswith("max_cost: "):
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
            attempt.ref = outcome.ref
            attempt.ended = "done" if outcome.error is None else type(outcome.error).__name__
            if outcome.download_error is not None:
                attempt.ended, attempt.saved, attempt.error = "done", "DownloadError", str(outcome.error)
                self._check_named(attempt, outcome.download_error)
            elif outcome.files:
                self._check_saved(attempt, outcome.files)
        elif outcome.error is not None:
            self._note_failure(attempt, outcome.error)

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def cancel(self, step: CancelTask, process: Process) -> None:
        """Have the host asked to cancel the task of an intent, if this process knows one."""
        attempts = [one for one in self.record.attempts if one.intent == step.intent and one.ref is not None]
        refs = [one.ref for one in attempts if one.process == step.process and one.ref is not None]
        if not refs or self.record.story.legnext:  # which has no such call
            return

        self.record.cancel_asked.add(self.record.story.subject(step.intent))
        try:
            await process.client.cancel(refs[-1])
        except PiAPIError:
            self.host.happened["cancel: told that it was refused"] += 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"cancel() raised {error!r}")
        else:
            self.host.happened["cancel: told that it was done"] += 1
            was_told = not any(isinstance(one, Weather) for one in self.record.story.steps)
            if was_told and (refs[-1].task_id, True) not in self.host.cancels:
                self.record.wrong.append(
                    f"cancel() says that {refs[-1].task_id} is cancelled, and it was refused"
                )

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
            await compact(ledger, soon)
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
        process.client, process.receiver = self.processes.client(process.number, process.life)
        process.clients += 1
        await before.close()

    def _attempt(self, intent: int, process: Process, *, keyed: bool) -> Attempt:
        attempt = Attempt(intent, process.number, keyed, process.life, process.clients)
        attempt.called_at = self.world.now
        self.record.attempts.append(attempt)
        return attempt

    def _note_failure(self, attempt: Attempt, error: BaseException) -> None:
        attempt.error = str(error)
        attempt.state = failure_state(error)
        if attempt.state == "cancelled":
            attempt.left, attempt.left_at = "calling run", self.world.now
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


def _on_cancel(attempt: Attempt) -> Literal["leave", "cancel_remote"]:
    return "cancel_remote" if attempt.cancels else "leave"


def _raise(_: object) -> None:
    raise SourceError
