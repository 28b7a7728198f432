"""How a process says something to Dagster: message writers and their channels.

A *message writer* opens a *channel* to where Dagster asked for the messages. The names are those of
``dagster_pipes``; its own writers can be used in their place, and so can anything with the same
methods. Your own may be sync or async.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from contextlib import contextmanager
from io import BytesIO, StringIO, TextIOWrapper
from typing import IO, TYPE_CHECKING, Any, Generic, Literal, TextIO, TypeVar, final

from dagsterpipes._delivery.channels.callback import MessageChannel
from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._delivery.channels.stream import BufferedStreamChannel, StreamChannel
from dagsterpipes._protocol.envelope import CLOSED_HEAD, FILLER
from dagsterpipes._protocol.launch_params import fitting_parts
from dagsterpipes.exceptions import ChannelError, LaunchParamsError, describe, shorten

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes.typing import PipesExtras, PipesMessage, PipesOpenedData, PipesParams

__all__ = [
    "PipesBlobStoreMessageWriter",
    "PipesBlobStoreMessageWriterChannel",
    "PipesBufferedStreamMessageWriterChannel",
    "PipesDefaultMessageWriter",
    "PipesFileMessageWriterChannel",
    "PipesMessageWriter",
    "PipesMessageWriterChannel",
    "PipesStreamMessageWriterChannel",
    "T_BlobStoreMessageWriterChannel",
]

_LOG_METHODS = ("log", "log_external_stream")

T_MessageChannel = TypeVar("T_MessageChannel", bound="PipesMessageWriterChannel")


class PipesMessageWriterChannel(ABC):
    """Where messages go.

    Base class for your own.
    """

    @abstractmethod
    def write_message(self, message: PipesMessage) -> Coroutine[Any, Any, None] | None:
        """Write a message. A plain method or a coroutine function.

        It is called for one message after the other, never for two at once, in a thread or an event
        loop of the session. When it raises, the session calls it again with the same message after
        a while, for as long as it is open.

        Args:
            message: A message of its own, which nobody else uses.
        """


class PipesMessageWriter(ABC, Generic[T_MessageChannel]):
    """Opens the channel to where Dagster asked for the messages.

    Base class for your own, sync or async.
    """

    @abstractmethod
    def open(
        self, params: PipesParams
    ) -> AbstractContextManager[T_MessageChannel] | AbstractAsyncContextManager[T_MessageChannel]:
        """Open the channel for the time of the session.

        Write it with ``@contextmanager`` or, when opening or closing must await something, with
        ``@asynccontextmanager``, and yield the channel. It is left when the last message is written.

        Args:
            params: What the message reader on the Dagster side gave.
        """

    @final
    def get_opened_payload(self) -> PipesOpenedData:
        """Return what the first message, ``opened``, says; override `get_opened_extras` instead."""
        return {"extras": self.get_opened_extras()}

    def get_opened_extras(self) -> PipesExtras:
        """Return facts about this process that the message reader wants to know; none by default.

        Called once, after `open`.
        """
        return {}


class PipesDefaultMessageWriter(PipesMessageWriter[PipesMessageWriterChannel]):
    """Writes to a file (params ``path``) or a standard stream (``stdio``, ``buffered_stdio``)."""

    FILE_PATH_KEY = "path"
    STDIO_KEY = "stdio"
    BUFFERED_STDIO_KEY = "buffered_stdio"
    STDERR = "stderr"
    STDOUT = "stdout"
    INCLUDE_STDIO_IN_MESSAGES_KEY = "include_stdio_in_messages"

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[PipesMessageWriterChannel]:
        """Open what the params name.

        Args:
            params: Has a key ``path``, ``stdio`` or ``buffered_stdio``; the first of these wins.
                With the key ``include_stdio_in_messages``, whatever its value, Dagster is new
                enough to know the messages that make room between others in a file.

        Raises:
            LaunchParamsError: The params have none of the keys, or its value is no path or no
                stream.
            ChannelError: The file cannot be opened for appending; raised by the session, or by
                ``write_message``.
        """
        if self.FILE_PATH_KEY in params:
            path = params[self.FILE_PATH_KEY]
            if not isinstance(path, str):
                raise self._unfit_param(self.FILE_PATH_KEY, "a path", path)
            has_fillers = self.INCLUDE_STDIO_IN_MESSAGES_KEY in params
            yield PipesFileMessageWriterChannel(path, fillers=has_fillers)
        elif self.STDIO_KEY in params:
            yield PipesStreamMessageWriterChannel(self._stream(params, self.STDIO_KEY))
        elif self.BUFFERED_STDIO_KEY in params:
            stream = self._stream(params, self.BUFFERED_STDIO_KEY)
            channel = PipesBufferedStreamMessageWriterChannel(stream)
            try:
                yield channel
            finally:
                channel.flush()
        else:
            raise LaunchParamsError(
                f"Invalid params for {type(self).__name__}: expected the key"
                f" `{self.FILE_PATH_KEY}`, `{self.STDIO_KEY}` or `{self.BUFFERED_STDIO_KEY}` in"
                f" DAGSTER_PIPES_MESSAGES; got the keys {shorten(sorted(map(str, params)), 200)}."
                + (
                    fitting_parts(params, "MessageWriter")
                    or " The message reader on the Dagster side may expect another message writer:"
                    " pass it as `message_writer` to `open_dagster_pipes`."
                )
            )

    def _stream(self, params: PipesParams, key: str) -> TextIO:
        name = params[key]
        if name not in (self.STDOUT, self.STDERR):
            raise self._unfit_param(key, f'"{self.STDOUT}" or "{self.STDERR}"', name)
        # The original one: what the job puts in its place is for what the job prints.
        stream = getattr(sys, f"__{name}__", None) or getattr(sys, name, None)
        if stream is None:
            raise _no_stream(name)
        return stream  # type: ignore[no-any-return] # because getattr knows no types

    def _unfit_param(self, key: str, expected: str, value: object) -> LaunchParamsError:
        return LaunchParamsError(
            f"Invalid params for {type(self).__name__}: expected {expected} under the key `{key}`"
            f" of DAGSTER_PIPES_MESSAGES; got {describe(value)}."
            " Check the message reader on the Dagster side."
        )


class PipesFileMessageWriterChannel(PipesMessageWriterChannel):
    """Appends messages to a file, one line each.

    Readers see whole lines only, and several processes can write to one file; see `FileChannel`.

    Args:
        path: The file; created if only the file itself is missing.
        fillers: Whether the reader knows ``log_external_stream``, as Dagster does since 1.9;
            without it, a line that follows a pause begins a new page of 4 kB.
    """

    def __init__(self, path: str, *, fillers: bool = False) -> None:
        self._path = path
        self._fillers = fillers

    def write_message(self, message: PipesMessage) -> None:
        """Append a message; opens and closes the file.

        Raises:
            ChannelError: The file cannot be opened for appending.
            OSError: The message could not be written; nothing of it stays in the file.
        """
        with self.open_lines() as channel:
            channel.write(_encode(message))

    def open_lines(self) -> FileChannel:
        """Open the file as a channel of lines.

        Raises:
            ChannelError: The file cannot be opened for appending.
        """
        try:
            return FileChannel(self._path, FILLER if self._fillers else None, last=CLOSED_HEAD)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ChannelError(
                f"The messages file {self._path!r} cannot be opened for appending: {reason}. The key"
                f" `{PipesDefaultMessageWriter.FILE_PATH_KEY}` of DAGSTER_PIPES_MESSAGES names it:"
                " check that this process sees the file system of the one that launched it, with"
                " the right to write to it, and that the Dagster run is still going on."
                + self._advice()
            ) from error

    def _advice(self) -> str:
        """What else may be meant with a path that is a folder, here or on DBFS."""
        if any(map(os.path.isdir, (self._path, f"/dbfs{self._path}"))):
            return fitting_parts({"path": self._path}, "MessageWriter")
        return ""


class PipesStreamMessageWriterChannel(PipesMessageWriterChannel):
    """Writes messages to a text stream, one line each, in one write, flushed.

    Where the stream belongs to a file, pipe or terminal, others may have printed to it without
    ending their line: each message then begins with a newline.

    Args:
        stream: Open for writing; stays open.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write_message(self, message: PipesMessage) -> None:
        """Write a message.

        Raises:
            OSError: It could not be written.
        """
        _print(self._stream, [message])

    def open_lines(self) -> Channel:
        """Open the stream as a channel of lines."""
        name = _standard_name(self._stream)
        if name is None:
            return MessageChannel(self.write_message)
        try:
            return StreamChannel(name)
        except OSError as error:
            raise _no_stream(name) from error


class PipesBufferedStreamMessageWriterChannel(PipesMessageWriterChannel):
    """Keeps all messages until they are flushed to a text stream.

    Args:
        stream: Open for writing; stays open.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer: list[PipesMessage] = []

    def write_message(self, message: PipesMessage) -> None:
        """Keep a message."""
        self._buffer.append(message)

    def flush(self) -> None:
        """Write all messages in one write.

        Raises:
            OSError: They could not be written; they are kept.
        """
        if self._buffer:
            _print(self._stream, self._buffer)
            self._buffer = []

    def open_lines(self) -> Channel:
        """Open the stream as a channel of lines, which are written when it is closed.

        AWS Lambda hands over only the last 4 kB of the output: when there is more, log messages go
        before all others.
        """
        name = _standard_name(self._stream)
        if name is None:
            return MessageChannel(self.write_message)
        try:
            return BufferedStreamChannel(name, matters=_is_no_log)
        except OSError as error:
            raise _no_stream(name) from error


T_BlobStoreMessageWriterChannel = TypeVar(
    "T_BlobStoreMessageWriterChannel", bound="PipesBlobStoreMessageWriterChannel"
)


class PipesBlobStoreMessageWriter(PipesMessageWriter[T_BlobStoreMessageWriterChannel]):
    """Writes messages as numbered objects, which Dagster reads one after the other.

    Base class of the writers for object stores, and for your own: override `make_channel`.

    A message counts as delivered when the store has confirmed its object. A put that fails is repeated with
    the same bytes for as long as the session is open; what is not stored by then goes to a recovery file.
    ``opened`` is stored while the session opens, and a store that refuses it for good is a
    `ChannelError` there. So is a first object that is there already, which another process has sent:
    only the process that opened the session can send.

    Args:
        interval: Seconds, more than 0: logs are written once in ``interval + 1`` seconds, which is
            how often Dagster's reader looks when it has the same interval. Reports, `flush` and
            `close` do not wait for it, unless Dagster is behind.
    """

    INCLUDE_STDIO_IN_MESSAGES_KEY = "include_stdio_in_messages"

    def __init__(self, *, interval: float = 10) -> None:
        self.interval = interval

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[T_BlobStoreMessageWriterChannel]:
        """Open the channel. What is printed is captured by the session, if Dagster asks for it.

        Args:
            params: What the message reader on the Dagster side gave.
        """
        channel = self.make_channel(params)
        with channel.buffered_upload_loop():
            yield channel

    @abstractmethod
    def make_channel(self, params: PipesParams) -> T_BlobStoreMessageWriterChannel:
        """Return the channel to where the params say.

        Args:
            params: What the message reader on the Dagster side gave.
        """


class PipesBlobStoreMessageWriterChannel(PipesMessageWriterChannel):
    """Writes messages as numbered objects.

    Base class of the channels to object stores, and for your own: override `upload_messages_chunk`.

    Args:
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def __init__(self, *, interval: float = 10) -> None:
        self._interval = interval
        self._buffer: list[PipesMessage] = []
        # Whether the object that is being stored must not be there yet.
        self._must_be_new = False

    @abstractmethod
    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        """Store one object.

        It is called for one object after the other, in a thread of the session. When it raises, the
        session calls it again with the same payload and index after a while, for as long as it is open:
        it should overwrite what is there, and not retry on its own for longer than some seconds.

        Args:
            payload: Lines of JSON, one message each.
            index: The number of the object, from 1; its name must be ``{index}.json``.
        """

    def write_message(self, message: PipesMessage) -> None:
        """Keep a message until `buffered_upload_loop` ends; sessions do not call this."""
        self._buffer.append(message)

    def flush_messages(self) -> Sequence[PipesMessage]:
        """Return the messages that are kept, and forget them."""
        messages, self._buffer = self._buffer, []
        return messages

    @contextmanager
    def buffered_upload_loop(self) -> Iterator[None]:
        """Store what `write_message` kept at the end, in one object."""
        yield
        messages = self.flush_messages()
        if messages:
            self.upload_messages_chunk(StringIO("\n".join(map(json.dumps, messages))), 1)

    def open_lines(self) -> Channel:
        """Open the store as a channel of lines."""
        from dagsterpipes._delivery.channels.object_store import (  # noqa: PLC0415 because plain scripts do not need it
            ObjectStoreChannel,
        )

        return ObjectStoreChannel(
            self._put,
            create=self._create,
            place=self.place,
            interval=self._interval,
            max_size=self.MAX_SIZE,
        )

    MAX_SIZE = sys.maxsize
    """Most bytes of an object that Dagster reads to its end."""

    @property
    def place(self) -> str:
        """Where the objects go, for errors."""
        return type(self).__name__

    def _put(self, index: int, lines: bytes) -> None:
        # Not StringIO, which takes four bytes for each character.
        payload = TextIOWrapper(BytesIO(lines[:-1]), encoding="utf-8", newline="\n")
        self.upload_messages_chunk(payload, index)

    def _create(self, lines: bytes) -> None:
        self._must_be_new = True
        try:
            self._put(1, lines)
        finally:
            self._must_be_new = False


def _encode(message: PipesMessage) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _print(stream: TextIO, messages: list[PipesMessage]) -> None:
    text = "".join([json.dumps(message) + "\n" for message in messages])
    stream.write("\n" + text if _is_shared(stream) else text)
    stream.flush()


def _is_shared(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _standard_name(stream: TextIO) -> Literal["stdout", "stderr"] | None:
    if stream is sys.__stdout__:
        return "stdout"
    return "stderr" if stream is sys.__stderr__ else None


def _is_no_log(line: bytes) -> bool:
    return json.loads(line)["method"] not in _LOG_METHODS


def _no_stream(name: str) -> ChannelError:
    return ChannelError(
        f"Dagster asked for messages on {name} (DAGSTER_PIPES_MESSAGES), but this process has no"
        f" {name}. Start it with one, or use a message reader on the Dagster side that reads from"
        " somewhere else."
    )
