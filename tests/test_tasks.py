"""What a task is, whichever API runs it."""

# ruff: noqa: S301 - what is unpickled here was pickled here
from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import LEGACY, MidjourneyResult, Task, TaskRef, TaskState
from piapi_async._http import HTTPResponse
from piapi_async._protocol.reading import classify, from_unix, is_known_status
from piapi_async.errors import end_error
from piapi_async.midjourney import Fetch
from piapi_async.tasks import TaskId, check_task_id

WORDS = {
    **dict.fromkeys(["staged", "pending", "retry", "queued", "cancelling"], TaskState.WAITING),
    **dict.fromkeys(["starting", "processing", "running", "in_progress"], TaskState.RUNNING),
    **dict.fromkeys(
        ["succeeded", "succeed", "success", "complete", "completed", "finished", "done"], TaskState.DONE
    ),
    **dict.fromkeys(
        ["failure", "fail", "failed", "error", "timeout", "timed_out", "expired", "aborted", "rejected"],
        TaskState.FAILED,
    ),
    **dict.fromkeys(["cancelled", "canceled"], TaskState.CANCELLED),
}

COPIERS: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda value: pickle.loads(pickle.dumps(value)),
]
each_copier = for_each("copied", COPIERS, ids=["copy", "deepcopy", "pickle"])


def read(status: str = "finished", task_id: str = "c0d39b5a", **fields: Any) -> Task[MidjourneyResult]:
    return Fetch(TaskId(task_id)).parse(HTTPResponse(200, orjson.dumps({"status": status, **fields})))


class TestStates:
    def test_are_the_five_documented_ones(self) -> None:
        assert [state.name for state in TaskState] == ["WAITING", "RUNNING", "DONE", "FAILED", "CANCELLED"]

    @for_each(
        ("state", "expected"),
        [
            (TaskState.WAITING, False),
            (TaskState.RUNNING, False),
            (TaskState.DONE, True),
            (TaskState.FAILED, True),
            (TaskState.CANCELLED, True),
        ],
    )
    def test_tell_whether_anything_more_will_happen(self, state: TaskState, *, expected: bool) -> None:
        assert state.terminal is expected


class TestClassify:
    @for_each("spell", [str.lower, str.upper, str.title, str.swapcase, "  {}\n".format])
    @for_each(("word", "state"), WORDS.items())
    def test_knows_the_words_in_any_case(
        self, word: str, state: TaskState, spell: Callable[[str], str]
    ) -> None:
        assert classify(spell(word)) is state
        assert is_known_status(spell(word))

    @for_each("word", ["timed out", "Timed-Out", "TIME OUT"])
    def test_knows_words_of_two_parts_however_they_are_joined(self, word: str) -> None:
        assert classify(word) is TaskState.FAILED

    @for_each("word", ["", "pondering", "finished?", "undone", "not finished", "🤔"])
    def test_takes_a_word_nobody_knows_for_still_waiting(self, word: str) -> None:
        assert classify(word) is TaskState.WAITING
        assert not is_known_status(word)

    @given(st.text() | st.sampled_from(list(WORDS)))
    def test_gives_a_state_for_any_text(self, word: str) -> None:
        assert is_known_status(word) or classify(word) is TaskState.WAITING

    @given(st.text())
    def test_ends_no_task_by_a_word_it_does_not_know(self, word: str) -> None:
        assert is_known_status(word) or not classify(word).terminal


class TestTask:
    def test_is_frozen(self) -> None:
        task = read()

        for name in ("status", "state", "progress", "images", "raw", "result"):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(task, name, None)

    @each_copier
    @for_each("looked_at", [False, True], ids=["untouched", "looked at"])
    def test_keeps_all_it_says_when_copied(self, copied: Callable[[Any], Any], *, looked_at: bool) -> None:
        task = read(
            meta={"task_type": "reroll", "created_at": 1709035361},
            task_result={"image_urls": ["https://a.b/1.png"], "task_progress": 100, "seed": "42"},
        )
        if looked_at:
            assert task.result.seed == "42"
            assert task.task_type == "reroll"
        twin = copied(task)

        assert twin == task
        assert (twin.raw, twin.result, twin.images) == (task.raw, task.result, task.images)
        assert (twin.task_type, twin.created_at) == ("reroll", datetime(2024, 2, 27, 12, 2, 41, tzinfo=UTC))

    @each_copier
    def test_of_every_state_can_be_copied(self, copied: Callable[[Any], Any]) -> None:
        for word, state in WORDS.items():
            assert copied(read(word)).state is state

    def test_reads_its_result_once(self) -> None:
        task = read(task_result={"image_urls": ["https://a.b/1.png"]})

        assert task.result is task.result

    def test_equals_another_look_that_saw_the_same(self) -> None:
        one, other = read(process_time=1), read(process_time=2)

        assert one == other
        assert hash(one) == hash(other)

    @for_each(
        "other",
        [
            read("failed"),
            read("completed"),
            read(task_id="11112222"),
            read(task_result={"task_progress": 5}),
            read(task_result={"image_url": "https://a.b/1.png"}),
        ],
    )
    def test_differs_from_a_look_that_saw_something_else(self, other: Task[MidjourneyResult]) -> None:
        assert read() != other

    def test_goes_by_names_only(self) -> None:
        cls: Any = Task

        with pytest.raises(TypeError, match="positional"):
            cls("c0d39b5a", "finished")


ORIGIN = "https://api.piapi.ai"
refs = st.builds(TaskRef, st.text(min_size=1), st.text(min_size=1), st.text(min_size=1).map(TaskId))


class TestEndError:
    @for_each(
        ("answer", "said"),
        [
            (read("failed", task_result={"error_messages": ["no luck"]}), "Task c0d39b5a failed: no luck."),
            (read("failed"), "Task c0d39b5a failed: the host gives no reason."),
            (read("cancelled"), "Task c0d39b5a was cancelled."),
        ],
    )
    def test_names_the_task_and_why(self, answer: Task[MidjourneyResult], said: str) -> None:
        error = end_error(answer)

        assert error is not None
        assert (str(error), error.task) == (said, answer)

    @for_each("word", ["staged", "processing", "finished", "pondering"])
    def test_is_none_for_a_task_that_is_done_or_goes_on(self, word: str) -> None:
        assert end_error(read(word)) is None


class TestTaskRef:
    ref = TaskRef(ORIGIN, "legacy", TaskId("c0d39b5a"))

    def test_prints_as_its_id(self) -> None:
        assert str(self.ref) == "c0d39b5a"

    def test_is_written_as_one_line_of_json(self) -> None:
        assert (
            self.ref.to_json() == '{"origin":"https://api.piapi.ai","family":"legacy","task_id":"c0d39b5a"}'
        )

    @given(refs)
    def test_is_the_same_after_a_round_trip_through_json(self, ref: TaskRef) -> None:
        assert TaskRef.from_json(ref.to_json()) == ref
        assert TaskRef.from_json(ref.to_json().encode()) == ref

    @given(refs)
    def test_is_always_one_line(self, ref: TaskRef) -> None:
        assert "\n" not in ref.to_json()

    @given(refs)
    def test_is_the_same_after_pickling(self, ref: TaskRef) -> None:
        twin = pickle.loads(pickle.dumps(ref))

        assert twin == ref
        assert hash(twin) == hash(ref)

    def test_ignores_fields_that_a_later_version_may_write(self) -> None:
        text = '{"task_id": "c0d39b5a", "family": "legacy", "origin": "https://api.piapi.ai", "since": 5}'

        assert TaskRef.from_json(text) == self.ref

    @for_each(
        "text",
        [
            "",
            "c0d39b5a",
            '"c0d39b5a"',
            "null",
            "42",
            "[]",
            "{}",
            '["https://api.piapi.ai", "legacy", "c0d39b5a"]',
            '{"origin": "https://api.piapi.ai", "family": "legacy"}',
            '{"origin": "https://api.piapi.ai", "family": "legacy", "task_id": ""}',
            '{"origin": "https://api.piapi.ai", "family": "legacy", "task_id": null}',
            '{"origin": "https://api.piapi.ai", "family": "legacy", "task_id": 42}',
            '{"origin": "https://api.piapi.ai", "family": ["legacy"], "task_id": "c0d39b5a"}',
            '{"origin": "", "family": "legacy", "task_id": "c0d39b5a"}',
            b"\xff\xfe",
        ],
    )
    def test_is_not_made_from_anything_else(self, text: str | bytes) -> None:
        with pytest.raises(ValueError, match="not a TaskRef"):
            TaskRef.from_json(text)

    @given(st.text() | st.binary())
    def test_is_made_from_any_text_or_refused_with_a_value_error(self, text: str | bytes) -> None:
        with pytest.raises(ValueError, match="not a TaskRef"):
            TaskRef.from_json(text)

    def test_of_an_id_that_no_json_can_carry_is_refused(self) -> None:
        with pytest.raises(ValueError, match="task id"):
            check_task_id("\ud83d")

    def test_is_frozen(self) -> None:
        ref: Any = self.ref

        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            ref.task_id = "other"

    def test_holds_nothing_but_where_the_task_is(self) -> None:
        assert [field.name for field in attrs.fields(TaskRef)] == ["origin", "family", "task_id"]


class TestTaskId:
    @for_each("value", ["c0d39b5a", " c0d39b5a\n"])
    def test_is_the_users_text_stripped(self, value: str) -> None:
        assert check_task_id(value) == "c0d39b5a"

    @for_each("value", ["", "  ", "\n"])
    def test_is_not_empty(self, value: str) -> None:
        with pytest.raises(ValueError, match="the task id is empty"):
            check_task_id(value)

    @for_each("value", [None, 42, b"c0d39b5a", ["c0d39b5a"]])
    def test_is_a_text(self, value: Any) -> None:
        with pytest.raises(TypeError, match="a task id must be a str, not "):
            check_task_id(value)


class TestFamily:
    def test_is_known_by_its_name(self) -> None:
        assert repr(LEGACY) == "Family(name='legacy')"

    def test_is_itself_and_no_other_of_the_same_name(self) -> None:
        assert attrs.evolve(LEGACY) != LEGACY

    def test_can_be_a_key(self) -> None:
        assert {LEGACY: 1}[LEGACY] == 1


class TestFromUnix:
    @for_each(
        ("seconds", "expected"),
        [
            (1709035361, datetime(2024, 2, 27, 12, 2, 41, tzinfo=UTC)),
            (1709035361.5, datetime(2024, 2, 27, 12, 2, 41, 500_000, tzinfo=UTC)),
            (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ],
    )
    def test_is_an_aware_time(self, seconds: float, expected: datetime) -> None:
        assert from_unix(seconds) == expected

    @for_each("seconds", [None, 0, 0.0, -1, -62135596800, 1e12, 1e300, 10**400, float("inf"), float("nan")])
    def test_is_none_for_what_is_no_time(self, seconds: float | None) -> None:
        assert from_unix(seconds) is None

    @given(st.integers() | st.floats(allow_nan=True, allow_infinity=True))
    def test_gives_an_aware_time_or_none_for_any_number(self, seconds: float) -> None:
        time = from_unix(seconds)

        assert time is None or time.tzinfo is UTC

    @given(st.integers(1, 4_102_444_800))
    def test_is_that_second(self, seconds: int) -> None:
        time = from_unix(seconds)

        assert time is not None
        assert time.timestamp() == seconds
