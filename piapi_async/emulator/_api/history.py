"""The history of an account: the tasks it paid for, the latest first, page by page.  Pure.

How soon a task is in it the vendor does not publish; the dialect decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._service.requests import Refusal
from .._service.tasks import END_STAGES, Task
from .billing import usage_of
from .dialect import JSON
from .unified import envelope, status_word, timestamp

if TYPE_CHECKING:
    from .host import Host
    from .routes import Call
    from .view import View

#: Tasks on a page, unless the request says otherwise.
PAGE = 10
#: Digits of a query's numbers that count, so that none of them is huge.
_NUMBER_DIGITS, _TIME_DIGITS = 9, 18


def rows(host: Host, call: Call) -> JSON:
    """Return one page; `page` counts from 1, `page_size` is cut to what the host allows."""
    dialect = host.view.dialect
    if not dialect.history:
        raise Refusal("no such endpoint: /api/open/tasks/histories", status=dialect.history_off_status)

    page = _whole(call, "page", 1)
    size = min(_whole(call, "page_size", PAGE), dialect.history_page)
    host.engine.advance(call.now)

    found = list(_found(host, call))
    shown = found[(page - 1) * size : page * size]
    data = [_row(host.view, task) for task in shown]
    return envelope({"data": data, "page": page, "size": size, "total": len(found)})


def _whole(call: Call, name: str, default: int) -> int:
    text = call.query.get(name) or str(default)
    number = int(text[:_NUMBER_DIGITS]) if text.isascii() and text.isdigit() else 0
    if number == 0:
        raise Refusal(f"invalid {name}: must be a whole number above 0")
    return number


def _unix_time(call: Call, name: str) -> float | None:
    text = call.query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Refusal(f"invalid {name}: must be a unix time in seconds")
    return float(text[:_TIME_DIGITS])


def _found(host: Host, call: Call) -> Iterator[Task]:
    """Yield the tasks in the history that the request asks for, the latest first."""
    view = host.view
    account, model = host.account_id(call.key), call.query.get("model", "")
    since, until = _unix_time(call, "start_time"), _unix_time(call, "end_time")

    for task in reversed(host.engine.tasks.values()):
        if task.account != account or (model and task.model != model):
            continue

        # The history has its time in whole seconds, and compares that.
        created = int(view.epoch + task.created)
        if (since is not None and created < since) or (until is not None and created > until):
            continue

        begins = task.created if view.dialect.history_from == "create" else task.ended
        if begins is not None and call.now >= begins + view.dialect.history_lag:
            yield task


def _row(view: View, task: Task) -> JSON:
    usage = usage_of(task)
    changed = next(at for at in (task.ended, task.started, task.created) if at is not None)

    return JSON(
        id=task.serial,
        account_id=task.account,
        api_key_id=task.key_id,
        action="pay",
        created_at=timestamp(view, task, task.created),
        updated_at=timestamp(view, task, changed),
        deleted_at=None,
        detail={"model": task.model, "task_id": task.task_id, "workflow_type": ""},
        fixed=False,
        service_mode=task.service_mode or "public",
        status=status_word(view, task),
        task_id=task.task_id,
        task_model=task.model,
        usage=usage.consumed if task.stage in END_STAGES else usage.frozen,
        usage_type=usage.type,
    )
