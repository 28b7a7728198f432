"""The drain: decides when what is written. It knows no threads, and the clock is handed in."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dagsterpipes._delivery.channels import Channel, Pace
    from dagsterpipes._delivery.outbox import Item, Outbox

BATCH_SIZE = 400_000
"""Bytes of packed messages after which a batch is full.

Another thread keeps the interpreter for 5 ms after each write, so a batch should hold what can be sent
in that time. Of short texts it makes some 1.3 MB of lines."""

OVER = -1.0
"""Instead of a delay: there is nothing left to write, and nothing will come."""

FIRST_RETRY = 0.02
LAST_RETRY = 1.0
"""Seconds to wait after the first failed write, doubled each time up to the last."""

LAST_WRITE_PATIENCE = 0.1
"""Seconds that a write gets to come to its end when the rest is given up."""


class Renderer(Protocol):
    """Turns messages into lines; may hold some back to join them with later ones."""

    due: float | None
    """When what is held back must be rendered, on the drain's clock; None if nothing is."""

    def render(self, items: list[Item], now: float, *, everything: bool) -> bytes:
        """Lines of these messages, behind what was held back; hold nothing if ``everything``."""
        ...


class Drain:
    """Takes messages from the outbox and hands lines to the channel's runner, one batch at a time.

    The runner asks `delay`; when that is 0 it takes `next_lines`, writes them, and says `written` or
    `failed`. A failed write is retried, with a growing delay, for as long as the session lives: the
    channel keeps what it could not write, so a retry has no lines of its own.

    Threads: all methods but `abandon` belong to the session's thread.
    """

    def __init__(
        self, outbox: Outbox, channel: Channel, renderer: Renderer, *, flush_interval: float
    ) -> None:
        self._outbox = outbox
        self._channel = channel
        self._renderer = renderer
        self._flush_interval = flush_interval
        # None if the channel takes lines at any time.
        self._pace: Pace | None = getattr(channel, "pace", None)
        outbox.is_paced = self._pace is not None
        # Earliest time of the next write that nothing urgent asks for.
        self._next_write = 0.0
        # Whether that time is waited for.
        self._is_planned = False
        # Held from next_lines() until the channel is done with them, so that abandon() finds each
        # message in one place.
        self._in_channel = threading.Lock()
        # Held while messages change hands: not for long, as the other one is when a disk stalls.
        self._handing_over = threading.Lock()
        # The lines that the channel was given, until it says that they are written; the bytes that
        # their messages hold in the outbox; and the position behind them.
        self._in_hand = b""
        self._size = 0
        self._end = 0
        self._retry_delay = 0.0
        self._retry_at = 0.0
        # Bytes that the channel had left when it failed last.
        self._left = 0
        # What stopped the delivery, for the error at the close; None while all is well.
        self.error: Exception | None = None
        self.is_abandoned = False
        # Writes that succeeded, and why one failed last.
        self.batches = 0
        self.last_error: Exception | None = None

    def is_finished(self) -> bool:
        """Whether everything up to the last line is with the channel, or somebody gave it up."""
        if self.is_abandoned:
            return True
        return (
            self.error is None
            and not self._in_hand
            and self._renderer.due is None
            and self._outbox.is_finished()
        )

    def delay(self, now: float) -> float | None:
        """Seconds until the next write; 0 for now, None for not before being woken, `OVER` for never."""
        if self.is_abandoned:
            return OVER
        if self.error is not None:
            return max(0.0, self._retry_at - now)
        ready = self._outbox.ready(may_idle=now >= self._next_write)
        due = self._renderer.due
        if ready == "finished":
            return OVER if due is None else 0.0
        if ready == "idle":
            self._is_planned = False
            return None if due is None else max(0.0, due - now)
        if self._pace is not None:
            return self._pace.delay(ready, now)
        if ready != "some":
            return 0.0
        wait = max(0.0, self._next_write - now)
        self._is_planned = self._is_planned or wait > 0
        return wait

    def retry_soon(self) -> None:
        """Try a failed write again at once, and begin anew with the delays; from any thread."""
        self._retry_delay = self._retry_at = 0.0

    def next_lines(self, now: float) -> bytes | None:
        """The lines to write now; empty when a failed write has to be tried again.

        None when they were given up; otherwise `written` or `failed` must follow.
        """
        self._in_channel.acquire()
        if self.is_abandoned:
            self._in_channel.release()
            return None
        if self.error is not None:
            return b""
        # Where busy threads let the drain wait for its turn, the next interval is shorter by that; and
        # it begins here, not at the end of the write, after which there is such a wait too.
        late = max(0.0, now - self._next_write) if self._is_planned else 0.0
        self._next_write = now + max(0.0, self._flush_interval - late)
        self._is_planned = False
        with self._handing_over:
            limit = BATCH_SIZE if self._pace is None else self._pace.batch_size
            items, self._size, self._end, must_flush = self._outbox.take(limit)
            self._in_hand = self._renderer.render(items, now, everything=must_flush)
        return self._in_hand

    def written(self) -> None:
        """The channel has everything that it was given."""
        self.error = None
        self.batches += 1
        self._in_hand = b""
        size, self._size = self._size, 0
        self._outbox.release(size, self._end if self._renderer.due is None else None)
        self._in_channel.release()

    def failed(self, error: Exception, now: float) -> None:
        """The channel kept something; try again later, sooner if it has got on since the last time."""
        left = len(self._channel.unwritten())
        if self.error is None or left < self._left:
            self._retry_delay = 0.0
        self._left = left
        self.error = self.last_error = error
        first, last = FIRST_RETRY, LAST_RETRY
        if self._pace is not None:
            first, last = self._pace.first_retry, self._pace.last_retry
        self._retry_delay = min(last, 2 * self._retry_delay or first)
        self._retry_at = now + self._retry_delay
        self._in_channel.release()

    def abandon(self) -> bytes:
        """Give up: every line that is not with the channel, in order.

        Threads: any. A write that is going on and does not come to its end soon is left behind; what
        it still writes is in the result too.
        """
        self.is_abandoned = True
        if self._in_channel.acquire(timeout=LAST_WRITE_PATIENCE):
            self._in_channel.release()
        with self._handing_over:
            items = self._outbox.abandon()
            # The channel may not have looked at the batch yet: rather twice than never.
            lines = self._channel.unwritten() or self._in_hand
            return lines + self._renderer.render(items, 0.0, everything=True)
