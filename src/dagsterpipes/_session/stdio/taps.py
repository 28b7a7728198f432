"""Where captured text is taken off: a standard descriptor, or a ``sys.stdout`` without one.

A tap puts the write end of a pipe where the text goes and remembers what was there. Who reads the
pipe is the business of ``copier``. A tap's descriptors are acquired in ``open`` and noted one by
one, so that ``restore`` and ``close`` put right whatever an exception left half done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from dagsterpipes._delivery.channels.posix import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover because only Windows and WebAssembly lack them
    fcntl = None  # type: ignore[assignment]  # because the guard is the point


STREAMS = {"stdout": 1, "stderr": 2}
"""The streams that Dagster knows, and their descriptors."""

PIPE_SIZE = 1 << 20
"""The size asked for, in bytes: what Linux grants to everyone. Elsewhere a pipe is smaller."""

_FIRST_FREE_FD = 3  # 0, 1 and 2 may be closed, and nothing of ours must land there


def supported() -> bool:
    """Whether this platform can capture at descriptor level."""
    has_processes = hasattr(os, "posix_spawn") and hasattr(select, "poll")
    return fcntl is not None and has_processes  # type: ignore[redundant-expr]  # because the guard above sets None


def open_pipe() -> tuple[Descriptor, Descriptor]:
    """Open a pipe above the standard descriptors, as large as may be."""
    read_fd, write_fd = map(Descriptor, os.pipe())
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's share of pipe memory is spent: 64 KiB, then
            fcntl.fcntl(write_fd.number, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return read_fd, write_fd


def duplicate(fd: int, lowest: int = _FIRST_FREE_FD) -> Descriptor:
    """Copy ``fd`` to a number of at least ``lowest``; child processes do not inherit the copy."""
    try:
        return Descriptor(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest))
    except OSError as error:
        # What the system says where the limit is below the lowest.
        number = errno.EMFILE if error.errno == errno.EINVAL else error.errno or 0
        raise OSError(number, os.strerror(number)) from error


def write_all(fd: Descriptor, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        if not fd.is_ours():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            view = view[os.write(fd.number, view) :]
        except BlockingIOError:
            writable = select.poll()
            writable.register(fd.number, select.POLLOUT)
            writable.poll()


def has_room(fd: int, timeout: float, used: int | None = None) -> bool:
    """Whether no more than ``used`` bytes of a pipe, or half of it, are taken within some seconds.

    Either end of the pipe will do.
    """
    size = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) if hasattr(fcntl, "F_GETPIPE_SZ") else 1 << 14
    limit = size // 2 if used is None else used
    waiting = bytearray(4)
    deadline = time.monotonic() + timeout
    while True:
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
        if int.from_bytes(waiting, sys.byteorder) <= limit:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)


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


class Tap(Protocol):
    """What the capture needs of a place where text is taken off."""

    stream: str
    read_fd: Descriptor | None  # for the copier
    real_fd: Descriptor | None  # where the text is to be shown; None: the tap shows it itself
    write_fd: Descriptor | None  # until it stands where the text goes, if others share it then

    def open(self) -> None:
        """Acquire the descriptors; nothing is diverted yet."""

    def install(self) -> None:
        """Divert the stream into the pipe, which is being read."""

    def has_room(self, timeout: float) -> bool:
        """Whether a flush would not block, now or within some seconds."""

    def restore(self) -> None:
        """Put back what was there, unless somebody else has put in something else meanwhile."""

    def close(self) -> None:
        """Close what is still open, after `restore`."""

    def after_fork_in_child(self) -> None:
        """Be ready for a child, which has one thread."""


class FdTap:
    """The tap on file descriptor 1 or 2: C code and child processes count."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.read_fd: Descriptor | None = None
        self.real_fd: Descriptor | None = None
        self.write_fd: Descriptor | None = None
        self.fd = STREAMS[stream]

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
        self.real_fd = duplicate(self.fd)
        self.read_fd, self.write_fd = open_pipe()

    def install(self) -> None:
        assert self.write_fd is not None
        os.dup2(self.write_fd.number, self.fd)
        # A forked child that leaves its stdout must leave the pipe with it.
        self.write_fd.close()

    def is_diverted(self) -> bool:
        """Whether our pipe stands on the descriptor."""
        return self.write_fd is not None and self.write_fd.stands_for(self.fd)

    def has_room(self, timeout: float) -> bool:
        return not self.is_diverted() or has_room(self.fd, timeout)

    def restore(self) -> None:
        if self.write_fd is not None:
            self.write_fd.close()
        if self.is_diverted() and self.real_fd is not None and self.real_fd.is_ours():
            os.dup2(self.real_fd.number, self.fd)

    def close(self) -> None:
        close_all(self.read_fd, self.real_fd)

    def after_fork_in_child(self) -> None:
        pass


class TextTap:
    """The tap on a ``sys.stdout`` that is not the descriptor: a notebook, pytest, a service."""

    def __init__(self, stream: str, inner: Any) -> None:
        self.stream = stream
        self.real_fd: Descriptor | None = None
        self.write_fd: Descriptor | None = None
        self.read_fd: Descriptor | None = None
        # The thread that must not feed what it reads.
        self.emitting_thread: int | None = None
        self._inner = inner
        self._wrapper = TeeText(inner, self._send)
        self._pipe: Descriptor | None = None
        self._restored = False
        self._lock = threading.RLock()  # no write to a descriptor that is being closed

    def open(self) -> None:
        self.read_fd, self._pipe = open_pipe()

    def install(self) -> None:
        setattr(sys, self.stream, self._wrapper)

    def has_room(self, timeout: float) -> bool:  # noqa: ARG002 because a flush writes to another place
        return True

    def restore(self) -> None:
        if getattr(sys, self.stream) is self._wrapper:
            setattr(sys, self.stream, self._inner)
        self._restored = True
        # Held for long only by a writer that a full pipe stops; it closes on its way out.
        if self._lock.acquire(timeout=0.1):
            close_all(self._pipe)
            self._lock.release()

    def close(self) -> None:
        close_all(self.read_fd)

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent may have held it

    def _send(self, text: str) -> None:
        if threading.get_ident() == self.emitting_thread or self._pipe is None:
            return
        with self._lock:
            if not self._restored:
                with contextlib.suppress(OSError):  # the copier has gone
                    write_all(self._pipe, text.encode("utf-8", "backslashreplace"))
            if self._restored:
                self._pipe.close()


def close_all(*descriptors: Descriptor | None) -> None:
    """Close those that there are."""
    for descriptor in descriptors:
        if descriptor is not None:
            descriptor.close()


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
