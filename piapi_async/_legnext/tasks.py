"""LegNext's jobs as tasks, and its account.  Pure.

A job is a bare object: what PiAPI's unified protocol has under `data`, with `job_id` for `task_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

from .._http import HTTPRequest, HTTPResponse
from .._protocol.decoding import Structure
from .._protocol.envelope import read_data
from .._protocol.family import Service
from .._protocol.reading import (
    classify,
    failure_text,
    object_at,
    pick_images,
    read_status,
    read_time,
)
from .._protocol.result_files import find_files
from ..account import Account, Credits
from ..midjourney import MidjourneyResult
from ..tasks import Life, Reader, Task, TaskFile, TaskId, TaskState

# -- results ---------------------------------------------------------------------------------------


@frozen
class LegNextResult(MidjourneyResult):
    """The `output` of a job, in the terms of PiAPI's legacy protocol, and what only LegNext says.

    `image_urls` are the four pictures of a grid in reading order and `image_url` is the grid itself;
    `seed` is in the result of every job that draws.  `actions` are words such as "upscale2".
    Describe and Shorten end in `prompts`, which stand in `message`, too.
    """

    video_urls: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    prompt_en: str = field(default="", alias="promptEn")
    final_prompt: str = field(default="", alias="finalPrompt")
    description: str = ""


_structure_result = Structure(LegNextResult)


def read_result(raw: Mapping[str, Any]) -> LegNextResult:
    output = raw.get("output")
    result = _structure_result.salvage(output)
    if not isinstance(output, dict):
        return result

    return evolve(
        result,
        actions=tuple(_actions_in(object_at(output, "available_actions"))),
        message=result.message or "\n\n".join(result.prompts) or result.description,
    )


def _actions_in(available: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of an object such as ``{"upscale": [0, 1, 2, 3], "reroll": true}``."""
    for name, pictures in available.items():
        if pictures is True:
            yield name
        elif isinstance(pictures, list):
            for number in pictures:
                if type(number) is int and number >= 0:
                    yield f"{name}{number + 1}"


# -- tasks -----------------------------------------------------------------------------------------


def read_life(raw: Mapping[str, Any]) -> Life:
    meta = object_at(raw, "meta")
    task_type = raw.get("task_type")
    if not isinstance(task_type, str):
        task_type = ""

    return Life(
        task_type=task_type,
        created_at=read_time(meta.get("created_at")),
        started_at=read_time(meta.get("started_at")),
        ended_at=read_time(meta.get("ended_at")),
    )


def read_files(raw: Mapping[str, Any]) -> tuple[TaskFile, ...]:
    """Return the files of a job: a grid that was cut into its four pictures is a copy of them."""
    return find_files(raw.get("output"), "output", midjourney=True)


def read_task(data: dict[str, Any], asked: TaskId, reader: Reader[LegNextResult]) -> Task[LegNextResult]:
    """Return the task of an object; raise `UnexpectedAnswer` without a status, or for another job."""
    status = read_status(data, asked)
    state = classify(status)
    output = object_at(data, "output")
    images = pick_images(output)

    error = ""
    if state is TaskState.FAILED:
        error = failure_text(data, output)

    return Task(
        task_id=asked,
        status=status,
        state=state,
        error=error,
        images=images,
        raw=data,
        reader=reader,
    )


# -- the account -----------------------------------------------------------------------------------


@frozen
class _Facts:
    account_id: str = ""
    balance_usd: float | None = None
    available_credits: float | None = None
    available_points: float | None = None


_structure_facts = Structure(_Facts)


@frozen
class GetBalance:
    """Read the account: the one call beside those about jobs."""

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", "/api/account/balance")

    def parse(self, response: HTTPResponse, /) -> Account:
        data = read_data(response, self)
        facts = _structure_facts(data, "data")
        return Account(
            id=facts.account_id,
            equivalent_in_usd=facts.balance_usd,
            credits=Credits(available=facts.available_credits),
            wallet=Credits(available=facts.available_points),
            raw=data,
        )


SERVICE = Service(
    name="LegNext",
    base_url="https://api.legnext.ai",
    variables="LEGNEXT",
    client="piapi_async.legnext.client()",
    concurrency=6,
    account=GetBalance(),
    any_port=True,
)
"""LegNext's API, which works on six jobs of an account at a time unless a plan says otherwise."""
