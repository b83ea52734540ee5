"""Checks a file of requests: all errors are reported at once, before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import click
from attrs import define, evolve, field

from ..._protocol.family import Family
from ...batch._budget import why_no_price
from ...batch._identity import identify
from ...batch._outcome import BatchItem, IdentifiedItem
from ...client import PiAPI, runtime_of
from ...midjourney import LEGACY
from .._exit import ExitCode
from .._requests import missing_file
from .._running import run
from .._session import client
from .._setup import Setup
from .._stderr import harmless, say
from ._file_format import FileRefusedError
from ._lines import BadLineError, BatchInput, Line
from ._results import digest_text, read_digests, stands_for_another

CHUNK_LINES, CHUNK_BYTES = 200, 2**20
_SHOWN_ERRORS = 50
_SHOWN_SINGLY = 3  # lines with the same error


class InputError(click.ClickException):
    """An error in a file: not in how the command is used, though it has the same exit code."""

    exit_code = ExitCode.USAGE


def check(
    setup: Setup, requests: BatchInput, out: Path | None, *, skip_invalid: bool, limited: bool = False
) -> tuple[Setup, BatchInput, int]:
    """Return the good lines, their number and their setup; report the others, and exit if there are any.

    `limited` tells that what the lines cost has a limit.
    """
    try:
        return _check(setup, _Survey(requests, out, limited=limited), skip_invalid=skip_invalid)
    except FileRefusedError as error:
        raise refused(requests.source.name, error) from None


def refused(name: str, error: FileRefusedError) -> InputError:
    """Return the error for a file that is refused as a whole."""
    text = harmless(str(error).replace("FILE", name))
    return InputError(f"{name} cannot be read as requests: {text.rstrip('.')}. Nothing was submitted.")


def _check(setup: Setup, survey: _Survey, *, skip_invalid: bool) -> tuple[Setup, BatchInput, int]:
    requests = survey.requests
    survey.read(skip_invalid=skip_invalid)
    setup = setup.to(_only_vendors_family(survey))
    if survey.fileless and setup.ledger is not None and setup.ledger.exists():
        run(survey.forgive_submitted(setup))

    wrong = {**survey.wrong, **survey.fileless}
    noun = requests.found.noun
    _say_errors(wrong, noun)
    if wrong and not skip_invalid:
        raise InputError(
            f"{len(wrong)} of {survey.good + len(wrong)} {noun}s are wrong; nothing was submitted "
            "(--skip-invalid skips them)"
        )
    if not survey.good:
        raise InputError("there is nothing to submit")
    if survey.carried:
        names = ", ".join(survey.carried)
        say(f"Not fields, but carried along under `extra`: {names} (--ignore-extra drops them).")

    return setup, evolve(requests, without=frozenset(wrong)), survey.good


def _only_vendors_family(survey: _Survey) -> Family[Any]:
    """Return a family of the vendor whose host the lines are for; raise `InputError` if they are several."""
    if len(survey.families) > 1:
        names = " and ".join(survey.families)
        raise InputError(
            f"the lines are for the hosts of {names}, and a run speaks to one: give each a file of its own. "
            "Nothing was submitted."
        )
    return next(iter(survey.families.values()), LEGACY)


@define
class _Survey:
    """What one reading of the file has found."""

    requests: BatchInput
    out: Path | None
    limited: bool = field(kw_only=True)
    good: int = 0
    wrong: dict[int, BadLineError] = field(factory=dict)
    fileless: dict[int, BadLineError] = field(factory=dict)
    """Lines that name a file which does not exist, and are good otherwise."""
    families: dict[str, Family[Any]] = field(factory=dict)
    """One of the good lines' families, by the name of its vendor."""
    carried: dict[str, None] = field(factory=dict)
    """The names of columns that are not fields, in order."""

    def read(self, *, skip_invalid: bool) -> None:
        """Read all lines; raise `FileRefusedError`."""
        ended: Mapping[int, int] = {}
        if self.out is not None and self.out.exists():
            ended = read_digests(self.out)

        for line in self.requests.lines():
            if isinstance(line, Line):
                self._add(line, ended)
                continue
            if line.encoding is not None and not skip_invalid:
                raise line.encoding  # the file is wrong, not every line with a letter in it
            self.wrong[line.line] = line

    def _add(self, line: Line, ended: Mapping[int, int]) -> None:
        self.carried |= dict.fromkeys(line.origin.extra)
        family = line.request.family
        if family.service is not None:
            self.families.setdefault(family.service.name, family)
        if stands_for_another(line, ended):
            reason = f"key: {line.key!r} is not allowed; {self.out} has it for another request"
            self.wrong[line.number] = BadLineError(line.number, reason)
            return

        if self.limited and (reason := why_no_price(line.request)):
            reason = reason.replace("max_cost", "--max-cost").replace("max_submits", "--max-submits")
            self.wrong[line.number] = BadLineError(line.number, reason)
            return

        reason = missing_file(line.request)
        if reason:
            self.fileless[line.number] = BadLineError(line.number, reason)
        else:
            self.good += 1

    async def forgive_submitted(self, setup: Setup) -> None:
        """Accept the lines whose task the ledger has: it was submitted, and needs its file no longer."""
        async with client(setup) as piapi:
            ledger = runtime_of(piapi).ledger
            async for item in identified(piapi, self.requests):
                number = item.extra.number
                if ledger is None or item.key is None or number not in self.fileless:
                    continue
                if await ledger.find(item.key) is not None:
                    del self.fileless[number]
                    self.good += 1


def _say_errors(wrong: Mapping[int, BadLineError], noun: str) -> None:
    """Report errors; one that many lines have only once, with the first and the last of them."""
    by_reason: dict[str, list[int]] = {}
    for number in sorted(wrong):
        by_reason.setdefault(wrong[number].reason, []).append(number)

    for reason, numbers in list(by_reason.items())[:_SHOWN_ERRORS]:
        shown = numbers
        if len(numbers) > _SHOWN_SINGLY:
            shown = numbers[:1]
        for number in shown:
            say(f"{noun} {number}: {reason}")
        more = len(numbers) - len(shown)
        if more:
            say(f"  … and {more} more {noun}s likewise, the last is {numbers[-1]}")

    rest = len(by_reason) - _SHOWN_ERRORS
    if rest > 0:
        say(f"… and {rest} more errors")


async def identified(piapi: PiAPI, requests: BatchInput) -> AsyncGenerator[IdentifiedItem[Any], None]:
    """Yield the item of every good line, with the line's `Origin` as its `extra`.

    A key that it lacks is minted as the runner would.
    """
    run_id = token_hex(8)
    for lines in chunks(requests):
        items = [BatchItem(line.request, line.key) for line in lines]
        identities = await identify(runtime_of(piapi), items, run_id)
        identities.reverse()
        del items

        while lines:  # taken one by one, so that no request is held longer than it is needed
            line, identity = lines.pop(0), identities.pop()
            key, origin = line.key, line.origin
            if identity is not None:
                key = identity.key
                origin = evolve(origin, digest=digest_text(identity))
            item = IdentifiedItem(line.request, key, identity, extra=origin)
            del line, origin
            yield item


def chunks(requests: BatchInput) -> Iterator[list[Line]]:
    """Yield the good lines in chunks, each of which costs one transaction of the ledger.

    Raises `click.ClickException` if the source has been written to since it was checked.
    """
    chunk: list[Line] = []
    weight = 0
    for line in requests.lines():
        if isinstance(line, Line):
            chunk.append(line)
            weight += line.origin.size
        if len(chunk) >= CHUNK_LINES or weight >= CHUNK_BYTES:
            requests.source.check_unchanged()
            yield chunk
            chunk, weight = [], 0
    requests.source.check_unchanged()
    if chunk:
        yield chunk
