"""Many requests, bounded: submitted, waited for, saved, each on its own account, and resumable with a ledger.

A runner has as many workers as tasks may be in flight.  A worker takes the next request from the one iterator, sees it
through to its saved pictures, hands the outcome over, and only then takes another: so whoever reads the outcomes slowly
slows down the submitting, and no more is ever in memory than what is in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import orjson
from attrs import asdict, define, field, frozen

from .._calls.threads import in_thread, running_loop
from .._protocol.family import Family, TaskRequest
from .._runtime import Runtime
from .._text import label
from ..client import PiAPI, runtime_of
from ..downloads._disk import MAX_OPEN_FILES
from ..downloads._folder import check_target, prepare_directory
from ..downloads._names import paths_of
from ..downloads._options import MAX_BYTES, DownloadOptions, check_count, check_seconds
from ..downloads._saver import Downloads
from ..errors import (
    DownloadError,
    LedgerError,
    NotFoundError,
    PiAPIError,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
    end_error,
)
from ..handle import TaskHandle
from ..ledger._entries import LedgerEntry, LedgerState, SubmissionKey
from ..tasks import Task, TaskId, TaskRef, TaskState, with_files
from ._outcome import BatchItem, Outcome, Totals, _Account
from ._queues import Desk, Source

R = TypeVar("R")

logger = logging.getLogger("piapi_async")


Item = TaskRequest[R] | BatchItem[R]
Items = Iterable[Item[R]] | AsyncIterable[Item[R]]


@define(eq=False)
class BatchRunner:
    """Runs many requests on one client, at most `concurrency` at a time.

    ::

        runner = BatchRunner(piapi, concurrency=30, download="pictures")
        async with runner.stream(requests) as outcomes:
            async for outcome in outcomes:
                print(outcome.index, outcome.files, outcome.error)

    timeout
        Seconds for which one task is waited for; its outcome's error is then a `WaitTimeout`, and the task goes on.
    download
        The folder to save the files of each task in before its outcome is given; `all_files` with watermarked copies
        and covers, `download_timeout` seconds for one file (default: as long as it keeps coming), none larger than
        `max_file_bytes`, at most `parallel_files` at a time.  `piapi_async.download` tells more.
    max_submits
        Make no more tasks than this: items that would need one are left for another run.
    on_progress
        Called with the `Totals` whenever a task is submitted and whenever one has its outcome.  What it raises is
        logged, once, and ends nothing.

    With a ledger in the client a run can be killed at any moment and run again on the same input: it gives an outcome
    for every item again, but submits only what was never accepted.
    """

    _piapi: PiAPI
    concurrency: int = field(default=30, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    download: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    all_files: bool = field(default=False, kw_only=True)
    download_timeout: float | None = field(default=None, kw_only=True)
    max_file_bytes: int = field(default=MAX_BYTES, kw_only=True)
    parallel_files: int = field(default=MAX_OPEN_FILES, kw_only=True)
    max_submits: int | None = field(default=None, kw_only=True)
    on_progress: Callable[[Totals], None] | None = field(default=None, kw_only=True)
    _runtime: Runtime = field(init=False)
    _account: _Account = field(factory=_Account, init=False)
    _in_flight: dict[int, _Flying] = field(factory=dict, init=False)  # by the item's index
    _left: list[Outcome[Any]] = field(factory=list, init=False)  # of what the last stream was left with
    _shouted: bool = field(default=False, init=False)  # `on_progress` has raised, and that was logged
    _began: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)  # that the last run took
    _allowed: float = field(default=math.inf, init=False)  # submits that may still be made
    _source: Source[Any] | None = field(default=None, init=False)
    _folder: Path | None = field(default=None, init=False)
    _options: DownloadOptions = field(factory=DownloadOptions, init=False)
    _downloads: Downloads | None = field(default=None, init=False)  # of the present run, once there are any
    _run: str = field(default="", init=False)  # what the keys of this run are counted under

    def __attrs_post_init__(self) -> None:
        self._runtime = runtime_of(self._piapi)
        if not isinstance(self.concurrency, int) or isinstance(self.concurrency, bool) or self.concurrency < 1:
            raise ValueError(f"concurrency: {self.concurrency!r} is not allowed; it must be a whole number above 0")
        if self.timeout is not None and not self.timeout >= 0:
            raise ValueError(f"timeout: {self.timeout!r} is not allowed; it must be 0 or more seconds, or None")
        if self.max_submits is not None and not self.max_submits >= 0:
            raise ValueError(f"max_submits: {self.max_submits!r} is not allowed; it must be 0 or more, or None")

        check_seconds("download_timeout", self.download_timeout)
        check_count("max_file_bytes", self.max_file_bytes)
        check_count("parallel_files", self.parallel_files)
        self._folder = None if self.download is None else check_target(self.download)
        self._options = DownloadOptions(
            all_files=self.all_files,
            timeout=self.download_timeout,
            max_bytes=self.max_file_bytes,
            parallel=self.parallel_files,
        )

    @property
    def totals(self) -> Totals:
        """The account of the present or last run."""
        tasks = [flying.handle.task for flying in self._in_flight.values()]
        running = sum(task is not None and task.state is TaskState.RUNNING for task in tasks)
        seconds = self._seconds if self._source is None else anyio.current_time() - self._began
        return Totals(running=running, waiting=len(tasks) - running, seconds=seconds, **asdict(self._account))

    def drain(self) -> None:
        """Take no more requests; what is in flight goes on to its outcome, and then the stream ends."""
        if self._source is not None:
            self._source.close()

    @property
    def in_flight(self) -> list[TaskRef]:
        """The tasks that are in flight now."""
        return [flying.handle.ref for flying in self._in_flight.values()]

    async def run(self, requests: Items[R]) -> list[Outcome[R]]:
        """Return the outcomes of all requests, in their order.

        An error of the iterable, or a cancellation, ends the run early and loses nothing that was paid for: the
        exception that is raised has the outcomes that there are in an attribute of its own, `outcomes`, whatever its
        class.  That of a task that was still under way has a `WaitTimeout` for its `error`, and its `ref`.
        """
        gathered: list[Outcome[R]] = []
        try:
            async with self.stream(requests) as outcomes:
                async for outcome in outcomes:
                    gathered.append(outcome)
        except BaseException as error:
            _attach(error, _in_order([*gathered, *self._left]))
            raise
        return _in_order(gathered)

    @contextlib.asynccontextmanager
    async def stream(self, requests: Items[R]) -> AsyncGenerator[AsyncIterator[Outcome[R]], None]:
        """Give the outcomes as they come; the requests may be any iterable, endless or async.

        Leaving early takes no more requests, submits nothing new, and waits for submits that have begun to leave, no
        longer than their time-out; tasks go on at the host.  An error of the iterable itself is raised to the reader.
        Raises `DownloadError` before anything is submitted if the folder for files cannot be used.
        """
        running_loop()
        if self._folder is not None:
            await in_thread(partial(prepare_directory, self._folder))
        if self._source is not None:
            raise RuntimeError("this runner is running already; make another")
        source, desk = Source[Item[R]](requests), Desk[Outcome[R]](self.concurrency)
        self._source, self._run = source, secrets.token_hex(8)
        self._account, self._began, self._left, self._shouted = _Account(), anyio.current_time(), [], False
        self._allowed = math.inf if self.max_submits is None else self.max_submits
        workers = [asyncio.create_task(self._work(source, desk)) for _ in range(self.concurrency)]
        outcomes = desk.outcomes()
        try:
            yield outcomes
        finally:
            self._left = [flying.leave() for flying in self._in_flight.values()]
            source.close()
            try:
                # An anyio scope that is cancelled would cancel each of these awaits again, and not wait for an id.
                with anyio.CancelScope(shield=True):
                    await self._stop(source, workers)
                    with contextlib.suppress(RuntimeError):  # somebody is still reading, and will hear that it is over
                        await outcomes.aclose()
            finally:
                self._left += desk.untaken()
                self._seconds, self._source = anyio.current_time() - self._began, None
                self._in_flight.clear()
                self._tell_left()
                await self._close_downloads()

    async def _stop(self, source: Source[Any], workers: Sequence[asyncio.Task[None]]) -> None:
        """Stop the workers, and wait for what has begun to leave, and for the input to clean up after itself."""
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self._runtime.submitter.settle()
        await source.closed(self._runtime.sender.timeout)

    async def _close_downloads(self) -> None:
        downloads, self._downloads = self._downloads, None
        if downloads is not None:
            with anyio.CancelScope(shield=True):
                await downloads.close()

    def _tell_left(self) -> None:
        """Log the tasks that were paid for, or may have been, and of which the reader of the stream has not heard."""
        for outcome in self._left:
            unknown = isinstance(outcome.error, SubmissionUnknown)
            if outcome.ref is None and (unknown or getattr(outcome.error, "ref", None) is not None):
                logger.warning("%s", outcome.error)

        refs = [outcome.ref for outcome in self._left if outcome.ref is not None]
        if not refs:
            return
        recorded = self._runtime.ledger is not None
        logger.log(
            logging.INFO if recorded else logging.WARNING,
            "the batch was left before the outcomes of %d tasks were taken; they go on and stay paid for%s: %s",
            len(refs),
            "; the ledger has them" if recorded else "",
            ", ".join(map(str, refs)),
        )

    # -- one item -------------------------------------------------------------------------------------------------

    async def _work(self, source: Source[Item[R]], desk: Desk[Outcome[R]]) -> None:
        try:
            while (entry := await source.next()) is not None:
                if (outcome := await self._see_through(*entry)) is not None:
                    await desk.hand_over(outcome)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever reads the outcomes
            source.close()
            desk.error = desk.error or error
        finally:
            desk.leave()

    async def _see_through(self, index: int, item: Item[R]) -> Outcome[R] | None:
        """Return one item's outcome, None if it was left alone; nothing that can happen to it is raised."""
        self._account.read += 1
        request, key = (item.request, item.key) if isinstance(item, BatchItem) else (item, None)
        ledger = self._runtime.ledger
        try:
            if not hasattr(request, "family"):
                raise TypeError(f"item {index} of the batch, {label(request)}, makes no task")  # noqa: TRY301 - its end
            if ledger is not None and not key:
                [key] = await mint_keys(self._runtime, [request], self._run)
            if self._allowed < math.inf and not await self._may_submit(key):
                await self._skip()
                return None
            watch, accepted = await self._runtime.submit(request, key if ledger else None, None)
        except BaseException as error:
            if _ends_worker(error):
                raise
            ref = error.ref if isinstance(error, LedgerError) else None  # of a task that could not be recorded
            self._account.submitted += ref is not None
            return self._concluded(
                Outcome(index=index, request=request, key=key or "", error=_as_failure(error), ref=ref)
            )
        handle: TaskHandle[R] = TaskHandle(self._runtime, watch, accepted.frozen)
        known = accepted.known
        # From here on a task is paid for: nothing of somebody else's may end this before it is handed over.
        so_far: partial[Outcome[R]] = partial(
            Outcome, index=index, request=request, key=key or "", ref=handle.ref, resumed=known is not None
        )
        self._in_flight[index] = _Flying(handle, so_far)
        if known is None:
            self._account.submitted += 1
        else:
            self._account.resumed += 1
        self._report()
        try:
            outcome = await self._follow(so_far, handle, known)
        finally:
            self._in_flight.pop(index, None)
        return self._concluded(outcome)

    async def _follow(
        self, so_far: partial[Outcome[R]], handle: TaskHandle[R], known: LedgerEntry | None
    ) -> Outcome[R]:
        """Return the outcome of a task that was submitted, whatever it meets with."""
        try:
            outcome = await self._end(so_far, handle, known)
        except BaseException as error:  # of a request class or a file system, say
            if _ends_worker(error):
                raise
            outcome = so_far(error=_as_failure(error), task=handle.task)
        if self._runtime.ledger is not None:  # whoever writes the outcome down may take the end for recorded
            await self._runtime.ledger.flush()
        return outcome

    async def _skip(self) -> None:
        """Leave an item alone, in such a way that an endless input does not keep the loop to itself."""
        self._account.skipped += 1
        if self._runtime.ledger is None:  # nothing that follows can do without a submit
            self.drain()
        await asyncio.sleep(0)

    async def _may_submit(self, key: str | None) -> bool:
        """Take one of the submits that are allowed; what the ledger knows needs none."""
        ledger = self._runtime.ledger
        if ledger is not None and key is not None and await ledger.find(key) is not None:
            return True
        self._allowed -= 1
        return self._allowed >= 0

    async def _end(self, so_far: partial[Outcome[R]], handle: TaskHandle[R], known: LedgerEntry | None) -> Outcome[R]:
        try:
            if known is not None and known.state is LedgerState.ENDED:
                task = await _read_back(handle, known, so_far.keywords["request"].family)
            else:
                task = await handle.wait(self.timeout)
        except PiAPIError as error:
            return so_far(error=error, task=handle.task or getattr(error, "task", None))
        if self._folder is None:
            return so_far(task=task)
        return await self._save(so_far, task, known, self._folder)

    async def _save(
        self, so_far: partial[Outcome[R]], task: Task[R], known: LedgerEntry | None, folder: Path
    ) -> Outcome[R]:
        verb = getattr(so_far.keywords["request"], "verb", "")
        just_ended = known is None or known.state is not LedgerState.ENDED
        try:
            if self._downloads is None:
                self._downloads = Downloads(folder, self._runtime.file_session(), self._options)
            saved = await self._downloads.save(task, verb=verb, just_ended=just_ended, again=known is not None)
        except DownloadError as error:
            return so_far(task=task, files=error.files, error=error, download_error=error)
        except Exception as cause:  # noqa: BLE001 - a file system may raise anything, and the task is done all the same
            failure = DownloadError(
                f"Task {task.task_id} was not saved: {cause!r}. It is done, and stays paid for: see its .files.",
                path=folder,
            )
            failure.__cause__ = cause
            return so_far(task=task, error=failure, download_error=failure)
        return so_far(task=with_files(task, saved), files=tuple(paths_of(saved)))

    # -- the account ----------------------------------------------------------------------------------------------

    def _concluded(self, outcome: Outcome[R]) -> Outcome[R]:
        self._account.add(outcome)
        self._report()
        return outcome

    def _report(self) -> None:
        if self.on_progress is None:
            return
        try:
            self.on_progress(self.totals)
        except (Exception, asyncio.CancelledError):  # nobody can cancel what does not await: it is the callback's own
            if not self._shouted:
                self._shouted = True
                logger.exception("on_progress raised; the batch goes on, and says so only once")


@frozen
class _Flying:
    """A task in flight, and the outcome as far as it is known."""

    handle: TaskHandle[Any]
    so_far: partial[Outcome[Any]]

    def leave(self) -> Outcome[Any]:
        """Return the outcome for a reader who does not wait for the end."""
        task, error = self.handle.task, self.handle.error
        if error is None and (task is None or not task.state.terminal):
            ref = self.handle.ref
            error = WaitTimeout(
                f"The batch was left while task {ref} was under way. It goes on and stays paid for: "
                f"piapi.attach({ref.task_id!r}).wait().",
                ref=ref,
                task=task,
            )
        return self.so_far(task=task, error=error)


def _in_order(outcomes: Iterable[Outcome[R]]) -> list[Outcome[R]]:
    return sorted(outcomes, key=lambda outcome: outcome.index)


_NOTED = 100  # tasks that a note names where the outcomes tell of all


def _attach(error: BaseException, outcomes: list[Outcome[Any]]) -> None:
    """Give an exception, whosever it is, the outcomes of the run that it ends."""
    refs = [str(outcome.ref) for outcome in outcomes if outcome.ref is not None]
    try:
        error.outcomes = outcomes  # type: ignore[attr-defined]  # as documented
    except Exception:  # noqa: BLE001 - a class may refuse attributes in any way
        note = f"The tasks of the batch: {', '.join(refs)}"
    else:
        last = refs[-_NOTED:]
        note = f"The batch's outcomes are in .outcomes of this error; the last {len(last)} of {len(refs)} tasks: "
        note += ", ".join(last)
    if refs:
        error.add_note(note)


def _ends_worker(error: BaseException) -> bool:
    """Tell whether an error is no affair of the item's: the worker is being stopped, or the whole program."""
    if isinstance(error, asyncio.CancelledError):
        worker = asyncio.current_task()
        return worker is not None and worker.cancelling() > 0
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def _as_failure(error: BaseException) -> Exception:
    """Return what an item has met with as its outcome tells it."""
    if not isinstance(error, Exception):
        failure = RuntimeError(f"the item's request raised {error!r}")
        failure.__cause__ = error
        return failure
    # A key that stands for another request, or is none: a matter of the ledger's, whose text begins so.
    if type(error) is ValueError and str(error).startswith("key:"):
        return LedgerError(str(error))
    return error


async def mint_keys(runtime: Runtime, requests: Sequence[TaskRequest[Any]], run: str) -> list[str | None]:
    """Give keys for items that brought none: what each asks for, and the how-manieth of its kind in the run it is."""
    if (ledger := runtime.ledger) is None or not requests:
        return [None] * len(requests)
    intents = [
        SubmissionKey.of(request.to_http(), key="", origin=runtime.origin, family=request.family.name)
        for request in requests
    ]
    numbers = await ledger.occurrence_numbers(run, intents)
    return [f"{intent.digest.hex()[:32]}-{number}" for intent, number in zip(intents, numbers, strict=True)]


async def _read_back(handle: TaskHandle[R], known: LedgerEntry, family: Family[R]) -> Task[R]:
    """Give a task that ended in an earlier run: from the host, for the links may be fresher, else from the ledger."""
    task: Task[R] | None = None
    try:
        return await handle.wait(timeout=0)  # one look, which takes in all that are read back at the time
    except (TaskFailed, TaskCancelled):
        raise
    except PiAPIError as error:
        if not known.answer:
            task = await handle.refresh()
        elif not isinstance(error.__cause__, NotFoundError):  # a fault may pass
            with contextlib.suppress(PiAPIError):
                task = await handle.refresh()
    if known.answer and (task is None or not task.state.terminal):  # an end is never taken back
        task = family.read(orjson.loads(known.answer), TaskId(handle.task_id))
    assert task is not None  # noqa: S101 - without an answer it was read above
    if (failure := end_error(task)) is not None:
        raise failure
    return task
