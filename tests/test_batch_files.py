"""`piapi-async batch`: what it makes of people's files, what it says of them, and what an outcome's row holds."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.cli._batch import _results
from piapi_async.emulator import Emulator, Status
from piapi_async.ledger._sqlite import lock_file

Host = tuple[Emulator, dict[str, str]]


@pytest.fixture(scope="module")
def service() -> Iterator[Host]:
    with threaded_emulator(queue=1000) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


@pytest.fixture
def host(service: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give an emulator that has seen nothing yet, and run in a directory of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    service[0].engine.tasks.clear()
    service[0].seen.requests.clear()
    return service


def run(host: Host, *words: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, ["batch", *words], env=host[1], **options)


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return sorted((json.loads(line) for line in result.stdout.splitlines()), key=lambda row: int(row["line"]))


def csv(text: str, encoding: str = "utf-8") -> str:
    Path("in.csv").write_bytes(text.encode(encoding))
    return "in.csv"


def flat(result: Result) -> str:
    return " ".join(result.stderr.split())


# -- what an outcome's row holds ------------------------------------------------------------------------------------


def test_a_row_is_what_a_single_command_prints_and_whose_it_is(host: Host) -> None:
    name = csv("verb,origin_task_id,prompt,campaign,webhook_endpoint,webhook_secret\n"
               "reroll,p1,a cat,spring,https://example.org/,hush-hush\n")  # fmt: skip
    [row] = rows(run(host, name, "--download", "out"))
    single = CliRunner().invoke(cli, ["fetch", row["task_id"]], env=host[1])
    printed = json.loads(single.stdout)

    for name in ("task_id", "status", "state", "progress", "images", "result", "cost"):
        assert row[name] == printed[name], name
    assert row["cost"] == {"amount": 3, "unit": "quota"}
    assert [{**file, "saved_as": None} for file in row["files"]] == printed["files"]
    assert {(file["kind"], file["role"]) for file in row["files"]} == {("image", "result"), ("image", "copy")}
    assert all(Path(file["saved_as"]).is_file() for file in row["files"] if file["role"] == "result")
    assert row["request"] == {"verb": "reroll", "origin_task_id": "p1", "prompt": "a cat",
                              "webhook_endpoint": "https://example.org/", "webhook_secret": ""}  # fmt: skip
    assert row["extra"] == {"campaign": "spring"}
    assert row["line"] == 2


def test_results_that_are_words_and_sounds_are_in_their_rows(host: Host) -> None:
    lines = [{"verb": "describe", "image_url": "https://example.org/a.png"}, {"verb": "seed", "origin_task_id": "p"},
             {"verb": "udio/generate_music", "prompt": "a song", "lyrics_type": "generate"}]  # fmt: skip
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), "ascii")
    described, seeded, song = rows(run(host, "in.jsonl"))

    assert described["result"]["message"]
    assert seeded["result"]["seed"]
    assert {file["kind"] for file in song["files"]} >= {"audio"}
    assert song["cost"]["amount"] > 0


def test_a_row_without_a_task_has_all_the_same_names(host: Host) -> None:
    host[0].fail("reroll", Status(400))
    name = csv("verb,origin_task_id\nreroll,p1\nreroll,p2\n")
    result = run(host, name, "--concurrency", "1")
    one, other = (json.loads(line) for line in result.stdout.splitlines())

    assert one.keys() == other.keys()
    assert (one["state"], one["result"], one["files"], one["cost"]) == (None, None, [], None)


def test_a_long_value_is_cut_short_in_its_row(host: Host) -> None:
    host[0].adopt("single", kind="single")
    line = {
        "verb": "inpaint",
        "origin_task_id": "single",
        "mask": "QUFB" * 10_000,
        "note": {"api_key": "hush", "n": [1]},
    }
    Path("in.jsonl").write_text(json.dumps(line), "ascii")
    [row] = rows(run(host, "in.jsonl"))

    assert row["request"]["mask"].endswith("… (40000 characters)")
    assert row["extra"] == {"note": {"api_key": "", "n": [1]}}


# -- columns that are no fields --------------------------------------------------------------------------------------


def test_columns_that_are_no_fields_are_carried_along_and_named_once(host: Host) -> None:
    name = csv("verb,prompt,id,Campaign\nimagine,a cat,7,spring\nimagine,a dog,8,\n")
    result = run(host, name)

    assert [row["extra"] for row in rows(result)] == [{"id": "7", "Campaign": "spring"}, {"id": "8"}]
    assert result.stderr.count("carried along under `extra`: id, Campaign") == 1
    assert [row["extra"] for row in rows(run(host, name, "--ignore-extra"))] == [{}, {}]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("promt", "promt: reroll takes only"),
        ("image", "image: reroll takes only"),
        ("index", "index: reroll takes"),
    ],
)
def test_a_column_that_may_be_meant_as_a_field_is_refused(column: str, said: str, host: Host) -> None:
    verb = {"image": "describe,https://example.org/a.png", "index": "reroll,p", "promt": "reroll,p"}[column]
    field = "image_url" if column == "image" else "origin_task_id"
    name = csv(f"verb,{field},{column}\n{verb},1\n")
    result = run(host, name)

    assert result.exit_code == 2
    assert said.replace("reroll", verb.split(",")[0]) in flat(result)
    assert "--ignore-extra drops columns that are not fields" in flat(result)
    assert not host[0].seen.requests
    assert run(host, name, "--ignore-extra").exit_code == 0


# -- values as spreadsheets write them -------------------------------------------------------------------------------


def test_numbers_and_flags_are_read_as_spreadsheets_write_them(host: Host) -> None:
    name = csv("Verb;Prompt;width;guidance_scale;origin_task_id;index;skip_prompt_check\r\n"
               "flux/txt2img;a cat;512.0;3,5;;;\r\nUpscale;;;;p;2.0;\r\nreroll;;;;p;;WAHR\r\n")  # fmt: skip
    refused = run(host, name)
    assert refused.exit_code == 2
    assert "line 4" in refused.stderr
    assert "'WAHR' is not allowed" in flat(refused)

    Path(name).write_text(Path(name).read_text("utf-8").replace("WAHR", "1"), "utf-8")
    assert len(rows(run(host, name))) == 3
    assert dict(next(iter(host[0].engine.tasks.values())).input)["width"] == 512
    assert {"prompt": "a cat", "width": 512, "guidance_scale": 3.5} in [
        dict(task.input) for task in host[0].engine.tasks.values()
    ]


def test_json_may_say_5_0_for_a_whole_number(host: Host) -> None:
    Path("in.json").write_text(
        json.dumps([{"verb": "flux/txt2img", "prompt": "a cat", "width": 512.0}]), "ascii"
    )
    [row] = rows(run(host, "in.json"))

    assert row["request"]["width"] == 512


# -- a verb for all ---------------------------------------------------------------------------------------------------


def test_a_verb_may_be_said_for_all_lines(host: Host) -> None:
    name = csv("prompt\na cat\na dog\n")
    without = run(host, name)
    assert without.exit_code == 2
    assert without.stderr.count("no column `verb`") == 1
    assert "--verb imagine" in flat(without)
    assert not host[0].seen.requests

    assert [row["request"]["prompt"] for row in rows(run(host, name, "--verb", "imagine"))] == [
        "a cat",
        "a dog",
    ]
    wrong = run(host, name, "--verb", "imagin")
    assert wrong.exit_code == 2
    assert "did you mean imagine" in flat(wrong)


def test_json_lines_without_a_verb_are_told_once(host: Host) -> None:
    Path("in.jsonl").write_text("".join(f'{{"prompt": "cat {n}"}}\n' for n in range(50)), "ascii")
    result = run(host, "in.jsonl")

    assert result.stderr.count("--verb imagine") == 1
    assert "50 of 50 lines are wrong" in flat(result)


# -- the file as a whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("verb,prompt\nimagine,caf\u00e9\nimagine,\u00e9t\u00e9\n".encode("cp1252"),
         "in.csv cannot be read as requests: it is Windows-1252, not UTF-8: byte 0xe9 ('\u00e9') in line 2."),
        (b"PK\x03\x04" + bytes(99), "read_excel('in.csv')"),
        (b"PAR1" + bytes(99), "read_parquet('in.csv')"),
        (b"imagine,a cat\n", "its first line must name the columns"),
    ],
)  # fmt: skip
def test_a_file_that_is_refused_is_told_once_and_nothing_is_sent(data: bytes, said: str, host: Host) -> None:
    Path("in.csv").write_bytes(data)
    result = run(host, "in.csv")

    assert result.exit_code == 2
    assert flat(result).count(said) == 1
    assert "line 3" not in result.stderr
    assert "Nothing was submitted." in flat(result)
    assert not host[0].seen.requests


def test_lines_that_are_not_utf_8_can_be_skipped(host: Host) -> None:
    Path("in.csv").write_bytes(b"verb,prompt\nimagine,caf\xe9\nimagine,a cat\n")
    result = run(host, "in.csv", "--skip-invalid")

    assert [row["line"] for row in rows(result)] == [3]
    assert "line 2: byte 0xe9 is not UTF-8" in result.stderr


def test_a_file_that_is_wanted_is_spoken_of_as_one_types_it(host: Host) -> None:
    result = run(host, csv("verb,prompt,image_url\nkling/video_generation,x,cat.png\n"))

    assert result.exit_code == 2
    assert "pathlib" not in result.stderr
    assert "@file" in result.stderr


def test_a_file_that_changes_after_it_was_checked_is_not_submitted(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = csv("verb,prompt\nimagine,a cat\n")
    monkeypatch.setattr(setup, "PiAPI", lambda *args, **options: (csv("verb,prompt\nimagine,another\n"),
                                                                  PiAPI(*args, **options))[1])  # fmt: skip
    result = run(host, name)

    assert result.exit_code == 1
    assert "in.csv has changed since it was checked" in flat(result)
    assert not host[0].engine.tasks


# -- files beside the results -----------------------------------------------------------------------------------------


def test_the_users_own_files_beside_the_results_stay_as_they_are(host: Host) -> None:
    for name in ("o.jsonl-new", "o.jsonl-lock"):
        Path(name).write_text("precious", "ascii")
    name = csv("verb,prompt\nimagine,a cat\n")
    for _ in range(2):
        assert run(host, name, "--out", "o.jsonl", "--ledger", "run.db").exit_code == 0

    assert {Path(name).read_text("ascii") for name in ("o.jsonl-new", "o.jsonl-lock")} == {"precious"}
    assert sorted(path.name for path in Path().iterdir()) == [
        "in.csv",
        "o.jsonl",
        "o.jsonl-lock",
        "o.jsonl-new",
        "run.db",
    ]


def test_results_keep_their_mode_and_may_be_a_link(host: Host) -> None:
    name = csv("verb,prompt\nimagine,a cat\n")
    Path("real.jsonl").touch(0o640)
    Path("real.jsonl").chmod(0o640)
    Path("o.jsonl").symlink_to("real.jsonl")
    for _ in range(2):
        assert run(host, name, "--out", "o.jsonl", "--ledger", "run.db").exit_code == 0

    assert Path("o.jsonl").is_symlink()
    assert stat.S_IMODE(Path("real.jsonl").stat().st_mode) == 0o640
    assert len(Path("real.jsonl").read_text("ascii").splitlines()) == 1


def test_a_lock_on_a_file_that_is_gone_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look at the lock's file and locking it, its holder may take it away and another begin anew."""
    out = tmp_path / "o.jsonl"
    others: list[Any] = []

    def slow_lock(path: Path) -> Any:
        mine = lock_file(path)
        if not others:
            path.unlink()  # as its holder does before it lets go
            others.append(lock_file(path))
        return mine

    (tmp_path / ".o.jsonl.piapi-async-lock").touch()
    monkeypatch.setattr(_results, "lock_file", slow_lock)
    with pytest.raises(click.UsageError, match="another run is writing"), _results._locked(out, out):
        raise AssertionError("two hold it")
    others[0].close()
    with _results._locked(out, out):
        assert [path.name for path in tmp_path.iterdir()] == [".o.jsonl.piapi-async-lock"]
    assert not list(tmp_path.iterdir())


def test_a_ledger_in_a_folder_that_is_not_there_names_the_folder(host: Host) -> None:
    for words in (("batch", csv("verb,prompt\nimagine,a cat\n")), ("imagine", "a cat")):
        result = CliRunner().invoke(cli, [*words, "--ledger", "runs/today/run.db"], env=host[1])
        assert result.exit_code == 2
        assert "--ledger runs/today/run.db: there is no directory runs/today" in flat(result)
    assert not host[0].seen.requests


def test_an_account_without_credit_stops_the_run(host: Host) -> None:
    host[0].fail("reroll", Status(402, body={"message": "account credit not enough"}), times=None)
    name = csv("verb,origin_task_id\n" + "".join(f"reroll,p{number}\n" for number in range(200)))
    result = run(host, name, "--concurrency", "3")

    assert result.exit_code == 3
    assert host[0].seen.requests["reroll"] <= 6
    assert result.stderr.count("Nothing more is submitted") == 1
    host[0].fault_rules.rules.clear()


@pytest.mark.parametrize(
    ("verb", "field"), [("imagine", "prompt"), ("flux/txt2img", "prompt"), ("reroll", "origin_task_id")]
)
def test_a_file_of_prompts_is_run_with_a_verb(host: Host, verb: str, field: str) -> None:
    Path("prompts.txt").write_text("p1\n\np2\n", encoding="utf-8")
    found = rows(run(host, "prompts.txt", "--verb", verb))

    assert [(row["line"], row["request"]) for row in found] == [
        (1, {"verb": verb, field: "p1"}), (3, {"verb": verb, field: "p2"})
    ]  # fmt: skip
