"""Processes with real clients: started, killed, left by the users whose calls they make."""

from __future__ import annotations

import asyncio
import ctypes
import sqlite3
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from random import Random
from typing import IO, Any

import anyio
from attrs import define, field, frozen

from piapi_async import Ledger, PiAPI, WebhookReceiver, legnext
from piapi_async.observe import Event, SubmissionAccepted

from .record import Record
from .steps import Leave
from .surroundings import new_memory, remember
from .tasks import KEY, SECRET
from .world import SimLoop, World

REBOOT = 2.0
"""Seconds until a killed process is started again."""


@define(eq=False)
class Process:
    """One process: a loop, a client, perhaps a ledger."""

    number: int
    life: int
    loop: SimLoop
    client: PiAPI
    receiver: WebhookReceiver | None
    clients: int = 1  # how many it has had
    connections: list[sqlite3.Connection] = field(factory=list)
    files: list[IO[bytes]] = field(factory=list)
    memory: dict[str, Any] = field(factory=new_memory)
    tasks: list[asyncio.Task[None]] = field(factory=list)

    def die(self) -> None:
        """Stop for ever, as `kill -9` does: only what is on disk remains."""
        for remains in (self, *asyncio.all_tasks(self.loop)):
            # A reference that is never given back: a dead process runs no `finally`, not even at our own end.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(remains))
        self.loop.kill()
        for connection in self.connections:
            connection.close()  # which rolls back what was not committed, and frees the locks
        for file in self.files:
            file.close()


@frozen
class _Observer:
    """Notes when a client learns of a task, which `run` tells nobody else."""

    record: Record
    number: int
    life: int

    def on_event(self, event: Event) -> None:
        if isinstance(event, SubmissionAccepted):
            self.record.accepted[self.number, self.life, event.task_id].append(self.record.world.now)


@define(eq=False)
class Processes:
    """The processes of a life, by their numbers, and which of them is having its turn."""

    record: Record
    folder: Path
    running: list[Process] = field(factory=list)
    current: Process | None = None

    @property
    def world(self) -> World:
        """Where they run."""
        return self.record.world

    def start(self, number: int, life: int) -> Process:
        """Start a process, with a client of its own."""
        rng = Random(f"{self.record.story.seed}/{number}/{life}")
        loop = SimLoop(self.world, lambda: rng.choice((0.0, 0.0002, 0.004)))
        process = Process(number, life, loop, *self.client(number, life))
        self._track(process)
        return process

    def client(self, number: int, life: int) -> tuple[PiAPI, WebhookReceiver | None]:
        """Return a client, and what takes its deliveries."""
        ledger = Ledger(self.folder / "run.db") if self.record.story.ledger else None
        make = legnext.client if self.record.story.legnext else PiAPI
        observer = _Observer(self.record, number, life)
        client = make(KEY, base_url="http://127.0.0.1:80", ledger=ledger, observers=[observer])
        if not self.record.story.webhooks:
            return client, None
        return client, WebhookReceiver(client, secret=SECRET, url="https://hooks.example.org/piapi")

    def _track(self, process: Process) -> None:
        """Note which process opens what, so that a killed one can let go of it as the operating system would."""
        step = process.loop.step

        def tracked() -> None:
            before, self.current = self.current, process
            remember(process.memory)
            try:
                step()
            finally:
                self.current = before

        process.loop.step = tracked  # type: ignore[method-assign] # of this one loop

    def spawn(self, process: Process, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a user's coroutine in a process."""
        task = process.loop.create_task(work)
        process.tasks.append(task)
        return task

    def kill(self, number: int) -> None:
        """Kill a process: nothing of it runs any more; start it anew a little later."""
        process = self.running[number]
        process.die()
        self.record.dead_lives.add((number, process.life))

        # Its successor is there at once, and does nothing until the reboot is over.
        successor = self.start(number, process.life + 1)
        successor.loop.frozen_until = self.world.now + REBOOT
        self.running[number] = successor

    def kill_if_alive(self, process: Process) -> None:
        """Kill a process unless it has died already."""
        if self.running[process.number] is process:
            self.kill(process.number)

    def use(
        self, number: int, work: Callable[[Process], Coroutine[Any, Any, None]], leave: Leave | None = None
    ) -> None:
        """Have a user's work done in a process, and be left as the user leaves."""
        process = self.running[number]
        self.record.host.happened[f"leave: {leave.how if leave else 'never'}"] += 1
        if leave is None:
            self.spawn(process, work(process))
            return
        scopes: list[anyio.CancelScope] = []
        wrapped = {"cancel": _plainly, "scope": _in_scope, "group": _in_group}[leave.how](
            work(process), scopes
        )
        task = self.spawn(process, wrapped)
        leaving = partial(_stop, task, scopes)
        alarm = partial(process.loop.call_soon, leaving)
        process.loop.alarms.append((process.loop.turns + leave.turns, alarm))


def _stop(task: asyncio.Task[None], scopes: list[anyio.CancelScope]) -> None:
    """Cancel a user's work: by its scope where it has one."""
    if task.done():
        return
    if scopes:
        scopes[0].cancel()
    else:
        task.cancel()


async def _plainly(work: Coroutine[Any, Any, None], _: list[anyio.CancelScope]) -> None:
    await work


async def _in_scope(work: Coroutine[Any, Any, None], scopes: list[anyio.CancelScope]) -> None:
    with anyio.CancelScope() as scope:
        scopes.append(scope)
        await work


async def _in_group(work: Coroutine[Any, Any, None], scopes: list[anyio.CancelScope]) -> None:
    async with anyio.create_task_group() as group:
        scopes.append(group.cancel_scope)
        group.start_soon(_plainly, work, [])
