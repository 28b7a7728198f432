"""A lock between the processes that write to one file, as far as the platform has one."""

from __future__ import annotations

import errno
import time

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
