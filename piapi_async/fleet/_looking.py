"""Looks for the task of a submission whose response was lost, before it is left unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import define

from .._calls.threads import in_thread
from .._runtime import Runtime
from ._codec import RecordedRequest, encode_ref
from ._database import Database

Json = dict[str, Any]


@define(eq=False)
class Lookout:
    """Looks for the tasks of lost submissions.

    A worker that was given up may still have its answer: it enters the task in the database, although
    the engine refuses the rest.  It began to send before it was given up, so that its answer comes
    within the time-out of one attempt; `lease` is added for good measure.
    """

    runtime: Runtime
    database: Database
    lease: float

    @property
    def grace(self) -> float:
        """Seconds for which an answer may still come."""
        return self.runtime.sender.timeout + self.lease

    def nonce_of(self, token: str) -> str:
        """Return the nonce of the endpoint that was sent with a token, "" without webhooks."""
        del token
        return ""

    async def look(self, item: str, request: RecordedRequest, intent: Mapping[str, Any], unknown: Json) -> Json:
        """Return the task of an item as ``{"ref": …}``, or that it stays unknown."""
        del request
        loop = asyncio.get_running_loop()
        until = loop.time() + self.grace
        while True:
            known = await in_thread(partial(self.database.task_of, item))
            if known is not None:
                return {"ref": encode_ref(known[0])}
            if loop.time() >= until:
                return {"unknown": unknown, "token": intent["token"]}
            await asyncio.sleep(min(1.0, self.lease / 2))
