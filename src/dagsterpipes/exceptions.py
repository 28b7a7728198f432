"""Everything that dagsterpipes raises or warns with.

::

    DagsterPipesError
    ├── LaunchParamsError     what the process was launched with cannot be used
    ├── ContextError          the context cannot be loaded, or lacks what was asked of it
    ├── ChannelError          the messages cannot be written where Dagster asked for them
    ├── InvalidReportError    Dagster could not take this; refused at the call
    ├── FlushTimeoutError     flush() was given up before it was done
    ├── SessionClosedError    the session was closed before this call
    └── MessagesLostError     accepted messages could not be delivered in time

    DagsterPipesWarning       something that a job should know and that is no error

They live alone in this module so that every storey can import them.
"""

from __future__ import annotations

from collections.abc import Sized

__all__ = [
    "ChannelError",
    "ContextError",
    "DagsterPipesError",
    "DagsterPipesWarning",
    "FlushTimeoutError",
    "InvalidReportError",
    "LaunchParamsError",
    "MessagesLostError",
    "SessionClosedError",
]


PAGE = "https://dagsterpipes.github.io/dagsterpipes/errors.html"
"""Says for each error and warning what to do."""


class DagsterPipesError(Exception):
    """Base class of all errors of dagsterpipes."""

    _names_page = False  # in a traceback: errors whose cause is outside of the code that gets them

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if self._names_page:
            self.__notes__ = [f"What to do: {PAGE}"]


class DagsterPipesWarning(Warning):
    """Something that a job should know and that is no error."""


class LaunchParamsError(DagsterPipesError):
    """What the process was launched with cannot be used.

    A bootstrap value (``DAGSTER_PIPES_CONTEXT``, ``DAGSTER_PIPES_MESSAGES``), or an environment
    variable of our own (``DAGSTERPIPES_...``).
    """

    _names_page = True


class ContextError(DagsterPipesError):
    """The context cannot be loaded, or has no value for what was asked of it."""

    _names_page = True


class ChannelError(DagsterPipesError):
    """Messages cannot be written to where Dagster asked for them."""

    _names_page = True


class FlushTimeoutError(DagsterPipesError, TimeoutError):
    """`flush` waited for as long as it was allowed to; the session goes on delivering."""


class SessionClosedError(DagsterPipesError):
    """The session was closed before this call; nothing was sent."""


def closed_error(method: str) -> SessionClosedError:
    """The error of a method that was called after the close."""
    return SessionClosedError(
        f"{method}(): the Dagster Pipes session is closed, nothing can be sent any more"
    )


class InvalidReportError(DagsterPipesError):
    """Dagster could not take this message, so it was refused at the call.

    Nothing was sent and the session goes on. (Dagster's reader stops for good at the first message
    that it cannot take, and everything after that is lost without an error.)

    Args:
        problem: What is wrong and what to do instead, as the end of a sentence whose beginning
            names the place.
        method: The method that was called, for example ``report_asset_check``.
        parameter: The parameter of that method.
        path: Where in the parameter, for example ``['rows']['raw_value'][3]``; empty for the
            parameter itself.
        got: The value that was refused.
    """

    def __init__(
        self, problem: str, *, method: str, parameter: str, path: str = "", got: object = None
    ) -> None:
        super().__init__(problem, method, parameter, path, got)
        self.problem = problem
        self.method = method
        self.parameter = parameter
        self.path = path
        self.got = got

    def __str__(self) -> str:
        return (
            f"{self.method}(): {self.parameter}{self.path} {self.problem}; "
            f"got {shorten(self.got)} of type {type(self.got).__name__}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_invalid_report, (
            self.problem,
            self.method,
            self.parameter,
            self.path,
            self.got,
        )


def _rebuild_invalid_report(
    problem: str, method: str, parameter: str, path: str, got: object
) -> InvalidReportError:
    return InvalidReportError(problem, method=method, parameter=parameter, path=path, got=got)


class MessagesLostError(DagsterPipesError):
    """Messages that had been accepted could not be delivered before ``close_timeout``.

    Args:
        count: How many messages were not delivered.
        recovery_file: Path of a file that holds every one of them, one JSON line each, or ``None``
            when that file could not be written either. ``dagsterpipes replay`` delivers it.
        reason: What stopped the delivery, in words.
    """

    _names_page = True

    def __init__(self, count: int, recovery_file: str | None, reason: str) -> None:
        super().__init__(count, recovery_file, reason)
        self.count = count
        self.recovery_file = recovery_file
        self.reason = reason

    def __str__(self) -> str:
        kept = (
            f"they are kept in {self.recovery_file}, which can be delivered with:"
            f" dagsterpipes replay {_quote(self.recovery_file)} --to TARGET"
            if self.recovery_file is not None
            else "no recovery file could be written, they are gone"
        )
        what = "1 message was" if self.count == 1 else f"{self.count:,} messages were"
        return f"{what} not delivered to Dagster ({self.reason}); {kept}"


def _quote(path: str) -> str:
    # What shlex does to paths that need it; it would import the regular expressions.
    is_plain = all(char.isalnum() or char in "/._-+:@%" for char in path)
    return path if is_plain else "'" + path.replace("'", "'\"'\"'") + "'"


def describe(value: object) -> str:
    """What kind of value this is and how long, with nothing of its content, which may be secret."""
    kind = f"a value of type {type(value).__name__}"
    return f"{kind}, length {len(value):,}" if isinstance(value, Sized) else kind


def shorten(value: object, limit: int = 80) -> str:
    """``repr(value)``, cut to ``limit`` characters; never raises."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 because a broken __repr__ must not hide the real error
        text = f"<{type(value).__name__} with a failing repr()>"
    return text if len(text) <= limit else text[: limit - 1] + "…"
