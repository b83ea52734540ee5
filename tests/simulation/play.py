"""Plays a story: processes with real clients, users who call them, and a record of what each user was told."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import math
import random
import re
import sqlite3
import sys
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import anyio
from attrs import define, field

from piapi_async import (
    BatchRunner,
    ClientClosed,
    CreateTask,
    Imagine,
    Ledger,
    PiAPI,
    PiAPIError,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    WaitTimeout,
    WebhookReceiver,
    legnext,
)
from piapi_async.batch import BatchItem

from .host import HISTORIES, KEY, SECRET, Host, HostTask
from .steps import (
    OTHER,
    Batch,
    Close,
    Compact,
    Down,
    Freeze,
    FullDisk,
    Jump,
    Kill,
    Leave,
    MoveLedger,
    OtherRequest,
    Recover,
    Resolve,
    Step,
    Submit,
    Weather,
)
from .story import Story
from .world import SimLoop, StuckError, World, wall_clock_of

LONG_AGO = -300.0
"""When strangers asked for the same: before the windows in which anything here can have been made."""

REBOOT = 2.0
"""Seconds until a killed process is started again."""

PATIENCE = 10_000.0
"""Virtual seconds for everything to end once nothing goes wrong any more."""


@define(eq=False)
class Attempt:
    """What one user was told of one submission."""

    intent: int
    process: int
    keyed: bool
    life: int
    client: int  # which of all clients was called
    state: str = "started"  # accepted, refused, unknown, not sent, closed, cancelled, reused, ledger, odd
    task_id: str = ""
    error: str = ""
    accepted_at: float = 0.0
    ended: str = ""  # how its wait ended
    ended_at: float = 0.0
    waiting: bool = False
    timeout: float | None = None
    waited_from: float = 0.0


@define(eq=False)
class Record:
    """All that is known at the end of a life."""

    story: Story
    world: World
    host: Host
    attempts: list[Attempt] = field(factory=list)
    resent: dict[int, int] = field(factory=dict)  # how often a person allowed an intent to be sent again
    # how often somebody asked for another attempt if it failed
    retries: Counter[int] = field(factory=Counter)
    delivered: defaultdict[str, set[tuple[int, int]]] = field(factory=lambda: defaultdict(set))
    """To which lives of which processes the end of a task was delivered."""
    log: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)  # what was seen to be wrong while it was played
    dead_lives: set[tuple[int, int]] = field(factory=set)
    ledger_rows: dict[str, tuple[str, str | None]] | None = None
    # by key the tasks of the attempts before the last
    ledger_attempts: dict[str, list[str]] = field(factory=dict)
    # the tasks that refusals have named
    ledger_refused: set[str] = field(factory=set)
    ledger_moved: bool = False
    healed_at: float = 0.0

    def has_twin(self, intent: int) -> bool:
        """Return whether another intent asks for the same."""
        subject_of = self.story.subject
        return any(
            other != intent and subject_of(other) == subject_of(intent) for other in self.story.intents
        )


class SourceError(Exception):
    """Raised by a user's own code."""


@define(eq=False)
class Process:
    """One process: a loop, a client, perhaps a ledger."""

    number: int
    life: int
    loop: SimLoop
    client: PiAPI
    receiver: WebhookReceiver | None
    connections: list[sqlite3.Connection] = field(factory=list)
    tasks: list[asyncio.Task[None]] = field(factory=list)

    def die(self) -> None:
        """Stop for ever, as `kill -9` does: only what is on disk remains."""
        for remains in (self, *asyncio.all_tasks(self.loop)):
            # A reference that is never given back: a dead process runs no `finally`, not even at our own end.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(remains))
        self.loop.kill()
        for connection in self.connections:
            connection.close()  # which rolls back what was not committed, and frees the locks


@define(eq=False)
class Player:
    """Plays one story."""

    record: Record
    folder: Path
    rng: Random
    processes: list[Process] = field(factory=list)
    current: Process | None = None

    @property
    def world(self) -> World:
        return self.record.world

    @property
    def host(self) -> Host:
        return self.record.host

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self, number: int, life: int) -> Process:
        """Start a process, with a client of its own."""
        rng = Random(f"{self.record.story.seed}/{number}/{life}")
        loop = SimLoop(self.world, lambda: rng.choice((0.0, 0.0002, 0.004)))
        process = Process(number, life, loop, *self._client())
        self._track(process)
        return process

    def _client(self) -> tuple[PiAPI, WebhookReceiver | None]:
        ledger = Ledger(self.folder / "run.db") if self.record.story.ledger else None
        make = legnext.client if self.record.story.legnext else PiAPI
        client = make(KEY, base_url="http://127.0.0.1:80", ledger=ledger)
        if not self.record.story.webhooks:
            return client, None
        return client, WebhookReceiver(client, secret=SECRET, url="https://hooks.example.org/piapi")

    # -- webhooks -----------------------------------------------------------------------------------------------------

    def deliver(self, task: HostTask) -> None:
        """Bring the end of a task to the processes: perhaps never, twice, late, or to the wrong one."""
        fate = self.rng.random()
        if fate < 0.2:
            self.host.happened["webhook: lost"] += 1
            return
        times = 2 if fate < 0.35 else 1
        self.host.happened["webhook: twice"] += times == 2
        for _ in range(times):
            late = self.rng.choice((0.0, 0.0, 0.5, 30.0))
            self.host.happened["webhook: late"] += late > 0
            self.world.after(late, partial(self._deliver_now, task))

    def _deliver_now(self, task: HostTask) -> None:
        process = self.rng.choice(self.processes)
        if process.receiver is not None and process.loop in self.world.loops:
            self.spawn(process, self._handle(process, process.receiver, task))

    async def _handle(self, process: Process, receiver: WebhookReceiver, task: HostTask) -> None:
        headers = {"x-webhook-secret": SECRET, "content-type": "application/json"}
        try:
            await receiver.handle(headers, self.host.delivery(task), query=urlsplit(task.endpoint).query)
        except ClientClosed:
            return
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"a delivery raised {error!r}")
        else:
            self.record.delivered[task.task_id].add((process.number, process.life))
            self.host.happened["webhook: taken"] += 1

    def _track(self, process: Process) -> None:
        """Note which process opens what, so that a killed one can let go of it as the operating system would."""
        step = process.loop.step

        def tracked() -> None:
            before, self.current = self.current, process
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
        process = self.processes[number]
        process.die()
        self.record.dead_lives.add((number, process.life))

        # Its successor is there at once, and does nothing until the reboot is over.
        successor = self.start(number, process.life + 1)
        successor.loop.frozen_until = self.world.now + REBOOT
        self.processes[number] = successor

    # -- steps --------------------------------------------------------------------------------------------------------

    def perform(self, step: Step) -> None:  # noqa: C901, PLR0912 - one case for each kind of step
        """Have a step happen now."""
        match step:
            case Submit():
                subject = self.record.story.subject(step.intent)
                self.host.plans.setdefault(subject, _queue()).extend(step.plans)
                self.host.lives[subject] = (step.seconds, step.end)
                work = self._run if step.runs and step.wait else self._submit
                self._user(step.process, partial(work, step), step.leave)
            case Batch():
                subject_of = self.record.story.subject
                for intent, plan in step.plans:
                    self.host.plans.setdefault(subject_of(intent), _queue()).append(plan)
                for intent in step.intents:
                    fate = (step.fails_after, "failed") if intent in step.failing else (20.0, "done")
                    self.host.lives[subject_of(intent)] = fate
                    self.record.retries[intent] += step.retry_failed
                self._user(step.process, partial(self._batch, step), step.leave)
            case OtherRequest():
                self._user(step.process, partial(self._other_request, step), None)
            case Recover():
                self._user(step.process, self._recover, None)
            case Resolve():
                self._user(step.process, partial(self._resolve, step), None)
            case Weather():
                end = math.inf if step.lasting else self.world.now + step.seconds
                self.host.weather.append((self.world.now, end, step.kind))
            case Down():
                number = 24 if step.descriptors else 111
                self.world.refusal = OSError(
                    number, "Too many open files" if step.descriptors else "Connection refused"
                )
                self.world.after(step.seconds, self._up)
            case Kill():
                process = self.processes[step.process]
                kill = partial(self.world.after, 0.0, partial(self._kill_if_alive, process))
                process.loop.alarms.append((process.loop.turns + step.turns, kill))
            case Freeze():
                self.processes[step.process].loop.frozen_until = self.world.now + step.seconds
            case Jump():
                self.world.wall_offset += step.seconds
            case FullDisk():
                self.world.disk_full = True
                self.world.after(step.seconds, self._disk_freed)
            case Close():
                self._user(step.process, self._close, None)
            case Compact():
                self._user(0, self._compact, None)
            case MoveLedger():
                self.record.ledger_moved = True
                for path in self.folder.glob("*run.db*"):
                    path.rename(path.with_name(f"moved-{path.name}"))
            case _:
                raise AssertionError(step)

    def _up(self) -> None:
        self.world.refusal = None

    def _disk_freed(self) -> None:
        self.world.disk_full = False

    def _kill_if_alive(self, process: Process) -> None:
        if self.processes[process.number] is process:
            self.kill(process.number)

    def _user(
        self, number: int, work: Callable[[Process], Coroutine[Any, Any, None]], leave: Leave | None
    ) -> None:
        process = self.processes[number]
        self.host.happened[f"leave: {leave.how if leave else 'never'}"] += 1
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

    # -- users --------------------------------------------------------------------------------------------------------

    async def _submit(self, step: Submit, process: Process) -> None:
        attempt = self._attempt(step.intent, process, keyed=step.keyed)
        key = str(step.intent) if step.keyed else None
        try:
            handle = await process.client.submit(self._request(step.intent, unified=step.unified), key=key)
        except BaseException as error:
            self._note_failure(attempt, error)
            if not isinstance(error, Exception):
                raise
            return
        attempt.state, attempt.task_id, attempt.accepted_at = "accepted", handle.task_id, self.world.now
        if step.wait:
            await self._wait(attempt, handle, None if step.wait == float("inf") else step.wait)

    async def _run(self, step: Submit, process: Process) -> None:
        attempt = self._attempt(step.intent, process, keyed=step.keyed)
        request = self._request(step.intent, unified=step.unified)
        key = str(step.intent) if step.keyed else None
        note = {"intent": step.intent} if self.record.story.ledger else None
        timeout = None if step.wait == float("inf") else step.wait
        try:
            task = await process.client.run(request, key=key, timeout=timeout, note=note)
            attempt.task_id, attempt.ended = task.task_id, task.state.value
        except (TaskFailed, TaskCancelled) as error:
            attempt.task_id, attempt.ended = error.task.task_id, type(error).__name__
        except WaitTimeout as error:
            attempt.task_id, attempt.ended = error.ref.task_id if error.ref else "", "WaitTimeout"
        except BaseException as error:
            self._note_failure(attempt, error)
            if not isinstance(error, Exception):
                raise
            return
        attempt.state = "accepted"  # when, nobody was told: so how late its end was noticed is not judged

    def _request(self, intent: int, *, unified: bool) -> Any:
        """Return the request of an intent: a number stands in the prompt, and in what an error says of it."""
        subject = self.record.story.subject(intent)
        if unified:
            return CreateTask(f"simulated/#{subject}", "txt2img", {"prompt": f"a cat, #{subject}"})
        return self._imagine(f"a cat, #{subject}")

    def _imagine(self, prompt: str) -> Any:
        if self.record.story.legnext:
            return legnext.Imagine(prompt)
        return Imagine(prompt)

    async def _wait(self, attempt: Attempt, handle: TaskHandle[Any], timeout: float | None) -> None:
        attempt.waiting, attempt.timeout, attempt.waited_from = True, timeout, self.world.now
        try:
            task = await handle.wait(timeout)
            attempt.ended = task.state.value
            if any(attempt.task_id not in link for link in (task.task_id, *task.images)):
                wrong = f"a wait for {attempt.task_id} returned {task.task_id}, and {task.images}"
                self.record.wrong.append(wrong)
        except PiAPIError as error:
            attempt.ended = type(error).__name__
            attempt.error = str(error)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"a wait raised {error!r}")
        finally:
            attempt.waiting = False
            attempt.ended_at = self.world.now

    async def _batch(self, step: Batch, process: Process) -> None:
        runner = BatchRunner(
            process.client,
            concurrency=step.concurrency,
            retry_failed=step.retry_failed,
            on_progress=_raise if step.progress_fails else None,
        )
        attempts = {
            intent: self._attempt(intent, process, keyed=self.record.story.ledger) for intent in step.intents
        }
        outcomes: list[Any] = []
        try:
            async with runner.stream(self._items(step)) as stream:
                async for outcome in stream:
                    outcomes.append(outcome)
                    if step.stop_after is not None and len(outcomes) > step.stop_after:
                        break
        except SourceError:
            pass
        except Exception as error:  # noqa: BLE001 - a user's own exception may come out, nothing else
            self.record.wrong.append(f"a batch raised {error!r}")
        finally:
            for outcome in outcomes:
                self._note_outcome(attempts[step.intents[outcome.index]], outcome)
            for attempt in attempts.values():
                if attempt.state == "started":
                    attempt.state = (
                        "cancelled"  # not handed over: known through the log or the ledger, or not made
                    )

    async def _items(self, step: Batch) -> AsyncIterator[BatchItem[Any]]:
        for intent in step.intents:
            key = str(intent) if self.record.story.ledger else None
            yield BatchItem(self._request(intent, unified=step.unified), key=key)
        if step.source_fails:
            raise SourceError

    def _note_outcome(self, attempt: Attempt, outcome: Any) -> None:
        if outcome.ref is not None:
            attempt.state, attempt.task_id = "accepted", outcome.ref.task_id
            attempt.ended = "done" if outcome.error is None else type(outcome.error).__name__
        elif outcome.error is not None:
            self._note_failure(attempt, outcome.error)

    async def _other_request(self, step: OtherRequest, process: Process) -> None:
        attempt = self._attempt(OTHER + step.intent, process, keyed=True)
        request = self._imagine(f"something else, #{attempt.intent}")
        try:
            handle = await process.client.submit(request, key=str(step.intent))
        except Exception as error:  # noqa: BLE001 - noted
            self._note_failure(attempt, error)
        else:  # the key was free after all
            attempt.state, attempt.task_id = "accepted", handle.task_id

    async def _recover(self, process: Process) -> None:
        try:
            report = await process.client.recover()
        except PiAPIError:
            return  # the client was closed, or the ledger is gone
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.record.wrong.append(f"recover() raised {error!r}")
        else:
            self.host.happened["recover: found"] += len(report.found)
            self.host.happened["recover: unknown"] += len(report.unknown)

    async def _resolve(self, step: Resolve, _: Process) -> None:
        ledger = Ledger(self.folder / "run.db")
        key = str(step.intent)
        try:
            entry = await ledger.find(key)
            if entry is None or entry.state.value != "unknown":
                return
            if self.record.has_twin(step.intent):
                return  # nobody can tell whose task is whose
            before = self._earlier_tasks(refused=True).get(key, [])
            made = self.host.by_intent.get(intent_of(entry.request), [])
            made = [task for task in made if task.task_id not in before]
            if made:
                await ledger.resolve(key, task_id=made[0].task_id)
            else:
                await ledger.resolve(key, resubmit=True)
        except (PiAPIError, ValueError):
            return  # somebody was faster, or the ledger is gone
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(PiAPIError):
                await ledger.close()

    async def _compact(self, _: Process) -> None:
        ledger = Ledger(self.folder / "run.db")
        soon = datetime.fromtimestamp(self.world.wall_time() + 1, UTC)
        try:
            await ledger.compact(soon)
        except PiAPIError:
            return  # the ledger is gone, or its disk is full
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(PiAPIError):
                await ledger.close()

    def _earlier_tasks(self, *, refused: bool) -> dict[str, list[str]]:
        """Return by key the tasks of the attempts before the last, in order; perhaps those that refusals named, too."""
        found: dict[str, list[str]] = {}
        with contextlib.closing(sqlite3.connect(self.folder / "run.db")) as connection:
            for key, task_id, outcome in connection.execute(
                "SELECT key, task_id, outcome FROM earlier ORDER BY attempt"
            ):
                if refused or outcome != "refused":
                    found.setdefault(key, []).append(task_id)
        return found

    async def _close(self, process: Process) -> None:
        before = process.client
        process.client, process.receiver = self._client()
        await before.close()

    def _attempt(self, intent: int, process: Process, *, keyed: bool) -> Attempt:
        attempt = Attempt(intent, process.number, keyed, process.life, id(process.client))
        self.record.attempts.append(attempt)
        return attempt

    def _note_failure(self, attempt: Attempt, error: BaseException) -> None:
        attempt.error = str(error)
        attempt.state = failure_state(error)
        if attempt.state == "odd":
            self.record.wrong.append(f"a submission of intent {attempt.intent} raised {error!r}")
        ref = getattr(error, "ref", None)
        if ref is not None:
            attempt.task_id = ref.task_id


def failure_state(error: BaseException) -> str:
    """Return what an exception tells a user about the submission."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    if isinstance(error, PiAPIError):
        name = type(error).__name__
        return {"TransportError": "not sent", "ClientClosed": "closed", "LedgerError": "ledger"}.get(
            name, "refused"
        )
    return "reused" if isinstance(error, ValueError) else "odd"


def intent_of(text: str) -> int:
    """Return the intent that a request asks for, by the number in its prompt."""
    found = re.search(r"#(\d+)", text)
    assert found is not None, f"a request without its number: {text}"
    return int(found[1])


def _raise(_: object) -> None:
    raise SourceError


def _queue() -> deque[Any]:
    return deque()


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


# -- a whole life -----------------------------------------------------------------------------------------------------


def play(story: Story, folder: Path) -> Record:
    """Play a story to its end and return what is known of it."""
    world = World()
    host = Host(
        world, Random(f"host {story.seed}"), history=Random(f"history {story.seed}").choice(HISTORIES)
    )
    world.accept = host.connect
    host.shows_models, host.legnext = story.shows_models, story.legnext
    if story.strangers:
        host.strangers = True
        host.copied = story.asked_for_once
        for subject in sorted({story.subject(intent) for intent in story.intents}):
            host.have_stranger(f"a cat, #{subject}", f"simulated/#{subject}", LONG_AGO)
    record = Record(story, world, host)
    player = Player(record, folder, Random(f"player {story.seed}"))
    if story.webhooks:
        host.deliver = player.deliver
    with wall_clock_of(world), _seeded(story.seed), _opened_by(player), _log_into(record):
        player.processes = [player.start(number, 0) for number in range(story.processes)]
        for step in story.steps:
            world.after(step.at, partial(player.perform, step))
        try:
            _run(player)
        except StuckError as error:
            waiting = [attempt for attempt in record.attempts if attempt.waiting]
            record.wrong.append(
                f"stuck: {error}; {len(waiting)} waits are still on: {[a.task_id for a in waiting]}"
            )
            for process in player.processes:
                process.die()
            return record
        _inspect_ledger(player)
        for process in player.processes:
            process.loop.close()
        if not record.dead_lives and not record.ledger_moved:
            left = sorted(path.name for path in folder.glob("*owner*"))
            record.wrong += [f"after close() files are left: {left}"] * bool(left)
    return record


def _run(player: Player) -> None:
    record, world = player.record, player.world
    over_at = max((step.over_at for step in record.story.steps), default=0.0) + 1.0
    world.after(over_at, lambda: None)
    world.run_until(lambda: world.now >= over_at, limit=over_at + PATIENCE)
    record.healed_at = world.now
    for process in player.processes:
        process.loop.alarms.clear()

    world.run_until(lambda: _all_done(player), limit=record.healed_at + PATIENCE)
    for process in player.processes:
        _close_process(player, process)


def _all_done(player: Player) -> bool:
    return all(task.done() for process in player.processes for task in process.tasks)


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
    if process.loop.transports:
        record.wrong.append(f"after close() {len(process.loop.transports)} connections are left")
    record.wrong += [f"the loop complained: {text}" for text in process.loop.complaints]


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
    process = player.start(99, 0)
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
        record.ledger_attempts = player._earlier_tasks(refused=False)
        record.ledger_refused.update(*player._earlier_tasks(refused=True).values())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have the package's own random numbers come from the seed."""
    source = Random(f"jitter {seed}")
    changed = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("piapi_async") and getattr(module, "Random", None) is random.Random
    ]
    for module in changed:
        module.Random = partial(_random_from, source)  # type: ignore[attr-defined] # each imports it by this name
    try:
        yield
    finally:
        for module in changed:
            module.Random = random.Random  # type: ignore[attr-defined] # as above


def _random_from(source: Random) -> Random:
    return Random(source.random())


class _Connection(sqlite3.Connection):
    """A database connection to a disk that may be full."""

    def __init__(self, world: World, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._world = world

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if self._world.disk_full and sql.lstrip()[:6].upper() in {
            "INSERT",
            "UPDATE",
            "DELETE",
            "COMMIT",
            "CREATE",
        }:
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *args)


@contextmanager
def _opened_by(player: Player) -> Iterator[None]:
    """Note which process opens which database connection."""
    inside: Any = sqlite3
    connect = sqlite3.connect

    def tracked(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(
            *args, **{**options, "factory": partial(_Connection, player.world)}
        )
        if player.current is not None:
            player.current.connections.append(connection)
        return connection

    inside.connect = tracked
    try:
        yield
    finally:
        inside.connect = connect


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _log_into(record: Record) -> Iterator[None]:
    """Collect what an operator would read."""
    handler = _Lines(record.log)
    logger = logging.getLogger("piapi_async")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


__all__ = ["HostTask", "Record", "play"]
