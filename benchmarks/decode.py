"""What an answer costs to read: from the bytes of a fetch to a `Task`, beside parsers and pydantic models.

    python -m benchmarks.decode [--smoke] [--json FILE]

The answers are those of the legacy protocol's fetch, one of a task that has finished and one of a task that still
runs.  The readers take turns in slices within one process; a ratio is to `orjson.loads` of the same bytes, which
nobody can do without: the median over the rounds, and where the middle half lies.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
from attrs import asdict, frozen

from piapi_async import LEGACY, Task, TaskState
from piapi_async._http import HTTPResponse
from piapi_async.tasks import Life, Reader, TaskId

from ._goals import Goal, goals_table
from ._models import make_models
from ._slices import Spread
from ._table import short, table

GOALS = {"finished": 4.0, "waiting": 1.8}

OURS, FULLY, FLOOR = "Task", "Task, its result and times read", "orjson.loads"
UNCHECKED = "orjson.loads, and a Task unchecked"

_TASK_ID = TaskId("c0d39b5a-7b5e-4a52-9f0c-0d1e6a2f9b11")
_LINK = f"https://img.theapi.app/mj/{_TASK_ID}.png"
_CROPS = ("0;1024;1024;0", "0;0;1024;1024", "1024;1024;0;0", "1024;0;0;1024")

_FINISHED: dict[str, Any] = {
    "task_id": _TASK_ID,
    "status": "finished",
    "process_time": 42,
    "retry_count": 0,
    "meta": {
        "account_id": "5a2b9d3e-6a1f-4c52-9d56-1f0de2a9a001",
        "task_type": "reroll",
        "origin_task_id": "6886fc4d-9c3b-4a5e-8a38-5ac4f0e7a2cd",
        "bot_hash": "",
        "bot_id": 0,
        "model_version": "unknown",
        "process_mode": "fast",
        "quota_frozen": 30,
        "frozen_credit": 0,
        "created_at": 1709035361,
        "created_at_utc": "2024-02-27T12:02:41Z",
        "started_at": 1709035364,
        "started_at_utc": "2024-02-27T12:02:44Z",
        "ended_at": 1709035406,
        "ended_at_utc": "2024-02-27T12:03:26Z",
        "task_request": {
            "origin_task_id": "6886fc4d-9c3b-4a5e-8a38-5ac4f0e7a2cd",
            "prompt": "a cute cat",
            "process_mode": "fast",
            "skip_prompt_check": False,
            "webhook_endpoint": "",
            "webhook_secret": "",
        },
        "task_param": {
            "prompt": "a cute cat",
            "index": "",
            "zoom_ratio": "",
            "aspect_ratio": "",
            "direction": "",
        },
    },
    "task_result": {
        "discord_image_url": "",
        "image_url": _LINK,
        "image_urls": None,
        "temporary_image_urls": [
            f"https://img.theapi.app/cdn-cgi/image/trim={crop}/mj/{_TASK_ID}.png" for crop in _CROPS
        ],
        "permanent_url": "",
        "task_progress": 100,
        "intermediate_image_urls": None,
        "image_id": "0b7d6c1e-8a53-4d0c-9a6f-6f1f7c1d9e55",
        "seed": "",
        "result_message_id": "1211983650148827196",
        "quota_used": 3,
        "credit": 0,
        "message": "",
        "warning": "",
        "error_messages": [],
        "need_retry": False,
        "actions": [
            "reroll",
            *(f"{verb}{number}" for verb in ("upscale", "variation") for number in range(1, 5)),
        ],
    },
}
_NOTHING_YET: dict[str, Any] = {
    "image_url": "",
    "temporary_image_urls": None,
    "image_id": "",
    "result_message_id": "",
    "actions": [],
}
_WAITING = {
    **_FINISHED,
    "status": "processing",
    "meta": {**_FINISHED["meta"], "ended_at": 0, "ended_at_utc": ""},
    "task_result": {**_FINISHED["task_result"], **_NOTHING_YET, "task_progress": 40},
}

ANSWERS = {"finished": orjson.dumps(_FINISHED), "waiting": orjson.dumps(_WAITING)}

Reads = Callable[[bytes], object]


@frozen
class Line:
    """One way to read one answer: µs, and how many times what orjson takes."""

    answer: str
    size: int
    reader: str
    micros: float
    ratio: Spread

    def cells(self) -> list[str]:
        """Give the line's texts."""
        return [self.reader, short(self.micros), "" if self.reader == FLOOR else str(self.ratio)]


# -- the readers --------------------------------------------------------------------------------------------------

_FETCH = LEGACY.fetch(_TASK_ID)
_NO_READER: Reader[Any] = Reader(lambda _: None, lambda _: Life(), lambda _: ())


def to_task(body: bytes) -> Task[Any]:
    """Read as a fetch does."""
    return _FETCH.parse(HTTPResponse(200, body, {}))


def to_all(body: bytes) -> object:
    """Read as a fetch does, and look at everything that is read late."""
    task = to_task(body)
    return task.result, task.created_at, task.started_at, task.ended_at, task.task_type


def to_unchecked(body: bytes) -> Task[Any]:
    """Put the parsed JSON into a `Task` without looking at it: the least that a value of that kind costs."""
    raw = orjson.loads(body)
    return Task(task_id=_TASK_ID, status=raw["status"], state=TaskState.DONE, raw=raw, reader=_NO_READER)


def readers() -> dict[str, Reads]:
    """Give all that are installed."""
    found: dict[str, Reads] = {OURS: to_task, FULLY: to_all, UNCHECKED: to_unchecked}
    found |= {FLOOR: orjson.loads, "json.loads": json.loads}
    if find_spec("pydantic") is None:
        print("pydantic is not installed: left out")
    else:
        pydantic: Any = importlib.import_module("pydantic")
        _, model = make_models(pydantic.BaseModel)
        found["pydantic, checked"] = model.model_validate_json
    if find_spec("openai") is None:
        print("openai is not installed: left out")
    else:
        found["openai's model building"] = _openai_reader()
    return found


def _openai_reader() -> Reads:
    """Give what openai's client does with the bytes of an answer: it builds without checking."""
    openai: Any = importlib.import_module("openai")
    build = importlib.import_module("openai._models").construct_type
    _, model = make_models(openai.BaseModel)
    return lambda body: build(type_=model, value=json.loads(body))


# -- measuring ----------------------------------------------------------------------------------------------------


def measure(answer: str, contestants: Mapping[str, Reads], *, rounds: int, seconds: float) -> list[Line]:
    """Let all read one answer by turns, each for about so many seconds."""
    body = ANSWERS[answer]
    turns: dict[str, list[float]] = {name: [] for name in contestants}
    counts = {name: max(1, int(seconds / _time(reader, body, 50))) for name, reader in contestants.items()}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            turns[name].append(_time(contestants[name], body, counts[name]))
    return [
        Line(
            answer,
            len(body),
            name,
            Spread.of(own).median * 1e6,
            Spread.of([one / floor for one, floor in zip(own, turns[FLOOR], strict=True)]),
        )
        for name, own in turns.items()
    ]


def _time(reader: Reads, body: bytes, count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        reader(body)
    return (time.thread_time() - began) / count


def goal(lines: list[Line]) -> Goal:
    """Hold our reading of one answer against its goal."""
    by_name = {line.reader: line for line in lines}
    own, floor, most = by_name[OURS], by_name[UNCHECKED], GOALS[lines[0].answer]
    others = [line for line in lines if line.reader not in (OURS, FULLY, UNCHECKED, FLOOR)]
    return Goal(
        f"bytes of a {own.answer} answer to a Task : {FLOOR}",
        str(own.ratio),
        f"<= {most:g}",
        own.ratio.median <= most,
        ", ".join(f"{line.reader} {short(line.ratio.median)}" for line in others),
        f"a value that is not looked at is at {short(floor.ratio.median)}; the other "
        f"{short(own.ratio.median - floor.ratio.median)} blanks secrets, checks the result and picks the links",
    )


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the tables; `smoke` measures little."""
    begun = time.perf_counter()
    contestants = readers()
    found = [measure(answer, contestants, rounds=5 if smoke else 200, seconds=0.004) for answer in ANSWERS]
    for lines in found:
        title = f"decode: a {lines[0].answer} answer, {lines[0].size} bytes"
        print(table(title, ("", "µs", f": {FLOOR}"), [line.cells() for line in lines]), end="\n\n")
    judged = [goal(lines) for lines in found]
    print(goals_table("decode", judged), end="\n\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        plain = {
            "goals": [asdict(each) for each in judged],
            "lines": [asdict(line) for lines in found for line in lines],
        }
        json_path.write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What an answer costs to read.")
    parser.add_argument("--smoke", action="store_true", help="a second; the numbers mean little")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
