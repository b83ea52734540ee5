"""`piapi-async listen`: webhook deliveries as JSON lines, to see what a host sends."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click
from aiohttp import web
from yarl import URL

from ..errors import WebhookRejected
from ..webhooks import WebhookEvent
from ..webhooks._proof import check_secret_text
from ..webhooks._receiver import read_delivery
from ._exit import ExitCode
from ._output import check_stdout, leave_stdout, reason_of, stdout_encoding, to_json, write_out
from ._running import run
from ._session import read_secret
from ._stderr import say, tell

_NOT_GIVEN = "No secret: set the environment variable PIAPI_WEBHOOK_SECRET or use --secret-file FILE"


def listen(host: str, port: int, secret_file: Path | None) -> None:
    """Print webhook deliveries as JSON lines, until Ctrl-C."""
    secret = _read_secret(secret_file)
    check_stdout()
    run(_Listener(secret).serve(host, port))


def _read_secret(file: Path | None) -> str:
    secret = os.environ.get("PIAPI_WEBHOOK_SECRET", "").strip()
    if file:
        secret = read_secret(file)
    if not secret:
        raise click.UsageError(_NOT_GIVEN)

    try:
        check_secret_text(secret)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return secret


class _Listener:
    """Prints deliveries until stdout can no longer be written to."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._stdout_failed = asyncio.Event()

    async def serve(self, host: str, port: int) -> None:
        """Listen until stdout fails; then exit."""
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            for address in runner.addresses:
                url = URL.build(scheme="http", host=address[0], port=address[1], path="/")
                say(f"Listening at {url} for deliveries that carry the secret.")
            await self._stdout_failed.wait()
        except OSError as error:
            raise click.UsageError(f"cannot listen at {host}:{port}: {error}") from None
        finally:
            await runner.cleanup()

        leave_stdout()
        sys.exit(ExitCode.OTHER)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await read_delivery(request, self._secret)
            event = WebhookEvent.from_http(
                request.headers, body, secret=self._secret, query=request.query_string
            )
        except WebhookRejected as error:
            say(f"rejected: {error}")
            return web.Response(status=403)

        row = {
            "task_id": event.task_id,
            "status": event.status,
            "family": event.family,
            "task": event.raw,
        }
        text = to_json(row, encoding=stdout_encoding())
        try:
            write_out(text)
        except (OSError, ValueError) as error:
            # 500 makes the host keep the delivery, and others that follow.
            tell(f"Error: a delivery cannot be written to standard output ({reason_of(error)}): {text}")
            self._stdout_failed.set()
            return web.Response(status=500)
        return web.Response()
