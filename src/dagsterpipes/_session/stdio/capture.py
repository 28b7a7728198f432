"""Capture of what the process and its children write to stdout and stderr.

The standard descriptors become the write ends of pipes. One thread reads them, shows the bytes on
the real streams and hands the text on: no helper process, no temporary file, no interval.

What it cannot do: when the process is killed or crashes, what the thread has not read yet is gone,
from the real stream too. (``faulthandler`` is sent to the real stderr for that reason.) The order of
lines on stdout against lines on stderr is that in which the two pipes are read.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

from dagsterpipes._session import process
from dagsterpipes._session.stdio.reader import ASK, STOP, StdioReader
from dagsterpipes._session.stdio.taps import (
    NONE,
    STREAMS,
    FdTap,
    TextTap,
    close_all,
    flush_streams,
    open_pipe,
    reaches,
    supported,
    write_all,
)
from dagsterpipes.exceptions import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dagsterpipes._session.stdio.taps import Tap

_EXIT_TIMEOUT = 5.0  # seconds that a forgotten capture may take at exit

_lock = threading.RLock()  # guards _active
_active: list[StdioCapture] = []  # the outermost first


class StdioCapture:
    """Captures stdout and stderr of this process and its children, C code included.

    Guarantees: the bytes go on to the real streams, in order. All text arrives at ``emit``, in
    order per stream, in pieces that fit one message of one page (see ``LineChunker`` for lines
    and for bytes that are not UTF-8). When ``emit`` is slow, writers wait, so memory is bounded.
    When it raises, the text is still shown, the first error is kept, and the process goes on. The
    streams are restored by `stop`, by a `start` that fails, and at exit.

    A ``sys.stdout`` that is not file descriptor 1 (notebooks, pytest) is captured where Python
    writes to it. A stream that is closed is left out.

    Args:
        emit: Called with ``"stdout"`` or ``"stderr"`` and the text, always in the capture's own
            thread. It must not write to the captured streams, or that text comes back to it for
            ever: `real_stderr` is the place for diagnostics.
        streams: Which streams.
        hold: How long the beginning of a line may wait for its end, in seconds.

    Threads: `start` and `stop` are for one thread at a time. A forked child's output is captured
    by the parent; `stop` in the child only restores the child's streams. Captures may be nested;
    stop the inner one first, or its text passes through the outer one's thread to the end.
    """

    def __init__(
        self,
        emit: Callable[[str, str], None],
        *,
        streams: Iterable[str] = ("stdout", "stderr"),
        hold: float = 1.0,
    ) -> None:
        self._emit = emit
        self._streams = tuple(streams)
        self._hold = hold
        self._started = False
        self._taps: list[Tap] = []
        self._wake_read = NONE  # the reader's, once there is one
        self._wake_write = NONE  # until it was told to stop
        self._reader: StdioReader | None = None
        self._thread: threading.Thread | None = None

    @property
    def error(self) -> BaseException | None:
        """The first error that ``emit`` raised."""
        return None if self._reader is None else self._reader.error

    @property
    def lost(self) -> int:
        """How many pieces of text ``emit`` refused by raising."""
        return 0 if self._reader is None else self._reader.lost

    def start(self) -> None:
        """Divert the streams. What was written before is not captured.

        Raises:
            ChannelError: This platform has no pipes that can be waited for, or there are no more
                descriptors or threads to be had. The streams are as they were.
            RuntimeError: The capture was started before; it serves once.
        """
        if not supported():
            raise ChannelError(
                f"stdout and stderr cannot be captured on {sys.platform}, which has no poll() on"
                " pipes; switch the capture off (include_stdio_in_messages, capture_stdio)"
            )
        if self._started:
            raise RuntimeError("a StdioCapture can be started only once")
        self._started = True
        flush_streams(self._streams)
        try:
            self._divert()
        except BaseException as error:
            self.stop(_EXIT_TIMEOUT)
            if isinstance(error, (OSError, RuntimeError)):
                raise ChannelError(f"stdout and stderr cannot be captured: {error}") from error
            raise

    def _divert(self) -> None:
        atexit.register(self.stop, _EXIT_TIMEOUT)
        usable = [name for name in self._streams if FdTap.usable(name)]
        self._taps.extend(FdTap(name) for name in usable)
        for name in self._streams:
            stream = getattr(sys, name)
            if stream is not None and not reaches(stream, [STREAMS[other] for other in usable]):
                self._taps.append(TextTap(name, stream))
        for tap in self._taps:
            tap.open()
        self._wake_read, self._wake_write = open_pipe()
        self._reader = StdioReader(
            self._taps, self._wake_read, self._emit, self._hold, self._restore
        )
        self._thread = threading.Thread(
            target=self._reader.run, name="dagsterpipes-stdio", daemon=True
        )
        self._thread.start()
        self._reader.ready.wait()
        with _lock:
            _active.append(self)
        for tap in self._taps:
            tap.install(self._thread)

    def stop(self, timeout: float) -> bool:
        """Restore the streams, and emit everything that was written before.

        A child process that lives on and still holds the pipe does not delay this. What it writes
        from now on is only shown, and that as long as this process lives.

        May be called again: after an exception that came in between, it does the rest.

        Args:
            timeout: In seconds; bounds the wait for ``emit`` and for the real streams.

        Returns:
            Whether all text was emitted in time. The streams are restored in either case.
        """
        if not self._started:
            return True
        if self._reader is None or self._reader.claim.acquire(blocking=False):
            self._stop_without_reader()
            return True
        deadline = time.monotonic() + timeout
        try:
            # A flush blocks for ever when nobody reads: ask first. What is then left in Python's
            # buffers goes to the restored streams.
            if self._answers(timeout):
                flush_streams(self._streams)
        finally:
            self._restore()
            self._tell(STOP)
            close_all(self, "_wake_write")
        in_time = self._reader.drained.wait(max(0.0, deadline - time.monotonic()))
        if in_time and not self._reader.outlived and self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return in_time

    def _stop_without_reader(self) -> None:
        """Stop where no thread came up, or (in a forked child) came along."""
        flush_streams(self._streams)
        self._restore()
        if self._reader is None:
            for tap in self._taps:
                tap.close()
            close_all(self, "_wake_read")
        else:
            self._reader.close()
        close_all(self, "_wake_write")

    def _answers(self, timeout: float) -> bool:
        """Whether the reader empties the pipes within ``timeout`` seconds."""
        assert self._reader is not None
        # Not told: this is a second call, and the first has told it to stop.
        return self._tell(ASK) and self._reader.alive.wait(timeout)

    def _tell(self, order: bytes) -> bool:
        if self._wake_write < 0:
            return False
        with contextlib.suppress(OSError):  # it has failed, and restored the streams
            write_all(self._wake_write, order)
        return True

    def _restore(self) -> None:
        with _lock:
            if self in _active:
                _active.remove(self)
        for tap in self._taps:
            tap.restore()
        atexit.unregister(self.stop)

    def _after_fork_in_child(self) -> None:
        """Keep the write ends, which lead to the parent, and what `stop` needs."""
        for tap in self._taps:
            tap.after_fork_in_child()
        assert self._reader is not None
        self._reader.after_fork_in_child()
        close_all(self, "_wake_write")


def _after_fork_in_child() -> None:
    for capture in _active:
        capture._after_fork_in_child()  # noqa: SLF001 because it is this module's
    _lock.release()


process.add_fork_hooks(process.ForkHooks(_lock.acquire, _lock.release, _after_fork_in_child))
