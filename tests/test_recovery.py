"""Which task of the history belongs to which lost submission."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from piapi_async._protocol.family import Trace
from piapi_async._submit.recovery import (
    LONG_TEXT,
    Assignment,
    Found,
    Lost,
    assign,
    body_as_sent,
    covers,
    digest_long_texts,
    may_belong,
    why_never,
)

MODEL, TASK_TYPE = "Qubico/flux1-schnell", "txt2img"
NONCE = "n0nce"
MASK = "iVBORw0KGgo=" * 100
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=LONG_TEXT + 20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def lost(key: str = "A", *, at: float = 1000.0, nonce: str = "", config: Any = None, **inputs: Any) -> Lost:
    body = {"model": MODEL, "task_type": TASK_TYPE, "input": {"prompt": "a cat", **inputs}}
    if config is not None:
        body["config"] = config
    return Lost(key, body_as_sent(body), at, at + 30.0, nonce)


def found(
    task_id: str = "T1", *, at: float = 1001.0, nonce: str = "", key_id: str = "", **changes: Any
) -> Found:
    trace = Trace(model=MODEL, task_type=TASK_TYPE, input={"prompt": "a cat", "steps": 4}, created_at=at)
    return Found(task_id, evolve(trace, **changes), at, nonce, key_id)


def assigned(members: list[Lost], tasks: list[Found], **options: Any) -> Assignment:
    return assign(members, tasks, **{"wanted": frozenset(one.key for one in members), **options})


class TestCovers:
    @given(JSON)
    def test_what_was_sent_and_is_shown_as_it_was(self, value: Any) -> None:
        assert covers(value, digest_long_texts(value))

    @given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), JSON)
    def test_what_is_shown_with_more_beside_it(self, sent: dict[str, Any], extra: Any) -> None:
        assert covers({"a default": extra, **sent}, digest_long_texts(sent))

    @pytest.mark.parametrize(
        ("shown", "sent"),
        [
            ({}, {"prompt": "a cat"}),
            ({"prompt": "a dog"}, {"prompt": "a cat"}),
            ({"prompt": None}, {"prompt": "a cat"}),
            ({"steps": "4"}, {"steps": 4}),
            ({"steps": True}, {"steps": 1}),
            ({"steps": 1}, {"steps": True}),
            ({"links": ["a", "b"]}, {"links": ["a"]}),
            ({"links": ["b", "a"]}, {"links": ["a", "b"]}),
            ({"links": "a"}, {"links": ["a"]}),
            ({"mask": MASK + "x"}, {"mask": MASK}),
            ({"camera": 1}, {"camera": {"zoom": 1}}),
            ({"negative": "dogs"}, {"negative": ""}),
        ],
    )
    def test_nothing_else(self, shown: Any, sent: Any) -> None:
        assert not covers(shown, digest_long_texts(sent))

    def test_numbers_by_their_value_long_texts_by_their_digest_and_nothing_for_what_is_empty(self) -> None:
        digested = digest_long_texts({"mask": MASK, "steps": 5, "negative": ""})

        assert MASK not in str(digested)
        assert covers({"mask": MASK, "steps": 5.0}, digested)


class TestWhetherATaskMayBelongToASubmission:
    def test_it_may_if_all_is_as_it_was_sent(self) -> None:
        assert may_belong(found(), lost())

    @pytest.mark.parametrize(
        "other",
        [
            found(input={"prompt": "a dog"}),
            found(model="Qubico/flux1-dev"),
            found(task_type="img2img"),
            found(input=None),
            found(endpoint="https://somebody.example.org/"),
            found(at=999.0),
            found(at=1031.0),
            found(created_at=999.0),
            evolve(found(created_at=None), listed_at=None),
        ],
    )
    def test_it_may_not_otherwise(self, other: Found) -> None:
        assert not may_belong(other, lost())

    def test_our_nonce_proves_it_whatever_else_is_shown(self) -> None:
        assert may_belong(found(input=None, at=5.0, nonce=NONCE), lost(nonce=NONCE))

    def test_another_key_or_pool_excludes_it(self) -> None:
        assert not may_belong(found(key_id="7"), lost(), api_key_id="8")
        assert may_belong(found(key_id="7"), lost(), api_key_id="7")
        assert may_belong(found(key_id="7"), lost())
        assert not may_belong(found(service_mode="public"), lost(config={"service_mode": "private"}))

    def test_an_endpoint_of_the_callers_own_is_compared(self) -> None:
        config = {"webhook_config": {"endpoint": "https://mine.example.org/", "secret": "s"}}

        assert may_belong(found(endpoint="https://mine.example.org/"), lost(config=config))
        assert not may_belong(found(endpoint="https://other.example.org/"), lost(config=config))

    @pytest.mark.parametrize(
        "body", [{}, {"model": MODEL, "task_type": TASK_TYPE, "input": {}}, {"input": {"a": 1}}]
    )
    def test_a_body_that_says_too_little_finds_nothing(self, body: dict[str, Any]) -> None:
        nameless = Lost("A", body_as_sent(body), 0.0, 9000.0)
        assert not may_belong(found(), nameless)
        assert "too little" in why_never(nameless)

    def test_no_later_look_will_tell_where_the_host_shows_no_inputs(self) -> None:
        hidden, shown = found(input=None), found("T2")
        assert "none of 2" in why_never(lost(), [hidden, found("T3", input={})])
        assert not why_never(lost(), [hidden, shown])

    def test_a_later_look_may_tell_where_nothing_says_that_it_will_not(self) -> None:
        assert not why_never(lost())
        assert not why_never(lost(nonce=NONCE), [found(input=None)])
        others = {"task_type": "img2img"}, {"at": 5.0}, {"endpoint": "https://somebody.example.org/"}
        for other in others:
            assert not why_never(lost(), [found(input=None, **other)])
        assert not why_never(lost(), [evolve(found(input=None), has_failed=True)])


class TestAssigning:
    def test_equal_submissions_get_different_tasks(self) -> None:
        taken = assigned([lost("A"), lost("B")], [found("T1"), found("T2", at=1002.0)]).taken

        assert {"A", "B"} == taken.keys()
        assert {"T1", "T2"} == set(taken.values())

    def test_one_task_of_two_equal_submissions_goes_to_the_one_that_is_looked_for(self) -> None:
        assert {"B": "T1"} == assigned([lost("A"), lost("B")], [found()], wanted=frozenset("B")).taken

    def test_nothing_while_one_is_being_sent_that_a_task_may_belong_to(self) -> None:
        assert {} == assigned([lost("A")], [found()], sending=[lost("B")]).taken
        assert {"A": "T1"} == assigned([lost("A")], [found()], sending=[lost("B", at=1002.0)]).taken
        assert {"A": "T1"} == assigned([lost("A")], [found()], sending=[lost("B", prompt="a dog")]).taken

    def test_nothing_where_there_are_more_tasks_than_submissions(self) -> None:
        came = assigned([lost(), lost("B", at=9000.0)], [found("T1"), found("T2")])

        assert {} == came.taken
        assert {"A": ("T1", "T2")} == came.ambiguous

    def test_what_is_unclear_elsewhere_does_no_harm(self) -> None:
        tasks = [found("T1"), found("T2"), found("T3", at=9001.0)]

        assert {"B": "T3"} == assigned([lost(), lost("B", at=9000.0)], tasks).taken

    def test_what_asks_for_more_comes_first(self) -> None:
        """A host shows its defaults, so a task that was asked for with steps looks like one that was not."""
        plain, steps = lost("A"), lost("B", steps=4)

        assert {"B": "T1"} == assigned([plain, steps], [found("T1")]).taken
        assert {} == assigned([plain], [found("T1")], sending=[steps]).taken

    def test_a_proved_task_does_not_count_for_others(self) -> None:
        came = assigned([lost("A", nonce=NONCE), lost("B")], [found("T1", nonce=NONCE), found("T2")])

        assert {"A": "T1", "B": "T2"} == came.taken

    @pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.storm)])
    def test_many_equal_ones(self, count: int) -> None:
        members = [lost(str(number)) for number in range(count)]
        tasks = [found(f"T{number}") for number in range(count - 1)]

        assert len(assigned(members, tasks).taken) == count - 1

    @given(st.lists(st.integers(0, 100), max_size=6), st.lists(st.integers(0, 130), max_size=6))
    def test_never_gives_a_task_twice_nor_one_outside_of_the_window(
        self, starts: list[int], made: list[int]
    ) -> None:
        members = {str(number): lost(str(number), at=float(start)) for number, start in enumerate(starts)}
        tasks = {f"T{number}": found(f"T{number}", at=float(at)) for number, at in enumerate(made)}

        taken = assigned(list(members.values()), list(tasks.values())).taken

        assert len(set(taken.values())) == len(taken)
        assert all(may_belong(tasks[task_id], members[key]) for key, task_id in taken.items())

    @given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.randoms())
    def test_finds_every_task_where_each_submission_made_one(self, starts: list[int], random: Any) -> None:
        members = [lost(str(number), at=float(start)) for number, start in enumerate(starts)]
        tasks = [found(f"T{number}", at=start + random.uniform(0, 30)) for number, start in enumerate(starts)]
        random.shuffle(tasks)

        assert len(assigned(members, tasks).taken) == len(starts)

    def test_a_long_chain_of_which_all_members_have_to_move(self) -> None:
        members = [lost(f"{number:04}", at=float(number), steps=4) for number in range(1_200)]
        members = [evolve(one, latest=one.earliest + 1.0) for one in members]
        last = evolve(lost("last"), earliest=-1.0, latest=0.0)  # it asks for less, so it comes last
        tasks = [found(f"T{number:04}", at=float(number)) for number in range(1_201)]

        taken = assigned([last, *members], tasks[::-1]).taken

        assert taken == {"last": "T0000", **{one.key: f"T{int(one.key) + 1:04}" for one in members}}

    @given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=6), st.lists(st.integers(0, 5), max_size=6))
    def test_takes_all_or_nothing_where_what_is_lost_has_windows_of_its_own(
        self, windows: list[tuple[int, int]], times: list[int]
    ) -> None:
        members = [
            evolve(lost(str(number)), earliest=float(start), latest=float(start + length))
            for number, (start, length) in enumerate(windows)
        ]
        tasks = [found(f"T{number}", at=float(at)) for number, at in enumerate(times)]

        taken = assigned(members, tasks).taken

        assert len(set(taken.values())) == len(taken)
        by_id, by_key = {task.task_id: task for task in tasks}, {one.key: one for one in members}
        assert all(may_belong(by_id[task_id], by_key[key]) for key, task_id in taken.items())
        fitting = [task for task in tasks if any(may_belong(task, one) for one in members)]
        if _can_all_be_given(members, fitting):
            assert {task.task_id for task in fitting} == set(taken.values())


def _can_all_be_given(members: list[Lost], tasks: list[Found]) -> bool:
    """Return whether every task can have an owner of its own; tried one by one."""
    if not tasks:
        return True
    return any(
        may_belong(tasks[0], one)
        and _can_all_be_given([other for other in members if other is not one], tasks[1:])
        for one in members
    )
