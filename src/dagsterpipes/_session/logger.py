"""The loggers: `logging.Logger`s that can also be called, with a short way for the usual call."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._delivery.outbox import SETTLE_COUNT, SETTLE_LENGTH
from dagsterpipes._protocol.log_levels import level_name
from dagsterpipes._protocol.log_rendering import LEVEL_NAMES, MARK_OF_LEVEL
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from dagsterpipes._delivery.outbox import Outbox

_INTERNAL_FILES = {os.path.normcase(cast("Any", logging)._srcfile), os.path.normcase(__file__)}  # noqa: SLF001 because findCaller compares with it
_FORMATTER = logging.Formatter()
_LEVELS = {name: getattr(logging, name) for name in LEVEL_NAMES}


def record_text(record: logging.LogRecord) -> str:
    """A record as Dagster gets it: its message, and what ``exc_info`` and ``stack_info`` add.

    A message whose arguments do not fit its format is reported on stderr, as `logging` does, and
    goes out as it is, with its arguments behind it.
    """
    try:
        return _FORMATTER.format(record)
    except Exception:  # noqa: BLE001 because arguments may raise anything while they are formatted
        logging.Handler().handleError(record)
        try:
            return f"{record.msg} {record.args!r}"
        except Exception:  # noqa: BLE001 because repr() may be what failed
            return "(a log message that cannot be formatted)"


class CallableLogger(logging.Logger):
    """A logger outside of the hierarchy of `logging`, with a place of its own for its records.

    It has every behaviour of `logging.Logger`; handlers that are added get the records too.
    """

    def __init__(self, name: str = "dagster-pipes") -> None:
        super().__init__(name)

    def emit(self, record: logging.LogRecord) -> None:
        """Bring a record to this logger's own place."""
        raise NotImplementedError

    def spawn(self, name: str) -> CallableLogger:
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
        name = level_name(level)
        number = level if isinstance(level, int) else _LEVELS[name]
        if self.isEnabledFor(number):
            self._log(number, message, ())

    def getChild(self, suffix: str) -> CallableLogger:  # noqa: N802 because logging names it so
        """A logger ``<name>.<suffix>`` whose records go the same way and to this one's handlers."""
        child = self.spawn(f"{self.name}.{suffix}")
        child.parent = self
        return child

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 because logging names it so
        """Whether a record of this level would be handled."""
        # Without the cache of logging.Logger, which is only reset for loggers of its hierarchy.
        return (
            not self.disabled and self.manager.disable < level and level >= self.getEffectiveLevel()
        )

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 because logging names it so
        """Bring the record to its place, then to the handlers of this logger and its parents."""
        self.emit(record)
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
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 because logging does so too
        last = frame
        while frame is not None and (_is_internal(frame) or stacklevel > 1):
            stacklevel -= not _is_internal(frame)
            last, frame = frame, frame.f_back
        frame = frame or last
        assert frame is not None
        text = None
        if stack_info:
            buffer = io.StringIO()
            traceback.print_stack(frame, file=buffer)
            text = "Stack (most recent call last):\n" + buffer.getvalue().rstrip("\n")
        return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, text


def _is_internal(frame: FrameType) -> bool:
    return os.path.normcase(frame.f_code.co_filename) in _INTERNAL_FILES


def mark_of(levelno: int) -> str:
    """The mark of the nearest level at or below this number that Dagster knows."""
    return MARK_OF_LEVEL[LEVEL_NAMES[min(max(levelno // 10, 1), 5) - 1]]


def _level_method(name: str) -> Callable[..., None]:
    """The method of one level: the short way when nothing was configured that could see the record.

    Where anything was - a handler, a filter, a level, a subclass, a record factory, a keyword -
    it makes a record, as `logging` does.
    """
    level: int = getattr(logging, name.upper())
    mark = MARK_OF_LEVEL[name.upper()]
    is_urgent = level >= logging.WARNING
    manager = cast("Any", logging.Logger.manager)
    module = cast("Any", logging)
    plain_record = logging.LogRecord

    def method(self: PipesLogger, msg: object, *args: object, **kwargs: Any) -> None:
        if (
            kwargs
            or type(msg) is not str
            or self.handlers
            or self.filters
            or self.level > level
            or not self.is_plain
            or self.disabled
            or manager._disable >= level  # noqa: SLF001 because the property costs as much as the rest
            or module._logRecordFactory is not plain_record  # noqa: SLF001 because the getter costs more
        ):
            if self.isEnabledFor(level):
                self._log(level, msg, args, **kwargs)
            return
        try:
            text = mark + (msg % args if args else msg)
        except Exception:  # noqa: BLE001 because the record reports it
            self._log(level, msg, args)
            return
        self.append(text)
        if (
            is_urgent
            or self.outbox.attention
            or len(self.items) > SETTLE_COUNT
            or len(text) > SETTLE_LENGTH
        ) and not self.outbox.settle(text, urgent=is_urgent):
            raise _closed(name)

    method.__name__ = name
    method.__qualname__ = f"PipesLogger.{name}"
    method.__doc__ = f"Log ``msg % args`` at level {name.upper()}."
    return method


def _closed(name: str) -> SessionClosedError:
    return SessionClosedError(
        f"log.{name}(): the Dagster Pipes session is closed, nothing can be sent any more"
    )


class PipesLogger(CallableLogger):
    """Sends what is logged to Dagster.

    A call formats the message, appends it to the outbox and returns; it waits only when the buffer
    is full (``on_full="wait"``). Levels that Dagster does not know go out as the nearest one below.

    Raises:
        SessionClosedError: From every logging method, once the session is closed.
    """

    def __init__(
        self, outbox: Outbox, wait_opened: Callable[[], None], name: str = "dagster-pipes"
    ) -> None:
        super().__init__(name)
        self.outbox = outbox
        self.items = outbox.items
        self.append = outbox.items.append
        self._wait_opened = wait_opened
        # Whether the short way may be tried: not before the session is open, not in a subclass or
        # a child, whose parents may have handlers.
        self.is_plain = False

    debug = _level_method("debug")
    info = _level_method("info")
    warning = _level_method("warning")
    error = _level_method("error")
    critical = _level_method("critical")
    fatal = critical

    def session_opened(self) -> None:
        """Allow the short way."""
        self.is_plain = type(self) is PipesLogger

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record's text into the outbox."""
        self._wait_opened()
        text = mark_of(record.levelno) + record_text(record)
        if not self.outbox.put(text, urgent=record.levelno >= logging.WARNING):
            raise _closed(record.levelname.lower())

    def spawn(self, name: str) -> PipesLogger:
        """A logger into the same outbox."""
        return type(self)(self.outbox, self._wait_opened, name)


class StderrLogger(CallableLogger):
    """Shows what is logged on stderr; used when nobody launched the process."""

    def __init__(self, name: str = "dagster-pipes") -> None:
        super().__init__(name)
        self._formatter = logging.Formatter("%(asctime)s %(levelname)-8s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record to the stderr of the moment."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(self._formatter)
        handler.emit(record)

    def spawn(self, name: str) -> StderrLogger:
        """A logger to the same place."""
        return type(self)(name)
