"""A delivery that goes on in a forked child."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dagsterpipes._delivery.delivery import Delivery
from dagsterpipes._delivery.runner import PlainWaits, Waits
from dagsterpipes.exceptions import FlushTimeoutError, SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagsterpipes._delivery.segments import Receipt


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
