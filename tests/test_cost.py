"""What a task cost, as far as the host tells: read in every protocol, and never in the way of a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from support.any_json import JSON
from support.serving import serving
from support.tables import for_each

from piapi_async import LEGACY, UNIFIED, Cost, Created, Imagine, Ledger, PollPolicy, TaskState
from piapi_async._http import HTTPResponse
from piapi_async._protocol.family import Family
from piapi_async.legacy import DREAM_MACHINE, FACE_SWAP, LEGACY_KLING
from piapi_async.models import flux, kling
from piapi_async.tasks import TaskId

ID = TaskId("t1")


def legacy(quota_used: Any) -> dict[str, Any]:
    return {
        "task_id": ID,
        "status": "finished",
        "task_result": {"image_url": "https://a.b/c", "quota_used": quota_used},
    }


def unified(usage: Any) -> dict[str, Any]:
    return {"task_id": ID, "status": "completed", "output": {}, "meta": {"usage": usage}}


class TestCost:
    @for_each(
        ("amount", "cost"),
        [(3, Cost(3, "quota")), ("3", Cost(3, "quota")), (0.5, Cost(0.5, "quota")), (0, Cost(0, "quota"))],
    )
    def test_of_a_legacy_task_is_its_quota(self, amount: Any, cost: Cost) -> None:
        assert LEGACY.read(legacy(amount), ID).cost == cost

    @for_each("family", [FACE_SWAP, DREAM_MACHINE, LEGACY_KLING], ids=lambda family: family.name)
    def test_of_the_older_protocols_is_a_quota_too(self, family: Family[Any]) -> None:
        data = {"task_id": ID, "status": "completed", "metadata": {"quota_frozen": 0, "quota_usage": 300}}

        assert family.read(data, ID).cost == Cost(300, "quota")

    def test_of_a_unified_task_has_the_hosts_unit(self) -> None:
        task = UNIFIED.read(unified({"type": "point", "frozen": 0, "consume": 2800000}), ID)

        assert task.cost == Cost(2800000, "point")
        assert str(task.cost) == "2,800,000 point"

    @for_each("amount", [None, "", "much", True, -1, [], {}, float("nan")])
    def test_is_none_where_the_host_tells_none(self, amount: Any) -> None:
        for task in (LEGACY.read(legacy(amount), ID), UNIFIED.read(unified({"consume": amount}), ID)):
            assert (task.state, task.cost) == (TaskState.DONE, None)

    @given(JSON, JSON)
    def test_of_anything_is_no_error(self, usage: Any, amount: Any) -> None:
        for data in (
            unified(usage),
            unified({"type": usage, "consume": amount}),
            {**unified(None), "meta": usage},
        ):
            assert isinstance(UNIFIED.read(data, ID).cost, Cost | None)
        assert isinstance(LEGACY.read(legacy(amount), ID).cost, Cost | None)


def answer(data: Any) -> HTTPResponse:
    return HTTPResponse(200, orjson.dumps({"code": 200, "data": data, "message": "success"}))


def created(usage: Any) -> Any:
    """Give what a create's answer tells, with this usage in it."""
    return kling.Video("a cat").parse(answer({"task_id": ID, "status": "pending", "meta": {"usage": usage}}))


class TestWhatACreateIsExpectedToCost:
    """As it was seen: Kling sets its price aside, Gemini, Seedance and others take it at once."""

    @for_each(
        ("usage", "cost"),
        [
            ({"type": "point", "frozen": 5850000, "consume": 0}, Cost(5850000, "point")),
            ({"type": "llm", "frozen": 0, "consume": 300000}, Cost(300000, "llm")),
            ({"frozen": "7"}, Cost(7)),
        ],
    )
    def test_is_told_with_its_id(self, usage: Any, cost: Cost) -> None:
        assert created(usage) == Created(ID, cost)

    @for_each(
        "usage",
        [None, [], "text", {}, {"type": "quota", "frozen": 0, "consume": 0}, {"frozen": "0"}, {"frozen": []}],
    )
    def test_is_not_told_by_every_host(self, usage: Any) -> None:
        assert created(usage) == ID

    @for_each("data", [{"task_id": ID}, {"task_id": ID, "meta": None}, {"task_id": ID, "meta": []}])
    def test_is_not_in_the_way_of_an_id(self, data: Any) -> None:
        assert kling.Video("a cat").parse(answer(data)) == ID

    @pytest.mark.looptime
    async def test_is_what_the_handle_tells(self) -> None:
        async with serving({"poll": PollPolicy.every(15.0)}, picture_size=32) as (_, piapi):
            video, picture = (
                await piapi.submit(kling.Video("a cat")),
                await piapi.submit(flux.TextToImage("a cat")),
            )
            again, legacy_ = piapi.attach(video.ref, family=UNIFIED), await piapi.submit(Imagine("a cat"))
            ended = await video.wait(timeout=600)

            assert video.frozen is not None
            assert video.frozen == ended.cost
            assert picture.frozen is not None
            assert (again.frozen, legacy_.frozen) == (None, None)
            assert again == video

    @pytest.mark.looptime
    async def test_is_not_kept_for_a_key_that_was_submitted_before(self, tmp_path: Path) -> None:
        async with serving({"ledger": Ledger(tmp_path / "orders.db")}, picture_size=32) as (_, piapi):
            first = await piapi.submit(kling.Video("a cat"), key="order 17")
            second = await piapi.submit(kling.Video("a cat"), key="order 17")

            assert first == second
            assert first.frozen is not None
            assert second.frozen is None
