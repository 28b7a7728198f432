"""Loggers that stand alone and can be called: the session's, and the one to stderr."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.envelope import level_name
from dagsterpipes._protocol.log_lines import level_tag, log_item, texts_of
from dagsterpipes.exceptions import DagsterPipesWarning, InvalidReportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import FrameType

    from dagsterpipes._delivery.outbox import Item, Outbox

LOGGING_LIBRARIES = {"structlog", "loguru", "logbook", "eliot"}
"""Whose set-up outlives a session."""

INTERNAL_FILES = {os.path.normcase(cast("Any", logging)._srcfile), os.path.normcase(__file__)}  # noqa: SLF001 because findCaller compares with it
_MOST = 1 << 31
_FORMATTER = logging.Formatter()


def record_text(record: logging.LogRecord) -> str:
    """A record as Dagster gets it: its message, and what ``exc_info`` and ``stack_info`` add.

    A message whose arguments do not fit its format is reported on stderr, as `logging` does, and
    goes out as it is, with its arguments behind it.
    """
    try:
        return _FORMATTER.format(record)
    except Exception:  # noqa: BLE001 because arguments may raise anything while they are formatted
        with suppress(Exception):  # it shows the arguments, which may raise anything then too
            logging.Handler().handleError(record)
        try:
            return f"{record.msg} {record.args!r}"
        except Exception:  # noqa: BLE001 because repr() may be what failed
            return UNFORMATTABLE


def add_trace_ids(text: str) -> str:
    """The text with the ids of the current span behind its first line, if there is one."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    span = trace.get_current_span().get_span_context() if trace is not None else None
    if span is not None and span.is_valid:
        ids = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    else:
        # https://www.w3.org/TR/trace-context: version, trace, span and flags.
        parts = os.environ.get("TRACEPARENT", "").split("-")
        if [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
            return text
        ids = parts[1], parts[2]
    first, end, rest = text.partition("\n")
    return f"{first} [trace_id={ids[0]} span_id={ids[1]}]{end}{rest}"


UNFORMATTABLE = "(a log message that cannot be formatted)"


class PipesLogger(logging.Logger):
    """The type of ``pipes.log``: a logger whose records go to Dagster, or to stderr outside Dagster.

    It has every behaviour of `logging.Logger`, outside of the hierarchy of `logging`; handlers that are
    added get the records too. A call formats the message, hands it to the session and returns; it
    waits only when the buffer is full (``on_full="wait"``). Levels that Dagster does not know go out as
    the nearest one below. What is logged before the session is open is sent behind ``opened``.

    Raises:
        SessionClosedError: From every logging method, once the session is closed. Not through a logging
            library such as structlog, whose set-up outlives the session: then the text is shown on
            stderr, with one warning.
    """

    def __init__(self, name: str = "dagster-pipes") -> None:
        super().__init__(name)

    def __dir__(self) -> list[str]:
        return dir(logging.getLogger())

    def _emit(self, record: logging.LogRecord) -> None:
        """Bring a record to this logger's own place."""
        raise NotImplementedError

    def _spawn(self, name: str) -> PipesLogger:
        """A logger with the same place."""
        raise NotImplementedError

    def __call__(self, message: str, level: int | str = "INFO") -> None:
        """Log a text as it is, at a level of Dagster's (or of `logging`'s), as in R.

        Args:
            message: The text; ``%`` means nothing in it.
            level: A name, in any case, or a number.

        Raises:
            InvalidReportError: The level is not one, or the message is not a string.
            SessionClosedError: The session is closed.
        """
        if not issubclass(type(message), str):
            raise InvalidReportError(
                "must be a str", method="log", parameter="message", got=message
            )
        name = level_name(level)
        number = (
            min(max(level, -_MOST), _MOST) if isinstance(level, int) else getattr(logging, name)
        )
        if self.isEnabledFor(number):
            self._log(number, message, ())

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log ``msg % args`` at a level by its number."""
        # Python cannot write numbers of thousands of digits, which a record does with its level.
        if isinstance(level, int):
            level = min(max(level, -_MOST), _MOST)
        super().log(level, msg, *args, **kwargs)

    def getChild(self, suffix: str) -> PipesLogger:  # noqa: N802 because logging names it so
        """A logger ``<name>.<suffix>`` whose records go the same way and to this one's handlers."""
        child = self._spawn(f"{self.name}.{suffix}")
        child.parent = self
        return child

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 because logging names it so
        """Whether a record of this level would be handled."""
        # Without the cache of logging.Logger, which is only reset for loggers of its hierarchy.
        return (
            not self.disabled and self.manager.disable < level and level >= self.getEffectiveLevel()
        )

    def makeRecord(  # noqa: N802 because logging names it so
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """A record; also of arguments that raise when `logging` looks at them."""
        try:
            return super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        except Exception:  # noqa: BLE001 because arguments may raise anything
            # Once more without them: what is wrong with the rest is raised.
            return super().makeRecord(
                name, level, fn, lno, UNFORMATTABLE, (), exc_info, func, extra, sinfo
            )

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 because logging names it so
        """Bring the record to its place, then to the handlers of this logger and its parents."""
        self._emit(record)
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
            logger = logger.parent if logger.propagate else None

    def findCaller(  # noqa: N802 because logging names it so
        self, stack_info: bool = False, stacklevel: int = 1
    ) -> tuple[str, int, str, str | None]:
        """The frame that logged: the first one outside of `logging` and of this module."""
        frame = _calling_frame(sys._getframe(1), stacklevel)  # noqa: SLF001 because logging does so too
        text = None
        if stack_info:
            import io  # noqa: PLC0415 because it is almost never needed
            import traceback  # noqa: PLC0415 because it is almost never needed

            buffer = io.StringIO()
            traceback.print_stack(frame, file=buffer)
            text = "Stack (most recent call last):\n" + buffer.getvalue().rstrip("\n")
        return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, text


def _calling_frame(frame: FrameType, stacklevel: int = 1) -> FrameType:
    """The first frame outside of `logging` and of this module, or one further out."""
    last = frame
    found: FrameType | None = frame
    while found is not None and (_is_internal(found) or stacklevel > 1):
        stacklevel -= not _is_internal(found)
        last, found = found, found.f_back
    return found or last


def _is_from_logging_library(frame: FrameType) -> bool:
    """Whether a logging library called, whose set-up may outlive the session."""
    name = _calling_frame(frame).f_globals.get("__name__", "")
    return name.partition(".")[0] in LOGGING_LIBRARIES


def _is_internal(frame: FrameType) -> bool:
    return os.path.normcase(frame.f_code.co_filename) in INTERNAL_FILES


def _stderr_level_method(name: str) -> Callable[..., None]:
    """The method of one level that returns at once below the logger's own level."""
    level: int = getattr(logging, name.upper())
    log = getattr(logging.Logger, name)

    def method(self: StderrLogger, msg: object, *args: object, **kwargs: Any) -> None:
        if self.level <= level:
            log(self, msg, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"StderrLogger.{name}"
    method.__doc__ = f"Log ``msg % args`` at level {name.upper()}."
    return method


class StderrLogger(PipesLogger):
    """Shows what is logged on stderr; used when Dagster did not launch the process."""

    debug = _stderr_level_method("debug")
    info = _stderr_level_method("info")
    warning = _stderr_level_method("warning")
    error = _stderr_level_method("error")
    critical = _stderr_level_method("critical")
    fatal = critical

    def __init__(
        self, name: str = "dagster-pipes", check: Callable[[str], object] = lambda _: None
    ) -> None:
        super().__init__(name)
        # Raises for a method that may not be called any more.
        self._check = check
        self._formatter = logging.Formatter("%(asctime)s %(levelname)-8s %(message)s")

    def _emit(self, record: logging.LogRecord) -> None:
        """Write the record to the stderr of the moment."""
        if not _is_from_logging_library(sys._getframe(1)):  # noqa: SLF001 because inspect is slow to import
            self._check(f"log.{record.levelname.lower()}")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(self._formatter)
        handler.emit(record)

    def _spawn(self, name: str) -> StderrLogger:
        """A logger to the same place."""
        return type(self)(name, self._check)


_STDERR = StderrLogger()
_has_warned = False


def show_unsent(levelno: int, text: str) -> None:
    """Show a log text on stderr that no session takes any more; with one warning a process."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        with suppress(DagsterPipesWarning):  # warnings are errors: not in a log call
            warnings.warn(
                "the Dagster Pipes session is closed: what is logged from now on is shown on stderr"
                " and does not reach Dagster. Close the session after the last log call, and stop"
                " queue and memory handlers before that",
                DagsterPipesWarning,
                stacklevel=4,
            )
    _STDERR.log(levelno, "%s", text)


# The record factory that was judged last, and how: to read its source takes as long as a thousand calls.
_judged: tuple[object, bool] = (logging.LogRecord, True)


def _only_adds_attributes(factory: object) -> bool:
    global _judged
    judged, verdict = _judged
    if judged is not factory:
        from dagsterpipes._session.record_factories import only_adds_attributes  # noqa: PLC0415 because few processes set one

        verdict = only_adds_attributes(factory)
        _judged = (factory, verdict)
    return verdict


def _pipes_level_method(
    logger: SessionLogger, name: str
) -> tuple[Callable[..., None], Callable[[bool], None]]:
    """The method of one level, and the switch for its fast path.

    The fast path is for when nothing is configured that could see a record. Where a call needs one
    all the same - a keyword is given, the text is no plain `str`, there are handlers or filters, a
    record factory is set that might change the text - it makes a record, as `logging` does. A closure,
    as looking things up in the logger costs a tenth of all.
    """
    level: int = getattr(logging, name.upper())
    tag = level_tag(level)
    is_info = level == logging.INFO
    is_urgent = level >= logging.WARNING
    manager = cast("Any", logging.Logger.manager)
    module = cast("Any", logging)
    plain_factory: object = logging.LogRecord
    record = logger._log  # noqa: SLF001 because it is what the methods of `logging` call
    handlers = logger.handlers
    filters = logger.filters
    outbox = logger.outbox
    items = outbox.items
    append = items.append
    after_append = outbox.after_append
    needs_record = True

    def switch(may_be_fast: bool) -> None:
        nonlocal needs_record, handlers, filters
        needs_record = not may_be_fast
        handlers, filters = logger.handlers, logger.filters

    def changes_text() -> bool:
        nonlocal plain_factory
        factory = module._logRecordFactory  # noqa: SLF001 because the getter costs more
        if _only_adds_attributes(factory):
            plain_factory = factory
            return False
        return True

    def method(msg: object, *args: object, **kwargs: Any) -> None:
        if (
            needs_record
            or kwargs
            or handlers
            or filters
            or manager._disable >= level  # noqa: SLF001 because the property costs as much as the rest
            or (module._logRecordFactory is not plain_factory and changes_text())  # noqa: SLF001 because the getter costs more
            or type(msg) is not str
        ):
            if logger.isEnabledFor(level):
                record(level, msg, args, **kwargs)
            return
        try:
            text = msg % args if args else msg
        except Exception:  # noqa: BLE001 because the record reports it
            record(level, msg, args)
            return
        item = text if is_info else (tag, text)
        append(item)
        if (is_urgent or len(items) + 4 * len(text) > outbox.fast_path_limit) and not after_append(
            item, urgent=is_urgent
        ):
            logger.refuse(name, item)

    method.__name__ = name
    method.__qualname__ = f"PipesLogger.{name}"
    method.__doc__ = f"Log ``msg % args`` at level {name.upper()}."
    return method, switch


class _Switching:
    """An attribute of the logger that decides whether calls may take the fast path."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._place = f"_{name}"

    def __get__(self, logger: SessionLogger, owner: type | None = None) -> Any:
        return getattr(logger, self._place)

    def __set__(self, logger: SessionLogger, value: Any) -> None:
        setattr(logger, self._place, value)
        logger.choose_paths()


class SessionLogger(PipesLogger):
    """Puts what is logged into the session's outbox."""

    level: int = _Switching()  # type: ignore[assignment]  # because it gives and takes an int
    disabled: bool = _Switching()  # type: ignore[assignment]  # because it gives and takes a bool
    handlers: list[logging.Handler] = _Switching()  # type: ignore[assignment]  # because see above
    filters: list[Any] = _Switching()  # type: ignore[assignment]  # because see above
    # Whether the fast path may be tried: not before the session is open, not in a subclass or a
    # child, whose parents may have handlers.
    is_plain: bool = _Switching()  # type: ignore[assignment]  # because see above

    _level = 0
    _disabled: bool = False
    _is_plain: bool = False
    _handlers: Sequence[Any] = ()
    _filters: Sequence[Any] = ()

    def __init__(
        self,
        outbox: Outbox,
        why_refused: Callable[[str], BaseException],
        name: str = "dagster-pipes",
        *,
        add: Callable[[str], str] | None = None,
    ) -> None:
        # The level of each method, and the switch for its fast path.
        self._switches: list[tuple[int, Callable[[bool], None]]] = []
        super().__init__(name)
        self.outbox = outbox
        # The error for a method whose text the session did not take.
        self._why_refused = why_refused
        # What is added to each text, if anything is: then no call takes the fast path.
        self._add = add
        if type(self) is SessionLogger:
            for level in ("debug", "info", "warning", "error", "critical"):
                method, switch = _pipes_level_method(self, level)
                self.__dict__[level] = method
                self._switches.append((getattr(logging, level.upper()), switch))

    def choose_paths(self) -> None:
        """Let the calls take the fast path for whose levels it makes no difference."""
        may = self._is_plain and not self._disabled
        for level, switch in self._switches:
            switch(may and level >= self._level)

    def session_opened(self) -> None:
        """Allow the fast path."""
        self.is_plain = type(self) is SessionLogger and self._add is None

    def _emit(self, record: logging.LogRecord) -> None:
        """Put the record's text into the outbox."""
        text = record_text(record)
        if self._add is not None:
            text = self._add(text)
        item = log_item(level_tag(record.levelno), text)
        if not self.outbox.put(item, urgent=record.levelno >= logging.WARNING):
            self.refuse(record.levelname.lower(), item)

    def refuse(self, name: str, item: Item) -> None:
        """Do what is due when the closed session did not take a text.

        Raises:
            SessionClosedError: The job called the logger directly, not through a logging library.
        """
        if not _is_from_logging_library(sys._getframe(1)):  # noqa: SLF001 because inspect is slow to import
            raise self._why_refused(f"log.{name}")
        self.show_unsent([item])

    def show_unsent(self, items: Iterable[Item]) -> None:
        """Show log texts on stderr that no session takes."""
        for level, text in texts_of(items):
            show_unsent(getattr(logging, level), text)

    def _spawn(self, name: str) -> SessionLogger:
        """A logger into the same outbox."""
        return type(self)(self.outbox, self._why_refused, name, add=self._add)
