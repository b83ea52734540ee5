"""The fields of a request that say where the host reports the end of its task."""

from __future__ import annotations

from typing import Any, Protocol

import attrs
from attrs import Attribute

from .checks import Field, place, refusal
from .values import is_http_url, is_text, takes_webhooks


def webhook_url(*, any_port: bool = False) -> Field:
    """Return an optional field for where the host reports the end of a task."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value is None or value == "":
            return
        problem = webhook_problem(value, any_port=any_port)
        if problem:
            raise refusal(instance, attribute, value, problem)

    field: Any = attrs.field
    return field(default=None, kw_only=True, validator=validate, metadata={"takes": "", "files": False})


def webhook_problem(url: object, *, any_port: bool) -> str:
    """Return why no webhook is delivered to a URL, "" if it may be."""
    if not is_http_url(url):
        return "it must be an http(s) URL that the host can reach, or None"
    if not any_port and not takes_webhooks(url):
        return "the host delivers to port 80 or 443 only"
    return ""


class _HasWebhook(Protocol):
    webhook_endpoint: str | None


def webhook_secret() -> Field:
    """Return an optional field for what a webhook brings back in a header; it is never shown."""

    def validate(instance: _HasWebhook, attribute: Attribute[Any], value: object) -> None:
        if value is not None and not is_text(value):
            raise ValueError(f"{place(instance, attribute)}: it must be a string, or None")
        if value is not None and not value.isascii():  # frameworks decode headers differently
            raise ValueError(f"{place(instance, attribute)}: it must be ASCII")
        if value and not instance.webhook_endpoint:
            raise ValueError(f"{place(instance, attribute)}: set webhook_endpoint too, or leave both out")

    field: Any = attrs.field
    metadata = {"takes": "", "files": False}
    return field(default=None, kw_only=True, repr=False, validator=validate, metadata=metadata)
