from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
from typing import Any

import attrs
import pytest
from support.serving import KEY, REROLL, serving

from piapi_async import (
    LEGACY,
    Family,
    PiAPI,
    TaskRef,
)
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime


# -- making a client ----------------------------------------------------------------------------------------------


def test_a_client_is_made_without_a_loop_and_without_input_or_output() -> None:
    piapi = PiAPI(KEY)

    assert piapi.origin == "https://api.piapi.ai"
    assert piapi.attach("x").ref == TaskRef("https://api.piapi.ai", "legacy", TaskId("x"))


def test_the_environment_stands_in_for_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIAPI_API_KEY", "from-env")
    monkeypatch.setenv("PIAPI_BASE_URL", "https://env.example/")

    assert PiAPI().origin == "https://env.example"
    assert PiAPI()._runtime.sender.transport._api_key == "from-env"
    assert PiAPI("mine", base_url="https://mine.example").origin == "https://mine.example"
    assert PiAPI("mine")._runtime.sender.transport._api_key == "mine"


def test_an_empty_environment_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIAPI_API_KEY", "")
    monkeypatch.setenv("PIAPI_BASE_URL", "")

    assert PiAPI(KEY).origin == "https://api.piapi.ai"
    with pytest.raises(ValueError, match="PIAPI_API_KEY"):
        PiAPI()


def test_a_bad_environment_is_refused_like_a_bad_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIAPI_BASE_URL", "http://api.piapi.example")

    with pytest.raises(ValueError, match="base_url"):
        PiAPI(KEY)
    assert PiAPI(KEY, allow_insecure=True).origin == "http://api.piapi.example"


@pytest.mark.parametrize("name", ["timeout", "connections", "multi_fetch_size"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_numbers_that_make_no_sense_are_refused_by_name(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=name):
        PiAPI(KEY, **options)


@pytest.mark.parametrize("timeout", [math.inf, True, "30", None, -math.inf])
async def test_a_timeout_that_would_never_end_is_refused_before_anything_is_sent(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout: .* finite number of seconds"):
        PiAPI(KEY, timeout=timeout)
    async with PiAPI(KEY) as piapi:
        if timeout is not None:  # which is the client's own
            with pytest.raises(ValueError, match=r"timeout: .* finite number of seconds"):
                await piapi.submit(REROLL, timeout=timeout)


@pytest.mark.parametrize("name", ["connections", "multi_fetch_size"])
@pytest.mark.parametrize("value", [2.5, 20.0, math.inf, "20", None, True])
def test_what_is_counted_is_a_whole_number(name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match=f"{name}: .* is not allowed; it must be a whole number above 0"):
        PiAPI(KEY, **options)


@pytest.mark.parametrize(
    "rate_limit", [(0, 1.0), (5, 0.0), (-1, 1.0), (5, -1.0), (True, 1.0), (1.5, 1.0), (5, math.inf)]
)
def test_a_rate_that_makes_no_sense_is_refused(rate_limit: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="TokenBucket"):
        PiAPI(KEY, rate_limit=rate_limit)


def test_a_repr_counts_and_holds_no_key() -> None:
    assert repr(PiAPI(KEY)) == "<PiAPI https://api.piapi.ai: 0 waiting, 0 submitting>"
    assert KEY not in repr(PiAPI(KEY, base_url="https://x.example"))


def test_a_client_that_was_never_used_needs_no_closing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PiAPI(KEY)
        with pytest.raises(ValueError, match="timeout"):
            PiAPI(KEY, timeout=0)
        gc.collect()


# -- attaching, handles, refs -------------------------------------------------------------------------------------


async def test_a_task_is_taken_up_again_by_its_id_or_its_ref_and_nobody_is_asked() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        by_id, by_ref = piapi.attach(f"  {handle.task_id}\n"), piapi.attach(handle.ref)
        by_text = piapi.attach(TaskRef.from_json(handle.ref.to_json()))

        assert emulator.seen.requests == {"reroll": 1}
        assert by_id == by_ref == by_text == handle
        assert len({by_id, by_ref, by_text, handle}) == 1
        assert (await by_ref.wait()).task_id == handle.task_id


def test_a_ref_of_another_host_or_family_is_refused() -> None:
    piapi, other = PiAPI(KEY, base_url="https://a.example"), PiAPI(KEY, base_url="https://b.example")
    unified: Family[Any] = attrs.evolve(LEGACY, name="unified", fetch_many=None)

    with pytest.raises(ValueError, match=r"b\.example"):
        piapi.attach(other.attach("x").ref)
    with pytest.raises(ValueError, match="unified"):
        piapi.attach(piapi.attach("x", family=unified).ref, family=LEGACY)
    assert piapi.attach(piapi.attach("x", family=unified).ref, family=unified).task_id == "x"


@pytest.mark.parametrize("task_id", ["", "  ", "\n"])
def test_an_empty_id_is_refused(task_id: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        PiAPI(KEY).attach(task_id)


@pytest.mark.parametrize("task_id", [None, 5, b"x"])
def test_an_id_that_is_no_text_is_refused(task_id: Any) -> None:
    with pytest.raises(TypeError):
        PiAPI(KEY).attach(task_id)


def test_handles_are_equal_by_host_family_and_id() -> None:
    a, b = PiAPI(KEY, base_url="https://a.example"), PiAPI("another", base_url="https://a.example/v2")
    c = PiAPI(KEY, base_url="https://c.example")
    other: Family[Any] = attrs.evolve(LEGACY, name="other", fetch_many=None)

    assert a.attach("x") == b.attach("x")
    assert hash(a.attach("x")) == hash(b.attach("x"))
    assert a.attach("x") != a.attach("y")
    assert a.attach("x") != c.attach("x")
    assert a.attach("x") != a.attach("x", family=other)
    assert a.attach("x") != "x"
    assert "x" in repr(a.attach("x"))


def test_a_ref_travels_and_holds_no_key() -> None:
    ref = PiAPI(KEY).attach("x").ref

    assert pickle.loads(pickle.dumps(ref)) == ref  # noqa: S301 - our own
    assert copy.deepcopy(ref) == ref
    assert TaskRef.from_json(ref.to_json()) == ref
    assert KEY.encode() not in pickle.dumps(ref) + ref.to_json().encode()
