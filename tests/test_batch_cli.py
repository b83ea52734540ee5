from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from support.threaded_emulator import threaded_emulator

from piapi_async import Ledger, PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.cli._batch import _check, _job, _results, _tables
from piapi_async.cli._batch._lines import BatchInput
from piapi_async.cli._batch._source import Source
from piapi_async.cli._report import _command
from piapi_async.cli._saving import Saving
from piapi_async.emulator import Drop, Emulator, Status, TaskFails
from piapi_async.ledger._sqlite import lock_file

KEY = "emulator-key"
BASE64 = "QUFB"

Host = tuple[Emulator, dict[str, str]]


@pytest.fixture(autouse=True)
def poll_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands look at their tasks every hundredth of a second; at the host they take no longer."""
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))


@pytest.fixture
def host() -> Iterator[Host]:
    """Give an emulator on its own, and the environment in which commands use it."""
    with threaded_emulator(queue=1000) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": KEY}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory of one's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, host: Host | None = None, **options: Any) -> Result:
    return CliRunner().invoke(cli, ["batch", *words], env=host[1] if host else {}, **options)


def reroll(parent: str, **more: Any) -> dict[str, Any]:
    return {"verb": "reroll", "origin_task_id": parent, **more}


def write(name: str, *rows: Any) -> str:
    """Write a JSONL file, of values or of lines as they stand, and give its name."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    Path(name).write_bytes(b"\n".join(lines) + b"\n")
    return name


def five(name: str = "in.jsonl") -> str:
    return write(name, *(reroll(f"p{number}") for number in range(1, 6)))


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def results(name: str = "out.jsonl") -> list[dict[str, Any]]:
    return sorted(rows_of(Path(name).read_text("utf-8")), key=lambda row: row["line"])


def parents(emulator: Emulator) -> dict[str, int]:
    return dict(emulator.seen.creates_by_parent)


FIVE = {f"p{number}": 1 for number in range(1, 6)}

# -- what comes out -------------------------------------------------------------------------------------------------


def test_every_line_is_submitted_and_has_one_line_of_results(host: Host) -> None:
    result = run(five(), host=host)

    assert result.exit_code == 0
    rows = sorted(rows_of(result.stdout), key=lambda row: row["line"])
    assert [1, 2, 3, 4, 5] == [row["line"] for row in rows]
    assert parents(host[0]) == FIVE
    for row in rows:
        task = host[0].task(row["task_id"])
        assert task is not None
        assert task.origin == f"p{row['line']}"
        assert row["state"] == "done"
        assert len(row["images"]) == 4
        assert [file["saved_as"] for file in row["files"] if file["role"] == "result"] == [None] * 4
        assert (row["error"], row["error_type"], row["resumed"]) == ("", "", False)
    assert "5 done, 0 failed" in result.stderr


def test_pictures_are_saved(host: Host) -> None:
    result = run(five(), "--download", "pictures/here", "--out", "out.jsonl", host=host)

    assert result.exit_code == 0
    assert result.stdout == ""
    files = [Path(file["saved_as"]) for row in results() for file in row["files"] if file["saved_as"]]
    assert len(files) == 20
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert "20 files saved" in result.stderr


def test_all_verbs_may_stand_in_one_file(host: Host) -> None:
    grid = run(write("grid.jsonl", {"verb": "imagine", "prompt": "a cat"}), host=host)
    [row] = rows_of(grid.stdout)
    single = run(
        write("single.jsonl", {"verb": "upscale", "origin_task_id": row["task_id"], "index": 2}), host=host
    )
    picture = rows_of(single.stdout)[0]["task_id"]
    result = run(
        write(
            "all.jsonl",
            {"verb": "reroll", "origin_task_id": row["task_id"], "skip_prompt_check": True},
            {"verb": "variation", "origin_task_id": row["task_id"], "index": "3", "aspect_ratio": "4:3"},
            {"verb": "inpaint", "origin_task_id": picture, "mask": BASE64},
            {"verb": "outpaint", "origin_task_id": picture, "zoom_ratio": 1.5},
            {"verb": "pan", "origin_task_id": picture, "direction": "left"},
            {"verb": "describe", "image_url": "https://example.org/a.png"},
            {"verb": "blend", "image_urls": ["https://example.org/a.png", "https://example.org/b.png"]},
            {"verb": "seed", "origin_task_id": row["task_id"]},
        ),
        host=host,
    )

    assert result.exit_code == 0, result.stderr
    assert len(rows_of(result.stdout)) == 8


# -- what goes in ---------------------------------------------------------------------------------------------------

GOOD_FILES: dict[str, tuple[str, bytes]] = {
    "jsonl": (
        "in.jsonl",
        b'{"verb":"reroll","origin_task_id":"p1"}\n{"verb":"reroll","origin_task_id":"p2"}\n',
    ),
    "no newline at the end": (
        "in.jsonl",
        b'{"verb":"reroll","origin_task_id":"p1"}\n{"verb":"reroll","origin_task_id":"p2"}',
    ),
    "crlf": (
        "in.jsonl",
        b'{"verb":"reroll","origin_task_id":"p1"}\r\n\r\n{"verb":"reroll","origin_task_id":"p2"}\r\n',
    ),
    "blank lines": (
        "in.jsonl",
        b'\n  \n{"verb":"reroll","origin_task_id":"p1"}\n\t\n{"verb":"reroll","origin_task_id":"p2"}\n\n',
    ),
    "bom": (
        "in.jsonl",
        b'\xef\xbb\xbf{"verb":"reroll","origin_task_id":"p1"}\n{"verb":"reroll","origin_task_id":"p2"}\n',
    ),
    "no suffix": (
        "requests",
        b' \n{"verb":"reroll","origin_task_id":"p1"}\n{"verb":"reroll","origin_task_id":"p2"}\n',
    ),
    "json suffix": (
        "in.json",
        b'{"verb":"reroll","origin_task_id":"p1"}\n{"verb":"reroll","origin_task_id":"p2"}\n',
    ),
    "csv": ("in.csv", b"verb,origin_task_id\nreroll,p1\nreroll,p2\n"),
    "csv with bom and crlf": ("in.csv", b"\xef\xbb\xbfverb,origin_task_id\r\nreroll,p1\r\nreroll,p2\r\n"),
    "csv with quotes": (
        "in.csv",
        b'"origin_task_id","verb","prompt"\n"p1","reroll","a ""cat"",\nand a dog"\np2,reroll,\n',
    ),
    "csv with blank lines": ("in.csv", b"verb,origin_task_id\n\nreroll,p1\n\n\nreroll,p2\n\n"),
    "csv with empty cells": (
        "in.csv",
        b"verb,origin_task_id,prompt,skip_prompt_check\nreroll,p1,,\nreroll,p2,x,TRUE\n",
    ),
    "csv with short rows": ("in.csv", b"verb,origin_task_id,prompt\nreroll,p1\nreroll,p2,x\n"),
    "csv in capitals": ("IN.CSV", b"verb,origin_task_id\nreroll,p1\nreroll,p2\n"),
    "csv without a suffix": ("requests", b"verb,origin_task_id\nreroll,p1\nreroll,p2\n"),
}


@pytest.mark.parametrize(("name", "content"), GOOD_FILES.values(), ids=GOOD_FILES)
def test_a_good_file_is_read_whatever_its_dress(name: str, content: bytes, host: Host) -> None:
    Path(name).write_bytes(content)
    result = run(name, host=host)

    assert result.exit_code == 0, result.stderr
    assert parents(host[0]) == {"p1": 1, "p2": 1}


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_a_huge_line_is_read(name: str, host: Host) -> None:
    mask = BASE64 * 500_000
    emulator = host[0]
    emulator.adopt("single", kind="single")
    if name.endswith("csv"):
        Path(name).write_text(f"verb,origin_task_id,mask\ninpaint,single,{mask}\n", encoding="ascii")
    else:
        write(name, {"verb": "inpaint", "origin_task_id": "single", "mask": mask})
    result = run(name, host=host)

    assert result.exit_code == 0, result.stderr
    assert emulator.seen.requests["inpaint"] == 1


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no json": (b"verb: reroll", "it is not JSON"),
    "cut off": (b'{"verb":"reroll","origin_ta', "it is not JSON"),
    "an array": (b"[]", "it is not a JSON object"),
    "a text": (b'"reroll"', "it is not a JSON object"),
    "deep": (b"[" * 100_000, "it is not JSON"),
    "an endless number": (
        b'{"verb":"imagine","prompt":"x","bot_id":1' + b"0" * 5000 + b"}",
        "it is not JSON",
    ),
    "no verb": (b'{"origin_task_id":"p"}', "verb: missing; name one, or that of all, as with --verb imagine"),
    "another verb": (b'{"verb":"fetch","task_id":"p"}', "verb: 'fetch' is not allowed"),
    "a verb that is no text": (b'{"verb":["reroll"]}', "verb: .* is not allowed"),
    "an unknown field": (
        b'{"verb":"reroll","origin_task_id":"p","promt":"x"}',
        "promt: reroll takes only .*prompt",
    ),
    "a field of another verb": (
        b'{"verb":"reroll","origin_task_id":"p","index":1}',
        "index: reroll takes only",
    ),
    "a missing field": (b'{"verb":"reroll","prompt":"x"}', "origin_task_id: missing"),
    "two missing fields": (b'{"verb":"inpaint"}', "(?=.*mask)(?=.*origin_task_id).*: missing"),
    "an empty field": (b'{"verb":"reroll","origin_task_id":" "}', "origin_task_id: ' ' is not allowed"),
    "a null": (b'{"verb":"reroll","origin_task_id":null}', "origin_task_id: None is not allowed"),
    "a number for a text": (b'{"verb":"reroll","origin_task_id":5}', "origin_task_id: 5 is not allowed"),
    "a text for a flag": (
        b'{"verb":"reroll","origin_task_id":"p","skip_prompt_check":"yes"}',
        "skip_prompt_check: 'yes'",
    ),
    "a float for a number": (b'{"verb":"imagine","prompt":"x","bot_id":1.5}', "bot_id: 1.5 is not allowed"),
    "a value out of range": (
        b'{"verb":"upscale","origin_task_id":"p","index":7}',
        "index: '7' is not allowed",
    ),
    "half a pair": (b'{"verb":"imagine","prompt":"\\ud800"}', "prompt: .* is not allowed"),
    "an object for a text": (b'{"verb":"imagine","prompt":{}}', "prompt: {} is not allowed"),
    "a text for a list": (b'{"verb":"blend","image_urls":"https://example.org/a.png"}', "image_urls"),
    "an empty key": (b'{"verb":"reroll","origin_task_id":"p","key":" "}', "key: ' ' is not allowed"),
    "a key that is no text": (
        b'{"verb":"reroll","origin_task_id":"p","key":5}',
        "key: 5 is .*it must be a str$",
    ),
    "an unprintable key": (b'{"verb":"reroll","origin_task_id":"p","key":"a\\nb"}', "key: .* is not allowed"),
    "a key that is taken": (
        b'{"verb":"reroll","origin_task_id":"p","key":"mine"}',
        "key: 'mine' is already on line 1",
    ),
}


@pytest.mark.parametrize(("line", "said"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_with_its_field_and_nothing_is_submitted(
    line: bytes, said: str, host: Host
) -> None:
    name = write("in.jsonl", reroll("p1", key="mine"), b"", line, reroll("p2"))
    result = run(name, "--ledger", "run.db", host=host)

    assert result.exit_code == 2
    assert re.search(f"^line 3: .*{said}", result.stderr, re.MULTILINE), result.stderr
    assert "1 of 3 lines are wrong; nothing was submitted" in result.stderr
    assert not host[0].seen.requests
    assert not Path("run.db").exists()


def test_skip_invalid_goes_on_without_the_bad_lines(host: Host) -> None:
    bad = [line for line, _ in BAD_LINES.values()]
    name = write("in.jsonl", reroll("p1", key="mine"), *bad, reroll("p2"))
    result = run(name, "--skip-invalid", host=host)

    assert result.exit_code == 0
    assert [] == [
        number
        for number, (_, said) in enumerate(BAD_LINES.values(), 2)
        if not re.search(f"^line {number}: .*{said}", result.stderr, re.MULTILINE)
    ]
    assert parents(host[0]) == {"p1": 1, "p2": 1}
    assert [1, len(bad) + 2] == sorted(row["line"] for row in rows_of(result.stdout))


BAD_CSV: dict[str, tuple[bytes, str]] = {
    "too many cells": (
        b"verb,origin_task_id\nreroll,p1\nreroll,p2,x,y\n",
        "line 3: more cells than the header has",
    ),
    "a missing cell": (b"verb,origin_task_id\nreroll,p1\nreroll\n", "line 3: origin_task_id: missing"),
    "an empty cell": (b"verb,origin_task_id\nreroll,p1\nreroll,\n", "line 3: origin_task_id: missing"),
    "another verb's column": (
        b"verb,origin_task_id,index\nreroll,p1,\nreroll,p2,2\n",
        "line 3: index: reroll takes",
    ),
    "an open quote": (b'verb,origin_task_id\nreroll,p1\nreroll,"p2\n', "line 3: it is not CSV"),
    "a stray quote": (b'verb,origin_task_id\nreroll,p1\nreroll,"p"2\n', "line 3: it is not CSV"),
    "no number": (
        b"verb,prompt,bot_id\nimagine,x,1\nimagine,x,--5\n",
        "line 3: .*bot_id: '--5' is not allowed",
    ),
    "no flag": (
        b"verb,origin_task_id,skip_prompt_check\nreroll,p1,true\nreroll,p2,perhaps\n",
        "line 3: .*skip_prompt_check: 'perhaps' is not allowed",
    ),
    "a row of many lines": (
        b'verb,origin_task_id,prompt,index\nreroll,p1,"a\ncat",\n\nreroll,p2,"a\n\ndog",2\n',
        "line 5: index: reroll takes only",
    ),
    "an open quote that swallows the rest": (
        b'verb,origin_task_id\nreroll,p1\nreroll,"p2\nreroll,p3\n',
        "line 3: it is not CSV",
    ),
}


@pytest.mark.parametrize(("content", "said"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_bad_row_is_named_with_its_field_and_nothing_is_submitted(
    content: bytes, said: str, host: Host
) -> None:
    Path("in.csv").write_bytes(content)
    result = run("in.csv", host=host)

    assert result.exit_code == 2
    assert re.search(f"^{said}", result.stderr, re.MULTILINE), result.stderr
    assert "nothing was submitted" in result.stderr
    assert not host[0].seen.requests


def test_what_is_wrong_with_many_lines_is_told_once_and_fifty_mistakes_at_most(host: Host) -> None:
    write("in.jsonl", *([b"nonsense"] * 60), *(reroll(f"p{n}", promt="x", key=f"{n}\n") for n in range(60)))
    result = run("in.jsonl", host=host)

    assert result.stderr.count("it is not JSON") == 1
    assert "line 1: it is not JSON" in result.stderr
    assert "… and 59 more lines likewise, the last is 60" in result.stderr
    assert len(re.findall(r"^line \d+: key: ", result.stderr, re.MULTILINE)) == 49
    assert "… and 11 more errors" in result.stderr
    assert "120 of 120 lines are wrong" in result.stderr


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"verb,origin_task_id\n"])
def test_a_file_without_requests_is_refused(content: bytes, host: Host) -> None:
    Path("in").write_bytes(content)
    result = run("in", host=host)

    assert result.exit_code == 2
    assert "there is nothing to submit" in result.stderr or "lines are wrong" in result.stderr


def test_a_file_that_is_not_there_is_refused() -> None:
    result = run("nowhere.jsonl")

    assert result.exit_code == 2
    assert "nowhere.jsonl" in result.stderr


@pytest.mark.parametrize("text", [json.dumps(reroll("p1")), "verb,origin_task_id\nreroll,p1\n"])
def test_standard_input_is_read_too(text: str, host: Host) -> None:
    result = run("-", host=host, input=text)

    assert result.exit_code == 0
    assert parents(host[0]) == {"p1": 1}


def test_a_pipe_is_read_too(host: Host) -> None:
    five("there.jsonl")
    os.mkfifo("in")
    feeding = threading.Thread(target=lambda: Path("in").write_bytes(Path("there.jsonl").read_bytes()))
    feeding.start()
    result = run("in", host=host)
    feeding.join()

    assert result.exit_code == 0, result.stderr
    assert parents(host[0]) == FIVE


def test_a_secret_of_the_input_is_in_no_output(host: Host) -> None:
    name = write(
        "in.jsonl", reroll("p1", webhook_endpoint="https://example.org/hook", webhook_secret="hush-hush")
    )
    result = run(name, "--out", "out.jsonl", "--ledger", "run.db", host=host)

    assert result.exit_code == 0
    assert "hush-hush" not in result.output + Path("out.jsonl").read_text("utf-8")
    assert b"hush-hush" not in Path("run.db").read_bytes()


# -- rehearsing and limiting ----------------------------------------------------------------------------------------


def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(host: Host) -> None:
    result = run(five(), "--dry-run", "--ledger", "run.db", "--out", "out.jsonl", host=host)

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"items": 5, "submit": 5, "resume": 0, "unknown": 0}
    assert not host[0].seen.requests
    assert [path.name for path in Path().iterdir()] == ["in.jsonl"]


def test_a_dry_run_tells_what_is_new_from_what_is_known_and_unknown(host: Host) -> None:
    host[0].fail("reroll", Drop(after_body=True))
    run(write("one.jsonl", reroll("p1")), "--ledger", "run.db", host=host)
    run(write("two.jsonl", reroll("p2"), reroll("p2")), "--ledger", "run.db", host=host)
    seen = dict(host[0].seen.requests)
    result = run(
        write("in.jsonl", reroll("p1"), reroll("p2"), reroll("p2"), reroll("p2"), reroll("p3"), b"nonsense"),
        *("--dry-run", "--skip-invalid", "--ledger", "run.db"),
        host=host,
    )

    assert json.loads(result.stdout) == {
        "items": 5, "submit": 2, "resume": 2, "unknown": 1,
        "estimated_cost": [{"amount": 6, "unit": "quota"}], "of_unknown_cost": 0,
    }  # fmt: skip
    assert dict(host[0].seen.requests) == seen


def test_max_submits_leaves_the_rest_for_another_run(host: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")
    for made in (2, 4):
        result = run(*words, "--max-submits", "2", host=host)
        assert result.exit_code == 9
        assert host[0].seen.creates == made
        assert f"{5 - made} left" in result.stderr
        assert "To go on: piapi-async" in result.stderr
    assert run(*words, "--max-submits", "2", host=host).exit_code == 0
    assert parents(host[0]) == FIVE
    assert [1, 2, 3, 4, 5] == [row["line"] for row in results()]


def test_lines_that_nobody_holds_any_more_take_no_memory() -> None:
    source = BatchInput(Source.of(Path(write("in.jsonl", *(reroll(f"p{number}") for number in range(1000))))))
    job = _job.Job(cast("Any", None), source, 1000, _results.Results.on_stdout(), None, Saving())

    held: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    async def read() -> int:
        most = 0
        async for item in job._items(PiAPI(KEY)):
            held[item.extra.number] = item.extra
            most = max(most, len(held))
        return most

    assert 0 < asyncio.run(read()) <= 2 * _check.CHUNK_LINES
    assert not held


def test_heavy_lines_are_taken_in_small_portions() -> None:
    row = {"verb": "inpaint", "origin_task_id": "p", "mask": "QUFB" * 2**16}
    source = BatchInput(Source.of(Path(write("in.jsonl", *([row] * 9)))))

    assert [4, 4, 1] == [len(chunk) for chunk in _check.chunks(source)]


def test_max_submits_holds_without_a_ledger(host: Host) -> None:
    result = run(five(), "--max-submits", "2", "--concurrency", "1", host=host)

    assert result.exit_code == 9
    assert host[0].seen.creates == 2
    assert "3 left" in result.stderr


# -- the file of results --------------------------------------------------------------------------------------------


def test_a_rerun_adds_nothing_to_results_that_are_complete(host: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")
    run(*words, host=host)
    before, asked = Path("out.jsonl").read_bytes(), host[0].seen.requests.total()
    result = run(*words, host=host)

    assert result.exit_code == 0
    assert Path("out.jsonl").read_bytes() == before
    assert host[0].seen.requests.total() == asked
    assert "5 in the results already" in result.stderr


def test_lost_results_are_written_again_without_a_submit(host: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")
    run(*words, host=host)
    before = results()
    Path("out.jsonl").unlink()
    run(*words, host=host)

    assert host[0].seen.creates == 5
    assert [(row["key"], row["task_id"]) for row in before] == [
        (row["key"], row["task_id"]) for row in results()
    ]
    assert all(row["resumed"] for row in results())


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_line_that_a_crash_has_cut_off_is_written_again(kept: int, host: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")
    run(*words, host=host)
    lines = Path("out.jsonl").read_bytes().splitlines(keepends=True)
    Path("out.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1].rstrip(b"\n")[: kept or 0])
    result = run(*words, host=host)

    assert result.exit_code == 0
    assert [1, 2, 3, 4, 5] == [row["line"] for row in results()]
    assert host[0].seen.creates == 5


def test_lines_that_are_not_final_are_replaced_by_what_came_of_them(host: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl", "--concurrency", "1")
    host[0].fail("reroll", Status(400))
    host[0].fail("reroll", Drop(after_body=True))
    host[0].fail("reroll", TaskFails("no luck"), nth=2)  # the dropped one was made as well
    first = run(*words, host=host)
    assert first.exit_code == 6
    assert [False, False, True, True, True] == [row["final"] for row in results()]
    second = run(*words, host=host)

    assert second.exit_code == 6
    assert ["", "SubmissionUnknown", "TaskFailed", "", ""] == [row["error_type"] for row in results()]
    assert [1, 2, 3, 4, 5] == [row["line"] for row in results()]
    assert parents(host[0]) == FIVE


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_key_that_the_results_have_for_another_request_is_refused(
    more: tuple[str, ...], host: Host
) -> None:
    words = ("in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")
    write("in.jsonl", reroll("p1", key="one"), reroll("p2", key="two", prompt="a cat"))
    run(*words, host=host)
    before = Path("out.jsonl").read_bytes()
    write("in.jsonl", reroll("p1", key="one"), b"", reroll("p2", key="two", prompt="a dog"), reroll("p3"))
    result = run(*words, *more, host=host)

    assert result.exit_code == 2
    assert "line 3: key: 'two' is not allowed; out.jsonl has it for another request" in result.stderr
    assert Path("out.jsonl").read_bytes() == before
    assert host[0].seen.creates == 2


def test_results_with_a_key_of_another_request_may_be_skipped(host: Host) -> None:
    words = ("in.jsonl", "--ledger", "run.db", "--out", "out.jsonl", "--skip-invalid")
    write("in.jsonl", reroll("p1", key="one"))
    run(*words, host=host)
    write("in.jsonl", reroll("p9", key="one"), reroll("p2"))
    result = run(*words, host=host)

    assert result.exit_code == 0
    assert parents(host[0]) == {"p1": 1, "p2": 1}


@pytest.mark.parametrize("digest", [None, "", "no number", 5])
def test_results_of_an_older_release_are_believed(digest: Any, host: Host) -> None:
    words = ("in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")
    write("in.jsonl", reroll("p1", key="one"))
    run(*words, host=host)
    [row] = results()
    del row["digest"]
    write("out.jsonl", row if digest is None else {**row, "digest": digest})
    write("in.jsonl", reroll("p9", key="one"))
    result = run(*words, host=host)

    assert result.exit_code == 0
    assert "1 in the results already" in result.stderr
    assert host[0].seen.creates == 1


def test_where_an_outcome_is_posted_to_does_not_make_another_request_of_a_line(host: Host) -> None:
    words = ("in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")
    write("in.jsonl", reroll("p1", key="one"))
    run(*words, host=host)
    write("in.jsonl", reroll("p1", key="one", webhook_endpoint="https://example.org/hook"))

    assert run(*words, host=host).exit_code == 0


def test_an_existing_file_without_a_ledger_is_refused_and_stays(host: Host) -> None:
    Path("out.jsonl").write_text("precious\n", encoding="ascii")
    result = run(five(), "--out", "out.jsonl", host=host)

    assert result.exit_code == 2
    assert "--ledger" in result.stderr
    assert Path("out.jsonl").read_text("ascii") == "precious\n"
    assert not host[0].seen.requests


FOREIGN = {
    "a text": b"precious\n",
    "other json": b'{"line": 1}\n',
    "results without keys": b'{"line": 1, "key": "", "task_id": "t", "final": true}\n'
    b'{"line": 2, "key": "", "final": true}\n',
    "binary": bytes(range(256)) + b"\n",
    "a list": b"[1]\n",
    "a request": json.dumps(reroll("p1")).encode() + b"\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_holds_no_results_is_refused_and_stays(content: bytes, host: Host) -> None:
    Path("out.jsonl").write_bytes(content)
    result = run(five(), "--out", "out.jsonl", "--ledger", "run.db", host=host)

    assert result.exit_code == 2
    assert "out.jsonl" in result.stderr
    assert Path("out.jsonl").read_bytes() == content
    assert not host[0].seen.requests
    assert not list(Path().glob("out.jsonl?*"))


@pytest.mark.parametrize("out", ["in.jsonl", "run.db", "link", "./in.jsonl"])
def test_results_never_go_over_the_input_or_the_ledger(out: str, host: Host) -> None:
    run(five(), "--ledger", "run.db", host=host)
    Path("link").symlink_to("run.db")
    before = Path("in.jsonl").read_bytes(), Path("run.db").read_bytes()
    result = run("in.jsonl", "--out", out, "--ledger", "run.db", host=host)

    assert result.exit_code == 2
    assert before == (Path("in.jsonl").read_bytes(), Path("run.db").read_bytes())


def test_results_into_a_directory_that_is_not_there_are_refused(host: Host) -> None:
    result = run(five(), "--out", "nowhere/out.jsonl", host=host)

    assert result.exit_code == 2
    assert "there is no directory nowhere" in result.stderr
    assert not host[0].seen.requests


def test_a_pipe_for_results_is_refused(host: Host) -> None:
    os.mkfifo("out")
    result = run(five(), "--out", "out", host=host)

    assert result.exit_code == 2
    assert Path("out").is_fifo()


def test_two_runs_do_not_write_one_file(host: Host) -> None:
    lock = lock_file(Path(".out.jsonl.piapi-async-lock"))
    result = run(five(), "--out", "out.jsonl", "--ledger", "run.db", host=host)
    lock.close()

    assert result.exit_code == 2
    assert "another run is writing out.jsonl" in result.stderr
    assert not host[0].seen.requests
    assert run("in.jsonl", "--out", "out.jsonl", "--ledger", "run.db", host=host).exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "out.jsonl", "run.db"]


def test_pictures_that_were_not_asked_for_at_first_are_saved_by_a_rerun(host: Host) -> None:
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")
    run(*words, host=host)
    result = run(*words, "--download", "pictures", host=host)
    assert result.exit_code == 0
    assert len(list(Path("pictures").iterdir())) == 20
    Path(results()[0]["files"][0]["saved_as"]).unlink()
    run(*words, "--download", "pictures", host=host)

    assert len(list(Path("pictures").iterdir())) == 20
    assert [1, 2, 3, 4, 5] == [row["line"] for row in results()]
    assert all(sum(file["role"] == "result" for file in row["files"]) == 4 for row in results())
    assert host[0].seen.creates == 5


def test_a_directory_with_an_odd_name_takes_pictures(host: Host) -> None:
    odd = os.fsdecode(b"pictures\xff")
    result = run(five(), "--download", odd, "--out", "out.jsonl", host=host)

    assert result.exit_code == 0, result.stderr
    assert len(list(Path(odd).iterdir())) == 20
    assert len(results()) == 5


# -- exit codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "fault", "code", "words"),
    [
        ("reroll", TaskFails("no luck"), 4, ()),
        ("reroll", Status(400), 4, ()),
        ("reroll", Drop(after_body=True), 6, ()),
        ("reroll", Status(401), 3, ()),
        ("image", Status(410), 8, ("--download", "pictures")),
    ],
)
def test_the_exit_code_tells_the_worst_that_happened(
    route: str, fault: Any, code: int, words: tuple[str, ...], host: Host
) -> None:
    host[0].fail(route, fault)
    result = run(five(), "--concurrency", "1", *words, host=host)

    assert result.exit_code == code
    if code != 3:
        assert len(rows_of(result.stdout)) == 5


def test_a_failure_of_an_earlier_run_still_counts(host: Host) -> None:
    host[0].fail("reroll", TaskFails("no luck"))
    words = (five(), "--ledger", "run.db", "--out", "out.jsonl")

    assert [4, 4] == [run(*words, host=host).exit_code for _ in range(2)]


def test_a_wrong_key_stops_the_run_instead_of_being_told_for_every_line(host: Host) -> None:
    write("in.jsonl", *(reroll(f"p{number}") for number in range(200)))
    result = run("in.jsonl", "--concurrency", "3", host=(host[0], {**host[1], "PIAPI_API_KEY": "another"}))

    assert result.exit_code == 3
    assert host[0].seen.requests["reroll"] <= 6
    assert "Nothing more is submitted" in result.stderr


def test_no_key_is_a_usage_error() -> None:
    result = run(five())

    assert result.exit_code == 2
    assert "PIAPI_API_KEY" in result.stderr


@pytest.mark.parametrize("words", [("--concurrency", "0"), ("--max-submits", "-1"), ("--timeout", "nan")])
def test_options_that_make_no_sense_are_usage_errors(words: tuple[str, ...], host: Host) -> None:
    assert run(five(), *words, host=host).exit_code == 2
    assert not host[0].seen.requests


def test_a_timeout_is_for_each_task(host: Host) -> None:
    with threaded_emulator(durations=1000.0) as (emulator, base_url):
        result = run(five(), "--timeout", "0.1", host=(emulator, {**host[1], "PIAPI_BASE_URL": base_url}))

    assert result.exit_code == 4
    assert {"WaitTimeout"} == {row["error_type"] for row in rows_of(result.stdout)}
    assert not any(row["final"] for row in rows_of(result.stdout))


# -- status ---------------------------------------------------------------------------------------------------------


def test_status_tells_how_far_a_run_is(host: Host) -> None:
    host[0].fail("reroll", Drop(after_body=True))
    host[0].fail("reroll", TaskFails("no luck"), nth=2)  # the dropped one was made as well
    run(five(), "--ledger", "run.db", host=host)
    result = run("status", "run.db")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"done": 3, "failed": 1, "unknown": 1}


def test_status_of_what_is_no_ledger_is_an_error() -> None:
    Path("run.db").write_text("a diary" * 1000, encoding="ascii")

    assert run("status", "run.db").exit_code == 1
    assert run("status", "nowhere.db").exit_code == 2
    assert not Path("nowhere.db").exists()


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("in.jsonl", "--help")])
def test_help_names_the_options(words: tuple[str, ...]) -> None:
    result = run(*words)

    assert result.exit_code == 0
    assert all(option in result.output for option in ("--out", "--ledger", "--skip-invalid", "--max-submits"))


# -- the ledger behind a run ----------------------------------------------------------------------------------------


def test_equal_requests_have_keys_of_their_own_and_own_keys_are_kept(host: Host) -> None:
    rows = [reroll("p1"), reroll("p1"), reroll("p2", key="mine")]
    run(write("in.jsonl", *rows), "--ledger", "run.db", "--out", "out.jsonl", host=host)
    keys = asyncio.run(keys_of("run.db"))

    assert keys == {row["key"] for row in results()}
    assert len(keys) == 3
    assert "mine" in keys


async def keys_of(name: str) -> set[str]:
    ledger = Ledger(name)
    keys = {entry.key async for entry in ledger}
    await ledger.close()
    return keys


def test_an_interrupt_after_the_run_does_not_say_that_nothing_was_submitted(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_tables, "write_table", interrupted)
    result = run(five(), "--ledger", "run.db", "--out", "out.csv", host=host)

    assert result.exit_code == 130
    assert "5 done" in result.stderr
    assert "all outcomes are in out.csv.jsonl" in result.stderr
    assert "Nothing was submitted" not in result.stderr


def test_a_report_that_cannot_be_written_is_an_error_of_a_run_that_went_well(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_command, "write_page_of", no_room)
    for out in ([], ["--out", "out.jsonl", "--ledger", "run.db"]):
        result = run(five(), *out, "--report", "page.html", host=host)

        assert (result.exit_code, "could not be written" in result.stderr) == (1, True)
        assert "5 done" in result.stderr


def test_a_file_that_is_written_to_while_it_is_read_is_not_gone_on_with(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check, "CHUNK_LINES", 2)
    name = five()
    seen = iter(range(10))
    chunks = _check.chunks

    def edited(requests: BatchInput) -> Iterator[Any]:
        for chunk in chunks(requests):
            yield chunk
            if next(seen) == 0:
                write(name, *(reroll(f"q{number}") for number in range(1, 6)))

    monkeypatch.setattr(_check, "chunks", edited)
    result = run(name, "--ledger", "run.db", "--out", "out.jsonl", host=host)

    assert result.exit_code == 1
    assert "has changed since it was checked. Nothing more is submitted" in result.stderr
    assert host[0].seen.creates == 2


def test_pictures_that_are_in_another_folder_are_saved_in_the_one_that_is_asked_for(host: Host) -> None:
    name = write("one.jsonl", reroll("p1"))
    for folder in ("one", "two"):
        result = run(name, "--ledger", "run.db", "--out", "out.jsonl", "--download", folder, host=host)

        assert (result.exit_code, len(list(Path(folder).iterdir()))) == (0, 4)
    assert host[0].seen.creates == 1
