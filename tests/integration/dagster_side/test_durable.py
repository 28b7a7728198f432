"""Durable jobs: the worker is killed, and a re-execution reattaches to the same job, each line once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import stat
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from support.durable_runs import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:::dagster")

KILLS = int(os.environ.get("DAGSTERPIPES_KILLS", "4"))


@pytest.fixture
def workers(tmp_path: Path, home: Path) -> Iterator[Workers]:
    with Workers(tmp_path, home) as one:
        yield one


def test_a_run_that_nobody_disturbs(workers: Workers) -> None:
    """One start, every line, one materialization; private files, and nothing of them is left."""
    workers.start()
    workers.wait_for_rows(10)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in workers.jobs.glob("*/*/*") if p.is_file()}
    assert modes == {0o600}
    assert [stat.S_IMODE(p.stat().st_mode) for p in workers.jobs.glob("*/*")] == [0o700]
    assert workers.wait() == 0
    assert workers.rows() == workers.expected()
    assert len(workers.starts()) == 1
    assert len(workers.materializations()) == 1
    assert workers.warnings() == []
    assert list(workers.jobs.iterdir()) == []


def test_a_killed_worker_is_followed_by_one_that_reattaches(workers: Workers) -> None:
    """Exactly once: killed again and again when it has stored some, and once when the job has ended."""
    (workers.folder / "pause").write_text("0.2")
    (workers.folder / "hold").touch()
    workers.start()
    for rows in (60, 180, 300):
        workers.wait_for_stored(rows)
        workers.kill()
        workers.start()
    workers.wait_for_rows(workers.count)
    workers.kill()
    (workers.folder / "hold").unlink()
    until = time.monotonic() + 20
    while not list(workers.jobs.glob("*/*/exit")):
        assert time.monotonic() < until
        time.sleep(0.02)
    workers.start()
    assert workers.wait() == 0
    assert workers.rows() == workers.expected()
    assert len(workers.starts()) == 1
    assert [one.materialization.metadata["rows"].value for one in workers.materializations()] == [
        400
    ]
    assert list(workers.jobs.iterdir()) == []
    texts = [str(e.dagster_event.message) for e in workers.entries() if e.dagster_event is not None]
    # One note of each run is moved along, however many batches there were.
    assert sum("stored the messages up to byte" in text for text in texts) <= 5


def test_a_killed_job_fails_its_step_and_is_started_again(workers: Workers) -> None:
    """What it had logged is there; the next execution starts another one, without a warning."""
    workers.start()
    workers.wait_for_rows(100)
    os.kill(workers.starts()[0], signal.SIGKILL)
    assert workers.wait() == 1
    seen = workers.rows()
    assert 100 <= len(seen) < workers.count
    assert seen == workers.expected()[: len(seen)]
    workers.start()
    assert workers.wait() == 0
    assert workers.rows() == seen + workers.expected(2)
    assert workers.warnings() == []
    assert list(workers.jobs.iterdir()) == []


def kill_group(pid: int) -> None:
    os.killpg(os.getpgid(pid), signal.SIGKILL)


def reboot(workers: Workers) -> None:
    [path] = workers.jobs.glob("*/*/job.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))


def nothing(workers: Workers) -> None:
    """Only killed."""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (nothing, "ended without an exit code"),
        (reboot, "the host was rebooted"),
    ],
    ids=["killed", "rebooted"],
)
def test_a_job_that_is_gone_is_started_again_with_a_warning(
    change: object, why: str, workers: Workers
) -> None:
    """Whatever it was that ended both; the lines of the first job are all stored."""
    workers.start()
    workers.wait_for_rows(100)
    workers.kill()
    kill_group(workers.starts()[0])
    [messages] = workers.jobs.glob("*/*/messages")
    assert callable(change)
    change(workers)
    sent = messages.read_bytes().count(b" row ")
    workers.start()
    assert workers.wait() == 0
    assert workers.rows() == workers.expected()[:sent] + workers.expected(2)
    [warning] = workers.warnings()
    assert why in warning
    assert warning.endswith("It is started again.")
    assert len(workers.materializations()) == 1


def test_a_folder_that_is_gone_is_missed(workers: Workers, home: Path) -> None:
    """The job may still run, so the warning says to end it."""
    workers.start()
    workers.wait_for_rows(100)
    workers.kill()
    kill_group(workers.starts()[0])
    [folder] = workers.jobs.glob("*/*")
    folder.rename(home / "moved")
    workers.start()
    assert workers.wait() == 0
    [warning] = workers.warnings()
    assert str(folder) in warning
    assert "If the first one still runs, end it." in warning
    assert len(workers.starts()) == 2


def test_an_interrupted_run_ends_its_job(workers: Workers) -> None:
    """It is no crash: nothing is left to reattach to."""
    workers.start()
    workers.wait_for_rows(100)
    os.kill(workers.pid, signal.SIGINT)
    assert workers.wait() != 0
    with pytest.raises(ProcessLookupError):
        os.kill(workers.starts()[0], 0)
    assert list(workers.jobs.iterdir()) == []
    assert len(workers.rows()) >= 100


@pytest.mark.timeout(60 + 30 * KILLS)
def test_random_kills_lose_nothing_and_repeat_nothing(tmp_path: Path, home: Path) -> None:
    """Of the worker, of the job, of both: one start for each job, and each line of each once."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with Workers(tmp_path, home, count=600, pause=0.1) as workers:
        kills: Counter[str] = Counter()
        while True:
            workers.start()
            if kills.total() == KILLS:
                break
            until = time.monotonic() + chance.uniform(0.0, 2.0)
            while time.monotonic() < until:
                time.sleep(0.005)
            kind = chance.choices(["worker", "job", "both"], [8, 1, 1])[0]
            pids = workers.starts()
            if kind in ("job", "both") and pids:
                try:
                    os.kill(pids[-1], signal.SIGKILL)
                except ProcessLookupError:
                    kind = "worker"
            if kind in ("worker", "both") or not pids:
                with contextlib.suppress(ProcessLookupError):  # it was over before
                    os.kill(workers.pid, signal.SIGKILL)
            if workers.wait() == 0:  # a new run
                workers.last_run = ""
            kills[kind] += 1
        code = workers.wait()
        if code != 0:  # the last kill was of a job
            workers.start()
            assert workers.wait() == 0, seed
        rows, starts = workers.rows(), workers.starts()
        by_start: dict[int, list[str]] = {}
        for row in rows:
            by_start.setdefault(int(row.split()[1]), []).append(row)
        for start, found in by_start.items():
            assert found == workers.expected(start)[: len(found)], (seed, start, kills)
        complete = [start for start, found in by_start.items() if len(found) == workers.count]
        assert len(starts) <= kills["job"] + kills["both"] + len(complete), (seed, kills)
        assert list(workers.jobs.glob("*/*/job.json")) == []
