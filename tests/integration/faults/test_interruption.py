"""SIGINT and SIGTERM at any line of an opening, or of the job's own imports.

`opened` is never without `closed`, no thread stays, and the close does not wait for an import that the
signal left half done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.launching import Launch

JOBS = Path(__file__).parent / "interrupted_jobs.py"


def run(tmp_path: Path, kind: str, name: str, tries: int) -> list[dict[str, Any]]:
    """Interrupt as many jobs, at lines that are evenly spread."""
    paths = [str(Path(__file__).parents[2]), *sys.path]
    result = subprocess.run(
        [sys.executable, str(JOBS), str(tmp_path), kind, name, str(tries)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("tries", [30, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("kind", ["plain", "warm", "loop"])
def test_an_opening_that_is_interrupted_anywhere(
    tmp_path: Path, kind: str, name: str, tries: int
) -> None:
    """Dagster hears of the end of each session that it heard of."""
    jobs = run(tmp_path, kind, name, tries)
    assert len(jobs) == tries + 1
    for job in jobs:
        assert job["status"] is not None, f"hangs: {job}"
        assert job["methods"][:1] in ([], ["opened"]), job
        assert job["methods"].count("opened") == job["methods"].count("closed") <= 1, job
        assert job["methods"][-1:] in ([], ["closed"]), job
        assert not job.get("threads"), job


@pytest.mark.parametrize("tries", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_a_close_after_an_import_that_was_interrupted(tmp_path: Path, tries: int) -> None:
    """It imports nothing, so it does not wait for what the import left locked."""
    jobs = run(tmp_path, "importing", "SIGINT", tries)
    assert len(jobs) == tries + 1
    for job in jobs:
        assert job["status"] == 0, job
        assert job["methods"] == ["opened", "log", "closed"], job
        assert job["took"] < 5, job


def test_an_interrupt_between_two_steps_of_the_opening(tmp_path: Path) -> None:
    """Where the session is known and not being opened yet: nobody waits for it, the next one opens."""
    launch = Launch(tmp_path)
    ended = launch.run("""
        from dagsterpipes import PipesContext, open_dagster_pipes
        from dagsterpipes._session import current

        set_context = current.set_context

        def interrupted(*args):
            set_context(*args)
            current.set_context = set_context
            raise KeyboardInterrupt

        current.set_context = interrupted
        try:
            open_dagster_pipes()
        except KeyboardInterrupt:
            assert not PipesContext.is_initialized()
        with open_dagster_pipes() as pipes:
            pipes.log.info("again")
    """)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [method for method, _ in launch.sent()] == ["opened", "log", "closed"]


def test_an_interrupt_at_the_moment_at_which_the_opening_is_done(tmp_path: Path) -> None:
    """It leaves the event's own lock locked, as an interrupt in `threading` may: nobody hangs on it."""
    launch = Launch(tmp_path)
    ended = launch.run("""
        import threading, types
        from dagsterpipes import open_dagster_pipes
        from dagsterpipes._delivery import delivery

        class Interrupted(threading.Event):
            def set(self):
                super().set()
                if delivery.threading is not threading:
                    delivery.threading = threading
                    self._cond.acquire()
                    raise KeyboardInterrupt

        delivery.threading = types.SimpleNamespace(**vars(threading) | {"Event": Interrupted})
        try:
            open_dagster_pipes(handle_sigterm=False, close_timeout=5)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
    assert [method for method, _ in launch.sent()] == ["opened", "closed"]
