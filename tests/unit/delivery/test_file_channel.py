"""The file channel on real files: whole lines only, each once and in order, whatever happens."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiofiles import threadpool

from dagsterpipes._delivery.channels import file as file_module
from dagsterpipes._delivery.channels import posix
from dagsterpipes._delivery.channels.file import FileChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagsterpipes._delivery.channels import Channel

fcntl = pytest.importorskip("fcntl")

FILLER = b'{"filler":"' + b"f" * 100 + b'"}'


def line(number: int, size: int = 150) -> bytes:
    text = f'{{"n":{number},"x":"'
    return (text + "x" * (size - len(text) - 3) + '"}\n').encode()


def lines(start: int, stop: int, size: int = 150) -> bytes:
    return b"".join(line(number, size) for number in range(start, stop))


def numbers(path: Path) -> list[int]:
    """The lines of a file; each must be JSON, and the file must end in a newline."""
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    messages = [json.loads(text) for text in content.splitlines()]
    return [message["n"] for message in messages if "n" in message]


@pytest.fixture(params=["disk", "disk, not directly", "memory"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder on a disk, with direct writes and without, and one in memory; where there are."""
    if request.param != "disk":
        monkeypatch.setattr(posix, "O_DIRECT", 0)
    if request.param.startswith("disk"):
        yield tmp_path
    elif not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            yield Path(name)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "messages"


class ShortWriteChannel(FileChannel):
    """Writes at most so many bytes at once, as a system may do."""

    longest = 1

    def write_some(self, data: memoryview) -> int:
        return super().write_some(data[: self.longest])


class FailingChannel(FileChannel):
    """Fails when so many bytes are written; before, it writes at most 1,000 at once."""

    healthy_bytes: float = float("inf")
    failure: BaseException = OSError(errno.EIO, "the disk is broken")

    def write_some(self, data: memoryview) -> int:
        if self.healthy_bytes <= 0:
            raise self.failure
        count = super().write_some(data[: int(min(1000, self.healthy_bytes, len(data)))])
        self.healthy_bytes -= count
        return count


def test_lines_arrive(path: Path) -> None:
    """What was written is in the file, in order, across batches of every size."""
    with FileChannel(str(path), FILLER) as channel:
        start = 0
        for count in (1, 2, 100, 1, 1000, 1):
            channel.write(lines(start, start + count))
            start += count
            assert numbers(path) == list(range(start))
        channel.write(line(start, 300_000))
    assert numbers(path) == list(range(start + 1))


def test_it_is_a_channel(path: Path) -> None:
    """A type checker takes it for one."""
    channel: Channel = FileChannel(str(path), FILLER)
    channel.close()


@pytest.mark.parametrize("filler", [FILLER, None])
def test_no_short_line_crosses_a_page(path: Path, filler: bytes | None) -> None:
    """The file is laid out from its true end."""
    path.write_bytes(b'{"n": -1}\n' * 7)
    with FileChannel(str(path), filler) as channel:
        for number in range(300):
            channel.write(line(number, 100 + number))
    start = 0
    for text in path.read_bytes().splitlines(keepends=True):
        assert start // 4096 == (start + len(text) - 1) // 4096
        start += len(text)


def test_the_file_may_exist_or_not(path: Path) -> None:
    """A missing file is made; one that exists is kept."""
    with FileChannel(str(path)) as channel:
        channel.write(line(0))
    with FileChannel(str(path)) as channel:
        channel.write(line(1))
    assert numbers(path) == [0, 1]


def test_nothing_is_written_for_nothing(path: Path) -> None:
    """A retry with nothing left does nothing, even to a file that others left in pieces."""
    path.write_bytes(b'{"half')
    with FileChannel(str(path), FILLER) as channel:
        channel.write(b"")
    assert path.read_bytes() == b'{"half'


@pytest.mark.parametrize("longest", [1, 7, 4096, 10_000])
def test_short_writes_are_continued_where_they_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    """A system that writes little at once makes the same file."""
    other = path.with_name("other")
    batches = [lines(0, 30), line(30, 9000) + line(31), lines(32, 50)]
    monkeypatch.setattr(posix, "O_DIRECT", 0)
    with FileChannel(str(other), FILLER) as whole, ShortWriteChannel(str(path), FILLER) as short:
        short.longest = longest
        for batch in batches[1 if longest == 1 else 0 :]:
            whole.write(batch)
            short.write(batch)
    assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("healthy_bytes", [0, 1, 149, 150, 151, 4096, 5000, 200_000, 290_000])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_failed_write_leaves_whole_lines_and_is_made_up_for(
    path: Path, healthy_bytes: int, failure: BaseException
) -> None:
    """The half line goes at once; what was not written goes first the next time."""
    with FailingChannel(str(path), FILLER) as channel:
        channel.write(line(0))
        channel.healthy_bytes = healthy_bytes
        channel.failure = failure
        batch = lines(1, 41) + line(41, 30_000) + lines(42, 200)
        with pytest.raises(type(failure)):
            channel.write(batch)
        there = numbers(path)
        assert there == list(range(len(there)))
        assert channel.unwritten() == batch[batch.index(b'{"n":%d,' % len(there)) :]
        with pytest.raises(type(failure)):
            channel.write(line(200))
        assert numbers(path) == there
        channel.healthy_bytes = float("inf")
        channel.write(b"")
        assert channel.unwritten() == b""
    assert numbers(path) == list(range(201))


def test_what_is_tried_again_lies_where_it_lay(path: Path) -> None:
    """A reader that has kept the beginning of a line that failed goes on with the same bytes."""
    with FailingChannel(str(path), FILLER) as channel:
        channel.write(line(0))
        seen = b""

        class WatchingError(OSError):
            """Reads the file at the moment of the failure."""

            def __init__(self) -> None:
                nonlocal seen
                super().__init__(errno.EIO, "broken")
                seen = path.read_bytes()

        class Failing(FailingChannel):
            def write_some(self, data: memoryview) -> int:
                if self.healthy_bytes <= 0:
                    raise WatchingError
                return super().write_some(data)

        with Failing(str(path), FILLER) as failing:
            failing.healthy_bytes = 270_000
            with pytest.raises(WatchingError):
                failing.write(line(1, 20_000))
            failing.healthy_bytes = float("inf")
            failing.write(b"")
    assert len(seen) > 260_000
    assert not seen.endswith(b"\n")
    assert path.read_bytes().startswith(seen[: seen.rfind(b"\n") + 1])
    assert seen[seen.rfind(b"\n") + 1 :] in path.read_bytes()


def test_a_line_that_others_wrote_behind_is_not_taken_back(path: Path) -> None:
    """Theirs is kept; ours becomes spaces before it, and comes again."""

    class Crowded(FailingChannel):
        def write_some(self, data: memoryview) -> int:
            try:
                return super().write_some(data)
            except OSError:
                with path.open("ab") as others:
                    others.write(b'{"n":-1}\n')
                raise

    with Crowded(str(path), FILLER) as channel:
        channel.healthy_bytes = 10
        with pytest.raises(OSError, match="broken"):
            channel.write(line(0))
        channel.healthy_bytes = float("inf")
        channel.write(b"")
    assert path.read_bytes().startswith(b" " * 10 + b'{"n":-1}\n')
    assert numbers(path) == [-1, 0]


def test_unwritten_can_be_asked_while_a_write_hangs(path: Path) -> None:
    """Another thread gets every line of the write, without waiting."""

    class HangingChannel(FileChannel):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            self.hangs = threading.Event()
            self.goes_on = threading.Event()

        def write_some(self, data: memoryview) -> int:
            self.hangs.set()
            self.goes_on.wait()
            return super().write_some(data)

    with HangingChannel(str(path)) as channel:
        writer = threading.Thread(target=channel.write, args=(lines(0, 3),))
        writer.start()
        channel.hangs.wait()
        assert channel.unwritten() == lines(0, 3)
        channel.goes_on.set()
        writer.join()
        assert channel.unwritten() == b""


class TestLimits:
    """Of the process and of the disk; in child processes."""

    def run(self, script: str, *arguments: str, before: tuple[str, ...] = ()) -> None:
        prelude = "\n".join(
            [
                "import errno, json, os, sys",
                "from pathlib import Path",
                f"sys.path[:0] = [{str(Path(__file__).parent)!r}]",
                "from test_file_channel import FILLER, line, lines, numbers",
                "from dagsterpipes._delivery.channels.file import FileChannel",
                "path = Path(sys.argv[1])",
            ]
        )
        command = [*before, sys.executable, "-c", prelude + "\n" + script, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("knows_limits", [True, False])
    @pytest.mark.parametrize("size", [150, 9_000])
    def test_a_limit_of_the_file_size(self, path: Path, knows_limits: bool, size: int) -> None:
        """What fits goes to the file, the rest when the limit is lifted; half lines never stay."""
        self.run(
            f"""
import resource
from dagsterpipes._delivery.channels import file
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, limits[1]))
if not {knows_limits}:
    file.resource = None
with FileChannel(str(path), FILLER) as channel:
    for _ in range(2):
        try:
            channel.write(b"" if channel.unwritten() else lines(0, 8_000_000 // {size}, {size}))
        except OSError as error:
            assert error.errno == errno.EFBIG
        else:
            raise AssertionError("it took too much")
        there = numbers(path)
        # Long lines need space for their runways too.
        assert len(there) > 0 or not {knows_limits}
        assert {size} > 4096 or 600_000 < len(there) * {size} < 700_000
        assert there == list(range(len(there)))
        assert channel.unwritten() == lines(len(there), 8_000_000 // {size}, {size})
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    channel.write(b"")
assert numbers(path) == list(range(8_000_000 // {size}))
""",
            str(path),
        )

    @pytest.mark.parametrize(
        ("knows_free_space", "size"), [(True, 150), (False, 150), (True, 9_000), (True, 500_000)]
    )
    def test_a_full_disk(self, tmp_path: Path, knows_free_space: bool, size: int) -> None:
        """When there is space again, all lines are there, once and in order."""
        private = ("unshare", "-rm")
        if subprocess.run([*private, "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs a mount namespace of its own")
        mounted = (
            *private,
            "sh",
            "-c",
            'mount -t tmpfs -o size=8m none "$0" && exec "$@"',
            str(tmp_path),
        )
        self.run(
            f"""
if not {knows_free_space}:
    del os.fstatvfs
ballast = path.with_name("ballast")
ballast.write_bytes(b"b" * 6_000_000)
count = 3_000_000 // {size}
with FileChannel(str(path), FILLER) as channel:
    for _ in range(3):
        try:
            channel.write(b"" if channel.unwritten() else lines(0, count, {size}))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        else:
            raise AssertionError("it took too much")
        there = numbers(path)
        assert there == list(range(len(there)))
        assert channel.unwritten() == lines(len(there), count, {size})
    assert {size} > 4096 or len(there) > count // 2
    ballast.unlink()
    channel.write(b"")
assert numbers(path) == list(range(count))
""",
            str(tmp_path / "messages"),
            before=mounted,
        )


class TestOthers:
    """Who also write to the file."""

    @pytest.mark.parametrize("size", [150, 200_000])
    def test_a_whole_message_without_its_newline_gets_one(self, path: Path, size: int) -> None:
        """What another process said is kept."""
        path.write_bytes(line(0) + line(1, size)[:-1])
        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            channel.write(line(2))
        assert numbers(path) == [0, 1, 2]

    @pytest.mark.parametrize(
        "fragment", [line(1)[:100], b"17", b" ", b"\xff", line(1, 200_000)[:-3]]
    )
    def test_a_half_message_is_removed(self, path: Path, fragment: bytes) -> None:
        """Its writer is gone, and it would stop Dagster's reader."""
        path.write_bytes(line(0) + fragment)
        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            channel.write(line(2))
        assert numbers(path) == [0, 2]

    def test_a_half_message_is_all_there_is(self, path: Path) -> None:
        """The file begins anew."""
        path.write_bytes(line(1)[:100])
        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            channel.write(line(2))
        assert numbers(path) == [2]

    def test_a_half_message_that_cannot_be_removed_is_ended(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a file that can only be appended to, our lines at least are whole."""

        def fail(*_: object) -> None:
            raise PermissionError(errno.EPERM, "append only")

        monkeypatch.setattr(os, "ftruncate", fail)
        monkeypatch.setattr(os, "pwrite", fail)
        path.write_bytes(line(0)[:100])
        with FailingChannel(str(path), FILLER, fragment_patience=0) as channel:
            channel.write(line(2))
            channel.healthy_bytes = 30
            with pytest.raises(OSError, match="broken"):
                channel.write(line(3))
            channel.healthy_bytes = float("inf")
            channel.write(b"")
        whole = path.read_bytes().splitlines(keepends=True)
        assert whole == [line(0)[:100] + b"\n", line(2), line(3)[:30] + b"\n", line(3)]

    def test_a_half_message_is_removed_when_the_disk_lets_it(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An error of the moment does not leave it for the reader to stop at: the write fails."""

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "not now")

        path.write_bytes(line(0) + line(1)[:100])
        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", fail)
                with pytest.raises(OSError, match="not now"):
                    channel.write(line(2))
            channel.write(b"")
        assert numbers(path) == [0, 2]

    def test_what_others_wrote_may_be_read_in_pieces(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only the half message is removed, not what stands before it."""
        pread = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, max(1, size // 2), at))
        path.write_bytes(lines(0, 100) + line(100)[:100])
        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            channel.write(line(101))
        assert numbers(path) == [*range(100), 101]

    def test_a_writer_that_is_busy_gets_time_to_finish_its_line(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A line that is complete a moment later is left as it is."""

        def finish(_: float) -> None:
            with path.open("ab") as others:
                others.write(line(1)[100:])

        monkeypatch.setattr(time, "sleep", finish)
        path.write_bytes(line(0) + line(1)[:100])
        with FileChannel(str(path), FILLER, fragment_patience=60) as channel:
            channel.write(line(2))
        assert numbers(path) == [0, 1, 2]

    def test_the_lock_is_waited_for(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another writer that holds it is done first."""
        with path.open("ab") as others:
            fcntl.flock(others, fcntl.LOCK_EX)

            def finish(_: float) -> None:
                others.write(line(0))
                others.flush()
                fcntl.flock(others, fcntl.LOCK_UN)

            monkeypatch.setattr(time, "sleep", finish)
            with FileChannel(str(path), FILLER, lock_patience=60) as channel:
                channel.write(line(1))
        assert numbers(path) == [0, 1]

    def test_the_lock_is_held_while_writing_and_no_longer(self, path: Path) -> None:
        """Others cannot come between, and can write after."""
        held = []

        class Looking(FileChannel):
            def write_some(self, data: memoryview) -> int:
                with path.open("ab") as others, pytest.raises(BlockingIOError):
                    fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(len(data))
                return super().write_some(data)

        with Looking(str(path)) as channel, path.open("ab") as others:
            channel.write(line(0))
            fcntl.flock(others, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert held == [4096]

    @pytest.mark.parametrize("content", [line(0), line(0)[:100]])
    def test_nothing_is_written_without_a_turn(self, path: Path, content: bytes) -> None:
        """While the holder of the lock lives the write fails, to be tried again; it says why."""
        path.write_bytes(content)
        with FileChannel(str(path), FILLER, lock_patience=0, fragment_patience=0) as channel:
            with path.open("ab") as others:
                fcntl.flock(others, fcntl.LOCK_EX)
                with pytest.raises(BlockingIOError, match="another process holds the lock"):
                    channel.write(line(1))
                assert path.read_bytes() == content
                assert channel.unwritten() == line(1)
                others.write(line(0)[len(content) :])
            channel.write(b"")
        assert numbers(path) == [0, 1]

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
    def test_a_file_system_without_locks_is_written_to(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """Locks are an extra."""

        def fail(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", fail)
        path.write_bytes(line(0) + line(1)[:100])
        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            channel.write(line(2))
        assert numbers(path) == [0, 2]

    def test_a_platform_without_locks_and_limits_is_written_to(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on Windows."""
        monkeypatch.setattr(posix, "fcntl", None)
        monkeypatch.setattr(file_module, "resource", None)
        monkeypatch.delattr(os, "fstatvfs")
        monkeypatch.delattr(os, "pread")
        with FileChannel(str(path), FILLER) as channel:
            channel.write(lines(0, 100))
        assert numbers(path) == list(range(100))

    def test_a_file_that_may_only_be_written_is_written_to(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What others left there cannot be looked at then."""
        real = os.open

        def only_for_writing(name: str, flags: int, *others: int, **more: int) -> int:
            if flags & os.O_RDWR:
                raise PermissionError(errno.EACCES, "no reading")
            return real(name, flags, *others, **more)

        monkeypatch.setattr(os, "open", only_for_writing)
        with FileChannel(str(path), FILLER) as channel:
            channel.write(line(0))
            with path.open("ab") as others:
                others.write(line(1))
            channel.write(line(2))
        assert numbers(path) == [0, 1, 2]

    def test_processes_take_turns(self, path: Path) -> None:
        """Forked children and an independent process write to one file at once."""
        script = """
import os, sys
from test_file_channel import FILLER, line, lines
from dagsterpipes._delivery.channels.file import FileChannel
channel = FileChannel(sys.argv[1], FILLER)
base = int(sys.argv[2])
channel.write(line(base))
children = []
for child in (1, 2):
    pid = os.fork()
    if pid == 0:
        channel.after_fork_in_child()
        for start in range(1, 300, 3):
            first = base + child * 1000 + start
            channel.write(lines(first, first + 3, 100 + start))
            channel.write(line(first + 500, 5000)) if start % 60 == 1 else None
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
"""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)]),
        }
        processes = [
            subprocess.Popen([sys.executable, "-c", script, path, str(base)], env=environment)
            for base in (0, 10_000)
        ]
        assert [process.wait(60) for process in processes] == [0, 0]
        there = numbers(path)
        for base in (0, 10_000):
            assert there.count(base) == 1
            for child in (1, 2):
                first = base + child * 1000
                plain = [number for number in there if first < number < first + 400]
                assert plain == list(range(first + 1, first + 301))
                long = [number for number in there if first + 500 < number < first + 900]
                assert long == [first + 501 + 60 * turn for turn in range(5)]

    @pytest.mark.parametrize("longest", [1_000, 3_000])
    def test_others_between_the_beginning_and_the_rest_of_a_line(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
    ) -> None:
        """A system that writes little at once: their line is kept, and ours comes once, in order."""
        monkeypatch.setattr(posix, "O_DIRECT", 0)

        class Crowded(ShortWriteChannel):
            crowds = 3

            def write_some(self, data: memoryview) -> int:
                count = super().write_some(data)
                if self.crowds and bytes(data[:count]).rstrip(b"\n ").endswith(b"x"):
                    self.crowds -= 1
                    with path.open("ab") as others:
                        others.write(line(-self.crowds - 1))
                return count

        with Crowded(str(path), FILLER, fragment_patience=0) as channel:
            channel.longest = longest
            channel.write(lines(0, 10) + line(10, 20_000) + lines(11, 20))
        there = numbers(path)
        assert [number for number in there if number < 0] == [-3, -2, -1]
        assert [number for number in there if number >= 0] == list(range(20))

    @pytest.mark.parametrize("filler", [FILLER, None])
    def test_what_failed_is_covered_while_others_write(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, filler: bytes | None
    ) -> None:
        """The file is never cut, as their next line could go with the end of ours."""

        def cut(*_: object) -> None:
            raise AssertionError("cut")

        monkeypatch.setattr(os, "ftruncate", cut)
        with FailingChannel(str(path), filler, fragment_patience=0) as channel:
            channel.write(line(0))
            with path.open("ab") as others:
                others.write(line(1))
            channel.healthy_bytes = 200_000 if filler else 7_000
            with pytest.raises(OSError, match="broken"):
                channel.write(line(2, 300_000 if filler else 9_000))
            size = path.stat().st_size
            assert path.read_bytes().rstrip(b" ").endswith(b"\n")
            channel.healthy_bytes = float("inf")
            channel.write(b"")
            assert path.stat().st_size > size
        assert numbers(path) == [0, 1, 2]

    def test_a_file_that_grows_is_not_given_up(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The patience with a half line begins anew with every byte that comes."""
        rest = line(1)[100:]
        clock = 0.0

        def grow(_: float) -> None:
            nonlocal clock, rest
            clock += 0.9
            with path.open("ab") as others:
                others.write(rest[:10])
            rest = rest[10:]

        monkeypatch.setattr(time, "sleep", grow)
        monkeypatch.setattr(time, "monotonic", lambda: clock)
        path.write_bytes(line(0) + line(1)[:100])
        with FileChannel(str(path), FILLER, fragment_patience=1) as channel:
            channel.write(line(2))
        assert numbers(path) == [0, 1, 2]

    def test_a_message_that_gets_its_newline_from_both(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the same moment: no blank line stays, which would stop the reader."""
        path.write_bytes(line(0)[:-1])
        judge = posix.is_message

        def end(text: bytes) -> bool:
            with path.open("ab") as others:
                others.write(b"\n")
            return judge(text)

        with FileChannel(str(path), FILLER, fragment_patience=0) as channel:
            monkeypatch.setattr(posix, "is_message", end)
            channel.write(line(1))
        assert numbers(path) == [0, 1]

    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no processes that stop")
    def test_a_stopped_holder_of_the_lock(self, path: Path) -> None:
        """Nothing is written while it is stopped, and all when it goes on, or is killed."""
        script = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""
        path.touch()
        command: list[str | Path] = [sys.executable, "-c", script, path]
        with (
            FileChannel(str(path), FILLER, lock_patience=0.01) as channel,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        ):
            assert holder.stdout is not None
            holder.stdout.readline()
            holder.send_signal(signal.SIGSTOP)
            for _ in range(3):
                with pytest.raises(BlockingIOError, match="it may be stopped"):
                    channel.write(b"" if channel.unwritten() else line(0))
            assert path.read_bytes() == b""
            holder.kill()
            holder.wait()
            channel.write(b"")
        assert numbers(path) == [0]


class TestForeignDescriptor:
    """The number of our descriptor belongs to somebody else, or to nobody."""

    def close_behind(self, channel: FileChannel) -> None:
        """As a program does that becomes a daemon."""
        os.close(channel.fileno())

    def take_number(self, channel: FileChannel, path: Path) -> int:
        """Let another file have the number of the channel."""
        number = channel.fileno()
        other = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(other, number)
        os.close(other)
        return number

    def test_a_closed_one_is_opened_again(self, path: Path) -> None:
        """At the next write; nothing is lost."""
        with FileChannel(str(path), FILLER) as channel:
            channel.write(line(0))
            self.close_behind(channel)
            channel.write(line(1))
            channel.write(line(2, 20_000))
        assert numbers(path) == [0, 1, 2]

    @pytest.mark.parametrize("size", [150, 20_000])
    def test_a_file_system_that_does_not_answer(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        """It does not say whose the number is: the write fails, and the same number goes on."""
        fstat = os.fstat

        def fail(_: int) -> os.stat_result:
            raise OSError(errno.ESTALE, "the server is away")

        channel = FileChannel(str(path), FILLER)
        number = channel.fileno()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", fail)
            with pytest.raises(OSError, match="server is away"):
                channel.write(line(0, size))
        channel.write(line(1, size))
        assert channel.fileno() == number
        assert numbers(path) == [0, 1]
        monkeypatch.setattr(os, "fstat", fail)
        channel.close()
        monkeypatch.setattr(os, "fstat", fstat)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    def test_a_file_system_that_does_not_answer_when_it_is_opened_again(self, path: Path) -> None:
        """The write fails, the next one opens it; no descriptor is left."""
        channel = FileChannel(str(path), FILLER)
        self.close_behind(channel)

        class Failing(io.FileIO):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                super().close()  # as where its own fstat() fails
                raise OSError(errno.ESTALE, "the server is away")

        bases = FileChannel.__bases__
        FileChannel.__bases__ = (Failing,)
        try:
            before = len(list(Path("/dev/fd").iterdir()))
            for number in range(3):
                with pytest.raises(OSError, match="server is away"):
                    channel.write(line(number))
            with pytest.raises(OSError, match="server is away"):
                FileChannel(str(path), FILLER)
            assert len(list(Path("/dev/fd").iterdir())) <= before + 1
        finally:
            FileChannel.__bases__ = bases
        channel.write(b"")
        channel.close()
        assert numbers(path) == [0, 1, 2]

    def test_the_file_of_the_user_is_left_alone(self, path: Path) -> None:
        """It gets no message, and stays open when the channel is closed."""
        table = path.with_name("table.csv")
        table.write_bytes(b"a,b\n")
        with FileChannel(str(path), FILLER) as channel:
            channel.write(line(0))
            number = self.take_number(channel, table)
            channel.write(line(1))
            assert channel.fileno() != number
        assert numbers(path) == [0, 1]
        assert table.read_bytes() == b"a,b\n"
        assert os.pread(number, 4, 0) == b"a,b\n"
        os.close(number)

    @pytest.mark.parametrize("how", ["close", "forget", "fork"])
    def test_the_file_of_the_user_stays_open(self, path: Path, how: str) -> None:
        """Whatever ends the channel."""
        channel = FileChannel(str(path), FILLER)
        number = self.take_number(channel, path.with_name("table.csv"))
        if how == "close":
            channel.close()
        elif how == "fork":
            channel.after_fork_in_child()
        del channel
        gc.collect()
        os.write(number, b"still open")
        os.close(number)

    def test_another_one_of_the_same_file_is_not_ours(self, path: Path) -> None:
        """One that is open for something else."""
        with FileChannel(str(path), FILLER) as channel:
            channel.write(line(0))
            reading = os.open(path, os.O_RDONLY)
            number = channel.fileno()
            os.dup2(reading, number)
            os.close(reading)
            channel.write(line(1))
        os.close(number)
        assert numbers(path) == [0, 1]

    def test_a_pipe_is_opened_again(self, tmp_path: Path) -> None:
        """Places that are no files too."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with FileChannel(str(path), FILLER) as channel:
            self.close_behind(channel)
            channel.write(line(0))
        assert os.read(reader, 1000) == line(0)
        os.close(reader)

    def test_it_is_not_among_the_standard_ones(self, path: Path) -> None:
        """Where a standard stream is closed, what is printed does not land among the messages."""
        script = """
import os, sys
from dagsterpipes._delivery.channels.file import FileChannel
os.close(1)
with FileChannel(sys.argv[1]) as channel:
    assert channel.fileno() > 2
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", script, path], env=environment, check=True)


class TestFork:
    """What a forked child does with the channel it inherited."""

    def test_the_lines_of_the_parent_are_forgotten(self, path: Path) -> None:
        """They are the parent's to write."""
        with FailingChannel(str(path), FILLER) as channel:
            channel.healthy_bytes = 0
            with pytest.raises(OSError, match="broken"):
                channel.write(line(0))
            channel.healthy_bytes = float("inf")
            channel.after_fork_in_child()
            assert channel.unwritten() == b""
            channel.write(line(1))
        assert numbers(path) == [1]

    def test_the_lock_is_its_own(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lock that the parent holds is somebody else's; a change of folder does not matter."""
        path.write_bytes(b'{"half')
        monkeypatch.chdir(path.parent)
        with FileChannel(path.name, FILLER, lock_patience=0, fragment_patience=0) as channel:
            parent = os.dup(channel.fileno())
            fcntl.flock(parent, fcntl.LOCK_EX)
            channel.after_fork_in_child()
            monkeypatch.chdir("/")
            with pytest.raises(BlockingIOError, match="another process holds the lock"):
                channel.write(line(0))
            os.close(parent)
            channel.write(b"")
            assert not os.get_inheritable(channel.fileno())
        assert numbers(path) == [0]

    def test_a_child_does_not_keep_the_lock_of_a_parent_that_was_killed(self, path: Path) -> None:
        """A child that lives on and writes nothing would lock out everybody else."""
        with FileChannel(str(path), FILLER, lock_patience=5) as channel:
            fcntl.flock(channel.fileno(), fcntl.LOCK_EX)
            started, start = os.pipe()
            ended, end = os.pipe()
            child = os.fork()
            if child == 0:
                channel.after_fork_in_child()
                os.write(start, b"x")
                os.close(end)
                os.read(ended, 1)
                os._exit(0)
            os.read(started, 1)
            os.close(channel.fileno())  # as the death of the parent does
            with FileChannel(str(path), FILLER, lock_patience=0) as other:
                other.write(line(0))
            os.close(end)
            os.waitpid(child, 0)
        for descriptor in (started, start, ended):
            os.close(descriptor)
        assert numbers(path) == [0]

    def test_a_file_that_is_gone_is_an_error(self, path: Path) -> None:
        """The lines stay with the channel."""
        folder = path.parent / "gone"
        folder.mkdir()
        with FileChannel(str(folder / "messages"), FILLER) as channel:
            channel.after_fork_in_child()
            shutil.rmtree(folder)
            with pytest.raises(FileNotFoundError):
                channel.write(line(0))
            assert channel.unwritten() == line(0)


class TestOtherPlaces:
    """Paths that are no regular files get the lines as they are."""

    def test_a_null_device(self) -> None:
        """Dagster's Kubernetes reader gives it to side containers."""
        with FileChannel(os.devnull, FILLER) as channel:
            channel.write(lines(0, 1000))
            assert channel.unwritten() == b""

    def test_a_pipe(self, tmp_path: Path) -> None:
        """A named pipe; a write that fails is continued where it stopped."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        received = b""
        with FileChannel(str(path), FILLER) as channel:
            os.set_blocking(channel.fileno(), False)
            with pytest.raises(BlockingIOError):
                channel.write(line(0, 1_000_000) + lines(1, 10))
            assert channel.unwritten() == line(0, 1_000_000) + lines(1, 10)
            received += os.read(reader, 1 << 20)
            with pytest.raises(BlockingIOError):
                channel.write(line(10))
            os.set_blocking(channel.fileno(), True)
            rest = threading.Thread(target=channel.write, args=(b"",))
            rest.start()
            os.set_blocking(reader, True)
            while received.count(b"\n") < 11:
                received += os.read(reader, 1 << 20)
            rest.join()
            assert channel.unwritten() == b""
        os.close(reader)
        assert received == line(0, 1_000_000) + lines(1, 11)

    def test_a_pipe_without_a_reader(self, tmp_path: Path) -> None:
        """When the last reader goes, that is an error: nothing goes into the void."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with FileChannel(str(path), FILLER) as channel:
            os.close(reader)
            with pytest.raises(BrokenPipeError):
                channel.write(lines(0, 3))
            assert channel.unwritten() == lines(0, 3)
            channel.after_fork_in_child()
            assert channel.unwritten() == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_full_device(self) -> None:
        """It takes nothing, and everything is kept."""
        with FileChannel("/dev/full", FILLER) as channel:
            for count in (3, 6):
                with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                    channel.write(lines(count - 3, count))
                assert channel.unwritten() == lines(0, count)

    def test_a_folder(self, tmp_path: Path) -> None:
        """It cannot be opened."""
        with pytest.raises(IsADirectoryError):
            FileChannel(str(tmp_path))

    def test_a_file_in_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        """Only the file itself is made."""
        with pytest.raises(FileNotFoundError):
            FileChannel(str(tmp_path / "missing" / "messages"))


async def test_aiofiles_writes_in_a_worker_thread(path: Path) -> None:
    """It is wrapped as any other raw file."""
    with FileChannel(str(path), FILLER) as channel:
        await threadpool.wrap(channel).write(lines(0, 100))
    assert numbers(path) == list(range(100))


def test_close_can_be_called_again(path: Path) -> None:
    """Writing cannot."""
    channel = FileChannel(str(path), FILLER)
    channel.close()
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        channel.write(line(0))
