"""SIGKILL at random moments: what was said a moment ago is there, and nothing is torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.diary import Diary
from support.launching import Launch
from support.message_file import MessageFile

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
from killed_jobs import CAPACITY, PRODUCERS  # noqa: E402 because the script lies beside this

PROMISE = 0.05
"""Seconds after which what was said is in the file."""

BUFFER_SIZE = 8 << 20
"""The default."""


class Kill(NamedTuple):
    """A job that was killed."""

    folder: Path
    moment: float
    # Seconds in which this machine let nobody run, in the last 200 ms.
    stalled: float

    def diary(self) -> Diary:
        return Diary(self.folder / "diary", PRODUCERS, CAPACITY)


def kill_jobs(folder: Path, kind: str, count: int, at_once: int = 4) -> list[Kill]:
    """Start and kill so many jobs, some of them at once."""
    script = Path(__file__).with_name("killed_jobs.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    shares = [count // at_once + (number < count % at_once) for number in range(at_once)]
    nurseries = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), kind, str(seed), str(share)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, share in enumerate(shares)
    ]
    kills = []
    for nursery in nurseries:
        out, _ = nursery.communicate(timeout=100)
        assert nursery.returncode == 0
        for line in out.splitlines():
            found = json.loads(line)
            kills.append(Kill(Path(found["folder"]), found["moment"], found["stalled"]))
    assert len(kills) == count
    return kills


def check_delivered(kill: Kill, stamps: dict[int, list[int]], promise: float) -> None:
    """What was said before the promise's time is there, and what was flushed; in order, once."""
    diary = kill.diary()
    for producer in range(PRODUCERS):
        there = stamps.get(producer, [])
        assert there == list(range(len(there))), f"{kill}: producer {producer} out of order"
        times = diary.times(producer)
        due = sum(said < kill.moment - promise - kill.stalled for said in times)
        assert len(there) >= due, (
            f"{kill}: {due - len(there)} of {len(times)} messages of producer {producer} are missing, "
            f"the oldest was said {1000 * (kill.moment - times[len(there)]):.1f} ms before the kill"
        )
        assert len(there) >= diary.flushed_count(producer), f"{kill}: flushed, but not there"


def test_what_was_said_50_ms_before_a_kill_is_in_the_file(tmp_path: Path) -> None:
    """100 random kills of jobs with threads and tasks: whole lines, in order, none missing."""
    kills = kill_jobs(tmp_path, "short", 100)
    for kill in kills:
        check_delivered(kill, MessageFile(kill.folder / "messages").stamps(), PROMISE)
    assert sum(kill.diary().flushed_count(0) > 0 for kill in kills) > 10


def test_a_kill_in_a_flood_loses_no_more_than_the_buffer(tmp_path: Path) -> None:
    """A job that says more than can be written: what waits is bounded; whole lines, in order."""
    for kill in kill_jobs(tmp_path, "flood", 12, at_once=2):
        there = MessageFile(kill.folder / "messages").stamps().get(0, [])
        assert there == list(range(len(there)))
        missing = len(kill.diary().times(0)) - len(there)
        assert missing * 150 < BUFFER_SIZE, f"{kill}: {missing}"


def test_a_kill_in_a_long_line_is_mended_by_the_next_writer(tmp_path: Path) -> None:
    """Lines of 200 kB: at most the last one is cut; the next session on this file removes it."""
    for kill in kill_jobs(tmp_path, "long", 30, at_once=3):
        killed = MessageFile(kill.folder / "messages", may_end_torn=True)
        # Long lines take longer to write than a promise of 50 ms allows for on a busy disk.
        check_delivered(kill, killed.stamps(), PROMISE)
        if killed.torn:
            Launch.at(kill.folder).run(
                "import dagsterpipes\ndagsterpipes.open_dagster_pipes().close()"
            )
            mended = (kill.folder / "messages").read_bytes()
            assert mended.endswith(b"\n")
