"""Room that is made before a long line."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._delivery.channels import direct_io, reservation
from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._delivery.channels.reservation import reserve

if TYPE_CHECKING:
    from collections.abc import Iterator

FILLER = b'{"filler":"' + b"f" * 100 + b'"}'
LINE = b'{"x":"' + b"x" * 8_000 + b'"}\n'
SHORT = b'{"x":""}\n'


@pytest.fixture
def path() -> Iterator[Path]:
    """A file in memory, as that is what can reserve everywhere."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name) / "messages"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    yield opened
    os.close(opened)


def answering(monkeypatch: pytest.MonkeyPatch, *problems: int) -> list[tuple[int, ...]]:
    """Let the system answer so, one after the other; what it is asked for."""
    asked: list[tuple[int, ...]] = []

    def fallocate(*args: int) -> int:
        asked.append(args)
        return problems[len(asked) - 1]

    monkeypatch.setattr(reservation, "_fallocate", fallocate)
    return asked


def test_what_is_reserved_is_there_and_cannot_be_seen(descriptor: int) -> None:
    """The file has the pages, and is as long as before."""
    os.write(descriptor, b"x" * 100)
    reserve(descriptor, 100, 1 << 20)
    found = os.fstat(descriptor)
    assert found.st_size == 100
    assert found.st_blocks * 512 >= 1 << 20


def test_what_there_is_no_room_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the system's words."""
    answering(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        reserve(7, 0, 10_000)


@pytest.mark.parametrize("problem", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_where_nothing_can_be_reserved_nothing_is(
    problem: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are written all the same."""
    asked = answering(monkeypatch, problem)
    reserve(7, 4096, 10_000)
    assert asked == [(7, 4096, 10_000)]


def test_an_interrupted_reservation_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is there."""
    asked = answering(monkeypatch, errno.EINTR, errno.EINTR, 0)
    reserve(7, 0, 10_000)
    assert len(asked) == 3


@pytest.mark.parametrize("missing", [None, object()])
def test_platforms_without_it(missing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No C library, or one that cannot reserve."""

    def load(*args: object, **kwargs: object) -> object:
        if missing is None:
            raise OSError("no library")
        return missing

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(reservation, "_fallocate", None)
    reserve(7, 0, 10_000)


class TestInTheFileChannel:
    def reserved(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """What the channel reserves: offsets and sizes."""
        calls: list[tuple[int, int]] = []

        def note(descriptor: int, offset: int, size: int) -> None:
            calls.append((offset, size))
            reserve(descriptor, offset, size)

        monkeypatch.setattr("dagsterpipes._delivery.channels.file.reserve", note)
        monkeypatch.setattr(direct_io, "O_DIRECT", 0)
        return calls

    def test_only_for_long_lines(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that is then written, and nothing for short ones."""
        calls = self.reserved(monkeypatch)
        with FileChannel(str(path), FILLER) as channel:
            channel.write(SHORT)
            assert calls == []
            before = path.stat().st_size
            channel.write(LINE)
            assert calls == [(before, path.stat().st_size - before)]
            channel.write(SHORT)
            assert len(calls) == 1

    def test_without_room_nothing_is_begun(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The line stays with the channel, and goes when there is room."""
        self.reserved(monkeypatch)
        with FileChannel(str(path), FILLER) as channel:
            channel.write(SHORT)
            before = path.read_bytes()
            answering(monkeypatch, errno.ENOSPC, 0)
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                channel.write(LINE)
            assert path.read_bytes() == before
            assert channel.unwritten() == LINE
            channel.write(b"")
        assert json.loads(path.read_bytes().splitlines()[-1]) == json.loads(LINE)
