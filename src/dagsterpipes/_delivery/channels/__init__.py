"""Channels: the only code that knows where lines go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dagsterpipes._delivery.outbox import Readiness


class Channel(Protocol):
    """Takes whole lines in batches and says which of them it could not write.

    A channel may also have ``async def awrite(self, lines: bytes) -> None``, with the meaning of
    `write`; a drain that runs in an event loop then awaits it instead.

    One whose reader takes only so much at a time has a ``pace``, see `Pace`. The session is open when
    it has taken the first lines, so it may refuse them for good with a `ChannelError`.

    Threads: one at a time, except for `unwritten`, which any thread may call at any time.
    """

    def write(self, lines: bytes, /) -> object:
        """Write the lines, behind those that an earlier call had to leave; blocks.

        When it returns, everything is with the operating system (or the user's channel). When it
        raises, what was not written stays with the channel and goes first at the next call.

        Args:
            lines: Whole lines, each ending in a newline, none of them blank; may be empty, to try
                again what was left.

        Raises:
            OSError: Not everything could be written.
        """

    def unwritten(self) -> bytes:
        """The whole lines that were taken and are not, or not wholly, written; in order."""
        ...

    def close(self) -> None:
        """Let go of the place; can be called again.

        Raises:
            OSError: Lines that were kept for the close could not be written.
        """

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's unwritten lines, share no lock with it."""


class Pace(Protocol):
    """When a channel should be written to, and how much at once."""

    batch_size: int
    """Bytes of packed messages, at most."""
    first_retry: float
    last_retry: float
    """Seconds to wait after the first failed write, doubled each time up to the last."""

    def delay(self, ready: Readiness, now: float, /) -> float:
        """Seconds until the next write; 0 for now."""
        ...
