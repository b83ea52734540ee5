"""A PostgreSQL of the machine's, in a folder of the test's, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field

REQUIRED = "PIAPI_TESTS_NEED_POSTGRESQL"
"""The environment variable by which a gate says that there must be one."""


def _program(name: str) -> str | None:
    """Return the path of a program of the server's; Debian leaves them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@define
class Server:
    """A server with a database that does not exist yet, at `url`; it begins to run when it is started."""

    url: str
    log: Path
    _run: Callable[..., None]
    _start: tuple[str, ...]
    _stop: tuple[str, ...]
    _runs: bool = field(default=False, init=False)

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self._runs:
            self._run(*self._start)
            self._runs = True

    def stop(self) -> None:
        """Stop it at once, as a crash would, unless it is stopped."""
        if self._runs:
            self._run(*self._stop)
            self._runs = False


@contextmanager
def postgres() -> Iterator[str]:
    """Give the URL of a database that does not exist yet, on a server of its own."""
    with postgres_server() as server:
        yield server.url


@contextmanager
def postgres_server(settings: str = "") -> Iterator[Server]:
    """Give a server of its own, which runs, with settings such as ``-c name=value``."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        if os.environ.get(REQUIRED):
            pytest.fail("the gate needs a PostgreSQL: apt-get install postgresql")
        pytest.skip("no PostgreSQL is installed")

    # it refuses to run as root
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(
        prefix="piapi-pg-"
    ) as name:  # short: a socket's path may have 107 characters
        folder = Path(name)
        shutil.chown(folder, user)

        def run(*command: str) -> None:
            subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        data = str(folder / "data")
        run(initdb, "-D", data, "-A", "trust", "-U", "fleet", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off {settings}"
        log = str(folder / "log")
        server = Server(
            f"postgresql://fleet@/app?host={folder}",
            Path(log),
            run,
            (pg_ctl, "-D", data, "-o", options, "-l", log, "-w", "start"),
            (pg_ctl, "-D", data, "-m", "immediate", "-w", "stop"),
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
