"""Tasks that fit a lost submission and are somebody else's: when one is taken, and what keeps it from being so."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from support.scripted import page, said, scripted
from support.serving import KEY, serving

from piapi_async import CreateTask, Imagine, Ledger, PiAPI, SubmissionUnknown
from piapi_async._protocol.family import Trace
from piapi_async._submit.history import MOST_READ, History, Row
from piapi_async._submit.peers import Peers
from piapi_async._submit.recovery import Found, Lost, body_as_listed, body_as_sent, may_belong
from piapi_async.emulator import Drop
from piapi_async.ledger._recovery import keys_of
from piapi_async.ledger._schema import SCHEMA
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime

NOT_MADE = Drop(after_body=True, made=False)


def cat() -> CreateTask:
    return CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": "a cat"})


@pytest.mark.parametrize(("recover", "taken"), [(60.0, True), (0.0, False)])
async def test_a_strangers_task_alone_is_taken_and_without_the_history_it_is_not(
    recover: float, *, taken: bool
) -> None:
    """The one risk: another process with the same key and no common ledger, and only it has made a task."""
    async with (
        serving({"recover": recover}) as (emulator, piapi),
        PiAPI(KEY, base_url=emulator.base_url, recover=0) as stranger,
    ):
        stranger._runtime.submitter.finder._peers = Peers()  # as in another process
        emulator.fail("create", NOT_MADE)
        ours, theirs = await asyncio.gather(
            piapi.submit(cat()), stranger.submit(cat()), return_exceptions=True
        )

        assert not isinstance(theirs, BaseException)
        if taken:
            assert not isinstance(ours, BaseException)
            assert ours.task_id == theirs.task_id
        else:
            assert isinstance(ours, SubmissionUnknown)


async def test_a_ledger_in_common_keeps_it_from_being_taken(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with (
        serving({"recover": 10.0, "ledger": Ledger(path)}) as (emulator, piapi),
        PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as other,
    ):
        other._runtime.submitter.finder._peers = Peers()
        emulator.fail("create", NOT_MADE)
        submits = (piapi.submit(cat(), key="a"), other.submit(cat(), key="b"))
        ends = await asyncio.gather(*submits, return_exceptions=True)

        assert sorted(isinstance(end, SubmissionUnknown) for end in ends) == [False, True]


# -- older protocols ------------------------------------------------------------------------------


def drawing(prompt: str = "a cat") -> CreateTask:
    return CreateTask("midjourney", "imagine", {"prompt": prompt})


class OldAndNew:
    """A host of both protocols that loses each response, and lists one task, in the words of the newer."""

    def __init__(self, old_answer: bytes) -> None:
        self.old_answer = old_answer
        self.made_at = 0.0

    def answer(self, path: str, _: Any) -> bytes:
        if path == "/mj/v2/imagine":
            return self.old_answer
        if path == "/api/v1/task":
            self.made_at = time.time()
            return page(502)

        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.made_at))
        if path.startswith("/api/open"):
            rows = [{"id": 1, "task_id": "T1", "task_model": "midjourney", "created_at": created}]
            return said({"code": 200, "data": {"data": rows, "page": 1, "size": 100, "total": 1}})
        inputs = {"prompt": "a cat", "process_mode": "fast"}
        task = {
            "task_id": "T1",
            "model": "midjourney",
            "task_type": "imagine",
            "status": "pending",
            "input": inputs,
        }
        return said({"code": 200, "data": task})


@pytest.mark.parametrize(
    ("prompt", "old_answer", "found"),
    [("a cat", page(502), False), ("a cat", b"", False), ("a dog", page(502), True), ("a dog", b"", True)],
)
async def test_an_older_protocols_task_is_not_taken(
    prompt: str, old_answer: bytes, tmp_path: Path, *, found: bool
) -> None:
    """It is one that was lost, or that may still be answered, and the host may list it as a newer one's."""
    host = OldAndNew(old_answer)
    async with (
        scripted(host.answer) as server,
        PiAPI(KEY, base_url=server.base_url, ledger=Ledger(tmp_path / "run.db"), recover=10.0) as piapi,
    ):
        older = asyncio.create_task(piapi.submit(Imagine(prompt), key="old"))
        [newer] = await asyncio.gather(piapi.submit(drawing(), key="new"), return_exceptions=True)
        assert isinstance(newer, SubmissionUnknown) is not found
        with pytest.raises(SubmissionUnknown):
            await older


def test_what_was_sent_in_other_words_may_be_any_task_whose_texts_are_the_same() -> None:
    def listed(**inputs: Any) -> Lost:
        return Lost("old", body_as_listed(inputs, "midjourney"), 0.0, 30.0)

    def shown(**inputs: Any) -> Found:
        return Found("T1", Trace(model="midjourney", task_type="imagine", input=inputs, created_at=5.0), 5.0)

    assert may_belong(shown(prompt="a cat", steps=4), listed(prompt="a cat", index=1))
    assert may_belong(shown(prompt="a cat"), listed(image_url="https://example.org/a.png"))
    assert not may_belong(shown(prompt="a cat"), listed(prompt="a dog"))
    assert not may_belong(shown(prompt="a cat"), listed())
    nameless = body_as_sent({"model": "midjourney", "input": {"prompt": "a cat"}})
    assert not may_belong(shown(prompt="a cat"), Lost("new", nameless, 0.0, 30.0))


# -- what is known of others ------------------------------------------------------------------------


def test_a_task_is_known_by_its_row_whatever_has_become_of_that() -> None:
    """Rows that have ended are read only around the time at which the task was made."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(SCHEMA)
        for key, state, at in (
            ("now", "ended", 1e9),
            ("clock", "ended", 1e9 + 3600),
            ("old", "accepted", 1.0),
        ):
            connection.execute(
                "INSERT INTO submits (key, state, origin, family, digest, request, task_id, at) "
                "VALUES (?, ?, 'o', 'unified', x'00', '', ?, ?)",
                (key, state, f"task of {key}", at),
            )
        connection.execute(
            "INSERT INTO earlier VALUES ('o', 'task of retried', 'unified', 'retried', 1, 1.0, 'failed')"
        )
        ids = [f"task of {key}" for key in ("now", "clock", "old", "retried", "nobody")]

        known = keys_of(connection, "o", ids, 1e9 - 30, 1e9)
        assert {f"task of {key}": key for key in ("now", "clock", "old", "retried")} == known
        assert {} == keys_of(connection, "another host", ids, 1e9 - 30, 1e9)
        assert {"old", "retried"} == set(keys_of(connection, "o", ids, 1e9 + 86_400, 1e9 + 86_430).values())


async def test_what_was_read_for_a_look_is_not_forgotten_before_it_is_compared() -> None:
    """A stranger's task that is forgotten would leave ours the only one that fits."""
    async with serving() as (emulator, piapi):
        tasks = [TaskId((await piapi.submit(cat())).task_id) for _ in range(3)]
        history = History(piapi._runtime.sender, lambda _: False, lambda _: False)
        rows = [Row(task_id, 5.0, "") for task_id in tasks]
        history._read.update((str(number), None) for number in range(MOST_READ))

        assert await history.read(tasks[:1], rows[:1])
        history._read.update((f"later {number}", None) for number in range(MOST_READ - 2))
        assert await history.read(tasks[1:], rows)

        assert all(history.task_of(row) for row in rows)
        assert len(history._read) == MOST_READ
        assert emulator.seen.requests["task_read"] == 3
