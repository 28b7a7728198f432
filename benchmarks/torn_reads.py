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
LAST = '"method": "closed"'


def message(size: int) -> dict[str, Any]:
    empty = len(json.dumps(dagster_pipes._make_message("log", {"message": "", "level": "INFO"})))
    params = {"message": "x" * (size - empty - 1), "level": "INFO"}
    return dict(dagster_pipes._make_message("log", params))


def read(path: str, parses: bool, results: Any) -> None:
    """Read like Dagster's reader, but without its pauses; count whole and other lines."""
    whole = torn = 0
    with open(path, encoding="utf-8") as file:
        while True:
            line = file.readline()
            if not line:
                continue
            if not line.endswith("\n") or not line.strip():
                torn += 1
                continue
            whole += 1
            if parses:
                with contextlib.suppress(ValueError):
                    json.loads(line)
            if LAST in line[:100]:
                break
    results.put((whole, torn))


def burn() -> None:
    while True:
        pass


def write_ours(path: str, size: int, until: float) -> int:
    line = json.dumps(message(size)).encode() + b"\n"
    batch = line * max(1, BATCH // size)
    count = 0
    with FileChannel(path, FILLER) as channel:
        while time.monotonic() < until:
            channel.write(batch)
            count += max(1, BATCH // size)
            time.sleep(0.001)
    return count


def write_naive(path: str, size: int, until: float) -> int:
    line = json.dumps(message(size)).encode() + b"\n"
    batch = line * max(1, BATCH // size)
    count = 0
    with open(path, "ab", buffering=0) as file:
        while time.monotonic() < until:
            file.write(batch)
            count += max(1, BATCH // size)
            time.sleep(0.001)
    return count


def write_reference(path: str, size: int, until: float) -> int:
    channel = dagster_pipes.PipesFileMessageWriterChannel(path)
    one = message(size)
    count = 0
    while time.monotonic() < until:
        channel.write_message(one)
        count += 1
    return count


WRITERS: dict[str, Callable[[str, int, float], int]] = {
    "dagsterpipes": write_ours,
    "dagster_pipes": write_reference,
    "64 KiB batches": write_naive,
}


def measure(
    writer: Callable[[str, int, float], int], folder: str, size: int, seconds: float, parses: bool
) -> dict[str, int]:
    path = os.path.join(folder, "messages")
    open(path, "w").close()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    reader = context.Process(target=read, args=(path, parses, results), daemon=True)
    reader.start()
    written = writer(path, size, time.monotonic() + seconds)
    time.sleep(0.05)
    with open(path, "ab") as file:
        file.write(b'{"__dagster_pipes_version": "0.1", "method": "closed", "params": {}}\n')
    _, torn = results.get(timeout=60)
    reader.join()
    result = {"lines": written, "torn": torn, "bytes": os.path.getsize(path)}
    os.unlink(path)
    return result


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
                        result = measure(
                            WRITERS[name], folder, SIZES[size], options.seconds, options.parse
                        )
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
