"""Secrets: found by their value however they are spelt, and out of reach of tools that show local variables."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.creating import json_answer, raw_host
from support.families import FamilyCase
from support.strict_server import Act, free_port, http, strict_server

from piapi_async import PiAPI, PiAPIError, RetryPolicy, TransportError, WebhookEvent
from piapi_async._calls.secrets import Hidden, Secrets

KEY = 'sk-te/5t-5eCr3t"\\key'.replace('"', "").replace("\\", "")
HUSH = "hush-hush/2026"


def escaped(secret: str) -> list[str]:
    """Return some of the ways in which JSON may spell a text, without its quotes."""
    return [
        secret,
        secret.replace("/", "\\/"),
        "".join(f"\\u{ord(character):04x}" for character in secret),
        "".join(f"\\u{ord(character):04X}" for character in secret),
        secret.replace("-", "\\u002d").replace("/", "\\u002F"),
    ]


# -- by value -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", escaped(KEY))
def test_a_secret_is_found_however_json_spells_it(spelt: str) -> None:
    secrets = Secrets()
    secrets.add(KEY)
    body = f'{{"message": "bad key {spelt}!", "url": "a\\u0026b\\/c"}}'.encode()

    assert json.loads(secrets.hide(body)) == {"message": "bad key …!", "url": "a&b/c"}


@given(st.text(min_size=8, max_size=24), st.data())
def test_a_secret_of_any_characters_is_found_in_any_mixture_of_spellings(
    secret: str, data: st.DataObject
) -> None:
    spelt = "".join(
        data.draw(
            st.sampled_from([json.dumps(character)[1:-1], json.dumps(character, ensure_ascii=False)[1:-1]])
        )
        for character in secret
    )
    secrets = Secrets()
    secrets.add(secret)
    body = f'["{spelt}"]'.encode("utf-8", "surrogatepass")

    assert secrets.hide(body) == '["…"]'.encode()


@pytest.mark.parametrize("secret", ["short", "", None, 5])
def test_what_is_too_short_to_be_a_secret_is_left_alone(secret: Any) -> None:
    secrets = Secrets()
    secrets.add(secret)

    assert secrets.hide(b"in short: \\u0061 5") == b"in short: \\u0061 5"


def test_the_key_is_never_forgotten_however_many_secrets_follow() -> None:
    secrets = Secrets()
    secrets.add(KEY)
    for number in range(100):
        secrets.add(f"webhook secret {number}")

    assert secrets.hide(KEY.encode()) == "…".encode()
    assert secrets.hide_text(f"{KEY} webhook secret 99 webhook secret 1") == "… … webhook secret 1"
    assert len(secrets._values) < 20


def test_a_hidden_value_is_in_no_repr() -> None:
    assert KEY not in repr(Hidden(KEY))
    assert KEY not in f"{Hidden(KEY)}"


def test_a_delivery_that_quotes_the_receivers_secret_does_not_keep_it() -> None:
    for spelt in escaped(HUSH):
        body = f'{{"task_id": "t", "status": "failed", "task_result": {{"message": "{spelt}"}}}}'.encode()
        event = WebhookEvent.from_http({"x-webhook-secret": HUSH}, body, secret=HUSH)

        assert HUSH not in str(event.raw)


# -- in what a host says ------------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("status", [200, 400, 429, 500, 502])
async def test_a_host_that_echoes_secrets_brings_them_into_no_error(
    status: int, place: int, secret_case: FamilyCase
) -> None:
    key, hush = escaped(KEY)[place], escaped(HUSH)[place]
    words = (
        f'"message": "no: {key} {hush}", "error": {{"raw_message": "{hush}"}}, "hook": "{hush}", "{key}": 1'
    )
    said = json_answer(status, f"{{{words}}}".encode(), f"X-Echo: {KEY}")
    request = secret_case.reroll("p", webhook_endpoint="https://h.test/", webhook_secret=HUSH)
    async with (
        raw_host(lambda _: said) as host,
        PiAPI(KEY, base_url=host.url, retry=RetryPolicy.never()) as piapi,
    ):
        with pytest.raises(PiAPIError) as caught:
            await piapi.submit(request)

    shown = all_of(caught.value)
    assert KEY not in shown
    assert HUSH not in shown


@pytest.mark.looptime
@pytest.mark.parametrize("place", range(5))
async def test_a_host_that_echoes_secrets_brings_them_into_no_result(
    place: int, secret_case: FamilyCase
) -> None:
    key, hush = escaped(KEY)[place], escaped(HUSH)[place]
    echo = f'"config": {{"hook": "{hush}"}}, "echo": ["{key}", "{hush}"]'
    task = f'{{"task_id": "t1", "status": "failed", "message": "{key} {hush}", {echo}}}'
    said = f'{{"code": 200, "data": {task}}}' if secret_case.family.name == "unified" else task
    request = secret_case.reroll("p", webhook_endpoint="https://h.test/", webhook_secret=HUSH)
    async with (
        raw_host(
            lambda _: json_answer(200, secret_case.accepted), lambda _: json_answer(200, said.encode())
        ) as host,
        PiAPI(KEY, base_url=host.url) as piapi,
    ):
        task_ = await (await piapi.submit(request)).refresh()

    shown = f"{task_} {task_.raw} {task_.error}"
    assert "echo" in shown
    assert KEY not in shown
    assert HUSH not in shown


# -- in tracebacks with local variables ---------------------------------------------------------------------------


def all_of(error: BaseException) -> str:
    """Return all that a tool could show of an error: texts, attributes, and the variables of the frames not ours."""
    told = [repr(vars(error)), str(error), repr(error)]
    chain = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    while chain:
        link = chain.pop()
        told.extend(link.format_exception_only())
        for frame in link.stack:
            if "/tests/" not in frame.filename:
                told.append(f"{frame.filename}:{frame.lineno} {frame.locals}")
        chain.extend(filter(None, (link.__cause__, link.__context__)))
    return "\n".join(told)


BAD_ARGUMENTS: list[dict[str, Any]] = [
    {"base_url": "http://api.piapi.example"},
    {"base_url": "ftp://x"},
    {"upload_url": "http://api.piapi.example"},
    {"timeout": -1},
    {"connections": 0},
    {"retry": 5},
    {"rate_limit": (0, 1.0)},
    {"rate_limit": 7},
]


@pytest.mark.parametrize("options", BAD_ARGUMENTS, ids=str)
@pytest.mark.parametrize("from_environment", [False, True])
def test_an_argument_that_is_refused_does_not_show_the_key(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, from_environment: bool
) -> None:
    if from_environment:
        monkeypatch.setenv("PIAPI_API_KEY", KEY)
    with pytest.raises((ValueError, TypeError)) as caught:
        PiAPI(None if from_environment else KEY, **options)

    assert KEY not in all_of(caught.value)


@pytest.mark.parametrize("key", [f"{KEY} and a blank", f"{KEY}ü", f"{KEY}\n{KEY}", KEY.encode()])
def test_a_key_that_is_refused_is_not_shown(key: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        PiAPI(key)

    assert KEY not in all_of(caught.value)


ACTS = {
    "closed": Act(then="close"),
    "reset": Act(read="head", then="reset"),
    "silence": Act(then="stall"),
    "half an answer": Act(say=http(b"{}", length=90), then="close"),
    "noise": Act(say=b"\x00\x01\x02\r\n\r\n", then="close"),
    "too large": Act(say=http(b"", f"X-Echo: {KEY}", length=99_999_999), then="close"),
    "a refusal": Act(say=http(b'{"message": "no"}', f"X-Echo: {KEY}", status=400)),
    "an edge": Act(say=http(b"<html>", f"X-Echo: {KEY}", status=502)),
    "no JSON": Act(say=http(b"OK", f"X-Echo: {KEY}")),
}


async def submitted(piapi: PiAPI, case: FamilyCase) -> None:
    await piapi.submit(case.reroll("p", webhook_endpoint="https://h.test/", webhook_secret=HUSH))


async def fetched(piapi: PiAPI, case: FamilyCase) -> None:
    await piapi.fetch("t", family=case.family)


async def hurried(piapi: PiAPI, case: FamilyCase) -> None:
    async with asyncio.timeout(1.0):  # whose error has the cancellation, and all its frames, for a cause
        await piapi.fetch("t", family=case.family)


@pytest.mark.looptime
@pytest.mark.parametrize("call", [submitted, fetched, hurried])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("session", ["our own", "the user's"])
async def test_no_frame_of_an_error_holds_a_secret(
    session: str, act: str, call: Callable[[PiAPI, FamilyCase], Awaitable[None]], case: FamilyCase
) -> None:
    options: dict[str, Any] = {"retry": RetryPolicy.never(), "timeout": 5.0}
    async with strict_server() as server, aiohttp.ClientSession() as users:
        server.usual = ACTS[act]
        if session == "the user's":
            options["session"] = users
        async with PiAPI(KEY, base_url=server.base_url, **options) as piapi:
            with pytest.raises((PiAPIError, TimeoutError)) as caught:
                await call(piapi, case)

    shown = all_of(caught.value)
    assert "piapi_async" in shown
    assert KEY not in shown
    assert HUSH not in shown


@pytest.mark.looptime
async def test_the_cause_of_a_lost_connection_is_kept_without_its_frames(case: FamilyCase) -> None:
    async with PiAPI(KEY, base_url=f"http://127.0.0.1:{free_port()}", retry=RetryPolicy.never()) as piapi:
        with pytest.raises(TransportError) as caught:
            await submitted(piapi, case)

    cause = caught.value.__cause__
    assert isinstance(cause, aiohttp.ClientConnectorError)
    assert isinstance(cause.__cause__, OSError)
    assert cause.__traceback__ is cause.__cause__.__traceback__ is None
    assert KEY not in all_of(caught.value)
