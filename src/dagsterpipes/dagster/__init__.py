"""Dagster's side of a Pipes session: readers that nothing stops, and clients.

Needs the extra ``dagsterpipes[dagster]``; it is the one package of ours that imports Dagster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes.dagster.async_client import AsyncPipesInvocation, AsyncPipesSubprocessClient
from dagsterpipes.dagster.clients import PipesSubprocessClient
from dagsterpipes.dagster.durable import DurablePipesSubprocessClient
from dagsterpipes.dagster.readers import PipesFileMessageReader, PipesTempFileMessageReader

if TYPE_CHECKING:
    from dagsterpipes.dagster.component import PipesJobComponent

__all__ = [
    "AsyncPipesInvocation",
    "AsyncPipesSubprocessClient",
    "DurablePipesSubprocessClient",
    "PipesFileMessageReader",
    "PipesJobComponent",
    "PipesSubprocessClient",
    "PipesTempFileMessageReader",
]


def __getattr__(name: str) -> Any:
    if name == "PipesJobComponent":  # late, as it needs Dagster 1.11
        from dagsterpipes.dagster.component import PipesJobComponent  # noqa: PLC0415 because of that

        return PipesJobComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
