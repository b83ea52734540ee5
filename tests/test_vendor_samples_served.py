"""Every sample of the vendor's pages ends well at the emulator: from a program, as a line of a batch, as a command."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.serving import serving
from support.threaded_emulator import threaded_emulator
from support.vendor_samples import PARENT, SAMPLES, entry_of, typed, without_task_type

from piapi_async import PiAPI, PollPolicy, TaskState, wait_all
from piapi_async.cli import _session as session
from piapi_async.cli import cli


def spelt(given_: Any) -> str:
    """Return an input as a text that can be sorted, whatever the order of its names."""
    return json.dumps(dict(given_), sort_keys=True)


class TestEverySample:
    @pytest.mark.looptime
    async def test_ends_well_at_the_emulator(self) -> None:
        async with serving({"poll": PollPolicy.every(60.0)}, picture_size=32, queue=1000) as (
            emulator,
            piapi,
        ):
            emulator.adopt(PARENT, kind="files")
            handles = [await piapi.submit(typed(*sample)) for sample in SAMPLES]
            tasks = await wait_all(handles, timeout=24 * 3600)

            ended = {
                (*sample[:2], getattr(task, "state", task))
                for sample, task in zip(SAMPLES, tasks, strict=True)
            }
            assert {state for *_, state in ended} == {TaskState.DONE}, ended

    def test_is_a_line_of_a_batch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [
            {"verb": entry_of(model, task_type).name, **given_, **without_task_type(model, task_type)}
            for model, task_type, given_ in SAMPLES
        ]
        lines = tmp_path / "samples.jsonl"
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        # real seconds pass here
        monkeypatch.setattr(session, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))

        with threaded_emulator(queue=1000) as (emulator, base_url):
            emulator.adopt(PARENT, kind="files")
            result = CliRunner().invoke(
                cli,
                ["batch", str(lines), "--out", str(tmp_path / "results.jsonl")],
                env={"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"},
            )
            assert result.exit_code == 0, result.stderr
            made = [task.input for task in emulator.engine.tasks.values() if not task.adopted]

        assert sorted(map(spelt, made)) == sorted(spelt(given_) for *_, given_ in SAMPLES)


@pytest.mark.storm
@pytest.mark.measured
def test_every_sample_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    with threaded_emulator(queue=1000) as (emulator, base_url):
        emulator.adopt(PARENT, kind="files")
        for model, task_type, given_ in SAMPLES:
            words = [
                f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}"
                for name, value in {**given_, **without_task_type(model, task_type)}.items()
            ]
            result = CliRunner().invoke(
                cli,
                ["run", entry_of(model, task_type).name, *words, "--no-wait"],
                env={"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"},
            )
            assert result.exit_code == 0, (words, result.stderr)
            assert emulator.engine.tasks[result.stdout.strip()].input == given_


@pytest.mark.parametrize(
    ("model", "code", "told"),
    [("t2v-01:video_generation", 0, ""), ("music-s:generate_music", 3, "Suno is no longer served")],
)
def test_a_model_without_a_request_is_the_hosts_to_judge(model: str, code: int, told: str) -> None:
    with threaded_emulator(queue=1000) as (_, base_url):
        result = CliRunner().invoke(
            cli,
            ["run", model, "prompt=a cat", "--no-wait"],
            env={"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"},
        )

    assert result.exit_code == code
    assert told in result.stderr
