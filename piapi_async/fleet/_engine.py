"""The one runtime of the engine in this process.

The engine is a singleton of its own making: it keeps one instance, one registry of workflows and one
event loop per process.  So there is one worker in a process, and this module's only state says
which.  It is launched in a thread, where there is no event loop for it to adopt: it would make its
thread pool our loop's own, and shut that down at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dbos import DBOS

from ._database import APPLICATION, ITEM, SCHEMA, VERSION, Serializer, connect_args

Process = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]

_AN_HOUR = 3600.0
_PROCESSES: list[Process] = []  # what the worker of this process does with an item; one, or none


@DBOS.workflow(name=ITEM)
async def _item(payload: dict[str, Any]) -> dict[str, Any]:
    item = DBOS.workflow_id
    assert item is not None  # noqa: S101 - this is a workflow
    return await _PROCESSES[0](item, payload)


def launch(url: str, worker: str, process: Process) -> None:
    """Start the engine, which takes items from the queue and hands them to `process`.

    Raises `RuntimeError` if it runs in this process already.
    """
    if _PROCESSES:
        raise RuntimeError(
            "A Worker runs in this process already, and there can be one only: start another process"
        )

    _quieten()
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_url": url,
            "db_engine_kwargs": {"connect_args": connect_args(url)},
            "executor_id": worker,
            "application_version": VERSION,
            "dbos_system_schema": SCHEMA,
            "serializer": Serializer(),
            "run_migrations": False,
            "scheduler_polling_interval_sec": _AN_HOUR,  # nothing of ours is scheduled
        }
    )
    if DBOS.executor_id != worker:
        raise RuntimeError(
            "This process has a DBOS application of its own, and there can be one only: run the "
            "Worker in another process. A Fleet needs no DBOS runtime, and is welcome here"
        )
    _PROCESSES.append(process)
    try:
        DBOS.launch()
    except BaseException:
        destroy()
        raise


def destroy() -> None:
    """Stop the engine: what it was working on stays this worker's in the database."""
    try:
        DBOS.destroy()
    finally:
        _PROCESSES.clear()


def _quieten() -> None:
    """Let the engine's log go where the program's goes: it would write to stderr by itself."""
    engine = logging.getLogger("dbos")
    if not engine.handlers:
        engine.addHandler(logging.NullHandler())
    if engine.level == logging.NOTSET:
        engine.setLevel(logging.WARNING)
