"""The session itself, from open to close; `PipesContext` is its face for jobs."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from dagsterpipes._delivery.delivery import Delivery
from dagsterpipes._delivery.outbox import LogLine
from dagsterpipes._protocol import messages
from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.log_rendering import CoalescingLogRenderer, LogRenderer
from dagsterpipes._session import lifecycle
from dagsterpipes._session.logger import PipesLogger, mark_of
from dagsterpipes._session.reports import Reports
from dagsterpipes.exceptions import DagsterPipesWarning, SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagsterpipes._protocol.log_rendering import AnyLogRenderer
    from dagsterpipes._session.launch import Launch
    from dagsterpipes._session.options import Settings
    from dagsterpipes._session.stdio import StdioCapture
    from dagsterpipes.typing import PipesContextData, PipesException


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
        self.is_closed = False
        # What ends the job and does not come by close(), such as a signal.
        self._reason: BaseException | None = None
        self.delivery = Delivery(
            lambda: launch.opening(self),
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
        self.delivery.start()

    def take_context(self, data: object, source: str) -> None:
        """Take over the context; called in the session's thread while it opens."""
        self._data = check_context_data(data, source)
        self._reports = Reports(self, self._data["asset_keys"])

    def begin(self, extras: Mapping[str, Any], *, capture_stdio: bool) -> None:
        """Say ``opened``, before anybody else can say anything; in the session's thread."""
        if not self._launch.is_joined:
            self.delivery.outbox.put(messages.opened(extras))
        if self._settings.capture_logging is not None:
            from dagsterpipes._session.log_handler import bridge_root_logger  # noqa: PLC0415 because few need it

            self._unbridge = bridge_root_logger(self._settings.capture_logging)
        wanted = self._settings.capture_stdio
        if capture_stdio if wanted is None else wanted:
            from dagsterpipes._session.stdio import StdioCapture  # noqa: PLC0415 because few need it

            self._capture = StdioCapture(self._take_output)
            self._capture.start()

    def _take_output(self, stream: str, text: str) -> None:
        line = LogLine(messages.external_stream(stream, text, None))
        self.delivery.outbox.put(line, urgent=False)

    def wait_opened(self) -> None:
        """Wait until the session is open, or raise what prevented it."""
        if self._is_open:
            return
        try:
            self.delivery.wait_opened()
        except BaseException:
            self.is_closed = True
            raise
        if not self._is_open:
            self._is_open = True
            self.log.session_opened()
            lifecycle.session_opened(
                self,
                messages=self._launch.messages_value,
                handle_sigterm=self._settings.handle_sigterm,
            )

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
            outbox.put(mark_of(record.levelno) + text, urgent=record.levelno >= logging.WARNING)

    def flush(self, timeout: float | None) -> None:
        """See `PipesContext.flush`."""
        self.wait_opened()
        self.delivery.flush(timeout)

    # -- closing --------------------------------------------------------------------------------

    def ended_by(self, reason: BaseException) -> None:
        """Remember what ends the job; `close` reports it."""
        self._reason = reason

    def close(self, exc: BaseException | PipesException | Mapping[str, Any] | None) -> None:
        """See `PipesContext.close`."""
        if self.delivery.is_inherited():
            self._close_in_child()
            return
        if self.is_closed:
            self.delivery.wait_closed(self._settings.close_timeout)
            return
        self.wait_opened()
        line = self._closed_line(exc)
        self._unbridge()
        deadline = time.monotonic() + self._settings.close_timeout
        if self._capture is not None:
            self._stop_capture(self._capture)
        try:
            self.delivery.close(
                lambda dropped: self._last_lines(line, dropped),
                max(0.0, deadline - time.monotonic()),
            )
        finally:
            lifecycle.session_closed(self)

    def _closed_line(self, exc: BaseException | PipesException | Mapping[str, Any] | None) -> bytes:
        if self._reason is not None:
            self._reason.__context__ = exc if isinstance(exc, BaseException) else None
            exc = self._reason
        if exc is not None and not isinstance(exc, BaseException):
            return messages.closed(exc)
        if exc is None:
            return messages.closed(None)
        from dagsterpipes._protocol.exception_payload import (  # noqa: PLC0415 because most sessions end well
            closing_exception,
            exception_payload,
        )

        reported = closing_exception(exc)
        return messages.closed(None if reported is None else exception_payload(reported))

    def _last_lines(self, closed: bytes, dropped: int) -> list[bytes]:
        self.is_closed = True
        lines = []
        if dropped:
            text = f"{dropped:,} log messages were dropped because the buffer was full"
            warnings.warn(text, DagsterPipesWarning, stacklevel=2)
            lines.append(messages.log(text, "WARNING"))
        if not self._launch.is_joined:  # otherwise the process that was launched says it
            lines.append(closed)
        return lines

    def _stop_capture(self, capture: StdioCapture) -> None:
        # Half of the time: what was printed must not keep the reports from being delivered.
        in_time = capture.stop(self._settings.close_timeout / 2)
        if not in_time or capture.error is not None:
            warnings.warn(
                "some of what was printed could not be sent to Dagster: "
                + (repr(capture.error) if in_time else "there was no room in time"),
                DagsterPipesWarning,
                stacklevel=2,
            )

    # -- fork -----------------------------------------------------------------------------------

    def is_inherited(self) -> bool:
        """Whether this is a forked child and the session is its parent's."""
        return self.delivery.is_inherited()

    def continue_after_fork(self) -> None:
        """In a forked child: deliver what it says, beside its parent."""
        self.delivery.continue_after_fork(lambda: lifecycle.finish_at_worker_exit(self))

    def _close_in_child(self) -> None:
        if self._capture is not None:
            self._capture.stop(self._settings.close_timeout)
        self.delivery.flush_child(self._settings.close_timeout)


def _closed(method: str) -> SessionClosedError:
    return SessionClosedError(
        f"{method}(): the Dagster Pipes session is closed, nothing can be sent any more"
    )
