"""The outbox: a bounded multi-producer, single-consumer queue of messages.

To send a message costs one ``deque.append`` and one comparison: are the messages in the queue, and four
times the characters of this one, more than ``fast_path_limit``? Everything else - waking the drain,
packing and counting, waiting for room, refusing what comes after the close - happens in
`Outbox.after_append`, which a producer calls only then.

**Why nothing is lost or late at the close.** A producer first appends its message and then looks at
``fast_path_limit``, which is -1 when no message may take the fast path. `Outbox.seal`, under the lock,
first sets ``sealed`` and the -1, and then takes the messages that are in the queue; what it takes is
delivered, whatever is found in the queue afterwards is refused.

* A producer that saw another number looked before it was -1, so it appended before that, so its
  message was in the queue when the closer took it: delivered.
* A producer that saw -1 asks, under the same lock, hence after the closer is done, whether its
  message is still in the queue. If so it takes it out and raises: refused, and nobody else will ever
  deliver it. If not, the closer has it: delivered.

So every message is either delivered before ``closed`` or refused with an error, never both and never
neither. The argument needs the two steps of each side to be seen in their order, which the GIL gives.
A free-threaded build does not promise it for plain reads, so there it is always -1 and no message
takes the fast path.

**Positions.** Messages are counted in bytes since the session began: ``accepted`` is the position behind
the last message that was counted, ``taken`` that behind the last one the drain has, ``flushed`` that up
to which everything is with the channel. A flush waits until ``flushed`` reaches the ``accepted`` of its
call.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = str | bytes | tuple[str, str]
"""A message: a log text, alone or with the tag of its level, or a line; once packed, also many texts in
one."""

FAST_PATH_LIMIT = 2048
"""A producer calls `Outbox.after_append` when the messages that wait uncounted, and four times the
characters of its own, are more than this together. So what is not counted is bounded: 262,144 characters
of the worst length.

`Outbox.after_append` takes about 80 us; at this limit it runs for far fewer than one call in a thousand, so
that it does not show in the 99.9th percentile."""

MAX_ITEM_BYTES = 3 * FAST_PATH_LIMIT
"""Bytes that an uncounted message is counted with at most: a character may need two escapes."""

FLOOD_SIZE = 1 << 16
"""Bytes of waiting messages that are worth a write at once."""

COUNT_STEP = 1 << 14
"""Bytes of messages between two places up to which messages are counted as delivered."""

Readiness = Literal["finished", "sealed", "pressing", "urgent", "flood", "some", "idle"]
"""What there is to take from an outbox, see `Outbox.ready`."""

_FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


class LogLine(bytes):
    """A line that may be dropped, as log texts may, when the buffer is full."""

    __slots__ = ()


class Batch(NamedTuple):
    """Messages taken from the outbox, in order; their bytes in the buffer; the position behind them.

    ``must_flush``: a flush waits for them, or they are the last; nothing may be held back.
    """

    items: list[Item]
    size: int
    end: int
    must_flush: bool


class Outbox:
    """A thread-safe FIFO of messages, bounded in bytes.

    Threads: every method may be called from any thread, also from a signal handler or a finalizer
    that interrupts another call (the lock is reentrant).

    Args:
        pack: Makes fewer and smaller objects of messages that follow each other; of these again the
            same.
        buffer_size: Bytes that may wait, packed, in memory. The bound is exceeded by the messages of
            the callers that are just being made to wait, and by what was not counted yet.
        on_full: ``"wait"`` makes callers wait for room; ``"drop_logs"`` drops log texts and
            `LogLine` lines, and makes callers with other lines wait only once twice ``buffer_size``
            is in use.
        wake: Called when the drain should look again; must be quick and may be called at any time.
    """

    def __init__(
        self,
        pack: Callable[[list[Item]], Sequence[Item]],
        *,
        buffer_size: int,
        on_full: Literal["wait", "drop_logs"],
        wake: Callable[[], None],
    ) -> None:
        self._pack = pack
        self.buffer_size = buffer_size
        self.on_full = on_full
        self._wake = wake
        # Appended and not yet counted. Producers append to it without the lock.
        self.items: deque[Item] = deque()
        # A producer must call after_append() if the messages in the queue, after it appended to it,
        # and four times the characters of its own are more than this together.
        self.fast_path_limit = -1
        # Set once, by seal().
        self.sealed = False
        # The last lines are in the queue.
        self._is_complete = False
        # Log texts and log lines dropped so far because the buffer was full.
        self.dropped = 0
        # Whether the drain has a time of its own for urgent log texts and for floods.
        self.is_paced = False
        # Threads that must never wait for room, by ident: those that make it.
        self.exempt_threads: set[int] = set()
        # Whether callers may wait for room: not before somebody makes it.
        self.has_drain = True
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        # Notified when there is room, when a flush may be done, and when there is nothing to wait for.
        self._progress = threading.Condition(self._lock)
        self._waiting: list[Item] = []
        # How many of the waiting messages are counted, and the position behind them. One tuple, so
        # that Ctrl-C never finds one without the other.
        self._counted = (0, 0)
        self._taken = 0
        # Bytes of what was taken that is with the channel.
        self._released = 0
        self._flushed = 0
        # The position up to which somebody waits for a flush.
        self._flush_to = 0
        # Messages that were counted so far, and how many of these are known to be with the channel; for
        # those in between, positions and the count up to there.
        self._accepted = self._delivered = 0
        self._counts: deque[tuple[int, int]] = deque()
        self._gathering = False
        self._full = False
        # The drain waits without a deadline: the next message wakes it.
        self._idle = True
        # Something that must not wait for the flush interval is in the queue.
        self._urgent = False
        # More than urgent log texts: a report, or a flush that is waited for.
        self._pressing = False
        # The drain was woken and has not looked yet.
        self._woken = False
        self._abandoned = False

    # -- producers ------------------------------------------------------------------------------

    def put(self, item: Item, *, urgent: bool = True) -> bool:
        """Append one message; return False if it was refused because the outbox is sealed."""
        self.items.append(item)
        return self.after_append(item, urgent=urgent)

    def put_first(self, line: bytes) -> None:
        """Put a line before everything that was not taken yet, unless it is there already."""
        with self._lock:
            self._gather()
            if self._waiting[:1] == [line]:  # of an opening that Ctrl-C interrupted
                return
            self._waiting.insert(0, line)
            count, end = self._counted
            self._counted = (count + 1, end + sys.getsizeof(line))
            self._note_count(1)
            self._urgent = self._pressing = True
            self._wake_drain()

    def after_append(self, item: Item, *, urgent: bool = False) -> bool:
        """Do what an appended message asks for; return False if the outbox refused it.

        May wait for room when the buffer is full. If the waiting is interrupted (by Ctrl-C), the
        message has been accepted.
        """
        with self._lock:
            if self.sealed:
                return not self._take_back(item)
            self._gather()
            self._urgent = self._urgent or urgent
            self._pressing = self._pressing or (urgent and type(item) is bytes)
            if self._idle or self._is_pressing() or (self._is_urgent() and not self.is_paced):
                self._wake_drain()
            if self._full and (self.on_full == "wait" or type(item) is bytes):
                self._wait_for_room()
        return True

    def _take_back(self, item: Item) -> bool:
        items = self.items
        # By index: other producers may be appending, which a plain iteration would not survive.
        for index in range(len(items)):
            if items[index] is item:
                del items[index]
                return True
        return False

    def _wait_for_room(self) -> None:
        if threading.get_ident() in self.exempt_threads:
            return
        bound = 2 * self.buffer_size if self.on_full == "drop_logs" else 0
        while self._full and self._buffered > bound and self.has_drain and not self.sealed:
            self._wake_drain()
            self._progress.wait()

    @property
    def _buffered(self) -> int:
        """Bytes that are counted and not yet with the channel."""
        return self._counted[1] - self._released

    def _gather(self) -> None:
        """Move what was appended to the counted messages. The lock is held."""
        # Behind the last line nothing may come: its producer takes it back. Or a signal handler or
        # finalizer came in between: its turn will come.
        if self._is_complete or self._gathering:
            return
        self._gathering = True
        try:
            # Filled and changed in one C call each: Ctrl-C between any two steps loses nothing, and
            # what it leaves uncounted is counted by the next call.
            self._waiting.extend(starmap(self.items.popleft, repeat((), len(self.items))))
            if len(self._waiting) > self._counted[0]:
                self._count()
            if self._buffered > self.buffer_size and not self._full:
                self._full = True
                self._update_fast_path()
        finally:
            self._gathering = False

    def _count(self) -> None:
        waiting = self._waiting
        count, end = self._counted
        new = len(waiting) - count
        if self._full and self.on_full == "drop_logs":
            kept = [item for item in waiting[count:] if type(item) is bytes]
            self.dropped += new - len(kept)
            new = len(kept)
            waiting[count:] = kept
        waiting[count:] = self._pack(waiting[count:])
        self._counted = (len(waiting), end + sum(map(sys.getsizeof, waiting[count:])))
        self._note_count(new)

    def _note_count(self, new: int) -> None:
        self._accepted += new
        counts, end = self._counts, self._counted[1]
        # Few, however many small steps there are, and none for what was dropped.
        if len(counts) > 1 and end - counts[-2][0] < COUNT_STEP:
            counts[-1] = (end, self._accepted)
        elif new:
            counts.append((end, self._accepted))

    def _is_pressing(self) -> bool:
        return self._pressing or self._full

    def _is_urgent(self) -> bool:
        return self._urgent or self._counted[1] - self._taken >= FLOOD_SIZE

    def _wake_drain(self) -> None:
        # What is noted is done: Ctrl-C in between must not leave the drain asleep.
        if not self._woken:
            self._wake()
            self._woken = True
        if self._idle:
            self._idle = False
            self._update_fast_path()

    def _update_fast_path(self) -> None:
        no_fast_path = self._idle or self._full or self.sealed or _FREE_THREADED
        self.fast_path_limit = -1 if no_fast_path else FAST_PATH_LIMIT

    # -- waiting --------------------------------------------------------------------------

    def statistics(self) -> tuple[int, int, int, int]:
        """Messages accepted, delivered and dropped, and the bytes that wait."""
        with self._lock:
            self._gather()
            return self._accepted, self._delivered, self.dropped, self._buffered

    def request_flush(self) -> int | None:
        """The position that a flush has to wait for, or None when the outbox is sealed."""
        with self._lock:
            if self.sealed:
                return None
            self._gather()
            goal = self._counted[1]
            if self._flushed < goal:
                self._flush_to = max(self._flush_to, goal)
                self._urgent = self._pressing = True
                self._wake_drain()
            return goal

    def is_flushed(self, goal: int) -> bool:
        """Whether everything up to this position is with the channel."""
        return self._flushed >= goal

    def wait_flushed(self, goal: int, timeout: float | None) -> bool:
        """Wait until everything up to this position is with the channel, or was given up."""
        with self._lock:
            return self._progress.wait_for(
                lambda: self._flushed >= goal or self._abandoned, timeout
            )

    def is_above_high_water(self) -> bool:
        """Whether more than half of the buffer is in use."""
        if (self._buffered + len(self.items) * MAX_ITEM_BYTES) * 2 <= self.buffer_size:
            return False
        with self._lock:
            self._gather()
            return self._buffered * 2 > self.buffer_size and not self.sealed

    def wait_below_high_water(self, timeout: float | None = None) -> bool:
        """Wait until at most half of the buffer is in use, or the outbox is sealed."""
        with self._lock:
            self._pressing = self._pressing or self._buffered * 2 > self.buffer_size
            self._wake_drain()
            return self._progress.wait_for(
                lambda: self._buffered * 2 <= self.buffer_size or self.sealed, timeout
            )

    def seal(self, last: Callable[[int], list[bytes]], timeout: float = -1) -> bool:
        """Accept what is here, put the last lines behind it, refuse whatever comes after.

        Args:
            last: Gives the last lines; called with the number of dropped log texts.
            timeout: Seconds to wait for the lock. Its owner may be the main thread, in a signal
                handler that waits for this.

        Returns:
            False if it was sealed before; then nothing happens.

        Raises:
            TimeoutError: The lock was not to be had.
        """
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError("the queue's lock was held by another thread")
        try:
            if self.sealed:
                return False
            self._gather()
            closing = last(self.dropped)  # an error in it leaves the outbox open
            self._full = False  # what arrived since the count above is kept, so that the reported count stays right
            self.sealed = True
            self.fast_path_limit = -1
            self._gather()
            self._waiting += closing
            self._count()
            self._is_complete = True
            self._wake_drain()
            self._progress.notify_all()
            return True
        finally:
            self._lock.release()

    # -- the drain ------------------------------------------------------------------------------

    def ready(self, *, may_idle: bool = True) -> Readiness:
        """What there is to take, by its most pressing reason.

        - "finished": nothing, and nothing will come.
        - "sealed": the last messages.
        - "pressing": a report; or somebody waits, for a flush or for room.
        - "urgent": a log text that is urgent.
        - "flood": many messages.
        - "some": some.
        - "idle": nothing; the next message wakes the drain.

        If not ``may_idle`` the drain looks again after the interval, which costs less than to be woken.
        """
        with self._lock:
            self._woken = False
            if self.sealed:
                return "sealed" if self._waiting else "finished"
            if self._is_pressing():
                return "pressing"
            if self._is_urgent():
                return "urgent" if self._urgent else "flood"
            if self._waiting or not may_idle:
                return "some"
            # The flag first, then the look: a producer that appends in between sees the flag.
            self._idle = True
            self._update_fast_path()
            if not self.items:
                return "idle"
            self._idle = False
            self._update_fast_path()
            return "some"

    def take(self, limit: int) -> Batch:
        """Everything that is waiting, up to about ``limit`` bytes but one message at least, in order.

        The messages count as buffered until they are released.
        """
        with self._lock:
            if self._abandoned:
                return Batch([], 0, self._taken, must_flush=True)
            self._gather()
            waiting = self._waiting
            size = count = 0
            while count < len(waiting) and size < limit:
                size += sys.getsizeof(waiting[count])
                count += 1
            items = waiting[:count]
            del waiting[:count]
            self._counted = (self._counted[0] - count, self._counted[1])
            self._taken += size
            self._urgent = bool(waiting)
            self._pressing = self._pressing and self._urgent
            must_flush = self._flushed < self._flush_to or (self.sealed and not waiting)
            return Batch(items, size, self._taken, must_flush)

    def release(self, size: int, flushed_to: int | None = None) -> None:
        """Give back the room of messages that are with the channel.

        Args:
            size: Their bytes.
            flushed_to: The position up to which everything is with the channel, if it has advanced.
        """
        with self._lock:
            self._released += size
            if flushed_to is not None and flushed_to > self._flushed:
                is_awaited = self._flushed < self._flush_to
                self._flushed = flushed_to
                while self._counts and self._counts[0][0] <= flushed_to:
                    self._delivered = self._counts.popleft()[1]
                if is_awaited:
                    self._progress.notify_all()
            if self._buffered * 2 <= self.buffer_size:
                if self._full:
                    self._full = False
                    self._update_fast_path()
                self._progress.notify_all()

    def is_finished(self) -> bool:
        """Whether the outbox is sealed and everything was taken."""
        with self._lock:
            return self.sealed and not self._waiting

    def abandon(self) -> list[Item]:
        """Take everything for good: the drain gets nothing any more, nobody waits for a flush."""
        with self._lock:
            items = self.take(sys.maxsize).items
            self._abandoned = True
            self._progress.notify_all()
            return items

    # -- fork -----------------------------------------------------------------------------------

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Wake somebody else from now on."""
        self._wake = wake

    def after_fork_in_child(self, wake: Callable[[], None]) -> None:
        """In a forked child: drop the parent's messages and use new locks."""
        self._wake = wake
        self.items.clear()
        self.dropped = 0
        self.exempt_threads.clear()
        self._reset()
        self._update_fast_path()
