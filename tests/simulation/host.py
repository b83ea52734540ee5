"""The host, at the level of bytes: written from the wire contract, sharing nothing with the client or the emulator.

It keeps the truth (which task was really made for which intent) and tells as much of it as its faults let through.
The number of an intent stands in the prompt, so that the truth needs no help from anybody's ids.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field, frozen

from .answers import BY_WORD, HTML
from .world import BOOT_TIME, Transport, World

KEY = "sk-simulated-key-0123456789"
SECRET = "a-webhook-secret-nobody-should-see"

END_WORDS = {"done": ("finished", "completed"), "failed": ("failed", "failed")}
"""What the legacy and the unified protocol call each end; LegNext calls it as the latter does."""

STRANGER = 0
"""The intent of tasks that nobody here has asked for."""

IN_TIME = 24.0
"""Seconds within which an answer certainly comes before a client's time-out."""

STALL = 100_000.0
"""Seconds after which no client still listens."""


@define(eq=False)
class HostTask:
    """A task that was really made: somebody pays for it."""

    task_id: str
    intent: int
    unified: bool
    prompt: str
    made_at: float
    seconds: float
    end: str  # done, failed
    model: str = ""
    endpoint: str = ""
    cancelled: bool = False
    named: bool = False  # in an answer that left the host whole
    is_job: bool = False  # of LegNext's

    def state(self, now: float) -> str:
        """Return waiting, running, done, failed or cancelled."""
        if self.cancelled:
            return "cancelled"
        age = now - self.made_at
        if age >= self.seconds:
            return self.end
        return "waiting" if age < self.seconds * 0.2 else "running"

    def word(self, now: float) -> str:
        """Return the status word of its protocol."""
        state = self.state(now)
        if state in END_WORDS:
            return END_WORDS[state][self.unified or self.is_job]
        return {"waiting": "pending", "running": "processing"}.get(state, state)


@frozen
class CreatePlan:
    """What happens to one create: the answer, and how its bytes travel."""

    answer: str = "accepts"
    delay: float = 0.2
    travel: str = "whole"
    at: float = 0.5
    """Where in the answer it is split or cut, as a share; the gap of a repetition in seconds."""

    @property
    def words(self) -> str:
        """The plan as a part of a sentence."""
        how = {
            "whole": "",
            "split": ", split",
            "twice": ", sent twice",
            "cut": f", cut at {self.at:.0%}",
            "dropped": ", lost",
            "reset before": "; reset before the host has read it",
            "stalled": ", never sent",
            "408 after": ", a 408 follows unasked",
        }[self.travel]
        slow = f" after {self.delay:g} s" if self.delay > 1 else ""
        return f"the host {self.answer}{slow}{how}"


TRAVELS = ("whole", "split", "twice", "cut", "dropped", "reset before", "stalled", "408 after")

WEATHERS = (
    "502 pages",
    "403 pages",
    "404 pages",
    "own 500s",
    "resets",
    "stalls",
    "cut answers",
    "answers sent twice",
    "null entries",
    "unreadable entries",
    "swapped entries",
    "no multi-fetch",
    "junk",
)
"""What may be wrong with reads for a while."""

LASTING = ("null entries", "unreadable entries", "swapped entries", "no multi-fetch")
"""What may stay wrong, because a plain fetch still tells."""


HISTORIES = ("prompt", "late", "at the end", "gaps", "lies", "hides inputs", "none")
"""How well a host keeps its history: rows come at once, late, with the task's end, not all, or beside invented ones."""


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

    def connect(self, transport: Transport) -> Line:
        """Return the host's end of a new connection."""
        return Line(self, transport)

    # -- creating -----------------------------------------------------------------------------------------------------

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
        now = self.world.now
        state = task.state(now)
        links = [f"https://img.example/{task.task_id}/{n}.png" for n in range(4)] if state == "done" else None
        if task.unified:
            error = {"code": 0, "raw_message": "", "message": "it went wrong" if state == "failed" else ""}
            return {
                "task_id": task.task_id,
                "model": self._shown_model(task),
                "task_type": "txt2img",
                "status": task.word(now),
                "input": None if self.history == "hides inputs" else {"prompt": task.prompt, "steps": 4},
                "meta": {"created_at": written(task.made_at)},
                "config": {
                    "webhook_config": {"endpoint": task.endpoint, "secret": SECRET if task.endpoint else ""}
                },
                "output": {"image_url": links[0], "image_urls": links} if links else None,
                "error": error,
            }
        if task.is_job:
            return {
                "job_id": task.task_id,
                "model": "midjourney",
                "task_type": "diffusion",
                "status": task.word(now),
                "config": {"webhook_config": {"endpoint": task.endpoint, "secret": ""}},
                "input": None,
                "output": {"image_url": links[0] if links else "", "image_urls": links, "seed": ""},
                "meta": {"created_at": written(task.made_at)},
                "error": {"code": 0, "message": "it went wrong" if state == "failed" else ""},
            }
        return {
            "task_id": task.task_id,
            "status": task.word(now),
            "meta": {
                "task_type": "imagine",
                "task_request": {
                    "prompt": task.prompt,
                    "webhook_endpoint": task.endpoint,
                    "webhook_secret": SECRET if task.endpoint else "",
                },
            },
            "task_result": {
                "image_url": links[0] if links else "",
                "temporary_image_urls": links,
                "task_progress": 100 if state == "done" else 0,
                "error_messages": ["it went wrong"] if state == "failed" else [],
                "actions": [],
            },
        }


class Line:
    """The host's end of one connection: reads requests, sends answers."""

    def __init__(self, host: Host, transport: Transport) -> None:
        self.host = host
        self.transport = transport
        self.buffer = b""
        self.open = True

    def received(self, data: bytes) -> None:
        """Take bytes; answer each request that is whole."""
        self.buffer += data
        while self.open and (request := self._next_request()) is not None:
            self._serve(*request)

    def closed(self) -> None:
        """Learn that the client has gone: whatever it asked for goes on."""
        self.open = False

    def _next_request(self) -> tuple[str, str, bytes] | None:
        head, gap, rest = self.buffer.partition(b"\r\n\r\n")
        if not gap:
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return None

        self.buffer = rest[length:]
        method, path, _ = lines[0].split(" ", 2)
        if headers.get("x-api-key") != KEY:
            self.host.forbidden.append(f"{method} {path} without the key")
        return method, path, rest[:length]

    def _serve(self, method: str, path: str, body: bytes) -> None:
        data = json.loads(body) if body else {}
        if self.host.legnext:
            self._serve_legnext(method, path, data)
        elif method == "POST" and path == "/api/v1/task":
            self._create(data, unified=True)
        elif method == "POST" and path.startswith("/mj/v2/") and not path.endswith(("fetch", "cancel")):
            self._create(data, unified=False)
        elif path == "/mj/v2/multi_fetch":
            self._read_many(data["task_ids"])
        elif path == "/mj/v2/fetch":
            self._read_one(data["task_id"], unified=False)
        elif path.startswith("/api/open/tasks/histories"):
            self._history(dict(parse_qsl(urlsplit(path).query)))
        elif method == "GET" and path.startswith("/api/v1/task/"):
            self._read_one(path.rsplit("/", 1)[1], unified=True)
        else:
            self._cancel(path, data)

    def _serve_legnext(self, method: str, path: str, data: dict[str, Any]) -> None:
        if method == "POST" and path == "/api/v1/diffusion":
            self._create(
                {"prompt": data["text"], "webhook_endpoint": data.get("callback", "")}, unified=False
            )
        elif method == "GET" and path.startswith("/api/v1/job/"):
            self._read_one(path.rsplit("/", 1)[1], unified=False)
        elif path == "/api/account/balance":
            self._answer(
                200, json.dumps({"code": 200, "data": {"available_credits": 7}, "message": "success"})
            )
        else:
            self.host.forbidden.append(f"{method} {path}, which LegNext does not have")
            self._answer(404, '{"code":404,"message":"no such endpoint"}')

    # -- creates ------------------------------------------------------------------------------------------------------

    def _create(self, data: dict[str, Any], *, unified: bool) -> None:
        given = data["input"] if unified else data
        prompt = str(given.get("prompt", ""))
        found = re.search(r"#(\d+)", prompt)
        assert found is not None, f"a create without its number: {data}"
        intent = int(found[1])
        endpoint = data.get("webhook_endpoint", "")
        if unified:
            endpoint = data.get("config", {}).get("webhook_config", {}).get("endpoint", "")

        host = self.host
        host.creates[intent] += 1
        if unified and host.strangers:
            host.have_stranger(f"a dog, #{intent}", data["model"], host.world.now)
        plan = host.plan_for(intent)
        host.happened.update((f"answer: {plan.answer}", f"travel: {plan.travel}"))
        host.happened[f"protocol: {'legnext' if host.legnext else 'unified' if unified else 'legacy'}"] += 1
        if plan.travel == "reset before":
            self.transport.reset()
            return

        answer = BY_WORD[plan.answer]
        task = (
            host.make(intent, prompt, str(data.get("model", "")), endpoint, unified=unified)
            if answer.made
            else None
        )
        if task is not None and intent in host.copied:
            host.have_stranger(prompt, task.model, task.made_at, task.seconds)
        task_id = task.task_id if task is not None else ""
        raw = http(answer.status, answer.body(task_id, unified=unified, legnext=host.legnext))
        in_time = plan.delay < IN_TIME
        if (
            task is not None
            and answer.names
            and in_time
            and plan.travel in {"whole", "split", "twice", "408 after"}
        ):
            task.named = True
        self._travel(raw, plan)

    def _travel(self, raw: bytes, plan: CreatePlan) -> None:
        transport, delay = self.transport, plan.delay
        match plan.travel:
            case "whole":
                transport.send(raw, delay)
            case "split":
                cut = max(1, int(len(raw) * plan.at))
                transport.send(raw[:cut], delay)
                transport.send(raw[cut:], delay + 0.5)
            case "twice":
                transport.send(raw, delay)
                transport.send(raw, delay + plan.at)
            case "cut":
                transport.send(raw[: int(len(raw) * plan.at)], delay)
                transport.send_eof(delay + 0.1)
            case "dropped":
                transport.reset(delay)
            case "408 after":
                transport.send(raw, delay)
                transport.send(http(408, "<html>Request Time-out</html>"), delay + plan.at)
                transport.send_eof(delay + plan.at + 0.01)

    # -- reads --------------------------------------------------------------------------------------------------------

    def _read_one(self, task_id: str, *, unified: bool) -> None:
        host = self.host
        host.polls += 1
        task = host.tasks.get(task_id)
        if task is None or task.unified is not unified:
            wrapped = unified or host.legnext
            text = {"code": 404, "message": "task not found"} if wrapped else {"message": "task not found"}
            self._answer(404 if wrapped else 400, json.dumps(text))
            return
        shown: Any = host.show(task)
        self._answer(
            200, json.dumps({"code": 200, "data": shown, "message": "success"} if unified else shown)
        )

    def _history(self, query: dict[str, str]) -> None:
        host = self.host
        host.happened[f"history: {host.history}"] += 1
        if host.history == "none":
            self._answer(404, json.dumps({"code": 404, "message": "no such endpoint"}))
            return
        rows = host.rows(float(query.get("start_time", 0)), float(query.get("end_time", 4e9)))
        page, size = int(query["page"]), int(query["page_size"])
        data = {"data": rows[(page - 1) * size : page * size], "page": page, "size": size, "total": len(rows)}
        self._answer(200, json.dumps({"code": 200, "data": data, "message": "success"}))

    def _read_many(self, ids: list[str]) -> None:
        host = self.host
        host.polls += 1
        weather = host.weather_now()
        host.happened[f"multi-fetch: {weather or 'fair'}"] += 1
        if weather == "no multi-fetch":
            self._answer(404, "<html>404 page not found</html>")
            return
        entries: dict[str, Any] = {}
        for task_id in ids:
            task = host.tasks.get(task_id)
            entries[task_id] = host.show(task) if task is not None and not task.unified else None
        if weather == "null entries":
            entries = dict.fromkeys(entries)
        elif weather == "unreadable entries":
            odd: list[Any] = ["gone", {"task_id": "x"}, [], {"data": {}}, 7]
            entries = {task_id: odd[number % len(odd)] for number, task_id in enumerate(entries)}
        elif weather == "swapped entries":
            entries = dict(zip(entries, reversed(list(entries.values())), strict=True))
        self._answer(200, json.dumps({"data": entries}))

    def _answer(self, status: int, body: str) -> None:
        date = formatdate(BOOT_TIME + self.host.world.now, usegmt=True).encode()
        raw = http(status, body).replace(b"\r\n", b"\r\nDate: " + date + b"\r\n", 1)
        transport, weather = self.transport, self.host.weather_now()
        self.host.happened[f"reads: {weather if weather and weather not in LASTING else 'fair'}"] += 1
        match weather:
            case "502 pages":
                transport.send(http(502, "<html>502 Bad Gateway</html>"))
            case "403 pages":
                transport.send(http(403, HTML))
            case "404 pages":
                transport.send(http(404, "<html>404 page not found</html>"))
            case "own 500s":
                transport.send(http(500, '{"code":500,"message":"failed to read the task"}'))
            case "resets":
                transport.reset()
            case "stalls":
                pass
            case "cut answers":
                transport.send(raw[: len(raw) * 2 // 3])
                transport.send_eof()
            case "answers sent twice":
                transport.send(raw)
                transport.send(raw, 0.05)
            case "junk":
                transport.send(http(200, '{"data": 7}'))
            case _:
                transport.send(raw, 0.02)

    def _cancel(self, path: str, data: dict[str, Any]) -> None:
        ids = data.get("task_ids") or [path.rsplit("/", 1)[1]]
        for task_id in ids:
            task = self.host.tasks.get(task_id)
            if task is not None and task.state(self.host.world.now) == "waiting":
                task.cancelled = True
        self._answer(200, json.dumps({"code": 200, "status": "success", "message": ""}))


def written(at: float) -> str:
    """Return a time of the world as the host's clock says it."""
    return datetime.fromtimestamp(BOOT_TIME + at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def http(status: int, body: str) -> bytes:
    """Return an HTTP/1.1 answer as bytes."""
    content = body.encode()
    kind = "application/json" if body.startswith(("{", "[")) else "text/html"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
    if status == 303:
        head += "Location: /elsewhere\r\n"
    return head.encode() + b"\r\n" + content
