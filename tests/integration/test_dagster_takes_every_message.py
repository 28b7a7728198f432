"""Dagster's own handler accepts the message of every call that is not refused."""

import datetime as dt
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster._core.pipes.context import PipesMessageHandler
from dagster._core.pipes.utils import PipesTempFileMessageReader

from dagsterpipes._protocol import messages
from dagsterpipes._protocol.encoder import MAX_NESTING
from dagsterpipes._protocol.metadata import MetadataValue, pipes_metadata_value
from dagsterpipes.exceptions import DagsterPipesError
from support.dagster_handler import in_dagster, quiet, read
from support.dagster_versions import FLOOR, lines, recorded, table, version_of
from support.random_reports import Call, ReportCallMaker

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning")


def line_of(call: Call) -> bytes:
    """The line of a call, as a session builds it."""
    if call.method == "close":
        return messages.closed(call.arguments["exc"])
    build: dict[str, Callable[..., bytes]] = {
        "log": messages.log,
        "report_asset_materialization": messages.asset_materialization,
        "report_asset_check": messages.asset_check,
        "report_custom_message": messages.custom_message,
        "log_external_stream": messages.external_stream,
        "opened": messages.opened,
    }
    return build[call.method](**call.arguments)


def random_calls(count: int) -> Iterator[Call]:
    """Calls of every method, and what only a session itself says."""
    maker = ReportCallMaker(seed=2024)
    for index, call in enumerate(maker.calls(count)):
        yield call
        if index % 8 == 0:
            yield maker.close()
            yield maker.opened()


def test_random_calls() -> None:
    """Of 5,000 random calls none puts a message on the wire that Dagster's handler cannot take."""
    tried, refused, taken = 0, 0, 0

    def body(new_handler: Callable[[], PipesMessageHandler]) -> None:
        nonlocal tried, refused, taken
        for call in random_calls(16_000):
            tried += 1
            try:
                line = line_of(call)
            except DagsterPipesError as error:
                assert str(error)
                refused += 1
            else:
                taken += 1
                read(new_handler(), line)

    in_dagster(body)
    assert tried >= 5_000
    # Both ways are gone often enough to mean something.
    assert min(refused, taken) >= 1_000, (tried, refused, taken)


def results_of(*lines: bytes) -> list[Any]:
    """What Dagster makes of these lines: materializations and checks."""
    results: list[Any] = []

    def body(new_handler: Callable[[], PipesMessageHandler]) -> None:
        handler = new_handler()
        for line in lines:
            read(handler, line)
        results.extend(handler.get_reported_results())

    in_dagster(body)
    return results


COLUMN = dg.TableColumn(
    "n", "int", "d", dg.TableColumnConstraints(False, True, ["> 0"]), {"k": "v"}
)
LINEAGE = dg.TableColumnLineage({"c": [dg.TableColumnDep(dg.AssetKey(["up", "x/y"]), "d")]})
MOMENT = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
FRAME = pd.DataFrame({"n": [1, 2], "f": [0.5, math.nan]})

ARRIVES: dict[str, tuple[Any, Any]] = {
    "text": (MetadataValue.text("x"), dg.MetadataValue.text("x")),
    "url": (MetadataValue.url("x"), dg.MetadataValue.url("x")),
    "path": (MetadataValue.path("x"), dg.MetadataValue.path("x")),
    "notebook": (MetadataValue.notebook("x"), dg.MetadataValue.notebook("x")),
    "json": (MetadataValue.json({"a": [1]}), dg.MetadataValue.json({"a": [1]})),
    "json text": (MetadataValue.json("x"), dg.JsonMetadataValue("x")),
    "json int": (MetadataValue.json(1), dg.MetadataValue.int(1)),
    "md": (MetadataValue.md("x"), dg.MetadataValue.md("x")),
    "float": (MetadataValue.float(1), dg.MetadataValue.float(1.0)),
    "int": (pipes_metadata_value(1.0, "int"), dg.MetadataValue.int(1)),
    "long int": (10**400, dg.MetadataValue.int(10**400)),
    "bool": (MetadataValue.bool(True), dg.MetadataValue.bool(True)),
    "timestamp": (MetadataValue.timestamp(MOMENT), dg.MetadataValue.timestamp(MOMENT)),
    "run": (MetadataValue.dagster_run("x"), dg.MetadataValue.dagster_run("x")),
    "asset": (MetadataValue.asset("a/b"), dg.MetadataValue.asset(dg.AssetKey(["a", "b"]))),
    "null": (MetadataValue.null(), dg.MetadataValue.null()),
    "table": (
        MetadataValue.table(
            [{"n": 1}, {"n": None}],
            [
                {
                    "name": "n",
                    "type": "int",
                    "description": "d",
                    "tags": {"k": "v"},
                    "constraints": {"nullable": False, "unique": True, "other": ["> 0"]},
                }
            ],
        ),
        dg.MetadataValue.table(
            [dg.TableRecord({"n": 1}), dg.TableRecord({"n": None})], dg.TableSchema([COLUMN])
        ),
    ),
    "table schema": (
        MetadataValue.table_schema(FRAME),
        dg.MetadataValue.table_schema(
            dg.TableSchema([dg.TableColumn("n", "int64"), dg.TableColumn("f", "float64")])
        ),
    ),
    "lineage": (
        MetadataValue.column_lineage({"c": [{"asset_key": r"up/x\/y", "column_name": "d"}]}),
        dg.MetadataValue.column_lineage(
            dg.TableColumnLineage({"c": [dg.TableColumnDep(dg.AssetKey(["up", "x/y"]), "d")]})
        ),
    ),
    "inferred text": ("x", dg.MetadataValue.text("x")),
    "inferred int": (np.int64(1), dg.MetadataValue.int(1)),
    "inferred float": (np.float32(0.5), dg.MetadataValue.float(0.5)),
    "inferred bool": (np.bool_(1), dg.MetadataValue.bool(True)),
    "inferred null": (pd.NA, dg.MetadataValue.null()),
    "inferred path": (pathlib.PurePosixPath("/p"), dg.MetadataValue.path("/p")),
    "inferred timestamp": (MOMENT, dg.MetadataValue.timestamp(MOMENT)),
    "inferred json": ({"a": {1}}, dg.MetadataValue.json({"a": [1]})),
    "inferred list": ((1,), dg.MetadataValue.json([1])),
    "inferred table": (
        FRAME,
        dg.MetadataValue.table(
            [dg.TableRecord({"n": 1, "f": 0.5}), dg.TableRecord({"n": 2, "f": None})],
            dg.TableSchema([dg.TableColumn("n", "int64"), dg.TableColumn("f", "float64")]),
        ),
    ),
}


def test_what_the_web_interface_gets_is_json() -> None:
    """Dagster hands JSON and rows to its page as `json.dumps` writes them; NaN would be no JSON."""
    cells = {"nan": math.nan, "inf": math.inf}
    given = {
        "table": MetadataValue.table([cells]),
        "json": MetadataValue.json([cells]),
        "inferred": {"deep": [(cells,)]},
        "frame": pd.DataFrame([cells]),
    }
    line = messages.asset_materialization(asset_key="a", data_version=None, metadata=given)
    (result,) = results_of(line)
    shown = {"nan": None, "inf": "Infinity"}
    for name in ("table", "frame"):
        assert [record.data for record in result.metadata[name].records] == [shown]
    assert result.metadata["json"].data == [shown]
    assert result.metadata["inferred"].data == {"deep": [[shown]]}


def test_dagsters_own_metadata_arrives_as_it_is() -> None:
    """A value made by Dagster's MetadataValue, or one that Dagster infers, is the same there."""
    values = {name: value for name, (_, value) in ARRIVES.items()}
    line = messages.asset_materialization(asset_key="a", data_version=None, metadata=values)
    (result,) = results_of(line)
    assert dict(result.metadata) == {
        **values,
        "json text": dg.MetadataValue.json("x"),
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (dg.AssetKey(["a", "b"]), dg.MetadataValue.asset(dg.AssetKey(["a", "b"]))),
        (dg.TableSchema([COLUMN]), dg.MetadataValue.table_schema(dg.TableSchema([COLUMN]))),
        (LINEAGE, dg.MetadataValue.column_lineage(LINEAGE)),
        (
            MetadataValue.table([dg.TableRecord({"n": 1})], dg.TableSchema([COLUMN])),
            dg.MetadataValue.table([dg.TableRecord({"n": 1})], dg.TableSchema([COLUMN])),
        ),
        (
            MetadataValue.table_schema([COLUMN]),
            dg.MetadataValue.table_schema(dg.TableSchema([COLUMN])),
        ),
        (
            MetadataValue.column_lineage(LINEAGE.deps_by_column),
            dg.MetadataValue.column_lineage(LINEAGE),
        ),
    ],
    ids=["key", "schema", "lineage", "parts of a table", "columns", "dependencies"],
)
def test_dagsters_own_objects_arrive(given: Any, expected: Any) -> None:
    """Keys, schemas, lineages and records made for Dagster need no rewriting."""
    line = messages.asset_materialization(asset_key="a", data_version=None, metadata={"k": given})
    (result,) = results_of(line)
    assert dict(result.metadata) == {"k": expected}


def test_every_metadata_type_arrives() -> None:
    """Dagster has the value that its own MetadataValue would have made, for every type."""
    line = messages.asset_materialization(
        asset_key=r"a/b\/c",
        data_version="v",
        metadata={name: given for name, (given, _) in ARRIVES.items()},
    )
    (result,) = results_of(line)
    metadata = dict(result.metadata)
    assert metadata.pop("inferred table_row_count") == dg.MetadataValue.int(2)
    assert metadata == {name: expected for name, (_, expected) in ARRIVES.items()}
    assert result.asset_key == dg.AssetKey(["a", "b/c"])
    assert result.data_version == dg.DataVersion("v")


@pytest.mark.parametrize("version", recorded()["versions"])
def test_dagster_from_the_floor_takes_every_kind_of_message(version: str) -> None:
    """No reader of a supported version stops, and the floor is no higher than it must be."""
    stopped = [name for name, taken in recorded()["versions"][version].items() if not taken]
    assert bool(stopped) is (version_of(version) < FLOOR), stopped


def test_the_versions_were_given_what_is_sent_now() -> None:
    """The recorded messages are today's; if not, run tests/support/dagster_versions.py again."""
    assert recorded()["messages"] == {name: line.decode() for name, line in lines().items()}
    page = pathlib.Path(__file__).parents[2] / "docs/explanation/what-the-reader-takes.md"
    assert table(recorded()) in page.read_text("utf-8")


def test_checks_arrive() -> None:
    """A check has its outcome, its severity and its metadata."""
    line = messages.asset_check(
        asset_key="a",
        check_name="c",
        passed=cast("Any", np.False_),
        severity="WARN",
        metadata={"n": 1},
    )
    (result,) = results_of(line)
    assert result == dg.AssetCheckResult(
        asset_key=dg.AssetKey("a"),
        check_name="c",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"n": 1},
    )


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda value: [value], id="lists"),
        pytest.param(lambda value: {"k": value}, id="mappings"),
    ],
)
def test_the_deepest_value_is_stored_and_read(wrap: Any, tmp_path: pathlib.Path) -> None:
    """A value of as many levels as we take goes through Dagster's storage and back."""
    value: Any = wrap(1)
    for _ in range(MAX_NESTING - 1):
        value = wrap(value)
    line = messages.asset_materialization(
        asset_key="step", data_version=None, metadata={"k": value}
    )

    @dg.asset
    def step(context: dg.AssetExecutionContext) -> Any:
        handler = PipesMessageHandler(context, PipesTempFileMessageReader())
        handler.handle_message(json.loads(line))
        (result,) = handler.get_reported_results()
        return result

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, quiet():
        dg.materialize([step], instance=instance)
        event = instance.get_latest_materialization_event(dg.AssetKey("step"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["k"].value == value
