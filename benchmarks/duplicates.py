"""Who pays twice: how often one create reaches a host that misbehaves, with this package and with other SDKs.

    python -m benchmarks.duplicates [--smoke] [--json FILE]      side by side, in real time
    python -m benchmarks.duplicates --ours [INTENTS]             every fault, 1,000 submits each, on a virtual clock

An intent is one call of an SDK's method that makes a paid job.  Each has a host and a client of its own, so nothing is
shared between them; SDKs that are not installed (``pip install 'piapi_async[bench]'``) are left out.  They run as they
come, with their default retries; a time-out of one second is set only for the fault that is to exceed it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aiohttp
import trustme
from attrs import asdict, define, evolve, field, frozen

from piapi_async import CreateTask, Imagine, Ledger, PiAPI, PiAPIError, SubmissionUnknown, legnext

from ._faults import FAULTS, LEGNEXT, LEGNEXT_FAULTS, UNIFIED, UNIFIED_FAULTS, Fault, Host
from ._goals import Goal
from ._table import table
from ._virtual import run_virtual


@define
class Tally:
    """What became of the intents of one SDK under one fault: how many had so many billable creates and that outcome."""

    counts: Counter[tuple[int, str]] = field(factory=Counter)

    @property
    def most(self) -> int:
        """The most creates that one intent led to."""
        return max(creates for creates, _ in self.counts)

    @property
    def lost(self) -> int:
        """How many intents were paid for, while the caller never learnt which job was made."""
        return sum(
            intents
            for (creates, outcome), intents in self.counts.items()
            if creates and outcome != "recovers"
        )

    @property
    def range(self) -> str:
        """How many creates one intent led to."""
        fewest = min(creates for creates, _ in self.counts)
        return str(self.most) if fewest == self.most else f"{fewest} to {self.most}"

    @property
    def outcomes(self) -> Counter[str]:
        """How many intents had which outcome."""
        total: Counter[str] = Counter()
        for (_, outcome), intents in self.counts.items():
            total[outcome] += intents
        return total


Send = Callable[[str], Awaitable[object]]
SDK = Callable[[Host], AbstractAsyncContextManager[Send]]

# -- the SDKs -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(
    host: Host, *, trusting: ssl.SSLContext | None = None, ledger: Path | None = None, recover: float = 0.0
) -> AsyncIterator[Send]:
    """Give this package's submit; `recover`: for how long it looks into the host's history."""
    options: dict[str, Any] = {"recover": recover}
    if ledger is not None:
        options["ledger"] = Ledger(ledger)
    if host.fault.patience is not None:
        options["timeout"] = host.fault.patience
    async with contextlib.AsyncExitStack() as stack:
        if trusting is not None:
            connector = aiohttp.TCPConnector(ssl=trusting)
            options["session"] = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        piapi = await stack.enter_async_context(PiAPI("sk-test", base_url=host.url, **options))
        if host.fault.words is LEGNEXT:
            yield lambda prompt: piapi.submit(legnext.Imagine(prompt))
        elif host.fault.words is UNIFIED:
            yield lambda prompt: piapi.submit(CreateTask("midjourney", "imagine", {"prompt": prompt}))
        else:
            yield lambda prompt: piapi.submit(Imagine(prompt))


def _timeout(host: Host, name: str) -> dict[str, Any]:
    return {} if host.fault.patience is None else {name: host.fault.patience}


@asynccontextmanager
async def _openai(host: Host) -> AsyncIterator[Send]:
    module = importlib.import_module("openai")
    async with module.AsyncOpenAI(
        api_key="sk-test", base_url=f"{host.url}/v1", **_timeout(host, "timeout")
    ) as client:
        yield lambda prompt: client.images.generate(model="m", prompt=prompt)


@asynccontextmanager
async def _fal(host: Host) -> AsyncIterator[Send]:
    # It takes a host's name from the environment once and always speaks https to it; so it is given whole URLs here.
    module = importlib.import_module("fal_client")
    inside: Any = importlib.import_module("fal_client.client")
    inside.QUEUE_URL_FORMAT = ""
    client = module.AsyncClient(key="sk-test", **_timeout(host, "default_timeout"))
    yield lambda prompt: client.submit(f"{host.url}/mj", {"prompt": prompt})


@asynccontextmanager
async def _replicate(host: Host) -> AsyncIterator[Send]:
    module = importlib.import_module("replicate")
    client = module.Client(api_token="sk-test", base_url=host.url, **_timeout(host, "timeout"))  # noqa: S106 - made up
    yield lambda prompt: client.predictions.async_create("v" * 64, {"prompt": prompt})


@asynccontextmanager
async def _legnext(host: Host) -> AsyncIterator[Send]:
    module = importlib.import_module("legnext")
    async with module.AsyncClient(
        api_key="sk-test", base_url=host.url, **_timeout(host, "timeout")
    ) as client:
        yield lambda prompt: client.midjourney.diffusion(text=prompt)


SDKS: dict[str, SDK] = {
    "piapi_async": ours,
    "openai": _openai,
    "fal-client": _fal,
    "replicate": _replicate,
    "legnext": _legnext,
}

# Seconds from one intent to the next: building a client keeps the loop busy, and a host that is away comes back.
_APART = 0.05

# -- intents ------------------------------------------------------------------------------------------------------


async def _intend(
    fault: Fault, sdk: SDK, tally: Tally, *, tls: ssl.SSLContext | None = None, limit: float | None = None
) -> None:
    """Make one intent and count what it led to; stop the SDK after `limit` seconds."""
    async with Host(fault, tls) as host, sdk(host) as send:
        if fault.kept:
            await send("warm")
        await host.strike()
        try:
            async with asyncio.timeout(limit) as patience:
                await send("a cute cat")
        except SubmissionUnknown:
            outcome = "unknown"
        except PiAPIError:
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises
            outcome = "stopped" if patience.expired() else type(error).__name__
        else:
            outcome = "recovers"
        tally.counts[host.billable, outcome] += 1


@frozen
class _Trust:
    """What a host has that speaks TLS, and what its clients have."""

    host: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None


@contextlib.contextmanager
def _trust() -> Iterator[_Trust]:
    """Give the two sides of an authority of our own, which httpx's clients trust meanwhile, too."""
    host, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(host)
    authority.configure_trust(client)
    before = os.environ.get("SSL_CERT_FILE")
    with authority.cert_pem.tempfile() as path:
        os.environ["SSL_CERT_FILE"] = path
        try:
            yield _Trust(host, client)
        finally:
            os.environ.pop("SSL_CERT_FILE")
            os.environ.update({} if before is None else {"SSL_CERT_FILE": before})


async def our_tally(fault: Fault, intents: int, *, ledger: Path | None = None, recover: float = 0.0) -> Tally:
    """Submit so often under one fault with this package, one after the other: meant for a virtual clock."""
    tally = Tally()
    with contextlib.ExitStack() as stack:
        trust = stack.enter_context(_trust()) if fault.speaks_tls else _Trust()
        for _ in range(intents):
            await _intend(
                fault,
                partial(ours, trusting=trust.client, ledger=ledger, recover=recover),
                tally,
                tls=trust.host,
            )
    return tally


async def _side_by_side(
    faults: Sequence[Fault], intents: int, limit: float, trust: _Trust, packages: Iterable[str] = SDKS
) -> dict[str, dict[str, Tally]]:
    results: dict[str, dict[str, Tally]] = {}
    for package in packages:
        sdk = SDKS[package]
        try:
            name = f"{package} {version(package)}" if sdk is not ours else package
        except PackageNotFoundError:
            print(f"{package} is not installed: left out")
            continue
        results[name] = {fault.name: Tally() for fault in faults}
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                tls, secure = (
                    (trust.host, partial(ours, trusting=trust.client)) if fault.speaks_tls else (None, ours)
                )
                contestant, tally = secure if sdk is ours else sdk, results[name][fault.name]
                for _ in range(intents):
                    group.create_task(_intend(fault, contestant, tally, tls=tls, limit=limit))
                    await asyncio.sleep(_APART)
    return results


# -- reports ------------------------------------------------------------------------------------------------------


def report_ours(intents: int) -> dict[str, Any]:
    """Print and give what every fault does to so many submits of ours."""
    coded = [evolve(fault, name=f"{fault.name} (unified API)") for fault in UNIFIED_FAULTS]
    bare = [evolve(fault, name=f"{fault.name} (LegNext)") for fault in LEGNEXT_FAULTS]
    tallies = {
        fault.name: run_virtual(our_tally(fault, intents, recover=60.0)) for fault in (*FAULTS, *coded, *bare)
    }
    rows = [
        (
            name,
            *(str(tally.outcomes[outcome]) for outcome in ("recovers", "unknown", "refused")),
            tally.range,
            str(tally.lost),
        )
        for name, tally in tallies.items()
    ]
    columns = ("fault", "accepted", "unknown", "refused", "creates of one", "submissions lost for good")
    print(table(f"piapi_async, {intents} submits per fault", columns, rows))
    return {"intents": intents, "faults": {name: _plain(tally) for name, tally in tallies.items()}}


def report_all(intents: int, limit: float) -> dict[str, Any]:
    """Print and give what the faults do to all SDKs."""
    with _trust() as trust:
        results = asyncio.run(_side_by_side(FAULTS, intents, limit, trust))
        bare = asyncio.run(_side_by_side(LEGNEXT_FAULTS, intents, limit, trust, ("piapi_async", "legnext")))

    title = f"billable creates per intent, the most of {intents}, each stopped after {limit:g} s"
    for of, heading in ((results, title), (bare, f"{title}; on LegNext's protocol")):
        rows = [(fault.name, *(str(of[name][fault.name].most) for name in of)) for fault in FAULTS]
        print(table(heading, ("fault", *of), rows))
    return {
        "legnext": {name: {fault: _plain(tally) for fault, tally in of.items()} for name, of in bare.items()},
        "goals": [asdict(_goal(results))],
        "intents": intents,
        "clients": {
            name: {fault: _plain(tally) for fault, tally in of.items()} for name, of in results.items()
        },
    }


def _goal(results: dict[str, dict[str, Tally]]) -> Goal:
    most = {name: max(tally.most for tally in of.values()) for name, of in results.items()}
    own = most.pop("piapi_async")
    others = ", ".join(f"{name.split()[0]} {creates}" for name, creates in most.items())
    return Goal(
        "billable creates of one submit, at most, under any fault", str(own), "<= 1", own <= 1, others
    )


def _plain(tally: Tally) -> dict[str, Any]:
    total = sum(creates * intents for (creates, _), intents in tally.counts.items())
    return {
        "most": tally.most,
        "lost": tally.lost,
        "mean": total / tally.counts.total(),
        "outcomes": tally.outcomes,
    }


def main(*, smoke: bool = False, json_path: Path | None = None, only_ours: int | None = None) -> None:
    """Run it; `smoke` makes two intents per fault and stops each after two seconds, so it shows less than the truth."""
    if only_ours is not None:
        results = report_ours(only_ours)
    elif smoke:
        results = report_all(2, 2.0)
    else:
        results = report_all(20, 90.0)
    if json_path is not None:
        json_path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument(
        "--ours", nargs="?", type=int, const=1_000, metavar="INTENTS", help="this package alone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, json_path=arguments.json, only_ours=arguments.ours)
