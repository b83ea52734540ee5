"""Virtual time, and an event loop for each simulated process.

A `World` steps the loops of its processes one turn at a time.  When none has anything to do, it moves the clock to the
next timer or network event, so a day passes in milliseconds.  A process that is killed is a loop that is never stepped
again: no `finally` runs, and only its files remain.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import socket
import sys
import threading
from asyncio import events
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

MOST_TURNS = 20_000
"""Turns of the loops within one moment, which nothing that waits as it should comes near."""

LATENCY = 0.001
"""Seconds for bytes to cross the network, one way."""

BOOT_TIME = 1_790_000_000.0
"""The wall clock when a world begins, in Unix seconds."""


class StuckError(Exception):
    """Nobody has anything left to do, though somebody still waits; or the time that was allowed has passed."""


class Peer(Protocol):
    """The host's end of a connection."""

    def received(self, data: bytes) -> None:
        """Take bytes from the client."""

    def closed(self) -> None:
        """Learn that the client has closed the connection."""


class World:
    """The clock, the loops, the network between them and the host."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall_offset = BOOT_TIME
        self.loops: list[SimLoop] = []
        self.accept: Callable[[Transport], Peer] | None = None
        self.refusal: OSError | None = None
        self.disk_full = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` made when so much virtual time has passed."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), call))

    def wall_time(self) -> float:
        """Return what the processes take for Unix time."""
        return self.now + self.wall_offset

    def run_until(self, over: Callable[[], bool], *, limit: float) -> None:
        """Run everything until `over()`; raise `StuckError` when it never will be, or not before `limit`."""
        turns = 0
        while not over():
            if self._step_loops():
                turns += 1
                if turns > MOST_TURNS:
                    raise StuckError(f"{turns} turns, and no time has passed")
                continue
            turns = 0

            following = self._next_time()
            if following is None:
                raise StuckError("nothing is left that could happen")
            if following > limit:
                raise StuckError(f"still not over at {limit:g} s")

            self.now = max(self.now, following)
            self._call_due()

    def _step_loops(self) -> bool:
        stepped = False
        for loop in list(self.loops):
            if loop.runnable(self.now):
                loop.step()
                stepped = True
        return stepped

    def _next_time(self) -> float | None:
        times = [when for loop in self.loops if (when := loop.next_time(self.now)) is not None]
        if self._events:
            times.append(self._events[0][0])
        return min(times, default=None)

    def _call_due(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            _, _, call = heapq.heappop(self._events)
            call()


class _NothingSelector(selectors.BaseSelector):
    """A selector to which nothing ever happens: the network is made of method calls."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        del events, data
        raise AssertionError(f"nothing real may be waited for in a simulation: {fileobj}")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        del timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class SimLoop(asyncio.SelectorEventLoop):
    """The event loop of one process.  Threads are played: their work runs in the loop, a moment later."""

    def __init__(self, world: World, thread_delay: Callable[[], float]) -> None:
        self.world = world
        self.frozen_until = 0.0
        self.complaints: list[str] = []
        self.turns = 0
        self.alarms: list[tuple[int, Callable[[], object]]] = []
        self.transports: set[Transport] = set()
        self._thread_delay = thread_delay
        super().__init__(_NothingSelector())
        self.set_exception_handler(self._complain)
        world.loops.append(self)

    # -- being stepped by the world ---------------------------------------------------------------------------------

    def runnable(self, now: float) -> bool:
        """Tell whether a step would do something now."""
        if now < self.frozen_until:
            return False
        self._drop_cancelled()
        due_at = self._due_at()
        return bool(self._inside._ready) or (due_at is not None and due_at <= now)

    def next_time(self, now: float) -> float | None:
        """Return when the next timer is due, None without timers."""
        self._drop_cancelled()
        if self._inside._ready:
            return max(now, self.frozen_until)
        due_at = self._due_at()
        return None if due_at is None else max(due_at, self.frozen_until)

    @property
    def _inside(self) -> Any:
        """This loop, as asyncio's own code sees it: that it can be stepped is no public feature."""
        return self

    def _due_at(self) -> float | None:
        scheduled = self._inside._scheduled
        return float(scheduled[0].when()) if scheduled else None

    def step(self) -> None:
        """Run one turn."""
        hooks = sys.get_asyncgen_hooks()
        loop = self._inside
        sys.set_asyncgen_hooks(
            firstiter=loop._asyncgen_firstiter_hook, finalizer=loop._asyncgen_finalizer_hook
        )
        events._set_running_loop(self)
        loop._thread_id = threading.get_ident()
        try:
            loop._run_once()
            self.turns += 1
            self._ring_alarms()
        finally:
            loop._thread_id = None
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _ring_alarms(self) -> None:
        due = [call for turn, call in self.alarms if turn <= self.turns]
        self.alarms = [alarm for alarm in self.alarms if alarm[0] > self.turns]
        for call in due:
            call()

    def kill(self) -> None:
        """Never step this loop again."""
        self.world.loops.remove(self)
        self.set_exception_handler(lambda _loop, _context: None)
        for transport in list(self.transports):
            transport.vanish()

    def _drop_cancelled(self) -> None:
        scheduled = self._inside._scheduled
        while scheduled and scheduled[0].cancelled():
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._inside._timer_cancelled_count -= 1

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    # -- what asyncio asks of a loop --------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the world's time."""
        return self.world.now

    def call_at(  # type: ignore[override] # what is due at once has no timer, as in uvloop
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Call at a time; what is due already gets a plain handle, which knows no time."""
        if when <= self.time():
            return self.call_soon(callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)

    def _make_self_pipe(self) -> None:
        """Do without the pipe that wakes a selector: no other thread exists."""

    def _close_self_pipe(self) -> None:
        """Close nothing."""

    def _write_to_self(self) -> None:
        """Wake nobody."""

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override] # a loop may return any awaitable future
        """Do the work of a thread in one piece, a moment later."""
        del executor
        done: asyncio.Future[T] = self.create_future()
        self.call_later(self._thread_delay(), partial(_do, done, func, args))
        return done

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect nothing, after a moment; fail where the world says so."""
        del sock, address
        await asyncio.sleep(LATENCY)
        if self.world.refusal is not None:
            raise self.world.refusal

    async def create_connection(self, protocol_factory: Callable[[], Any], *_: Any, **options: Any) -> Any:
        """Return a transport to the host, and its protocol."""
        if (sock := options.get("sock")) is not None:
            sock.close()
        if self.world.accept is None:
            raise ConnectionRefusedError("the host is down")

        protocol = protocol_factory()
        transport = Transport(self, protocol)
        transport.peer = self.world.accept(transport)
        self.transports.add(transport)
        protocol.connection_made(transport)
        return transport, protocol


def _do(done: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
    try:
        result = func(*args)
    except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the future
        if not done.done():
            done.set_exception(error)
    else:
        if not done.done():
            done.set_result(result)


class Transport(asyncio.Transport):
    """The client's end of a connection: bytes arrive at the other end `LATENCY` later, in order."""

    def __init__(self, loop: SimLoop, protocol: Any) -> None:
        super().__init__()
        self.peer: Peer | None = None
        self._loop = loop
        self._protocol = protocol
        self._closing = False
        self._lost = False
        self._paused: list[Callable[[], None]] | None = None

    # -- the client's side ------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._closing and not self._lost:
            self._to_peer(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _to_peer(self, data: bytes) -> None:
        peer = self.peer
        if peer is not None:
            self._loop.world.after(LATENCY, lambda: peer.received(data))

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._tell_peer()
        self._loop.call_soon(self._lose, None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 80) if name == "peername" else default

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def pause_reading(self) -> None:
        self._paused = self._paused or []

    def resume_reading(self) -> None:
        held, self._paused = self._paused or [], None
        for call in held:
            self._loop.call_soon(call)

    def is_reading(self) -> bool:
        return self._paused is None

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def can_write_eof(self) -> bool:
        return False

    # -- the host's side --------------------------------------------------------------------------------------------

    def send(self, data: bytes, after: float = 0.0) -> None:
        """Have bytes of the host's arrive at the client."""
        self._arrive(after, lambda: self._receive(data))

    def send_eof(self, after: float = 0.0) -> None:
        """Have the host close the connection in order."""
        self._arrive(after, self._receive_eof)

    def reset(self, after: float = 0.0) -> None:
        """Have the connection break."""
        self._arrive(after, lambda: self._lose(ConnectionResetError("Connection reset by peer")))

    def vanish(self) -> None:
        """Lose the client without a word to it: its process is dead."""
        self._lost = True
        self._loop.transports.discard(self)
        self._tell_peer()

    def _arrive(self, after: float, call: Callable[[], None]) -> None:
        self._loop.world.after(after + LATENCY, lambda: self._into_loop(call))

    def _into_loop(self, call: Callable[[], None]) -> None:
        if self._lost:
            return
        if self._paused is not None:
            self._paused.append(call)
        else:
            self._loop.call_soon(call)

    def _receive(self, data: bytes) -> None:
        if not self._lost and not self._closing:
            self._protocol.data_received(data)

    def _receive_eof(self) -> None:
        if self._lost or self._closing:
            return
        self._protocol.eof_received()
        self._closing = True
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._loop.transports.discard(self)
        self._protocol.connection_lost(error)

    def _tell_peer(self) -> None:
        if self.peer is not None:
            self._loop.world.after(LATENCY, self.peer.closed)


@contextmanager
def wall_clock_of(world: World) -> Iterator[None]:
    """Have `time.time` and `time.time_ns` tell the world's time."""
    import time  # noqa: PLC0415 - its functions are replaced

    time_before, time_ns_before = time.time, time.time_ns
    time.time = world.wall_time
    time.time_ns = lambda: int(world.wall_time() * 1e9)
    try:
        yield
    finally:
        time.time, time.time_ns = time_before, time_ns_before
