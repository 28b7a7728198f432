"""Metadata: from what users pass to what Dagster's reader converts.

A value goes out as ``{"raw_value": ..., "type": ...}``. What JSON knows goes out as ``__infer__``, and
Dagster finds text, int, float, bool, null or json in it; what JSON does not know gets its type here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from os import PathLike
from typing import Any, Literal

from dagsterpipes._protocol import tables
from dagsterpipes._protocol.argument import Place
from dagsterpipes._protocol.assets import asset_reference
from dagsterpipes._protocol.dataframes import is_frame, is_series
from dagsterpipes._protocol.encoder import is_plain, to_json
from dagsterpipes._protocol.jsonable import is_a
from dagsterpipes._protocol.timestamps import is_moment, to_timestamp

INFER: Literal["__infer__"] = "__infer__"
_TYPED_KEYS = {"raw_value", "type"}


def normalize_metadata(
    metadata: Mapping[str, Any] | None, *, method: str
) -> dict[str, dict[str, Any]] | None:
    """Metadata as Dagster's reader takes it, or ``None`` for none at all.

    Each value is either a raw one, whose type is inferred, or ``{"raw_value": ..., "type": ...}``.
    Beside each table of a data frame goes the number of its rows, as ``<name>_row_count``, unless
    that name is taken.

    Args:
        metadata: Values by name.
        method: The method that was called, for the error.

    Raises:
        InvalidReportError: It is no mapping, a name is no str, or Dagster could not take a value.
    """
    if not metadata and (metadata is None or isinstance(metadata, Mapping)):
        return None
    top = Place(method, "metadata")
    if not isinstance(metadata, Mapping):
        raise top.error("has to be a mapping of names to values", metadata)
    values: dict[str, dict[str, Any]] = {}
    row_counts: dict[str, int] = {}
    for key, value in metadata.items():
        place = top.at(key)
        if not isinstance(key, str):
            raise place.error("is a name that is not a str", key)
        name = str.__str__(key)
        typed = typed_value(value, place)
        if typed["type"] == "table":
            row_count = typed["raw_value"].pop("row_count", None)
            if row_count is not None:
                row_counts[f"{name}_row_count"] = row_count
        values[name] = typed
    for name, row_count in row_counts.items():
        values.setdefault(name, {"raw_value": row_count, "type": INFER})
    return values


def typed_value(value: Any, place: Place) -> dict[str, Any]:
    """One metadata value with a type that fits it.

    Args:
        value: A raw value, or a mapping with exactly the keys ``raw_value`` and ``type``.
        place: Where the value stands, for the error.

    Raises:
        InvalidReportError: Dagster could not take it.
    """
    with place.reading(value):
        if isinstance(value, Mapping) and value.keys() == _TYPED_KEYS:
            return checked_value(
                value["raw_value"], value["type"], place.at("raw_value"), place.at("type")
            )
        return checked_value(value, INFER, place, place)


def checked_value(raw: Any, kind: object, place: Place, kind_place: Place) -> dict[str, Any]:
    """A value of a type that was named: checked, and converted where that loses nothing."""
    convert = _CONVERSIONS.get(str.__str__(kind)) if isinstance(kind, str) else None
    if not isinstance(kind, str) or convert is None:
        raise kind_place.error(f"has to be one of {', '.join(_CONVERSIONS)}", kind)
    name = str.__str__(kind)
    if name == INFER:
        while isinstance(raw, Enum):
            raw = raw.value
        name = _inferred_type(raw)
        convert = _CONVERSIONS[name]
    value = convert(raw, place)
    if name == "json" and isinstance(value, (int, float)):
        name = INFER  # Dagster's json takes containers and texts only
    return {"raw_value": value, "type": name}


def _inferred_type(raw: object) -> str:
    if is_plain(raw):
        return INFER
    if isinstance(raw, PathLike):
        return "path"
    if is_moment(raw):
        return "timestamp"
    if is_frame(raw) or is_series(raw):
        return "table"
    return INFER


def _to_infer(raw: Any, place: Place) -> Any:
    # As a text it would keep every digit, but nobody could plot it.
    return float(raw) if is_a(raw, "decimal", "Decimal") else to_json(raw, place)


def _to_text(raw: Any, place: Place) -> str | None:
    text = to_json(raw, place)
    if text is None or isinstance(text, str):
        return text
    raise place.error("has to be a str", raw)


def _to_int(raw: Any, place: Place) -> int | None:
    if is_a(raw, "decimal", "Decimal"):
        # Without its exponent in the way: 1E+1000000 would take long, and is refused anyway.
        small = raw.is_finite() and raw.adjusted() < 5_000
        number = to_json(int(raw), place) if small and raw == raw.to_integral_value() else raw
    else:
        number = to_json(raw, place)
    if number is None or isinstance(number, int):
        return None if number is None else int(number)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    raise place.error("has to be an int, or a number without a fraction", raw)


def _to_float(raw: Any, place: Place) -> float | None:
    number = _to_infer(raw, place)
    if number is None:
        return None
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        try:
            return float(number)
        except OverflowError:
            raise place.error("is too large for a float", raw) from None
    raise place.error("has to be a float or an int", raw)


def _to_bool(raw: Any, place: Place) -> bool | None:
    truth = to_json(raw, place)
    if truth is None or isinstance(truth, bool):
        return truth
    raise place.error("has to be a bool; say bool(...) if you mean its truth", raw)


def _to_run_id(raw: Any, place: Place) -> str:
    run_id = to_json(raw, place)
    if isinstance(run_id, str):
        return run_id
    raise place.error("has to be a str, the ID of a run", raw)


def _to_null(raw: Any, place: Place) -> None:
    del raw, place  # Dagster does not look at it


_CONVERSIONS: dict[str, Callable[[Any, Place], Any]] = {
    INFER: _to_infer,
    "text": _to_text,
    "url": _to_text,
    "path": _to_text,
    "notebook": _to_text,
    "json": to_json,
    "md": _to_text,
    "float": _to_float,
    "int": _to_int,
    "bool": _to_bool,
    "dagster_run": _to_run_id,
    "asset": asset_reference,
    "null": _to_null,
    "table": tables.to_table,
    "table_schema": tables.to_table_schema,
    "table_column_lineage": tables.to_column_lineage,
    "timestamp": to_timestamp,
}
"""For each metadata type, what makes a value that Dagster's reader converts to it."""
