"""Lines of a file that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LineTail", "TailedLine"]

CHUNK = 1 << 20
"""Bytes to read at once."""


class TailedLine(NamedTuple):
    """One line of the file.

    Args:
        number: Counted from 1.
        data: Its bytes with the newline, which only the last line of a file may lack.
        torn_for: For how many seconds it was seen unfinished before more of it came; 0.0 when it
            was never seen so.
    """

    number: int
    data: bytes
    torn_for: float


class Readable(Protocol):
    """A binary file that returns nothing at its present end, and more when it has grown."""

    def read(self, size: int, /) -> bytes | None:
        """Read up to ``size`` bytes."""


class LineTail:
    """Splits a growing file into lines, and gives a line only once its newline is there.

    A line of any length takes time in proportion to its length, however it arrives.

    Args:
        file: Read from where it stands.
        clock: Gives seconds.

    Threads: one at a time.
    """

    def __init__(self, file: Readable, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._head: list[bytes] = []  # the pieces of the unfinished line
        self._head_seen: float | None = None  # when the file was first seen to end with the head
        self._torn_for = 0.0  # for how long the head had been seen when more of it came
        self._count = 0
        self.at_end = False  # the last read reached the present end of the file

    def lines(self, limit: int = 8 * CHUNK) -> Iterator[TailedLine]:
        """Give the lines that have been finished since the last call.

        Args:
            limit: About how many bytes to read before returning, so that a flood does not hold the
                caller.
        """
        for _ in range(max(1, limit // CHUNK)):
            chunk = self._file.read(CHUNK)
            self.at_end = not chunk
            if not chunk:
                if self._head and self._head_seen is None:
                    self._head_seen = self._clock()
                return
            yield from self._split(chunk)

    def rest(self) -> TailedLine | None:
        """Give up waiting: what the file ends with after its last newline, if there is anything."""
        return self._finish() if self._head else None

    def _split(self, chunk: bytes) -> Iterator[TailedLine]:
        if self._head_seen is not None:
            self._torn_for = self._clock() - self._head_seen
        start = 0
        while (end := chunk.find(b"\n", start) + 1) > 0:
            self._head.append(chunk[start:end])
            start = end
            yield self._finish()
        if start < len(chunk):
            self._head.append(chunk[start:])

    def _finish(self) -> TailedLine:
        self._count += 1
        line = TailedLine(self._count, b"".join(self._head), self._torn_for)
        self._head, self._head_seen, self._torn_for = [], None, 0.0
        return line
