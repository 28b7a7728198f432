"""Loggers that stand alone and can be called, and how their records become text."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.log_levels import level_name
from dagsterpipes.exceptions import InvalidReportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

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


UNFORMATTABLE = "(a log message that cannot be formatted)"


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
        if not issubclass(type(message), str):
            raise InvalidReportError(
                "has to be a string", method="log", parameter="message", got=message
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
            import io  # noqa: PLC0415 because it is almost never needed
            import traceback  # noqa: PLC0415 because it is almost never needed

            buffer = io.StringIO()
            traceback.print_stack(frame, file=buffer)
            text = "Stack (most recent call last):\n" + buffer.getvalue().rstrip("\n")
        return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, text


def _is_internal(frame: FrameType) -> bool:
    return os.path.normcase(frame.f_code.co_filename) in INTERNAL_FILES


def _level_method(name: str) -> Callable[..., None]:
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


class StderrLogger(CallableLogger):
    """Shows what is logged on stderr; used when nobody launched the process."""

    debug = _level_method("debug")
    info = _level_method("info")
    warning = _level_method("warning")
    error = _level_method("error")
    critical = _level_method("critical")
    fatal = critical

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
