"""Dagster Pipes for async and log-heavy Python jobs.

::

    async with open_dagster_pipes() as pipes:      # in a coroutine
        pipes.log.info("starting")

    with open_dagster_pipes() as pipes:            # in plain code
        pipes.report_asset_materialization(metadata={"rows": 3})
"""

from __future__ import annotations

from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.inactive import NullPipesContext
from dagsterpipes._session.log_handler import PipesLogHandler
from dagsterpipes._session.logger import PipesLogger
from dagsterpipes._session.opening import open_dagster_pipes, with_dagster_pipes
from dagsterpipes.exceptions import (
    ChannelError,
    ContextError,
    DagsterPipesError,
    DagsterPipesWarning,
    FlushTimeoutError,
    InvalidReportError,
    LaunchParamsError,
    MessagesLostError,
    SessionClosedError,
)

__all__ = [
    "ChannelError",
    "ContextError",
    "DagsterPipesError",
    "DagsterPipesWarning",
    "FlushTimeoutError",
    "InvalidReportError",
    "LaunchParamsError",
    "MessagesLostError",
    "NullPipesContext",
    "PipesContext",
    "PipesLogHandler",
    "PipesLogger",
    "SessionClosedError",
    "open_dagster_pipes",
    "with_dagster_pipes",
]
