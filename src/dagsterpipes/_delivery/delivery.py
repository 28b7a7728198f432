"""Delivery: an outbox, a drain and the thread in which the drain runs, from open to close."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from dagsterpipes._delivery import recovery
from dagsterpipes._delivery.drain import Drain, Renderer
from dagsterpipes._delivery.outbox import Outbox
from dagsterpipes._delivery.runner import PlainWaits, Waits
from dagsterpipes.exceptions import (
    ChannelError,
    FlushTimeoutError,
    MessagesLostError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes._delivery.outbox import Item, Receipt


class Delivery:
    """Delivers what is put into its outbox, in the order in which it was put.

    Threads: all methods may be called from any thread. The work is done in a thread of its own,
    which enters ``opening``, drains, and leaves ``opening`` again.

    Args:
        opening: An async context manager that gives the channel; entered and left in the delivery's
            thread. What it puts into the outbox while it is entered goes first.
        pack: See `Outbox`.
        renderer: Makes a renderer of packed messages; called once a process.
        flush_interval: Least seconds between two writes that nothing urgent asks for.
        buffer_size: Bytes that may wait, see `Outbox`.
        on_full: See `Outbox`.
        in_loop: Run in an event loop, as async loaders and writers need it.
    """

    def __init__(
        self,
        opening: Callable[[], AbstractAsyncContextManager[Channel]],
        pack: Callable[[list[Item]], Sequence[Item]],
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
        self._in_loop = in_loop
        self._waits = self._new_waits()
        self.outbox = Outbox(pack, buffer_size=buffer_size, on_full=on_full, wake=self._waits.wake)
        self._channel: Channel | None = None
        self._drain: Drain | None = None
        # Set when the channel is open or cannot be opened.
        self._opened = threading.Event()
        # Set when the thread has nothing left to do.
        self._ended = threading.Event()
        # Whether it has been said how it ended.
        self.is_over = False
        # What went wrong outside of the drain: while opening, or while closing the channel.
        self._error: BaseException | None = None
        # What was accepted, and then refused by the channel for good.
        self._refused = b""

    # -- the delivery's thread ------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread.

        It begins with an empty `contextvars` context: in a copy of the caller's, anyio would take
        the caller's event loop for its own.

        Raises:
            ChannelError: No thread can be started, as while the interpreter exits.
        """
        try:
            threading.Thread(target=self._run, name="dagsterpipes", daemon=True).start()
        except RuntimeError as error:
            raise ChannelError(f"no thread can be started to deliver messages: {error}") from error

    def _new_waits(self) -> Waits:
        if not self._in_loop:
            return PlainWaits()
        from dagsterpipes._delivery.loop_runner import LoopWaits  # noqa: PLC0415 because it takes as long as all the rest

        return LoopWaits(self._exempt_thread)

    def _exempt_thread(self) -> None:
        """The calling thread makes room in the outbox, so it must not wait for it."""
        self.outbox.exempt_threads.add(threading.get_ident())

    def _run(self) -> None:
        self._exempt_thread()
        _keep_freed_memory()
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
            await self._deliver(self._drain, channel, self._drain.is_finished)

    def _new_drain(self, channel: Channel) -> Drain:
        return Drain(
            self.outbox, channel, self._make_renderer(), flush_interval=self._flush_interval
        )

    async def _deliver(self, drain: Drain, channel: Channel, is_enough: Callable[[], bool]) -> None:
        clock = time.monotonic
        waits = self._waits
        while not is_enough():
            delay = drain.delay(clock())
            if delay != 0:
                await waits.until_woken(delay)
                continue
            lines = drain.next_lines(clock())
            if lines is None:
                return
            try:
                await waits.write(channel, lines)
            except SessionClosedError as error:  # somebody else has said the last line
                self._error = error
                drain.failed(error, clock())
                self.outbox.seal(lambda _: [])
                self._refused += drain.abandon()
                return
            except Exception as error:  # noqa: BLE001 because users' channels raise what they like
                drain.failed(error, clock())
            else:
                drain.written()

    # -- callers --------------------------------------------------------------------------------

    @property
    def has_failed(self) -> bool:
        """Whether the channel could not be opened."""
        return self._opened.is_set() and self._drain is None

    def wait_opened(self, timeout: float | None = None) -> None:
        """Wait until the channel is open; raise what prevented it.

        Raises:
            ChannelError: It is not open after ``timeout`` seconds.
        """
        if not self._opened.wait(timeout):
            raise ChannelError(f"the session was still opening after {timeout:.3g} s")
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
        if not self._await(receipt, timeout):
            error = self._drain.error if self._drain is not None else None
            raise FlushTimeoutError(
                f"flush(): not everything was delivered within {timeout} s; the session goes on"
                + (f" trying ({error})" if error is not None else "")
            ) from error
        if not receipt.delivered:
            if self._error is not None:
                raise SessionClosedError(f"flush(): {self._error}") from self._error
            raise SessionClosedError("flush(): the session was given up at its close, see there")

    def _await(self, receipt: Receipt, timeout: float | None) -> bool:
        return receipt.done.wait(timeout)

    def finish(self, timeout: float) -> None:
        """Wait until a sealed outbox is delivered and the channel closed; then say how it ended.

        Does nothing if that was said before.

        Args:
            timeout: Seconds to wait, before the rest goes to a recovery file.

        Raises:
            MessagesLostError: Something could not be delivered in time.
            ChannelError: Everything was handed over, but the channel failed to close.
        """
        if self.is_over:
            return
        drain = self._drain
        if drain is not None:
            drain.retry_soon()
            self._waits.wake()
        ended = self._ended.wait(timeout)
        self.is_over = True
        if drain is None:
            return
        self.raise_refused()
        if ended and drain.is_finished():
            if self._error is not None:
                raise ChannelError(f"the messages' channel failed to close: {self._error}") from (
                    self._error
                )
            return
        error = self._raise_lost(drain, timeout)
        raise ChannelError(
            "everything was handed to the messages' channel, but it did not close in"
            f" {timeout:.3g} s"
        ) from error

    def _raise_lost(self, drain: Drain, timeout: float) -> Exception | None:
        """Give up; raise for what is lost by that, or return what the channel last failed with."""
        error = drain.error
        lines = drain.abandon()
        self._waits.wake()
        if lines:
            reason = f"{type(error).__name__}: {error}" if error else "still writing"
            raise _lost(lines, f"{reason} after {timeout:.3g} s") from error
        return error

    def raise_refused(self) -> None:
        """Raise once for what was accepted before somebody else said the last line.

        Raises:
            MessagesLostError: There is something.
        """
        lines, self._refused = self._refused, b""
        if lines:
            raise _lost(lines, str(self._error)) from self._error


def _lost(lines: bytes, reason: str) -> MessagesLostError:
    return MessagesLostError(lines.count(b"\n"), recovery.keep(lines), reason)


def _keep_freed_memory() -> None:
    """Let the next batch have the memory of the last one.

    The C library would give it back to the system each time, and getting it again, page by page, would
    cost several times as much as all else that is done with a batch. Glibc keeps what is smaller than
    the largest block that was ever mapped and freed, and up to twice as much of it; other libraries
    are not impressed. This block is never touched, so it costs two system calls.
    """
    bytes(2 << 20)


class ForkableDelivery(Delivery):
    """A `Delivery` that a forked child may use too, for what the child says.

    A fork copies the messages that wait, and locks in whatever state they are, but no threads.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._process = os.getpid()
        # The child said something, so it has something to deliver.
        self._child_spoke = False
        # Whoever waits must deliver: at interpreter exit no thread can be started.
        self._has_no_thread = False
        # In a child that was forked while its parent opened: the first to wait opens anew.
        self._must_restart = False
        self._restarting = threading.Lock()
        self._on_first_message: Callable[[], None] = lambda: None

    def is_inherited(self) -> bool:
        """Whether this process got the delivery from its parent by a fork."""
        return os.getpid() != self._process

    def flush_child(self, timeout: float) -> None:
        """In a forked child: deliver what the child said, if it said anything.

        Raises:
            MessagesLostError: It could not be delivered within ``timeout`` seconds, or the parent
                has said the last line. The child can say nothing more then.
        """
        drain = self._drain
        if not self._child_spoke or drain is None:
            return
        drain.retry_soon()
        self._waits.wake()
        try:
            self.flush(timeout)
        except SessionClosedError:
            if not self._has_no_thread:
                self._ended.wait(timeout)  # until it has seen what it leaves undelivered
            self.raise_refused()
        except FlushTimeoutError:
            self.outbox.seal(lambda _: [])
            self._raise_lost(drain, timeout)

    def prepare_fork(self, timeout: float) -> None:
        """Before a fork: let the first lines come before those of the child, within ``timeout``."""
        if self.is_inherited() or threading.get_ident() in self.outbox.exempt_threads:
            return
        deadline = time.monotonic() + timeout
        self._opened.wait(timeout)
        if self._drain is not None and not self._drain.has_written:
            with suppress(FlushTimeoutError, SessionClosedError):
                self.flush(max(0.0, deadline - time.monotonic()))

    def continue_after_fork(self, on_first_message: Callable[[], None]) -> None:
        """In a forked child: forget the parent's messages; deliver what the child says.

        A thread of the child's own is started by its first message. If the parent had not finished
        to open, the child opens for itself when something first waits for that.
        """
        self._restarting = threading.Lock()
        self._child_spoke = False
        self._refused = b""
        channel = self._channel
        if channel is None:
            if not self._opened.is_set():
                self._must_restart = True
                self._on_first_message = on_first_message
                self._renew(self._new_waits())
                self.outbox.forget(self._waits.wake)
            return
        waits = PlainWaits()
        self._renew(waits)
        self._opened.set()
        channel.reopen_after_fork()
        self._drain = drain = self._new_drain(channel)

        def run() -> None:
            self._exempt_thread()
            waits.run(lambda: self._deliver(drain, channel, drain.is_finished))
            self._ended.set()

        def first_wake() -> None:
            self._child_spoke = True
            self.outbox.redirect(waits.wake)
            try:
                threading.Thread(target=run, name="dagsterpipes", daemon=True).start()
            except RuntimeError:  # while the interpreter exits there are no more threads
                self._has_no_thread = True
                self._exempt_thread()
            on_first_message()

        self.outbox.forget(first_wake)

    def _renew(self, waits: Waits) -> None:
        # Threads that are not here may have held the locks in the old ones.
        self._waits = waits
        self._opened = threading.Event()
        self._ended = threading.Event()

    def _deliver_here(self, receipt: Receipt, timeout: float | None) -> None:
        drain, channel = self._drain, self._channel
        assert drain is not None
        assert channel is not None
        deadline = None if timeout is None else time.monotonic() + timeout

        def is_enough() -> bool:
            return receipt.done.is_set() or (deadline is not None and time.monotonic() > deadline)

        self._waits.run(lambda: self._deliver(drain, channel, is_enough))

    # -- callers --------------------------------------------------------------------------------

    def wait_opened(self, timeout: float | None = None) -> None:
        """See `Delivery.wait_opened`; opens anew where the parent had not finished."""
        if self._must_restart:
            with self._restarting:
                if self._must_restart:
                    self._must_restart = False
                    self._child_spoke = True
                    self.start()
                    self._on_first_message()
        super().wait_opened(timeout)

    def _await(self, receipt: Receipt, timeout: float | None) -> bool:
        if self._has_no_thread:
            self._deliver_here(receipt, timeout)
        return super()._await(receipt, timeout)
