"""`piapi-async listen`: webhook deliveries as JSON lines, to see what a host sends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click
from aiohttp import web

from ..errors import WebhookRejected
from ..webhooks import WebhookEvent
from ..webhooks._event import check_secret_text
from ..webhooks._receiver import read_delivery
from ._exit import ExitCode
from ._output import check_stdout, leave_stdout, reason_of, say, stdout_encoding, tell, to_json, write_out
from ._session import read_secret, run


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="0 finds a free one.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the webhook secret from this file (default: the environment's PIAPI_WEBHOOK_SECRET).",
)
def listen(host: str, port: int, secret_file: Path | None) -> None:
    """Print webhook deliveries as JSON lines, until Ctrl-C."""
    secret = read_secret(secret_file) if secret_file else os.environ.get("PIAPI_WEBHOOK_SECRET", "").strip()
    if not secret:
        raise click.UsageError("No secret: set the environment variable PIAPI_WEBHOOK_SECRET or use --secret-file FILE")

    try:
        check_secret_text(secret)
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    check_stdout()
    over = asyncio.Event()  # when nobody reads any more

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await read_delivery(request, secret)
            event = WebhookEvent.from_http(request.headers, body, secret=secret)
        except WebhookRejected as error:
            say(f"rejected: {error}")
            return web.Response(status=403)
        row = {"task_id": event.task_id, "status": event.status, "family": event.family, "task": event.raw}
        text = to_json(row, encoding=stdout_encoding())
        try:
            write_out(text)
        except (OSError, ValueError) as error:  # its reader has gone, and the host is to keep what comes
            tell(f"Error: a delivery cannot be written to standard output ({reason_of(error)}): {text}")
            over.set()
            return web.Response(status=500)
        return web.Response()

    async def main() -> None:
        runner = web.ServerRunner(web.Server(take, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            for address in runner.addresses:
                where = f"[{address[0]}]" if ":" in address[0] else address[0]
                say(f"Listening at http://{where}:{address[1]}/ for deliveries that carry the secret.")
            await over.wait()
        except OSError as error:
            raise click.UsageError(f"it cannot listen at {host}:{port}: {error}") from None
        finally:
            await runner.cleanup()
        leave_stdout()
        sys.exit(ExitCode.OTHER)

    run(main())


COMMANDS: Mapping[str, click.Command] = {"listen": listen}
