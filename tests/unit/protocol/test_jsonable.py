"""Values that JSON does not know: what each becomes, one step at a time."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pathlib
import sqlite3
import subprocess
import sys
import types
import uuid
from typing import Any, ClassVar

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest

from dagsterpipes._protocol.dataframes import Unsupported
from dagsterpipes._protocol.jsonable import is_a, is_missing, to_jsonable


class Color(enum.Enum):
    RED = ("r", 1)


@dataclasses.dataclass
class Parent:
    name: str
    child: Any
    kind: ClassVar[str] = "not a field"


@attrs.define
class Defined:
    name: str


class Model(pydantic.BaseModel):
    name: str


class Struct:
    """Looks like a msgspec struct."""

    __struct_fields__ = ("name",)
    name = "n"


class Tensor:
    """Looks like a tensor: rows are tensors, and iterating is no way to its numbers."""

    def tolist(self) -> list[float]:
        return [1.5]

    def __iter__(self) -> Any:
        raise AssertionError("asked to iterate")


def sqlite_row() -> Any:
    with sqlite3.connect(":memory:") as connection:
        connection.row_factory = sqlite3.Row
        row = connection.execute("select 1 as a, 'x' as b").fetchone()
    connection.close()
    return row


UTC = dt.timezone.utc

CASES: list[tuple[Any, Any]] = [
    (Color.RED, ("r", 1)),
    # numpy
    (np.float32(1.5), 1.5),
    (np.longdouble(1.5), 1.5),
    (np.int8(-3), -3),
    (np.bool_(1), True),
    (np.zeros(1, dtype=[("a", int)])[0], (0,)),
    (np.datetime64("2024-01-02T03:04"), "2024-01-02T03:04"),
    (np.datetime64("NaT", "ns"), None),
    (np.timedelta64(3, "m"), 180.0),
    (np.timedelta64("NaT", "ns"), None),
    (np.ma.masked, None),
    (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    (np.array(3), 3),
    (np.array(["2024"], "M8[ns]"), [np.datetime64("2024-01-01", "ns")]),
    (np.array(np.datetime64("2024")), dt.date(2024, 1, 1)),
    (np.ma.masked_array([1, 2], mask=[True, False]), [None, 2]),
    (np.zeros(1, dtype=[("a", int), ("b", float)]), [(0, 0.0)]),
    # pandas, polars, pyarrow
    (pd.NaT, None),
    (pd.NA, None),
    (pd.Timestamp("2024-01-02", tz="UTC"), "2024-01-02T00:00:00+00:00"),
    (pd.Timedelta("1D"), 86400.0),
    (pd.Period("2024-01"), "2024-01"),
    (pd.Interval(1, 2), "(1, 2]"),
    (pd.Index(["a", "b"]), ["a", "b"]),
    (pd.Categorical(["x"]), ["x"]),
    (pd.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
    (pd.Series([1, 2], index=["x", "y"]), {"x": 1, "y": 2}),
    (pd.Series([1.5]), [1.5]),
    (pl.Series([1, None]), [1, None]),
    (pl.DataFrame({"a": [1]}), [{"a": 1}]),
    (pa.table({"a": [1]}), [{"a": 1}]),
    (pa.array([1, None]), [1, None]),
    (pa.scalar(4), 4),
    # the standard library
    (dt.datetime(2024, 1, 2, 3, tzinfo=UTC), "2024-01-02T03:00:00+00:00"),
    (dt.date(2024, 1, 2), "2024-01-02"),
    (dt.time(3, 4), "03:04:00"),
    (dt.timedelta(minutes=1, milliseconds=500), 60.5),
    (decimal.Decimal("1.10"), "1.10"),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
    (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    (pathlib.PurePosixPath("/data/x"), "/data/x"),
    (array.array("i", [1, 2]), [1, 2]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    (range(3), [0, 1, 2]),
    (collections.deque([1, 2]), [1, 2]),
    (collections.UserList([1]), [1]),
    ({"b": 1, "a": 2}.keys(), ["b", "a"]),
    ({"b": 1, "a": 2}.values(), [1, 2]),
    (sqlite_row(), {"a": 1, "b": "x"}),
    # classes with fields
    (Parent("p", [1]), {"name": "p", "child": [1]}),
    (Defined("d"), {"name": "d"}),
    (Model(name="m"), {"name": "m"}),
    (Struct(), {"name": "n"}),
    (Tensor(), [1.5]),
]


@pytest.mark.parametrize(("value", "expected"), CASES)
def test_one_step(value: Any, expected: Any) -> None:
    """Each value becomes what its owner would expect."""
    actual = to_jsonable(value)
    assert expected == actual
    assert type(expected) is type(actual)


def test_sets_of_mixed_kinds() -> None:
    """A set that has no order still becomes a list of its items."""
    assert {1, "a", None} == set(to_jsonable({1, "a", None}))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"x", "is bytes: decode it, or encode it as text, for example in base64"),
        (bytearray(b"x"), "is bytes: decode it, or encode it as text, for example in base64"),
        (memoryview(b"x"), "is bytes: decode it, or encode it as text, for example in base64"),
        (np.bytes_(b"x"), "is bytes: decode it, or encode it as text, for example in base64"),
        (np.complex128(1j), "is a complex number: send its parts"),
        (iter([1]), "can be read only once: make a list of it"),
        (pl.LazyFrame({"a": [1]}), "is not computed yet: collect() it"),
        (
            pd.Series([1, 2], index=["x", "x"]),
            "has a label twice: send .tolist() or .reset_index() of it",
        ),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "has two columns named 'a'"),
        (object(), "has no JSON form: convert it, or send a part of it"),
        (1j, "has no JSON form: convert it, or send a part of it"),
        (Parent, "has no JSON form: convert it, or send a part of it"),
        (print, "has no JSON form: convert it, or send a part of it"),
        (types, "has no JSON form: convert it, or send a part of it"),
    ],
)
def test_what_has_no_form(value: Any, problem: str) -> None:
    """Where any form would be a guess, the error says what to do."""
    with pytest.raises(Unsupported) as caught:
        to_jsonable(value)
    assert problem == str(caught.value)


def test_a_lost_field_is_an_error() -> None:
    """A data class without one of its fields is not sent without it."""
    broken = Parent("p", 1)
    del broken.child
    with pytest.raises(AttributeError, match="child"):
        to_jsonable(broken)


@pytest.mark.parametrize("value", [pd.NaT, pd.NA, np.ma.masked, np.datetime64("NaT", "ns")])
def test_missing(value: Any) -> None:
    """The ways of pandas and numpy to say that there is no value."""
    assert is_missing(value)


@pytest.mark.parametrize("value", [None, 0, "", float("nan"), np.array([]), pd.Timestamp(0)])
def test_not_missing(value: Any) -> None:
    """NaN is a float, and what is empty is there."""
    assert not is_missing(value)


def test_modules_that_are_not_loaded() -> None:
    """A value cannot be of a class whose module nobody imported."""
    assert "this.module.is.not.loaded" not in sys.modules
    assert not is_a(object(), "this.module.is.not.loaded", "Class")
    assert is_a(dt.date(2024, 1, 1), "datetime", "datetime", "date")


def test_nothing_heavy_is_imported() -> None:
    """Sending values imports none of the libraries whose values are known."""
    code = """
import logging, sys  # which imports some of them from Python 3.14 on
before = set(sys.modules)
from dagsterpipes._protocol.messages import asset_materialization
from dagsterpipes._protocol.metadata import MetadataValue
asset_materialization(
    asset_key="a", data_version=None, metadata={"a": {1, 2}, "b": MetadataValue.table([{"c": 1}])}
)
print(sorted((set(sys.modules) - before) & set(sys.argv[1].split())))
"""
    heavy = (
        "numpy pandas polars pyarrow decimal uuid dataclasses datetime asyncio anyio inspect"
        " typing_extensions pathlib ipaddress concurrent"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


class Account(pydantic.BaseModel):
    name: str
    password: pydantic.SecretStr
    since: dt.date


class Fit(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    weights: Any


def test_a_model_is_sent_in_its_json_mode() -> None:
    """Its own form for JSON counts, and a secret in it stays masked."""
    account = Account(name="n", password=pydantic.SecretStr("hunter2"), since=dt.date(2024, 1, 1))
    expected = {"name": "n", "password": "**********", "since": "2024-01-01"}
    assert to_jsonable(account) == expected


def test_a_model_without_a_json_mode() -> None:
    """A field that pydantic cannot convert may be one that we can."""
    assert to_jsonable(Fit(weights=np.array([1, 2])))["weights"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "secret", [pydantic.SecretStr("hunter2"), pydantic.SecretBytes(b"hunter2")]
)
def test_a_secret_stays_masked(secret: Any) -> None:
    """It goes out as pydantic prints it."""
    assert "hunter2" not in to_jsonable(secret)
    assert "***" in to_jsonable(secret)
