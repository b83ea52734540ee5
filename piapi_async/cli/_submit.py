"""From a request to its task: what Midjourney's verbs and `run` do."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..client import PiAPI, runtime_of
from ..errors import ClientClosed
from ..handle import TaskHandle
from ..ledger import LedgerEntry
from ..ledger._entries import check_key
from ._finish import finish
from ._meter import Meter
from ._output import check_stdout, echo
from ._resume import how_to_wait
from ._running import run
from ._saving import Saving
from ._session import client
from ._setup import Setup, read_setup
from ._stderr import say, tell
from ._verbs import VERBS

if TYPE_CHECKING:
    from .._protocol.family import TaskRequest


def submit_verb(
    name: str,
    *,
    timeout: float | None,
    no_wait: bool,
    key: str | None,
    saving: Saving,
    **values: object,
) -> None:
    """Submit the request of a verb, and see its task through."""
    setup = read_setup()
    check_stdout()
    require_key(setup, key)
    mask = values.get("mask")
    if isinstance(mask, str):
        values["mask"] = _read_mask(mask)

    given = {field: value for field, value in values.items() if value not in (None, ())}
    add_webhook_secret(given)
    try:
        request = VERBS[name](**given)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    saving.prepare()
    run(submit_and_finish(setup, request, key, timeout, saving, wait=not no_wait))


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
            known = await _known(piapi, key)
            handle = await _submit(setup, piapi, request, key, saving)
            meter.submitted(handle.task_id)
            when = (
                " earlier, under this key:" if known is not None and known.task_id == handle.task_id else ""
            )
            say(f"submitted{when} {handle.task_id}")
            if wait:
                verb = getattr(request, "verb", "")
                await finish(
                    setup, piapi, handle, meter, timeout=timeout, saving=saving, verb=verb, known=known
                )
                return
        echo(handle.task_id)


async def _known(piapi: PiAPI, key: str | None) -> LedgerEntry | None:
    """Return what the ledger has of a key, None if it is new."""
    if key is None or piapi.ledger is None:
        return None
    return await piapi.ledger.find(key)


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
