"""Lines as they are, for places without pages: pipes, terminals, devices."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class PlainLines:
    """Writes lines one behind the other and goes on exactly where a write stopped.

    Args:
        write_some: Writes as much as it can of what it is given and returns how many bytes that
            were, or None if it would have had to wait. Raises OSError.
    """

    def __init__(self, write_some: Callable[[memoryview], int | None]) -> None:
        self._write_some = write_some
        # Whole lines not yet written; the first one may be written in part.
        self.backlog = b""
        # How many bytes of the first line are written.
        self._cut = 0

    def write(self, lines: bytes) -> None:
        """Write what was left, then these lines."""
        self.backlog += lines
        while self.backlog:
            count = self._write_some(memoryview(self.backlog)[self._cut :])
            if count is None:
                raise BlockingIOError(errno.EAGAIN, "the other end takes nothing at the moment")
            end = self._cut + count
            whole = self.backlog.rfind(b"\n", 0, end) + 1
            self._cut = end - whole
            self.backlog = self.backlog[whole:]

    def forget(self) -> None:
        """Drop what was not written."""
        self.backlog = b""
        self._cut = 0
