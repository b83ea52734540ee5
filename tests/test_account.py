"""What stands beside the task API: the account, what is active, and the upload of files."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from support.tables import for_each

from piapi_async import (
    Account,
    ActiveTasks,
    AuthenticationError,
    Credits,
    InvalidRequestError,
    UnexpectedAnswer,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async.account import MAX_UPLOAD, AccountInfo, GetActiveTasks, Upload

URL = "https://img.theapi.app/ephemeral/a.png"


def response(data: object, status: int = 200, message: str = "success") -> HTTPResponse:
    return HTTPResponse(status, orjson.dumps({"code": status, "data": data, "message": message}))


class TestAccount:
    def test_is_asked_for(self) -> None:
        assert AccountInfo().to_http() == HTTPRequest("GET", "/account/info")

    @for_each("prefix", ["", "account_"])
    def test_is_read_as_far_as_the_host_tells(self, prefix: str) -> None:
        data = {
            f"{prefix}id": "a1",
            f"{prefix}name": "me",
            f"{prefix}plan": "pro",
            "equivalent_in_usd": "4.5",
        }
        account = AccountInfo().parse(response(data))

        assert (account.id, account.name, account.plan, account.equivalent_in_usd) == ("a1", "me", "pro", 4.5)
        assert account.raw == data

    def test_tells_what_is_left_and_how_much_at_a_time(self) -> None:
        data = {
            "max_concurrent_task_count": "30",
            "credit_pack_info": {
                "total_credits": 100,
                "available_credits": 60,
                "frozen_credits": 10,
                "used_credits": 25,
                "expired_credits": 5,
            },
            "wallet": {
                "point_remain": 7.5,
                "point_frozen": 0,
                "point_used": None,
                "auto_recharge_enabled": False,
            },
        }
        account = AccountInfo().parse(response(data))

        assert account.max_concurrent_task_count == 30
        assert account.credits == Credits(available=60, frozen=10, used=25, total=100, expired=5)
        assert account.wallet == Credits(available=7.5, frozen=0)

    @for_each("odd", ["text", 5, [], {"available_credits": {}}, {"point_remain": []}])
    def test_is_read_whatever_stands_where_its_credits_should(self, odd: object) -> None:
        data = {"name": "me", "credit_pack_info": odd, "wallet": odd, "max_concurrent_task_count": odd}
        account = AccountInfo().parse(response(data))

        assert (account.name, account.credits, account.wallet) == ("me", Credits(), Credits())

    def test_of_the_older_shape_has_no_envelope(self) -> None:
        old = {"account_name": "me", "account_id": "a1", "remaining": 12, "equivalent_in_usd": 1.5}
        account = AccountInfo().parse(HTTPResponse(200, orjson.dumps(old)))

        assert (account.id, account.name, account.equivalent_in_usd) == ("a1", "me", 1.5)
        assert account.credits == Credits(available=12)
        assert account.raw == old

    @for_each("answer", [{}, {"message": "hello"}, {"data": None, "account_id": "a1"}, {"data": []}])
    def test_that_is_none_is_not_understood(self, answer: object) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            AccountInfo().parse(HTTPResponse(200, orjson.dumps(answer)))
        assert caught.value.path == "data"

    def test_of_a_host_that_tells_nothing_is_empty(self) -> None:
        assert AccountInfo().parse(response({})) == Account()

    def test_names_the_place_that_is_not_understood(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            AccountInfo().parse(response({"name": []}))
        assert caught.value.path == "data.name"


class TestActiveTasks:
    def test_are_asked_for(self) -> None:
        assert GetActiveTasks().to_http() == HTTPRequest("GET", "/account/active_tasks")

    def test_are_read_by_provider(self) -> None:
        data = {
            "kling": {
                "staged_count": 1,
                "pending_count": "2",
                "processing_count": 3,
                "active_tasks": [{"id": "t1"}],
            },
            "luma": {"active_tasks": None},
            "suno": None,
        }

        assert GetActiveTasks().parse(response(data)) == {
            "kling": ActiveTasks(1, 2, 3, ({"id": "t1"},)),
            "luma": ActiveTasks(),
            "suno": ActiveTasks(),
        }

    def test_name_the_place_that_is_not_understood(self) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            GetActiveTasks().parse(response({"kling": 5}))
        assert caught.value.path == "data.kling"


class TestUpload:
    def test_sends_the_file_as_base64(self) -> None:
        http = Upload("cat.PNG", b"cat").to_http()

        assert (http.method, http.path) == ("POST", "")
        assert orjson.loads(http.body) == {
            "file_name": "cat.PNG",
            "file_data": base64.b64encode(b"cat").decode(),
        }

    def test_shows_the_name_and_not_the_file(self) -> None:
        assert repr(Upload("cat.png", b"cat")) == "Upload(name='cat.png')"

    @for_each(
        ("args", "told"),
        [
            (
                ("cat.gif", b"cat"),
                "'cat.gif' is not allowed; it must end in one of jpeg, jpg, mp3, mp4, png, wav, webp",
            ),
            (("cat", b"cat"), "'cat' is not allowed"),
            (("png", b"cat"), "'png' is not allowed"),
            ((f"{'c' * 125}.png", b"cat"), "a name of 129 characters is not allowed; 128 at most"),
            (("cat.png", b""), "cat.png is empty"),
            (("cat.png", bytes(MAX_UPLOAD + 1)), "the host takes 10 MiB at most"),
        ],
    )
    def test_refuses_what_the_host_would_refuse(self, args: tuple[Any, ...], told: str) -> None:
        with pytest.raises(ValueError, match="upload: ") as caught:
            Upload(*args)
        assert told in str(caught.value)

    def test_takes_what_is_just_small_enough(self) -> None:
        assert len(Upload(f"{'c' * 124}.png", bytes(MAX_UPLOAD)).data) == MAX_UPLOAD

    def test_gives_the_url(self) -> None:
        assert Upload("cat.png", b"cat").parse(response({"url": URL})) == URL

    def test_is_refused_by_the_plan(self) -> None:
        with pytest.raises(AuthenticationError, match=r"Insufficient plan level.*plan"):
            Upload("cat.png", b"cat").parse(response(None, 403, "Insufficient plan level"))

    def test_is_refused_for_its_parameters(self) -> None:
        with pytest.raises(InvalidRequestError, match="Invalid request parameters"):
            Upload("cat.png", b"cat").parse(response(None, 400, "Invalid request parameters"))

    @for_each("data", [{}, {"url": ""}, {"url": "ftp://a.b"}, {"url": []}, None])
    def test_without_a_url_is_not_understood(self, data: object) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            Upload("cat.png", b"cat").parse(response(data))
        assert caught.value.path in {"data", "data.url"}
