"""A task at the host, and how reads show it: written from the wire contract."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from attrs import define

from .files import PICTURES
from .world import BOOT_TIME

KEY = "sk-simulated-key-0123456789"
SECRET = "a-webhook-secret-nobody-should-see"

STRANGER = 0
"""The intent of tasks that nobody here has asked for."""

END_WORDS = {"done": ("finished", "completed"), "failed": ("failed", "failed")}
"""What the legacy and the unified protocol call each end; LegNext calls it as the latter does."""


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
    cancelled_at: float | None = None
    price: float = 0.0
    """What it costs, in points; 0 where the host does not say."""
    named: bool = False  # in an answer that left the host whole
    priced_at: float = math.inf  # when such an answer has arrived that tells what it costs
    is_job: bool = False  # of LegNext's

    def state(self, now: float) -> str:
        """Return waiting, running, done, failed or cancelled."""
        if self.cancelled_at is not None and now >= self.cancelled_at:
            return "cancelled"
        age = now - self.made_at
        if age >= self.seconds:
            return self.end
        return "waiting" if age < self.seconds * 0.2 else "running"

    def fault(self, now: float) -> str:
        """Return what it says went wrong, "" if nothing did."""
        return "it went wrong" if self.state(now) == "failed" else ""

    def word(self, now: float) -> str:
        """Return the status word of its protocol."""
        state = self.state(now)
        if state in END_WORDS:
            return END_WORDS[state][self.unified or self.is_job]
        return {"waiting": "pending", "running": "processing"}.get(state, state)


def show(task: HostTask, now: float, model: str, *, hides_input: bool) -> dict[str, Any]:
    """Return a task as a read in its protocol shows it."""
    if task.unified:
        return _unified(task, now, model, hides_input=hides_input)
    if task.is_job:
        return _job(task, now)
    return _legacy(task, now)


def links_of(task: HostTask, now: float) -> list[str] | None:
    """Return the links of a task's pictures, None before it is done."""
    if task.state(now) != "done":
        return None
    return [f"http://127.0.0.1:80/files/{task.task_id}/{number}.png" for number in range(PICTURES)]


def usage_of(task: HostTask, now: float) -> dict[str, Any]:
    """Return the part of a task's `meta` that tells its price, nothing where the host does not."""
    if not task.price:
        return {}
    is_free = task.state(now) in {"failed", "cancelled"}
    consumed = 0 if is_free else task.price
    return {"usage": {"type": "point", "frozen": 0 if is_free else task.price, "consume": consumed}}


def _unified(task: HostTask, now: float, model: str, *, hides_input: bool) -> dict[str, Any]:
    links = links_of(task, now)
    return {
        "task_id": task.task_id,
        "model": model,
        "task_type": "txt2img",
        "status": task.word(now),
        "input": None if hides_input else {"prompt": task.prompt, "steps": 4},
        "meta": {"created_at": written(task.made_at), **usage_of(task, now)},
        "config": {"webhook_config": {"endpoint": task.endpoint, "secret": SECRET if task.endpoint else ""}},
        "output": {"image_url": links[0], "image_urls": links} if links else None,
        "error": {"code": 0, "raw_message": "", "message": task.fault(now)},
    }


def _job(task: HostTask, now: float) -> dict[str, Any]:
    links = links_of(task, now)
    return {
        "job_id": task.task_id,
        "model": "midjourney",
        "task_type": "diffusion",
        "status": task.word(now),
        "config": {"webhook_config": {"endpoint": task.endpoint, "secret": ""}},
        "input": None,
        "output": {"image_url": links[0] if links else "", "image_urls": links, "seed": ""},
        "meta": {"created_at": written(task.made_at), **usage_of(task, now)},
        "error": {"code": 0, "message": task.fault(now)},
    }


def _legacy(task: HostTask, now: float) -> dict[str, Any]:
    links = links_of(task, now)
    asked = {
        "prompt": task.prompt,
        "webhook_endpoint": task.endpoint,
        "webhook_secret": SECRET if task.endpoint else "",
    }
    return {
        "task_id": task.task_id,
        "status": task.word(now),
        "meta": {"task_type": "imagine", "task_request": asked},
        "task_result": {
            "image_url": links[0] if links else "",
            "temporary_image_urls": links,
            "task_progress": 100 if task.state(now) == "done" else 0,
            "error_messages": [task.fault(now)] if task.fault(now) else [],
            "actions": [],
        },
    }


def written(at: float) -> str:
    """Return a time of the world as the host's clock says it."""
    return datetime.fromtimestamp(BOOT_TIME + at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
