"""`coalesce_logs`: Dagster gets few messages, and every line in them; nothing waits that must not."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.dagster_runs import run_under_dagster
from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes({options}) as pipes:
    for i in range(1500):
        pipes.log.info("row %d of the input: ü %s", i, '"quoted"')
    pipes.log.debug("detail")
    pipes.log.info("after the detail")
    pipes.log.warning("careful")
    pipes.log.warning("more careful")
    pipes.report_asset_materialization(metadata={{"rows": 1500}})
    for i in range(500):
        pipes.log.info("after the report %d", i)
"""


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_every_line_is_in_dagsters_log(by: str, tmp_path: Path) -> None:
    """All texts in their order, each with its level, in a small part of the messages."""
    run = run_under_dagster(
        tmp_path,
        JOB.format(options="coalesce_logs=0.5" if by == "argument" else ""),
        env={"DAGSTERPIPES_COALESCE_LOGS": "0.5"} if by == "environment" else {},
        home=tmp_path,
    )
    assert run.success
    assert run.pipes_warnings() == []
    assert run.materialization().metadata["rows"].value == 1500
    lines = [(level, line) for level, text in run.user_logs() for line in text.split("\n")]
    assert lines == [
        *[("INFO", f'row {i} of the input: ü "quoted"') for i in range(1500)],
        ("DEBUG", "detail"),
        ("INFO", "after the detail"),
        ("WARNING", "careful"),
        ("WARNING", "more careful"),
        *[("INFO", f"after the report {i}") for i in range(500)],
    ]
    # About 90 such lines fit into a page; a slow machine adds a message for each window.
    assert len(run.user_logs()) < 100


def test_without_it_each_line_is_a_message(tmp_path: Path) -> None:
    """An argument of 0 wins over the environment."""
    launch = Launch(tmp_path)
    done = launch.run(
        JOB.format(options="coalesce_logs=0"), env={"DAGSTERPIPES_COALESCE_LOGS": "0.5"}
    )
    assert done.returncode == 0, done.stderr
    assert len(launch.logs()) == 2004


def test_the_operators_level_threshold(tmp_path: Path) -> None:
    """Lines below the level of the environment never leave the process."""
    launch = Launch(tmp_path)
    done = launch.run(JOB.format(options=""), env={"DAGSTERPIPES_LOG_LEVEL": "warning"})
    assert done.returncode == 0, done.stderr
    assert launch.logs() == ["careful", "more careful"]


def test_a_bad_variable_ends_the_script_with_its_name(tmp_path: Path) -> None:
    """It is never ignored: Dagster shows the failed step."""
    done = Launch(tmp_path).run(
        JOB.format(options=""), env={"DAGSTERPIPES_COALESCE_LOGS": "a while"}
    )
    assert done.returncode == 1
    assert "LaunchParamsError: Environment variable DAGSTERPIPES_COALESCE_LOGS must" in done.stderr


# A script whose window is far longer than the test, so that what is in the file was not held back.
# What the script says next must not happen before it has seen that.
SEES = """
import os, sys, time
from dagsterpipes import open_dagster_pipes
def sees(text):
    deadline = time.monotonic() + 20
    while text not in open(sys.argv[1]).read():
        if time.monotonic() > deadline:
            os._exit(3)
        time.sleep(0.002)
with open_dagster_pipes(coalesce_logs={window}) as pipes:
"""


def run_seeing(tmp_path: Path, body: str, window: float = 600) -> list[tuple[str, Any]]:
    launch = Launch(tmp_path)
    script = SEES.format(window=window) + body
    done = launch.run(script, str(launch.messages_path))
    assert done.returncode == 0, done.stderr
    return [(method, params.get("message")) for method, params in launch.sent()]


def test_a_warning_is_not_held_back(tmp_path: Path) -> None:
    """Nor is what was sent before it."""
    assert run_seeing(
        tmp_path,
        """
    pipes.log.info("one")
    pipes.log.info("two")
    pipes.log.warning("careful")
    sees("careful")
    pipes.log.info("three")
    pipes.log.error("wrong")
    sees("wrong")
    pipes.log.info("left for the close")
""",
    ) == [
        ("opened", None),
        ("log", "one\ntwo"),
        ("log", "careful"),
        ("log", "three"),
        ("log", "wrong"),
        ("log", "left for the close"),
        ("closed", None),
    ]


def test_a_report_releases_what_is_held_back_and_separates(tmp_path: Path) -> None:
    """No message holds lines from both sides of a report."""
    assert run_seeing(
        tmp_path,
        """
    pipes.log.info("one")
    pipes.log.info("two")
    pipes.report_custom_message(1)
    sees("report_custom_message")
    pipes.log.info("three")
""",
    ) == [
        ("opened", None),
        ("log", "one\ntwo"),
        ("report_custom_message", None),
        ("log", "three"),
        ("closed", None),
    ]


def test_flush_releases_what_is_held_back(tmp_path: Path) -> None:
    """After flush() everything is in the file, in a message of its own."""
    assert run_seeing(
        tmp_path,
        """
    pipes.log.info("one")
    pipes.log.info("two")
    pipes.flush()
    assert "one" in open(sys.argv[1]).read()
    pipes.log.info("three")
""",
    ) == [("opened", None), ("log", "one\ntwo"), ("log", "three"), ("closed", None)]


def test_the_window_ends_by_itself(tmp_path: Path) -> None:
    """A line arrives after the window, though nothing is sent any more."""
    assert run_seeing(
        tmp_path,
        """
    pipes.log.info("one")
    pipes.log.info("two")
    sees("two")
    pipes.log.info("three")
""",
        window=0.1,
    ) == [("opened", None), ("log", "one\ntwo"), ("log", "three"), ("closed", None)]


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_killed_process_loses_no_more_than_the_window(tmp_path: Path) -> None:
    """What was sent before the last window is there, in whole lines."""
    launch = Launch(tmp_path)
    script = SEES.format(window=0.1) + (
        "    for i in range(1000):\n"
        "        pipes.log.info('old %d', i)\n"
        "    sees('old 999')\n"
        "    pipes.log.info('new')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = launch.run(script, str(launch.messages_path))
    assert done.returncode == -signal.SIGKILL
    lines = [line for text in launch.logs() for line in text.split("\n")]
    assert lines[:1000] == [f"old {i}" for i in range(1000)]
    assert lines[1000:] in ([], ["new"])
