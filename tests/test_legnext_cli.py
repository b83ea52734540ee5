"""LegNext from a terminal: its verbs under `run` and in batch files, its tasks under `--family`, its balance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.legnext_host import KEY, StrictLegNext, strict_legnext
from support.threaded import served_in_thread

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session, cli
from piapi_async.cli._requests import LEGNEXT

JOB = "5f0a7c1e-0000-4000-8000-00000000000a"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictLegNext]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_session, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    with served_in_thread(strict_legnext()) as host:
        yield host


def run(host: StrictLegNext, *words: str, **environment: str) -> Result:
    known = {"LEGNEXT_BASE_URL": host.url, "LEGNEXT_API_KEY": KEY, "PIAPI_API_KEY": "another"}
    return CliRunner().invoke(cli, words, env=known | environment)


def test_every_verb_has_a_name() -> None:
    assert {"legnext/imagine", "legnext/reroll", "legnext/remove_background", "legnext/video_diffusion"} < {
        *LEGNEXT
    }
    assert len(LEGNEXT) == 19


def test_a_verb_is_submitted_waited_for_and_read_again(host: StrictLegNext) -> None:
    result = run(host, "run", "legnext/upscale", f"job_id={JOB}", "index=2", "type=creative")

    assert result.exit_code == 0, result.stderr
    task = json.loads(result.stdout)
    assert (task["state"], task["task_type"]) == ("done", "upscale")
    assert host.seen == [("upscale", {"jobId": JOB, "imageNo": 1, "type": 1})]

    again = run(host, "fetch", task["task_id"], "--family", "legnext")
    assert json.loads(again.stdout) == task


def test_the_balance_is_the_account(host: StrictLegNext) -> None:
    result = run(host, "account", "--family", "legnext")

    assert json.loads(result.stdout)["account"]["balance_usd"] == 6.64
    assert "7: credits left 6,640" in result.stderr


def test_a_missing_key_is_named(host: StrictLegNext) -> None:
    result = run(host, "run", "legnext/reroll", f"job_id={JOB}", LEGNEXT_API_KEY="")

    assert "LEGNEXT_API_KEY" in result.stderr
    assert host.seen == []


def test_a_batch_of_its_verbs_goes_to_its_host_and_pays_once(host: StrictLegNext) -> None:
    lines = [{"verb": "legnext/reroll", "job_id": f"{JOB}{number}"} for number in range(8)]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)))

    first = run(host, "batch", "in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")
    again = run(host, "batch", "in.jsonl", "--ledger", "run.db", "--out", "out.jsonl")

    assert (first.exit_code, again.exit_code) == (0, 0), first.stderr
    assert len(host.seen) == 8


def test_a_batch_for_two_hosts_is_refused_before_anything_is_sent(host: StrictLegNext) -> None:
    lines = [{"verb": "legnext/reroll", "job_id": JOB}, {"verb": "reroll", "origin_task_id": JOB}]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)))

    result = run(host, "batch", "in.jsonl")

    assert result.exit_code == 2
    assert "for the hosts of LegNext and PiAPI" in result.stderr
    assert host.seen == []


@pytest.mark.parametrize(
    ("verb", "field", "hint"),
    [
        ("reroll", "prompt", "keeps its grid's; legnext/variation and legnext/remix take another"),
        ("reroll", "origin_task_id", "job_id"),
        ("imagine", "prompt", "it is text"),
        ("imagine", "aspect_ratio", "a cat --ar 16:9"),
    ],
)
def test_a_field_of_piapis_verbs_is_told_what_it_is_here(
    host: StrictLegNext, verb: str, field: str, hint: str
) -> None:
    result = run(host, "run", f"legnext/{verb}", f"{field}=x")

    assert result.exit_code == 2
    assert f"{field}: " in result.stderr
    assert hint in " ".join(result.stderr.split())
    assert [] == host.seen
