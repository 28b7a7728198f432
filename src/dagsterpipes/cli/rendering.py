"""Metadata and summaries, rendered for people.

Metadata are shown as on Dagster's page: tables as tables, Markdown as Markdown, links as links.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dagsterpipes.cli.events import MEANINGS, MEANINGS_OF_FILE, ExitStatus
from dagsterpipes.cli.sanitize import clean_line, excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

    from dagsterpipes.cli.events import Summary

__all__ = ["render_metadata", "render_summary", "render_value"]

ROWS = 20
"""Rows of a table that are shown."""

COLUMNS = 20
"""Columns of a table that are shown."""

ENTRIES = 100
"""Metadata of one message that are shown."""

LINKED = ("http://", "https://")
"""What becomes a link that can be clicked; every URL is shown as it is."""


def render_metadata(metadata: Mapping[str, Any]) -> RenderableType:
    """Render all metadata of one message, which ``judge_line`` has taken."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", overflow="fold", max_width=32)
    grid.add_column(overflow="fold")
    for key, value in list(metadata.items())[:ENTRIES]:
        grid.add_row(Text(_cell(key)), render_value(value["raw_value"], value["type"]))
    if len(metadata) > ENTRIES:
        grid.add_row("…", Text(f"{len(metadata) - ENTRIES:,} more", "dim"))
    return Padding(grid, (0, 0, 0, 20), expand=False)


def render_value(value: Any, declared: str) -> RenderableType:
    """Render one value by its type, as far as there is room for it."""
    if value is None or declared == "null":
        return Text("null", "dim")
    return _RENDERERS[declared](value)


def _cell(text: str) -> str:
    return clean_line(text[:200]) + ("…" if len(text) > 200 else "")


def _text(value: str) -> RenderableType:
    return Text(excerpt(value, characters=5_000, lines=50))


def _scalar(value: Any) -> RenderableType:
    return Text(_cell(json.dumps(value)))


def _json(value: Any) -> RenderableType:
    return _text(json.dumps(value, indent=2, ensure_ascii=False))


def _infer(value: Any) -> RenderableType:
    return _text(value) if isinstance(value, str) else _json(value)


def _url(value: str) -> RenderableType:
    shown = _cell(value)
    # What had to be cleaned or cut is not where the link would lead.
    if shown == value and value.startswith(LINKED):
        return Text(shown, f"underline link {value}" if " " not in value else "underline")
    return Text(shown)


def _path(value: str) -> RenderableType:
    return Text(_cell(value), "magenta")


def _asset(value: str) -> RenderableType:
    return Text(_cell(" / ".join(value.split("/"))), "magenta")


def _markdown(value: str) -> RenderableType:
    text = excerpt(value, characters=20_000, lines=200)
    # Links are written out: where one leads is seen, and no escape sequence is needed for it.
    markdown = Markdown(text, hyperlinks=False)
    tokens = [inner for token in markdown.parsed for inner in (token, *(token.children or ()))]
    # rich leaves HTML out, and what is nested too deeply. Nothing may hide there.
    whole = any(token.content for token in tokens) and not any(
        "html" in token.type for token in tokens
    )
    return markdown if whole else Text(text)


def _timestamp(value: float) -> RenderableType:
    try:
        moment = datetime.fromtimestamp(value, timezone.utc).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return _scalar(value)
    return Text(f"{moment} ({json.dumps(value)})")


def _table(value: Mapping[str, Any]) -> RenderableType:
    records = list(value["records"])
    types = {column["name"]: column["type"] for column in value["schema"]}
    others = [key for key in (records[0] if records else ()) if key not in types]
    headings = [*types.items(), *((key, "") for key in others)]
    shown = [key for key, _ in headings[:COLUMNS]]
    rows = ([_table_cell(record, key) for key in shown] for record in records)
    return _grid(headings, rows, len(records))


def _table_cell(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key, "")
    return value if isinstance(value, str) else json.dumps(value)


def _table_schema(value: Mapping[str, Any]) -> RenderableType:
    columns = list(value["columns"])
    rows = (
        [
            column["name"],
            column["type"],
            column.get("description") or "",
            _constraints(column.get("constraints") or {}),
            ", ".join(f"{key}={tag}" for key, tag in (column.get("tags") or {}).items()),
        ]
        for column in columns
    )
    names = ("column", "type", "description", "constraints", "tags")
    return _grid([(name, "") for name in names], rows, len(columns))


def _constraints(constraints: Mapping[str, Any]) -> str:
    words = [] if constraints.get("nullable", True) else ["not null"]
    words += ["unique"] if constraints.get("unique") else []
    return ", ".join([*words, *(constraints.get("other") or ())])


def _column_lineage(value: Mapping[str, Any]) -> RenderableType:
    deps_by_column = value["deps_by_column"]
    rows = (
        [column, ", ".join(f"{_key(dep['asset_key'])}.{dep['column_name']}" for dep in deps)]
        for column, deps in deps_by_column.items()
    )
    return _grid([("column", ""), ("from", "")], rows, len(deps_by_column))


def _key(key: str | list[str]) -> str:
    return key if isinstance(key, str) else "/".join(key)


def _grid(
    headings: Sequence[tuple[str, str]], rows: Iterable[list[str]], count: int
) -> RenderableType:
    left_out = []
    if count > ROWS:
        left_out.append(f"{count - ROWS:,} more rows")
    if len(headings) > COLUMNS:
        left_out.append(f"{len(headings) - COLUMNS:,} more columns")
    shown = [[_cell(cell) for cell in row] for row, _ in zip(rows, range(ROWS), strict=False)]
    titles = [(_cell(name), _cell(declared)) for name, declared in headings[:COLUMNS]]
    return _Grid(titles, shown, ", ".join(left_out))


class _Grid:
    """A table, or where there is no room for one its records, one below the other.

    Args:
        headings: The name and the type of each column, or no type.
        rows: The cells.
        caption: What is left out, or nothing.
    """

    def __init__(
        self, headings: Sequence[tuple[str, str]], rows: Sequence[list[str]], caption: str
    ) -> None:
        self._headings = headings
        self._rows = rows
        self._caption = Text(caption, "dim") if caption else None
        self._table = Table(header_style="bold", caption=self._caption)
        for name, declared in headings:
            title = Text(name)
            title.append(f"\n{declared}" if declared else "", "dim")
            self._table.add_column(title, overflow="fold")
        for row in rows:
            self._table.add_row(*map(Text, row))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        # Below the minimum, words would be split.
        least = self._table.__rich_measure__(console, options.update(max_width=100_000)).minimum
        if least <= options.max_width or not self._rows:
            yield self._table
            return
        for number, row in enumerate(self._rows):
            yield Text(f"record {number}", "dim")
            record = Table.grid(padding=(0, 2, 0, 0))
            record.add_column(
                style="bold", overflow="fold", max_width=max(8, options.max_width // 3)
            )
            record.add_column(overflow="fold")
            for (name, _), cell in zip(self._headings, row, strict=True):
                record.add_row(Text(name), Text(cell))
            yield record
        if self._caption is not None:
            yield self._caption

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._table)


_RENDERERS: Mapping[str, Callable[[Any], RenderableType]] = {
    "__infer__": _infer,
    "text": _text,
    "url": _url,
    "path": _path,
    "notebook": _path,
    "json": _json,
    "md": _markdown,
    "float": _scalar,
    "int": _scalar,
    "bool": _scalar,
    "dagster_run": _path,
    "asset": _asset,
    "table": _table,
    "table_schema": _table_schema,
    "table_column_lineage": _column_lineage,
    "timestamp": _timestamp,
}


LISTED = 20
"""Assets, checks and problems that a summary lists."""

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
    meanings = MEANINGS_OF_FILE if summary.seconds is None else MEANINGS
    yield Text(f"{mark} {meanings[summary.status]} (exit status {summary.status:d})", style)


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
