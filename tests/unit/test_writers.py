"""Message writers and their channels, under the names of `dagster_pipes`."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster_pipes
import pytest
from dagster import PipesFileMessageReader, build_op_context
from dagster._core.pipes.context import PipesMessageHandler

from dagsterpipes import stores, writers
from dagsterpipes._delivery.channels.callback import AsyncMessageChannel, MessageChannel
from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._delivery.channels.stream import BufferedStreamChannel, StreamChannel
from dagsterpipes._protocol.envelope import FILLER
from dagsterpipes._session.endpoints import line_channel, own_writer
from dagsterpipes.exceptions import ChannelError, LaunchParamsError
from dagsterpipes.writers import (
    PipesBufferedStreamMessageWriterChannel,
    PipesDefaultMessageWriter,
    PipesFileMessageWriterChannel,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesStreamMessageWriterChannel,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dagsterpipes.typing import PipesExtras, PipesMessage, PipesParams


def message(number: int, method: str = "report_custom_message") -> PipesMessage:
    return cast(
        "PipesMessage",
        {"__dagster_pipes_version": "0.1", "method": method, "params": {"payload": number}},
    )


def line(number: int, method: str = "report_custom_message") -> bytes:
    return json.dumps(message(number, method)).encode() + b"\n"


def payloads(text: str | bytes) -> list[Any]:
    found = [json.loads(each) for each in text.splitlines() if each.strip()]
    return [each["params"]["payload"] for each in found if "payload" in each["params"]]


def run(script: str) -> tuple[bytes, bytes]:
    """Run a script in a process of its own; its standard output and error."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    prelude = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from dagsterpipes.writers import *
from dagsterpipes._session.endpoints import line_channel
def message(number, method="report_custom_message"):
    return {{"method": method, "params": {{"payload": number}}}}
"""
    done = subprocess.run(
        [sys.executable, "-c", prelude + script],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr


def test_the_names_are_those_of_the_reference() -> None:
    """With its constants, and parameters of the same names."""
    for name in writers.__all__:
        ours, theirs = getattr(writers, name), getattr(dagster_pipes, name)
        for constant in ("FILE_PATH_KEY", "STDIO_KEY", "BUFFERED_STDIO_KEY", "STDERR", "STDOUT"):
            assert getattr(ours, constant, None) == getattr(theirs, constant, None)
        for method in ("__init__", "open", "write_message", "flush", "get_opened_payload"):
            if hasattr(theirs, method) and theirs.__init__ is not object.__init__:
                parameters = inspect.signature(getattr(theirs, method)).parameters
                assert list(inspect.signature(getattr(ours, method)).parameters)[
                    : len(parameters)
                ] == list(parameters)


@pytest.mark.filterwarnings("ignore:.*is currently in preview")
def test_fillers_say_nothing_to_dagster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its handler takes them, and prints nothing."""
    reader = PipesFileMessageReader(str(tmp_path / "messages"))
    handler = PipesMessageHandler(build_op_context(), reader)
    handler.handle_message(json.loads(FILLER + b"      \n"))
    assert handler.get_reported_results() == handler.get_custom_messages() == ()
    assert capsys.readouterr() == ("", "")


class TestDefaultWriter:
    """`path`, `stdio`, `buffered_stdio`."""

    def open_lines(self, params: PipesParams) -> Any:
        with PipesDefaultMessageWriter().open(params) as channel:
            return line_channel(channel, {})

    @pytest.mark.parametrize("flag", [True, False, None])
    def test_a_file(self, tmp_path: Path, flag: bool | None) -> None:
        """Fillers are used if Dagster is new enough to know the flag, whatever its value."""
        path = tmp_path / "messages"
        params = {"path": str(path)} | (
            {"include_stdio_in_messages": flag} if flag is not None else {}
        )
        with self.open_lines(params) as lines:
            assert type(lines) is FileChannel
            for number in range(100):
                lines.write(line(number))
        assert payloads(path.read_bytes()) == list(range(100))
        assert (path.stat().st_size > 100 * 4000) == (flag is None)
        with self.open_lines(params) as lines:
            lines.write(json.dumps({**message(100), "text": "x" * 10_000}).encode() + b"\n")
        assert payloads(path.read_bytes()) == list(range(101))

    @pytest.mark.parametrize(
        ("key", "kind"), [("stdio", StreamChannel), ("buffered_stdio", BufferedStreamChannel)]
    )
    @pytest.mark.parametrize("name", ["stdout", "stderr"])
    def test_a_stream(self, key: str, kind: Any, name: str) -> None:
        """The one that the process was started with."""
        lines = self.open_lines({key: name})
        assert type(lines) is kind
        stream: StreamChannel = getattr(lines, "_stream", lines)
        assert stream._name == name
        lines.close()

    @pytest.mark.parametrize("key", ["stdio", "buffered_stdio"])
    def test_standalone(self, key: str) -> None:
        """Its channel can be used without a session."""
        output, errors = run(f"""
with PipesDefaultMessageWriter().open({{"{key}": "stdout"}}) as channel:
    print("printed", end="")
    channel.write_message(message(0))
    channel.write_message(message(1))
    print("printed", end="")
""")
        assert errors == b""
        assert payloads(output.replace(b"printed", b"")) == [0, 1]
        assert b"printed\n{" in output

    def test_the_order_of_a_full_buffer(self) -> None:
        """Reports stay in their order behind the logs."""
        _, errors = run("""
import json
with PipesDefaultMessageWriter().open({"buffered_stdio": "stderr"}) as channel:
    lines = line_channel(channel, {})
    for number in range(100):
        method = "log" if number % 10 else "closed"
        lines.write(json.dumps(message(number, method)).encode() + b"\\n")
    lines.close()
""")
        assert payloads(errors)[-10:] == list(range(0, 100, 10))

    @pytest.mark.parametrize(
        ("params", "text"),
        [
            (
                {"path": 17},
                (
                    "Invalid params for PipesDefaultMessageWriter: expected a path under the key `path` of"
                    " DAGSTER_PIPES_MESSAGES; got a value of type int. Check the message reader on the Dagster"
                    " side."
                ),
            ),
            (
                {"stdio": "stdlog"},
                (
                    'Invalid params for PipesDefaultMessageWriter: expected "stdout" or "stderr" under the'
                    " key `stdio` of DAGSTER_PIPES_MESSAGES; got a value of type str, length 6. Check the message"
                    " reader on the Dagster side."
                ),
            ),
            (
                {"buffered_stdio": ["stdout"]},
                (
                    'Invalid params for PipesDefaultMessageWriter: expected "stdout" or "stderr" under the'
                    " key `buffered_stdio` of DAGSTER_PIPES_MESSAGES; got a value of type list, length 1. Check"
                    " the message reader on the Dagster side."
                ),
            ),
            (
                {"bucket": "b", "key_prefix": "k"},
                (
                    "Invalid params for PipesDefaultMessageWriter: expected the key `path`, `stdio` or"
                    " `buffered_stdio` in DAGSTER_PIPES_MESSAGES; got the keys ['bucket', 'key_prefix']."
                    " The key `bucket` is that of an object store: use PipesS3MessageWriter,"
                    " PipesGCSMessageWriter or PipesAzureBlobStorageMessageWriter, whichever the Dagster side"
                    " uses, for example `open_dagster_pipes("
                    'message_writer=PipesS3MessageWriter(boto3.client("s3")))`.'
                ),
            ),
            (
                {"prefect_logs": True},
                (
                    "Invalid params for PipesDefaultMessageWriter: expected the key `path`, `stdio` or"
                    " `buffered_stdio` in DAGSTER_PIPES_MESSAGES; got the keys ['prefect_logs']."
                    " Use `open_dagster_pipes(message_writer=PipesPrefectLogsMessageWriter())`."
                ),
            ),
            (
                {"elsewhere": 1},
                (
                    "Invalid params for PipesDefaultMessageWriter: expected the key `path`, `stdio` or"
                    " `buffered_stdio` in DAGSTER_PIPES_MESSAGES; got the keys ['elsewhere']."
                    " The message reader on the Dagster side may expect another message writer: pass it as"
                    " `message_writer` to `open_dagster_pipes`."
                ),
            ),
        ],
    )
    def test_params_that_do_not_fit(self, params: PipesParams, text: str) -> None:
        """Say which variable, which key, what was got and what to do."""
        with pytest.raises(LaunchParamsError) as caught:
            self.open_lines(params)
        assert str(caught.value) == text

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("missing/messages", "No such file or directory"),
            ("", "Is a directory"),
            ("file/messages", "Not a directory"),
            ("nul\0", "embedded null byte"),
        ],
    )
    def test_a_file_that_cannot_be_opened(self, tmp_path: Path, name: str, reason: str) -> None:
        """Say which variable, which key, what was got and what to do."""
        tmp_path.joinpath("file").touch()
        path = f"{tmp_path}/{name}"
        with pytest.raises(ChannelError) as caught:
            self.open_lines({"path": path})
        # Python 3.14 has other words for the last one.
        text = str(caught.value).replace(
            "stat: embedded null character in path", "embedded null byte"
        )
        assert text == (
            f"The messages file {path!r} cannot be opened for appending: {reason}. The key `path` of"
            " DAGSTER_PIPES_MESSAGES names it: check that this process sees the file system of the"
            " one that launched it, with the right to write to it, and that the Dagster run is still"
            " going on."
            + (
                ""
                if name
                else " On Databricks use `open_dagster_pipes(message_writer=PipesDbfsMessageWriter())` for"
                " DBFS or `PipesUnityCatalogVolumesMessageWriter()` for a Unity Catalog volume."
            )
        )
        with pytest.raises(ChannelError):
            PipesFileMessageWriterChannel(path).write_message(message(0))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_file_that_may_not_be_written(self, tmp_path: Path) -> None:
        """As any other that cannot be opened."""
        path = tmp_path / "messages"
        path.touch(0o444)
        with pytest.raises(ChannelError, match="Permission denied"):
            self.open_lines({"path": str(path)})

    @pytest.mark.parametrize("key", ["stdio", "buffered_stdio"])
    def test_a_stream_that_the_process_does_not_have(self, key: str) -> None:
        """Nothing that is written there could arrive."""
        _, errors = run(f"""
import os
from dagsterpipes.exceptions import ChannelError
def attempt():
    try:
        with PipesDefaultMessageWriter().open({{"{key}": "stdout"}}) as channel:
            line_channel(channel, {{}})
    except ChannelError as error:
        print(error, file=sys.stderr)
    else:
        raise AssertionError
os.close(1)
attempt()
sys.stdout = sys.__stdout__ = None
attempt()
""")
        text = (
            b"Dagster asked for messages on stdout (DAGSTER_PIPES_MESSAGES), but this process has no"
            b" stdout. Start it with one, or use a message reader on the Dagster side that reads from"
            b" somewhere else.\n"
        )
        assert errors == text * 2


class TestChannels:
    """By themselves, without a session."""

    def test_a_file(self, tmp_path: Path) -> None:
        """Each message is appended at once; nothing stays open."""
        path = tmp_path / "messages"
        channel = PipesFileMessageWriterChannel(str(path))
        for number in range(3):
            channel.write_message(message(number))
            assert payloads(path.read_bytes()) == list(range(number + 1))

    def test_a_stream_in_memory(self) -> None:
        """One line each; nobody else prints there."""
        stream = io.StringIO()
        channel = PipesStreamMessageWriterChannel(stream)
        channel.write_message(message(0))
        channel.write_message(message(1))
        assert stream.getvalue().encode() == line(0) + line(1)

    def test_a_stream_that_others_print_to(self, tmp_path: Path) -> None:
        """Each message has a line of its own, in one write, flushed."""
        path = tmp_path / "output"
        with path.open("w") as stream:
            stream.write("printed")
            channel = PipesStreamMessageWriterChannel(stream)
            channel.write_message(message(0))
            assert path.read_bytes() == b"printed\n" + line(0)

    def test_a_buffered_stream(self) -> None:
        """Everything at the flush, once."""
        stream = io.StringIO()
        channel = PipesBufferedStreamMessageWriterChannel(stream)
        channel.flush()
        channel.write_message(message(0))
        channel.write_message(message(1))
        assert stream.getvalue() == ""
        channel.flush()
        channel.flush()
        assert stream.getvalue().encode() == line(0) + line(1)

    @pytest.mark.parametrize(
        "kind", [PipesStreamMessageWriterChannel, PipesBufferedStreamMessageWriterChannel]
    )
    def test_a_stream_that_is_not_standard_gets_messages(self, kind: Any) -> None:
        """Also in a session."""
        stream = io.StringIO()
        channel = kind(stream)
        lines = line_channel(channel, {})
        assert type(lines) is MessageChannel
        lines.write(line(0))
        if kind is PipesBufferedStreamMessageWriterChannel:
            channel.flush()
        assert stream.getvalue().encode() == line(0)


class Mine(PipesMessageWriterChannel):
    """A user's channel."""

    def __init__(self) -> None:
        self.taken: list[PipesMessage] = []

    def write_message(self, message: PipesMessage) -> None:
        self.taken.append(message)


class MineLater(PipesMessageWriterChannel):
    """A user's channel that awaits."""

    def __init__(self) -> None:
        self.taken: list[PipesMessage] = []

    async def write_message(self, message: PipesMessage) -> None:
        self.taken.append(message)


class MyWriter(PipesMessageWriter[Mine]):
    """A user's writer."""

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[Mine]:
        yield Mine()

    def get_opened_extras(self) -> PipesExtras:
        return {"host": "here"}


class MyLaterWriter(PipesMessageWriter[MineLater]):
    """A user's writer that awaits."""

    @asynccontextmanager
    async def open(self, params: PipesParams) -> AsyncIterator[MineLater]:
        yield MineLater()


class TestUsersOwn:
    """Subclasses of ours and of the reference's."""

    def test_sync(self) -> None:
        """Message by message."""
        writer = MyWriter()
        with writer.open({}) as channel:
            lines = line_channel(channel, {})
            lines.write(line(0) + line(1))
        assert channel.taken == [message(0), message(1)]
        assert writer.get_opened_payload() == {"extras": {"host": "here"}}

    async def test_async(self) -> None:
        """Awaited, message by message."""
        writer = MyLaterWriter()
        async with writer.open({}) as channel:
            lines = line_channel(channel, {})
            assert type(lines) is AsyncMessageChannel
            await lines.awrite(line(0) + line(1))
        assert channel.taken == [message(0), message(1)]
        assert writer.get_opened_payload() == {"extras": {}}

    def test_a_subclass_of_a_channel_of_ours(self, tmp_path: Path) -> None:
        """What it overrides is used."""
        taken = []

        class Counting(PipesFileMessageWriterChannel):
            def write_message(self, message: PipesMessage) -> None:
                taken.append(message)
                super().write_message(message)

        path = tmp_path / "messages"
        line_channel(Counting(str(path)), {}).write(line(0) + line(1))
        assert taken == [message(0), message(1)]
        assert payloads(path.read_bytes()) == [0, 1]

    def test_channels_of_the_reference(self, tmp_path: Path) -> None:
        """Those of its default writer are replaced by ours, which write the same messages."""
        path = tmp_path / "messages"
        writer = dagster_pipes.PipesDefaultMessageWriter()
        with writer.open({"path": str(path)}) as channel:
            lines = line_channel(channel, {})
            lines.write(line(0) + line(1))
            lines.close()
        assert payloads(path.read_bytes()) == [0, 1]

    def test_the_default_writer_of_the_reference_becomes_ours(self) -> None:
        """Subclasses too, if they open as it does; all others do not."""

        class Subclass(dagster_pipes.PipesDefaultMessageWriter):  # type: ignore[misc] # because the reference is not typed here
            def get_opened_extras(self) -> PipesExtras:
                return {"host": "x"}

        class Other(dagster_pipes.PipesDefaultMessageWriter):  # type: ignore[misc] # because the reference is not typed here
            def open(self, params: PipesParams) -> Any:
                return super().open(params)

        ours = own_writer(dagster_pipes.PipesDefaultMessageWriter())
        assert isinstance(ours, PipesDefaultMessageWriter)
        assert own_writer(Subclass()).get_opened_payload() == {"extras": {"host": "x"}}
        for writer in (Other(), MyWriter(), PipesDefaultMessageWriter()):
            assert own_writer(writer) is writer

    @pytest.mark.parametrize("name", ["S3", "GCS", "AzureBlobStorage", "Dbfs", "PrefectLogs"])
    def test_the_store_writers_of_the_reference_become_ours(self, name: str) -> None:
        """By their exact class; one that is derived from it and opens in its own way does not."""
        kind: Any = getattr(dagster_pipes, f"Pipes{name}MessageWriter", None)
        if kind is None:
            pytest.skip("this version of dagster_pipes does not have it")
        client = object()
        arguments = [client] if name in {"S3", "GCS", "AzureBlobStorage"} else []
        ours = own_writer(kind(*arguments))
        assert type(ours) is getattr(stores, f"Pipes{name}MessageWriter")
        if arguments:
            assert ours._client is client

        class Other(kind):  # type: ignore[misc] # because the reference is not typed here
            def open(self, params: PipesParams) -> Any:
                return super().open(params)

        other = Other(*arguments)
        assert own_writer(other) is other

    def test_abstract_classes_cannot_be_used(self) -> None:
        """They say what is missing."""
        with pytest.raises(TypeError, match="open"):
            PipesMessageWriter()  # type: ignore[abstract] # because that is the test
        with pytest.raises(TypeError, match="write_message"):
            PipesMessageWriterChannel()  # type: ignore[abstract] # because that is the test
