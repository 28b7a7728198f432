"""The system calls of the capture: pipes, copies of descriptors, flushing, ``faulthandler``."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

try:
    import fcntl
except ImportError:  # pragma: no cover because only Windows and WebAssembly lack it
    fcntl = None  # type: ignore[assignment]  # because the guard is the point

__all__ = [
    "PIPE_SIZE",
    "STREAMS",
    "close_all",
    "duplicate",
    "faulthandler_writes_to",
    "fileno",
    "flush_streams",
    "identity",
    "move_faulthandler_back",
    "open_pipe",
    "supported",
    "write_all",
]

STREAMS = {"stdout": 1, "stderr": 2}
"""The streams that Dagster knows, and their descriptors."""

PIPE_SIZE = 1 << 20
"""The size asked for, in bytes: what Linux grants to everyone. Elsewhere a pipe is smaller."""

_FIRST_FREE_FD = 3  # 0, 1 and 2 may be closed, and nothing of ours must land there


def supported() -> bool:
    """Whether this platform can capture at descriptor level."""
    return fcntl is not None and hasattr(select, "poll")  # type: ignore[redundant-expr]  # because the guard above sets None


def open_pipe() -> tuple[int, int]:
    """Open a pipe above the standard descriptors; its read end does not block."""
    read_fd, write_fd = (_above_standard(fd) for fd in os.pipe())
    os.set_blocking(read_fd, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's share of pipe memory is spent: 64 KiB, then
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return read_fd, write_fd


def duplicate(fd: int) -> int:
    """Copy ``fd`` to a number above the standard ones; child processes do not inherit the copy."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)


def _above_standard(fd: int) -> int:
    if fd >= _FIRST_FREE_FD:
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # noqa: PERF203 because a write takes a thousand times as long
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            writable.poll()


def close_all(owner: object, *names: str) -> None:
    """Close the descriptors that these attributes of ``owner`` hold, if any; they become -1."""
    for name in names:
        fd = getattr(owner, name)
        setattr(owner, name, -1)  # first: closed twice it might be somebody else's the second time
        if fd >= 0:
            with contextlib.suppress(OSError):  # a job that becomes a daemon closes all it finds
                os.close(fd)


def identity(fd: int) -> tuple[int, int] | None:
    """Device and inode of what ``fd`` stands for; ``None`` when it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def fileno(item: Any) -> int:
    """Return the descriptor of a file object; -1 when it has none, or is no file."""
    try:
        fd = item.fileno()
    except Exception:  # noqa: BLE001 because this may be any object, and only the answer matters
        return -1
    return fd if isinstance(fd, int) else -1


def flush_streams(streams: Iterable[str]) -> None:
    """Flush what Python and the C library hold back of ``streams``."""
    for name in streams:
        for stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
            with contextlib.suppress(Exception):  # closed, None, or somebody's own class
                stream.flush()
    if "stdout" in streams:  # stderr has no buffer in C
        with contextlib.suppress(Exception):  # a Python without ctypes, an unknown C library
            import ctypes  # noqa: PLC0415 because it costs 2 ms that only this needs

            library = ctypes.CDLL(None)
            symbol = "__stdoutp" if sys.platform == "darwin" else "stdout"
            library.fflush(ctypes.c_void_p.in_dll(library, symbol))


def faulthandler_writes_to(fd: int) -> bool:
    """Whether ``faulthandler`` is on and would write a crash to ``fd``."""
    module = sys.modules.get("faulthandler")
    return (
        module is not None
        and module.is_enabled()
        # It tells nobody where it writes, but it shows its files to the garbage collector.
        and any(fileno(item) == fd for item in gc.get_referents(module))
    )


def move_faulthandler_back(fd: int) -> None:
    """Let ``faulthandler`` write to ``fd`` again, unless it was switched off or sent elsewhere."""
    module = sys.modules["faulthandler"]
    elsewhere = any(fileno(item) not in (-1, fd) for item in gc.get_referents(module))
    if module.is_enabled() and not elsewhere:
        module.enable(fd)
