"""The two ways in which the session's thread runs its coroutine and waits.

The session's work is one coroutine. Where nothing async takes part it runs without an event loop:
`ThreadRunner` blocks its thread, so the coroutine never suspends and `run` needs a single step. That
keeps asyncio and anyio out of plain scripts, whose start would take almost twice as long with them.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dagsterpipes._delivery.channels import Channel


class Runner(Protocol):
    """Runs the session's coroutine, and does what it waits for."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine to its end, in the calling thread."""

    def wake(self) -> None:
        """End the current or the next `wait`; from any thread."""

    async def wait(self, delay: float | None) -> None:
        """Wait for `wake`, for at most ``delay`` seconds."""

    async def write(self, channel: Channel, lines: bytes) -> None:
        """Let the channel write."""


class ThreadRunner:
    """Blocks its thread; needs no event loop."""

    def __init__(self) -> None:
        # Open when there was a wake. A signal handler may open it in the middle of its opening.
        self._gate = threading.Lock()
        self._gate.acquire()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine to its end; it never suspends."""
        coroutine = main()
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()
        raise RuntimeError(
            "an awaitable was suspended in a session without an event loop: an async context loader or"
            " message writer must have __aenter__, or an async write_message"
        )

    def wake(self) -> None:
        """End the waiting."""
        with suppress(RuntimeError):  # it is open
            self._gate.release()

    async def wait(self, delay: float | None) -> None:
        """Block until woken."""
        self._gate.acquire(timeout=-1 if delay is None else delay)

    async def write(self, channel: Channel, lines: bytes) -> None:
        """Write in this thread; it has nothing else to do meanwhile."""
        channel.write(lines)
