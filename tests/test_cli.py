from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from click.testing import CliRunner, Result
from support.processes import Child, ended, started, wait_until
from support.threaded_emulator import Hold, threaded_emulator

from piapi_async import (
    ClientClosed,
    DownloadError,
    Imagine,
    InvalidRequestError,
    PiAPIError,
    SubmissionUnknown,
    TransportError,
    UnexpectedAnswer,
    WaitTimeout,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.cli._exit import exit_code
from piapi_async.cli._verbs import VERBS
from piapi_async.emulator import Drop, Emulator, Status
from piapi_async.tasks import Created, TaskId

KEY = "emulator-key"
PARENT = "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10"


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, words, env=environment)


STORM = pytest.mark.storm


@pytest.fixture
def poll_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the embedded emulator of a command run so fast that a task takes a tenth of a second."""
    monkeypatch.setattr(setup, "EMULATOR_SPEED", 500.0)


@pytest.fixture
def host() -> Iterator[tuple[Emulator, dict[str, str]]]:
    """Give an emulator on its own, and the environment in which commands use it."""
    with threaded_emulator() as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": KEY}


# -- the main job ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("poll_now")
@pytest.mark.parametrize(
    "words", [("--emulator", "reroll", PARENT), pytest.param(("reroll", PARENT, "--emulator"), marks=STORM)]
)
def test_a_reroll_on_the_embedded_emulator_saves_four_pictures(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    result = run(*words, "--prompt", "a cute cat", "--download", str(tmp_path))

    assert result.exit_code == 0
    task = json.loads(result.stdout)
    assert task["state"] == "done"
    assert len(task["images"]) == 4
    saved = [file["saved_as"] for file in task["files"] if file["saved_as"]]  # the whole grid is a copy
    assert saved == [str(tmp_path / f"{task['task_id']}-{number}.png") for number in (1, 2, 3, 4)]
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in saved)
    assert f"submitted {task['task_id']}" in result.stderr
    assert f"{task['task_id']} finished 100 %" in result.stderr


MORE: dict[str, tuple[str, ...]] = {
    "imagine": (
        "a cat",
        "--process-mode",
        "turbo",
        "--aspect-ratio",
        "4:3",
        "--skip-prompt-check",
        "--bot-id",
        "3",
    ),
    "reroll": (PARENT, "--no-skip-prompt-check"),
    "upscale": (PARENT, "--index", "2"),
    "variation": (PARENT, "--index", "3", "--prompt", "a dog"),
    "inpaint": (PARENT, "--mask", "aGVsbG8="),
    "outpaint": (PARENT, "--zoom-ratio", "1.5"),
    "pan": (PARENT, "--direction", "left"),
    "describe": ("https://example.org/cat.png",),
    "blend": ("https://example.org/a.png", "https://example.org/b.png", "--dimension", "square"),
    "seed": (PARENT,),
}


def test_every_verb_is_a_command() -> None:
    assert VERBS.keys() == MORE.keys()


@pytest.mark.parametrize("verb", MORE)
def test_a_verb_is_submitted_and_only_its_id_is_printed(
    verb: str, host: tuple[Emulator, dict[str, str]]
) -> None:
    emulator, environment = host

    result = run(verb, *MORE[verb], "--no-wait", **environment)

    assert result.exit_code == 0
    assert emulator.task(result.stdout.strip()) is not None
    assert emulator.seen.requests[verb] == 1


def test_a_mask_is_read_from_a_file(host: tuple[Emulator, dict[str, str]], tmp_path: Path) -> None:
    _, environment = host
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    assert (
        run("inpaint", PARENT, "--mask", f"@{tmp_path}/mask.png", "--no-wait", **environment).exit_code == 0
    )
    refused = run("inpaint", PARENT, "--mask", "@nowhere.png", "--no-wait", **environment)
    assert refused.exit_code == 2
    assert "nowhere.png: No such file" in refused.stderr


# -- about tasks ----------------------------------------------------------------------------------------------------


def submit(environment: dict[str, str], *words: str) -> str:
    return run("imagine", "a cat", "--no-wait", *words, **environment).stdout.strip()


def test_fetch_prints_tasks_as_they_are(host: tuple[Emulator, dict[str, str]]) -> None:
    _, environment = host
    ids = [submit(environment), submit(environment)]

    result = run("fetch", *ids, **environment)

    assert result.exit_code == 0
    assert [json.loads(line)["task_id"] for line in result.stdout.splitlines()] == ids


def test_wait_prints_every_task_and_fails_if_one_has_failed(host: tuple[Emulator, dict[str, str]]) -> None:
    emulator, environment = host
    good, bad = submit(environment), submit(environment)
    emulator.end(bad, error="banned")
    failed = run("wait", good, bad, **environment)

    assert failed.exit_code == (4 if emulator.task(bad) and "failed" in failed.output else 0)
    assert json.loads(failed.stdout.splitlines()[0])["task_id"] == good


def test_download_saves_a_finished_task(host: tuple[Emulator, dict[str, str]], tmp_path: Path) -> None:
    _, environment = host
    task_id = submit(environment)
    run("wait", task_id, **environment)

    result = run("download", task_id, str(tmp_path / "here"), **environment)

    assert result.exit_code == 0
    saved = [file["saved_as"] for file in json.loads(result.stdout)["files"] if file["saved_as"]]
    assert saved == sorted(str(path) for path in (tmp_path / "here").iterdir())


def test_cancel_says_that_the_outcome_is_still_open() -> None:
    with threaded_emulator(durations=1000.0, concurrency=1) as (_, base_url):
        environment = {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": KEY}
        submit(environment)
        staged = submit(environment)

        result = run("cancel", staged, **environment)
        ended = run("wait", staged, **environment)

    assert result.exit_code == 0
    assert "`wait` shows the outcome" in result.stderr
    assert ended.exit_code == 4
    assert f"Task {staged} was cancelled" in ended.stderr


# -- exit codes -----------------------------------------------------------------------------------------------------


def test_a_failed_task_is_exit_code_4() -> None:
    with threaded_emulator(failure_rate=1.0) as (_, base_url):
        environment = {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": KEY}
        result = run("wait", submit(environment), **environment)

    assert result.exit_code == 4
    assert " failed: " in result.stderr


def test_a_refusal_is_exit_code_3_and_says_that_nothing_was_paid(
    host: tuple[Emulator, dict[str, str]],
) -> None:
    _, environment = host

    result = run("reroll", PARENT, **environment | {"PIAPI_API_KEY": "wrong"})

    assert result.exit_code == 3
    assert "No task was made, nothing was paid" in result.stderr
    assert "wrong" not in result.output


def test_a_time_out_is_exit_code_5_and_prints_the_command_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the directory for pictures is made
    with threaded_emulator(durations=1000.0) as (_, base_url):
        environment = {"PIAPI_API_KEY": KEY}
        result = run(
            "--base-url",
            base_url,
            "reroll",
            PARENT,
            "--timeout",
            "0",
            "--download",
            "my pictures",
            **environment,
        )
        task_id = re.findall(r"submitted (\S+)", result.stderr)[0]

    assert result.exit_code == 5
    assert f"piapi-async --base-url {base_url} wait {task_id} --download 'my pictures'" in result.stderr
    assert f"Error: Timed out waiting for task {task_id}; it was last seen " in result.stderr
    assert "again" not in result.stderr


def test_waits_for_several_tasks_that_time_out_speak_the_shells_language(
    host: tuple[Emulator, dict[str, str]],
) -> None:
    emulator, environment = host
    emulator.fail("read", Status(500), times=None)

    result = run("wait", "one", "two", "--timeout", "0", **environment)

    assert result.exit_code == 5
    for task_id in ("one", "two"):
        said = f"Timed out waiting for task {task_id}; no response told its status. The last poll failed: "
        assert f"Error: {said}" in result.stderr
    assert "attach" not in result.stderr


def test_an_unknown_submit_is_exit_code_6_and_never_advises_to_repeat(
    host: tuple[Emulator, dict[str, str]],
) -> None:
    emulator, environment = host
    emulator.fail("reroll", Drop(after_body=True))

    result = run("reroll", PARENT, **environment)

    assert result.exit_code == 6
    assert "a task may exist and may have been paid for" in result.stderr
    assert "try again" not in result.stderr.lower()
    assert emulator.seen.requests["reroll"] == 1


def test_pictures_that_cannot_be_saved_are_exit_code_8(tmp_path: Path) -> None:
    with threaded_emulator(links_expire_after=0.0, expired_status=410) as (_, base_url):
        environment = {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": KEY}
        task_id = submit(environment)
        result = run("wait", task_id, "--download", str(tmp_path), **environment)

    assert result.exit_code == 8
    assert json.loads(result.stdout)["images"]
    assert "expired" in result.stderr
    assert f"piapi-async wait {task_id}" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SubmissionUnknown("", request=None, at=0.0), 6),  # type: ignore[arg-type] # the code does not look at it
        (WaitTimeout(""), 5),
        (InvalidRequestError("", status=400), 3),
        (DownloadError(""), 8),
        (TransportError("", sent=False), 7),
        (UnexpectedAnswer(""), 7),
        (ClientClosed(""), 1),
    ],
)
def test_every_error_has_its_exit_code(error: PiAPIError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reroll", PARENT), "PIAPI_API_KEY"),
        (("reroll",), "ORIGIN_TASK_ID"),
        (("reroll", "  ", "--emulator"), "Reroll.origin_task_id"),
        (("upscale", PARENT, "--emulator", "--index", "7"), "Upscale.index: '7'"),
        (("upscale", PARENT, "--emulator"), "--index"),
        (("--emulator", "reroll", PARENT, "--base-url", "http://127.0.0.1:1"), "exclude each other"),
        (("reroll", PARENT, "--key", "one"), "--key needs --ledger"),
        (("reroll", PARENT, "--api-key-file", "/nowhere"), "/nowhere"),
        (("emulator", "--plan", "gold"), "unknown plan"),
        (("emulator", "--dialect", "multi_fetch=no"), "multi_fetch is true or false"),
        (("emulator", "--dialect", "what"), "NAME=VALUE"),
        (("emulator", "--dialect", "multi_fetch_max=many"), "is like 20"),
        (("emulator", "--host", "192.0.2.1", "--port", "0"), "cannot listen"),
        (("emulator", "--port", "0", "--state", __file__), "not an emulator's state file"),
        (("emulator", "--port", "0", "--state", f"{__file__}/s.json"), "is not a directory; make it first"),
        (("ledger", "resolve", "pyproject.toml", "k"), "give either --task-id"),
    ],
)
def test_a_usage_error_is_exit_code_2_and_names_what_is_wrong(words: tuple[str, ...], said: str) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert said in result.stderr


def test_a_damaged_state_of_the_embedded_emulator_is_named(tmp_path: Path) -> None:
    state = tmp_path / "run.db-emulator.json"
    state.write_text('{"version": 1, "tasks": [{}]}')
    result = run("--emulator", "--ledger", str(tmp_path / "run.db"), "reroll", PARENT)

    assert result.exit_code == 2
    assert f"{state} is not an emulator's state file, or is damaged: task 1: " in " ".join(
        result.stderr.split()
    )


def test_a_host_that_would_see_the_key_in_the_clear_is_refused() -> None:
    result = run("reroll", PARENT, "--base-url", "http://example.org", PIAPI_API_KEY=KEY)

    assert result.exit_code == 2
    assert "plain http" in result.stderr
    assert "allow_insecure" not in result.stderr


def test_a_directory_that_cannot_be_used_is_told_before_anything_is_paid(
    host: tuple[Emulator, dict[str, str]],
) -> None:
    emulator, environment = host

    result = run("imagine", "a cat", "--download", "/dev/null", **environment)

    assert result.exit_code == 2
    assert "/dev/null is not a directory. Nothing was submitted." in result.stderr
    assert not emulator.seen.requests


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1"])
def test_a_time_out_that_is_none_is_told_before_anything_is_paid(
    timeout: str, host: tuple[Emulator, dict[str, str]]
) -> None:
    emulator, environment = host

    result = run("imagine", "a cat", "--timeout", timeout, **environment)

    assert result.exit_code == 2
    assert not emulator.seen.requests


def test_the_key_may_stand_in_a_file_and_is_never_shown(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    _, environment = host
    (tmp_path / "key").write_text(f"{KEY}\n")
    del environment["PIAPI_API_KEY"]

    result = run(
        "imagine", "a cat", "--no-wait", "-v", "--api-key-file", str(tmp_path / "key"), **environment
    )

    assert result.exit_code == 0
    assert KEY not in result.output


def test_one_is_told_why_it_takes_long(host: tuple[Emulator, dict[str, str]]) -> None:
    emulator, environment = host
    emulator.fail("imagine", Status(429))

    result = run("imagine", "a cat", "--no-wait", **environment)

    assert result.exit_code == 0
    assert "trying again" in result.stderr


# -- ledger ---------------------------------------------------------------------------------------------------------


def test_a_key_and_a_ledger_make_a_command_repeatable(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    emulator, environment = host
    words = ("--ledger", str(tmp_path / "run.db"), "--key", "order 17")

    assert submit(environment, *words) == submit(environment, *words)
    assert emulator.seen.requests["imagine"] == 1


def test_a_key_whose_task_has_ended_gives_what_the_ledger_has_though_the_host_has_forgotten_it(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    emulator, environment = host
    words = ("imagine", "a cat", "--ledger", str(tmp_path / "run.db"), "--key", "order 17")
    first = run(*words, **environment)
    emulator.engine.tasks.clear()
    again = run(*words, **environment)

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout == again.stdout
    task_id = json.loads(first.stdout)["task_id"]
    assert f"submitted {task_id}" in first.stderr
    assert f"submitted earlier, under this key: {task_id}" in again.stderr
    assert "goes on" not in again.stderr


def test_a_picture_that_was_edited_is_not_overwritten(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    words = ("--download", str(tmp_path))
    task_id = json.loads(run("imagine", "a cat", *words, **host[1]).stdout)["task_id"]
    picture = next(tmp_path.glob(f"{task_id}*"))
    picture.write_bytes(b"edited")
    again = run("wait", task_id, *words, **host[1])

    assert (again.exit_code, picture.read_bytes()) == (0, b"edited")


def test_an_unknown_submit_is_shown_and_resolved(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    emulator, environment = host
    file = str(tmp_path / "run.db")
    emulator.fail("imagine", Drop(after_body=True))
    unknown = run("imagine", "a cat", "--ledger", file, "--key", "order 17", **environment)
    shown = run("ledger", "show", file, "--state", "unknown")
    mistyped = run("ledger", "resolve", file, "order 17", "--task-id", "abd")
    twice = run("ledger", "resolve", file, "order 17", "--task-id", "abd")
    resolved = run("ledger", "resolve", file, "order 17", "--task-id", "abc")
    again = run("ledger", "resolve", file, "order 17", "--resubmit")

    assert unknown.exit_code == 6
    assert f"piapi-async ledger resolve {file} 'order 17'" in unknown.stderr
    assert json.loads(shown.stdout)["key"] == "order 17"
    assert (mistyped.exit_code, twice.exit_code, resolved.exit_code) == (0, 0, 0)
    assert again.exit_code == 1
    assert "is accepted, not unknown" in again.stderr
    assert submit(environment, "--ledger", file, "--key", "order 17") == "abc"


# -- as a process ---------------------------------------------------------------------------------------------------


def start(*words: str, **environment: str) -> AbstractContextManager[Child]:
    return started(sys.executable, "-m", "piapi_async", *words, env={**os.environ, **environment})


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.storm)])
def test_an_interrupted_wait_prints_the_id_and_how_to_resume(kind: signal.Signals) -> None:
    with (
        threaded_emulator(durations=1e6) as (_, base_url),
        start("imagine", "a cat", PIAPI_BASE_URL=base_url, PIAPI_API_KEY=KEY) as process,
    ):
        task_id = process.says(r"^submitted (\S+)")[1]
        process.signal(kind)
        code = process.finish()

    assert code == 130
    assert f"piapi-async wait {task_id}" in process.said
    assert "Traceback" not in process.said


def test_an_interrupted_submit_still_tells_the_id() -> None:
    hold = Hold()
    with (
        threaded_emulator(durations=hold) as (emulator, base_url),
        start("imagine", "a cat", PIAPI_BASE_URL=base_url, PIAPI_API_KEY=KEY) as process,
    ):
        wait_until(lambda: emulator.seen.requests["imagine"])
        process.signal(signal.SIGINT)
        process.says("Ctrl-C again to give up")
        hold.let_go()
        code = process.finish()
        (task_id,) = emulator.engine.tasks

    assert code == 130
    assert f"Task {task_id} was submitted. To wait for it: piapi-async wait {task_id}" in process.said


@pytest.mark.storm
def test_an_interrupted_submit_that_is_given_up_says_that_a_task_may_exist(tmp_path: Path) -> None:
    file = str(tmp_path / "run.db")
    with (
        threaded_emulator(latency={"imagine": 1e6}) as (emulator, base_url),
        start("imagine", "a cat", "--ledger", file, PIAPI_BASE_URL=base_url, PIAPI_API_KEY=KEY) as process,
    ):
        wait_until(lambda: emulator.seen.requests["imagine"])
        process.signal(signal.SIGINT)
        process.says("Ctrl-C again to give up")
        process.signal(signal.SIGINT)
        code = process.finish()

    assert code == 130
    assert "A task may exist and may have been paid for" in process.said
    assert f"piapi-async ledger show {file} --state unknown" in process.said
    assert "Traceback" not in process.said


@frozen
class InterruptedImagine(Imagine):
    """Its command is interrupted in the very turn in which its answer arrives."""

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        signal.raise_signal(signal.SIGINT)
        return super().parse(response)


@frozen
class UnsentImagine(Imagine):
    """Its command is interrupted before it leaves: with a ledger, before it is written down."""

    def to_http(self) -> HTTPRequest:
        signal.raise_signal(signal.SIGINT)
        return super().to_http()


def interrupt(cls: type[Imagine], environment: dict[str, str], *words: str) -> str:
    """Run the command of a request that interrupts it, and give what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VERBS, "imagine", cls)
        result = run("imagine", "a cat", *words, **environment)

    assert result.exit_code == 130
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("ledger", [False, True])
def test_a_submit_that_is_accepted_in_the_turn_of_the_interrupt_tells_the_id(
    ledger: bool,  # noqa: FBT001 - a parameter of the test
    host: tuple[Emulator, dict[str, str]],
    tmp_path: Path,
) -> None:
    words = ("--ledger", str(tmp_path / "run.db")) if ledger else ()
    said = interrupt(InterruptedImagine, host[1], *words)

    (task_id,) = host[0].engine.tasks
    assert f"Task {task_id} was submitted. To wait for it: piapi-async " in said
    assert f"wait {task_id}" in said
    assert "Nothing was sent" not in said


def test_a_submit_that_is_refused_in_the_turn_of_the_interrupt_tells_why(
    host: tuple[Emulator, dict[str, str]],
) -> None:
    host[0].fail("imagine", Status(200, body={"status": "failed", "message": "no cats"}))
    said = interrupt(InterruptedImagine, host[1])

    assert "no cats" in said
    assert "No task was made, nothing was paid." in said


def test_a_submit_that_is_interrupted_before_it_leaves_is_not_sent(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    said = interrupt(UnsentImagine, host[1], "--ledger", str(tmp_path / "run.db"))

    assert "Nothing was sent, nothing was paid." in said
    assert not host[0].seen.requests


def test_a_submit_that_is_put_off_is_not_sent_again_after_an_interrupt(
    host: tuple[Emulator, dict[str, str]],
) -> None:
    host[0].fail("imagine", Status(200, body={"code": 429, "message": "slow down"}, retry_after=0.5))
    said = interrupt(InterruptedImagine, host[1])

    assert "429" in said
    assert host[0].seen.requests["imagine"] == 1
    assert not host[0].engine.tasks


def test_the_emulator_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text('[[fault]]\nroute = "imagine"\nkind = "status"\nstatus = 400\n')
    words = ("--port", "0", "--faults", str(faults), "--state", str(tmp_path / "state.json"), "--key", "mine")
    with start(
        "emulator", *words, "--dialect", "multi_fetch=false", "--dialect", "multi_fetch_max=5"
    ) as process:
        names = ("PIAPI_BASE_URL", "PIAPI_API_KEY")
        environment: dict[str, Any] = {name: process.says(rf"{name}=(\S+)")[1] for name in names}
        refused = run("imagine", "a cat", "--no-wait", **environment)
        accepted = run("imagine", "a cat", "--no-wait", **environment)
        process.signal(signal.SIGTERM)
        process.finish()

    assert environment["PIAPI_API_KEY"] == "mine"
    assert refused.exit_code == 3
    assert accepted.stdout.strip() in (tmp_path / "state.json").read_text()


def test_without_its_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from piapi_async.__main__ import main; main()"
    done = ended(sys.executable, "-c", code)

    assert done.code == 1
    assert "pip install 'piapi_async[cli]'" in done.said


def test_without_its_extra_the_emulator_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    result = run("--emulator", "reroll", PARENT)

    assert result.exit_code == 2
    assert "pip install 'piapi_async[emulator]'" in result.stderr
