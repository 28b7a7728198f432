"""Where lines lie in the pages of a file, so that a polling reader never sees a part of one.

The operating system makes an append visible page by page: a reader can find the end of the file at
any page boundary inside of one write. So no line of up to a page may cross a boundary; what is left
of a page is filled with spaces before a newline, or with a *filler*, a line that says nothing.

For a line that is longer than a page there are two ways. Where the file system can append all of it
at once, it has to be given whole pages. Elsewhere the line follows a *runway* in the same write:
pages of short fillers, on each of which the reader spends far more time than the writer, so that the
long line is whole before the reader comes to it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_SIZE = 4096
"""Bytes; larger pages begin at multiples of this too."""

RUNWAY_PAGES = 64
"""Pages of fillers before a long line, besides as many as the lines that follow take. Measured: 16
were once too few in 16,000 long lines, beside a reader that never sleeps and with all cores busy."""

RUNWAY_COVERS = 2 << 20
"""Bytes of lines that can follow one runway, if the first of them is not longer."""


class PageLayout:
    """Lays out batches of lines.

    The file that it leaves behind always has room in its last page for a filler, or none at all.

    Args:
        filler: A line that says nothing, without its newline; it must be shorter than a page and
            spaces may follow it. None if the reader knows no such line: then every batch is padded
            with spaces to the end of its page, and there are no runways.
        has_runways: Whether long lines need a runway.
        ends_pages: Whether every batch has to end its page, as direct writes do.
        page_size: In bytes.
    """

    def __init__(
        self,
        filler: bytes | None,
        *,
        has_runways: bool = True,
        ends_pages: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self.ends_pages = ends_pages
        self._filler = filler
        self._page_size = page_size
        self._has_runways = has_runways and filler is not None
        self._covers = RUNWAY_COVERS if self._has_runways else sys.maxsize
        # A page's rest of fewer bytes, but not 0, has no room for a filler.
        self._least_filler = page_size if filler is None else len(filler) + 1
        # The least rest that the last line of a batch may leave.
        self._least_rest = page_size if ends_pages else self._least_filler
        # The end of a padded line; longer than any padding.
        self._padding = b" " * (2 * page_size) + b"\n"
        # One page of the runway, once it was needed.
        self._runway_page = b""

    def has_long_line(self, lines: bytes) -> bool:
        """Whether a line is longer than a page."""
        page = self._page_size
        start = 0
        while len(lines) - start > page:
            end = lines.rfind(b"\n", start, start + page) + 1
            if not end:
                return True
            start = end
        return False

    def render(self, offset: int, lines: bytes) -> bytes:
        """Return the lines with all that has to be put between them.

        Args:
            offset: Where in the file this is going to be written.
            lines: Whole lines.
        """
        # Joining more than a megabyte lets another thread have the interpreter, which keeps it for
        # 5 ms; not if one of the parts might change.
        parts: list[bytes | bytearray] = [bytearray()]
        add = parts.append
        for filling, start, end, padding in self._pieces(offset, lines):
            if filling:
                add(filling)
            if padding:
                add(lines[start : end - 1])
                add(self._padding[-1 - padding :])
            else:
                add(lines[start:end])
        return b"".join(parts)

    def take(self, offset: int, lines: bytes, room: int) -> bytes:
        """Return the first lines, about as many as fit into ``room`` bytes, but one at least."""
        count = self.count_whole(offset, lines, room - self._page_size)
        if not count:
            # Fewer need a shorter runway.
            half = (room - RUNWAY_PAGES * self._page_size) // 2
            count = lines.rfind(b"\n", 0, max(0, half)) + 1 or lines.index(b"\n") + 1
        return lines[:count]

    def count_whole(self, offset: int, lines: bytes, limit: int) -> int:
        """Count the bytes of ``lines`` that are whole if only ``limit`` bytes of all are written.

        A line that lacks nothing but the spaces and the newline at its end is not whole.
        """
        position = 0
        whole = 0
        for filling, start, end, padding in self._pieces(offset, lines):
            position += len(filling)
            size = end - start + padding
            if position + size > limit:
                # Only the last line of a piece is padded, so these end where they always did.
                stop = min(start + limit - position, end - 1)
                return lines.rfind(b"\n", start, max(start, stop)) + 1 or whole
            position += size
            whole = end
        return whole

    def _pieces(self, offset: int, lines: bytes) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield what comes before some lines, their start and end, the spaces in the last of them."""
        page = self._page_size
        least_rest = self._least_rest
        find_last = lines.rfind
        room = page - offset % page
        # Bytes of lines that follow the last runway safely.
        covered = 0
        filling = b""
        start = 0
        total = len(lines)
        while start < total:
            end = find_last(b"\n", start, start + room) + 1
            if end:
                rest = room - (end - start)
                # What follows in this batch does not fit.
                padding = rest if end < total or rest < least_rest else 0
            else:
                end = lines.index(b"\n", start) + 1
                size = end - start
                if size <= page:
                    # At the start of a batch, or behind a long line. Without a filler it is
                    # somebody else who left the page like this, and one line crosses its end.
                    filling = self._fill(room)
                    room = page if filling else room + page
                    continue
                if size > covered:
                    covered = max(size, min(self._covers, total - start))
                    if self._filler is not None:
                        filling = self._fill(room) + self._make_runway(covered)
                        room = page
                rest = (room - size) % page
                padding = rest if rest < least_rest else 0
            yield filling, start, end, padding
            filling = b""
            covered -= end - start
            room = (rest - padding) or page
            start = end

    def _fill(self, room: int) -> bytes:
        """Return a filler up to the end of the page, or nothing if it is a whole page."""
        if self._filler is None or room == self._page_size:
            return b""
        if room < self._least_filler:
            # Somebody else left so little: the one case in which a filler crosses a boundary.
            room += self._page_size
        return self._filler.ljust(room - 1) + b"\n"

    def _make_runway(self, covered: int) -> bytes:
        if not self._has_runways or self._filler is None:
            return b""
        if not self._runway_page:
            line = self._filler + b"\n"
            shortest = line * (self._page_size // len(line) - 1)
            last = self._filler.ljust(self._page_size - len(shortest) - 1) + b"\n"
            self._runway_page = shortest + last
        return self._runway_page * (RUNWAY_PAGES - (-covered // self._page_size))
