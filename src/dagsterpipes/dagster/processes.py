"""The process of a job: starting it, and ending it."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from dagsterpipes.dagster.private import DagsterPipesExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "POLL",
    "CustomMessages",
    "check_exit_code",
    "end_process",
    "has_ended",
    "start_process",
]

POLL = 0.05
"""Seconds between two looks at a process and at its custom messages."""

TERMINATE_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


def start_process(
    command: str | Sequence[str],
    *,
    env: Sequence[Mapping[str, str] | None],
    cwd: str | None,
    forward_stdio: bool,
) -> subprocess.Popen[bytes]:
    """Start a command as ``subprocess.Popen`` does.

    Args:
        command: The program, or the program and its arguments.
        env: What to add to this process's environment; later ones win.
        cwd: Where to start it.
        forward_stdio: Whether its output goes where this process's goes, or nowhere.
    """
    merged = dict(os.environ)
    for one in env:
        merged.update(one or {})
    output = None if forward_stdio else subprocess.DEVNULL
    return subprocess.Popen(  # noqa: S603 because commands are what it is for
        command, cwd=cwd, env=merged, stdout=output, stderr=output
    )


def end_process(
    send: Callable[[int], object], has_ended: Callable[[float | None], bool], grace: float
) -> None:
    """Interrupt a process, terminate it if that is not enough, and kill it in the end.

    Args:
        send: Sends it a signal; does nothing if it has ended.
        has_ended: Waits up to so many seconds for its end; for ever if given none.
        grace: Seconds between SIGINT and SIGTERM.
    """
    if os.name == "posix":
        for number, seconds in ((signal.SIGINT, grace), (signal.SIGTERM, TERMINATE_GRACE)):
            send(number)
            if has_ended(seconds):
                return
        send(signal.SIGKILL)
    else:  # pragma: no cover because the tests run on POSIX
        send(signal.SIGTERM)
    has_ended(None)


def has_ended(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    """Wait up to so many seconds for the end of a process; for ever if given none."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def check_exit_code(code: int | None) -> None:
    """Fail the step in Dagster's own words if the process has failed.

    Raises:
        DagsterPipesExecutionError: ``code`` is not 0.
    """
    if code != 0:
        raise DagsterPipesExecutionError(f"External execution process failed with code {code}")


class CustomMessages:
    """The custom messages of a session, each given once, while they come.

    Args:
        session: Dagster's Pipes session; its public methods are enough, whoever reads for it.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._taken = 0

    def take(self) -> Sequence[Any]:
        """Those that came since the last call."""
        new: Sequence[Any] = self._session.get_custom_messages()[self._taken :]
        self._taken += len(new)
        return new
