"""How a coroutine waits for what only blocking calls can do: in a worker thread, to the end."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_coroutine() -> bool:
    """Whether the caller must not block because an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 because the public function raises
        return True
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


class _Once(Generic[T]):
    """A call that is made by the first to ask, and whose outcome everybody gets."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self.is_done = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        with self._lock:
            if not self.is_done:
                try:
                    self._result = self._call()
                except BaseException as error:  # noqa: BLE001 because outcome() raises it
                    self._error = error
                self.is_done = True

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # because it is set when there is no error


async def in_thread(call: Callable[[], T]) -> T:
    """Make a blocking call in a worker thread.

    If cancelled: stops waiting at once; the call goes on.
    """
    import anyio.to_thread  # noqa: PLC0415 because plain scripts must not pay for it

    # A limiter of its own: workers that the application keeps busy must not hold this up.
    return await anyio.to_thread.run_sync(
        call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
    )


async def in_thread_to_the_end(call: Callable[[], T]) -> T:
    """Make a blocking call in a worker thread, shielded from cancellation.

    If cancelled, by a scope or by ``Task.cancel``: waits for the call all the same, then raises the
    cancellation.
    """
    import anyio  # noqa: PLC0415 because plain scripts must not pay for it

    once = _Once(call)
    cancelled: BaseException | None = None
    with anyio.CancelScope(shield=True):
        while not once.is_done:
            try:
                await in_thread(once.run)
            except anyio.get_cancelled_exc_class() as error:  # noqa: PERF203 because it is the point
                cancelled = error
    if cancelled is not None:
        try:
            once.outcome()
        except Exception as error:
            raise cancelled from error
        raise cancelled
    return once.outcome()
