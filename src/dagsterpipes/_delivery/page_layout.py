"""Where lines lie in the pages of a file, so that a polling reader never sees a part of one.

The operating system makes an append visible page by page: a reader can find the end of the file at
any page boundary inside of one write. So no line of up to a page may cross a boundary; what is left
of a page is filled with spaces before a newline, or with a *filler*, a line that says nothing.
A line that is longer than a page follows a *runway* in the same write: pages of short fillers, on
each of which the reader spends far more time than the writer, so that the long line is whole before
the reader comes to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_SIZE = 4096
"""Bytes; larger pages begin at multiples of this too."""

RUNWAY_PAGES = 64
"""Pages of fillers before a long line. Measured: 16 were once too few in 16,000 long lines, beside
a reader that never sleeps and with all cores busy; with 64 no line was seen torn."""

RUNWAY_COVERS = 2 << 20
"""Bytes of lines that can follow one runway; what is longer gets a longer one."""


class PageLayout:
    """Lays out batches of lines.

    The file that it leaves behind always has room in its last page for a filler, or none at all.

    Args:
        filler: A line that says nothing, without its newline; it must be shorter than a page and
            spaces may follow it. None if the reader knows no such line: then every batch is padded
            with spaces to the end of its page, and lines longer than a page can be seen torn.
        page_size: In bytes.
    """

    def __init__(self, filler: bytes | None, page_size: int = PAGE_SIZE) -> None:
        self._filler = filler
        self._page_size = page_size
        # A page's rest of fewer bytes, but not 0, cannot be filled later and must not come about.
        self._least_rest = page_size if filler is None else len(filler) + 1
        # The end of a padded line; longer than any padding.
        self._padding = b" " * (2 * page_size) + b"\n"
        self._runway = b""

    def render(self, offset: int, lines: bytes) -> bytes:
        """The lines with all that has to be put between them.

        Args:
            offset: Where in the file this is going to be written.
            lines: Whole lines.
        """
        parts: list[bytes] = []
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

    def cut(self, offset: int, lines: bytes, limit: int) -> tuple[int, int]:
        """How much of ``lines`` is whole when only ``limit`` bytes of the rendering are written.

        Returns:
            The bytes of the rendering up to the end of the last whole one of ``lines``, and the
            bytes of ``lines`` up to there.
        """
        position = 0
        whole = (0, 0)
        for filling, start, end, padding in self._pieces(offset, lines):
            position += len(filling)
            size = end - start + padding
            if position + size > limit:
                # Only the last line of a piece is padded, so these end where they always did.
                stop = min(start + limit - position, end - 1)
                last = lines.rfind(b"\n", start, stop) + 1 if stop > start else 0
                return (position + last - start, last) if last else whole
            position += size
            whole = (position, end)
        return whole

    def _pieces(self, offset: int, lines: bytes) -> Iterator[tuple[bytes, int, int, int]]:
        """What comes before some lines, their start and end, and the spaces in the last of them."""
        page = self._page_size
        least_rest = self._least_rest
        find_last = lines.rfind
        room = page - offset % page
        covered = 0
        start = 0
        total = len(lines)
        while start < total:
            filling = b""
            end = find_last(b"\n", start, start + room) + 1
            if not end:
                # The next line does not fit. That is so at the start of a batch and around long
                # lines; elsewhere the line before it was padded.
                end = lines.index(b"\n", start) + 1
                size = end - start
                if size > page:
                    if size > covered:
                        runways = -(-size // RUNWAY_COVERS)
                        filling = self._fill(room) + self._make_runway() * runways
                        covered = runways * RUNWAY_COVERS
                        room = room if self._filler is None else page
                    rest = (room - size) % page
                    padding = rest if rest < least_rest else 0
                elif self._filler is None:
                    # Somebody else left the page like this: nothing fits in there but a line.
                    room += page
                    continue
                else:
                    yield self._fill(room), start, start, 0
                    room = page
                    continue
            else:
                rest = room - (end - start)
                padding = rest if end < total or rest < least_rest else 0
            yield filling, start, end, padding
            covered -= end - start + padding
            room = (rest - padding) or page
            start = end

    def _fill(self, room: int) -> bytes:
        """A filler up to the end of the page, or nothing if it is a whole page."""
        if self._filler is None or room == self._page_size:
            return b""
        if room < self._least_rest:
            # Somebody else left so little: the one case in which a short line crosses a boundary.
            room += self._page_size
        return self._filler.ljust(room - 1) + b"\n"

    def _make_runway(self) -> bytes:
        if not self._runway and self._filler is not None:
            line = self._filler + b"\n"
            shortest = line * (self._page_size // len(line) - 1)
            last = self._filler.ljust(self._page_size - len(shortest) - 1) + b"\n"
            self._runway = (shortest + last) * RUNWAY_PAGES
        return self._runway
