"""Delivery: an outbox, a drain and the thread in which the drain runs, from open to close.

A fork copies the messages that wait, and locks in whatever state they are, but no threads. The delivery
goes on in the child for what the child itself sends; a thread of the child's own is started by its
first message.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from dagsterpipes._delivery import recovery
from dagsterpipes._delivery.drain import OVER, Drain, Renderer
from dagsterpipes._delivery.outbox import Outbox
from dagsterpipes._delivery.runner import Runner, ThreadRunner
from dagsterpipes.exceptions import (
    ChannelError,
    DagsterPipesError,
    FlushTimeoutError,
    MessagesLostError,
    SessionClosedError,
    closed_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes._delivery.loop_runner import LoopRunner
    from dagsterpipes._delivery.outbox import Item
    from dagsterpipes.typing import PipesStatistics


REPLACED_AFTER = 1.0
"""Seconds after which whoever waits for the opening looks whether there is another event to wait for."""


class Delivery:
    """Delivers what is put into its outbox, in the order in which it was put.

    Threads: all methods may be called from any thread. The work is done in a thread of its own, in
    the `contextvars` context of whoever made the delivery.

    Args:
        opening: Makes an async context manager that gives the channel; left in the delivery's thread.
            Called with True when it is opened only to be closed, after Ctrl-C in the opening.
        pack: See `Outbox`.
        renderer: Makes a renderer of packed messages, given whether the channel has a pace; called
            once a process.
        flush_interval: Least seconds between two writes that nothing urgent asks for.
        buffer_size: Bytes that may wait, see `Outbox`.
        on_full: See `Outbox`.
        in_loop: Enter ``opening`` in an event loop, as async loaders and writers need it. Where it is
            not, it must not suspend. An async channel gets a loop in any case.
        may_need_loop: It is not known yet whether the channel is async.
        open_here: Enter it in the thread that calls `start`, unless ``in_loop``; otherwise in the
            delivery's.
        after_first_message_in_child: Called in a forked child when it has something to deliver.
    """

    def __init__(
        self,
        opening: Callable[[bool], AbstractAsyncContextManager[Channel]],
        pack: Callable[[list[Item]], Sequence[Item]],
        renderer: Callable[[bool], Renderer],
        *,
        flush_interval: float,
        buffer_size: int,
        on_full: Literal["wait", "drop_logs"],
        in_loop: bool,
        may_need_loop: bool,
        open_here: bool,
        after_first_message_in_child: Callable[[], object] = lambda: None,
    ) -> None:
        self._opening = opening
        self._make_renderer = renderer
        self._flush_interval = flush_interval
        self._in_loop = in_loop
        self._opens_here = open_here and not in_loop
        self._after_first_message_in_child = after_first_message_in_child
        if in_loop or (may_need_loop and not self._opens_here):
            # In this thread: the modules of anyio import each other in a circle, which two threads that
            # begin at different points do not survive.
            _import_loop_runner()
        self._context = _context_of_caller()
        self._runner: Runner = ThreadRunner()
        self.outbox = Outbox(pack, buffer_size=buffer_size, on_full=on_full, wake=self._runner.wake)
        self.outbox.has_drain = False
        self._channel: Channel | None = None
        self._drain: Drain | None = None
        # The thread that opens, until it has.
        self._opening_thread: int | None = None
        # Set when the channel is open or cannot be opened.
        self._opened = threading.Event()
        # Set when the thread has nothing left to do.
        self._ended = threading.Event()
        self._is_started = False
        # Whether it has been reported how it ended.
        self.is_over = False
        # What went wrong outside of the drain: while opening, or while closing the channel.
        self._error: BaseException | None = None
        # What was accepted, and then refused by the channel for good.
        self._refused = b""
        self._process = os.getpid()
        # In a forked child: something was accepted from it, so there is something to deliver.
        self._has_message_of_child = False
        # At interpreter exit no thread can be started: flush() delivers in the calling thread.
        self._has_no_thread = False
        # In a child that was forked while its parent opened: opened anew by the first message, or by
        # the first to wait.
        self._must_restart = False
        self._restarting = threading.RLock()

    # -- the delivery's thread ------------------------------------------------------------------

    def start(self) -> None:
        """Open the channel, if that is to be done here, and start the thread.

        Raises:
            ChannelError: No thread can be started, as while the interpreter exits.
            BaseException: Whatever prevented the opening, if it is done here.
        """
        opening = self._opening(False)
        # Acquired by the thread when it begins, or by the error handler below if it has not: after Ctrl-C
        # it is unknown whether the thread was started.
        turn = threading.Lock()
        try:
            self._is_started = True
            if self._opens_here:
                ThreadRunner().run(partial(self._open, opening))
                if hasattr(self._channel, "awrite"):
                    self._use_loop()
            self._start_thread(partial(self._run, opening, turn))
        except BaseException as error:
            if turn.acquire(blocking=False):
                if self._channel is not None:  # nothing was written yet
                    with suppress(Exception):
                        ThreadRunner().run(partial(_leave, opening, error))
                    self._channel = self._drain = None
                if isinstance(error, KeyboardInterrupt):
                    self._open_in_thread(only_to_close=True)  # to tell Dagster of it
                else:
                    self._fail(error)
            raise

    def fail_unless_started(self, error: BaseException) -> None:
        """Let nobody wait for an opening that a signal has prevented from beginning."""
        if not self._is_started:
            self._is_started = True
            self._fail(error)

    def _open_in_thread(self, *, only_to_close: bool) -> None:
        """Open where no signal interrupts."""
        # A new one: an interrupt in the middle of `set` may have left the old one locked.
        self._opened = threading.Event()
        self._start_thread(partial(self._run, self._opening(only_to_close), threading.Lock()))

    def _start_thread(self, work: Callable[[], None]) -> None:
        # A copy: a context that was entered when its process forked stays entered in the child.
        run = partial(self._context.copy().run, work)
        try:
            threading.Thread(target=run, name="dagsterpipes", daemon=True).start()
        except RuntimeError as error:
            raise ChannelError(f"no thread can be started to deliver messages: {error}") from error

    def _use_loop(self) -> None:
        self._runner = _import_loop_runner()(self._exempt_thread, self._end_exemption)
        self.outbox.wake_by(self._runner.wake)

    def _exempt_thread(self) -> None:
        """The calling thread makes room in the outbox, so it must not wait for it."""
        self.outbox.exempt_threads.add(threading.get_ident())

    def _end_exemption(self) -> None:
        """The calling thread ends: the next one may get its ident."""
        self.outbox.exempt_threads.discard(threading.get_ident())

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._drain = None
        self._opening_thread = None
        self._opened.set()
        self._ended.set()

    def _run(self, opening: AbstractAsyncContextManager[Channel], turn: threading.Lock) -> None:
        if not turn.acquire(blocking=False):
            return
        self._exempt_thread()
        _keep_freed_memory()
        try:
            if self._channel is None and not self._in_loop:
                ThreadRunner().run(partial(self._open, opening))
            if not self._opens_here and (self._in_loop or hasattr(self._channel, "awrite")):
                self._use_loop()
            self._runner.run(partial(self._main, opening))
        except BaseException as error:  # noqa: BLE001 because it is raised where the caller waits
            self._error = error
            self._give_up()
        finally:
            self._end_exemption()
            self._opened.set()
            self._ended.set()

    def _give_up(self) -> None:
        """After an error that ends the thread: nobody must wait for it, and nothing is lost silently."""
        drain = self._drain
        if drain is not None and not drain.is_finished():
            self.outbox.seal(lambda _: [])
            self._refused += drain.abandon()

    async def _main(self, opening: AbstractAsyncContextManager[Channel]) -> None:
        if self._channel is None:
            await self._open(opening)
        async with AsyncExitStack() as stack:
            stack.push_async_exit(opening)
            assert self._drain is not None
            assert self._channel is not None
            if not self._opened.is_set():
                await self._write_first(self._drain, self._channel)
            await self._deliver(self._drain, self._channel)

    async def _open(self, opening: AbstractAsyncContextManager[Channel]) -> None:
        self._opening_thread = threading.get_ident()
        try:
            channel = await opening.__aenter__()
            self._drain = self._new_drain(channel)
            self._channel = channel
        finally:
            self._opening_thread = None
        self.outbox.has_drain = True
        if not hasattr(channel, "pace"):
            self._opened.set()

    async def _write_first(self, drain: Drain, channel: Channel) -> None:
        """Write the first lines before the delivery counts as open, to a channel that is far away."""
        self._opening_thread = threading.get_ident()
        lines = drain.next_lines(time.monotonic())
        try:
            if lines is not None:
                await self._runner.write(channel, lines)
                drain.written()
        except ChannelError:  # for good
            self._drain = None
            raise
        except Exception as error:  # noqa: BLE001 because users' channels raise what they like
            drain.failed(error, time.monotonic())
        finally:
            self._opening_thread = None
        self._opened.set()

    def _new_drain(self, channel: Channel) -> Drain:
        renderer = self._make_renderer(hasattr(channel, "pace"))
        return Drain(self.outbox, channel, renderer, flush_interval=self._flush_interval)

    async def _deliver(
        self, drain: Drain, channel: Channel, is_enough: Callable[[], bool] | None = None
    ) -> None:
        clock = time.monotonic
        runner = self._runner
        while is_enough is None or not is_enough():
            delay = drain.delay(clock())
            if delay == OVER:
                return
            if delay != 0:
                await runner.wait(delay)
                continue
            lines = drain.next_lines(clock())
            if lines is None:
                return
            try:
                await runner.write(channel, lines)
            except SessionClosedError as error:  # another process has written the last line
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

    @property
    def opening_error(self) -> BaseException | None:
        """Why the channel could not be opened."""
        return self._error if self.has_failed else None

    def wait_opened(
        self, timeout: float | None = None, error: type[DagsterPipesError] = ChannelError
    ) -> None:
        """Wait until the channel is open; raise what prevented it, or ``error`` after ``timeout``.

        Raises:
            DagsterPipesError: The calling thread is the one that opens.
        """
        if self._must_restart:
            self._restart()
        if self._opening_thread == threading.get_ident():
            raise DagsterPipesError(
                "this thread is still opening the session: a context loader or message writer"
                " may log meanwhile, but must not wait for the session"
            )
        if not self._wait_for_event(timeout):
            raise error(
                f"the session was still opening after {timeout:.3g} s. Its context loader or message"
                " writer must not wait for a thread that waits for the session"
            )
        if self._drain is None:
            assert self._error is not None
            raise self._error

    def statistics(self) -> PipesStatistics:
        """What was accepted and delivered so far."""
        from dagsterpipes.typing import PipesStatistics  # noqa: PLC0415 because few jobs need it

        drain = self._drain
        if drain is None:
            return PipesStatistics(*self.outbox.statistics(), 0, None)
        return PipesStatistics(*self.outbox.statistics(), drain.batches, drain.last_error)

    def _wait_for_event(self, timeout: float | None) -> bool:
        """Wait for ``_opened``, which an interrupt of the opening replaces."""
        end = sys.maxsize if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            if self._opened.wait(min(left, REPLACED_AFTER)):
                return True
            if left <= REPLACED_AFTER:
                return False

    def flush(self, timeout: float | None) -> None:
        """Wait until everything put so far is with the channel.

        Raises:
            FlushTimeoutError: It is not, after ``timeout`` seconds.
            SessionClosedError: The delivery was closed, or given up while this waited.
        """
        goal = self.outbox.request_flush()
        if goal is None:
            raise closed_error("flush")
        if self._has_no_thread:
            self._deliver_here(goal, timeout)
        if not self.outbox.wait_flushed(goal, timeout):
            error = self._drain.error if self._drain is not None else None
            raise FlushTimeoutError(
                f"flush(): not everything was delivered within {timeout} s; delivery continues"
                + (f" (last error: {error})" if error is not None else "")
            ) from error
        if not self.outbox.is_flushed(goal):
            if self._error is not None:
                raise SessionClosedError(f"flush(): {self._error}") from self._error
            raise SessionClosedError(
                "flush(): the session closed before everything was delivered; the error of close() says what is missing"
            )

    def finish(self, timeout: float) -> None:
        """Wait until a sealed outbox is delivered and the channel closed; then say how it ended.

        Does nothing if that was reported before.

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
            self._runner.wake()
        ended = self._ended.wait(timeout)
        self.is_over = True
        if drain is None:
            return
        self._raise_refused()
        if ended and drain.is_finished():
            if self._error is not None:
                self._raise_left_by_close()
                raise ChannelError(f"the messages' channel failed to close: {self._error}") from (
                    self._error
                )
            return
        error = self._raise_lost(drain, timeout)
        raise ChannelError(
            "everything was handed to the messages' channel, but it did not close in"
            f" {timeout:.3g} s"
        ) from error

    def _raise_left_by_close(self) -> None:
        """Raise for the lines that the channel kept for its close, which then failed."""
        assert self._channel is not None
        lines = self._channel.unwritten()
        if lines:
            reason = f"closing the channel failed: {type(self._error).__name__}: {self._error}"
            raise _lost(lines, reason) from self._error

    def _raise_lost(self, drain: Drain, timeout: float) -> Exception | None:
        """Give up; raise for what is lost by that, or return what the channel last failed with."""
        error = drain.error
        lines = drain.abandon()
        self._runner.wake()
        if lines:
            reason = f"{type(error).__name__}: {error}" if error else "still writing"
            raise _lost(lines, f"{reason} after {timeout:.3g} s") from error
        return error

    def _raise_refused(self) -> None:
        """Raise once for what was accepted before another process wrote the last line."""
        lines, self._refused = self._refused, b""
        if lines:
            raise _lost(lines, str(self._error)) from self._error

    # -- fork -----------------------------------------------------------------------------------

    def is_inherited(self) -> bool:
        """Whether this process got the delivery from its parent by a fork."""
        return os.getpid() != self._process

    def before_fork(self, timeout: float) -> None:
        """Let the first lines come before those of the child; wait ``timeout`` seconds at most."""
        if self.is_inherited() or threading.get_ident() in self.outbox.exempt_threads:
            return
        if self._opening_thread == threading.get_ident():
            return
        deadline = time.monotonic() + timeout
        self._opened.wait(timeout)
        if self._drain is not None and not self._drain.batches:
            with suppress(FlushTimeoutError, SessionClosedError):
                self.flush(max(0.0, deadline - time.monotonic()))

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's messages; deliver those of the child.

        If the parent had not finished to open, the child opens for itself when something first
        waits for that.
        """
        was_opened = self._opened.is_set()
        self._restarting = threading.RLock()
        self._has_message_of_child = self._has_no_thread = False
        self._refused = b""
        self._opening_thread = None
        # Threads that are not here may have held the locks in the old ones.
        self._opened = threading.Event()
        self._ended = threading.Event()
        channel = self._channel
        runner = self._runner = ThreadRunner()
        if was_opened or channel is not None:
            self._opened.set()
        if channel is None:
            self._must_restart = not was_opened
            self.outbox.after_fork_in_child(self._restart if self._must_restart else runner.wake)
            return
        self._error = None
        channel.after_fork_in_child()
        drain = self._drain = self._new_drain(channel)
        self.outbox.has_drain = True

        def work() -> None:
            self._exempt_thread()
            runner.run(partial(self._deliver, drain, channel))
            self._end_exemption()
            self._ended.set()

        def first_wake() -> None:
            self._has_message_of_child = True
            self.outbox.wake_by(runner.wake)
            try:
                self._start_thread(work)
            except ChannelError:  # while the interpreter exits there are no more threads
                self._has_no_thread = True
                self._exempt_thread()
            self._after_first_message_in_child()

        self.outbox.after_fork_in_child(first_wake)

    def flush_child(self, timeout: float) -> None:
        """In a forked child: deliver what was accepted from it, if there was anything.

        Raises:
            MessagesLostError: It could not be delivered within ``timeout`` seconds, or the parent
                has written the last line. The child can send nothing more then.
            ChannelError: The child had to open for itself, and could not.
        """
        if not self._has_message_of_child:
            return
        deadline = time.monotonic() + timeout
        self.wait_opened(timeout)
        timeout = max(0.0, deadline - time.monotonic())
        drain = self._drain
        assert drain is not None
        drain.retry_soon()
        self._runner.wake()
        try:
            self.flush(timeout)
        except SessionClosedError:
            if not self._has_no_thread:
                self._ended.wait(timeout)  # until it has seen what it leaves undelivered
            self._raise_refused()
        except FlushTimeoutError:
            self.outbox.seal(lambda _: [])
            self._raise_lost(drain, timeout)

    def _restart(self) -> None:
        with self._restarting:
            if not self._must_restart:
                return
            self._must_restart = False
            self._has_message_of_child = True
            self.outbox.wake_by(self._runner.wake)
            self._open_in_thread(only_to_close=False)
        self._after_first_message_in_child()

    def _deliver_here(self, goal: int, timeout: float | None) -> None:
        drain, channel = self._drain, self._channel
        assert drain is not None
        assert channel is not None
        deadline = sys.maxsize if timeout is None else time.monotonic() + timeout

        def is_enough() -> bool:
            return self.outbox.is_flushed(goal) or time.monotonic() > deadline

        self._runner.run(partial(self._deliver, drain, channel, is_enough))


async def _leave(opening: AbstractAsyncContextManager[Channel], error: BaseException) -> None:
    await opening.__aexit__(type(error), error, error.__traceback__)


def _import_loop_runner() -> type[LoopRunner]:
    from dagsterpipes._delivery.loop_runner import LoopRunner  # noqa: PLC0415 because it takes as long as all the rest

    return LoopRunner


def _context_of_caller() -> contextvars.Context:
    """A copy of the caller's context, in which no event loop runs: the thread may run its own."""
    context = contextvars.copy_context()
    for variable in context:
        if "current_async_library" in variable.name:  # anyio's, sniffio's
            context.run(variable.set, None)
    return context


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
