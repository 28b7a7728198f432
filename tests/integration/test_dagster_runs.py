"""Dagster itself launches jobs, and everything that they say arrives."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from support.dagster_runs import run_under_dagster

if TYPE_CHECKING:
    from pathlib import Path

REPORTS = """
def work(pipes):
    assert pipes.asset_key == "the_asset"
    assert pipes.get_extra("greeting") == "hello"
    assert pipes.get_extra("missing", 5) == 5
    pipes.log.info("%s from %s", pipes.get_extra("greeting"), pipes.job_name)
    pipes.log.debug("detail")
    pipes.log.warning("careful")
    pipes.log.log(45, "between error and critical")
    pipes.report_asset_materialization(
        metadata={
            "rows": 3,
            "ratio": {"type": "float", "raw_value": 1},
            "report": {"type": "md", "raw_value": "# Done"},
            "where": {"type": "url", "raw_value": "https://example.com"},
            "nested": {"a": [1, None, {"b": 2.5}]},
        },
        data_version="v7",
    )
    pipes.report_asset_check("not_empty", passed=True, metadata={"rows": 3})
    pipes.report_asset_check("no_nulls", passed=False, severity="WARN")
    pipes.report_custom_message({"rows": [1, 2, 3]})
    pipes.report_custom_message("second")
"""

JOBS = {
    "with": REPORTS
    + """
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    work(pipes)
""",
    "async with": REPORTS
    + """
import asyncio
from dagsterpipes import open_dagster_pipes
async def main():
    async with open_dagster_pipes() as pipes:
        work(pipes)
        await pipes.drain()
asyncio.run(main())
""",
    "closed by hand": REPORTS
    + """
from dagsterpipes import open_dagster_pipes
pipes = open_dagster_pipes()
work(pipes)
pipes.flush()
pipes.close()
""",
    "with_dagster_pipes": REPORTS
    + """
from dagsterpipes import with_dagster_pipes
with_dagster_pipes(work)
""",
    "with_dagster_pipes, coroutine": REPORTS
    + """
from dagsterpipes import with_dagster_pipes
async def main(pipes):
    work(pipes)
with_dagster_pipes(main)
""",
}


@pytest.mark.parametrize("job", JOBS)
def test_everything_arrives(job: str, tmp_path: Path) -> None:
    """Logs, metadata by type, checks and custom messages, in order, without a Pipes warning."""
    run = run_under_dagster(
        tmp_path, JOBS[job], checks=("not_empty", "no_nulls"), extras={"greeting": "hello"}
    )
    assert run.success
    assert run.pipes_warnings() == []
    assert run.user_logs() == [
        ("INFO", "hello from __ephemeral_asset_job__"),
        ("DEBUG", "detail"),
        ("WARNING", "careful"),
        ("ERROR", "between error and critical"),
    ]
    assert run.custom_messages == [{"rows": [1, 2, 3]}, "second"]
    materialization = run.materialization()
    assert materialization.metadata["rows"] == dg.IntMetadataValue(3)
    assert materialization.metadata["ratio"] == dg.FloatMetadataValue(1.0)
    assert materialization.metadata["report"] == dg.MarkdownMetadataValue("# Done")
    assert materialization.metadata["where"] == dg.UrlMetadataValue("https://example.com")
    assert materialization.metadata["nested"] == dg.JsonMetadataValue({"a": [1, None, {"b": 2.5}]})
    assert materialization.tags["dagster/data_version"] == "v7"
    checks = run.checks()
    assert checks["not_empty"].passed
    assert checks["not_empty"].metadata["rows"] == dg.IntMetadataValue(3)
    assert not checks["no_nulls"].passed
    assert checks["no_nulls"].severity is dg.AssetCheckSeverity.WARN


def test_an_exception_fails_the_step_and_is_shown(tmp_path: Path) -> None:
    """Class, text, cause and frames; and what was sent before it."""
    run = run_under_dagster(
        tmp_path,
        """
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.log.info("before")
            try:
                {}["missing"]
            except KeyError as error:
                raise ValueError("bad input") from error
        """,
    )
    assert not run.success
    assert run.pipes_warnings() == []
    assert run.user_logs() == [("INFO", "before")]
    shown = run.pipes_errors()
    assert "ValueError: bad input" in shown
    assert "KeyError: 'missing'" in shown
    assert 'raise ValueError("bad input") from error' in shown


GROUPS = {
    "asyncio.TaskGroup": """
import asyncio
from dagsterpipes import open_dagster_pipes
async def fail(name):
    raise ValueError(f"{name} failed")
async def main():
    async with open_dagster_pipes() as pipes:
        pipes.log.info("before")
        async with asyncio.TaskGroup() as group:
            group.create_task(fail("first"))
            group.create_task(fail("second"))
asyncio.run(main())
""",
    "anyio": """
import anyio
from dagsterpipes import open_dagster_pipes
async def fail(name):
    await anyio.sleep(0.01)
    raise ValueError(f"{name} failed")
async def fail_when_cancelled(name):
    try:
        await anyio.sleep(60)
    finally:
        raise ValueError(f"{name} failed")
async def main():
    async with open_dagster_pipes() as pipes:
        pipes.log.info("before")
        async with anyio.create_task_group() as group:
            group.start_soon(fail, "first")
            group.start_soon(fail_when_cancelled, "second")
anyio.run(main)
""",
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_members_of_a_failed_task_group_are_shown(kind: str, tmp_path: Path) -> None:
    """Each failed task can be read in Dagster."""
    if kind == "asyncio.TaskGroup":
        pytest.importorskip("asyncio.taskgroups")
    run = run_under_dagster(tmp_path, GROUPS[kind])
    assert not run.success
    assert run.pipes_warnings() == []
    assert run.user_logs() == [("INFO", "before")]
    assert "ValueError: first failed" in run.pipes_errors()
    assert "ValueError: second failed" in run.pipes_errors()


def test_exit_zero_is_success_and_exit_one_is_not(tmp_path: Path) -> None:
    """`sys.exit(0)` in the block is a clean close."""
    script = """
    import sys
    from dagsterpipes import open_dagster_pipes
    with open_dagster_pipes() as pipes:
        pipes.log.info("leaving")
        sys.exit({status})
    """
    clean = run_under_dagster(tmp_path, script.format(status=0))
    assert clean.success
    assert clean.pipes_warnings() == []
    assert "closed with exception" not in "".join(clean.pipes_events())
    failed = run_under_dagster(tmp_path, script.format(status=3))
    assert not failed.success
    assert "closed with exception" in "".join(failed.pipes_events())


def test_a_log_flood_arrives_whole(tmp_path: Path) -> None:
    """Dagster's reader is alive at the end, and every line is there in order."""
    run = run_under_dagster(
        tmp_path,
        """
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            for i in range(1500):
                pipes.log.info("line %d", i)
            pipes.report_custom_message("x" * 300_000)
            pipes.log.info("end")
        """,
    )
    assert run.success
    assert run.pipes_warnings() == []
    assert [text for _, text in run.user_logs()] == [*(f"line {i}" for i in range(1500)), "end"]
    assert run.custom_messages == ["x" * 300_000]


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_lines_of_any_length_arrive(place: str, tmp_path: Path) -> None:
    """Dagster's reader is alive at the end of a job with lines of 150 bytes to 2 MB."""
    folder = str(tmp_path) if place == "disk" else "/dev/shm"
    if not os.access(folder, os.W_OK):
        pytest.skip(f"no {folder}")
    sizes = [150, 8_000, 200_000] * 120 + [2_000_000] * 20
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = run_under_dagster(
            tmp_path,
            f"""
            import time
            from dagsterpipes import open_dagster_pipes
            with open_dagster_pipes() as pipes:
                for number, size in enumerate({sizes}):
                    pipes.report_custom_message([number, "x" * size])
                    pipes.flush()
                    time.sleep(number % 13 / 1000)  # at any moment between two looks of the reader
            """,
            message_reader=dg.PipesFileMessageReader(f"{name}/messages"),
        )
    assert run.success
    assert run.pipes_warnings() == []
    assert [(number, len(text)) for number, text in run.custom_messages] == list(enumerate(sizes))
