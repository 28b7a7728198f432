"""Exceptions given as mappings: completed, never too much for Dagster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dagsterpipes._protocol.argument import Place
from dagsterpipes._protocol.exception_mapping import MAX_EXCEPTIONS, complete_exception
from dagsterpipes.exceptions import InvalidReportError
from support.calls import PrintedText, circular_exception

PLACE = Place("close", "exc")
NOTHING: dict[str, Any] = {"stack": [], "name": None, "cause": None, "context": None}


def test_a_complete_exception_stays_as_it_is() -> None:
    """All five keys, in causes and contexts too."""
    inner = {"message": "in", "stack": ["a\n"], "name": "E", "cause": None, "context": None}
    outer = {"message": "out", "stack": ["b"], "name": "F", "cause": inner, "context": inner}
    assert outer == complete_exception(outer, PLACE)


def test_missing_keys_are_filled_in() -> None:
    """Only the message has to be there; other keys are dropped; empty causes are none."""
    given = {
        "message": "m",
        "odd": 1,
        "cause": {"message": "c", "cause": [], "context": {}},
        "context": [],
    }
    expected = {
        **NOTHING,
        "message": "m",
        "cause": {**NOTHING, "message": "c"},
    }
    assert expected == complete_exception(given, PLACE)


def test_subclasses_of_str() -> None:
    """The characters are sent, not what a subclass prints."""
    given = {"message": PrintedText("m"), "stack": (PrintedText("s"),), "name": PrintedText("n")}
    completed = complete_exception(given, PLACE)
    assert [completed["message"], completed["stack"], completed["name"]] == ["m", ["s"], "n"]
    assert type(completed["message"]) is str


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("boom", "exc has to be a mapping with the keys of PipesException; got 'boom' of type str"),
        ({}, "exc['message'] has to be a str; got None of type NoneType"),
        ({"message": 5}, "exc['message'] has to be a str; got 5 of type int"),
        (
            {"message": "m", "stack": "text"},
            "exc['stack'] has to be a list of str; got 'text' of type str",
        ),
        ({"message": "m", "stack": 5}, "exc['stack'] has to be a list of str; got 5 of type int"),
        ({"message": "m", "stack": ["a", 5]}, "exc['stack'][1] has to be a str; got 5 of type int"),
        ({"message": "m", "name": 5}, "exc['name'] has to be a str; got 5 of type int"),
        (
            {"message": "m", "cause": {"message": "c", "context": {"message": None}}},
            "exc['cause']['context']['message'] has to be a str; got None of type NoneType",
        ),
        (
            {"message": "m", "cause": "text"},
            "exc['cause'] has to be a mapping with the keys of PipesException; got 'text' of type str",
        ),
    ],
)
def test_other_shapes(given: Any, error: str) -> None:
    """What Dagster's handler would raise for is refused, with its place."""
    with pytest.raises(InvalidReportError) as caught:
        complete_exception(given, PLACE)
    assert f"close(): {error}" == str(caught.value)


def depth(exception: Any) -> int:
    count = 0
    while exception is not None:
        exception, count = exception["cause"], count + 1
    return count


@pytest.mark.parametrize(("length", "sent"), [(200, 200), (201, 201), (5_000, 201)])
def test_long_chains(length: int, sent: int) -> None:
    """A chain of two hundred is sent whole; a note stands for the rest of a longer one."""
    exception: dict[str, Any] = {"message": "first"}
    for _ in range(length - 1):
        exception = {"message": "next", "cause": exception}
    completed: Any = complete_exception(exception, PLACE)
    assert sent == depth(completed)
    assert (length > MAX_EXCEPTIONS) == ("more than 200 exceptions" in json.dumps(completed))


def test_circles() -> None:
    """An exception that is its own cause and context ends, and stays small."""
    completed = complete_exception(circular_exception(), PLACE)
    assert len(json.dumps(completed)) < 100_000
