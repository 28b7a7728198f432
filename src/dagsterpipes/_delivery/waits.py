"""The two ways in which the session's thread waits. All that it does besides is written once.

The session's work is one coroutine. Where nobody asked for asyncio it runs without an event loop:
`PlainWaits` blocks its thread, so the coroutine never suspends and `run` needs a single step. That
keeps asyncio and anyio out of plain scripts, whose start would take almost twice as long with them.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

    import anyio

    from dagsterpipes._delivery.channels import Channel


class Waits(Protocol):
    """What the session's coroutine waits for."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine to its end, in the calling thread."""

    def wake(self) -> None:
        """End the current or the next `until_woken`; from any thread."""

    async def until_woken(self, delay: float | None) -> None:
        """Wait for `wake`, for at most ``delay`` seconds."""

    async def write(self, channel: Channel, lines: bytes) -> None:
        """Let the channel write."""


class PlainWaits:
    """Blocks the session's thread; needs no event loop."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine to its end; it never suspends."""
        coroutine = main()
        try:
            coroutine.send(None)
        except StopIteration:
            return
        coroutine.close()
        raise RuntimeError("an async loader or writer needs a session with an event loop")

    def wake(self) -> None:
        """End the waiting."""
        self._woken.set()

    async def until_woken(self, delay: float | None) -> None:
        """Block until woken."""
        self._woken.wait(delay)
        self._woken.clear()

    async def write(self, channel: Channel, lines: bytes) -> None:
        """Write in this thread; it has nothing else to do meanwhile."""
        channel.write(lines)


class LoopWaits:
    """Runs the coroutine in an event loop; writes in a worker thread, one hop a batch.

    A stalled disk then stalls the worker, and the loop goes on with what users' own async loaders
    and writers do in it.
    """

    def __init__(self, mark_thread: Callable[[], None]) -> None:
        # Called in every thread that writes.
        self._mark_thread = mark_thread
        self._lock = threading.Lock()
        # Wakes the loop; None while there is none.
        self._notify: Callable[[], object] | None = None
        self._woken = False
        self._event: anyio.Event | None = None
        self._writer: Executor | None = None

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine in a loop of this thread."""
        # Here, because plain sessions must not pay for them, and the first message neither.
        import asyncio  # noqa: PLC0415 because see above

        import aiofiles.threadpool  # noqa: F401, PLC0415 because see above
        import anyio  # noqa: PLC0415 because see above

        from dagsterpipes._delivery.writer_thread import WriterThread  # noqa: PLC0415 because see above

        async def in_loop() -> None:
            loop = asyncio.get_running_loop()
            with self._lock:
                self._notify = lambda: loop.call_soon_threadsafe(self._end_waiting)
            try:
                await main()
            finally:
                with self._lock:
                    self._notify = None

        with WriterThread(self._mark_thread) as self._writer:
            anyio.run(in_loop, backend="asyncio")

    def wake(self) -> None:
        """End the waiting."""
        with self._lock:
            self._woken = True
            if self._notify is not None:
                self._notify()

    def _end_waiting(self) -> None:
        if self._event is not None:
            self._event.set()

    async def until_woken(self, delay: float | None) -> None:
        """Wait in the loop."""
        import anyio  # noqa: PLC0415 because plain sessions must not pay for it

        self._event = anyio.Event()
        if not self._woken:
            with anyio.move_on_after(delay):
                await self._event.wait()
        self._event = None
        self._woken = False

    async def write(self, channel: Channel, lines: bytes) -> None:
        """Write in the writer's thread."""
        awrite = getattr(channel, "awrite", None)
        if awrite is not None:
            await awrite(lines)
        elif isinstance(channel, io.FileIO):
            from aiofiles import threadpool  # noqa: PLC0415 because plain sessions must not pay for it

            await threadpool.wrap(channel, executor=self._writer).write(lines)
        else:
            import asyncio  # noqa: PLC0415 because plain sessions must not pay for it

            await asyncio.get_running_loop().run_in_executor(self._writer, channel.write, lines)
