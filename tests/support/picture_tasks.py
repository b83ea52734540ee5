"""Finished tasks whose pictures are wherever a test wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from piapi_async import Task
from piapi_async._http import HTTPResponse
from piapi_async.midjourney import Fetch
from piapi_async.tasks import TaskId

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def picture_task(*urls: str, task_id: str = "t1", status: str = "finished") -> Task[Any]:
    """Give a task with these links, one of which makes a single picture, several a grid."""
    result: dict[str, Any] = {"image_url": urls[0]} if len(urls) == 1 else {"temporary_image_urls": urls}
    answer = {"task_id": task_id, "status": status, "task_result": result}
    return Fetch(TaskId(task_id)).parse(HTTPResponse(200, orjson.dumps(answer)))


def files(directory: Path) -> list[str]:
    """Give the names of all that is in a directory, hidden or not."""
    return sorted(path.name for path in directory.iterdir())
