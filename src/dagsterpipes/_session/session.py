"""The session itself, from open to close; `PipesContext` is its face for jobs."""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from dagsterpipes._delivery.delivery import Delivery
from dagsterpipes._delivery.outbox import LogLine
from dagsterpipes._protocol import exception_info, messages
from dagsterpipes._protocol.assets import ReportScope
from dagsterpipes._protocol.envelope import DAGSTER_PIPES_MESSAGES_ENV_VAR
from dagsterpipes._protocol.log_lines import (
    MOST_MESSAGES,
    AdaptiveLogRenderer,
    ChunkLogRenderer,
    CoalescingLogRenderer,
    LogRenderer,
    level_tag,
    log_item,
    pack,
)
from dagsterpipes._session import process
from dagsterpipes._session.endpoints import Endpoints
from dagsterpipes._session.logger import SessionLogger, add_trace_ids
from dagsterpipes._session.signals import Terminated
from dagsterpipes._threads import in_coroutine, run_uninterruptible
from dagsterpipes.exceptions import (
    ChannelError,
    DagsterPipesError,
    DagsterPipesWarning,
    FlushTimeoutError,
    InvalidReportError,
    closed_error,
)
from dagsterpipes.loaders import PipesDefaultContextLoader, PipesEnvVarParamsLoader
from dagsterpipes.writers import PipesDefaultMessageWriter

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Callable, Mapping

    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes._protocol.log_lines import AnyLogRenderer
    from dagsterpipes._session.endpoints import Opened
    from dagsterpipes._session.options import Settings
    from dagsterpipes._session.stdio import StdioCapture
    from dagsterpipes.typing import (
        AnyContextLoader,
        AnyMessageWriter,
        AnyParamsLoader,
        PipesContextData,
        PipesException,
        PipesStatistics,
    )


FORK_PATIENCE = 0.5
"""Seconds for which a fork waits until ``opened`` is written."""

CLOSE_GRACE = 5.0
"""Seconds beyond ``close_timeout`` after which a close that hangs is left behind."""


LOCK_PATIENCE = 0.5
"""Seconds that a close waits for the queue's lock at least, also when its time is over: whoever calls or
delivers holds it for a moment, and without it the session would stay open."""


class ClosedFirst(Protocol):
    """What is closed before its session: a relay."""

    def close(self) -> None: ...


class Session:
    """One session, from opening to close: accepts lines and log records, and delivers them.

    Threads: every method may be called from any thread, unless it says otherwise.

    Args:
        params_loader: As of `open_dagster_pipes`, and so are the others.
        context_loader: See there.
        message_writer: See there.
        settings: See there.

    Raises:
        LaunchParamsError: The bootstrap values are missing or cannot be decoded.
        ContextError: The context loader raised something.
        ChannelError: The message writer raised something.
    """

    def __init__(
        self,
        params_loader: AnyParamsLoader | None,
        context_loader: AnyContextLoader | None,
        message_writer: AnyMessageWriter | None,
        settings: Settings,
    ) -> None:
        if params_loader is None:
            params_loader = PipesEnvVarParamsLoader()
        # The raw value of the environment, if that is where the params come from.
        self._messages_value = None
        if type(params_loader) is PipesEnvVarParamsLoader:
            self._messages_value = os.environ.get(DAGSTER_PIPES_MESSAGES_ENV_VAR)
        self._endpoints = Endpoints(
            params_loader,
            PipesDefaultContextLoader() if context_loader is None else context_loader,
            PipesDefaultMessageWriter() if message_writer is None else message_writer,
            is_joined=process.belongs_to_other_process(self._messages_value),
        )
        self._settings = settings
        self._in_coroutine = in_coroutine()
        # Set while the session opens.
        self._data: PipesContextData | None = None
        self._scope: ReportScope | None = None
        self._capture: StdioCapture | None = None
        # The reader takes log lines as fast as they come.
        self._reader_is_fast = False
        # Another process has the session open and ends it, this one only adds to it.
        self._is_joined = False
        # Takes the bridge from the application's loggers again.
        self._unbridge: Callable[[], None] = lambda: None
        self._is_open = False
        self._relays: list[ClosedFirst] = []
        # Held by whoever closes, in a thread that no signal interrupts.
        self._closing = threading.Lock()
        # How the close failed, and what to warn of, until somebody is told.
        self._failure: Exception | None = None
        self._warnings: list[str] = []
        # The signal that ends the job.
        self._signal: KeyboardInterrupt | None = None
        self.delivery = Delivery(
            self._opening,
            pack,
            self._new_renderer,
            flush_interval=settings.flush_interval,
            buffer_size=settings.buffer_size,
            on_full=settings.on_full,
            in_loop=self._endpoints.needs_loop,
            may_need_loop=self._endpoints.may_need_loop,
            open_here=not self._in_coroutine,
            after_first_message_in_child=process.finish_at_worker_exit,
        )
        self.log = SessionLogger(
            self.delivery.outbox,
            self._why_refused,
            add=add_trace_ids if settings.trace_ids else None,
        )
        if settings.log_level is not None:
            self.log.setLevel(settings.log_level)

    def _new_renderer(self, is_paced: bool) -> AnyLogRenderer:
        window = self._settings.coalesce_logs
        if is_paced and window != 0:
            return ChunkLogRenderer(max_messages=0 if window else MOST_MESSAGES)
        if window is None and not self._reader_is_fast:
            return AdaptiveLogRenderer()
        return CoalescingLogRenderer(window) if window else LogRenderer()

    # -- opening --------------------------------------------------------------------------------

    def start(self) -> None:
        """Open; or start to open in the session's own thread if the caller must not block."""
        try:
            process.session_started(
                self,
                messages=None if self._endpoints.is_joined else self._messages_value,
                handle_sigterm=self._settings.handle_sigterm,
                in_coroutine=self._in_coroutine,
            )
            self.delivery.start()
        except BaseException as error:
            self.start_failed(error)
            raise

    def start_failed(self, error: BaseException) -> None:
        """Give up where nothing is being opened any more; also where a signal came before `start`."""
        self.delivery.fail_unless_started(error)
        if self.delivery.has_failed:
            self._opening_failed()

    @asynccontextmanager
    async def _opening(self, only_to_close: bool) -> AsyncIterator[Channel]:
        async with self._endpoints.open(without_context=only_to_close) as opened:
            self._begin(opened)
            try:
                yield opened.channel
            except ChannelError:  # the channel does not take the first line
                self._unbridge()
                if self._capture is not None:
                    self._capture.stop(0)
                raise

    def _begin(self, opened: Opened) -> None:
        """Send ``opened`` before everything else, and start what the options ask for."""
        self._is_joined = opened.is_joined
        self._reader_is_fast = opened.reader_is_fast
        if self.is_closed:  # it was given up meanwhile
            return
        if not self._is_joined:
            self.delivery.outbox.put_first(messages.opened(opened.extras))
        if opened.data is None:  # only to close
            return
        self._data = opened.data
        self._scope = ReportScope(opened.data["asset_keys"])
        if self._settings.capture_logging is not None:
            from dagsterpipes._session.log_handler import bridge_loggers  # noqa: PLC0415 because few need it

            self._unbridge = bridge_loggers(self._settings.capture_logging, self.forward)
        wanted = self._settings.capture_stdio
        if opened.wants_stdio if wanted is None else wanted:
            from dagsterpipes._session.stdio import StdioCapture  # noqa: PLC0415 because few need it

            self._capture = StdioCapture(self._take_output)
            try:
                self._capture.start()
            except BaseException:
                self._unbridge()
                raise
        exception_info.prepare()
        self.log.session_opened()

    def _take_output(self, stream: str, text: str) -> None:
        line = LogLine(messages.external_stream(stream, text, None))
        self.delivery.outbox.put(line, urgent=False)

    def wait_opened(
        self, timeout: float | None = None, error: type[DagsterPipesError] = ChannelError
    ) -> None:
        """Wait until the session is open; raise what prevented it, or ``error`` after ``timeout``."""
        if self._is_open:
            return
        try:
            self.delivery.wait_opened(timeout, error)
        finally:
            if self.delivery.has_failed:
                self._opening_failed()
        self._is_open = True

    def wait_for_opener(
        self, timeout: float | None = None, error: type[DagsterPipesError] = ChannelError
    ) -> None:
        """`wait_opened`, with an end: a loader of the opener may wait for the calling thread."""
        self.wait_opened(self._settings.close_timeout if timeout is None else timeout, error)

    def _opening_failed(self) -> None:
        process.session_closed(self)
        self.delivery.outbox.seal(lambda _: [])
        self.log.show_unsent(self.delivery.outbox.abandon())

    def _why_refused(self, method: str) -> BaseException:
        return self.delivery.opening_error or closed_error(method)

    @property
    def is_closed(self) -> bool:
        """Whether the session is closed, is being closed, or could not be opened."""
        return self.delivery.outbox.sealed or self.delivery.has_failed

    @property
    def data(self) -> PipesContextData:
        """The context with which Dagster launched this process; waits for the opening."""
        self.wait_for_opener()
        if self._data is None:
            raise DagsterPipesError(
                "opening the Dagster Pipes session was interrupted, so its context was not loaded"
            )
        return self._data

    # -- sending --------------------------------------------------------------------------------

    def open_scope(self, method: str) -> ReportScope:
        """What may be reported; waits for the opening, and raises if the session is closed."""
        self.wait_for_opener()
        scope = self._scope
        if scope is None or self.delivery.outbox.sealed:
            raise closed_error(method)
        return scope

    def put(self, method: str, line: bytes, *, urgent: bool = True) -> None:
        """Accept a line, or raise for the method that sends it."""
        if not self.delivery.outbox.put(line, urgent=urgent):
            raise closed_error(method)

    def put_log_line(self, method: str, line: bytes) -> None:
        """Accept a line that may wait for others, and be dropped as log lines may."""
        self.put(method, LogLine(line), urgent=False)

    def forward(self, record: logging.LogRecord, text: str) -> bool:
        """Take a record that was not logged here; return False if the session is closed.

        Not from the session's own threads: each record would cause the next one.
        """
        outbox = self.delivery.outbox
        if threading.get_ident() in outbox.exempt_threads:
            return True
        if self._settings.trace_ids:
            text = add_trace_ids(text)
        item = log_item(level_tag(record.levelno), text)
        return outbox.put(item, urgent=record.levelno >= 30)

    def flush(self, timeout: float | None) -> None:
        """See `PipesContext.flush`."""
        start = time.monotonic()
        self.wait_for_opener(timeout, FlushTimeoutError)
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - start))
        self.delivery.flush(timeout)

    def deliver(self) -> None:
        """Wait for what was sent so far, as long as a close would."""
        self.flush(self._settings.close_timeout)

    def statistics(self) -> PipesStatistics:
        """See `PipesContext.statistics`."""
        return self.delivery.statistics()

    def describe(self) -> str:
        """What it is a session of, and its state; waits for nothing."""
        state = "closed" if self.is_closed else "open" if self._is_open else "opening"
        if self.delivery.has_failed:
            state = "not opened"
        data = self._data
        if data is None:
            return f" {state}"
        keys = data["asset_keys"]
        target = (
            "op"
            if keys is None
            else f"asset {keys[0]!r}"
            if len(keys) == 1
            else f"{len(keys)} assets"
        )
        return f" of {target}, run {data['run_id']!r}, {state}"

    # -- workers --------------------------------------------------------------------------------

    def take_lines(self, lines: bytes) -> bool:
        """Put whole lines of a worker into the queue, waiting for room; False once it is closed."""
        return self.delivery.outbox.put(lines)

    def for_workers(self) -> tuple[PipesContextData, Settings]:
        """The context and the options with which workers open."""
        settings = self._settings
        if settings.coalesce_logs is None and self._reader_is_fast:
            settings = settings._replace(coalesce_logs=0)
        return self.data, settings

    def close_first(self, relay: ClosedFirst) -> None:
        """Close the relay before the session refuses messages."""
        self._relays.append(relay)

    # -- closing --------------------------------------------------------------------------------

    def ended_by(self, signal: KeyboardInterrupt) -> None:
        """Remember the signal that ends the job; the close reports it."""
        if self._signal is None:
            self._signal = signal

    def close(self, exc: BaseException | PipesException | Mapping[str, Any] | None) -> None:
        """See `PipesContext.close`."""
        run_uninterruptible(
            lambda: self.close_in_thread(exc), self._settings.close_timeout + CLOSE_GRACE
        )
        self.finish_close()

    def close_in_thread(
        self, exc: BaseException | PipesException | Mapping[str, Any] | None
    ) -> None:
        """Close, in a thread that no signal interrupts; `finish_close` says how that went.

        Raises:
            InvalidReportError: ``exc`` cannot be reported; nothing was closed.
        """
        timeout = self._settings.close_timeout
        deadline = time.monotonic() + timeout
        if self.is_inherited():
            self._deliver_in_child(timeout)
        elif self._closing.acquire(timeout=timeout):
            try:
                if not self.is_closed:
                    self._seal(exc, deadline)
                self.delivery.finish(max(0.0, deadline - time.monotonic()))
            except InvalidReportError:
                raise
            except Exception as error:  # noqa: BLE001 because finish_close() raises it
                self._failure = error
            finally:
                self._closing.release()
        else:
            self._failure = ChannelError(
                f"another thread was still closing the session after {timeout:.3g} s"
            )

    def finish_close(self) -> None:
        """Put back what only the caller's thread may; raise how the close failed."""
        if self.is_closed and not self.is_inherited():
            process.session_closed(self)
        failure, self._failure = self._failure, None
        try:
            while self._warnings:
                warnings.warn(self._warnings.pop(), DagsterPipesWarning, stacklevel=3)
        finally:
            if failure is not None:
                raise failure

    def _seal(
        self, exc: BaseException | PipesException | Mapping[str, Any] | None, deadline: float
    ) -> None:
        try:
            self.delivery.wait_opened(max(0.0, deadline - time.monotonic()))
        except BaseException:
            self.delivery.outbox.seal(lambda _: [])  # whatever becomes of it, it sends nothing
            raise
        line = _closed_line(exc, self._signal)
        for relay in self._relays:
            relay.close()
        self._unbridge()
        if self._capture is not None:
            # Half of the time: what was printed must not keep the reports from being delivered.
            self._stop_capture(max(0.0, deadline - time.monotonic()) / 2)
        try:
            self.delivery.outbox.seal(
                lambda dropped: self._last_lines(line, dropped),
                max(LOCK_PATIENCE, deadline - time.monotonic()),
            )
        except TimeoutError as error:
            raise ChannelError(
                f"the session could not be closed: {error}. A signal handler must not call close():"
                " let it raise KeyboardInterrupt or set a flag"
            ) from error

    def _last_lines(self, closed: bytes, dropped: int) -> list[bytes]:
        lines = []
        if dropped:
            lines.append(self._drop_message(dropped))
        if not self._is_joined:  # otherwise the process that was launched sends it
            lines.append(closed)
        return lines

    def _drop_message(self, dropped: int) -> bytes:
        """Say that log messages were dropped, and warn of it once the close is done."""
        what = "log message was" if dropped == 1 else "log messages were"
        text = f"{dropped:,} {what} dropped because the buffer was full"
        self._warnings.append(text)
        return messages.log(text, "WARNING")

    def _stop_capture(self, timeout: float) -> None:
        assert self._capture is not None
        in_time = self._capture.stop(timeout)
        if not in_time or self._capture.error is not None:
            self._warnings.append(
                "some of what was printed could not be sent to Dagster: "
                + (
                    repr(self._capture.error)
                    if in_time
                    else "the buffer had no room before the timeout"
                )
            )

    # -- fork -----------------------------------------------------------------------------------

    def is_inherited(self) -> bool:
        """Whether this is a forked child and the session is its parent's."""
        return self.delivery.is_inherited()

    def before_fork(self) -> None:
        """Let ``opened`` come before what the child sends, unless the disk stalls."""
        self.delivery.before_fork(FORK_PATIENCE)

    def after_fork_in_child(self) -> None:
        """In a forked child: deliver what it sends, beside its parent."""
        self._closing = threading.Lock()
        self._failure = None
        self._warnings = []
        self._signal = None
        self._is_joined = self._endpoints.is_joined = True
        self.delivery.after_fork_in_child()

    def _deliver_in_child(self, timeout: float) -> None:
        if self._capture is not None:
            self._capture.stop(timeout)
        outbox = self.delivery.outbox
        dropped, outbox.dropped = outbox.dropped, 0
        if dropped:
            outbox.items.append(self._drop_message(dropped))  # without waiting for room
        try:
            self.delivery.flush_child(timeout)
        except Exception as error:  # noqa: BLE001 because finish_close() raises it
            self._failure = error


def _closed_line(
    exc: BaseException | PipesException | Mapping[str, Any] | None,
    signal: KeyboardInterrupt | None,
) -> bytes:
    """The ``closed`` message.

    Args:
        exc: What the caller closes with.
        signal: The signal that ended the job, if one did: where ``exc`` is only what became of it, the
            signal is reported.

    Raises:
        InvalidReportError: ``exc`` cannot be reported.
    """
    if exc is not None and not isinstance(exc, BaseException):
        return messages.closed(exc)
    if signal is not None and (isinstance(signal, Terminated) or _is_cancellation(exc)):
        # A new one, as the old one may be somewhere in the context of this one.
        reason = type(signal)(*signal.args)
        reason.__context__ = exc
        exc = reason
    return messages.closed(exc)


def _is_cancellation(exc: BaseException | None) -> bool:
    """Whether it is what asyncio and trio make of a signal in the end."""
    return exc is not None and not isinstance(
        exc, (Exception, KeyboardInterrupt, SystemExit, GeneratorExit)
    )
