"""What all messages share: protocol version, names of the bootstrap variables, log levels."""

from __future__ import annotations

from typing import Any

from dagsterpipes.exceptions import InvalidReportError

DAGSTER_PIPES_CONTEXT_ENV_VAR = "DAGSTER_PIPES_CONTEXT"
DAGSTER_PIPES_MESSAGES_ENV_VAR = "DAGSTER_PIPES_MESSAGES"
PIPES_PROTOCOL_VERSION = "0.1"


_NAME_OF_ALIAS = {
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "WARNING": "WARNING",
    "WARN": "WARNING",
    "ERROR": "ERROR",
    "CRITICAL": "CRITICAL",
    "FATAL": "CRITICAL",
}
_NAME_OF_TEN = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def level_name(level: int | str) -> str:
    """The name under which Dagster gets a level.

    A number between two levels goes to the lower one, so nothing looks worse than it was said;
    what is below ``DEBUG`` goes out as ``DEBUG``.

    Args:
        level: A number as in `logging`, or a name in any case, ``WARN`` and ``FATAL`` included.

    Raises:
        InvalidReportError: It is neither; Dagster's reader would stop at a level it does not know.
    """
    kind: Any = type(level)  # isinstance() would ask the object, which may answer with an error
    given: Any = level
    if issubclass(kind, int) and kind is not bool:
        return _NAME_OF_TEN[min(max(int.__int__(given) // 10, 1), 5) - 1]
    if issubclass(kind, str):
        name = _NAME_OF_ALIAS.get(str.__str__(given).upper())
        if name is not None:
            return name
    raise InvalidReportError(
        "must be a level number or one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
        method="log",
        parameter="level",
        got=level,
    )
