"""A local PiAPI server for tests: both protocols on a real socket, with real files, and faults on request.

    async with Emulator(seed=1).run() as base_url:
        ...  # any client of the service, with `emulator.api_key`

A request comes in at `_server` and is served by `_api`, over the tasks of `_service`; the files
that tasks make are `_media`'s.  Each folder's docstring says what it may import.  Of the rest of
the package the emulator shares two values alone, so that a mistake in the client is not repeated
here.

Pictures need Pillow, and videos PyAV: both are in the `emulator` extra.
"""

from ._api.dialect import PLANS, Dialect, Plan
from ._emulator import Emulator
from ._server.fault_rules import Rule, load_faults
from ._server.webhooks import WebhookFaults
from ._service.durations import Constant, Lognormal
from ._service.observed import Delivery, Seen
from ._service.state_file import StateError
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
