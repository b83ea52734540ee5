"""The states of a submission: which follow which, and what an error leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async import APIError, Reroll, SubmissionUnknown, TransportError
from piapi_async._calls.transport import SendState
from piapi_async._submit.claim import NO_CLAIM
from piapi_async._submit.submission import NEXT_STATES, Submission, SubmissionState
from piapi_async.tasks import TaskId

QUEUED, CLAIMED, SENDING = SubmissionState.QUEUED, SubmissionState.CLAIMED, SubmissionState.SENDING
ACCEPTED, REFUSED, UNKNOWN = (
    SubmissionState.ACCEPTED,
    SubmissionState.REFUSED,
    SubmissionState.UNKNOWN,
)

REQUEST = Reroll("t0")


def submission(*steps: SubmissionState) -> Submission:
    """Return a submission that has gone through these states."""
    nobody: Any = None
    made = Submission(REQUEST, REQUEST.family, 30.0, 1_000.0, NO_CLAIM, SendState(), nobody)
    for step in steps:
        made.enter(step)
    return made


def reachable(start: SubmissionState) -> set[SubmissionState]:
    """Return all states that can come after one."""
    found: set[SubmissionState] = set()
    todo = [start]
    while todo:
        for state in NEXT_STATES[todo.pop()] - found:
            found.add(state)
            todo.append(state)
    return found


def test_every_state_can_be_reached_and_has_a_row() -> None:
    assert set(SubmissionState) == set(NEXT_STATES)
    assert set(SubmissionState) == reachable(QUEUED)


@pytest.mark.parametrize("state", [ACCEPTED, REFUSED, UNKNOWN])
def test_what_may_have_been_paid_or_was_refused_is_never_sent_again(state: SubmissionState) -> None:
    assert not {QUEUED, CLAIMED, SENDING} & reachable(state)


def test_nothing_is_sent_without_a_claim() -> None:
    assert {CLAIMED} == {state for state in SubmissionState if SENDING in NEXT_STATES[state]}


@given(st.lists(st.sampled_from(SubmissionState), max_size=8))
def test_only_a_step_of_the_table_is_made(steps: list[SubmissionState]) -> None:
    made = submission()

    for step in steps:
        before = made.state
        if step in NEXT_STATES[before]:
            made.enter(step)
            assert step is made.state
        else:
            with pytest.raises(RuntimeError, match=rf"{before.value}.*{step.value}"):
                made.enter(step)
            assert before is made.state


REFUSAL = APIError("no", status=400, message="no")
SAID_SO = SubmissionUnknown("?", request=REQUEST, at=1.0)


@pytest.mark.parametrize(
    ("error", "started_at", "end"),
    [
        (REFUSAL, 1_001.0, REFUSED),
        (TransportError("no way", sent=False), None, REFUSED),
        (asyncio.CancelledError(), None, REFUSED),
        (ValueError("to_http"), None, REFUSED),
        (SAID_SO, 1_001.0, UNKNOWN),
        (asyncio.CancelledError(), 1_001.0, UNKNOWN),
        (ValueError("parse"), 1_001.0, UNKNOWN),
    ],
)
def test_once_sending_has_begun_only_what_is_understood_is_a_refusal(
    error: BaseException, started_at: float | None, end: SubmissionState
) -> None:
    made = submission(CLAIMED, SENDING)
    made.send_state.started_at = started_at

    assert end is made.fail(error)
    assert end is made.state


def test_what_the_host_has_put_off_is_not_on_its_way() -> None:
    made = submission(CLAIMED, SENDING)
    made.send_state.started_at = 1_001.0

    made.put_off()

    assert CLAIMED is made.state
    assert not made.send_state.begun


def test_a_delivery_or_another_process_may_know_the_task_of_an_unknown_submission() -> None:
    made = submission(CLAIMED, SENDING)
    made.send_state.started_at = 1_001.0
    made.fail(SAID_SO)

    made.accept(TaskId("t1"))

    assert (ACCEPTED, "t1") == (made.state, made.task_id)


@pytest.mark.parametrize(
    ("started_at", "at", "told"), [(None, None, 1_000.0), (1_001.0, None, 1_001.0), (1_001.0, 900.0, 900.0)]
)
def test_an_unknown_submission_tells_when_its_sending_began(
    started_at: float | None, at: float | None, told: float
) -> None:
    made = submission(CLAIMED, SENDING)
    made.send_state.started_at = started_at

    error = made.unknown("lost", at=at)

    assert (told, REQUEST, None) == (error.at, error.request, error.key)
    assert "It will not be retried automatically" in str(error)
