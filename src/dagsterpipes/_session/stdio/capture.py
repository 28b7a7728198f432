"""Capture of what the process and its children write to stdout and stderr: the job's side.

The standard descriptors become the write ends of pipes. Another process reads them, the copier: so what
was written is shown and sent whatever becomes of this one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes._session import process
from dagsterpipes._session.stdio.taps import (
    STREAMS,
    FdTap,
    TextTap,
    close_all,
    duplicate,
    flush_streams,
    has_room,
    open_pipe,
    reaches,
    supported,
    write_all,
)
from dagsterpipes.exceptions import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dagsterpipes._delivery.channels.posix import Descriptor
    from dagsterpipes._session.stdio.taps import Tap

_EXIT_TIMEOUT = 5.0  # seconds that a forgotten capture may take at exit
_START_TIMEOUT = 10.0  # seconds that the copier may take to start
_END_TIMEOUT = 1.0  # seconds in which a copier ends that has nothing left to do

CAPTURED_ENV_VAR = "DAGSTERPIPES_STDIO"
"""Tells child processes that inherit the environment which pipes a copier reads for the session: the
process that captures, its copier, and the inodes."""

_FIRST, _HIGH = 3, 24  # the numbers of what the copier gets; 0, 1 and 2 lead nowhere
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1")
    if hasattr(signal, name)
]
_PACKAGE = __file__.rpartition(os.sep)[0].rpartition(os.sep)[0].rpartition(os.sep)[0]

# Started without the package's own imports, which take as long as the interpreter.
_BOOT = """
import os, sys
os.setsid()
package = type(sys)("dagsterpipes")
package.__path__ = [sys.argv[1]]
sys.modules["dagsterpipes"] = package
try:
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > int(sys.argv[2]):
            try:
                os.close(fd)
            except OSError:
                pass
except OSError:
    pass
from dagsterpipes._session.stdio.copier import run
run(sys.argv[3])
"""

_lock = threading.RLock()  # guards _active
_active: list[StdioCapture] = []  # the outermost first
_left_running: list[int] = []  # copiers that others still print to, to be waited for some day


class MessagesFile(NamedTuple):
    """What a copier needs to append to the messages file itself."""

    path: str
    filler: str | None
    last: str | None


class StdioCapture:
    """Captures stdout and stderr of this process and its children, C code included.

    Guarantees: the bytes go on to the real streams, in order, whatever becomes of this process. All
    text is sent, in order per stream, in pieces that fit one message of one page (see ``LineChunker``
    for lines and for bytes that are not UTF-8). When that is slow, writers wait, so memory is
    bounded. When ``emit`` raises, the text is still shown, the first error is kept, and the process
    goes on. The streams are restored by `stop`, by a `start` that fails, and at exit.

    A ``sys.stdout`` that is not file descriptor 1 (notebooks, pytest) is captured where Python
    writes to it. A stream that is closed is left out.

    Args:
        emit: Called with ``"stdout"`` or ``"stderr"`` and the text, always in a thread of the
            capture's own: with all of it, or, given a messages file, with what could not be written
            there. It must not write to the captured streams, or that text comes back to it for
            ever.
        streams: Which streams.
        hold: How long the beginning of a line may wait for its end, in seconds.
        messages: The messages file, if the copier can append to it.
        owns_session: Whether this process sends ``closed``, and the copier must if this one cannot;
            None if this is not the capture of a session.

    Threads: `start` and `stop` are for one thread at a time. A forked child's output is captured
    by the parent; `stop` in the child only restores the child's streams. Captures may be nested;
    stop the inner one first, or its text passes through the outer one to the end.
    """

    def __init__(
        self,
        emit: Callable[[str, str], None],
        *,
        streams: Iterable[str] = ("stdout", "stderr"),
        hold: float = 1.0,
        messages: MessagesFile | None = None,
        owns_session: bool | None = None,
    ) -> None:
        self._emit = emit
        self._streams = tuple(streams)
        self._hold = hold
        self._messages = messages
        self._owns_session = bool(owns_session)
        self._sets_variable = owns_session is not None
        self._started = False
        self._is_child = False  # a forked one
        self._taps: list[Tap] = []
        self._pid = 0  # the copier's, until it was waited for
        self._is_held = False  # another process can still write to a pipe
        self._orders: Descriptor | None = None
        self._answers: Descriptor | None = None
        self._lent: list[Descriptor | None] = []  # what the copier gets, until it has it
        self._thread: threading.Thread | None = None
        self._drained = threading.Event()
        self.error: BaseException | None = None
        """The first error that ``emit`` raised, or what became of the copier."""
        self.lost = 0
        """How many pieces of text ``emit`` refused by raising."""

    def start(self) -> None:
        """Divert the streams. What was written before is not captured.

        Raises:
            ChannelError: This platform has no pipes that can be waited for, or there are no more
                descriptors or processes to be had. The streams are as they were.
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
        _wait_for_left_running()
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
        self._start_copier()
        if self._messages is None:
            self._start_thread()
        with _lock:
            _active.append(self)
        for tap in self._taps:
            if isinstance(tap, TextTap) and self._thread is not None:
                tap.emitting_thread = self._thread.ident
            tap.install()
            close_all(tap.read_fd)
        if self._sets_variable:
            inodes = [os.fstat(tap.fd).st_ino for tap in self._taps if isinstance(tap, FdTap)]
            os.environ[CAPTURED_ENV_VAR] = " ".join(map(str, [os.getpid(), self._pid, *inodes]))

    def _start_copier(self) -> None:
        for tap in self._taps:
            self._lend(tap.read_fd, tap.real_fd, tap.write_fd)
        orders, self._orders = open_pipe()
        self._lend(orders)
        close_all(orders)
        self._answers, answers = open_pipe()
        self._lend(answers)
        close_all(answers)
        self._spawn()
        # The first answer: it has started, and will read.
        if not _wait_for(self._answers, _START_TIMEOUT) or not os.read(self._answers.number, 1):
            raise OSError(f"the process that is to read them did not start: {sys.executable}")

    def _lend(self, *descriptors: Descriptor | None) -> None:
        """Have a copy for the copier, above all the numbers that it has them under."""
        for descriptor in descriptors:
            self._lent.append(descriptor and duplicate(descriptor.number, _HIGH))

    def _spawn(self) -> None:
        executable = sys.executable
        if not executable or getattr(sys, "frozen", False):
            raise OSError(
                f"there is no Python interpreter to read them; sys.executable is {executable!r}"
            )
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(_FIRST)
        ]
        numbers = []
        highest = _FIRST - 1
        for lent in self._lent:
            if lent is not None:
                highest += 1
                actions.append((os.POSIX_SPAWN_DUP2, lent.number, highest))
            numbers.append(-1 if lent is None else highest)
        *numbers_of_taps, orders, answers = numbers
        setup = {
            "pid": os.getpid(),
            "orders": orders,
            "answers": answers,
            "sources": [
                (tap.stream, *numbers_of_taps[3 * i : 3 * i + 3])
                for i, tap in enumerate(self._taps)
            ],
            "messages": None if self._messages is None else self._messages._asdict(),
            "owns_session": self._owns_session,
            "hold": self._hold,
        }
        options = ["-I", "-S", "-E", "-c", _BOOT]
        self._pid = os.posix_spawn(
            executable,
            [executable, *options, _PACKAGE, str(highest), json.dumps(setup)],
            os.environ,
            file_actions=actions,
            setsigmask=_SIGNALS,  # until it has said what it thinks of them
        )
        close_all(*self._lent)

    def _start_thread(self) -> None:
        self._thread = threading.Thread(
            target=self._receive, name="dagsterpipes-stdio", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float, *, is_over: bool = True) -> bool:
        """Restore the streams, and send everything that was written before.

        A child process that lives on and still holds the pipe does not delay this. What it writes
        from now on is only shown, as long as it lives.

        May be called again: after an exception that came in between, it does the rest.

        Args:
            timeout: In seconds; bounds the wait for ``emit`` and for the real streams.
            is_over: Whether this is all; otherwise `end` follows.

        Returns:
            Whether all text was sent in time. The streams are restored in either case.
        """
        if not self._started:
            return True
        deadline = time.monotonic() + timeout
        if self._is_child or self._pid == 0:
            flush_streams(self._streams)
            self._restore()
            self._close()
            return True
        try:
            # A flush blocks for ever when nobody reads. What is then left in Python's buffers goes
            # to the restored streams.
            if all(tap.has_room(max(0.0, deadline - time.monotonic())) for tap in self._taps):
                flush_streams(self._streams)
        finally:
            self._restore()
            self._tell(b"s")
        in_time = self._wait_drained(deadline)
        if is_over:
            self.end()
        return in_time

    def end(self) -> None:
        """Tell the copier that the session is closed, and wait for it unless others still print."""
        if self._is_child or self._pid == 0:
            return
        self._tell(b"b")
        self._close()
        pid, self._pid = self._pid, 0
        may_end = self._drained.is_set() and not self._is_held and self.error is None
        if not _has_ended(pid, _END_TIMEOUT if may_end else 0):
            _left_running.append(pid)

    def _tell(self, order: bytes) -> None:
        if self._orders is not None:
            with contextlib.suppress(OSError):  # it has ended
                write_all(self._orders, order)

    def _wait_drained(self, deadline: float) -> bool:
        if self._thread is None:
            try:
                self._start_thread()
            except RuntimeError:  # the interpreter exits
                self._receive(deadline)
        in_time = self._drained.wait(max(0.0, deadline - time.monotonic()))
        if in_time and self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return in_time

    def _receive(self, deadline: float = math.inf) -> None:
        """Take what the copier gives to this process, until it has sent everything."""
        try:
            self._receive_lines(deadline)
        except BaseException as error:  # noqa: BLE001 because `error` is where it is looked for
            self._note(error)
        self._drained.set()

    def _receive_lines(self, deadline: float) -> None:
        assert self._answers is not None
        rest = b""
        while self._answers.is_ours() and _wait_for(self._answers, deadline - time.monotonic()):
            data = os.read(self._answers.number, 1 << 16)
            if not data:
                raise ChannelError("the process that reads stdout and stderr has ended")
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not line.startswith(b"{"):
                    self._is_held = line == b"held"
                    return
                text = json.loads(line)["params"]
                try:
                    self._emit(text["stream"], text["text"])
                except BaseException as error:  # noqa: BLE001 because the rest must be taken too
                    self.lost += 1
                    self._note(error)
        raise ChannelError("the descriptors of the capture were closed by the program")

    def _note(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def _restore(self) -> None:
        with _lock:
            if self in _active:
                _active.remove(self)
        close_all(*self._lent)
        for tap in self._taps:
            tap.restore()
        if self._sets_variable and not self._is_child:
            os.environ.pop(CAPTURED_ENV_VAR, None)
        atexit.unregister(self.stop)

    def _close(self) -> None:
        for tap in self._taps:
            tap.close()
        close_all(self._orders, self._answers)

    def _after_fork_in_child(self) -> None:
        """Keep what leads to the copier, which belongs to the parent, and what `stop` needs."""
        self._is_child = True
        for tap in self._taps:
            tap.after_fork_in_child()
        close_all(self._orders, self._answers)


def uncaptured() -> list[str]:
    """The standard streams that no copier of the session reads already.

    A child process that opens the session prints into the pipes of the one that has it open.
    """
    owner, copier, *inodes = map(int, os.environ.get(CAPTURED_ENV_VAR, "0 0").split())
    taken = []
    for name, fd in STREAMS.items():
        with contextlib.suppress(OSError):
            if os.fstat(fd).st_ino in inodes:
                taken.append(name)
    if taken and owner == os.getpid():
        # This process was another program when it captured (exec).
        if _has_ended(copier, 0):
            return list(STREAMS)
        os.kill(copier, signal.SIGUSR1)
        for name in taken:
            has_room(STREAMS[name], 1.0, used=0)
        taken = []
    return [name for name in STREAMS if name not in taken]


def _wait_for(descriptor: Descriptor, timeout: float) -> bool:
    """Whether there is something to read, within ``timeout`` seconds."""
    poller = select.poll()
    poller.register(descriptor.number, select.POLLIN)
    return bool(poller.poll(None if timeout == math.inf else max(0, math.ceil(timeout * 1000))))


def _has_ended(pid: int, timeout: float) -> bool:
    """Whether a child process has ended, within ``timeout`` seconds, and need not be waited for."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # somebody waits for all of them
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.0005)


def _wait_for_left_running() -> None:
    _left_running[:] = [pid for pid in _left_running if not _has_ended(pid, 0)]


def _after_fork_in_child() -> None:
    for capture in _active:
        capture._after_fork_in_child()  # noqa: SLF001 because it is this module's
    _left_running.clear()
    _lock.release()


process.add_fork_hooks(process.ForkHooks(_lock.acquire, _lock.release, _after_fork_in_child))
