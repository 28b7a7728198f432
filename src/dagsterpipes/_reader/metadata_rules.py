"""Which metadata Dagster's handler converts, judged as it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from dagsterpipes._reader.rules import RuleBroken
from dagsterpipes.exceptions import shorten
from dagsterpipes.typing import PipesMetadataType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["check_metadata"]

TYPES = frozenset(get_args(PipesMetadataType))


def check_metadata(metadata: object, where: str) -> None:
    """Make sure that Dagster converts ``metadata``, the value of that parameter of a message.

    Args:
        metadata: The parsed value.
        where: Its place in the message, as the first words of an error.

    Raises:
        RuleBroken: Dagster does not convert it.
    """
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise RuleBroken("metadata", f"{where} must be an object or null; got {shorten(metadata)}")
    for key, value in metadata.items():
        place = f"{where}[{shorten(key)}]"
        if not isinstance(value, dict) or "raw_value" not in value or "type" not in value:
            raise RuleBroken(
                "metadata",
                f"{place} must be an object with `raw_value` and `type`; got {shorten(value)}",
            )
        declared = value["type"]
        if not isinstance(declared, str) or declared not in TYPES:
            raise RuleBroken("metadata-type", f"{place} has the unknown type {shorten(declared)}")
        _VALUE_CHECKS[declared](value["raw_value"], f"{place} of type {declared}")


def _refuse(where: str, expected: str, got: object) -> RuleBroken:
    return RuleBroken("metadata-value", f"{where} must be {expected}; got {shorten(got)}")


def _anything(value: object, where: str) -> None:
    pass


def _text_or_null(value: object, where: str) -> None:
    if value is not None and not isinstance(value, str):
        raise _refuse(where, "text or null", value)


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise _refuse(where, "text", value)


def _json(value: object, where: str) -> None:
    if value is not None and not isinstance(value, (dict, list, str)):
        raise _refuse(where, "an object, a list, text or null", value)


def _int(value: object, where: str) -> None:
    if value is not None and not isinstance(value, int):
        raise _refuse(where, "an integer without a decimal point, or null", value)


def _float(value: object, where: str) -> None:
    if value is not None and not isinstance(value, float):
        raise _refuse(where, "a number with a decimal point (1.0, not 1), or null", value)


def _bool(value: object, where: str) -> None:
    if value is not None and not isinstance(value, bool):
        raise _refuse(where, "true, false or null", value)


def _timestamp(value: object, where: str) -> None:
    try:
        if isinstance(value, (int, float)):
            float(value)
            return
    except OverflowError:
        pass
    raise _refuse(where, "a number of seconds since 1970 that a float can hold", value)


def _table(value: object, where: str) -> None:
    if not isinstance(value, dict) or "records" not in value or "schema" not in value:
        raise _refuse(where, "an object with `records` and `schema`", value)
    records = _items(value["records"], f"{where}, records,")
    for number, record in enumerate(records):
        place = f"{where}, record {number},"
        if not isinstance(record, dict):
            raise _refuse(place, "an object", record)
        for column, cell in record.items():
            if cell is not None and not isinstance(cell, (str, int, float)):
                raise _refuse(f"{place} column {shorten(column)},", "a scalar or null", cell)
        if record.keys() != records[0].keys():
            raise _refuse(place, "an object with the columns of the first record", record)
    _columns(value["schema"], f"{where}, schema,")


def _table_schema(value: object, where: str) -> None:
    if not isinstance(value, dict) or "columns" not in value:
        raise _refuse(where, "an object with `columns`", value)
    _columns(value["columns"], f"{where}, columns,")


def _columns(columns: object, where: str) -> None:
    for number, column in enumerate(_items(columns, where)):
        place = f"{where} column {number},"
        if not isinstance(column, dict):
            raise _refuse(place, "an object", column)
        for key in ("name", "type"):
            if not isinstance(column.get(key), str):
                raise _refuse(place, "an object with text under `name` and `type`", column)
        _text_or_null(column.get("description"), f"{place} description,")
        tags = column.get("tags")
        if tags is not None and not (
            isinstance(tags, dict) and all(isinstance(tag, str) for tag in tags.values())
        ):
            raise _refuse(f"{place} tags,", "an object of text, or null", tags)
        # The handler looks at constraints only when they are true: [] and 0 pass.
        if column.get("constraints"):
            _constraints(column["constraints"], f"{place} constraints,")


def _constraints(constraints: object, where: str) -> None:
    if not isinstance(constraints, dict) or constraints.keys() - {"nullable", "unique", "other"}:
        raise _refuse(
            where, "an object with no keys but `nullable`, `unique`, `other`", constraints
        )
    for key in ("nullable", "unique"):
        if not isinstance(constraints.get(key, True), bool):
            raise _refuse(where, f"an object with true or false under `{key}`", constraints)
    other = constraints.get("other")
    if other is not None and not (
        isinstance(other, list) and all(isinstance(text, str) for text in other)
    ):
        raise _refuse(where, "an object with a list of text under `other`", constraints)


def _column_lineage(value: object, where: str) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("deps_by_column"), dict):
        raise _refuse(where, "an object with an object under `deps_by_column`", value)
    for column, deps in value["deps_by_column"].items():
        place = f"{where}, column {shorten(column)},"
        seen = set()
        for dep in _items(deps, place):
            if not isinstance(dep, dict) or dep.keys() != {"asset_key", "column_name"}:
                raise _refuse(place, "a list of objects with `asset_key`, `column_name`", dep)
            key, name = dep["asset_key"], dep["column_name"]
            parts = [key] if isinstance(key, str) else key
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
                raise _refuse(f"{place} asset_key,", "text or a list of text", key)
            _text(name, f"{place} column_name,")
            if (*parts, name) in seen:
                raise _refuse(place, "a list without duplicates", dep)
            seen.add((*parts, name))


def _items(value: object, where: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if value in ({}, ""):  # what is empty and can be looped over passes
        return []
    raise _refuse(where, "a list", value)


_VALUE_CHECKS: Mapping[str, Callable[[object, str], None]] = {
    "__infer__": _anything,
    "null": _anything,
    "text": _text_or_null,
    "url": _text_or_null,
    "path": _text_or_null,
    "notebook": _text_or_null,
    "md": _text_or_null,
    "dagster_run": _text,
    "asset": _text,
    "json": _json,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "timestamp": _timestamp,
    "table": _table,
    "table_schema": _table_schema,
    "table_column_lineage": _column_lineage,
}
