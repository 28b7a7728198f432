"""`PipesContext`: what a job calls. Everything here checks, encodes, enqueues; nothing writes."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from dagsterpipes._protocol.context_data import ContextFacts
from dagsterpipes._session.threads import in_thread, in_thread_to_the_end
from dagsterpipes.exceptions import DagsterPipesError, DagsterPipesWarning

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from dagsterpipes._session.logger import CallableLogger
    from dagsterpipes._session.progress import Progress
    from dagsterpipes._session.session import Session
    from dagsterpipes.typing import (
        PipesAssetCheckSeverity,
        PipesContextData,
        PipesException,
        PipesExtras,
        PipesMetadataRawValue,
        PipesMetadataValue,
    )


T = TypeVar("T")


class PipesContext(ContextFacts):
    """The session of a process that Dagster launched.

    Get one from `open_dagster_pipes`; anywhere below, `PipesContext.get` returns it. Each report and
    log call checks what it is given, takes a copy of it as it is at that moment, and returns without
    waiting for the disk or the network. What was accepted is delivered once, in order, with
    ``closed`` last; or `close` says how much was not, and where it is kept.

    Threads: every method may be called from any thread and any event loop.
    """

    log: CallableLogger
    """A `logging.Logger` whose records go to Dagster; ``pipes.log("text", level="INFO")`` works too."""

    _instance: ClassVar[PipesContext | None] = None

    def __init__(self, session: Session) -> None:
        self._session = session
        self.log = session.log

    def forward(self, record: logging.LogRecord, text: str) -> None:
        """Take a record of the application's own loggers; for `PipesLogHandler`."""
        self._session.forward(record, text)

    # -- the singleton --------------------------------------------------------------------------

    @classmethod
    def is_initialized(cls) -> bool:
        """Whether there is an open session."""
        return PipesContext.get_open() is not None

    @classmethod
    def set(cls, context: PipesContext | None) -> None:
        """Make ``context`` the one that `get` returns; None for no one."""
        PipesContext._instance = context

    @classmethod
    def get(cls) -> PipesContext:
        """The open session.

        Raises:
            DagsterPipesError: There is none.
        """
        current = PipesContext.get_open()
        if current is None:
            raise DagsterPipesError(
                "PipesContext has not been initialized. You must call `open_dagster_pipes()`."
            )
        return current

    @classmethod
    def get_open(cls) -> PipesContext | None:
        """The open session, or None."""
        current = PipesContext._instance
        return None if current is None or current.is_closed else current

    # The facts are there once the session is open: whoever asks before that waits.
    @property
    def _data(self) -> PipesContextData:  # type: ignore[override]  # because the facts come later
        return self._session.data

    # -- reports --------------------------------------------------------------------------------

    def report_asset_materialization(
        self,
        metadata: Mapping[str, PipesMetadataRawValue | PipesMetadataValue | Any] | None = None,
        data_version: str | None = None,
        asset_key: str | None = None,
    ) -> None:
        """Report that an asset has been materialized.

        Args:
            metadata: Values by name. Each is a typed value, or a raw one whose type is inferred.
            data_version: The version of the asset's data.
            asset_key: May be left out when exactly one asset is in scope.

        Raises:
            InvalidReportError: Dagster could not take an argument.
            DagsterPipesError: The asset is not in scope, or was reported before.
            SessionClosedError: The session is closed.
        """
        self._session.reports.asset_materialization(metadata, data_version, asset_key)

    def report_asset_check(
        self,
        check_name: str,
        passed: bool,
        severity: PipesAssetCheckSeverity = "ERROR",
        metadata: Mapping[str, PipesMetadataRawValue | PipesMetadataValue | Any] | None = None,
        asset_key: str | None = None,
    ) -> None:
        """Report the result of an asset check.

        Args:
            check_name: The name that the check was declared with on the Dagster side.
            passed: Whether it passed; `numpy.bool_` is taken too.
            severity: ``"WARN"`` or ``"ERROR"``.
            metadata: Values by name, as for a materialization.
            asset_key: May be left out when exactly one asset is in scope.

        Raises:
            InvalidReportError: Dagster could not take an argument.
            DagsterPipesError: The asset is not in scope, or this check was reported before.
            SessionClosedError: The session is closed.
        """
        self._session.reports.asset_check(check_name, passed, severity, metadata, asset_key)

    def report_custom_message(self, payload: Any) -> None:
        """Send a payload to the orchestration process, where ``get_custom_messages`` returns it.

        Args:
            payload: Anything that JSON can hold, captured as it is now.

        Raises:
            InvalidReportError: JSON or Dagster's reader could not take it.
            SessionClosedError: The session is closed.
        """
        self._session.reports.custom_message(payload)

    def log_external_stream(
        self, stream: str, text: str, extras: PipesExtras | None = None
    ) -> None:
        """Send text that a process printed; Dagster shows it as that process's output.

        Args:
            stream: ``"stdout"`` or ``"stderr"``.
            text: The text, with its line breaks.
            extras: Anything about it that JSON can hold.

        Raises:
            InvalidReportError: Dagster could not take an argument.
            SessionClosedError: The session is closed.
        """
        self._session.reports.external_stream(stream, text, extras)

    # -- progress -------------------------------------------------------------------------------

    @overload
    def track(
        self, iterable: Iterable[T], description: str = ..., total: float | None = ...
    ) -> Iterator[T]: ...
    @overload
    def track(
        self, iterable: AsyncIterable[T], description: str = ..., total: float | None = ...
    ) -> AsyncIterator[T]: ...
    def track(self, iterable: Any, description: str = "Working", total: float | None = None) -> Any:
        """Yield what ``iterable`` yields, and log now and then how far it got.

        A line every 10 seconds and every tenth of the work, with what is done, the total, the rate
        and the time left; and one at the end. Costs about 0.1 us an item. On a terminal outside
        Dagster it is a progress bar, if `rich` is installed.

        Args:
            iterable: A sync or an async iterable.
            description: What is being done; the beginning of each line.
            total: How many items there are; ``len(iterable)`` where that works.
        """
        from dagsterpipes._session.progress import track  # noqa: PLC0415 because few jobs need it

        return track(iterable, lambda known: self.progress(description, known), total)

    def progress(self, description: str = "Working", total: float | None = None) -> Progress:
        """A callback for libraries that count for themselves: call it with what is done so far.

        Args:
            description: What is being done.
            total: How much there is to do, in any unit.
        """
        from dagsterpipes._session.progress import Progress  # noqa: PLC0415 because few jobs need it

        return Progress(self.log, description, total)

    # -- waiting --------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything said so far is with the channel: in the file, for a file.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            FlushTimeoutError: It took longer; the session goes on delivering.
            SessionClosedError: The session is closed.
        """
        self._session.flush(timeout)

    async def aflush(self) -> None:
        """`flush` for coroutines.

        If cancelled: the waiting ends at once, the delivery goes on.
        """
        await in_thread(self.flush)

    async def drain(self) -> None:
        """Wait only while more than half of the buffer is in use (as ``StreamWriter.drain`` does).

        A coroutine that says very much and calls this now and then never blocks its loop.

        If cancelled: the waiting ends at once, nothing else changes.
        """
        outbox = self._session.delivery.outbox
        if outbox.is_above_high_water():
            await in_thread(outbox.wait_below_high_water)

    # -- closing --------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the session is closed, or is being closed."""
        return self._session.is_closed

    def close(self, exc: BaseException | PipesException | Mapping[str, Any] | None = None) -> None:
        """Deliver everything said so far, say ``closed``, and close the channel. Idempotent.

        What was said before is delivered, whoever says something after gets a `SessionClosedError`.
        While another thread closes, this waits for it. In a forked child it only delivers what the
        child said: the session is its parent's.

        Args:
            exc: What ended the job, if not success. ``SystemExit(0)`` is success.

        Raises:
            MessagesLostError: Something could not be delivered within ``close_timeout``.
            ChannelError: Everything was handed over, but the channel failed to close.
            InvalidReportError: ``exc`` is not an exception, nor a mapping that describes one.
        """
        self._session.close(exc)

    async def aclose(
        self, exc: BaseException | PipesException | Mapping[str, Any] | None = None
    ) -> None:
        """`close` for coroutines.

        If cancelled: the session is closed all the same; the cancellation is raised after that.
        """
        try:
            await in_thread_to_the_end(lambda: self._session.shut(exc))
        except BaseException as interrupt:
            try:
                self._session.end()
            except DagsterPipesError as error:
                _add_note(interrupt, error)
            raise
        self._session.end()

    def __enter__(self) -> Self:
        try:
            self._session.wait_opened()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close(exc)
        except DagsterPipesError as error:
            if _is_clean(exc):
                raise
            _add_note(exc, error)

    async def __aenter__(self) -> Self:
        try:
            await in_thread(self._session.wait_opened)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose(exc)
        except DagsterPipesError as error:
            if _is_clean(exc):
                raise
            _add_note(exc, error)


def _is_clean(exc: BaseException | None) -> bool:
    return exc is None or (isinstance(exc, SystemExit) and exc.code in (None, 0))


def _add_note(exc: BaseException | None, error: DagsterPipesError) -> None:
    """Say what happened at the close without hiding what ended the job."""
    text = f"closing the Dagster Pipes session failed: {error}"
    if exc is not None and hasattr(exc, "add_note"):
        exc.add_note(f"And {text}")
    try:
        warnings.warn(text, DagsterPipesWarning, stacklevel=3)
    except DagsterPipesWarning:  # warnings are errors
        if not hasattr(exc, "add_note"):
            print(text, file=sys.stderr)  # noqa: T201 because Python 3.10 has no other place for it
