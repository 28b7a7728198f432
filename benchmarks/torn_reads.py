"""How often a reader that polls a file without sleeping sees part of a line, by writer.

Dagster's file reader stops for good at the first such line. Compares dagsterpipes with dagster_pipes
(one open, write and close a message) and with a writer that puts 64 KiB of whole lines into each
``write``. Prints one JSON document.

    python benchmarks/torn_reads.py --seconds 3 --busy 2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster_pipes

from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes.writers import FILLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = {"150 B": 150, "8 kB": 8_000, "200 kB": 200_000, "2 MB": 2_000_000}
BATCH = 64 << 10
READ, TORN = 0, 1


def message(size: int) -> dict[str, Any]:
    one = {"__dagster_pipes_version": "0.1", "method": "log", "params": {"message": ""}}
    one["params"] = {"message": "x" * (size - len(json.dumps(one)) - 1)}
    return one


def read(path: str, parses: bool, progress: Any) -> None:
    """Read like Dagster's reader, but without its pauses; count lines that are seen in part."""
    position = 0
    is_partial = False
    with Path(path).open(encoding="utf-8") as file:
        while True:
            line = file.readline()
            if not line:
                continue
            position += len(line)
            progress[READ] = position
            if not line.endswith("\n") or not line.strip():
                progress[TORN] += not is_partial
                is_partial = True
                continue
            is_partial = False
            if parses:
                with contextlib.suppress(ValueError):
                    json.loads(line)


def burn() -> None:
    while True:
        pass


class Ours:
    """One write of the file channel."""

    def __init__(self, path: str, one: dict[str, Any], batch: int) -> None:
        self.lines = (json.dumps(one).encode() + b"\n") * batch
        self.channel = FileChannel(path, FILLER)

    def __call__(self) -> None:
        self.channel.write(self.lines)


class Naive:
    """One write of whole lines as they are."""

    def __init__(self, path: str, one: dict[str, Any], batch: int) -> None:
        self.lines = (json.dumps(one).encode() + b"\n") * batch
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def __call__(self) -> None:
        os.write(self.descriptor, self.lines)


class Reference:
    """As many calls of the reference's channel."""

    def __init__(self, path: str, one: dict[str, Any], batch: int) -> None:
        self.message = one
        self.batch = batch
        self.channel = dagster_pipes.PipesFileMessageWriterChannel(path)

    def __call__(self) -> None:
        for _ in range(self.batch):
            self.channel.write_message(self.message)


WRITERS: dict[str, Callable[[str, dict[str, Any], int], Callable[[], None]]] = {
    "dagsterpipes": Ours,
    "dagster_pipes": Reference,
    "64 KiB batches": Naive,
}


def measure(name: str, folder: str, size: int, seconds: float, parses: bool) -> dict[str, int]:
    path = str(Path(folder, "messages"))
    Path(path).touch()
    progress = multiprocessing.Array("q", 2, lock=False)
    reader = multiprocessing.Process(target=read, args=(path, parses, progress), daemon=True)
    reader.start()
    batch = max(1, BATCH // size)
    write = WRITERS[name](path, message(size), batch)
    until = time.monotonic() + seconds
    lines = 0
    while time.monotonic() < until:
        write()
        lines += batch
        # A reader that is behind sees nothing of the writing.
        while progress[READ] < Path(path).stat().st_size:
            time.sleep(0.0005)
    reader.kill()
    reader.join()
    return {"lines": lines, "torn": progress[TORN], "bytes": Path(path).stat().st_size}


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    burners = [multiprocessing.Process(target=burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    yield
    for burner in burners:
        burner.kill()
        burner.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep the cores busy")
    parser.add_argument("--folders", nargs="*", default=[".", "/dev/shm"])
    parser.add_argument("--writers", nargs="*", default=list(WRITERS))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--parse", action="store_true", help="parse as Dagster does; slower")
    options = parser.parse_args()
    results = []
    with busy_cores(options.busy):
        for parent in options.folders:
            for size in options.sizes:
                for name in options.writers:
                    with tempfile.TemporaryDirectory(dir=parent) as folder:
                        result = measure(name, folder, SIZES[size], options.seconds, options.parse)
                    kind = "memory" if parent == "/dev/shm" else "disk"
                    row = {"writer": name, "place": kind, "line": size, **result}
                    print(row, file=sys.stderr)
                    results.append(row)
    facts = {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "busy": options.busy,
        "seconds": options.seconds,
        "parses": options.parse,
    }
    print(json.dumps({**facts, "results": results}, indent=1))


if __name__ == "__main__":
    main()
