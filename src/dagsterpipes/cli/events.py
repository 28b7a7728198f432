"""The events of a session and its summary, as the views get them, and as JSON."""

from __future__ import annotations

import json
import math
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dagsterpipes._reader.rules import Refused


class ExitStatus(IntEnum):
    """The outcome of a session; 2 is left to wrong usage of the command line."""

    DONE = 0
    COMMAND_FAILED = 3
    NOT_CLOSED = 4
    CHECK_FAILED = 5
    REFUSED = 6
    UNDELIVERED = 7
    NOT_SHOWN = 8
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: Mapping[ExitStatus, str] = {
    ExitStatus.DONE: "The command succeeded and closed its session.",
    ExitStatus.COMMAND_FAILED: "The command failed, or could not be started.",
    ExitStatus.NOT_CLOSED: "The session was not opened, not closed, or closed with an exception.",
    ExitStatus.CHECK_FAILED: "A check of severity ERROR failed, or an expected check is missing.",
    ExitStatus.REFUSED: "Dagster would have refused a message.",
    ExitStatus.UNDELIVERED: "The file is a recovery file: its messages never reached Dagster.",
    ExitStatus.NOT_SHOWN: "All is well, but the output could not be written.",
    ExitStatus.INTERRUPTED: "Interrupted by Ctrl-C.",
    ExitStatus.TERMINATED: "Terminated by SIGTERM or SIGHUP.",
}


MEANINGS_OF_FILE: Mapping[ExitStatus, str] = {
    status: MEANINGS[status] if status else "The session is closed, and Dagster takes all of it."
    for status in ExitStatus
    if status not in {ExitStatus.COMMAND_FAILED, ExitStatus.TERMINATED}
}
"""The same for a file, which no command comes with."""


class MessageSeen(NamedTuple):
    """A message that Dagster accepts.

    Args:
        at: Seconds since the session began; ``None`` when a file is read.
        line: Its line in the messages file.
        message: The parsed line.
        note: What is odd about it, or nothing.
    """

    at: float | None
    line: int
    message: Mapping[str, Any]
    note: str = ""


class LineRefused(NamedTuple):
    """A line that breaks a rule.

    Args:
        at: As in ``MessageSeen``.
        line: As in ``MessageSeen``.
        refused: The rule.
        start: How the line begins.
    """

    at: float | None
    line: int
    refused: Refused
    start: str


class OutputSeen(NamedTuple):
    """A line that the command itself wrote, outside the session.

    Args:
        at: As in ``MessageSeen``.
        stream: ``stdout`` or ``stderr``.
        text: The line without its end.
        progress: It ended with a carriage return: the next one takes its place.
    """

    at: float | None
    stream: str
    text: str
    progress: bool


class PromptSeen(NamedTuple):
    """The line that the command has begun and does not end: it waits, perhaps for an answer.

    ``OutputSeen`` has the whole line once it has ended.

    Args:
        at: As in ``MessageSeen``.
        stream: ``stdout`` or ``stderr``.
        text: What there is of the line.
    """

    at: float | None
    stream: str
    text: str


class Notice(NamedTuple):
    """A message of the runner itself.

    Args:
        at: As in ``MessageSeen``.
        text: In words.
    """

    at: float | None
    text: str


Event = MessageSeen | LineRefused | OutputSeen | PromptSeen | Notice


class Problem(NamedTuple):
    """Why a session did not succeed.

    Args:
        status: The exit status that it asks for.
        text: In words.
        line: Its line in the messages file, if it has one.
        rule: The rule of ``RULES`` that was broken, if it is about one.
    """

    status: ExitStatus
    text: str
    line: int | None = None
    rule: str | None = None


class Summary(NamedTuple):
    """The outcome of a session.

    Args:
        status: The exit status.
        problems: All of them, up to a limit; the most severe kind gave the status.
        problems_left_out: How many were over the limit.
        lines: Lines in the messages file.
        methods: Accepted messages, by method.
        fillers: Empty ``log_external_stream`` messages, which print nothing.
        levels: Log messages of each level.
        materialized: Asset keys, in order.
        checks: For each check its asset key, name, severity and whether it passed.
        opened: The session was opened.
        closed: The session was closed.
        recovery_file: The file holds what a session could not deliver.
        exception: What it was closed with.
        lost: Messages after the first one that stops Dagster's reader.
        torn: Lines that were seen unfinished, for however short a time.
        exit_code: Of the command; negative for a signal, ``None`` when there was none.
        seconds: From start to end; ``None`` when a file is read.
    """

    status: ExitStatus
    problems: Sequence[Problem]
    problems_left_out: int
    lines: int
    methods: Mapping[str, int]
    fillers: int
    levels: Mapping[str, int]
    materialized: Sequence[str]
    checks: Sequence[tuple[str, str, str, bool]]
    opened: bool
    closed: bool
    recovery_file: bool
    exception: Mapping[str, Any] | None
    lost: int
    torn: int
    exit_code: int | None
    seconds: float | None


class View(Protocol):
    """Where events are shown. The methods are called from one thread."""

    def show(self, event: Event) -> None:
        """Show an event."""

    def tick(self, state: str, at: float, /) -> None:
        """Show the present state of the session, where there is a place for it; called often."""

    def finish(self, summary: Summary) -> None:
        """Show the summary; nothing is shown afterwards."""


class OutputGuard:
    """Passes everything on to a view, and drops it once the view can no longer write.

    Whoever pipes the runner into ``head`` still gets the command run to its end.

    Args:
        view: The view.
        on_broken: Called once, when the view cannot write.
    """

    def __init__(self, view: View, on_broken: Callable[[], None]) -> None:
        self._view: View | None = view
        self._on_broken = on_broken
        self.error: OSError | None = None
        """Why the view could not write, unless its reader is just gone."""

    def show(self, event: Event) -> None:
        """Show an event."""
        if self._view is not None:
            try:
                self._view.show(event)
            except OSError as error:
                self._drop(error)

    def tick(self, state: str, at: float, /) -> None:
        """Bring the state up to date."""
        if self._view is not None:
            try:
                self._view.tick(state, at)
            except OSError as error:
                self._drop(error)

    def finish(self, summary: Summary) -> None:
        """Show the summary."""
        if self._view is not None:
            try:
                self._view.finish(summary)
            except OSError as error:
                self._drop(error)

    def _drop(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.error = error
        self._view = None
        self._on_broken()


class JsonView:
    """Writes each event as a line of ASCII: no control character goes through raw.

    Numbers that JSON does not know become text: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.

    Args:
        out: Where to write.
        only_summary: Leave the events out.
    """

    def __init__(self, out: TextIO, *, only_summary: bool = False) -> None:
        self._out = out
        self._only_summary = only_summary

    def show(self, event: Event) -> None:
        """Write an event."""
        if self._only_summary or isinstance(event, PromptSeen):
            return
        at = None if event.at is None else round(event.at, 3)
        if isinstance(event, MessageSeen):
            method, params = event.message["method"], event.message["params"]
            body = {"line": event.line, "method": method, "params": params}
            self._write({"event": "message", "at": at, **body, "note": event.note or None})
        elif isinstance(event, LineRefused):
            rule, detail = event.refused
            body = {"line": event.line, "rule": rule, "detail": detail}
            effect = event.refused.effect
            self._write(
                {"event": "refused", "at": at, **body, "effect": effect, "start": event.start}
            )
        elif isinstance(event, OutputSeen):
            body = {"stream": event.stream, "text": event.text, "progress": event.progress}
            self._write({"event": "output", "at": at, **body})
        else:
            self._write({"event": "notice", "at": at, "text": event.text})

    def tick(self, _state: str, _at: float) -> None:
        """Flush what was written, for a reader of the pipe."""
        self._out.flush()

    def finish(self, summary: Summary) -> None:
        """Write the summary, with ``"event": "summary"``."""
        fields = summary._asdict()
        fields["status"] = int(summary.status)
        fields["outcome"] = summary.status.name.lower().replace("_", "-")
        fields["problems"] = [
            {**problem._asdict(), "status": int(problem.status)} for problem in summary.problems
        ]
        fields["checks"] = [
            dict(zip(("asset_key", "check_name", "severity", "passed"), check, strict=True))
            for check in summary.checks
        ]
        self._write({"event": "summary", **fields})
        self._out.flush()

    def _write(self, body: Mapping[str, Any]) -> None:
        try:
            line = json.dumps(body, allow_nan=False)
        except ValueError:
            line = json.dumps(_finite(body), allow_nan=False)
        self._out.write(line + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
