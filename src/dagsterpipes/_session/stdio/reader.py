"""The thread behind a capture: it reads the pipes, shows the bytes and hands the text on."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import select
import threading
import time
from typing import TYPE_CHECKING

from dagsterpipes._protocol.envelope import PAGE_SIZE
from dagsterpipes._protocol.messages import external_stream
from dagsterpipes._session.stdio.taps import PIPE_SIZE, close_all, read, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dagsterpipes._session.stdio.taps import OwnDescriptor, Tap

TEXT_LIMIT = PAGE_SIZE - len(external_stream("stdout", "", None))
"""What a page leaves for the text of one message, in bytes after JSON escaping."""

_LONGEST_ESCAPE = 12  # a character beyond U+FFFF is written as two escapes of six characters


def escaped_length(text: str) -> int:
    """How long ``text`` is inside a JSON string, in bytes, when everything is ASCII."""
    return len(json.dumps(text)) - len('""')


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


ASK, STOP = b"?", b"!"
"""Orders: empty the pipes and say so in ``alive``; do it a last time and end."""

_READ_SIZE = 1 << 16


class StdioReader:
    """What one capture's thread knows and does.

    It waits in ``poll`` and nowhere else (save in ``emit`` and in writes to a real stream, where
    waiting is the wish: it makes writers wait too).

    Args:
        taps: Opened taps; their descriptors for reading and showing belong to the reader once it
            runs.
        wake_fd: Read end of a pipe through which it gets its orders; belongs to the reader too.
        emit: As for ``StdioCapture``.
        hold: As for ``StdioCapture``.
        restore: Called should the thread fail, so that nobody goes on to write into its pipes.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        wake_fd: OwnDescriptor,
        emit: Callable[[str, str], None],
        hold: float,
        restore: Callable[[], None],
    ) -> None:
        self.error: BaseException | None = None  # the first of emit, or what ended the thread
        self.lost = 0  # pieces of text that emit refused by raising
        self.claim = threading.Lock()  # taken once, by whoever will close the descriptors
        self.ready = threading.Event()  # the thread has taken it
        self.alive = threading.Event()  # asked, it has emptied the pipes (or has ended)
        self.drained = threading.Event()  # all text from before the order to stop was emitted
        self.outlived = False  # a child process still holds a pipe; set before `drained`
        self._sources = [_Source(tap) for tap in taps]
        self._wake_fd = wake_fd
        self._emit = emit
        self._hold = hold
        self._restore = restore

    def run(self) -> None:
        """Read until told to stop, then empty the pipes; the thread's main function."""
        if not self.claim.acquire(blocking=False):
            return  # start() was interrupted, and stop() has cleaned up
        self.ready.set()
        try:
            try:
                self._read_until_told()
                self._finish()
                self._show_the_rest()
            except BaseException as error:  # noqa: BLE001 because writers would block for ever
                self._note(error)
                self._restore()
        finally:
            self.close()

    def close(self) -> None:
        """Close what is still open and say that no more text will come."""
        for source in self._sources:
            source.tap.close()
        close_all(self, "_wake_fd")
        self.alive.set()
        self.drained.set()

    def after_fork_in_child(self) -> None:
        """Let whoever stops the capture here close the descriptors: the thread is the parent's."""
        close_all(self, "_wake_fd")
        self.claim = threading.Lock()

    def _read_until_told(self) -> None:
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        by_fd: dict[int, _Source] = {source.tap.read_fd: source for source in self._sources}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        while True:
            for number, _ in poller.poll(self._time_to_next_release()):
                if number == self._wake_fd:
                    orders = read(self._wake_fd, 64)
                    self._empty_pipes()
                    self.alive.set()
                    if STOP in orders or not orders:
                        return
                    continue
                self._read(by_fd[number])
                if by_fd[number].ended:
                    poller.unregister(number)
            now = time.monotonic()
            for source in self._sources:
                if source.due is not None and source.due <= now:
                    self._hand_on(source, source.lines.release())

    def _time_to_next_release(self) -> int | None:
        """Milliseconds until an unfinished line has waited long enough; ``None``: there is none."""
        due = min((s.due for s in self._sources if s.due is not None), default=None)
        return None if due is None else max(0, math.ceil((due - time.monotonic()) * 1000))

    def _empty_pipes(self) -> None:
        """Read what is in the pipes now; a child that never stops writing cannot prolong this."""
        for source in self._sources:
            left = PIPE_SIZE  # no pipe holds more
            while left > 0 and (size := self._read(source)):
                left -= size

    def _finish(self) -> None:
        """Hand on the unfinished lines, give up what ended, and say that all is emitted."""
        for source in self._sources:
            self._hand_on(source, source.lines.finish())
            if source.ended or source.tap.real_fd < 0:
                source.tap.close()
        self._sources = [source for source in self._sources if source.tap.read_fd >= 0]
        if self._sources:
            self.outlived = True
            self.drained.set()

    def _show_the_rest(self) -> None:
        """Show what child processes write after the end: a closed pipe would kill them."""
        poller = select.poll()
        by_fd: dict[int, _Source] = {source.tap.read_fd: source for source in self._sources}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        while by_fd:
            for number, _ in poller.poll():
                if data := read(by_fd[number].tap.read_fd, _READ_SIZE):
                    self._show(by_fd[number], data)
                else:
                    poller.unregister(number)
                    by_fd.pop(number).tap.close()

    def _read(self, source: _Source) -> int:
        """Read once, show and hand on; how many bytes, 0 if there are none at present."""
        if source.ended:
            return 0
        try:
            data = read(source.tap.read_fd, _READ_SIZE)
        except BlockingIOError:
            return 0
        source.ended = not data
        self._show(source, data)
        self._hand_on(source, source.lines.feed(data))
        return len(data)

    def _show(self, source: _Source, data: bytes) -> None:
        if source.tap.real_fd < 0:
            return
        with contextlib.suppress(OSError):  # its reader has gone, its disk is full: the job goes on
            write_all(source.tap.real_fd, data)

    def _hand_on(self, source: _Source, pieces: Iterable[str]) -> None:
        for text in pieces:
            source.due = None
            try:
                self._emit(source.tap.stream, text)
            except BaseException as error:  # noqa: BLE001 because the thread must outlive it
                self.lost += 1
                self._note(error)
        if not source.lines.held:
            source.due = None
        elif source.due is None:
            source.due = time.monotonic() + self._hold

    def _note(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error


class _Source:
    """One pipe with what was read from it and is not yet handed on."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.lines = LineChunker()
        self.due: float | None = None  # when the unfinished line is handed on, as time.monotonic()
        self.ended = False  # nobody holds the write end any more
