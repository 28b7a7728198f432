"""Data frames and series of pandas, polars and pyarrow, as lists of records.

None of these libraries is imported here: a process that holds one of their values has done so.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple


class Unsupported(Exception):  # noqa: N818 because it is not an error yet: the argument is not known yet
    """There is no JSON form that its owner would surely expect; its text advises what to do."""


class Frame(NamedTuple):
    """Rows of a data frame, with cells as its library gives them."""

    columns: list[tuple[str, str]]  # names and types
    records: list[dict[str, Any]]
    row_count: int  # of the whole data frame


def is_frame(value: object) -> bool:
    """Whether the value has rows and named columns."""
    return isinstance(
        value,
        (
            _class("pandas", "DataFrame"),
            _class("polars", "DataFrame"),
            _class("pyarrow", "Table"),
            _class("pyarrow", "RecordBatch"),
        ),
    )


def is_series(value: object) -> bool:
    """Whether the value is a column that can become a data frame."""
    return isinstance(value, (_class("pandas", "Series"), _class("polars", "Series")))


def read_frame(frame: Any, *, max_rows: int | None = None, max_cells: int = 0) -> Frame:
    """A data frame as records; labels of rows become columns where they mean something.

    Args:
        frame: What `is_frame` or `is_series` knows.
        max_rows: Most records, or ``None`` for all.
        max_cells: Most cells, if ``max_rows`` is given; one record is always read.

    Raises:
        Unsupported: Two columns have the same name.
    """
    if is_series(frame):
        frame = frame.to_frame()
    rows = len(frame)
    if max_rows is not None:
        rows = min(rows, max_rows, max(1, max_cells // max(1, len(frame.columns))))
    if isinstance(frame, _class("pandas", "DataFrame")):
        columns, records = _read_pandas(frame.head(rows))
    elif isinstance(frame, _class("polars", "DataFrame")):
        columns = [(name, str(dtype)) for name, dtype in frame.schema.items()]
        records = frame.head(rows).to_dicts()
    else:  # pyarrow
        columns = [(field.name, str(field.type)) for field in frame.schema]
        _check_names(columns)
        records = frame.slice(0, rows).to_pylist()
    return Frame(columns, records, len(frame))


def read_series(series: Any) -> dict[Any, Any] | list[Any]:
    """A pandas series: labels with values, or only values where the labels mean nothing.

    Raises:
        Unsupported: A label is there twice.
    """
    if not _has_labels(series.index):
        values: list[Any] = series.tolist()
        return values
    if not series.index.is_unique:
        raise Unsupported("has a label twice: send .tolist() or .reset_index() of it")
    items: dict[Any, Any] = series.to_dict()
    return items


def _class(module: str, name: str) -> type[Any] | tuple[()]:
    found: type[Any] | tuple[()] = getattr(sys.modules.get(module), name, ())
    return found


def _read_pandas(frame: Any) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    names = [_text(label) for label in frame.columns]
    series = [frame.iloc[:, position] for position in range(len(names))]
    if _has_labels(frame.index):
        levels = frame.index.names
        labels = ["index" if name is None else _text(name) for name in levels]
        if len(labels) > 1:
            labels = [
                f"level_{i}" if name is None else _text(name) for i, name in enumerate(levels)
            ]
        names = [f"{label} (index)" if label in names else label for label in labels] + names
        series = [frame.index.get_level_values(i) for i in range(len(labels))] + series
    columns = [(name, str(one.dtype)) for name, one in zip(names, series, strict=True)]
    _check_names(columns)
    rows = zip(*(one.tolist() for one in series), strict=True)
    return columns, [dict(zip(names, row, strict=True)) for row in rows]


def _has_labels(index: Any) -> bool:
    """Whether an index holds more than row numbers; what filtering leaves of those does not count."""
    return index.nlevels > 1 or index.name is not None or index.dtype.kind not in "iu"


def _text(label: object) -> str:
    return "/".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _check_names(columns: list[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for name, _ in columns:
        if name in seen:
            raise Unsupported(f"has two columns named {name!r}")
        seen.add(name)
