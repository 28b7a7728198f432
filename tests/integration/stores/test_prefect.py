"""Messages of a real Prefect flow, through the logs of its run, with either library's message writer."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import encode_param
from support.launching import CONTEXT
from support.prefect_server import prefect_server
from support.stores import methods, texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("prefect") is None, reason="make test-stores installs Prefect"
    ),
    pytest.mark.timeout(240),
]

FLOW = """
import asyncio, json, sys, time
from prefect import flow, get_client, task
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.context import get_run_context
from dagsterpipes import open_dagster_pipes

library = __import__(sys.argv[2])
PipesPrefectLogsMessageWriter = library.PipesPrefectLogsMessageWriter

LOGS = 20

def work(pipes):
    for number in range(LOGS):
        pipes.log.info(f"line {number}")
    pipes.report_asset_materialization({"rows": 100})

@task
def in_task():
    with open_dagster_pipes(message_writer=PipesPrefectLogsMessageWriter()) as pipes:
        work(pipes)

@flow
def sync():
    with open_dagster_pipes(message_writer=PipesPrefectLogsMessageWriter()) as pipes:
        work(pipes)
    return get_run_context().flow_run.id

@flow
def with_task():
    in_task()
    return get_run_context().flow_run.id

@flow
async def in_loop():
    async with open_dagster_pipes(message_writer=PipesPrefectLogsMessageWriter()) as pipes:
        work(pipes)
    return get_run_context().flow_run.id

async def logs(run):
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    async with get_client() as client:
        return [
            one.message
            for one in await client.read_logs(wanted)
            if one.name == PipesPrefectLogsMessageWriter.LOGGER_NAME
        ]

kind = globals()[sys.argv[1]]
run = asyncio.run(kind()) if asyncio.iscoroutinefunction(kind.fn) else kind()
deadline = time.monotonic() + 30
while len(found := asyncio.run(logs(run))) < LOGS + 3 and time.monotonic() < deadline:
    time.sleep(0.5)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server, and the environment of its clients."""
    for env in prefect_server(tmp_path_factory.mktemp("prefect")):
        yield {**os.environ, **env}


@pytest.mark.parametrize("library", ["dagsterpipes", "dagster_pipes"])
@pytest.mark.parametrize("kind", ["sync", "with_task", "in_loop"])
def test_every_message_of_a_flow_arrives(
    kind: str, library: str, api: dict[str, str], tmp_path: Path
) -> None:
    """As logs of the run in which the session was opened: opened, 20 logs, a report, closed.

    A writer of the reference's class is replaced by ours.
    """
    path = tmp_path / "job.py"
    path.write_text(FLOW)
    messages: dict[str, Any] = {"prefect_logs": True, "max_message_bytes": 900_000}
    env = {
        **api,
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": CONTEXT}),
        "DAGSTER_PIPES_MESSAGES": encode_param(messages),
    }
    done = subprocess.run(
        [sys.executable, str(path), kind, library],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in json.loads(done.stdout.splitlines()[-1])]
    assert methods(found) == [
        "opened",
        *["log"] * 20,
        "report_asset_materialization",
        "closed",
    ]
    assert texts(found) == [f"line {number}" for number in range(20)]
