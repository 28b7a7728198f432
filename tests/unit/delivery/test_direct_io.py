"""Direct writes, and when the file channel uses them."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from dagsterpipes._delivery.channels import direct_io
from dagsterpipes._delivery.channels.direct_io import file_system, write_directly
from dagsterpipes._delivery.channels.file import FileChannel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    if found not in direct_io.AT_ONCE:
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
        patch.setattr(direct_io, "O_DIRECT", 0)
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
    assert seen == [direct_io.O_DIRECT] * 2
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
        monkeypatch.setattr(direct_io, "AT_ONCE", ())
        monkeypatch.setattr(direct_io, "PERHAPS_AT_ONCE", (kind,))
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

        monkeypatch.setattr(direct_io, "write_directly", refuse)
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

                patch.setattr(direct_io, "write_directly", fail)
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
