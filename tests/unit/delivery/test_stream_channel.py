"""The standard streams: each line on its own, in order with what is printed, whatever happens."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import warnings
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from dagsterpipes._delivery.channels import stream as stream_module
from dagsterpipes._delivery.channels.stream import BufferedStreamChannel, PlainLines, StreamChannel
from dagsterpipes.exceptions import DagsterPipesWarning

if TYPE_CHECKING:
    from dagsterpipes._delivery.channels import Channel


def line(number: int, size: int = 100) -> bytes:
    text = f'{{"n":{number},"x":"'
    return (text + "x" * (size - len(text) - 3) + '"}\n').encode()


def lines(start: int, stop: int, size: int = 100) -> bytes:
    return b"".join(line(number, size) for number in range(start, stop))


def numbers(output: bytes) -> list[int]:
    """The messages that a reader of logs finds, as Dagster's do: a line is one, or it is text."""
    found = []
    for text in output.split(b"\n"):
        try:
            message = json.loads(text)
        except ValueError:
            continue
        found.append(message["n"])
    return found


@pytest.fixture(params=["stdout", "stderr"])
def name(request: pytest.FixtureRequest) -> Literal["stdout", "stderr"]:
    return request.param  # type: ignore[no-any-return] # because pytest does not know


def run(script: str) -> tuple[bytes, bytes]:
    """Run a script in a process of its own; its standard output and error."""
    prelude = f"""
import os, sys, threading
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_stream_channel import line, lines
from dagsterpipes._delivery.channels.stream import BufferedStreamChannel, StreamChannel
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(
        [sys.executable, "-c", prelude + script],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr


def test_they_are_channels(name: Literal["stdout", "stderr"]) -> None:
    """A type checker takes them for some; closing again does nothing."""
    channels: list[Channel] = [StreamChannel(name), BufferedStreamChannel(name, bool)]
    for channel in channels:
        channel.close()
        channel.close()


def test_lines_stand_on_their_own_in_order_with_what_is_printed() -> None:
    """What was printed without a newline, before or between, merges with no message."""
    output, errors = run("""
channel = StreamChannel("stdout")
print("first, without a newline", end="")
channel.write(line(0))
print("between", end=" ")
os.write(1, b"past Python")
channel.write(lines(1, 3))
print("last")
channel.close()
print("after")
""")
    assert errors == b""
    assert output.split(b"\n") == [
        b"first, without a newline",
        line(0)[:-1],
        b"past Pythonbetween ",
        *lines(1, 3).splitlines(),
        b"last",
        b"after",
        b"",
    ]


def test_what_the_user_puts_in_place_of_a_stream_gets_no_messages() -> None:
    """Neither a replaced `sys.stdout` nor a redirected descriptor."""
    output, _ = run("""
import contextlib, io
channel = StreamChannel("stdout")
text = io.StringIO()
with contextlib.redirect_stdout(text):
    print("captured")
    channel.write(line(0))
assert text.getvalue() == "captured\\n"
true = os.dup(1)
null = os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 1)
channel.write(line(1))
os.dup2(true, 1)
sys.stdout = None
channel.write(line(2))
sys.stdout = object()
channel.write(line(3))
sys.stdout = sys.__stdout__
""")
    assert numbers(output) == [0, 1, 2, 3]
    assert b"captured" not in output


def test_all_descriptors_are_closed() -> None:
    """As by a program that becomes a daemon: the file that has the number then gets no message."""
    output, errors = run("""
import tempfile
channel = StreamChannel("stdout")
channel.write(line(0))
os.closerange(3, 256)
with tempfile.TemporaryFile(buffering=0) as table:
    os.dup2(table.fileno(), 10)
    for number in range(3, 10):
        os.dup2(10, number)
    channel.write(line(1))
    channel.write(lines(2, 4))
    channel.close()
    assert os.pread(10, 100, 0) == b""
    for number in range(4, 10):
        os.fstat(number)
""")
    assert errors == b""
    assert numbers(output) == [0, 1, 2, 3]


def test_all_descriptors_are_closed_and_the_stream_too() -> None:
    """Nothing is written into what stands there now; the lines stay with the channel."""
    output, errors = run("""
channel = StreamChannel("stdout")
channel.write(line(0))
null = os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 1)
os.closerange(3, 256)
for _ in range(2):
    try:
        channel.write(b"" if channel.unwritten() else line(1))
    except OSError as error:
        assert "stdout that this process was started with" in str(error)
    else:
        raise AssertionError("written")
assert channel.unwritten() == line(1)
channel.close()
try:
    channel.write(b"")
except OSError:
    pass
""")
    assert errors == b""
    assert numbers(output) == [0]


def test_lines_of_up_to_4_kb_survive_other_threads_that_print() -> None:
    """The pipe takes each write in one piece."""
    output, _ = run("""
channel = StreamChannel("stdout")
def chatter():
    for number in range(3000):
        os.write(1, b"chatter without end ")
thread = threading.Thread(target=chatter)
thread.start()
for start in range(0, 3000, 100):
    channel.write(lines(start, start + 100, 300))
thread.join()
""")
    assert numbers(output) == list(range(3000))


def test_nothing_is_lost_without_a_flush() -> None:
    """Every write is with the operating system when it returns."""
    output, errors = run("""
for name in ("stdout", "stderr"):
    channel = StreamChannel(name)
    channel.write(lines(0, 50))
os._exit(0)
""")
    assert numbers(output) == numbers(errors) == list(range(50))


def test_a_process_without_a_stream() -> None:
    """Where `sys` has none, the descriptor counts; where that is closed too, it is an error."""
    output, _ = run("""
sys.stdout = sys.__stdout__ = None
StreamChannel("stdout").write(line(0))
os.close(1)
try:
    StreamChannel("stdout")
except OSError as error:
    sys.stderr.write(str(error))
else:
    raise AssertionError
""")
    assert numbers(output) == [0]


class TestPlainLines:
    """What a write that stops half way leaves."""

    @pytest.mark.parametrize("most", [1, 3, 99, 100, 101, 150, 5000])
    def test_a_write_is_continued_where_it_stopped(self, most: int) -> None:
        """Whatever the system takes at once, and whenever it fails."""
        received = bytearray()
        fails = cycle([False, True, False, False, True])

        def write_some(data: bytes) -> int:
            if next(fails):
                raise OSError(errno.ENOSPC, "full")
            received.extend(data[:most])
            return len(data[:most])

        plain = PlainLines(write_some)
        taken = b""
        for start in (0, 10, 30):
            batch = lines(start, start + 10) + line(start + 10, 5000)
            taken += batch
            while batch or plain.unwritten():
                with contextlib.suppress(OSError):
                    batch, now = b"", batch
                    plain.write(now)
                assert plain.unwritten() == taken[received.rfind(b"\n") + 1 :]
        assert received == taken

    def test_writes_begin_with_the_prefix_only_at_the_start_of_a_line(self) -> None:
        """The rest of a line follows its beginning."""
        received: list[bytes] = []

        def write_some(data: bytes) -> int:
            received.append(data[:60])
            return len(received[-1])

        plain = PlainLines(write_some, prefix=b"\n")
        plain.write(lines(0, 2))
        whole = b"".join(received)
        assert [text for text in whole.split(b"\n") if text] == lines(0, 2).splitlines()
        assert received[0] == b"\n" + line(0)[:59]
        assert received[1] == line(0)[59:]

    def test_each_write_is_taken_in_one_piece(self) -> None:
        """As many whole lines as a pipe takes at once, with the prefix; or one longer line."""
        received: list[bytes] = []

        def write_some(data: bytes) -> int:
            received.append(data)
            return len(data)

        plain = PlainLines(write_some, prefix=b"\n")
        plain.write(lines(0, 100) + line(100, 4095) + line(101, 4096) + line(102))
        assert all(data.startswith(b"\n{") and data.endswith(b"}\n") for data in received)
        assert [len(data) for data in received] == [4001, 4001, 2001, 4096, 4097, 101]

    def test_the_prefix_is_written_once(self) -> None:
        """Also when it is all that a write takes."""
        received = bytearray()

        def write_some(data: bytes) -> int:
            received.extend(data[:1])
            return 1

        PlainLines(write_some, prefix=b"\n").write(b"12\n34\n")
        assert received == b"\n12\n\n34\n"

    def test_a_stream_that_takes_nothing_at_the_moment(self) -> None:
        """That is an error that can be tried again."""
        plain = PlainLines(lambda _: None)
        with pytest.raises(BlockingIOError):
            plain.write(line(0))
        assert plain.unwritten() == line(0)
        plain.forget()
        assert plain.unwritten() == b""


class TestLongLines:
    """Container logs cut them into pieces."""

    def test_they_are_warned_of_once(
        self, name: Literal["stdout", "stderr"], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After they are written, with what to do."""
        null = os.open(os.devnull, os.O_WRONLY)
        monkeypatch.setattr(stream_module, "_true_descriptor", lambda _: null)
        channel = StreamChannel(name)
        channel.write(lines(0, 1000) + line(0, 16_384))
        with pytest.warns(DagsterPipesWarning) as caught:
            channel.write(lines(0, 3) + line(0, 16_385))
        assert str(caught[0].message) == (
            f"a message of 16,385 bytes was written to {name}: Docker and Kubernetes cut lines of"
            " more than 16,384 bytes into pieces, and a message in pieces is lost. Report less at"
            " once, or let Dagster read messages from a file."
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            channel.write(line(0, 20_000))
        channel.close()
        os.close(null)


class TestBuffered:
    """Everything is written at the close."""

    def test_nothing_is_written_before_the_close(self) -> None:
        """Then all of it, in order."""
        output, _ = run("""
channel = BufferedStreamChannel("stdout", matters=bool)
channel.write(line(0))
channel.write(b"")
print("printed", flush=True)
channel.write(lines(1, 3))
assert channel.unwritten() == lines(0, 3)
channel.close()
assert channel.unwritten() == b""
""")
        assert output.startswith(b"printed\n")
        assert numbers(output) == [0, 1, 2]

    def test_what_matters_goes_last_when_there_is_too_much(self) -> None:
        """AWS Lambda hands over the last 4 kB."""
        script = """
channel = BufferedStreamChannel("stdout", matters=lambda line: b'"n":5' in line)
channel.write(lines(0, {count}))
channel.close()
"""
        few, _ = run(script.format(count=40))
        assert numbers(few) == list(range(40))
        many, _ = run(script.format(count=60))
        mattering = [5, *range(50, 60)]
        others = [number for number in range(60) if number not in mattering]
        assert numbers(many) == others + mattering
        assert numbers(many[-4096:])[-11:] == mattering

    def test_a_close_that_fails_keeps_the_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It raises, once; the lines are unwritten."""
        full = os.open("/dev/full", os.O_WRONLY)
        monkeypatch.setattr(stream_module, "_true_descriptor", lambda _: full)
        channel = BufferedStreamChannel("stdout", matters=bool)
        channel.write(lines(0, 3))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            channel.close()
        assert channel.unwritten() == lines(0, 3)
        channel.close()
        os.close(full)

    def test_a_forked_child_forgets_the_lines_of_its_parent(self) -> None:
        """It writes its own at its own close."""
        output, _ = run("""
channels = [BufferedStreamChannel("stdout", matters=bool), StreamChannel("stdout")]
for channel in channels:
    channel.write(line(0))
pid = os.fork()
if pid == 0:
    for channel in channels:
        channel.after_fork_in_child()
        assert channel.unwritten() == b""
        channel.write(line(1))
        channel.close()
    os._exit(0)
os.waitpid(pid, 0)
for channel in channels:
    channel.close()
""")
        assert numbers(output) == [0, 1, 1, 0]
