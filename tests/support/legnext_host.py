"""A strict LegNext: it takes each verb's body exactly as the vendor's pages spell it, and knows nothing of the package.

Fields, types and bounds were copied from docs.legnext.ai and the vendor's OpenAPI files; what is not in the table of a
verb is refused.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from attrs import define, field

KEY = "sk-legnext-5eCr3t"

Check = Callable[[Any], bool]


def text(most: int = 8192) -> Check:
    return lambda value: type(value) is str and 0 < len(value) <= most


def one_of(*values: Any) -> Check:
    return lambda value: any(value == known and type(value) is type(known) for known in values)


def number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def url(value: Any) -> bool:
    return type(value) is str and value.startswith(("http://", "https://")) and len(value) <= 1024


def urls(value: Any) -> bool:
    return type(value) is list and 2 <= len(value) <= 5 and all(map(url, value))


def pixels(*names: str) -> Check:
    return lambda value: (
        type(value) is dict and {*names} == value.keys() and all(map(whole(0, 4096), value.values()))
    )


def polygon(value: Any) -> bool:
    if type(value) is not dict or {"width", "height", "points"} != value.keys():
        return False
    points = value["points"]
    sizes = (value["width"], value["height"])
    return all(map(whole(500, 4096), sizes)) and len(points) % 2 == 0 and all(map(whole(0, 4096), points))


def mask(value: Any) -> bool:
    if type(value) is not dict or len(value) != 1:
        return False
    if "url" in value:
        return url(value["url"])
    return bool(value.get("areas")) and all(map(polygon, value["areas"]))


JOB = {"jobId": text(), "imageNo": whole(0, 23)}
VIDEO = {"jobId": text(), "videoNo": whole(0, 3)}
CANVAS = {"canvas": pixels("width", "height"), "imgPos": pixels("width", "height", "x", "y")}
REMIX = {"remixPrompt": text()}

#: The required and the optional fields of each verb.
VERBS: Mapping[str, tuple[Mapping[str, Check], Mapping[str, Check]]] = {
    "diffusion": ({"text": text()}, {}),
    "reroll": ({"jobId": text()}, {}),
    "upscale": ({**JOB, "type": whole(0, 3)}, {}),
    "variation": ({**JOB, "type": whole(0, 1)}, REMIX),
    "remix": ({**JOB, **REMIX}, {"mode": whole(0, 1)}),
    "pan": ({**JOB, "direction": whole(0, 3), "scale": number(1.1, 3)}, REMIX),
    "outpaint": ({**JOB, "scale": number(1.1, 2)}, REMIX),
    "inpaint": ({**JOB, "mask": mask}, REMIX),
    "edit": ({**JOB, **CANVAS, **REMIX}, {"mask": mask}),
    "upload-paint": ({"imgUrl": url, **CANVAS, **REMIX, "mask": mask}, {}),
    "retexture": ({"imgUrl": url, **REMIX}, {}),
    "remove-background": ({"imgUrl": url}, {}),
    "enhance": (JOB, {}),
    "blend": ({"imgUrls": urls, "aspect_ratio": one_of("2:3", "1:1", "3:2")}, {}),
    "describe": ({"imgUrl": url}, {}),
    "shorten": ({"prompt": text()}, {}),
    "video-diffusion": ({}, {**JOB, "prompt": text(), "videoType": whole(0, 1)}),
    "extend-video": (VIDEO, {"prompt": text()}),
    "video-upscale": (VIDEO, {}),
}

NEVER = "0001-01-01T00:00:00Z"


def problem_of(verb: str, body: Any) -> str:
    """Return what is wrong with a body, "" if nothing is."""
    required, optional = VERBS[verb]
    known = {**required, **optional, "callback": url}
    for name in required:
        if name not in body:
            return f"{name} is required"
    for name, value in body.items():
        if name not in known:
            return f"{name} is unknown"
        if not known[name](value):
            return f"{name} is invalid: {value!r}"
    if verb == "video-diffusion" and "prompt" not in body and not {"jobId", "imageNo"} <= body.keys():
        return "prompt, or jobId and imageNo, are required"
    return ""


def job(job_id: str, verb: str, status: str = "pending", output: Any = None, **more: Any) -> dict[str, Any]:
    """Return a job as the vendor's live log shows one."""
    done = status in ("completed", "failed")
    return {
        "job_id": job_id,
        "model": "midjourney",
        "task_type": verb.replace("-", "_"),
        "status": status,
        "config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}},
        "input": None,
        "output": output or {"image_url": "", "image_urls": None, "seed": ""},
        "meta": {
            "created_at": "2025-12-17T11:08:36Z",
            "started_at": "2025-12-17T11:08:37Z" if done else NEVER,
            "ended_at": "2025-12-17T11:09:12Z" if done else NEVER,
            "usage": {"type": "point", "frozen": 80, "consume": 80 if status == "completed" else 0},
        },
        "detail": None,
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
        **more,
    }


@define(eq=False)
class StrictLegNext:
    """Takes creates and completes each job at its first read; `seen` are verbs and bodies as they came."""

    outputs: dict[str, Any] = field(factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(factory=list)
    url: str = ""
    _verbs: dict[str, str] = field(factory=dict)

    async def serve(self, request: web.BaseRequest) -> web.Response:
        if request.headers.get("x-api-key") != KEY:
            return refused(401, "Invalid API key")
        if request.method == "GET":
            return self._read(request.path)
        return self._create(request, await request.read())

    def _read(self, path: str) -> web.Response:
        if path == "/api/account/balance":
            data = {"account_id": 7, "balance_usd": 6.64, "available_credits": 6640, "available_points": 0}
            return web.json_response({"code": 200, "data": data, "message": "success"})

        front, _, last = path.rpartition("/")
        if front != "/api/v1/job" or last not in self._verbs:
            return refused(404, "job not found")
        verb = self._verbs[last]
        return web.json_response(job(last, verb, "completed", self.outputs.get(verb)))

    def _create(self, request: web.BaseRequest, sent: bytes) -> web.Response:
        front, _, last = request.path.rpartition("/")
        if request.method != "POST" or front != "/api/v1" or last not in VERBS:
            return refused(404, "no such endpoint")
        if request.content_type != "application/json":
            return refused(415, "JSON is expected")
        body = json.loads(sent)
        self.seen.append((last, body))
        problem = problem_of(last, body)
        if problem:
            return refused(400, problem)

        job_id = f"5f0a7c1e-0000-4000-8000-{len(self._verbs):012}"
        self._verbs[job_id] = last
        return web.json_response(job(job_id, last))


def refused(status: int, message: str) -> web.Response:
    """Return a refusal as the vendor's pages show it."""
    return web.json_response(
        {"code": status, "message": message, "raw_message": message, "detail": None}, status=status
    )


@asynccontextmanager
async def strict_legnext(**outputs: Any) -> AsyncIterator[StrictLegNext]:
    """Serve inside the block."""
    host = StrictLegNext({name.replace("_", "-"): output for name, output in outputs.items()})
    runner = web.ServerRunner(web.Server(host.serve, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield host
    finally:
        await runner.cleanup()
