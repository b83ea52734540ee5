"""`BatchRunner`: many requests, bounded: submitted, waited for, saved, and resumable."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Literal, TypeVar, cast

from attrs import define, field

from .._calls.threads import running_loop
from .._runtime import Runtime
from .._text import brief
from ..client import PiAPI, runtime_of
from ..downloads._disk import MAX_OPEN_FILES
from ..downloads._options import MAX_BYTES, DownloadOptions, check_count, check_seconds
from ..downloads._target import Target, check_target, prepared
from ..tasks import TaskRef
from ._in_flight import attach, in_order
from ._outcome import Outcome, Totals
from ._pace import AUTO_MAX
from ._queues import ItemSource
from ._run import BatchRun, Item, Items, Settings

R = TypeVar("R")


@define(eq=False)
class BatchRunner:
    """Runs many requests on one client, at most `concurrency` at a time.

    ::

        runner = BatchRunner(piapi, concurrency=30, download="pictures")
        async with runner.stream(requests) as outcomes:
            async for outcome in outcomes:
                print(outcome.index, outcome.files, outcome.error)

    concurrency
        The most tasks in flight; default: what the client's vendor works on at a time.  With "auto"
        that is found out: it begins with what the account may run at a time, if the host tells, grows
        while new tasks are started at once, up to `auto_max`, and halves if the host is busy.
    timeout
        Seconds for which one task is waited for; its outcome's error is then a `WaitTimeout`, and the
        task goes on.
    download
        The folder, or the URL of a sink (``s3://bucket/run``), where the files of each task are saved
        before its outcome is yielded: a `grid` as one picture, `all_files` with watermarked copies
        and covers, `download_timeout` seconds for one file (default: as long as it keeps coming),
        none larger than `max_file_bytes`, at most `parallel_files` at a time.  See
        `piapi_async.download`.
    retry_failed
        Submit anew, under the same key, the items of an earlier run whose task failed or was
        cancelled.  Each is submitted once in a run; one that another error ended, such as a
        `WaitTimeout`, a `DownloadError` or a `SubmissionUnknown`, is not, as its task may be well.
        It needs a ledger.  (What was refused made no task, and any run submits it again.)
    max_submits
        Make no more tasks than this; items that would need one are left for another run.
    max_cost
        Submit nothing by which the run could cost more than this, in the host's own unit: what was
        consumed, what is frozen in flight, and what may have been made count, what an earlier run
        submitted does not.  Of each kind of task whose price is not known one is submitted first, one
        at a time of a task type; a kind is a task type with the same inputs but for texts, links and
        seeds.
        The run ends with a `ValueError` if prices are of several units, or none is told, as by the
        legacy protocol.
    on_progress
        Called with the `Totals` whenever a task is submitted and whenever one has its outcome.  What
        it raises is logged, once, and ends nothing.

    With a ledger in the client a run can be killed at any moment and run again on the same input:
    it gives an outcome for every item again, but submits only what was never accepted.

    Once the host refuses the key, or the account has no credit, nothing more is submitted, as with
    `drain`, and that is logged.
    """

    _piapi: PiAPI
    concurrency: int | Literal["auto"] | None = field(default=None, kw_only=True)
    auto_max: int = field(default=AUTO_MAX, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    download: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    all_files: bool = field(default=False, kw_only=True)
    grid: bool = field(default=False, kw_only=True)
    download_timeout: float | None = field(default=None, kw_only=True)
    max_file_bytes: int = field(default=MAX_BYTES, kw_only=True)
    parallel_files: int = field(default=MAX_OPEN_FILES, kw_only=True)
    retry_failed: bool = field(default=False, kw_only=True)
    max_submits: int | None = field(default=None, kw_only=True)
    max_cost: float | None = field(default=None, kw_only=True)
    on_progress: Callable[[Totals], None] | None = field(default=None, kw_only=True)
    _runtime: Runtime = field(init=False, repr=False)
    _target: Target | None = field(default=None, init=False, repr=False)
    _options: DownloadOptions = field(factory=DownloadOptions, init=False, repr=False)
    _latest: BatchRun | None = field(default=None, init=False, repr=False)  # the present run, or the last one

    def __attrs_post_init__(self) -> None:
        self._runtime = runtime_of(self._piapi)

        if self.concurrency is None:
            self.concurrency = self._runtime.home.service.concurrency
        if self.concurrency != "auto" and not _is_positive(self.concurrency):
            raise _not_allowed("concurrency", self.concurrency, 'a whole number above 0, or "auto"')
        if not _is_positive(self.auto_max):
            raise _not_allowed("auto_max", self.auto_max, "a whole number above 0")
        if self.timeout is not None and not self.timeout >= 0:
            raise _not_allowed("timeout", self.timeout, "0 or more seconds, or None")
        if self.max_submits is not None and (not _is_whole(self.max_submits) or self.max_submits < 0):
            raise _not_allowed("max_submits", self.max_submits, "a whole number from 0, or None")

        if self.max_cost is not None and not _is_amount(self.max_cost):
            raise _not_allowed("max_cost", self.max_cost, "0 or more, in the host's unit, or None")
        if self.retry_failed and self._runtime.ledger is None:
            raise ValueError(
                "retry_failed: only a ledger knows what has failed: use a client with one, "
                "PiAPI(ledger=Ledger(path))"
            )

        check_seconds("download_timeout", self.download_timeout)
        check_count("max_file_bytes", self.max_file_bytes)
        check_count("parallel_files", self.parallel_files)
        if self.download is not None:
            self._target = check_target(self.download)
        self._options = DownloadOptions(
            all_files=self.all_files,
            grid=self.grid,
            timeout=self.download_timeout,
            max_bytes=self.max_file_bytes,
            parallel=self.parallel_files,
        )

    @property
    def totals(self) -> Totals:
        """The counts of the present or last run."""
        if self._latest is None:
            return Totals()
        return self._latest.totals

    @property
    def in_flight(self) -> list[TaskRef]:
        """The tasks that are in flight now."""
        if self._latest is None:
            return []
        return [item.handle.ref for item in self._latest.in_flight.values()]

    def drain(self) -> None:
        """Take no more requests; what is in flight goes on to its outcome, and then the stream ends."""
        if self._latest is not None:
            self._latest.drain()

    async def run(self, requests: Items[R]) -> list[Outcome[R]]:
        """Return the outcomes of all requests, in their order.

        An error of the iterable, or a cancellation, ends the run early and loses nothing that was
        paid for: the exception that is raised, of whatever class, has the outcomes so far in an
        attribute of its own, `outcomes`.  The outcome of a task that was still under way has a
        `WaitTimeout` as its `error`, and its `ref`.
        """
        gathered: list[Outcome[R]] = []
        try:
            async with self.stream(requests) as outcomes:
                async for outcome in outcomes:
                    gathered.append(outcome)
        except BaseException as error:
            left = []
            if self._latest is not None:
                left = self._latest.left
            attach(error, in_order([*gathered, *left]))
            raise
        return in_order(gathered)

    @contextlib.asynccontextmanager
    async def stream(self, requests: Items[R]) -> AsyncGenerator[AsyncIterator[Outcome[R]], None]:
        """Yield the outcomes as they come; the requests may be any iterable, endless or async.

        Leaving early takes no more requests, submits nothing new, and waits for submissions that
        have begun to leave, no longer than their timeout; tasks go on at the host.  An error of the
        iterable itself is raised to the reader.  Raises `DownloadError` before anything is submitted
        if the folder for files cannot be used, and `RuntimeError` if the runner is running already.
        """
        running_loop()
        if self._target is not None:
            await prepared(self._target)
        if self._latest is not None and not self._latest.is_over:
            raise RuntimeError("this runner is running already; make another")

        run = BatchRun(self._settings(), self._runtime, ItemSource[Item[Any]](requests))
        self._latest = run
        outcomes = run.outcomes()
        try:
            yield outcomes
        finally:
            await run.stop(outcomes)

    def _settings(self) -> Settings:
        is_auto = self.concurrency == "auto"
        return Settings(
            concurrency=self.auto_max if is_auto else cast("int", self.concurrency),
            auto=is_auto,
            timeout=self.timeout,
            target=self._target,
            options=self._options,
            retry_failed=self.retry_failed,
            max_submits=self.max_submits,
            max_cost=self.max_cost,
            on_progress=self.on_progress,
        )


def _is_positive(value: object) -> bool:
    return _is_whole(value) and value > 0  # type: ignore[operator]  # a number, by now


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_amount(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf  # type: ignore[operator]  # a number, by now


def _not_allowed(name: str, value: object, must_be: str) -> ValueError:
    return ValueError(f"{name}: {brief(value)} is not allowed; it must be {must_be}")
