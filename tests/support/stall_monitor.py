"""Measures how long the disk and the processors stalled before a process was killed."""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path

STEP = 0.002
SPAN = 0.2


class StallMonitor:
    """Sleeps in small steps, writes in between, and records how long that took.

    Args:
        folder: Where to write: on the disk that the watched process writes to.
        direct: Write to the disk itself too, as the file channel does with lines of more than a page.
    """

    def __init__(self, folder: Path, *, direct: bool = False) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._probes = [os.open(folder / "probe", flags)]
        if direct and hasattr(os, "O_DIRECT"):
            with suppress(OSError):  # a file system that takes no such writes
                self._probes.append(os.open(folder / "direct-probe", flags | os.O_DIRECT))
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._samples: list[tuple[float, float, float]] = []

    def sleep(self, seconds: float) -> None:
        """Sleep and measure."""
        last = time.monotonic()
        end = last + seconds
        while last < end:
            time.sleep(STEP)
            for probe in self._probes:
                os.write(probe, self._page)
            now = time.monotonic()
            self._samples.append((now, max(0.0, now - last - 2 * STEP), crowd()))
            last = now

    def stalled(self) -> float:
        """Seconds of the last 200 ms, and of what began before, in which nothing went on."""
        return sum(stalled for _, stalled, _ in self._recent())

    def slower(self) -> float:
        """How many times slower it was than a machine that has nothing else to do."""
        recent = self._recent()
        return max(1.0, sum(crowd for _, _, crowd in recent) / max(1, len(recent)))

    def _recent(self) -> list[tuple[float, float, float]]:
        start = time.monotonic() - SPAN
        return [sample for sample in self._samples if sample[0] > start]

    def close(self) -> None:
        """Close the files."""
        while self._probes:
            os.close(self._probes.pop())


def crowd() -> float:
    """How many threads want to run, for each processor."""
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError):
        return 1.0
    return running / (os.cpu_count() or 1)
