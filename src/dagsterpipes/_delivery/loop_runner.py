"""Waiting in an event loop, for sessions of async jobs, loaders and writers.

Imported in the thread that opens a session: the modules of anyio import each other in circles, which
two threads that begin at different ends of a circle do not survive.
"""

from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from aiofiles import threadpool

from dagsterpipes._delivery.writer_thread import WriterThread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

    from dagsterpipes._delivery.channels import Channel


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
            await threadpool.wrap(channel, executor=self._writer).write(lines)
        else:
            await asyncio.get_running_loop().run_in_executor(self._writer, channel.write, lines)
