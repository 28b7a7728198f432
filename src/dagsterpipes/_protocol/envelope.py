"""What all messages share: protocol version, size of a page, log levels."""

from __future__ import annotations

from functools import cache
from typing import Any

from dagsterpipes.exceptions import InvalidReportError

DAGSTER_PIPES_CONTEXT_ENV_VAR = "DAGSTER_PIPES_CONTEXT"
DAGSTER_PIPES_MESSAGES_ENV_VAR = "DAGSTER_PIPES_MESSAGES"
PIPES_PROTOCOL_VERSION_FIELD = "__dagster_pipes_version"
PIPES_PROTOCOL_VERSION = "0.1"

PAGE_SIZE = 4096
"""In bytes. A reader may see a messages file end at any multiple of this."""


@cache
def message_head(method: str) -> str:
    """The line of a message up to its params."""
    version = f'"{PIPES_PROTOCOL_VERSION_FIELD}": "{PIPES_PROTOCOL_VERSION}"'
    return f'{{{version}, "method": "{method}", "params": '


CLOSED_HEAD = message_head("closed").encode()
"""What the last message begins with; other processes write nothing after it."""

FILLER = (
    f'{{"{PIPES_PROTOCOL_VERSION_FIELD}":"{PIPES_PROTOCOL_VERSION}","method":"log_external_stream",'
    '"params":{"stream":"stdout","text":"","extras":{}}}'
).encode()
"""A message without an effect, to fill a page with; see `PageLayout`."""

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
"""The levels that Dagster knows, in ascending order, with their numbers in `logging`."""

LEVEL_ALIASES = {"WARN": "WARNING", "FATAL": "CRITICAL"}
"""Other names that Dagster knows."""

_NAMES = {**{name: name for name in LEVELS}, **LEVEL_ALIASES}
_NAME_OF_TEN = tuple(LEVELS)


def nearest_level(number: int) -> str:
    """The name of the nearest level at or below a number; ``DEBUG`` for what is lower still."""
    return _NAME_OF_TEN[min(max(number // 10, 1), 5) - 1]


def level_name(level: int | str) -> str:
    """The name under which Dagster gets a level.

    A number between two levels goes to the lower one, so nothing looks worse than it was logged;
    what is below ``DEBUG`` goes out as ``DEBUG``.

    Args:
        level: A number as in `logging`, or a name in any case, ``WARN`` and ``FATAL`` included.

    Raises:
        InvalidReportError: It is neither; Dagster's reader would stop at a level it does not know.
    """
    kind: Any = type(level)  # isinstance() would ask the object, which may answer with an error
    given: Any = level
    if issubclass(kind, int) and kind is not bool:
        return nearest_level(int.__int__(given))
    if issubclass(kind, str):
        name = _NAMES.get(str.__str__(given).upper())
        if name is not None:
            return name
    raise InvalidReportError(
        f"must be a level number or one of {', '.join(LEVELS)}",
        method="log",
        parameter="level",
        got=level,
    )
