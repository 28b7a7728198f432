"""Log lines on their way into Dagster's event log: many in one transaction, each an entry of its own."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from dagsterpipes.dagster.private import event_logger, event_table, subscribers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagsterpipes.dagster.private import EventLogger, EventTable

__all__ = ["BatchedLog", "Bookmark", "open_batched_log"]

MAX_EVENTS = 1_000
"""Events in one transaction."""

MAX_AGE = 0.2
"""Seconds that an event waits for others."""

GIVE_UP_AFTER = 3
"""Events stored one by one that fail in a row, before the rest of their batch is given up."""


class Bookmark(Protocol):
    """Notes how far the messages have been read, in the transaction that stores the lines."""

    def note(self, table: EventTable, connection: Any) -> None:
        """Write the present position."""

    def confirm(self) -> None:
        """What ``note`` wrote last is committed."""


class BatchedLog:
    """Logs as ``context.log`` does, but stores up to 1,000 lines, or those of 0.2 s, at once.

    Each line is an entry of its own, in order, with its own level and time. If a batch cannot be
    stored, whether it was stored all the same is looked up in the table; if not, its events are
    stored one by one. What cannot be stored in either way is counted in ``lost``.

    Args:
        context: The context of the step.
        table: Where the events go.
        clock: Gives seconds.
        bookmark: Takes part in each transaction.

    Threads: one at a time.
    """

    def __init__(
        self,
        context: Any,
        table: EventTable,
        clock: Callable[[], float],
        bookmark: Bookmark | None = None,
    ) -> None:
        self._instance = context.instance
        self._run_id: str = context.run_id
        self._table = table
        self._clock = clock
        self._bookmark = bookmark
        self._events: list[Any] = []
        self._since = 0.0  # when the first of them came
        self._logger: EventLogger | None = None
        self.lost = 0  # lines that could not be stored
        self.batches = 0  # transactions so far

    def attach(self, log: Any) -> bool:
        """Stand in for this log manager; false if Dagster's names for that are missing."""
        self._logger = event_logger(log, self._events.append)
        return self._logger is not None

    def log(self, level: str | int, text: str) -> None:
        """Log a line; what is due is stored.

        Args:
            level: As Dagster's handler takes it.
            text: The line.
        """
        if not self._events:
            self._since = self._clock()
        assert self._logger is not None, "attach() comes first"
        self._logger.log(level, text)
        if len(self._events) >= MAX_EVENTS:
            self.flush()

    def flush_if_due(self) -> None:
        """Store what has waited long enough."""
        if self._events and self._clock() - self._since >= MAX_AGE:
            self.flush()

    def flush(self, *, always: bool = False) -> None:
        """Store all lines so far.

        Args:
            always: Move the bookmark even if there are no lines.
        """
        events, self._events[:] = list(self._events), []
        if not events and not (always and self._bookmark):
            return
        rows: list[Mapping[str, Any]] = []
        try:
            rows = [self._table.row(event) for event in events]
            self._store(rows)
        except Exception as error:  # noqa: BLE001 because databases and private names fail in their own ways
            if not self._was_stored(rows):
                self._store_singly(events, error)
                return
        self.batches += 1
        if self._bookmark is not None:
            self._bookmark.confirm()
        self._tell(events)

    def _store(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with self._table.transaction(self._run_id) as connection:
            if rows:
                self._table.insert(connection, rows)
            if self._bookmark is not None:
                self._bookmark.note(self._table, connection)

    def _was_stored(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        # A connection may break when the database has committed and before it can say so.
        try:
            return bool(rows) and self._table.holds(rows[-1])
        except Exception:  # noqa: BLE001 because the database may be gone
            return False

    def _tell(self, events: Sequence[Any]) -> None:
        subscribers = subscribers_of(self._instance, self._run_id) or ()
        for event in events:
            for subscriber in subscribers:
                with _complaining("ignores a listener of the run that failed"):
                    subscriber(event)

    def _store_singly(self, events: Sequence[Any], cause: Exception) -> None:
        if events:
            _complain(f"cannot store {len(events)} log lines at once, so one by one: {cause}")
        failed_in_a_row = 0
        for done, event in enumerate(events, start=1):
            failed_in_a_row = 0 if self._store_one(event) else failed_in_a_row + 1
            if failed_in_a_row == GIVE_UP_AFTER:
                self.lost += len(events) - done
                break
        if self._bookmark is not None:
            with _complaining("cannot note how far the messages were read"):
                self._store([])
                self._bookmark.confirm()

    def _store_one(self, event: Any) -> bool:
        stored = False
        with _complaining("cannot store a log line"):
            self._instance.handle_new_event(event)
            stored = True
        self.lost += not stored
        return stored


@contextmanager
def _complaining(problem: str) -> Iterator[None]:
    """Databases and listeners fail in their own ways, and the reader goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 because they may raise anything
        _complain(f"{problem}: {error!r}")


def _complain(text: str) -> None:
    sys.stderr.write(f"[pipes] dagsterpipes {text}\n")


def open_batched_log(
    context: Any, clock: Callable[[], float], bookmark: Bookmark | None = None
) -> BatchedLog | None:
    """A batched log for this step, or ``None`` where only single events can be stored.

    Args:
        context: The context of the step.
        clock: Gives seconds.
        bookmark: Takes part in each transaction.
    """
    try:
        instance, run_id = context.instance, context.run_id
    except Exception:  # noqa: BLE001 because the context of a unit test may have neither
        return None
    table = event_table(instance)
    if table is None or subscribers_of(instance, run_id) is None:
        return None
    batched = BatchedLog(context, table, clock, bookmark)
    return batched if batched.attach(context.log) else None
