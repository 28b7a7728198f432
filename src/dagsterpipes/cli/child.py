"""The command that the local runner starts: its output, its signals, its end."""

from __future__ import annotations

import codecs
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Child", "OutputLine", "OutputLines"]

CHUNK = 1 << 16
"""Bytes of output to read at once."""

LONGEST = 1 << 20
"""Characters after which a line of output is given in parts."""

WAITING = 256
"""Chunks of output that wait to be taken; then the command waits."""


class OutputLine(NamedTuple):
    """A line of the command's output.

    Args:
        stream: ``stdout`` or ``stderr``.
        text: Without its end; bytes that are not UTF-8 are replaced.
        progress: It ended with a carriage return: the next one takes its place.
    """

    stream: str
    text: str
    progress: bool


class OutputLines:
    """Splits the bytes of one stream into lines, whichever way they are cut.

    Args:
        stream: Its name.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head = ""  # what came after the last line end

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[OutputLine]:
        """Give the lines that ``data`` finishes; with ``final`` the unfinished one too."""
        text = self._head + self._decoder.decode(data, final)
        # A carriage return at the end may be the first half of a line end.
        held = "\r" if text.endswith("\r") and not final else ""
        *lines, self._head = text.removesuffix(held).replace("\r\n", "\n").split("\n")
        for line in lines:
            yield from self._give(line)
        *steps, self._head = self._head.split("\r")
        for step in filter(None, steps):
            yield OutputLine(self._stream, step, progress=True)
        if len(self._head) > LONGEST or (final and self._head):
            yield OutputLine(self._stream, self._head, progress=False)
            self._head = ""
        self._head += held

    @property
    def unfinished(self) -> str:
        """What there is of the line that has not ended."""
        return self._head.removesuffix("\r")

    def _give(self, line: str) -> Iterator[OutputLine]:
        *steps, last = line.split("\r")
        for step in filter(None, steps):
            yield OutputLine(self._stream, step, progress=True)
        yield OutputLine(self._stream, last, progress=False)


class Child:
    """A running command in a process group of its own, so that it gets each signal once.

    Args:
        command: The program and its arguments.
        env: Its environment.
        waiting: Chunks of output that may wait to be taken; then the command waits.
        echo: Called in the reading threads with the stream and each piece of output as it came.

    Raises:
        OSError: The command cannot be started.

    Threads: the methods are called from one; two more read the output.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        waiting: int = WAITING,
        echo: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._echo = echo
        self._process = subprocess.Popen(  # noqa: S603 because running what the user asks for is our job
            list(command),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            **_own_group(),
        )
        self._chunks: queue.Queue[tuple[str, bytes]] = queue.Queue(waiting)
        self._lines = {name: OutputLines(name) for name in ("stdout", "stderr")}
        pipes = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in pipes.items()
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def output(self) -> Iterator[OutputLine]:
        """Give the output that is there, without waiting."""
        for _ in range(self._chunks.maxsize):
            try:
                stream, data = self._chunks.get_nowait()
            except queue.Empty:
                return
            yield from self._lines[stream].feed(data, final=not data)

    def unfinished(self) -> Iterator[tuple[str, str]]:
        """Give the stream and the text of each line that has begun and not ended."""
        for stream, lines in self._lines.items():
            if lines.unfinished:
                yield stream, lines.unfinished

    @property
    def output_ended(self) -> bool:
        """Whether both streams are at their end and everything was given."""
        return not any(map(threading.Thread.is_alive, self._readers)) and self._chunks.empty()

    def signal(self, number: int) -> None:
        """Send a signal to the command and to what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it may just have ended
            if sys.platform == "win32":
                self._process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                os.killpg(self._process.pid, number)

    def _read(self, name: str, pipe: BinaryIO) -> None:
        with pipe:
            while data := pipe.read(CHUNK):
                if self._echo is not None:
                    self._echo(name, data)
                self._chunks.put((name, data))
        self._chunks.put((name, b""))


def _own_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
