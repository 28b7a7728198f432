"""Exceptions of any language as tracebacks."""

from __future__ import annotations

from typing import Any

from dagsterpipes._protocol.exception_info import exception_payload
from dagsterpipes.cli.exception_text import traceback_lines


def link(message: str, name: str | None = "E", **more: Any) -> dict[str, Any]:
    return {"message": message, "stack": [], "name": name, "cause": None, "context": None, **more}


FRAME = '  File "x.py", line 1, in f\n    boom()\n'


def test_with_a_stack() -> None:
    """Frames come under Python's heading, the exception itself below them."""
    assert list(traceback_lines(link("bad", stack=[FRAME]))) == [
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in f',
        "    boom()",
        "E: bad",
    ]


def test_without_a_stack() -> None:
    """An exception of a language without frames is its name and message."""
    assert list(traceback_lines(link("bad\nworse", None))) == ["bad", "worse"]
    assert list(traceback_lines(link(""))) == ["E"]


def test_the_name_is_not_said_twice() -> None:
    """A message that holds the name already, as dagster_pipes sends it, stays as it is."""
    assert list(traceback_lines(link("E: bad\n"))) == ["E: bad"]


def test_the_cause_comes_first() -> None:
    """As in Python: the cause, or else what was being handled, stands above."""
    chain = link("c", cause=link("b", context=link("a"), cause=None), context=link("unused"))
    assert list(traceback_lines(chain)) == [
        "E: a",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "E: b",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "E: c",
    ]


def test_a_long_chain_is_cut() -> None:
    """Of a very long chain the latest links are shown."""
    chain = link("0")
    for number in range(1, 300):
        chain = link(str(number), cause=chain)
    lines = list(traceback_lines(chain))
    assert lines[:2] == ["(280 earlier exceptions are not shown)", "E: 280"]
    assert lines[-1] == "E: 299"


def test_our_own_payload() -> None:
    """What this library sends reads as Python's own traceback, ending once with the exception."""
    try:
        raise ValueError("bad")
    except ValueError as error:
        lines = list(traceback_lines({**exception_payload(error)}))
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: bad"
    assert lines.count("ValueError: bad") == 1
