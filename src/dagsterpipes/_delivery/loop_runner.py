"""The runner in an event loop, for sessions with async loaders or writers."""

from __future__ import annotations

import asyncio
import contextvars
import io
import threading
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from aiofiles import threadpool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dagsterpipes._delivery.channels import Channel

T = TypeVar("T")


class WriterThread(Executor):
    """Makes one call after the other in a daemon thread, in the context of whoever made it.

    The executors of the standard library are joined when the interpreter exits, and take no work
    from then on. This one works to the very end, and a call that is stuck (in a write to a disk that
    has stalled) is left behind.

    Args:
        initializer: Called first in the thread.
        finalizer: Called last in it.
    """

    def __init__(self, initializer: Callable[[], None], finalizer: Callable[[], None]) -> None:
        self._initializer = initializer
        self._finalizer = finalizer
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        run = partial(contextvars.copy_context().run, self._work)
        threading.Thread(target=run, name="dagsterpipes-writer", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Make a call in the thread."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 because the future raises it
                future.set_exception(error)

        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the thread end when it has made the calls; does not wait for that."""
        del wait, cancel_futures
        self._calls.put(None)

    def _work(self) -> None:
        self._initializer()
        while (call := self._calls.get()) is not None:
            call()
        self._finalizer()


class LoopRunner:
    """Runs the coroutine in an event loop; writes in a worker thread, one hop a batch.

    A stalled disk then stalls the worker, and the loop goes on with what users' own async loaders
    and writers do in it.
    """

    def __init__(self, begin_thread: Callable[[], None], end_thread: Callable[[], None]) -> None:
        # Called in every thread that writes, first and last.
        self._hooks = (begin_thread, end_thread)
        # Reentrant, as a signal handler may wake while its thread does.
        self._lock = threading.RLock()
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
                self._notify = lambda: loop.call_soon_threadsafe(self._end_wait)
            try:
                await main()
            finally:
                with self._lock:
                    self._notify = None

        with WriterThread(*self._hooks) as self._writer:
            anyio.run(in_loop, backend="asyncio")

    def wake(self) -> None:
        """End the waiting."""
        with self._lock:
            self._woken = True
            if self._notify is not None:
                self._notify()

    def _end_wait(self) -> None:
        if self._event is not None:
            self._event.set()

    async def wait(self, delay: float | None) -> None:
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
