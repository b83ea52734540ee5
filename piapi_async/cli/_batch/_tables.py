"""Outcomes as a table: `--out results.csv` and `--out results.parquet`.

A table cannot be appended to safely, so a run appends to a journal of JSON lines beside it, which is
what the next run reads, and makes the whole table of that when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from .._journal import is_table, journal_of
from .._output import reason_of
from .._stderr import tell
from ._at_end import written_at_end

Row = dict[str, Any]

_MOST_COLUMNS = 200  # of the request's inputs, and of what is carried along; more are one of JSON
_ROWS_AT_ONCE = 1000


def check_table(out: Path) -> None:
    """Raise `click.UsageError` if a table cannot be written, or would overwrite what is no earlier run's."""
    if out.suffix.lower() == ".parquet":
        try:
            from pyarrow import parquet  # noqa: F401, PLC0415 - of an extra
        except ImportError:
            raise click.UsageError(f"--out {out} needs pyarrow: pip install 'piapi_async[parquet]'") from None

    if is_table(out) and out.exists() and not journal_of(out).exists():
        raise click.UsageError(
            f"{out} exists, and {journal_of(out).name}, from which a run goes on, does not: move {out} away"
        )


@contextlib.contextmanager
def tabulated(out: Path | None) -> Iterator[None]:
    """Write the table of a run at its end, if `out` is one; that it could not be written is told.

    A run that ended well ends with an error then.
    """
    if out is None or not is_table(out):
        yield
        return

    with written_at_end(lambda: _write_or_tell(out)):
        yield


def _write_or_tell(out: Path) -> bool:
    """Write a table; return whether that worked."""
    try:
        write_table(out)
    except (OSError, ValueError) as error:
        tell(f"Error: {out} could not be written ({reason_of(error)}). Its rows are in {journal_of(out)}.")
        return False
    return True


def write_table(out: Path) -> None:
    """Make the table of a journal, whole or not at all; raise `OSError`.

    The journal is read twice, as a stream: the first time for the names of its columns.
    """
    journal = journal_of(out)
    columns = _columns_of(_lines(journal))
    rows = (_cells(row, columns) for row in _lines(journal))

    real = out.resolve()
    fresh = real.with_name(f".{real.name}.piapi-async-new")  # ours alone while the journal's lock is held
    try:
        _WRITERS[out.suffix.lower()](fresh, columns, rows)
        fresh.replace(real)
    finally:
        fresh.unlink(missing_ok=True)


def _lines(journal: Path) -> Iterator[Row]:
    with journal.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # a last line that was cut off
                continue
            if isinstance(row, dict):
                yield row


# -- columns ------------------------------------------------------------------------------------------


def _text(value: object) -> str | None:
    """Return a value as a text that any file can hold, JSON for what is more than one value."""
    if value is None:
        return None
    text = value
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    return str(text).encode("utf-8", "replace").decode()  # half of a surrogate pair is no text


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    with contextlib.suppress(OverflowError):
        number = float(value)
        if math.isfinite(number):
            return number
    return None


def _whole(value: object) -> int | None:
    number = _number(value)
    if number is None:
        return None
    return int(number)


def _flag(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return None


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(value))
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    return [text for text in map(_text, value) if text is not None]


def _saved_in(files: object) -> list[str]:
    if not isinstance(files, list):
        return []
    return [str(file["saved_as"]) for file in files if isinstance(file, dict) and file.get("saved_as")]


@frozen
class _Column:
    """A column: its name, where its value is in a line, and what it is in Python and in Arrow."""

    name: str
    find: Callable[[Row], object]
    convert: Callable[[Any], Any] = _text
    kind: str = "string"


def _under(name: str) -> Callable[[Row], object]:
    return lambda row: row.get(name)


def _within(name: str, inner: str) -> Callable[[Row], object]:
    def find(row: Row) -> object:
        value = row.get(name)
        if not isinstance(value, dict):
            return None
        return value.get(inner)

    return find


_FIRST = (
    _Column("line", _under("line"), _whole, "int64"),
    *(_Column(name, _under(name)) for name in ("key", "task_id", "task_type", "status", "state")),
    _Column("ok", _under("ok"), _flag, "bool"),
    *(_Column(name, _under(name)) for name in ("error", "error_type")),
    _Column("images", _under("images"), _texts, "texts"),
    _Column("saved_as", lambda row: _saved_in(row.get("files")), _texts, "texts"),
    _Column("cost", _within("cost", "amount"), _number, "double"),
    _Column("cost_unit", _within("cost", "unit")),
    *(_Column(name, _under(name), _moment, "moment") for name in ("created_at", "started_at", "ended_at")),
    _Column("resumed", _under("resumed"), _flag, "bool"),
    _Column("recovered", _under("recovered")),
)
_LAST = (_Column("result", _under("result")), _Column("files", _under("files")))


def _columns_of(rows: Iterable[Row]) -> tuple[_Column, ...]:
    """Return the columns of a table: what every outcome has, and the inputs that the rows name."""
    names: Mapping[str, dict[str, None]] = {"request": {}, "extra": {}}
    for row in rows:
        for place, known in names.items():
            inputs = row.get(place)
            if isinstance(inputs, dict) and len(known) <= _MOST_COLUMNS:
                known.update(dict.fromkeys(inputs))

    columns = list(_FIRST)
    for place, known in names.items():
        if len(known) > _MOST_COLUMNS:
            columns.append(_Column(place, _under(place)))
            continue
        columns += [_Column(f"{place}.{_text(name)}", _within(place, name)) for name in known]
    return (*columns, *_LAST)


def _cells(row: Row, columns: tuple[_Column, ...]) -> Row:
    return {column.name: column.convert(column.find(row)) for column in columns}


# -- files --------------------------------------------------------------------------------------------


def _write_csv(target: Path, columns: tuple[_Column, ...], rows: Iterable[Row]) -> None:
    """Write a CSV file as Excel reads it: with a byte-order mark, lists as JSON."""
    with target.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, [column.name for column in columns])
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _csv_cell(value) for name, value in row.items()})


def _csv_cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return _text(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _write_parquet(target: Path, columns: tuple[_Column, ...], rows: Iterable[Row]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - of an extra, which `check_table` has looked for
    from pyarrow import parquet  # noqa: PLC0415 - the same

    kinds = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "texts": pa.list_(pa.string()),
        "moment": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(column.name, kinds[column.kind]) for column in columns])
    with parquet.ParquetWriter(target, schema) as writer:
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


_WRITERS: Mapping[str, Callable[[Path, tuple[_Column, ...], Iterable[Row]], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
