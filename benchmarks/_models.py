"""The legacy protocol's answers as pydantic models, written as openai's package writes its own."""

from __future__ import annotations

from typing import Any


def make_models(base: Any) -> tuple[Any, Any]:  # noqa: ANN401 - classes of a package that may not be installed
    """Give the models of a create's answer and of a fetch's, made from a pydantic base class."""

    class Made(base):  # type: ignore[misc]  # an Any to the type checker
        task_id: str
        status: str = ""
        message: str = ""

    class Asked(base):  # type: ignore[misc]  # the same
        origin_task_id: str | None = None
        prompt: str | None = None
        process_mode: str | None = None
        skip_prompt_check: bool | None = None
        webhook_endpoint: str | None = None
        webhook_secret: str | None = None

    class Param(base):  # type: ignore[misc]  # the same
        prompt: str | None = None
        index: str | None = None
        zoom_ratio: str | None = None
        aspect_ratio: str | None = None
        direction: str | None = None

    class Meta(base):  # type: ignore[misc]  # the same
        account_id: str | None = None
        task_type: str | None = None
        origin_task_id: str | None = None
        bot_hash: str | None = None
        bot_id: int | None = None
        model_version: str | None = None
        process_mode: str | None = None
        quota_frozen: int | None = None
        frozen_credit: int | None = None
        created_at: int | None = None
        created_at_utc: str | None = None
        started_at: int | None = None
        started_at_utc: str | None = None
        ended_at: int | None = None
        ended_at_utc: str | None = None
        task_request: Asked | None = None
        task_param: Param | None = None

    class Result(base):  # type: ignore[misc]  # the same
        discord_image_url: str | None = None
        image_url: str | None = None
        image_urls: list[str] | None = None
        temporary_image_urls: list[str] | None = None
        permanent_url: str | None = None
        task_progress: int | None = None
        intermediate_image_urls: list[str] | None = None
        image_id: str | None = None
        seed: str | None = None
        result_message_id: str | None = None
        quota_used: int | None = None
        credit: int | None = None
        message: str | None = None
        warning: str | None = None
        error_messages: list[str] | None = None
        need_retry: bool | None = None
        actions: list[str] | None = None

    class Found(base):  # type: ignore[misc]  # the same
        task_id: str
        status: str
        process_time: int | None = None
        retry_count: int | None = None
        meta: Meta | None = None
        task_result: Result | None = None

    # The names above are local to this function, so annotations are looked up there.
    names = {"Asked": Asked, "Param": Param, "Meta": Meta, "Result": Result}
    for model in (Made, Asked, Param, Meta, Result, Found):
        model.model_rebuild(_types_namespace=names)
    return Made, Found
