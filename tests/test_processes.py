"""That a process of a test is ended and shown when it hangs: what keeps the whole suite from hanging."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import coverage
import pytest
from support.processes import Child, ended, started, wait_until

HANGS = (
    "import sys, threading; print('out', flush=True); print('err', file=sys.stderr); threading.Event().wait()"
)


def child_of(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def hang(child: Child) -> None:
    assert child.hear() == "out\n"
    child.says("err")
    child._patience = 0.01


@pytest.mark.parametrize(
    ("wait", "complaint"),
    [
        (Child.finish, "did not end"),
        (Child.hear, "did not write another line to stdout"),
        (lambda child: child.prints("more"), "did not write 'more' to stdout"),
        (lambda child: child.says("more"), "did not write 'more' to stderr"),
    ],
)
def test_one_that_hangs_is_ended_and_what_it_said_is_shown_with_where_it_stood(
    wait: Callable[[Child], object], complaint: str
) -> None:
    with started(*child_of(HANGS)) as child:
        hang(child)
        with pytest.raises(AssertionError) as caught:
            wait(child)

    assert child.code in {-signal.SIGABRT, -signal.SIGKILL}
    assert complaint in str(caught.value)
    assert "-- stdout:\nout\n" in str(caught.value)
    assert "-- stderr:\nerr\n" in str(caught.value)
    if child.code == -signal.SIGABRT:  # it was quick enough to tell
        assert "threading.py" in str(caught.value)


def test_one_that_ends_early_is_not_waited_for_any_longer() -> None:
    with started(*child_of("print('bye')")) as child, pytest.raises(AssertionError, match="bye"):
        child.says("more")


def test_one_that_is_left_ends_with_its_children() -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); input()"
    with started(*child_of(code), HANGS) as child:
        assert child.hear() == "out\n"

    assert child.code == -signal.SIGKILL
    assert child._open == 0  # the grandchild held the pipes, too


def test_one_that_ends_by_itself_has_said_all() -> None:
    done = ended(
        *child_of("import sys; print(sys.stdin.read(), 'ö'); print('e', file=sys.stderr); sys.exit(3)")
    )

    assert (done.code, done.printed, done.said) == (3, " ö\n", "e\n")


def test_ones_that_a_killed_run_has_left_are_ended() -> None:
    code = """
        import sys, time
        from support.processes import Child
        child = Child(sys.executable, "-c", sys.argv[1])
        child.says("err")
        print(child.process.pid, flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with started(*child_of(textwrap.dedent(code)), HANGS, env=environment) as run:
        left = int(run.hear())
        run.signal(signal.SIGKILL)
        run.process.wait()
        wait_until(lambda: is_gone(left))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@pytest.mark.storm  # it takes a second, and says the same each time
def test_a_test_that_hangs_is_ended_and_shows_where_it_stood_in_a_worker_too(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    stuck = """
        import threading

        import pytest

        @pytest.mark.timeout(0.2)
        def test_stuck():
            while True:
                try:
                    threading.Event().wait()
                finally:
                    continue
    """
    (tmp_path / "test_stuck.py").write_text(textwrap.dedent(stuck), "ascii")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-n", "1", "--max-worker-restart", "0", str(tmp_path))
    done = ended(sys.executable, *words, env=environment, cwd=tmp_path)

    assert done.code == 1
    assert re.search(r'File ".*test_stuck.py", line \d+ in test_stuck', done.said)
    assert "crashed while running 'test_stuck.py::test_stuck'" in done.printed


def test_a_pytest_that_a_test_starts_leaves_the_folders_of_other_runs_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    assert Path(os.environ["PYTEST_DEBUG_TEMPROOT"]).is_relative_to(tmp_path_factory.getbasetemp())


@pytest.mark.storm  # as it takes a second, and says the same each time
@pytest.mark.parametrize("outcome", ["passes", "fails"])
def test_a_run_has_a_folder_of_its_own_which_it_keeps_if_it_fails(tmp_path: Path, outcome: str) -> None:
    test = f"""
        def test_shows_its_folder(tmp_path):
            print("folder", tmp_path.parent)
            assert {outcome == "passes"}
    """
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_shows.py").write_text(textwrap.dedent(test), "ascii")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTEST_DEBUG_TEMPROOT": str(tmp_path),
    }
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-s", str(tmp_path))
    done = ended(sys.executable, *words, env=environment, cwd=tmp_path)

    folder = Path(done.printed.partition("folder ")[2].splitlines()[0])
    assert folder.parent == tmp_path, "not one of all runs of this user"
    assert folder.exists() == (outcome == "fails")


@pytest.mark.storm
def test_no_coverage_is_measured_in_a_storm_nor_in_the_processes_that_it_starts() -> None:
    assert coverage.Coverage.current() is None
    assert "COVERAGE_PROCESS_CONFIG" not in os.environ
