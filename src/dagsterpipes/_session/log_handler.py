"""The bridge from the application's own loggers to Dagster."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.logger import record_text

if TYPE_CHECKING:
    from collections.abc import Callable


class PipesLogHandler(logging.Handler):
    """A `logging.Handler` that sends records to the session that is open at the time.

    It can be configured before there is a session, by ``dictConfig``, ``basicConfig`` or by hand,
    and does nothing while there is none. A record goes out as its formatted text, at the nearest
    level of Dagster's at or below its own. It never raises into the code that logs.

    Records that the session's own threads emit (asyncio's, or those of a message writer that logs)
    are left out: each of them would cause the next one.

    Threads: any.

    Args:
        level: Least level, as for every handler.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record, if there is a session to send it to."""
        try:
            context = PipesContext.get_open()
            if context is not None:
                text = self.format(record) if self.formatter is not None else record_text(record)
                context.forward(record, text)
        except RecursionError:  # see logging.StreamHandler.emit
            raise
        except Exception:  # noqa: BLE001 because logging must not end the job
            self.handleError(record)


def bridge_root_logger(level: int | str) -> Callable[[], None]:
    """Add a `PipesLogHandler` to the root logger, and let records of ``level`` reach it.

    Returns:
        Undoes it: removes the handler, and restores the root logger's level if it is still ours.
    """
    root = logging.getLogger()
    handler = PipesLogHandler(level)
    before = root.level
    root.addHandler(handler)
    if before > handler.level:
        root.setLevel(handler.level)
    ours = root.level

    def undo() -> None:
        root.removeHandler(handler)
        if root.level == ours:
            root.setLevel(before)

    return undo
