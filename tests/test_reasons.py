"""What an end user is told of an error: the host's words, and nothing that is for operators."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.families import FamilyCase
from support.serving import serving
from support.tables import for_each

from piapi_async import (
    APIError,
    DownloadError,
    LedgerError,
    NotFoundError,
    PiAPIError,
    TaskFailed,
    WaitTimeout,
    errors,
)
from piapi_async._text import plain


def error_classes() -> list[type[PiAPIError]]:
    found: list[type[PiAPIError]] = [PiAPIError]
    for cls in found:
        found += cls.__subclasses__()
    return [cls for cls in found if cls.__module__ == errors.__name__ and not cls.__name__.startswith("_")]


@for_each("cls", error_classes())
def test_every_error_has_a_sentence_of_its_own(cls: type[PiAPIError]) -> None:
    inherited = [base._for_users for base in cls.__mro__[1:] if issubclass(base, PiAPIError)]

    assert cls._for_users.endswith(".")
    assert (
        cls is PiAPIError
        or cls is APIError
        or cls._for_users not in inherited
        or cls is errors.InvalidRequestError
    )


def test_what_operators_are_told_is_kept_from_users() -> None:
    text = "The ledger /srv/bot/orders.db is full: piapi-async ledger resolve /srv/bot/orders.db"

    assert LedgerError(text).reason == "The request could not be recorded."
    saved = DownloadError("/srv/bot/pictures/1.png", url="https://cdn.example/1.png")
    assert saved.reason == "The result is ready, but could not be saved."
    assert DownloadError("/srv/bot is no directory").reason == "Results cannot be saved at the moment."
    assert WaitTimeout("task 6886fc4d").reason == "It takes longer than expected, and goes on."


@for_each(
    ("said", "told"),
    [
        ("Banned prompt detected: blood", "Banned prompt detected: blood"),
        ("task 6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10 is\n too old", "task … is too old"),
        ("no such task: 6886fc4d9d9d4a3b8a552b6d9a1d2f10", "no such task: …"),
        ("open /var/lib/mj/cache.db: no space", "open …: no space"),
        ("see https://a.b/c?token=hush now", "see … now"),
        (r"C:\mj\cache.db is full", "… is full"),
        ("message 1203344556677 was deleted", "message … was deleted"),
        ("portrait and/or landscape, 16/9, 1024x1024", "portrait and/or landscape, 16/9, 1024x1024"),
        ("", "The service does not know this task."),
    ],
)
def test_the_hosts_words_lose_ids_links_and_paths(said: str, told: str) -> None:
    error = NotFoundError("task 1 …", status=400, message=said)

    assert told == error.reason
    assert told == pickle.loads(pickle.dumps(error)).reason  # noqa: S301 - our own


@given(st.text(), st.uuids(), st.text())
def test_no_id_is_left_and_it_is_short(before: str, task_id: Any, after: str) -> None:
    reason = plain(f"{before} {task_id} {after}")

    assert str(task_id) not in reason
    assert len(reason) <= 300
    assert "\n" not in reason


@pytest.mark.looptime
async def test_a_failed_task_tells_the_hosts_reason(case: FamilyCase) -> None:
    async with serving(failure_rate=1.0) as (_, piapi):
        with pytest.raises(TaskFailed) as caught:
            await piapi.run(case.reroll("p"))

    assert caught.value.reason
    assert caught.value.task.error.split()[0] in caught.value.reason
    assert caught.value.task.task_id not in caught.value.reason
