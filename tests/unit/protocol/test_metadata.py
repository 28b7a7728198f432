"""Metadata: raw and typed values, and moments."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import inspect
import json
import math
import os
import pathlib
import time
import types
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import dagster
import numpy as np
import pandas as pd
import polars as pl
import pytest

from dagsterpipes._protocol.argument import Argument
from dagsterpipes._protocol.metadata import (
    _CONVERSIONS,
    MetadataValue,
    is_moment,
    normalize_metadata,
    pipes_metadata_value,
    to_timestamp,
)
from dagsterpipes.exceptions import InvalidReportError
from dagsterpipes.typing import PipesMetadataType
from support.doubles import LyingClass, PrintedText, Raising

if TYPE_CHECKING:
    from collections.abc import Iterator

ARGUMENT = Argument("m", "p")
UTC = dt.timezone.utc
NEW_YEAR = 1704067200.0  # 2024-01-01T00:00:00Z


@pytest.fixture
def five_hours_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that lives five hours behind UTC."""
    monkeypatch.setenv("TZ", "XXX5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("five_hours_behind")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (dt.datetime(2024, 1, 1, tzinfo=UTC), NEW_YEAR),
        (dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), NEW_YEAR),
        (dt.datetime(2024, 1, 1), NEW_YEAR + 5 * 3600),
        (dt.date(2024, 1, 1), NEW_YEAR + 5 * 3600),
        (pd.Timestamp("2024-01-01", tz="Europe/Berlin"), NEW_YEAR - 3600),
        (pd.Timestamp("2024-01-01"), NEW_YEAR),
        (np.datetime64("2024-01-01"), NEW_YEAR),
        (np.datetime64("2024-01-01T00:00:00.5", "ns"), NEW_YEAR + 0.5),
        (np.datetime64("2024"), NEW_YEAR),
        ("2024-01-01T00:00:00Z", NEW_YEAR),
        ("2024-01-01T00:00:00.500z", NEW_YEAR + 0.5),
        ("2024-01-01T02:00:00+02:00", NEW_YEAR),
        ("2024-01-01T00:00:00", NEW_YEAR + 5 * 3600),
        ("2024-01-01", NEW_YEAR + 5 * 3600),
        (np.str_("2024-01-01T00:00:00Z"), NEW_YEAR),
        (1, 1.0),
        (-1.5, -1.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
    ],
)
def test_moments(value: Any, seconds: float) -> None:
    """Naive moments of Python are local time; naive ones of pandas and numpy are UTC."""
    actual = to_timestamp(value, ARGUMENT)
    assert seconds == actual
    assert type(actual) is float


NO_MOMENT = " must be a datetime, an ISO 8601 text or a finite number of seconds; got "


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, NO_MOMENT + "None of type NoneType"),
        (True, NO_MOMENT + "True of type bool"),
        (pd.NaT, NO_MOMENT + "NaT of type NaTType"),
        (
            np.datetime64("NaT", "ns"),
            NO_MOMENT + f"{np.datetime64('NaT', 'ns')!r} of type datetime64",
        ),
        (math.nan, NO_MOMENT + "nan of type float"),
        (math.inf, NO_MOMENT + "inf of type float"),
        ([1], NO_MOMENT + "[1] of type list"),
        (dt.time(1), NO_MOMENT + "datetime.time(1, 0) of type time"),
        ("yesterday", " is not an ISO 8601 date and time; got 'yesterday' of type str"),
        ("", " is not an ISO 8601 date and time; got '' of type str"),
        (
            np.datetime64("30000-01-01"),
            f" is outside the range of timestamps; got {np.datetime64('30000-01-01')!r} of type datetime64",
        ),
    ],
)
def test_what_is_no_moment(value: Any, error: str) -> None:
    """Anything else is refused, nothing is guessed."""
    with pytest.raises(InvalidReportError) as caught:
        to_timestamp(value, ARGUMENT)
    assert f"m(): p{error}" == str(caught.value)


@pytest.mark.usefixtures("five_hours_behind")
@pytest.mark.parametrize("value", [10**400, dt.datetime.max, dt.datetime.min])
def test_far_away(value: Any) -> None:
    """A moment that no float or no calendar holds is an error of ours, or a number."""
    try:
        assert math.isfinite(to_timestamp(value, ARGUMENT))
    except InvalidReportError as error:
        assert "is outside the range" in str(error) or "a finite number" in str(error)


@pytest.mark.parametrize("value", [dt.datetime(2024, 1, 1), pd.Timestamp(0), np.datetime64(1, "s")])
def test_is_a_moment(value: Any) -> None:
    """Dates with a time are moments."""
    assert is_moment(value)


@pytest.mark.parametrize(
    "value", [dt.date(2024, 1, 1), pd.NaT, np.datetime64("NaT", "ns"), "2024", 1]
)
def test_is_no_moment(value: Any) -> None:
    """Dates, texts and numbers are not, nor is what is missing."""
    assert not is_moment(value)


FRAME = pd.DataFrame({"n": [1, 2]})
TABLE = {"records": [{"n": 1}, {"n": 2}], "schema": [{"name": "n", "type": "int64"}]}


class Color(enum.Enum):
    RED = "red"
    PATH = pathlib.PurePosixPath("/p")


def sent(value: Any) -> Any:
    """One value as Dagster gets it: its type and raw value, in JSON."""
    values = normalize_metadata({"k": value}, method="m")
    assert values is not None
    entry = json.loads(json.dumps(values["k"]))
    assert entry.keys() == {"raw_value", "type"}
    return entry["type"], entry["raw_value"]


def typed(kind: Any, raw: Any) -> dict[str, Any]:
    return {"type": kind, "raw_value": raw}


def refusal(metadata: Any) -> str:
    with pytest.raises(InvalidReportError) as caught:
        normalize_metadata(metadata, method="m")
    return str(caught.value)


def test_every_type_is_known() -> None:
    """The types are those of the wire."""
    assert set(get_args(PipesMetadataType)) == set(_CONVERSIONS)


@pytest.mark.parametrize("nothing", [None, {}, types.MappingProxyType({})])
def test_no_metadata(nothing: Any) -> None:
    """Nothing is null, as in dagster_pipes."""
    assert normalize_metadata(nothing, method="m") is None


@pytest.mark.parametrize("mapping", [dict, collections.UserDict, types.MappingProxyType])
def test_any_mapping(mapping: Any) -> None:
    """Metadata may be any mapping of names to values, and so may be a value with its type."""
    given = mapping({"a": 1, np.str_("b"): mapping(typed("float", 1))})
    expected = {"a": typed("__infer__", 1), "b": typed("float", 1.0)}
    assert expected == normalize_metadata(given, method="m")


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "",
        1,
        10**400,
        1.5,
        True,
        None,
        [],
        [1, "a"],
        {},
        {"a": {"b": 1}},
        {"type": "int", "n": 1},
    ],
)
def test_what_dagster_infers(value: Any) -> None:
    """What JSON knows goes out as it is, and Dagster finds the type."""
    assert ("__infer__", value) == sent(value)
    assert ("__infer__", value) == sent(typed("__infer__", value))


INFERRED: list[tuple[Any, Any]] = [
    (pathlib.PurePosixPath("/data/x"), ("path", "/data/x")),
    (dt.datetime(2024, 1, 1, tzinfo=UTC), ("timestamp", 1704067200.0)),
    (pd.Timestamp("2024-01-01"), ("timestamp", 1704067200.0)),
    (np.datetime64("2024-01-01"), ("timestamp", 1704067200.0)),
    (dt.date(2024, 1, 1), ("__infer__", "2024-01-01")),
    (dt.time(1), ("__infer__", "01:00:00")),
    (dt.timedelta(minutes=1), ("__infer__", 60.0)),
    (pd.NaT, ("__infer__", None)),
    (pd.NA, ("__infer__", None)),
    (decimal.Decimal("1.5"), ("__infer__", 1.5)),
    (uuid.UUID(int=1), ("__infer__", "00000000-0000-0000-0000-000000000001")),
    (Color.RED, ("__infer__", "red")),
    (Color.PATH, ("path", "/p")),
    (np.float32(0.5), ("__infer__", 0.5)),
    (np.int64(3), ("__infer__", 3)),
    (np.bool_(1), ("__infer__", True)),
    (np.arange(2), ("__infer__", [0, 1])),
    ({2, 1}, ("__infer__", [1, 2])),
    ((1, (2,)), ("__infer__", [1, [2]])),
    (types.MappingProxyType({"a": decimal.Decimal(1)}), ("__infer__", {"a": "1"})),
    (FRAME, ("table", TABLE)),
    (FRAME["n"], ("table", TABLE)),
    (
        pl.DataFrame({"n": [1, 2]}),
        ("table", {**TABLE, "schema": [{"name": "n", "type": "Int64"}]}),
    ),
]


@pytest.mark.parametrize(("value", "expected"), INFERRED)
def test_what_dagster_could_not_infer(value: Any, expected: Any) -> None:
    """Values of other kinds get the type that a user would expect."""
    assert expected == sent(value)
    assert expected == sent(typed("__infer__", value))


MOMENT = dt.datetime(2024, 1, 1, tzinfo=UTC)
LINEAGE = {"deps_by_column": {"c": [{"asset_key": ["up"], "column_name": "d"}]}}
SCHEMA = {"columns": [{"name": "n", "type": "int64"}]}

FITTING: list[tuple[str, Any, Any]] = [
    *((kind, "x", "x") for kind in ("text", "url", "path", "notebook", "md", "dagster_run")),
    *((kind, None, None) for kind in ("text", "url", "path", "notebook", "md")),
    ("text", PrintedText("x"), "x"),
    ("text", dt.date(2024, 1, 1), "2024-01-01"),
    ("path", pathlib.PurePosixPath("/p"), "/p"),
    ("notebook", pathlib.PurePosixPath("/p"), "/p"),
    ("dagster_run", uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("json", {"a": [1]}, {"a": [1]}),
    ("json", [1], [1]),
    ("json", "x", "x"),
    ("json", None, None),
    ("json", FRAME, [{"n": 1}, {"n": 2}]),
    ("float", 1.5, 1.5),
    ("float", 1, 1.0),
    ("float", np.float32(0.5), 0.5),
    ("float", decimal.Decimal("0.1"), 0.1),
    ("float", dt.timedelta(seconds=2), 2.0),
    ("float", None, None),
    ("float", math.inf, math.inf),
    ("float", "0.83", 0.83),
    ("float", " -1e-3\n", -0.001),
    ("float", "3", 3.0),
    ("int", 1, 1),
    ("int", 1.0, 1),
    ("int", True, 1),
    ("int", 10**400, 10**400),
    ("int", "12", 12),
    ("int", "12.0", 12),
    ("int", "9007199254740993", 9007199254740993),
    ("int", np.int8(1), 1),
    ("int", decimal.Decimal("1E+3"), 1000),
    ("int", decimal.Decimal("2.0"), 2),
    ("int", None, None),
    ("bool", True, True),
    ("bool", np.bool_(0), False),
    ("bool", None, None),
    ("asset", "up/stream", "up/stream"),
    ("asset", ["up", "stream"], "up/stream"),
    ("null", None, None),
    ("null", object(), None),
    ("timestamp", 1, 1.0),
    ("timestamp", MOMENT, 1704067200.0),
    ("timestamp", "2024-01-01T00:00:00Z", 1704067200.0),
    ("table", FRAME, TABLE),
    ("table", {"records": []}, {"records": [], "schema": []}),
    ("table_schema", FRAME, SCHEMA),
    ("table_schema", SCHEMA["columns"], SCHEMA),
    ("table_column_lineage", LINEAGE, LINEAGE),
]


@pytest.mark.parametrize(("kind", "raw", "expected"), FITTING)
def test_values_that_fit(kind: str, raw: Any, expected: Any) -> None:
    """A raw value arrives in the shape, and in the kind of number, that its type needs."""
    actual_kind, actual = sent(typed(kind, raw))
    assert kind == actual_kind
    assert expected == actual
    assert type(expected) is type(actual)


def test_nan_is_a_float() -> None:
    """NaN goes out as json writes it, as in dagster_pipes."""
    kind, value = sent(typed("float", math.nan))
    assert kind == "float"
    assert math.isnan(value)


@pytest.mark.parametrize("scalar", [1, 1.5, True, np.int64(1)])
def test_json_scalars(scalar: Any) -> None:
    """Dagster's json takes no numbers, so those go out as what they are."""
    assert ("__infer__", scalar) == sent(typed("json", scalar))


NOT_MOMENT = "must be a datetime, an ISO 8601 text or a finite number of seconds"

UNFIT: list[tuple[str, Any, str]] = [
    *((kind, 5, "must be a str") for kind in ("text", "url", "path", "notebook", "md")),
    ("text", ["a"], "must be a str"),
    ("dagster_run", None, "must be a str, the ID of a run"),
    ("dagster_run", 5, "must be a str, the ID of a run"),
    ("json", object(), "has no JSON form: convert it, or send a part of it"),
    ("float", "1,5", "must be a float or an int"),
    ("float", "1_5", "must be a float or an int"),
    ("float", "inf", "must be a float or an int"),
    ("float", "", "must be a float or an int"),
    ("float", True, "must be a float or an int"),
    ("float", np.bool_(1), "must be a float or an int"),
    ("float", 10**400, "is too large for a float"),
    ("int", "1.5", "must be an int, or a number without a fraction"),
    ("int", "9" * 5_000, "must be an int, or a number without a fraction"),
    ("int", "one", "must be an int, or a number without a fraction"),
    ("int", 1.5, "must be an int, or a number without a fraction"),
    ("int", math.nan, "must be an int, or a number without a fraction"),
    ("int", math.inf, "must be an int, or a number without a fraction"),
    ("int", decimal.Decimal("1.5"), "must be an int, or a number without a fraction"),
    ("int", decimal.Decimal("NaN"), "must be an int, or a number without a fraction"),
    ("int", decimal.Decimal("1E+999999"), "must be an int, or a number without a fraction"),
    (
        "int",
        decimal.Decimal("1E+4500"),
        "has too many digits (4,300 can be read at most); send a str",
    ),
    ("int", 10**4300, "has too many digits (4,300 can be read at most); send a str"),
    ("bool", 1, "must be a bool; convert with bool(...)"),
    ("bool", "true", "must be a bool; convert with bool(...)"),
    ("asset", 5, "must be an asset key: a str, or a list of its parts"),
    ("asset", ["a/b"], "has a part with a '/', which Dagster cannot refer to in metadata"),
    ("timestamp", None, NOT_MOMENT),
    ("timestamp", pd.NaT, NOT_MOMENT),
    ("timestamp", math.nan, NOT_MOMENT),
    ("timestamp", True, NOT_MOMENT),
    ("table", [1], "must be a data frame or a mapping with 'records' and 'schema'"),
    ("table_schema", {"schema": []}, "must have 'columns'"),
    (
        "table_column_lineage",
        [1],
        "must be a mapping of column names to lists of sources, or have that as 'deps_by_column'",
    ),
]


@pytest.mark.parametrize(("kind", "raw", "problem"), UNFIT)
def test_values_that_do_not_fit(kind: str, raw: Any, problem: str) -> None:
    """What Dagster's reader would stop at is refused, with its place."""
    assert refusal({"k": typed(kind, raw)}).startswith(
        f"m(): metadata['k']['raw_value'] {problem}; got"
    )


@pytest.mark.parametrize(
    "value",
    [
        {"raw_value": 5, "typ": "int"},
        {"raw_value": 5},
        {"raw_value": 5, "type": "int", "unit": "s"},
    ],
    ids=["a slip in 'type'", "no type", "a third key"],
)
def test_a_typed_value_with_a_slip_is_refused(value: Any) -> None:
    """It would arrive as JSON, without a word; who means JSON says so."""
    assert refusal({"k": value}).startswith(
        "m(): metadata['k'] has 'raw_value', but not exactly the keys 'raw_value' and 'type' of a"
        " typed value; to send it as JSON, use MetadataValue.json(...); got {'raw_value': 5"
    )
    assert sent(MetadataValue.json(value)) == ("json", value)


@pytest.mark.parametrize("value", [{"type": "int"}, {"type": "Point", "coordinates": [1, 2]}])
def test_json_with_a_key_type_is_json(value: Any) -> None:
    """JSON schemas, GeoJSON and much else have such a key, so nothing is made of it."""
    assert sent(value) == ("__infer__", value)


SEEN = {"nan": math.nan, "deep": [{"inf": (math.inf, 1.5)}], "-inf": -math.inf}
SHOWN = {"nan": None, "deep": [{"inf": ["Infinity", 1.5]}], "-inf": "-Infinity"}


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (SEEN, SHOWN),
        (MetadataValue.json(SEEN), SHOWN),
        ([np.float64("nan")], [None]),
        (np.array([1.5, math.nan]), [1.5, None]),
    ],
    ids=["a mapping", "typed", "a list", "an array"],
)
def test_nan_in_json_is_null(value: Any, raw: Any) -> None:
    """Dagster's web interface shows JSON as it is stored, and NaN is no JSON."""
    assert sent(value)[1] == raw


class Fitted(NamedTuple):
    statistic: float
    limits: Any


def test_a_named_tuple_arrives_with_its_names() -> None:
    """Results of statistics libraries are such tuples; a custom message keeps json's list."""
    fitted = Fitted(0.5, [Fitted(1.0, (2, 3))])
    expected = {"statistic": 0.5, "limits": [{"statistic": 1.0, "limits": [2, 3]}]}
    assert sent(fitted) == ("__infer__", expected)
    assert sent(MetadataValue.json({"a": fitted})) == ("json", {"a": expected})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (dagster.MetadataValue.job("job", "location"), "DagsterJobMetadataValue"),
        (dagster.MetadataValue.python_artifact(Fitted), "PythonArtifactMetadataValue"),
    ],
    ids=["job", "python artifact"],
)
def test_values_that_only_dagster_has(value: Any, kind: str) -> None:
    """Dagster's reader has no such type, so it is refused with advice."""
    problem = refusal({"k": value})
    assert problem.startswith(
        f"m(): metadata['k'] has no metadata type in Pipes; send its parts, for example as a dict; got {kind}"
    )


def test_dagsters_values_inside_json() -> None:
    """Inside a mapping there are no types, so their values count."""
    key = dagster.AssetKey(["a", "b"])
    given = {"n": dagster.MetadataValue.int(1), "key": key, "row": dagster.TableRecord({"n": 1})}
    assert sent(given) == ("__infer__", {"n": 1, "key": ["a", "b"], "row": {"n": 1}})


class CloudPath(os.PathLike[str]):
    """Like cloudpathlib's: to open it is to download it."""

    def __str__(self) -> str:
        return "s3://bucket/key.csv"

    def __fspath__(self) -> str:
        return "/tmp/cache/key.csv"


class FilePath(CloudPath):
    """Like universal_pathlib's of a local file."""

    def __str__(self) -> str:
        return "file:///data/key.csv"

    def __fspath__(self) -> str:
        return "/data/key.csv"


class RemotePath:
    """Like universal_pathlib's of remote storage: no `os.PathLike`."""

    def __str__(self) -> str:
        return "gs://bucket/key.csv"

    def joinpath(self, *parts: str) -> None: ...

    def as_uri(self) -> str:
        return str(self)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (CloudPath(), "s3://bucket/key.csv"),
        (RemotePath(), "gs://bucket/key.csv"),
        (FilePath(), "/data/key.csv"),
        (pathlib.PurePosixPath("/p"), "/p"),
    ],
    ids=["of a cloud", "not of os", "a file's URL", "of this machine"],
)
def test_a_remote_path_is_its_url(path: Any, text: str) -> None:
    """Not the file in a local cache that it may have."""
    assert sent(path) == ("path", text)
    assert sent(typed("path", path)) == ("path", text)
    assert sent({"a": path}) == ("__infer__", {"a": text})


def test_decimals_that_raise() -> None:
    """A signalling NaN raises when it is converted; the error is ours."""
    problem = refusal({"k": decimal.Decimal("sNaN")})
    assert problem.startswith("m(): metadata['k'] raised ValueError")


@pytest.mark.parametrize("kind", ["job", "TEXT", "pool", "", None, 5, ["text"]])
def test_unknown_types(kind: Any) -> None:
    """The error lists the types that there are."""
    problem = refusal({"k": typed(kind, "x")})
    assert problem.startswith(
        "m(): metadata['k']['type'] must be one of __infer__, text, url, path,"
    )


def test_types_that_are_subclasses_of_str() -> None:
    """The characters of a type count."""
    assert sent(typed(PrintedText("text"), "x")) == ("text", "x")


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        (
            [("a", 1)],
            "m(): metadata must be a mapping of names to values; got [('a', 1)] of type list",
        ),
        ([], "m(): metadata must be a mapping of names to values; got [] of type list"),
        ({5: 1}, "m(): metadata[5] is a name that is not a str; got 5 of type int"),
        ({None: 1}, "m(): metadata[None] is a name that is not a str; got None of type NoneType"),
        (
            {"k": {"rows": [1, {"b": b""}]}},
            (
                "m(): metadata['k']['rows'][1]['b'] is bytes: decode it, or encode it as text, for"
                " example in base64; got b'' of type bytes"
            ),
        ),
    ],
)
def test_what_is_refused(metadata: Any, error: str) -> None:
    """Method, parameter, path, problem and value are in the error."""
    assert error == refusal(metadata)


@pytest.mark.parametrize("hostile", [Raising, LyingClass])
@pytest.mark.parametrize("kind", [None, *_CONVERSIONS])
def test_values_that_raise(hostile: Any, kind: str | None) -> None:
    """For every type, whatever a value does when it is looked at, the error is ours."""
    value = hostile() if kind is None else typed(kind, hostile())
    if kind == "null":
        assert sent(value) == ("null", None)
    else:
        assert refusal({"k": value}).startswith("m(): metadata['k']")


def test_the_number_of_rows_is_beside_the_table() -> None:
    """A table shows the first rows; how many there are is a value of its own."""
    frame = pd.DataFrame({"n": range(1_000)})
    values = normalize_metadata({"rows": frame, "other": 1}, method="m")
    assert values is not None
    assert list(values) == ["rows", "other", "rows_row_count"]
    assert len(values["rows"]["raw_value"]["records"]) == 50
    assert values["rows"]["raw_value"].keys() == {"records", "schema"}
    assert typed("__infer__", 1_000) == values["rows_row_count"]


@pytest.mark.parametrize("order", [1, -1])
def test_the_users_own_name_wins(order: int) -> None:
    """A value that a user named like the number of rows stays, wherever it stands."""
    given = dict([("rows", FRAME), ("rows_row_count", "mine")][::order])
    values = normalize_metadata(given, method="m")
    assert values is not None
    assert typed("__infer__", "mine") == values["rows_row_count"]


def test_what_was_given_is_not_changed() -> None:
    """Neither the metadata nor its values are touched, so they can be reported again."""
    table = {"records": [{"n": 1}], "schema": [{"name": "n"}], "row_count": 5}
    given = {"t": typed("table", table)}
    copy = json.loads(json.dumps(given))
    first = normalize_metadata(given, method="m")
    assert copy == given
    assert first == normalize_metadata(given, method="m")
    assert first is not None
    assert typed("__infer__", 5) == first["t_row_count"]


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


DEPENDENCIES = {"c": [{"asset_key": "up", "column_name": "d"}]}

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
        MetadataValue.column_lineage(DEPENDENCIES),
        "table_column_lineage",
        {"deps_by_column": {"c": [{"asset_key": ["up"], "column_name": "d"}]}},
    ),
    (MetadataValue.null(), "null", None),
    (pipes_metadata_value(1), "__infer__", 1),
    (pipes_metadata_value(1, "float"), "float", 1.0),
    (pipes_metadata_value("x", type="md"), "md", "x"),
    (pipes_metadata_value(pathlib.PurePosixPath("/p")), "path", "/p"),
]


@pytest.mark.parametrize(("value", "kind", "raw"), MADE)
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


NOT_MADE = [
        (lambda: anyhow.text(5), "MetadataValue.text(): text must be a str; got 5 of type int"),
        (lambda: anyhow.float("x"), "MetadataValue.float(): value must be a float or an int; got 'x' of type str"),
        (lambda: MetadataValue.asset(["a/b"]), "MetadataValue.asset(): asset_key has a part with a '/', which Dagster cannot refer to in metadata; got ['a/b'] of type list"),
        (lambda: MetadataValue.table([{"n": []}]), "MetadataValue.table(): ['records'][0]['n'] must be a str, a number, a bool or None; got [] of type list"),
        (lambda: MetadataValue.json([print]), "MetadataValue.json(): data[0] has no JSON form: convert it, or send a part of it; got <built-in function print> of type builtin_function_or_method"),
        (lambda: pipes_metadata_value(5, "text"), "pipes_metadata_value(): raw_value must be a str; got 5 of type int"),
        (lambda: pipes_metadata_value([{1: 1, "1": 2}]), "pipes_metadata_value(): raw_value[0]['1'] is the second key that reads '1' in JSON; got '1' of type str"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "error"), NOT_MADE, ids=[error.partition("; got")[0] for _, error in NOT_MADE]
)
def test_what_a_constructor_refuses(make: Any, error: str) -> None:
    """The error comes where the value is made, and names the function."""
    with pytest.raises(InvalidReportError) as caught:
        make()
    assert error == str(caught.value)


def test_unknown_types_of_a_constructor() -> None:
    """The error names the argument and lists the types."""
    with pytest.raises(InvalidReportError) as caught:
        pipes_metadata_value("x", cast("Any", "job"))
    assert str(caught.value).startswith(
        "pipes_metadata_value(): type must be one of __infer__, text,"
    )


def test_values_that_raise_in_a_constructor() -> None:
    """Whatever the value does when it is looked at, the error is ours."""
    with pytest.raises(InvalidReportError, match="raised ZeroDivisionError"):
        pipes_metadata_value(LyingClass())
