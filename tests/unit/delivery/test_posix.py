"""System calls of the file channel, where they are and where they are not."""

from __future__ import annotations

import builtins
import ctypes
import errno
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from dagsterpipes._delivery.channels import posix
from dagsterpipes._delivery.channels.file import DIRECT_TRIES, FileChannel
from dagsterpipes._delivery.channels.posix import file_system, reserve, write_directly

if TYPE_CHECKING:
    from collections.abc import Iterator

fcntl = pytest.importorskip("fcntl")

FILLER = b'{"filler":"' + b"f" * 100 + b'"}'
LINE = b'{"x":"' + b"x" * 8_000 + b'"}\n'
SHORT = b'{"x":""}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.fixture
def kind(descriptor: int) -> bytes:
    """Type of the file system, where it can append at once."""
    found = file_system(descriptor)
    if found not in posix.AT_ONCE:
        pytest.skip(f"direct writes on {found.decode() or 'this file system'} are not at once")
    return found


def test_the_file_system_is_known(descriptor: int, path: Path) -> None:
    """As the system's own tool says."""
    if not shutil.which("findmnt"):
        pytest.skip("no findmnt")
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    name = subprocess.run(command, capture_output=True, check=True).stdout.strip()
    assert file_system(descriptor) in (name, b"")


def test_what_cannot_be_found_out_is_nothing(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list of mounts, or none that names the device, or no direct writes at all."""

    def fail(*_: object) -> None:
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", fail)
        assert file_system(descriptor) == b""
    with monkeypatch.context() as patch:
        patch.setattr(os, "major", lambda _: 4095)
        assert file_system(descriptor) == b""
    with monkeypatch.context() as patch:
        patch.setattr(posix, "O_DIRECT", 0)
        assert file_system(descriptor) == b""


@pytest.mark.usefixtures("kind")
def test_pages_are_written(descriptor: int, path: Path) -> None:
    """The descriptor is as it was, after success and after failure."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    seen = []

    def write(data: memoryview) -> int:
        seen.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~flags)
        return os.write(descriptor, data)

    pages = b"x" * 8192
    assert write_directly(descriptor, memoryview(pages), write) == 8192
    assert path.read_bytes() == pages
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        write_directly(descriptor, memoryview(b"not a page"), write)
    assert path.read_bytes() == pages
    assert seen == [posix.O_DIRECT] * 2
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) == flags


class TestFileChannel:
    """Which way it goes."""

    def messages(self, path: Path) -> list[Any]:
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    @pytest.mark.usefixtures("kind")
    @pytest.mark.parametrize("filler", [FILLER, None])
    def test_long_lines_take_hardly_more_than_their_length(
        self, path: Path, filler: bytes | None
    ) -> None:
        """They begin and end a page and need no runway; short ones do not end theirs."""
        with FileChannel(str(path), filler) as channel:
            for number in range(1, 6):
                channel.write(SHORT)
                channel.write(LINE)
                assert path.stat().st_size == number * 3 * 4096
            channel.write(SHORT + LINE * 4 + SHORT)
            size = path.stat().st_size
            assert size == 5 * 3 * 4096 + 10 * 4096
            channel.write(SHORT)
            assert path.stat().st_size == size + (len(SHORT) if filler else 4096)
        long = [message for message in self.messages(path) if message.get("x")]
        assert long == [json.loads(LINE)] * 9

    def test_behind_what_is_not_known_they_have_a_runway_too(
        self, path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on an overlay, whose upper layer may be anything."""
        monkeypatch.setattr(posix, "AT_ONCE", ())
        monkeypatch.setattr(posix, "PERHAPS_AT_ONCE", (kind,))
        with FileChannel(str(path), FILLER) as channel:
            channel.write(SHORT + LINE)
        assert path.stat().st_size > 64 * 4096
        assert path.stat().st_size % 4096 == 0
        assert self.messages(path)[-1] == json.loads(LINE)

    @pytest.mark.usefixtures("kind")
    def test_a_refusal_is_final(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """From then on long lines go the other way."""
        asked = []

        def refuse(*_: object) -> None:
            asked.append(1)
            raise OSError(errno.EINVAL, "not directly")

        monkeypatch.setattr(posix, "write_directly", refuse)
        with FileChannel(str(path), FILLER) as channel:
            channel.write(SHORT)
            channel.write(LINE)
            channel.write(LINE)
        assert len(asked) == 1
        assert path.stat().st_size > 2 * 64 * 4096
        assert self.messages(path).count(json.loads(LINE)) == 2

    @pytest.mark.usefixtures("kind")
    def test_a_failure_is_tried_again(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the same way."""
        with FileChannel(str(path), FILLER) as channel:
            channel.write(SHORT)
            with monkeypatch.context() as patch:

                def fail(*_: object) -> None:
                    raise OSError(errno.EIO, "broken")

                patch.setattr(posix, "write_directly", fail)
                with pytest.raises(OSError, match="broken"):
                    channel.write(SHORT + LINE)
                assert channel.unwritten() == LINE
            channel.write(b"")
        assert self.messages(path) == [json.loads(line) for line in (SHORT, SHORT, LINE)]
        assert path.stat().st_size == 3 * 4096

    @pytest.mark.usefixtures("kind")
    def test_others_who_come_between_are_no_refusal(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those who do not ask for the lock: the next page is the place then."""

        class Crowded(FileChannel):
            crowds: ClassVar = [1]

            def write_some(self, data: memoryview) -> int:
                if self.crowds:
                    self.crowds.pop()
                    with path.open("ab") as others:
                        others.write(SHORT)
                return super().write_some(data)

        with Crowded(str(path), FILLER) as channel:
            channel.write(LINE)
            assert path.stat().st_size == 3 * 4096
        assert self.messages(path)[0] == json.loads(SHORT)
        assert self.messages(path)[-1] == json.loads(LINE)

    @pytest.mark.usefixtures("kind")
    def test_others_who_always_come_between(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After some tries the line goes the other way; the next one is tried directly again."""
        tries = []
        write_directly_before = posix.write_directly

        def crowded(descriptor: int, data: memoryview, write: Any) -> int:
            tries.append(len(data))
            with path.open("ab") as others:
                others.write(SHORT)
            return write_directly_before(descriptor, data, write)

        monkeypatch.setattr(posix, "write_directly", crowded)
        with FileChannel(str(path), FILLER) as channel:
            channel.write(LINE)
            assert len(tries) == DIRECT_TRIES
            channel.write(LINE)
            assert len(tries) == 2 * DIRECT_TRIES
        messages = self.messages(path)
        assert messages.count(json.loads(LINE)) == 2
        assert messages.count(json.loads(SHORT)) == 2 * DIRECT_TRIES


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A file in memory, as that is what can reserve everywhere."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name) / "messages"


@pytest.fixture
def memory_descriptor(memory_path: Path) -> Iterator[int]:
    opened = os.open(memory_path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    yield opened
    os.close(opened)


def answering(monkeypatch: pytest.MonkeyPatch, *problems: int) -> list[tuple[int, ...]]:
    """Let the system answer so, one after the other; what it is asked for."""
    asked: list[tuple[int, ...]] = []

    def fallocate(*args: int) -> int:
        asked.append(args)
        return problems[len(asked) - 1]

    monkeypatch.setattr(posix, "_fallocate", fallocate)
    return asked


def test_what_is_reserved_is_there_and_cannot_be_seen(memory_descriptor: int) -> None:
    """The file has the pages, and is as long as before."""
    os.write(memory_descriptor, b"x" * 100)
    reserve(memory_descriptor, 100, 1 << 20)
    found = os.fstat(memory_descriptor)
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
    monkeypatch.setattr(posix, "_fallocate", None)
    reserve(7, 0, 10_000)


@pytest.mark.parametrize("can_yield", [True, False])
def test_others_go_first(can_yield: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write that follows then begins with a whole time slice."""
    asked: list[object] = []
    if can_yield:
        monkeypatch.setattr(os, "sched_yield", lambda: asked.append(None))
    else:
        monkeypatch.delattr(os, "sched_yield", raising=False)
        monkeypatch.setattr(time, "sleep", asked.append)
    answering(monkeypatch, 0)
    reserve(7, 0, 10_000)
    assert asked == [None if can_yield else 0.0001]


class TestInTheFileChannel:
    def reserved(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """What the channel reserves: offsets and sizes."""
        calls: list[tuple[int, int]] = []

        def note(memory_descriptor: int, offset: int, size: int) -> None:
            calls.append((offset, size))
            reserve(memory_descriptor, offset, size)

        monkeypatch.setattr("dagsterpipes._delivery.channels.file.reserve", note)
        monkeypatch.setattr(posix, "O_DIRECT", 0)
        return calls

    def test_only_for_long_lines(self, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that is then written, and nothing for short ones."""
        calls = self.reserved(monkeypatch)
        with FileChannel(str(memory_path), FILLER) as channel:
            channel.write(SHORT)
            assert calls == []
            before = memory_path.stat().st_size
            channel.write(LINE)
            assert calls == [(before, memory_path.stat().st_size - before)]
            channel.write(SHORT)
            assert len(calls) == 1

    def test_also_where_it_is_not_known_what_is_below(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An overlay may lie on a tmpfs, which takes direct writes and makes them visible by pages."""
        calls: list[int] = []
        monkeypatch.setattr(
            "dagsterpipes._delivery.channels.file.reserve", lambda *args: calls.append(args[1])
        )
        monkeypatch.setattr(posix, "file_system", lambda _: b"overlay")
        monkeypatch.setattr(posix, "write_directly", lambda _, data, write: write(data))
        with FileChannel(str(path), FILLER) as channel:
            channel.write(LINE)
        assert calls == [0]

    def test_without_room_nothing_is_begun(
        self, memory_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The line stays with the channel, and goes when there is room."""
        self.reserved(monkeypatch)
        with FileChannel(str(memory_path), FILLER) as channel:
            channel.write(SHORT)
            before = memory_path.read_bytes()
            answering(monkeypatch, errno.ENOSPC, 0)
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                channel.write(LINE)
            assert memory_path.read_bytes() == before
            assert channel.unwritten() == LINE
            channel.write(b"")
        assert json.loads(memory_path.read_bytes().splitlines()[-1]) == json.loads(LINE)
