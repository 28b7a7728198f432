"""The file channel: appends lines so that a reader that polls the file only ever sees whole ones."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import time
from typing import TYPE_CHECKING

from dagsterpipes._delivery.channels import posix
from dagsterpipes._delivery.channels.page_layout import PAGE_SIZE, PageLayout
from dagsterpipes._delivery.channels.posix import PATIENCE, Descriptor, FileLock, reserve
from dagsterpipes._delivery.channels.stream import PlainLines
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None  # type: ignore[assignment] # because the platform has none

FRAGMENT_PATIENCE = 0.1
"""Seconds without growth after which somebody else's half line counts as abandoned."""

DIRECT_TRIES = 3
"""Direct writes of a batch that others may thwart before it is written in the other way."""


class FileChannel(io.FileIO):
    """An append-only file of lines.

    Guarantees, for the lines that go through it:

    - A reader that polls the file sees no part of a line of up to a page. Nor of a longer one, where
      the file system can append it at once (ext4, xfs); elsewhere it would have to be faster than the
      writer by many times (see `PageLayout` and `reserve`).
    - After every `write`, also a failed one, the file ends in a whole line. What a failed write
      began is taken back at once, and written again by the next call.
    - Other processes may append to the same file, at any time: what they wrote whole stays. Those
      that use this class take turns; nothing is ever written without a turn.
    - Only the file itself is written to. If the program closed the descriptor behind our back, and
      perhaps gave its number to another file, the path is opened again.

    Places that are no regular files (pipes, terminals, ``/dev/null``) get the lines as they are.

    It is a file object, so that ``aiofiles.threadpool.wrap(channel)`` writes in a worker thread.

    Args:
        path: Where; created if only the file itself is missing.
        filler: See `PageLayout`; None if the reader knows none.
        last: What the line begins with behind which guests write nothing; None if there is none.
        lock_patience: Seconds to wait for another process that holds the file before the write
            fails, for the caller to try again.
        fragment_patience: Seconds in which a foreign half line at the end of the file does not grow,
            before it is taken for abandoned.

    Raises:
        OSError: The file cannot be opened for appending.
    """

    def __init__(
        self,
        path: str,
        filler: bytes | None = None,
        *,
        last: bytes | None = None,
        lock_patience: float = PATIENCE,
        fragment_patience: float = FRAGMENT_PATIENCE,
    ) -> None:
        # Absolute, because a forked child opens it again and may have changed its folder.
        self._path = os.path.abspath(path)  # noqa: PTH100 because pathlib is slow to import
        # Whether what others left at the end of the file can be looked at.
        self._can_read = False
        self._is_closed = False
        self._own = self._open()
        try:
            # It must not close the number, which may be somebody else's by then.
            super().__init__(self._own.number, "a", closefd=False)
            self._is_regular = stat.S_ISREG(os.fstat(self.fileno()).st_mode)
        except OSError:
            self._own.close()
            raise
        self._filler = filler
        self._layout = PageLayout(filler)
        # The layout of batches with a line that is longer than a page, once there was one; they are
        # written directly if it ends pages.
        self._long_layout: PageLayout | None = None
        # Whether it is known that direct writes become visible at once.
        self._is_at_once = False
        self._lock = FileLock(lock_patience)
        self._fragment_patience = fragment_patience
        self._plain = PlainLines(self._write_plain)
        # Whole lines that were taken and are not written. Replaced, never changed: `unwritten`
        # looks at it from other threads.
        self._backlog = b""
        # Where our last write ended, in a whole line; -1 if there is none.
        self._end = -1
        # Whether others were seen to append to the file.
        self._has_company = False
        self._last = last
        # Whether another process says when the file is complete.
        self._is_guest = False

    def _open(self) -> Descriptor:
        path = self._path
        flags = os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOINHERIT", 0)
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 because pathlib is slow to import
        except OSError:
            is_file = True
        # A pipe must not be opened for reading: its writer would never learn that nobody reads.
        if is_file:
            with contextlib.suppress(PermissionError):
                own = Descriptor(os.open(path, flags | os.O_RDWR, 0o666))
                self._can_read = hasattr(os, "pread")
                return own
        self._can_read = False
        return Descriptor(os.open(path, flags | os.O_WRONLY, 0o666))

    def _hold(self) -> None:
        """Make sure that the descriptor is the file's, and not shared with a parent process.

        Raises:
            ValueError: The channel is closed.
        """
        if self._is_closed:
            raise ValueError("write to a closed channel")
        if self.closed or not self._own.is_ours():  # closed where the last try of this failed
            self._own.close()
            self._own = self._open()
            super().__init__(self._own.number, "a", closefd=False)
            self._end = -1

    def write(self, lines: ReadableBuffer, /) -> int:
        """Write the lines, behind those that an earlier call had to leave; blocks.

        Raises:
            OSError: Not everything could be written; the rest goes first at the next call.
            SessionClosedError: This is a guest, and the last line stands in the file.
        """
        lines = bytes(lines)
        if self._is_regular:
            self._backlog += lines
            self._hold()
            if self._backlog:
                self._append()
        else:
            self._plain.write(lines)
        return len(lines)

    def close(self) -> None:
        """Close the file, unless the descriptor has become somebody else's; can be called again."""
        if not self._is_closed:
            self._is_closed = True
            super().close()
            self._own.close()

    def unwritten(self) -> bytes:
        """The whole lines that were taken and are not, or not wholly, written; in order.

        Threads: any. What a write that is going on has already written counts as unwritten.
        """
        return self._backlog or self._plain.unwritten()

    def has_begun(self) -> bool:
        """Whether there are lines in the file, and the last line is not among them."""
        size = os.fstat(self.fileno()).st_size
        return size > 0 and not self._is_complete(size)

    def attach_to_existing(self) -> None:
        """Add to what another process began and will complete; write nothing after that."""
        self._is_guest = True

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's lines; open the file anew at the next write.

        A lock belongs to what was opened, which a fork shares: while the child had it open, the
        system would not release a lock of a parent that was killed.
        """
        self.attach_to_existing()
        self._backlog = b""
        self._plain.forget()
        self._end = -1
        self._own.close()

    def _write_plain(self, data: bytes) -> int | None:
        self._hold()
        return super().write(data)

    def write_some(self, data: memoryview) -> int:
        """Write once; less than all of the data may be written, but never nothing."""
        count = super().write(data)
        if not count:
            raise BlockingIOError(errno.EAGAIN, "the file takes nothing now", self._path)
        return count

    def _append(self) -> None:
        descriptor = self.fileno()
        if not self._lock.acquire(descriptor):
            raise BlockingIOError(
                errno.EAGAIN,
                "another process holds the lock of the file: it may be stopped",
                self._path,
            )
        tries = 0
        try:
            while self._backlog:
                end = self._find_end()
                if self._is_guest and end != self._end and self._is_complete(end):
                    raise SessionClosedError(
                        "the process that Dagster launched has already closed the session"
                    )
                self._append_at(end, may_be_direct=tries < DIRECT_TRIES)
                tries += 1
        finally:
            self._lock.release(descriptor)

    def _append_at(self, offset: int, *, may_be_direct: bool) -> None:
        """Write the backlog, or as much of it as there is room for; the file is ``offset`` long.

        Leaves lines in the backlog when others, who did not ask for the lock, came between.
        """
        lines = self._backlog
        layout, is_long = self._layout_of(lines, may_be_direct=may_be_direct)
        image = layout.render(offset, lines)
        room, obstacle = self._room(offset, len(image), is_long=is_long)
        if room < len(image):
            # Better not begun than begun and taken back: a reader could see it.
            lines = layout.take(offset, lines, room)
            image = layout.render(offset, lines)
            if room < len(image):
                raise OSError(obstacle, os.strerror(obstacle), self._path)
        if is_long and not (layout.ends_pages and self._is_at_once):
            reserve(self.fileno(), offset, len(image))
        written = _Written(image, offset)
        try:
            while not written.is_settled():
                self._write_piece(written, ends_pages=layout.ends_pages)
        except BaseException as error:
            is_alone = os.lseek(self.fileno(), 0, os.SEEK_END) == written.end
            if not (layout.ends_pages and _is_refusal(error)):
                raise
            # Others came between: again. Otherwise direct writes are not possible here.
            if is_alone:
                self._long_layout = PageLayout(self._filler)
        finally:
            self._end = written.end
            if written.is_whole():
                self._backlog = self._backlog[len(lines) :]
            else:
                self._take_back(written)
                count = layout.count_whole(offset, lines, written.whole())
                self._backlog = self._backlog[count:]

    def _write_piece(self, written: _Written, *, ends_pages: bool) -> None:
        """Write once, and see where that went to."""
        descriptor = self.fileno()
        piece, is_direct = written.next_piece(ends_pages=ends_pages)
        if is_direct:
            count = posix.write_directly(descriptor, piece, self.write_some)
        else:
            count = self.write_some(piece)
        # A write for appending leaves the position behind itself, whatever others append.
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if end - count != written.end:
            self._has_company = True
        if not written.add(count, end):
            # The rest of a line, behind what others wrote into its middle.
            self._cover(end - count, end)

    def _layout_of(self, lines: bytes, *, may_be_direct: bool) -> tuple[PageLayout, bool]:
        """Return the layout for a batch, and whether there is a line of more than a page in it."""
        if not self._layout.has_long_line(lines):
            return self._layout, False
        if self._long_layout is None:
            self._long_layout = PageLayout(self._filler)
            kind = posix.file_system(self.fileno())
            self._is_at_once = kind in posix.AT_ONCE
            if self._is_at_once:
                self._long_layout = PageLayout(self._filler, has_runways=False, ends_pages=True)
            elif kind in posix.PERHAPS_AT_ONCE:
                self._long_layout = PageLayout(self._filler, ends_pages=True)
        if self._long_layout.ends_pages and not may_be_direct:
            return PageLayout(self._filler), True
        return self._long_layout, True

    def _take_back(self, written: _Written) -> None:
        """Remove the beginning of a line that could not be finished; ours, and only that.

        While nobody else appends, the lines are laid out in the same way when they are tried again
        at the same place, so even a reader that has kept the beginning goes on well.
        """
        start, end = written.fragment()
        if start == end or not self._own.is_ours():
            return
        # Where it fails, the next write finds what it finds of everybody's fragments.
        self._end = -1
        with contextlib.suppress(OSError):
            descriptor = self.fileno()
            if os.lseek(descriptor, 0, os.SEEK_END) != end:
                self._has_company = True
            if self._has_company:
                # What others append at this moment would go with it, if it was cut off.
                self._cover(start, end)
            else:
                os.ftruncate(descriptor, start)
                self._end = start

    def _cover(self, start: int, end: int) -> None:
        """Put something in the place of a part of a line that means nothing to a reader.

        Raises:
            OSError: The file may only be appended to, or the write failed.
        """
        size = end - start
        if self._filler is not None and size > len(self._filler):
            cover = self._filler.ljust(size - 1) + b"\n"
        else:
            # JSON allows spaces before the line that follows.
            cover = b" " * size
        posix.overwrite(self.fileno(), start, cover)
        self._end = end

    def _room(self, offset: int, wanted: int, *, is_long: bool) -> tuple[int, int]:
        """Bytes that may be appended, as far as that can be known before, and why no more."""
        room, obstacle = wanted, 0
        if resource is not None:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            if limit != resource.RLIM_INFINITY and limit - offset < room:
                room, obstacle = max(0, limit - offset), errno.EFBIG
        # A full disk cuts writes between pages, so only lines that are longer than a page.
        if is_long and hasattr(os, "fstatvfs"):
            disk = os.fstatvfs(self.fileno())
            free = (disk.f_bavail or disk.f_bfree) * disk.f_frsize
            if disk.f_blocks and free < room:
                room, obstacle = free, errno.ENOSPC
        return room, obstacle

    def _find_end(self) -> int:
        """Size of the file, once it ends in a whole line."""
        descriptor = self.fileno()
        seen, deadline = -1, 0.0
        while True:
            size = os.lseek(descriptor, 0, os.SEEK_END)  # a third of fstat()
            if size in (0, self._end):
                return size
            if self._end >= 0:
                self._has_company = True
            if not self._can_read or os.pread(descriptor, 1, size - 1) == b"\n":
                return size
            now = time.monotonic()
            if size != seen:
                seen, deadline = size, now + self._fragment_patience
                posix.wait_for_write(descriptor)
            elif now < deadline:
                time.sleep(0.001)
            else:
                posix.wait_for_write(descriptor)
                if os.lseek(descriptor, 0, os.SEEK_END) == size:
                    return self._end_fragment(size)

    def _end_fragment(self, size: int) -> int:
        """Cover a line whose writer is gone, or end it if only its newline is missing.

        A message that is whole is worth keeping. What is not one stops Dagster's reader, if the
        reader has not come to it yet: so it goes.

        Returns:
            Where the file ends now.
        """
        descriptor = self.fileno()
        self._has_company = True
        fragment = posix.read_line(descriptor, size)
        if not posix.is_message(fragment):
            # A file that can only be appended to gets a newline: the next line is whole at least.
            with contextlib.suppress(PermissionError):
                self._cover(size - len(fragment), size)
                return size
        super().write(b"\n")
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if end - 1 != size:
            # Its writer has ended it at this moment; a blank line would stop the reader.
            with contextlib.suppress(OSError):
                posix.overwrite(descriptor, end - 1, b" ")
        return end

    def _is_complete(self, size: int) -> bool:
        """Whether the file, of this size, ends in the last line."""
        if self._last is None or not self._can_read or size == 0:
            return False
        return posix.read_line(self.fileno(), size - 1).startswith(self._last)


class _Written:
    """How much of an image is in the file, and where.

    Each write lies in the file in one piece. Others may append between two of them, so these should
    meet at the end of a line.
    """

    def __init__(self, image: bytes, offset: int) -> None:
        self._image = image
        self._done = 0
        # Where what is written ends in the file.
        self.end = offset
        # Whether it is not where it was to be: what follows must be laid out anew.
        self._is_displaced = False
        # Whether others came between the beginning and the rest of a line.
        self._is_torn = False

    def is_whole(self) -> bool:
        """Whether all of the image is in the file."""
        return self._done == len(self._image)

    def is_settled(self) -> bool:
        """Whether nothing more of this image should be written."""
        is_line_end = self._done == self.whole()
        return self.is_whole() or self._is_torn or (self._is_displaced and is_line_end)

    def whole(self) -> int:
        """Bytes of the image that are whole lines."""
        return self._image.rfind(b"\n", 0, self._done) + 1

    def fragment(self) -> tuple[int, int]:
        """Where the line that is not whole begins and ends in the file."""
        return self.end - (self._done - self.whole()), self.end

    def next_piece(self, *, ends_pages: bool) -> tuple[memoryview, bool]:
        """Return what to write next, and whether it can be written directly."""
        image, done = self._image, self._done
        stop = len(image)
        begun = -self.end % PAGE_SIZE
        if done != self.whole():
            stop = image.index(b"\n", done) + 1
        elif ends_pages and begun:
            # The first page that ends with a line.
            stop = done + begun
            while image[stop - 1] != _NEWLINE:
                stop += PAGE_SIZE
        elif ends_pages:
            return memoryview(image)[done:], True
        return memoryview(image)[done:stop], False

    def add(self, count: int, end: int) -> bool:
        """Note a write, by where it ended.

        Returns:
            False if it is the rest of a line and others came between: the line must be written anew.
        """
        if end - count != self.end:
            self._is_displaced = True
            self._is_torn = self._done != self.whole()
        if not self._is_torn:
            self._done += count
            self.end = end
        return not self._is_torn


_NEWLINE = 0x0A


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EINVAL
