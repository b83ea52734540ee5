"""Asyncio SDK for PiAPI's task API: it never pays twice, waits nearly for free, and loses nothing.

::

    from piapi_async import PiAPI, Reroll

    async with PiAPI() as piapi:  # PIAPI_API_KEY, PIAPI_BASE_URL
        task = await piapi.run(Reroll("6886fc4d-…", prompt="a cute cat"), timeout=600, download="pictures")
        print([file.saved_as for file in task.files if file.saved_as])

What to look at first (``help(piapi_async.PiAPI)``):

    PiAPI               the client: run, submit, attach, fetch, cancel, upload, account, history
    Imagine Reroll Upscale Variation Inpaint Outpaint Pan Describe Blend Seed
                        what Midjourney can be asked for
    piapi_async.models  what else PiAPI runs (flux, kling, …); CreateTask makes any of it by its names
    piapi_async.legnext the same verbs at LegNext, and a client of it
    TaskHandle          a submitted task: wait, updates, refresh, cancel; as_completed, wait_all
    Task                one reading of it: state, done, ok, images, files, result, cost, error, to_dict
    TaskRef             where it is: to_json and to_token, for attach in another process
    download read       its files, on disk or in memory
    Ledger              remembers every submission, so that none is lost or paid twice
    BatchRunner         many requests, bounded and resumable
    WebhookReceiver     ends waits by deliveries
    PiAPIError          the base of the errors, each of which has a `reason` for end users
    RetryPolicy PollPolicy
                        how often a call is tried, and how closely tasks are polled

Submissions cost money: what may have been accepted is never repeated by guess.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from ._http import HTTPRequest, HTTPResponse, Request
    from ._protocol.family import Family, TaskRequest
    from ._submit.unknown_rows import RecoveryReport
    from .account import Account, ActiveTasks, Credits, HistoryEntry
    from .batch import BatchItem, BatchRunner, Outcome, Totals
    from .client import PiAPI
    from .downloads import download, read
    from .errors import (
        APIError,
        AuthenticationError,
        ClientClosed,
        DownloadError,
        InsufficientCreditError,
        InvalidRequestError,
        KeyReused,
        LedgerError,
        NotFoundError,
        ParentOutdatedError,
        PiAPIError,
        RateLimitError,
        ServerError,
        SubmissionUnknown,
        TaskCancelled,
        TaskFailed,
        TransportError,
        UnexpectedAnswer,
        WaitTimeout,
        WebhookRejected,
    )
    from .handle import TaskHandle, as_completed, wait_all
    from .ledger import Ledger, LedgerEntry, LedgerState
    from .midjourney import (
        LEGACY,
        Blend,
        Describe,
        Imagine,
        Inpaint,
        MidjourneyResult,
        Outpaint,
        Pan,
        Reroll,
        Seed,
        Upscale,
        Variation,
    )
    from .policy import PollPolicy, RetryPolicy
    from .stats import Stats
    from .tasks import Cost, Created, FileKind, FileRole, Task, TaskFile, TaskRef, TaskState
    from .unified import UNIFIED, CreateTask
    from .webhooks import WebhookEvent, WebhookReceiver

__all__ = [
    "LEGACY",
    "UNIFIED",
    "APIError",
    "Account",
    "ActiveTasks",
    "AuthenticationError",
    "BatchItem",
    "BatchRunner",
    "Blend",
    "ClientClosed",
    "Cost",
    "CreateTask",
    "Created",
    "Credits",
    "Describe",
    "DownloadError",
    "Family",
    "FileKind",
    "FileRole",
    "HTTPRequest",
    "HTTPResponse",
    "HistoryEntry",
    "Imagine",
    "Inpaint",
    "InsufficientCreditError",
    "InvalidRequestError",
    "KeyReused",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LedgerState",
    "MidjourneyResult",
    "NotFoundError",
    "Outcome",
    "Outpaint",
    "Pan",
    "ParentOutdatedError",
    "PiAPI",
    "PiAPIError",
    "PollPolicy",
    "RateLimitError",
    "RecoveryReport",
    "Request",
    "Reroll",
    "RetryPolicy",
    "Seed",
    "ServerError",
    "Stats",
    "SubmissionUnknown",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskFile",
    "TaskHandle",
    "TaskRef",
    "TaskRequest",
    "TaskState",
    "Totals",
    "TransportError",
    "UnexpectedAnswer",
    "Upscale",
    "Variation",
    "WaitTimeout",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookRejected",
    "__version__",
    "as_completed",
    "download",
    "read",
    "wait_all",
]

# A name is loaded when it is first asked for: a program that only builds requests or reads refs does without aiohttp,
# and every pytest run that merely has this package installed does without all of it.
_HOMES = {
    "stats": "Stats",
    "_http": "HTTPRequest HTTPResponse Request",
    "_protocol.family": "Family TaskRequest",
    "account": "Account ActiveTasks Credits HistoryEntry",
    "errors": (
        "APIError AuthenticationError ClientClosed DownloadError InsufficientCreditError "
        "InvalidRequestError KeyReused LedgerError NotFoundError ParentOutdatedError PiAPIError "
        "RateLimitError ServerError SubmissionUnknown TaskCancelled TaskFailed TransportError "
        "UnexpectedAnswer WaitTimeout WebhookRejected"
    ),
    "midjourney": "LEGACY Blend Describe Imagine Inpaint MidjourneyResult Outpaint Pan Reroll Seed Upscale Variation",
    "policy": "PollPolicy RetryPolicy",
    "tasks": "Cost Created FileKind FileRole Task TaskFile TaskRef TaskState",
    "unified": "CreateTask UNIFIED",
    "batch": "BatchItem BatchRunner Outcome Totals",
    "client": "PiAPI",
    "_submit.unknown_rows": "RecoveryReport",
    "handle": "TaskHandle as_completed wait_all",
    "downloads": "download read",
    "ledger": "Ledger LedgerEntry LedgerState",
    "webhooks": "WebhookEvent WebhookReceiver",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
