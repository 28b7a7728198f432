"""What came of a session, for people."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dagsterpipes._reader.tail import TailedLine
from dagsterpipes.cli.rendering import render_summary
from dagsterpipes.cli.session_report import SessionReport

if TYPE_CHECKING:
    from dagsterpipes.cli.events import Summary


def summary_of(*messages: tuple[str, Any] | bytes, exit_code: int = 0) -> Summary:
    report = SessionReport()
    for number, message in enumerate(messages, 1):
        if isinstance(message, bytes):
            line = message
        else:
            line = json.dumps({"method": message[0], "params": message[1]}).encode()
        list(report.take(TailedLine(number, line, 0.01 * (number == 2)), None))
    return report.finish(exit_code=exit_code, seconds=1.25)


def shown(summary: Summary, *, brief: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None, markup=False)
    for renderable in render_summary(summary, brief=brief):
        console.print(renderable, soft_wrap=True)
    return [line.rstrip() for line in out.getvalue().splitlines()]


OPENED: tuple[str, Any] = ("opened", {"extras": {}})
CLOSED: tuple[str, Any] = ("closed", {})


def materialized(key: str) -> tuple[str, Any]:
    return (
        "report_asset_materialization",
        {"asset_key": key, "data_version": None, "metadata": None},
    )


def checked(name: str, *, passed: bool, severity: str = "ERROR") -> tuple[str, Any]:
    params = {"asset_key": "a", "check_name": name, "passed": passed, "severity": severity}
    return ("report_asset_check", {**params, "metadata": None})


def test_a_good_session() -> None:
    """A good session is told in facts, with the outcome last."""
    summary = summary_of(
        OPENED,
        *[("log", {"message": "m"})] * 2,
        ("log", {"message": "m", "level": "ERROR"}),
        materialized("a"),
        checked("c", passed=True),
        checked("d", passed=False, severity="WARN"),
        ("report_custom_message", {"payload": 1}),
        CLOSED,
    )
    assert shown(summary) == [
        "─" * 40,
        "Session     opened, closed, 1.25 s",
        "Messages    3 logs, 1 materialization, 2 checks, 1 custom message",
        "Among logs  1 ERROR",
        "Assets      a",
        "Checks      c of a passed, d of a failed (WARN)",
        "Torn lines  1 seen unfinished, which can stop Dagster's reader",
        "✓ The command succeeded and closed its session. (exit status 0)",
    ]


def test_problems() -> None:
    """Problems stand between the facts and the outcome, with their lines."""
    summary = summary_of(OPENED, b"\n", ("log", {"message": "m"}))
    refused = summary.problems[0].text
    assert shown(summary) == [
        "─" * 40,
        "Session     opened, not closed, 1.25 s",
        "Messages    1 log",
        "Torn lines  1 seen unfinished, which can stop Dagster's reader",
        f"✗ line 2: {refused}",
        "✗ The session was never closed",
        "✗ Dagster would have lost the 1 lines after that.",
        "✗ Dagster would have refused a message. (exit status 6)",
    ]


def test_brief() -> None:
    """In brief there are only problems and the outcome."""
    assert shown(summary_of(OPENED, CLOSED), brief=True) == [
        "✓ The command succeeded and closed its session. (exit status 0)"
    ]
    assert shown(summary_of(exit_code=3), brief=True) == [
        "✗ The command failed with exit status 3",
        "✗ The session was never opened",
        "✗ The command failed, or could not be started. (exit status 3)",
    ]


def test_the_session_in_words() -> None:
    """How a session began and ended is told for each case."""
    error: dict[str, Any] = {"message": "m", "stack": [], "name": "E"}
    error |= {"cause": None, "context": None}
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((), "never opened"),
        ((CLOSED,), "closed but never opened"),
        ((OPENED,), "opened, not closed"),
        ((OPENED, ("closed", {"exception": error})), "opened, closed with an exception"),
    ]
    for messages, words in cases:
        session = shown(summary_of(*messages))[1].removeprefix("Session").strip()
        assert session == f"{words}, 1.25 s"


def test_a_file_takes_no_time() -> None:
    """Without a duration none is shown."""
    assert shown(SessionReport().finish())[1] == "Session   never opened"
    assert shown(SessionReport().finish())[2] == "Messages  none"


def test_very_many() -> None:
    """Long lists and many problems are cut, and say by how much."""
    lines = shown(summary_of(OPENED, *[materialized(f"k{i}") for i in range(30)], CLOSED))
    assert any(line.endswith("k19 and 10 more") for line in lines)
    lines = shown(summary_of(*[b"\n"] * 500))
    assert "✗ 481 more problems" in lines


def test_hostile_names() -> None:
    """Names from the process cannot steer the terminal, and stay on their lines."""
    hostile = "\x1b[2J\u202e\nfake"
    text = "\n".join(
        shown(
            summary_of(
                OPENED,
                ("log", {"message": "m", "level": "ERROR"}),
                materialized(hostile),
                checked(hostile, passed=False),
            )
        )
    )
    assert "\\e[2J\\u202e\\nfake" in text
    assert not set(text) & set("\x1b\u202e")
