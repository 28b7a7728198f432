"""Dagster's own objects: known by class, as plain values."""

from __future__ import annotations

from typing import Any, get_args

import dagster as dg
import pytest
from dagster._core.definitions.metadata import metadata_value

from dagsterpipes._protocol.dagster_objects import TYPE_OF_CLASS, dagster_class, unwrap
from dagsterpipes._protocol.metadata import normalize_metadata
from dagsterpipes.typing import PipesMetadataType

CONSTRAINTS = dg.TableColumnConstraints(nullable=False, unique=True, other=["> 0"])
COLUMN = dg.TableColumn("n", "int", "d", CONSTRAINTS, {"k": "v"})
SCHEMA = dg.TableSchema([COLUMN])
KEY = dg.AssetKey(["a", "b/c"])
SOURCE = dg.TableColumnDep(KEY, "d")
LINEAGE = dg.TableColumnLineage({"c": [SOURCE]})
RECORD = dg.TableRecord({"n": 1})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (dg.MetadataValue.md("x"), "x"),
        (dg.MetadataValue.null(), None),
        (dg.MetadataValue.asset(KEY), ["a", "b/c"]),
        (dg.MetadataValue.table([RECORD], SCHEMA), {"records": [RECORD], "schema": SCHEMA}),
        (dg.MetadataValue.table_schema(SCHEMA), {"columns": [COLUMN]}),
        (dg.MetadataValue.column_lineage(LINEAGE), {"deps_by_column": {"c": [SOURCE]}}),
        (CONSTRAINTS, {"nullable": False, "unique": True, "other": ["> 0"]}),
        (SOURCE, {"asset_key": KEY, "column_name": "d"}),
        (RECORD, {"n": 1}),
        (dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.WARN),
        ("text", "text"),
    ],
)
def test_objects_become_plain_values(value: Any, plain: Any) -> None:
    """One level at a time; what is not known stays as it is."""
    assert unwrap(value) == plain


def test_a_class_of_the_same_name_elsewhere() -> None:
    """Only Dagster's own classes are looked into."""

    class AssetKey:
        path = ("a",)

    assert dagster_class(AssetKey()) == ""
    assert dagster_class(KEY) == "AssetKey"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (dg.AssetKey(["a", "b"]), "asset"),
        (SCHEMA, "table_schema"),
        (LINEAGE, "table_column_lineage"),
    ],
)
def test_types_that_dagster_infers(value: Any, kind: str) -> None:
    """A bare object has the type that Dagster gives it."""
    values = normalize_metadata({"k": value}, method="m")
    assert values is not None
    assert values["k"]["type"] == kind


def test_every_type_of_the_wire_has_its_class() -> None:
    """And each class named here is one of Dagster's."""
    assert set(TYPE_OF_CLASS.values()) == set(get_args(PipesMetadataType)) - {"__infer__"}
    for name in TYPE_OF_CLASS:
        assert hasattr(metadata_value, name) or hasattr(dg, name)
