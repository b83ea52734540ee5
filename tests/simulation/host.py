"""The host, at the level of bytes: written from the wire contract, sharing nothing with the client or the emulator.

It keeps the truth (which task was really made for which intent) and tells as much of it as its faults let through.
The number of an intent stands in the prompt, so that the truth needs no help from anybody's ids.  A `Line` is one
connection to it.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from attrs import define, field

from .files import FileServer
from .line import Line
from .plans import CreatePlan, FilePlan
from .tasks import STRANGER, HostTask, show, written
from .world import BOOT_TIME, Transport, World


@define(eq=False)
class Host:
    """The simulated service, reached through `Transport`s."""

    world: World
    rng: Random
    tasks: dict[str, HostTask] = field(factory=dict)
    by_intent: dict[int, list[HostTask]] = field(factory=dict)
    creates: Counter[int] = field(factory=Counter)
    plans: dict[int, deque[CreatePlan]] = field(factory=dict)
    lives: dict[int, tuple[float, str]] = field(factory=dict)
    weather: list[tuple[float, float, str]] = field(factory=list)
    polls: int = 0
    happened: Counter[str] = field(factory=Counter)
    """What of the bad luck of a story came to pass."""
    files: dict[int, FilePlan] = field(factory=dict)
    """How the pictures of an intent's tasks travel."""
    rough: set[int] = field(factory=set)
    """The intents whose pictures meet with anything at all."""
    lost: set[int] = field(factory=set)
    """Those of whose pictures one may be given up."""
    prices: dict[int, float] = field(factory=dict)
    """What the tasks of an intent cost, where the host tells it."""
    cancels: list[tuple[str, bool]] = field(factory=list)
    """Which tasks it was asked to cancel, and whether it did."""
    deliver: Callable[[HostTask], None] | None = None
    forbidden: list[str] = field(factory=list)
    history: str = "prompt"
    """How well the history is kept, one of `HISTORIES`."""
    shows_models: bool = False
    """Whether it shows models by the names that they were asked for by; else nothing is found by what was sent."""
    legnext: bool = False
    """Whether it is LegNext, and speaks its protocol alone."""
    strangers: bool = False
    """Whether others use the account: whatever is created here, they create much the same."""
    copied: frozenset[int] = frozenset()
    """The intents whose tasks they make again at once, of the same request."""

    file_server: FileServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.file_server = FileServer(self._file_plan, self.happened, self.forbidden)

    def _file_plan(self, task_id: str) -> FilePlan | None:
        task = self.tasks.get(task_id)
        if task is None or task.state(self.world.now) != "done":
            return None
        return self.files.get(task.intent, FilePlan())

    def connect(self, transport: Transport) -> Line:
        """Return the host's end of a new connection."""
        return Line(self, transport)

    # -- creating -----------------------------------------------------------------------------------------------------

    def expect(self, intent: int, plans: Iterable[CreatePlan]) -> None:
        """Have the next creates of an intent go as planned."""
        self.plans.setdefault(intent, deque()).extend(plans)

    def expect_files(self, intent: int, plan: FilePlan | None) -> None:
        """Have the pictures of an intent's tasks travel as planned."""
        if plan is None:
            return
        self.files[intent] = plan
        if not plan.is_smooth:
            self.rough.add(intent)
        if not plan.must_arrive:
            self.lost.add(intent)

    def plan_for(self, intent: int) -> CreatePlan:
        """Return what happens to the next create of an intent."""
        plans = self.plans.get(intent)
        return plans.popleft() if plans else CreatePlan()

    def make(self, intent: int, prompt: str, model: str, endpoint: str, *, unified: bool) -> HostTask:
        """Make a task: from here on it costs money."""
        seconds, end = self.lives.get(intent, (20.0, "done"))
        task = HostTask(
            self._new_id(),
            intent,
            unified,
            prompt,
            self.world.now,
            seconds,
            end,
            model,
            endpoint,
            price=self.prices.get(intent, 0.0),
            is_job=self.legnext,
        )
        self.tasks[task.task_id] = task
        self.by_intent.setdefault(intent, []).append(task)
        if self.deliver is not None and endpoint:
            deliver = self.deliver
            self.world.after(seconds + 0.05, lambda: deliver(task))
        return task

    def have_stranger(self, prompt: str, model: str, at: float, seconds: float = 20.0) -> None:
        """Have somebody else make a task with the same account: it is in the history, and no user's here."""
        task = HostTask(
            self._new_id(),
            STRANGER,
            unified=True,
            prompt=prompt,
            made_at=at,
            seconds=seconds,
            end="done",
            model=model,
        )
        self.tasks[task.task_id] = task

    def _new_id(self) -> str:
        return f"{len(self.tasks):08x}-0000-4000-8000-{self.rng.getrandbits(48):012x}"

    def cancel(self, task_ids: Iterable[str]) -> bool:
        """Cancel those tasks that have not begun; return whether there was any."""
        done = []
        for task_id in task_ids:
            task = self.tasks.get(task_id)
            can_be = task is not None and task.state(self.world.now) == "waiting"
            if task is not None and can_be:
                task.cancelled_at = self.world.now
            done.append(can_be)
            self.cancels.append((task_id, can_be))
            self.happened[f"cancel: {'done' if can_be else 'refused'}"] += 1
        return any(done)

    # -- reading ------------------------------------------------------------------------------------------------------

    def rows(self, since: float, until: float) -> list[dict[str, Any]]:
        """Return the rows of the history that were made in a time, the latest first."""
        rows = []
        for number, task in enumerate(reversed(self.tasks.values())):
            visible_at = task.made_at + {"late": 20.0, "at the end": task.seconds, "gaps": 2.0}.get(
                self.history, 0.0
            )
            if self.world.now < visible_at or (self.history == "gaps" and task.intent % 3 == 0):
                continue
            row = self._row(number, task, task.made_at)
            if self.history == "lies":  # duplicates, wrong times, other models, tasks that nobody knows
                rows += [row, {**row, "task_id": f"nobody-{number}"}, {**row, "task_model": "kling"}]
                row = self._row(number + 10_000, task, task.made_at + 5.0 * (task.intent % 3))
            rows.append(row)
        if self.history == "lies":  # nor does it know the bounds
            return rows
        bounds = (since - BOOT_TIME, until - BOOT_TIME)
        return [row for row in rows if bounds[0] <= row["at"] <= bounds[1]]

    def _row(self, number: int, task: HostTask, at: float) -> dict[str, Any]:
        return {
            "id": number + 1,
            "at": at,
            "task_id": task.task_id,
            "task_model": self._shown_model(task) if task.unified else "midjourney",
            "status": task.word(self.world.now),
            "action": "pay",
            "created_at": written(at),
        }

    def _shown_model(self, task: HostTask) -> str:
        return task.model if self.shows_models else "Qubico/flux1-schnell"

    def delivery(self, task: HostTask) -> bytes:
        """Return the body of a webhook about a task."""
        shown = self.show(task)
        return json.dumps(
            {"timestamp": int(self.world.wall_time()), "data": shown} if task.unified else shown
        ).encode()

    def weather_now(self) -> str | None:
        """Return what is wrong with reads at the moment, if anything."""
        now = self.world.now
        return next((kind for start, end, kind in self.weather if start <= now < end), None)

    def show(self, task: HostTask) -> dict[str, Any]:
        """Return a task as a read shows it."""
        hides_input = self.history == "hides inputs"
        return show(task, self.world.now, self._shown_model(task), hides_input=hides_input)
