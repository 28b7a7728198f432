"""A command and its messages, followed to the end; whole runs are among the integration tests."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dagsterpipes._delivery import recovery
from dagsterpipes.cli.events import (
    Event,
    ExitStatus,
    LineRefused,
    MessageSeen,
    Notice,
    OutputSeen,
    Summary,
)
from dagsterpipes.cli.running import follow_file, run_command
from dagsterpipes.cli.session_report import SessionReport

if TYPE_CHECKING:
    from collections.abc import Callable


class Recorder:
    """A view that keeps what it is shown, and lets a test act on it."""

    def __init__(self, act: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self._act = act

    def show(self, event: Event) -> None:
        self.events.append(event)
        self._act(event)

    def tick(self, state: str, at: float, /) -> None:
        """Nothing to keep."""

    def finish(self, summary: Summary) -> None:
        """Nothing to keep."""


OPENED = b'{"__dagster_pipes_version": "0.1", "method": "opened", "params": {"extras": {}}}\n'
LOG = (
    b'{"__dagster_pipes_version": "0.1", "method": "log",'
    b' "params": {"message": "row 7", "level": "INFO"}}\n'
)
CLOSED = b'{"__dagster_pipes_version": "0.1", "method": "closed", "params": {}}'


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_follow_file(tmp_path: Path, end: bytes) -> None:
    """A file is judged to its end, whether its last line has a newline or not."""
    file = tmp_path / "messages"
    file.write_bytes(OPENED + CLOSED + end)
    view = Recorder()
    summary = follow_file(file, SessionReport(), view)
    assert summary.status is ExitStatus.DONE
    assert summary.seconds is None
    assert [(event.at, type(event)) for event in view.events] == [(None, MessageSeen)] * 2


def test_follow_an_unfinished_file(tmp_path: Path) -> None:
    """What a process left unfinished is refused with its line number."""
    file = tmp_path / "messages"
    file.write_bytes(OPENED + b"x" * 20_000_000 + b"\n" + CLOSED[:20])
    view = Recorder()
    summary = follow_file(file, SessionReport(), view)
    assert summary.status is ExitStatus.REFUSED
    refused = [event for event in view.events if isinstance(event, LineRefused)]
    assert [(event.line, event.refused.rule) for event in refused] == [(2, "json"), (3, "json")]


def test_follow_an_empty_file(tmp_path: Path) -> None:
    """An empty file is a session that was never opened."""
    file = tmp_path / "messages"
    file.touch()
    assert follow_file(file, SessionReport(), Recorder()).status is ExitStatus.NOT_CLOSED


@pytest.fixture
def recovery_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a session keeps that could deliver neither these messages nor its end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = recovery.keep(LOG + CLOSED + b"\n")
    assert path is not None
    return Path(path)


def test_a_recovery_file_is_no_session(recovery_file: Path) -> None:
    """It is named as such, with a status of its own; that it has no `opened` is no fault."""
    summary = follow_file(recovery_file, SessionReport(), Recorder())
    assert summary.recovery_file
    assert summary.status is ExitStatus.UNDELIVERED
    assert [problem.text for problem in summary.problems] == [
        "2 messages of a session that never reached Dagster"
    ]


def test_a_recovery_file_with_a_broken_line(recovery_file: Path) -> None:
    """What Dagster would refuse counts more: sending the file again would stop the reader."""
    recovery_file.write_bytes(LOG + b"half a li\n")
    summary = follow_file(recovery_file, SessionReport(), Recorder())
    assert summary.recovery_file
    assert summary.status is ExitStatus.REFUSED


def test_a_renamed_recovery_file(recovery_file: Path) -> None:
    """Without its name it is judged as a session, with a hint at what it may be."""
    renamed = recovery_file.rename(recovery_file.with_name("kept.jsonl"))
    summary = follow_file(renamed, SessionReport(), Recorder())
    assert summary.status is ExitStatus.NOT_CLOSED
    [problem] = summary.problems
    assert problem.text.startswith("The session was never opened, or this is a recovery file")


def test_the_name_alone_makes_no_recovery_file(recovery_file: Path) -> None:
    """A file of that name without a message is judged like any other."""
    recovery_file.write_bytes(b"")
    summary = follow_file(recovery_file, SessionReport(), Recorder())
    assert not summary.recovery_file
    assert summary.status is ExitStatus.NOT_CLOSED


def run(folder: Path, code: str, view: Recorder) -> Summary:
    """Run Python code in a session, whose messages file is its argument."""
    messages = folder / "messages"
    messages.touch()
    command = [sys.executable, "-c", code, str(messages)]
    return run_command(command, {"ADDED": "yes"}, messages, SessionReport(), view)


WRITE = "import os, sys, time; file = open(sys.argv[1], 'ab', buffering=0); "


def test_run_command(tmp_path: Path) -> None:
    """Output and messages of a command are shown with their times, to the last one."""
    code = f"{WRITE}print(os.environ['ADDED']); file.write({OPENED + CLOSED!r}); sys.exit(5)"
    view = Recorder()
    summary = run(tmp_path, code, view)
    assert summary.status is ExitStatus.COMMAND_FAILED
    assert summary.exit_code == 5
    assert summary.closed
    output = [event for event in view.events if isinstance(event, OutputSeen)]
    assert [(event.stream, event.text) for event in output] == [("stdout", "yes")]
    assert [type(event) for event in view.events].count(MessageSeen) == 2
    assert summary.seconds is not None
    assert all(0 <= (event.at or 0) <= summary.seconds for event in view.events)


@pytest.mark.parametrize("command", [["no-such-command"], ["a\x00b"]])
def test_a_command_that_cannot_be_started(tmp_path: Path, command: list[str]) -> None:
    """A command that cannot be started has failed, and nothing is shown."""
    messages = tmp_path / "messages"
    messages.touch()
    view = Recorder()
    summary = run_command(command, {}, messages, SessionReport(), view)
    assert summary.status is ExitStatus.COMMAND_FAILED
    assert summary.problems[0].text.startswith("The command cannot be started: ")
    assert view.events == []


def test_outside_the_main_thread(tmp_path: Path) -> None:
    """In a thread, where signals cannot be caught, a command runs all the same."""
    summaries: list[Summary] = []
    thread = threading.Thread(
        target=lambda: summaries.append(run(tmp_path, f"{WRITE}file.write({OPENED!r})", Recorder()))
    )
    thread.start()
    thread.join()
    assert summaries[0].opened


STUBBORN = (
    "import signal; signal.signal(signal.SIGINT, lambda *_: print('no', flush=True));"
    "signal.signal(signal.SIGTERM, lambda *_: print('never', flush=True));"
    "print('ready', flush=True); [time.sleep(60) for _ in range(9)]"
)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_signals(tmp_path: Path) -> None:
    """A signal is forwarded; the next ones terminate and kill; ours are as before afterwards."""

    def interrupt(event: Event) -> None:
        if isinstance(event, OutputSeen):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    view = Recorder(interrupt)
    summary = run(tmp_path, WRITE + STUBBORN, view)
    assert signal.getsignal(signal.SIGINT) is before
    assert summary.status is ExitStatus.INTERRUPTED
    assert summary.exit_code == -signal.SIGKILL
    shown = [event.text for event in view.events if isinstance(event, (Notice, OutputSeen))]
    assert shown == [
        "ready",
        "Forwarded SIGINT to the command; once more terminates it, a third time kills it",
        "no",
        "Sent SIGTERM to the command",
        "never",
        "Sent SIGKILL to the command",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_left_behind(tmp_path: Path) -> None:
    """A process that holds the output is not waited for; a signal while it is ends the wait."""
    leave = "import subprocess; subprocess.Popen(['sleep', '20']); print('left', flush=True)"
    view = Recorder()
    assert run(tmp_path, leave, view).status is ExitStatus.NOT_CLOSED
    left = "The command has left a process behind that keeps its output open"
    assert view.events[-1][1] == left

    def terminate(event: Event) -> None:
        if isinstance(event, MessageSeen):
            os.kill(os.getpid(), signal.SIGTERM)

    busy = (
        f"import subprocess, sys; line = {OPENED.decode()!r};"
        "writer = 'import sys, time; file = open(sys.argv[2], \"a\", buffering=1)\\n'"
        "'for _ in range(5000): file.write(sys.argv[1]); time.sleep(0.001)';"
        "subprocess.Popen([sys.executable, '-c', writer, line, sys.argv[1]])"
    )
    summary = run(tmp_path, busy, Recorder(terminate))
    assert summary.status is ExitStatus.TERMINATED
