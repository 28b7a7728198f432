"""What the outbox holds: messages, counted and in order, and the receipts asked for between them."""

from __future__ import annotations

import sys
import threading

Item = str | bytes
"""A message: a log text (``str``) or a line (``bytes``)."""

SETTLE_COUNT = 2048
"""A producer that finds more messages than this waiting uncounted settles them.

That takes some 100 us, so it must be rarer than the one call in a thousand that is judged."""

SETTLE_LENGTH = 512
"""A producer settles a message of more characters than this at once, so that it is counted."""

MOST_OF_ONE = 4 * SETTLE_LENGTH + 80
"""Bytes of memory that an uncounted message takes at most."""

_FLOOD_SIZE = 1 << 18
"""Bytes of waiting messages that are worth a write at once."""

_SAMPLE = 16


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
        return self.receipt is not None or self.is_batch()

    def is_batch(self) -> bool:
        return len(self.items) >= SETTLE_COUNT or self.size >= _FLOOD_SIZE

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
    """Bytes of memory that these messages take, closely enough for a bound.

    Asking each string for its size costs a third of what saying it costs, so of many only some are
    asked (how many bytes does a character take?), and the lengths of all are the least.
    """
    if len(items) < 4 * _SAMPLE:
        return sum(map(sys.getsizeof, items))
    return max(
        sum(map(sys.getsizeof, items[::_SAMPLE])) * _SAMPLE,
        sum(map(len, items)) + 50 * len(items),
    )
