"""The least that writes a reroll's entries down: SQLite, a thread, and groups of what is queued in one commit.

It has the tables and the settings of a ledger, so that each entry is as safe, and nothing that tells whether the
file is still the one that was opened, whose a key is, or whether another submission has the same task.  So it
shows what SQLite, the disk and the two threads take on the machine that measures.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import getrandbits
from typing import Any

from attrs import define, field

from piapi_async.ledger._schema import SCHEMA, prepare
from piapi_async.ledger._sqlite import make

ORIGIN, FAMILY = "https://api.piapi.ai", "legacy"
REQUEST = (
    '/mj/v2/reroll {"origin_task_id":"6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d","prompt":"a quiet landscape"}'
)

_CLAIM = """
INSERT INTO submits (key, origin, family, digest, request, owner, at, state) VALUES (?, ?, ?, ?, ?, ?, ?, 'sending')
"""
_ACCEPT = "UPDATE submits SET state = 'accepted', task_id = ?, owner = NULL WHERE key = ?"
_END = """
UPDATE submits SET state = 'ended', outcome = 'done', answer = ? WHERE rowid = (
    SELECT rowid FROM submits WHERE task_id = ? AND state = 'accepted'
)
"""
_DIGEST = bytes(32)
_FIND = "SELECT * FROM submits WHERE key = ?"

_GRACE = 0.05
"""Seconds for which the thread waits for the loop, which may have stopped running."""

_Statement = tuple[str, tuple[Any, ...], asyncio.Future[Any] | None]


@define(eq=False)
class BareLedger:
    """A database with one thread of its own."""

    _connection: sqlite3.Connection
    _loop: asyncio.AbstractEventLoop
    _thread: ThreadPoolExecutor
    _queue: list[_Statement] = field(factory=list, init=False)
    _mutex: threading.Lock = field(factory=threading.Lock, init=False)
    _resumed: threading.Event = field(factory=threading.Event, init=False)
    _is_at_work: bool = field(default=False, init=False)

    async def two(self) -> str:
        """Write down that a submission is being sent, and then that it has a task; return the task's id."""
        key, task_id = f"{time.time_ns():016x}{os.urandom(8).hex()}", f"{getrandbits(128):032x}"
        await self._write(_CLAIM, key, ORIGIN, FAMILY, _DIGEST, REQUEST, "an owner", time.time())
        await self._write(_ACCEPT, task_id, key)
        return task_id

    async def three(self, answer: bytes) -> None:
        """Write down its end as well, which is not waited for."""
        self._put((_END, (answer, await self.two()), None))

    async def find(self, key: str) -> sqlite3.Row | None:
        """Return the row of a key."""
        return await self._loop.run_in_executor(
            self._thread, lambda: self._connection.execute(_FIND, (key,)).fetchone()
        )

    def _write(self, statement: str, *values: Any) -> Awaitable[Any]:  # noqa: ANN401 - whatever SQLite takes
        future = self._loop.create_future()
        self._put((statement, values, future))
        return future

    def _put(self, statement: _Statement) -> None:
        with self._mutex:
            self._queue.append(statement)
            if not self._is_at_work:
                self._is_at_work = True
                self._loop.run_in_executor(self._thread, self._commit_all)

    def _commit_all(self) -> None:
        while True:
            with self._mutex:
                group, self._queue = self._queue, []
                self._is_at_work = bool(group)
            if not group:
                return

            error = self._commit(group)
            self._resumed.clear()
            self._loop.call_soon_threadsafe(self._deliver, group, error)
            self._resumed.wait(_GRACE)  # its callers are what fills the next group

    def _commit(self, group: list[_Statement]) -> sqlite3.Error | None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, values, _ in group:
                self._connection.execute(statement, values)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            return error
        return None

    def _deliver(self, group: list[_Statement], error: sqlite3.Error | None) -> None:
        for _, _, future in group:
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._loop.call_soon(self._resumed.set)


@asynccontextmanager
async def bare_ledger(path: Path) -> AsyncIterator[BareLedger]:
    """Open a database, which is made unless there is one, and close it at the end."""
    if not path.exists():
        make(path, SCHEMA)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    prepare(connection, path, path)

    with closing(connection), ThreadPoolExecutor(1) as thread:
        yield BareLedger(connection, asyncio.get_running_loop(), thread)
