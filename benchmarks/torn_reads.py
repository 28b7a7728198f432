"""Torn reads: how often a reader that never sleeps sees part of a line.

Dagster's file reader stops for good at the first such line, and everything after it is lost. A
process appends lines for some seconds while another one reads as Dagster's reader does, but without
its pauses. The naive writer puts 64 KiB of whole lines into each `write`; `dagster_pipes` opens,
writes and closes the file for each message; `dagsterpipes` uses the file channel of
the session. Measured on disk and in memory (tmpfs), with idle cores and with all cores busy.

    python benchmarks/torn_reads.py dagsterpipes . 8000 3 2     # one series of 3 s, 2 busy processes
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import OURS, REFERENCE, Result, Row, Scale, alternate, report, run

if TYPE_CHECKING:
    from collections.abc import Iterator

NAIVE = "64 KiB batches"
BOUND = "bound"
SIZES = {"150 B": 150, "8 kB": 8_000, "200 kB": 200_000, "2 MB": 2_000_000}
MEMORY = "/dev/shm"
PAGE = 4096
BATCH = 64 << 10
HEAD = '{"__dagster_pipes_version": "0.1", "method": "log", "params": {"message": "'
TAIL = '", "level": "INFO"}}'
LAST = '{"__dagster_pipes_version": "0.1", "method": "closed", "params": {}}\n'


def read(path: str, results: Any) -> None:
    """Count the lines that are whole, and what is seen of others."""
    whole = torn = 0
    with Path(path).open(encoding="utf-8") as file:
        while True:
            line = file.readline()
            if not line:
                continue
            if not line.endswith("\n") or not line.strip():
                torn += 1
                continue
            whole += 1
            if len(line) > 4 and LAST.endswith(line):  # it may be torn itself
                break
    results.put((whole, torn))


def burn() -> None:
    while True:
        pass


def write(who: str, path: str, size: int, until: float) -> int:
    """Append lines until then; return how many."""
    text = "x" * (size - len(HEAD) - len(TAIL) - 1)
    if who == REFERENCE:
        return write_reference(path, text, until)
    line = (HEAD + text + TAIL + "\n").encode()
    at_once = max(1, BATCH // size)
    batch = line * at_once
    count = 0
    with contextlib.closing(open_ours(path) if who == OURS else open_naive(path)) as file:
        while time.monotonic() < until:
            file.write(batch)
            count += at_once
            time.sleep(0.001)
    return count


def open_ours(path: str) -> Any:
    from dagsterpipes._delivery.channels.file import FileChannel
    from dagsterpipes.writers import FILLER

    return FileChannel(path, FILLER)


def open_naive(path: str) -> Any:
    return Path(path).open("ab", buffering=0)


def write_reference(path: str, text: str, until: float) -> int:
    import dagster_pipes

    channel = dagster_pipes.PipesFileMessageWriterChannel(path)
    message: Any = {
        "__dagster_pipes_version": "0.1",
        "method": "log",
        "params": {"message": text, "level": "INFO"},
    }
    count = 0
    while time.monotonic() < until:
        channel.write_message(message)
        count += 1
    return count


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    burners = [multiprocessing.Process(target=burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    yield
    for burner in burners:
        burner.kill()
        burner.join()


def series(who: str, parent: str, size: int, seconds: float, busy: int) -> None:
    """In the measured process: write beside a reader."""
    with tempfile.TemporaryDirectory(dir=parent) as folder, busy_cores(busy):
        path = Path(folder) / "messages"
        path.touch()
        results: Any = multiprocessing.Queue()
        reader = multiprocessing.Process(target=read, args=(str(path), results), daemon=True)
        reader.start()
        lines = write(who, str(path), size, time.monotonic() + seconds)
        time.sleep(0.05)
        with path.open("a") as file:
            file.write(LAST)
        _, torn = results.get(timeout=120)
        reader.join()
        report(lines=lines, torn=torn, bytes=path.stat().st_size)


def measure(scale: Scale) -> Result:
    seconds = scale.pick(3, 1)
    places = {"disk": tempfile.gettempdir()}
    if Path(MEMORY).is_dir() and not scale.short:
        places["memory"] = MEMORY
    sizes = {name: SIZES[name] for name in ("150 B", "8 kB")} if scale.short else SIZES
    everybody = (OURS,) if scale.short else (OURS, REFERENCE, NAIVE)
    cases = {
        json.dumps([who, place, size, busy]): partial(
            run, "torn_reads.py", who, folder, length, seconds, busy * (os.cpu_count() or 1)
        )
        for place, folder in places.items()
        for size, length in sizes.items()
        for busy in ((False,) if scale.short else (False, True))
        for who in everybody
    }
    found = {name: {"torn": 0, "lines": 0} for name in cases}
    for name, numbers in alternate(cases, 1).items():
        found[name] = {"torn": sum(numbers["torn"]), "lines": sum(numbers["lines"])}
    rows = []
    for name, what, fitting in (
        ("torn_short", "up to a page", [size for size in sizes if sizes[size] <= PAGE]),
        ("torn_long", "longer than a page", [size for size in sizes if sizes[size] > PAGE]),
    ):
        values = {
            who: [float(sum(found[one]["torn"] for one in found if is_of(one, who, fitting)))]
            for who in everybody
        }
        rows.append(
            Row(
                name,
                f"torn reads of lines {what}",
                "",
                values | {BOUND: [0.0]},
                against=BOUND,
                goal=1,
                goal_text="none",
            )
        )
    return Result(rows, {"torn": found, "seconds": seconds})


def is_of(name: str, who: str, sizes: list[str]) -> bool:
    found_who, _, size, _ = json.loads(name)
    return found_who == who and size in sizes


if __name__ == "__main__":
    who, parent, *numbers = sys.argv[1:]
    series(who, parent, int(numbers[0]), float(numbers[1]), int(numbers[2]))
