"""Responses in each dialect and on each plan, as plain values."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async._http import HTTPRequest
from piapi_async.emulator import PLANS, Dialect, Plan
from piapi_async.emulator._api.host import Host
from piapi_async.emulator._api.router import Router
from piapi_async.emulator._api.routes import ROUTES
from piapi_async.emulator._api.view import View
from piapi_async.emulator._media.links import read_link
from piapi_async.emulator._service.durations import Constant
from piapi_async.emulator._service.engine import TaskEngine
from piapi_async.emulator._service.geometry import picture_size
from piapi_async.emulator._service.verbs import VERBS

KEY = {"x-api-key": "k"}


def _router(plan: Plan = PLANS["pro-hya"], **dialect: Any) -> Router:
    engine = TaskEngine(durations={"fast": Constant(60)})
    return Router(Host(engine, View(plan, Dialect(**dialect), origin="http://d"), frozenset({"k"})))


def _ask(router: Router, verb: str, body: object, now: float = 0.0) -> tuple[int, Any]:
    answer = router.respond(HTTPRequest("POST", f"/mj/v2/{verb}", orjson.dumps(body), KEY), now)
    return answer.status, orjson.loads(answer.body)


def _fetched(router: Router, now: float) -> Any:
    task_id = _ask(router, "imagine", {"prompt": "a cat"})[1]["task_id"]
    return _ask(router, "fetch", {"task_id": task_id}, now)[1]


GATED = {
    "free-payg": [False, False, False, False],
    "free-hya": [False, False, True, True],
    "creator-payg": [True, False, False, False],
    "creator-hya": [True, True, True, True],
    "pro-payg": [True, False, True, True],
    "pro-hya": [True, True, True, True],
}
OPTIONAL = ("task_progress", "intermediate_image_urls", "discord_image_url", "temporary_image_urls")


@for_each("plan", PLANS)
def test_a_plan_decides_which_optional_fields_are_there(plan: str) -> None:
    result = _fetched(_router(PLANS[plan]), 100)["task_result"]
    assert GATED[plan] == [name in result for name in OPTIONAL]
    assert result["image_url"].startswith("http://d/mj/")


@for_each(("gated", "values"), [("null", [None] * 4), ("empty", [0, [], "", []])])
def test_a_gated_field_may_be_null_or_empty_instead(gated: str, values: list[object]) -> None:
    result = _fetched(_router(PLANS["free-payg"], gated=gated), 100)["task_result"]
    assert values == [result[name] for name in OPTIONAL]


@for_each(
    ("success", "answer", "refusal"),
    [
        ("none", {"task_id", "status", "message"}, {"task_id", "status", "message"}),
        ("beside", {"task_id", "status", "message", "success"}, {"task_id", "status", "message", "success"}),
        ("instead", {"task_id", "message", "success"}, {"task_id", "message", "success"}),
    ],
)
def test_a_host_of_2023_says_success_as_a_boolean(success: str, answer: set[str], refusal: set[str]) -> None:
    router = _router(success=success)
    accepted, refused = _ask(router, "imagine", {"prompt": "a"})[1], _ask(router, "imagine", {})[1]

    assert (answer, refusal) == (accepted.keys(), refused.keys())
    assert (accepted.get("success", True), refused.get("success", False)) == (True, False)


def test_a_refusal_may_be_the_message_alone() -> None:
    assert _ask(_router(error_body="message"), "imagine", {}) == (400, {"message": "prompt is required"})


@for_each(("unreached", "value"), [("zero", 0), ("null", None), ("absent", "gone")])
def test_a_time_not_reached_is_zero_null_or_absent(unreached: str, value: object) -> None:
    assert value == _fetched(_router(unreached=unreached), 1)["meta"].get("ended_at", "gone")


@for_each(
    ("crops_in", "filled"),
    [("temporary_image_urls", [False, True]), ("image_urls", [True, False]), ("both", [True, True])],
)
def test_the_crops_stand_in_either_field(crops_in: str, filled: list[bool]) -> None:
    result = _fetched(_router(crops_in=crops_in), 100)["task_result"]
    assert filled == [result[name] is not None for name in ("image_urls", "temporary_image_urls")]


def test_multi_fetch_may_be_off_smaller_or_leave_the_unknown_out() -> None:
    assert (
        _ask(_router(multi_fetch=False, multi_fetch_off_status=405), "multi_fetch", {"task_ids": ["x"]})[0]
        == 405
    )
    assert _ask(_router(multi_fetch_max=1), "multi_fetch", {"task_ids": ["x", "y"]})[0] == 400
    assert _ask(_router(multi_unknown="missing"), "multi_fetch", {"task_ids": ["x"]}) == (200, {"data": {}})


def test_other_decisions_of_ours_can_be_changed() -> None:
    odd = _router(
        unknown_task_status=404, unknown_task_message="nope", describe_in="prompt", late_cancel="ignore",
        numbers_as_strings=True, words={"pending": "starting"},
    )  # fmt: skip
    status, unknown = _ask(odd, "fetch", {"task_id": "x"})
    assert (status, unknown["message"]) == (404, "nope")
    waiting = _fetched(odd, 1)
    assert (waiting["status"], waiting["retry_count"], waiting["task_result"]["credit"]) == (
        "starting",
        "0",
        "0",
    )
    assert False is waiting["task_result"]["need_retry"]
    described = _ask(odd, "describe", {"image_url": "https://x.org/a.png"}, 2)[1]["task_id"]
    assert "--ar" in _ask(odd, "fetch", {"task_id": described}, 300)[1]["task_result"]["prompt"]
    assert _ask(odd, "cancel", {"task_ids": [described]}, 301) == (200, {"status": "success", "message": ""})


def test_the_seed_of_a_task_is_the_same_whoever_asks() -> None:
    router = _router()
    grid = _ask(router, "imagine", {"prompt": "a cat"})[1]["task_id"]
    asked = [_ask(router, "seed", {"origin_task_id": grid}, 100)[1]["task_id"] for _ in range(2)]
    first, second = (
        _ask(router, "fetch", {"task_id": task_id}, 200)[1]["task_result"]["seed"] for task_id in asked
    )
    assert first == second
    assert first.isdigit()


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
UNIFIED = {
    "model",
    "task_type",
    "input",
    "config",
    "webhook_config",
    "file_name",
    "file_data",
    "target_image",
}
NAMES = st.sampled_from(
    sorted({name for verb in VERBS.values() for name in verb.fields} | {"task_id", "task_ids"} | UNIFIED)
)


@given(st.sampled_from(sorted(ROUTES)), st.dictionaries(NAMES, JSONISH, max_size=6) | JSONISH)
def test_any_json_whatever_gets_an_answer_of_the_service(name: str, body: Any) -> None:
    route = ROUTES[name]
    path = f"{route.path}x" if route.path.endswith("/") else route.path
    answer = _router().respond(HTTPRequest(route.method, path, orjson.dumps(body), KEY), 0.0)
    unknown_job = 404 if name.startswith("legnext") else 400
    assert answer.status in (200, 400, unknown_job)
    assert isinstance(orjson.loads(answer.body), dict)


@given(st.text(max_size=40))
def test_any_path_whatever_is_a_link_or_none(path: str) -> None:
    assert read_link(path) is None
    assert read_link(f"/mj/{path}.png") is None or "/" not in path


@given(st.integers(1, 999), st.integers(1, 999))
def test_a_picture_keeps_its_area_and_even_sides(across: int, down: int) -> None:
    width, height = picture_size(f"{across}:{down}", 512)
    assert 0 == width % 8 == height % 8
    assert 0.9 < width * height / 512**2 < 1.1
