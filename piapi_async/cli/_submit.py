"""The commands that make a task: built from the request classes, so a verb added there is a command here."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import attrs
import click

from ..client import PiAPI, runtime_of
from ..errors import ClientClosed, NotFoundError
from ..handle import TaskHandle
from ..ledger._entries import check_key
from ..tasks import Task
from ._hints import HintingCommand
from ._options import Setup, shared_options, short, timeout_option
from ._output import Meter, check_stdout, echo, print_task, say, tell
from ._saving import Saving, saving_options
from ._session import client, read_setup, resume_command, run
from ._verbs import VERBS

if TYPE_CHECKING:
    from .._protocol.family import TaskRequest

_HELP = {
    "origin_task_id": "The task to derive from.",
    "prompt": "What to draw.",
    "process_mode": "relax, fast or turbo.",
    "aspect_ratio": "Such as 4:3.",
    "skip_prompt_check": "Let the host not check the prompt first.",
    "bot_id": "A bot of the account's.",
    "index": "1 to 4 on a grid; of a single picture 2x, 4x, subtle, creative (upscale), high_ or low_variation.",
    "mask": "Base64, a data: URI, or @FILE: white where to draw anew.",
    "zoom_ratio": "1, 1.5 or 2.",
    "direction": "up, down, left or right.",
    "dimension": "square, portrait or landscape.",
    "webhook_endpoint": "An http(s) URL the host posts the outcome to.",
    "notify_progress": "Let the host post progress to the webhook too.",
}
_NOT_ON_A_COMMAND_LINE = {"webhook_secret"}  # a process list would show it
no_wait_option = click.Option(["--no-wait"], is_flag=True, help="Print the task's id and leave; `wait` waits for it.")
key_option = click.Option(
    ["--key"], help="With --ledger: the same key and request give the same task, however often this is run."
)


def verb_command(cls: type[Any]) -> click.Command:
    """Build the command of one verb from its request class."""

    def submit(*, timeout: float | None, no_wait: bool, key: str | None, **values: object) -> None:
        setup, saving = read_setup(), Saving.taken_from(values)
        check_stdout()
        require_key(setup, key)
        if isinstance(mask := values.get("mask"), str):
            values["mask"] = _read_mask(mask)
        try:
            request = cls(**{name: value for name, value in values.items() if value not in (None, ())})
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        saving.prepare()
        run(submit_and_finish(setup, request, key, timeout, saving, wait=not no_wait))

    hints = get_type_hints(cls)
    fields = [f for f in attrs.fields(cls) if f.init and f.name not in _NOT_ON_A_COMMAND_LINE]
    first, *others = sorted(fields, key=lambda f: (f.kw_only, f.inherited))
    parameters = [_argument(first, hints[first.name]), *(_option(f, hints[f.name]) for f in others)]
    return HintingCommand(
        cls.__name__.lower(),
        callback=submit,
        params=[*parameters, timeout_option, *saving_options(), no_wait_option, key_option, *shared_options()],
        help=cls.__doc__,
        short_help=short(cls.__doc__),
    )


def require_key(setup: Setup, key: str | None) -> None:
    """Refuse a key that nobody would remember, or that can be none."""
    if key is None:
        return
    if setup.ledger is None:
        raise click.UsageError("--key needs --ledger FILE, which remembers it")
    try:
        check_key(key)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _argument(attribute: attrs.Attribute[Any], hint: Any) -> click.Argument:  # noqa: ANN401 - a type is any object
    name = attribute.name.upper()
    if get_origin(hint) is tuple:
        return click.Argument([attribute.name], metavar=f"{name}...", nargs=-1, required=True)
    return click.Argument([attribute.name], metavar=name, required=True)


def _option(attribute: attrs.Attribute[Any], hint: Any) -> click.Option:  # noqa: ANN401 - a type is any object
    option = "--" + attribute.name.replace("_", "-")
    text = _HELP[attribute.name]
    if bool in get_args(hint):
        return click.Option([f"{option}/--no-{option[2:]}", attribute.name], default=None, help=text)
    kind = click.INT if int in get_args(hint) else click.STRING
    return click.Option([option, attribute.name], type=kind, help=text, required=attribute.default is attrs.NOTHING)


def _read_mask(value: str) -> str | bytes:
    """Give a mask as it was typed, or the file's bytes for @FILE."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--mask {value}: {error.strerror}") from None


async def submit_and_finish(
    setup: Setup,
    request: TaskRequest[Any],
    key: str | None,
    timeout: float | None,
    saving: Saving,
    *,
    wait: bool,
) -> None:
    """Submit a request and see its task through, to saved files if that is wanted."""
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
    """Submit in a task of its own, so that what comes of it is known although the command is interrupted."""
    submitting = asyncio.create_task(piapi.submit(request, key=key))
    try:
        await asyncio.wait([submitting])
    except asyncio.CancelledError:
        await _tell_what_came(setup, piapi, submitting, saving)
        raise
    try:
        return submitting.result()
    except ValueError as error:  # the key, which the ledger may have for another request
        raise click.UsageError(str(error)) from None


async def _tell_what_came(
    setup: Setup, piapi: PiAPI, submitting: asyncio.Task[TaskHandle[Any]], saving: Saving
) -> None:
    """See an interrupted submit to its end: what has begun to leave arrives all the same, the rest is not sent."""
    submitter = runtime_of(piapi).submitter  # the client has no other caller now
    try:
        if submitter.sending:
            say("The submit is on its way; waiting for the task's id. Ctrl-C again to give up.")
        await submitter.finish()
        await asyncio.wait([submitting])
    except (asyncio.CancelledError, KeyboardInterrupt):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if not task.cancelling():
                task.cancel()  # or closing the client would wait for the answer
        say("A task may exist and may have been paid for: look at your account's tasks before you submit it again.")
        if setup.ledger is not None:
            say(f"The ledger knows it: piapi-async ledger show {shlex.quote(str(setup.ledger))} --state unknown")
        return
    match submitting.exception():
        case None:
            ref = submitting.result().ref
            resume = resume_command(setup, ref.task_id, ref.family, saving)
            tell(f"Task {ref.task_id} was submitted. To wait for it: {resume}")
        case ClientClosed():
            say("Nothing was sent, nothing was paid.")
        case error:  # it says what became of the money
            say(f"Error: {error}")


async def finish(
    setup: Setup,
    piapi: PiAPI,
    handle: TaskHandle[Any],
    meter: Meter,
    *,
    timeout: float | None,
    saving: Saving,
    verb: str | None = None,
) -> None:
    """Wait for a task and show how it goes, save its files, print it.

    `verb` is that of the request by which this command has made it, so that it is there whether or not it was seen;
    None for a task that somebody else has made.
    """
    resume = resume_command(setup, handle.task_id, handle.ref.family, saving)
    try:
        async for task in handle.updates(timeout):
            meter.show(task)
        task = await handle.wait()
    except BaseException as error:  # whatever ended the wait: the id is worth money
        with meter.ended(handle.task_id):
            _tell_how_to_resume(handle, error, resume, submitted=verb is not None)
        raise
    just_ended = verb is not None  # else it may have ended long ago
    try:
        task = await saving.save(piapi, task, verb=verb or "", just_ended=just_ended)
    except BaseException:
        with meter.ended(handle.task_id):
            print_task(task)
            say(f"Task {handle.task_id} is done. To save its files: {resume}")
        raise
    with meter.ended(handle.task_id):
        tell_saved(task)
        print_task(task)


def tell_saved(task: Task[Any]) -> None:
    """Say where files were saved."""
    for file in task.files:
        if file.saved_as is not None:
            say(f"saved {file.saved_as}")


def _tell_how_to_resume(handle: TaskHandle[Any], error: BaseException, resume: str, *, submitted: bool) -> None:
    """Say what becomes of a task whose wait is over without its end."""
    if handle.task is not None and handle.task.state.terminal:
        return
    if handle.task is not None or submitted:
        tell(f"Task {handle.task_id} goes on. To wait for it: {resume}")
    elif not isinstance(error, NotFoundError):  # which says what to check
        say(f"Nothing was seen of task {handle.task_id}: check the id and --family. To wait for it: {resume}")


COMMANDS: Mapping[str, click.Command] = {cls.__name__.lower(): verb_command(cls) for cls in VERBS}
