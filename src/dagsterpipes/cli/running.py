"""Runs a command in a session as Dagster does, and follows its messages to the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dagsterpipes._delivery import recovery
from dagsterpipes._reader.tail import LineTail
from dagsterpipes.cli.child import Child
from dagsterpipes.cli.events import ExitStatus, Notice, OutputSeen, PromptSeen, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from dagsterpipes.cli.events import View
    from dagsterpipes.cli.session_report import SessionReport

__all__ = ["caught_signals", "follow_file", "run_command"]

POLL = 0.02
"""Seconds between two looks at the messages file."""

PROMPT_AFTER = 0.1
"""Seconds without output after which an unfinished line is shown: it may ask for something."""

OUTPUT_GRACE = 1.0
"""Seconds for which output may still come when the command has ended.

A process that it has left running may hold its pipes open for ever.
"""


def run_command(
    command: Sequence[str],
    env: Mapping[str, str],
    messages: Path,
    report: SessionReport,
    view: View,
) -> Summary:
    """Run ``command`` and show what arrives, until it has ended and everything is read.

    A signal to this process is forwarded once; repeated, the command is terminated and then killed.

    Args:
        command: The program and its arguments.
        env: What to add to this process's environment.
        messages: The messages file, which exists.
        report: Judges the session.
        view: Shows it.
    """
    started = time.monotonic()
    with messages.open("rb", buffering=0) as file, caught_signals() as caught:
        try:
            child = Child(command, {**os.environ, **env})
        except (OSError, ValueError) as error:
            return report.finish(not_started=f"The command cannot be started: {error}", seconds=0.0)
        tail = LineTail(file, time.monotonic)
        for at in _follow(child, tail, report, view, caught):
            view.tick(report.state, at)
        at = time.monotonic() - started
        _show_rest(tail, report, view, at)
        if not child.output_ended:
            view.show(
                Notice(at, "The command has left a process behind that keeps its output open")
            )
    stopped_by = None
    if caught:
        interrupted = caught[0] == signal.SIGINT
        stopped_by = ExitStatus.INTERRUPTED if interrupted else ExitStatus.TERMINATED
    return report.finish(exit_code=child.exit_code, seconds=at, stopped_by=stopped_by)


def _follow(
    child: Child, tail: LineTail, report: SessionReport, view: View, caught: Sequence[int]
) -> Iterator[float]:
    """Show what comes until the command has ended and all is read; gives the time now and then."""
    started = time.monotonic()
    ended_at: float | None = None
    forwarded = looks = 0
    busy_at = 0.0
    prompts: set[tuple[str, str]] = set()
    while True:
        at = time.monotonic() - started
        # Asked before reading: what the command wrote before its end is then read below.
        ended = child.exit_code is not None
        for number in caught[forwarded:]:
            if ended:
                return
            view.show(Notice(at, _forward(child, number, forwarded)))
            forwarded += 1
        idle = True
        for line in child.output():
            view.show(OutputSeen(at, *line))
            idle = False
        for tailed in tail.lines():
            for event in report.take(tailed, at):
                view.show(event)
            idle = False
        if ended:
            ended_at = at if ended_at is None else ended_at
            looks += 1
            # What the command itself wrote has come after a few looks, however slow the view is.
            output_done = child.output_ended or (at - ended_at > OUTPUT_GRACE and looks > 3)
            if output_done and tail.at_end:
                return
        if not idle:
            busy_at = at
        elif at - busy_at > PROMPT_AFTER:
            unfinished = set(child.unfinished())
            for stream, text in unfinished - prompts:
                view.show(PromptSeen(at, stream, text))
            prompts = unfinished
        yield at
        if idle and tail.at_end:
            time.sleep(POLL)


def follow_file(file: Path, report: SessionReport, view: View) -> Summary:
    """Show the session of a messages file, or of a recovery file, that is complete.

    Raises:
        OSError: The file cannot be read.
    """
    started = time.monotonic()
    with file.open("rb", buffering=0) as opened:
        tail = LineTail(opened, time.monotonic)
        size = os.fstat(opened.fileno()).st_size
        while not tail.at_end:
            for line in tail.lines(READ_BLOCK):
                for event in report.take(line, None):
                    view.show(event)
            done = f"{opened.tell() / size:.0%} of the file, " if size else ""
            view.tick(done + report.state, time.monotonic() - started)
        _show_rest(tail, report, view, None)
    return report.finish(recovery_file=is_recovery_file(file.name) and report.has_messages)


READ_BLOCK = 1 << 20
"""Bytes of a file after which the progress is shown."""


def is_recovery_file(name: str) -> bool:
    """Whether a file has the name of those in which a session keeps what it could not deliver."""
    return name.startswith(recovery.PREFIX)


def _show_rest(tail: LineTail, report: SessionReport, view: View, at: float | None) -> None:
    rest = tail.rest()
    for event in report.take(rest, at) if rest is not None else ():
        view.show(event)


def _forward(child: Child, number: int, forwarded: int) -> str:
    if forwarded == 0:
        child.signal(number)
        name = signal.Signals(number).name
        return f"Forwarded {name} to the command; once more terminates it, a third time kills it"
    name = "SIGTERM" if forwarded == 1 or not hasattr(signal, "SIGKILL") else "SIGKILL"
    child.signal(getattr(signal, name))
    return f"Sent {name} to the command"


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the numbers of signals that would end this process, instead of ending it."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    previous = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
