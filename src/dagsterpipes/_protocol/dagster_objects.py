"""Objects of Dagster's own classes, known by the name of the class: Dagster is never imported."""

from __future__ import annotations

from typing import Any

TYPE_OF_CLASS = {
    "TextMetadataValue": "text",
    "UrlMetadataValue": "url",
    "PathMetadataValue": "path",
    "NotebookMetadataValue": "notebook",
    "JsonMetadataValue": "json",
    "MarkdownMetadataValue": "md",
    "FloatMetadataValue": "float",
    "IntMetadataValue": "int",
    "BoolMetadataValue": "bool",
    "TimestampMetadataValue": "timestamp",
    "DagsterRunMetadataValue": "dagster_run",
    "DagsterAssetMetadataValue": "asset",
    "NullMetadataValue": "null",
    "TableMetadataValue": "table",
    "TableSchemaMetadataValue": "table_schema",
    "TableColumnLineageMetadataValue": "table_column_lineage",
    # Dagster infers these types too:
    "AssetKey": "asset",
    "TableSchema": "table_schema",
    "TableColumnLineage": "table_column_lineage",
}
"""The metadata type of each class that has one."""

_FIELDS = {
    "TableMetadataValue": ("records", "schema"),
    "TableSchema": ("columns",),  # what else it has, a message cannot carry
    "TableColumn": ("name", "type", "description", "tags", "constraints"),
    "TableColumnConstraints": ("nullable", "unique", "other"),
    "TableColumnLineage": ("deps_by_column",),
    "TableColumnDep": ("asset_key", "column_name"),
}


def dagster_class(value: object) -> str:
    """The name of the value's class if that is one of Dagster's, else an empty text."""
    kind = type(value)
    return kind.__name__ if kind.__module__.startswith("dagster.") else ""


def unwrap(value: Any) -> Any:
    """An object of Dagster as plain values, one level deep; any other value as it is."""
    name = dagster_class(value)
    if not name:
        return value
    if name in _FIELDS:
        return {field: getattr(value, field, None) for field in _FIELDS[name]}
    if name == "AssetKey":
        return list(value.path)
    if name == "TableRecord":
        return dict(value.data)
    return unwrap(value.value) if name in TYPE_OF_CLASS else value
