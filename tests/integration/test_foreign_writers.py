"""Other processes that append to the messages file with the reference's client, which takes no lock."""

from __future__ import annotations

import json
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
    from collections.abc import Iterator

pytest.importorskip("fcntl")

SECONDS = 2.0
CHILDREN = 3

CLIENT = """
import random, sys, time
from dagster_pipes import PipesFileMessageWriterChannel
path, child, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
channel = PipesFileMessageWriterChannel(path)
sizes = random.Random(child)
deadline = time.monotonic() + seconds
number = 0
while time.monotonic() < deadline:
    size = sizes.choice([10, 100, 1_000, 5_000, 50_000])
    channel.write_message({"child": child, "n": number, "x": "x" * size})
    number += 1
    if number % 50 == 0:
        time.sleep(0.002)
print(number)
"""

# Takes what is there, keeps a line that is not complete, and counts complete ones that are no JSON.
READER = """
import json, sys
bad = []
rest = b""
with open(sys.argv[1], "rb") as file:
    while True:
        data = file.read(1 << 20)
        if not data:
            continue
        *whole, rest = (rest + data).split(b"\\n")
        for line in whole:
            try:
                message = json.loads(line)
            except ValueError:
                bad.append(line[:200])
                continue
            if "last" in message:
                print(len(bad), bad[:3])
                sys.exit()
"""


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file on a disk and one in memory, where the system has one."""
    if request.param == "disk":
        yield tmp_path / "messages"
    elif not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            yield Path(name) / "messages"


def ours(number: int, size: int) -> bytes:
    return json.dumps({"child": 0, "n": number, "x": "x" * size}).encode() + b"\n"


@pytest.mark.parametrize("filler", [FILLER, None], ids=["fillers", "spaces"])
def test_all_that_others_wrote_is_there(path: Path, filler: bytes | None) -> None:
    """Every message of theirs and of ours, once and in the order of its writer, and nothing else."""
    path.touch()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, path], stdout=subprocess.PIPE, text=True
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, path, str(child), str(SECONDS)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for child in range(1, CHILDREN + 1)
    ]
    number = 0
    with FileChannel(str(path), filler) as channel:
        while any(child.poll() is None for child in children):
            batch = b"".join(ours(number + i, 150) for i in range(20))
            channel.write(batch)
            channel.write(ours(number + 20, 20_000) + ours(number + 21, 150))
            number += 22
            time.sleep(0.0005)
    expected = {0: number}
    for child_number, child in enumerate(children, 1):
        output, _ = child.communicate(timeout=60)
        expected[child_number] = int(output)
    with path.open("ab") as file:
        file.write(b'{"last":0}\n')
    seen, _ = reader.communicate(timeout=60)
    assert seen == "0 []\n"
    found: dict[int, list[int]] = {child: [] for child in expected}
    for line in path.read_bytes().splitlines():
        message = json.loads(line)
        if "child" in message:
            found[message["child"]].append(message["n"])
    for child_number, count in expected.items():
        assert count > 10
        assert found[child_number] == list(range(count))
