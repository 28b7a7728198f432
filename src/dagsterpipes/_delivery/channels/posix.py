"""System calls of the file channel: the lock, the end of the file, direct writes, reserved pages."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # Windows: whoever shares a file there goes without
    fcntl = None  # type: ignore[assignment] # because the platform has none

PATIENCE = 0.5
"""Seconds to wait for another process; a batch takes it a few milliseconds."""


class FileLock:
    """An advisory lock on an open file; never waits for long.

    The lock belongs to the open file description: a forked child shares it until it opens the file
    itself, and the system releases it when the process ends, however it ends.

    Args:
        patience: Seconds to wait for another holder.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience

    def acquire(self, descriptor: int) -> bool:
        """Lock the file; say whether it may be treated as ours.

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
            try:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            except OSError:
                return


_STEP = 4096


def read_line(descriptor: int, end: int) -> bytes:
    """The part of a line that ends at this offset, from the line's start."""
    line = b""
    start = end
    step = _STEP
    while start > 0 and b"\n" not in line:
        step = min(start, step)
        start -= step
        line = os.pread(descriptor, step, start) + line
        step *= 4
    return line[line.rfind(b"\n") + 1 :]


def is_message(text: bytes) -> bool:
    """Whether it is whole, but for its newline."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


try:
    import fcntl
    import mmap

    O_DIRECT: int = getattr(os, "O_DIRECT", 0)
except ImportError:  # Windows
    O_DIRECT = 0


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
        with _direct(descriptor), open("/proc/self/mountinfo", "rb") as mounts:  # noqa: PTH123 because pathlib is slow to import
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
    with _direct(descriptor):
        return write(pages)


@contextmanager
def _direct(descriptor: int) -> Iterator[None]:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | O_DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


try:
    import mmap
except ImportError:  # some platforms have none
    mmap = None  # type: ignore[assignment] # because the platform has none


_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: what is reserved stays invisible
_NAP = 0.0001
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
    # Whoever wakes up gets a whole time slice.
    time.sleep(_NAP)


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
