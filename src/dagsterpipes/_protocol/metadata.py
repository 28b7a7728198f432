"""Metadata: from what users pass to what Dagster's reader converts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, cast

from dagsterpipes._protocol import tables
from dagsterpipes._protocol.argument import Argument
from dagsterpipes._protocol.assets import asset_reference
from dagsterpipes._protocol.dataframes import is_frame, is_series
from dagsterpipes._protocol.encoder import is_plain, to_json, without_nan
from dagsterpipes._protocol.jsonable import (
    TYPE_OF_CLASS,
    dagster_class,
    is_a,
    is_missing,
    is_path,
    unwrap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from os import PathLike

    from dagsterpipes.typing import PipesMetadataType, PipesMetadataValue

    _Number = float


def is_moment(value: object) -> bool:
    """Whether the value is a date with a time, of the standard library, pandas or numpy."""
    return not is_missing(value) and (
        is_a(value, "datetime", "datetime") or is_a(value, "numpy", "datetime64")
    )


def to_timestamp(value: Any, argument: Argument) -> float:
    """Seconds since the epoch.

    A naive `datetime.datetime` is local time, as its own ``timestamp()`` takes it and as
    ``datetime.now()`` makes it; so is the midnight that a `datetime.date` stands for. A naive value
    of pandas or numpy is UTC, as those libraries take it.

    Args:
        value: A datetime of any kind, a date, an ISO 8601 text, or a finite number of seconds.
        argument: Where the value stands, for the error.

    Raises:
        InvalidReportError: It is none of these, or too far away for a timestamp.
    """
    moment = value
    if is_a(value, "numpy", "datetime64"):
        # Microseconds, since item() gives a datetime for them; pandas takes a naive value as UTC.
        moment = value.astype("datetime64[us]").item()
        if isinstance(moment, int):
            raise argument.error("is outside the range of timestamps", value)
        if moment is not None:
            moment = moment.replace(tzinfo=sys.modules["datetime"].timezone.utc)
    elif isinstance(value, str):
        moment = _parse_moment(value, argument)
    elif is_a(value, "datetime", "date") and not is_a(value, "datetime", "datetime"):
        moment = sys.modules["datetime"].datetime(value.year, value.month, value.day)
    if is_moment(moment):
        try:
            return float(moment.timestamp())
        except (OverflowError, ValueError, OSError):
            raise argument.error("is outside the range of timestamps", value) from None
    seconds = to_json(moment, argument)
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
        try:
            seconds = float(seconds)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    raise argument.error(
        "must be a datetime, an ISO 8601 text or a finite number of seconds", value
    )


def _parse_moment(text: str, argument: Argument) -> Any:
    from datetime import datetime  # noqa: PLC0415 because few processes need it

    # Python before 3.11 does not know the letter.
    iso = text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text
    try:
        return datetime.fromisoformat(iso)
    except ValueError:
        raise argument.error("is not an ISO 8601 date and time", text) from None


PIPES_METADATA_TYPE_INFER: Literal["__infer__"] = "__infer__"
_TYPED_KEYS = {"raw_value", "type"}
_SCALARS = {str, int, float, bool, type(None)}


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
    top = Argument(method, "metadata")
    if not isinstance(metadata, Mapping):
        raise top.error("must be a mapping of names to values", metadata)
    values: dict[str, dict[str, Any]] = {}
    row_counts: dict[str, int] = {}
    for key, value in metadata.items():
        argument = top.at(key)
        if not isinstance(key, str):
            raise argument.error("is a name that is not a str", key)
        name = str.__str__(key)
        typed = typed_value(value, argument)
        if typed["type"] == "table":
            row_count = typed["raw_value"].pop("row_count", None)
            if row_count is not None:
                row_counts[f"{name}_row_count"] = row_count
        values[name] = typed
    for name, row_count in row_counts.items():
        values.setdefault(name, {"raw_value": row_count, "type": PIPES_METADATA_TYPE_INFER})
    return values


def typed_value(value: Any, argument: Argument) -> dict[str, Any]:
    """One metadata value with a type that fits it.

    Args:
        value: A raw value, or a mapping with exactly the keys ``raw_value`` and ``type``; any other
            with a key ``raw_value`` is taken for a typing error.
        argument: Where the value stands, for the error.

    Raises:
        InvalidReportError: Dagster could not take it.
    """
    if type(value) in _SCALARS and is_plain(value):  # most values, at a third of the cost
        return {"raw_value": value, "type": PIPES_METADATA_TYPE_INFER}
    with argument.wrap_errors(value):
        if isinstance(value, Mapping) and "raw_value" in value:
            if value.keys() != _TYPED_KEYS:
                raise argument.error(
                    "has 'raw_value', but not exactly the keys 'raw_value' and 'type' of a typed value;"
                    " to send it as JSON, use MetadataValue.json(...)",
                    value,
                )
            return checked_value(
                value["raw_value"], value["type"], argument.at("raw_value"), argument.at("type")
            )
        return checked_value(value, PIPES_METADATA_TYPE_INFER, argument, argument)


def checked_value(
    raw: Any, kind: object, argument: Argument, kind_argument: Argument
) -> dict[str, Any]:
    """A value of a type that was named: checked, and converted where that loses nothing."""
    convert = _CONVERSIONS.get(str.__str__(kind)) if isinstance(kind, str) else None
    if not isinstance(kind, str) or convert is None:
        raise kind_argument.error(f"must be one of {', '.join(_CONVERSIONS)}", kind)
    name = str.__str__(kind)
    if name == PIPES_METADATA_TYPE_INFER:
        while isinstance(raw, Enum):
            raw = raw.value
        name = _inferred_type(raw, argument)
        convert = _CONVERSIONS[name]
    value = convert(unwrap(raw), argument)
    if name == "json" and isinstance(value, (int, float)):
        name = PIPES_METADATA_TYPE_INFER  # Dagster's json takes containers and texts only
    return {"raw_value": value, "type": name}


def _inferred_type(raw: object, argument: Argument) -> str:
    if is_plain(raw):
        return PIPES_METADATA_TYPE_INFER
    dagsters = dagster_class(raw)
    if dagsters.endswith("MetadataValue") and dagsters not in TYPE_OF_CLASS:
        raise argument.error(
            "has no metadata type in Pipes; send its parts, for example as a dict", raw
        )
    if dagsters in TYPE_OF_CLASS:
        return TYPE_OF_CLASS[dagsters]
    if is_path(raw):
        return "path"
    if is_moment(raw):
        return "timestamp"
    if is_frame(raw) or is_series(raw):
        return "table"
    return PIPES_METADATA_TYPE_INFER


def _to_infer(raw: Any, argument: Argument) -> Any:
    if is_a(raw, "decimal", "Decimal"):
        return float(raw)  # as a text it would keep every digit, but nobody could plot it
    return _to_json(raw, argument)


def _to_json(raw: Any, argument: Argument) -> Any:
    value = to_json(raw, argument, named=True)
    return value if isinstance(value, float) else without_nan(value)


def _to_text(raw: Any, argument: Argument) -> str | None:
    text = to_json(raw, argument)
    if text is None or isinstance(text, str):
        return text
    raise argument.error("must be a str", raw)


def _parse_number(text: str) -> int | float | str:
    """The number that a text holds, as configuration and command lines give it; else the text."""
    if "_" not in text:
        with suppress(ValueError):
            return int(text)
        with suppress(ValueError):
            number = float(text)
            return number if math.isfinite(number) else text
    return text


def _to_int(raw: Any, argument: Argument) -> int | None:
    if is_a(raw, "decimal", "Decimal"):
        # Without its exponent in the way: 1E+1000000 would take long, and is refused anyway.
        small = raw.is_finite() and raw.adjusted() < 5_000
        number = to_json(int(raw), argument) if small and raw == raw.to_integral_value() else raw
    else:
        number = to_json(raw, argument)
        if isinstance(number, str):
            number = to_json(_parse_number(number), argument)
    if number is None or isinstance(number, int):
        return None if number is None else int(number)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    raise argument.error("must be an int, or a number without a fraction", raw)


def _to_float(raw: Any, argument: Argument) -> float | None:
    number = _to_infer(raw, argument)
    if number is None:
        return None
    if isinstance(number, str):
        number = _parse_number(number)
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        try:
            return float(number)
        except OverflowError:
            raise argument.error("is too large for a float", raw) from None
    raise argument.error("must be a float or an int", raw)


def _to_bool(raw: Any, argument: Argument) -> bool | None:
    truth = to_json(raw, argument)
    if truth is None or isinstance(truth, bool):
        return truth
    raise argument.error("must be a bool; convert with bool(...)", raw)


def _to_run_id(raw: Any, argument: Argument) -> str:
    run_id = to_json(raw, argument)
    if isinstance(run_id, str):
        return run_id
    raise argument.error("must be a str, the ID of a run", raw)


def _to_null(raw: Any, argument: Argument) -> None:
    del raw, argument  # Dagster does not look at it


_CONVERSIONS: dict[str, Callable[[Any, Argument], Any]] = {
    PIPES_METADATA_TYPE_INFER: _to_infer,
    "text": _to_text,
    "url": _to_text,
    "path": _to_text,
    "notebook": _to_text,
    "json": _to_json,
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


def pipes_metadata_value(
    raw_value: Any,
    type: PipesMetadataType = PIPES_METADATA_TYPE_INFER,  # noqa: A002 because the key is named so
) -> PipesMetadataValue:
    """A metadata value with its Dagster type.

    It is checked here and converted where that loses nothing: ``1`` to ``1.0`` for ``"float"``, a
    `datetime.datetime` to seconds for ``"timestamp"``, a data frame to its first rows for
    ``"table"``.

    Args:
        raw_value: The value.
        type: The name of the type; by default it is inferred from the value.

    Raises:
        InvalidReportError: There is no such type, or Dagster could not take the value as one.
    """
    return _make(raw_value, type, "pipes_metadata_value", "raw_value")


class MetadataValue:
    """Makes metadata values with a type; the names are those of Dagster's ``MetadataValue``.

    Every function checks its argument and returns a `PipesMetadataValue`, which is a dict.

    Raises:
        InvalidReportError: Dagster could not take the argument.
    """

    @staticmethod
    def text(text: str) -> PipesMetadataValue:
        """A text, shown as it is."""
        return _make(text, "text", "MetadataValue.text", "text")

    @staticmethod
    def url(url: str) -> PipesMetadataValue:
        """A link."""
        return _make(url, "url", "MetadataValue.url", "url")

    @staticmethod
    def path(path: str | PathLike[str]) -> PipesMetadataValue:
        """A path of a file or folder."""
        return _make(path, "path", "MetadataValue.path", "path")

    @staticmethod
    def notebook(path: str | PathLike[str]) -> PipesMetadataValue:
        """A path of a notebook."""
        return _make(path, "notebook", "MetadataValue.notebook", "path")

    @staticmethod
    def json(data: Any) -> PipesMetadataValue:
        """Anything that JSON can hold; see `PipesContext.report_custom_message`."""
        return _make(data, "json", "MetadataValue.json", "data")

    @staticmethod
    def md(data: str) -> PipesMetadataValue:
        """Markdown, rendered."""
        return _make(data, "md", "MetadataValue.md", "data")

    @staticmethod
    def float(value: float) -> PipesMetadataValue:
        """A float, plotted over time; an int and a text that holds a number become one."""
        return _make(value, "float", "MetadataValue.float", "value")

    @staticmethod
    def int(value: int) -> PipesMetadataValue:
        """An int, plotted over time; a number without a fraction, also in a text, becomes one."""
        return _make(value, "int", "MetadataValue.int", "value")

    @staticmethod
    def bool(value: bool) -> PipesMetadataValue:
        """A bool; also numpy's."""
        return _make(value, "bool", "MetadataValue.bool", "value")

    @staticmethod
    def timestamp(value: _Number | datetime | str) -> PipesMetadataValue:
        """A moment, shown in the reader's time zone.

        Args:
            value: Seconds since the epoch, an ISO 8601 text, or a datetime. A naive
                `datetime.datetime` is local time; a naive one of pandas or numpy is UTC.
        """
        return _make(value, "timestamp", "MetadataValue.timestamp", "value")

    @staticmethod
    def dagster_run(run_id: str) -> PipesMetadataValue:
        """A link to a run."""
        return _make(run_id, "dagster_run", "MetadataValue.dagster_run", "run_id")

    @staticmethod
    def asset(asset_key: str | Sequence[str]) -> PipesMetadataValue:
        """A link to an asset.

        Args:
            asset_key: A list of the key's parts, or a text as `PipesContext.asset_key` has it. No
                part may have a ``/``.
        """
        return _make(asset_key, "asset", "MetadataValue.asset", "asset_key")

    @staticmethod
    def table(records: Any, schema: Any = None) -> PipesMetadataValue:
        """A table.

        Args:
            records: A list of mappings with the same keys, from column names to scalars; or a data
                frame of pandas, polars or pyarrow, of which the first 50 rows are shown, and the
                number of all rows beside it.
            schema: A list of columns, each a mapping with ``name``, ``type`` and perhaps
                ``description``, ``tags`` and ``constraints``; by default it is inferred.
        """
        value = {"records": records, "schema": schema}
        return _make(value, "table", "MetadataValue.table", "")

    @staticmethod
    def table_schema(schema: Any) -> PipesMetadataValue:
        """The schema of a table.

        Args:
            schema: A list of columns as in `table`, a mapping with that as ``columns``, or a data
                frame.
        """
        return _make(schema, "table_schema", "MetadataValue.table_schema", "schema")

    @staticmethod
    def column_lineage(lineage: Mapping[str, Any]) -> PipesMetadataValue:
        """The columns that each column of a table was made from.

        Args:
            lineage: A mapping of column names to lists of mappings with ``asset_key`` (as in
                `asset`) and ``column_name``; or a mapping with that as ``deps_by_column``.
        """
        return _make(lineage, "table_column_lineage", "MetadataValue.column_lineage", "lineage")

    @staticmethod
    def null() -> PipesMetadataValue:
        """No value."""
        return {"type": "null", "raw_value": None}


def _make(value: Any, kind: str, method: str, parameter: str) -> PipesMetadataValue:
    argument = Argument(method, parameter)
    with argument.wrap_errors(value):
        made = checked_value(value, kind, argument, Argument(method, "type"))
    return cast("PipesMetadataValue", made)
