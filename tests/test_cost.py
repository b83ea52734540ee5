"""What a task cost, as far as the host tells: read in every protocol, and never in the way of a result."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from support.any_json import JSON

from piapi_async import LEGACY, UNIFIED, Cost, TaskState
from piapi_async.legacy import DREAM_MACHINE, FACE_SWAP, LEGACY_KLING
from piapi_async.tasks import Family, TaskId

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
    @pytest.mark.parametrize(
        ("amount", "cost"),
        [(3, Cost(3, "quota")), ("3", Cost(3, "quota")), (0.5, Cost(0.5, "quota")), (0, Cost(0, "quota"))],
    )
    def test_of_a_legacy_task_is_its_quota(self, amount: Any, cost: Cost) -> None:
        assert LEGACY.read(legacy(amount), ID).cost == cost

    @pytest.mark.parametrize("family", [FACE_SWAP, DREAM_MACHINE, LEGACY_KLING], ids=lambda family: family.name)
    def test_of_the_older_protocols_is_a_quota_too(self, family: Family[Any]) -> None:
        data = {"task_id": ID, "status": "completed", "metadata": {"quota_frozen": 0, "quota_usage": 300}}

        assert family.read(data, ID).cost == Cost(300, "quota")

    def test_of_a_unified_task_has_the_hosts_unit(self) -> None:
        task = UNIFIED.read(unified({"type": "point", "frozen": 0, "consume": 2800000}), ID)

        assert task.cost == Cost(2800000, "point")
        assert str(task.cost) == "2,800,000 point"

    @pytest.mark.parametrize("amount", [None, "", "much", True, -1, [], {}, float("nan")])
    def test_is_none_where_the_host_tells_none(self, amount: Any) -> None:
        for task in (LEGACY.read(legacy(amount), ID), UNIFIED.read(unified({"consume": amount}), ID)):
            assert (task.state, task.cost) == (TaskState.DONE, None)

    @given(JSON, JSON)
    def test_of_anything_is_no_error(self, usage: Any, amount: Any) -> None:
        for data in (unified(usage), unified({"type": usage, "consume": amount}), {**unified(None), "meta": usage}):
            assert isinstance(UNIFIED.read(data, ID).cost, Cost | None)
        assert isinstance(LEGACY.read(legacy(amount), ID).cost, Cost | None)
