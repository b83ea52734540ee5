"""Plays a story: has its steps happen, each at its time, and sees the life to its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import sqlite3
from functools import partial, singledispatchmethod
from pathlib import Path
from random import Random

from attrs import define

from piapi_async import Ledger

from .deliveries import Deliveries
from .files import is_whole
from .host import Host
from .plans import HISTORIES
from .processes import Process, Processes
from .record import Part, Record
from .steps import (
    Batch,
    CancelTask,
    Close,
    Compact,
    Down,
    Freeze,
    FullDisk,
    Jump,
    Kill,
    MoveLedger,
    OtherRequest,
    Recover,
    Resolve,
    Step,
    Submit,
    Weather,
)
from .story import Story
from .surroundings import disk_of, log_into, seeded
from .users import Users
from .world import StuckError, World, wall_clock_of

LONG_AGO = -300.0
"""When strangers asked for the same: before the windows in which anything here can have been made."""

PATIENCE = 10_000.0
"""Virtual seconds for everything to end once nothing goes wrong any more."""


@define(eq=False)
class Player(Part):
    """Has the steps of one story happen."""

    folder: Path
    processes: Processes
    users: Users

    @singledispatchmethod
    def perform(self, step: Step) -> None:
        """Have a step happen now."""
        raise AssertionError(step)

    # -- users --------------------------------------------------------------------------------------------------------

    @perform.register
    def _(self, step: Submit) -> None:
        subject = self.record.story.subject(step.intent)
        self.host.expect(subject, step.plans)
        self.host.lives[subject] = (step.seconds, step.end)
        self.host.expect_files(subject, step.files)
        work = self.users.run if step.runs and step.wait else self.users.submit
        self.processes.use(step.process, partial(work, step), step.leave)

    @perform.register
    def _(self, step: Batch) -> None:
        subject_of = self.record.story.subject
        for intent, plan in step.plans:
            self.host.expect(subject_of(intent), [plan])
        for intent in step.intents:
            fate = (step.fails_after, "failed") if intent in step.failing else (20.0, "done")
            self.host.lives[subject_of(intent)] = fate
            self.record.retries[intent] += step.retry_failed
            if step.max_cost is not None:
                self.host.prices[subject_of(intent)] = step.price
            self.host.expect_files(subject_of(intent), step.files)
        self.processes.use(step.process, partial(self.users.batch, step), step.leave)

    @perform.register
    def _(self, step: OtherRequest) -> None:
        self.processes.use(step.process, partial(self.users.other_request, step))

    @perform.register
    def _(self, step: CancelTask) -> None:
        self.processes.use(step.process, partial(self.users.cancel, step))

    @perform.register
    def _(self, step: Recover) -> None:
        self.processes.use(step.process, self.users.recover)

    @perform.register
    def _(self, step: Resolve) -> None:
        self.processes.use(step.process, partial(self.users.resolve, step))

    @perform.register
    def _(self, step: Close) -> None:
        self.processes.use(step.process, self.users.close)

    @perform.register
    def _(self, _: Compact) -> None:
        self.processes.use(0, self.users.compact)

    # -- the host, the network, the machine ---------------------------------------------------------------------------

    @perform.register
    def _(self, step: Weather) -> None:
        end = math.inf if step.lasting else self.world.now + step.seconds
        self.host.weather.append((self.world.now, end, step.kind))

    @perform.register
    def _(self, step: Down) -> None:
        self.world.refusal = OSError(errno.ECONNREFUSED, "Connection refused")
        if step.descriptors:
            self.world.refusal = OSError(errno.EMFILE, "Too many open files")
        self.world.after(step.seconds, self._up)

    def _up(self) -> None:
        self.world.refusal = None

    @perform.register
    def _(self, step: Kill) -> None:
        process = self.processes.running[step.process]
        kill = partial(self.world.after, 0.0, partial(self.processes.kill_if_alive, process))
        process.loop.alarms.append((process.loop.turns + step.turns, kill))

    @perform.register
    def _(self, step: Freeze) -> None:
        self.processes.running[step.process].loop.frozen_until = self.world.now + step.seconds

    @perform.register
    def _(self, step: Jump) -> None:
        self.world.wall_offset += step.seconds

    @perform.register
    def _(self, step: FullDisk) -> None:
        self.world.disk_full = True
        self.world.after(step.seconds, self._disk_freed)

    def _disk_freed(self) -> None:
        self.world.disk_full = False

    @perform.register
    def _(self, _: MoveLedger) -> None:
        self.record.ledger_moved = True
        for path in self.folder.glob("*run.db*"):
            path.rename(path.with_name(f"moved-{path.name}"))


# -- a whole life -----------------------------------------------------------------------------------------------------


def play(story: Story, folder: Path) -> Record:
    """Play a story to its end and return what is known of it."""
    world = World()
    host = _host_of(story, world)
    record = Record(story, world, host)
    processes = Processes(record, folder)
    player = Player(record, folder, processes, Users(record, folder, processes))
    if story.webhooks:
        host.deliver = Deliveries(record, processes, Random(f"player {story.seed}")).deliver

    disk = disk_of(world, lambda: processes.current)
    with wall_clock_of(world), seeded(story.seed), disk, log_into(record.log):
        processes.running = [processes.start(number, 0) for number in range(story.processes)]
        for step in story.steps:
            world.after(step.at, partial(player.perform, step))
        try:
            _run(player)
        except StuckError as error:
            _note_stuck(player, error)
            return record
        _inspect(player)
    return record


def _host_of(story: Story, world: World) -> Host:
    history = Random(f"history {story.seed}").choice(HISTORIES)
    host = Host(world, Random(f"host {story.seed}"), history=history)
    world.accept = host.connect
    host.shows_models, host.legnext = story.shows_models, story.legnext
    if story.strangers:
        host.strangers = True
        host.copied = story.asked_for_once
        for subject in sorted({story.subject(intent) for intent in story.intents}):
            host.have_stranger(f"a cat, #{subject}", f"simulated/#{subject}", LONG_AGO)
    return host


def _note_stuck(player: Player, error: StuckError) -> None:
    waiting = [attempt.task_id for attempt in player.record.attempts if attempt.waiting]
    player.record.wrong.append(f"stuck: {error}; {len(waiting)} waits are still on: {waiting}")
    for process in player.processes.running:
        process.die()


def _inspect(player: Player) -> None:
    """See what is left when all is closed."""
    record = player.record
    _inspect_ledger(player)
    _inspect_pictures(player)
    for process in player.processes.running:
        process.loop.close()
    if not record.dead_lives and not record.ledger_moved:
        left = sorted(path.name for path in player.folder.glob("*owner*"))
        record.wrong += [f"after close() files are left: {left}"] * bool(left)


def _run(player: Player) -> None:
    record, world = player.record, player.world
    over_at = max((step.over_at for step in record.story.steps), default=0.0) + 1.0
    world.after(over_at, lambda: None)
    world.run_until(lambda: world.now >= over_at, limit=over_at + PATIENCE)
    record.healed_at = world.now
    for process in player.processes.running:
        process.loop.alarms.clear()

    world.run_until(lambda: _all_done(player), limit=record.healed_at + PATIENCE)
    for process in player.processes.running:
        _close_process(player, process)


def _all_done(player: Player) -> bool:
    return all(task.done() for process in player.processes.running for task in process.tasks)


def _close_process(player: Player, process: Process) -> None:
    world, record = player.world, player.record
    closing = process.loop.create_task(process.client.close())
    world.run_until(closing.done, limit=world.now + PATIENCE)
    if (error := closing.exception()) is not None:
        record.wrong.append(f"close() raised {error!r}")

    # A turn or two for what the closing has set free.
    settling = process.loop.create_task(_turns(5))
    world.run_until(settling.done, limit=world.now + PATIENCE)

    if left := asyncio.all_tasks(process.loop):
        record.wrong.append(f"after close() tasks are left: {left}")
    if open_files := sum(_is_open(connection) for connection in process.connections):
        record.wrong.append(f"after close() {open_files} database connections are left")
    if open_files := sum(not file.closed for file in process.files):
        record.wrong.append(f"after close() {open_files} files are left open")
    if process.loop.transports:
        record.wrong.append(f"after close() {len(process.loop.transports)} connections are left")
    record.wrong += [f"the loop complained: {text}" for text in process.loop.complaints]


def _inspect_pictures(player: Player) -> None:
    """Look at the saved pictures, once a later process has cleared away what killed ones have left."""
    folder, record = player.users.pictures, player.record
    if not folder.exists():
        return
    if record.dead_lives:
        process = player.processes.start(98, 0)
        clearing = process.loop.create_task(player.users.save_nothing(process))
        player.world.run_until(clearing.done, limit=player.world.now + PATIENCE)
        _close_process(player, process)
        process.loop.close()

    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            record.wrong.append(f"something half-written is left: {path.name}")
        elif not is_whole(path.name, path.read_bytes()):
            record.wrong.append(f"the picture {path.name} is not whole")


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _inspect_ledger(player: Player) -> None:
    """Read the ledger as a later process would."""
    record = player.record
    if not record.story.ledger or record.ledger_moved:
        return
    process = player.processes.start(99, 0)
    rows: dict[str, tuple[str, str | None]] = {}

    async def read() -> None:
        ledger = Ledger(player.folder / "run.db")
        try:
            async for entry in ledger:
                rows[entry.key] = (entry.state.value, entry.task_id)
        finally:
            await ledger.close()

    reading = process.loop.create_task(read())
    player.world.run_until(reading.done, limit=player.world.now + PATIENCE)
    process.loop.close()
    if (error := reading.exception()) is not None:
        record.wrong.append(f"the ledger cannot be read: {error!r}")
    record.ledger_rows = rows
    with contextlib.suppress(sqlite3.Error):  # nothing was ever submitted
        record.ledger_attempts = player.users.earlier_tasks(refused=False)
        record.ledger_refused.update(*player.users.earlier_tasks(refused=True).values())
