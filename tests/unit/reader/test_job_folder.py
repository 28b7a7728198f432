"""Folders of durable jobs: what they say about real processes, and who may attach."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from typing import TYPE_CHECKING

import pytest

from dagsterpipes._reader.job_folder import (
    Absent,
    Ended,
    Gone,
    JobFolder,
    Running,
    default_folder,
    find_jobs,
)
from dagsterpipes.exceptions import ChannelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[JobFolder]:
    """Whose processes are killed in the end."""
    folder = JobFolder(tmp_path / "base" / "run" / "step.0")
    with folder.attached():
        yield folder
        folder.send(signal.SIGKILL)


def start(job: JobFolder, command: list[str]) -> None:
    job.prepare(run="r", step="s")
    job.start(command, env=dict(os.environ), cwd=None, output=True)


def wait_for_output(job: JobFolder) -> None:
    until = time.monotonic() + 20
    while not job.output[1].read_bytes():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_job_from_its_start_to_its_end(job: JobFolder) -> None:
    """Absent, running, ended with its exit code; its output is in files that only its user reads."""
    assert job.state() == Absent()
    assert job.record() is None
    start(job, [sys.executable, "-c", "import sys; print('out'); sys.exit(7)"])
    assert job.has_ended(20)
    assert job.state() == Ended(7)
    assert job.output[1].read_text() == "out\n"
    assert {stat.S_IMODE(p.stat().st_mode) for p in job.path.iterdir()} == {0o600}
    assert stat.S_IMODE(job.path.stat().st_mode) == 0o700


def test_the_umask_of_the_job_is_that_of_its_starter(job: JobFolder) -> None:
    """Only our own files are private."""
    start(job, [sys.executable, "-c", "import os; print(oct(os.umask(0)))"])
    assert job.has_ended(20)
    before = os.umask(0o77)
    os.umask(before)
    assert job.output[1].read_text() == f"{oct(before)}\n"


def test_signals_reach_the_job_and_its_exit_code_is_kept(job: JobFolder) -> None:
    """SIGINT as from a terminal; the shell around it stays to write down how it ended."""
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *a: sys.exit(5))\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    start(job, [sys.executable, "-c", script])
    wait_for_output(job)
    assert job.state() == Running()
    assert not job.has_ended(0.05)
    job.send(signal.SIGINT)
    assert job.has_ended(20)
    assert job.state() == Ended(5)
    job.send(signal.SIGINT)  # too late, and no error


def test_another_object_sees_the_same(job: JobFolder) -> None:
    """As a process does that comes later; it can send signals, too."""
    start(job, SLEEP)
    wait_for_output(job)
    other = JobFolder(job.path)
    assert other.state() == Running()
    other.send(signal.SIGKILL)
    assert other.has_ended(20)
    state = job.state()
    assert isinstance(state, Gone)
    assert state.why.endswith("ended without an exit code")


def test_why_a_job_is_gone(job: JobFolder) -> None:
    """The host, the boot, the process id, in this order."""
    job.prepare(run="r")
    assert job.state() == Gone("it was never started")
    pid = job.path / "pid"
    pid.write_text(f"{os.getpid()}\n1 (python) S " + "0 " * 30 + "\n")
    assert job.state() == Gone(f"its process id {os.getpid()} belongs to another process now")
    record = json.loads((job.path / "job.json").read_text())
    (job.path / "job.json").write_text(json.dumps(record | {"boot": "x"}))
    assert job.state() == Gone("the host was rebooted")
    (job.path / "job.json").write_text(json.dumps(record | {"host": "x"}))
    state = job.state()
    assert isinstance(state, Gone)
    assert state.why.startswith("it ran on the host 'x', and this is '")


def test_only_one_process_is_attached(job: JobFolder) -> None:
    """The error names the folder and what to do."""
    with pytest.raises(ChannelError) as raised, JobFolder(job.path).attached():
        pass
    assert str(raised.value) == (
        f"The job in {job.path} is read by another process. If that is a run that should not be,"
        " terminate it; then execute this one again."
    )


def test_jobs_are_found_cleared_and_removed(job: JobFolder, tmp_path: Path) -> None:
    """The oldest first; what has no record is no job, as is a record that is broken."""
    base = tmp_path / "base"
    assert find_jobs(base) == []
    job.prepare(run="r")
    later = JobFolder(base / "run" / "step.1")
    with later.attached():
        later.prepare(run="r")
    assert [one.path for one in find_jobs(base)] == [job.path, later.path]
    later.clear()
    assert later.path.exists()
    assert [one.path for one in find_jobs(base)] == [job.path]
    later.remove()
    assert (base / "run").exists()
    (job.path / "job.json").write_text("{")
    assert job.state() == Absent()
    job.remove()
    assert not (base / "run").exists()
    job.remove()


def test_the_default_folder_is_in_dagsters_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home there is none."""
    monkeypatch.setenv("DAGSTER_HOME", "/home/d")
    assert str(default_folder()) == "/home/d/dagsterpipes/jobs"
    monkeypatch.delenv("DAGSTER_HOME")
    assert default_folder() is None
