"""Events as JSON lines."""

from __future__ import annotations

import io
import json
from typing import Any

from dagsterpipes._reader.rules import Refused
from dagsterpipes._reader.tail import TailedLine
from dagsterpipes.cli.events import JsonView, LineRefused, MessageSeen, Notice, OutputSeen
from dagsterpipes.cli.session_report import SessionReport


class Written(io.StringIO):
    """An output that counts how often it was flushed."""

    flushed = 0

    def flush(self) -> None:
        self.flushed += 1

    @property
    def events(self) -> list[Any]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def test_events() -> None:
    """Each event is one line of JSON with its kind and everything that it holds."""
    out = Written()
    view = JsonView(out)
    params = {"message": "x" * 100_000, "level": "INFO"}
    view.show(MessageSeen(0.12345, 3, {"method": "log", "params": params, "more": 1}, "odd"))
    view.show(MessageSeen(None, 4, {"method": "opened", "params": None}))
    view.show(LineRefused(1.0, 5, Refused("json", "why"), "start"))
    view.show(OutputSeen(2.0, "stderr", "text", True))
    view.show(Notice(3.0, "words"))
    assert out.events == [
        {
            "event": "message",
            "at": 0.123,
            "line": 3,
            "method": "log",
            "params": params,
            "note": "odd",
        },
        {
            "event": "message",
            "at": None,
            "line": 4,
            "method": "opened",
            "params": None,
            "note": None,
        },
        {
            "event": "refused",
            "at": 1.0,
            "line": 5,
            "rule": "json",
            "detail": "why",
            "effect": "reader-stops",
            "start": "start",
        },
        {"event": "output", "at": 2.0, "stream": "stderr", "text": "text", "progress": True},
        {"event": "notice", "at": 3.0, "text": "words"},
    ]


def test_only_printable_ascii_is_written() -> None:
    """Whatever a message holds, the line itself cannot steer a terminal."""
    out = Written()
    text = "\x1b[2J\x9b\u202e\ud800\n\r\x00é"
    JsonView(out).show(OutputSeen(0.0, "stdout", text, False))
    line = out.getvalue().removesuffix("\n")
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["text"] == text


def test_numbers_that_json_does_not_know() -> None:
    """NaN and infinities become text, at any depth, so that every parser reads the line."""
    out = Written()
    payload = {"a": [float("nan"), {"b": float("inf")}, float("-inf"), 1.5, "NaN"]}
    message = {"method": "report_custom_message", "params": {"payload": payload}}
    JsonView(out).show(MessageSeen(0.0, 1, message))
    assert out.events[0]["params"]["payload"] == {
        "a": ["NaN", {"b": "Infinity"}, "-Infinity", 1.5, "NaN"]
    }


def test_flushing() -> None:
    """Whoever reads along gets what was written at every tick and at the end."""
    out = Written()
    view = JsonView(out)
    view.tick("state", 1.0)
    assert out.flushed == 1
    view.finish(SessionReport().finish())
    assert out.flushed == 2


def test_summary() -> None:
    """The summary tells the status in a number and a word, and every field by its name."""
    out = Written()
    report = SessionReport()
    check = {"asset_key": "a", "check_name": "c", "passed": False, "severity": "ERROR"}
    message = {"method": "report_asset_check", "params": {**check, "metadata": None}}
    list(report.take(TailedLine(1, json.dumps(message).encode(), 0.0), None))
    JsonView(out).finish(report.finish(exit_code=0, seconds=1.5))
    (summary,) = out.events
    assert summary["event"] == "summary"
    assert summary["status"] == 4
    assert summary["outcome"] == "not-closed"
    assert summary["problems"] == [
        {"status": 5, "text": "The check c of a failed", "line": 1, "rule": None},
        {"status": 4, "text": "The session was never opened", "line": None, "rule": None},
    ]
    assert summary["checks"] == [check]
    assert summary["methods"] == {"report_asset_check": 1}
    assert summary["opened"] is False
    assert summary["seconds"] == 1.5


def test_only_the_summary() -> None:
    """When asked for it, nothing but the summary is written."""
    out = Written()
    view = JsonView(out, only_summary=True)
    view.show(Notice(None, "words"))
    view.finish(SessionReport().finish())
    assert [event["event"] for event in out.events] == ["summary"]
