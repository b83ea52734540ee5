"""`batch --out` as a table: whole at the end of every run, and of all runs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.cli._batch import _tables
from piapi_async.emulator import Emulator

Host = tuple[Emulator, dict[str, str]]
LINES = [
    {"verb": "reroll", "origin_task_id": "p1", "prompt": "a cat, größer", "key": "k1", "campaign": "spring"},
    {"verb": "reroll", "origin_task_id": "p2", "prompt": 'a "dog"\nin two lines', "key": "k2"},
    {"verb": "reroll", "origin_task_id": "p3", "prompt": "gore", "key": "k3"},
]


@pytest.fixture(scope="module")
def service() -> Iterator[Host]:
    with threaded_emulator(queue=1000, picture_size=32) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


@pytest.fixture
def host(service: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    service[0].seen.requests.clear()
    Path("in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    return service


def run(host: Host, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--ledger", "run.db", "batch", "in.jsonl", *words], env=host[1])


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def by_key(path: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in rows_of(path)}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_has_the_rows_of_every_run_and_so_has_its_page(host: Host, suffix: str) -> None:
    out = Path(f"results{suffix}")
    first = run(host, "--out", str(out), "--max-submits", "1", "--download", "p", "--concurrency", "1")
    assert ["k1"] == list(by_key(out)), first.stderr
    out.unlink()  # it is made anew

    second = run(host, "--out", str(out), "--report", "page.html", "--download", "p")
    rows = by_key(out)
    page = Path("page.html").read_text()

    assert {"k1", "k2", "k3"} == set(rows)
    assert 3 == host[0].seen.requests["reroll"], second.stderr
    assert all(f'"{key}"' in page for key in rows)
    assert f"<h1>{out}</h1>" in page
    assert ("a cat, größer", "spring") == (rows["k1"]["request.prompt"], rows["k1"]["extra.campaign"])
    assert 'a "dog"\nin two lines' == rows["k2"]["request.prompt"]
    assert "InvalidRequestError" == rows["k3"]["error_type"]
    saved = rows["k2"]["saved_as"]
    if suffix == ".csv":
        saved = json.loads(saved)
        assert ("true", "3", "quota") == (rows["k2"]["ok"], rows["k2"]["cost"], rows["k2"]["cost_unit"])
    else:
        assert (True, 3.0) == (rows["k2"]["ok"], rows["k2"]["cost"])
        assert rows["k2"]["created_at"].utcoffset().total_seconds() == 0
    assert 4 == len([path for path in saved if Path(path).is_file()])

    later = CliRunner().invoke(cli, ["report", str(out), "--out", "later.html"], env=host[1])
    assert {"report": "later.html", "results": 3, "left_out": 0} == json.loads(later.stdout)


def test_what_stands_in_the_way_is_said_before_anything_is_sent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own.csv").write_text("mine")
    kept = run(host, "--out", "own.csv")
    assert "own.csv exists, and own.csv.jsonl, from which a run goes on, does not" in " ".join(
        kept.stderr.split()
    )

    Path("in.csv.jsonl").write_bytes(Path("in.jsonl").read_bytes())
    both = CliRunner().invoke(cli, ["batch", "in.csv.jsonl", "--out", "in.csv"], env=host[1])
    assert "is the input" in both.stderr

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    missing = run(host, "--out", "results.parquet")
    assert "needs pyarrow: pip install 'piapi_async[parquet]'" in missing.stderr
    assert {2} == {result.exit_code for result in (kept, both, missing)}
    assert 0 == host[0].seen.requests["reroll"]


def test_a_table_that_cannot_be_written_is_told_and_its_rows_are_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_tables, "write_table", full)
    Path("in.jsonl").write_text(json.dumps(LINES[0]))
    result = run(host, "--out", "results.csv")

    assert 1 == result.exit_code
    assert (
        "results.csv could not be written (No space left on device). Its rows are in results.csv.jsonl."
        in (" ".join(result.stderr.split()))
    )
    assert 1 == len(Path("results.csv.jsonl").read_text().splitlines())


def test_any_lines_become_a_table(tmp_path: Path) -> None:
    odd = [
        {"request": {f"field {number}": number for number in range(300)}, "final": True},
        {
            "key": "\ud800",
            "images": "none",
            "files": [{"saved_as": 7}, 8],
            "cost": {"amount": 10**400},
            "line": True,
        },
        {
            "created_at": "0001-01-01T00:00:00+09:00",
            "ended_at": "2026-01-01T00:00:00",
            "cost": [],
            "ok": "yes",
        },
        {
            "created_at": "2026-01-01T01:00:00+01:00",
            "cost": {"amount": 1.5},
            "files": None,
            "images": ["a", None],
        },
    ]
    for suffix in (".csv", ".parquet"):
        out = tmp_path / f"odd{suffix}"
        lines = [json.dumps(row) for row in odd]
        (tmp_path / f"odd{suffix}.jsonl").write_text("\n".join([*lines, "[]", '{"cut']))
        _tables.write_table(out)
        rows = rows_of(out)

        assert {"request", "key"} < set(rows[0])
        assert "request.field 1" not in rows[0]
    assert ["a"] == rows[-1]["images"]
