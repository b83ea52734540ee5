"""Files at the command line: what is saved by default, what is unsaved and so not final, and where none can go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session, cli
from piapi_async.cli._batch._earlier import _is_final
from piapi_async.cli._saving import Saving
from piapi_async.emulator import Emulator, Status

Host = tuple[Emulator, dict[str, str]]
VIDEO = ("run", "kling/video_generation", "prompt=a cat")


@pytest.fixture(autouse=True)
def poll_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # real seconds pass here
    monkeypatch.setattr(_session, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def host() -> Iterator[Host]:
    with threaded_emulator(queue=1000) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


def run(host: Host, *words: str) -> Result:
    return CliRunner().invoke(cli, words, env=host[1])


def write(*rows: dict[str, Any]) -> str:
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "in.jsonl"


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "target",
    ["nosuch://bucket/x", "https://h/x"],
)
@pytest.mark.parametrize(
    "words", [VIDEO, ("wait", "t1"), ("imagine", "x"), ("batch", "in.jsonl")], ids=lambda words: words[0]
)
def test_a_target_that_is_no_folder_is_refused_before_anything_is_sent(
    words: tuple[str, ...], target: str, host: Host
) -> None:
    write({"verb": "imagine", "prompt": "x"})
    result = run(host, *words, "--download", target)

    assert result.exit_code == 2
    assert f"'{target}' is not allowed; " in result.stderr
    assert not host[0].seen.requests
    assert [path.name for path in Path().iterdir()] == ["in.jsonl"]


def test_clean_files_are_saved_and_the_rest_with_all_files(host: Host) -> None:
    clean = run(host, *VIDEO, "--download", "clean")
    every = run(host, *VIDEO, "--download", "all", "--all-files", "--parallel-files", "1")

    assert (clean.exit_code, every.exit_code) == (0, 0), clean.stderr + every.stderr
    assert [path.suffix for path in Path("clean").iterdir()] == [".mp4"]
    assert sorted(path.stem.rpartition("-")[2] for path in Path("all").iterdir())[-2:] == [
        "cover",
        "watermarked",
    ]
    row = json.loads(clean.stdout)
    assert [(file["role"], file["saved_as"] is not None) for file in row["files"]] == [
        ("result", True),
        ("watermarked", False),
        ("cover", False),
    ]


EMPTY = Status(200, body={"code": 200, "message": "success", "data": {"status": "completed", "output": None}})


def test_a_task_that_is_done_without_a_file_is_unsaved_and_tried_again_by_the_next_run(host: Host) -> None:
    host[0].fail("read", EMPTY, times=None)
    single = run(host, "run", "flux/txt2img", "prompt=x", "--download", "out")
    words = (
        "batch",
        write({"verb": "flux/txt2img", "prompt": "x"}),
        "--out",
        "out.jsonl",
        "--ledger",
        "run.db",
    )
    batch = run(host, *words, "--download", "out")
    [row] = results()

    assert (single.exit_code, batch.exit_code) == (8, 8)
    assert "no link was found" in single.stderr
    assert "no link was found" in batch.stderr
    assert (row["final"], row["error_type"]) == (False, "DownloadError")

    again = run(host, *words, "--download", "out")
    assert again.exit_code == 8
    assert host[0].seen.creates == 2


def test_a_result_that_is_text_lacks_no_file(host: Host) -> None:
    words = ("batch", write({"verb": "describe", "image_url": "https://h.test/a.png"}), "--out", "out.jsonl")
    ledger = ("--ledger", "run.db", "--download", "out")
    first, second = run(host, *words, *ledger), run(host, *words, *ledger)
    single = run(host, "describe", "https://h.test/a.png", "--download", "out")

    assert (first.exit_code, second.exit_code, single.exit_code) == (0, 0, 0), first.stderr
    assert results()[0]["final"]
    assert "1 in the results already" in second.stderr


def test_a_rerun_skips_items_whose_clean_files_are_there_and_saves_the_rest_when_asked(host: Host) -> None:
    words = (
        "batch",
        write({"verb": "kling/video_generation", "prompt": "x"}),
        "--out",
        "out.jsonl",
        "--ledger",
        "run.db",
    )
    run(host, *words, "--download", "out")
    assert "1 in the results already" in run(host, *words, "--download", "out").stderr

    more = run(host, *words, "--download", "out", "--all-files")
    assert more.exit_code == 0
    assert len(list(Path("out").iterdir())) == 3
    assert host[0].seen.creates == 1


ROW: dict[str, Any] = {"final": True, "error": "", "key": "k", "request": {"verb": "kling/video_generation"}}


@pytest.mark.parametrize(
    ("made", "files", "final"),
    [
        ("file", [{"role": "result", "saved_as": "a"}], True),
        ("file", [{"role": "result", "saved_as": "a"}, {"role": "cover", "saved_as": None}], True),
        ("file", [{"role": "cover", "saved_as": "a"}], True),
        ("file", [{"role": "result", "saved_as": None}, {"role": "cover", "saved_as": "a"}], False),
        ("file", ["a"], True),
        ("empty", ["a"], False),
        ("folder", ["a"], False),
        ("empty", [{"role": "result", "saved_as": "a"}], False),
        ("folder", [{"role": "result", "saved_as": "a"}], False),
        ("nothing", [{"role": "result", "saved_as": "a"}], False),
        ("nothing", [], False),
    ],
)
def test_a_row_is_final_when_all_that_is_wanted_is_there(made: str, files: list[Any], final: bool) -> None:  # noqa: FBT001 - a table
    if made == "folder":
        Path("a").mkdir()
    elif made != "nothing":
        Path("a").write_bytes(b"x" if made == "file" else b"")

    assert _is_final({**ROW, "files": files}, Saving(directory=Path())) is final
