"""The session's logger: a `logging.Logger` with a short way for the usual call."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.log_lines import LEVEL_NAMES, MARK_OF_LEVEL, log_text
from dagsterpipes._session.callable_logger import INTERNAL_FILES, CallableLogger, record_text
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagsterpipes._delivery.outbox import Outbox

INTERNAL_FILES.add(os.path.normcase(__file__))


def mark_of(levelno: int) -> str:
    """The mark of the nearest level at or below this number that Dagster knows."""
    return MARK_OF_LEVEL[LEVEL_NAMES[min(max(levelno // 10, 1), 5) - 1]]


def _level_method(
    logger: PipesLogger, name: str
) -> tuple[Callable[..., None], Callable[[bool], None]]:
    """The method of one level, and the switch for its short way.

    The short way is for when nothing is configured that could see a record. Where a call needs one
    all the same - a keyword is given, the text is no plain `str`, a record factory is set - it makes
    a record, as `logging` does. A closure, as looking things up in the logger costs a tenth of all.
    """
    level: int = getattr(logging, name.upper())
    mark = MARK_OF_LEVEL[name.upper()]
    is_info = level == logging.INFO
    is_urgent = level >= logging.WARNING
    manager = cast("Any", logging.Logger.manager)
    module = cast("Any", logging)
    plain_record = logging.LogRecord
    record = logger._log  # noqa: SLF001 because it is what the methods of `logging` call
    outbox = logger.outbox
    items = outbox.items
    append = items.append
    settle = outbox.settle
    is_long = True

    def switch(may_be_short: bool) -> None:
        nonlocal is_long
        is_long = not may_be_short

    def method(msg: object, *args: object, **kwargs: Any) -> None:
        if (
            is_long
            or kwargs
            or manager._disable >= level  # noqa: SLF001 because the property costs as much as the rest
            or module._logRecordFactory is not plain_record  # noqa: SLF001 because the getter costs more
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
        said = text if is_info else (mark, text)
        append(said)
        if (is_urgent or len(items) + 4 * len(text) > outbox.settle_above) and not settle(
            said, urgent=is_urgent
        ):
            raise _closed(name)

    method.__name__ = name
    method.__qualname__ = f"PipesLogger.{name}"
    method.__doc__ = f"Log ``msg % args`` at level {name.upper()}."
    return method, switch


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
        # The level of each method, and the switch for its short way.
        self._switches: list[tuple[int, Callable[[bool], None]]] = []
        super().__init__(name)
        self.outbox = outbox
        self._wait_opened = wait_opened
        if type(self) is PipesLogger:
            for level in ("debug", "info", "warning", "error", "critical"):
                method, switch = _level_method(self, level)
                self.__dict__[level] = method
                self._switches.append((getattr(logging, level.upper()), switch))

    def decide(self) -> None:
        """Let the calls go the short way for whose levels it makes no difference."""
        may = self._is_plain and not (self._disabled or self._handlers or self._filters)
        for level, switch in self._switches:
            switch(may and level >= self._level)

    def session_opened(self) -> None:
        """Allow the short way."""
        self.is_plain = type(self) is PipesLogger

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record's text into the outbox."""
        self._wait_opened()
        said = log_text(mark_of(record.levelno), record_text(record))
        if not self.outbox.put(said, urgent=record.levelno >= logging.WARNING):
            raise _closed(record.levelname.lower())

    def spawn(self, name: str) -> PipesLogger:
        """A logger into the same outbox."""
        return type(self)(self.outbox, self._wait_opened, name)
