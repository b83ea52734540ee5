"""Past one machine: many workers, and many replicas of a service, on one account.

``pip install "piapi_async[fleet]"``.  `Fleet` is what a service holds: it puts requests into a
database and waits for their outcomes; it needs no API key and starts no engine.  `Worker` is a
process that works on them.  Each request is submitted exactly once whatever process is killed, one
limit holds for all workers, and what a dead one held is taken over.

`_client`, `_jobs` and `_watcher` are the service's side, `_worker`, `_work`, `_presence`, `_looking` and
`_deliveries` the worker's; `_database` holds our `_tables` beside the engine's, `_persistence` repeats
calls of it, `_engine` is its one runtime in a process, `_codec`, `_keys` and `_intents` are the values.
The engine is DBOS Transact; README.md in this folder says what is promised, and what it costs.

May import: _http, _text, tasks, errors, policy, _protocol, _verdict, _families, observe, _calls, _submit,
ledger, downloads, _runtime, handle, client, batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._client import Fleet, FleetJob
    from ._worker import Worker

__all__ = ["Fleet", "FleetJob", "Worker"]

_MODULES = {"Fleet": "_client", "FleetJob": "_client", "Worker": "_worker"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one of the classes above
    """Return a class of this package; say what to install where the engine is missing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only here

    try:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"dbos", "sqlalchemy", "psycopg"}:
            raise
        text = f"piapi_async.fleet needs {error.name}: pip install 'piapi_async[fleet]'"
        raise ModuleNotFoundError(text, name=error.name) from None
