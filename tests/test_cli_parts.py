"""The parts of the command line, each by itself: what stands on a terminal, and what is said when a stream fails."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
from attrs import evolve
from click.testing import CliRunner
from rich.console import Console
from support.picture_tasks import picture_task

from piapi_async import Reroll
from piapi_async.account import Account
from piapi_async.batch._outcome import Totals
from piapi_async.cli import _account, _meter, _output, cli
from piapi_async.cli._account import _summary
from piapi_async.cli._batch import _display, _results
from piapi_async.cli._batch._earlier import Keeping, _is_final
from piapi_async.cli._batch._file_format import FileRefusedError
from piapi_async.cli._batch._json_values import json_values
from piapi_async.cli._batch._lines import BadLineError, BatchInput
from piapi_async.cli._batch._results import Results
from piapi_async.cli._batch._source import Source, _copied
from piapi_async.cli._meter import Meter
from piapi_async.cli._running import explain, run
from piapi_async.cli._saving import Saving
from piapi_async.errors import DownloadError, SubmissionUnknown, TransportError, WaitTimeout
from piapi_async.tasks import TaskId, TaskRef

REF = TaskRef("https://api.piapi.ai", "legacy", TaskId("t1"))


# -- bars on a terminal ---------------------------------------------------------------------------------------------


def terminal(monkeypatch: pytest.MonkeyPatch, *modules: Any, width: int = 100) -> io.StringIO:
    """Make a terminal of the stderr that these modules write to, and return what is written there."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=width, highlight=False)
    for module in modules:
        monkeypatch.setattr(module, "console", console)
    return shown


@pytest.mark.parametrize(("width", "name"), [(100, "t1-of-a-long-name"), (60, "t1-of-a-…")])
def test_a_task_has_a_bar_until_it_has_ended(width: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch, _meter, width=width)
    task = picture_task("https://h/a.png", task_id="t1-of-a-long-name")
    with Meter() as meter:
        meter.submitting()
        meter.submitted(task.task_id)
        meter.show(evolve(task, status="pro\x1bcessing", progress=40))
        meter.submitted("t2")
        with meter.ended(task.task_id):
            shown.write("RESULT")
        meter.show(evolve(task, task_id=TaskId("t3")))

    text = shown.getvalue()
    assert "submitting" in text
    assert name in text
    assert "pro\\x1bcessing" in text
    assert "t3" in text.partition("RESULT")[2]


@pytest.mark.looptime
async def test_a_batch_has_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch, _display, width=120)
    monkeypatch.setattr(_results, "on_terminal", lambda: True)
    run = SimpleNamespace(totals=Totals())
    with _display.Display(cast("Any", run), Results.on_stdout(), 5) as display:
        with display.aside():
            shown.write("OUTCOME")
        run.totals = Totals(read=5, done=1, seconds=0.5)
        await asyncio.sleep(0.3)

    before, _, after = shown.getvalue().partition("OUTCOME")
    assert "0/5 0.00/s ? left" in before
    assert "1/5 2.00/s 0:00:02 left" in after


@pytest.mark.looptime
async def test_without_a_terminal_a_batch_has_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = SimpleNamespace(totals=Totals(read=5, done=1, seconds=0.5))
    with _display.Display(cast("Any", run), Results.on_stdout(), 5) as display, display.aside():
        await asyncio.sleep(11)

    line = "submitted 0, resumed 0, waiting 0, running 0, done 1 of 5, failed 0, unknown 0"
    assert capsys.readouterr().err.splitlines() == [f"{line}, rate 2.00/s, left 0:00:02"] * 2


def test_what_a_person_must_look_at_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lost = SubmissionUnknown("It is not known.", request=Reroll("p1"), at=0.0)
    for error, unsaved in (
        (lost, None),
        (None, DownloadError("Not saved.")),
        (TransportError("x", sent=False), None),
    ):
        outcome = SimpleNamespace(error=error, download_error=unsaved)
        _display.Display.say_serious(cast("Any", outcome))

    assert capsys.readouterr().err == "It is not known.\nNot saved.\n"


# -- stdout ---------------------------------------------------------------------------------------------------------


class Failing(io.StringIO):
    """A stdout whose disk is full, or whose encoding lacks a letter."""

    def __init__(self, error: Exception, times: int = 1000) -> None:
        super().__init__()
        self._error, self._times = error, times

    def write(self, text: str) -> int:
        self._times -= 1
        if self._times >= 0:
            raise self._error
        return super().write(text)


@pytest.mark.parametrize("stdout", [None, Failing(OSError(28, "No space left on device"))])
def test_a_result_that_stdout_does_not_take_is_said_on_stderr(
    stdout: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as left:
        _output.print_json({"task_id": "t1"})

    assert left.value.code == 1
    assert '{"task_id": "t1"}' in capsys.readouterr().err


def test_a_letter_that_stdout_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Failing(UnicodeEncodeError("ascii", "猫", 0, 1, "lacking"), times=1)
    monkeypatch.setattr(sys, "stdout", stdout)
    _output.echo("猫")

    assert stdout.getvalue() == "\\u732b\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_a_command_ends_quietly_when_its_reader_leaves_and_tells_of_other_broken_pipes(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prints() -> None:
        _output.print_line({})

    async def loses_a_connection() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as lost:
        run(loses_a_connection())
    assert (1, "Error: [Errno 32] Broken pipe\n") == (lost.value.code, capsys.readouterr().err)

    os.close(pipe[0])
    with os.fdopen(pipe[1], "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as left:
            run(prints())
        monkeypatch.undo()
    assert (1, "") == (left.value.code, capsys.readouterr().err)


def test_a_stdout_that_is_of_no_use_is_told_before_anything_is_sent(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(stdout: Any) -> str:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(click.ClickException) as refused:
            _output.check_stdout()
        return refused.value.message

    reading, writing = pipe
    closed = io.StringIO()
    closed.close()
    assert "is closed" in fault(closed)
    assert "is closed" in fault(None)

    with closing(os.fdopen(reading, closefd=False)) as stdout:
        assert "cannot be written to" in fault(stdout)
    os.close(reading)
    with closing(os.fdopen(writing, "w", closefd=False)) as stdout:
        assert "has no reader any more" in fault(stdout)
        os.close(writing)
        assert "is closed" in fault(stdout)


def test_a_stdout_in_this_process_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    _output.check_stdout()


# -- texts ----------------------------------------------------------------------------------------------------------


def test_a_time_out_says_what_was_seen_last_and_what_failed() -> None:
    seen = evolve(picture_task("https://h/a.png"), status="processing", progress=None)
    failed = WaitTimeout("", ref=REF)
    failed.__cause__ = TransportError("no route", sent=False)

    assert explain(failed).endswith("; no response told its status. The last poll failed: no route")
    assert explain(WaitTimeout("", ref=REF, task=seen)).endswith("; it was last seen processing.")
    known = WaitTimeout("", ref=REF, task=evolve(seen, progress=40))
    assert explain(known).endswith("; it was last seen processing at 40 %.")


def test_an_error_of_the_system_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        raise PermissionError(13, "Permission denied", "run.db")

    with pytest.raises(SystemExit) as left:
        run(main())

    assert left.value.code == 1
    assert "Error: [Errno 13] Permission denied: 'run.db'" in capsys.readouterr().err


def test_an_account_of_which_little_is_known_has_a_short_line() -> None:
    assert _summary(Account(id="a1")) == ""


def test_models_are_shown_for_people_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_account, "on_terminal", lambda: True)
    shown = CliRunner().invoke(cli, ["models", "--search", "kling/video_generation"]).stdout

    assert shown.startswith("kling/video_generation  ")
    assert "prompt" in shown


@pytest.mark.parametrize(
    ("setting", "said"), [("multi_fetch=perhaps", "is true or false"), ("nonsense=1", "must be NAME=VALUE")]
)
def test_a_dialect_that_is_none_is_refused(setting: str, said: str) -> None:
    refused = CliRunner().invoke(cli, ["emulator", "--dialect", setting])

    assert refused.exit_code == 2
    assert said in refused.stderr


def test_a_file_of_faults_that_is_none_is_refused(tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text("[[fault]]\nkind = 'nonsense'\n", "utf-8")
    refused = CliRunner().invoke(cli, ["emulator", "--faults", str(faults)])

    assert refused.exit_code == 2
    assert "nonsense" in refused.stderr


# -- rows -----------------------------------------------------------------------------------------------------------


def test_without_a_verb_column_a_quote_that_is_not_closed_is_found_by_the_cells(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('prompt,aspect_ratio\n"a cat,1:1\na dog,4:3\n"\n', "utf-8")
    [line] = BatchInput(Source.of(path), verb="imagine").lines()

    assert isinstance(line, BadLineError)
    assert "line 3 begins like a row" in line.reason


@pytest.mark.parametrize(("images", "final"), [([], True), (["https://h/a.png"], False)])
def test_a_row_of_an_older_release_is_final_unless_it_has_pictures_to_save(
    images: list[str],
    final: bool,  # noqa: FBT001 - expected
) -> None:
    row = {"key": "k", "final": True, "error": "", "images": images}

    assert _is_final(json.loads(json.dumps(row)), Saving(directory=Path())) == final
    assert _is_final(row, Saving())


def test_a_number_that_no_machine_reads_is_told_with_its_line() -> None:
    number = "1" * 5000
    with pytest.raises(FileRefusedError, match=r"it is not JSON: .*\(line 2\)"):
        list(json_values(io.StringIO(f'[{{"a": 1}},\n{{"a": {number}}}]')))


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:  # noqa: ARG002 - as a stream's
        raise OSError(27, "File too large")


def test_a_pipe_that_cannot_be_copied_is_a_sentence() -> None:
    with pytest.raises(click.ClickException, match="standard input could not be copied to") as refused:
        _copied(Unreadable(), "standard input")

    assert "Nothing was submitted" in refused.value.message


def test_results_whose_lock_cannot_be_had_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".out.jsonl.piapi-async-lock").mkdir()
    out = tmp_path / "out.jsonl"
    with (
        pytest.raises(click.UsageError, match=r"--out .*out\.jsonl: "),
        Results.at(out, keep=True, keeping=Keeping(Saving())),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_a_line_that_has_no_room_is_an_error_of_the_system() -> None:
    with closing(_results._File(Path("/dev/full"))) as full, pytest.raises(OSError, match="No space left"):
        full.write("{}")
