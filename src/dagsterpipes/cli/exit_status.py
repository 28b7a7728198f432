"""The exit statuses of ``dagsterpipes run`` and ``dagsterpipes read``."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MEANINGS", "ExitStatus"]


class ExitStatus(IntEnum):
    """What came of a session; 2 is left to wrong usage of the command line."""

    DONE = 0
    COMMAND_FAILED = 3
    NOT_CLOSED = 4
    CHECK_FAILED = 5
    REFUSED = 6
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS = {
    ExitStatus.DONE: "The command succeeded and closed its session.",
    ExitStatus.COMMAND_FAILED: "The command failed, or could not be started.",
    ExitStatus.NOT_CLOSED: "The session was not opened, not closed, or closed with an exception.",
    ExitStatus.CHECK_FAILED: "A check of severity ERROR failed, or an expected check is missing.",
    ExitStatus.REFUSED: "Dagster would have refused a message.",
    ExitStatus.INTERRUPTED: "Interrupted by Ctrl-C.",
    ExitStatus.TERMINATED: "Terminated by SIGTERM or SIGHUP.",
}
