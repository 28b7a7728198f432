"""Log writers: where the text goes that a job writes to stdout and stderr.

The names, parameters and files are those of ``dagster_pipes``. The work is done by the capture at
file-descriptor level: no ``tee`` process, no temporary file, no waiting at the end.
"""

from __future__ import annotations

import os
import sys
import warnings
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TextIO, TypedDict, TypeVar, final

from dagsterpipes._protocol.envelope import PIPES_PROTOCOL_VERSION, PIPES_PROTOCOL_VERSION_FIELD
from dagsterpipes._session.stdio import StdioCapture
from dagsterpipes.exceptions import ChannelError, DagsterPipesWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagsterpipes.typing import PipesExtras, PipesMessage, PipesParams

__all__ = [
    "PipesDefaultLogWriter",
    "PipesDefaultLogWriterChannel",
    "PipesLogWriter",
    "PipesLogWriterChannel",
    "PipesLogWriterOpenedData",
    "PipesStdioFileLogWriter",
    "PipesStdioFileLogWriterChannel",
    "PipesStdioLogWriter",
    "PipesStdioLogWriterChannel",
]


class PipesLogWriterChannel(ABC):
    """One place where logs are taken from and go to."""

    @abstractmethod
    def capture(self) -> AbstractContextManager[None]:
        """Capture while the context manager is open."""


T_LogChannel = TypeVar("T_LogChannel", bound=PipesLogWriterChannel)


class PipesLogWriterOpenedData(TypedDict):
    """What a log writer tells Dagster when it is opened."""

    extras: PipesExtras


class PipesLogWriter(ABC, Generic[T_LogChannel]):
    """Takes logs of the job somewhere while it is open.

    Message writers open it with what their own params have under `LOG_WRITER_KEY`.
    """

    LOG_WRITER_KEY = "log_writer"

    @abstractmethod
    def open(self, params: PipesParams) -> AbstractContextManager[T_LogChannel | None]:
        """Capture while the context manager is open."""

    @final
    def get_opened_payload(self) -> PipesLogWriterOpenedData:
        """Return what Dagster is told; override `get_opened_extras` to add to it."""
        return {"extras": self.get_opened_extras()}

    def get_opened_extras(self) -> PipesExtras:
        """Return facts for Dagster that are known only in this process."""
        return {}


class PipesStdioLogWriter(PipesLogWriter[T_LogChannel]):
    """Base of the log writers that take the stdout and stderr of this process."""

    @abstractmethod
    def make_channel(
        self, params: PipesParams, stream: Literal["stdout", "stderr"]
    ) -> T_LogChannel:
        """Return the channel for one stream."""

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[None]:
        """Capture both streams while the context manager is open."""
        channels = [self.make_channel(params, "stdout"), self.make_channel(params, "stderr")]
        with ExitStack() as stack:
            for channel in channels:
                stack.enter_context(channel.capture())
            yield


class PipesStdioLogWriterChannel(PipesLogWriterChannel):
    """Base of the channels that take one stream; subclasses say where its text goes.

    Args:
        stream: ``"stdout"`` or ``"stderr"``.
        interval: How long the beginning of a line may wait for its end, in seconds.
        name: For warnings.
    """

    CLOSE_TIMEOUT = 10.0
    """How long the end of the capture may wait for `write_chunk`, in seconds."""

    def __init__(self, stream: Literal["stdout", "stderr"], interval: float, name: str) -> None:
        self.stream = stream
        self.interval = interval
        self._name = name

    @property
    def name(self) -> str:
        """The channel's name in warnings."""
        return self._name

    @property
    def stdio(self) -> TextIO | None:
        """The stream that Python started with, whatever replaced it since; ``None``: closed."""
        original: TextIO | None = getattr(sys, f"__{self.stream}__")
        return original

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Hand the stream's text to `write_chunk` while open; the text is still shown.

        Everything written before the end has been handed over when the end returns. Text that
        could not be is a `DagsterPipesWarning`, with a count.

        Raises:
            ChannelError: The stream cannot be captured here.
        """
        capture = StdioCapture(
            lambda _, text: self.write_chunk(text), streams=[self.stream], hold=self.interval
        )
        capture.start()
        try:
            yield
        finally:
            in_time = capture.stop(self.CLOSE_TIMEOUT)
            if capture.error is not None:
                warnings.warn(
                    f"{self.name}: pieces of text that could not be written: {capture.lost}; the"
                    f" first error was {capture.error!r}",
                    DagsterPipesWarning,
                    stacklevel=1,
                )
            if not in_time:
                warnings.warn(
                    f"{self.name}: some text was not written within {self.CLOSE_TIMEOUT:g} s",
                    DagsterPipesWarning,
                    stacklevel=1,
                )

    @abstractmethod
    def write_chunk(self, chunk: str) -> None:
        """Take some text: whole lines where possible, at most 4,096 bytes as a message.

        Called in the capture's own thread. It must not print to the captured stream.
        """


class PipesStdioFileLogWriterChannel(PipesStdioLogWriterChannel):
    """Appends one stream's text to a file; what is written can be read at once.

    Args:
        output_path: The file. It is opened when the capture begins.
        stream: ``"stdout"`` or ``"stderr"``.
        name: For warnings.
        interval: How long the beginning of a line may wait for its end, in seconds.
    """

    def __init__(
        self, output_path: str, stream: Literal["stdout", "stderr"], name: str, interval: float
    ) -> None:
        self.output_path = output_path
        self._file: TextIO | None = None  # open during the capture
        super().__init__(interval=interval, stream=stream, name=name)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Append to the file while the context manager is open.

        Raises:
            ChannelError: The file cannot be opened, or the stream cannot be captured here.
        """
        try:
            self._file = Path(self.output_path).open("a", encoding="utf-8")  # noqa: SIM115 because the `with` is below, past the try
        except OSError as error:
            raise ChannelError(f"{self.name}: cannot open the file: {error}") from error
        with self._file, super().capture():
            yield

    def write_chunk(self, chunk: str) -> None:
        """Append to the file."""
        assert self._file is not None
        self._file.write(chunk)
        self._file.flush()


class PipesStdioFileLogWriter(PipesStdioLogWriter[PipesStdioFileLogWriterChannel]):
    """Writes stdout and stderr to the files ``stdout`` and ``stderr`` of a directory.

    The directory comes from the params, under `LOGS_DIR_KEY`. It is made when it is missing;
    files that are there are appended to.

    Args:
        interval: How long the beginning of a line may wait for its end, in seconds.
    """

    LOGS_DIR_KEY = "logs_dir"

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval

    def make_channel(
        self, params: PipesParams, stream: Literal["stdout", "stderr"]
    ) -> PipesStdioFileLogWriterChannel:
        """Return the channel to the file of one stream.

        Raises:
            ChannelError: The params do not name a directory, or it cannot be made.
        """
        logs_dir: Any = params.get(self.LOGS_DIR_KEY)
        if not isinstance(logs_dir, (str, os.PathLike)):
            raise ChannelError(
                f"{type(self).__name__}: params need {self.LOGS_DIR_KEY!r}, the directory for the"
                f" files stdout and stderr; got {dict(params)!r}"
            )
        try:
            Path(logs_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ChannelError(
                f"{type(self).__name__}: cannot make the directory for logs: {error}"
            ) from error
        path = str(Path(logs_dir) / stream)
        return PipesStdioFileLogWriterChannel(
            output_path=path,
            stream=stream,
            name=f"PipesStdioFileLogWriterChannel({stream}->{path})",
            interval=self.interval,
        )


class _MessageChannel(Protocol):
    """The part of a message writer's channel that is used here."""

    def write_message(self, message: PipesMessage) -> None: ...


class PipesDefaultLogWriterChannel(PipesStdioLogWriterChannel):
    """Sends one stream's text as messages, which Dagster shows in the step's own logs.

    Args:
        message_channel: Where the messages go; called in the capture's own thread.
        stream: ``"stdout"`` or ``"stderr"``.
        name: For warnings.
        interval: How long the beginning of a line may wait for its end, in seconds.
    """

    def __init__(
        self,
        message_channel: _MessageChannel,
        stream: Literal["stdout", "stderr"],
        name: str,
        interval: float,
    ) -> None:
        self.message_channel = message_channel
        super().__init__(interval=interval, stream=stream, name=name)

    def write_chunk(self, chunk: str) -> None:
        """Send a ``log_external_stream`` message; it fits one page."""
        message: Any = {
            PIPES_PROTOCOL_VERSION_FIELD: PIPES_PROTOCOL_VERSION,
            "method": "log_external_stream",
            "params": {"stream": self.stream, "text": chunk, "extras": {}},
        }
        self.message_channel.write_message(message)


class PipesDefaultLogWriter(PipesStdioLogWriter[PipesDefaultLogWriterChannel]):
    """Sends stdout and stderr as messages.

    Args:
        message_channel: Where the messages go; called in the capture's own thread.
        interval: How long the beginning of a line may wait for its end, in seconds.
    """

    def __init__(self, message_channel: _MessageChannel, interval: float = 1.0) -> None:
        self.interval = interval
        self._message_channel = message_channel

    @property
    def message_channel(self) -> _MessageChannel:
        """Where the messages go."""
        return self._message_channel

    def make_channel(
        self,
        params: PipesParams,  # noqa: ARG002 because other log writers find their place in it
        stream: Literal["stdout", "stderr"],
    ) -> PipesDefaultLogWriterChannel:
        """Return the channel for one stream."""
        return PipesDefaultLogWriterChannel(
            message_channel=self.message_channel,
            stream=stream,
            name=f"PipesDefaultLogWriterChannel({stream})",
            interval=self.interval,
        )
