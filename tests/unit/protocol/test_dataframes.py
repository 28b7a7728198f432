"""Data frames of pandas, polars and pyarrow as records."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dagsterpipes._protocol.dataframes import (
    Frame,
    Unsupported,
    is_frame,
    is_series,
    read_frame,
    read_series,
)

DATA = {"n": [1, 2, 3], "t": ["x", "y", "z"]}
RECORDS = [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}, {"n": 3, "t": "z"}]


@pytest.mark.parametrize(
    ("frame", "types"),
    [
        (pd.DataFrame(DATA).astype({"t": "object"}), ["int64", "object"]),
        (pl.DataFrame(DATA), ["Int64", "String"]),
        (pa.table(DATA), ["int64", "string"]),
        (pa.RecordBatch.from_pydict(DATA), ["int64", "string"]),
    ],
    ids=["pandas", "polars", "pyarrow table", "pyarrow batch"],
)
def test_every_library(frame: Any, types: list[str]) -> None:
    """Names, types, rows and the number of rows are the same from every library."""
    assert is_frame(frame)
    assert not is_series(frame)
    columns = list(zip(DATA, types, strict=True))
    assert Frame(columns, RECORDS, 3) == read_frame(frame)
    assert Frame(columns, RECORDS[:2], 3) == read_frame(frame, max_rows=2, max_cells=100)
    assert Frame(columns, RECORDS, 3) == read_frame(frame, max_rows=50, max_cells=100)
    assert Frame(columns, RECORDS[:1], 3) == read_frame(frame, max_rows=50, max_cells=1)


@pytest.mark.parametrize("series", [pd.Series([1, 2], name="n"), pl.Series("n", [1, 2])])
def test_series(series: Any) -> None:
    """A series is a data frame with one column."""
    assert is_series(series)
    assert not is_frame(series)
    assert read_frame(series).records == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("value", [None, 1, [1], {"a": [1]}, "text", pd.Index([1])])
def test_other_values(value: Any) -> None:
    """Nothing else is taken for a data frame."""
    assert not is_frame(value)
    assert not is_series(value)


FRAME = pd.DataFrame({"n": [1, 2, 3]})


@pytest.mark.parametrize(
    ("frame", "names"),
    [
        (FRAME, ["n"]),
        (FRAME[FRAME["n"] > 1], ["n"]),
        (FRAME.sort_values("n", ascending=False), ["n"]),
        (FRAME.set_axis(["x", "y", "z"]), ["index", "n"]),
        (FRAME.set_axis(pd.Index([7, 8, 9], name="id")), ["id", "n"]),
        (FRAME.set_axis(pd.date_range("2024", periods=3)), ["index", "n"]),
        (
            FRAME.set_axis(pd.MultiIndex.from_product([["a"], [1, 2, 3]])),
            ["level_0", "level_1", "n"],
        ),
        (
            FRAME.set_axis(pd.MultiIndex.from_product([["a"], [1, 2, 3]], names=["x", None])),
            ["x", "level_1", "n"],
        ),
        (FRAME.set_axis(pd.Index([7, 8, 9], name="n")), ["n (index)", "n"]),
        (
            FRAME.set_axis(["a", "b", "c"]).rename(columns={"n": "index"}),
            ["index (index)", "index"],
        ),
    ],
)
def test_labels_of_rows(frame: Any, names: list[str]) -> None:
    """The index comes along where it says more than a number that filtering left behind."""
    read = read_frame(frame)
    assert names == [name for name, _ in read.columns]
    assert names == list(read.records[0])
    assert read.records[0][names[-1]] == frame.iloc[0, -1]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1], ["0", "1"]),
        ([("a", "b"), ("a", "c")], ["a/b", "a/c"]),
        ([dt.date(2024, 1, 1), None], ["2024-01-01", "None"]),
    ],
)
def test_names_that_are_no_text(labels: list[Any], names: list[str]) -> None:
    """Every name of a column is a text."""
    frame = pd.DataFrame([[1, 2]])
    frame.columns = pd.Index(labels, dtype="object", tupleize_cols=False)
    assert names == list(read_frame(frame).records[0])


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame([[1, 2]], columns=["n", "n"]),
        pd.DataFrame([[1, 2]], columns=pd.Index([1, "1"], dtype="object")),
        pa.table([[1], [2]], names=["n", "n"]),
    ],
)
def test_names_that_are_there_twice(frame: Any) -> None:
    """No column is silently left out."""
    with pytest.raises(Unsupported, match=r"^has two columns named '(n|1)'$"):
        read_frame(frame)


def test_no_rows_and_no_columns() -> None:
    """Empty data frames are data frames."""
    assert read_frame(FRAME.head(0), max_rows=50, max_cells=9) == ([("n", "int64")], [], 0)
    assert read_frame(pd.DataFrame(), max_rows=50, max_cells=9) == ([], [], 0)
    assert read_frame(pl.DataFrame(), max_rows=50, max_cells=9) == ([], [], 0)
    assert read_frame(FRAME[[]], max_rows=50, max_cells=9) == ([], [], 3)


def test_cells_are_of_python() -> None:
    """Integers stay integers, and moments are datetimes."""
    frame = pd.DataFrame({"n": [1], "f": [0.5], "t": pd.to_datetime(["2024-01-01"])})
    (record,) = read_frame(frame).records
    assert [int, float, pd.Timestamp] == [type(cell) for cell in record.values()]


def test_labels_of_series() -> None:
    """A series has its labels where they mean something, and is a list where they do not."""
    assert read_series(pd.Series(["a", "a", "b"]).value_counts()) == {"a": 2, "b": 1}
    assert read_series(pd.Series([1.5], index=pd.Index([7], name="id"))) == {7: 1.5}
    assert read_series(FRAME["n"][FRAME["n"] > 1]) == [2, 3]
    with pytest.raises(Unsupported, match="has a label twice"):
        read_series(pd.Series([1, 2], index=["a", "a"]))
