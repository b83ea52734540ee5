"""What the benchmarks' own judgement hangs on; that they run at all, the gate's quick run shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks import on_legnext, readme
from benchmarks.__main__ import keep, read_goals, summary
from benchmarks._slices import Spread
from benchmarks._virtual import run_virtual
from benchmarks.server import serve
from benchmarks.soak import Sample, Soak, goals, settle_accounts
from piapi_async import Ledger, TaskRef
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of
from piapi_async.tasks import TaskId

ORIGIN = "http://127.0.0.1"
GOAL = {"what": "CPU", "reached": "1.05", "goal": "<= 1.10", "met": True}


# -- the soak's judge ---------------------------------------------------------------------------------------------


async def a_ledger(path: Path, **rows: str | None) -> None:
    """Write a ledger with these keys, each accepted under an id or, for None, unknown."""
    ledger = Ledger(path)
    for key, task_id in rows.items():
        identity = SubmissionKey(
            key=key.replace("_", "-"), origin=ORIGIN, family="legacy", request="/mj/v2/imagine {}"
        )
        assert await writer_of(ledger).claim(identity) is None
        if task_id is None:
            await writer_of(ledger).mark_unknown(identity)
        else:
            await writer_of(ledger).accept(identity, TaskRef(ORIGIN, "legacy", TaskId(task_id)))
    await ledger.close()


async def test_books_and_ledgers_that_agree_leave_nothing_to_complain_of(tmp_path: Path) -> None:
    await a_ledger(tmp_path / "one.db", soak_1="a", soak_2=None)
    await a_ledger(tmp_path / "two.db", soak_3="c", soak_4=None)

    account = await settle_accounts({"1": ["a"], "2": ["b"], "3": ["c"]}, sorted(tmp_path.glob("*.db")))

    assert (account.doubled, account.lost, account.imagined) == ((), (), ())
    assert account.states == {"accepted": 2, "unknown": 2}
    assert not [goal for goal in goals(Soak(), account) if goal.met is False]


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        ({"1": ["a", "b"]}, "tasks made twice for one intent"),
        ({"1": ["a"], "7": ["g"]}, "tasks made and not in the ledger"),
        ({"1": ["other"]}, "tasks in the ledger that nobody made"),
        ({}, "tasks in the ledger that nobody made"),
    ],
    ids=["twice", "lost", "another id", "never made"],
)
async def test_what_is_lost_or_doubled_is_found(
    tmp_path: Path, made: dict[str, list[str]], complaint: str
) -> None:
    await a_ledger(tmp_path / "one.db", soak_1="a")

    account = await settle_accounts(made, [tmp_path / "one.db"])

    assert [goal.what for goal in goals(Soak(), account) if goal.met is False] == [complaint]


@pytest.mark.parametrize(("seconds", "slope"), [(600, 0.6), (100, None)])
def test_memory_that_grows_is_noticed_when_the_run_was_long_enough(seconds: int, slope: float | None) -> None:
    soak = Soak()
    soak.samples = [Sample(at, 0, 0, 0, 50 + 0.01 * at, 0, 0, 0, 0) for at in range(seconds + 1)]

    assert soak.slope() == (slope and pytest.approx(slope))


# -- the host that measures ---------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("create", "id_field", "read", "words"),
    [
        ("/v1/predictions", "id", "/v1/predictions/{}", ["processing", "succeeded"]),
        (
            "/mj/reroll",
            "request_id",
            "/mj/reroll/requests/{}/status?logs=false",
            ["IN_PROGRESS", "COMPLETED"],
        ),
        ("/v1/reroll", "job_id", "/v1/job/{}", ["processing", "completed"]),
    ],
    ids=["replicate", "fal", "legnext"],
)
async def test_the_host_speaks_as_other_sdks_expect(
    create: str, id_field: str, read: str, words: list[str]
) -> None:
    server = await serve(looks=[2])
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aiohttp.ClientSession(url) as session:
        async with session.post(create, json={}) as answer:
            made = await answer.json()
        seen = []
        for _ in words:
            async with session.get(read.format(made[id_field])) as answer:
                task = await answer.json()
                seen.append(task["status"])

    assert seen == words
    assert task[id_field] == made[id_field]


# -- what is told -------------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_and_the_middle_half() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert str(Spread.of([1.5])) == "1.50 (1.50 to 1.50)"


def test_a_file_keeps_what_was_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    keep(path, {"batch": {"goals": [GOAL]}, "memory": {"goals": []}}, smoke=False)
    keep(path, {"memory": {"goals": [{**GOAL, "unheard of": 1}]}}, smoke=True)

    measured = json.loads(path.read_text())
    assert measured["about"]["quick"]
    assert [goal.what for goal in summary(measured["benchmarks"])] == ["batch: CPU", "memory: CPU"]
    assert read_goals({}) == []


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A README with all the places."""
    path = tmp_path / "README.md"
    places = [
        f"<!-- measured: {name} -->\n\nold\n\n<!-- end -->\n" for name in ("summary", "picture", "duplicates")
    ]
    path.write_text("before\n" + "between\n".join(places) + "after\n")
    monkeypatch.setattr(readme, "README", path)
    monkeypatch.setattr(readme, "there", lambda: ["duplicates", "soak"])
    return path


def measured(tmp_path: Path, *, quick: bool = False, **found: Any) -> Path:
    path = tmp_path / "measured.json"
    about = {"when": "today", "python": "3", "versions": {"aiohttp": "3"}, "quick": quick}
    path.write_text(json.dumps({"about": about, "benchmarks": found}))
    return path


DUPLICATES = {"goals": [GOAL], "clients": {"ours": {"408": {"most": 1}}, "theirs": {"408": {"most": 3}}}}
SOAK = {"goals": [GOAL, {**GOAL, "what": "lost"}], "samples": [{"seconds": 1200.0}]}


def test_tables_are_put_where_they_belong_and_nothing_else_is_touched(page: Path, tmp_path: Path) -> None:
    readme.main(measured(tmp_path, duplicates=DUPLICATES, soak=SOAK))
    text = page.read_text()
    readme.main(measured(tmp_path, duplicates=DUPLICATES, soak=SOAK))

    assert page.read_text() == text
    assert "| CPU | 1.05 |  | <= 1.10 | yes |" in text
    assert "| lost, doubled or left over in 20 minutes of faults | nothing |  | nothing | yes |" in text
    assert "| 408 | 1 | 3 |" in text
    assert text.count("old") == 1  # the picture's place: no call was measured
    assert [text.count(word) for word in ("before\n", "between\n", "after\n")] == [1, 2, 1]


def test_a_soak_that_found_something_is_told_in_full(page: Path, tmp_path: Path) -> None:
    soak = {**SOAK, "goals": [GOAL, {**GOAL, "what": "tasks lost", "met": False}]}
    readme.main(measured(tmp_path, duplicates=DUPLICATES, soak=soak))

    assert "| tasks lost | 1.05 |  | <= 1.10 | **no** |" in page.read_text()


def test_there_is_no_summary_of_a_part(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme.main(measured(tmp_path, duplicates=DUPLICATES))

    assert page.read_text().count("old") == 2
    assert "no summary: the file has no soak" in capsys.readouterr().out


def test_figures_of_a_quick_run_are_not_shown(page: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="quick run"):
        readme.main(measured(tmp_path, quick=True, duplicates=DUPLICATES))

    assert page.read_text().count("old") == 3


def test_the_readme_has_all_the_places() -> None:
    text = readme.README.read_text()

    assert [name for name in readme.DRAWN if f"<!-- measured: {name} -->\n" not in text] == []


# -- beside LegNext's own package ---------------------------------------------------------------------------------


@pytest.mark.storm
@pytest.mark.parametrize(("package", "made"), [("piapi_async", 1), ("legnext", 4)])
def test_a_gateways_502_is_paid_once_by_us_and_four_times_by_legnexts_package(
    package: str, made: int
) -> None:
    fault = on_legnext.FAULTS["502 after the job was made"]

    assert made == run_virtual(on_legnext.submit_under(fault, on_legnext.PACKAGES[package]))


@pytest.mark.storm
def test_both_packages_wait_for_the_same_jobs() -> None:
    for package in on_legnext.PACKAGES.values():
        requests, delay = run_virtual(on_legnext.wait_for_many(package, 12))
        assert requests > 1
        assert 0 < delay < 10
