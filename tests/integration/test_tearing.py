"""A reader that polls a file without ever sleeping, beside a process that writes to it.

Dagster's reader stops for good at the first line that it sees in part.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._protocol.envelope import FILLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 2.0

# Reads as Dagster does, but never pauses and goes on after a bad line.
READER = """
import json, mmap, sys
path, shared, parses = sys.argv[1:]
with open(shared, "r+b") as file:
    position = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
whole = bad = 0
is_partial = False
with open(path, encoding="utf-8") as file:
    while True:
        line = file.readline()
        if not line:
            continue
        position[0] += len(line)
        if not line.endswith("\\n") or not line.strip():
            bad += not is_partial
            is_partial = True
            continue
        is_partial = False
        whole += 1
        if parses == "parses":
            try:
                json.loads(line)
            except ValueError:
                bad += 1
        if line.startswith('{"last"'):
            break
print(whole, bad)
"""


def line(size: int) -> bytes:
    return b'{"x":"' + b"x" * (size - 9) + b'"}\n'


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk and one in memory, where the system has one."""
    if request.param == "disk":
        yield tmp_path
    elif not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            yield Path(name)


@pytest.fixture
def busy_cores() -> Iterator[None]:
    """As many processes that do nothing but compute as there are cores."""
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


def read_beside(
    path: Path, write: Callable[[], object], seconds: float, *, parses: bool = False
) -> tuple[int, int]:
    """Write again and again while the reader reads; the whole lines it saw, and the others."""
    path.touch()
    shared = path.with_name("shared")
    shared.write_bytes(bytes(8))
    how = "parses" if parses else "does not"
    command: list[str | Path] = [sys.executable, "-c", READER, path, shared, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        with shared.open("r+b") as file:
            position = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            write()
            # A reader that is behind would not see the writing.
            while position[0] < path.stat().st_size and reader.poll() is None:
                time.sleep(0.0005)
        with path.open("ab") as file:
            file.write(b'{"last":0}\n')
        output, _ = reader.communicate(timeout=60)
    whole, bad = map(int, output.split())
    return whole, bad


@pytest.mark.timing
@pytest.mark.parametrize("load", ["idle", "busy"])
@pytest.mark.parametrize("size", [150, 8_000, 200_000, 2_000_000])
def test_no_line_is_seen_in_part(
    folder: Path, request: pytest.FixtureRequest, size: int, load: str
) -> None:
    """Whatever the length of the lines, on a disk and in memory, also when the cores are busy.

    A writer of long lines in memory that loses its core for some ms in the middle of a write, needs a
    reader that parses, as Dagster's does; otherwise this one only looks for the ends of lines.
    """
    if load == "busy":
        request.getfixturevalue("busy_cores")
    parses = load == "busy" and size > 4096 and "/dev/shm" in str(folder)
    path = folder / "messages"
    with FileChannel(str(path), FILLER) as channel:
        batch = line(size) * max(1, 20_000 // size)
        whole, bad = read_beside(path, lambda: channel.write(batch), SECONDS, parses=parses)
    assert bad == 0
    assert whole > 1


@pytest.mark.parametrize("size", [150, 8_000, 200_000])
def test_the_reader_notices(tmp_path: Path, size: int) -> None:
    """Plain writes of whole lines are seen in part: the test above can fail."""
    path = tmp_path / "messages"
    batch = line(size) * max(1, 200_000 // size)
    deadline = time.monotonic() + 30
    bad = 0
    with path.open("ab", buffering=0) as file:
        while not bad and time.monotonic() < deadline:
            _, bad = read_beside(path, lambda: file.write(batch), 0.3)
            file.truncate(0)
    assert bad


def test_what_was_seen_was_everything(folder: Path) -> None:
    """The lines are there, between messages that say nothing."""
    path = folder / "messages"
    with FileChannel(str(path), FILLER) as channel:
        for size in (150, 8_000, 200_000):
            channel.write(line(size) * 3)
    messages = [json.loads(text) for text in path.read_bytes().splitlines()]
    with contextlib.suppress(ValueError):
        while True:
            messages.remove(json.loads(FILLER))
    assert [len(message["x"]) for message in messages] == [141] * 3 + [7_991] * 3 + [199_991] * 3
