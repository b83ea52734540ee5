"""`piapi-async emulator`: a local PiAPI server, with all its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ._declared import declared

_share = click.FloatRange(0, 1)
_seconds = click.FloatRange(min=0)


emulator = declared(
    "emulator",
    "_emulator:emulator",
    """Serve a local PiAPI with real results until Ctrl-C; watch it at /_emulator/.""",
    click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
    click.option(
        "--exposed",
        is_flag=True,
        help="Allow a --host that other machines reach: it trusts all of them.",
    ),
    click.option(
        "--port",
        default=8080,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="The port to listen on; 0 finds a free one.",
    ),
    click.option(
        "--seed", default=0, show_default=True, help="The same seed and requests give the same run."
    ),
    click.option(
        "--speed",
        default=1.0,
        show_default=True,
        type=click.FloatRange(min=0, min_open=True),
        help="How many times faster than real time.",
    ),
    click.option(
        "--key",
        "api_keys",
        multiple=True,
        help="A key to accept (may be repeated). Default: emulator-key.",
    ),
    click.option(
        "--adopt-parents/--no-adopt-parents",
        default=True,
        show_default=True,
        help="Accept any parent task id, or only those of its own tasks.",
    ),
    click.option("--plan", help="Which fields an account sees: free-payg to pro-hya. Default: pro-hya."),
    click.option("--concurrency", type=click.IntRange(min=1), help="Jobs at once. Default: the plan's."),
    click.option("--queue", type=click.IntRange(min=0), help="Tasks staged beyond that. Default: 50."),
    click.option(
        "--duration", "durations", type=_seconds, help="Seconds every task takes. Default: as PiAPI's."
    ),
    click.option("--failure-rate", type=_share, help="The share of tasks that fail."),
    click.option("--retry-rate", type=_share, help="The share of tasks that the server retries internally."),
    click.option("--progress-error", type=_share, help="How far the reported progress is off."),
    click.option("--parent-max-age", type=_seconds, help="Seconds after which a parent is outdated."),
    click.option("--links-expire-after", type=_seconds, help="Seconds after which links to results expire."),
    click.option(
        "--links-live-after",
        type=_seconds,
        help="Seconds after a task's end before links to results work.",
    ),
    click.option(
        "--signed-links",
        type=click.Choice(["no", "links", "redirects"]),
        help="Links that only work byte for byte, or that redirect to such links.",
    ),
    click.option(
        "--picture-size",
        type=click.IntRange(16, 2048),
        help="Pixels of a quadrant's side. Default: 1024.",
    ),
    click.option("--latency", type=_seconds, help="Seconds before any response."),
    click.option(
        "--banned-word",
        "banned_words",
        multiple=True,
        help="Refuse prompts with this word (may be repeated).",
    ),
    click.option("--public-url", metavar="URL", help="What links begin with, and a host name to accept."),
    click.option(
        "--webhook-host",
        "webhook_hosts",
        multiple=True,
        help="A host to post webhooks to (may be repeated).",
    ),
    click.option(
        "--dialect",
        multiple=True,
        metavar="NAME=VALUE",
        help="Change a response that the vendor does not document, as multi_fetch=false (may be repeated).",
    ),
    click.option(
        "--faults",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A TOML file of [[fault]] tables.",
    ),
    click.option(
        "--state",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A file that keeps tasks across restarts.",
    ),
)


COMMANDS: Mapping[str, click.Command] = {
    "emulator": emulator,
}
