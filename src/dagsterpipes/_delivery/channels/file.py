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
from dagsterpipes._delivery.channels.posix import PATIENCE, FileLock, reserve
from dagsterpipes._delivery.channels.stream import PlainLines
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

try:
    import resource
except ImportError:  # Windows has no limits of this kind
    resource = None  # type: ignore[assignment] # because the platform has none

FRAGMENT_PATIENCE = 0.02
"""Seconds that somebody else gets to finish a line before it counts as abandoned."""


class FileChannel(io.FileIO):
    """An append-only file of lines.

    Guarantees, for the lines that go through it:

    - A reader that polls the file sees no part of a line of up to a page. Nor of a longer one, where
      the file system can append it at once (ext4, xfs); elsewhere it would have to be faster than the
      writer by many times (see `PageLayout` and `reserve`).
    - After every `write`, also a failed one, the file ends in a whole line. What a failed write
      began is taken back at once, and written again at the same place by the next call.
    - Other processes may append to the same file. Those that use this class take turns.

    Places that are no regular files (pipes, terminals, ``/dev/null``) get the lines as they are.

    It is a file object, so that ``aiofiles.threadpool.wrap(channel)`` writes in a worker thread.

    Args:
        path: Where; created if only the file itself is missing.
        filler: See `PageLayout`; None if the reader knows none.
        last: What the line begins with behind which guests write nothing; None if there is none.
        lock_patience: Seconds to wait for another process that holds the file.
        fragment_patience: Seconds to wait for a foreign half line at the end of the file to be
            finished, before it is taken for abandoned.

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
        super().__init__(self._path, "a", opener=self._open)
        self._is_regular = stat.S_ISREG(os.fstat(self.fileno()).st_mode)
        self._filler = filler
        self._layout = PageLayout(filler)
        # The layout of batches with a line that is longer than a page, once there was one; they are
        # written directly if it ends pages.
        self._long_layout: PageLayout | None = None
        self._lock = FileLock(lock_patience)
        self._fragment_patience = fragment_patience
        self._plain = PlainLines(super().write)
        # Whole lines that were taken and are not written. Replaced, never changed: `unwritten`
        # looks at it from other threads.
        self._backlog = b""
        # Size of the file after our last write, which ended in a whole line; -1 if there is none.
        self._end = -1
        # Whether the descriptor is the one of a parent process.
        self._is_inherited = False
        self._last = last
        # Whether another process says when the file is complete.
        self._is_guest = False

    def _open(self, path: str, flags: int) -> int:
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 because pathlib is slow to import
        except OSError:
            is_file = True
        # A pipe must not be opened for reading: its writer would never learn that nobody reads.
        if is_file:
            try:
                descriptor = os.open(path, flags & ~os.O_WRONLY | os.O_RDWR, 0o666)
            except PermissionError:
                pass
            else:
                self._can_read = hasattr(os, "pread")
                return descriptor
        return os.open(path, flags, 0o666)

    def write(self, lines: ReadableBuffer, /) -> int:
        """Write the lines, behind those that an earlier call had to leave; blocks.

        Raises:
            OSError: Not everything could be written; the rest goes first at the next call.
            SessionClosedError: This is a guest, and the last line stands in the file.
        """
        lines = bytes(lines)
        if self._is_regular:
            self._backlog += lines
            if self._is_inherited:
                self._reopen()
            if self._backlog:
                self._append()
        else:
            self._plain.write(lines)
        return len(lines)

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
        """In a forked child: forget the parent's lines; open the file anew at the next write."""
        self.attach_to_existing()
        self._backlog = b""
        self._plain.forget()
        self._end = -1
        self._is_inherited = True

    def write_some(self, data: memoryview) -> int:
        """Write once; less than all of the data may be written, but never nothing."""
        count = super().write(data)
        if not count:
            raise BlockingIOError(errno.EAGAIN, "the file takes nothing now", self._path)
        return count

    def _reopen(self) -> None:
        # Locks belong to what open() returns, which a fork shares: ours would be the parent's.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        descriptor = self._open(self._path, flags)
        try:
            os.dup2(descriptor, self.fileno(), inheritable=False)
        finally:
            os.close(descriptor)
        self._is_inherited = False

    def _append(self) -> None:
        descriptor = self.fileno()
        is_ours = self._lock.acquire(descriptor)
        try:
            while self._backlog:
                end = self._find_end(is_ours=is_ours)
                if self._is_guest and end != self._end and self._is_complete(end):
                    raise SessionClosedError(
                        "the process that Dagster launched has closed the session before"
                    )
                self._append_at(end)
        finally:
            self._lock.release(descriptor)

    def _append_at(self, offset: int) -> None:
        """Write the backlog, or as much of it as there is room for; the file is ``offset`` long."""
        lines = self._backlog
        layout = self._layout_of(lines)
        image = layout.render(offset, lines)
        is_long = layout is self._long_layout
        room, obstacle = self._room(offset, len(image), is_long=is_long)
        if room < len(image):
            # Better not begun than begun and taken back: a reader could see it.
            lines = layout.take(offset, lines, room)
            image = layout.render(offset, lines)
            if room < len(image):
                raise OSError(obstacle, os.strerror(obstacle), self._path)
        if is_long and not layout.ends_pages:
            reserve(self.fileno(), offset, len(image))
        view = memoryview(image)
        done = 0
        try:
            while done < len(image):
                if layout.ends_pages:
                    done += self._write_directly(view[done:], offset + done)
                else:
                    done += self.write_some(view[done:])
        except BaseException as error:
            self._backlog = self._backlog[layout.count_whole(offset, lines, done) :]
            self._end = -1
            is_as_expected = os.fstat(self.fileno()).st_size == offset + done
            if is_as_expected:
                self._take_back(offset + done, offset + image.rfind(b"\n", 0, done) + 1)
            if not (layout.ends_pages and _is_refusal(error)):
                raise
            # Others, who did not ask for the lock, came between: again. Otherwise direct writes are
            # not possible here.
            if is_as_expected:
                self._long_layout = PageLayout(self._filler)
        else:
            self._backlog = self._backlog[len(lines) :]
            self._end = offset + len(image)

    def _layout_of(self, lines: bytes) -> PageLayout:
        if not self._layout.has_long_line(lines):
            return self._layout
        if self._long_layout is None:
            self._long_layout = PageLayout(self._filler)
            kind = posix.file_system(self.fileno())
            if kind in posix.AT_ONCE:
                self._long_layout = PageLayout(self._filler, has_runways=False, ends_pages=True)
            elif kind in posix.PERHAPS_AT_ONCE:
                self._long_layout = PageLayout(self._filler, ends_pages=True)
        return self._long_layout

    def _write_directly(self, data: memoryview, offset: int) -> int:
        begun = -offset % PAGE_SIZE
        if begun:
            return self.write_some(data[:begun])
        return posix.write_directly(self.fileno(), data, self.write_some)

    def _take_back(self, end: int, line_start: int) -> None:
        """Remove the beginning of a line that could not be finished.

        The lines are laid out in the same way when they are tried again at the same place, so
        even a reader that has kept the beginning goes on well.
        """
        # Where it fails, the next write finds what it finds of everybody's fragments.
        if line_start < end:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fileno(), line_start)
                self._end = line_start

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

    def _find_end(self, *, is_ours: bool) -> int:
        """Size of the file, once it ends in a whole line."""
        descriptor = self.fileno()
        deadline = None
        while True:
            size = os.lseek(descriptor, 0, os.SEEK_END)  # a third of fstat()
            if (
                size in (0, self._end)
                or not self._can_read
                or os.pread(descriptor, 1, size - 1) == b"\n"
            ):
                return size
            now = time.monotonic()
            if deadline is None:
                deadline = now + self._fragment_patience
            if now < deadline:
                time.sleep(0.001)
            elif is_ours:
                self._end_fragment(size)
            else:
                raise BlockingIOError(
                    errno.EAGAIN, "another process is in the middle of a line", self._path
                )

    def _end_fragment(self, size: int) -> None:
        """Remove a line whose writer is gone, or end it if only its newline is missing.

        A message that is whole is worth keeping. What is not one stops Dagster's reader, if the
        reader has not come to it yet: so it goes.
        """
        descriptor = self.fileno()
        fragment = posix.read_line(descriptor, size)
        if not posix.is_message(fragment):
            # A file that can only be appended to gets a newline: the next line is whole at least.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size - len(fragment))
                return
        super().write(b"\n")

    def _is_complete(self, size: int) -> bool:
        """Whether the file, of this size, ends in the last line."""
        if self._last is None or not self._can_read or size == 0:
            return False
        return posix.read_line(self.fileno(), size - 1).startswith(self._last)


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EINVAL
