"""`PipesContext`: what a job calls. Everything here checks, encodes, enqueues; nothing writes."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dagsterpipes._protocol.context_data import ContextFacts
from dagsterpipes._session import current
from dagsterpipes._session.logger import PipesLogger, StderrLogger
from dagsterpipes._threads import in_thread, in_thread_shielded
from dagsterpipes.exceptions import DagsterPipesError, DagsterPipesWarning

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
    from types import CodeType, FrameType, TracebackType

    from typing_extensions import Self

    from dagsterpipes._relay.relay import PipesRelay
    from dagsterpipes._session.progress import PipesProgress
    from dagsterpipes._session.session import Session
    from dagsterpipes.typing import (
        AnyContextLoader,
        AnyMessageWriter,
        AnyParamsLoader,
        PipesAssetCheckSeverity,
        PipesContextData,
        PipesException,
        PipesExtras,
        PipesMetadataLike,
        PipesStatistics,
    )


T = TypeVar("T")

_IN_COROUTINE = 0x80 | 0x200  # inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class PipesContext(ContextFacts):
    """The session of a process that Dagster launched.

    Get one from `open_dagster_pipes`; anywhere below, `PipesContext.get` returns it. Each report and
    log call checks its arguments, encodes them at once, and returns without waiting for the disk or the
    network; a report waits until the session is open, and any call waits while the buffer is full.
    Accepted messages are delivered in order, with ``closed`` last; or `close` raises an error that says
    how many were not, and where they are kept.

    Only the code that opened the session closes it: where a function calls `open_dagster_pipes`
    while a session is open, the end of its ``with`` block, and `close` called from it, deliver what was
    sent and leave the session open.

    Threads: every method may be called from any thread and any event loop.

    Args:
        params_loader: As of `open_dagster_pipes`, whose other options have their defaults here.
        context_loader: As of `open_dagster_pipes`.
        message_writer: As of `open_dagster_pipes`.
    """

    log: PipesLogger = StderrLogger()
    """A `logging.Logger` whose records go to Dagster; ``pipes.log("text", level="INFO")`` works too."""

    _session: Session
    # The asset of a worker's report that names none; None for the only one in scope.
    _default_asset: str | None = None

    def __init__(
        self,
        params_loader: AnyParamsLoader,
        context_loader: AnyContextLoader,
        message_writer: AnyMessageWriter,
    ) -> None:
        from dagsterpipes._session.options import Settings  # noqa: PLC0415 because few jobs need it
        from dagsterpipes._session.session import Session  # noqa: PLC0415 because few jobs need it

        settings = Settings.from_options(os.environ)
        self._attach(Session(params_loader, context_loader, message_writer, settings))
        self._session.start()

    @classmethod
    def _of(cls, session: Session) -> Self:
        context = cls.__new__(cls)
        context._attach(session)  # noqa: SLF001 because it is one of this class
        return context

    def _attach(self, session: Session) -> None:
        self._session = session
        self.log = session.log
        # The frame that opened the session, and the functions that called for it while it was open.
        self._opener: tuple[int, CodeType] | None = None
        self._borrowers: set[CodeType] = set()

    # -- the singleton --------------------------------------------------------------------------

    @classmethod
    def is_initialized(cls) -> bool:
        """Whether there is an open session."""
        return current.open_context() is not None

    @classmethod
    def set(cls, context: PipesContext | None) -> None:
        """Make ``context`` the one that `get` returns; None unsets it."""
        session = getattr(context, "_session", None)
        current.set_context(context, getattr(session, "forward", None))

    @classmethod
    def get(cls) -> PipesContext:
        """The open session.

        Raises:
            DagsterPipesError: There is none.
        """
        context: PipesContext | None = current.open_context()
        if context is None:
            raise DagsterPipesError(
                "PipesContext has not been initialized. You must call `open_dagster_pipes()`."
            )
        return context

    # The facts are there once the session is open: whoever asks before that waits.
    @property
    def _data(self) -> PipesContextData:  # type: ignore[override]  # because the facts come later
        return self._session.data

    # -- reports --------------------------------------------------------------------------------

    def report_asset_materialization(
        self,
        metadata: Mapping[str, PipesMetadataLike] | None = None,
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
        from dagsterpipes._protocol import messages  # noqa: PLC0415 because of processes that report nothing

        method = "report_asset_materialization"
        session = self._session
        scope = session.open_scope(method)
        key = scope.resolve(asset_key, method)
        line = messages.asset_materialization(
            asset_key=key, data_version=data_version, metadata=metadata
        )
        scope.register_materialization(key)
        session.put(method, line)

    def report_asset_check(
        self,
        check_name: str,
        passed: bool,
        severity: PipesAssetCheckSeverity = "ERROR",
        metadata: Mapping[str, PipesMetadataLike] | None = None,
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
        from dagsterpipes._protocol import messages  # noqa: PLC0415 because of processes that report nothing

        method = "report_asset_check"
        session = self._session
        scope = session.open_scope(method)
        key = scope.resolve(asset_key, method)
        line = messages.asset_check(
            asset_key=key,
            check_name=check_name,
            passed=passed,
            severity=severity,
            metadata=metadata,
        )
        scope.register_check(key, check_name)
        session.put(method, line)

    def report_custom_message(self, payload: Any) -> None:
        """Send a payload to the orchestration process, where ``get_custom_messages`` returns it.

        Args:
            payload: Anything that JSON can hold, captured as it is now.

        Raises:
            InvalidReportError: JSON or Dagster's reader could not take it.
            SessionClosedError: The session is closed.
        """
        from dagsterpipes._protocol import messages  # noqa: PLC0415 because of processes that report nothing

        method = "report_custom_message"
        self._session.open_scope(method)
        self._session.put(method, messages.custom_message(payload))

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
        from dagsterpipes._protocol import messages  # noqa: PLC0415 because of processes that report nothing

        method = "log_external_stream"
        self._session.open_scope(method)
        self._session.put_log_line(method, messages.external_stream(stream, text, extras))

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

    def progress(self, description: str = "Working", total: float | None = None) -> PipesProgress:
        """A callback for libraries that count for themselves: call it with what is done so far.

        Args:
            description: What is being done.
            total: How much there is to do, in any unit.
        """
        from dagsterpipes._session.progress import PipesProgress  # noqa: PLC0415 because few jobs need it

        return PipesProgress(self.log, description, total)

    # -- workers --------------------------------------------------------------------------------

    def relay(self, workers: Any) -> PipesRelay[PipesContext]:
        """Let workers in other processes, on other machines too, report through this session.

        Args:
            workers: A ``distributed.Client`` or ``"ray"``, for the engine's own connections; or
                ``"tcp://HOST[:PORT]"`` to listen at that address of this machine, without a host on the
                loopback, without a port at a free one.

        Raises:
            ValueError: It is none of these.
            ChannelError: Nothing can listen there, or Ray is not initialized.
            SessionClosedError: The session is closed.
        """
        from dagsterpipes._relay.relay import open_relay  # noqa: PLC0415 because few jobs need it

        self._session.open_scope("relay")
        return open_relay(workers, self._session, PipesContext, self._default_asset)

    # -- waiting --------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent so far is with the channel: in the file, for a file.

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

        A coroutine that sends very much and calls this now and then never blocks its loop.

        If cancelled: the waiting ends at once, nothing else changes.
        """
        outbox = self._session.delivery.outbox
        if outbox.is_above_high_water():
            await in_thread(outbox.wait_below_high_water)

    def statistics(self) -> PipesStatistics:
        """How many messages were accepted, delivered and dropped so far, and what waits.

        For dashboards and tests; also after the close. Outside Dagster all counts are 0.
        """
        return self._session.statistics()

    def __repr__(self) -> str:
        session = getattr(self, "_session", None)  # not while it is being made
        return f"<{type(self).__name__}{session.describe() if session is not None else ''}>"

    # -- closing --------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the session is closed, or is being closed."""
        return self._session.is_closed

    def close(self, exc: BaseException | PipesException | Mapping[str, Any] | None = None) -> None:
        """Deliver everything sent so far, then ``closed``, and close the channel. Idempotent.

        Messages accepted before are delivered; later reports raise `SessionClosedError`. While another
        thread closes, this waits for it, for up to ``close_timeout``. In a forked child it only delivers
        what the child sent: the session is its parent's. The same holds when it is called from a function
        whose `open_dagster_pipes` returned an already open session.

        Args:
            exc: What ended the job, if not success. ``SystemExit(0)`` is success.

        Raises:
            MessagesLostError: Something could not be delivered within ``close_timeout``.
            ChannelError: Everything was handed over, but the channel failed to close.
            InvalidReportError: ``exc`` is not an exception, nor a mapping that describes one.
        """
        if self._is_borrowed(sys._getframe(1)):  # noqa: SLF001 because inspect is slow to import
            self._session.deliver()
        else:
            self._session.close(exc)

    async def aclose(
        self, exc: BaseException | PipesException | Mapping[str, Any] | None = None
    ) -> None:
        """`close` for coroutines.

        If cancelled: the session is closed all the same; the cancellation is raised after that.
        """
        if self._is_borrowed(sys._getframe(1)):  # noqa: SLF001 because inspect is slow to import
            await in_thread(self._session.deliver)
            return
        try:
            await in_thread_shielded(lambda: self._session.close_in_thread(exc))
        except BaseException as interrupt:
            try:
                self._session.finish_close()
            except DagsterPipesError as error:
                _add_note(interrupt, error)
            raise
        self._session.finish_close()

    def _lend(self, frame: FrameType) -> None:
        """Note which function asked for a session that is open already."""
        # Not the cells of a notebook: whoever runs one again means their own session. But a script that
        # is run by the function that opened.
        if not frame.f_code.co_name.startswith("<") or self._is_called_by_opener(frame):
            self._borrowers.add(frame.f_code)

    def _is_called_by_opener(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if (id(frame), frame.f_code) == self._opener:
                return True
            frame = frame.f_back
        return False

    def _is_borrowed(self, frame: FrameType | None) -> bool:
        """Whether this is called by or for a function that did not open the session."""
        while self._borrowers and frame is not None:
            code = frame.f_code
            if code in self._borrowers and (id(frame), code) != self._opener:
                return not (self.is_closed or self._session.is_inherited())
            frame = frame.f_back
        return False

    if not TYPE_CHECKING:  # type checkers have an error of their own for it

        def __await__(self) -> Any:
            raise TypeError(
                "a PipesContext cannot be awaited: write `async with open_dagster_pipes() as pipes:`"
            )

    def __enter__(self) -> Self:
        frame = sys._getframe(1)  # noqa: SLF001 because inspect is slow to import
        if frame.f_code.co_flags & _IN_COROUTINE:
            warnings.warn(
                "`with open_dagster_pipes()` in a coroutine blocks the event loop while the session"
                " opens and closes; write `async with`",
                DagsterPipesWarning,
                stacklevel=2,
            )
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
