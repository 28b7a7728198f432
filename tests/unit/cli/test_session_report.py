"""A session followed line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dagsterpipes._reader.rules import Refused
from dagsterpipes._reader.tail import TailedLine
from dagsterpipes.cli.events import MEANINGS, Event, ExitStatus, LineRefused, MessageSeen, Problem
from dagsterpipes.cli.session_report import PROBLEMS, TORN, SessionReport, level_name


def message(method: str, params: object) -> bytes:
    body = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    return json.dumps(body).encode() + b"\n"


OPENED = message("opened", {"extras": {}})
CLOSED = message("closed", {})
LOG = message("log", {"message": "m", "level": "INFO"})
FILLER = message("log_external_stream", {"stream": "stdout", "text": ""})
CUSTOM = message("report_custom_message", {"payload": 1})


def failed_with(name: str | None) -> bytes:
    error: dict[str, object] = {"message": "m", "stack": [], "name": name}
    error |= {"cause": None, "context": None}
    return message("closed", {"exception": error})


def materialization(key: str) -> bytes:
    params = {"asset_key": key, "data_version": None, "metadata": None}
    return message("report_asset_materialization", params)


def check(name: str, *, passed: bool, severity: str = "ERROR") -> bytes:
    params = {
        "asset_key": "a",
        "check_name": name,
        "passed": passed,
        "severity": severity,
        "metadata": None,
    }
    return message("report_asset_check", params)


def follow(report: SessionReport, *lines: bytes) -> list[Event]:
    return [
        event
        for number, line in enumerate(lines, 1)
        for event in report.take(TailedLine(number, line, 0.0), 1.5)
    ]


def test_a_good_session() -> None:
    """What is taken is given as it is, counted, and ends well."""
    report = SessionReport(["a"])
    warning = message("log", {"message": "m", "level": "warn"})
    lines = [OPENED, LOG, warning, FILLER, CUSTOM, materialization("a")]
    events = follow(report, *lines, check("c", passed=True), CLOSED)
    assert [event.line for event in events if isinstance(event, MessageSeen)] == [
        1,
        2,
        3,
        5,
        6,
        7,
        8,
    ]
    assert events[1] == MessageSeen(1.5, 2, json.loads(LOG), "")
    assert report.state == "7 messages, 1 materialized, 1 checked"
    summary = report.finish(exit_code=0, seconds=2.5)
    assert summary._asdict() == {
        "status": ExitStatus.DONE,
        "problems": [],
        "problems_left_out": 0,
        "lines": 8,
        "methods": {
            "opened": 1,
            "log": 2,
            "report_custom_message": 1,
            "report_asset_materialization": 1,
            "report_asset_check": 1,
            "closed": 1,
        },
        "fillers": 1,
        "levels": {"INFO": 1, "WARNING": 1},
        "materialized": ["a"],
        "checks": [("a", "c", "ERROR", True)],
        "opened": True,
        "closed": True,
        "recovery_file": False,
        "exception": None,
        "lost": 0,
        "torn": 0,
        "exit_code": 0,
        "seconds": 2.5,
    }


def test_a_note_is_passed_on() -> None:
    """What is odd or has no effect is shown with the message."""
    report = SessionReport()
    dropped = message("log", {"message": "m", "level": 0})
    events = follow(report, message("opened", {}), dropped)
    assert [event.note for event in events if isinstance(event, MessageSeen)] == [
        "`extras` is missing, which some readers of Databricks logs need",
        "a log message of level 0 is dropped",
    ]


REFUSED = Refused("blank-line", "the line is blank")


def test_a_refused_line() -> None:
    """A line that stops Dagster's reader is shown with its rule, and what comes after it is lost."""
    report = SessionReport()
    events = follow(report, OPENED, b"\n", LOG, FILLER, b"\n", CLOSED)
    assert [event for event in events if isinstance(event, LineRefused)] == [
        LineRefused(1.5, 2, REFUSED, "\n"),
        LineRefused(1.5, 5, REFUSED, "\n"),
    ]
    assert report.state == "3 messages, 2 problems"
    summary = report.finish(exit_code=0)
    assert summary.status is ExitStatus.REFUSED
    assert summary.lost == 3  # fillers are no loss
    assert summary.problems[0] == Problem(
        ExitStatus.REFUSED,
        "the line is blank (rule blank-line: no line is blank). Dagster's reader stops here and"
        " loses every later message.",
        line=2,
        rule="blank-line",
    )


def test_the_rules_of_the_stream() -> None:
    """What breaks a rule only together with earlier messages is shown and refused."""
    report = SessionReport(["a"])
    events = follow(report, OPENED, materialization("b"), CLOSED, FILLER)
    assert [type(event) for event in events[1:]] == [
        MessageSeen,
        LineRefused,
        MessageSeen,
        LineRefused,
    ]
    summary = report.finish()
    assert [problem.rule for problem in summary.problems] == ["asset-key", "after-closed"]
    assert summary.status is ExitStatus.REFUSED
    assert summary.lost == 0


@pytest.mark.parametrize(
    ("torn_for", "torn", "rules"), [(0.0, 0, []), (0.02, 1, []), (TORN, 1, ["torn-line"])]
)
def test_a_torn_line(torn_for: float, torn: int, rules: list[str]) -> None:
    """A line seen unfinished for a moment is counted, for longer is refused; both are shown."""
    report = SessionReport()
    events = list(report.take(TailedLine(1, OPENED, torn_for), None))
    assert isinstance(events[0], MessageSeen)
    assert [event.refused.rule for event in events[1:] if isinstance(event, LineRefused)] == rules
    assert report.finish().torn == torn


def test_millions_of_problems() -> None:
    """Hostile output makes the summary no longer than its bound, and all is counted."""
    report = SessionReport()
    follow(report, *[b"\n"] * 1000)
    summary = report.finish()
    assert len(summary.problems) == PROBLEMS
    assert summary.problems_left_out == 1000 - PROBLEMS + 1  # and that nothing was opened
    assert report.state == "0 messages, 1001 problems"


@pytest.mark.parametrize(
    ("lines", "exit_code", "status", "texts"),
    [
        ([OPENED, CLOSED], 0, ExitStatus.DONE, []),
        ([OPENED, CLOSED], None, ExitStatus.DONE, []),
        ([OPENED, CLOSED], 3, ExitStatus.COMMAND_FAILED, ["The command failed with exit status 3"]),
        ([OPENED, CLOSED], -9, ExitStatus.COMMAND_FAILED, ["The command failed with signal 9"]),
        ([], 0, ExitStatus.NOT_CLOSED, ["The session was never opened"]),
        ([CLOSED], 0, ExitStatus.NOT_CLOSED, ["The session was never opened"]),
        ([OPENED], 0, ExitStatus.NOT_CLOSED, ["The session was never closed"]),
        (
            [OPENED],
            1,
            ExitStatus.COMMAND_FAILED,
            ["The command failed with exit status 1", "The session was never closed"],
        ),
        (
            [OPENED, failed_with("ValueError")],
            1,
            ExitStatus.NOT_CLOSED,
            [
                "The session was closed with ValueError: m",
                "The command failed with exit status 1",
            ],
        ),
        (
            [OPENED, failed_with(None)],
            0,
            ExitStatus.NOT_CLOSED,
            ["The session was closed with an exception: m"],
        ),
        (
            [OPENED, check("c", passed=False), CLOSED],
            0,
            ExitStatus.CHECK_FAILED,
            ["The check c of a failed"],
        ),
        ([OPENED, check("c", passed=False, severity="WARN"), CLOSED], 0, ExitStatus.DONE, []),
        (
            [OPENED, check("c", passed=False), b"\n", failed_with(None)],
            1,
            ExitStatus.REFUSED,
            None,
        ),
        (
            [OPENED, check("c", passed=False), CLOSED],
            1,
            ExitStatus.COMMAND_FAILED,
            ["The check c of a failed", "The command failed with exit status 1"],
        ),
    ],
)
def test_exit_status(
    lines: list[bytes], exit_code: int | None, status: ExitStatus, texts: list[str] | None
) -> None:
    """Each way to fail has its status, and the weightiest one counts when there are several."""
    report = SessionReport()
    follow(report, *lines)
    summary = report.finish(exit_code=exit_code)
    assert summary.status is status
    if texts is not None:
        assert [problem.text for problem in summary.problems] == texts


def test_expected_checks() -> None:
    """A check that was expected and not reported fails the session; a failed one was reported."""
    report = SessionReport(None, ["c", "d", "e"])
    follow(
        report, OPENED, check("d", passed=True), check("c", passed=False, severity="WARN"), CLOSED
    )
    summary = report.finish()
    assert summary.status is ExitStatus.CHECK_FAILED
    assert [problem.text for problem in summary.problems] == ["The check e was not reported"]


def test_a_command_that_could_not_be_started() -> None:
    """Nothing else is sent about a command that never ran."""
    summary = SessionReport(None, ["c"]).finish(not_started="It is not there")
    assert summary.status is ExitStatus.COMMAND_FAILED
    assert [problem.text for problem in summary.problems] == ["It is not there"]


def test_stopped_by_a_signal() -> None:
    """A signal to the runner gives the status, whatever else came of it."""
    report = SessionReport()
    follow(report, OPENED, failed_with("KeyboardInterrupt"))
    summary = report.finish(exit_code=-2, stopped_by=ExitStatus.INTERRUPTED)
    assert summary.status is ExitStatus.INTERRUPTED
    assert len(summary.problems) == 2


@pytest.mark.parametrize(
    ("level", "name"),
    [("info", "INFO"), ("Warn", "WARNING"), ("FATAL", "CRITICAL"), (20, "INFO"), (15, "LEVEL 15")],
)
def test_level_name(level: Any, name: str) -> None:
    """A level has one name, however it is written."""
    assert level_name(level) == name


def test_every_status_has_a_meaning() -> None:
    """What an exit status means is sent once for each, and 1 and 2 are left to others."""
    assert set(MEANINGS) == set(ExitStatus)
    assert not {1, 2} & set(ExitStatus)
