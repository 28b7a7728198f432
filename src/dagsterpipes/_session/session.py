"""The session itself, from open to close; `PipesContext` is its face for jobs."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from dagsterpipes._delivery.delivery import ForkableDelivery
from dagsterpipes._delivery.outbox import LogLine
from dagsterpipes._protocol import messages
from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.log_lines import (
    CoalescingLogRenderer,
    LogRenderer,
    level_tag,
    log_item,
    pack,
)
from dagsterpipes._session import process
from dagsterpipes._session.logger import PipesLogger
from dagsterpipes._session.reports import Reports
from dagsterpipes._session.signals import Terminated
from dagsterpipes._session.threads import make_call
from dagsterpipes.exceptions import (
    ChannelError,
    DagsterPipesWarning,
    InvalidReportError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagsterpipes._protocol.log_lines import AnyLogRenderer
    from dagsterpipes._session.endpoints import Launch
    from dagsterpipes._session.options import Settings
    from dagsterpipes._session.stdio import StdioCapture
    from dagsterpipes.typing import PipesContextData, PipesException


def closed_line(
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


FORK_PATIENCE = 0.5
"""Seconds for which a fork waits until ``opened`` is written."""


class Session:
    """An open session: takes lines and log records, and delivers them until it is closed.

    Threads: every method may be called from any thread, unless it says otherwise.
    """

    def __init__(self, launch: Launch, settings: Settings) -> None:
        self._launch = launch
        self._settings = settings
        # Set in the session's thread, while it opens.
        self._data: PipesContextData | None = None
        self._reports: Reports | None = None
        self._capture: StdioCapture | None = None
        # Takes the handler from the root logger again.
        self._unbridge: Callable[[], None] = lambda: None
        self._is_open = False
        # Held by whoever closes, in a thread that no signal interrupts.
        self._closing = threading.Lock()
        # How the close failed, and what is to be said about it, until somebody is told.
        self._failure: Exception | None = None
        self._warnings: list[str] = []
        # The signal that ends the job.
        self._signal: KeyboardInterrupt | None = None
        self.delivery = ForkableDelivery(
            lambda: launch.opening(self),
            pack,
            self._new_renderer,
            flush_interval=settings.flush_interval,
            buffer_size=settings.buffer_size,
            on_full=settings.on_full,
            in_loop=launch.needs_loop,
        )
        self.log = PipesLogger(self.delivery.outbox, self.wait_opened)
        if settings.log_level is not None:
            self.log.setLevel(settings.log_level)

    def _new_renderer(self) -> AnyLogRenderer:
        window = self._settings.coalesce_logs
        return CoalescingLogRenderer(window) if window else LogRenderer()

    # -- opening --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to open, in the session's own thread."""
        process.session_started(
            self,
            messages=None if self._launch.is_joined else self._launch.messages_value,
            handle_sigterm=self._settings.handle_sigterm,
            in_coroutine=self._launch.in_coroutine,
        )
        try:
            self.delivery.start()
        except BaseException:
            process.session_closed(self)
            raise

    def take_context(self, data: object, source: str) -> None:
        """Take over the context; called in the session's thread while it opens."""
        self._data = check_context_data(data, source)
        self._reports = Reports(self, self._data["asset_keys"])

    def begin(self, extras: Mapping[str, Any], *, capture_stdio: bool) -> None:
        """Say ``opened``, before anybody else can say anything; in the session's thread."""
        if self.is_closed:  # it was given up meanwhile
            return
        if not self._launch.is_joined:
            self.delivery.outbox.put(messages.opened(extras))
        if self._settings.capture_logging is not None:
            from dagsterpipes._session.log_handler import bridge_root_logger  # noqa: PLC0415 because few need it

            self._unbridge = bridge_root_logger(self._settings.capture_logging)
        wanted = self._settings.capture_stdio
        if capture_stdio if wanted is None else wanted:
            from dagsterpipes._session.stdio import StdioCapture  # noqa: PLC0415 because few need it

            self._capture = StdioCapture(self._take_output)
            try:
                self._capture.start()
            except BaseException:
                self._unbridge()
                raise
        self._is_open = True
        self.log.session_opened()

    def _take_output(self, stream: str, text: str) -> None:
        line = LogLine(messages.external_stream(stream, text, None))
        self.delivery.outbox.put(line, urgent=False)

    def wait_opened(self) -> None:
        """Wait until the session is open, or raise what prevented it."""
        if self._is_open:
            return
        try:
            self.delivery.wait_opened()
        finally:
            if self.delivery.has_failed:
                process.session_closed(self)

    @property
    def is_closed(self) -> bool:
        """Whether the session is closed, is being closed, or could not be opened."""
        return self.delivery.outbox.sealed or self.delivery.has_failed

    @property
    def data(self) -> PipesContextData:
        """What Dagster said when it launched this process; waits for the opening."""
        self.wait_opened()
        assert self._data is not None
        return self._data

    @property
    def reports(self) -> Reports:
        """Takes reports; waits for the opening."""
        self.wait_opened()
        assert self._reports is not None
        return self._reports

    # -- saying something -----------------------------------------------------------------------

    def check_open(self, method: str) -> None:
        """Raise if the session is closed; waits for the opening."""
        self.wait_opened()
        if self.is_closed:
            raise _closed(method)

    def put(self, method: str, line: bytes, *, urgent: bool = True) -> None:
        """Accept a line, or raise for the method that said it."""
        self.wait_opened()
        if not self.delivery.outbox.put(line, urgent=urgent):
            raise _closed(method)

    def forward(self, record: logging.LogRecord, text: str) -> None:
        """Take a record that was not logged here; quietly not after the close.

        Nor from the session's own threads: each record would cause the next one.
        """
        outbox = self.delivery.outbox
        if threading.get_ident() not in outbox.exempt_threads:
            self.wait_opened()
            said = log_item(level_tag(record.levelno), text)
            outbox.put(said, urgent=record.levelno >= logging.WARNING)

    def flush(self, timeout: float | None) -> None:
        """See `PipesContext.flush`."""
        self.wait_opened()
        self.delivery.flush(timeout)

    # -- closing --------------------------------------------------------------------------------

    def ended_by(self, signal: KeyboardInterrupt) -> None:
        """Remember the signal that ends the job; the close reports it."""
        if self._signal is None:
            self._signal = signal

    def close(self, exc: BaseException | PipesException | Mapping[str, Any] | None) -> None:
        """See `PipesContext.close`."""
        make_call(lambda: self.shut(exc))
        self.end()

    def shut(self, exc: BaseException | PipesException | Mapping[str, Any] | None) -> None:
        """Close, in a thread that no signal interrupts; `end` says how that went.

        Raises:
            InvalidReportError: ``exc`` cannot be reported; nothing was closed.
        """
        timeout = self._settings.close_timeout
        deadline = time.monotonic() + timeout
        if self.delivery.is_inherited():
            self._shut_in_child(timeout)
        elif self._closing.acquire(timeout=timeout):
            try:
                if not self.is_closed:
                    self._seal(exc, deadline)
                self.delivery.finish(max(0.0, deadline - time.monotonic()))
            except InvalidReportError:
                raise
            except Exception as error:  # noqa: BLE001 because end() raises it
                self._failure = error
            finally:
                self._closing.release()

    def end(self) -> None:
        """After `shut`: put back what only the caller's thread may, raise how the close failed."""
        if self.is_closed and not self.delivery.is_inherited():
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
            self.delivery.outbox.seal(lambda _: [])  # whatever becomes of it, it says nothing
            raise
        line = closed_line(exc, self._signal)
        self._unbridge()
        if self._capture is not None:
            # Half of the time: what was printed must not keep the reports from being delivered.
            self._stop_capture(max(0.0, deadline - time.monotonic()) / 2)
        try:
            self.delivery.outbox.seal(
                lambda dropped: self._last_lines(line, dropped),
                max(0.0, deadline - time.monotonic()),
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
        if not self._launch.is_joined:  # otherwise the process that was launched says it
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
                + (repr(self._capture.error) if in_time else "there was no room in time")
            )

    # -- fork -----------------------------------------------------------------------------------

    def is_inherited(self) -> bool:
        """Whether this is a forked child and the session is its parent's."""
        return self.delivery.is_inherited()

    def prepare_fork(self) -> None:
        """Before a fork: let ``opened`` come before what the child says, unless the disk stalls."""
        self.delivery.prepare_fork(FORK_PATIENCE)

    def continue_after_fork(self) -> None:
        """In a forked child: deliver what it says, beside its parent."""
        self._closing = threading.Lock()
        self._failure = None
        self._signal = None
        self._launch.is_joined = True
        self.delivery.continue_after_fork(process.finish_at_worker_exit)

    def _shut_in_child(self, timeout: float) -> None:
        if self._capture is not None:
            self._capture.stop(timeout)
        outbox = self.delivery.outbox
        dropped, outbox.dropped = outbox.dropped, 0
        if dropped:
            outbox.items.append(self._drop_message(dropped))  # without waiting for room
        try:
            self.delivery.flush_child(timeout)
        except Exception as error:  # noqa: BLE001 because end() raises it
            self._failure = error


def _closed(method: str) -> SessionClosedError:
    return SessionClosedError(
        f"{method}(): the Dagster Pipes session is closed, nothing can be sent any more"
    )
