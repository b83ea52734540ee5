"""An emulator that closes its port while clients are about to connect."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import ExitStack, suppress

import pytest
from support.processes import PATIENCE

from piapi_async.emulator import Emulator


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.filterwarnings("error")
async def test_connections_that_arrive_as_it_stops_are_closed(turns: int) -> None:
    emulator = Emulator()
    with ExitStack() as stack:
        async with emulator.run() as base_url:
            port = int(base_url.rpartition(":")[2])
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(9)]
            for _ in range(turns):  # in one of which they are accepted, and in the next given transports
                await asyncio.sleep(0)

        for client in clients:
            client.settimeout(PATIENCE)
            with suppress(ConnectionResetError):  # of those that had only reached the kernel
                assert client.recv(1) == b""
    gc.collect()
