"""Judging metadata; the agreement with Dagster itself is shown in the integration tests."""

from __future__ import annotations

from typing import Any

import pytest

from dagsterpipes._reader.metadata_rules import check_metadata
from dagsterpipes._reader.rules import RuleBroken


def column(**changes: object) -> dict[str, Any]:
    return {"name": "a", "type": "int", **changes}


def dep(**changes: object) -> dict[str, Any]:
    return {"asset_key": ["up"], "column_name": "c", **changes}


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("__infer__", ["x", 1, 1.5, True, None, [], {}]),
        ("null", [None, 5]),
        *[(declared, ["x", None]) for declared in ("text", "url", "path", "notebook", "md")],
        ("dagster_run", ["x"]),
        ("asset", ["a/b"]),
        ("json", [{}, [], "x", None]),
        ("int", [1, True, None, 2**70]),
        ("float", [1.0, float("nan"), None]),
        ("bool", [True, None]),
        ("timestamp", [1, 1.5, True]),
        (
            "table",
            [
                {"records": [], "schema": []},
                {"records": "", "schema": {}},
                {"records": [{"a": 1, "b": "x"}, {"b": 2.5, "a": None}], "schema": [column()]},
            ],
        ),
        (
            "table_schema",
            [
                {"columns": []},
                {"columns": [column(description=None, tags=None, constraints=None)]},
                {"columns": [column(description="d", tags={"a": "b"}, constraints=[])]},
                {"columns": [column(constraints={"nullable": False, "unique": True})]},
                {"columns": [column(constraints={"other": ["> 1"]}, more=1)]},
                {"columns": [column(constraints={"other": None})]},
            ],
        ),
        (
            "table_column_lineage",
            [
                {"deps_by_column": {}},
                {"deps_by_column": {"c": [dep(), dep(asset_key="x"), dep(column_name="d")]}},
                {"deps_by_column": {"c": ""}, "more": 1},
            ],
        ),
    ],
)
def test_taken(declared: str, values: list[object]) -> None:
    """Every value that Dagster converts to the type is taken."""
    for value in values:
        check_metadata({"k": {"raw_value": value, "type": declared, "more": 1}}, "metadata")


@pytest.mark.parametrize("metadata", [None, {}])
def test_no_metadata(metadata: object) -> None:
    """Metadata may be null or empty."""
    check_metadata(metadata, "metadata")


RECORD = "metadata['k'] of type table, record"
COLUMN = "metadata['k'] of type table_schema, columns, column 0,"
LINEAGE = "metadata['k'] of type table_column_lineage"


@pytest.mark.parametrize(
    ("value", "rule", "detail"),
    [
        (5, "metadata", "metadata must be an object or null; got 5"),
        ({"k": 5}, "metadata", "metadata['k'] must be an object with `raw_value` and `type`; got 5"),
        ({"k": {"type": "int"}}, "metadata", "metadata['k'] must be an object with `raw_value` and `type`; got {'type': 'int'}"),
        ({"k": {"raw_value": 1}}, "metadata", "metadata['k'] must be an object with `raw_value` and `type`; got {'raw_value': 1}"),
        ({"k": {"raw_value": 1, "type": "job"}}, "metadata-type", "metadata['k'] has the unknown type 'job'"),
        ({"k": {"raw_value": 1, "type": []}}, "metadata-type", "metadata['k'] has the unknown type []"),
    ],
)  # fmt: skip
def test_shape(value: object, rule: str, detail: str) -> None:
    """Metadata of the wrong shape are refused, with the key and what was got."""
    with pytest.raises(RuleBroken) as broken:
        check_metadata(value, "metadata")
    assert broken.value.refused == (rule, detail)


@pytest.mark.parametrize(
    ("declared", "value", "detail"),
    [
        ("text", 5, "metadata['k'] of type text must be text or null; got 5"),
        ("asset", None, "metadata['k'] of type asset must be text; got None"),
        ("json", 5, "metadata['k'] of type json must be an object, a list, text or null; got 5"),
        ("int", 1.0, "metadata['k'] of type int must be an integer without a decimal point, or null; got 1.0"),
        ("float", 1, "metadata['k'] of type float must be a number with a decimal point (1.0, not 1), or null; got 1"),
        ("bool", 1, "metadata['k'] of type bool must be true, false or null; got 1"),
        ("timestamp", "x", "metadata['k'] of type timestamp must be a number of seconds since 1970 that a float can hold; got 'x'"),
        ("timestamp", 10**400, "metadata['k'] of type timestamp must be a number of seconds since 1970 that a float can hold; got 1000000000000000000000000000000000000000000000000000000000000000000000000000000…"),
        ("table", [], "metadata['k'] of type table must be an object with `records` and `schema`; got []"),
        ("table", {"records": 5, "schema": []}, "metadata['k'] of type table, records, must be a list; got 5"),
        ("table", {"records": [5], "schema": []}, f"{RECORD} 0, must be an object; got 5"),
        ("table", {"records": [{"a": []}], "schema": []}, f"{RECORD} 0, column 'a', must be a scalar or null; got []"),
        ("table", {"records": [{"a": 1}, {"b": 1}], "schema": []}, f"{RECORD} 1, must be an object with the columns of the first record; got {{'b': 1}}"),
        ("table", {"records": [], "schema": 5}, "metadata['k'] of type table, schema, must be a list; got 5"),
        ("table_schema", {}, "metadata['k'] of type table_schema must be an object with `columns`; got {}"),
        ("table_schema", {"columns": [5]}, f"{COLUMN} must be an object; got 5"),
        ("table_schema", {"columns": [{"name": "a"}]}, f"{COLUMN} must be an object with text under `name` and `type`; got {{'name': 'a'}}"),
        ("table_schema", {"columns": [column(description=5)]}, f"{COLUMN} description, must be text or null; got 5"),
        ("table_schema", {"columns": [column(tags={"a": 5})]}, f"{COLUMN} tags, must be an object of text, or null; got {{'a': 5}}"),
        ("table_schema", {"columns": [column(constraints=[1])]}, f"{COLUMN} constraints, must be an object with no keys but `nullable`, `unique`, `other`; got [1]"),
        ("table_schema", {"columns": [column(constraints={"x": 1})]}, f"{COLUMN} constraints, must be an object with no keys but `nullable`, `unique`, `other`; got {{'x': 1}}"),
        ("table_schema", {"columns": [column(constraints={"unique": 1})]}, f"{COLUMN} constraints, must be an object with true or false under `unique`; got {{'unique': 1}}"),
        ("table_schema", {"columns": [column(constraints={"other": "x"})]}, f"{COLUMN} constraints, must be an object with a list of text under `other`; got {{'other': 'x'}}"),
        ("table_column_lineage", {"deps_by_column": []}, f"{LINEAGE} must be an object with an object under `deps_by_column`; got {{'deps_by_column': []}}"),
        ("table_column_lineage", {"deps_by_column": {"c": 5}}, f"{LINEAGE}, column 'c', must be a list; got 5"),
        ("table_column_lineage", {"deps_by_column": {"c": [{}]}}, f"{LINEAGE}, column 'c', must be a list of objects with `asset_key`, `column_name`; got {{}}"),
        ("table_column_lineage", {"deps_by_column": {"c": [dep(asset_key=[5])]}}, f"{LINEAGE}, column 'c', asset_key, must be text or a list of text; got [5]"),
        ("table_column_lineage", {"deps_by_column": {"c": [dep(column_name=5)]}}, f"{LINEAGE}, column 'c', column_name, must be text; got 5"),
        ("table_column_lineage", {"deps_by_column": {"c": [dep(), dep(asset_key="up")]}}, f"{LINEAGE}, column 'c', must be a list without duplicates; got {{'asset_key': 'up', 'column_name': 'c'}}"),
    ],
)  # fmt: skip
def test_values(declared: str, value: object, detail: str) -> None:
    """A value that does not fit its type is refused, with the place and what was got."""
    with pytest.raises(RuleBroken) as broken:
        check_metadata({"k": {"raw_value": value, "type": declared}}, "metadata")
    assert broken.value.refused == ("metadata-value", detail)
