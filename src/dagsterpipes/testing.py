"""A test kit for jobs: play a launch by Dagster in memory, and look at what the job reported.

::

    def test_job():
        with launched(asset_keys=["orders"], extras={"limit": 3}) as reported:
            main()                                    # opens its own session
        assert reported.materializations == [Materialization("orders", {"rows": 3})]

With pytest, the fixture ``pipes_launch`` does the same without the ``with``; it comes with the
package. `run_job` is for a function of one argument, `run_script` for a file in a process of its own.
Nothing is mocked: the session is the real one, only its messages stay in memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.launch_params import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    encode_param,
)
from dagsterpipes._session import opening
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.waiting import in_coroutine
from dagsterpipes.exceptions import DagsterPipesError
from dagsterpipes.loaders import PipesDefaultContextLoader, PipesMappingParamsLoader
from dagsterpipes.writers import PipesMessageWriter, PipesMessageWriterChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dagsterpipes.typing import PipesException, PipesMessage, PipesParams

__all__ = [
    "Check",
    "CustomMessage",
    "Log",
    "Materialization",
    "Output",
    "Reported",
    "ScriptRun",
    "launched",
    "read_messages",
    "run_job",
    "run_script",
]


@dataclass(frozen=True)
class Log:
    """A log message."""

    level: str
    message: str


@dataclass(frozen=True)
class Materialization:
    """A reported materialization.

    ``metadata`` has the bare value where the type is left to Dagster, and ``{"type", "raw_value"}``
    where one was given.
    """

    asset_key: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data_version: str | None = None


@dataclass(frozen=True)
class Check:
    """A reported result of an asset check; ``metadata`` as in `Materialization`."""

    asset_key: str
    check_name: str
    passed: bool
    severity: str = "ERROR"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CustomMessage:
    """A custom message, as JSON brought it over."""

    payload: Any


@dataclass(frozen=True)
class Output:
    """Text of an external stream."""

    stream: str
    text: str


Report = Log | Materialization | Check | CustomMessage | Output


class Reported:
    """What a job reported so far, in order; complete once its session is closed.

    Args:
        read: Gives the messages.
    """

    def __init__(self, read: Callable[[], list[Any]]) -> None:
        self._read = read

    @property
    def messages(self) -> list[PipesMessage]:
        """Every message as it goes over the wire, but not what only fills a file's pages."""
        context = PipesContext.get_open()
        if context is not None:
            context.flush()
        return [message for message in self._read() if not _is_filler(message)]

    @property
    def reports(self) -> list[Report]:
        """Everything that the job said, as typed objects."""
        return [
            _TYPED[message["method"]](message["params"])
            for message in self.messages
            if message["method"] in _TYPED
        ]

    def _of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.reports if isinstance(one, kind)]

    @property
    def logs(self) -> list[Log]:
        """The log messages."""
        return self._of(Log)

    @property
    def materializations(self) -> list[Materialization]:
        """The materializations."""
        return self._of(Materialization)

    @property
    def checks(self) -> list[Check]:
        """The results of asset checks."""
        return self._of(Check)

    @property
    def custom_messages(self) -> list[Any]:
        """The payloads of the custom messages."""
        return [one.payload for one in self._of(CustomMessage)]

    def output(self, stream: str = "stdout") -> str:
        """The text that was sent for a stream."""
        return "".join(one.text for one in self._of(Output) if one.stream == stream)

    @property
    def is_closed(self) -> bool:
        """Whether a session was opened, and the last one closed."""
        return self._ends()[-1:] == ["closed"]

    @property
    def exception(self) -> PipesException | None:
        """With what exception the last session was closed; None if it was a clean close."""
        closed = [one["params"] or {} for one in self.messages if one["method"] == "closed"]
        exception: PipesException | None = closed[-1].get("exception") if closed else None
        return exception

    def _ends(self) -> list[str]:
        return [one["method"] for one in self.messages if one["method"] in {"opened", "closed"}]

    def __repr__(self) -> str:
        said = "".join(f"\n    {one!r}," for one in self.reports)
        end = "closed" if self.is_closed else "not closed"
        if self.exception is not None:
            end += f" with {self.exception['name']}: {self.exception['message']}"
        return f"<Reported ({end}) [{said}\n]>"


def _is_filler(message: Any) -> bool:
    return message["method"] == "log_external_stream" and not message["params"]["text"]


def _metadata(wire: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: value["raw_value"] if value["type"] == "__infer__" else value
        for name, value in (wire or {}).items()
    }


_TYPED: dict[str, Callable[[Any], Report]] = {
    "log": lambda p: Log(p["level"], p["message"]),
    "report_asset_materialization": lambda p: Materialization(
        p["asset_key"], _metadata(p["metadata"]), p["data_version"]
    ),
    "report_asset_check": lambda p: Check(
        p["asset_key"], p["check_name"], p["passed"], p["severity"], _metadata(p["metadata"])
    ),
    "report_custom_message": lambda p: CustomMessage(p["payload"]),
    "log_external_stream": lambda p: Output(p["stream"], p["text"]),
}


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
) -> dict[str, Any]:
    """The context as Dagster would send it."""
    if partition_key is not None and partition_key_range is None:
        partition_key_range = (partition_key, partition_key)
    keys = None if asset_keys is None else list(asset_keys)
    return {
        "asset_keys": keys,
        "code_version_by_asset_key": None
        if keys is None
        else {key: (code_versions or {}).get(key) for key in keys},
        "provenance_by_asset_key": None
        if keys is None
        else {key: (provenance or {}).get(key) for key in keys},
        "partition_key": partition_key,
        "partition_key_range": _span(partition_key_range),
        "partition_time_window": _span(partition_time_window),
        "run_id": run_id,
        "job_name": job_name,
        "retry_number": retry_number,
        "extras": dict(extras or {}),
    }


def _span(ends: tuple[str, str] | None) -> dict[str, str] | None:
    return None if ends is None else {"start": ends[0], "end": ends[1]}


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
    """Let `open_dagster_pipes` believe, while this is open, that Dagster launched the process.

    What sessions report meanwhile is kept in memory. A session that is still open at the end is
    closed.

    Args:
        launch: ``asset_keys`` (one asset ``"asset"`` unless given; None for an op),
            ``partition_key``, ``partition_key_range`` (two keys), ``partition_time_window`` (two
            timestamps), ``extras``, ``code_versions`` and ``provenance`` (by asset key), ``run_id``,
            ``job_name``, ``retry_number``.

    Raises:
        DagsterPipesError: A session is open already.
    """
    if PipesContext.get_open() is not None:
        raise DagsterPipesError(
            "launched(): a Dagster Pipes session is open already; close it first"
        )
    writer = _MemoryWriter()
    params = PipesMappingParamsLoader(
        {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": _context(**launch)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({}),
        }
    )
    opening.play_launch((params, PipesDefaultContextLoader(), writer))
    try:
        yield Reported(lambda: writer.messages)
    finally:
        opening.play_launch(None)
        context = PipesContext.get_open()
        if context is not None:
            context.close()


def run_job(job: Callable[[PipesContext], Any], **launch: Any) -> Any:
    """Run ``job(pipes)`` in a session in memory.

    Args:
        job: A function of one argument, or a coroutine function; under a running event loop the
            result for a coroutine function is to be awaited.
        launch: As of `launched`.

    Returns:
        What it reported, a `Reported`. An exception of the job is raised.
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
    """Run a Python script in a process of its own, launched as Dagster does it.

    Args:
        path: The script.
        args: Its arguments.
        timeout: Seconds after which it is killed, and `subprocess.TimeoutExpired` raised.
        env: More environment variables.
        launch: As of `launched`.
    """
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder, "messages")
        messages.touch()
        context = Path(folder, "context")
        context.write_text(json.dumps(_context(**launch)), encoding="utf-8")
        bootstrap = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"path": str(context)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(
                {"path": str(messages), "include_stdio_in_messages": False}
            ),
        }
        process = subprocess.run(  # noqa: S603 because the caller says what to run
            [sys.executable, os.fspath(path), *args],
            env={**os.environ, **bootstrap, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = read_messages(messages)
    return ScriptRun(Reported(lambda: said), process.returncode, process.stdout, process.stderr)


def read_messages(path: str | os.PathLike[str]) -> list[Any]:
    """Read a messages file.

    Raises:
        ValueError: A line is not what Dagster's reader takes; it would stop there.
    """
    messages = []
    lines = Path(path).read_bytes().split(b"\n")
    if lines.pop():
        raise ValueError(f"{os.fspath(path)} does not end in a newline")
    for number, line in enumerate(lines, start=1):
        message = json.loads(line)  # a ValueError names what is wrong
        if not isinstance(message, dict) or "method" not in message:
            raise ValueError(f"{os.fspath(path)}, line {number}: not a message: {line[:80]!r}")
        messages.append(message)
    return messages
