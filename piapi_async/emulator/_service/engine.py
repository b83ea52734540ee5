"""All tasks of the service, without network or clock.  Pure: the caller says what time it is.

A task moves only along the edges of `tasks.LIFE`: whatever is to move one names an `Event`, and
`_apply` looks up where it leads.  An admitted task has its future as `steps`; the first of them is
in the heap `_due`, beside the progress marks of tasks whose webhook asks for them.  `advance` pops
what is due, each entry at its own time.

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
from attrs import Factory, define, frozen

from .checks import DIGEST
from .durations import DURATIONS, Duration
from .legnext import PARENT_MAX_AGE
from .requests import MIDJOURNEY, WEBHOOK_FIELDS, CreateRequest, Kind, Protocol, Refusal
from .tasks import END_STAGES, LIFE, Event, Script, Stage, Task, steps_of

#: The verb of a task that the service was only told about.
_ADOPTED_VERBS: Mapping[Kind, str] = {
    Kind.GRID: "imagine",
    Kind.SINGLE: "upscale",
    Kind.FILES: "video_generation",
}
#: A longer string, such as a picture in base64, is remembered as its digest.
_LONG = 2**15
#: The progress of an attempt that does not finish climbs as if it ended after this part of its
#: time.
_UNFINISHED_SHARE = 0.6
#: Never 0: progress is divided by the length of an attempt.
_SHORTEST_ATTEMPT = 1e-9
#: Progress is off by at most so many standard deviations, and a task is never done before it began.
_MOST_DEVIATIONS, _LEAST_SKEW = 2.5, -0.9


@define
class _Account:
    """The places of one account: how many tasks may run and do, and which wait to be admitted."""

    concurrency: int = 30
    running: int = 0
    staged: deque[Task] = Factory(deque)


@frozen
class _NoParent:
    """What a task has that does not say otherwise and has no parent."""

    prompt: str = ""
    mode: str = "fast"
    aspect_ratio: str = "1:1"


_NO_PARENT = _NoParent()
#: Decides nothing.
_NO_SCRIPT = Script()


@define
class TaskEngine:
    """All tasks of the service; `advance` plays what is due, everything else reads or adds."""

    seed: int = 0
    concurrency: int = 30
    #: Protocols whose accounts have another concurrency.
    slots: Mapping[Protocol, int] = Factory(dict)
    queue: int = 50
    durations: Mapping[str, Duration] = DURATIONS
    failure_rate: float = 0.0
    failure_texts: tuple[str, ...] = (
        "the job was stopped by Midjourney",
        "no image came back from the bot",
    )
    other_failure_texts: tuple[str, ...] = (
        "the model gave nothing back",
        "the input was refused by the moderation",
    )
    retry_rate: float = 0.0
    progress_error: float = 0.0
    progress_step: int = 10
    adopt_parents: bool = False
    parent_max_age: float | None = None
    banned_words: tuple[str, ...] = ("gore", "nude", "nsfw")
    #: Called at every change of a task that has a webhook, while the task is in that very state.
    on_change: Callable[[Task, float], None] | None = None
    tasks: dict[str, Task] = Factory(dict)
    now: float = 0.0
    serial: int = 0
    #: How many tasks with a webhook have not ended.
    awaiting_webhooks: int = 0
    _scripts: deque[tuple[str, Script]] = Factory(deque)
    _accounts: dict[str, _Account] = Factory(dict)
    _due: list[tuple[float, int, Task, Event | None]] = Factory(list)
    _entries: int = 0

    # -- operations -----------------------------------------------------------------------------

    def create(self, request: CreateRequest, *, account: str, now: float, key_id: str = "") -> Task:
        """Return the accepted task; raise `Refusal` if it is not accepted."""
        self.advance(now)

        parent = self._parent(request) if request.parent else None
        if request.prompt and not request.given.get("skip_prompt_check"):
            self._check_prompt(request.prompt)

        place = self._place(account, request.protocol)
        if place.running >= place.concurrency and len(place.staged) >= self.queue:
            raise Refusal(f"too many requests: {self.queue} tasks are staged already", status=429)

        task = self._new_task(request, parent, account)
        task.key_id = key_id
        self.tasks[task.task_id] = task
        self.awaiting_webhooks += task.has_webhook

        place.staged.append(task)
        self._admit(place)
        return task

    def adopt(
        self,
        task_id: str,
        *,
        kind: Kind = Kind.GRID,
        prompt: str = "",
        age: float = 0.0,
        account: str = "",
    ) -> Task:
        """Return `task_id` as a task that finished `age` seconds ago; one that is known stays as it is."""
        if task_id in self.tasks:
            return self.tasks[task_id]

        then = self.now - age
        task = Task(
            task_id=task_id,
            account=account,
            verb=_ADOPTED_VERBS[kind],
            kind=kind,
            given={},
            prompt=prompt,
            mode="fast",
            aspect_ratio="1:1",
            created=then,
            serial=self._next_serial(),
            stage=Stage.FINISHED,
            admitted=then,
            started=then,
            ended=then,
            adopted=True,
        )
        if kind is Kind.FILES:
            task.model, task.mode = "kling", "video"

        self.tasks[task_id] = task
        return task

    def get(self, task_id: str, *, now: float) -> Task | None:
        """Return the task as it is at `now`."""
        self.advance(now)
        return self.tasks.get(task_id)

    def cancel(self, task_id: str, *, now: float) -> bool:
        """Cancel a task that has not started; return False if it is too late."""
        self.advance(now)
        return self._apply(self.tasks[task_id], Event.CANCEL, self.now)

    def end(self, task_id: str, *, error: str = "", now: float) -> bool:
        """End a task by hand, failed if there is an `error`; return False if it has ended already."""
        self.advance(now)
        event = Event.FAIL if error else Event.FINISH
        return self._apply(self.tasks[task_id], event, self.now, error=error)

    def script_next(self, route: str, script: Script) -> None:
        """Have the next task of a route ("*" = any) go by this script; a verb of Midjourney is a route."""
        self._scripts.append((route, script))

    def next_due(self) -> float | None:
        """Return when something will happen next, emulated seconds; None if nothing will."""
        return self._due[0][0] if self._due else None

    def advance(self, now: float) -> None:
        """Play everything that is due up to `now`, each at its own time."""
        while self._due and self._due[0][0] <= now:
            at, _, task, event = heapq.heappop(self._due)
            self.now = max(self.now, at)
            if event is None:
                self._mark_progress(task, at)
            elif task.steps and task.steps[0] == (at, event):
                self._apply(task, event, at)

        self.now = max(self.now, now)

    def restore(self, tasks: Iterable[Task], *, now: float, serial: int) -> None:
        """Take over the tasks of an earlier run, staged and running ones where they stood."""
        self.now, self.serial = now, serial

        for task in sorted(tasks, key=lambda task: task.serial):
            self.tasks[task.task_id] = task
            if task.stage in END_STAGES:
                continue

            self.awaiting_webhooks += task.has_webhook
            place = self._place(task.account, task.protocol)
            if task.stage is Stage.STAGED:
                place.staged.append(task)
            else:
                place.running += 1
                self._schedule(task)
                self._schedule_progress(task, now)

        for place in self._accounts.values():
            self._admit(place)

    # -- checks ---------------------------------------------------------------------------------

    def _check_prompt(self, prompt: str) -> None:
        words = set(re.findall(r"[\w'-]+", prompt.lower()))
        for banned in self.banned_words:
            if banned in words:
                raise Refusal(f"banned prompt words: {banned}")

    def _parent(self, request: CreateRequest) -> Task:
        task_id = str(request.given["origin_task_id"])
        if self.adopt_parents:
            self.adopt(task_id, kind=request.assumed_parent())

        parent = self.tasks.get(task_id)
        problem = self._parent_problem(request, parent)
        if parent is None or problem:
            raise Refusal(f"derive from origin task: {problem}")
        return parent

    def _parent_problem(self, request: CreateRequest, parent: Task | None) -> str:
        if parent is None or not is_known(parent, request.protocol):
            return "parent task not found"
        if parent.stage is not Stage.FINISHED or parent.ended is None:
            return "parent task is not finished"
        if self.parent_max_age is not None and self.now - parent.ended > self.parent_max_age:
            return "parent task is outdated"  # observed, to the letter
        if request.protocol is Protocol.LEGNEXT and self.now - parent.created > PARENT_MAX_AGE:
            return "parent task is outdated"
        return request.parent_problem(parent.kind)

    # -- making a task --------------------------------------------------------------------------

    def _next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def _new_task(self, request: CreateRequest, parent: Task | None, account: str) -> Task:
        serial = self._next_serial()
        # One generator per task, from the seed and its number: what one task draws never shifts
        # another's luck.
        rng = Random(f"{self.seed}/{serial}")  # noqa: S311 - a reproducible run is the point
        given = {name: _remembered(name, value) for name, value in request.given.items()}
        inherited: Task | _NoParent = parent or _NO_PARENT

        task = Task(
            task_id=_new_id(rng.getrandbits(128), request, given),
            account=account,
            verb=request.name,
            kind=request.makes,
            given=given,
            prompt=request.prompt or inherited.prompt,
            mode=request.mode or inherited.mode,
            aspect_ratio=request.aspect_ratio or inherited.aspect_ratio,
            created=self.now,
            serial=serial,
            skew=self._draw_skew(rng),
            model=request.model,
            protocol=request.protocol,
            service_mode=request.service_mode,
        )
        task.script = self._draw_script(request, task, rng)
        return task

    def _draw_skew(self, rng: Random) -> float:
        deviations = max(-_MOST_DEVIATIONS, min(_MOST_DEVIATIONS, rng.gauss(0, 1)))
        return max(deviations * self.progress_error, _LEAST_SKEW)

    def _draw_script(self, request: CreateRequest, task: Task, rng: Random) -> Script:
        # Everything is drawn whatever a fault decides, so that the run after it is the same.
        draw = self.durations.get(request.name) or self.durations.get(task.mode) or DURATIONS[task.mode]
        seconds = draw(rng)
        fails = self._draw_failure(request, rng)
        retries = int(rng.random() < self.retry_rate)

        wanted = self._take_script(request.route)
        return Script(
            fails=wanted.fails or fails,
            retries=retries if wanted.retries is None else wanted.retries,
            seconds=seconds if wanted.seconds is None else wanted.seconds,
        )

    def _draw_failure(self, request: CreateRequest, rng: Random) -> str:
        if rng.random() >= self.failure_rate:
            return ""
        if request.model == MIDJOURNEY:
            return rng.choice(self.failure_texts)
        return rng.choice(self.other_failure_texts)

    def _take_script(self, route: str) -> Script:
        """Remove and return the first script for a route, `_NO_SCRIPT` if there is none."""
        for index, (wanted, script) in enumerate(self._scripts):
            if wanted in (route, "*"):
                del self._scripts[index]
                return script
        return _NO_SCRIPT

    # -- moving a task --------------------------------------------------------------------------

    def _place(self, account: str, protocol: Protocol) -> _Account:
        place = self._accounts.get(account)
        if place is None:
            place = _Account(self.slots.get(protocol, self.concurrency))
            self._accounts[account] = place
        return place

    def _admit(self, place: _Account) -> None:
        while place.staged and place.running < place.concurrency:
            task = place.staged.popleft()
            self._apply(task, Event.ADMIT, self.now)

    def _apply(self, task: Task, event: Event, at: float, *, error: str = "") -> bool:
        """Move the task along one edge of `LIFE`; return False if there is no such edge."""
        stage = LIFE.get((task.stage, event))
        if stage is None:
            return False

        was, task.stage, task.error = task.stage, stage, error
        place = self._place(task.account, task.protocol)

        if event is Event.ADMIT:
            place.running += 1
            task.admitted = at
            task.steps = steps_of(task.script, at)
        elif stage in END_STAGES:
            self._leave(task, place, was=was, at=at)
        else:
            task.steps = task.steps[1:]
            if event is Event.START:
                self._begin_attempt(task, at)
            else:
                task.retries += 1

        self._schedule(task)
        self._notify(task, at)
        if stage in END_STAGES:
            self._admit(place)
        return True

    def _leave(self, task: Task, place: _Account, *, was: Stage, at: float) -> None:
        if was is Stage.STAGED:
            place.staged.remove(task)
        else:
            place.running -= 1

        self.awaiting_webhooks -= task.has_webhook
        task.steps, task.ended = (), at
        if task.stage is Stage.FAILED:
            task.error = task.error or task.script.fails

    def _begin_attempt(self, task: Task, at: float) -> None:
        if task.started is None:
            task.started = at
        task.attempt = at

        until, event = task.steps[0]
        length = until - at
        if event is not Event.FINISH:
            length /= _UNFINISHED_SHARE
        task.length = max(length, _SHORTEST_ATTEMPT)

        self._schedule_progress(task, at)

    def _schedule(self, task: Task) -> None:
        if task.steps:
            at, event = task.steps[0]
            self._push(at, task, event)

    def _schedule_progress(self, task: Task, after: float) -> None:
        if not task.given.get("notify_progress") or not task.steps:
            return

        until = task.steps[0][0]
        for percent in range(self.progress_step, 100, self.progress_step):
            at = task.reaches(percent)
            if after < at < until:
                self._push(at, task, None)

    def _push(self, at: float, task: Task, event: Event | None) -> None:
        # The count keeps entries of the same second in order, and tasks from being compared.
        self._entries += 1
        heapq.heappush(self._due, (at, self._entries, task, event))

    def _mark_progress(self, task: Task, at: float) -> None:
        if task.stage is Stage.PROCESSING:
            self._notify(task, at)

    def _notify(self, task: Task, at: float) -> None:
        if self.on_change is None or not task.has_webhook:
            return

        wants_progress = task.given.get("notify_progress") and task.stage is Stage.PROCESSING
        if wants_progress or task.stage in END_STAGES:
            self.on_change(task, at)


def is_known(task: Task, protocol: Protocol) -> bool:
    """Return whether the vendor of a protocol knows a task: LegNext has its own."""
    return task.adopted or (task.protocol is Protocol.LEGNEXT) is (protocol is Protocol.LEGNEXT)


def _new_id(drawn: int, request: CreateRequest, given: dict[str, object]) -> str:
    """Return a task's id: what was drawn, mixed with what was asked for.

    Another run with the same seed gives the same requests the same ids, but never the id of one
    prompt to another: a client that remembers it would be shown the wrong pictures.
    """
    asked = {name: value for name, value in given.items() if name not in WEBHOOK_FIELDS}
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    text = orjson.dumps([request.model, request.name, asked], option=options)

    mixed = drawn ^ int.from_bytes(hashlib.sha256(text).digest()[:16])
    return str(uuid.UUID(int=mixed, version=4))


def _remembered(name: str, value: object) -> object:
    """Return what is kept of a field: of a mask or another long value, perhaps megabytes, its digest."""
    if name == "mask" or (isinstance(value, str) and len(value) > _LONG):
        return DIGEST + hashlib.sha256(str(value).encode()).hexdigest()
    return value
