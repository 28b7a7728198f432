"""The outbox: a FIFO of messages between the threads that speak and the one that delivers.

Saying something costs one ``deque.append`` and one comparison: are the messages in the queue, and four
times the characters of this one, more than ``settle_above``? Everything else - waking the drain,
packing and counting, waiting for room, refusing what comes after the close - happens in
`Outbox.settle`, which a producer calls only then.

**Why nothing is lost or late at the close.** A producer first appends its message and then looks at
``settle_above``, which is -1 when every message has to be settled. `Outbox.seal`, under the lock,
first sets ``sealed`` and the -1, and then takes the messages that are in the queue; what it takes is
delivered, whatever is found in the queue afterwards is refused.

* A producer that saw another number looked before it was -1, so it appended before that, so its
  message was in the queue when the closer took it: delivered.
* A producer that saw -1 asks, under the same lock, hence after the closer is done, whether its
  message is still in the queue. If so it takes it out and raises: refused, and nobody else will ever
  deliver it. If not, the closer has it: delivered.

So every message is either delivered before ``closed`` or refused with an error, never both and never
neither. The argument needs the two steps of each side to be seen in their order, which the GIL gives.
A free-threaded build does not promise it for plain reads, so there it is always -1 and every message
is settled under the lock.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = str | bytes | tuple[str, str]
"""A message: a log text, alone or with its mark, or a line; once counted, also many texts in one."""

SETTLE_ABOVE = 2048
"""A producer settles when the messages that wait uncounted, and four times the characters of its own,
are more than this together. So what is not counted is bounded: 262,144 characters of the worst length.

Settling takes some 80 us, so it must be much rarer than the one call in a thousand that is judged."""

MOST_OF_ONE = 3 * SETTLE_ABOVE
"""Bytes that an uncounted message is counted with at most: a character may need two escapes."""

_FLOOD_SIZE = 1 << 16
"""Bytes of waiting messages that are worth a write at once."""


class Receipt:
    """Set once everything that was put before it is with the channel."""

    __slots__ = ("delivered", "done")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.delivered = False

    def settle(self, *, delivered: bool) -> None:
        """Tell whoever waits how it ended."""
        self.delivered = delivered
        self.done.set()


class LogLine(bytes):
    """A line that may be dropped, as log texts may, when the buffer is full."""

    __slots__ = ()


class Segment:
    """Consecutive messages that were counted, and at most one receipt behind them."""

    __slots__ = ("items", "receipt", "size")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.size = 0
        self.receipt: Receipt | None = None

    def is_closed(self) -> bool:
        return self.receipt is not None or self.size >= _FLOOD_SIZE

    def split_off(self, limit: int) -> tuple[list[Item], int]:
        """Take about the first ``limit`` bytes out of it, at least one message."""
        count = max(1, len(self.items) * limit // self.size)
        head = self.items[:count]
        del self.items[:count]
        size = min(memory_of(head), self.size) if self.items else self.size
        self.size -= size
        return head, size


class Taken:
    """What the drain took: messages in order, and the receipts to sign once they are written."""

    __slots__ = ("items", "receipts", "size")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.receipts: list[Receipt] = []
        # Bytes that these messages hold in the buffer until `Outbox.release`.
        self.size = 0


def memory_of(items: list[Item]) -> int:
    """Bytes of memory that these messages take."""
    return sum(map(sys.getsizeof, items))


_FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


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
            `LogLine` lines, and makes the callers with other lines wait only when these take as
            much again.
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
        # Said and not yet counted. Producers append to it without the lock.
        self.items: deque[Item] = deque()
        # A producer must call settle() if the messages in the queue, after it appended to it, and four
        # times the characters of its own are more than this together.
        self.settle_above = -1
        # Set once, by seal().
        self.sealed = False
        # The last lines are in the queue.
        self._is_complete = False
        # Log texts and log lines dropped so far because the buffer was full.
        self.dropped = 0
        # Threads that must never wait for room, by ident: those that make it.
        self.exempt_threads: set[int] = set()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._counted: deque[Segment] = deque()
        # Bytes in _counted and in what was taken and is not released.
        self._buffered = 0
        self._gathering = False
        self._full = False
        # The drain waits without a deadline: the next message wakes it.
        self._idle = True
        # Something that must not wait for the flush interval is in the queue.
        self._urgent = False
        # The drain was woken and has not looked yet.
        self._woken = False
        self._abandoned = False

    # -- producers ------------------------------------------------------------------------------

    def put(self, item: Item, *, urgent: bool = True) -> bool:
        """Append one message; return False if it was refused because the outbox is sealed."""
        self.items.append(item)
        return self.settle(item, urgent=urgent)

    def settle(self, item: Item, *, urgent: bool = False) -> bool:
        """Do what an appended message asks for; return False if the outbox refused it.

        May wait for room when the buffer is full. If the waiting is interrupted (by Ctrl-C), the
        message has been accepted.
        """
        with self._lock:
            if self.sealed:
                return not self._take_back(item)
            self._gather()
            self._urgent = self._urgent or urgent
            if self._urgent or self._idle or self._is_flooded():
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
        while self._full and self._buffered > bound and not self.sealed:
            self._wake_drain()
            self._room.wait()

    def _gather(self) -> None:
        """Move what was appended to the counted messages. The lock is held."""
        # Behind the last line nothing may come: its producer takes it back. Or a signal handler or
        # finalizer came in between: its turn will come.
        if self._is_complete or self._gathering:
            return
        self._gathering = True
        try:
            count = len(self.items)
            if count:
                self._move(count)
            if self._buffered > self.buffer_size and not self._full:
                self._full = True
                self._look_again()
        finally:
            self._gathering = False

    def _move(self, count: int) -> None:
        if not self._counted or self._counted[-1].is_closed():
            self._counted.append(Segment())
        segment = self._counted[-1]
        items = segment.items
        before = len(items)
        # The segment is registered before it is filled, and filled and changed in one C call each:
        # Ctrl-C between any two of these steps loses nothing.
        items.extend(starmap(self.items.popleft, repeat((), count)))
        if self._full and self.on_full == "drop_logs":
            kept = [item for item in items[before:] if type(item) is bytes]
            self.dropped += len(items) - before - len(kept)
            items[before:] = kept
        items[before:] = self._pack(items[before:])
        size = memory_of(items[before:])
        segment.size += size
        self._buffered += size

    def _is_flooded(self) -> bool:
        counted = self._counted
        return len(counted) > 1 or self._full or bool(counted and counted[0].is_closed())

    def _wake_drain(self) -> None:
        # What is noted is done: Ctrl-C in between must not leave the drain asleep.
        if not self._woken:
            self._wake()
            self._woken = True
        if self._idle:
            self._idle = False
            self._look_again()

    def _look_again(self) -> None:
        must_settle = self._idle or self._full or self.sealed or _FREE_THREADED
        self.settle_above = -1 if must_settle else SETTLE_ABOVE

    # -- whoever waits --------------------------------------------------------------------------

    def request_receipt(self) -> Receipt | None:
        """A receipt for everything put so far, or None when the outbox is sealed."""
        receipt = Receipt()
        with self._lock:
            if self.sealed:
                return None
            self._gather()
            if not self._counted or self._counted[-1].receipt is not None:
                self._counted.append(Segment())
            self._counted[-1].receipt = receipt
            self._urgent = True
            self._wake_drain()
        return receipt

    def is_above_high_water(self) -> bool:
        """Whether more than half of the buffer is in use."""
        if (self._buffered + len(self.items) * MOST_OF_ONE) * 2 <= self.buffer_size:
            return False
        with self._lock:
            self._gather()
            return self._buffered * 2 > self.buffer_size and not self.sealed

    def wait_below_high_water(self, timeout: float | None = None) -> bool:
        """Wait until at most half of the buffer is in use, or the outbox is sealed."""
        with self._lock:
            self._wake_drain()
            return self._room.wait_for(
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
            raise TimeoutError("a message was being said all the time")
        try:
            if self.sealed:
                return False
            self._gather()
            # Built first: an error in it leaves the outbox open.
            closing = Segment()
            closing.items += last(self.dropped)
            self._full = False  # what is here now is kept, however much it is
            self.sealed = True
            self.settle_above = -1
            self._gather()
            self._counted.append(closing)
            self._is_complete = True
            self._wake_drain()
            self._room.notify_all()
            return True
        finally:
            self._lock.release()

    # -- the drain ------------------------------------------------------------------------------

    def ready(self, *, may_idle: bool = True) -> Literal["now", "soon", "idle"]:
        """When to take: at once, at the end of the flush interval, or when woken.

        If not ``may_idle`` the drain looks again after the interval, which costs less than to be woken.
        """
        with self._lock:
            self._woken = False
            if self._urgent or self.sealed or self._is_flooded():
                return "now"
            if self._counted or not may_idle:
                return "soon"
            # The flag first, then the look: a producer that appends in between sees the flag.
            self._idle = True
            self._look_again()
            if not self.items:
                return "idle"
            self._idle = False
            self._look_again()
            return "soon"

    def take(self, limit: int) -> Taken:
        """Everything that is waiting, up to about ``limit`` bytes, in order.

        The messages count as buffered until they are released.
        """
        taken = Taken()
        with self._lock:
            if self._abandoned:
                return taken
            self._gather()
            while self._counted and taken.size < limit:
                segment = self._counted[0]
                if segment.size > limit:
                    items, size = segment.split_off(limit - taken.size)
                    taken.items += items
                    taken.size += size
                    if segment.items:
                        continue
                self._counted.popleft()
                taken.size += segment.size
                taken.items += segment.items
                if segment.receipt is not None:
                    taken.receipts.append(segment.receipt)
            self._urgent = bool(self._counted)
        return taken

    def release(self, size: int) -> None:
        """Give back the room of messages that are safe."""
        with self._lock:
            self._buffered -= size
            if self._full and self._buffered * 2 <= self.buffer_size:
                self._full = False
                self._look_again()
            if self._buffered * 2 <= self.buffer_size:
                self._room.notify_all()

    def is_finished(self) -> bool:
        """Whether the outbox is sealed and everything was taken."""
        with self._lock:
            return self.sealed and not self._counted

    def abandon(self) -> Taken:
        """Take everything for good: the drain gets nothing any more."""
        with self._lock:
            taken = self.take(sys.maxsize)
            self._abandoned = True
            return taken

    def redirect(self, wake: Callable[[], None]) -> None:
        """Wake somebody else from now on."""
        self._wake = wake

    def forget(self, wake: Callable[[], None]) -> None:
        """In a forked child: drop the parent's messages and use new locks."""
        self.redirect(wake)
        self.items.clear()
        self.dropped = 0
        self.exempt_threads.clear()
        self._reset()
        self._look_again()
