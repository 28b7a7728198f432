"""Simulated launches by Dagster: in memory, or of a script in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.envelope import READER_KEY
from dagsterpipes._protocol.launch_params import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    encode_param,
)
from dagsterpipes._reader.launch import bootstrap_env, build_context
from dagsterpipes._session import opening
from dagsterpipes._session.context import PipesContext
from dagsterpipes._threads import in_coroutine
from dagsterpipes.exceptions import DagsterPipesError
from dagsterpipes.loaders import PipesDefaultContextLoader, PipesMappingParamsLoader
from dagsterpipes.testing.reports import Reported, read_messages
from dagsterpipes.writers import PipesMessageWriter, PipesMessageWriterChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagsterpipes.typing import PipesContextData, PipesMessage, PipesParams


def _context(
    *,
    asset_keys: Sequence[str] | None = ("asset",),
    partition_key: str | None = None,
    partition_key_range: tuple[str, str] | None = None,
    partition_time_window: tuple[str, str] | None = None,
    extras: Mapping[str, Any] | None = None,
    code_versions: Mapping[str, str | None] | None = None,
    provenance: Mapping[str, Any] | None = None,
    run_id: str = "test-run",
    job_name: str | None = "test_job",
    retry_number: int = 0,
) -> PipesContextData:
    """The context as Dagster would send it."""
    by_asset = {
        "code_version_by_asset_key": dict(code_versions or {}),
        "provenance_by_asset_key": dict(provenance or {}),
    }
    return build_context(
        None if asset_keys is None else by_asset,
        asset_keys=asset_keys,
        partition=partition_key,
        partition_range=partition_key_range,
        time_window=partition_time_window,
        extras=extras,
        run_id=run_id,
        job_name=job_name,
        retry_number=retry_number,
    )


class _MemoryChannel(PipesMessageWriterChannel):
    def __init__(self, messages: list[PipesMessage]) -> None:
        self._messages = messages

    def write_message(self, message: PipesMessage) -> None:
        self._messages.append(message)


class _MemoryWriter(PipesMessageWriter[_MemoryChannel]):
    def __init__(self) -> None:
        self.messages: list[PipesMessage] = []

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[_MemoryChannel]:
        del params
        yield _MemoryChannel(self.messages)


@contextmanager
def launched(**launch: Any) -> Iterator[Reported]:
    """Make `open_dagster_pipes` behave, in this block, as if Dagster had launched the process.

    The messages of its sessions are kept in memory. A session that is still open at the end is
    closed.

    Args:
        launch: ``asset_keys`` (one asset ``"asset"`` unless given; None for an op),
            ``partition_key``, ``partition_key_range`` (two keys), ``partition_time_window`` (two
            timestamps), ``extras``, ``code_versions`` and ``provenance`` (by asset key), ``run_id``,
            ``job_name``, ``retry_number``.

    Raises:
        DagsterPipesError: A session is open already.
        ContextError: Dagster could not send such a context: an asset key is empty, or both a
            partition and a range are given.
    """
    if PipesContext.is_initialized():
        raise DagsterPipesError(
            "launched(): a Dagster Pipes session is open already; close it first"
        )
    writer = _MemoryWriter()
    params = PipesMappingParamsLoader(
        {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": _context(**launch)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({READER_KEY: 1}),
        }
    )
    opening.override_launch((params, PipesDefaultContextLoader(), writer))
    try:
        yield Reported(lambda: writer.messages)
    finally:
        opening.override_launch(None)
        if PipesContext.is_initialized():
            PipesContext.get().close()


def run_job(job: Callable[[PipesContext], Any], **launch: Any) -> Any:
    """Run ``job(pipes)`` in a session in memory.

    Args:
        job: A function of one argument, or a coroutine function; under a running event loop the
            result for a coroutine function must be awaited.
        launch: As of `launched`.

    Returns:
        A `Reported` with what the job reported. Exceptions of the job are raised.
    """
    result: list[Reported] = []

    def run() -> Any:
        with launched(**launch) as reported:
            result.append(reported)
            return opening.with_dagster_pipes(job)

    async def arun() -> Reported:
        with launched(**launch) as reported:
            async with opening.open_dagster_pipes() as pipes:
                await job(pipes)
        return reported

    if opening.is_coroutine_function(job) and in_coroutine():
        return arun()
    run()
    return result[0]


@dataclass(frozen=True)
class ScriptRun:
    """A script that ran in a process of its own, and what it reported."""

    reported: Reported
    returncode: int
    stdout: str
    stderr: str


def run_script(
    path: str | os.PathLike[str],
    *args: str,
    timeout: float | None = 60,
    env: Mapping[str, str] | None = None,
    **launch: Any,
) -> ScriptRun:
    """Run a Python script in a process of its own, launched as Dagster launches it.

    Args:
        path: The script.
        args: Its arguments.
        timeout: Seconds after which it is killed, and `subprocess.TimeoutExpired` raised.
        env: More environment variables.
        launch: As of `launched`.
    """
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder, "messages")
        bootstrap = bootstrap_env(
            _context(**launch), Path(folder), messages, include_stdio=False, keeps_lines_single=True
        )
        process = subprocess.run(  # noqa: S603 because the caller says what to run
            [sys.executable, os.fspath(path), *args],
            env={**os.environ, **bootstrap, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        found = read_messages(messages)
    return ScriptRun(Reported(lambda: found), process.returncode, process.stdout, process.stderr)
