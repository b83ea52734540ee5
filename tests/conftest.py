from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import coverage
import pytest
import trustme
from hypothesis import HealthCheck, settings
from support.families import CASES, FamilyCase

# How long an example takes says how busy the machine is; each gate draws others.
settings.register_profile(
    "gate", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.register_profile("fast line", settings.get_profile("gate"), max_examples=12)
settings.load_profile("gate")

_STDERR = pytest.StashKey[int]()
_OWN_FOLDER = pytest.StashKey[str]()
_MEASURES_CHILDREN = "COVERAGE_PROCESS_CONFIG"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each run a folder of its own, which is kept unless all its tests pass.

    In the one that pytest has for all runs of a user, a run fails when two of them clear away the same older one's.
    """
    if not config.option.basetemp:  # a worker of xdist is told a place in it
        root = os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir()
        own = os.path.join(root, f"piapi-tests-{secrets.token_hex(8)}")  # noqa: PTH118 - pytest's option is a str
        config.option.basetemp = config.stash[_OWN_FOLDER] = own  # pytest makes it when it is first asked for

    config.stash[_STDERR] = os.dup(2)  # the real one: pytest captures only later
    if config.option.markexpr == "not storm":
        settings.load_profile("fast line")  # the gate looks for what these examples miss


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    own = session.config.stash.get(_OWN_FOLDER, None)
    if own and exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        shutil.rmtree(own, ignore_errors=True)


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """End a test that hangs, whatever it holds on to, with every thread's stack on stderr: in a worker of xdist, too.

    What pytest-timeout has of its own is not seen from a worker, and needs a thread that can still run.
    """
    faulthandler.dump_traceback_later(settings.timeout, exit=True, file=item.config.stash[_STDERR])
    return True


def pytest_timeout_cancel_timer() -> bool:
    faulthandler.cancel_dump_traceback_later()
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage in storms, here and in the processes that they start: it doubles what they cost.

    What has a line executed is a quick test, or a storm that is marked `measured`.
    """
    measuring = coverage.Coverage.current() if "storm" in item.keywords else None
    if measuring is None or "measured" in item.keywords:
        return (yield)

    measuring.stop()
    of_children = os.environ.pop(_MEASURES_CHILDREN, None)
    try:
        return (yield)
    finally:
        if of_children is not None:
            os.environ[_MEASURES_CHILDREN] = of_children
        measuring.start()


def pytest_enter_pdb() -> None:
    """Whoever debugs a test may take his time."""
    faulthandler.cancel_dump_traceback_later()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the seed of a simulated life that is to be replayed."""
    parser.addoption(
        "--simulation-seed", type=int, default=None, metavar="N", help="play this seed's life, and no other"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let the virtual clock leap after six idle turns, not 42: what is sent on loopback has arrived by the next."""
    if item.get_closest_marker("looptime"):
        item.add_marker(pytest.mark.looptime(noop_cycles=6))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, nor later among what was: it takes a fifth of the suite's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_stray_loop() -> None:
    """Keep pytest-asyncio from asking for a loop when there is none: until Python 3.14 that makes one, never closed."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session", autouse=True)
def plain_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests may have a key and a proxy; the tests must see neither."""
    with pytest.MonkeyPatch.context() as patch:
        # A pytest that a test starts clears away old folders of its own, not those of every run on this machine.
        patch.setenv("PYTEST_DEBUG_TEMPROOT", str(tmp_path_factory.getbasetemp()))

        vendors = (
            "PIAPI_API_KEY",
            "PIAPI_BASE_URL",
            "LEGNEXT_API_KEY",
            "LEGNEXT_BASE_URL",
            "PIAPI_POLL_SPEED",
        )
        for name in (*vendors, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        yield


# The third family runs at the gate: what is its own has fast tests, and the rest follows from the two others.
AT_THE_GATE = {"legnext"}


def cases(*names: str) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.storm] if name in AT_THE_GATE else []) for name in names]


@pytest.fixture(params=cases(*CASES))
def case(request: pytest.FixtureRequest) -> FamilyCase:
    """Each family of tasks in turn."""
    return CASES[request.param]


@pytest.fixture(params=cases(*(name for name, case in CASES.items() if case.cancels)))
def cancelling_case(request: pytest.FixtureRequest) -> FamilyCase:
    """Each family whose tasks can be cancelled."""
    return CASES[request.param]


@pytest.fixture(params=cases(*(name for name, case in CASES.items() if case.secret)))
def secret_case(request: pytest.FixtureRequest) -> FamilyCase:
    """Each family whose requests take a webhook secret."""
    return CASES[request.param]


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every logger's every record, DEBUG included."""
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "piapi_async"):
        yield caplog


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody trusts unless told to."""
    return trustme.CA()
