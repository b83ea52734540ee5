"""Every answer to a create, generated: status, envelope, id field, words, over a raw socket, in both protocols.

The expected outcome is told by an oracle of its own, written from the table that the README shows; the host counts the
creates, and the ledger says whether the key is free, open or taken.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from support.creating import http_answer, json_answer, raw_host
from support.families import FamilyCase

from piapi_async import APIError, Ledger, PiAPI, PiAPIError, RetryPolicy, SubmissionUnknown, TaskRef
from piapi_async._http import HTTPResponse
from piapi_async._protocol.family import TaskRequest
from piapi_async._verdict import Verdict, judge_create
from piapi_async.cli._exit import exit_code
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime

KEY = "sk-test-5eCr3t"
HTML = b"<html><head><title>So</title></head><body>edge: Too Many Requests, no available bot</body></html>"

STATUSES: tuple[int, ...] = (
    200,
    201,
    204,
    302,
    303,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    422,
    429,
    500,
    502,
    503,
    504,
    511,
    520,
    521,
)
STATUSES += (522, 523, 524, 525, 526, 530)

REFUSING: tuple[str, ...] = (
    "invalid prompt",
    "banned prompt words: gore",
    "insufficient credits",
    "parent task is outdated",
)
BUSY = ("no available bot", "Bot is inactive", "too many requests")
STOCK = (
    "Internal server error",
    "upstream connect error",
    "unexpected EOF",
    "Service Unavailable",
    "request timed out",
)
NEUTRAL = ("", "success", "Task created", "the moon is full")
WORDS = (*REFUSING, *BUSY, *STOCK, *NEUTRAL)

# What stands where an id may: nothing, an id that counts, one that may be something else.
NO_ID: dict[str, Any] = {}
NAMING: tuple[dict[str, Any], ...] = ({"task_id": "T-77"}, {"taskId": "T-77"}, {"job_id": "T-77"})
NAMING += ({"data": {"task_id": "T-77"}}, {"data": {"task": {"task_id": "T-77"}}})
BARE: tuple[dict[str, Any], ...] = (
    {"id": "T-77"},
    {"data": [{"task_id": "T-77"}]},
    {"data": [{"id": "T-77"}]},
)
BARE += ({"data": {"id": "T-77"}},)

ENVELOPES: tuple[dict[str, Any], ...] = ({}, {"status": "success"}, {"status": "failed"}, {"status": "error"})
ENVELOPES += ({"success": False}, {"code": 200}, {"code": 400}, {"code": 429}, {"code": 500})


@frozen
class Answer:
    """An answer as it is sent."""

    status: int
    body: dict[str, Any] | bytes

    @property
    def bytes(self) -> bytes:
        return json_answer(self.status, b"" if self.status == 204 else self.body)


def answers(statuses: tuple[int, ...]) -> Iterator[Answer]:
    for status in statuses:
        yield Answer(status, b"")
        yield Answer(status, HTML)
        for envelope, ids, words in itertools.product(ENVELOPES, (NO_ID, *NAMING, *BARE), WORDS):
            yield Answer(status, {**envelope, **ids, **({"message": words} if words else {})})


# -- the oracle ---------------------------------------------------------------------------------------------------


def expected(answer: Answer) -> str:
    """Return "accepted", "named", "retried", "refused" or "unknown", by the table."""
    body = answer.body if isinstance(answer.body, dict) and answer.status != 204 else None
    good = 200 <= answer.status < 300
    if body is None:
        return without_json(answer.status)
    data, code = body.get("data"), body.get("code", 200 if "code" in body else 0)
    says_no = body.get("status") in ("failed", "error") or body.get("success") is False or code >= 400
    if any(ids.items() <= body.items() for ids in NAMING):
        return "accepted" if good and not says_no else "named"
    if "id" in body or isinstance(data, list) or (isinstance(data, dict) and "id" in data):
        return "unknown"
    return by_words(code if good and code >= 400 else answer.status, body)


def without_json(status: int) -> str:
    if status in (429, 521, 523, 525, 526):
        return "retried"
    return "refused" if 300 <= status < 400 and status != 303 else "unknown"


def by_words(status: int, body: dict[str, Any]) -> str:
    if status in (303, 408) or (300 <= status < 500 and claims_success(body)):
        return "unknown"
    if status == 429:
        return "retried"
    kinds = {2: of_a_good_status, 3: of_a_redirect, 4: of_a_client_fault, 5: of_a_server_fault}
    return kinds[status // 100](status, body)


def claims_success(body: dict[str, Any]) -> bool:
    """Tell whether an answer with the status of a no says yes, and says nothing that is a no or "busy"."""
    words = body.get("message", "")
    no = body.get("status") in ("failed", "error") or body.get("success") is False
    return (
        (body.get("status") == "success" or words == "success") and not no and words not in (*REFUSING, *BUSY)
    )


def is_own(body: dict[str, Any]) -> bool:
    words = body.get("message", "")
    return words not in STOCK and bool(words or {"status", "code", "data", "success"} & body.keys())


def of_a_good_status(_: int, body: dict[str, Any]) -> str:
    words = body.get("message", "")
    no = body.get("status") in ("failed", "error") or body.get("success") is False
    yes = body.get("status") == "success" or body.get("code") == 200
    return "refused" if words not in STOCK and (no or (words in REFUSING and not yes)) else "unknown"


def of_a_redirect(_: int, __: dict[str, Any]) -> str:
    return "refused"


def of_a_client_fault(_: int, body: dict[str, Any]) -> str:
    if not is_own(body):
        return "unknown"
    return "retried" if body.get("message") in BUSY else "refused"


def of_a_server_fault(status: int, body: dict[str, Any]) -> str:
    words = body.get("message", "")
    if not is_own(body):
        return "retried" if status in (521, 523, 525, 526) and words not in STOCK else "unknown"
    if body.get("status") == "failed":
        return "refused"
    if body.get("status") == "success" or words == "success" or body.get("code") == 200:
        return "unknown"
    return "refused" if words and (body.get("code", 0) >= 400 or status == 500) else "unknown"


# -- the table ----------------------------------------------------------------------------------------------------

EXIT_CODES = {"retried": 3, "refused": 3, "unknown": 6}
STATES = {"accepted": LedgerState.ACCEPTED, "unknown": LedgerState.UNKNOWN}


async def outcome_of(piapi: PiAPI, case: FamilyCase, key: str) -> PiAPIError | None:
    try:
        await piapi.submit(case.reroll("p"), key=key)
    except PiAPIError as error:
        return error
    return None


def verdict_of(error: PiAPIError | None, creates: int) -> str:
    if error is None:
        return "accepted"
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    assert isinstance(error, APIError)
    assert "nothing was paid" in str(error)
    return "retried" if creates > 1 else "refused"


@pytest.mark.parametrize("status", STATUSES)
def test_an_answer_is_judged_as_the_table_says(status: int, case: FamilyCase) -> None:
    check_judgement(itertools.islice(answers((status,)), 0, None, 23), case)


@pytest.mark.storm
@pytest.mark.parametrize("status", STATUSES)
def test_every_answer_is_judged_as_the_table_says(status: int, case: FamilyCase) -> None:
    check_judgement(answers((status,)), case)


def check_judgement(table: Iterable[Answer], case: FamilyCase) -> None:
    request = case.reroll("p")
    wrong = []
    for answer in table:
        _, _, body = answer.bytes.partition(b"\r\n\r\n")
        found = judged(HTTPResponse(answer.status, body), request)
        if found != expected(answer):
            wrong.append(f"{answer}: {found}, not {expected(answer)}")

    assert not wrong, "\n".join(wrong[:20])


JUDGED = {
    Verdict.NAMED: "named",
    Verdict.RETRY: "retried",
    Verdict.RAISE: "refused",
    Verdict.UNKNOWN: "unknown",
}


def judged(response: HTTPResponse, request: TaskRequest[Any]) -> str:
    with contextlib.suppress(PiAPIError):
        request.parse(response)
        return "accepted"
    return JUDGED[judge_create(response, request).verdict]


async def test_an_answer_does_to_client_and_ledger_what_the_table_says(
    case: FamilyCase, tmp_path: Path
) -> None:
    await check(list(itertools.islice(answers(STATUSES), 0, None, 397)), case, tmp_path)


@pytest.mark.storm
@pytest.mark.parametrize("status", STATUSES)
async def test_answers_do_to_client_and_ledger_what_the_table_says(
    status: int, case: FamilyCase, tmp_path: Path
) -> None:
    # A judgement goes the same way whatever it was given for, so not every one of them is sent over a socket.
    await check(list(itertools.islice(answers((status,)), 0, None, 23)), case, tmp_path)


async def check(table: list[Answer], case: FamilyCase, tmp_path: Path) -> None:
    """Submit once for each answer; an id that is named is unknown to the host when it is read."""
    said = [b""]
    wrong: list[str] = []
    ledger = Ledger(tmp_path / "run.db")
    retry = RetryPolicy(attempts=2, initial=0.0)
    async with (
        raw_host(lambda _: said[0]) as host,
        PiAPI(KEY, base_url=host.url, retry=retry, ledger=ledger, recover=0) as piapi,
    ):
        for number, answer in enumerate(table):
            said[0] = renamed(answer, f"T-{number}").bytes  # no two submissions share an id
            host.creates.clear()
            host.reads.clear()
            error = await outcome_of(piapi, case, key := f"k{number}")
            wanted = expected(answer)
            found = verdict_of(error, len(host.creates))
            if wanted == "named":
                named = isinstance(error, APIError) and error.ref == ref_of(piapi, case, number)
                found = "named" if named and len(host.creates) == 1 and host.reads else found
            creates = 2 if wanted == "retried" else 1
            entry = await ledger.find(key)
            if found != wanted or len(host.creates) != creates:
                wrong.append(f"{answer}: {found}, not {wanted}, {len(host.creates)} creates, {error}")
            elif (entry.state if entry else None) is not STATES.get(wanted):
                wrong.append(f"{answer}: {entry} after {wanted}")
            elif error is not None and exit_code(error) != EXIT_CODES.get(wanted, 3):
                wrong.append(f"{answer}: exit code {exit_code(error)} after {wanted}")
    assert not wrong, "\n".join(wrong[:20])


def renamed(answer: Answer, task_id: str) -> Answer:
    """Return an answer with another id in it."""
    if isinstance(answer.body, bytes):
        return answer
    return Answer(answer.status, json.loads(json.dumps(answer.body).replace("T-77", task_id)))


def ref_of(piapi: PiAPI, case: FamilyCase, number: int) -> TaskRef:
    return piapi.attach(f"T-{number}", family=case.family).ref


# -- an answer that names a task ----------------------------------------------------------------------------------

NAMED = [
    (429, {"task_id": "T1", "status": "success", "message": "too many requests"}),
    (429, {"code": 429, "data": {"task_id": "T1"}}),
    (400, {"data": {"task_id": "T1"}, "message": "overloaded"}),
    (200, {"status": "failed", "task_id": "T1"}),
    (200, {"code": 500, "data": {"task_id": "T1", "status": "failed"}, "message": "failed to pre-process"}),
    (408, {"task_id": "T1"}),
    (502, {"taskId": "T1", "message": "bad gateway"}),
]


def read_as(case: FamilyCase, status: str, **more: Any) -> bytes:
    task = {"task_id": "T1", "status": status, **more}
    return json_answer(200, {"code": 200, "data": task} if case.family.name == "unified" else task)


@pytest.mark.parametrize(("status", "body"), NAMED, ids=str)
@pytest.mark.parametrize("word", ["pending", "completed"])
async def test_a_task_that_lives_or_has_ended_well_is_accepted(
    status: int, body: dict[str, Any], word: str, case: FamilyCase, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with (
        raw_host(lambda _: json_answer(status, body), lambda _: read_as(case, word)) as host,
        PiAPI(KEY, base_url=host.url, ledger=ledger, recover=0) as piapi,
    ):
        handle = await piapi.submit(case.reroll("p"), key="k")

        assert handle.task_id == "T1"
        assert (len(host.creates), len(host.reads)) == (1, 1)
        entry = await ledger.find("k")
        assert entry is not None
        assert entry.ref == handle.ref


@pytest.mark.parametrize(("status", "body"), NAMED, ids=str)
@pytest.mark.parametrize("word", ["failed", "cancelled"])
async def test_a_task_that_has_failed_is_a_refusal_that_names_it(
    status: int, body: dict[str, Any], word: str, case: FamilyCase, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    why = {"error": {"message": "no cats today"}, "message": "no cats today"}
    async with (
        raw_host(lambda _: json_answer(status, body), lambda _: read_as(case, word, **why)) as host,
        PiAPI(KEY, base_url=host.url, ledger=ledger, recover=0) as piapi,
    ):
        with pytest.raises(APIError, match="T1") as caught:
            await piapi.submit(case.reroll("p"), key="k")

        assert caught.value.ref == piapi.attach("T1", family=case.family).ref
        assert word in str(caught.value)
        assert ("no cats today" in str(caught.value)) == (word == "failed")
        assert (len(host.creates), len(host.reads)) == (1, 1)
        assert await ledger.find("k") is None


UNREADABLE = [
    http_answer(404, HTML),
    http_answer(502, HTML),
    http_answer(200, b""),
    json_answer(429, {"message": "slow down"}),
    json_answer(401, {"error": "Unauthorized"}),
    json_answer(200, {"task_id": "T1"}),
    json_answer(
        200, {"task_id": "another", "status": "failed", "data": {"task_id": "another", "status": "failed"}}
    ),
]


@pytest.mark.parametrize("unreadable", UNREADABLE, ids=range(len(UNREADABLE)))
async def test_a_task_that_cannot_be_read_leaves_it_unknown_and_names_it(
    unreadable: bytes, case: FamilyCase, tmp_path: Path
) -> None:
    status, body = NAMED[0]
    ledger = Ledger(tmp_path / "run.db")
    async with (
        raw_host(lambda _: json_answer(status, body), lambda _: unreadable) as host,
        PiAPI(KEY, base_url=host.url, ledger=ledger, recover=0) as piapi,
    ):
        with pytest.raises(SubmissionUnknown, match="T1") as caught:
            await piapi.submit(case.reroll("p"), key="k")

        assert caught.value.ref == piapi.attach("T1", family=case.family).ref
        assert (len(host.creates), len(host.reads)) == (1, 1)
        entry = await ledger.find("k")
        assert entry is not None
        assert entry.state is LedgerState.UNKNOWN
