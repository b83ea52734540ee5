"""Asyncio SDK for PiAPI's task API: it never pays twice, waits nearly for free, and loses nothing.

::

    from piapi_async import PiAPI, Reroll

    async with PiAPI() as piapi:  # PIAPI_API_KEY, PIAPI_BASE_URL
        handle = await piapi.submit(Reroll("6886fc4d-…", prompt="a cute cat"))
        task = await handle.wait(timeout=600)
        print(task.result.image_url, task.images)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._stats import Stats
from ._version import __version__
from .errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    DownloadError,
    InvalidRequestError,
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
from .tasks import Family, Task, TaskRef, TaskState

if TYPE_CHECKING:
    from ._several import as_completed, wait_all
    from .client import PiAPI, TaskHandle
    from .downloads import download
    from .ledger import Ledger

__all__ = [
    "LEGACY",
    "APIError",
    "AuthenticationError",
    "Blend",
    "ClientClosed",
    "Describe",
    "DownloadError",
    "Family",
    "Imagine",
    "Inpaint",
    "InvalidRequestError",
    "Ledger",
    "LedgerError",
    "MidjourneyResult",
    "NotFoundError",
    "Outpaint",
    "Pan",
    "ParentOutdatedError",
    "PiAPI",
    "PiAPIError",
    "PollPolicy",
    "RateLimitError",
    "Reroll",
    "RetryPolicy",
    "Seed",
    "ServerError",
    "Stats",
    "SubmissionUnknown",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskHandle",
    "TaskRef",
    "TaskState",
    "TransportError",
    "UnexpectedAnswer",
    "Upscale",
    "Variation",
    "WaitTimeout",
    "WebhookRejected",
    "__version__",
    "as_completed",
    "download",
    "wait_all",
]

# What needs aiohttp is loaded when it is first asked for: a program that only builds requests or reads refs, and every
# pytest run that merely has this package installed, does without those 100 ms.
_LAZY = {
    "PiAPI": "client",
    "TaskHandle": "client",
    "Ledger": "ledger",
    "as_completed": "_several",
    "wait_all": "_several",
    "download": "downloads",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
