"""The commands of Midjourney's verbs, built from the request classes."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import attrs
import click

from ..client import PiAPI, runtime_of
from ..errors import ClientClosed
from ..handle import TaskHandle
from ..ledger._entries import check_key
from ._finish import finish
from ._hints import HintingCommand
from ._meter import Meter
from ._options import shared_options, stacked, timeout_option
from ._output import check_stdout, echo
from ._resume import how_to_wait
from ._running import run
from ._saving import Saving, saving_options
from ._session import client
from ._setup import Setup, read_setup
from ._stderr import say, tell
from ._verbs import VERBS

if TYPE_CHECKING:
    from .._protocol.family import TaskRequest

_HELP = {
    "origin_task_id": "The task to derive from.",
    "prompt": "What to draw.",
    "process_mode": "relax, fast or turbo.",
    "aspect_ratio": "Such as 4:3.",
    "skip_prompt_check": "Ask the host not to check the prompt first.",
    "bot_id": "A bot of the account.",
    "index": (
        "1 to 4 on a grid; of a single picture 2x, 4x, subtle, creative (upscale), "
        "high_variation or low_variation (variation)."
    ),
    "mask": "Base64, a data: URI, or @FILE: white where to draw anew.",
    "zoom_ratio": "1, 1.5 or 2.",
    "direction": "up, down, left or right.",
    "dimension": "square, portrait or landscape.",
    "webhook_endpoint": "An http(s) URL to which the host posts the outcome.",
    "webhook_secret": (
        "What the host sends back with it, as `listen` expects. Other users see a command line: better "
        "set PIAPI_WEBHOOK_SECRET."
    ),
    "notify_progress": "Ask the host to post progress to the webhook too.",
}

submit_options = stacked(
    timeout_option,
    saving_options(),
    click.option("--no-wait", is_flag=True, help="Print the task's id and exit; `wait` waits for it."),
    click.option(
        "--key",
        help="With --ledger: the same key and request give the same task, however often this is run.",
    ),
    shared_options,
)
"""The options of every command that creates a task."""


def verb_command(cls: type[Any]) -> click.Command:
    """Return the command of one verb, built from its request class."""

    def submit(
        *,
        timeout: float | None,
        no_wait: bool,
        key: str | None,
        saving: Saving,
        **values: object,
    ) -> None:
        setup = read_setup()
        check_stdout()
        require_key(setup, key)
        mask = values.get("mask")
        if isinstance(mask, str):
            values["mask"] = _read_mask(mask)

        given = {name: value for name, value in values.items() if value not in (None, ())}
        add_webhook_secret(given)
        try:
            request = cls(**given)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        saving.prepare()
        run(submit_and_finish(setup, request, key, timeout, saving, wait=not no_wait))

    hints = get_type_hints(cls)
    fields = [f for f in attrs.fields(cls) if f.init]
    first, *others = sorted(fields, key=lambda f: (f.kw_only, f.inherited))
    inputs = [_argument(first, hints[first.name]), *(_option(f, hints[f.name]) for f in others)]

    decorated = stacked(*inputs, submit_options)(submit)
    return click.command(cls.__name__.lower(), cls=HintingCommand, help=cls.__doc__)(decorated)


def _argument(
    attribute: attrs.Attribute[Any],
    hint: Any,  # noqa: ANN401 - a type is any object
) -> Callable[[Any], Any]:
    name = attribute.name.upper()
    if get_origin(hint) is tuple:
        return click.argument(attribute.name, metavar=f"{name}...", nargs=-1, required=True)
    return click.argument(attribute.name, metavar=name, required=True)


def _option(
    attribute: attrs.Attribute[Any],
    hint: Any,  # noqa: ANN401 - a type is any object
) -> Callable[[Any], Any]:
    name = attribute.name.replace("_", "-")
    text = _HELP[attribute.name]
    if bool in get_args(hint):
        return click.option(f"--{name}/--no-{name}", attribute.name, default=None, help=text)

    kind: type = str
    if int in get_args(hint):
        kind = int
    required = attribute.default is attrs.NOTHING
    return click.option(f"--{name}", attribute.name, type=kind, help=text, required=required)


def add_webhook_secret(given: dict[str, Any]) -> None:
    """Add the environment's webhook secret to the fields of a request that has an endpoint and none."""
    secret = os.environ.get("PIAPI_WEBHOOK_SECRET", "").strip()
    if secret and given.get("webhook_endpoint"):
        given.setdefault("webhook_secret", secret)


def _read_mask(value: str) -> str | bytes:
    """Return a mask as it was typed, or the bytes of the file for @FILE."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--mask {value}: {error.strerror}") from None


def require_key(setup: Setup, key: str | None) -> None:
    """Raise `click.UsageError` for a key without a ledger, or that no ledger takes."""
    if key is None:
        return
    if setup.ledger is None:
        raise click.UsageError("--key needs --ledger FILE, which remembers it")
    try:
        check_key(key)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def submit_and_finish(
    setup: Setup,
    request: TaskRequest[Any],
    key: str | None,
    timeout: float | None,
    saving: Saving,
    *,
    wait: bool,
) -> None:
    """Submit a request; with `wait` see its task through to saved files, else print its id."""
    setup = setup.to(request.family)
    async with client(setup) as piapi:
        with Meter() as meter:
            meter.submitting()
            handle = await _submit(setup, piapi, request, key, saving)
            meter.submitted(handle.task_id)
            say(f"submitted {handle.task_id}")
            if wait:
                verb = getattr(request, "verb", "")
                await finish(setup, piapi, handle, meter, timeout=timeout, saving=saving, verb=verb)
                return
        echo(handle.task_id)


async def _submit(
    setup: Setup, piapi: PiAPI, request: TaskRequest[Any], key: str | None, saving: Saving
) -> TaskHandle[Any]:
    """Submit in a task of its own, so that its outcome is known although the command is interrupted."""
    submitting = asyncio.create_task(piapi.submit(request, key=key))
    try:
        await asyncio.wait([submitting])
    except asyncio.CancelledError:
        await _tell_outcome(setup, piapi, submitting, saving)
        raise

    try:
        return submitting.result()
    except ValueError as error:  # the key, which the ledger may have for another request
        raise click.UsageError(str(error)) from None


async def _tell_outcome(
    setup: Setup, piapi: PiAPI, submitting: asyncio.Task[TaskHandle[Any]], saving: Saving
) -> None:
    """See an interrupted submission to its end: what is being sent arrives, the rest is not sent."""
    submitter = runtime_of(piapi).submitter  # the client has no other caller now
    try:
        if submitter.sending:
            say("The submission is on its way; waiting for the task's id. Ctrl-C again to give up.")
        await submitter.finish()
        await asyncio.wait([submitting])
    except (asyncio.CancelledError, KeyboardInterrupt):
        _give_up(setup)
        return

    match submitting.exception():
        case None:
            ref = submitting.result().ref
            how = how_to_wait(setup, ref.task_id, ref.family, saving)
            tell(f"Task {ref.task_id} was submitted. To wait for it: {how}")
        case ClientClosed():
            say("Nothing was sent, nothing was paid.")
        case error:  # it says whether money was spent
            say(f"Error: {error}")


def _give_up(setup: Setup) -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if not task.cancelling():
            task.cancel()  # or closing the client would wait for the response

    say("A task may exist and may have been paid for: look at your account's tasks first.")
    if setup.ledger is not None:
        ledger = shlex.quote(str(setup.ledger))
        say(f"The ledger has it: piapi-async ledger show {ledger} --state unknown")


COMMANDS: Mapping[str, click.Command] = {cls.__name__.lower(): verb_command(cls) for cls in VERBS}
