"""What the fleet's benchmarks are made of: a database, worker processes, and what they have said and used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from attrs import define, field

from piapi_async import CreateTask, PiAPI, PollPolicy
from piapi_async.fleet import Worker

LEASE = 4.0
PREFIX = "piapi-fleet-"
TIMEOUT = 5.0

_TAKEN_OVER = re.compile(r"^(?P<at>[\d.]+) worker \S+-(?P<pid>\d+)-[0-9a-f]+ has stood still")


@contextlib.contextmanager
def database(url: str | None, folder: Path) -> Iterator[str]:
    """Yield the URL of a new database: beside a given one, on a PostgreSQL of the machine's, or a SQLite file."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if url is not None:
        given = sa.make_url(url)
        fresh = given.set(database=f"{given.database}-{folder.name.removeprefix(PREFIX)}")
        yield fresh.render_as_string(hide_password=False)
        return
    if not found:
        yield f"sqlite:///{folder / 'run.db'}"
        return
    programs, data = found[-1].parent, folder / "data"
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        os.chmod(folder, 0o777)  # noqa: PTH101, S103 - a temporary folder, for another user

    def run(*command: str | Path) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words

    run(programs / "initdb", "-D", data, "-A", "trust", "-U", "fleet")
    options = f"-k {folder} -c listen_addresses='' -c shared_preload_libraries=pg_stat_statements"
    run(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://fleet@/app?host={folder}"
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@define(eq=False)
class Statements:
    """The statements that each user of a PostgreSQL has sent, BEGIN and COMMIT included."""

    url: str
    _engine: sa.Engine | None = field(default=None, init=False)

    def watch(self, *users: str) -> bool:
        """Begin to count, of users that are made if need be; return whether this database can."""
        if not self.url.startswith("postgresql"):
            return False
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            self._do("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            self._do("SELECT count(*) FROM pg_stat_statements")
            for user in users:
                self._do(f"DROP ROLE IF EXISTS {user}")
                self._do(f"CREATE ROLE {user} SUPERUSER LOGIN")
        except sa.exc.DBAPIError:
            return False
        return True

    def url_of(self, user: str) -> str:
        """Return the database's URL for a user of its own, or the same if nothing is counted."""
        if self._engine is None:
            return self.url
        return self.url.replace("//fleet@", f"//{user}@")

    def of(self, user: str) -> int:
        """Return the statements of a user so far."""
        assert self._engine is not None  # noqa: S101 - it is watched
        query = sa.text(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements "
            "WHERE userid = (SELECT oid FROM pg_roles WHERE rolname = :user)"
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query, {"user": user}).scalar_one())

    def _do(self, statement: str) -> None:
        assert self._engine is not None  # noqa: S101 - it is watched
        with self._engine.connect() as connection:
            connection.execute(sa.text(statement))

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()


async def work(url: str, host: str, key: str, limit: str, per_worker: str) -> None:
    """Be one worker, until SIGTERM."""
    policy = PollPolicy(typical_duration=6.0)
    async with (
        PiAPI(key, base_url=host, poll=policy, timeout=TIMEOUT, recover=20.0) as piapi,
        Worker(url, piapi, concurrency=int(limit), per_worker=int(per_worker), lease=LEASE) as worker,
    ):
        print("ready", flush=True)
        await worker.run()


@define(eq=False)
class WorkerProcess:
    """A worker in a process of its own; `taken_over` are the pids of dead ones, and when it noticed."""

    process: asyncio.subprocess.Process
    taken_over: dict[int, float] = field(factory=dict)
    _listening: asyncio.Task[None] | None = field(default=None, init=False)

    @classmethod
    async def start(cls, url: str, host: str, key: str, limit: int, per_worker: int) -> WorkerProcess:
        """Return one that is at work."""
        words = ("--work", url, host, key, str(limit), str(per_worker))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.fleet",
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        started = cls(process)
        started._listening = asyncio.create_task(started._listen())
        if not await process.stdout.readline():
            await started.gone()
            raise RuntimeError("a worker did not start; its log tells why")
        return started

    async def _listen(self) -> None:
        """Take in what its log says, which tells of take-overs."""
        assert self.process.stderr is not None  # noqa: S101 - it is a pipe
        async for line in self.process.stderr:
            text = line.decode(errors="replace")
            found = _TAKEN_OVER.match(text)
            if found is not None:
                self.taken_over[int(found["pid"])] = float(found["at"])
            elif "Traceback" in text or "Error" in text:
                print(text, end="", file=sys.stderr)

    async def end(self) -> None:
        """Have it hand over, and wait for its end."""
        self.process.terminate()
        await self.gone()

    async def kill(self) -> float:
        """Kill it; return when, in unix time."""
        at = time.time()
        self.process.kill()
        await self.gone()
        return at

    async def gone(self) -> None:
        """Wait for its end, and for all it has said."""
        await self.process.wait()
        if self._listening is not None:
            await self._listening

    @property
    def cpu(self) -> float:
        """The CPU seconds that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(number: int | str) -> CreateTask:
    """Return one of the requests, none of which is another's."""
    return CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": f"cat {number}"})
