"""Delivery: an outbox, a drain and the thread in which the drain runs, from open to close."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Literal

from dagsterpipes._delivery import recovery
from dagsterpipes._delivery.drain import Drain, Renderer
from dagsterpipes._delivery.outbox import Outbox
from dagsterpipes._delivery.waits import PlainWaits, Waits
from dagsterpipes.exceptions import (
    ChannelError,
    FlushTimeoutError,
    MessagesLostError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from dagsterpipes._delivery.channels import Channel


class Delivery:
    """Delivers what is put into its outbox, in the order in which it was put.

    Threads: all methods may be called from any thread. The work is done in a thread of its own,
    which enters ``opening``, drains, and leaves ``opening`` again.

    Args:
        opening: An async context manager that gives the channel; entered and left in the delivery's
            thread. What it puts into the outbox while it is entered goes first.
        renderer: Makes a renderer of messages; called once a process.
        flush_interval: Least seconds between two writes that nothing urgent asks for.
        buffer_size: Bytes that may wait, see `Outbox`.
        on_full: See `Outbox`.
        in_loop: Run in an event loop, as async loaders and writers need it.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractAsyncContextManager[Channel]],
        renderer: Callable[[], Renderer],
        *,
        flush_interval: float,
        buffer_size: int,
        on_full: Literal["wait", "drop_logs"],
        in_loop: bool,
    ) -> None:
        self._opening = opening
        self._make_renderer = renderer
        self._flush_interval = flush_interval
        self._waits: Waits = self._new_waits(in_loop=in_loop)
        self.outbox = Outbox(buffer_size=buffer_size, on_full=on_full, wake=self._waits.wake)
        self._channel: Channel | None = None
        self._drain: Drain | None = None
        self._process = os.getpid()
        # In a forked child: it said something, so a thread of its own delivers.
        self._child_spoke = False
        # Set when the channel is open or cannot be opened.
        self._opened = threading.Event()
        # Set when the thread has nothing left to do.
        self._ended = threading.Event()
        # Set when the closer has decided how it ended.
        self._closed = threading.Event()
        # What went wrong outside of the drain: while opening, or while closing the channel.
        self._error: BaseException | None = None

    # -- the delivery's thread ------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread.

        It begins with an empty `contextvars` context: in a copy of the caller's, anyio would take
        the caller's event loop for its own.
        """
        threading.Thread(target=self._run, name="dagsterpipes", daemon=True).start()

    def _new_waits(self, *, in_loop: bool) -> Waits:
        if not in_loop:
            return PlainWaits()
        from dagsterpipes._delivery.loop_waits import LoopWaits  # noqa: PLC0415 because it takes as long as all the rest

        return LoopWaits(self._exempt_thread)

    def _exempt_thread(self) -> None:
        """The calling thread makes room in the outbox, so it must not wait for it."""
        self.outbox.exempt_threads.add(threading.get_ident())

    def _run(self) -> None:
        self._exempt_thread()
        try:
            self._waits.run(self._main)
        except BaseException as error:  # noqa: BLE001 because it is raised where the caller waits
            self._error = error
        finally:
            self._opened.set()
            self._ended.set()

    async def _main(self) -> None:
        async with self._opening() as channel:
            self._channel = channel
            self._drain = self._new_drain(channel)
            self._opened.set()
            await self._deliver(self._drain, channel)

    def _new_drain(self, channel: Channel) -> Drain:
        return Drain(
            self.outbox, channel, self._make_renderer(), flush_interval=self._flush_interval
        )

    async def _deliver(self, drain: Drain, channel: Channel) -> None:
        clock = time.monotonic
        waits = self._waits
        while not drain.is_finished():
            delay = drain.delay(clock())
            if delay != 0:
                await waits.until_woken(delay)
                continue
            lines = drain.next_lines(clock())
            if lines is None:
                return
            try:
                await waits.write(channel, lines)
            except Exception as error:  # noqa: BLE001 because users' channels raise what they like
                drain.failed(error, clock())
            else:
                drain.written(clock())

    # -- callers --------------------------------------------------------------------------------

    def wait_opened(self) -> None:
        """Wait until the channel is open; raise what prevented it."""
        self._opened.wait()
        if self._drain is None:
            assert self._error is not None
            raise self._error

    def flush(self, timeout: float | None) -> None:
        """Wait until everything put so far is with the channel.

        Raises:
            FlushTimeoutError: It is not, after ``timeout`` seconds.
            SessionClosedError: The delivery was closed, or given up while this waited.
        """
        receipt = self.outbox.request_receipt()
        if receipt is None:
            raise SessionClosedError("flush(): the session is closed")
        if not receipt.done.wait(timeout):
            error = self._drain.error if self._drain is not None else None
            raise FlushTimeoutError(
                f"flush(): not everything was delivered within {timeout} s; the session goes on"
                + (f" trying ({error})" if error is not None else "")
            ) from error
        if not receipt.delivered:
            raise SessionClosedError("flush(): the session was given up at its close, see there")

    def close(self, last: Callable[[int], list[bytes]], timeout: float) -> bool:
        """Seal the outbox, deliver what is in it, close the channel.

        Args:
            last: Gives the last lines, see `Outbox.seal`.
            timeout: Seconds to wait for all that, before the rest goes to a recovery file.

        Returns:
            False if somebody else closes or has closed it; then this has waited for them.

        Raises:
            MessagesLostError: Something could not be delivered in time.
            ChannelError: Everything was handed over, but the channel failed to close.
        """
        if not self.outbox.seal(last):
            self._closed.wait(timeout)
            return False
        try:
            self._finish(timeout)
        finally:
            self._closed.set()
        return True

    def wait_closed(self, timeout: float) -> None:
        """Wait for whoever closes."""
        self._closed.wait(timeout)

    def _finish(self, timeout: float) -> None:
        drain = self._drain
        if drain is not None:
            drain.retry_soon()
            self._waits.wake()
        ended = self._ended.wait(timeout)
        if drain is None:
            return
        if ended and drain.is_finished():
            if self._error is not None:
                raise ChannelError(f"the messages' channel failed to close: {self._error}") from (
                    self._error
                )
            return
        error = drain.error
        lines = drain.abandon()
        self._waits.wake()
        count = lines.count(b"\n")
        if not count:
            raise ChannelError(
                f"everything was handed to the messages' channel, but it did not close in {timeout} s"
            ) from error
        reason = f"{type(error).__name__}: {error}" if error else f"still writing after {timeout} s"
        raise MessagesLostError(count, recovery.keep(lines), reason) from error

    # -- fork -----------------------------------------------------------------------------------

    def is_inherited(self) -> bool:
        """Whether this process got the delivery from its parent by a fork."""
        return os.getpid() != self._process

    def flush_child(self, timeout: float) -> None:
        """In a forked child: deliver what the child said, if it said anything."""
        if self._child_spoke:
            self.flush(timeout)

    def continue_after_fork(self, on_first_message: Callable[[], None]) -> None:
        """In a forked child: forget the parent's messages; deliver what the child says.

        A thread of the child's own is started by its first message.
        """
        waits = PlainWaits()
        self._waits = waits
        self._child_spoke = False
        self._ended = threading.Event()
        self._closed = threading.Event()
        channel = self._channel
        if channel is None:
            return
        channel.reopen_after_fork()
        self._drain = drain = self._new_drain(channel)

        def run() -> None:
            self._exempt_thread()
            waits.run(lambda: self._deliver(drain, channel))
            self._ended.set()

        def first_wake() -> None:
            self._child_spoke = True
            self.outbox.redirect(waits.wake)
            threading.Thread(target=run, name="dagsterpipes", daemon=True).start()
            on_first_message()

        self.outbox.forget(first_wake)
