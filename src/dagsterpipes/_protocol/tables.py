"""Tables, their schemas and their lineage, in the shapes that Dagster's reader takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.assets import asset_key_parts
from dagsterpipes._protocol.dataframes import Unsupported, is_frame, is_series, read_frame
from dagsterpipes._protocol.encoder import to_json, without_nan
from dagsterpipes._protocol.jsonable import unwrap
from dagsterpipes.exceptions import InvalidReportError, shorten

if TYPE_CHECKING:
    from dagsterpipes._protocol.argument import Argument

MAX_ROWS = 50
"""Most rows of a data frame that go into a table."""

_MAX_CELLS = 10_000
_MAX_CELL_LENGTH = 1_000  # characters


def to_table(value: Any, argument: Argument) -> dict[str, Any]:
    """A table: ``records``, ``schema`` (a list of columns) and perhaps ``row_count``.

    Of a data frame it has the first `MAX_ROWS` rows, or fewer of a very wide one, and the number
    of all its rows. There, cells that are no scalars become JSON texts, long texts are cut, and
    NaN becomes ``None``: it is pandas' way to say that a cell is empty, and Dagster's page cannot
    show a table with NaN or an infinity in it.

    Args:
        value: A data frame, a series, or a mapping with ``records`` (mappings with the same keys;
            or a data frame) and ``schema`` (a list of columns; a mapping with such a list as
            ``columns``; or nothing, then it is made from the first record).
        argument: Where the value stands, for the error.

    Raises:
        InvalidReportError: It is neither, or a part has another shape.
    """
    if is_frame(value) or is_series(value):
        return _frame_to_table(value, argument)
    if not isinstance(value, Mapping) or "records" not in value:
        raise argument.error("must be a data frame or a mapping with 'records' and 'schema'", value)
    records, schema = value["records"], unwrap(value.get("schema"))
    table: dict[str, Any]
    if is_frame(records) or is_series(records):
        table = _frame_to_table(records, argument.at("records"))
    else:
        table = {"records": _records(records, argument.at("records"))}
        if value.get("row_count") is not None:
            table["row_count"] = _row_count(value["row_count"], argument.at("row_count"))
    if schema is not None:
        is_mapping = isinstance(schema, Mapping) and "columns" in schema
        columns = schema["columns"] if is_mapping else schema
        table["schema"] = _columns(columns, argument.at("schema"))
    elif "schema" not in table:
        first = table["records"][0] if table["records"] else {}
        table["schema"] = [{"name": n, "type": _cell_type(cell)} for n, cell in first.items()]
    return table


def to_table_schema(value: Any, argument: Argument) -> dict[str, Any]:
    """A schema: ``columns``, each with ``name``, ``type`` and what else was given.

    Args:
        value: A mapping with ``columns``, the list itself, or a data frame.
        argument: Where the value stands, for the error.

    Raises:
        InvalidReportError: It is neither, or a column has another shape.
    """
    value = unwrap(value)
    if is_frame(value) or is_series(value):
        return {"columns": _frame_to_table(value, argument)["schema"]}
    if isinstance(value, Mapping):
        if "columns" not in value:
            raise argument.error("must have 'columns'", value)
        return {"columns": _columns(value["columns"], argument.at("columns"))}
    return {"columns": _columns(value, argument)}


def to_column_lineage(value: Any, argument: Argument) -> dict[str, Any]:
    """A lineage: under ``deps_by_column``, for each column the columns that it was made from.

    Args:
        value: A mapping with only ``deps_by_column``, or what that holds: a mapping of column
            names to lists of mappings with ``asset_key`` (a text as Dagster writes it, or a list
            of parts) and ``column_name``.
        argument: Where the value stands, for the error.

    Raises:
        InvalidReportError: It has another shape, or a column is named twice as a source of one.
    """
    value = unwrap(value)
    if isinstance(value, Mapping) and value.keys() == {"deps_by_column"}:
        value, argument = value["deps_by_column"], argument.at("deps_by_column")
    if not isinstance(value, Mapping):
        raise argument.error(
            "must be a mapping of column names to lists of sources, or have that as 'deps_by_column'",
            value,
        )
    lineage = {}
    for column, sources in value.items():
        here = argument.at(column)
        name = here.text(column)
        if not isinstance(sources, (list, tuple)):
            raise here.error("must be a list", sources)
        lineage[name] = [_source(source, here.at(i)) for i, source in enumerate(sources)]
        for index, source in enumerate(lineage[name]):
            if source in lineage[name][:index]:
                raise here.at(index).error("occurs twice, which Dagster does not accept", source)
    return {"deps_by_column": lineage}


def _frame_to_table(frame: Any, argument: Argument) -> dict[str, Any]:
    try:
        columns, records, row_count = read_frame(frame, max_rows=MAX_ROWS, max_cells=_MAX_CELLS)
    except Unsupported as unsupported:
        raise argument.error(str(unsupported), frame) from None
    return {
        "records": [
            {name: _shown(cell, argument) for name, cell in row.items()} for row in records
        ],
        "schema": [{"name": name, "type": kind} for name, kind in columns],
        "row_count": row_count,
    }


def _shown(cell: Any, argument: Argument) -> Any:
    """A cell of a data frame; never an error: one odd value is no reason to refuse a preview."""
    try:
        plain = to_json(cell, argument, named=True)
    except InvalidReportError:
        return shorten(cell, _MAX_CELL_LENGTH)
    plain = without_nan(plain)
    if isinstance(plain, (dict, list, tuple)):
        plain = json.dumps(plain, ensure_ascii=False)
    if isinstance(plain, str) and len(plain) > _MAX_CELL_LENGTH:
        plain = plain[: _MAX_CELL_LENGTH - 1] + "…"
    return plain


def _records(records: Any, argument: Argument) -> list[dict[str, Any]]:
    if not isinstance(records, (list, tuple)):
        raise argument.error("must be a list of mappings", records)
    rows: list[dict[str, Any]] = []
    for index, given in enumerate(records):
        here, record = argument.at(index), unwrap(given)
        if not isinstance(record, Mapping):
            raise here.error("must be a mapping of column names to cells", record)
        row = without_nan(to_json(record, here, named=True))
        for name, cell in row.items():
            if isinstance(cell, (dict, list, tuple)):
                raise here.at(name).error("must be a str, a number, a bool or None", cell)
        if rows and row.keys() != rows[0].keys():
            names = ", ".join(map(repr, sorted(row.keys() ^ rows[0].keys())))
            raise here.error(f"must have the keys of the first record; look at {names}", record)
        rows.append(row)
    return rows


def _row_count(value: Any, argument: Argument) -> int:
    count = to_json(value, argument)
    if isinstance(count, bool) or not isinstance(count, int):
        raise argument.error("must be an int", value)
    return count


def _cell_type(cell: object) -> str:
    """As Dagster infers it."""
    if isinstance(cell, (bool, int, float)):
        return type(cell).__name__
    return "string"


def _columns(columns: Any, argument: Argument) -> list[dict[str, Any]]:
    if not isinstance(columns, (list, tuple)):
        raise argument.error("must be a list of columns", columns)
    return [_column(column, argument.at(index)) for index, column in enumerate(columns)]


def _column(value: Any, argument: Argument) -> dict[str, Any]:
    value = unwrap(value)
    if not isinstance(value, Mapping):
        raise argument.error("must be a mapping with 'name' and 'type'", value)
    column: dict[str, Any] = {"type": "string", **to_json(value, argument, named=True)}
    argument.at("name").text(column.get("name"))
    argument.at("type").text(column["type"])
    if column.get("description") is not None:
        argument.at("description").text(column["description"])
    tags = column.get("tags")
    if tags is not None:
        if not isinstance(tags, dict):
            raise argument.at("tags").error("must be a mapping of str to str", tags)
        for key, tag in tags.items():
            argument.at("tags").at(key).text(tag)
    if column.get("constraints") is not None:
        _check_constraints(column["constraints"], argument.at("constraints"))
    return column


def _check_constraints(constraints: Any, argument: Argument) -> None:
    if not isinstance(constraints, dict):
        raise argument.error("must be a mapping", constraints)
    for key, value in constraints.items():
        here = argument.at(key)
        if key in ("nullable", "unique"):
            if not isinstance(value, bool):
                raise here.error("must be a bool", value)
        elif key != "other":
            raise here.error("is not one of 'nullable', 'unique' and 'other'", value)
        elif value is not None:
            if not isinstance(value, (list, tuple)):
                raise here.error("must be a list of str", value)
            for index, text in enumerate(value):
                here.at(index).text(text)


def _source(value: Any, argument: Argument) -> dict[str, Any]:
    value = unwrap(value)
    if not isinstance(value, Mapping) or value.keys() != {"asset_key", "column_name"}:
        raise argument.error("must be a mapping with 'asset_key' and 'column_name'", value)
    return {
        "asset_key": asset_key_parts(value["asset_key"], argument.at("asset_key")),
        "column_name": argument.at("column_name").text(value["column_name"]),
    }
