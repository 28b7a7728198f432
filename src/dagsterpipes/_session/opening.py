"""`open_dagster_pipes` and `with_dagster_pipes`: how a job gets its session."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from dagsterpipes._protocol.envelope import DAGSTER_PIPES_CONTEXT_ENV_VAR
from dagsterpipes._session import current, signals
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.null import NullPipesContext
from dagsterpipes._session.options import Settings
from dagsterpipes._threads import in_coroutine
from dagsterpipes.exceptions import DagsterPipesWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType

    from typing_extensions import Unpack

    from dagsterpipes.typing import (
        AnyContextLoader,
        AnyMessageWriter,
        AnyParamsLoader,
        SessionOptions,
    )

T = TypeVar("T")

# Loaders and writer of a launch in a test, see `dagsterpipes.testing`.
_test_launch: tuple[AnyParamsLoader, AnyContextLoader, AnyMessageWriter] | None = None

# Whether the user was told that Dagster did not launch this process.
_has_told_of_standalone = False


def open_dagster_pipes(
    *,
    context_loader: AnyContextLoader | None = None,
    message_writer: AnyMessageWriter | None = None,
    params_loader: AnyParamsLoader | None = None,
    flush_interval: float = 0.02,
    buffer_size: int = 8 << 20,
    on_full: Literal["wait", "drop_logs"] = "wait",
    coalesce_logs: float | None = None,
    close_timeout: float = 30.0,
    log_level: int | str | None = None,
    handle_sigterm: bool = True,
    capture_stdio: bool | None = None,
    capture_logging: bool | int | str = False,
    trace_ids: bool | None = None,
    show_reports: bool | None = None,
) -> PipesContext:
    """Open the session with the Dagster process that launched this one.

    In plain code the session is open when this returns. Under a running event loop it returns at
    once, and ``async with`` awaits the opening; what is logged before that is sent after ``opened``, and any
    other use of the context waits. While a session is open, this returns its context; leaving that inner ``with`` block
    delivers what was sent and keeps the session open. Only the code that opened a session closes it.
    After its close a new one can be opened.

    When the process was not launched by Dagster, the result is a `NullPipesContext`: logs go to
    stderr, reports are checked and go nowhere. When it was and the session cannot be opened, an error is raised; the job
    never runs silently without a session.

    A process that is killed outright (SIGKILL, out of memory) cannot close its session. Dagster then
    misses what was sent in the last ``flush_interval``, and with ``coalesce_logs`` the log
    lines below ``WARNING`` of the last such window. Everything before has been delivered.

    Args:
        context_loader: Loads the context; `PipesDefaultContextLoader` unless given. This, the
            writer and the params loader may be ours, ``dagster_pipes``' or subclasses of either.
        message_writer: Opens the channel for messages; `PipesDefaultMessageWriter` unless given.
        params_loader: Finds the bootstrap values; `PipesEnvVarParamsLoader` unless given.
        flush_interval: Seconds, 0 or more: how long a log line may wait for others to be written
            with it. Reports, ``WARNING`` and above, `flush` and `close` do not wait.
        buffer_size: Bytes, 64 KiB or more, that messages may take in memory while they wait for the
            channel.
        on_full: What happens when they need more: ``"wait"`` makes callers wait for room,
            ``"drop_logs"`` drops log messages, never reports, and reports their number at the close.
        coalesce_logs: Seconds; consecutive log lines of one level that fall into this window become
            one log message of several lines, of at most a page (Dagster spends about 3.5 ms on each
            message). Never across a report or a change of level; ``WARNING`` and above are not held
            back, nor is anything by `flush` and `close`. 0 sends each line as a message of its own.
            When None, the environment variable ``DAGSTERPIPES_COALESCE_LOGS`` gives the seconds; if that
            is not set, up to 200 lines at once and 100 a second are sent one by one, which Dagster keeps up with;
            only beyond that are lines joined, with a delay of at most 10 ms. In an object store, the lines of
            one object are joined if there are many. If a reader of `dagsterpipes.dagster` reads the messages,
            lines are not joined.
        close_timeout: Seconds that `close` may take to deliver the rest, before that goes to a
            recovery file and `MessagesLostError` is raised.
        log_level: Log lines below this level are not sent; a number or a name. When None, the
            environment variable ``DAGSTERPIPES_LOG_LEVEL`` is used; if that is not set, all are sent.
        handle_sigterm: Treat SIGTERM as Ctrl-C while the session is open, so that it is closed and
            Dagster is told, and still end by the signal. Only if the application has no
            handler of its own and the session is opened in the main thread.
        capture_stdio: Send what the process and its children write to stdout and stderr, which is
            still shown too. When None, Dagster's ``include_stdio_in_messages`` decides.
        capture_logging: Send what the application logs with `logging`, through the root logger: from
            ``INFO`` when True, or from the given level. Ends with the session.
        trace_ids: Add the ids of the current OpenTelemetry span to each log line, or those of the
            environment variable ``TRACEPARENT`` (W3C) where there is no span. A log call then costs
            about 10 µs. When None, the environment variable ``DAGSTERPIPES_TRACE_IDS`` decides (1 or 0).
        show_reports: Outside Dagster, show on stderr what is reported; if that is a terminal when
            None.

    Raises:
        LaunchParamsError: The bootstrap values cannot be decoded; ``DAGSTER_PIPES_MESSAGES`` is missing;
            or a ``DAGSTERPIPES_*`` variable has an invalid value.
        ContextError: The context cannot be loaded.
        ChannelError: The messages cannot be written to where Dagster asked for them.
        DagsterPipesError: In a sub-interpreter, where there is no session.
        ValueError: An argument is out of its bounds.
    """
    frame = sys._getframe(1)  # noqa: SLF001 because inspect is slow to import
    # The new session's context, from when other threads can see it.
    new: PipesContext | None = None
    try:
        with current.opening:
            context: PipesContext | None = current.relayed_context() or current.context
            if context is not None:
                if not context.is_closed:
                    return _again(context, frame)
                context.close()  # whoever closes it has not finished: two sessions must not overlap
            settings = Settings.from_options(
                os.environ,
                flush_interval=flush_interval,
                buffer_size=buffer_size,
                on_full=on_full,
                coalesce_logs=coalesce_logs,
                close_timeout=close_timeout,
                log_level=log_level,
                handle_sigterm=handle_sigterm,
                capture_stdio=capture_stdio,
                capture_logging=capture_logging,
                trace_ids=trace_ids,
            )
            if params_loader is None and _test_launch is not None:
                params_loader, context_loader, message_writer = _test_launch
            if params_loader is None:
                is_launched = DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ
            else:
                from dagsterpipes._session import endpoints  # noqa: PLC0415 because of `_new_context`

                params_loader = endpoints.own_params_loader(params_loader)
                is_launched = endpoints.is_launched(params_loader)
            if is_launched:
                context = _new_context(params_loader, context_loader, message_writer, settings)
            else:
                context = NullPipesContext(
                    settings.log_level,
                    capture_logging=settings.capture_logging,
                    show_reports=show_reports,
                )
            context._opener = (id(frame), frame.f_code)  # noqa: SLF001 because only this module opens
            if is_launched:
                new = context
            # Before it opens: what the loaders and the writer log belongs to it.
            PipesContext.set(context)
        # Without the lock: a loader may wait for a thread that asks for the session too.
        if new is not None:
            _start(new)
    except BaseException as error:
        if new is not None:
            new._session.start_failed(error)  # noqa: SLF001 because only this module opens
            new.__exit__(type(error), error, error.__traceback__)
        raise
    if new is None:
        _tell_of_standalone()
    return context


def _again(context: PipesContext, frame: FrameType) -> PipesContext:
    """Give the context of the open session to one more function, which does not own it."""
    context._lend(frame)  # noqa: SLF001 because only this module opens
    if not in_coroutine():
        context._session.wait_for_opener()  # noqa: SLF001 because only this module opens
    return context


def _new_context(
    params_loader: AnyParamsLoader | None,
    context_loader: AnyContextLoader | None,
    message_writer: AnyMessageWriter | None,
    settings: Settings,
) -> PipesContext:
    """Make a session; what this imports is not for processes that Dagster did not launch."""
    from dagsterpipes._session.session import Session  # noqa: PLC0415 because of the docstring

    signals.check_interpreter()
    return PipesContext._of(Session(params_loader, context_loader, message_writer, settings))  # noqa: SLF001 because only this module opens


def _start(context: PipesContext) -> None:
    """Open the session, or start to."""
    session = context._session  # noqa: SLF001 because only this module opens
    session.start()
    if not in_coroutine():
        session.wait_opened()


def _tell_of_standalone() -> None:
    global _has_told_of_standalone
    if not _has_told_of_standalone:
        _has_told_of_standalone = True
        warnings.warn(
            "Dagster did not launch this process (DAGSTER_PIPES_CONTEXT is not set): logs are shown on"
            " stderr, reports are checked and go nowhere",
            DagsterPipesWarning,
            stacklevel=3,
        )


def override_launch(
    parts: tuple[AnyParamsLoader, AnyContextLoader, AnyMessageWriter] | None,
) -> None:
    """For `dagsterpipes.testing`: open sessions by these parts instead of the environment."""
    global _test_launch
    _test_launch = parts


@overload
def with_dagster_pipes(
    fn: Callable[[PipesContext], Coroutine[Any, Any, T]], **options: Unpack[SessionOptions]
) -> T: ...


@overload
def with_dagster_pipes(fn: Callable[[PipesContext], T], **options: Unpack[SessionOptions]) -> T: ...


def with_dagster_pipes(fn: Callable[[PipesContext], Any], **options: Unpack[SessionOptions]) -> Any:
    """Run ``fn(pipes)`` in a session of its own.

    The session is closed when ``fn`` ends; an exception is forwarded to Dagster and raised again.

    Args:
        fn: A function of one argument, or a coroutine function, which is run with `asyncio`. Under a
            running event loop the result of a coroutine function is to be awaited; type checkers do
            not know that, so ``async with open_dagster_pipes()`` is better there.
        options: As of `open_dagster_pipes`.

    Returns:
        What ``fn`` returned.
    """
    if not is_coroutine_function(fn):
        with open_dagster_pipes(**options) as pipes:
            return fn(pipes)

    async def main() -> Any:
        async with open_dagster_pipes(**options) as pipes:
            return await fn(pipes)

    if in_coroutine():
        return main()
    import asyncio  # noqa: PLC0415 because plain scripts must not pay for it

    return asyncio.run(main())


def is_coroutine_function(fn: Any) -> bool:
    """Whether calling it gives a coroutine; sees through partials and callable objects."""
    import inspect  # noqa: PLC0415 because it takes as long as everything else together

    while hasattr(fn, "func"):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
