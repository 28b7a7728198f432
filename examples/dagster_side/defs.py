"""Three assets on Dagster's side: a flood of log lines, a job that sends bad lines, a durable job."""

import sys
from pathlib import Path

import dagster as dg

from dagsterpipes.dagster import DurablePipesSubprocessClient, PipesSubprocessClient

COMMAND = [sys.executable, str(Path(__file__).parent / "job.py")]


@dg.asset
def flood(context: dg.AssetExecutionContext):  # noqa: ANN201 because Dagster reads annotations
    """5,000 log lines, each an entry of its own."""
    return PipesSubprocessClient().run(context=context, command=[*COMMAND, "flood"]).get_results()


@dg.asset
def bad_lines(context: dg.AssetExecutionContext):  # noqa: ANN201 because Dagster reads annotations
    """What stops Dagster's own reader."""
    return PipesSubprocessClient().run(context=context, command=[*COMMAND, "bad"]).get_results()


@dg.asset
def kept(context: dg.AssetExecutionContext):  # noqa: ANN201 because Dagster reads annotations
    """A job that outlives its run worker."""
    client = DurablePipesSubprocessClient()
    return client.run(context=context, command=[*COMMAND, "slow"]).get_results()


defs = dg.Definitions(
    assets=[flood, bad_lines, kept],
    jobs=[dg.define_asset_job("kept_job", ["kept"], executor_def=dg.in_process_executor)],
)


def kept_job() -> dg.JobDefinition:
    """The job of the durable asset, for `dagster.reconstructable`."""
    return defs.get_job_def("kept_job")
