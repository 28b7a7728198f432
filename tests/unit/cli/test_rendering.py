"""Metadata, rendered by type."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dagsterpipes._reader.line import TYPES
from dagsterpipes.cli.rendering import render_metadata, render_value


def shown(raw_value: object, declared: str, *, terminal: bool = False, width: int = 100) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal,
        color_system="truecolor" if terminal else None,
        legacy_windows=False,
    )
    console.print(render_value(raw_value, declared))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("raw_value", "declared", "text"),
    [
        (None, "table", "null"),
        (5, "null", "null"),
        ("two\nlines", "text", "two\nlines"),
        ("x", "__infer__", "x"),
        (True, "__infer__", "true"),
        ({"a": ["é"]}, "__infer__", '{\n  "a": [\n    "é"\n  ]\n}'),
        ([1], "json", "[\n  1\n]"),
        (12, "int", "12"),
        (1.5, "float", "1.5"),
        (float("nan"), "float", "NaN"),
        (False, "bool", "false"),
        ("/x/y", "path", "/x/y"),
        ("/x.ipynb", "notebook", "/x.ipynb"),
        ("id", "dagster_run", "id"),
        ("a/b", "asset", "a / b"),
        ("https://example.com/x?a=b", "url", "https://example.com/x?a=b"),
        (1700000000, "timestamp", "2023-11-14 22:13:20+00:00 (1700000000)"),
        (1e300, "timestamp", "1e+300"),
        (float("nan"), "timestamp", "NaN"),
        ("x" * 6000, "path", "x" * 100 + "\n" + "x" * 100 + "…"),
    ],
)
def test_scalars(raw_value: object, declared: str, text: str) -> None:
    """Values that fit into text are shown as text in their type's form."""
    expected = text.replace("\n" + "x" * 100 + "…", "\n" + "x" * 100 + "\n…")
    assert shown(raw_value, declared) == expected


def test_long_text() -> None:
    """Long text is cut, and says how much is missing."""
    text = shown("x\n" * 1000, "text")
    assert text.startswith("x\nx\n")
    assert text.endswith("x … (1,901 more characters)")


def test_a_link() -> None:
    """On a terminal a web address can be clicked, another URL and a doubtful one cannot."""
    assert "\x1b]8;" in shown("https://example.com", "url", terminal=True)
    for url in ("file:///etc", "javascript:x", "https://e\u202e", "https://x" * 100, "http://a b"):
        assert "\x1b]8;" not in shown(url, "url", terminal=True)


def test_markdown() -> None:
    """Markdown is laid out: headings, lists, tables; a link shows where it leads."""
    text = shown(
        "# Title\n\n- one\n\n[click](http://evil)\n\n| a | b |\n|---|---|\n| 1 | 2 |", "md"
    )
    assert "Title" in text
    assert "#" not in text
    assert " • one" in text
    assert "click (http://evil)" in text
    assert "| a | b |" not in text
    assert " 1 " in text


def test_markdown_with_html() -> None:
    """What would be left out is shown as it was written."""
    assert shown("see <b>this</b> and\n\n<div>that</div>", "md") == (
        "see <b>this</b> and\n\n<div>that</div>"
    )
    assert "x" in shown(">" * 1000 + " x", "md")


def test_table() -> None:
    """A table has a heading with types, a row for each record, and says what it leaves out."""
    records = [{"a": i, "b": None, "extra": True} for i in range(25)]
    schema = [{"name": "a", "type": "int"}, {"name": "gone", "type": "string"}]
    lines = shown({"records": records, "schema": schema}, "table").splitlines()
    assert [cell.strip() for cell in lines[1].split("┃")[1:-1]] == ["a", "gone", "", ""]
    assert [cell.strip() for cell in lines[2].split("┃")[1:-1]] == ["int", "string", "b", "extra"]
    assert [cell.strip() for cell in lines[5].split("│")[1:-1]] == ["1", "", "null", "true"]
    assert sum(line.startswith("│") for line in lines) == 20
    assert lines[-1].strip() == "5 more rows"


def test_a_wide_table() -> None:
    """Of a table with very many columns the first ones are shown."""
    record = {f"c{i}": "x" for i in range(1000)}
    text = shown({"records": [record], "schema": []}, "table")
    assert "980 more columns" in text


def test_a_table_without_room() -> None:
    """On a narrow terminal, the records stand one below the other and no word is split."""
    names = ["customer_name", "customer_city", "order_number", "total_price", "delivered_at"]
    schema = [{"name": name, "type": "string"} for name in names]
    records = [{name: f"{name}_of_{number}" for name in names} for number in range(25)]
    text = shown({"records": records, "schema": schema}, "table", width=60)
    lines = [line.split() for line in text.splitlines()]
    assert lines[:7] == [
        ["record", "0"],
        *([name, f"{name}_of_0"] for name in names),
        ["record", "1"],
    ]
    assert lines[-1] == ["5", "more", "rows"]
    assert "┃" in shown({"records": records, "schema": schema}, "table", width=120)


def test_an_empty_table() -> None:
    """A table without records still shows its columns."""
    assert "a" in shown({"records": [], "schema": [{"name": "a", "type": "int"}]}, "table")


def test_table_schema() -> None:
    """A schema shows type, description, constraints and tags of each column."""
    columns = [
        {
            "name": "a",
            "type": "int",
            "description": "the a",
            "constraints": {"nullable": False, "unique": True, "other": ["> 1"]},
            "tags": {"pii": "yes"},
        },
        {"name": "b", "type": "string"},
    ]
    lines = shown({"columns": columns}, "table_schema").splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["a", "int", "the a", "not null, unique, > 1", "pii=yes"],
        ["b", "string", "", "", ""],
    ]


def test_column_lineage() -> None:
    """Lineage shows for each column where it comes from."""
    deps = [
        {"asset_key": ["up", "x"], "column_name": "c"},
        {"asset_key": "y", "column_name": "d"},
    ]
    text = shown({"deps_by_column": {"a": deps}}, "table_column_lineage")
    assert "up/x.c, y.d" in text


def render_all(metadata: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(render_metadata(metadata))
    return out.getvalue()


def test_all_metadata_of_a_message() -> None:
    """Each value stands beside its key, and of very many the first ones are shown."""
    text = render_all({f"key{i}": {"raw_value": i, "type": "int"} for i in range(150)})
    assert "key99" in text
    assert "key100" not in text
    assert "50 more" in text


HOSTILE = "\x1b[2J\x9b2J\x1b]8;;http://evil\x07\u202e\r\x00[red]"

CELL = {"a": HOSTILE, HOSTILE: 1}

HOSTILE_COLUMN = {
    "name": HOSTILE,
    "type": HOSTILE,
    "description": HOSTILE,
    "constraints": {"other": [HOSTILE]},
    "tags": {HOSTILE: HOSTILE},
}

HOSTILE_VALUES: dict[str, Any] = {
    "json": {HOSTILE: [HOSTILE]},
    "int": 1,
    "float": 1.0,
    "bool": True,
    "timestamp": 1,
    "null": None,
    "table": {"records": [CELL, CELL], "schema": [HOSTILE_COLUMN]},
    "table_schema": {"columns": [HOSTILE_COLUMN]},
    "table_column_lineage": {
        "deps_by_column": {HOSTILE: [{"asset_key": [HOSTILE], "column_name": HOSTILE}]}
    },
}


@pytest.mark.parametrize("declared", sorted(TYPES))
def test_hostile_metadata(declared: str) -> None:
    """No key and no value of any type gets a control character to the terminal."""
    text = render_all(
        {HOSTILE: {"raw_value": HOSTILE_VALUES.get(declared, HOSTILE), "type": declared}}
    )
    assert "\\e[2J" in text
    assert "[red]" in text
    assert not set(text) & set("\x1b\x9b\x07\u202e\r\x00")


@pytest.mark.parametrize(
    "text",
    [
        ">" * 20_000 + " x",
        "[" * 20_000,
        "*" * 20_001 + "a",
        "- " * 10_000,
        "|a" * 5_000 + "|\n" + "|-" * 5_000 + "|\n",
        "<script>" * 1_000,
        "![x](y)" * 1_000,
        "```\n" * 3_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_markdown_made_to_hurt(text: str) -> None:
    """Markdown that is nested or repeated without end is shown somehow, and soon."""
    assert shown(text, "md")
