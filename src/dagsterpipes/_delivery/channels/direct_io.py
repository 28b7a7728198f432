"""Appending many pages so that all of them become visible at once, where the file system can do it.

A direct write goes past the page cache, and the common file systems of Linux change the size of the
file only when all of it is done. Unlike a runway it needs no luck and hardly any space.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

try:
    import fcntl
    import mmap

    O_DIRECT: int = getattr(os, "O_DIRECT", 0)
except ImportError:  # Windows
    O_DIRECT = 0

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
