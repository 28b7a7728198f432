"""The public API as users write it, for type checkers; never run."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import ipaddress
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster
import dagster_pipes
import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import polars as pl
import pydantic
from typing_extensions import Unpack, assert_type

import dagsterpipes as dp
from dagsterpipes import testing
from dagsterpipes import typing as shapes


def opening() -> None:
    pipes = dp.open_dagster_pipes(
        flush_interval=0.1, on_full="drop_logs", coalesce_logs=0.5, log_level="INFO"
    )
    assert_type(pipes, dp.PipesContext)
    with pipes as same:
        assert_type(same, dp.PipesContext)
    with dp.open_dagster_pipes(capture_stdio=True, capture_logging=logging.DEBUG):
        pass
    assert_type(dp.PipesContext.get(), dp.PipesContext)
    assert_type(dp.PipesContext.is_initialized(), bool)
    helper(dp.NullPipesContext())
    dp.open_dagster_pipes(on_full="fail")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because there is no such way


async def opening_async() -> None:
    async with dp.open_dagster_pipes() as pipes:
        assert_type(pipes, dp.PipesContext)
        await pipes.drain()
        await pipes.aflush()
    await pipes.aclose(ValueError("text"))


def helper(pipes: dp.PipesContext) -> None:
    logger: logging.Logger = pipes.log
    logger.info("%d rows", 3)
    pipes.log("text", level="INFO")
    pipes.report_asset_materialization()
    pipes.report_asset_materialization({"rows": 1, "more": {"a": [1, 2]}}, "v1", "key")
    pipes.report_asset_materialization(
        {
            "md": dp.MetadataValue.md("*x*"),
            "typed": {"type": "int", "raw_value": 3},
            "helper": dp.pipes_metadata_value(3.5, "float"),
        }
    )
    pipes.report_asset_check("fresh", True, "WARN", {"age": 3}, "key")
    assert_type(pipes.log, dp.PipesLogger)
    assert_type(pipes.progress(), dp.PipesProgress)
    assert_type(pipes.statistics(), dp.PipesStatistics)
    pipes.report_asset_check("fresh", passed=True, severity="INFO")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because Dagster knows two
    pipes.report_custom_message({"any": ["thing"]})
    pipes.log_external_stream("stdout", "text")
    pipes.flush(timeout=1.5)
    pipes.close()
    pipes.repot_custom_message({})  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] # because it is misspelt


@dataclass
class Summary:
    rows: int


class Model(pydantic.BaseModel):
    rows: int
    token: pydantic.SecretStr


class Colour(enum.Enum):
    RED = 1


def metadata(pipes: dp.PipesContext, anything: Any, unknown: object) -> None:
    """What is taken as metadata is no error for a type checker; what is not, is one."""
    values: dict[str, dp.PipesMetadataLike] = {
        "none": None,
        "text": "text",
        "decimal": Decimal("1.5"),
        "uuid": uuid.uuid4(),
        "path": Path("a"),
        "enum": Colour.RED,
        "date": dt.date(2026, 1, 1),
        "time": dt.datetime.now(dt.timezone.utc),
        "span": dt.timedelta(seconds=1),
        "address": ipaddress.ip_address("127.0.0.1"),
        "set": {1, 2},
        "tuple": (1, "a"),
        "data class": Summary(3),
        "model": Model(rows=3, token=pydantic.SecretStr("x")),
        "secret": pydantic.SecretStr("x"),
        "numpy number": np.float64(1.5),
        "numpy array": np.zeros(3),
        "pandas frame": pd.DataFrame({"a": [1]}),
        "pandas series": pd.Series([1]),
        "pandas time": pd.Timestamp("2026-01-01"),
        "polars frame": pl.DataFrame({"a": [1]}),
        "polars series": pl.Series([1]),
        "Dagster's": dagster.MetadataValue.md("**b**"),
        "Dagster's number": dagster.MetadataValue.int(3),
        "Dagster's key": dagster.AssetKey(["a", "b"]),
        "Dagster's schema": dagster.TableSchema([dagster.TableColumn("a")]),
        "any": anything,
    }
    pipes.report_asset_materialization(values)
    pipes.report_asset_materialization({"object": object()})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType] # because it has no JSON form
    pipes.report_asset_check("a", True, metadata={"unknown": unknown})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType] # because nothing is known of it
    pipes.report_asset_check("a", True, metadata={"generator": (i for i in [1])})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType] # because it can be read only once
    pipes.report_asset_check("a", True, metadata={"function": print})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType] # because it has no JSON form


def facts(pipes: dp.PipesContext) -> None:
    assert_type(pipes.is_asset_step, bool)
    assert_type(pipes.asset_key, str)
    assert_type(pipes.partition_key, str)
    assert_type(pipes.partition_key_range, dp.PipesPartitionKeyRange)
    assert_type(pipes.partition_time_window, "dp.PipesTimeWindow | None")
    assert_type(pipes.provenance, "dp.PipesDataProvenance | None")
    assert_type(pipes.code_version, "str | None")
    assert_type(pipes.run_id, str)
    assert_type(pipes.job_name, "str | None")
    assert_type(pipes.retry_number, int)
    assert_type(pipes.is_closed, bool)
    extra: Any = pipes.get_extra("limit", 10)
    del extra


def tracking(pipes: dp.PipesContext) -> None:
    assert_type(pipes.track([1, 2], description="numbers"), Iterator[int])
    report = pipes.progress("download", total=10.0)
    report(3)


async def tracking_async(pipes: dp.PipesContext, pages: AsyncIterator[str]) -> None:
    assert_type(pipes.track(pages), AsyncIterator[str])


def run(pipes: dp.PipesContext) -> int:
    return len(pipes.run_id)


async def run_async(pipes: dp.PipesContext) -> list[str]:
    return [pipes.run_id]


class Job:
    """A callable object, and its methods."""

    def __call__(self, pipes: dp.PipesContext) -> float:
        return pipes.retry_number / 2

    async def main(self, pipes: dp.PipesContext) -> None:
        await pipes.drain()


assert_type(dp.with_dagster_pipes(run), int)
assert_type(dp.with_dagster_pipes(run, flush_interval=0.5, on_full="drop_logs"), int)
assert_type(dp.with_dagster_pipes(run_async), list[str])
assert_type(dp.with_dagster_pipes(Job()), float)
assert_type(dp.with_dagster_pipes(Job().main), None)
assert_type(dp.with_dagster_pipes(lambda pipes: pipes.asset_key), str)
assert_type(dp.with_dagster_pipes(functools.partial(run_async), log_level="INFO"), list[str])
dp.with_dagster_pipes(run, flush_intervall=0.5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue] # because it is misspelt
dp.with_dagster_pipes(len)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because it takes no context


def own_wrapper(**options: Unpack[shapes.SessionOptions]) -> dp.PipesContext:
    return dp.open_dagster_pipes(**options)


class OwnChannel(dp.PipesMessageWriterChannel):
    def write_message(self, message: dp.PipesMessage) -> None:
        print(message["method"])


class OwnWriter(dp.PipesMessageWriter[OwnChannel]):
    @contextmanager
    def open(self, params: Mapping[str, Any]) -> Generator[OwnChannel, None, None]:
        del params
        yield OwnChannel()


class OwnContextLoader(dp.PipesContextLoader):
    @contextmanager
    def load_context(self, params: Mapping[str, Any]) -> Generator[dp.PipesContextData, None, None]:
        with dp.PipesDefaultContextLoader().load_context(params) as data:
            yield data


dp.open_dagster_pipes(
    context_loader=OwnContextLoader(),
    message_writer=OwnWriter(),
    params_loader=dp.PipesMappingParamsLoader({"DAGSTER_PIPES_CONTEXT": "..."}),
)


# Parts of dagster_pipes, and classes derived from them.
class TheirWriter(dagster_pipes.PipesDefaultMessageWriter):  # type: ignore[misc] # because mypy does not follow it
    def get_opened_extras(self) -> dict[str, Any]:
        return {"pid": 1}


class TheirLoader(dagster_pipes.PipesContextLoader):  # type: ignore[misc] # because mypy does not follow it
    @contextmanager
    def load_context(self, params: Mapping[str, Any]) -> Generator[Any, None, None]:
        yield params["data"]


dp.open_dagster_pipes(
    context_loader=dagster_pipes.PipesS3ContextLoader(client=None),
    message_writer=dagster_pipes.PipesS3MessageWriter(client=None),
    params_loader=dagster_pipes.PipesMappingParamsLoader({}),
)
dp.open_dagster_pipes(
    context_loader=TheirLoader(),
    message_writer=TheirWriter(),
    params_loader=dagster_pipes.PipesEnvVarParamsLoader(),
)


# Without a base class at all, sync or async.
class AsyncLoader:
    @asynccontextmanager
    async def load_context(self, params: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        yield params["data"]


class AsyncWriter:
    @asynccontextmanager
    async def open(self, params: Mapping[str, Any]) -> AsyncGenerator[OwnChannel, None]:
        del params
        yield OwnChannel()

    def get_opened_payload(self) -> dp.PipesOpenedData:
        return {"extras": {}}


class OwnAsyncChannel(dp.PipesMessageWriterChannel):
    async def write_message(self, message: dp.PipesMessage) -> None:
        print(message["params"])


class OwnAsyncWriter(dp.PipesMessageWriter[OwnAsyncChannel]):
    @asynccontextmanager
    async def open(self, params: Mapping[str, Any]) -> AsyncGenerator[OwnAsyncChannel, None]:
        del params
        yield OwnAsyncChannel()


dp.open_dagster_pipes(context_loader=AsyncLoader(), message_writer=AsyncWriter())
dp.open_dagster_pipes(message_writer=OwnAsyncWriter())
dp.open_dagster_pipes(message_writer=OwnChannel())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because a channel is no writer
dp.open_dagster_pipes(context_loader=OwnWriter())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because it is for messages


def wire(context: dp.PipesContextData, exception: dp.PipesException) -> None:
    assert_type(context["job_name"], "str | None")
    dp.open_dagster_pipes().close(exception)
    dp.open_dagster_pipes().close({**exception, "message": "other"})
    value: dp.PipesMetadataValue = {"type": "md", "raw_value": "*x*"}
    kind: dp.PipesMetadataType = "table"
    severity: dp.PipesAssetCheckSeverity = "WARN"
    assert_type(dp.pipes_metadata_value([1], "json"), dp.PipesMetadataValue)
    assert_type(dp.MetadataValue.int(3), dp.PipesMetadataValue)
    assert_type(dp.MetadataValue.asset(["a", "b"]), dp.PipesMetadataValue)
    assert_type(dp.to_asset_key_path("a/b"), list[str])
    assert_type(dp.from_asset_key_path(["a", "b"]), str)
    del value, kind, severity
    wrong: dp.PipesMetadataValue = {"type": "job", "raw_value": 1}  # type: ignore[typeddict-item] # pyright: ignore[reportAssignmentType] # because there is no such type
    del wrong


def logging_through(pipes: dp.PipesContext) -> None:
    assert_type(pipes.log.name, str)
    pipes.log.exception("failed", exc_info=ValueError("x"))
    pipes.log.getChild("part").setLevel("DEBUG")
    pipes.log("text", 25)
    pipes.log(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because it is no text


def errors() -> None:
    try:
        dp.PipesContext.get().close()
    except dp.MessagesLostError as error:
        assert_type(error.count, int)
        assert_type(error.recovery_file, "str | None")
    except dp.InvalidReportError as error:
        assert_type(error.path, str)


def kit() -> None:
    with testing.launched(asset_keys=["a"], extras={"limit": 3}) as reported:
        assert_type(reported, testing.Reported)
    assert_type(reported.logs, list[testing.Log])
    assert_type(reported.checks, list[testing.Check])
    assert_type(testing.run_script("job.py").returncode, int)


handler: logging.Handler = dp.PipesLogHandler(logging.INFO)
