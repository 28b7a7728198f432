"""What is left of durable jobs: listed, and cleared."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TextIO

from dagsterpipes._reader.job_folder import Absent, Ended, Gone, find_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from dagsterpipes._reader.job_folder import JobFolder, JobState

__all__ = ["run_jobs"]


def run_jobs(base: Path, out: TextIO, *, clear: bool, as_json: bool) -> int:
    """Show the jobs below a folder, and remove those that do not run if asked to.

    Args:
        base: The folder of all jobs.
        out: Where to write.
        clear: Whether to remove the folders of jobs that do not run.
        as_json: One JSON object a line.
    """
    jobs = find_jobs(base)
    for job in jobs:
        state = job.state()
        is_removed = clear and isinstance(state, (Ended, Gone))
        line = _as_json(job, state) if as_json else _as_text(job, state)
        if is_removed:
            job.remove()
            line += "" if as_json else "  removed"
        out.write(line + "\n")
    if not jobs and not as_json:
        out.write(f"No jobs are left in {base}.\n")
    return 0


def _facts(job: JobFolder, state: JobState) -> dict[str, object]:
    record = job.record() or {}
    sizes = [path.stat().st_size for path in job.path.iterdir() if path.is_file()]
    return {
        "state": type(state).__name__.lower(),
        "code": state.code if isinstance(state, Ended) else None,
        "why": state.why if isinstance(state, Gone) else None,
        "run": record.get("run"),
        "step": record.get("step"),
        "seconds": round(time.time() - record.get("at", time.time())),
        "bytes": sum(sizes),
        "folder": str(job.path),
    }


def _as_json(job: JobFolder, state: JobState) -> str:
    return json.dumps(_facts(job, state))


def _as_text(job: JobFolder, state: JobState) -> str:
    facts = _facts(job, state)
    word = str(facts["state"])
    if isinstance(state, Ended):
        word += f" with code {state.code}"
    elif isinstance(state, Gone):
        word += f": {state.why}"
    assert not isinstance(state, Absent), "find_jobs() gives jobs with a record"
    return (
        f"{facts['folder']}\n  step {facts['step']} of run {facts['run']}, started"
        f" {facts['seconds']} s ago, {facts['bytes']} bytes, {word}"
    )
