"""A worker of a fleet as a process of its own: ``python fleet_worker.py DATABASE HOST KEY LIMIT``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from piapi_async import PiAPI, PollPolicy
from piapi_async.fleet import Worker

TIMEOUT = 1.5
"""Seconds that one attempt may take; for so long, and a lease, the answer of a lost worker is waited for."""

LEASE = 1.0

RECOVER = 6.0
"""Seconds for which a lost answer is looked for in the host's history."""


async def main(database: str, host: str, key: str, limit: str) -> None:
    """Work until SIGTERM."""
    async with (
        PiAPI(key, base_url=host, poll=PollPolicy.every(0.2), timeout=TIMEOUT, recover=RECOVER) as piapi,
        Worker(
            database, piapi, concurrency=int(limit), per_worker=int(limit) // 2, lease=LEASE, poll=0.2
        ) as worker,
    ):
        # as a program that has more to do before its worker runs
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        print("ready", flush=True)
        await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
