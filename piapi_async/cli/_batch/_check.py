"""What is wrong with a file of requests: told all at once, before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import click
from attrs import evolve

from ...batch._identity import identify
from ...batch._outcome import BatchItem, IdentifiedItem
from ...client import PiAPI, runtime_of
from .._exit import ExitCode
from .._options import Setup
from .._output import harmless, say
from .._requests import missing_file
from .._session import client, run
from ._lines import BadLineError, BatchInput, Line
from ._results import read_digests, stands_for_another
from ._rows import FileRefusedError

CHUNK_LINES, CHUNK_BYTES = 200, 2**20
_SHOWN_ERRORS = 50
_TOLD_ONE_BY_ONE = 3  # lines with the same mistake


class InputError(click.ClickException):
    """What is wrong with a file: no matter of how the command is used, though it ends with the same code."""

    exit_code = ExitCode.USAGE


def check(setup: Setup, requests: BatchInput, out: Path | None, *, skip_invalid: bool) -> tuple[BatchInput, int]:
    """Return the good lines and their number; say what is wrong with the others, and leave if there are any."""
    try:
        return _check(setup, requests, out, skip_invalid=skip_invalid)
    except FileRefusedError as error:
        raise refused(requests.source.name, error) from None


def refused(name: str, error: FileRefusedError) -> InputError:
    """Return what is said of a file that is refused as a whole."""
    text = harmless(str(error).replace("FILE", name))
    return InputError(f"{name} cannot be read as requests: {text.rstrip('.')}. Nothing was submitted.")


def _check(setup: Setup, requests: BatchInput, out: Path | None, *, skip_invalid: bool) -> tuple[BatchInput, int]:
    ended = read_digests(out) if out is not None and out.exists() else {}
    good = 0
    wrong: dict[int, BadLineError] = {}
    fileless: dict[int, BadLineError] = {}
    carried: dict[str, None] = {}
    for line in requests.lines():
        if isinstance(line, BadLineError):
            if line.encoding is not None and not skip_invalid:
                raise line.encoding  # it is the file that is wrong, not every line with a letter in it
            wrong[line.line] = line
            continue
        carried |= dict.fromkeys(line.origin.extra)
        if stands_for_another(line, ended):
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
    _tell(wrong, requests.found.noun)
    if wrong and not skip_invalid:
        raise InputError(
            f"{len(wrong)} of {good + len(wrong)} {requests.found.noun}s are wrong; nothing was submitted "
            "(--skip-invalid goes on)"
        )
    if not good:
        raise InputError("there is nothing to submit")
    if carried:
        say(f"Not fields, but carried along under `extra`: {', '.join(carried)} (--ignore-extra leaves them out).")
    return evolve(requests, without=frozenset(wrong)), good


def _tell(wrong: dict[int, BadLineError], noun: str) -> None:
    """Say what is wrong; what many lines have wrong only once, with the first and the last of them."""
    by_reason: dict[str, list[int]] = {}
    for number in sorted(wrong):
        by_reason.setdefault(wrong[number].reason, []).append(number)
    for reason, numbers in list(by_reason.items())[:_SHOWN_ERRORS]:
        shown = numbers if len(numbers) <= _TOLD_ONE_BY_ONE else numbers[:1]
        for number in shown:
            say(f"{noun} {number}: {reason}")
        if more := len(numbers) - len(shown):
            say(f"  … and {more} more {noun}s likewise, the last is {numbers[-1]}")
    if (rest := len(by_reason) - _SHOWN_ERRORS) > 0:
        say(f"… and {rest} more mistakes")


async def _forget_known(setup: Setup, requests: BatchInput, fileless: dict[int, BadLineError]) -> None:
    """Take out the lines whose task the ledger has: it was submitted, and needs its file no more."""
    async with client(setup) as piapi:
        ledger = runtime_of(piapi).ledger
        async for line, item in keyed(piapi, requests):
            known = await ledger.find(item.key) if ledger is not None and item.key is not None else None
            if line.number in fileless and known is not None:
                del fileless[line.number]


async def keyed(piapi: PiAPI, requests: BatchInput) -> AsyncGenerator[tuple[Line, IdentifiedItem[Any]], None]:
    """Yield every good line with its item, which has the key that the runner would mint if it has none of its own."""
    run_id = token_hex(8)
    for lines in chunks(requests):
        identities = await identify(runtime_of(piapi), [BatchItem(line.request, line.key) for line in lines], run_id)
        identities.reverse()
        while lines:
            line, identity = lines.pop(0), identities.pop()
            key = line.key if identity is None else identity.key
            yield line, IdentifiedItem(line.request, key, identity)


def chunks(requests: BatchInput) -> Iterator[list[Line]]:
    """Yield the good lines in portions, each of which costs one turn at the ledger's file: many, but not too heavy."""
    chunk: list[Line] = []
    weight = 0
    for line in requests.lines():
        if isinstance(line, Line):
            chunk.append(line)
            weight += len(line.request.to_http().body)
        if len(chunk) >= CHUNK_LINES or weight >= CHUNK_BYTES:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk
