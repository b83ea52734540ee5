"""In what hosts differ: plans of accounts, and the facts that the vendor does not publish.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen, validators

from .._service.tasks import Stage

JSON = dict[str, object]


@frozen
class Plan:
    """Which optional fields of `task_result` an account sees, and how many tasks it may run at once."""

    name: str
    concurrency: int
    progress: bool
    intermediate: bool
    discord: bool
    temporary: bool


#: The six columns of the vendor's page on task results; concurrency as observed (about 1 / 5 / 30).
PLANS: Mapping[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            name="free-payg",
            concurrency=1,
            progress=False,
            intermediate=False,
            discord=False,
            temporary=False,
        ),
        Plan(
            name="free-hya",
            concurrency=1,
            progress=False,
            intermediate=False,
            discord=True,
            temporary=True,
        ),
        Plan(
            name="creator-payg",
            concurrency=5,
            progress=True,
            intermediate=False,
            discord=False,
            temporary=False,
        ),
        Plan(
            name="creator-hya",
            concurrency=5,
            progress=True,
            intermediate=True,
            discord=True,
            temporary=True,
        ),
        Plan(
            name="pro-payg",
            concurrency=30,
            progress=True,
            intermediate=False,
            discord=True,
            temporary=True,
        ),
        Plan(
            name="pro-hya",
            concurrency=30,
            progress=True,
            intermediate=True,
            discord=True,
            temporary=True,
        ),
    )
}


def _one_of(*words: str) -> Any:  # noqa: ANN401 - an attrs field, which is of any type
    return field(default=words[0], validator=validators.in_(words))


@frozen(kw_only=True)
class Dialect:
    """Facts that the vendor does not publish, each with a default and each to be changed.

    `gated`: what a field looks like that the plan does not include.  `success`: the boolean of a
    host of 2023, beside `status` or instead of it.  `unreached`: a time that is not reached yet.
    `multi_unknown`: an unknown id in a multi-fetch.  `error_body`: with `task_id` and `status`, or
    the message alone.  `late_cancel`: of tasks that all have started.  `words`: other words for
    stages, e.g. `{"pending": "starting"}`.  `ranges`: files are served in parts on request.
    `legnext_refusals`: LegNext's error, or an object with it under `error` (both are in its pages).
    `account`: an older host sent it without `data`.  `one_account`: all keys are of the same
    account.

    `history`: whether there is one; a task is in it `history_lag` emulated seconds after its create
    or its end (`history_from`), and `history_page` is the largest page size.  `hides_input`: a task
    of the unified protocol does not show what it was made from.

    Of the unified protocol alone: `unified_crops_in`; `error_in`: which text of `error` is filled;
    `capitalised`: "Completed" for "completed".
    """

    gated: Literal["absent", "null", "empty"] = _one_of("absent", "null", "empty")
    success: Literal["none", "beside", "instead"] = _one_of("none", "beside", "instead")
    unreached: Literal["zero", "null", "absent"] = _one_of("zero", "null", "absent")
    crops_in: Literal["temporary_image_urls", "image_urls", "both"] = _one_of(
        "temporary_image_urls", "image_urls", "both"
    )
    unified_crops_in: Literal["image_urls", "temporary_image_urls", "both"] = _one_of(
        "image_urls", "temporary_image_urls", "both"
    )
    error_in: Literal["both", "message", "raw_message"] = _one_of("both", "message", "raw_message")
    capitalised: bool = False
    error_body: Literal["full", "message"] = _one_of("full", "message")
    fetch_needs_key: bool = False
    multi_fetch: bool = True
    multi_fetch_off_status: int = 404
    multi_fetch_max: int = 20
    multi_unknown: Literal["null", "missing"] = _one_of("null", "missing")
    unknown_task_status: int = 400
    unknown_task_message: str = "task not found"
    invalid_key_message: str = "Invalid API key"
    late_cancel: Literal["refuse", "ignore"] = _one_of("refuse", "ignore")
    queue_full_retry_after: str = ""
    describe_in: Literal["message", "prompt"] = _one_of("message", "prompt")
    numbers_as_strings: bool = False
    ranges: bool = True
    account: Literal["data", "flat"] = _one_of("data", "flat")
    one_account: bool = False
    legnext_refusals: Literal["flat", "nested"] = _one_of("flat", "nested")
    history: bool = True
    history_off_status: int = 404
    history_lag: float = field(default=0.0, validator=validators.ge(0))
    history_from: Literal["create", "end"] = _one_of("create", "end")
    hides_input: bool = False
    history_page: int = field(default=100, validator=validators.ge(1))
    words: Mapping[str, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for word in self.words:
            if word not in list(Stage):
                raise ValueError(f"words: {word!r} is not a stage; stages are {', '.join(Stage)}")

    # -- the bodies of the Midjourney protocol that have no task in them ------------------------

    def created(self, task_id: str) -> JSON:
        """Return the response to an accepted create."""
        body = JSON(task_id=task_id, status="success", message="")
        return self._with_success(body, success=True)

    def cancelled(self) -> JSON:
        """Return the response to an accepted cancel."""
        return self._with_success(JSON(status="success", message=""), success=True)

    def refused(self, message: str) -> JSON:
        """Return the body of any refusal."""
        if self.error_body == "message":
            return JSON(message=message)

        body = JSON(task_id="", status="failed", message=message)
        return self._with_success(body, success=False)

    def _with_success(self, body: JSON, *, success: bool) -> JSON:
        if self.success == "none":
            return body
        if self.success == "instead":
            del body["status"]
        return JSON(body, success=success)
