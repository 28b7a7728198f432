"""The session's logger: a `logging.Logger` with a short way for the usual call."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._delivery.segments import SETTLE_COUNT, SETTLE_LENGTH
from dagsterpipes._protocol.log_rendering import LEVEL_NAMES, MARK_OF_LEVEL
from dagsterpipes._session.callable_logger import INTERNAL_FILES, CallableLogger, record_text
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagsterpipes._delivery.outbox import Outbox

INTERNAL_FILES.add(os.path.normcase(__file__))


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
            or self.floor > level
            or manager._disable >= level  # noqa: SLF001 because the property costs as much as the rest
            or module._logRecordFactory is not plain_record  # noqa: SLF001 because the getter costs more
            or type(msg) is not str
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


class _WatchedList(list[Any]):
    """A list that tells when it was changed."""

    def __init__(self, items: list[Any], changed: Callable[[], None]) -> None:
        super().__init__(items)
        self.changed = changed


def _watch(name: str) -> None:
    plain = getattr(list, name)

    def method(self: _WatchedList, *args: Any) -> Any:
        try:
            return plain(self, *args)
        finally:
            self.changed()

    setattr(_WatchedList, name, method)


for _name in [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "remove",
    "__setitem__",
    "__delitem__",
    "__iadd__",
    "__imul__",
]:
    _watch(_name)


class _Deciding:
    """An attribute of the logger that decides whether calls may go the short way."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._place = f"_{name}"

    def __get__(self, logger: PipesLogger, owner: type | None = None) -> Any:
        return getattr(logger, self._place)

    def __set__(self, logger: PipesLogger, value: Any) -> None:
        if type(value) is list:
            value = _WatchedList(value, logger.decide)
        setattr(logger, self._place, value)
        logger.decide()


class PipesLogger(CallableLogger):
    """Sends what is logged to Dagster.

    A call formats the message, appends it to the outbox and returns; it waits only when the buffer
    is full (``on_full="wait"``). Levels that Dagster does not know go out as the nearest one below.

    Raises:
        SessionClosedError: From every logging method, once the session is closed.
    """

    level: int = _Deciding()  # type: ignore[assignment]  # because it gives and takes an int
    disabled: bool = _Deciding()  # type: ignore[assignment]  # because it gives and takes a bool
    handlers: list[logging.Handler] = _Deciding()  # type: ignore[assignment]  # because see above
    filters: list[Any] = _Deciding()  # type: ignore[assignment]  # because see above
    # Whether the short way may be tried: not before the session is open, not in a subclass or a
    # child, whose parents may have handlers.
    is_plain: bool = _Deciding()  # type: ignore[assignment]  # because see above

    _level = 0
    _disabled: bool = False
    _is_plain: bool = False
    _handlers: Sequence[Any] = ()
    _filters: Sequence[Any] = ()

    def __init__(
        self, outbox: Outbox, wait_opened: Callable[[], None], name: str = "dagster-pipes"
    ) -> None:
        super().__init__(name)
        self.outbox = outbox
        self.items = outbox.items
        self.append = outbox.items.append
        self._wait_opened = wait_opened

    debug = _level_method("debug")
    info = _level_method("info")
    warning = _level_method("warning")
    error = _level_method("error")
    critical = _level_method("critical")
    fatal = critical

    def decide(self) -> None:
        """Set the least level whose calls may go the short way."""
        may = self._is_plain and not (self._disabled or self._handlers or self._filters)
        self.floor: float = self._level if may else float("inf")

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
