"""The names that all messages share."""

from __future__ import annotations

import json
import logging
from typing import Any

import dagster_pipes
import pytest

from dagsterpipes._protocol import assets, envelope, launch_params, messages, metadata
from dagsterpipes._protocol.envelope import CLOSED_HEAD, FILLER, LEVEL_ALIASES, LEVELS, level_name
from dagsterpipes.exceptions import InvalidReportError


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (envelope, "DAGSTER_PIPES_CONTEXT_ENV_VAR"),
        (envelope, "DAGSTER_PIPES_MESSAGES_ENV_VAR"),
        (envelope, "PIPES_PROTOCOL_VERSION"),
        (envelope, "PIPES_PROTOCOL_VERSION_FIELD"),
        (launch_params, "DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT"),
        (launch_params, "DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT"),
        (launch_params, "DAGSTER_PIPES_CONTEXT_WIDGET_KEY"),
        (launch_params, "DAGSTER_PIPES_MESSAGES_WIDGET_KEY"),
        (metadata, "PIPES_METADATA_TYPE_INFER"),
        (assets, "ESCAPE_CHARACTER"),
    ],
)
def test_constants_of_the_reference(module: Any, name: str) -> None:
    """Code that imports a constant of dagster_pipes finds it here, with the same value."""
    assert getattr(dagster_pipes, name) == getattr(module, name)


def test_levels_are_those_of_logging() -> None:
    """Each level has its number in `logging`, and so has the level that an alias stands for."""
    assert {name: getattr(logging, name) for name in LEVELS} == LEVELS
    for alias, name in LEVEL_ALIASES.items():
        assert getattr(logging, alias) == LEVELS[name]


def test_closed_begins_with_its_head() -> None:
    """The channel finds another process's `closed` by its head, also that of dagster_pipes."""
    theirs = json.dumps(dagster_pipes._make_message("closed", {}))
    assert messages.closed(None).startswith(CLOSED_HEAD)
    assert theirs.encode().startswith(CLOSED_HEAD)


def test_filler_is_an_external_stream_without_text() -> None:
    """Dagster takes the filler and writes nothing."""
    assert json.loads(messages.external_stream("stdout", "", None)) == json.loads(FILLER)


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


def test_an_object_that_lies_about_its_class() -> None:
    """It is refused, not asked: a log call raises no error but ours."""

    class Lying:
        def _raise(self) -> Any:
            raise ZeroDivisionError

        __class__: Any = property(_raise)

    level: Any = Lying()
    with pytest.raises(InvalidReportError):
        level_name(level)
