"""The HTTP side of webhooks: a delivery comes in, its secret is checked, and it is handed on.

Whom it is for, and whether it is believed, is decided in `_submit.correlation`; how far webhooks
may replace polling, in `_wait.trust`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp.http_exceptions
from aiohttp import web
from attrs import define, evolve, field

from .._protocol.webhook_fields import webhook_problem
from .._runtime import Runtime
from .._submit.deliveries import WebhookSettings
from .._submit.nonces import nonce_in
from ..client import PiAPI, runtime_of
from ..errors import ClientClosed, WebhookRejected
from ._event import MAX_BYTES, WebhookEvent, read_event
from ._proof import check_secret_text, check_signature, needs_signature

_SILENT_SECONDS = 10.0  # without a byte of a body
_READ_SECONDS = 60.0  # for the whole of it
_SMALL = 1024 * 1024  # bytes; of larger bodies only a few are read at a time
_LARGE_AT_ONCE = 4


@define(eq=False)
class WebhookReceiver:
    """Takes deliveries for one client, whose submissions then carry endpoint and secret by themselves.

    ::

        receiver = WebhookReceiver(piapi, secret="…", url="https://bot.example.org/piapi")
        app.add_routes(receiver.routes())  # aiohttp.web
        await receiver.handle(headers, body)  # elsewhere

    secret
        What the host sends back with each delivery, or what signs deliveries and their URLs where it
        sends none (LegNext's: the secret of its webhook settings, if one is set there).  Keep it to
        yourself.
    url
        Where the host reaches the route: http(s), port 80 or 443 (any port on this machine).
    confirm
        Whether an end that is delivered is confirmed by one poll.  The secret is static and
        unsigned, so False believes anyone who has seen it.
    adopt_timeout
        Seconds for which a submission whose response was lost waits for its delivery before it is
        `SubmissionUnknown`. The task that the delivery names is always read once, to see that it
        was made by that submission.

    Several processes may share one URL and secret behind a balancer.  Each receives its share of
    the ends, and polls for the others as if there were no webhooks.

    Raises `ValueError` for a secret or a URL that is not allowed, and for a second receiver of one
    client.
    """

    _piapi: PiAPI
    secret: str = field(kw_only=True, repr=False)
    url: str = field(kw_only=True)
    confirm: bool = field(default=True, kw_only=True)
    adopt_timeout: float = field(default=600.0, kw_only=True)
    counts: Counter[str] = field(init=False)
    """Deliveries: ``accepted``, ``rejected``, ``duplicate``, ``unknown`` (no task of ours), ``adopted``."""
    _runtime: Runtime = field(init=False, repr=False)
    _large: asyncio.Semaphore = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_secret_text(self.secret)
        if not self.url:
            raise ValueError("url: it must not be empty")
        self._runtime = runtime_of(self._piapi)
        problem = webhook_problem(self.url, any_port=self._runtime.home.service.any_port)
        if problem:
            raise ValueError(f"url: {self.url!r} is not allowed; {problem}")

        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self.counts = self._runtime.correlation.counts
        self._runtime.correlation.begin(
            WebhookSettings(
                secret=self.secret,
                url=self.url,
                confirm=self.confirm,
                adopt_timeout=self.adopt_timeout,
            )
        )

    def routes(self) -> list[web.RouteDef]:
        """Return the route for an `aiohttp.web` application, at the path of `url`."""
        return [web.post(urlsplit(self.url).path or "/", self._serve)]

    async def handle(self, headers: Mapping[str, str], body: bytes, *, query: str = "") -> None:
        """Take one delivery in, whatever framework brought it; answer 200 when this returns.

        The work is done after this has returned.  Raises `WebhookRejected`: answer 403, and do not
        say why; and `ClientClosed`: answer 503, so that the host delivers it again when there is a
        client.
        """
        self._runtime.enter()
        try:
            if needs_signature(headers, query, self.secret):
                check_signature(headers, body, self.secret)
            self._hand_on(body, query)
        except WebhookRejected:
            self.counts["rejected"] += 1
            raise

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            body = await read_delivery(request, self.secret, self._large)
            self._runtime.enter()
            self._hand_on(body, request.query_string)
        except WebhookRejected:
            self.counts["rejected"] += 1
            return web.Response(status=403)
        except ClientClosed:
            return web.Response(status=503)
        return web.Response()

    def _hand_on(self, body: bytes, query: str) -> None:
        """Hand a delivery on whose sender has been checked, after the host has had its response."""
        event: WebhookEvent = read_event(body, secret=self.secret)
        nonce = nonce_in(query)
        if nonce:
            event = evolve(event, nonce=nonce)
        asyncio.get_running_loop().call_soon(self._runtime.correlation.deliver, event)


async def read_delivery(
    request: web.BaseRequest,
    secret: str,
    large: asyncio.Semaphore | None = None,
) -> bytes:
    """Return the body of a delivery; one that brings no proof is refused before anything is read.

    Little more is read than is allowed, and bodies above a megabyte wait for a place in `large`.
    Raises `WebhookRejected` for a wrong secret or signature, and for a body that does not arrive in time, or
    whole.
    """
    unproven = needs_signature(request.headers, request.query_string, secret)

    body = bytearray()
    now = asyncio.get_running_loop().time
    until = now() + _READ_SECONDS

    try:
        async with asyncio.timeout(_SILENT_SECONDS) as silence, contextlib.AsyncExitStack() as places:
            async for chunk in request.content.iter_any():
                silence.reschedule(min(now() + _SILENT_SECONDS, until))

                if large is not None and len(body) <= _SMALL < len(body) + len(chunk):
                    await places.enter_async_context(large)

                body += chunk
                if len(body) > MAX_BYTES:
                    break
    except (
        TimeoutError,
        OSError,
        ValueError,
        web.RequestPayloadError,
        aiohttp.http_exceptions.HttpProcessingError,
    ) as error:
        raise WebhookRejected("The delivery did not come whole.") from error

    if unproven:
        check_signature(request.headers, bytes(body), secret)
    return bytes(body)
