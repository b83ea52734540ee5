"""The database of a fleet: our tables beside the engine's, and the engine's client.

Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from attrs import define, field, frozen
from dbos import DBOS, DBOSClient
from dbos import Serializer as EngineSerializer
from dbos import error as engine_errors
from sqlalchemy.exc import OperationalError

from ..tasks import TaskRef
from ._tables import check_layout, create, insert_into, make_tables, set_up_sqlite

T = TypeVar("T")

QUEUE = "piapi"
ITEM = "piapi.item"
NOBODY = ""
"""The item of tasks that no submission is given: refusals have named them."""

VERSION = "piapi-1"
"""The number of our workflow, not the package's: raised only when the order of its steps changes."""

APPLICATION = "piapi"
SCHEMA = "piapi"

CAN_SQLITE = sys.version_info < (3, 12) or sqlite3.sqlite_version_info >= (3, 42)
"""Whether the engine can work on a SQLite file here: on Python 3.12 and later it relies on a newer SQLite."""

_CHUNK = 500  # rows of one statement, or of one transaction


class Serializer(EngineSerializer):
    """JSON in the database: the engine's own choice, pickle, runs code for whoever can write there."""

    def serialize(self, data: Any) -> str:  # noqa: ANN401 - JSON
        """Return a value as text."""
        return orjson.dumps(data, default=_to_json).decode()

    def deserialize(self, serialized_data: str) -> Any:  # noqa: ANN401 - JSON
        """Return the value of a text."""
        return orjson.loads(serialized_data)

    def name(self) -> str:
        """Return the name that the engine stores beside each value."""
        return "piapi_json"


def _to_json(value: object) -> object:
    if isinstance(value, BaseException):  # what ended an item that our own code did not foresee
        return {"exception": repr(value)}
    raise TypeError(f"{value!r} is not JSON")


@frozen
class Owner:
    """Whose a task is: `item`, and whether that is only a finding in the host's history."""

    item: str
    task_id: str
    found: bool


@frozen
class KeyNote:
    """What `piapi_keys` says of a key: its last attempt, how that ended ("": not yet, or done), and its digest.

    `kept` is the outcome of a pruned item.
    """

    key: str
    attempt: int
    state: str
    digest: str
    kept: str | None = None


def check_url(url: object) -> str:
    """Return the URL of a database; raise `ValueError` for what cannot be one."""
    if isinstance(url, str) and url.startswith(
        ("sqlite:///", "postgresql://", "postgres://", "postgresql+psycopg://")
    ):
        return url
    shown = url
    if isinstance(url, str):
        shown = url.partition("://")[0]  # the rest may hold a password
    raise ValueError(
        f"url: {shown!r} is not allowed; it must begin with sqlite:/// (a file on this "
        "machine) or postgresql://"
    )


def connect_args(url: str) -> dict[str, Any]:
    """Return what all connections to a database are made with.

    No statement is prepared at a server: behind a pooler that gives each transaction another connection
    (PgBouncer before 1.21, say) the next one of that name is not there, or is another's.
    """
    if url.startswith("sqlite"):
        return {}
    return {"prepare_threshold": None, "application_name": APPLICATION}


@define(eq=False)
class Database:
    """The tables of one fleet, and the engine's client on the same connections."""

    url: str
    engine: sa.Engine
    client: DBOSClient
    _tasks: sa.Table
    _keys: sa.Table
    _cancels: sa.Table
    _workers: sa.Table
    _fleet: sa.Table
    _statuses: sa.Table
    closed: bool = field(default=False, init=False)

    # -- life -------------------------------------------------------------------------------------

    @classmethod
    def open(cls, url: str) -> Database:
        """Return the database at a URL, its tables made if they are not there.

        Raises `ConnectionError` if it is out of reach, `RuntimeError` for tables of another release.
        """
        is_sqlite = url.startswith("sqlite")
        if is_sqlite and not CAN_SQLITE:
            raise RuntimeError(
                "The engine needs SQLite 3.42 on Python 3.12 and later, and this Python has "
                f"{sqlite3.sqlite_version}: use PostgreSQL, or another Python"
            )
        engine_url = sa.make_url(url)
        schema = None
        if not is_sqlite:
            engine_url = engine_url.set(drivername="postgresql+psycopg")
            schema = SCHEMA

        engine = sa.create_engine(engine_url, pool_size=5, max_overflow=5, connect_args=connect_args(url))
        if is_sqlite:
            sa.event.listen(engine, "connect", set_up_sqlite)
        try:
            DBOS.migrate(engine_url.render_as_string(hide_password=False), schema=SCHEMA)
            tables = make_tables(schema)
            create(engine, [table for name, table in tables.items() if name != "statuses"])
            check_layout(engine, tables["fleet"])
        except BaseException as error:
            engine.dispose()
            if isinstance(error, OperationalError):
                raise ConnectionError(f"the fleet's database is out of reach: {error.orig}") from error
            raise

        client = DBOSClient(
            system_database_engine=engine,
            dbos_system_schema=SCHEMA,
            serializer=Serializer(),
            application_name=APPLICATION,
        )
        return cls(engine_url.render_as_string(hide_password=False), engine, client, *tables.values())

    def close(self) -> None:
        """Close the connections; twice does no harm."""
        if not self.closed:
            self.closed = True
            self.client.destroy()
            self.engine.dispose()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file on this machine."""
        return self.engine.dialect.name == "sqlite"

    def _insert(self, table: sa.Table) -> Any:  # noqa: ANN401 - either dialect's
        return insert_into(table, self.engine)

    def _run(self, statement: Any, transaction: sa.Connection | None = None) -> Any:  # noqa: ANN401 - any statement
        """Execute one statement by itself, which costs no BEGIN and no COMMIT, or in a transaction."""
        if transaction is not None:
            result = transaction.execute(statement)
            return result.fetchall() if result.returns_rows else result.rowcount
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            result = connection.execute(statement)
            if result.returns_rows:
                return result.fetchall()
            return result.rowcount

    # -- the origin -------------------------------------------------------------------------------

    def settle_origin(self, origin: str) -> str:
        """Return the origin of the fleet's API, which is the given one if none was settled before."""
        values = {"name": "origin", "value": origin}
        self._run(self._insert(self._fleet).values(**values).on_conflict_do_nothing())
        return self.origin() or origin

    def origin(self) -> str:
        """Return the origin of the fleet's API, "" before the first worker has said so."""
        rows = self._run(sa.select(self._fleet.c.value).where(self._fleet.c.name == "origin"))
        return str(rows[0][0]) if rows else ""

    # -- tasks ------------------------------------------------------------------------------------

    def take_task(
        self, ref: TaskRef, item: str, *, found: bool = False, transaction: sa.Connection | None = None
    ) -> bool:
        """Return whether a task is this item's, and make it so if it is nobody's.

        A response that names a task wins over a finding in the host's history.
        """
        tasks = self._tasks
        row = {
            "origin": ref.origin,
            "family": ref.family,
            "task_id": ref.task_id,
            "item": item,
            "found": found,
        }
        if self._run(self._insert(tasks).values(**row).on_conflict_do_nothing(), transaction):
            return True

        is_it = (tasks.c.origin == ref.origin) & (tasks.c.task_id == ref.task_id)
        if not found:
            claim = sa.update(tasks).where(is_it, tasks.c.found).values(item=item, found=False)
            if self._run(claim, transaction):
                return True
        return bool(self._run(sa.select(tasks.c.item).where(is_it, tasks.c.item == item), transaction))

    def move_task(self, ref: TaskRef, item: str, to: str, transaction: sa.Connection | None = None) -> bool:
        """Return whether a task is an item's now: it was nobody's, or that of an earlier attempt."""
        tasks = self._tasks.c
        is_it = (tasks.origin == ref.origin) & (tasks.task_id == ref.task_id) & (tasks.item == item)
        if self._run(sa.update(self._tasks).where(is_it).values(item=to), transaction):
            return True
        return self.take_task(ref, to, transaction=transaction)

    def task_of_any(self, items: Sequence[str]) -> tuple[TaskRef, str] | None:
        """Return a task that one of these items has, and which; one named by a response comes first."""
        tasks = self._tasks.c
        query = sa.select(tasks.origin, tasks.family, tasks.task_id, tasks.item)
        rows = self._run(query.where(tasks.item.in_(items)).order_by(tasks.found).limit(1))
        if not rows:
            return None
        return TaskRef(*rows[0][:3]), rows[0][3]

    def task_of(self, item: str) -> tuple[TaskRef, bool] | None:
        """Return the task of an item, and whether that is only a finding; None if none is known."""
        columns = (self._tasks.c.origin, self._tasks.c.family, self._tasks.c.task_id, self._tasks.c.found)
        rows = self._run(sa.select(*columns).where(self._tasks.c.item == item).order_by(self._tasks.c.found))
        if not rows:
            return None
        origin, family, task_id, found = rows[0]
        return TaskRef(origin, family, task_id), bool(found)

    def unknown_with_task(self) -> list[tuple[str, str]]:
        """Return the unknown keys whose task has become known, with it: one named by a response comes first."""
        keys, tasks = self._keys.c, self._tasks.c
        item = keys.key + "#" + sa.cast(keys.attempt, sa.Text())
        query = sa.select(keys.key, tasks.task_id).join(self._tasks, tasks.item == item)
        query = query.where(keys.state == "unknown", keys.kept.is_(None)).order_by(tasks.found)
        found: dict[str, str] = {}
        for key, task_id in self._run(query):
            found.setdefault(key, task_id)
        return list(found.items())

    def known_tasks(self, origin: str, task_ids: Sequence[str]) -> set[str]:
        """Return which of these ids are somebody's."""
        tasks = self._tasks
        known: set[str] = set()
        for few in chunks(task_ids):
            query = sa.select(tasks.c.task_id).where(tasks.c.origin == origin, tasks.c.task_id.in_(few))
            known.update(row[0] for row in self._run(query))
        return known

    # -- keys -------------------------------------------------------------------------------------

    def notes(self, keys: Sequence[str], connection: sa.Connection | None = None) -> dict[str, KeyNote]:
        """Return what is noted of these keys."""
        found: dict[str, KeyNote] = {}
        for few in chunks(keys):
            query = self._select_notes().where(self._keys.c.key.in_(few))
            rows = connection.execute(query).fetchall() if connection is not None else self._run(query)
            found.update((row[0], KeyNote(*row)) for row in rows)
        return found

    def notes_in(self, state: str) -> list[KeyNote]:
        """Return what is noted of the keys in a state."""
        return [KeyNote(*row) for row in self._run(self._select_notes().where(self._keys.c.state == state))]

    def _select_notes(self) -> Any:  # noqa: ANN401 - a statement
        keys = self._keys.c
        return sa.select(keys.key, keys.attempt, keys.state, keys.digest, keys.kept)

    def note_end(self, note: KeyNote) -> None:
        """Note how the last attempt of a key has ended; an older attempt says nothing any more."""
        self._run(self._upsert_note(note))

    def _upsert_note(self, note: KeyNote, *, only_if: Any = None) -> Any:  # noqa: ANN401 - statements
        values = {
            "key": note.key,
            "attempt": note.attempt,
            "state": note.state,
            "digest": note.digest,
            "kept": note.kept,
        }
        where = self._keys.c.attempt <= note.attempt
        if only_if is not None:
            where &= only_if
        insert = self._insert(self._keys).values(**values)
        return insert.on_conflict_do_update(index_elements=["key"], set_=values, where=where)

    def begin_attempt(
        self, note: KeyNote, enqueue: Callable[[sa.Connection], object], *, ref: TaskRef | None
    ) -> bool:
        """Enqueue another attempt of a key, and note it; return False if another process was first.

        `ref` is its task, if a person has named one.  Raises `ValueError` if that is another's.
        """
        before, item = (f"{note.key}#{number}" for number in (note.attempt - 1, note.attempt))
        with self.engine.begin() as connection:
            if ref is not None and not self.move_task(ref, before, item, connection):
                raise ValueError(f"task {ref.task_id} belongs to another submission of this fleet")
            only_if = self._keys.c.attempt == note.attempt - 1
            if not connection.execute(self._upsert_note(note, only_if=only_if)).rowcount:
                connection.rollback()  # the task stays where it was
                return False
            enqueue(connection)
        return True

    # -- counts -----------------------------------------------------------------------------------

    def count_states(self) -> tuple[dict[str, int], dict[str, int], int]:
        """Return the number of the engine's items by status, of noted keys by state, and of pruned keys.

        The status is read from the engine's table, because its client can only list every item.
        """
        status = self._statuses.c
        by_status = (
            sa.select(status.status, sa.func.count()).where(status.name == ITEM).group_by(status.status)
        )
        state = self._keys.c.state
        by_state = sa.select(state, sa.func.count()).group_by(state)
        pruned = sa.select(sa.func.count()).where(self._keys.c.kept.is_not(None))
        return (
            {row[0]: row[1] for row in self._run(by_status)},
            {row[0]: row[1] for row in self._run(by_state)},
            int(self._run(pruned)[0][0]),
        )

    # -- cancels ----------------------------------------------------------------------------------

    def ask_cancel(self, item: str) -> None:
        """Ask the worker that holds an item to cancel its task."""
        self._run(self._insert(self._cancels).values(item=item).on_conflict_do_nothing())

    def cancels(self) -> list[str]:
        """Return the items whose tasks are to be cancelled."""
        return [row[0] for row in self._run(sa.select(self._cancels.c.item))]

    def forget_cancel(self, item: str) -> None:
        """Note that the host has been asked."""
        self._run(sa.delete(self._cancels).where(self._cancels.c.item == item))

    # -- workers ----------------------------------------------------------------------------------

    def beat(self, worker: str) -> None:
        """Count a heartbeat of a worker, which is entered if it has no row (any more)."""
        workers = self._workers
        beaten = sa.update(workers).where(workers.c.id == worker).values(beat=workers.c.beat + 1)
        if not self._run(beaten):
            self._run(self._insert(workers).values(id=worker, beat=0).on_conflict_do_nothing())

    def beats(self) -> dict[str, int]:
        """Return the heartbeats that each worker has counted."""
        return {row[0]: row[1] for row in self._run(sa.select(self._workers.c.id, self._workers.c.beat))}

    def enter_workers(self, workers: Iterable[str]) -> None:
        """Enter workers that hold items and have no row, so that they expire too."""
        for worker in workers:
            self._run(self._insert(self._workers).values(id=worker, beat=0).on_conflict_do_nothing())

    def give_up_worker(self, worker: str, beat: int) -> bool:
        """Return whether a worker that stood still is ours to replace: only one wins."""
        workers = self._workers
        is_still = (workers.c.id == worker) & (workers.c.beat == beat)
        return bool(self._run(sa.update(workers).where(is_still).values(beat=beat + 1)))

    def forget_worker(self, worker: str) -> None:
        """Remove a worker that holds nothing any more."""
        self._run(sa.delete(self._workers).where(self._workers.c.id == worker))

    def holders(self) -> set[str]:
        """Return the workers that hold items."""
        held = self.client.list_workflows(
            status="PENDING", queue_name=QUEUE, load_input=False, load_output=False
        )
        return {each.executor_id for each in held if each.executor_id}

    def release(self, worker: str, *, is_late: Callable[[], bool] = lambda: False) -> int:
        """Put all items that a worker holds back into the queue; return how many.

        Stops when it is late: who stood still meanwhile may find that others have been faster.
        """
        released = 0
        while not is_late():
            held = self.client.list_workflows(
                status="PENDING",
                executor_id=worker,
                queue_name=QUEUE,
                limit=_CHUNK,
                load_input=False,
                load_output=False,
            )
            if not held:
                self.forget_worker(worker)
                break
            if is_late():
                break
            try:
                self.client.resume_workflows([each.workflow_id for each in held], queue_name=QUEUE)
            except engine_errors.DBOSNonExistentWorkflowError:
                continue  # one was removed meanwhile, and nothing was done
            released += len(held)
        return released

    # -- pruning ----------------------------------------------------------------------------------

    def keep(self, note: KeyNote) -> None:
        """Keep what must stay of a pruned item."""
        self._run(self._upsert_note(note))


def chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    """Yield a sequence in pieces that one statement can take."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
