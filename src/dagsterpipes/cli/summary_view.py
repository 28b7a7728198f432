"""The summary of a session, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dagsterpipes.cli.events import MEANINGS, ExitStatus
from dagsterpipes.cli.sanitize import clean_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from dagsterpipes.cli.events import Summary

__all__ = ["render_summary"]

LISTED = 20
"""Assets, checks and problems that are listed."""

NAMES = {
    "log": "log",
    "report_asset_materialization": "materialization",
    "report_asset_check": "check",
    "report_custom_message": "custom message",
    "log_external_stream": "external stream message",
}


def render_summary(summary: Summary, *, brief: bool = False) -> Iterator[RenderableType]:
    """Render a summary; ``brief`` leaves out everything but the outcome and the problems."""
    if not brief:
        facts = Table.grid(padding=(0, 2, 0, 0))
        facts.add_column(style="bold")
        facts.add_column(overflow="fold")
        for name, text in _facts(summary):
            facts.add_row(name, Text(text))
        yield Text("─" * 40, "dim")
        yield facts
    for problem in summary.problems[:LISTED]:
        place = "" if problem.line is None else f"line {problem.line}: "
        yield Text(f"✗ {clean_line(place + problem.text)}", "red")
    left_out = len(summary.problems[LISTED:]) + summary.problems_left_out
    if left_out:
        yield Text(f"✗ {left_out:,} more problems", "red")
    if summary.lost:
        yield Text(f"✗ Dagster would have lost the {summary.lost:,} lines after that.", "red")
    done = summary.status is ExitStatus.DONE
    mark, style = ("✓", "bold green") if done else ("✗", "bold red")
    yield Text(f"{mark} {MEANINGS[summary.status]} (exit status {summary.status:d})", style)


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    took = "" if summary.seconds is None else f", {summary.seconds:.2f} s"
    yield "Session", _session(summary) + took
    counts = [_count(summary.methods.get(key, 0), name) for key, name in NAMES.items()]
    yield "Messages", ", ".join(filter(None, counts)) or "none"
    odd = [
        f"{count:,} {name}"
        for name, count in summary.levels.items()
        if name not in {"DEBUG", "INFO"}
    ]
    if odd:
        yield "Among logs", _listed(odd)
    if summary.materialized:
        yield "Assets", _listed(summary.materialized)
    if summary.checks:
        yield "Checks", _listed([_check(*check) for check in summary.checks])
    if summary.torn:
        yield "Torn lines", f"{summary.torn:,} seen unfinished, which can stop Dagster's reader"


def _count(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}" if count else ""


def _session(summary: Summary) -> str:
    if summary.recovery_file:
        return "not a session: the undelivered messages of one, kept in a recovery file"
    if not summary.opened:
        return "closed but never opened" if summary.closed else "never opened"
    if not summary.closed:
        return "opened, not closed"
    return "opened, closed with an exception" if summary.exception else "opened, closed"


def _check(key: str, name: str, severity: str, passed: bool) -> str:
    return f"{name} of {key} {'passed' if passed else f'failed ({severity})'}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(clean_line(name[:200]) for name in names[:LISTED])
    more = len(names) - LISTED
    return shown + (f" and {more:,} more" if more > 0 else "")
