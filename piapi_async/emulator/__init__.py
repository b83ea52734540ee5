"""PiAPI on a desk, the legacy Midjourney protocol and the unified one: real sockets, real files, faults on request.

    async with Emulator(seed=1).run() as base_url:
        ...  # any client of the service, with `emulator.api_key`

Needs the `emulator` extra as soon as a picture (Pillow) or a video (PyAV) is asked for.
"""

from ._api.dialect import PLANS, Dialect, Plan
from ._emulator import Emulator
from ._server.webhooks import WebhookFaults
from ._service.observed import Delivery, Seen
from ._service.state_file import StateError
from ._service.tasks import Constant, Lognormal
from .faults import (
    Drop,
    EdgePage,
    EntriesAs,
    Fault,
    Huge,
    LinksAs,
    NoFiles,
    ReasonsAs,
    Refuse,
    Rule,
    SlowBody,
    SlowFirstByte,
    StaleKeepAlive,
    Status,
    TaskFails,
    TaskRetries,
    TaskTakes,
    Truncated,
    Unasked,
    Unclear,
    UnknownStatus,
    WrongTypes,
    load_faults,
)

__all__ = [
    "PLANS",
    "Constant",
    "Delivery",
    "Dialect",
    "Drop",
    "EdgePage",
    "Emulator",
    "EntriesAs",
    "Fault",
    "Huge",
    "LinksAs",
    "Lognormal",
    "NoFiles",
    "Plan",
    "ReasonsAs",
    "Refuse",
    "Rule",
    "Seen",
    "SlowBody",
    "SlowFirstByte",
    "StaleKeepAlive",
    "StateError",
    "Status",
    "TaskFails",
    "TaskRetries",
    "TaskTakes",
    "Truncated",
    "Unasked",
    "Unclear",
    "UnknownStatus",
    "WebhookFaults",
    "WrongTypes",
    "load_faults",
]
