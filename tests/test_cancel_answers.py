"""What an answer to a cancellation has to say before it is taken for a yes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.tables import for_each

from piapi_async import UnexpectedAnswer
from piapi_async._http import HTTPResponse
from piapi_async.account import CancelPending
from piapi_async.midjourney import Cancel
from piapi_async.tasks import TaskId
from piapi_async.unified import CancelTask

REQUESTS = [Cancel([TaskId("a-task")]), CancelTask("a-task"), CancelPending(datetime.now(UTC))]
each_cancel = for_each("request_", REQUESTS, ids=lambda each: type(each).__name__)


@each_cancel
@for_each("body", [b'{"data": 7}', b'{"ok": "gateway"}'])
def test_no_word_of_the_host_s_is_no_yes(request_: Any, body: bytes) -> None:
    with pytest.raises(UnexpectedAnswer, match="neither that it was done nor that it was refused"):
        request_.parse(HTTPResponse(200, body))


@each_cancel
@for_each(
    "body",
    [b'{"code": 200}', b'{"status": "success"}', b'{"message": "task a canceled"}', b'{"data": {}}', b"{}"],
)
def test_any_word_of_the_host_s_that_is_no_refusal_is_a_yes(request_: Any, body: bytes) -> None:
    request_.parse(HTTPResponse(200, body))
