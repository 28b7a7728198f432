"""Objects that users pass and that are not what they seem: values that print otherwise, raise, lie about their class or never end."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, NamedTuple


class Color(enum.Enum):
    RED = "red"
    NESTED = ("a", 1)


class Level(enum.IntEnum):
    LOW = 10


class Severity(str, enum.Enum):
    WARN = "WARN"


class PrintedText(str):
    """A str that prints itself otherwise."""

    __slots__ = ()

    def __str__(self) -> str:
        return "printed"

    def __repr__(self) -> str:
        return "represented"


class PrintedInt(int):
    def __repr__(self) -> str:
        return "not a number"

    __str__ = __repr__


class PrintedFloat(float):
    def __repr__(self) -> str:
        return "not a number"

    __str__ = __repr__


class TwinText(str):
    """A str that is its own key in a dict, beside an equal str."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass
class Record:
    name: str
    value: Any


class Raising:
    """Raises whatever is asked of it: what a broken object of a user may do."""

    def _raise(self, *_: object) -> Any:
        raise ZeroDivisionError("asked for")

    __str__ = __repr__ = __iter__ = __len__ = __eq__ = __bool__ = __index__ = _raise
    __float__ = __fspath__ = __getitem__ = __contains__ = keys = items = get = _raise
    __hash__ = object.__hash__


class LyingClass:
    """Raises even when ``isinstance`` looks at it."""

    def _raise(self) -> Any:
        raise ZeroDivisionError("asked for")

    __class__: Any = property(_raise)


class RaisingMapping(dict[Any, Any]):
    """Raises when it is read; it is not empty."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items or {"a": 1})

    def items(self) -> Any:
        raise ZeroDivisionError("asked for")


class EndlessMapping(dict[Any, Any]):
    """Gives a new mapping of its kind for every value."""

    def items(self) -> Any:
        return [("deeper", EndlessMapping())]


def cycle() -> list[Any]:
    """A list that contains itself, twice."""
    items: list[Any] = [1]
    items += [{"again": items}, items]
    return items


def nested(depth: int) -> list[Any]:
    """As many lists inside one another."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular_exception() -> dict[str, Any]:
    """An exception that is its own cause and context."""
    exception: dict[str, Any] = {"message": "round", "stack": None}
    exception["cause"] = exception["context"] = exception
    return exception
