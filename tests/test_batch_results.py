"""The file of a batch's results: a row stays until its item has a newer one, and no other file is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from support.tables import for_each

from piapi_async import LedgerError, Outcome, Reroll, SubmissionUnknown
from piapi_async.cli._batch._earlier import Keeping
from piapi_async.cli._batch._lines import Origin
from piapi_async.cli._batch._results import Results
from piapi_async.cli._saving import Saving
from piapi_async.tasks import TaskId, TaskRef

REQUEST = Reroll("p")
REF = TaskRef("https://api.piapi.ai", "legacy", TaskId("t1"))
UNKNOWN = SubmissionUnknown("nobody knows", request=REQUEST, at=0.0)


@contextmanager
def results_at(path: Path, *, retry_failed: bool = False) -> Iterator[Results]:
    with (
        Results.at(path, keep=True, keeping=Keeping(Saving(), retry_failed)) as results,
        results.settled(path),
    ):
        yield results


def write(results: Results, key: str, error: Exception | None = None, ref: TaskRef | None = None) -> None:
    results.write(
        Outcome(index=0, request=REQUEST, key=key, error=error, ref=ref), Origin(1, "reroll", {}, {})
    )


def rows(path: Path) -> list[tuple[str, str, str | None]]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["key"], row["error_type"], row["task_id"]) for row in found]


def row(key: str, **more: Any) -> str:
    return json.dumps({"line": 1, "key": key, "final": True, "error": "", "error_type": "", **more}) + "\n"


@for_each("text", ["sk-the-only-copy-of-a-key", '{"name":"x","version":"1"}', "{", "\n", '{"line": 1}\n'])
def test_a_file_that_is_not_of_results_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(text, encoding="utf-8")
    if text == "{":  # with which a row begins
        with results_at(out):
            pass
        assert not out.read_text(encoding="utf-8")
        return

    with pytest.raises(click.UsageError, match="is not a file of results"), results_at(out):
        pass

    assert text == out.read_text(encoding="utf-8")


def test_a_row_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for whole in ("", row("a")):
        out.write_text(whole + '{"line": 2, "dig', encoding="utf-8")
        with results_at(out):
            pass
        assert whole == out.read_text(encoding="utf-8")


@for_each("text", ['{"line": 1, "text": "only copy"}', "notes of mine"])
def test_text_after_rows_is_not_dropped(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out.jsonl"
    for before in ("", row("a")):
        out.write_text(before + text, encoding="utf-8")
        with pytest.raises(click.UsageError, match="is not a file of results"), results_at(out):
            pass
        assert before + text == out.read_text(encoding="utf-8")


def test_what_somebody_puts_there_during_the_run_stays(tmp_path: Path) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    out.write_text(row("a", final=False), encoding="utf-8")
    with results_at(out) as results:
        other.write_text("notes of mine\n", encoding="utf-8")
        other.replace(out)
        write(results, "a")

    assert out.read_text(encoding="utf-8").startswith("notes of mine\n{")


def test_a_last_row_without_an_end_gets_one(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(row("a").rstrip("\n"), encoding="utf-8")
    with results_at(out) as results:
        write(results, "b")

    assert ["a", "b"] == [json.loads(line)["key"] for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_row_stays_until_its_item_has_a_newer_one(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with results_at(out) as results:
        write(results, "a", LedgerError("lost", ref=REF), REF)
        write(results, "b", ValueError("bad"))
    with results_at(out) as results:
        write(results, "c")
    assert [("a", "LedgerError", "t1"), ("b", "ValueError", None), ("c", "", None)] == rows(out)

    with results_at(out) as results:
        assert results.skips("c")
        assert not results.skips("a")
        write(results, "b")
    assert [("a", "LedgerError", "t1"), ("c", "", None), ("b", "", None)] == rows(out)


def test_that_nobody_knows_replaces_neither_an_id_nor_an_explanation(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with results_at(out) as results:
        write(results, "a", LedgerError("lost", ref=REF), REF)
        write(results, "b", SubmissionUnknown("perhaps task t2", request=REQUEST, at=0.0))
        write(results, "c", ValueError("bad"))
    with results_at(out) as results:
        for key in "abc":
            write(results, key, UNKNOWN)
    with results_at(out) as results:
        write(results, "a", LedgerError("the disk is full"))

    assert [
        ("a", "LedgerError", "t1"),
        ("b", "SubmissionUnknown", None),
        ("c", "SubmissionUnknown", None),
    ] == rows(out)
    assert "perhaps task t2" in out.read_text(encoding="utf-8")


def test_after_a_kill_the_next_run_puts_the_rows_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    failed = {"error": "it failed", "error_type": "TaskFailed", "task_id": "t1"}
    unknown = {"final": False, "error": "?", "error_type": "SubmissionUnknown", "task_id": None}
    out.write_text(row("a", **failed) + row("b", **failed) + row("a") + row("b", **unknown), encoding="utf-8")

    with results_at(out) as results:
        assert (results.failed, results.skips("a"), results.skips("b")) == (0, True, False)

    assert [("a", ""), ("b", "SubmissionUnknown")] == [
        (found["key"], found["error_type"])
        for found in map(json.loads, out.read_text(encoding="utf-8").splitlines())
    ]


def test_a_failed_row_is_replaced_by_its_new_attempt_whatever_came_of_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(row("a", error="failed", error_type="TaskFailed", task_id="t1"), encoding="utf-8")
    with results_at(out, retry_failed=True) as results:
        assert (results.failed, results.skips("a")) == (0, False)
        write(results, "a", UNKNOWN)

    assert [("a", "SubmissionUnknown", None)] == rows(out)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be replaced there")
def test_a_file_that_an_editor_replaces_or_somebody_removes_is_gone_on_with(tmp_path: Path) -> None:
    out, edited, moved = tmp_path / "out.jsonl", tmp_path / "edited", tmp_path / "moved.jsonl"
    with results_at(out) as results:
        write(results, "a")
        edited.write_text(out.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
        edited.replace(out)
        write(results, "b")
    assert [("a", "", None), ("b", "", None)] == rows(out)

    with results_at(out) as results:
        out.rename(moved)
        write(results, "c")
    assert ["a", "b", "c"] == [key for key, *_ in rows(moved)]

    moved.rename(out)
    with results_at(out) as results:
        out.unlink()
        write(results, "d")
    assert [("d", "", None)] == rows(out)


def test_old_rows_that_cannot_be_removed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    with results_at(out) as results:
        write(results, "a", ValueError("bad"))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with results_at(out) as results:
        write(results, "a")
    monkeypatch.undo()

    assert [("a", "ValueError", None), ("a", "", None)] == rows(out)
    assert "No space left" in capsys.readouterr().err
    assert [out] == list(tmp_path.iterdir())
    with results_at(out):
        pass
    assert [("a", "", None)] == rows(out)
