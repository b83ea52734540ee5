"""Histories that lie, break or know too much: nobody is ever given a task that is not his."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from attrs import define, field
from support.hooking import hooked
from support.scripted import page, said, scripted
from support.serving import KEY, now, serving

from piapi_async import BatchRunner, CreateTask, Ledger, PiAPI, RecoveryReport, SubmissionUnknown
from piapi_async._submit.peers import Peers
from piapi_async.emulator import Dialect, Drop
from piapi_async.models import flux

pytestmark = pytest.mark.looptime

MODEL, LOST = "Qubico/flux1-schnell", Drop(after_body=True)


def cat(prompt: str = "a cat") -> CreateTask:
    return CreateTask(MODEL, "txt2img", {"prompt": prompt})


@define
class Liar:
    """A host whose creates are answered by an edge's 502, and whose history and tasks a test writes."""

    rows: Callable[[int], list[Any]] = lambda _: []
    tasks: dict[str, Any] = field(factory=dict)
    begun: float = field(factory=time.time)
    made_at: float = 0.0
    pages: int = 0
    total: int | None = None
    reads: list[str] = field(factory=list)

    def now(self) -> float:
        return self.begun + now()

    def row(self, task_id: str, *, ago: float = 0.0, **changes: Any) -> dict[str, Any]:
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.made_at - ago))
        return {"id": task_id, "task_id": task_id, "task_model": MODEL, "created_at": created, **changes}

    def task(self, task_id: str, **changes: Any) -> dict[str, Any]:
        facts = {"task_id": task_id, "status": "pending", "model": MODEL, "task_type": "txt2img"}
        return {**facts, "input": {"prompt": "a cat"}, **changes}

    def answer(self, path: str, _: Any) -> bytes:
        if path == "/api/v1/task":
            self.made_at = self.now()
            return page(502)
        if path.startswith("/api/open"):
            self.pages += 1
            rows = self.rows(int(parse_qs(urlsplit(path).query)["page"][0]))
            facts = {"data": rows, "page": 1, "size": 100}
            if self.total is not None:
                facts["total"] = self.total
            data = said({"code": 200, "data": facts, "message": "success"})
        else:
            task_id = path.rsplit("/", 1)[1]
            self.reads.append(task_id)
            shown = self.tasks.get(task_id)
            if isinstance(shown, list):
                shown = shown.pop(0)
            if isinstance(shown, bytes):
                return shown
            if shown is None:
                return said({"code": 404, "message": "task not found"}, 404)
            data = said({"code": 200, "data": shown, "message": "success"})
        date = f"\r\nDate: {formatdate(self.now(), usegmt=True)}\r\n".encode()
        return data.replace(b"\r\n", date, 1)


async def told(liar: Liar, recover: float = 10.0) -> str | SubmissionUnknown:
    """What a caller hears of one lost submission."""
    async with (
        scripted(liar.answer) as host,
        PiAPI(KEY, base_url=host.base_url, recover=recover) as piapi,
    ):
        try:
            return (await piapi.submit(cat())).task_id
        except SubmissionUnknown as error:
            return error


LIES: list[Callable[[Liar], list[Any]]] = [
    lambda liar: [liar.row("other", task_model="kling")],
    lambda liar: [liar.row("early", ago=3600.0), liar.row("late", ago=-3600.0)],
    lambda liar: [liar.row("nobody"), liar.row("nobody")],
    lambda liar: [liar.row(".."), liar.row(""), liar.row(" "), 7, None, {"task_id": ["x"]}, {}],
    lambda liar: [liar.row("dog"), liar.row("hidden"), liar.row("timeless", created_at=None)],
    lambda liar: [liar.row("elsewhere")],
]


def with_tasks() -> Liar:
    liar = Liar()
    liar.tasks = {
        "other": liar.task("other", model="kling"),
        "early": liar.task("early"),
        "late": liar.task("late"),
        "dog": liar.task("dog", input={"prompt": "a dog"}),
        "hidden": liar.task("hidden", input=None),
        "timeless": liar.task("timeless"),
        "elsewhere": liar.task("elsewhere", config={"webhook_config": {"endpoint": "https://x.example.org"}}),
        "ours": liar.task("ours"),
    }
    return liar


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_nobodys_task_and_hides_none(lie: Callable[[Liar], list[Any]]) -> None:
    liar = with_tasks()
    liar.rows = lambda number: lie(liar) if number == 1 else []
    assert isinstance(await told(liar), SubmissionUnknown)

    liar.rows = lambda number: [*lie(liar), liar.row("ours"), liar.row("ours")] if number == 1 else []
    assert await told(liar) == "ours"


async def test_a_host_that_gives_the_first_page_for_ever_is_not_read_for_ever() -> None:
    liar = with_tasks()
    liar.rows = lambda _: [liar.row("ours")]
    assert await told(liar) == "ours"
    assert liar.pages <= 4


async def test_pages_that_hold_less_than_the_size_they_name_are_all_read() -> None:
    liar = with_tasks()
    rows = ["dog", "hidden", "other", "ours"]
    liar.total = len(rows)
    liar.rows = lambda number: [liar.row(row) for row in rows[number - 1 : number]]
    assert await told(liar) == "ours"
    assert liar.pages == 1 + len(rows)


async def test_a_history_without_an_end_tells_nothing() -> None:
    liar = with_tasks()
    liar.rows = lambda number: [liar.row("ours"), liar.row(f"nobody-{number}")]
    assert isinstance(await told(liar, 1.0), SubmissionUnknown)


async def test_a_task_that_cannot_be_read_for_now_is_read_again() -> None:
    liar = with_tasks()
    liar.rows = lambda number: [liar.row("ours"), liar.row("dog")] if number == 1 else []
    liar.tasks["dog"] = [page(502), page(404), liar.tasks["dog"]]
    assert await told(liar) == "ours"
    assert now() == pytest.approx(7.0, abs=0.1)
    assert liar.reads.count("ours") == 1

    liar.tasks["dog"] = page(502)
    assert isinstance(await told(liar), SubmissionUnknown)


@pytest.mark.parametrize(
    "refusal", [said({"code": 401, "message": "no such plan"}, 401), page(403), page(500)]
)
async def test_a_history_that_is_refused_ends_the_search_if_the_host_says_so(refusal: bytes) -> None:
    async with (
        scripted(lambda path, _: page(502) if path == "/api/v1/task" else refusal) as host,
        PiAPI(KEY, base_url=host.base_url) as piapi,
    ):
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(cat())
        assert now() == pytest.approx(1.0 if b"no such plan" in refusal else 60.0, abs=0.1)


# -- whose it is ----------------------------------------------------------------------------------


async def test_another_key_of_the_account_excludes_its_tasks() -> None:
    keys = (KEY, "another-key")
    async with (
        serving({"recover": 10.0}, dialect=Dialect(one_account=True), api_keys=keys) as (emulator, piapi),
        PiAPI("another-key", base_url=emulator.base_url, recover=0) as other,
    ):
        other._runtime.submitter.finder._peers = Peers()  # as in another process
        await piapi.submit(cat("an answered one tells the key's id"))
        emulator.fail("create", Drop(after_body=True, made=False))
        ours, theirs = await asyncio.gather(piapi.submit(cat()), other.submit(cat()), return_exceptions=True)

        assert isinstance(ours, SubmissionUnknown)
        assert not isinstance(theirs, BaseException)


async def test_a_response_that_names_a_task_wins_over_one_that_was_given_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    answers = [page(502), said({"code": 200, "data": {"task_id": "ours"}, "message": "success"})]
    liar = with_tasks()
    liar.rows = lambda number: [liar.row("ours")] if number == 1 else []

    def answer(path: str, body: Any) -> bytes:
        usual = liar.answer(path, body)
        return answers.pop(0) if path == "/api/v1/task" else usual

    async with scripted(answer) as host, PiAPI(KEY, base_url=host.base_url, ledger=ledger) as piapi:
        assert (await piapi.submit(cat(), key="lost")).task_id == "ours"
        assert (await piapi.submit(cat(), key="answered")).task_id == "ours"
        rows = {entry.key: (entry.state.value, entry.task_id) async for entry in ledger}

    assert rows == {"lost": ("unknown", None), "answered": ("accepted", "ours")}


async def test_a_later_process_finds_what_was_sent_with_uploads_and_with_webhooks(tmp_path: Path) -> None:
    path, picture = tmp_path / "run.db", tmp_path / "cat.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    client = {"ledger": Ledger(path), "recover": 1.0}
    dialect = Dialect(history_lag=30.0)
    async with hooked(client, {"adopt_timeout": 1.0}, dialect=dialect, durations=600.0) as (
        emulator,
        piapi,
        _,
    ):
        emulator.fail("create", LOST, times=2)
        requests = {"uploads": flux.ImageToImage("a dog", image=picture), "webhooks": cat()}
        for key, request in requests.items():
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(request, key=key)
        await asyncio.sleep(60.0)

        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as later:
            report = await later.recover()
        assert list(emulator.engine.tasks) == [report.found[key].task_id for key in requests]


async def test_too_many_that_fit_are_told_by_the_report(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with (
        serving({"ledger": Ledger(path), "recover": 1.0}, dialect=Dialect(history_lag=30.0)) as (
            emulator,
            piapi,
        ),
        PiAPI(KEY, base_url=emulator.base_url, recover=0) as other,
    ):
        other._runtime.submitter.finder._peers = Peers()
        await other.submit(cat())
        emulator.fail("create", LOST)
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(cat(), key="k")
        await asyncio.sleep(60.0)
        report = await piapi.recover()

        assert isinstance(report, RecoveryReport)
        assert ({}, ("k",)) == (report.found, report.unknown)
        assert {ref.task_id for ref in report.candidates["k"]} == set(emulator.engine.tasks)
        with pytest.raises(SubmissionUnknown, match="2 tasks in the host's history fit it") as caught:
            await piapi.submit(cat(), key="k")
        assert len(caught.value.candidates) == 2


async def test_leaving_a_stream_looks_once_more_and_waits_no_longer() -> None:
    async with serving({"recover": 60.0}, dialect=Dialect(history_lag=40.0)) as (emulator, piapi):
        emulator.fail("create", LOST)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await BatchRunner(piapi).run([cat()])
        assert now() == pytest.approx(5.0, abs=0.1)
        assert emulator.seen.requests["history"] >= 3
