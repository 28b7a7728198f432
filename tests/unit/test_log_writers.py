"""The log writers with the names of ``dagster_pipes``, in this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster_pipes
import pytest

from dagsterpipes import log_writers
from dagsterpipes.exceptions import ChannelError, DagsterPipesWarning
from dagsterpipes.log_writers import (
    PipesDefaultLogWriter,
    PipesLogWriter,
    PipesLogWriterChannel,
    PipesStdioFileLogWriter,
    PipesStdioFileLogWriterChannel,
    PipesStdioLogWriter,
    PipesStdioLogWriterChannel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs poll() on pipes")


class MemoryChannel(PipesStdioLogWriterChannel):
    """Keeps the text, and fails when it reads ``fail``."""

    def __init__(self, stream: Any) -> None:
        self.text = ""
        super().__init__(stream, interval=1.0, name=f"MemoryChannel({stream})")

    def write_chunk(self, chunk: str) -> None:
        """Keep it."""
        if "fail" in chunk:
            raise OSError("disk full")
        self.text += chunk


class MemoryWriter(PipesStdioLogWriter[MemoryChannel]):
    """A log writer as a user would write one."""

    def __init__(self) -> None:
        self.channels: dict[str, MemoryChannel] = {}

    def make_channel(self, params: Any, stream: Any) -> MemoryChannel:
        """One that keeps the text."""
        return self.channels.setdefault(stream, MemoryChannel(stream))


def write_everywhere() -> None:
    """By Python, by C and by a child, on both streams."""
    print("printed")
    print("complaint", file=sys.stderr)
    sys.stdout.flush()
    os.write(1, b"C code\n")
    subprocess.run("echo child; echo oops >&2", shell=True, check=True)


def test_names_and_keys_are_those_of_the_reference() -> None:
    """Whoever imported a log writer from ``dagster_pipes`` finds it here, with the same params."""
    theirs = {name for name in vars(dagster_pipes) if re.fullmatch(r"Pipes\w*LogWriter\w*", name)}
    assert set(log_writers.__all__) == theirs
    for name in theirs:
        assert hasattr(log_writers, name)
    assert PipesLogWriter.LOG_WRITER_KEY == dagster_pipes.PipesLogWriter.LOG_WRITER_KEY
    assert PipesStdioFileLogWriter.LOGS_DIR_KEY == "logs_dir"
    assert (
        PipesStdioFileLogWriter.LOGS_DIR_KEY == dagster_pipes.PipesStdioFileLogWriter.LOGS_DIR_KEY
    )


def test_file_log_writer_appends_to_a_file_per_stream(tmp_path: Path) -> None:
    """The directory is made; the files are named after the streams, and a second run appends."""
    writer = PipesStdioFileLogWriter()
    params = {"logs_dir": str(tmp_path / "a" / "b")}
    for _ in range(2):
        with writer.open(params):
            write_everywhere()
    out, err = (tmp_path / "a" / "b" / name for name in ("stdout", "stderr"))
    assert sorted(out.read_text().splitlines()) == sorted(["printed", "C code", "child"] * 2)
    assert sorted(err.read_text().splitlines()) == sorted(["complaint", "oops"] * 2)


def test_file_log_writer_keeps_line_ends_and_other_bytes(tmp_path: Path) -> None:
    """Nothing is translated on the way to the file, and what is not UTF-8 is legible."""
    with PipesStdioFileLogWriter().open({"logs_dir": tmp_path}):
        os.write(1, b"one\r\ntwo\rthree\xff\n")
    assert (tmp_path / "stdout").read_bytes() == b"one\r\ntwo\rthree\\xff\n"


def test_file_log_writer_says_which_param_is_missing() -> None:
    """Without a directory the error names the key and shows the params."""
    with pytest.raises(ChannelError) as caught, PipesStdioFileLogWriter().open({"dir": "x"}):
        pass
    assert str(caught.value) == (
        "PipesStdioFileLogWriter: params need 'logs_dir', the directory for the files stdout and"
        " stderr; got {'dir': 'x'}"
    )


def test_file_log_writer_says_what_cannot_be_made(tmp_path: Path) -> None:
    """A file where the directory should be, and a directory where the file should be."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ChannelError, match=r"cannot make the directory for logs: .*Errno"),
        PipesStdioFileLogWriter().open({"logs_dir": str(tmp_path / "file" / "logs")}),
    ):
        pass
    (tmp_path / "stdout").mkdir()
    before = os.fstat(1).st_ino
    with (
        pytest.raises(ChannelError, match=r"Channel\(stdout->.*cannot open the file: .*Errno 21"),
        PipesStdioFileLogWriter().open({"logs_dir": str(tmp_path)}),
    ):
        pass
    assert os.fstat(1).st_ino == before


def test_default_log_writer_sends_messages() -> None:
    """Each piece is a ``log_external_stream`` message to the channel of the message writer."""

    class Channel:
        def __init__(self) -> None:
            self.messages: list[Any] = []

        def write_message(self, message: Any) -> None:
            self.messages.append(message)

    channel = Channel()
    writer = PipesDefaultLogWriter(message_channel=channel)
    assert writer.message_channel is channel
    with writer.open({}):
        os.write(1, b"out\n")
        os.write(2, b"err\n")
    assert sorted(channel.messages, key=str) == [
        {
            "__dagster_pipes_version": "0.1",
            "method": "log_external_stream",
            "params": {"stream": stream, "text": text, "extras": {}},
        }
        for stream, text in (("stderr", "err\n"), ("stdout", "out\n"))
    ]


def test_own_log_writers_need_only_write_chunk() -> None:
    """A subclass as people write them against the reference gets both streams."""
    writer = MemoryWriter()
    assert writer.get_opened_payload() == {"extras": {}}
    with writer.open({}):
        write_everywhere()
    assert sorted(writer.channels["stdout"].text.split("\n")) == ["", "C code", "child", "printed"]
    assert sorted(writer.channels["stderr"].text.split("\n")) == ["", "complaint", "oops"]
    assert writer.channels["stdout"].name == "MemoryChannel(stdout)"
    assert writer.channels["stdout"].stdio is sys.__stdout__


def test_text_that_cannot_be_written_is_a_warning_with_a_count() -> None:
    """The job goes on, the rest is written, and the end says what is missing and why."""
    channel = MemoryChannel("stdout")
    expected = (
        r"^MemoryChannel\(stdout\): pieces of text that could not be written: 1; the first error"
        r" was OSError\('disk full'\)$"
    )
    with pytest.warns(DagsterPipesWarning, match=expected), channel.capture():
        os.write(1, b"fail\n")
        os.write(1, b"")
    assert channel.text == ""


def test_streams_are_restored_when_the_job_fails() -> None:
    """The job's own error comes out, and nothing is captured any more."""
    channel, before = MemoryChannel("stderr"), os.fstat(2).st_ino
    with pytest.raises(KeyError), channel.capture():
        raise KeyError("job")
    assert os.fstat(2).st_ino == before


def test_a_second_stream_that_fails_ends_the_first(tmp_path: Path) -> None:
    """When only one of two captures can start, the other one is stopped again."""
    (tmp_path / "stderr").mkdir()
    before = os.fstat(1).st_ino, sys.stdout
    with (
        pytest.raises(ChannelError, match="stderr"),
        PipesStdioFileLogWriter().open({"logs_dir": str(tmp_path)}),
    ):
        pass
    assert (os.fstat(1).st_ino, sys.stdout) == before


def test_a_writer_that_hangs_is_a_warning_after_the_timeout() -> None:
    """The end waits for the text, but not for ever."""
    import threading

    release = threading.Event()

    class Stuck(MemoryChannel):
        CLOSE_TIMEOUT = 0.05

        def write_chunk(self, chunk: str) -> None:
            release.wait()

    expected = r"^MemoryChannel\(stdout\): some text was not written within 0\.05 s$"
    with pytest.warns(DagsterPipesWarning, match=expected), Stuck("stdout").capture():
        os.write(1, b"text\n")
    release.set()


def test_channels_of_other_kinds_fit_the_interface() -> None:
    """A log writer need not be one of stdout and stderr."""

    class Channel(PipesLogWriterChannel):
        @contextmanager
        def capture(self) -> Iterator[None]:
            yield

    class Writer(PipesLogWriter[Channel]):
        @contextmanager
        def open(self, params: Any) -> Iterator[Channel]:
            channel = Channel()
            with channel.capture():
                yield channel

        def get_opened_extras(self) -> dict[str, Any]:
            return {"driver_logs": "here"}

    with Writer().open({}) as channel:
        assert isinstance(channel, Channel)
    assert Writer().get_opened_payload() == {"extras": {"driver_logs": "here"}}
    assert not issubclass(PipesStdioFileLogWriterChannel, Channel)
