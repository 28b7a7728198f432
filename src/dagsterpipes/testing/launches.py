"""Simulated launches by Dagster: of this process, or of a script in a process of its own."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from dagsterpipes._reader.launch import bootstrap_env, build_context
from dagsterpipes._session import opening
from dagsterpipes._session.context import PipesContext
from dagsterpipes._threads import in_coroutine
from dagsterpipes.exceptions import DagsterPipesError
from dagsterpipes.loaders import PipesDefaultContextLoader, PipesEnvVarParamsLoader
from dagsterpipes.testing.reports import Reported, read_messages, read_whole_messages
from dagsterpipes.writers import PipesDefaultMessageWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Unpack


class LaunchOptions(TypedDict, total=False):
    """What a simulated launch tells the job; see `launched`."""

    asset_keys: Sequence[str] | str | None
    partition_key: str | None
    partition_key_range: tuple[str, str] | None
    partition_time_window: tuple[str, str] | None
    extras: Mapping[str, Any] | None
    code_versions: Mapping[str, str | None] | None
    provenance: Mapping[str, Any] | None
    run_id: str
    job_name: str | None
    retry_number: int


class PipesLaunch(Protocol):
    """The type of the fixture ``pipes_launch``."""

    def __call__(self, **launch: Unpack[LaunchOptions]) -> Reported:
        """Launch; the options are those of `launched`."""


def _make_launch(folder: Path, launch: Mapping[str, Any]) -> tuple[Path, dict[str, str]]:
    """Make the files of a launch: the path of the messages file, and the variables that lead there."""
    for name in launch:
        if name not in LaunchOptions.__annotations__:
            near = difflib.get_close_matches(name, LaunchOptions.__annotations__, 1, 0.6)
            raise TypeError(
                f"a launch has no option {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + f" The options are {', '.join(LaunchOptions.__annotations__)}"
            )
    asset_keys = launch.get("asset_keys", "asset")
    if isinstance(asset_keys, str):
        asset_keys = [asset_keys]
    by_asset = {
        "code_version_by_asset_key": dict(launch.get("code_versions") or {}),
        "provenance_by_asset_key": dict(launch.get("provenance") or {}),
    }
    context = build_context(
        None if asset_keys is None else by_asset,
        asset_keys=asset_keys,
        partition=launch.get("partition_key"),
        partition_range=launch.get("partition_key_range"),
        time_window=launch.get("partition_time_window"),
        extras=launch.get("extras"),
        run_id=launch.get("run_id", "test-run"),
        job_name=launch.get("job_name", "test_job"),
        retry_number=launch.get("retry_number", 0),
    )
    messages = folder / "messages"
    return messages, bootstrap_env(
        context, folder, messages, include_stdio=False, keeps_lines_single=True
    )


@contextmanager
def launched(**launch: Unpack[LaunchOptions]) -> Iterator[Reported]:
    """Make `open_dagster_pipes` behave, in this block, as if Dagster had launched the process.

    The session is a real one, with a messages file in a temporary folder; child processes that open
    it report there too. The loader and the writer that the job names are replaced, unless it names a
    ``params_loader``. A session that is still open at the end is closed.

    Args:
        launch: ``asset_keys`` (one asset ``"asset"`` unless given; a single key is enough; None for
            an op), ``partition_key``, ``partition_key_range`` (two keys), ``partition_time_window``
            (two timestamps), ``extras``, ``code_versions`` and ``provenance`` (by asset key),
            ``run_id``, ``job_name``, ``retry_number``.

    Raises:
        DagsterPipesError: A session is open already.
        ContextError: Dagster could not send such a context: an asset key is empty, or both a
            partition and a range are given.
        TypeError: There is no such option.
    """
    if PipesContext.is_initialized():
        raise DagsterPipesError(
            "launched(): a Dagster Pipes session is open already; close it first"
        )
    with tempfile.TemporaryDirectory(prefix="dagsterpipes-") as folder:
        messages, env = _make_launch(Path(folder), launch)
        # What was reported, once the file goes.
        kept: list[list[Any]] = []
        reported = Reported(lambda: kept[0] if kept else read_whole_messages(messages))
        before = {name: os.environ.get(name) for name in env}
        os.environ.update(env)
        opening.override_launch(
            (PipesEnvVarParamsLoader(), PipesDefaultContextLoader(), PipesDefaultMessageWriter())
        )
        try:
            yield reported
        finally:
            opening.override_launch(None)
            try:
                if PipesContext.is_initialized():
                    PipesContext.get().close()
            finally:
                for name, value in before.items():
                    os.environ.pop(name, None)
                    if value is not None:
                        os.environ[name] = value
                kept.append(read_whole_messages(messages))


def run_job(job: Callable[[PipesContext], Any], **launch: Unpack[LaunchOptions]) -> Any:
    """Run ``job(pipes)`` in a session of its own.

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
    **launch: Unpack[LaunchOptions],
) -> ScriptRun:
    """Run a Python script in a process of its own, launched as Dagster launches it.

    Args:
        path: The script.
        args: Its arguments.
        timeout: Seconds after which it is killed, and `subprocess.TimeoutExpired` raised.
        env: More environment variables.
        launch: As of `launched`.
    """
    with tempfile.TemporaryDirectory(prefix="dagsterpipes-") as folder:
        messages, bootstrap = _make_launch(Path(folder), launch)
        process = subprocess.run(  # noqa: S603 because the caller says what to run
            [sys.executable, os.fspath(path), *args],
            env={**os.environ, **bootstrap, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=timeout,
            check=False,
        )
        found = read_messages(messages)
    return ScriptRun(Reported(lambda: found), process.returncode, process.stdout, process.stderr)
