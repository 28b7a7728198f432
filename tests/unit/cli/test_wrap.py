"""The level of a line of output."""

from __future__ import annotations

import pytest

from dagsterpipes.cli.child import OutputLine
from dagsterpipes.cli.wrap import LevelRules, parse_level
from dagsterpipes.exceptions import DagsterPipesError


def level_of(text: str, rules: LevelRules | None = None) -> int:
    return (rules or LevelRules()).level_of(OutputLine("stdout", text, progress=False))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("plain", 20),
        ("", 20),
        ("ERROR: disk full", 40),
        ("ERROR disk full", 40),
        ("[ERROR] disk full", 40),
        ("[warn] low", 30),
        ("Warning: low", 30),
        ("  WARN  low", 30),
        ("fatal: not a git repository", 50),
        ("CRITICAL:root:gone", 50),
        ("DEBUG:urllib3:connection", 10),
        ("src/main.c:3:7: error: expected ';'", 40),
        ("src/main.c:3:7: warning: unused", 30),
        ("2026-01-31 12:00:00,123 ERROR loader disk full", 40),
        ("2026-01-31 12:00:00,123 - loader - WARNING - low", 30),
        ("[2026-01-31T12:00:00Z INFO  loader] started", 20),
        ("2026-01-31 12:00:00 | DEBUG    | loader:load:7 - x", 10),
        ("12:00:00.000 [main] ERROR com.example.Loader - x", 40),
        ("26/01/31 12:00:00 WARN TaskSetManager: lost task", 30),
        ("loader - ERROR - disk full", 40),
        ('time="2026-01-31" level=error msg="disk full"', 40),
        ('{"level": "warning", "msg": "low"}', 30),
        ('{"msg": "x", "severity":"ERROR"}', 40),
        ("12:00:00  1 of 3 ERROR creating table model x", 40),
        ("Traceback (most recent call last):", 40),
        ("ValueError: no rows", 40),
        ("pandas.errors.ParserError: bad line", 40),
        ("TRACE fine", 10),
        ("NOTICE:  table does not exist", 20),
        ("0 errors found", 20),
        ("Error handling was improved", 20),
        ("no ERROR was found", 20),
        ("Information: none", 20),
        ("INFO the ERROR count is 0", 20),
        ("ERRORS", 20),
        ("a" * 10_000 + " [ERROR] far away", 20),
    ],
)
def test_the_usual_places(text: str, level: int) -> None:
    """Where tools write a level it is found, and the same words elsewhere mean nothing."""
    assert level_of(text) == level


def test_indented_lines_belong_to_the_line_before() -> None:
    """A traceback has one level; each stream has its own."""
    rules = LevelRules()
    lines = [
        ("stderr", "Traceback (most recent call last):", 40),
        ("stdout", "  not of the traceback", 20),
        ("stderr", '  File "x.py", line 1', 40),
        ("stderr", "KeyError: 'x'", 40),
        ("stderr", "next", 20),
        ("stderr", "  of next", 20),
    ]
    for stream, text, level in lines:
        assert rules.level_of(OutputLine(stream, text, progress=False)) == level, text


def test_own_patterns() -> None:
    """The first that is found counts, then come the usual places."""
    rules = LevelRules([parse_level("error=^E "), parse_level("DEBUG=x=y"), parse_level("warn=^E")])
    assert level_of("E x=y", rules) == 40
    assert level_of("ERROR: x=y", rules) == 10
    assert level_of("ERROR: x", rules) == 30
    assert level_of("[ERROR] x", rules) == 40


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ERROR", "LEVEL=REGEX with one of DEBUG, INFO, WARNING, ERROR, CRITICAL; got 'ERROR'."),
        ("LOUD=x", "got 'LOUD=x'."),
        ("ERROR=(", "'(' is no regular expression: missing ), unterminated subpattern"),
    ],
)
def test_wrong_patterns(text: str, problem: str) -> None:
    """What is no level or no pattern is refused in words."""
    with pytest.raises(DagsterPipesError) as error:
        parse_level(text)
    assert problem in str(error.value)
