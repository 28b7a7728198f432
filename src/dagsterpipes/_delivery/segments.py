"""What the outbox holds: messages, counted and in order, and the receipts asked for between them."""

from __future__ import annotations

import sys
import threading

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
