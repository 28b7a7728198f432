"""How a coroutine waits for what only blocking calls can do: in a thread of its own."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from dagsterpipes.exceptions import ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def in_coroutine() -> bool:
    """Whether the caller must not block because an event loop runs in this thread."""
    # Another thread may be importing it just now.
    get_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", lambda: None)
    return get_loop() is not None or _trio_has("current_trio_token")


def _trio_has(what: str) -> bool:
    """Whether there is a current one; trio's own questions about that are new."""
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    try:
        return getattr(lowlevel, what, lambda: None)() is not None
    except RuntimeError:
        return False


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


def run_uninterruptible(call: Callable[[], T], timeout: float) -> T:
    """Make a call that goes on when the waiting for it is interrupted, as by Ctrl-C.

    Raises:
        ChannelError: It is not done after ``timeout`` seconds.
    """
    done = threading.Event()
    running = _Call(call, done.set)
    if not done.wait(min(timeout, threading.TIMEOUT_MAX)):
        raise ChannelError(
            f"the session did not close in {timeout:.3g} s; it continues in the background. Another"
            " thread probably holds a lock that it needs"
        )
    return running.outcome()


class _Done:
    """Set in another thread, awaited in the running event loop: that of trio, or asyncio's."""

    def __init__(self) -> None:
        if _trio_has("current_task"):
            trio = sys.modules["trio"]
            token = trio.lowlevel.current_trio_token()
            self._event = trio.Event()
            self.set: Callable[[], object] = lambda: token.run_sync_soon(self._event.set)
        else:
            asyncio = sys.modules["asyncio"]
            loop = asyncio.get_running_loop()
            self._event = asyncio.Event()
            self.set = lambda: loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()


async def in_thread(call: Callable[[], T]) -> T:
    """Make a blocking call in a thread.

    If cancelled: stops waiting at once; the call goes on.
    """
    done = _Done()
    running = _Call(call, done.set)
    await done.wait()
    return running.outcome()


async def in_thread_shielded(call: Callable[[], T]) -> T:
    """Make a blocking call in a thread, shielded from cancellation.

    If cancelled, by a scope or by ``Task.cancel``: waits for the call all the same; then the
    cancellation is raised, by a scope's at the task's next checkpoint.
    """
    done = _Done()
    running = _Call(call, done.set)
    cancelled: BaseException | None = None
    with _shield() as cancellation:
        while not running.is_done:
            try:
                await done.wait()
            except cancellation as error:  # noqa: PERF203 because it is the point
                cancelled = error
    if cancelled is not None:
        try:
            running.outcome()
        except Exception as error:
            raise cancelled from error
        raise cancelled
    return running.outcome()


@contextlib.contextmanager
def _shield() -> Iterator[type[BaseException]]:
    """Shield from the scopes of trio and anyio, if there can be any; gives what a cancellation is.

    Imports nothing: it is needed on the way out.
    """
    scopes_of_anyio = sys.modules.get("anyio._core._tasks")
    if _trio_has("current_task"):
        trio = sys.modules["trio"]
        with trio.CancelScope(shield=True):
            yield trio.Cancelled
    elif scopes_of_anyio is not None:
        with scopes_of_anyio.CancelScope(shield=True):
            yield sys.modules["asyncio"].CancelledError
    else:
        yield sys.modules["asyncio"].CancelledError
