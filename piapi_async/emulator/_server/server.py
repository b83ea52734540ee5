"""The emulator on a socket, in the event loop of its user.

Time is the event loop's, times `speed`: under a virtual clock a task of a minute takes no time at
all.  A request goes `_handle` (may this client talk to us?) → `_dispatch` (service, file or live
page?) → `_serve_with_latency` (latency and faults) → the router or the files.  No timer is kept
unless something will happen then: the next change of a task with a webhook, a save, the end of an
outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from typing import Any

import orjson
from aiohttp import web
from attrs import Factory, define, field

from piapi_async._http import HTTPRequest, HTTPResponse

from .._api.host import Host
from .._api.router import Router
from .._api.routes import Call, find_call, names_of
from .._media.extras import missing_extras
from .._media.links import read_file_link, read_link
from .._service.requests import Protocol
from .._service.state_file import StateFile
from .._service.tasks import Task
from ..faults import Refuse
from . import dashboard
from .chores import Chores, StateSaver
from .fault_injection import plain, serve_with_fault
from .fault_rules import FaultRules
from .guard import NO_SNIFFING, Guard, page_headers
from .served_files import LinkRules, ServedFiles
from .webhooks import Post, WebhookSender

_LOG = logging.getLogger(__name__)

#: A mask of ten megabytes in base64, and room.
LARGEST_BODY = 16 * 2**20
KEEP_ALIVE = 75.0
#: Seconds of the loop's time that a request being served has when the server stops.
GRACE = 0.1

_JSON = {"content-type": "application/json", **NO_SNIFFING}

Produce = Callable[[], Coroutine[None, None, HTTPResponse]]


@define(kw_only=True, eq=False)
class Server:
    """Serves one host until it is stopped."""

    router: Router
    rules: FaultRules
    webhooks: WebhookSender
    guard: Guard
    clock: Callable[[], float]
    speed: float
    latency: Mapping[str, float]
    links: LinkRules
    legnext_secret: str
    state: StateFile | None
    address: str
    port: int
    base_url: str = ""
    _authority: str = ""
    _host: Host = field(init=False)
    _files: ServedFiles = field(init=False)
    _saver: StateSaver = field(init=False)
    _chores: Chores = field(factory=Chores)
    _web: web.Server = field(init=False)
    _runner: web.ServerRunner = field(init=False)
    _listener: asyncio.Server | None = None
    _thread: ThreadPoolExecutor = field(factory=lambda: ThreadPoolExecutor(1, "piapi-emulator"))
    #: The task that serves each busy connection.
    _busy: dict[object, asyncio.Task[object] | None] = Factory(dict)
    _alarm: asyncio.TimerHandle | None = None
    _dated: tuple[int, str] = (-1, "")

    def __attrs_post_init__(self) -> None:
        self._host = self.router.host
        self._files = ServedFiles(
            host=self._host,
            rules=self.links,
            clock=self.clock,
            thread=self._thread,
        )
        self._saver = StateSaver(
            file=self.state,
            host=self._host,
            thread=self._thread,
            chores=self._chores,
        )

    # -- start and stop -------------------------------------------------------------------------

    async def start(self) -> str:
        """Listen, and return the base URL."""
        # The low-level server: no router and no middlewares, which would cost as much as the
        # response itself.
        self._web = web.Server(
            self._handle,
            request_factory=_request,
            keepalive_timeout=KEEP_ALIVE,
            access_log=None,
        )
        self._runner = web.ServerRunner(self._web, shutdown_timeout=GRACE)
        await self._runner.setup()
        await self._listen()

        self._host.engine.on_change = self._send_webhook
        self._set_alarm()
        if problem := missing_extras():
            _LOG.warning("%s", problem)

        host = f"[{self.address}]" if ":" in self.address else self.address
        self._authority = f"{host}:{self.port}"
        return f"http://{self._authority}"

    async def stop(self) -> None:
        """Close every socket, timer, thread and task that was opened, and save the state."""
        if self._alarm is not None:
            self._alarm.cancel()
        await self._chores.stop()
        self._close_listener()
        await _accepted()
        await self._runner.cleanup()

        # aiohttp lets a handler whose client has gone run on, as a real service does; here it ends
        # with the run.
        serving = [task for task in self._busy.values() if task is not None]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

        await self.webhooks.close()
        self._host.engine.on_change = None
        self._host.engine.advance(self.clock())
        try:
            await self._saver.save_now()
        finally:
            self._thread.shutdown()

    async def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listening = socket.create_server((self.address, self.port), family=family, backlog=512)
        self.port = listening.getsockname()[1]

        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._web, sock=listening)

    def _close_listener(self) -> None:
        """Have connections refused from now on; close the listener as soon as that leaves nothing open.

        Connections that asyncio has accepted in this turn of its loop get their transports in the next
        one, and those of a closed server would be left to the garbage collector.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.SelectorEventLoop):
            listener.close()
            return

        for listening in listener.sockets:
            loop.remove_reader(listening.fileno())
            with contextlib.suppress(OSError):  # not every system lets a listening socket be shut down
                listening.shutdown(socket.SHUT_RDWR)
        loop.call_soon(listener.close)

    # -- requests -------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        self._busy[connection] = asyncio.current_task()
        try:
            refusal = self._refusal(request)
            if refusal is None:
                response = await self._dispatch(request)
            else:
                response = plain(refusal)
        finally:
            self._busy.pop(connection, None)

        if not request.rel_url.raw_path.startswith("/_emulator"):
            self._host.seen.statuses[response.status] += 1
        if self._listener is None:
            response.force_close()
        if not response.prepared:
            response.headers["Date"] = self._date()
        return response

    def _date(self) -> str:
        """Return what time it is here as a header says it: the emulated time, as all times that are shown."""
        second = int(self._host.view.epoch + self.clock())
        if second != self._dated[0]:
            self._dated = (second, formatdate(second, usegmt=True))
        return self._dated[1]

    def _refusal(self, request: web.BaseRequest) -> HTTPResponse | None:
        """Return the refusal of a request under a host name, or from a page, that is not this emulator's."""
        headers = request.headers
        hosts = headers.getall("Host", ())
        if "Origin" not in headers and len(hosts) == 1 and hosts[0] == self._authority:
            return None

        refusal = self.guard.refusal(hosts, headers.getall("Origin", ()))
        if refusal is None:
            return None
        status, message = refusal
        return self.router.refuse(request.rel_url.raw_path, status, message)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        call = find_call(request.method, request.rel_url.raw_path_qs)
        if call is not None:
            serve = partial(self._serve, request, call)
            return await self._serve_with_latency(request, call.route.name, call.route.protocol, serve)

        path = request.rel_url.raw_path
        link = read_link(path)
        if link is not None and link.thumb:
            return plain(await self._files.picture(link))
        if link is not None:
            return await self._download(request, "image", partial(self._files.picture, link))

        file = read_file_link(path)
        if file is not None:
            return await self._download(request, "file", partial(self._files.file, file))
        return plain(self._own_page(path, request))

    async def _download(self, request: web.BaseRequest, route: str, produce: Produce) -> web.StreamResponse:
        self._host.seen.keys_to_images += "X-API-Key" in request.headers
        path = request.rel_url.raw_path
        serve = partial(self._files.through_cdn, request.raw_path, path, request.headers, produce)
        return await self._serve_with_latency(request, route, Protocol.MIDJOURNEY, serve)

    async def _serve_with_latency(
        self, request: web.BaseRequest, route: str, protocol: Protocol, produce: Produce
    ) -> web.StreamResponse:
        """Serve the request after its latency, and through the fault that hits it, if any."""
        seen = self._host.seen
        seen.requests[route] += 1

        latency = next((self.latency[name] for name in names_of(route) if name in self.latency), 0.0)
        if latency:
            await asyncio.sleep(latency)

        if not self.rules.rules:
            return plain(await produce())
        self.rules.count_for_outages(route)
        fault = self.rules.wire_fault(route)
        try:
            if fault is None:
                return plain(await produce())
            seen.faults[type(fault).__name__] += 1
            refusal_body = partial(self.router.refusal_body, protocol)
            return await serve_with_fault(request, fault, produce, refusal_body)
        finally:
            self.begin_outage_if_due()

    async def _serve(self, request: web.BaseRequest, call: Call) -> HTTPResponse:
        route = call.route
        try:
            call.body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            refusal = self.router.refusal_body(route.protocol, 413, "the request is too large")
            return HTTPResponse(413, orjson.dumps(refusal), {"content-type": "application/json"})

        if route.group == "create" and self.rules.rules:
            script = self.rules.script(route.name)
            if script is not None:
                self._host.engine.script_next(route.name, script)

        call.key = request.headers.get("X-API-Key", "")
        call.now = self.clock()
        response = self.router.serve(call)

        if route.group in ("create", "cancel"):
            self.changed()
        return response

    def _own_page(self, path: str, request: web.BaseRequest) -> HTTPResponse:
        """Return what the emulator adds to the service: the live page and its numbers."""
        if path in ("/_emulator", "/_emulator/"):
            html = dashboard.html()
            return HTTPResponse(200, html, page_headers(html))
        if path == "/_emulator/stats":
            return HTTPResponse(200, orjson.dumps(self.stats()), _JSON)
        if path == "/_emulator/tasks":
            now = self.clock()
            self._host.engine.advance(now)
            return HTTPResponse(200, orjson.dumps(dashboard.tasks(self._host, now, self.speed)), _JSON)
        return self.router.respond(HTTPRequest(request.method, path), self.clock())

    def stats(self) -> dict[str, object]:
        """Return what was seen, and how many tasks are in each stage."""
        now = self.clock()
        self._host.engine.advance(now)
        return {
            "now": now,
            "speed": self.speed,
            "tasks": dashboard.stages(self._host.engine),
            **self._host.seen.stats(),
        }

    # -- webhooks -------------------------------------------------------------------------------

    def changed(self) -> None:
        """Note a change of the tasks: the alarm may be due earlier, and the state must be saved."""
        if self._host.engine.awaiting_webhooks:
            self._set_alarm()
        self._saver.changed()

    def _set_alarm(self) -> None:
        """Set the alarm for the next change of any task, if there are webhooks to be sent."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

        if not self._host.engine.awaiting_webhooks:
            return
        due = self._host.engine.next_due()
        if due is not None:
            delay = max(0.0, (due - self.clock()) / self.speed)
            self._alarm = asyncio.get_running_loop().call_later(delay, self._advance, due)

    def _advance(self, due: float) -> None:
        self._alarm = None
        self._host.engine.advance(max(due, self.clock()))
        self._set_alarm()

    def _send_webhook(self, task: Task, at: float) -> None:
        body = self.router.webhook_body(task, at)
        shown = body.get("data", body)  # Midjourney's protocol has no envelope
        word = str(shown["status"]) if isinstance(shown, dict) else ""

        post = Post(
            task_id=task.task_id,
            endpoint=str(task.given.get("webhook_endpoint", "")),
            secret=str(task.given.get("webhook_secret", "")),
            body=orjson.dumps(body),
            status_word=word,
            signed_with=self.legnext_secret if task.protocol is Protocol.LEGNEXT else "",
        )
        self.webhooks.send(post)

    # -- outages --------------------------------------------------------------------------------

    def begin_outage_if_due(self) -> None:
        """Close the port if the next request is one that a `Refuse` is meant for."""
        if self._listener is None:
            return

        outage = self.rules.outage()
        if outage is not None:
            self._host.seen.faults["Refuse"] += 1
            self._close_listener()
            self._close_idle()
            self._chores.start(self._sit_out(outage))

    def _close_idle(self) -> None:
        for connection in self._web.connections:
            if connection not in self._busy:
                connection.force_close()

    async def _sit_out(self, outage: Refuse) -> None:
        await _accepted()
        self._close_idle()
        await asyncio.sleep(outage.seconds)
        await self._listen()
        self.begin_outage_if_due()


async def _accepted() -> None:
    """Wait until what was accepted has its transport, and its protocol knows: three turns of the loop."""
    for _ in range(3):
        await asyncio.sleep(0)


def _request(*parts: Any) -> web.BaseRequest:  # noqa: ANN401 - aiohttp's private arguments
    loop = asyncio.get_running_loop()
    make: Callable[..., web.BaseRequest] = web.BaseRequest
    return make(*parts, loop, client_max_size=LARGEST_BODY)
