"""What the report page makes of lines of results: pure, and harmless whatever they hold."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.any_json import JSON
from support.tables import for_each
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as session
from piapi_async.cli import cli
from piapi_async.cli._batch._lines import BatchInput
from piapi_async.cli._batch._source import Source
from piapi_async.cli._report._command import ResultLines, write_at_end
from piapi_async.cli._report._entries import entry_of
from piapi_async.cli._report._page import SavedFiles

GRID = {
    "line": 7,
    "key": "order 7",
    "task_id": "t1",
    "status": "finished",
    "state": "done",
    "images": [f"https://cdn.example/{number}.png" for number in (1, 2, 3, 4)],
    "result": {"actions": ["reroll", "upscale1", "upscale2", "upscale3", "upscale4"]},
    "files": [
        {"url": f"https://cdn.example/{number}.png", "kind": "image", "role": "result", "saved_as": None}
        for number in (1, 2, 3, 4)
    ],
    "cost": {"amount": 3, "unit": "quota"},
    "created_at": "2026-11-27T08:00:00+00:00",
    "started_at": "2026-11-27T08:00:04+00:00",
    "ended_at": "2026-11-27T08:00:40.500000+00:00",
    "error": "",
    "error_type": "",
    "request": {"verb": "imagine", "prompt": "a cute cat"},
    "extra": {},
}


def nowhere(_: str) -> None:
    return None


def entry(**changes: Any) -> dict[str, Any]:
    return entry_of({**GRID, **changes}, 1, nowhere)


def test_a_grid_has_its_quadrants_its_cost_its_times_and_what_can_be_chosen() -> None:
    found = entry()

    assert [1, 2, 3, 4] == [file["quadrant"] for file in found["media"]]
    assert (7, "done", "a cute cat", [3, "quota"]) == (
        found["line"],
        found["state"],
        found["prompt"],
        found["cost"],
    )
    assert (40.5, 36.5) == (found["seconds"], found["worked"])
    assert {"upscale": [1, 2, 3, 4], "reroll": True, "again": True, "system": ""} == found["actions"]


@for_each(
    ("changes", "state", "may_be_sent_again"),
    [
        ({"error_type": "SubmissionUnknown", "state": None, "task_id": None}, "unknown", False),
        ({"error_type": "DownloadError"}, "unsaved", False),
        ({"error_type": "WaitTimeout", "state": "running"}, "open", False),
        ({"error_type": "LedgerError", "state": None}, "failed", False),
        ({"error_type": "TaskFailed", "state": "failed"}, "failed", True),
        ({"error_type": "InvalidRequestError", "state": None, "task_id": None}, "failed", True),
        ({"error_type": "NotFoundError", "state": None}, "failed", False),
        ({"request": {"verb": "imagine", "prompt": "a… (12000 characters)"}}, "done", False),
        ({"request": {"verb": "no such"}}, "done", False),
    ],
)
def test_nothing_that_may_be_paid_for_already_is_offered_again(
    changes: dict[str, Any], state: str, *, may_be_sent_again: bool
) -> None:
    found = entry(**changes)

    assert state == found["state"]
    assert may_be_sent_again == found.get("actions", {}).get("again", False)


def test_a_grid_of_another_system_is_upscaled_by_its_own_verbs() -> None:
    request = {"verb": "midjourney/imagine", "prompt": "a castle"}

    assert "midjourney/" == entry(request=request)["actions"]["system"]
    assert [1, 2, 3, 4] == entry(request=request, result={})["actions"]["upscale"]
    assert "upscale" not in entry(request={"verb": "flux/txt2img", "prompt": "a"})["actions"]


def test_a_request_in_the_hosts_own_words_an_older_row_and_a_cover_are_understood(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"1")
    locate = SavedFiles(tmp_path, (tmp_path,)).locate
    cover = {"url": "https://cdn.example/c.png", "kind": "image", "role": "cover", "saved_as": None}
    long = {
        "verb": "flux/txt2img",
        "images": ["a", {"mask": "x… (20000 characters)"}],
        "input": {"prompt": "a fox"},
    }

    older = entry_of({**GRID, "files": ["1.png", cover, 5], "request": long}, 1, locate)

    assert [("1.png", None), ("https://cdn.example/c.png", "cover")] == [
        (file["at"], file.get("role")) for file in older["media"]
    ]
    assert ("a fox", False) == (older["prompt"], "actions" in older)
    assert 4001 == len(entry(request={"verb": "imagine", "prompt": "x" * 5000})["prompt"])


def test_a_page_that_cannot_be_written_is_told_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "r.jsonl"
    results.write_text('{"task_id": "t", "error": "", "progress": 0.5}')

    write_at_end(ResultLines(results), tmp_path / "gone" / "page.html", None)

    assert "could not be written" in capsys.readouterr().err


@for_each(
    "link",
    [
        "javascript:alert(1)",
        "data:text/html,<script>",
        " javascript:1",
        "file:///etc/passwd",
        "//x/y",
        "https://",
    ],
)
def test_a_link_that_is_not_http_is_none(link: str) -> None:
    file = {"url": link, "kind": "image", "role": "result", "saved_as": None}

    assert "media" not in entry(files=[file])


def test_a_saved_file_stands_before_its_link_and_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a#1 ?é.png").write_bytes(b"1")
    locate = SavedFiles(tmp_path / "pages", (tmp_path,)).locate
    link = "https://cdn.example/1.png"
    file = {"url": link, "kind": "image", "role": "result", "saved_as": "pictures/a#1 ?é.png"}
    gone = {**file, "saved_as": "pictures/gone.png"}
    in_a_bucket = {**file, "saved_as": "s3://bucket/a.png"}

    media = entry_of({**GRID, "files": [file, gone, in_a_bucket, {**file, "saved_as": "a\0b"}]}, 1, locate)[
        "media"
    ]

    assert ["../pictures/a%231%20%3F%C3%A9.png", link, link, link] == [found["at"] for found in media]
    assert {link} == {found["link"] for found in media}


@given(values=st.dictionaries(st.sampled_from(sorted(GRID)), JSON), number=st.integers(1, 9))
def test_any_line_whatever_gives_an_entry_that_a_script_reads(values: dict[str, Any], number: int) -> None:
    found = entry_of({**GRID, **values}, number, nowhere)

    assert found["state"]
    assert json.loads(json.dumps(found))


def data_of(page: str) -> Any:
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def test_a_batch_writes_its_page_with_or_without_a_file_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # real seconds pass here
    monkeypatch.setattr(session, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    hostile = "</script><script>alert(1)</script>\u2028<!--"
    lines = [
        {"verb": "imagine", "prompt": hostile},
        {"verb": "describe", "image_url": "https://example.com/a.png"},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with threaded_emulator() as (_, base_url):
        monkeypatch.setenv("PIAPI_BASE_URL", base_url)
        monkeypatch.setenv("PIAPI_API_KEY", "emulator-key")
        common = ["batch", "in.jsonl", "--download", "pictures"]
        first = CliRunner().invoke(cli, [*common, "--report", "page.html"])
        second = CliRunner().invoke(
            cli, [*common, "--out", "out.jsonl", "--report", "page.html", "--ledger", "l.db"]
        )

    assert (0, 0) == (first.exit_code, second.exit_code), (first.stderr, second.stderr)
    assert "Report: page.html" in second.stderr
    with Path("out.jsonl").open("a") as file:
        file.write(
            '[1]\n{"x": 1}\n\n{"task_id": "t9", "state": "done", "cost": {"amount": NaN}, "progress": 1e999}\n{"task'
        )
    third = CliRunner().invoke(cli, ["report", "out.jsonl"])

    assert {"report": "out.html", "results": 3, "left_out": 3} == json.loads(third.stdout)
    text = Path("out.html").read_text(encoding="utf-8")
    assert hostile not in text
    assert 3 == text.count("<script")
    imagined = next(one for one in data_of(text) if one["line"] == 1)
    assert hostile == imagined["prompt"]
    assert all(file["at"].startswith("pictures/") for file in imagined["media"])
    assert "--ledger l.db" in Path("page.html").read_text(encoding="utf-8")


def test_a_page_replaces_nothing_but_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.jsonl").write_text(json.dumps(GRID))
    Path("r.html").write_text("<html>mine")

    def refused(*words: str) -> str:
        result = CliRunner().invoke(cli, ["report", "r.jsonl", *words])
        assert 2 == result.exit_code
        return result.stderr

    assert "exists and is not such a page" in refused()
    assert "the run's own file" in refused("--out", "r.jsonl")
    assert "no directory" in refused("--out", "a/b.html")
    assert "<html>mine" == Path("r.html").read_text()
    assert ["r.html", "r.jsonl"] == sorted(path.name for path in tmp_path.iterdir())


def test_what_is_chosen_is_a_file_for_a_batch(tmp_path: Path) -> None:
    """The lines that page.js writes, as the browser's test sees them written."""
    chosen = tmp_path / "chosen.jsonl"
    chosen.write_text(
        '{"verb":"upscale","origin_task_id":"t1","index":2,"key":"upscale t1 2"}\n'
        '{"verb":"reroll","origin_task_id":"t1","key":"reroll t1 a1b2c3"}\n'
        '{"verb": "imagine", "prompt": "a cute cat", "key": "again order 7 a1b2c3"}\n'
    )

    lines = list(BatchInput(Source.of(chosen)).lines())

    assert ["upscale t1 2", "reroll t1 a1b2c3", "again order 7 a1b2c3"] == [
        getattr(line, "key", line) for line in lines
    ]
