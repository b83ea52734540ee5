"""The emulator on a real socket, in the loop of whoever runs it.

Time is the event loop's, times `speed`: under a virtual clock a task of a minute takes no time at all.  No timer is
kept unless something will happen then: the next change of a task with a webhook, a save, the end of an outage.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from attrs import Factory, define, field, frozen

from piapi_async._http import HTTPRequest, HTTPResponse

from .._api.host import Desk
from .._api.routes import find, names_of
from .._api.unified import files_of
from .._media.cdn import MISMATCH, is_signed, ranged, signed
from .._media.extras import INSTALL, lacking
from .._media.files import TYPES, Workshop, file_of
from .._media.gallery import Gallery, pictures_of
from .._media.links import FileLink, Link, read_file_link, read_link
from .._service.requests import Door, Kind
from .._service.state_file import Snapshot, StateError, snapshot
from .._service.tasks import Stage, Task
from . import dashboard as _page
from .fault_injection import befall, plain
from .guard import NO_SNIFFING, Guard, page_headers
from .webhooks import Post, Postman

if TYPE_CHECKING:
    from .._api.routes import Route
    from .._service.state_file import StateFile
    from ..faults import Refuse, Schedule

_LOG = logging.getLogger(__name__)

#: A mask of ten megabytes in base64, and room.
LARGEST_BODY = 16 * 2**20
KEEP_ALIVE = 75.0
#: Seconds of the loop's time from a change to its saving: many changes share one write.
SAVE_AFTER = 0.2
#: Seconds of the loop's time a request under way has when the server stops.
GRACE = 0.1

_JSON = {"content-type": "application/json", **NO_SNIFFING}
_NO_IMAGE = HTTPResponse(404, b"no such image", {"content-type": "text/plain"})
_NO_FILE = HTTPResponse(404, b"no such file", {"content-type": "text/plain"})

Produce = Callable[[], Coroutine[None, None, HTTPResponse]]


@frozen
class LinkRules:
    """How links to results behave: seconds are emulated ones after a task's end; see `Emulator`."""

    expire_after: float | None = None
    expired_status: int = 404
    live_after: float = 0.0
    early_status: int = 404
    signed: str = "no"


@define(kw_only=True, eq=False)
class Server:
    """Serves one desk until closed."""

    desk: Desk
    schedule: Schedule
    postman: Postman
    guard: Guard
    clock: Callable[[], float]
    speed: float
    latency: Mapping[str, float]
    links: LinkRules
    state: StateFile | None
    host: str
    port: int
    base_url: str = ""
    _authority: str = ""
    _gallery: Gallery = field(factory=Gallery)
    _workshop: Workshop = field(default=Factory(lambda self: Workshop(self._gallery), takes_self=True))
    _web: web.Server = field(init=False)
    _runner: web.ServerRunner = field(init=False)
    _listener: asyncio.Server | None = None
    _thread: ThreadPoolExecutor = field(factory=lambda: ThreadPoolExecutor(1, "piapi-emulator"))
    _busy: dict[object, asyncio.Task[object] | None] = Factory(dict)  # connection -> who serves it
    _chores: set[asyncio.Task[None]] = Factory(set)
    _alarm: asyncio.TimerHandle | None = None
    _unsaved: bool = False
    _saving: bool = False

    # -- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Listen, and return the base URL."""
        # The low-level server: no router and no middlewares, which would cost as much as the answer itself.
        self._web = web.Server(self._handle, request_factory=_request, keepalive_timeout=KEEP_ALIVE, access_log=None)
        self._runner = web.ServerRunner(self._web, shutdown_timeout=GRACE)
        await self._runner.setup()
        await self._listen()
        self.desk.machine.on_change = self._post
        self.arm()
        if problem := lacking():
            _LOG.warning("%s", problem)
        host = f"[{self.host}]" if ":" in self.host else self.host
        self._authority = f"{host}:{self.port}"
        return f"http://{self._authority}"

    async def stop(self) -> None:
        """Close every socket, timer, thread and task that was opened."""
        if self._alarm is not None:
            self._alarm.cancel()
        for chore in list(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        self._close_listener()
        await self._runner.cleanup()
        # aiohttp lets a handler whose client has gone run on, as a real service does; here it ends with the run.
        serving = [task for task in self._busy.values() if task is not None]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await self.postman.close()
        self.desk.machine.on_change = None
        self.desk.machine.advance(self.clock())
        try:
            if self.state is not None:
                await self._write(self.state)
        finally:
            self._thread.shutdown()

    async def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.create_server((self.host, self.port), family=family, backlog=512)
        self.port = listening.getsockname()[1]
        self._listener = await asyncio.get_running_loop().create_server(self._web, sock=listening)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # -- requests -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        self._busy[connection] = asyncio.current_task()
        try:
            refusal = self._refusal(request)
            response = await self._route(request) if refusal is None else plain(refusal)
        finally:
            self._busy.pop(connection, None)
        if not request.rel_url.raw_path.startswith("/_emulator"):
            self.desk.seen.statuses[response.status] += 1
        if self._listener is None:
            response.force_close()
        return response

    def _refusal(self, request: web.BaseRequest) -> HTTPResponse | None:
        """Return the refusal of a request that came by a name, or from a page, that is none of this emulator's."""
        headers = request.headers
        hosts = headers.getall("Host", ())
        if "Origin" not in headers and len(hosts) == 1 and hosts[0] == self._authority:
            return None
        refused = self.guard.refuses(hosts, headers.getall("Origin", ()))
        return None if refused is None else self.desk.refuse(request.rel_url.raw_path, *refused)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        call = find(request.method, path)
        if call is not None:
            route = call.route
            return await self._meet(request, route.name, route.door, lambda: self._serve(request, route))
        link, file = read_link(path), read_file_link(path)
        if link is not None and link.thumb:
            return plain(await self._picture(link))
        if link is not None:
            return await self._download(request, "image", lambda: self._picture(link))
        if file is not None:
            return await self._download(request, "file", lambda: self._file(file))
        return plain(self._own(path, request))

    async def _download(self, request: web.BaseRequest, route: str, produce: Produce) -> web.StreamResponse:
        self.desk.seen.keys_to_images += "X-API-Key" in request.headers

        async def give() -> HTTPResponse:
            if (elsewhere := self._signed_elsewhere(request)) is not None:
                return elsewhere
            answer = await produce()
            if answer.status != 200 or not self.desk.view.dialect.ranges:  # noqa: PLR2004 - OK
                return answer
            return ranged(answer, request.headers)

        return await self._meet(request, route, Door.MIDJOURNEY, give)

    def _signed_elsewhere(self, request: web.BaseRequest) -> HTTPResponse | None:
        """Return what is answered to a link that is not signed and should be, None for one that is served."""
        target, path = request.raw_path, request.rel_url.raw_path
        if self.links.signed == "no" or path.startswith("/ephemeral/") or is_signed(target):
            return None
        if self.links.signed == "redirects" and "?" not in target:
            return HTTPResponse(302, b"", {"location": signed(path)})
        return MISMATCH

    async def _meet(self, request: web.BaseRequest, route: str, door: Door, produce: Produce) -> web.StreamResponse:
        """Answer through whatever latency and fault await this request."""
        seen = self.desk.seen
        seen.requests[route] += 1
        wait = next((self.latency[name] for name in names_of(route) if name in self.latency), 0.0)
        if wait:
            await asyncio.sleep(wait)
        if not self.schedule.rules:
            return plain(await produce())
        self.schedule.passed(route)
        mishap = self.schedule.mishap(route)
        try:
            if mishap is None:
                return plain(await produce())
            seen.faults[type(mishap).__name__] += 1
            return await befall(request, mishap, produce, partial(self.desk.refusal, door))
        finally:
            self.look_for_outage()

    async def _serve(self, request: web.BaseRequest, route: Route) -> HTTPResponse:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            refusal = self.desk.refusal(route.door, 413, "the request is too large")
            return HTTPResponse(413, orjson.dumps(refusal), {"content-type": "application/json"})
        if route.group == "create" and self.schedule.rules:
            fate = self.schedule.fate(route.name)
            if fate is not None:
                self.desk.machine.destine(route.name, fate)
        headers = {"x-api-key": request.headers.get("X-API-Key", "")}
        path = request.rel_url.raw_path_qs
        answer = self.desk.answer(HTTPRequest(request.method, path, body, headers), self.clock())
        if route.group in ("create", "cancel"):
            self.changed()
        return answer

    def _own(self, path: str, request: web.BaseRequest) -> HTTPResponse:
        """Answer what the emulator adds to the service: the live page and its numbers."""
        if path in ("/_emulator", "/_emulator/"):
            return HTTPResponse(200, _page.html(), page_headers(_page.html()))
        if path == "/_emulator/stats":
            return HTTPResponse(200, orjson.dumps(self.stats()), _JSON)
        if path == "/_emulator/tasks":
            self.desk.machine.advance(self.clock())
            tasks = _page.tasks(self.desk, self.clock(), self.speed)
            return HTTPResponse(200, orjson.dumps(tasks), _JSON)
        return self.desk.answer(HTTPRequest(request.method, path), self.clock())

    def stats(self) -> dict[str, object]:
        """Return what was seen, and how the tasks stand."""
        self.desk.machine.advance(self.clock())
        return {
            "now": self.clock(),
            "speed": self.speed,
            "tasks": _page.stages(self.desk.machine),
            **self.desk.seen.stats(),
        }

    # -- pictures -------------------------------------------------------------------------------------------------

    async def _picture(self, link: Link) -> HTTPResponse:
        task = self.desk.machine.get(link.task_id, now=self.clock())
        if task is None or not self._shows(task, link):
            return _NO_IMAGE
        if not link.thumb and (refusal := self._not_now(task)) is not None:
            return refusal
        machine, size = self.desk.machine, self.desk.view.picture_size
        pictures = pictures_of(task, machine.tasks.get, size)
        return await self._made("image/png", self._gallery.show, pictures, link)

    def _shows(self, task: Task, link: Link) -> bool:
        if task.kind not in (Kind.GRID, Kind.SINGLE):
            return link.thumb and task.kind is Kind.FILES and task.stage is Stage.FINISHED
        if link.percent is not None:
            return task.progress(self.clock()) >= link.percent
        return task.stage is Stage.FINISHED

    async def _file(self, link: FileLink) -> HTTPResponse:
        if not link.task_id:
            upload = self.desk.uploads.find(link.name, self.clock())
            return _shown(upload.content, upload.type) if upload else _NO_FILE
        task = self.desk.machine.get(link.task_id, now=self.clock())
        if task is None or link.name not in files_of(self.desk.view, task):
            return _NO_FILE
        if (refusal := self._not_now(task)) is not None:
            return refusal
        file = file_of(task, link.name, self.desk.view.picture_size)
        return await self._made(TYPES[file.suffix], self._workshop.make, file)

    async def _made(self, kind: str, make: Callable[..., bytes], *recipe: object) -> HTTPResponse:
        """Return what a thread makes; what it lacks for it is no reason to try again."""
        try:
            content = await asyncio.get_running_loop().run_in_executor(self._thread, make, *recipe)
        except ImportError as error:
            text = f"the emulator cannot make this file: {error}; {INSTALL}"
            return HTTPResponse(424, text.encode(), {"content-type": "text/plain"})
        return _shown(content, kind)

    def _not_now(self, task: Task) -> HTTPResponse | None:
        """Return the refusal of a link that is too old or too young, None for one that is served."""
        links, kind = self.links, {"content-type": "text/plain"}
        if task.ended is None:
            return None
        age = self.clock() - task.ended
        if links.expire_after is not None and age > links.expire_after:
            return HTTPResponse(links.expired_status, b"link has expired", kind)
        return HTTPResponse(links.early_status, b"not here yet", kind) if age < links.live_after else None

    # -- webhooks -------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Set the alarm for the next thing that happens, if anyone is to be told of such things."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self.desk.machine.next_due() if self.desk.machine.hooked else None
        if due is not None:
            delay = max(0.0, (due - self.clock()) / self.speed)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._ring, due)

    def _ring(self, due: float) -> None:
        self._alarm = None
        self.desk.machine.advance(max(due, self.clock()))
        self.arm()

    def _post(self, task: Task, at: float) -> None:
        told = self.desk.told(task, at)
        shown = told.get("data", told)  # the legacy protocol has no envelope
        word = str(shown["status"]) if isinstance(shown, dict) else ""
        endpoint, secret = (str(task.given.get(f"webhook_{name}", "")) for name in ("endpoint", "secret"))
        self.postman.send(Post(task.task_id, endpoint, secret, orjson.dumps(told), word))

    # -- outages --------------------------------------------------------------------------------------------------

    def look_for_outage(self) -> None:
        """Close the port if it is a refusal's turn."""
        if self._listener is None:
            return
        outage = self.schedule.outage()
        if outage is not None:
            self.desk.seen.faults["Refuse"] += 1
            self._do(self._refuse(outage))
            self._close_port()

    def _close_port(self) -> None:
        self._close_listener()
        for connection in self._web.connections:
            if connection not in self._busy:
                connection.force_close()

    async def _refuse(self, outage: Refuse) -> None:
        await asyncio.sleep(outage.seconds)
        await self._listen()
        self.look_for_outage()

    # -- state ----------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Note that there is something new: an alarm may be due earlier, a file must be written."""
        if self.desk.machine.hooked:
            self.arm()
        self._unsaved = True
        if self.state is not None and not self._saving:
            self._saving = True
            self._do(self._save(self.state))

    async def _save(self, state: StateFile) -> None:
        """Write until there is nothing new: changes that come soon after one another share one write."""
        while self._unsaved:
            await asyncio.sleep(SAVE_AFTER)
            self._unsaved = False
            try:
                await self._write(state)
            except StateError as error:  # the next change tries again, and the end of the run raises
                _LOG.warning("%s", error)
        self._saving = False

    async def _write(self, state: StateFile) -> None:
        now = self._snapshot()
        await asyncio.get_running_loop().run_in_executor(self._thread, state.write, now)

    def _snapshot(self) -> Snapshot:
        return snapshot(self.desk.machine, epoch=self.desk.view.epoch, saved_at=time.time())

    def _do(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _shown(content: bytes, kind: str) -> HTTPResponse:
    return HTTPResponse(200, content, {"content-type": kind, **NO_SNIFFING})


def _request(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=LARGEST_BODY
    )
