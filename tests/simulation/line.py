"""One connection to the host: its requests are read, its answers are sent as badly as the story has it."""

from __future__ import annotations

import json
import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from .answers import BY_WORD, HTML
from .plans import LASTING, CreatePlan
from .tasks import KEY
from .world import BOOT_TIME, Transport

if TYPE_CHECKING:
    from .host import Host

IN_TIME = 24.0
"""Seconds within which an answer certainly comes before a client's time-out."""


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

    def _next_request(self) -> tuple[str, str, bytes, dict[str, str]] | None:
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
        is_file = path.startswith("/files/")
        if not is_file and headers.get("x-api-key") != KEY:
            self.host.forbidden.append(f"{method} {path} without the key")
        return method, path, rest[:length], headers

    def _serve(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        data = json.loads(body) if body else {}
        if path.startswith("/files/"):
            self.host.file_server.serve(self.transport, path, headers)
        elif self.host.legnext:
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
        elif method == "DELETE" or path == "/mj/v2/cancel":
            self._cancel(path, data)
        else:  # of the account, which says nothing of use
            self._answer(200, json.dumps({"code": 200, "status": "success", "message": ""}))

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
        raw = http(
            answer.status,
            answer.body(task_id, unified=unified, legnext=host.legnext, price=host.prices.get(intent, 0.0)),
        )
        in_time = plan.delay < IN_TIME
        if (
            task is not None
            and answer.names
            and in_time
            and plan.travel in {"whole", "split", "twice", "408 after"}
        ):
            task.named = True
            if plan.answer == "accepts":
                task.priced_at = host.world.now + plan.delay
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
        if self.host.cancel(ids):
            self._answer(200, json.dumps({"code": 200, "status": "success", "message": ""}))
            return
        self._answer(
            400, json.dumps({"code": 400, "status": "failed", "message": "task has already started"})
        )


def http(status: int, body: str) -> bytes:
    """Return an HTTP/1.1 answer as bytes."""
    content = body.encode()
    kind = "application/json" if body.startswith(("{", "[")) else "text/html"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
    if status == 303:
        head += "Location: /elsewhere\r\n"
    return head.encode() + b"\r\n" + content
