"""The scripts of the how-to for other languages, under the local runner and under Dagster."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from support.dagster_runs import DagsterRun

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "other-languages.md"
BLOCK = re.compile(r"^```(bash|javascript|r)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^(?:#|//) (\w+\.\w+)$", re.MULTILINE)
PROGRAMS = {"load.sh": "bash", "load.js": "node", "load.R": "Rscript"}

pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="the docs are not here"),
    pytest.mark.filterwarnings("ignore:::dagster"),
]


@pytest.fixture(params=PROGRAMS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command of a script of the page, if there is a program for it."""
    program = PROGRAMS[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    if program == "bash" and shutil.which("jq") is None:
        pytest.skip("there is no jq")
    if program == "Rscript":
        done = subprocess.run(
            ["Rscript", "-e", "library(dagsterpipes)"], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("R has no package dagsterpipes")
    for _, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        named = NAMED.search(code)
        if named is not None:
            (tmp_path / named[1]).write_text(code, encoding="utf-8")
    return [program, str(tmp_path / request.param)]


def run_locally(command: list[str], *options: str) -> tuple[int, list[Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "dagsterpipes", "run", "--json", *options, "--", *command],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_under_the_runner(command: list[str]) -> None:
    """The script gets its extra, and Dagster would take all that it sends."""
    status, events = run_locally(command, "--asset", "orders", "--extra", "limit:=3")
    *messages, summary = events
    assert status == 0, events
    assert summary["materialized"] == ["orders"]
    assert summary["checks"] == [
        {"asset_key": "orders", "check_name": "has_rows", "severity": "ERROR", "passed": True}
    ]
    told = [each["params"]["message"] for each in messages if each.get("method") == "log"]
    assert told == ['loading 3 "orders"']


def test_a_script_that_fails(command: list[str]) -> None:
    """It closes its session with an exception, but for R, whose package cannot send one."""
    status, events = run_locally(command, "--asset", "orders", "--extra", "limit:=-1")
    *messages, summary = events
    assert summary["materialized"] == []
    assert summary["closed"]
    if command[0] == "Rscript":
        assert status == 3
        logs = [each["params"] for each in messages if each.get("method") == "log"]
        assert logs == [{"message": "the limit -1 is negative", "level": "ERROR"}]
    else:
        assert status == 4
        assert summary["exception"]["message"] == "the limit -1 is negative"


@pytest.mark.parametrize("limit", [3, -1])
def test_under_dagster(command: list[str], limit: int) -> None:
    """Dagster launches it, and takes what it reports."""

    @dg.asset(check_specs=[dg.AssetCheckSpec("has_rows", asset="orders")])
    def orders(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # noqa: ANN202 because Dagster reads return annotations
        client = dg.PipesSubprocessClient()
        return client.run(context=context, command=command, extras={"limit": limit}).get_results()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([orders], instance=instance, raise_on_error=False)
        run = DagsterRun(result, instance)
    assert run.success is (limit > 0)
    assert not run.pipes_warnings()
    if limit > 0:
        assert ("INFO", 'loading 3 "orders"') in run.user_logs()
        assert run.materialization("orders").metadata["rows"].value == 3
        assert run.checks()["has_rows"].passed
