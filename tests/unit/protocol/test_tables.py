"""Tables, schemas and lineages: the shapes that Dagster takes, and errors for all others."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dagsterpipes._protocol.argument import Argument
from dagsterpipes._protocol.tables import to_column_lineage, to_table, to_table_schema
from dagsterpipes.exceptions import InvalidReportError

ARGUMENT = Argument("m", "p")
COLUMN = {"name": "n", "type": "int"}
FRAME = pd.DataFrame({"n": [1, 2]})
OF_FRAME = [{"name": "n", "type": "int64"}]
RECORDS = [{"n": 1}, {"n": 2}]


def refusal(convert: Any, value: Any) -> str:
    with pytest.raises(InvalidReportError) as caught:
        convert(value, ARGUMENT)
    return str(caught.value).removeprefix("m(): p")


@pytest.mark.parametrize(
    ("value", "table"),
    [
        ({"records": RECORDS, "schema": [COLUMN]}, {"records": RECORDS, "schema": [COLUMN]}),
        ({"records": RECORDS, "schema": {"columns": [COLUMN]}}, {"records": RECORDS, "schema": [COLUMN]}),
        ({"records": RECORDS}, {"records": RECORDS, "schema": [COLUMN]}),
        ({"records": RECORDS, "schema": None}, {"records": RECORDS, "schema": [COLUMN]}),
        ({"records": [], "schema": [COLUMN]}, {"records": [], "schema": [COLUMN]}),
        ({"records": ()}, {"records": [], "schema": []}),
        ({"records": RECORDS, "row_count": np.int64(9)}, {"records": RECORDS, "schema": [COLUMN], "row_count": 9}),
        ({"records": RECORDS, "row_count": None}, {"records": RECORDS, "schema": [COLUMN]}),
        (FRAME, {"records": RECORDS, "schema": OF_FRAME, "row_count": 2}),
        (FRAME["n"], {"records": RECORDS, "schema": OF_FRAME, "row_count": 2}),
        ({"records": FRAME}, {"records": RECORDS, "schema": OF_FRAME, "row_count": 2}),
        ({"records": FRAME, "schema": [COLUMN]}, {"records": RECORDS, "schema": [COLUMN], "row_count": 2}),
    ],
)  # fmt: skip
def test_tables(value: Any, table: Any) -> None:
    """Records with a schema, records alone, and data frames all become tables."""
    assert table == to_table(value, ARGUMENT)


def test_inferred_schema() -> None:
    """Without a schema the types of the first record count, as Dagster infers them."""
    record = {"b": True, "i": 1, "f": 1.5, "s": "x", "none": None, "n": np.float64(1), 5: "key"}
    table = to_table({"records": [record]}, ARGUMENT)
    types = {column["name"]: column["type"] for column in table["schema"]}
    expected = {
        "b": "bool",
        "i": "int",
        "f": "float",
        "s": "string",
        "none": "string",
        "n": "float",
    }
    assert {**expected, "5": "string"} == types


def test_nan_in_records_is_empty() -> None:
    """As in a data frame: Dagster's web interface shows rows as JSON, which has neither."""
    rows = [{"n": math.nan}, {"n": np.float64("inf")}, {"n": -math.inf}, {"n": 1.5}]
    records = to_table({"records": rows}, ARGUMENT)["records"]
    assert records == [{"n": None}, {"n": "Infinity"}, {"n": "-Infinity"}, {"n": 1.5}]


def test_cells_of_records() -> None:
    """Cells may be anything that JSON holds as a scalar, or that becomes one."""
    cells = {"d": dt.date(2024, 1, 1), "m": decimal.Decimal("1.10"), "na": pd.NA, "b": np.bool_(1)}
    (record,) = to_table({"records": [cells]}, ARGUMENT)["records"]
    assert record == {"d": "2024-01-01", "m": "1.10", "na": None, "b": True}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, " must be a data frame or a mapping with 'records' and 'schema'; got None of type NoneType"),
        ({"schema": []}, " must be a data frame or a mapping with 'records' and 'schema'; got {'schema': []} of type dict"),
        ({"records": {"n": 1}}, "['records'] must be a list of mappings; got {'n': 1} of type dict"),
        ({"records": [[1]]}, "['records'][0] must be a mapping of column names to cells; got [1] of type list"),
        ({"records": [{"n": [1]}]}, "['records'][0]['n'] must be a str, a number, a bool or None; got [1] of type list"),
        (
            {"records": [{"a": 1, "b": 2}, {"a": 1, "c": 2}]},
            "['records'][1] must have the keys of the first record; look at 'b', 'c'; got {'a': 1, 'c': 2} of type dict",
        ),
        ({"records": [], "row_count": True}, "['row_count'] must be an int; got True of type bool"),
        ({"records": [], "row_count": "1"}, "['row_count'] must be an int; got '1' of type str"),
        ({"records": [], "schema": "n int"}, "['schema'] must be a list of columns; got 'n int' of type str"),
        ({"records": [], "schema": ["n"]}, "['schema'][0] must be a mapping with 'name' and 'type'; got 'n' of type str"),
        (pd.DataFrame([[1, 2]], columns=["n", "n"]), " has two columns named 'n'; got    n  n\n0  1  2 of type DataFrame"),
    ],
)  # fmt: skip
def test_what_is_no_table(value: Any, error: str) -> None:
    """The error has the place of what is wrong."""
    assert error == refusal(to_table, value)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (math.nan, None),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (pd.NaT, None),
        ("é", "é"),
        ([1, {"a": "é"}], '[1, {"a": "é"}]'),
        (dt.date(2024, 1, 1), "2024-01-01"),
        ("x" * 1_001, "x" * 999 + "…"),
        (b"bytes", "b'bytes'"),
        (10**5000, "<int with a failing repr()>"),
        (complex(1, 2), "(1+2j)"),
    ],
    ids=["nan", "inf", "-inf", "float", "bool", "none", "nat", "text", "list", "date", "long", "bytes", "int", "complex"],
)  # fmt: skip
def test_cells_of_data_frames(cell: Any, shown: Any) -> None:
    """A preview shows what Dagster's page can show; one odd cell is no reason to refuse it."""
    frame = pd.DataFrame({"c": pd.Series([cell], dtype="object")})
    (record,) = to_table(frame, ARGUMENT)["records"]
    assert {"c": shown} == record
    assert type(shown) is type(record["c"])


@pytest.mark.parametrize(
    ("rows", "columns", "shown"),
    [(49, 1, 49), (51, 1, 50), (60, 400, 25), (9, 20_000, 1), (0, 1, 0)],
)
@pytest.mark.parametrize("library", [pd, pl])
def test_previews_are_bounded(rows: int, columns: int, shown: int, library: Any) -> None:
    """At most fifty rows and ten thousand cells, but always a row; the count is of all rows."""
    frame = library.DataFrame({str(number): [0] * rows for number in range(columns)})
    table = to_table(frame, ARGUMENT)
    assert shown == len(table["records"])
    assert rows == table["row_count"]


FULL = {
    "name": "n",
    "type": "int",
    "description": "d",
    "tags": {"k": "v"},
    "constraints": {"nullable": False, "unique": True, "other": ["> 0"]},
}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (FULL, FULL),
        ({"name": "n"}, {"name": "n", "type": "string"}),
        ({**COLUMN, "description": None, "tags": None, "constraints": None},) * 2,
        ({**COLUMN, "tags": {}, "constraints": {}},) * 2,
        ({**COLUMN, "constraints": {"other": None}},) * 2,
        ({**COLUMN, "unknown": [1]},) * 2,
        (
            {**COLUMN, "constraints": {"nullable": np.bool_(1)}},
            {**COLUMN, "constraints": {"nullable": True}},
        ),
    ],
)
def test_columns(column: Any, expected: Any) -> None:
    """A column has a name and a type, and may have a description, tags and constraints."""
    assert {"columns": [expected]} == to_table_schema([column], ARGUMENT)
    assert [expected] == to_table({"records": [], "schema": [column]}, ARGUMENT)["schema"]


@pytest.mark.parametrize("value", [[COLUMN], (COLUMN,), {"columns": [COLUMN]}])
def test_schemas(value: Any) -> None:
    """A list of columns, alone or as columns."""
    assert to_table_schema(value, ARGUMENT) == {"columns": [COLUMN]}


@pytest.mark.parametrize("frame", [FRAME, FRAME["n"]])
def test_schemas_of_data_frames(frame: Any) -> None:
    """The schema of a data frame, without its rows."""
    assert to_table_schema(frame, ARGUMENT) == {"columns": OF_FRAME}


@pytest.mark.parametrize(
    ("column", "error"),
    [
        ({}, "['name'] must be a str; got None of type NoneType"),
        ({"name": 5}, "['name'] must be a str; got 5 of type int"),
        ({"name": "n", "type": None}, "['type'] must be a str; got None of type NoneType"),
        ({"name": "n", "type": int}, "['type'] has no JSON form: convert it, or send a part of it; got <class 'int'> of type type"),
        ({**COLUMN, "description": 5}, "['description'] must be a str; got 5 of type int"),
        ({**COLUMN, "tags": ["a"]}, "['tags'] must be a mapping of str to str; got ['a'] of type list"),
        ({**COLUMN, "tags": {"k": 5}}, "['tags']['k'] must be a str; got 5 of type int"),
        ({**COLUMN, "constraints": "unique"}, "['constraints'] must be a mapping; got 'unique' of type str"),
        ({**COLUMN, "constraints": {"nullable": None}}, "['constraints']['nullable'] must be a bool; got None of type NoneType"),
        ({**COLUMN, "constraints": {"unique": 1}}, "['constraints']['unique'] must be a bool; got 1 of type int"),
        ({**COLUMN, "constraints": {"other": "> 1"}}, "['constraints']['other'] must be a list of str; got '> 1' of type str"),
        ({**COLUMN, "constraints": {"other": [5]}}, "['constraints']['other'][0] must be a str; got 5 of type int"),
        ({**COLUMN, "constraints": {"check": 1}}, "['constraints']['check'] is not one of 'nullable', 'unique' and 'other'; got 1 of type int"),
    ],
)  # fmt: skip
def test_what_is_no_column(column: Any, error: str) -> None:
    """What Dagster's reader would stop at is refused, with its place."""
    assert f"[0]{error}" == refusal(to_table_schema, [column])


@pytest.mark.parametrize("value", [{"schema": []}, {}])
def test_what_is_no_schema(value: Any) -> None:
    """A mapping must have columns."""
    assert f" must have 'columns'; got {value} of type dict" == refusal(to_table_schema, value)


SOURCE = {"asset_key": ["up", "x"], "column_name": "d"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"deps_by_column": {"c": [SOURCE]}}, {"c": [SOURCE]}),
        ({"c": [SOURCE]}, {"c": [SOURCE]}),
        ({"c": ()}, {"c": []}),
        ({}, {}),
        ({"deps_by_column": {}}, {}),
        ({"c": [{**SOURCE, "asset_key": "up/x"}]}, {"c": [SOURCE]}),
        (
            {"c": [{**SOURCE, "asset_key": r"up\/x"}]},
            {"c": [{**SOURCE, "asset_key": ["up/x"]}]},
        ),
        (
            {"c": [SOURCE, {**SOURCE, "column_name": "e"}], "d": [SOURCE]},
            {"c": [SOURCE, {**SOURCE, "column_name": "e"}], "d": [SOURCE]},
        ),
    ],
)
def test_lineages(value: Any, expected: Any) -> None:
    """Asset keys arrive as their parts: Dagster takes a text for one part."""
    assert {"deps_by_column": expected} == to_column_lineage(value, ARGUMENT)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([SOURCE], f" must be a mapping of column names to lists of sources, or have that as 'deps_by_column'; got {[SOURCE]} of type list"),
        ({"deps_by_column": [1]}, "['deps_by_column'] must be a mapping of column names to lists of sources, or have that as 'deps_by_column'; got [1] of type list"),
        ({5: []}, "[5] must be a str; got 5 of type int"),
        ({"c": SOURCE}, f"['c'] must be a list; got {SOURCE} of type dict"),
        ({"c": [5]}, "['c'][0] must be a mapping with 'asset_key' and 'column_name'; got 5 of type int"),
        ({"c": [{"asset_key": "a"}]}, "['c'][0] must be a mapping with 'asset_key' and 'column_name'; got {'asset_key': 'a'} of type dict"),
        ({"c": [{"asset_key": 5, "column_name": "d"}]}, "['c'][0]['asset_key'] must be an asset key: a str, or a list of its parts; got 5 of type int"),
        ({"c": [{**SOURCE, "column_name": None}]}, "['c'][0]['column_name'] must be a str; got None of type NoneType"),
        ({"c": [SOURCE, {**SOURCE, "asset_key": "up/x"}]}, f"['c'][1] occurs twice, which Dagster does not accept; got {SOURCE} of type dict"),
    ],
)  # fmt: skip
def test_what_is_no_lineage(value: Any, error: str) -> None:
    """What Dagster's reader would stop at is refused, with its place."""
    assert error == refusal(to_column_lineage, value)


def test_a_source_with_another_key() -> None:
    """Dagster passes the keys of a source to a function, so there may be no others."""
    problem = refusal(to_column_lineage, {"c": [{**SOURCE, "table": "t"}]})
    assert problem.startswith("['c'][0] must be a mapping with 'asset_key' and 'column_name'; got")
