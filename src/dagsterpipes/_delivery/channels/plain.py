"""Lines as they are, for places without pages: pipes, terminals, devices."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

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
