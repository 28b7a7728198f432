"""Dagster's private names: the only module that uses them, each looked up when a session begins.

Every function gives ``None`` where a name is missing or means something else in this version of
Dagster, or where the storage is one that this module does not know. The caller then does the slow
thing that needs public names only: one event at a time.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

try:
    from dagster._core.errors import DagsterPipesExecutionError
except ImportError:  # pragma: no cover because every supported version has it
    DagsterPipesExecutionError = dg.DagsterError
try:
    from dagster._core.pipes.client import PipesClientCompletedInvocation  # public since 1.12
except ImportError:  # pragma: no cover because every supported version has it
    PipesClientCompletedInvocation = dg.PipesClientCompletedInvocation
try:
    from dagster._core.definitions.resource_annotation import TreatAsResourceParam
except ImportError:  # pragma: no cover because every supported version has it
    TreatAsResourceParam = object

__all__ = [
    "DagsterPipesExecutionError",
    "EventLogger",
    "EventTable",
    "PipesClientCompletedInvocation",
    "TreatAsResourceParam",
    "context_of",
    "event_logger",
    "event_table",
    "logs_as_dagster_does",
    "metadata_of",
    "note_event",
    "step_key_of",
    "subscribers_of",
]

KNOWN_STORAGES = frozenset(
    {
        ("dagster", "SqlEventLogStorage"),
        ("dagster", "SqliteEventLogStorage"),
        ("dagster_postgres", "PostgresEventLogStorage"),
    }
)
"""Whose ``store_event`` does no more for an event without an asset than to insert its row."""


def context_of(handler: Any) -> Any | None:
    """The context of the step whose messages this handler takes."""
    return getattr(handler, "_context", None)


def logs_as_dagster_does(handler: Any) -> bool:
    """Whether a log message ends up in ``context.log`` and nowhere else: nobody overrode that."""
    try:
        from dagster._core.pipes.context import PipesMessageHandler  # noqa: PLC0415 because it may be missing

        # A reader that joins several readers hands each of them a thin handler of its own.
        kind = type(getattr(handler, "_handler", handler))
        return all(
            getattr(kind, name) is getattr(PipesMessageHandler, name)
            for name in ("handle_message", "_handle_log")
        )
    except (ImportError, AttributeError):
        return False


class _Collector(logging.Handler):
    """In place of the handler that stores each event at once: hands on what it would store."""

    def __init__(self, level: int, collect: Callable[[Any], None]) -> None:
        from dagster._core.events.log import (  # noqa: PLC0415 because it may be missing
            StructuredLoggerMessage,
            construct_event_record,
        )
        from dagster._core.log_manager import get_log_record_metadata  # noqa: PLC0415 because it may be missing

        super().__init__(level)
        self._message = StructuredLoggerMessage
        self._event = construct_event_record
        self._metadata = get_log_record_metadata
        self._collect = collect

    def emit(self, record: logging.LogRecord) -> None:
        message = self._message(
            name=record.name,
            message=record.msg,
            level=record.levelno,
            meta=self._metadata(record),
            record=record,
        )
        self._collect(self._event(message))


class EventLogger:
    """Logs like ``context.log``, but hands over the events instead of storing them.

    Consoles and other loggers of the run get each line at once, as they do from ``context.log``.

    Args:
        log: The log manager of the step.
        collect: Gets each event, in the thread that logs.

    Raises:
        AttributeError, ImportError, TypeError: Dagster's names are not those that are known.
    """

    def __init__(self, log: Any, collect: Callable[[Any], None]) -> None:
        from dagster._core.log_manager import DagsterLogHandler, DagsterLogManager  # noqa: PLC0415 because it may be missing
        from dagster._core.utils import coerce_valid_log_level  # noqa: PLC0415 because it may be missing

        stores_events = _event_handler_class()
        old: Any = log._dagster_handler  # noqa: SLF001 because there is no public way
        [own] = [one for one in old._handlers if type(one) is stores_events]  # noqa: SLF001 because there is no public way
        collector = _Collector(own.level, collect)
        handlers = [collector if one is own else one for one in old._handlers]  # noqa: SLF001 because there is no public way
        self._loggers: Sequence[logging.Logger] = old._loggers  # noqa: SLF001 because there is no public way
        new = DagsterLogHandler(old.metadata, self._loggers, handlers)
        self._log = DagsterLogManager(dagster_handler=new, managed_loggers=[], level=log.level)
        self._log.filters = log.filters
        for handler in log.handlers:
            if handler is not old:
                self._log.addHandler(handler)
        self._others = [
            one for one in (*handlers, *self._log.handlers) if one not in (collector, new)
        ]
        self._collect = collect
        self._lowest: int = own.level
        self._entry = dg.EventLogEntry
        self._place = {
            "run_id": old.metadata["run_id"],
            "step_key": old.metadata["step_key"],
            "job_name": old.metadata["job_name"],
            "error_info": None,
        }
        self._number_of: Callable[[str | int], int] = coerce_valid_log_level

    def log(self, level: str | int, text: str) -> None:
        """Log a line at a level of any form that Dagster's handler takes."""
        number = self._number_of(level)
        if not self._log.isEnabledFor(number):
            return
        if self._others or self._log.filters or any(o.isEnabledFor(number) for o in self._loggers):
            self._log.log(number, text)
        elif number >= self._lowest:  # nobody else looks: no record is needed
            self._collect(
                self._entry(level=number, user_message=text, timestamp=time.time(), **self._place)
            )


def _event_handler_class() -> Any:
    try:
        from dagster._core.instance.types import _EventListenerLogHandler  # noqa: PLC0415 because it may be missing
    except ImportError:  # Dagster before 1.11
        from dagster._core.instance import _EventListenerLogHandler  # noqa: PLC0415 because it may be missing

    return _EventListenerLogHandler


def event_logger(log: Any, collect: Callable[[Any], None]) -> EventLogger | None:
    """A logger like this one that hands its events to ``collect``."""
    try:
        return EventLogger(log, collect)
    except (ImportError, AttributeError, TypeError, ValueError, KeyError):
        return None


def subscribers_of(instance: Any, run_id: str) -> Sequence[Callable[[Any], None]] | None:
    """Who in this process wants each event of the run when it is stored."""
    try:
        return list(instance._subscribers[run_id])  # noqa: SLF001 because there is no public way
    except (AttributeError, KeyError, TypeError):
        return None


class EventTable:
    """The table of the event log, for rows that belong to no asset.

    Args:
        storage: A storage whose ``store_event`` is known.
        table: Its table.
    """

    def __init__(self, storage: Any, table: Any) -> None:
        self._storage = storage
        self._table = table
        self.row: Callable[[Any], Mapping[str, Any]] = storage._event_to_row  # noqa: SLF001 because there is no public way

    @contextmanager
    def transaction(self, run_id: str) -> Iterator[Any]:
        """A connection in a transaction; what is raised inside undoes all of it."""
        with self._storage.run_connection(run_id) as connection:
            if connection.in_transaction():  # SQLite's is opened so
                yield connection
                return
            # Postgres commits each statement unless asked not to.
            isolated = connection.execution_options(isolation_level="READ COMMITTED")
            with isolated.begin():
                yield isolated

    def insert(self, connection: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, in their order."""
        connection.execute(self._table.insert(), list(rows))

    def insert_one(self, connection: Any, row: Mapping[str, Any]) -> int:
        """Add a row and give its id."""
        return int(connection.execute(self._table.insert(), dict(row)).inserted_primary_key[0])

    def replace(self, connection: Any, number: int, row: Mapping[str, Any]) -> None:
        """Put the event of this row in place of the one with that id."""
        update = self._table.update().where(self._table.c.id == number)
        connection.execute(update.values(event=row["event"]))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether exactly this row is stored: its time goes to the microsecond."""
        columns = self._table.c
        found = self._table.select().where(
            (columns.run_id == row["run_id"])
            & (columns.timestamp == row["timestamp"])
            & (columns.event == row["event"])
        )
        with self.transaction(row["run_id"]) as connection:
            return connection.execute(found.limit(1)).first() is not None


def event_table(instance: Any) -> EventTable | None:
    """Where this instance stores its events, if that is a database whose rows are known."""
    try:
        from dagster._core.storage.event_log.schema import SqlEventLogStorageTable  # noqa: PLC0415 because it may be missing

        storage = instance.event_log_storage
        # What keeps all in one place is wrapped twice for those who ask for one part.
        storage = getattr(storage, "_storage", storage)
        storage = getattr(storage, "event_log_storage", storage)
        definer = next(kind for kind in type(storage).__mro__ if "store_event" in vars(kind))
        if (definer.__module__.partition(".")[0], definer.__name__) not in KNOWN_STORAGES:
            return None
        if not callable(storage.run_connection):
            return None
        return EventTable(storage, SqlEventLogStorageTable)
    except (ImportError, AttributeError, StopIteration):
        return None


def note_event(context: Any, step_key: str, text: str, metadata: Mapping[str, Any]) -> Any:
    """An event of the step with metadata, not stored yet, that shows as a line of the run's log.

    Raises:
        ImportError: Dagster's names are not those that are known.
    """
    from dagster._core.events import EngineEventData  # noqa: PLC0415 because it may be missing

    run = context.run
    event = dg.DagsterEvent(
        dg.DagsterEventType.ENGINE_EVENT.value,
        run.job_name,
        step_key=step_key,
        event_specific_data=EngineEventData(metadata=metadata),
        message=text,
    )
    return dg.EventLogEntry(
        error_info=None,
        level=logging.DEBUG,
        user_message="",
        run_id=run.run_id,
        timestamp=time.time(),
        step_key=step_key,
        job_name=run.job_name,
        dagster_event=event,
    )


def metadata_of(entry: Any) -> Mapping[str, Any]:
    """The metadata of such an event; empty for any other."""
    data = getattr(entry.dagster_event, "event_specific_data", None)
    found: Mapping[str, Any] = getattr(data, "metadata", None) or {}
    return found


def step_key_of(context: Any) -> str:
    """The key of the step that this is the context of."""
    return str(context.get_step_execution_context().step.key)
