"""The names that all messages share."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dagsterpipes._protocol.envelope import level_name
from dagsterpipes.exceptions import InvalidReportError


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (-(10**30), "DEBUG"),
        (logging.NOTSET, "DEBUG"),
        (5, "DEBUG"),
        (logging.DEBUG, "DEBUG"),
        (19, "DEBUG"),
        (logging.INFO, "INFO"),
        (25, "INFO"),
        (logging.WARNING, "WARNING"),
        (logging.ERROR, "ERROR"),
        (49, "ERROR"),
        (logging.CRITICAL, "CRITICAL"),
        (10**30, "CRITICAL"),
        ("debug", "DEBUG"),
        ("Info", "INFO"),
        ("WARN", "WARNING"),
        ("warning", "WARNING"),
        ("ERROR", "ERROR"),
        ("critical", "CRITICAL"),
        ("fatal", "CRITICAL"),
    ],
)
def test_levels(level: int | str, name: str) -> None:
    """A number goes to the level at or below it, a name in any case to its own."""
    assert name == level_name(level)


@pytest.mark.parametrize(
    "level", ["NOTSET", "TRACE", "Level 15", "20", "", True, False, None, 20.0]
)
def test_what_is_no_level(level: Any) -> None:
    """What Dagster's reader would stop at is refused."""
    with pytest.raises(InvalidReportError) as caught:
        level_name(level)
    expected = (
        "log(): level must be a level number or one of DEBUG, INFO, WARNING, ERROR, CRITICAL;"
        f" got {level!r} of type {type(level).__name__}"
    )
    assert expected == str(caught.value)


def test_subclasses_that_count_otherwise() -> None:
    """What a subclass makes of itself does not matter."""

    class Odd(int):
        def __floordiv__(self, other: object) -> Any:
            raise ZeroDivisionError

    assert level_name(Odd(20)) == "INFO"


def test_an_object_that_lies_about_its_class() -> None:
    """It is refused, not asked."""

    class Lying:
        def _raise(self) -> Any:
            raise ZeroDivisionError

        __class__: Any = property(_raise)

    level: Any = Lying()
    with pytest.raises(InvalidReportError):
        level_name(level)
