"""Random calls of the reporting methods, with valid and invalid arguments.

Values that users pass, values that are known to stop Dagster's reader, and the objects of `doubles`. A call names a method of ``PipesContext`` and its arguments.

Plain `random`, not hypothesis: that one takes the ``repr()`` of what it makes, which some of these
objects do not survive, and it is two orders of magnitude slower.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import math
import pathlib
import random
import types
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl

from support.doubles import (
    Color,
    EndlessMapping,
    Level,
    LyingClass,
    Point,
    PrintedFloat,
    PrintedInt,
    PrintedText,
    Raising,
    RaisingMapping,
    Record,
    Severity,
    TwinText,
    circular_exception,
    cycle,
    nested,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Call(NamedTuple):
    """One call: a method of ``PipesContext`` and its keyword arguments."""

    method: str
    arguments: dict[str, Any]


METADATA_TYPES = [
    "__infer__",
    "text",
    "url",
    "path",
    "notebook",
    "json",
    "md",
    "float",
    "int",
    "bool",
    "dagster_run",
    "asset",
    "null",
    "table",
    "table_schema",
    "table_column_lineage",
    "timestamp",
]

TEXTS = ["", "a", "b", "\0", "\u2028", "\ud800", "\ud83d\ude00", "\udc80x", r"a\/b", "up/stream"]
TEXTS += ["%s %d", '"', "\n\n", "é", "🙂", "x" * 5_000, "2024-01-01T00:00:00Z", "NaN"]
INTEGERS = [
    0,
    1,
    -1,
    7,
    2**53,
    2**63,
    2**64,
    -(2**80),
    10**400,
    10**4299,
    10**4300 - 1,
    1 - 10**4300,
]
FLOATS = [0.0, -0.0, 1.0, 1.5, math.nan, math.inf, -math.inf, 1e308, 5e-324, 1e16]
MOMENTS = [
    dt.datetime(2024, 2, 29, 12),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-7))),
    dt.datetime.min,
    dt.datetime.max,
    pd.Timestamp("2024-01-01"),
    pd.Timestamp("2024-01-01", tz="Europe/Berlin"),
    pd.NaT,
    np.datetime64("2024-01-01"),
    np.datetime64(1, "ns"),
    np.datetime64("NaT", "ns"),
    np.datetime64("30000-01-01"),
    dt.date(2024, 1, 1),
]
FRAME = pd.DataFrame({"n": [1, 2, 3], "f": [1.5, math.nan, math.inf]})
FRAMES = [
    FRAME,
    FRAME["f"],
    FRAME.set_index("n"),
    FRAME.set_index(["n", "f"]),
    FRAME.rename(columns={"f": "n"}),
    FRAME[FRAME["n"] > 1],
    FRAME.head(0),
    FRAME["n"].value_counts(),
    pd.DataFrame({"o": [{"a": [1]}, b"x", object()], "t": [dt.date(2024, 1, 1)] * 3}),
    pl.DataFrame({"n": [1, 2], "l": [[1], []]}),
    pl.Series("s", [1.5, None]),
    pl.LazyFrame({"n": [1]}),
]
FOREIGN = [
    *(np.float32(1.5), np.int64(3), np.bool_(1), np.timedelta64(3, "m"), np.uint8(1)),
    *(np.zeros((2, 2)), np.array(3), np.array([object()]), np.array(["a", None])),
    np.array([np.datetime64(1, "s"), np.datetime64("NaT", "ns")]),
    np.ma.masked_array([1, 2], mask=[True, False]),
    *(pd.NA, pd.Timedelta("1D"), pd.Period("2024"), pd.Index(["a"])),
    *(dt.time(3), dt.timedelta(days=2), dt.timedelta.max),
    *map(decimal.Decimal, ["1.10", "7", "NaN", "sNaN", "1E+999999", "-Inf"]),
    *(uuid.UUID(int=7), pathlib.Path("/data/x"), pathlib.PurePosixPath("y")),
    *(Color.RED, Color.NESTED, frozenset({1, 2}), {1, "a"}, range(3)),
]
LEVELS: list[Any] = [10, 20, 15, 5, 0, -3, 25, 49, 50, 10**30, True, None, 20.0]
LEVELS += ["INFO", "info", "Warn", "fatal", "NOTSET", "Level 15", "", "20", "TRACE", Level.LOW]
SEVERITIES = ["WARN", "ERROR", Severity.WARN, "warn", "WARNING", "INFO", "", None]


class ReportCallMaker:
    """Makes random calls.

    Args:
        seed: The same seed makes the same calls.
        asset_keys: What to report on; anything at all by default.
    """

    def __init__(self, seed: int, asset_keys: list[Any] | None = None) -> None:
        self._random = random.Random(seed)
        self._asset_keys = asset_keys

    def calls(self, count: int) -> Iterator[Call]:
        """As many calls, of every method but ``close``."""
        reports = [self.materialization, self.check] * 3  # metadata is where most can go wrong
        makers = [*reports, self.log, self.custom_message, self.stream]
        for _ in range(count):
            yield self._random.choice(makers)()

    def log(self) -> Call:
        return Call(
            "log",
            {
                "message": self._either(self.text, self.value),
                "level": self._either(lambda: self._random.choice(LEVELS), self.value),
            },
        )

    def materialization(self) -> Call:
        return Call(
            "report_asset_materialization",
            {
                "metadata": self.metadata(),
                "data_version": self._one_of([None, *TEXTS]),
                "asset_key": self._asset_key(),
            },
        )

    def check(self) -> Call:
        return Call(
            "report_asset_check",
            {
                "check_name": self._one_of(TEXTS),
                "passed": self._one_of(
                    [True, False, np.bool_(1), np.bool_(0)] * 3 + [0, 1, None, ""]
                ),
                "severity": self._one_of(["WARN", "ERROR"] * 15 + SEVERITIES),
                "metadata": self.metadata(),
                "asset_key": self._asset_key(),
            },
        )

    def custom_message(self) -> Call:
        return Call("report_custom_message", {"payload": self.value()})

    def stream(self) -> Call:
        return Call(
            "log_external_stream",
            {
                "stream": self._one_of(["stdout", "stderr"] * 5 + ["stdin", None]),
                "text": self._either(self.text, self.value),
                "extras": self._maybe(lambda: self.mapping(self.value)),
            },
        )

    def close(self) -> Call:
        return Call("close", {"exc": self.exception(3)})

    def opened(self) -> Call:
        """Not a method of ``PipesContext``: what a message writer's extras lead to."""
        return Call(
            "opened", {"extras": self._either(lambda: self.mapping(self.value), self.value)}
        )

    # -- values ------------------------------------------------------------------------------------

    def text(self) -> str:
        text = self._random.choice(TEXTS)
        return self._random.choice([text, text, text, PrintedText(text), np.str_(text)])

    def integer(self) -> int:
        number = self._random.choice(INTEGERS)
        return self._random.choice([number, number, PrintedInt(number), Level.LOW])

    def real(self) -> float:
        number = self._random.choice(FLOATS)
        return self._random.choice([number, number, PrintedFloat(number), np.float64(number)])

    def scalar(self) -> Any:
        makers: list[Callable[[], Any]] = [
            self.text,
            self.integer,
            self.real,
            lambda: self._random.choice([None, True, False]),
        ]
        return self._random.choice(makers)()

    def json_value(self, depth: int = 3) -> Any:
        """What `json.dumps` takes."""
        if not depth or self._random.random() < 0.4:
            return self.scalar()
        items = [self.json_value(depth - 1) for _ in range(self._random.randrange(4))]
        pairs = {self.scalar(): item for item in items}
        named = {self.text(): item for item in items}
        return self._random.choice(
            [
                items,
                tuple(items),
                named,
                named,
                pairs,
                collections.OrderedDict(pairs),
                collections.defaultdict(list, named),
                Point(1, items),
            ]
        )

    def foreign(self) -> Any:
        """A value that JSON does not know and that people have."""
        kind = self._random.random()
        if kind < 0.2:
            return self._random.choice(FRAMES)
        if kind < 0.4:
            return self._random.choice(MOMENTS)
        if kind < 0.8:
            return self._random.choice(FOREIGN)
        value = self.json_value()
        makers: list[Callable[[], Any]] = [
            lambda: Record("r", value),
            lambda: types.MappingProxyType({"a": value}),
            lambda: collections.UserDict({"a": value}),
            lambda: collections.deque([value]),
            {"a": value}.values,
        ]
        return self._random.choice(makers)()

    def hostile(self) -> Any:
        """A value that must be refused, or that tries to break whoever reads it."""
        makers: list[Callable[[], Any]] = [
            object,
            Raising,
            LyingClass,
            RaisingMapping,
            EndlessMapping,
            cycle,
            lambda: nested(self._random.choice([150, 199, 200, 201, 500, 5_000])),
            lambda: self._random.choice([10**4300, -(10**5000)]),
            lambda: self._random.choice([1j, np.complex64(1), b"bytes", ..., object, print]),
            lambda: self._random.choice(
                [{1: 1, "1": 2}, {None: 1, "null": 2}, {(1, 2): 3}, {b"k": 1}]
            ),
            lambda: {"twin": 1, TwinText("twin"): 2},
            lambda: (i for i in range(3)),
            lambda: {Raising(): 1},
        ]
        return self._random.choice(makers)()

    def value(self) -> Any:
        """Any value at all."""
        inner = self._random.choice(
            [self.json_value, self.json_value, self.foreign, self.foreign, self.hostile]
        )()
        return self._random.choice([inner, inner, [inner], {self.text(): inner}])

    def mapping(self, of: Callable[[], Any]) -> dict[Any, Any]:
        return {self.text(): of() for _ in range(self._random.randrange(3))}

    # -- metadata ----------------------------------------------------------------------------------

    def metadata(self) -> Any:
        one = self._random.random()
        if one < 0.05:
            return self.value()
        if one < 0.1:
            return {self.scalar(): self.value()}
        values = self.mapping(lambda: self._either(self.typed_value, self.value))
        return self._random.choice([values, values, types.MappingProxyType(values), None])

    def typed_value(self) -> Any:
        """A value with its type; three of four fit it, more or less."""
        kind: Any = self._random.choice(METADATA_TYPES)
        raw = self.raw_value(kind) if self._random.random() < 0.75 else self.value()
        if self._random.random() < 0.05:
            kind = self._random.choice(["job", "TEXT", None, 5, PrintedText("text"), [], Raising()])
        return {"type": kind, "raw_value": raw}

    def raw_value(self, kind: str) -> Any:
        """A raw value that may well fit a type."""
        makers: dict[str, Callable[[], Any]] = {
            "text": self.text,
            "url": self.text,
            "md": self.text,
            "dagster_run": self.text,
            "path": lambda: self._either(self.text, lambda: pathlib.Path("p")),
            "notebook": lambda: self._either(self.text, lambda: pathlib.Path("p")),
            "int": lambda: self._either(self.integer, self.real),
            "float": lambda: self._either(self.real, self.integer),
            "bool": lambda: self._one_of([True, False, np.bool_(1), None, 0]),
            "asset": self._reference,
            "table": self._table,
            "table_schema": lambda: self._either(
                self._columns, lambda: {"columns": self._columns()}
            ),
            "table_column_lineage": lambda: {"deps_by_column": self._lineage()},
            "timestamp": lambda: self._random.choice(
                [*MOMENTS, 1, 1.5, math.nan, 10**400, "2024-01-01T00:00:00Z", "2024-01-01", "soon"]
            ),
        }
        return makers.get(kind, self.value)()

    def _table(self) -> Any:
        if self._random.random() < 0.3:
            return self._random.choice(FRAMES)
        names = self._random.choice([["a"], ["a", "b"], []])
        records: Any = [
            {name: self._either(self.scalar, self.foreign) for name in names}
            for _ in range(self._random.randrange(3))
        ]
        records += self._random.choice([[], [], [], [{"a": 1}], [{"c": []}], [[1]]])
        table: dict[str, Any] = {
            "records": self._random.choice([records] * 6 + [self._random.choice(FRAMES), {}])
        }
        if self._random.random() < 0.7:
            columns = self._columns()
            table["schema"] = self._random.choice([columns, {"columns": columns}, None])
        if self._random.random() < 0.2:
            table["row_count"] = self._one_of([3, 10**6, np.int64(3), True, None, "3"])
        return table

    def _columns(self) -> Any:
        return [self._column() for _ in range(self._random.randrange(3))]

    def _column(self) -> Any:
        column: dict[str, Any] = {"name": self.text(), "type": "int"}
        optional: dict[str, Callable[[], Any]] = {
            "type": lambda: self._one_of(["float", None, int]),
            "description": lambda: self._maybe(self.text),
            "tags": lambda: self._maybe(lambda: self.mapping(self.text)),
            "constraints": lambda: self._maybe(self._constraints),
            "unknown": self.value,
        }
        for key, make in optional.items():
            if self._random.random() < 0.3:
                column[key] = make()
        if self._random.random() < 0.05:
            del column["name"]
        return column

    def _constraints(self) -> Any:
        good = [{}, {"nullable": True}, {"unique": np.bool_(1), "other": ["> 1"]}, {"other": None}]
        bad = [
            {"unique": None},
            {"nullable": 1},
            {"other": "> 1"},
            {"other": [1]},
            {"check": "> 1"},
        ]
        return self._one_of([*good * 2, *bad])

    def _lineage(self) -> Any:
        def sources() -> list[Any]:
            some = [self._source() for _ in range(self._random.randrange(3))]
            return some * self._random.choice([1, 1, 1, 2])

        return self.mapping(sources)

    def _source(self) -> Any:
        source = {"asset_key": self._reference(), "column_name": self.text()}
        if self._random.random() < 0.05:
            source["unknown"] = 1
        return source

    def _reference(self) -> Any:
        parts = [self.text() for _ in range(self._random.randrange(3))]
        return self._random.choice(
            [self.text(), "up", "up/x", r"up\/x", "", "/", parts, tuple(parts)]
        )

    # -- exceptions --------------------------------------------------------------------------------

    def exception(self, depth: int) -> Any:
        if self._random.random() < 0.05:
            return self._random.choice([circular_exception, self.value])()
        exception: dict[str, Any] = {"message": self._random.choice([*TEXTS * 3, None])}
        optional: dict[str, Callable[[], Any]] = {
            "stack": lambda: self._random.choice(
                [[], ["line"], ("line",), None] * 5 + ["line", [1]]
            ),
            "name": lambda: self._random.choice(["Error", None] * 5 + [5]),
            "cause": lambda: self.exception(depth - 1) if depth else None,
            "context": lambda: self.exception(depth - 1) if depth else [],
            "unknown": self.value,
        }
        for key, make in optional.items():
            if self._random.random() < 0.5:
                exception[key] = make()
        return exception

    # -- choices -----------------------------------------------------------------------------------

    def _asset_key(self) -> Any:
        if self._asset_keys is not None:
            return self._random.choice(self._asset_keys)
        return self._one_of(["a", "a/b", r"a\/b", "\\", "/"] * 5 + ["", None])

    def _one_of(self, options: list[Any]) -> Any:
        """One of these; now and then anything else."""
        return self.value() if self._random.random() < 0.03 else self._random.choice(options)

    def _either(self, usual: Callable[[], Any], other: Callable[[], Any]) -> Any:
        return usual() if self._random.random() < 0.8 else other()

    def _maybe(self, usual: Callable[[], Any]) -> Any:
        return self._random.choice([lambda: None, *[usual] * 8, self.value])()
