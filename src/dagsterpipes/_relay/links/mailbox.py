"""Frames on their way in an engine's own process, between the workers and a driver that fetches them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from dagsterpipes.exceptions import DagsterPipesWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagsterpipes._relay.driver import Hub

CAPACITY = 8 << 20
"""Bytes that a mailbox holds; putting waits for room."""

POLL = 5.0
"""Seconds for which the driver's request waits for a frame."""

Frame = tuple[bytes, int, bytes]
"""A worker's id, the number of its frame, and the lines."""


class Mailbox:
    """Holds frames until the driver says that it has them.

    An answer to the driver may get lost, so what it fetches stays here until it asks for more.

    Threads: that of its event loop, in which whoever waits for room or for frames is a task.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._size = 0
        self._is_closed = False
        # How many frames were removed so far: the number of the first one that is here.
        self._first = 0
        self._changed = asyncio.Condition()

    async def put(self, worker: bytes, seq: int, lines: bytes) -> bool:
        """Hold a frame, when there is room; False once the driver is done."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < CAPACITY or self._is_closed)
            if self._is_closed:
                # The answer about one that is here, or was fetched, may have been lost: the driver is
                # asked no more, and it is taken at most once.
                return (worker, seq) in {(one[0], one[1]) for one in self._frames}
            self._frames.append((worker, seq, lines))
            self._size += len(lines)
            self._changed.notify_all()
            return True

    async def take(self, first: int) -> tuple[int, list[Frame]]:
        """The frames from number ``first`` on, and its number; waits for one, but not for long.

        Those before it are with the driver, and removed.
        """
        async with self._changed:
            done = max(0, first - self._first)
            self._size -= sum(len(lines) for _, _, lines in self._frames[:done])
            del self._frames[:done]
            self._first += done
            self._changed.notify_all()
            if not self._is_closed:
                try:
                    await asyncio.wait_for(
                        self._changed.wait_for(lambda: bool(self._frames) or self._is_closed), POLL
                    )
                except asyncio.TimeoutError:
                    return self._first, []
            return self._first, list(self._frames)

    async def close(self) -> None:
        """Hold nothing new; what is here can still be fetched."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def clear(self) -> None:
        """Nobody will fetch what is here."""
        await self.close()
        self._frames.clear()


class Fetcher:
    """Brings the frames of a mailbox to the hub, in a thread of the driver's.

    Args:
        hub: Takes the frames.
        take: Calls `Mailbox.take`, and blocks.
        close: Calls `Mailbox.close`, and blocks.
    """

    def __init__(
        self,
        hub: Hub,
        take: Callable[[int], tuple[int, list[Frame]]],
        close: Callable[[], object],
    ) -> None:
        self._hub = hub
        self._take = take
        self._close = close
        self._is_closing = False
        self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name="dagsterpipes-relay", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        first = 0
        while not self._is_given_up:
            # Looked at before: what is taken after the close is all that there is.
            is_last = self._is_closing
            try:
                start, frames = self._take(first)
            except Exception:  # noqa: BLE001 because engines raise what they like
                time.sleep(0.2)  # the connection is made again
                continue
            for frame in frames[max(0, first - start) :]:
                self._hub.accept(*frame)
            first = start + len(frames)
            if is_last and not frames:
                return

    def close(self, timeout: float) -> None:
        """Fetch what is there, and refuse what comes later."""
        problem = None
        try:
            self._close()
        except Exception as error:  # noqa: BLE001 because engines raise what they like
            problem = error
        self._is_closing = True
        self._thread.join(timeout if problem else max(timeout, 2 * POLL))
        self._is_given_up = True
        self._hub.close()
        if problem is not None:
            import warnings  # noqa: PLC0415 because it is almost never needed

            warnings.warn(
                "the relay's mailbox could not be closed, so the last lines of workers may be missing:"
                f" {type(problem).__name__}: {problem}",
                DagsterPipesWarning,
                stacklevel=2,
            )
