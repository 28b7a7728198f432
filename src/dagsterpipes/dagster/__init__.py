"""Dagster's side of a Pipes session: readers that nothing stops, and clients.

Needs the extra ``dagsterpipes[dagster]``; it is the one package of ours that imports Dagster.
"""

from __future__ import annotations

from dagsterpipes.dagster.async_client import AsyncPipesInvocation, AsyncPipesSubprocessClient
from dagsterpipes.dagster.clients import PipesSubprocessClient
from dagsterpipes.dagster.durable import DurablePipesSubprocessClient
from dagsterpipes.dagster.readers import PipesFileMessageReader, PipesTempFileMessageReader

__all__ = [
    "AsyncPipesInvocation",
    "AsyncPipesSubprocessClient",
    "DurablePipesSubprocessClient",
    "PipesFileMessageReader",
    "PipesSubprocessClient",
    "PipesTempFileMessageReader",
]
