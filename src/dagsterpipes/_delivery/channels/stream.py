"""Standard streams, where the lines go among everything else that a process prints."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import TYPE_CHECKING, Literal

from dagsterpipes._delivery.channels.posix import Descriptor
from dagsterpipes.exceptions import DagsterPipesWarning

if TYPE_CHECKING:
    from collections.abc import Callable

ATOMIC_SIZE = 4096
"""Bytes that a pipe takes in one piece, whoever else writes to it at the same time."""


class PlainLines:
    """Writes lines one behind the other and goes on exactly where a write stopped.

    Writes are of whole lines, as many as the system takes in one piece; only a line that is longer
    than that can get the output of other writers in its middle.

    Args:
        write_some: Writes as much as it can of what it is given and returns how many bytes that
            were, or None if it would have had to wait. Raises OSError.
        prefix: A byte that goes before each write that begins at the start of a line.
    """

    def __init__(self, write_some: Callable[[bytes], int | None], prefix: bytes = b"") -> None:
        self._write_some = write_some
        self._prefix = prefix
        # Whether the prefix, and only that, is written.
        self._is_prefixed = False
        # Whole lines, and how many bytes of them are written. One tuple, for other threads.
        self._state = (b"", 0)

    def write(self, lines: bytes) -> None:
        """Write what was left, then these lines.

        Raises:
            OSError: Not everything could be written; the rest goes first at the next call.
        """
        left, done = self._state
        lines = left + lines
        self._state = (lines, done)
        try:
            while done < len(lines):
                done += self._write_at(lines, done)
                self._state = (lines, done)
        finally:
            # Between calls there is nothing here but the rest.
            whole = lines.rfind(b"\n", 0, done) + 1
            self._state = (lines[whole:], done - whole)

    def _write_at(self, lines: bytes, start: int) -> int:
        prefix = b""
        if start and lines[start - 1] != 0x0A:
            end = lines.index(b"\n", start) + 1
        else:
            prefix = b"" if self._is_prefixed else self._prefix
            end = lines.rfind(b"\n", start, start + ATOMIC_SIZE - len(prefix)) + 1
            end = end or lines.index(b"\n", start) + 1
        count = self._write_some(prefix + lines[start:end])
        if not count:
            raise BlockingIOError(errno.EAGAIN, "the other end takes nothing at the moment")
        self._is_prefixed = count == len(prefix)
        return count - len(prefix)

    def unwritten(self) -> bytes:
        """The whole lines that are not, or not wholly, written."""
        lines, done = self._state
        return lines[lines.rfind(b"\n", 0, done) + 1 :]

    def forget(self) -> None:
        """Drop what was not written."""
        self._is_prefixed = False
        self._state = (b"", 0)


LONGEST_LINE = 16 << 10
"""Bytes; Docker and Kubernetes cut longer lines of a container's output into pieces."""

TAIL_SIZE = 4 << 10
"""Bytes of output, counted from its end, that AWS Lambda hands to whoever called the function."""


class StreamChannel:
    """Writes to the standard output or error that the process was started with.

    Every line stands on a line of its own: it is not known in which column the output of others
    ended, so each write begins with a newline. That makes blank lines, which readers of logs skip.
    What Python code printed before goes out before. A later replacement of ``sys.stdout``, or of
    the descriptor below it, does not matter. If the program closes our copy of the descriptor, a new
    one is made for as long as the original one is what it was; nothing else is ever written to.

    Args:
        name: Which stream.

    Raises:
        OSError: The process has no such stream.
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name
        self._original = _true_descriptor(name)
        self._own = Descriptor(os.dup(self._original))
        self._is_closed = False
        self._plain = PlainLines(self._write_some, prefix=b"\n")
        # Whether a long line was warned about.
        self._has_warned = False

    def write(self, lines: bytes, /) -> None:
        """Write the lines, behind those that an earlier call had to leave; blocks.

        Raises:
            OSError: Not everything could be written; the rest goes first at the next call.
        """
        # Both: the user's replacement may write to the original one.
        for stream in (getattr(sys, self._name, None), getattr(sys, f"__{self._name}__", None)):
            if stream is not None:
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    stream.flush()
        self._plain.write(lines)
        if not self._has_warned and len(lines) > LONGEST_LINE:
            self._warn_of_long_lines(lines)

    def unwritten(self) -> bytes:
        """The whole lines that were taken and are not, or not wholly, written; in order."""
        return self._plain.unwritten()

    def close(self) -> None:
        """Let go of the stream, which stays open for others."""
        self._is_closed = True
        self._own.close()

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's lines."""
        self._plain.forget()

    def _write_some(self, data: bytes) -> int:
        if not self._own.is_ours():
            if self._is_closed or not self._own.stands_for(self._original):
                raise OSError(
                    errno.EBADF,
                    f"the {self._name} that this process was started with is closed or replaced",
                )
            self._own.move_to(os.dup(self._original))
        return os.write(self._own.number, data)

    def _warn_of_long_lines(self, lines: bytes) -> None:
        longest = max(map(len, lines.split(b"\n"))) + 1
        if longest > LONGEST_LINE:
            self._has_warned = True
            warnings.warn(
                f"a message of {longest:,} bytes was written to {self._name}: Docker and Kubernetes"
                f" cut lines of more than {LONGEST_LINE:,} bytes into pieces, and a message in"
                " pieces is lost. Report less at once, or let Dagster read messages from a file.",
                DagsterPipesWarning,
                stacklevel=2,
            )


class BufferedStreamChannel:
    """Keeps all lines and writes them to a standard stream at the close.

    For places that hand over only the end of the output. Where the lines do not fit into that, those
    that matter are put last, each kind in its order.

    Args:
        name: Which stream.
        matters: Whether a line is worth a place at the end.

    Raises:
        OSError: The process has no such stream.
    """

    def __init__(self, name: Literal["stdout", "stderr"], matters: Callable[[bytes], bool]) -> None:
        self._stream = StreamChannel(name)
        self._matters = matters
        self._held: list[bytes] = []

    def write(self, lines: bytes, /) -> None:
        """Keep the lines."""
        if lines:
            self._held.append(lines)

    def unwritten(self) -> bytes:
        """The lines that are kept and those that could not be written."""
        return self._stream.unwritten() + b"".join(self._held)

    def close(self) -> None:
        """Write everything and let go of the stream.

        Raises:
            OSError: Not everything could be written; the rest is in `unwritten`.
        """
        lines, self._held = b"".join(self._held), []
        try:
            if lines:
                self._stream.write(self._arrange(lines))
        finally:
            self._stream.close()

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's lines."""
        self._held = []
        self._stream.after_fork_in_child()

    def _arrange(self, lines: bytes) -> bytes:
        if len(lines) <= TAIL_SIZE:
            return lines
        separate = [line + b"\n" for line in lines.split(b"\n")[:-1]]
        separate.sort(key=self._matters)
        return b"".join(separate)


def _true_descriptor(name: Literal["stdout", "stderr"]) -> int:
    stream = getattr(sys, f"__{name}__", None)
    try:
        descriptor: int = stream.fileno()  # type: ignore[union-attr] # because the handler below says what if None
    except (AttributeError, OSError, ValueError):
        descriptor = 1 if name == "stdout" else 2
    return descriptor
