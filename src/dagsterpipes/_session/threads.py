"""How a coroutine waits for what only blocking calls can do: in a thread of its own."""

from __future__ import annotations

import contextlib
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


class _Call(Generic[T]):
    """A blocking call that has been started in a daemon thread.

    Not in a worker of the event loop's: the exit of the interpreter waits for those, also when
    nobody waits for their result any more.

    Args:
        call: The call.
        when_done: Called after it, in the same thread.
    """

    def __init__(self, call: Callable[[], T], when_done: Callable[[], object]) -> None:
        self._call = call
        self._when_done = when_done
        self.is_done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name="dagsterpipes-call", daemon=True).start()
        except RuntimeError:  # while the interpreter exits there are no more threads
            self._run()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 because outcome() raises it
            self._error = error
        self.is_done = True
        # Nobody waits any more when the loop is closed: RuntimeError in asyncio as in trio.
        with contextlib.suppress(RuntimeError):
            self._when_done()

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # because it is set when there is no error


def make_call(call: Callable[[], T]) -> T:
    """Make a call that goes on when the waiting for it is interrupted, as by Ctrl-C."""
    done = threading.Event()
    running = _Call(call, done.set)
    done.wait()
    return running.outcome()


def _from_other_thread(call: Callable[[], None]) -> Callable[[], object]:
    """What makes the running event loop make a call; to be used from other threads."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        token = trio.lowlevel.current_trio_token()
        return lambda: token.run_sync_soon(call)
    import asyncio  # noqa: PLC0415 because plain scripts must not pay for it

    loop = asyncio.get_running_loop()
    return lambda: loop.call_soon_threadsafe(call)


async def in_thread(call: Callable[[], T]) -> T:
    """Make a blocking call in a thread.

    If cancelled: stops waiting at once; the call goes on.
    """
    import anyio  # noqa: PLC0415 because plain scripts must not pay for it

    done = anyio.Event()
    running = _Call(call, _from_other_thread(done.set))
    await done.wait()
    return running.outcome()


async def in_thread_to_the_end(call: Callable[[], T]) -> T:
    """Make a blocking call in a thread, shielded from cancellation.

    If cancelled, by a scope or by ``Task.cancel``: waits for the call all the same; then the
    cancellation is raised, by a scope's at the task's next checkpoint.
    """
    import anyio  # noqa: PLC0415 because plain scripts must not pay for it

    done = anyio.Event()
    running = _Call(call, _from_other_thread(done.set))
    cancelled: BaseException | None = None
    with anyio.CancelScope(shield=True):
        while not running.is_done:
            try:
                await done.wait()
            except anyio.get_cancelled_exc_class() as error:  # noqa: PERF203 because it is the point
                cancelled = error
    if cancelled is not None:
        try:
            running.outcome()
        except Exception as error:
            raise cancelled from error
        raise cancelled
    return running.outcome()
