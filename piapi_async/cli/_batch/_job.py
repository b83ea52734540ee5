"""`piapi-async batch`: a file of requests, seen through to saved pictures, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import shlex
import signal
import sys
import weakref
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Self

import click
from attrs import define, evolve, field
from rich.live import Live
from rich.table import Table

from ...batch import BatchItem, BatchRunner, Outcome, Totals, mint_keys
from ...client import PiAPI
from ...errors import AuthenticationError, DownloadError, SubmissionUnknown
from ...ledger import Ledger, LedgerState
from .._options import Seconds, Setup, directory_option, shared_options
from .._output import console, say
from .._requests import missing_file
from .._session import client, make_directory, read_setup, run
from ._lines import BadLineError, BatchInput, Line, spool
from ._results import Results, check_out, read_digests, stands_for_another

_SHOWN_ERRORS = 50
_PLAIN_EVERY = 5.0  # seconds
_LIVE_EVERY = 0.25
_CHUNK_LINES, _CHUNK_BYTES = 200, 2**20


class _RunOrStatus(click.Group):
    """Takes ``batch FILE …`` for ``batch run FILE …``: running is what one comes for."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(context, args)


@click.group(cls=_RunOrStatus, no_args_is_help=True)
def batch() -> None:
    """Run a file of requests (`batch FILE`), or look at a run (`batch status LEDGER`).

    See `batch FILE --help` for the options.
    """


@batch.command()
@click.argument("ledger", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def status(ledger: Path) -> None:
    """Print how far a run has got, from another terminal too."""

    async def main() -> None:
        book = Ledger(ledger)
        try:
            click.echo(json.dumps(await book.census()))
        finally:
            await book.close()

    run(main())


def _run_batch(
    *,
    source: Path,
    out: Path | None,
    directory: Path | None,
    concurrency: int,
    timeout: float | None,
    max_submits: int | None,
    dry_run: bool,
    skip_invalid: bool,
) -> None:
    """Submit every line of FILE (JSONL or CSV: `verb`, its fields, optionally `key`; - for standard input).

    With --ledger the same command goes on where a run was stopped or killed. Nothing is submitted if any line is
    wrong. The first Ctrl-C lets what is in flight end, the second stops at once. `piapi-async batch status LEDGER`
    tells from another terminal how far it is.
    """
    setup = read_setup()
    if not setup.verbose:
        logging.getLogger("piapi_async").setLevel(logging.WARNING)  # not a word for each of a thousand tries
    spooled = None
    if str(source) == "-":
        spooled = spool()
    elif not source.is_file():  # a pipe, which can be read only once
        with source.open("rb") as stream:
            spooled = spool(stream)
    if out is not None:
        check_out(out, source, setup.ledger)
    try:
        requests, good = _check(setup, BatchInput(spooled or source), out, skip_invalid=skip_invalid)
        if dry_run:
            run(_rehearse(setup, requests, good))
            return
        if directory is not None:
            make_directory(directory)
        runner: dict[str, Any] = {"concurrency": concurrency, "timeout": timeout, "max_submits": max_submits}
        resume = _command(setup, source, {"out": out, "download": directory, **runner}, skip_invalid=skip_invalid)
        with Results.at(out, keep=setup.ledger is not None, pictures=directory is not None) as results:
            run(_Job(setup, requests, good, results, resume).main({**runner, "download": directory}))
    finally:
        if spooled is not None:
            spooled.unlink()


batch.add_command(
    click.Command(
        "run",
        callback=_run_batch,
        help=_run_batch.__doc__,
        short_help="Submit every line of a file",
        params=[
            click.Argument(
                ["source"],
                metavar="FILE",
                type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
            ),
            click.Option(
                ["--out"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Append outcomes to this JSONL file as they come, each item once. Default: standard output.",
            ),
            directory_option,
            click.Option(["--concurrency"], default=30, show_default=True, type=click.IntRange(min=1)),
            click.Option(["--timeout"], type=Seconds(), metavar="SECONDS", help="For each task's wait."),
            click.Option(["--max-submits"], type=click.IntRange(min=0), help="Make no more tasks than this."),
            click.Option(["--dry-run"], is_flag=True, help="Only say how many would be submitted, and resumed."),
            click.Option(["--skip-invalid"], is_flag=True, help="Go on without the lines that are wrong."),
            *shared_options(),
        ],
    )
)


def _check(setup: Setup, requests: BatchInput, out: Path | None, *, skip_invalid: bool) -> tuple[BatchInput, int]:
    """Give the good lines and their number; say what is wrong with the others, and leave if there are any."""
    ended = read_digests(out) if out is not None and out.exists() else {}
    good = 0
    wrong: dict[int, BadLineError] = {}
    fileless: dict[int, BadLineError] = {}
    for line in requests.lines():
        if isinstance(line, BadLineError):
            wrong[line.line] = line
        elif stands_for_another(line, ended):
            reason = f"key: {line.key!r} is not allowed; {out} has it for another request"
            wrong[line.number] = BadLineError(line.number, reason)
        elif reason := missing_file(line.request):
            fileless[line.number] = BadLineError(line.number, reason)
        else:
            good += 1
    if fileless and setup.ledger is not None and setup.ledger.exists():
        without_file = len(fileless)
        run(_forget_known(setup, requests, fileless))
        good += without_file - len(fileless)
    wrong |= fileless
    for number in sorted(wrong)[:_SHOWN_ERRORS]:
        say(str(wrong[number]))
    if len(wrong) > _SHOWN_ERRORS:
        say(f"… and {len(wrong) - _SHOWN_ERRORS} more")
    if wrong and not skip_invalid:
        raise click.UsageError(
            f"{len(wrong)} of {good + len(wrong)} lines are wrong; nothing was submitted (--skip-invalid goes on)"
        )
    if not good:
        raise click.UsageError("there is nothing to submit")
    return evolve(requests, without=frozenset(wrong)), good


async def _forget_known(setup: Setup, requests: BatchInput, fileless: dict[int, BadLineError]) -> None:
    """Take out the lines whose task the ledger has: it was submitted, and needs its file no more."""
    async with client(setup) as piapi:
        ledger = piapi._ledger  # noqa: SLF001 - as a run sees it
        async for number, _, key in _keyed(piapi, requests):
            if number in fileless and ledger is not None and key is not None and await ledger.find(key) is not None:
                del fileless[number]


async def _rehearse(setup: Setup, requests: BatchInput, good: int) -> None:
    """Say what a run would do; makes no ledger."""
    counts = {"items": good, "submit": 0, "resume": 0, "unknown": 0}
    if setup.ledger is not None and not setup.ledger.exists():
        setup = evolve(setup, ledger=None)
    async with client(setup) as piapi:
        ledger = piapi._ledger  # noqa: SLF001 - as a run sees it
        if ledger is not None:
            await ledger.census()  # which also finds out what has become unknown
        async for _, _, key in _keyed(piapi, requests):
            known = await ledger.find(key) if ledger is not None and key else None
            if known is None:
                counts["submit"] += 1
            else:
                counts["unknown" if known.state is LedgerState.UNKNOWN else "resume"] += 1
    click.echo(json.dumps(counts))


async def _keyed(piapi: PiAPI, requests: BatchInput) -> AsyncGenerator[tuple[int, Any, str | None], None]:
    """Give line number, request and key of every good line; a key is minted as the runner would."""
    run_id = secrets.token_hex(8)
    for lines in _chunks(requests):
        minted = iter(await mint_keys(piapi, [line.request for line in lines if line.key is None], run_id))
        for line in lines:
            yield line.number, line.request, next(minted) if line.key is None else line.key


def _chunks(requests: BatchInput) -> Iterator[list[Line]]:
    """Give the good lines in portions, for a portion costs one turn at the ledger's file: many, but no great weight."""
    chunk: list[Line] = []
    weight = 0
    for line in requests.lines():
        if isinstance(line, Line):
            chunk.append(line)
            weight += len(line.request.to_http().body)
        if len(chunk) >= _CHUNK_LINES or weight >= _CHUNK_BYTES:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def _command(setup: Setup, source: Path, options: dict[str, Any], *, skip_invalid: bool) -> str | None:
    """Give the command that goes on with a run, None where none can: without a ledger, or from standard input."""
    if setup.ledger is None or not source.is_file():
        return None
    words = ["piapi-async", *setup.words(), "batch", str(source)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    words += ["--skip-invalid"] if skip_invalid else []
    return shlex.join(words)


@define
class _Job:
    """One run, from the first line to the exit code."""

    setup: Setup
    requests: BatchInput
    total: int
    results: Results
    resume: str | None
    had: int = field(default=0, init=False)  # items that the results have already
    _signals: int = field(default=0, init=False)
    _refused: bool = field(default=False, init=False)
    _broken: bool = field(default=False, init=False)
    _lines: dict[int, int] = field(factory=dict, init=False)  # of the requests that somebody still holds, by identity

    async def main(self, options: dict[str, Any]) -> None:
        async with client(self.setup) as piapi:
            runner = BatchRunner(piapi, **options)
            self._listen(runner)
            try:
                with _Display(self, runner) as display:
                    async with runner.stream(self._items(piapi)) as outcomes:
                        async for outcome in outcomes:
                            self.results.write(outcome, self._lines[id(outcome.request)])
                            display.heed(outcome)
                            self._heed(runner, outcome)
            except BaseException:
                self._broken = True
                raise
            finally:
                self._tell(runner.totals)
        self._leave(runner.totals)

    def _heed(self, runner: BatchRunner, outcome: Outcome[Any]) -> None:
        """Stop where nothing that follows can come to anything."""
        if isinstance(outcome.error, AuthenticationError) and not self._refused:
            self._refused = True
            runner.drain()
            say(f"{outcome.error} Nothing more is submitted.")

    async def _items(self, piapi: PiAPI) -> AsyncGenerator[BatchItem[Any], None]:
        async for number, request, key in _keyed(piapi, self.requests):
            if self.results.has(key):
                self.had += 1
                continue
            self._lines[id(request)] = number
            weakref.finalize(request, self._lines.pop, id(request)).atexit = False
            yield BatchItem(request, key)

    def _listen(self, runner: BatchRunner) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            self._signals += 1
            if self._signals == 1:
                runner.drain()
                say("Stopping: what is in flight goes on to its end. Again to stop at once.")
            elif task is not None:
                for ref in runner.in_flight if self.resume is None else ():
                    say(f"Task {ref} goes on; nothing else remembers it.")
                task.cancel()

        for kind in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
                loop.add_signal_handler(kind, stop)

    def _tell(self, totals: Totals) -> None:
        left = self.total - self.had - totals.ended
        say(
            f"{totals.done} done, {totals.failed} failed, {totals.unknown} unknown, {totals.resumed} resumed, "
            f"{self.had} in the results already, {left} left; {totals.submitted} submitted, "
            f"{totals.saved} files saved, {totals.unsaved} tasks not saved"
        )
        if self.resume and (self._broken or self._signals or left or totals.unknown or totals.unsaved):
            say(f"To go on: {self.resume}")

    def _leave(self, totals: Totals) -> None:
        """Exit with the code for the worst that happened."""
        left = totals.ended + self.had < self.total
        for code, happened in (
            (130, self._signals > 0),
            (3, self._refused),
            (6, totals.unknown > 0),
            (4, totals.failed + self.results.failed > 0),
            (8, totals.unsaved > 0),
            (9, left),
        ):
            if happened:
                sys.exit(code)


@define
class _Display:
    """How a run goes: a live table on a terminal, else a line every few seconds."""

    job: _Job
    runner: BatchRunner
    _live: Live | None = field(default=None, init=False)
    _ticking: asyncio.Task[None] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if console.is_terminal and not self.job.results.on_terminal:
            # Not refreshed by a thread of its own: the figures are the event loop's.
            self._live = Live(get_renderable=self._table, console=console, auto_refresh=False, transient=True)
            self._live.start()
        self._ticking = asyncio.create_task(self._tick())
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._ticking is not None:
            self._ticking.cancel()

    def heed(self, outcome: Outcome[Any]) -> None:
        """Say at once what a person will have to look at."""
        if isinstance(outcome.error, SubmissionUnknown) or isinstance(outcome.download_error, DownloadError):
            say(str(outcome.error or outcome.download_error))

    async def _tick(self) -> None:
        while self._live is not None:
            self._live.refresh()
            await asyncio.sleep(_LIVE_EVERY)
        while True:
            await asyncio.sleep(_PLAIN_EVERY)
            say(", ".join(f"{name} {value}" for name, value in self._figures()))

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, value in self._figures():
            table.add_row(name, value)
        return table

    def _figures(self) -> list[tuple[str, str]]:
        totals = self.runner.totals
        total = self.job.total - self.job.had
        left = total - totals.ended
        eta = f"{left / totals.rate:.0f} s" if totals.rate else "?"
        return [
            ("submitted", str(totals.submitted)),
            ("resumed", str(totals.resumed)),
            ("staged", str(totals.waiting)),
            ("running", str(totals.running)),
            ("done", f"{totals.done} of {total}"),
            ("failed", str(totals.failed)),
            ("unknown", str(totals.unknown)),
            ("rate", f"{totals.rate:.2f}/s"),
            ("left", eta),
        ]
