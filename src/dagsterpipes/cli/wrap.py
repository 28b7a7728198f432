"""Runs a program that nobody can edit as a job with a session of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes import NullPipesContext, open_dagster_pipes
from dagsterpipes._protocol.envelope import LEVEL_ALIASES, LEVELS
from dagsterpipes._protocol.launch_params import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
)
from dagsterpipes.cli.child import Child
from dagsterpipes.cli.running import OUTPUT_GRACE, POLL, caught_signals
from dagsterpipes.exceptions import DagsterPipesError, DagsterPipesWarning, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagsterpipes import PipesContext
    from dagsterpipes.cli.child import OutputLine

try:
    import resource
except ImportError:  # Windows measures nothing of the kind
    resource = None  # type: ignore[assignment] # because the platform has none

__all__ = ["LevelRule", "LevelRules", "parse_level", "wrap"]

WORDS = "TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|SEVERE|CRITICAL|FATAL"

USUAL = re.compile(
    rf"""
      ^\W*(?P<first>{WORDS})\b                            # ERROR something; [ERROR] something
    | (?:^|[\s\[(|:])(?i:(?P<marked>{WORDS}))(?=[\]):])   # x.c:3: error: something; [warn] something
    | ^\W*\d[^|]{{0,79}}?[\s\[(|](?P<dated>{WORDS})\b     # 2026-01-31 12:00:00,5 name ERROR something
    | [-|]\s*(?P<between>{WORDS})\s*[-|]                  # name - ERROR - something; name | ERROR | something
    | \b(?i:level(?:name)?|lvl|severity)["']?\s*[=:]\s*["']?(?i:(?P<named>{WORDS}))\b   # level=error
    | ^(?P<failure>Traceback\ \(most\ recent|[\w.]*(?:Error|Exception):\ )
    """,
    re.VERBOSE,
)
"""The places where tools write the level of a line."""

LOOKED_AT = 500
"""Characters of a line in which its level is looked for."""

OTHER_NAMES = {"TRACE": "DEBUG", "NOTICE": "INFO", "SEVERE": "ERROR"}

WAITING = 16
"""Chunks of output that wait to be sent; then the command waits."""

OWN_REST = 4 << 20
"""Characters after the end of the command that may still be its own: in the pipes and in those chunks. What
comes later was written by another process."""

MEMORY_INTERVAL = 0.1
"""Seconds between two looks at the memory of the command."""


class LevelRule(NamedTuple):
    """Lines that match have this level.

    Args:
        level: The number of a log level.
        pattern: Searched in the line.
    """

    level: int
    pattern: re.Pattern[str]


def parse_level(text: str) -> LevelRule:
    """Parse ``LEVEL=REGEX``.

    Raises:
        DagsterPipesError: The level is unknown, or the rest is no regular expression.
    """
    name, equals, pattern = text.partition("=")
    number = _number(name)
    if not equals or number is None:
        raise DagsterPipesError(
            f"A level is given as LEVEL=REGEX with one of {', '.join(LEVELS)}; got {shorten(text)}."
        )
    try:
        return LevelRule(number, re.compile(pattern))
    except re.error as error:
        raise DagsterPipesError(f"{shorten(pattern)} is no regular expression: {error}.") from None


def _number(name: str) -> int | None:
    name = name.upper()
    return LEVELS.get(LEVEL_ALIASES.get(name, OTHER_NAMES.get(name, name)))


class LevelRules:
    """Finds the level of each line.

    An indented line belongs to the one before it in its stream. What has no level is ``INFO``.

    Args:
        rules: The first that matches counts; after them come the usual places.
    """

    def __init__(self, rules: Sequence[LevelRule] = ()) -> None:
        self._rules = rules
        self._last: dict[str, int] = {}  # of each stream

    def level_of(self, line: OutputLine) -> int:
        """The number of the level."""
        text = line.text[:LOOKED_AT]
        level = self._find(text)
        if level is None:
            is_indented = text[:1].isspace()
            level = self._last.get(line.stream, LEVELS["INFO"]) if is_indented else LEVELS["INFO"]
        self._last[line.stream] = level
        return level

    def _find(self, text: str) -> int | None:
        for rule in self._rules:
            if rule.pattern.search(text):
                return rule.level
        found = USUAL.search(text)
        if found is None:
            return None
        return LEVELS["ERROR"] if found["failure"] else _number(found[found.lastgroup or 0])


class CommandFailedError(DagsterPipesError):
    """The command did not end with status 0; the session is closed with this."""


def wrap(
    command: Sequence[str], *, levels: Sequence[LevelRule] = (), asset_keys: Sequence[str] = ()
) -> int:
    """Run a command in a session; returns its exit status, 128 and the number for a signal.

    Its output is shown as it is and sent as log messages. When it succeeds, each asset is materialized
    with its exit code, duration and peak memory; when it fails, the session is closed with an error.
    Outside Dagster it is only run.

    Args:
        command: The program and its arguments.
        levels: See `LevelRules`.
        asset_keys: The assets that it makes; those of the step unless given.

    Raises:
        DagsterPipesError: The session cannot be opened, or closed, or an asset is none of the step.
    """
    status = 1
    with caught_signals() as caught, warnings.catch_warnings():
        # Then the output is shown and nothing is sent, which is what anybody expects.
        warnings.filterwarnings("ignore", "Dagster did not launch", DagsterPipesWarning)
        try:
            # What it prints is sent as log messages, so not once more as output.
            with open_dagster_pipes(handle_sigterm=False, capture_stdio=False) as pipes:
                run = _Run(command, pipes, LevelRules(levels))
                status = run.to_the_end(caught)
                run.report(status, asset_keys)
        except CommandFailedError as error:
            sys.stderr.write(f"dagsterpipes: {error}\n")
    return status


class _Run:
    """The command, from its start to its end.

    Args:
        command: The program and its arguments.
        pipes: The session.
        levels: Finds the level of a line.

    Raises:
        CommandFailedError: It cannot be started.
    """

    def __init__(self, command: Sequence[str], pipes: PipesContext, levels: LevelRules) -> None:
        self._pipes = pipes
        self._levels = levels
        self._program = Path(command[0]).name
        self._is_launched = not isinstance(pipes, NullPipesContext)
        self._steps: dict[str, str] = {}  # of each stream, the last one that was not finished
        self._started = time.monotonic()
        self._peak = 0  # bytes, as far as seen
        self._seconds = 0.0
        # Not by getrusage() if possible, which counts the parent's memory from before our exec too.
        self._own_peak = _peak_of_process(os.getpid()) or _peak_of("RUSAGE_SELF")
        # A session of its own would end ours.
        passed = (DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR)
        env = {name: value for name, value in os.environ.items() if name not in passed}
        self._child: Child | None = None
        self._failure: OSError | ValueError | None = None
        try:
            self._child = Child(command, env, waiting=WAITING, echo=_echo())
        except (OSError, ValueError) as error:
            self._failure = error

    def to_the_end(self, caught: Sequence[int]) -> int:
        """Send what it prints and forward the signals that are caught; its exit status."""
        if self._child is None:
            return 127 if isinstance(self._failure, FileNotFoundError) else 126
        child = self._child
        forwarded = rest = 0
        busy_at = looked_at = time.monotonic()
        while True:
            # Asked before reading: what the command wrote before its end is then read below.
            ended = child.exit_code is not None
            now = time.monotonic()
            for number in caught[forwarded:]:
                child.signal(number)
                forwarded += 1
            if not ended:
                self._seconds = now - self._started
                if now - looked_at > MEMORY_INTERVAL or not self._peak:
                    looked_at = now
                    self._peak = max(self._peak, _peak_of_process(child.pid))
            idle = True
            for line in child.output():
                self._send(line)
                rest += len(line.text) + 1 if ended else 0
                idle = False
            if not idle:
                busy_at = time.monotonic()
            if ended:
                if child.output_ended:
                    break
                if (idle and now - busy_at > OUTPUT_GRACE) or rest > OWN_REST:
                    self._log(
                        LEVELS["WARNING"],
                        f"{self._program} has left a process behind that keeps its output open",
                    )
                    break
            if idle:
                time.sleep(POLL)
        for text in self._steps.values():
            self._log(LEVELS["INFO"], text)
        code = child.exit_code or 0
        return code if code >= 0 else 128 - code

    def report(self, status: int, asset_keys: Sequence[str]) -> None:
        """Materialize the assets.

        Raises:
            CommandFailedError: The command failed.
        """
        if self._failure is not None:
            raise CommandFailedError(
                f"{self._program} cannot be started: {self._failure}"
            ) from self._failure
        facts: dict[str, Any] = {"exit_code": status, "duration_seconds": round(self._seconds, 3)}
        peak = self._peak_memory()
        if peak is not None:
            facts["peak_memory_bytes"] = peak
        if status:
            told = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._log(LEVELS["ERROR"], f"{self._program} failed: {told}")
            code = self._child.exit_code if self._child is not None else status
            how = f"exit status {status}" if code == status else _signal_name(status - 128)
            raise CommandFailedError(f"{self._program} failed with {how}")
        if self._is_launched:
            for key in asset_keys or (self._pipes.asset_keys if self._pipes.is_asset_step else ()):
                self._pipes.report_asset_materialization(asset_key=key, metadata=facts)

    def _send(self, line: OutputLine) -> None:
        if line.progress:
            self._steps[line.stream] = line.text
            return
        self._steps.pop(line.stream, None)
        if line.text.strip():
            self._log(self._levels.level_of(line), line.text)

    def _log(self, level: int, text: str) -> None:
        # Outside Dagster a log goes to stderr, where the output is already.
        if self._is_launched:
            self._pipes.log.log(level, text)

    def _peak_memory(self) -> int | None:
        """Bytes of the largest process; None if it was too short to be seen."""
        # Between its fork and its exec, a process has the memory of ours: less tells nothing.
        peak = _peak_of("RUSAGE_CHILDREN")
        return peak if peak > self._own_peak else self._peak or None


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _peak_of(who: str) -> int:
    if resource is None:
        return 0
    peak = resource.getrusage(getattr(resource, who)).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _peak_of_process(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        # A process that is not the command yet has its parent's memory.
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    return 0


def _echo() -> Callable[[str, bytes], None]:
    """Write to the real streams, unless nobody reads them any more."""
    broken: set[str] = set()
    descriptors = {"stdout": 1, "stderr": 2}

    def echo(stream: str, data: bytes) -> None:
        rest = data
        while rest and stream not in broken:
            rest = rest[write(stream, rest) :]

    def write(stream: str, data: bytes) -> int:
        try:
            return os.write(descriptors[stream], data)
        except BlockingIOError:
            time.sleep(POLL)
        except OSError:
            broken.add(stream)
        return 0

    return echo
