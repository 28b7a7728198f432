"""Pages made ready before a long line, so that nothing slows the write down that a reader can watch.

A runway (`PageLayout`) works as long as the writer is the faster of the two. Finding, charging and
first touching a page takes many times as long as filling one, above all in memory (tmpfs) and on a
virtual machine; and a write that begins at the end of its time slice is put off in its middle.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

try:
    import mmap
except ImportError:  # some platforms have none
    mmap = None  # type: ignore[assignment] # because the platform has none

if TYPE_CHECKING:
    from collections.abc import Callable

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
