"""The events of a session and its summary, as the views get them."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    ExitStatus.DONE: "The command succeeded and closed its session.",
    ExitStatus.COMMAND_FAILED: "The command failed, or could not be started.",
    ExitStatus.NOT_CLOSED: "The session was not opened, not closed, or closed with an exception.",
    ExitStatus.CHECK_FAILED: "A check of severity ERROR failed, or an expected check is missing.",
    ExitStatus.REFUSED: "Dagster would have refused a message.",
    ExitStatus.UNDELIVERED: "The file is a recovery file: its messages never reached Dagster.",
    ExitStatus.INTERRUPTED: "Interrupted by Ctrl-C.",
    ExitStatus.TERMINATED: "Terminated by SIGTERM or SIGHUP.",
}


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


class Notice(NamedTuple):
    """A message of the runner itself.

    Args:
        at: As in ``MessageSeen``.
        text: In words.
    """

    at: float | None
    text: str


Event = MessageSeen | LineRefused | OutputSeen | Notice


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


class BrokenPipeGuard:
    """Passes everything on to a view, and drops it once the view can no longer write.

    Whoever pipes the runner into ``head`` still gets the command run to its end.

    Args:
        view: The view.
        on_broken: Called once, when the view cannot write.
    """

    def __init__(self, view: View, on_broken: Callable[[], None]) -> None:
        self._view: View | None = view
        self._on_broken = on_broken

    def show(self, event: Event) -> None:
        """Show an event."""
        self._use(lambda view: view.show(event))

    def tick(self, state: str, at: float, /) -> None:
        """Bring the state up to date."""
        self._use(lambda view: view.tick(state, at))

    def finish(self, summary: Summary) -> None:
        """Show the summary."""
        self._use(lambda view: view.finish(summary))

    def _use(self, write: Callable[[View], None]) -> None:
        if self._view is not None:
            try:
                write(self._view)
            except OSError:
                self._view = None
                self._on_broken()
