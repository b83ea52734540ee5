"""`piapi-async batch --database` and its relatives, on a file of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from piapi_async.cli import cli
from piapi_async.cli._fleet_options import file_of, shown

URL = "sqlite:///run.db"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [{"verb": "imagine", "prompt": f"a cat {number}"} for number in (1, 2, 2)]
    (tmp_path / "cats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def command(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def rows(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.storm
def test_a_batch_on_a_file_has_a_worker_of_its_own_and_goes_on_where_it_was() -> None:
    words = ("--emulator", "batch", "cats.jsonl", "--database", URL, "--out", "out.jsonl", "--download", "pictures")
    first = command(*words)

    assert first.exit_code == 0, first.stderr
    assert "3 done, 0 failed, 0 unknown, 0 in the results already, 0 left" in first.stderr
    assert {row["line"] for row in rows()} == {1, 2, 3}
    assert len({row["task_id"] for row in rows()}) == 3
    assert all(Path(file["saved_as"]).exists() for row in rows() for file in row["files"])

    kept = rows()
    Path("out.jsonl").write_text(json.dumps(kept[0]) + "\n", encoding="utf-8")
    again = command(*words)
    assert again.exit_code == 0, again.stderr
    assert "2 done, 0 failed, 0 unknown, 1 in the results already" in again.stderr
    assert {row["task_id"] for row in rows()} == {row["task_id"] for row in kept}

    status = command("batch", "status", "--database", URL)
    assert json.loads(status.stdout)["done"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("batch", "cats.jsonl", "--database", "mysql://u:hunter2@h/d"), "must begin with sqlite:///"),
        (("batch", "cats.jsonl", "--database", URL, "--ledger", "l.db"), "exclude each other"),
        (("worker", "--database", URL, "--ledger", "l.db"), "exclude each other"),
        (("worker", "--database", URL, "--rate-limit", "fast"), "not tasks per seconds"),
        (("batch", "cats.jsonl", "--database", URL, "--max-submits", "3"), "--max-submits is not for a fleet"),
        (("batch", "cats.jsonl", "--database", "postgresql://h/d", "--download", "x"), "--download is the workers'"),
        (("batch", "status"), "give a LEDGER, or --database URL"),
        (("ledger", "resolve", URL, "nobody", "--resubmit"), "is not an unknown job"),
    ],
)
def test_what_does_not_fit_a_fleet_is_refused_before_anything_is_done(words: tuple[str, ...], said: str) -> None:
    result = command(*words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert "hunter2" not in result.stderr


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:hunter2@host/app") == "postgresql://me:***@host/app"
    assert shown(URL) == URL
    assert file_of(URL) == Path("run.db")
    assert file_of("postgresql://host/app") is None
