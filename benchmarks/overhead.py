"""What one call costs: requests per second and CPU per request, beside what a user would pick instead.

    python -m benchmarks.overhead [--smoke] [--json FILE]

The host is `benchmarks.server`, in a process and on a core of its own.  A `submit` makes a reroll, a `fetch` reads a
task that has finished (2.1 kB), and the last table has whole rerolls, from the submit to the end that is noticed.  Each
client comes as its package makes it, with all its defaults, but for the pause between two looks, which is the same for
all: most people write ``asyncio.gather``, a semaphore and a fixed sleep, and here that loop is not kept waiting.

All take turns in slices within one process, which has freed a large block of memory before: see `_new_process`, whose
table is of one that has not.  A ratio is the median over the rounds, and where the middle half lies.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path
from typing import Any

import orjson
from attrs import asdict, frozen

from . import _new_process
from ._clients import (
    BARE,
    KEPT,
    NEAR,
    ONLY_SUBMIT,
    OURS,
    OWNED,
    TRANSPORT,
    TYPED,
    Call,
    Calls,
    Client,
    installed,
    versions,
)
from ._goals import Goal, goals_table
from ._new_process import NewProcess
from ._slices import Loop, Slice, Spread, cpu, in_flight, ratios, take_turns, wall
from ._table import short, table
from .server import Remote, server_process

PAUSE = 0.005
"""Seconds between two looks at a task; real ones take a minute, but here it is not the waiting that is measured."""

GOAL_CPU = {"submit": 1.08, "fetch": 1.10}
GOAL_CPU_AT = (1, 64)
GOAL_RATE = {"openai": 5.0, "httpx": 10.0, "replicate": 10.0, "fal-client": 10.0}
GOAL_RATE_AT = 64

_LARGE = 8 << 20
"""Bytes of the block that is freed first, as by a process that has read a picture."""

BUSY = 0.5
"""The share of the time in which the host may be busy; above it, the host was what was measured."""


@frozen
class Setting:
    """How much is measured."""

    crowds: tuple[int, ...]
    rounds: int
    seconds: float
    peer_rounds: int


FULL = Setting((1, 64, 512), 40, 0.08, 5)
SMOKE = Setting((1, 64), 2, 0.01, 1)


@frozen
class Line:
    """One client doing one thing: CPU per call in µs, calls per second, and both beside others."""

    call: str
    in_flight: int
    client: str
    cpu: float
    rate: float
    cpu_to_bare: Spread
    rate_of_ours: Spread

    def cells(self) -> list[str]:
        """Give the line's texts."""
        return [
            f"{self.client}",
            short(self.cpu),
            f"{self.rate:,.0f}",
            "" if self.client == BARE else str(self.cpu_to_bare),
            "" if self.client == OURS else str(self.rate_of_ours),
        ]


@frozen
class Group:
    """All clients doing one thing, and how busy the host was with the fastest of them."""

    call: str
    in_flight: int
    lines: tuple[Line, ...]
    busy: float
    failed: Mapping[str, str]
    """What the clients that could not do it, as they come, raised."""

    def has(self, client: str) -> bool:
        """Tell whether a client was measured."""
        return any(line.client == client for line in self.lines)

    def of(self, client: str) -> Line:
        """Give the line of one client."""
        return next(line for line in self.lines if line.client == client)

    def text(self) -> str:
        """Give the table."""
        crowd = "one at a time" if self.in_flight == 1 else f"{self.in_flight} in flight"
        columns = ("", "µs CPU", "per second", f"CPU : {BARE}", f"{OURS}'s rate : its")
        title = f"{self.call}, {crowd}; the host was busy {self.busy:.0%} of the time"
        if self.busy > BUSY:
            title += ": TOO BUSY, the figures are worth nothing"
        failed = [f"{client} raises {error}" for client, error in self.failed.items()]
        return "\n".join([table(title, columns, [line.cells() for line in self.lines]), *failed])


# -- measuring ----------------------------------------------------------------------------------------------------


@frozen
class Arena:
    """The host, and the clients that have been opened for it."""

    remote: Remote
    near: Mapping[str, Calls]
    peers: Mapping[str, Calls]
    setting: Setting

    async def measure(self, call: str, crowd: int) -> Group:
        """Let all clients do one thing, so many at a time.

        The ratio to aiohttp is to be exact, so the near have many rounds of their own; the peers are far away.
        """
        setting = self.setting
        near = {
            name: calls for name, calls in self.near.items() if call == "submit" or name not in ONLY_SUBMIT
        }
        loops = _loops(near, call, crowd)
        await loops[OURS](crowd)  # connects, so that the host's share is that of work
        self.remote.reset()
        turns = await take_turns(loops, rounds=setting.rounds, seconds=setting.seconds, least=crowd)
        busy = self.remote.counted().busy
        lines = [_line(call, crowd, name, turns) for name in near]
        failed: dict[str, str] = {}
        if self.peers:
            peers = {
                name: _forgiving(loop, name, failed) for name, loop in _loops(self.peers, call, crowd).items()
            }
            loops = {OURS: loops[OURS], BARE: loops[BARE], **peers}
            rounds = 1 if crowd > GOAL_RATE_AT else setting.peer_rounds  # some take ten seconds for 512 calls
            turns = await take_turns(loops, rounds=rounds, seconds=setting.seconds, least=crowd)
            lines += [_line(call, crowd, name, turns) for name in self.peers if name not in failed]
        return Group(call, crowd, tuple(lines), busy, failed)


def _forgiving(loop: Loop, name: str, failed: dict[str, str]) -> Loop:
    """Give the loop of a client that may fail: some give up when hundreds wait for a connection."""

    async def forgiving(count: int) -> None:
        if name in failed:
            return
        try:
            await loop(count)
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            failed[name] = type(error).__name__

    return forgiving


def _loops(clients: Mapping[str, Calls], call: str, crowd: int) -> dict[str, Loop]:
    pick: Mapping[str, Callable[[Calls], Call]] = {
        "submit": lambda calls: calls.submit,
        "fetch": lambda calls: calls.fetch,
        "reroll": lambda calls: calls.reroll,
    }
    return {name: in_flight(crowd, pick[call](calls)) for name, calls in clients.items()}


def _line(call: str, crowd: int, name: str, turns: Mapping[str, list[Slice]]) -> Line:
    return Line(
        call,
        crowd,
        name,
        Spread.of([turn.cpu for turn in turns[name]]).median * 1e6,
        1 / Spread.of([turn.wall for turn in turns[name]]).median,
        ratios(turns[name], turns[BARE], cpu),
        ratios(turns[name], turns[OURS], wall),
    )


async def measure(remote: Remote, setting: Setting) -> list[Group]:
    """Measure everything."""
    groups = []
    bytes(_LARGE)  # freed at once: glibc keeps what is smaller at hand from now on
    async with AsyncExitStack() as stack:

        async def enter(clients: Mapping[str, Client]) -> dict[str, Calls]:
            return {
                name: await stack.enter_async_context(client(remote.base_url, PAUSE))
                for name, client in clients.items()
            }

        arena = Arena(remote, await enter(NEAR), await enter(installed()), setting)
        for call, crowd in [*product(("submit", "fetch"), setting.crowds), ("reroll", GOAL_RATE_AT)]:
            groups.append(await arena.measure(call, crowd))
            print(groups[-1].text(), end="\n\n", flush=True)
    return groups


# -- judging ------------------------------------------------------------------------------------------------------


def goals(groups: list[Group], new: list[NewProcess]) -> list[Goal]:
    """Hold the figures against the goals."""
    found = [_new_process_goal(line) for line in new]
    for group in groups:
        if group.call == "reroll":
            continue
        if group.in_flight in GOAL_CPU_AT:
            found.append(_cpu_goal(group))
        if group.in_flight == GOAL_RATE_AT:
            found += [_rate_goal(group, peer, wanted) for peer, wanted in GOAL_RATE.items()]
    return found


def _cpu_goal(group: Group) -> Goal:
    whole, transport, typed = (group.of(name).cpu_to_bare for name in (OURS, TRANSPORT, TYPED))
    why = (
        f"aiohttp with our bytes and types alone is at {short(typed.median)}; the transport, which knows what has "
        f"left, makes it {short(transport.median)}; "
    )
    if group.call == "submit":
        owner, kept = group.of(OWNED).cpu_to_bare, group.of(KEPT).cpu_to_bare
        why += (
            "a task that owns the POST, so that a cancelled caller loses no answer, makes it "
            f"{short(owner.median)}; what is promised, written as one function, {short(kept.median)}; the rest is "
            "the layers, which ask for a ledger, a receiver, a file and a pause"
        )
    else:
        why += "the rest is the throttle, retries, and counting"

    goal = GOAL_CPU[group.call]
    return Goal(
        f"CPU of a {group.call} : {BARE}'s, {group.in_flight} in flight",
        str(whole),
        f"<= {goal:.2f}",
        whole.median <= goal,
        _peers(group, lambda line: line.cpu_to_bare.median),
        why,
    )


def _new_process_goal(line: NewProcess) -> Goal:
    goal = GOAL_CPU[line.call]
    return Goal(
        f"CPU of a {line.call} : {BARE}'s, {line.in_flight} in flight, {_new_process.TITLE}",
        str(line.cpu_to_bare),
        f"<= {goal:.2f}",
        line.cpu_to_bare.median <= goal,
        why=(
            f"{BARE} had the system map {line.pages[BARE]:.2f} pages for a call; with none, as its heap happened "
            "to have room, a new process is like one that has freed a large block"
        ),
    )


def _peers(group: Group, pick: Callable[[Line], float]) -> str:
    others = [line for line in group.lines if line.client not in NEAR]
    return ", ".join(f"{line.client} {short(pick(line))}" for line in others)


def _rate_goal(group: Group, peer: str, wanted: float) -> Goal:
    what = f"rate of {_PLURAL[group.call]} : {peer}'s, {group.in_flight} in flight"
    if not group.has(peer):
        missing = group.failed.get(peer, "not installed")
        return Goal(what, f"{peer}: {missing}", f">= {wanted:g}", None)
    reached = group.of(peer).rate_of_ours
    why = f"{BARE} itself is at {short(reached.median / group.of(BARE).rate_of_ours.median)}"
    return Goal(what, str(reached), f">= {wanted:g}", reached.median >= wanted, why=why)


_PLURAL = {"submit": "submits", "fetch": "fetches", "reroll": "rerolls"}


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the tables; `smoke` measures for seconds, and its figures mean little."""
    begun = time.perf_counter()
    setting = SMOKE if smoke else FULL
    with server_process() as remote:
        new = _new_process.measure(remote.base_url, rounds=setting.rounds, seconds=setting.seconds)
        print(
            table(_new_process.TITLE, _new_process.COLUMNS, [line.cells() for line in new]),
            end="\n\n",
            flush=True,
        )
        groups = asyncio.run(measure(remote, setting))
    judged = goals(groups, new)
    print(goals_table("overhead", judged), end="\n\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found: dict[str, Any] = {
            "goals": [asdict(goal) for goal in judged],
            "groups": [asdict(group) for group in groups],
            _new_process.TITLE: [asdict(line) for line in new],
            "versions": versions(),
        }
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What one call costs.")
    parser.add_argument(
        "--smoke", action="store_true", help="seconds instead of minutes; the numbers mean little"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
