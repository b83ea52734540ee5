"""All tasks of the service, without network or clock.  Pure: the caller says what time it is.

Two rules.  Whoever wants a task moved names an event, and `LIFE` says where it leads.  And nothing here reads a clock:
`now` is in emulated seconds and only rises.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from random import Random

import orjson
from attrs import Factory, define

from .checks import DIGEST
from .requests import MIDJOURNEY, WEBHOOK_FIELDS, Ask, Kind, Refused
from .tasks import DURATIONS, ENDS, LIFE, Duration, Event, Fate, Stage, Task, script

#: What made a task that the service is only told of.
_ADOPTED: Mapping[Kind, str] = {Kind.GRID: "imagine", Kind.SINGLE: "upscale", Kind.FILES: "video_generation"}
#: A longer text - a picture in base64 - is remembered by its digest.
_LONG = 2**15


@define
class _Account:
    running: int = 0
    staged: deque[Task] = Factory(deque)


@define
class Machine:
    """All tasks of the service; `advance` plays what is due, everything else looks or adds."""

    seed: int = 0
    concurrency: int = 30
    queue: int = 50
    durations: Mapping[str, Duration] = DURATIONS
    failure_rate: float = 0.0
    failure_texts: tuple[str, ...] = ("the job was stopped by Midjourney", "no image came back from the bot")
    other_failure_texts: tuple[str, ...] = ("the model gave nothing back", "the input was refused by the moderation")
    retry_rate: float = 0.0
    progress_error: float = 0.0
    progress_step: int = 10
    adopt_parents: bool = False
    parent_max_age: float | None = None
    banned_words: tuple[str, ...] = ("gore", "nude", "nsfw")
    #: Told of every change of a task that has a webhook, while the task is in that very state.
    on_change: Callable[[Task, float], None] | None = None
    tasks: dict[str, Task] = Factory(dict)
    now: float = 0.0
    serial: int = 0
    #: How many tasks with a webhook have not ended.
    hooked: int = 0
    _fates: deque[tuple[str, Fate]] = Factory(deque)
    _accounts: dict[str, _Account] = Factory(dict)
    _due: list[tuple[float, int, Task, Event | None]] = Factory(list)
    _entries: int = 0

    # -- what the outside asks ------------------------------------------------------------------------------------

    def create(self, ask: Ask, *, account: str, now: float, key_id: str = "") -> Task:
        """Return the accepted task; `Refused` says why there is none."""
        self.advance(now)
        parent = self._parent(ask) if ask.parent else None
        if not ask.given.get("skip_prompt_check"):
            self._check_prompt(ask.prompt)
        place = self._accounts.setdefault(account, _Account())
        if place.running >= self.concurrency and len(place.staged) >= self.queue:
            raise Refused(f"too many requests: {self.queue} tasks are staged already", status=429)
        task = self._task(ask, parent, account)
        task.key_id = key_id
        self.tasks[task.task_id] = task
        self.hooked += task.has_webhook
        place.staged.append(task)
        self._fill(place)
        return task

    def adopt(
        self, task_id: str, *, kind: Kind = Kind.GRID, prompt: str = "", age: float = 0.0, account: str = ""
    ) -> Task:
        """Return `task_id` as a task that finished `age` seconds ago, made known if it was not."""
        if task_id in self.tasks:
            return self.tasks[task_id]
        then = self.now - age
        verb = _ADOPTED[kind]
        task = Task(task_id, account, verb, kind, {}, prompt, "fast", "1:1", then, self._next_serial())
        if kind is Kind.FILES:
            task.model, task.mode = "kling", "video"
        task.stage, task.admitted, task.started, task.ended = Stage.FINISHED, then, then, then
        task.adopted = True
        self.tasks[task_id] = task
        return task

    def get(self, task_id: str, *, now: float) -> Task | None:
        """Return the task as it is at `now`."""
        self.advance(now)
        return self.tasks.get(task_id)

    def cancel(self, task_id: str, *, now: float) -> bool:
        """Take a task back that has not started; False when it is too late."""
        self.advance(now)
        return self._apply(self.tasks[task_id], Event.CANCEL, self.now)

    def end(self, task_id: str, *, error: str = "", now: float) -> bool:
        """End a task by hand, failed if there is an `error`; False when it has ended already."""
        self.advance(now)
        task = self.tasks[task_id]
        return self._apply(task, Event.FAIL if error else Event.FINISH, self.now, error=error)

    def destine(self, route: str, fate: Fate) -> None:
        """Give the next task of a route ("*" = any) this fate; a verb of the legacy protocol is a route."""
        self._fates.append((route, fate))

    def counts(self, account: str) -> tuple[int, int]:
        """Return how many tasks run and how many are staged for one account."""
        place = self._accounts.get(account, _Account())
        return place.running, len(place.staged)

    def next_due(self) -> float | None:
        """Return when something will happen next, emulated seconds; None when nothing will."""
        return self._due[0][0] if self._due else None

    def advance(self, now: float) -> None:
        """Play everything that is due up to `now`, each at its own time."""
        while self._due and self._due[0][0] <= now:
            at, _, task, event = heapq.heappop(self._due)
            self.now = max(self.now, at)
            if event is None:
                self._tick(task, at)
            elif task.script and task.script[0] == (at, event):
                self._apply(task, event, at)
        self.now = max(self.now, now)

    def restore(self, tasks: Iterable[Task], *, now: float, serial: int) -> None:
        """Take over the tasks of an earlier run, staged and running ones where they stood."""
        self.now, self.serial = now, serial
        for task in sorted(tasks, key=lambda task: task.serial):
            self.tasks[task.task_id] = task
            if task.stage in ENDS:
                continue
            self.hooked += task.has_webhook
            place = self._accounts.setdefault(task.account, _Account())
            if task.stage is Stage.STAGED:
                place.staged.append(task)
            else:
                place.running += 1
                self._schedule(task)
                self._schedule_ticks(task, now)
        for place in self._accounts.values():
            self._fill(place)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _check_prompt(self, prompt: str) -> None:
        words = set(re.findall(r"[\w'-]+", prompt.lower()))
        for banned in self.banned_words:
            if banned in words:
                raise Refused(f"banned prompt words: {banned}")

    def _parent(self, ask: Ask) -> Task:
        task_id = str(ask.given["origin_task_id"])
        if self.adopt_parents:
            self.adopt(task_id, kind=ask.wanted_parent())
        parent = self.tasks.get(task_id)
        problem = self._parent_problem(ask, parent)
        if parent is None or problem:
            raise Refused(f"derive from origin task: {problem}")
        return parent

    def _parent_problem(self, ask: Ask, parent: Task | None) -> str:
        if parent is None:
            return "parent task not found"
        if parent.stage is not Stage.FINISHED or parent.ended is None:
            return "parent task is not finished"
        if self.parent_max_age is not None and self.now - parent.ended > self.parent_max_age:
            return "parent task is outdated"  # observed, to the letter
        return ask.parent_problem(parent.kind)

    # -- making a task --------------------------------------------------------------------------------------------

    def _next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def _task(self, ask: Ask, parent: Task | None, account: str) -> Task:
        serial = self._next_serial()
        # One generator per task, from the seed and its number: what one task draws never shifts another's luck.
        rng = Random(f"{self.seed}/{serial}")  # noqa: S311 - a reproducible run is the point
        given = {name: _brief(name, value) for name, value in ask.given.items()}
        task = Task(
            task_id=_id_of(rng.getrandbits(128), ask, given),
            account=account,
            verb=ask.name,
            kind=ask.makes,
            given=given,
            prompt=ask.prompt or (parent.prompt if parent else ""),
            mode=ask.mode or (parent.mode if parent else "fast"),
            aspect_ratio=ask.aspect_ratio or (parent.aspect_ratio if parent else "1:1"),
            created=self.now,
            serial=serial,
            # Never -1 or below: the task would be done before it began.
            skew=max(_clip(rng.gauss(0, 1), 2.5) * self.progress_error, -0.9),
            model=ask.model,
            door=ask.door,
            service_mode=ask.service_mode,
        )
        task.fate = self._fate(ask, task, rng)
        return task

    def _fate(self, ask: Ask, task: Task, rng: Random) -> Fate:
        draw = self.durations.get(ask.name) or self.durations.get(task.mode) or DURATIONS[task.mode]
        seconds = draw(rng)
        texts = self.failure_texts if ask.model == MIDJOURNEY else self.other_failure_texts
        fails = rng.choice(texts) if rng.random() < self.failure_rate else ""
        retries = 1 if rng.random() < self.retry_rate else 0
        for index, (wanted, fate) in enumerate(self._fates):
            if wanted in (ask.route, "*"):
                del self._fates[index]
                return Fate(
                    fate.fails or fails,
                    retries if fate.retries is None else fate.retries,
                    seconds if fate.seconds is None else fate.seconds,
                )
        return Fate(fails, retries, seconds)

    # -- moving a task --------------------------------------------------------------------------------------------

    def _fill(self, place: _Account) -> None:
        while place.staged and place.running < self.concurrency:
            task = place.staged.popleft()
            self._apply(task, Event.ADMIT, self.now)

    def _apply(self, task: Task, event: Event, at: float, *, error: str = "") -> bool:
        """Move the task along one edge of `LIFE`; False when there is no such edge."""
        stage = LIFE.get((task.stage, event))
        if stage is None:
            return False
        was, task.stage, task.error = task.stage, stage, error
        place = self._accounts.setdefault(task.account, _Account())
        if event is Event.ADMIT:
            place.running += 1
            task.admitted = at
            task.script = script(task, at)
        elif stage in ENDS:
            self._leave(task, place, was=was, at=at)
        else:
            task.script = task.script[1:]
            if event is Event.START:
                self._begin(task, at)
            else:
                task.retries += 1
        self._schedule(task)
        self._tell(task, at)
        if stage in ENDS:
            self._fill(place)
        return True

    def _leave(self, task: Task, place: _Account, *, was: Stage, at: float) -> None:
        if was is Stage.STAGED:
            place.staged.remove(task)
        else:
            place.running -= 1
        self.hooked -= task.has_webhook
        task.script, task.ended = (), at
        if task.stage is Stage.FAILED:
            task.error = task.error or task.fate.fails

    def _begin(self, task: Task, at: float) -> None:
        task.started = at if task.started is None else task.started
        task.attempt = at
        if task.script[0][1] is Event.FINISH:
            task.length = max(task.script[0][0] - at, 1e-9)
        else:
            # It will not get there, but its progress climbs as if it would.
            task.length = max((task.script[0][0] - at) / 0.6, 1e-9)
        self._schedule_ticks(task, at)

    def _schedule(self, task: Task) -> None:
        if task.script:
            at, event = task.script[0]
            self._push(at, task, event)

    def _schedule_ticks(self, task: Task, after: float) -> None:
        if not task.given.get("notify_progress") or not task.script:
            return
        for percent in range(self.progress_step, 100, self.progress_step):
            at = task.reaches(percent)
            if after < at < task.script[0][0]:
                self._push(at, task, None)

    def _push(self, at: float, task: Task, event: Event | None) -> None:
        self._entries += 1
        heapq.heappush(self._due, (at, self._entries, task, event))

    def _tick(self, task: Task, at: float) -> None:
        if task.stage is Stage.PROCESSING:
            self._tell(task, at)

    def _tell(self, task: Task, at: float) -> None:
        wanted = task.stage in ENDS or (task.given.get("notify_progress") and task.stage is Stage.PROCESSING)
        if wanted and self.on_change and task.has_webhook:
            self.on_change(task, at)


def _id_of(drawn: int, ask: Ask, given: dict[str, object]) -> str:
    """Return a task's id: what was drawn, mixed with what was asked for.

    Another run with the same seed gives the same requests the same ids, but never the id of one prompt to another: a
    client that remembers it would be shown the wrong pictures.
    """
    asked = {name: value for name, value in given.items() if name not in WEBHOOK_FIELDS}
    text = orjson.dumps([ask.model, ask.name, asked], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    mixed = drawn ^ int.from_bytes(hashlib.sha256(text).digest()[:16])
    return str(uuid.UUID(int=mixed, version=4))


def _brief(name: str, value: object) -> object:
    """Return what is worth remembering of a field: a mask or a picture, perhaps megabytes, is kept as its digest."""
    if name == "mask" or (isinstance(value, str) and len(value) > _LONG):
        return DIGEST + hashlib.sha256(str(value).encode()).hexdigest()
    return value


def _clip(value: float, bound: float) -> float:
    return max(-bound, min(bound, value))
