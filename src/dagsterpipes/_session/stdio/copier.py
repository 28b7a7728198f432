"""The process that reads what is printed: it shows it, sends it, and outlives whoever printed it.

It runs in an interpreter of its own, without `site` and with few imports, so it starts in the time in
which the job opens its session. Whatever happens to the job, what it wrote is in a pipe that this
process reads:

- *shown* on the real streams, as it is, until nobody can write to the pipe any more;
- *sent* as messages, until the job closes its session or ends. It appends them to the messages file
  as any other process may; for other channels it gives the text to the job.

When the job ends without a close, the last message says how it ended.
"""

from __future__ import annotations

import _thread
import codecs
import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import struct
import sys
import time
from _queue import Empty, SimpleQueue
from collections import deque
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._protocol.envelope import PAGE_SIZE, message_head
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STOP, BYE, ENDED = b"s", b"b", b"e"
"""What the job orders: send the rest and then only show; the session is closed. And that it has ended
without the latter."""

INTERVAL = 0.02
"""Seconds between two writes to the messages file that nothing urgent asks for."""

UNREAD = 16 << 20
"""Bytes that may wait in memory to be shown or sent; then writers wait, as they do for any pipe."""

_LOOK = 20  # milliseconds between two looks at the flags of the pipes while nothing is printed
_LAST_TRIES = 10  # of half a second, to write how the job ended

_READ_SIZE = 1 << 18
_BATCH = 1 << 20


# -- text -----------------------------------------------------------------------------------------

_HEADS = {
    name: f'{message_head("log_external_stream")}{{"stream": "{name}", "text": '.encode()
    for name in ("stdout", "stderr")
}
_TAIL = b', "extras": {}}}\n'

TEXT_LIMIT = PAGE_SIZE - len(_HEADS["stdout"]) - len('""') - len(_TAIL)
"""What a page leaves for the text of one message, in bytes after JSON escaping."""

_LONGEST_ESCAPE = 12  # a character beyond U+FFFF is written as two \uXXXX


def text_message(stream: str, text: str) -> bytes:
    """The line of `messages.external_stream` for text without lone surrogates."""
    return _HEADS[stream] + encode_basestring_ascii(text).encode() + _TAIL


def escaped_length(text: str) -> int:
    """How long ``text`` is inside a JSON string, in bytes, when everything is ASCII."""
    return len(encode_basestring_ascii(text)) - len('""')


def chunks(text: str, limit: int = TEXT_LIMIT) -> Iterator[str]:
    """Cut ``text`` into pieces whose escaped length is at most ``limit``.

    The pieces joined are ``text``. A cut is made after a newline wherever one is in reach: a line
    is divided only when it does not fit into a piece of its own.

    Args:
        text: Any text.
        limit: In bytes after JSON escaping; at least 12, which one character may need.

    Raises:
        ValueError: ``limit`` is under 12.
    """
    if limit < _LONGEST_ESCAPE:
        raise ValueError(f"limit must be at least {_LONGEST_ESCAPE}, got {limit}")
    start, size = 0, len(text)
    reach = limit  # how many characters are likely to fit; escaping never makes text shorter
    while start < size:
        end = min(start + reach, size)
        while (length := escaped_length(text[start:end])) > limit:
            end = start + max(1, (end - start) * limit // length)
        reach = min(limit, (end - start) * limit // length)
        if end < size:
            end = _line_break(text, start, end, limit)
        yield text[start:end]
        start = end


def _line_break(text: str, start: int, end: int, limit: int) -> int:
    """Where to cut when ``text[start:end]`` fits and is not all: after a line if possible."""
    if before := text.rfind("\n", start, end) + 1:
        return before
    # `end` was guessed from the average expansion, so the line may fit although it ends later.
    after = text.find("\n", end, start + limit) + 1 or len(text)
    if after - start <= limit and escaped_length(text[start:after]) <= limit:
        return after
    return end


class LineChunker:
    r"""Turns the bytes of one stream into pieces of whole lines, each within ``limit``.

    Nothing is lost: a character that is cut in two by a read waits for its second half, and bytes
    that are not UTF-8 come out as ``\xff``, four plain characters. (Dagster prints captured text
    to its own stdout; surrogates, the other lossless way, would raise in its reader thread and
    stop it.)

    The unfinished last line is held back until its newline comes, until it fills a piece, or until
    `release` or `finish`.

    Args:
        limit: As for `chunks`.
    """

    def __init__(self, limit: int = TEXT_LIMIT) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.held = ""  # the unfinished last line; always fits one piece

    def feed(self, data: bytes) -> list[str]:
        """Add what was read; returns the pieces that are complete now."""
        return self._take(self._decoder.decode(data))

    def release(self) -> list[str]:
        """Hand out the unfinished line as it is; half a character stays."""
        held, self.held = self.held, ""
        return [held] if held else []

    def finish(self) -> list[str]:
        """Hand out everything: no more bytes will come. The chunker can be used again."""
        return [*self._take(self._decoder.decode(b"", final=True)), *self.release()]

    def _take(self, new: str) -> list[str]:
        text = self.held + new
        whole = text.rfind("\n") + 1
        pieces = list(chunks(text[:whole], self._limit))
        rest = list(chunks(text[whole:], self._limit))
        self.held = rest.pop() if rest else ""
        return pieces + rest


# -- how the job ended ----------------------------------------------------------------------------


class Job:
    """The process that opened the session: whether it lives, and how it ended.

    A parent learns that from the system, a child has to look: while the process is dying, Linux shows
    its exit code in ``/proc``; from 6.15 on it tells whoever holds a pidfd afterwards, too.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.pidfd = -1
        self._stat = -1
        with contextlib.suppress(OSError, AttributeError):
            self.pidfd = os.pidfd_open(pid)
        with contextlib.suppress(OSError):
            self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        if os.getppid() != pid and self.pidfd >= 0:  # too late: the number may be another's
            os.close(self.pidfd)
            self.pidfd = self._stat = -1
        self._code: int | None = None
        self._counters = _oom_counters()
        self._killed_for_memory = self._count_oom_kills()

    def is_ending(self) -> bool:
        """Whether it is dead or dying; asked when there is reason to believe so."""
        is_over = os.getppid() != self._pid
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = os.pread(self._stat, 4096, 0)
            fields = stat[stat.rindex(b")") + 2 :].split()
            if fields[0] in {b"Z", b"X"} or int(fields[6]) & _EXITING:
                self._code = int(fields[49])
                is_over = True
        if is_over and self._code is None:
            with contextlib.suppress(OSError):
                self._code = _exit_code(self.pidfd)
        return is_over

    def closed_line(self) -> bytes:
        """The message that the session is closed, with how the process ended as an exception."""
        name, text = self._end()
        exception = {
            "message": text,
            "stack": [f"{name}: {text}\n"],
            "name": name,
            "cause": None,
            "context": None,
        }
        return f"{message_head('closed')}{json.dumps({'exception': exception})}}}\n".encode()

    def _end(self) -> tuple[str, str]:
        """Name and text of the exception."""
        if self._code is None:
            return "ProcessEnded", (
                "the process ended without closing its session; how it ended could not be found out"
            )
        number = self._code & 0x7F
        if not number:
            return "ProcessEnded", (
                f"the process ended with exit status {self._code >> 8} without closing its session"
            )
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        text = f"the process was ended by {name} ({signal.strsignal(number)})"
        if number == signal.SIGKILL and self._counters:
            if self._count_oom_kills() != self._killed_for_memory:
                text += ": out of memory, for which the system has ended a process at this time"
            else:
                text += ": somebody sent it; the system ended no process for lack of memory"
        return "ProcessKilled", text + ", without closing its session"

    def _count_oom_kills(self) -> list[int]:
        counts = []
        for counter in self._counters:
            lines = os.pread(counter, 1 << 16, 0).splitlines()
            counts += [int(line.split()[1]) for line in lines if line.startswith(b"oom_kill ")]
        return counts


_EXITING = 4  # PF_EXITING


def _exit_code(pidfd: int) -> int | None:
    """Ask a pidfd (Linux 6.15 and later); the process must have been waited for."""
    info = bytearray(64)
    wanted = 8  # PIDFD_INFO_EXIT
    struct.pack_into("Q", info, 0, wanted)
    fcntl.ioctl(pidfd, 0xC040FF0B, info)  # PIDFD_GET_INFO
    has_it = struct.unpack_from("Q", info)[0] & wanted
    return int(struct.unpack_from("i", info, 60)[0]) if has_it else None


def _oom_counters() -> list[int]:
    """Files in which the system counts processes that it ends for memory: in the cgroup, or in all."""
    places = []
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as groups:  # noqa: PTH123 because pathlib is slow to import
        for line in groups:
            _, kinds, path = line.rstrip("\n").split(":", 2)
            if not kinds:
                places += [f"/sys/fs/cgroup{path}/memory.events", "/sys/fs/cgroup/memory.events"]
            elif kinds == "memory":
                places.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    for place in [*places, "/proc/vmstat"]:
        with contextlib.suppress(OSError):
            return [os.open(place, os.O_RDONLY)]
    return []


# -- where it goes --------------------------------------------------------------------------------


class Source:
    """One pipe, from which a stream's text comes.

    Args:
        stream: ``"stdout"`` or ``"stderr"``.
        read_fd: The pipe's read end.
        real_fd: Where it is shown; -1 if that is done already.
        write_fd: The pipe as its writers have it open, for its flags; -1 if nobody shares it.
    """

    def __init__(self, stream: str, read_fd: int, real_fd: int, write_fd: int) -> None:
        self.stream = stream
        self.read_fd = read_fd
        self.real_fd = real_fd
        self.write_fd = write_fd
        self.is_broken = False  # nobody reads the real stream any more
        self.taken = self.done = 0  # bytes; each is changed by one thread
        self.to_show: SimpleQueue[bytes | SimpleQueue[None] | None] = SimpleQueue()
        self.lines = LineChunker()
        self.due: float | None = None  # when the unfinished line is sent, as time.monotonic()
        os.set_blocking(read_fd, False)

    def read(self) -> bytes | None:
        """Read once; nothing at the end, None if there is nothing at present."""
        self.make_blocking()
        try:
            return os.read(self.read_fd, _READ_SIZE)
        except BlockingIOError:
            return None

    def make_blocking(self) -> None:
        """Let writes to the pipe wait for room."""
        # A program may switch that off for its own sake (Node.js does), but the flag is everybody's.
        # While it is off, a write to a full pipe fails: so before anything else makes room.
        if self.write_fd >= 0:
            flags = fcntl.fcntl(self.write_fd, fcntl.F_GETFL)
            if flags & os.O_NONBLOCK:
                fcntl.fcntl(self.write_fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)

    def leave_writers(self) -> None:
        """Hold the pipe open no longer."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def show(self) -> None:
        """Write to the real stream what is to be shown; the main function of a thread."""
        while (item := self.to_show.get()) is not None:
            if isinstance(item, bytes):
                self._write(item)
                self.done += len(item)
            else:
                item.put(None)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self.is_broken:
            try:
                view = view[os.write(self.real_fd, view) :]
            except BlockingIOError:  # noqa: PERF203 because a write takes a thousand times as long
                writable = select.poll()
                writable.register(self.real_fd, select.POLLOUT)
                writable.poll()
            except OSError as error:
                self.is_broken = isinstance(error, BrokenPipeError)
                return  # its disk is full: without us, that would be the writer's to know


class Sender:
    """Makes messages of the text; the main function of a thread is `run`.

    Args:
        answers: The pipe to the job.
        messages: What `FileChannel` needs to attach to the messages file; None if the job is to send
            the text.
        job: The job.
        hold: Seconds that the beginning of a line may wait for its end.
        sources: The streams.
        owns_session: Whether the job is the process that sends ``closed``.
    """

    def __init__(
        self,
        answers: int,
        messages: dict[str, str] | None,
        job: Job,
        hold: float,
        sources: list[Source],
        *,
        owns_session: bool,
    ) -> None:
        self.items: deque[tuple[Source, bytes] | bytes] = deque()
        self.wake: SimpleQueue[bool] = SimpleQueue()
        self._turn = _thread.allocate_lock()
        self.taken = self.done = 0  # bytes; each is changed by one thread
        self.is_stopping = False  # whoever closes the session waits
        self.is_held = False  # another process can still print then
        self._answers = answers
        self._job = job
        self._hold = hold
        self._sources = sources
        self._owns_session = owns_session
        self._pending: list[bytes] = []
        self._size = 0
        self._last_write = 0.0
        self._channel: FileChannel | None = None
        self._has_begun = self._is_complete = False
        if messages is not None:
            with contextlib.suppress(OSError):  # it may be the job's alone
                self._channel = _attach(**messages)

    def run(self) -> None:
        """Take what is to be sent; the main function of a thread."""
        goes_on = True
        while goes_on:
            try:
                goes_on = self.wake.get(timeout=self._patience())
            except Empty:
                with self._turn:
                    self._release()
                    self._write()
            self.take()

    def take(self) -> None:
        """Take what is to be sent, in this thread."""
        with self._turn:
            while self.items:
                item = self.items.popleft()
                if item == STOP:
                    self._finish()
                elif item == ENDED:
                    self._say_how_it_ended()
                else:
                    self._take(*item)

    def _patience(self) -> float | None:
        """Seconds until there is something to do, whatever comes."""
        dues = [source.due for source in self._sources if source.due is not None]
        if self._pending or (self._channel is not None and self._channel.unwritten()):
            dues.append(self._last_write + INTERVAL)
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _take(self, source: Source, data: bytes) -> None:
        self._add(source, source.lines.feed(data))
        self.done += len(data)
        if not source.lines.held:
            source.due = None
        elif source.due is None:
            source.due = time.monotonic() + self._hold
        if self._size > _BATCH or time.monotonic() - self._last_write > INTERVAL:
            self._write()

    def _release(self) -> None:
        now = time.monotonic()
        for source in self._sources:
            if source.due is not None and source.due <= now:
                source.due = None
                self._add(source, source.lines.release())

    def _add(self, source: Source, pieces: list[str]) -> None:
        for text in pieces:
            line = text_message(source.stream, text)
            self._pending.append(line)
            self._size += len(line)

    def _write(self) -> None:
        """Write what is pending; what cannot be written now is tried again after the interval."""
        self._last_write = time.monotonic()
        lines = b"".join(self._pending)
        if self._channel is None:
            self._give_to_job(lines)
        elif self._has_begun or self._channel.has_begun():
            self._has_begun = True
            # While the disk is full, no more is taken after some time: writers wait, as for any pipe.
            while not self._append(lines) and self._waits_for_disk():
                lines = b""
                time.sleep(0.05)
        else:
            return  # not before the first message
        self._pending = []
        self._size = 0

    def _waits_for_disk(self) -> bool:
        assert self._channel is not None
        return not self.is_stopping and len(self._channel.unwritten()) > UNREAD

    def _append(self, lines: bytes) -> bool:
        assert self._channel is not None
        if self._is_complete:
            return True
        try:
            self._channel.write(lines)
        except SessionClosedError:  # nothing may follow
            self._is_complete = True
        except OSError:
            return False
        return True

    def _give_to_job(self, lines: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended
            view = memoryview(lines)
            while view:
                view = view[os.write(self._answers, view) :]

    def _finish(self) -> None:
        """Send all of it, and tell the job so once all of it is shown, too."""
        for source in self._sources:
            self._add(source, source.lines.finish())
            source.due = None
        self._write()
        # What could not be written goes where the job's own messages go.
        if self._channel is not None and not self._is_complete:
            rest = self._channel.unwritten()
            if rest:
                self._channel.after_fork_in_child()  # which forgets it
            self._give_to_job(rest + b"".join(self._pending))
        self._pending = []
        shown: SimpleQueue[None] = SimpleQueue()
        for source in self._sources:
            source.to_show.put(shown)
        for _ in self._sources:
            shown.get()
        self._give_to_job(b"held\n" if self.is_held else b"done\n")

    def _say_how_it_ended(self) -> None:
        if self._channel is None:
            return
        for source in self._sources:
            self._add(source, source.lines.finish())
        closed = self._job.closed_line() if self._owns_session else b""
        lines = b"".join(self._pending) + closed
        for _ in range(_LAST_TRIES):  # another process may hold the lock
            if self._append(lines):
                break
            lines = b""
        self._pending = []
        self._is_complete = True


def _attach(path: str, filler: str | None, last: str | None) -> FileChannel:
    os.stat(path)  # noqa: PTH116 because it must not be created anew, and pathlib is slow to import
    fill, end = (None if line is None else line.encode() for line in (filler, last))
    channel = FileChannel(path, fill, last=end)
    channel.attach_to_existing()
    return channel


# -- the process ----------------------------------------------------------------------------------


class Copier:
    """Reads the pipes, at once and whatever becomes of the text, and follows the job.

    Args:
        orders: The pipe from the job.
        signals: A pipe that tells of SIGUSR1.
        sender: Sends.
        sources: The streams.
        job: The job.
    """

    def __init__(
        self, orders: int, signals: int, sender: Sender, sources: list[Source], job: Job
    ) -> None:
        self._orders = orders
        self._signals = signals
        self._sender = sender
        self._sources = sources
        self._job = job
        self._is_sending = True
        self._is_over = False  # the session is, one way or the other
        self._open = {source.read_fd: source for source in sources}
        self._poller = select.poll()
        self._poller.register(orders, select.POLLIN)
        self._poller.register(signals, select.POLLIN)
        if job.pidfd >= 0:
            self._poller.register(job.pidfd, select.POLLIN)
        for fd in self._open:
            self._poller.register(fd, select.POLLIN)
        self._is_full = False
        # While the job has just ended: what is shown after that was sent.
        self._is_last = False
        self._to_show: list[tuple[Source, bytes]] = []

    def run(self) -> None:
        """Go on until the session is over and nobody can print any more."""
        while self._open or not self._is_over:
            events = [fd for fd, _ in self._poller.poll(self._patience())]
            if self._orders in events:
                self._obey()
            if self._signals in events:
                # The job has become another program, which captures by itself.
                os.read(self._signals, 64)
                self._stop_sending(STOP)
                self._sender.wake.put(True)
            if not self._is_over and (self._job.pidfd in events or self._job.pidfd < 0):
                self._look_at_job()
            for fd in events:
                if fd in self._open:
                    self._read(self._open[fd])
            self._set_full()

    def _patience(self) -> int | None:
        if self._is_full:
            return 10
        if self._is_sending:
            return _LOOK
        return 100 if self._job.pidfd < 0 and not self._is_over else None

    def _set_full(self) -> None:
        """Read nothing while too much waits to be shown or sent."""
        unread = max(source.taken - source.done for source in self._sources)
        unread = max(unread, self._sender.taken - self._sender.done)
        is_full = unread > UNREAD
        if is_full != self._is_full:
            self._is_full = is_full
            for fd in self._open:
                self._poller.modify(fd, 0 if is_full else select.POLLIN)
        for source in self._open.values():
            source.make_blocking()

    def _read(self, source: Source) -> int:
        """Read once; how many bytes there were."""
        data = source.read()
        if data is None:
            return 0
        if not data:
            self._poller.unregister(source.read_fd)
            del self._open[source.read_fd]
            os.close(source.read_fd)
            return 0
        if source.real_fd >= 0:
            source.taken += len(data)
            if self._is_last:
                self._to_show.append((source, data))
            else:
                source.to_show.put(data)
        if self._is_sending:
            self._sender.taken += len(data)
            self._sender.items.append((source, data))
            if not self._is_last:
                self._sender.wake.put(True)
        elif source.is_broken:
            # As without us: whoever writes where nobody reads is told by SIGPIPE.
            self._poller.unregister(source.read_fd)
            del self._open[source.read_fd]
            os.close(source.read_fd)
        return len(data)

    def _read_all(self) -> None:
        """Read what is in the pipes now; who never stops writing cannot prolong this."""
        for source in list(self._open.values()):
            room = bytearray(4)
            fcntl.ioctl(source.read_fd, _FIONREAD, room)
            left = int.from_bytes(room, sys.byteorder)
            while left > 0:
                left -= self._read(source) or left
            if source.write_fd >= 0:
                source.leave_writers()
            if source.read_fd in self._open and not left:
                self._notice_end(source)

    def _notice_end(self, source: Source) -> None:
        """Take leave of a pipe that has no writers any more."""
        poller = select.poll()
        poller.register(source.read_fd, select.POLLIN)
        events = poller.poll(0)
        if events and not events[0][1] & select.POLLIN:
            self._read(source)

    def _obey(self) -> None:
        orders = os.read(self._orders, 64)
        if STOP in orders:
            self._stop_sending(STOP)
            self._sender.wake.put(True)
        if BYE in orders:
            self._is_over = True
        if BYE in orders or not orders:
            self._poller.unregister(self._orders)
            self._orders = -1
        if not orders and not self._is_over:
            # Perhaps before its parent learns of it: Dagster stops reading soon after that.
            self._look_at_job()
        # If it lives, it has closed all descriptors, or is another program by now.

    def _stop_sending(self, order: bytes) -> None:
        self._sender.is_stopping = True
        if self._is_sending:
            self._read_all()
            self._is_sending = False
            self._sender.is_held = bool(self._open)
        self._sender.items.append(order)

    def _look_at_job(self) -> None:
        if not self._job.is_ending():
            return
        self._is_over = True
        if self._job.pidfd >= 0:
            self._poller.unregister(self._job.pidfd)
        # In this thread, and nothing else first: there are milliseconds at most.
        self._is_last = True
        self._stop_sending(ENDED)
        self._sender.take()
        self._is_last = False
        for source, data in self._to_show:
            source.to_show.put(data)


_FIONREAD = 0x541B if sys.platform == "linux" else 0x4004667F


def run(text: str) -> None:
    """Run the process; ``text`` is what `StdioCapture` made of it, as JSON."""
    setup = json.loads(text)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.disable()  # nothing is freed by it, and it might run when it is urgent
    sys.setswitchinterval(0.0001)  # so must no thread wait long for another
    job = Job(setup["pid"])
    sources = [Source(*source) for source in setup["sources"]]
    sender = Sender(
        setup["answers"],
        setup["messages"],
        job,
        setup["hold"],
        sources,
        owns_session=setup["owns_session"],
    )
    copier = Copier(setup["orders"], told, sender, sources, job)
    sent = _start(sender.run)
    shown = [_start(source.show) for source in sources]
    os.write(setup["answers"], b"\n")
    copier.run()
    sender.wake.put(False)
    sent.acquire()  # it may wait for what is being shown
    for source, running in zip(sources, shown, strict=True):
        source.to_show.put(None)
        running.acquire()
    os._exit(0)


def _start(function: Callable[[], None]) -> _thread.LockType:
    """Run a function in a thread; the lock is released at its end."""
    running = _thread.allocate_lock()
    running.acquire()

    def main() -> None:
        try:
            function()
        finally:
            running.release()

    _thread.start_new_thread(main, ())
    return running
