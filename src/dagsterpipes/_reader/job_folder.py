"""The folder of a job that outlives whoever started it: its files, and what has become of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes.exceptions import ChannelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

try:
    import fcntl
except ImportError:  # pragma: no cover because the tests run on POSIX
    fcntl = None  # type: ignore[assignment] # because Windows has none

__all__ = [
    "Absent",
    "Ended",
    "Gone",
    "JobFolder",
    "JobState",
    "Running",
    "default_folder",
    "find_jobs",
]

RECORD = "job.json"

SHELL = """
read -r stat 2>/dev/null < /proc/$$/stat
(umask 077; printf '%s\\n%s\\n' "$$" "$stat" > "$0/pid.new" && mv "$0/pid.new" "$0/pid")
trap : INT TERM
"$@"
code=$?
(umask 077; printf '%s' "$code" > "$0/exit.new" && mv "$0/exit.new" "$0/exit")
"""
"""Runs a job and keeps its exit code. A signal to the group ends the job, and then the shell."""


class Absent(NamedTuple):
    """No job was started here."""


class Running(NamedTuple):
    """The job runs."""


class Ended(NamedTuple):
    """The job has ended.

    Args:
        code: Its exit code; above 128 for a signal, as shells have it.
    """

    code: int


class Gone(NamedTuple):
    """The job is no longer there and has left no exit code.

    Args:
        why: What is known about it, as the end of a sentence.
    """

    why: str


JobState = Absent | Running | Ended | Gone


class JobFolder:
    """A folder with everything that a later process needs to reattach to a job.

    The job holds a lock on a file for as long as it lives, which no process id can pretend to.
    Folders have mode 0700, files 0600.

    Args:
        path: Where it is, or will be.

    Threads: one at a time; processes may look at the same folder, but only one can be attached.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages = path / "messages"
        self.context = path / "context"
        self.output = {1: path / "stdout", 2: path / "stderr"}
        self._child: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Be the one who starts, reads and removes the job.

        Raises:
            ChannelError: Another process is attached, or this platform has no file locks.
        """
        if fcntl is None:  # pragma: no cover because the tests run on POSIX
            raise ChannelError("Durable jobs need file locks, which this platform lacks.")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _open(self.path / "attached")
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ChannelError(
                    f"The job in {self.path} is read by another process. If that is a run that"
                    " should not be, terminate it; then execute this one again."
                ) from None
            yield
        finally:
            os.close(descriptor)

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, output: bool
    ) -> None:
        """Start a job in a process session of its own.

        Args:
            command: The program and its arguments.
            env: Its whole environment.
            cwd: Where to start it.
            output: Whether to keep its stdout and stderr in files here.

        Raises:
            OSError: It cannot be started.
        """
        alive = _open(self.path / "alive")
        files = [_open(path) for path in self.output.values()] if output else []
        try:
            fcntl.flock(alive, fcntl.LOCK_EX)  # which the job inherits
            self._child = subprocess.Popen(  # noqa: S603 because commands are what it is for
                ["/bin/sh", "-c", SHELL, str(self.path), *command],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=files[0] if files else subprocess.DEVNULL,
                stderr=files[1] if files else subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(alive,),
            )
        finally:
            for descriptor in (alive, *files):
                os.close(descriptor)

    def prepare(self, **facts: Any) -> str:
        """Make the files of a new job; returns its token, which no other job has.

        Args:
            facts: What to keep in the record besides.
        """
        token = uuid.uuid4().hex
        record = {
            **facts,
            "token": token,
            "at": time.time(),
            "host": socket.gethostname(),
            "boot": _boot_id(),
        }
        for path in (self.messages, self.context):
            os.close(_open(path))
        new = self.path / f"{RECORD}.new"
        os.close(_open(new))
        new.write_text(json.dumps(record), encoding="utf-8")
        new.replace(self.path / RECORD)
        return token

    def record(self) -> Mapping[str, Any] | None:
        """What is known of the job; ``None`` if there is none."""
        try:
            record: dict[str, Any] = json.loads((self.path / RECORD).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return record

    def state(self) -> JobState:
        """What has become of the job."""
        record = self.record()
        if record is None:
            return Absent()
        if self._child is not None:
            self._child.poll()  # or it would stay a zombie
        code = self._exit_code()
        if code is None:
            if self._is_locked():
                return Running()
            code = self._exit_code()  # it may just have ended
        return Gone(self._why_gone(record)) if code is None else Ended(code)

    def send(self, number: int) -> None:
        """Send a signal to the job and its children, if it runs."""
        if isinstance(self.state(), Running):
            pid, _ = self._pid()
            with contextlib.suppress(ProcessLookupError):
                if pid is not None:
                    os.killpg(pid, number)

    def has_ended(self, seconds: float | None) -> bool:
        """Wait up to so many seconds for its end; for ever if given none."""
        until = None if seconds is None else time.monotonic() + seconds
        while isinstance(self.state(), Running):
            if until is not None and time.monotonic() >= until:
                return False
            time.sleep(0.02)
        return True

    def clear(self) -> None:
        """Remove the job and keep the folder, for another one."""
        # The record goes first: what is left of a removal that is cut short is no job.
        (self.path / RECORD).unlink(missing_ok=True)
        for name in (*(path.name for path in self.output.values()), "alive", "pid", "exit"):
            (self.path / name).unlink(missing_ok=True)
        for path in (self.messages, self.context):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, and the one above if it was the last in it."""
        self.clear()
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _exit_code(self) -> int | None:
        try:
            return int((self.path / "exit").read_text())
        except (OSError, ValueError):
            return None

    def _is_locked(self) -> bool:
        try:
            descriptor = os.open(self.path / "alive", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which two may hold who look
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _pid(self) -> tuple[int | None, str | None]:
        """The process id of the job's shell, and when it was started, in ticks since the boot."""
        try:
            pid, stat, *_ = (self.path / "pid").read_text().split("\n")
            return int(pid), _start_time(stat)
        except (OSError, ValueError):
            return None, None

    def _why_gone(self, record: Mapping[str, Any]) -> str:
        if record.get("host") != socket.gethostname():
            return (
                f"it ran on the host {record.get('host')!r}, and this is {socket.gethostname()!r}"
            )
        if record.get("boot") != _boot_id():
            return "the host was rebooted"
        pid, started = self._pid()
        if pid is None:
            return "it was never started"
        with contextlib.suppress(OSError):
            now = _start_time(Path(f"/proc/{pid}/stat").read_text())
            if now != started:
                return f"its process id {pid} belongs to another process now"
        return f"its process {pid} ended without an exit code"


def default_folder() -> Path | None:
    """Where the folders of jobs are unless somebody says otherwise; ``None`` without Dagster's home."""
    home = os.environ.get("DAGSTER_HOME")
    return Path(home, "dagsterpipes", "jobs") if home else None


def find_jobs(base: Path) -> list[JobFolder]:
    """All jobs below a folder, the oldest first."""
    jobs = [JobFolder(record.parent) for record in base.glob(f"*/*/{RECORD}")]
    return sorted(jobs, key=lambda job: (job.record() or {}).get("at", 0.0))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _start_time(stat: str) -> str | None:
    # The name of the program may hold spaces and parentheses; field 22 is the 20th behind it.
    fields = stat.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else None


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # pragma: no cover because the tests run on Linux
        return None
