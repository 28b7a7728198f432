"""An executor whose thread does not hold up the exit of the interpreter."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class WriterThread(Executor):
    """Makes one call after the other in a daemon thread.

    The executors of the standard library are joined when the interpreter exits, and take no work
    from then on. This one works to the very end, and a call that is stuck (in a write to a disk that
    has stalled) is left behind.

    Args:
        initializer: Called first in the thread.
    """

    def __init__(self, initializer: Callable[[], None]) -> None:
        self._initializer = initializer
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="dagsterpipes-writer", daemon=True).start()

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
