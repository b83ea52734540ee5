"""The same three calls on every client: make a reroll, look at a task, and a reroll from its submit to its end.

Each client comes as its package makes it, but for the host, the key and, where it can be set, the pause between two
looks.  The peers' packages are asked for only when they are used.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import aiohttp
from attrs import evolve, frozen

from piapi_async import LEGACY, PiAPI, PollPolicy, Reroll
from piapi_async._calls.transport import SendState
from piapi_async._http import HTTPResponse
from piapi_async._protocol.family import TaskRequest
from piapi_async._submit.claim import NO_CLAIM
from piapi_async._submit.known_ids import KnownIds
from piapi_async._submit.submission import Submission, SubmissionState, SubmitResult
from piapi_async._submit.telling import tell_accepted
from piapi_async.handle import TaskHandle
from piapi_async.tasks import TaskId

from ._models import make_models

KEY = "a-key"
PARENT = "6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d"
PROMPT = "a quiet landscape"
TASK_ID = "00000000-0000-4000-8000-000000000000"
"""A task that the measuring host has always just finished."""

_BODY = {"origin_task_id": PARENT, "prompt": PROMPT}

Call = Callable[[], Awaitable[object]]


@frozen
class Calls:
    """What is measured of one client; `reroll` submits and waits, looking every `pause` seconds."""

    submit: Call
    fetch: Call
    reroll: Call


Client = Callable[[str, float], AbstractAsyncContextManager[Calls]]


@asynccontextmanager
async def ours(base_url: str, pause: float) -> AsyncIterator[Calls]:
    """Give this package's."""
    async with PiAPI(KEY, base_url=base_url, poll=PollPolicy.every(pause)) as piapi:

        async def reroll() -> None:
            await (await piapi.submit(Reroll(PARENT, prompt=PROMPT))).wait()

        yield Calls(lambda: piapi.submit(Reroll(PARENT, prompt=PROMPT)), lambda: piapi.fetch(TASK_ID), reroll)


@asynccontextmanager
async def bare(base_url: str, pause: float) -> AsyncIterator[Calls]:
    """Give aiohttp's: dictionaries in, dictionaries out."""
    async with aiohttp.ClientSession(base_url, headers={"X-API-Key": KEY}) as session:

        async def post(path: str, body: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
            async with session.post(path, json=body) as response:
                return await response.json()

        yield _by_hand(post, pause)


@asynccontextmanager
async def typed(base_url: str, pause: float) -> AsyncIterator[Calls]:
    """Give the least that calls with our types cost on aiohttp: no retries, no gate, nothing that knows what left."""
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        base_url, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def call(request: Any) -> Any:  # noqa: ANN401 - whatever the request's answer is
            asked = request.to_http()
            async with session.post(asked.path, data=asked.body) as response:
                return request.parse(HTTPResponse(response.status, await response.read(), response.headers))

        async def reroll() -> None:
            task_id = await call(Reroll(PARENT, prompt=PROMPT))
            while not (await call(LEGACY.fetch(task_id))).state.terminal:
                await asyncio.sleep(pause)

        yield Calls(
            lambda: call(Reroll(PARENT, prompt=PROMPT)), lambda: call(LEGACY.fetch(TaskId(TASK_ID))), reroll
        )


@asynccontextmanager
async def transported(base_url: str, pause: float) -> AsyncIterator[Calls]:
    """Give the same through this package's transport, which knows what has left, and nothing above it."""
    async with PiAPI(KEY, base_url=base_url) as piapi:
        transport = piapi._runtime.sender.transport  # noqa: SLF001 - what a call is made of is to be seen

        async def call(request: Any, *, submit: bool = False) -> Any:  # noqa: ANN401 - whatever the answer is
            sending = SendState()
            answer = await transport.send(request.to_http(), timeout=30.0, state=sending, submit=submit)
            sending.settle(reuse=True)
            return request.parse(answer)

        async def reroll() -> None:
            task_id = await call(Reroll(PARENT, prompt=PROMPT), submit=True)
            while not (await call(LEGACY.fetch(task_id))).state.terminal:
                await asyncio.sleep(pause)

        yield Calls(
            lambda: call(Reroll(PARENT, prompt=PROMPT), submit=True),
            lambda: call(LEGACY.fetch(TaskId(TASK_ID))),
            reroll,
        )


@asynccontextmanager
async def owned(base_url: str, pause: float) -> AsyncIterator[Calls]:
    """Give the same with a task that owns each POST, without which a caller who is cancelled loses the answer."""
    async with transported(base_url, pause) as calls:

        async def submit() -> Any:  # noqa: ANN401 - whatever the answer is
            loop = asyncio.get_running_loop()
            result: asyncio.Future[Any] = loop.create_future()

            async def own() -> None:
                result.set_result(await calls.submit())

            owner = loop.create_task(own())
            try:
                return await result
            finally:
                del owner  # held until here

        yield evolve(calls, submit=submit)


@asynccontextmanager
async def kept(base_url: str, pause: float) -> AsyncIterator[Calls]:
    """Give the same with what a submission promises that succeeds and has no ledger, in one function.

    It is made of the package's own parts: what tells a client that is closed, or another process's; what observers
    hear; the states, by which an error says what was paid; the tasks that are known, by which a response that was
    mixed up is found; and the handle that can be waited for.  It leaves out what follows a failure or a caller's
    cancellation, and every place where the package asks whether there is a ledger, a receiver, a file to be uploaded,
    a pause, a rate limit or another client: so it is somewhat less than the least.
    """
    async with transported(base_url, pause) as calls, PiAPI(KEY, base_url=base_url) as piapi:
        runtime = piapi._runtime  # noqa: SLF001 - what a call is made of is to be seen
        sender = runtime.sender
        under_way: set[Submission] = set()
        ids = KnownIds()

        async def own(submission: Submission) -> None:
            try:
                submission.enter(SubmissionState.CLAIMED)
                submission.enter(SubmissionState.SENDING)
                sender.events.sending(submission.subject)
                sender.counters.requests["Reroll"] += 1
                answer = await sender.transport.send(
                    submission.request.to_http(), timeout=30.0, state=submission.send_state, submit=True
                )
                sender.clock.note(answer.headers.get("Date"))
                made = submission.take_in(submission.request.parse(answer))
                if not ids.take(made):
                    raise AssertionError(made)  # noqa: TRY301 - another function would be another cost
                submission.send_state.settle(reuse=True)
                submission.accept(made)
            except BaseException as error:
                submission.fail(error)
                submission.send_state.settle(reuse=False)
                if not submission.result.done():
                    submission.result.set_exception(error)
                raise
            else:
                accepted = SubmitResult(made)
                tell_accepted(sender.events, submission, accepted)
                if not submission.result.done():
                    submission.result.set_result(accepted)
            finally:
                under_way.discard(submission)

        async def submit() -> TaskHandle[Any]:
            request: TaskRequest[Any] = Reroll(PARENT, prompt=PROMPT)
            runtime.enter()
            family = request.family
            runtime.check_family(family)
            subject = runtime.events.started(request, family.name, None)
            loop = asyncio.get_running_loop()
            submission = Submission(
                request,
                family,
                30.0,
                time.time(),
                NO_CLAIM,
                SendState(),
                loop.create_future(),
                subject=subject,
            )
            under_way.add(submission)
            submission.task = loop.create_task(own(submission))
            accepted = await submission.result
            watch = runtime.watch(family, accepted.task_id, submitted=True)
            watch.subject = subject
            return TaskHandle(runtime, watch, accepted.frozen)

        yield evolve(calls, submit=submit)


@asynccontextmanager
async def _httpx(base_url: str, pause: float) -> AsyncIterator[Calls]:
    httpx: Any = importlib.import_module("httpx")
    async with httpx.AsyncClient(base_url=base_url, headers={"X-API-Key": KEY}) as client:

        async def post(path: str, body: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
            return (await client.post(path, json=body)).json()

        yield _by_hand(post, pause)


def _by_hand(post: Callable[[str, Mapping[str, str]], Awaitable[Any]], pause: float) -> Calls:
    """Give what most people write around a client that knows HTTP only."""

    async def reroll() -> None:
        made = await post("/mj/v2/reroll", _BODY)
        while (await post("/mj/v2/fetch", {"task_id": made["task_id"]}))["status"] != "finished":
            await asyncio.sleep(pause)

    return Calls(
        lambda: post("/mj/v2/reroll", _BODY), lambda: post("/mj/v2/fetch", {"task_id": TASK_ID}), reroll
    )


@asynccontextmanager
async def _openai(base_url: str, pause: float) -> AsyncIterator[Calls]:
    openai: Any = importlib.import_module("openai")
    made, found = make_models(openai.BaseModel)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url) as client:

        def submit() -> Awaitable[Any]:
            return client.post("/mj/v2/reroll", cast_to=made, body=_BODY)  # type: ignore[no-any-return]  # an Any

        def fetch(task_id: str) -> Awaitable[Any]:
            return client.post("/mj/v2/fetch", cast_to=found, body={"task_id": task_id})  # type: ignore[no-any-return]

        async def reroll() -> None:
            task_id = (await submit()).task_id
            while (await fetch(task_id)).status != "finished":
                await asyncio.sleep(pause)

        yield Calls(submit, lambda: fetch(TASK_ID), reroll)


@asynccontextmanager
async def _replicate(base_url: str, pause: float) -> AsyncIterator[Calls]:
    module: Any = importlib.import_module("replicate")
    client = module.Client(api_token=KEY, base_url=base_url)
    client.poll_interval = pause

    def submit() -> Awaitable[Any]:
        return client.predictions.async_create("v" * 64, _BODY)  # type: ignore[no-any-return]  # an Any

    async def reroll() -> None:
        await (await submit()).async_wait()

    yield Calls(submit, lambda: client.predictions.async_get(TASK_ID), reroll)


@asynccontextmanager
async def _fal(base_url: str, pause: float) -> AsyncIterator[Calls]:
    # It takes a host's name from the environment once and always speaks https to it; so its URL is set here.
    module: Any = importlib.import_module("fal_client")
    inside: Any = importlib.import_module("fal_client.client")
    inside.QUEUE_URL_FORMAT = f"{base_url}/"
    client = module.AsyncClient(key=KEY)

    async def handle(task_id: str) -> Any:  # noqa: ANN401 - of a package without types here
        return inside.AsyncRequestHandle.from_request_id(await client._client, "mj/reroll", task_id)  # noqa: SLF001

    async def fetch() -> None:
        await (await handle(TASK_ID)).status()

    async def reroll() -> None:
        made = await client.submit("mj/reroll", _BODY)
        await (await handle(made.request_id)).get(interval=pause)

    yield Calls(lambda: client.submit("mj/reroll", _BODY), fetch, reroll)


@asynccontextmanager
async def _legnext(base_url: str, pause: float) -> AsyncIterator[Calls]:
    module: Any = importlib.import_module("legnext")
    async with module.AsyncClient(api_key=KEY, base_url=base_url) as client:

        async def reroll() -> None:
            made = await client.midjourney.reroll(PARENT)
            await client.tasks.wait_for_completion(made.job_id, poll_interval=pause)

        yield Calls(lambda: client.midjourney.reroll(PARENT), lambda: client.tasks.get(TASK_ID), reroll)


OURS, BARE, TYPED, TRANSPORT = "piapi_async", "bare aiohttp", "aiohttp, our types", "our transport"
OWNED, KEPT = "our transport, in a task", "its promises, in one function"
NEAR: Mapping[str, Client] = {
    OURS: ours,
    KEPT: kept,
    OWNED: owned,
    TRANSPORT: transported,
    TYPED: typed,
    BARE: bare,
}
"""What differs by little: the package, what its promises cost, three of its layers, and what they stand on."""

ONLY_SUBMIT = frozenset({KEPT, OWNED})
"""Those that differ from another in how they submit alone."""

PEERS: Mapping[str, Client] = {
    "httpx": _httpx,
    "openai": _openai,
    "replicate": _replicate,
    "fal-client": _fal,
    "legnext": _legnext,
}
"""By the name of the package."""


def installed() -> dict[str, Client]:
    """Give the peers that are installed; tell of those that are not."""
    found = {}
    for name, client in PEERS.items():
        try:
            version(name)
        except PackageNotFoundError:
            print(f"{name} is not installed: left out")
        else:
            found[name] = client
    return found


def versions() -> dict[str, str]:
    """Give the versions of what is compared, as far as it is installed."""
    found = {}
    for name in ("aiohttp", "orjson", "pydantic", *PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
