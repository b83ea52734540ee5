"""What users do to a client in the soak run: every verb, and every way to wait, to give up and to come back.

An intent is one thing that somebody wants to have once.  It has a number, which stands in its request and its key.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from attrs import define, field

from piapi_async import (
    APIError,
    BatchItem,
    BatchRunner,
    Blend,
    Describe,
    Imagine,
    Inpaint,
    LedgerError,
    Outpaint,
    Pan,
    PiAPI,
    PiAPIError,
    Reroll,
    Seed,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    TransportError,
    UnexpectedAnswer,
    Upscale,
    Variation,
    WaitTimeout,
    as_completed,
    wait_all,
)

PATIENCE = 60.0
"""Seconds; a wait that takes longer is lost, for no task runs for more than a tenth of that."""

_HURRY = 0.3  # seconds for which the impatient wait
_SOON = 0.02  # seconds within which a caller is cancelled
_TOGETHER = 5  # intents that are waited for together

_LINK = "https://img.example.org/soak-{}.png"

VERBS: Sequence[Callable[[int], Any]] = (
    lambda number: Imagine(f"soak-{number}", process_mode="fast"),
    lambda number: Reroll(f"soak-{number}", prompt="a quiet landscape"),
    lambda number: Upscale(f"soak-{number}", index=1 + number % 4),
    lambda number: Variation(f"soak-{number}", index="high_variation"),
    lambda number: Inpaint(f"soak-{number}", mask=b"not much of a mask"),
    lambda number: Outpaint(f"soak-{number}", zoom_ratio="1.5"),
    lambda number: Pan(f"soak-{number}", direction="left"),
    lambda number: Describe(_LINK.format(number)),
    lambda number: Blend([_LINK.format(number), _LINK.format("other")]),
    lambda number: Seed(f"soak-{number}"),
)


def key_of(number: int) -> str:
    """Give the key under which an intent is in the ledger."""
    return f"soak-{number}"


def request_of(number: int) -> Any:  # noqa: ANN401 - ten classes
    """Give an intent's request: the verbs take turns."""
    return VERBS[number % len(VERBS)](number)


@define(eq=False)
class Numbers:
    """The numbers of the intents, each given once."""

    given: int = 0

    def next(self) -> int:
        """Give one more."""
        self.given += 1
        return self.given


@define(eq=False)
class Users:
    """Those who use one client.  `outcomes` counts what they heard; `broken` has what should never be heard."""

    piapi: PiAPI
    numbers: Numbers
    rng: Random
    outcomes: Counter[str]
    broken: list[str]
    _ways: Sequence[tuple[Callable[[int], Awaitable[None]], int]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ways = (
            (self._patient, 45),
            (self._impatient, 10),
            (self._curious, 10),
            (self._looking, 5),
            (self._twice, 7),
            (self._given_up, 7),
            (self._regretted, 5),
            (self._detached, 5),
            (self._together, 3),
            (self._completed, 2),
            (self._bulk, 1),
        )

    async def use(self, stop: asyncio.Event) -> None:
        """Have one intent after the other until told to stop."""
        ways, weights = zip(*self._ways, strict=True)
        while not stop.is_set():
            (way,) = self.rng.choices(ways, weights)
            try:
                await way(self.numbers.next())
            except Exception:  # noqa: BLE001 - to be told of, whatever it is
                self.broken.append(traceback.format_exc())

    # -- what they do ---------------------------------------------------------------------------------------------

    async def _patient(self, number: int) -> None:
        if (handle := await self._submit(number)) is not None:
            await self._wait(handle)

    async def _impatient(self, number: int) -> None:
        if (handle := await self._submit(number)) is None:
            return
        for _ in range(3):
            try:
                await handle.wait(timeout=_HURRY)
            except WaitTimeout:
                continue
            except (TaskFailed, TaskCancelled):
                break
        await self._wait(handle)

    async def _curious(self, number: int) -> None:
        if (handle := await self._submit(number)) is None:
            return
        async for _ in handle.updates(timeout=PATIENCE):
            self.outcomes["updates"] += 1
        await self._wait(handle)

    async def _looking(self, number: int) -> None:
        if (handle := await self._submit(number)) is None:
            return
        for look in (handle.refresh, lambda: self.piapi.fetch_many([handle.task_id, "soak-nobody"])):
            try:
                await look()
            except (
                APIError,
                TransportError,
                UnexpectedAnswer,
            ) as error:  # reads are repeated, but not for ever
                self.outcomes[f"look: {type(error).__name__}"] += 1
        await self._wait(handle)

    async def _twice(self, number: int) -> None:
        """Two want the same thing at the same time."""
        handles = await asyncio.gather(self._submit(number), self._submit(number))
        found = [handle for handle in handles if handle is not None]
        if len(set(found)) > 1:
            self.broken.append(f"one key, two tasks: {found}")
        await asyncio.gather(*(self._wait(handle) for handle in found))

    async def _given_up(self, number: int) -> None:
        """Somebody is cancelled while submitting, and comes back."""
        first = asyncio.create_task(self._submit(number))
        await asyncio.wait([first], timeout=self.rng.random() * _SOON)
        first.cancel()
        await asyncio.wait([first])
        self.outcomes["given up"] += first.cancelled()
        await self._patient(number)

    async def _regretted(self, number: int) -> None:
        if (handle := await self._submit(number)) is None:
            return
        try:
            await handle.cancel()
        except PiAPIError as error:
            self.outcomes[f"cancel: {type(error).__name__}"] += 1
        await self._wait(handle)

    async def _detached(self, number: int) -> None:
        """Somebody's wait is cancelled, and somebody else attaches to the task."""
        if (handle := await self._submit(number)) is None:
            return
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(self.rng.random() * _HURRY)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await self._wait(self.piapi.attach(handle.ref))

    async def _together(self, number: int) -> None:
        handles = await self._several(number)
        for outcome in await wait_all(handles, timeout=PATIENCE):
            self._note(outcome)

    async def _completed(self, number: int) -> None:
        async for handle in as_completed(await self._several(number), timeout=PATIENCE):
            self._note(handle.error or handle.task)

    async def _several(self, number: int) -> list[TaskHandle[Any]]:
        numbers = [number, *(self.numbers.next() for _ in range(_TOGETHER - 1))]
        handles = await asyncio.gather(*map(self._submit, numbers))
        return [handle for handle in handles if handle is not None]

    async def _bulk(self, number: int) -> None:
        numbers = [number, *(self.numbers.next() for _ in range(2 * _TOGETHER - 1))]
        items = [BatchItem(request_of(each), key=key_of(each)) for each in numbers]
        runner = BatchRunner(self.piapi, concurrency=_TOGETHER, timeout=PATIENCE)
        for outcome in await runner.run(items):
            self._note(outcome.error or outcome.task)

    # -- what they hear -------------------------------------------------------------------------------------------

    async def _submit(self, number: int) -> TaskHandle[Any] | None:
        try:
            return await self.piapi.submit(request_of(number), key=key_of(number))
        except PiAPIError as error:
            self._note(error)
            return None

    async def _wait(self, handle: TaskHandle[Any]) -> None:
        try:
            self._note(await handle.wait(timeout=PATIENCE))
        except PiAPIError as error:
            self._note(error)

    def _note(self, outcome: object) -> None:
        name = next((name for name, kinds in _NAMES.items() if isinstance(outcome, kinds)), None)
        if isinstance(outcome, LedgerError) and "under way elsewhere" in str(outcome):
            name = "key busy"  # its first submission waits for a delivery, for longer than a second one waits
        if name is None and isinstance(outcome, PiAPIError):
            self.broken.append("".join(traceback.format_exception(outcome)))
        self.outcomes[name or "done"] += 1


_NAMES: Mapping[str, tuple[type[PiAPIError], ...]] = {
    "unknown": (SubmissionUnknown,),
    "refused": (APIError,),
    "not sent": (TransportError,),
    "failed": (TaskFailed,),
    "cancelled": (TaskCancelled,),
    "late": (WaitTimeout,),
}
