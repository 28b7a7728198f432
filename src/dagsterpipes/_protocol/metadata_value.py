"""Metadata values with a type: for every type of Dagster's that a message can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.argument import Place
from dagsterpipes._protocol.metadata import INFER, checked_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from os import PathLike

    from dagsterpipes.typing import PipesMetadataType, PipesMetadataValue

__all__ = ["MetadataValue", "pipes_metadata_value"]


def pipes_metadata_value(raw_value: Any, type: PipesMetadataType = INFER) -> PipesMetadataValue:  # noqa: A002 because the key is named so
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
        """A float, plotted over time; an int becomes one."""
        return _make(value, "float", "MetadataValue.float", "value")

    @staticmethod
    def int(value: int) -> PipesMetadataValue:
        """An int, plotted over time; a number without a fraction becomes one."""
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


if TYPE_CHECKING:
    _Number = float


def _make(value: Any, kind: str, method: str, parameter: str) -> PipesMetadataValue:
    place = Place(method, parameter)
    with place.reading(value):
        made = checked_value(value, kind, place, Place(method, "type"))
    return cast("PipesMetadataValue", made)
