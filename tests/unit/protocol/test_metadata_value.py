"""Typed metadata values: the names of Dagster, checked when they are made."""

from __future__ import annotations

import datetime as dt
import inspect
import pathlib
from typing import Any, cast

import dagster
import pandas as pd
import pytest

from dagsterpipes._protocol.metadata import normalize_metadata
from dagsterpipes._protocol.metadata_value import MetadataValue, pipes_metadata_value
from dagsterpipes.exceptions import InvalidReportError
from support.calls import LyingClass

# Dagster's handler takes no message with one of these types.
ONLY_IN_DAGSTER = {"job", "pool", "python_artifact", "code_location_reconstruction"}


def constructors(cls: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(getattr(cls, name)).parameters)
        for name, value in vars(cls).items()
        if isinstance(value, staticmethod)
    }


def test_names_and_arguments_are_those_of_dagster() -> None:
    """Code that makes metadata values for Dagster makes them for Pipes."""
    theirs = constructors(dagster.MetadataValue)
    ours = constructors(MetadataValue)
    assert {name: theirs[name] for name in theirs.keys() - ONLY_IN_DAGSTER} == ours


LINEAGE = {"c": [{"asset_key": "up", "column_name": "d"}]}

MADE: list[tuple[Any, str, Any]] = [
    (MetadataValue.text("x"), "text", "x"),
    (MetadataValue.url("x"), "url", "x"),
    (MetadataValue.path(pathlib.PurePosixPath("/p")), "path", "/p"),
    (MetadataValue.notebook("/p"), "notebook", "/p"),
    (MetadataValue.json({"a": (1,)}), "json", {"a": (1,)}),
    (MetadataValue.json(5), "__infer__", 5),
    (MetadataValue.md("x"), "md", "x"),
    (MetadataValue.float(1), "float", 1.0),
    (MetadataValue.int(1), "int", 1),
    (MetadataValue.bool(True), "bool", True),
    (MetadataValue.timestamp(dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)), "timestamp", 0.0),
    (MetadataValue.timestamp("1970-01-01T00:00:01Z"), "timestamp", 1.0),
    (MetadataValue.dagster_run("x"), "dagster_run", "x"),
    (MetadataValue.asset(["a", "b"]), "asset", "a/b"),
    (
        MetadataValue.table([{"n": 1}]),
        "table",
        {"records": [{"n": 1}], "schema": [{"name": "n", "type": "int"}]},
    ),
    (
        MetadataValue.table(records=[], schema=[{"name": "n"}]),
        "table",
        {"records": [], "schema": [{"name": "n", "type": "string"}]},
    ),
    (
        MetadataValue.table_schema([{"name": "n"}]),
        "table_schema",
        {"columns": [{"name": "n", "type": "string"}]},
    ),
    (
        MetadataValue.column_lineage(LINEAGE),
        "table_column_lineage",
        {"deps_by_column": {"c": [{"asset_key": ["up"], "column_name": "d"}]}},
    ),
    (MetadataValue.null(), "null", None),
    (pipes_metadata_value(1), "__infer__", 1),
    (pipes_metadata_value(1, "float"), "float", 1.0),
    (pipes_metadata_value("x", type="md"), "md", "x"),
    (pipes_metadata_value(pathlib.PurePosixPath("/p")), "path", "/p"),
]


@pytest.mark.parametrize(("value", "kind", "raw"), MADE, ids=lambda value: str(value)[:20])
def test_values(value: Any, kind: str, raw: Any) -> None:
    """Each is a dict with a type and a raw value of it."""
    assert {"raw_value": raw, "type": kind} == value
    assert type(raw) is type(value["raw_value"])


@pytest.mark.parametrize("value", [value for value, _, _ in MADE], ids=lambda value: value["type"])
def test_values_are_what_is_sent(value: Any) -> None:
    """A value that was made goes out as it is."""
    sent = normalize_metadata({"k": value}, method="m")
    assert sent == {"k": value}


def test_tables_of_data_frames_carry_the_number_of_rows() -> None:
    """The count of a data frame survives until the report, where it becomes a value of its own."""
    value = MetadataValue.table(pd.DataFrame({"n": range(60)}))
    sent = normalize_metadata({"rows": value, "again": value}, method="m")
    assert sent is not None
    assert sent["rows_row_count"]["raw_value"] == 60
    assert sent["again_row_count"]["raw_value"] == 60
    assert len(sent["rows"]["raw_value"]["records"]) == 50


anyhow: Any = MetadataValue  # whatever the types say


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: anyhow.text(5), "MetadataValue.text(): text has to be a str; got 5 of type int"),
        (lambda: anyhow.float("1"), "MetadataValue.float(): value has to be a float or an int; got '1' of type str"),
        (lambda: MetadataValue.asset(["a/b"]), "MetadataValue.asset(): asset_key has a part with a '/', which Dagster cannot refer to in metadata; got ['a/b'] of type list"),
        (lambda: MetadataValue.table([{"n": []}]), "MetadataValue.table(): ['records'][0]['n'] has to be a str, a number, a bool or None; got [] of type list"),
        (lambda: MetadataValue.json([print]), "MetadataValue.json(): data[0] has no JSON form: convert it, or send a part of it; got <built-in function print> of type builtin_function_or_method"),
        (lambda: pipes_metadata_value(5, "text"), "pipes_metadata_value(): raw_value has to be a str; got 5 of type int"),
        (lambda: pipes_metadata_value([{1: 1, "1": 2}]), "pipes_metadata_value(): raw_value[0]['1'] is the second key that reads '1' in JSON; got '1' of type str"),
    ],
)  # fmt: skip
def test_what_is_refused(make: Any, error: str) -> None:
    """The error comes where the value is made, and names the function."""
    with pytest.raises(InvalidReportError) as caught:
        make()
    assert error == str(caught.value)


def test_unknown_types() -> None:
    """The error names the argument and lists the types."""
    with pytest.raises(InvalidReportError) as caught:
        pipes_metadata_value("x", cast("Any", "job"))
    assert str(caught.value).startswith(
        "pipes_metadata_value(): type has to be one of __infer__, text,"
    )


def test_values_that_raise() -> None:
    """Whatever the value does when it is looked at, the error is ours."""
    with pytest.raises(InvalidReportError, match="raised ZeroDivisionError"):
        pipes_metadata_value(LyingClass())
