"""From the body of a create in the unified protocol, or an older one, to a checked `CreateRequest`.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from .catalog import MODELS, STOPPED, find_system
from .checks import endpoint, ratio, text
from .input_checks import check_input
from .requests import MIDJOURNEY, WEBHOOK_FIELDS, CreateRequest, Kind, Protocol, Refusal
from .verbs import VERBS, midjourney_request

_WEBHOOK_CHECKS = {"endpoint": endpoint, "secret": text}
#: Inputs that may hold what a task is about, the first that is there counts.
_PROMPTS = ("prompt", "gpt_description_prompt", "style_prompt", "gen_text", "lyrics")


@frozen
class _Config:
    """What the `config` of a create says: the webhook as fields of a task, and the service mode."""

    webhook: Mapping[str, object] = {}
    service_mode: str = ""


def unified_request(body: Mapping[str, object], route: str) -> CreateRequest:
    """Return a create of the unified protocol, checked; raise `Refusal` if it is invalid."""
    model = _checked_model(body.get("model"))
    task_type, given = body.get("task_type"), body.get("input")
    if not isinstance(task_type, str) or not task_type:
        raise Refusal("task_type is required")
    if not isinstance(given, dict):
        raise Refusal("input is required and must be an object")

    config = _checked_config(body.get("config"))
    if model == MIDJOURNEY:
        return _midjourney_task(task_type, given, config, route)
    return system_request(
        model,
        task_type,
        given,
        config.webhook,
        protocol=Protocol.UNIFIED,
        route=route,
        service_mode=config.service_mode,
    )


def _checked_model(model: object) -> str:
    if not isinstance(model, str):
        raise Refusal("model is required")
    if model in STOPPED:
        name = STOPPED[model]
        raise Refusal(f"{name} is no longer served: the vendor stopped {model}, and no host takes its tasks")
    if model not in MODELS:
        raise Refusal(f"invalid model: {model[:100]!r}")
    return model


def _midjourney_task(
    task_type: str,
    given: Mapping[str, object],
    config: _Config,
    route: str,
) -> CreateRequest:
    if task_type not in VERBS:
        raise Refusal(f"invalid task_type for {MIDJOURNEY}: {task_type!r}")

    body = {**_without_webhook(given), **config.webhook}
    request = midjourney_request(task_type, body, protocol=Protocol.UNIFIED, route=route)
    return evolve(request, service_mode=config.service_mode)


def system_request(
    model: str,
    task_type: str,
    given: Mapping[str, object],
    webhook: Mapping[str, object],
    *,
    protocol: Protocol,
    route: str,
    service_mode: str = "",
) -> CreateRequest:
    """Return a create of any system but Midjourney, its inputs checked."""
    system = find_system(model, task_type)
    if system is None:
        raise Refusal(f"invalid task_type for {model}: {task_type!r}")

    check_input(system, given)
    derives = system.derives and given.get("origin_task_id")
    return CreateRequest(
        name=task_type,
        route=route,
        protocol=protocol,
        model=model,
        makes=Kind.FILES,
        given={**_without_webhook(given), **webhook},
        parent=Kind.FILES if derives else "",
        prompt=_prompt(given),
        mode=system.makes,
        aspect_ratio=_aspect_ratio(given),
        service_mode=service_mode,
    )


def _checked_config(config: object) -> _Config:
    if config is None:
        return _Config()
    if not isinstance(config, dict):
        raise Refusal("invalid config: must be an object")

    webhook_config = config.get("webhook_config") or {}
    if not isinstance(webhook_config, dict):
        raise Refusal("invalid config: must be an object")

    service_mode = config.get("service_mode") or ""
    if not isinstance(service_mode, str):
        raise Refusal("invalid service_mode: must be a string")
    return _Config(webhook_fields(webhook_config), service_mode)


def webhook_fields(webhook_config: Mapping[str, object]) -> dict[str, object]:
    """Return a webhook as the fields that a task knows it by."""
    fields: dict[str, object] = {}
    for name, check in _WEBHOOK_CHECKS.items():
        value = webhook_config.get(name)
        if value in (None, ""):
            continue
        if problem := check(value):
            raise Refusal(f"invalid webhook {name}: {problem}")
        fields[f"webhook_{name}"] = value
    return fields


def _without_webhook(given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name not in WEBHOOK_FIELDS}


def _prompt(given: Mapping[str, object]) -> str:
    for name in _PROMPTS:
        value = given.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _aspect_ratio(given: Mapping[str, object]) -> str:
    width, height = given.get("width"), given.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return f"{width}:{height}"

    asked_for = given.get("aspect_ratio")
    if asked_for and not ratio(asked_for):
        return str(asked_for)
    return ""
