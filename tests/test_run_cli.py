"""`piapi-async run`, `models`, `upload`, `account`, and the other commands about tasks of any model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import CliRunner, Result
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.cli._requests import LEGNEXT
from piapi_async.emulator import Dialect, Drop, Emulator, Status, TaskFails
from piapi_async.models import catalog

Host = tuple[Emulator, dict[str, str]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory of one's own, with a cat in it, and look at tasks every hundredth of a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    Path("cat.png").write_bytes(PNG)
    Path("cat.gif").write_bytes(b"GIF89a")
    return tmp_path


@pytest.fixture(scope="module")
def service() -> Iterator[Host]:
    with threaded_emulator(queue=1000) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


@pytest.fixture
def host(service: Host) -> Host:
    """Give an emulator that has seen nothing yet, and the environment in which commands use it."""
    emulator = service[0]
    emulator.engine.tasks.clear()
    emulator.fault_rules.rules.clear()
    emulator.seen.requests.clear()
    return service


def run(host: Host, *words: str) -> Result:
    return CliRunner().invoke(cli, words, env=host[1])


def made(host: Host) -> list[dict[str, Any]]:
    """Give the inputs of all tasks that were paid for."""
    return [dict(task.input) for task in host[0].engine.tasks.values()]


def creates(host: Host) -> int:
    return host[0].seen.requests["task_create"]


# -- run ----------------------------------------------------------------------------------------------------------


def test_a_typed_request_is_made_waited_for_and_saved(host: Host) -> None:
    result = run(
        host, "run", "flux/txt2img", "prompt=a cat", "width:=512", "height=256", "--download", "out/"
    )

    assert result.exit_code == 0, result.stderr
    task = json.loads(result.stdout)
    [file] = task["files"]
    assert (task["state"], file["saved_as"], file["kind"]) == ("done", f"out/{task['task_id']}.png", "image")
    assert Path(file["saved_as"]).read_bytes().startswith(b"\x89PNG")
    assert made(host) == [{"prompt": "a cat", "width": 512, "height": 256}]
    assert f"submitted {task['task_id']}" in result.stderr


def test_any_model_is_made_by_its_names(host: Host) -> None:
    words = (
        "run",
        "kling:video_generation",
        "prompt=a=b",
        "image_url=@cat.png",
        'images:=["@cat.png", {"a": 1}]',
    )
    result = run(host, *words, "camera-control:={}", "--no-wait")

    assert result.exit_code == 0, result.stderr
    [given] = made(host)
    link = given["image_url"]
    assert link.endswith(".png")
    assert given == {"prompt": "a=b", "image_url": link, "images": [link, {"a": 1}], "camera-control": {}}
    assert result.stdout.strip() in host[0].engine.tasks
    assert host[0].seen.requests["upload"] == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("kling:video_generation", "prompt=@@bob says hi",
          'more:=["@@a", {"b": "@@@c"}]'),
         {"prompt": "@bob says hi", "more": ["@a", {"b": "@@c"}]}),
        (("kling:video_generation", "prompt=bob@home"), {"prompt": "bob@home"}),
        (("flux/txt2img", "prompt=@bob says hi"), {"prompt": "@bob says hi"}),  # not where a file may stand
        (("flux/txt2img", "prompt=@@bob"), {"prompt": "@@bob"}),
    ],
)  # fmt: skip
def test_a_text_may_begin_with_an_at(words: tuple[str, ...], expected: dict[str, Any], host: Host) -> None:
    result = run(host, "run", *words, "--no-wait")

    assert result.exit_code == 0, result.stderr
    assert made(host) == [expected]


WRONG = {
    ("suno/generate_music", "prompt=x"): "the vendor has withdrawn Suno; udio/generate_music makes songs",
    ("music-s/generate_music", "prompt=x"): "the vendor has withdrawn Suno",
    ("flux/txt2img",): "prompt: missing; flux/txt2img requires it",
    ("flux/txt2img", "a cat"): "'a cat' is not allowed; give NAME=TEXT or NAME:=JSON",
    ("flux/txt2img", "prompt="): "prompt: '' is not allowed; it must be a non-empty string",
    ("flux/txt2img", "prompt=x", "prompt=y"): "prompt: given twice",
    ("flux/txt2img", "prompt=x", "wdith:=3"): "did you mean width?",
    ("flux/txt2img", "prompt=x", "width:=3,"): "width:= '3,' is not JSON",
    (
        "flux/txt2img",
        "prompt=x",
        "width:=0",
    ): "width: 0 is not allowed; it must be a whole number of at least 1",
    ("flux/txt2img", "prompt=x", "width=wide"): "width: 'wide' is not allowed; it must be a whole number",
    (
        "flux/txt2img",
        "prompt=x",
        "model=nope",
    ): "model: 'nope' is not allowed; use one of 'Qubico/flux1-schnell'",
    (
        "flux/txt2img",
        "prompt=x",
        'extra:={"prompt": 1}',
    ): "extra: prompt is not allowed; there is a field of that name",
    ("flux/txt2im", "prompt=x"): "'flux/txt2im' is not allowed; did you mean flux/txt2img",
    ("nope",): "'nope' is not allowed; use one of imagine",
    ("nope:", "prompt=x"): "task_type: '' is not allowed",
    (":nope", "prompt=x"): "model: '' is not allowed",
    ("kling:video_generation", "image_url=@nope.png"): "nope.png: no such file (@ begins a file to upload",
    ("kling:video_generation", "image_url=@"): "no such file",
    ("flux/txt2img", "prompt=x", "--key", "k"): "--key needs --ledger FILE",
    ("flux/txt2img", "prompt=x", "--key", " ", "--ledger", "run.db"): "key: ' ' is not allowed",
}


@pytest.mark.parametrize(("words", "says"), WRONG.items(), ids=" ".join)
def test_what_is_wrong_is_said_in_one_sentence_and_costs_nothing(
    words: tuple[str, ...], says: str, host: Host
) -> None:
    result = run(host, "run", *words)

    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not host[0].seen.requests


def test_a_file_that_the_host_would_refuse_costs_nothing(host: Host) -> None:
    result = run(host, "run", "kling:video_generation", "image_url=@cat.gif")

    assert result.exit_code != 0
    assert "cat.gif' is not allowed; it must end in one of" in result.stderr
    assert "nothing was paid" in result.stderr
    assert creates(host) == 0


def test_the_hosts_own_refusals_failures_and_silences_have_their_exit_codes(host: Host) -> None:
    emulator = host[0]
    emulator._host.view = evolve(emulator._host.view, dialect=Dialect(history=False))
    words = ("run", "flux/txt2img", "prompt=a cat", "--ledger", "run.db", "--key")
    assert run(host, *words[:2], "prompt=gore").exit_code == 3
    emulator.fail("create", TaskFails("no luck"))
    failed = run(host, *words, "a")
    emulator.fail("create", Drop(after_body=True))
    unknown = run(host, *words, "b")
    again = run(host, *words, "b")
    emulator.fail("file", Status(410), times=None)
    unsaved = run(host, *words, "c", "--download", "out")

    assert (failed.exit_code, unknown.exit_code, again.exit_code, unsaved.exit_code) == (4, 6, 6, 8)
    assert "no luck" in failed.stderr
    assert f"ledger resolve {Path.cwd() / 'run.db'} b" in unknown.stderr
    assert creates(host) == 4
    assert "--family unified" in unsaved.stderr  # how to try again


def test_a_key_makes_one_task_however_often_it_is_run_though_its_file_is_gone(host: Host) -> None:
    words = ("run", "kling:video_generation", "image_url=@cat.png", "--ledger", "run.db", "--key", "k")
    first = run(host, *words)
    Path("cat.png").unlink()
    second = run(host, *words)

    assert [json.loads(result.stdout)["state"] for result in (first, second)] == ["done"] * 2
    assert json.loads(first.stdout)["task_id"] == json.loads(second.stdout)["task_id"]
    assert creates(host) == 1


def test_a_key_of_another_request_is_said_once_to_have_cost_nothing(host: Host) -> None:
    words = ("run", "flux/txt2img", "--ledger", "run.db", "--key", "k", "--no-wait")
    assert run(host, *words, "prompt=a cat").exit_code == 0
    other = run(host, *words, "prompt=a dog")

    assert other.exit_code == 2
    assert " ".join(other.stderr.split()).count("Nothing was sent, nothing was paid.") == 1
    assert creates(host) == 1


# -- the tasks afterwards -----------------------------------------------------------------------------------------


def test_a_task_is_found_again_by_its_family(host: Host) -> None:
    task_id = run(host, "run", "flux/txt2img", "prompt=a cat", "--no-wait").stdout.strip()
    family = ("--family", "unified")
    waited = run(host, "wait", task_id, *family, "--download", "out")
    fetched = run(host, "fetch", task_id, *family)
    saved = run(host, "download", task_id, "again", *family)

    assert [json.loads(result.stdout)["state"] for result in (waited, fetched, saved)] == ["done"] * 3
    assert Path("out", f"{task_id}.png").read_bytes() == Path("again", f"{task_id}.png").read_bytes()
    assert run(host, "fetch", task_id).exit_code == 3  # a legacy host knows it not
    refused = run(host, "cancel", task_id, "nope", *family)
    assert refused.exit_code == 3
    assert "already started" in refused.stderr
    assert run(host, "fetch", task_id, "--family", "nope").exit_code == 2


def test_a_task_that_waits_is_cancelled_by_its_family() -> None:
    with threaded_emulator(concurrency=1, durations=1000.0) as (emulator, base_url):
        host = emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}
        ids = [run(host, "run", "flux/txt2img", "prompt=a cat", "--no-wait").stdout.strip() for _ in range(3)]
        late = run(host, "wait", ids[0], "--family", "unified", "--timeout", "0.05")
        assert late.exit_code == 5
        assert f"wait {ids[0]} --family unified" in late.stderr
        assert run(host, "cancel", *ids[1:], "--family", "unified").exit_code == 0
        assert run(host, "wait", ids[1], "--family", "unified").exit_code == 4


# -- models, upload, account --------------------------------------------------------------------------------------


def test_models_are_listed_and_searched(host: Host) -> None:
    rows = [json.loads(line) for line in run(host, "models").stdout.splitlines()]
    found = [
        json.loads(line)["name"]
        for line in run(host, "models", "--search", "FLUX1-schnell").stdout.splitlines()
    ]
    nothing = run(host, "models", "--search", "n o p e")

    assert {row["name"] for row in rows} == catalog().keys() | LEGNEXT.keys()
    assert next(row for row in rows if row["name"] == "flux/txt2img")["inputs"][0] == "prompt*"
    assert "flux/txt2img" in found
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "No model has 'n o p e'" in nothing.stderr
    assert not host[0].seen.requests


def test_an_upload_prints_its_url(host: Host) -> None:
    result = run(host, "upload", "cat.png")
    named = run(host, "upload", "cat.gif", "--name", "cat.jpg")

    assert result.stdout.startswith(f"{host[1]['PIAPI_BASE_URL']}/ephemeral/")
    assert named.stdout.strip().endswith(".jpg")
    for words, code, says in (
        (("cat.gif",), 2, "must end in one of"),
        (("nope.png",), 2, "does not exist"),
        ((".",), 2, "is a directory"),
    ):
        wrong = run(host, "upload", *words)
        assert (wrong.exit_code, says in wrong.stderr) == (code, True)
    host[0].fail("upload", Status(403, body={"code": 403, "message": "Insufficient plan level"}))
    refused = run(host, "upload", "cat.png")
    assert (refused.exit_code, "Insufficient plan level" in refused.stderr) == (3, True)


def test_the_account_is_printed_with_what_is_active(host: Host) -> None:
    run(host, "run", "flux/txt2img", "prompt=a cat", "--no-wait")
    result = run(host, "account")

    told = json.loads(result.stdout)
    assert told["account"]["name"] == "emulator"
    assert set(told["active_tasks"]) <= {"Qubico/flux1-schnell"}
    assert "plan pro-hya" in result.stderr
    assert "emulator-key" not in result.stdout + result.stderr


# -- batches ------------------------------------------------------------------------------------------------------


def batch(host: Host, *words: str) -> tuple[Result, list[dict[str, Any]]]:
    result = run(host, "batch", *words)
    out = Path("out.jsonl")
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else []
    return result, sorted(rows, key=lambda row: int(row["line"]))


def test_lines_of_both_families_make_one_batch(host: Host) -> None:
    lines: list[dict[str, Any]] = [
        {"verb": "flux/txt2img", "prompt": "a cat", "width": 512, "key": "mine"},
        {"verb": "reroll", "origin_task_id": "p"},
        {"verb": "flux/txt2img-lora", "prompt": "a dog", "lora_settings": [{"lora_type": "mjv6"}]},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="ascii")
    words = ("in.jsonl", "--out", "out.jsonl", "--ledger", "run.db", "--download", "pictures")
    dry, _ = batch(host, *words, "--dry-run")
    assert dry.exit_code == 0
    assert not host[0].seen.requests
    result, rows = batch(host, *words)
    again, _ = batch(host, *words)

    assert (result.exit_code, again.exit_code) == (0, 0), result.stderr
    assert [row["state"] for row in rows] == ["done"] * 3
    saved = [[file for file in row["files"] if file["saved_as"]] for row in rows]
    assert [len(files) for files in saved] == [1, 4, 1]
    assert rows[0]["key"] == "mine"
    assert (creates(host), host[0].seen.requests["reroll"]) == (2, 1)


def test_csv_cells_become_what_their_fields_are(host: Host) -> None:
    Path("in.csv").write_text(
        "verb,prompt,width,guidance_scale,origin_task_id\nflux/txt2img,a cat,512,3.5,\nreroll,,,,p\n",
        encoding="ascii",
    )
    result, rows = batch(host, "in.csv", "--out", "out.jsonl", "--ledger", "run.db")

    assert result.exit_code == 0, result.stderr
    assert [row["state"] for row in rows] == ["done"] * 2
    assert {"prompt": "a cat", "width": 512, "guidance_scale": 3.5} in made(host)


def test_lines_that_are_wrong_are_all_told_before_anything_is_sent(host: Host) -> None:
    lines: list[dict[str, Any]] = [
        {"verb": "flux/txt2img", "prompt": "a cat"},
        {"verb": "flux/txt2im", "prompt": "a cat"},
        {"verb": "flux/txt2img"},
        {"verb": "flux/txt2img", "prompt": "a cat", "width": "512"},
        {"verb": "flux/txt2img", "prompt": "a cat", "wdith": 512},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="ascii")
    result, _ = batch(host, "in.jsonl", "--out", "out.jsonl")

    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    for line, text in (
        (2, "did you mean flux/txt2img"),
        (3, "prompt: missing"),
        (4, "width"),
        (5, "mean width?"),
    ):
        assert f"line {line}: " in said
        assert text in said
    assert not host[0].seen.requests


def video(file: str, **more: Any) -> dict[str, Any]:
    return {"verb": "kling/video_generation", "prompt": "it yawns", "image_url": f"@{file}", **more}


@pytest.mark.parametrize(
    "more", [(), ("--dry-run",), ("--ledger", "run.db"), ("--ledger", "run.db", "--dry-run")]
)
def test_a_line_whose_file_is_not_there_is_told_before_anything_is_sent(
    more: tuple[str, ...], host: Host
) -> None:
    Path("in.jsonl").write_text(
        "\n".join(map(json.dumps, [video("cat.png"), video("nowhere.png")])), encoding="ascii"
    )
    result, _ = batch(host, "in.jsonl", *more)

    assert result.exit_code == 2
    assert "line 2: nowhere.png: no such file" in result.stderr
    assert "1 of 2 lines are wrong; nothing was submitted" in " ".join(result.stderr.split())
    assert not host[0].seen.requests


def test_what_was_submitted_needs_its_file_no_more_and_what_was_not_does(host: Host) -> None:
    words = ("in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")
    lines = [video("cat.png"), video("cat.png", key="mine")]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="ascii")
    assert batch(host, *words)[0].exit_code == 0
    Path("cat.png").unlink()
    Path("out.jsonl").unlink()
    resumed, rows = batch(host, *words)
    lines += [video("cat.png"), video("cat.png", key="new"), {"verb": "reroll", "origin_task_id": "p"}]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="ascii")
    refused, _ = batch(host, *words)
    skipped, after = batch(host, *words, "--skip-invalid")

    assert (resumed.exit_code, [row["resumed"] for row in rows]) == (0, [True, True]), resumed.stderr
    assert refused.exit_code == 2
    assert [f"line {number}: cat.png" in refused.stderr for number in range(1, 6)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert (skipped.exit_code, [row["line"] for row in after]) == (0, [1, 2, 5]), skipped.stderr
    assert creates(host) == 2
