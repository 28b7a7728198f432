"""Links: how the frames of a worker come to the driver. One module for each way."""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """A worker's end.

    Threads: one at a time, except for `close`.
    """

    def send(self, seq: int, lines: bytes, /) -> None:
        """Send a frame; blocks until the driver, or what holds frames for it, has taken it.

        Raises:
            OSError: It is not known to be taken: send the same frame again.
            SessionClosedError: The driver is done; it is not taken.
        """

    def close(self) -> None:
        """Let go of the connection; the next `send` makes a new one."""


class Address(Protocol):
    """Where workers find the driver; it travels to them by pickle."""

    @property
    def flush_interval(self) -> float:
        """Seconds between two frames that nothing urgent asks for, at least."""

    @property
    def needs_function(self) -> bool:
        """Whether the engine takes nothing callable but functions."""

    def connect(self, worker: bytes, /) -> Link:
        """The link of one worker; called in a thread of a task."""

    def worker_name(self) -> str:
        """How this worker is called in the logs."""


class Station(Protocol):
    """The driver's end of all links."""

    @property
    def address(self) -> Address:
        """What workers need to find it."""

    def close(self, timeout: float, /) -> None:
        """Hand on what has arrived and tell the workers that the driver is done.

        What a worker sends from here on is refused.
        """
