"""What the emulator's tests share: an emulator in the test's own loop, and a bare aiohttp session on it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from piapi_async.emulator import Emulator

#: A 1x1 PNG's first bytes, as base64: any base64 will do for a mask.
MASK = "iVBORw0KGgo="


class Caller:
    """A bare HTTP caller of one emulator."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.session = session

    async def post(self, verb: str, **body: Any) -> tuple[int, Any]:
        """Return status and JSON of one POST under /mj/v2/."""
        async with self.session.post(f"/mj/v2/{verb}", json=body) as answer:
            return answer.status, await answer.json()

    async def create(self, verb: str, **body: Any) -> str:
        """Return the id of a new task."""
        status, answer = await self.post(verb, **body)
        assert status == 200, answer
        return str(answer["task_id"])

    async def fetch(self, task_id: str) -> Any:
        """Return the fetch object."""
        status, answer = await self.post("fetch", task_id=task_id)
        assert status == 200, answer
        return answer

    async def done(self, verb: str, **body: Any) -> Any:
        """Return the fetch object of a new task at its end."""
        task_id = await self.create(verb, **body)
        while (answer := await self.fetch(task_id))["status"] not in ("finished", "failed", "cancelled"):
            await asyncio.sleep(5)
        return answer

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of any request."""
        # A stream: aiohttp warns of large bodies that are bytes.
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        async with self.session.request(method, path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def ask(self, model: str, task_type: str, given: dict[str, Any], **config: Any) -> Any:
        """Return the data of a new task of the unified protocol."""
        body = {
            "model": model,
            "task_type": task_type,
            "input": given,
            **({"config": config} if config else {}),
        }
        status, answer = await self.call("POST", "/api/v1/task", body)
        assert (200, 200, "success") == (status, answer["code"], answer["message"]), answer
        return answer["data"]

    async def read(self, task_id: str) -> Any:
        """Return the data of a task of the unified protocol."""
        status, answer = await self.call("GET", f"/api/v1/task/{task_id}")
        assert (200, 200, "success") == (status, answer["code"], answer["message"]), answer
        return answer["data"]

    async def get(self, url: str) -> tuple[int, bytes, str]:
        """Return status, body and content type."""
        async with self.session.get(url, headers={"X-API-Key": ""}) as answer:
            return answer.status, await answer.read(), answer.content_type


@asynccontextmanager
async def emulating(**options: Any) -> AsyncIterator[Caller]:
    """Run an emulator with small pictures; yields a caller of it."""
    emulator = Emulator(**{"picture_size": 64, "seed": 1, **options})
    async with emulator.run() as base_url:
        headers = {"X-API-Key": emulator.api_key}
        timeout = aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(base_url, headers=headers, timeout=timeout) as session:
            yield Caller(emulator, session)


class Inbox:
    """A webhook receiver; answers with the statuses it was given, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.posts: list[tuple[float, dict[str, Any], str | None]] = []
        self.raw: list[tuple[Mapping[str, str], bytes]] = []
        self.url = ""

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        secret = request.headers.get("x-webhook-secret")
        self.raw.append((request.headers, await request.read()))
        self.posts.append((asyncio.get_running_loop().time(), await request.json(), secret))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Inbox]:
        """Listen on a free port."""
        runner = web.ServerRunner(web.Server(self._receive, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        try:
            yield self
        finally:
            await runner.cleanup()

    @property
    def words(self) -> list[str]:
        """The status words in the order they came."""
        return [body.get("data", body)["status"] for _, body, _ in self.posts]
