"""System calls of the channels: whose a descriptor is, locks, the end of a file, ways to write."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # Windows: whoever shares a file there goes without
    fcntl = None  # type: ignore[assignment] # because the platform has none

try:
    import mmap
except ImportError:  # some platforms have none
    mmap = None  # type: ignore[assignment] # because the platform has none


_FIRST_FREE = 3  # 0, 1 and 2 may be closed, and what is printed must not land in a file of ours


class Descriptor:
    """A descriptor that knows whether its number still stands for the file it was opened for.

    A program that becomes a daemon closes every number, and some code closes one twice. The system
    then gives the number to the next file that anybody opens.

    Args:
        number: Belongs to this object from now on; it is moved above the standard ones.
    """

    def __init__(self, number: int) -> None:
        self.number = _above_standard(number)
        try:
            self._file = identify(self.number)
        except OSError:
            os.close(self.number)
            raise

    def is_ours(self) -> bool:
        """Whether the number stands for the file.

        Raises:
            OSError: The file system does not say at the moment.
        """
        return self.number >= 0 and identify(self.number) == self._file

    def stands_for(self, number: int) -> bool:
        """Whether another number stands for the same file, open for the same."""
        return identify(number) == self._file

    def move_to(self, number: int) -> None:
        """Have another number for the same file; the old one is lost."""
        self.number = _above_standard(number)

    def close(self) -> None:
        """Close the number unless it is somebody else's; can be called again."""
        try:
            is_ours = self.is_ours()
        except OSError:  # open, and on a file system that fails: hardly another one's
            is_ours = True
        number, self.number = self.number, -1
        if is_ours:
            os.close(number)


def identify(number: int) -> tuple[int, int, int] | None:
    """Device and inode of an open file, and what it is open for; None if the number is free.

    Raises:
        OSError: The file system does not say at the moment, as one of a server that is away.
    """
    try:
        status = os.fstat(number)
        return status.st_dev, status.st_ino, _access(number)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None


def _access(number: int) -> int:
    if fcntl is None:
        return 0
    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE


def _above_standard(number: int) -> int:
    if fcntl is None:
        return number
    if number >= _FIRST_FREE:
        return number
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(number)


PATIENCE = 0.5
"""Seconds to wait for another process before the write fails, to be tried again; a batch takes it a
few milliseconds."""


class FileLock:
    """An advisory lock on an open file; never waits for long.

    The lock belongs to the open file description, which forked children share for as long as they
    have it open. The system releases it when the last of these processes ends, however it ends.

    Args:
        patience: Seconds to wait for another holder.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience

    def acquire(self, descriptor: int) -> bool:
        """Lock the file.

        Returns:
            False if another process holds the lock and did not release it in time. True also where
            the file system knows no locks.
        """
        if fcntl is None:
            return True
        pause = 0.0002
        deadline = None
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    return True
            else:
                return True
            now = time.monotonic()
            if deadline is None:
                deadline = now + self._patience
            if now >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.002)

    def release(self, descriptor: int) -> None:
        """Unlock the file, if it was locked."""
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)


_STEP = 4096


def read_line(descriptor: int, end: int) -> bytes:
    """The part of a line that ends at this offset, from the line's start."""
    line = b""
    start = end
    step = _STEP
    while start > 0 and b"\n" not in line:
        step = min(start, step)
        start -= step
        part = os.pread(descriptor, step, start)
        while len(part) < step:
            more = os.pread(descriptor, step - len(part), start + len(part))
            if not more:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            part += more
        line = part + line
        step *= 4
    return line[line.rfind(b"\n") + 1 :]


def is_message(text: bytes) -> bool:
    """Whether it is whole, but for its newline."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def wait_for_write(descriptor: int) -> None:
    """Wait until nobody is in the middle of a `write` to the file, which is seen page by page."""
    # The system holds the same lock for a write and for a change of the times.
    with suppress(OSError, TypeError):  # TypeError: a platform that only takes paths
        os.utime(descriptor)


def overwrite(descriptor: int, offset: int, data: bytes) -> None:
    """Write in place, in a file that is open for appending.

    Raises:
        OSError: The file may only be appended to, or the write failed.
    """
    # With O_APPEND, Linux appends whatever the offset.
    with _changed_flags(descriptor, remove=os.O_APPEND):
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)


# Linux has it; the memory for it comes from mmap.
O_DIRECT: int = 0 if None in {fcntl, mmap} else getattr(os, "O_DIRECT", 0)

AT_ONCE = (b"ext4", b"xfs")
"""File systems on which all of a direct write becomes visible at once."""

PERHAPS_AT_ONCE = (b"overlay",)
"""Those that hand a direct write on to another file system, which cannot be known from here."""


def file_system(descriptor: int) -> bytes:
    """Name the type of the file system that a file is on.

    Returns:
        Nothing if it cannot be found out, or if the file cannot be written to directly.
    """
    if not O_DIRECT:
        return b""
    device = os.fstat(descriptor).st_dev
    number = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        with _changed_flags(descriptor, add=O_DIRECT), open("/proc/self/mountinfo", "rb") as mounts:  # noqa: PTH123 because pathlib is slow to import
            for mount in mounts:
                fields = mount.split()
                if fields[2] == number:
                    return fields[fields.index(b"-") + 1]
    except (OSError, ValueError, IndexError):
        return b""
    return b""


def write_directly(descriptor: int, data: memoryview, write: Callable[[memoryview], int]) -> int:
    """Write once, directly.

    Args:
        descriptor: Open for appending; the file ends at the end of a page.
        data: Whole pages.
        write: Writes to the descriptor and returns how many bytes it wrote.

    Raises:
        OSError: Nothing was written; with ``EINVAL``, the file system takes no such writes.
    """
    # Direct writes have to come from whole pages of memory.
    pages = memoryview(mmap.mmap(-1, len(data)))
    pages[:] = data
    with _changed_flags(descriptor, add=O_DIRECT):
        return write(pages)


@contextmanager
def _changed_flags(descriptor: int, *, add: int = 0, remove: int = 0) -> Iterator[None]:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~remove | add)
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: what is reserved stays invisible
_NOT_HERE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EBADF, errno.EPERM}

_fallocate: Callable[[int, int, int], int] | None = None


def reserve(descriptor: int, offset: int, size: int) -> None:
    """Make ready to append ``size`` bytes at ``offset``, the end of the file; leaves it as it is.

    Where the platform or the file system cannot reserve, nothing is reserved.

    Raises:
        OSError: There is no room for them.
    """
    if mmap is not None:
        # Whatever memory this gives back is what the file gets next, and it is warm.
        with mmap.mmap(-1, size) as pages:
            for start in range(0, size, mmap.PAGESIZE):
                pages[start] = 1
    problem = errno.EINTR
    while problem == errno.EINTR:
        problem = _find_fallocate()(descriptor, offset, size)
    if problem and problem not in _NOT_HERE:
        raise OSError(problem, os.strerror(problem))
    # Whoever has let others go first begins with a whole time slice.
    _let_others_go_first()


def _let_others_go_first() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0.0001)


def _find_fallocate() -> Callable[[int, int, int], int]:
    global _fallocate
    if _fallocate is None:
        _fallocate = _load_fallocate()
    return _fallocate


def _load_fallocate() -> Callable[[int, int, int], int]:
    """Return the system's, which gives an error number: `os.posix_fallocate` makes the file longer."""
    try:
        import ctypes  # noqa: PLC0415 because only few long lines need it

        library: Any = ctypes.CDLL(None, use_errno=True)
        function = getattr(library, "fallocate64", None) or library.fallocate
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    except (ImportError, OSError, TypeError, AttributeError):  # no such thing on this platform
        return lambda *_: errno.ENOSYS

    def fallocate(descriptor: int, offset: int, size: int) -> int:
        return ctypes.get_errno() if function(descriptor, _KEEP_SIZE, offset, size) else 0

    return fallocate
