"""Our five small tables beside the engine's: they have rows only for what the engine does not know.

| table | a row |
|---|---|
| `piapi_tasks` | a task of the host that is known, and whose it is: unique per origin and id |
| `piapi_keys` | a key with a second attempt, with an end other than done, or pruned |
| `piapi_cancels` | a key whose task somebody wants cancelled |
| `piapi_workers` | a worker that is alive: it counts its own heartbeats |
| `piapi_fleet` | a fact about the fleet: the origin of its API, the number of the tables' layout |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

LAYOUT = "1"
"""The number of this layout of our tables; the engine counts its own."""


def set_up_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
    # The engine sets the same for connections of its own: writers take turns, and wait for theirs.
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA journal_mode=WAL")  # stays with the file: readers do not wait for writers


def make_tables(schema: str | None) -> dict[str, sa.Table]:
    """Return our tables, and what we read of the engine's, in the order of `Database`."""
    meta = sa.MetaData(schema=schema)
    text, number = sa.Text(), sa.BigInteger()
    return {
        "tasks": sa.Table(
            "piapi_tasks",
            meta,
            sa.Column("origin", text, primary_key=True),
            sa.Column("task_id", text, primary_key=True),
            sa.Column("family", text, nullable=False),
            sa.Column("item", text, nullable=False, index=True),
            sa.Column("found", sa.Boolean(), nullable=False),
        ),
        "keys": sa.Table(
            "piapi_keys",
            meta,
            sa.Column("key", text, primary_key=True),
            sa.Column("attempt", number, nullable=False),
            sa.Column("state", text, nullable=False, index=True),
            sa.Column("digest", text, nullable=False),
            sa.Column("kept", text),
        ),
        "cancels": sa.Table("piapi_cancels", meta, sa.Column("item", text, primary_key=True)),
        "workers": sa.Table(
            "piapi_workers",
            meta,
            sa.Column("id", text, primary_key=True),
            sa.Column("beat", number, nullable=False),
        ),
        "fleet": sa.Table(
            "piapi_fleet",
            meta,
            sa.Column("name", text, primary_key=True),
            sa.Column("value", text, nullable=False),
        ),
        "statuses": sa.Table("workflow_status", meta, sa.Column("name", text), sa.Column("status", text)),
    }


def insert_into(table: sa.Table, engine: sa.Engine) -> Any:  # noqa: ANN401 - either dialect's
    """Return an INSERT that may have an ON CONFLICT clause."""
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def create(engine: sa.Engine, tables: Sequence[sa.Table]) -> None:
    """Create our tables; two processes that do so at once may collide, and the second try finds them."""
    for last in (False, True):
        try:
            tables[0].metadata.create_all(engine, tables=tables)
        except DBAPIError:
            if last:
                raise
        else:
            return


def check_layout(engine: sa.Engine, fleet: sa.Table) -> None:
    """Note the layout of new tables; raise `RuntimeError` for one of another release."""
    with engine.begin() as connection:
        look = sa.select(fleet.c.value).where(fleet.c.name == "layout")
        found = connection.execute(look).scalar_one_or_none()
        if found is None:
            row = {"name": "layout", "value": LAYOUT}
            connection.execute(insert_into(fleet, engine).values(**row).on_conflict_do_nothing())
            found = connection.execute(look).scalar_one()
    if found != LAYOUT:
        raise RuntimeError(
            f"This fleet's tables have layout {found}, and this release of piapi_async knows layout {LAYOUT}: "
            "use the release that made them. Nothing was changed"
        )
