"""Every shape an answer was seen to have, and every shape nobody has seen: a value or a `PiAPIError`, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    MidjourneyResult,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    Reroll,
    ServerError,
    Task,
    TaskState,
    UnexpectedAnswer,
)
from piapi_async._http import HTTPResponse, Request
from piapi_async.midjourney import Cancel, Fetch, MultiFetch
from piapi_async.tasks import Created, TaskId

ID = TaskId("c0d39b5a")
OTHER = TaskId("11112222")
REROLL = Reroll("6886fc4d", prompt="a cute cat")


def response(body: object, status: int = 200) -> HTTPResponse:
    return HTTPResponse(status, body if isinstance(body, bytes) else orjson.dumps(body))


def created(body: object, status: int = 200) -> TaskId | Created:
    return REROLL.parse(response(body, status))


def fetched(body: object, status: int = 200) -> Task[MidjourneyResult]:
    return Fetch(ID).parse(response(body, status))


def multi_fetched(
    body: object, *ids: TaskId
) -> Mapping[TaskId, Task[MidjourneyResult] | UnexpectedAnswer | None]:
    return MultiFetch(ids or (ID, OTHER)).parse(response(body))


def finished(**task_result: Any) -> Task[MidjourneyResult]:
    return fetched({"status": "finished", "task_result": task_result})


def pending(**task_result: Any) -> Task[MidjourneyResult]:
    return fetched({"status": "processing", "task_result": task_result})


class TestCreate:
    @for_each(
        ("body", "expected"),
        [
            ({"task_id": "c0d39b5a", "status": "success", "message": ""}, "c0d39b5a"),
            ({"task_id": "c0d39b5a"}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "status": "success", "message": None}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "status": "", "message": "queued"}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "status": "pending"}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "success": True}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "success": True, "status": "success"}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "success": None, "status": None}, "c0d39b5a"),
            ({"task_id": " c0d39b5a\n"}, "c0d39b5a"),
            ({"task_id": 42}, "42"),
            ({"task_id": "c0d39b5a", "queue": {"place": 3}, "warnings": []}, "c0d39b5a"),
            ({"task_id": "c0d39b5a", "message": {"text": "queued"}}, "c0d39b5a"),
            ({"data": {"task_id": "c0d39b5a"}}, "c0d39b5a"),
            ({"code": 200, "data": {"task_id": "c0d39b5a"}, "message": "success"}, "c0d39b5a"),
            ({"status": "success", "message": "ok", "taskId": "c0d39b5a"}, "c0d39b5a"),
            ({"job_id": "c0d39b5a"}, "c0d39b5a"),
            ({"data": {"task": {"task_id": "c0d39b5a"}}}, "c0d39b5a"),
        ],
    )
    def test_gives_the_id(self, body: object, expected: str) -> None:
        assert created(body) == expected

    @for_each("status", [200, 201, 202])
    def test_gives_the_id_with_any_good_status(self, status: int) -> None:
        assert created({"task_id": "c0d39b5a"}, status) == "c0d39b5a"

    @for_each(
        ("body", "message"),
        [
            ({"status": "failed", "message": "no credit"}, "no credit"),
            ({"status": "failed", "message": " no credit "}, "no credit"),
            ({"status": "failed"}, "failed"),
            ({"status": "failed", "message": None}, "failed"),
            ({"success": False, "message": "no credit"}, "no credit"),
            ({"success": False}, "failed"),
            ({"message": "no credit"}, "no credit"),
            ({"message": "no longer support MidJourney service"}, "no longer support MidJourney service"),
        ],
    )
    def test_that_says_no_is_a_refusal(self, body: object, message: str) -> None:
        with pytest.raises(APIError) as caught:
            created(body)

        assert (caught.value.status, caught.value.message, caught.value.request) == (200, message, REROLL)
        assert "nothing was paid" in str(caught.value)

    @for_each(
        ("body", "path"),
        [
            ({}, "task_id"),
            ({"task_id": ""}, "task_id"),
            ({"task_id": None}, "task_id"),
            ({"task_id": "  "}, "task_id"),
            ({"task_id": []}, "task_id"),
            ({"task_id": {"id": "c0d39b5a"}}, "task_id"),
            ({"status": "success", "success": True}, "task_id"),
            ({"task_id": "", "message": "no credit", "status": "success"}, "task_id"),
            ({"message": 42}, "task_id"),
            ({"message": "Task created"}, "task_id"),
            ({"id": "c0d39b5a"}, "task_id"),
            ({"data": [{"task_id": "c0d39b5a"}]}, "task_id"),
            ({"task_id": ".."}, "task_id"),
            ({"task_id": True}, "task_id"),
            ({"task_id": False}, "task_id"),
            ([], ""),
            (None, ""),
            ("c0d39b5a", ""),
            (b"", ""),
            (b"OK", ""),
            (b'{"task_id": "c0d3', ""),
        ],
    )
    def test_without_an_id_or_a_no_is_not_understood(self, body: object, path: str) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            created(body)

        assert caught.value.path == path

    @for_each(
        ("status", "message", "cls"),
        [
            (401, "Invalid API key", AuthenticationError),
            (400, "derive from origin task: parent task is outdated", ParentOutdatedError),
            (400, "derive from origin task: parent task not found", NotFoundError),
            (400, "banned prompt words: gore", InvalidRequestError),
            (400, "no available bot", RateLimitError),
            (429, "slow down", RateLimitError),
            (500, "the model failed", ServerError),
        ],
    )
    def test_of_another_status_is_the_error_of_that_status(
        self, status: int, message: str, cls: type[APIError]
    ) -> None:
        with pytest.raises(APIError) as caught:
            created({"task_id": "", "status": "failed", "message": message}, status)

        assert type(caught.value) is cls
        assert caught.value.message == message

    def test_with_an_id_is_no_id_when_the_status_is_an_errors(self) -> None:
        with pytest.raises(ServerError):
            created({"task_id": "c0d39b5a", "status": "success", "message": ""}, 500)


class TestFetch:
    @for_each(
        ("word", "state"),
        [
            ("staged", TaskState.WAITING),
            ("pending", TaskState.WAITING),
            ("retry", TaskState.WAITING),
            ("starting", TaskState.RUNNING),
            ("processing", TaskState.RUNNING),
            ("finished", TaskState.DONE),
            ("completed", TaskState.DONE),
            ("success", TaskState.DONE),
            ("failed", TaskState.FAILED),
            ("error", TaskState.FAILED),
            ("cancelled", TaskState.CANCELLED),
            ("canceled", TaskState.CANCELLED),
            ("Finished", TaskState.DONE),
            ("FAILED", TaskState.FAILED),
            ("pondering", TaskState.WAITING),
        ],
    )
    def test_keeps_the_word_and_tells_what_it_means(self, word: str, state: TaskState) -> None:
        task = fetched({"task_id": ID, "status": word})

        assert (task.status, task.state) == (word, state)

    @for_each("found", [ID, "", None])
    def test_is_of_the_task_asked_for_with_or_without_its_id(self, found: object) -> None:
        assert fetched({"task_id": found, "status": "pending"}).task_id == ID

    def test_needs_no_id(self) -> None:
        assert fetched({"status": "pending"}).task_id == ID

    def test_reads_an_id_that_came_as_a_number(self) -> None:
        task = Fetch(TaskId("42")).parse(response({"task_id": 42, "status": "pending"}))

        assert task.task_id == "42"

    def test_of_another_task_is_not_understood(self) -> None:
        with pytest.raises(UnexpectedAnswer, match=OTHER) as caught:
            fetched({"task_id": OTHER, "status": "finished"})

        assert caught.value.path == "task_id"

    @for_each("status", [None, "", {}, [], ["finished"]])
    def test_without_a_status_is_not_understood(self, status: object) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            fetched({"task_id": ID, "status": status})

        assert caught.value.path == "status"

    def test_without_a_status_at_all_is_not_understood(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            fetched({"task_id": ID})

        assert caught.value.path == "status"

    def test_of_a_pending_task_is_read_with_its_empty_result(self) -> None:
        task = fetched(
            {
                "task_id": ID,
                "status": "pending",
                "process_time": 0,
                "meta": {"task_type": "reroll", "created_at": 1709035361, "started_at": 0, "ended_at": 0},
                "task_result": {"image_url": "", "task_progress": 0, "error_messages": [], "actions": []},
            }
        )

        assert (task.progress, task.images, task.error) == (0, (), "")
        assert (task.started_at, task.ended_at) == (None, None)
        assert task.result == MidjourneyResult(task_progress=0)

    @for_each("word", ["pending", "finished", "failed", "cancelled"])
    @for_each("nothing", [None, "", [], {}])
    def test_without_a_result_gives_an_empty_one(self, word: str, nothing: object) -> None:
        task = fetched({"task_id": ID, "status": word, "task_result": nothing})

        assert (task.progress, task.images, task.error, task.result) == (None, (), "", MidjourneyResult())

    @for_each("word", ["pending", "finished", "failed"])
    def test_without_the_result_field_gives_an_empty_one(self, word: str) -> None:
        assert fetched({"task_id": ID, "status": word}).result == MidjourneyResult()

    @for_each(
        "nothing",
        [
            None,
            "",
        ],
    )
    def test_takes_null_and_empty_for_unset_in_every_field_of_the_result(self, nothing: object) -> None:
        names = MidjourneyResult.__annotations__

        assert finished(**dict.fromkeys(names, nothing)).result == MidjourneyResult()

    @for_each("nothing", [None, "", [], {}])
    def test_takes_null_and_empty_for_no_facts_of_its_life(self, nothing: object) -> None:
        task = fetched({"status": "finished", "meta": nothing})

        assert (task.task_type, task.created_at, task.started_at, task.ended_at) == ("", None, None, None)

    @for_each(
        ("wire", "expected"),
        [
            (0, 0),
            (42, 42),
            (100, 100),
            ("42", 42),
            ("42%", 42),
            (42.7, 42),
            ("", None),
            (None, None),
            ("half", None),
        ],
    )
    def test_reads_progress_however_it_is_spelt(self, wire: object, expected: int | None) -> None:
        task = pending(task_progress=wire)

        assert task.progress == expected
        assert task.result.task_progress == expected

    def test_has_no_progress_where_the_plan_does_not_tell(self) -> None:
        assert pending(image_url="").progress is None

    @for_each(
        ("field", "wire", "expected"),
        [
            ("quota_used", "3", 3),
            ("quota_used", 3.5, 3.5),
            ("credit", "0.5", 0.5),
            ("seed", 42, "42"),
            ("image_id", 7, "7"),
            ("result_message_id", 1212090453297573888, "1212090453297573888"),
            ("message", 1.5, "1.5"),
            ("need_retry", "true", True),
            ("need_retry", 1, True),
            ("need_retry", 0, False),
            ("need_retry", "false", False),
            ("need_retry", "0", False),
            ("message", None, ""),
            ("seed", None, ""),
            ("image_url", None, ""),
            ("actions", "reroll", ("reroll",)),
            ("actions", [1, "reroll"], ("1", "reroll")),
            ("error_messages", "careful", ("careful",)),
        ],
    )
    def test_reads_numbers_as_texts_and_texts_as_numbers(
        self, field: str, wire: object, expected: object
    ) -> None:
        assert getattr(finished(**{field: wire}).result, field) == expected

    def test_ignores_what_it_does_not_know(self) -> None:
        task = fetched(
            {
                "status": "finished",
                "model": {"name": "v9"},
                "meta": {"task_type": "reroll", "gpu": ["h100"]},
                "task_result": {"image_url": "https://a.b/c.png", "video_urls": [{"url": "x"}]},
            }
        )

        assert (task.task_type, task.images) == ("reroll", ("https://a.b/c.png",))

    @for_each(
        "meta",
        [
            {"created_at": {}},
            {"created_at": []},
            {"task_type": []},
            "text",
            42,
            [1],
            True,
        ],
    )
    def test_does_not_fail_for_facts_that_nothing_hangs_on(self, meta: object) -> None:
        task = fetched({"status": "finished", "meta": meta})

        assert task.created_at is None

    @for_each("created_at", ["1709035361", 1709035361.0, "1709035361.0"])
    def test_reads_times_that_came_as_texts(self, created_at: object) -> None:
        task = fetched({"status": "pending", "meta": {"created_at": created_at}})

        assert task.created_at is not None
        assert task.created_at.isoformat() == "2024-02-27T12:02:41+00:00"

    @for_each("time", [0, -1, None, "", "soon", "2024-02-27T12:02:41Z", 1e300, 10**18])
    def test_has_no_time_where_the_wire_has_none(self, time: object) -> None:
        task = fetched(
            {"status": "pending", "meta": {"created_at": time, "started_at": time, "ended_at": time}}
        )

        assert (task.created_at, task.started_at, task.ended_at) == (None, None, None)

    @for_each(
        "body",
        [
            {"message": "task not found"},
            {"status": "failed", "message": "task not found"},
            {"message": "no such task"},
        ],
    )
    def test_that_refuses_with_a_good_status_is_a_refusal_all_the_same(self, body: object) -> None:
        with pytest.raises(NotFoundError) as caught:
            fetched(body)

        assert caught.value.status == 200

    @for_each("status", [400, 404, 422])
    def test_of_an_unknown_task_is_not_found(self, status: int) -> None:
        with pytest.raises(NotFoundError, match=ID):
            fetched({"message": "task not found"}, status)


class TestFailedTask:
    @for_each(
        ("body", "expected"),
        [
            ({"task_result": {"error_messages": ["banned prompt"]}}, "banned prompt"),
            ({"task_result": {"error_messages": ["one", "two"]}}, "one; two"),
            ({"task_result": {"error_messages": ["one", " one ", "", None, "two"]}}, "one; two"),
            ({"task_result": {"error_messages": "banned prompt"}}, "banned prompt"),
            ({"task_result": {"error_messages": [], "message": "banned prompt"}}, "banned prompt"),
            ({"task_result": {"error_messages": None}, "message": "banned prompt"}, "banned prompt"),
            (
                {"task_result": {"error_messages": ["one"], "message": "two"}, "message": "three"},
                "one; two; three",
            ),
            ({"task_result": {"error_messages": ["one"], "message": "one"}, "message": "one"}, "one"),
            ({"task_result": {"error_messages": []}}, ""),
            ({"task_result": {}}, ""),
            ({"task_result": None}, ""),
            ({"meta": {}}, ""),
        ],
    )
    def test_gives_the_hosts_reasons_wherever_they_stand(self, body: dict[str, Any], expected: str) -> None:
        task = fetched({"task_id": ID, "status": "failed", **body})

        assert task.error == expected

    @for_each("word", ["pending", "processing", "finished", "cancelled"])
    def test_is_the_only_kind_with_an_error(self, word: str) -> None:
        task = fetched(
            {"task_id": ID, "status": word, "message": "", "task_result": {"error_messages": ["a warning"]}}
        )

        assert task.error == ""
        assert task.result.error_messages == ("a warning",)

    def test_with_nothing_but_a_reason_is_a_task_when_it_has_its_id(self) -> None:
        task = fetched({"task_id": ID, "status": "failed", "message": "no luck"})

        assert (task.state, task.error) == (TaskState.FAILED, "no luck")


class TestMultiFetch:
    def test_gives_each_task_asked_for(self) -> None:
        found = multi_fetched(
            {
                "data": {
                    ID: {"task_id": ID, "status": "finished"},
                    OTHER: {"task_id": OTHER, "status": "pending"},
                }
            }
        )

        states = {task_id: task.state for task_id, task in found.items() if isinstance(task, Task)}
        assert states == {ID: TaskState.DONE, OTHER: TaskState.WAITING}

    def test_gives_none_for_null_and_for_what_is_missing(self) -> None:
        assert multi_fetched({"data": {ID: None}}) == {ID: None, OTHER: None}

    def test_gives_nothing_that_was_not_asked_for(self) -> None:
        assert list(multi_fetched({"data": {OTHER: {"status": "pending"}}}, ID)) == [ID]

    def test_keeps_the_order_of_the_question(self) -> None:
        assert list(multi_fetched({"data": {OTHER: None, ID: None}}, ID, OTHER)) == [ID, OTHER]

    @for_each(
        ("entry", "path"),
        [
            ("finished", f"data.{ID}"),
            ([], f"data.{ID}"),
            (42, f"data.{ID}"),
            ({}, f"data.{ID}.status"),
            ({"status": []}, f"data.{ID}.status"),
            ({"status": "pending", "task_id": OTHER}, f"data.{ID}.task_id"),
        ],
    )
    def test_of_one_unreadable_entry_names_its_place_and_keeps_its_neighbours(
        self, entry: object, path: str
    ) -> None:
        found = multi_fetched({"data": {ID: entry, OTHER: {"status": "pending"}}})

        error, neighbour = found[ID], found[OTHER]
        assert isinstance(error, UnexpectedAnswer)
        assert error.path == path
        assert isinstance(neighbour, Task)

    @for_each("data", [[], "text", 42, None, True])
    def test_without_an_object_of_tasks_is_not_understood(self, data: object) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            multi_fetched({"data": data})

        assert caught.value.path == "data"

    @for_each("body", [{}, {"status": "success"}, {"tasks": {}}, {"message": ""}])
    def test_without_data_is_not_understood(self, body: object) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            multi_fetched(body)

        assert caught.value.path == "data"

    def test_that_refuses_with_a_good_status_is_a_refusal(self) -> None:
        with pytest.raises(APIError) as caught:
            multi_fetched({"message": "too many task ids"})

        assert caught.value.message == "too many task ids"

    @for_each("status", [404, 405, 501])
    def test_of_a_host_that_does_not_serve_it_is_a_refusal(self, status: int) -> None:
        with pytest.raises(APIError) as caught:
            MultiFetch((ID,)).parse(response(b"404 page not found", status))

        assert caught.value.status == status


class TestCancel:
    @for_each(
        "body",
        [
            {"status": "success", "message": ""},
            {},
            {"success": True},
            {"message": "cancelled 1 task"},
            {"status": None},
        ],
    )
    def test_that_was_accepted_gives_nothing(self, body: object) -> None:
        Cancel((ID,)).parse(response(body))

    @for_each(
        ("body", "message"),
        [
            ({"status": "failed", "message": "already started"}, "already started"),
            ({"status": "failed"}, "failed"),
            ({"success": False, "message": None}, "failed"),
        ],
    )
    def test_that_was_refused_is_an_error(self, body: object, message: str) -> None:
        with pytest.raises(APIError) as caught:
            Cancel((ID,)).parse(response(body))

        assert caught.value.message == message

    @for_each("body", [b"", b"OK", b"[]", b"null"])
    def test_that_holds_no_object_is_not_understood(self, body: bytes) -> None:
        with pytest.raises(UnexpectedAnswer):
            Cancel((ID,)).parse(response(body))


class TestRaw:
    def test_is_the_json_as_received(self) -> None:
        body = {
            "status": "finished",
            "task_result": {"image_urls": ["https://a.b/1.png"], "task_progress": "99%"},
        }

        assert fetched(body).raw == body

    def test_is_not_changed_by_reading_it(self) -> None:
        body = {"status": "failed", "task_result": {"error_messages": [1, None, "x"], "image_urls": [None]}}
        task = fetched(body)

        assert task.result.error_messages == ("1", "", "x")
        assert task.raw == body

    def test_of_one_among_many_is_its_own_entry(self) -> None:
        entry = {"status": "pending", "task_result": {"task_progress": 5}}
        task = multi_fetched({"data": {ID: entry}}, ID)[ID]

        assert isinstance(task, Task)
        assert task.raw == entry


SECRET = "hush-hush"


ECHO: dict[str, Any] = {
    "task_id": ID,
    "status": "failed",
    "meta": {"task_request": {"webhook_endpoint": "https://bot.example/", "webhook_secret": SECRET}},
    "task_result": {"error_messages": ["no luck"]},
}


class TestSecrets:
    @for_each("separators", [orjson.OPT_INDENT_2, 0], ids=["spaced", "tight"])
    def test_are_in_no_part_of_a_task(self, separators: int) -> None:
        task = Fetch(ID).parse(HTTPResponse(200, orjson.dumps(ECHO, option=separators)))

        assert SECRET not in repr((task, task.raw, task.result, task.error))
        assert task.raw["meta"]["task_request"]["webhook_secret"] == ""

    def test_are_in_no_task_of_many(self) -> None:
        assert SECRET not in repr(
            [
                getattr(task, "raw", None)
                for task in multi_fetched({"data": {ID: ECHO, OTHER: {**ECHO, "task_id": OTHER}}}).values()
            ]
        )

    @for_each("status", [200, 302, 400, 401, 404, 429, 500])
    @for_each("broken", ["status", "task_id", "task_result", "everything"])
    def test_are_in_no_error(self, status: int, broken: str) -> None:
        body: Any = copy.deepcopy(ECHO)
        if broken == "everything":
            body = orjson.dumps(body) + b"</html>"
        else:
            body[broken] = {"image_urls": [{"echo": {"webhook_secret": SECRET}}]}

        try:
            task = fetched(body, status)
        except PiAPIError as error:
            assert SECRET not in f"{error} {error!r} {vars(error)}"  # noqa: PT017 - what is no error is seen below
        else:
            assert broken in {"task_id", "task_result"}
            assert SECRET not in f"{task} {task.raw} {task.result}"

    @for_each("status", [200, 400, 500])
    def test_of_a_request_are_not_in_its_error(self, status: int) -> None:
        request = Reroll("6886fc4d", webhook_endpoint="https://bot.example/", webhook_secret=SECRET)

        with pytest.raises(PiAPIError) as caught:
            request.parse(response({"message": "bad", "task_request": {"webhook_secret": SECRET}}, status))

        assert SECRET not in f"{caught.value} {caught.value!r} {vars(caught.value)}"

    def test_are_in_no_error_about_an_answer_that_is_a_list(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            fetched([ECHO])

        assert SECRET not in f"{caught.value} {vars(caught.value)}"

    def test_are_in_no_error_about_an_answer_that_was_cut_off_within_them(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            fetched(b'{"meta": {"task_request": {"webhook_secret": "hush-hu')

        assert "hush" not in f"{caught.value} {vars(caught.value)}"


# -- any answer whatever ------------------------------------------------------------------------------------------

WIRE_NAMES = [
    *("task_id", "status", "success", "message", "meta", "task_result", "data", ID, OTHER, "webhook_secret"),
    *MidjourneyResult.__annotations__,
    *("task_type", "created_at", "started_at", "ended_at"),
]
WIRE_WORDS = [
    *("pending", "processing", "finished", "failed", "cancelled", "success", "task not found", "timeout"),
    *("", "0", "42", "42%", "nan", "inf", "1e400", "true", ID, "https://a.b/1.png"),
]

texts = st.sampled_from(WIRE_WORDS) | st.text(max_size=6)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
any_json = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(WIRE_NAMES) | texts, children, max_size=5)
    ),
    max_leaves=12,
)
result_objects = st.dictionaries(
    st.sampled_from(list(MidjourneyResult.__annotations__)), any_json, max_size=6
)
metas = st.dictionaries(st.sampled_from(["task_type", "created_at", "started_at", "ended_at"]), any_json)

# Answers that get past the first checks, so that what lies behind is reached.
answers = st.fixed_dictionaries(
    {"status": texts},
    optional={
        "task_id": st.just(ID) | any_json,
        "message": any_json,
        "success": any_json,
        "meta": metas | any_json,
        "task_result": result_objects | any_json,
    },
)
bodies = st.binary(max_size=60) | (answers | any_json).map(orjson.dumps)
many = st.fixed_dictionaries({"data": st.fixed_dictionaries({}, optional={ID: answers, OTHER: answers})})
statuses = st.just(200) | st.sampled_from(
    [0, 201, 204, 301, 400, 401, 403, 404, 408, 422, 429, 500, 502, 503, 599, 999]
)
requests = st.sampled_from([REROLL, Fetch(ID), MultiFetch((ID, OTHER)), Cancel((ID,))])


def look_at(task: Task[MidjourneyResult]) -> None:
    """Use every public attribute of a task."""
    assert task.task_id in {ID, OTHER}
    assert isinstance(task.state, TaskState)
    assert task.progress is None or type(task.progress) is int
    assert all(type(text) is str for text in (task.status, task.error, task.task_type, *task.images))
    assert all(
        at is None or at.utcoffset() is not None for at in (task.created_at, task.started_at, task.ended_at)
    )
    assert task.task_id in repr(task)
    assert isinstance(hash(task), int)
    assert isinstance(task.raw, dict)
    try:
        assert isinstance(task.result, MidjourneyResult)
    except UnexpectedAnswer:
        assert not task.state.terminal


def parse(request: Request[Any], answer: HTTPResponse) -> None:
    """Parse any answer: anything but a value of the right kind or a `PiAPIError` is let through, and fails the test."""
    try:
        value = request.parse(answer)
    except PiAPIError as error:
        assert str(error)  # noqa: PT017 - which requests are answered is drawn
        return
    if isinstance(request, Reroll):
        assert type(value) is str
        assert value.strip()
    elif isinstance(request, Cancel):
        assert value is None
    else:
        found = list(value.values()) if isinstance(request, MultiFetch) else [value]
        for task in found:
            assert task is None or isinstance(task, (Task, UnexpectedAnswer))
            if isinstance(task, Task):
                look_at(task)


class TestAnyAnswerWhatever:
    @given(request_=requests, status=statuses, body=st.binary(max_size=100))
    def test_of_any_bytes_gives_a_value_or_a_piapi_error(
        self, request_: Request[Any], status: int, body: bytes
    ) -> None:
        parse(request_, HTTPResponse(status, body))

    @given(request_=requests, status=statuses, body=bodies)
    def test_gives_a_value_or_a_piapi_error(self, request_: Request[Any], status: int, body: bytes) -> None:
        parse(request_, HTTPResponse(status, body))

    @given(answers)
    def test_about_one_task_gives_a_value_or_a_piapi_error(self, answer: dict[str, Any]) -> None:
        parse(Fetch(ID), response(answer))

    @given(many)
    def test_about_many_tasks_gives_a_value_or_a_piapi_error(self, answer: dict[str, Any]) -> None:
        parse(MultiFetch((ID, OTHER)), response(answer))

    @given(st.integers(0, len(orjson.dumps(ECHO)) - 1))
    def test_that_was_cut_off_anywhere_is_not_understood(self, cut: int) -> None:
        with pytest.raises(UnexpectedAnswer):
            fetched(orjson.dumps(ECHO)[:cut])

    @for_each("depth", [100, 250, 300, 1000, 100_000])
    @for_each("place", ['{"status":"finished","task_result":{"actions":%s}}', '{"task_id":%s}', "%s"])
    def test_however_deep_gives_a_task_or_a_piapi_error(self, depth: int, place: str) -> None:
        body = (place % ("[" * depth + "]" * depth)).encode()

        for request in (REROLL, Fetch(ID), MultiFetch((ID,))):
            try:
                task = request.parse(HTTPResponse(200, body))
            except PiAPIError:
                continue
            assert isinstance(task, Task)
            assert task.result.actions == ()

    @given(answer=answers, secret=st.text("abcdef", min_size=12))
    @example(answer={"status": "finished"}, secret="a" * 12)
    def test_never_shows_a_secret(self, answer: dict[str, Any], secret: str) -> None:
        answer["meta"] = {"task_request": {"webhook_secret": secret}, "echo": [{"webhook_secret": secret}]}

        try:
            task = fetched(answer)
        except PiAPIError as error:
            shown = f"{error!r} {vars(error)}"
        else:
            shown = f"{task!r} {task.raw} {task.error}"

        assert secret not in shown
