"""`dagsterpipes jobs`, with real jobs in real folders."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from dagsterpipes._reader.job_folder import JobFolder
from dagsterpipes.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def make(base: Path, name: str, code: str) -> JobFolder:
    job = JobFolder(base / "root" / name)
    with job.attached():
        job.prepare(run="run", step=name)
        job.start([sys.executable, "-c", code], env=dict(os.environ), cwd=None, output=False)
    return job


def test_jobs_are_listed_and_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs stays; the others are removed when that is asked for."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    base = tmp_path / "dagsterpipes" / "jobs"
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out == f"No jobs are left in {base}.\n"
    running = make(base, "runs", "import time; time.sleep(60)")
    ended = make(base, "ended", "raise SystemExit(3)")
    gone = JobFolder(base / "root" / "gone")
    with gone.attached():
        gone.prepare(run="run", step="gone")
    assert ended.has_ended(20)
    try:
        assert main(["jobs", "--folder", str(base)]) == 0
        out = capsys.readouterr().out
        assert f"{running.path}\n  step runs of run run, started " in out
        assert " bytes, running\n" in out
        assert " bytes, ended with code 3\n" in out
        assert " bytes, gone: it was never started\n" in out
        assert main(["jobs", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["state"] for one in lines] == ["running", "ended", "gone"]
        assert (lines[1]["code"], lines[2]["why"]) == (3, "it was never started")
        assert main(["jobs", "--clear"]) == 0
        assert capsys.readouterr().out.count("  removed\n") == 2
        assert running.path.exists()
        assert not ended.path.exists()
        assert not gone.path.exists()
    finally:
        running.send(signal.SIGKILL)
        assert running.has_ended(20)


def test_it_must_be_known_where_jobs_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage gives 2."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert main(["jobs"]) == 2
    assert (
        "DAGSTER_HOME is not set, so --folder must say where the jobs are."
        in capsys.readouterr().err
    )
