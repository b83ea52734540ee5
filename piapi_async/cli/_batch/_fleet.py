"""A batch that a fleet works on: its lines are put into the database, followed, and written."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import anyio
import click
from attrs import define, field

from ...batch import BatchItem, Outcome
from ...client import PiAPI
from ...errors import SubmissionUnknown
from ...ledger._entries import SubmissionKey
from .._exit import ExitCode
from .._fleet_options import fleet_module, shown
from .._output import reason_of
from .._session import client
from .._setup import Setup
from .._stderr import say
from ._lines import BadLineError, BatchInput, Line
from ._results import Results

if TYPE_CHECKING:
    from ...fleet import Fleet, FleetJob

_FOLLOWED = 1000  # jobs that are waited for at a time: the first in are the first out


@define
class FleetRun:
    """One run of a batch over a fleet; on a SQLite file it has a worker of its own."""

    setup: Setup
    database: str
    requests: BatchInput
    total: int
    results: Results
    resume: str | None
    worker: dict[str, Any]
    """The keyword arguments of the worker."""
    done: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    unknown: int = field(default=0, init=False)
    unsaved: int = field(default=0, init=False)
    _minted: Counter[str] = field(factory=Counter, init=False)

    async def main(self) -> None:
        """Run to the end, and exit with the code for the worst that happened."""
        try:
            async with self._fleet() as fleet:
                followed = await self._put(fleet)
                await self._follow(followed)
        finally:
            self._say_totals()
        self._exit()

    @contextlib.asynccontextmanager
    async def _fleet(self) -> AsyncIterator[Fleet]:
        make = fleet_module()
        if not self.database.startswith("sqlite"):
            async with self._uploads() as uploads, make.Fleet(self.database, uploads=uploads) as fleet:
                yield fleet
            return

        async with (
            client(self.setup) as piapi,
            make.Fleet(self.database, uploads=piapi) as fleet,
            self._worked(piapi),
        ):
            yield fleet

    @contextlib.asynccontextmanager
    async def _uploads(self) -> AsyncIterator[PiAPI | None]:
        """Have a client for files of this machine; None without an API key, which nothing else here needs."""
        async with contextlib.AsyncExitStack() as stack:
            uploads = None
            if not self.setup.emulator:
                with contextlib.suppress(click.UsageError):
                    uploads = await stack.enter_async_context(client(self.setup))
            yield uploads

    @contextlib.asynccontextmanager
    async def _worked(self, piapi: PiAPI) -> AsyncIterator[None]:
        """Have a worker in this process, whose end by itself, as by SIGTERM, ends the run."""
        async with fleet_module().Worker(self.database, piapi, poll=0.5, **self.worker) as worker:
            follower = asyncio.current_task()
            working = asyncio.create_task(worker.run(), name="piapi_async worker")

            def over(_: asyncio.Task[None]) -> None:
                if follower is not None:
                    follower.cancel()

            working.add_done_callback(over)
            try:
                yield
            finally:
                working.remove_done_callback(over)
                worker.stop()
                with anyio.CancelScope(shield=True):
                    await working

    # -- the jobs ---------------------------------------------------------------------------------

    async def _put(self, fleet: Fleet) -> list[tuple[FleetJob[Any], Line]]:
        """Put the lines into the database; return the jobs whose outcomes are to be written."""
        wanted: list[Line] = []

        def items() -> Iterator[BatchItem[Any]]:
            for line in self._lines():
                key = self._key_of(line)
                if not self.results.skips(key):
                    wanted.append(line)
                    yield BatchItem(line.request, key)

        jobs = await fleet.submit_many(items(), batch=self.requests.source.name)
        say(f"{len(jobs)} jobs are in {shown(self.database)}.")
        return list(zip(jobs, wanted, strict=True))

    def _lines(self) -> Iterator[Line]:
        for line in self.requests.lines():
            if not isinstance(line, BadLineError):
                yield line

    def _key_of(self, line: Line) -> str:
        """Return a line's key; one that it lacks is minted from what it asks for, the same in every run."""
        if line.key is not None:
            return line.key
        sent = line.request.to_http()
        identity = SubmissionKey.of(sent, key="", origin="", family=line.request.family.name)
        digest = identity.digest.hex()[:32]
        self._minted[digest] += 1
        return f"{digest}-{self._minted[digest]}"

    async def _follow(self, followed: list[tuple[FleetJob[Any], Line]]) -> None:
        places = anyio.Semaphore(_FOLLOWED)

        async def follow(job: FleetJob[Any], line: Line) -> None:
            try:
                self._take(await job.wait(), line)
            finally:
                places.release()

        async with anyio.create_task_group() as group:
            for job, line in followed:
                await places.acquire()
                group.start_soon(follow, job, line)

    def _take(self, outcome: Outcome[Any], line: Line) -> None:
        """Write an outcome, and count it."""
        try:
            self.results.write(outcome, line.origin)
        except (OSError, ValueError) as error:
            say(
                f"Error: outcomes cannot be written ({reason_of(error)}). The work goes on, and "
                "nothing is lost."
            )
            sys.exit(ExitCode.OTHER)

        if outcome.error is None or outcome.download_error is not None:
            self.done += 1
            self.unsaved += outcome.download_error is not None
        elif isinstance(outcome.error, SubmissionUnknown):
            self.unknown += 1
            say(f"{outcome.key}: {outcome.error}")
        else:
            self.failed += 1
            say(f"{outcome.key}: {outcome.error}")

    # -- the end ----------------------------------------------------------------------------------

    @property
    def _left(self) -> int:
        return self.total - self.results.skipped - self.done - self.failed - self.unknown

    def _say_totals(self) -> None:
        say(
            f"{self.done} done, {self.failed} failed, {self.unknown} unknown, "
            f"{self.results.skipped} in the results already, {self._left} left"
        )
        if self._left and self.resume:
            goes_on = "" if self.database.startswith("sqlite") else "The workers go on with them. "
            say(f"{goes_on}To go on: {self.resume}")

    def _exit(self) -> None:
        for code, happened in (
            (ExitCode.UNKNOWN, self.unknown),
            (ExitCode.FAILED, self.failed + self.results.failed),
            (ExitCode.UNSAVED, self.unsaved),
        ):
            if happened:
                sys.exit(code)


async def fleet_status(database: str) -> tuple[dict[str, int], list[str]]:
    """Return the counts of a fleet, and the keys of its unknown jobs."""
    async with fleet_module().Fleet(database) as fleet:
        counts: dict[str, int] = await fleet.counts()
        return counts, [outcome.key for outcome in await fleet.unknown()]
