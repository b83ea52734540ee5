"""The emulator as its user holds it: its settings, what happens to it, and what it saw."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import define, evolve, field, setters

from ._api.dialect import PLANS, Dialect, Plan
from ._api.host import Host
from ._api.router import Router
from ._api.view import View
from ._server.fault_rules import FaultRules, Rule
from ._server.guard import Guard
from ._server.served_files import LinkRules
from ._server.server import Server
from ._server.webhooks import WebhookFaults, WebhookSender
from ._service.checks import is_loopback
from ._service.durations import DURATIONS, Constant, Duration
from ._service.engine import TaskEngine
from ._service.legnext import CONCURRENCY as LEGNEXT_CONCURRENCY
from ._service.observed import Seen
from ._service.requests import Kind, Protocol
from ._service.state_file import StateFile
from .faults import Fault

if TYPE_CHECKING:
    from ..client import PiAPI
    from ._service.tasks import Task

Durations = float | Duration | Mapping[str, "float | Duration"]


#: Settings of the engine, which may be changed at any time.
_LIVE = frozenset(
    (
        *("queue", "failure_rate", "retry_rate", "progress_error", "progress_step"),
        *("adopt_parents", "parent_max_age", "banned_words"),
    )
)
#: Settings that are read when a run begins.
_AT_START = frozenset(
    (
        *("speed", "latency", "links_expire_after", "expired_status", "links_live_after"),
        *(
            "early_status",
            "webhook_faults",
            "webhook_hosts",
            "legnext_secret",
            "epoch",
            "state",
            "public_url",
        ),
    )
)
_SIGNED_LINKS = ("no", "links", "redirects")


def _on_set(emulator: Emulator, setting: attrs.Attribute[Any], value: object) -> object:
    """Put a changed setting into effect; raise `AttributeError` if it would have none."""
    if setting.name in _LIVE:
        setattr(emulator.engine, setting.name, value)
        return value

    at_start = setting.name in _AT_START
    may_be_set = at_start and not emulator.base_url
    if setting.init and not may_be_set:
        when = "before it runs" if at_start else "when it is made"
        raise AttributeError(f"{setting.name} of an emulator is set {when}, and has no effect now")
    return value


def _is_speed(_emulator: object, _setting: object, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"speed must be above 0: {value}")


def _is_list(_emulator: object, setting: attrs.Attribute[Any], value: Iterable[str]) -> None:
    if isinstance(value, str):
        raise ValueError(f"{setting.name} must be a list")  # noqa: TRY004 - the others' kind of error


def _to_keys(keys: Iterable[str]) -> tuple[str, ...]:
    given = () if isinstance(keys, str) else tuple(keys)
    if not given:
        raise ValueError("api_keys must hold at least one key")
    return given


@define(kw_only=True, eq=False, repr=False, on_setattr=[setters.validate, _on_set])
class Emulator:
    """PiAPI and LegNext on this machine: the same seed and the same requests give the same run.

        async with Emulator(seed=1).run() as base_url: ...

    `speed`: emulated seconds per second of the event loop.  Every duration below is in emulated
    seconds; `latency` and the seconds of faults are the loop's.  `plan`: a name of `PLANS` or a
    `Plan`; it decides which optional fields are shown and, unless given, `concurrency`; beyond
    that, `queue` tasks are staged.  `durations`: seconds, a distribution (called with a
    `random.Random`), or either per verb, task type, process mode, or "image", "video", "audio",
    "model" for what all other systems make.  `failure_rate`, `retry_rate`: shares (0..1).
    `progress_error`: the share by which the reported progress is off, as one standard deviation.
    `parent_max_age`: when a parent is outdated.

    `links_expire_after`: when links to results answer `expired_status`; `links_live_after`: until
    so many seconds after a task's end they answer `early_status`, as caches do whose copies come
    late.  `signed_links`: links hold only byte for byte, with a signature in their query, or
    redirect to one that does.

    LegNext has accounts, tasks and a `concurrency` (6) of its own behind the same keys; its webhooks
    are signed with `legnext_secret`, if that is set.

    `epoch`: the unix time the run begins at (default: now).  `latency`: seconds before any request
    is served, or per route or group of routes (see `faults`).  `state`: a JSON file that the tasks
    are kept in over restarts (`run` raises `StateError` if it is damaged); while it is down, time
    passes at the same speed, unless `epoch` is fixed.

    `public_url`: what links begin with, if not the base URL; its host is then one that the emulator
    answers to.  Unless it is exposed (see `run`), it answers to no other but loopback's, and posts
    webhooks to loopback and the `webhook_hosts` alone: others are counted as lost.

    A setting that is changed later has an effect, or raises `AttributeError`: rates, `queue` and
    the like may be set at any time; `speed`, `latency`, links, webhooks, `epoch`, `state` between
    runs; all others never.
    """

    seed: int = 0
    speed: float = field(default=1.0, validator=_is_speed)
    api_keys: Iterable[str] = field(default=("emulator-key",), converter=_to_keys)
    plan: str | Plan = "pro-hya"
    concurrency: int | None = None
    queue: int = 50
    adopt_parents: bool = False
    parent_max_age: float | None = None
    banned_words: tuple[str, ...] = ("gore", "nude", "nsfw")
    durations: Durations | None = None
    failure_rate: float = 0.0
    retry_rate: float = 0.0
    progress_error: float = 0.0
    progress_step: int = 10
    dialect: Dialect = field(factory=Dialect)
    picture_size: int = 1024
    links_expire_after: float | None = None
    expired_status: int = 404
    links_live_after: float = 0.0
    early_status: int = 404
    signed_links: Literal["no", "links", "redirects"] = "no"
    faults: Iterable[Rule] = ()
    webhook_faults: WebhookFaults = field(factory=WebhookFaults)
    webhook_hosts: Iterable[str] = field(default=(), validator=_is_list)
    legnext_secret: str = field(default="", repr=False)
    latency: float | Mapping[str, float] = 0.0
    epoch: float | None = None
    state: str | Path | None = None
    public_url: str = ""
    seen: Seen = field(factory=Seen, init=False)
    engine: TaskEngine = field(init=False)
    fault_rules: FaultRules = field(init=False)
    _host: Host = field(init=False)
    _router: Router = field(init=False)
    _server: Server | None = field(default=None, init=False)
    #: The unix time of emulated second 0.
    _begun_at: float = field(default=0.0, init=False)
    #: Emulated seconds that passed while the emulator was down.
    _missed: float = field(default=0.0, init=False)
    _file: StateFile | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.signed_links not in _SIGNED_LINKS:
            raise ValueError(f"signed_links must be no, links or redirects: {self.signed_links!r}")

        plan = _plan(self.plan)
        concurrency, at_legnext = plan.concurrency, LEGNEXT_CONCURRENCY
        if self.concurrency is not None:
            concurrency = at_legnext = self.concurrency

        self.engine = TaskEngine(
            seed=self.seed,
            concurrency=concurrency,
            slots={Protocol.LEGNEXT: at_legnext},
            queue=self.queue,
            durations=_durations(self.durations),
            failure_rate=self.failure_rate,
            retry_rate=self.retry_rate,
            progress_error=self.progress_error,
            progress_step=self.progress_step,
            adopt_parents=self.adopt_parents,
            parent_max_age=self.parent_max_age,
            banned_words=self.banned_words,
        )
        self.fault_rules = FaultRules(_rng(self.seed, "faults"), list(self.faults))

        view = View(
            plan,
            self.dialect,
            picture_size=self.picture_size,
            signed=self.signed_links == "links",
        )
        self._host = Host(self.engine, view, frozenset(self.api_keys), self.seen)
        self._router = Router(self._host)

    def __repr__(self) -> str:
        where = f"at {self.base_url}" if self.base_url else "not running"
        tasks, requests = len(self.engine.tasks), self.seen.requests.total()
        return f"<Emulator {where}, {tasks} tasks, {requests} requests>"

    @property
    def api_key(self) -> str:
        """A key that it accepts."""
        return next(iter(self.api_keys))

    @property
    def base_url(self) -> str:
        """Where it is served, "" if it is not running."""
        if self._server is None:
            return ""
        return self._server.base_url

    @property
    def now(self) -> float:
        """Emulated seconds since the first start."""
        if self._server is None:
            return self.engine.now
        return self._server.clock()

    @asynccontextmanager
    async def run(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        exposed: bool = False,
    ) -> AsyncIterator[str]:
        """Serve inside the block, in this event loop; yields the base URL.

        `port=0` finds a free port.  A `host` that is not loopback raises `ValueError` unless
        `exposed`: the emulator trusts everyone who reaches it.  If `exposed`, it answers under any
        name and posts webhooks anywhere.
        """
        if not exposed and not is_loopback(host):
            raise ValueError(f"{host} is not a loopback address; pass exposed=True to serve it all the same")
        if self._server is not None:
            raise RuntimeError("this emulator is running already")

        self._restore()
        server = self._server = self._new_server(host, port, exposed=exposed)
        try:
            server.base_url = await server.start()
            self._host.view = evolve(
                self._host.view,
                origin=self.public_url or server.base_url,
                epoch=self._begun_at,
            )
            server.begin_outage_if_due()
            yield server.base_url
        finally:
            self._server = None
            await server.stop()

    def client(self, **options: Any) -> PiAPI:  # noqa: ANN401 - whatever a client takes
        """Return a client of this running emulator: with a key of it, its URL, and polls at its speed.

        The `options` are those of `PiAPI`, and take precedence.  The caller closes the client.
        """
        from ._client import client  # noqa: PLC0415 - nothing else here needs the client

        if not self.base_url:
            raise RuntimeError(
                "this emulator is not running: make its client inside `async with emulator.run()`"
            )
        return client(self.api_key, self.base_url, self.speed, options)

    def fail(
        self,
        route: str,
        fault: Fault,
        *,
        nth: int = 1,
        times: int | Literal["auto"] | None = "auto",
        rate: float | None = None,
    ) -> None:
        """Let `fault` happen to requests of `route`: from the `nth` on, `times` of them (None = all).

        With a `rate` (0..1) each is hit by chance.  "auto" is once, or without end if there is a
        rate.  Counting starts now; of several rules the first that hits a request takes it, and the
        later ones do not count it.
        """
        if times == "auto":
            times = 1 if rate is None else None

        self.fault_rules.rules.append(Rule(route, fault, nth, times, rate))
        if self._server is not None:
            self._server.begin_outage_if_due()

    def adopt(self, task_id: str, *, kind: str = "grid", prompt: str = "", age: float = 0.0) -> None:
        """Know `task_id` as a task that finished `age` emulated seconds ago.

        `kind` is "grid", "single", or "files" for a video.
        """
        self.engine.advance(self.now)
        self.engine.adopt(task_id, kind=Kind(kind), prompt=prompt, age=age)
        self._changed()

    def end(self, task_id: str, *, error: str = "") -> bool:
        """End a task now, failed if there is an `error`.

        Return False if it has ended already; raise `KeyError` if there is no such task.
        """
        ended = self.engine.end(task_id, error=error, now=self.now)
        self._changed()
        return ended

    def task(self, task_id: str) -> Task | None:
        """Return the task as it is now, None if there is none."""
        return self.engine.get(task_id, now=self.now)

    def _changed(self) -> None:
        if self._server is not None:
            self._server.changed()

    def _restore(self) -> None:
        """Take over the tasks of the state file, unless this emulator has tasks already."""
        self._missed = 0.0
        self._file = None

        saved = None
        if self.state is not None:
            self._file = StateFile(Path(self.state))
            self._file.check()
            if not self.engine.tasks:
                saved = self._file.load()

        if saved is None:
            now = time.time() if self.epoch is None else self.epoch
            self._begun_at = now - self.engine.now
            return

        self._begun_at = saved.epoch
        self.engine.restore(saved.tasks, now=saved.now, serial=saved.serial)
        # What ended in the meantime is played once the server is up, so that its webhooks are still
        # sent.
        if self.epoch is None:
            self._missed = max(0.0, time.time() - saved.saved_at) * self.speed

    def _new_server(self, host: str, port: int, *, exposed: bool) -> Server:
        loop = asyncio.get_running_loop()
        clock = _clock(loop, self.engine.now + self._missed, self.speed)
        guard = Guard.of(exposed=exposed, public_url=self.public_url, hooks=self.webhook_hosts)
        webhooks = WebhookSender(
            self.seen,
            self.webhook_faults,
            _rng(self.seed, "webhooks"),
            clock,
            self.speed,
            guard,
        )
        links = LinkRules(
            expire_after=self.links_expire_after,
            expired_status=self.expired_status,
            live_after=self.links_live_after,
            early_status=self.early_status,
            signed=self.signed_links,
        )
        return Server(
            router=self._router,
            rules=self.fault_rules,
            webhooks=webhooks,
            guard=guard,
            clock=clock,
            speed=self.speed,
            latency=_latency(self.latency),
            links=links,
            legnext_secret=self.legnext_secret,
            state=self._file,
            address=host,
            port=port,
        )


def _clock(loop: asyncio.AbstractEventLoop, start: float, speed: float) -> Callable[[], float]:
    last, elapsed = loop.time(), 0.0

    def now() -> float:
        nonlocal last, elapsed
        # A virtual clock is switched on, and set back, between a fixture that starts the emulator
        # and its test.
        elapsed += max(0.0, loop.time() - last)
        last = loop.time()
        return start + elapsed * speed

    return now


def _plan(plan: str | Plan) -> Plan:
    if isinstance(plan, Plan):
        return plan
    if plan not in PLANS:
        raise ValueError(f"unknown plan {plan!r}; known: {', '.join(PLANS)}")
    return PLANS[plan]


def _durations(given: Durations | None) -> Mapping[str, Duration]:
    if given is None:
        return DURATIONS
    if isinstance(given, Mapping):
        return {**DURATIONS, **{name: _duration(value) for name, value in given.items()}}
    return dict.fromkeys(DURATIONS, _duration(given))


def _duration(value: float | Duration) -> Duration:
    if callable(value):
        return value
    return Constant(float(value))


def _latency(given: float | Mapping[str, float]) -> Mapping[str, float]:
    if isinstance(given, int | float):
        return {"*": given}
    return given


def _rng(seed: int, use: str) -> Random:
    return Random(f"{seed}/{use}")  # noqa: S311 - a reproducible run is the point
