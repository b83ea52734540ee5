"""The rows of an account's task history, page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from attrs import evolve

from .._calls.sender import Sender
from .._verdict import judge_read
from ..account import GetHistory, HistoryEntry


async def all_entries(sender: Sender, request: GetHistory) -> AsyncGenerator[HistoryEntry, None]:
    """Yield the rows of a request and of the pages that follow, each once, as they are asked for.

    Raises as `PiAPI.fetch`.
    """
    known: frozenset[Any] = frozenset()
    while True:
        page = await sender.call(request, judge_read)
        marks = frozenset(_mark(entry) for entry in page.entries)
        for entry in page.entries:
            if _mark(entry) not in known:
                yield entry

        # A host that does not know `page` gives the first one for ever.
        last = page.total is not None and request.page * page.size >= page.total
        if last or marks <= known:
            return
        request, known = evolve(request, page=request.page + 1), marks


def _mark(entry: HistoryEntry) -> Any:  # noqa: ANN401 - only compared
    """Return what identifies a row of the history."""
    return entry.id or (entry.task_id, entry.action, entry.created_at)
