"""Where captured text is taken off: a standard descriptor, or a ``sys.stdout`` without one.

A tap puts the write end of a pipe where the text goes and remembers what was there. Who reads the
pipe is the business of ``reader``. A tap's descriptors are acquired in ``open`` and noted one by
one, so that ``restore`` and ``close`` put right whatever an exception left half done.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

try:
    import fcntl
except ImportError:  # pragma: no cover because only Windows and WebAssembly lack it
    fcntl = None  # type: ignore[assignment]  # because the guard is the point


STREAMS = {"stdout": 1, "stderr": 2}
"""The streams that Dagster knows, and their descriptors."""

PIPE_SIZE = 1 << 20
"""The size asked for, in bytes: what Linux grants to everyone. Elsewhere a pipe is smaller."""

_FIRST_FREE_FD = 3  # 0, 1 and 2 may be closed, and nothing of ours must land there


def supported() -> bool:
    """Whether this platform can capture at descriptor level."""
    return fcntl is not None and hasattr(select, "poll")  # type: ignore[redundant-expr]  # because the guard above sets None


class OwnDescriptor(int):
    """A number that knows which file it was opened for.

    A program that becomes a daemon closes every number, and the system gives it to the next file that
    anybody opens: that one is left alone.
    """

    def __init__(self, number: int) -> None:
        self._file = identity(number)

    def is_ours(self) -> bool:
        """Whether it still stands for that file."""
        return identity(self) == self._file

    def check(self) -> None:
        """Raise if it does not, as the system would if nobody had the number."""
        if not self.is_ours():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def open_pipe() -> tuple[OwnDescriptor, OwnDescriptor]:
    """Open a pipe above the standard descriptors; its read end does not block."""
    read_fd, write_fd = (OwnDescriptor(_above_standard(fd)) for fd in os.pipe())
    os.set_blocking(read_fd, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's share of pipe memory is spent: 64 KiB, then
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return read_fd, write_fd


def duplicate(fd: int) -> OwnDescriptor:
    """Copy ``fd`` to a number above the standard ones; child processes do not inherit the copy."""
    return OwnDescriptor(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD))


def _above_standard(fd: int) -> int:
    if fd >= _FIRST_FREE_FD:
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def read(fd: OwnDescriptor, size: int) -> bytes:
    """Read up to ``size`` bytes."""
    fd.check()
    return os.read(fd, size)


def write_all(fd: OwnDescriptor, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor that somebody made non-blocking."""
    fd.check()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # noqa: PERF203 because a write takes a thousand times as long
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            writable.poll()


def close_all(owner: object, *names: str) -> None:
    """Close the descriptors that these attributes of ``owner`` hold, if any; they become `NONE`."""
    for name in names:
        fd: OwnDescriptor = getattr(owner, name)
        setattr(owner, name, NONE)
        if fd >= 0 and fd.is_ours():
            os.close(fd)


def identity(fd: int) -> tuple[int, int] | None:
    """Device and inode of what ``fd`` stands for; ``None`` when it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


NONE = OwnDescriptor(-1)
"""Stands for no descriptor."""


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


class Tap(Protocol):
    """What the capture needs of a place where text is taken off."""

    stream: str
    read_fd: OwnDescriptor
    real_fd: OwnDescriptor  # where the text is to be shown; NONE: the tap shows it itself

    def open(self) -> None:
        """Acquire the descriptors; nothing is diverted yet."""

    def install(self, reader: threading.Thread) -> None:
        """Divert the stream into the pipe, which ``reader`` reads."""

    def restore(self) -> None:
        """Put back what was there, unless somebody else has put in something else meanwhile."""

    def close(self) -> None:
        """Close what is still open, after `restore` and when nobody reads any more."""

    def after_fork_in_child(self) -> None:
        """Leave the reading to the parent."""


class FdTap:
    """The tap on file descriptor 1 or 2: C code and child processes count."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.read_fd = NONE
        self.real_fd = NONE
        self._fd = STREAMS[stream]
        self._write_fd = NONE  # until it stands on self._fd
        self._pipe: tuple[int, int] | None = None  # device and inode: is that still our pipe?
        self._faulthandler_moved = False

    @staticmethod
    def usable(stream: str) -> bool:
        """Whether the descriptor is open and is the stream that its number says.

        A process may start with it closed, and the next file that it opens then gets the number:
        Python sets ``sys.__stdout__`` to ``None`` in that case.
        """
        original = getattr(sys, f"__{stream}__")
        if original is None or original.closed:
            return False
        try:
            os.fstat(STREAMS[stream])
        except OSError:
            return False
        return True

    def open(self) -> None:
        self.real_fd = duplicate(self._fd)
        self.read_fd, self._write_fd = open_pipe()
        self._pipe = identity(self._write_fd)

    def install(self, reader: threading.Thread) -> None:  # noqa: ARG002 because the kernel does not ask who writes
        os.dup2(self._write_fd, self._fd)
        # A forked child that leaves its stdout has to leave the pipe with it.
        close_all(self, "_write_fd")
        if self._fd == STREAMS["stderr"] and faulthandler_writes_to(self._fd):
            # A crash leaves nobody to read the pipe.
            self._faulthandler_moved = True
            sys.modules["faulthandler"].enable(self.real_fd)

    def restore(self) -> None:
        close_all(self, "_write_fd")
        is_diverted = self._pipe is not None and identity(self._fd) == self._pipe
        if is_diverted and self.real_fd.is_ours():
            os.dup2(self.real_fd, self._fd)
        if self._faulthandler_moved:
            self._faulthandler_moved = False
            move_faulthandler_back(self._fd)

    def close(self) -> None:
        close_all(self, "read_fd", "real_fd")

    def after_fork_in_child(self) -> None:
        # With a reader's end of its own the child would wait for ever on a pipe that is full when
        # the parent has gone.
        close_all(self, "read_fd")


class TextTap:
    """The tap on a ``sys.stdout`` that is not the descriptor: a notebook, pytest, a service."""

    real_fd = NONE

    def __init__(self, stream: str, inner: Any) -> None:
        self.stream = stream
        self.read_fd = NONE
        self._reader: int | None = None  # the thread that must not feed what it reads
        self._inner = inner
        self._wrapper = TeeText(inner, self._send)
        self._write_fd = NONE
        self._restored = False
        self._lock = threading.RLock()  # no write to a descriptor that is being closed

    def open(self) -> None:
        self.read_fd, self._write_fd = open_pipe()

    def install(self, reader: threading.Thread) -> None:
        self._reader = reader.ident
        setattr(sys, self.stream, self._wrapper)

    def restore(self) -> None:
        if getattr(sys, self.stream) is self._wrapper:
            setattr(sys, self.stream, self._inner)
        self._restored = True
        # Held for long only by a writer that a full pipe stops; it closes on its way out.
        if self._lock.acquire(timeout=0.1):
            close_all(self, "_write_fd")
            self._lock.release()

    def close(self) -> None:
        close_all(self, "read_fd")

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent may have held it
        close_all(self, "read_fd")

    def _send(self, text: str) -> None:
        if threading.get_ident() == self._reader:
            return
        with self._lock:
            if not self._restored:
                # The pipe is gone when this is a child whose parent has ended.
                with contextlib.suppress(OSError):
                    write_all(self._write_fd, text.encode("utf-8", "backslashreplace"))
            if self._restored:
                close_all(self, "_write_fd")


class TeeText:
    """Stands in for a text stream: hands on everything, and sends what is written twice.

    After the capture has ended it does nothing of its own, so whoever kept it can go on with it.
    """

    def __init__(self, inner: Any, send: Callable[[str], None]) -> None:
        self._inner = inner
        self._send = send

    def write(self, text: str) -> Any:
        """Write to the stream that this stands for."""
        result = self._inner.write(text)
        self._send(text)
        return result

    def writelines(self, lines: Iterable[str]) -> None:
        """Write to the stream that this stands for."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def reaches(stream: Any, fds: Iterable[int]) -> bool:
    """Whether what is written to ``stream`` arrives at one of the descriptors by itself.

    It does when it is such a file, and when it is a home-made tee, which keeps such a file, or a
    list of them, in an attribute. Taken off there as well, its text would arrive twice.
    """
    fds = frozenset(fds)
    found: list[Any] = [stream]
    for value in getattr(stream, "__dict__", {}).values():
        found.extend(value if isinstance(value, (list, tuple, set)) else [value])
    return any(fileno(item) in fds for item in found)
