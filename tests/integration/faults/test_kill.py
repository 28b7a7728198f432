"""SIGKILL at random moments: what was sent a moment ago is there, and nothing is torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support.launching import Launch
from support.message_file import MessageFile
from support.sent_log import SentLog

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
from killed_jobs import CAPACITY, PRODUCERS

PROMISE = 0.05
"""Seconds after which what was sent is in the file."""

BUFFER_SIZE = 8 << 20
"""The default."""

LONGEST = 201_000
"""Bytes of the longest lines."""


class Kill(NamedTuple):
    """A job that was killed."""

    folder: Path
    kind: str
    moment: float
    # Seconds in which this machine let nobody run or write, in the last 200 ms.
    stalled: float
    # How many times slower it was than a machine that has nothing else to do.
    slower: float

    def due(self) -> float:
        """When a message was sent at the latest that has to be there.

        What a process could not do because others had the processor, or because the disk took nothing
        from anybody, is not held against it.
        """
        return self.moment - self.stalled - PROMISE * self.slower

    def is_torn(self) -> bool:
        return not (self.folder / "messages").read_bytes().endswith(b"\n")

    def sent_log(self) -> SentLog:
        return SentLog(self.folder / "sent_log", PRODUCERS, CAPACITY[self.kind])


def kill_jobs(folder: Path, kind: str, count: int, at_once: int = 2) -> list[Kill]:
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
            folder = Path(found.pop("folder"))
            kills.append(Kill(folder, kind, **found))
    assert len(kills) == count
    return kills


def check_delivered(kill: Kill, stamps: dict[int, list[int]]) -> None:
    """What was sent before the promised time is there, and what was flushed; in order, once."""
    sent_log = kill.sent_log()
    for producer in range(PRODUCERS):
        there = stamps.get(producer, [])
        assert there == list(range(len(there))), f"{kill}: producer {producer} out of order"
        times = sent_log.times(producer)
        due = sum(sent < kill.due() for sent in times)
        assert len(there) >= due, (
            f"{kill}: {due - len(there)} of {len(times)} messages of producer {producer} are missing, "
            f"the oldest was sent {1000 * (kill.moment - times[len(there)]):.1f} ms before the kill"
        )
        assert len(there) >= sent_log.flushed_count(producer), f"{kill}: flushed, but not there"


def test_what_was_said_50_ms_before_a_kill_is_in_the_file(tmp_path: Path) -> None:
    """100 random kills of jobs with threads and tasks: whole lines, in order, none missing."""
    kills = kill_jobs(tmp_path, "short", 100)
    for kill in kills:
        check_delivered(kill, MessageFile(kill.folder / "messages").stamps())
    assert sum(kill.sent_log().flushed_count(0) > 0 for kill in kills) > 5


def test_a_kill_in_a_flood_loses_no_more_than_the_buffer(tmp_path: Path) -> None:
    """A job that says more than can be written: what waits is bounded; whole lines, in order."""
    # A packed text takes as many bytes as it has characters, here more than 90; some more may not be
    # counted yet.
    most = BUFFER_SIZE // 90 + 3 * 1024
    for kill in kill_jobs(tmp_path, "flood", 6):
        there = MessageFile(kill.folder / "messages").stamps().get(0, [])
        assert there == list(range(len(there)))
        missing = len(kill.sent_log().times(0)) - len(there)
        assert missing < most, f"{kill}: {missing} messages are missing"


def test_a_kill_in_a_long_line_is_mended_by_the_next_writer(tmp_path: Path) -> None:
    """Lines of 200 kB: at most the last one is cut; the next session on this file removes it."""
    kills = kill_jobs(tmp_path, "long", 20)
    for kill in kills:
        killed = MessageFile(kill.folder / "messages", may_end_torn=True)
        check_delivered(kill, killed.stamps())
        assert len(killed.torn) < LONGEST
    for kill in [kill for kill in kills if kill.is_torn()] or kills[:1]:
        path = kill.folder / "messages"
        if not kill.is_torn():  # it is rare
            path.write_bytes(path.read_bytes() + b'{"__dagster_pipes_version": "0.1", "meth')
        before = path.read_bytes()
        Launch(kill.folder).run("import dagsterpipes\ndagsterpipes.open_dagster_pipes().close()")
        after = path.read_bytes()
        whole = before[: before.rindex(b"\n") + 1]
        assert after.startswith(whole)
        assert [json.loads(line)["method"] for line in after[len(whole) :].splitlines()] == [
            "opened",
            "closed",
        ]
