"""The history of an account: which tasks it paid for, the latest first, page by page.  Pure.

How soon a task is in it nobody published: the dialect decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._service.requests import Refused
from .._service.tasks import ENDS, Task
from .dialect import JSON, View
from .unified import envelope, moment, usage, word_of

if TYPE_CHECKING:
    from .host import Desk
    from .routes import Call

#: Tasks on a page, unless the request says otherwise.
PAGE = 10


def rows(desk: Desk, call: Call) -> JSON:
    """Return one page; `page` counts from 1, `page_size` is cut to what the host allows."""
    dialect = desk.view.dialect
    if not dialect.history:
        raise Refused("no such endpoint: /api/open/tasks/histories", status=dialect.history_off_status)
    page, size = _whole(call, "page", 1), min(_whole(call, "page_size", PAGE), dialect.history_page)
    desk.machine.advance(call.now)
    found = list(_found(desk, call))
    shown = [_row(desk.view, task) for task in found[(page - 1) * size : page * size]]
    return envelope({"data": shown, "page": page, "size": size, "total": len(found)})


def _whole(call: Call, name: str, default: int) -> int:
    text = call.query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
        raise Refused(f"invalid {name}: must be a whole number above 0")
    return int(text[:9])


def _moment(call: Call, name: str) -> float | None:
    text = call.query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Refused(f"invalid {name}: must be a unix time in seconds")
    return float(text[:18])


def _found(desk: Desk, call: Call) -> Iterator[Task]:
    """Give the account's tasks that are in the history by now and that the request asks for, the latest first."""
    view, account, model = desk.view, desk.account(call.key), call.query.get("model", "")
    since, until = _moment(call, "start_time"), _moment(call, "end_time")
    for task in reversed(desk.machine.tasks.values()):
        if task.account != account or (model and task.model != model):
            continue
        # Its time is told in whole seconds, and held against the bounds so.
        created = int(view.epoch + task.created)
        if (since is not None and created < since) or (until is not None and created > until):
            continue
        begins = task.created if view.dialect.history_from == "create" else task.ended
        if begins is not None and call.now >= begins + view.dialect.history_lag:
            yield task


def _row(view: View, task: Task) -> JSON:
    cost = usage(task)
    changed = next(at for at in (task.ended, task.started, task.created) if at is not None)
    return JSON(
        id=task.serial,
        account_id=task.account,
        api_key_id=task.key_id,
        action="pay",
        created_at=moment(view, task, task.created),
        updated_at=moment(view, task, changed),
        deleted_at=None,
        detail={"model": task.model, "task_id": task.task_id, "workflow_type": ""},
        fixed=False,
        service_mode=task.service_mode or "public",
        status=word_of(view, task),
        task_id=task.task_id,
        task_model=task.model,
        usage=cost["consume"] if task.stage in ENDS else cost["frozen"],
        usage_type=cost["type"],
    )
