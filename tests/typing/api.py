"""The public API as users write it, for type checkers; never run."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from typing_extensions import assert_type

import dagsterpipes as dp
from dagsterpipes import testing


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
    pipes.report_asset_check("fresh", passed=True, severity="INFO")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # because Dagster knows two
    pipes.report_custom_message({"any": ["thing"]})
    pipes.log_external_stream("stdout", "text")
    pipes.flush(timeout=1.5)
    pipes.close()
    pipes.repot_custom_message({})  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] # because it is misspelt


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


assert_type(dp.with_dagster_pipes(run), int)


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
