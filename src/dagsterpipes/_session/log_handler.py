"""The bridge from the application's own loggers to Dagster."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dagsterpipes._session import current
from dagsterpipes._session.logger import record_text, show_unsent

if TYPE_CHECKING:
    from collections.abc import Callable


class PipesLogHandler(logging.Handler):
    """A `logging.Handler` that sends records to the session that is open at the time.

    It can be configured before there is a session, by ``dictConfig``, ``basicConfig`` or by hand,
    and does nothing until there is one. A record goes out as its formatted text, at the nearest
    level of Dagster's at or below its own. It never raises into the code that logs. What comes after
    the session was closed is shown on stderr, with one warning.

    Records that the session's own threads emit (asyncio's, or those of a message writer that logs)
    are left out: each of them would cause the next one.

    Threads: any.

    Args:
        level: Minimum level, as for any `logging.Handler`.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record, if there is a session to send it to."""
        try:
            forward = current.open_forward()
            if forward is None:
                return
            text = self.format(record) if self.formatter is not None else record_text(record)
            if not forward(record, text):
                show_unsent(record.levelno, text)
        except RecursionError:  # see logging.StreamHandler.emit
            raise
        except Exception:  # noqa: BLE001 because logging must not end the job
            self.handleError(record)


def bridge_loggers(
    level: int | str, forward: Callable[[logging.LogRecord, str], object]
) -> Callable[[], None]:
    """Hand on every record of ``level`` or above that reaches the root logger.

    It is not a handler of the root logger: ``basicConfig`` would do nothing beside one, and with
    ``force`` remove it, as ``dictConfig`` does. Instead it is called after the handlers, whichever
    there are at the time.

    Returns:
        Ends it, and restores the root logger's level if it is still ours.
    """
    least = logging.Handler(level).level
    root = logging.getLogger()
    before = root.level
    if before > least:
        root.setLevel(least)
    ours = root.level
    call_handlers = logging.Logger.callHandlers
    is_active = True

    def call_handlers_and_forward(self: logging.Logger, record: logging.LogRecord) -> None:
        takes = is_active and record.levelno >= least and _reaches_root(self)
        # A record that goes to Dagster is handled: `logging.lastResort` is not asked.
        if not takes or self.hasHandlers():
            call_handlers(self, record)
        if takes:
            try:
                forward(record, record_text(record))
            except Exception:  # noqa: BLE001 because logging must not end the job
                logging.Handler().handleError(record)

    logging.Logger.callHandlers = call_handlers_and_forward  # type: ignore[method-assign] # because it is the one place that every record passes

    def undo() -> None:
        nonlocal is_active
        is_active = False
        if logging.Logger.callHandlers is call_handlers_and_forward:
            logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign] # because see above
        if root.level == ours:
            root.setLevel(before)

    return undo


def _reaches_root(logger: logging.Logger | None) -> bool:
    while logger is not None:
        if not logger.propagate and logger.parent is not None:
            return False
        logger = logger.parent
    return True
