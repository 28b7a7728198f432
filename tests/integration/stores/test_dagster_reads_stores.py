"""Dagster's own injectors and readers get everything that a job sent, and their readers stay alive."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from support.dagster_runs import DagsterRun, run_under_dagster
from support.databricks import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from support.stores import Store

# Of Dagster's own libraries, and of those that they import.
pytestmark = pytest.mark.filterwarnings("ignore")

JOB = """
import os, sys, time
from dagsterpipes import open_dagster_pipes

with open_dagster_pipes({parts}) as pipes:
    for number in range({count}):
        pipes.log.info(f"line {{number}}")
    pipes.report_asset_check("good", passed=True)
    print("printed")
    pipes.log.warning("careful")
    pipes.report_asset_materialization({{"rows": {count}}})
    for number in range({count}, 2 * {count}):
        pipes.log.info(f"line {{number}}")
    pipes.report_custom_message({{"said": "at the end"}})
"""


def check(run: DagsterRun, count: int) -> None:
    """Nothing is missing, nothing is there twice, nothing was out of the ordinary."""
    assert run.pipes_warnings() == []
    assert run.success, run.pipes_errors()
    logs = [
        (level, line)
        for level, text in run.user_logs()
        for line in text.split("\n")
        if line.startswith(("line ", "careful"))
    ]
    lines = [("INFO", f"line {number}") for number in range(2 * count)]
    assert logs == [*lines[:count], ("WARNING", "careful"), *lines[count:]]
    assert run.materialization().metadata["rows"].value == count
    assert run.checks()["good"].passed
    assert run.custom_messages == [{"said": "at the end"}]


def run_job(
    folder: Path,
    source: str,
    parts: str,
    sides: tuple[Any, Any],
    count: int,
    **options: Any,
) -> DagsterRun:
    injector, reader = sides
    return run_under_dagster(
        folder,
        source + JOB.format(parts=parts, count=count),
        checks=("good",),
        context_injector=injector,
        message_reader=reader,
        **options,
    )


@pytest.mark.parametrize("count", [20, 3000])
def test_a_run(count: int, store: Store, tmp_path: Path) -> None:
    """With the store's own client, few and many logs."""
    module = {"PUT": "dagster_aws", "POST": "dagster_gcp"}[store.method]
    module = "dagster_azure" if store.scheme == "azure" else module
    pytest.importorskip(module)
    run = run_job(
        tmp_path,
        store.source,
        "**parts(os.environ['STORE'], interval=1)",
        store.dagster(1),
        count,
        env={"STORE": store.proxy.url},
    )
    check(run, count)


@pytest.mark.skipif(
    importlib.util.find_spec("dagster_databricks") is None, reason="needs the extra test-stores"
)
@pytest.mark.parametrize("count", [20, 3000])
@pytest.mark.parametrize("kind", ["dbfs", "volumes"])
def test_a_run_on_databricks(kind: str, count: int, tmp_path: Path) -> None:
    """By the mounts that a job sees, and the API that Dagster uses."""
    from dagster_databricks import pipes as databricks

    root = tmp_path / "root"
    (root / "Volumes/c/s/v").mkdir(parents=True)
    (root / "tmp").mkdir()
    client: Any = Workspace(root)
    if kind == "dbfs":
        sides: tuple[Any, Any] = (
            databricks.PipesDbfsContextInjector(client=client),
            databricks.PipesDbfsMessageReader(client=client, interval=1),
        )
        names = "Dbfs"
        source = f"import dagsterpipes.stores\ndagsterpipes.stores.DBFS_ROOT = {str(root)!r}\n"
    else:
        volume = {"client": client, "volume_path": "/Volumes/c/s/v"}
        sides = (
            databricks.PipesUnityCatalogVolumesContextInjector(**volume),
            databricks.PipesUnityCatalogVolumesMessageReader(**volume, interval=1),
        )
        names = "UnityCatalogVolumes"
        # The job's file system has no /Volumes: here is one.
        source = (
            "import dagsterpipes.stores as stores\n"
            "find = stores._text_param\n"
            f"stores._text_param = lambda *args: {str(root)!r} + find(*args)\n"
        )
    source += f"from dagsterpipes import Pipes{names}ContextLoader, Pipes{names}MessageWriter\n"
    parts = (
        f"context_loader=Pipes{names}ContextLoader(),"
        f" message_writer=Pipes{names}MessageWriter(interval=1)"
    )
    check(run_job(tmp_path, source, parts, sides, count), count)
    assert [one for one in root.rglob("*") if one.is_file()] == []


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [12_000, 50_000])
def test_many_logs_into_sqlite(count: int, s3: Store, tmp_path: Path) -> None:
    """At the readers' own pace, and with Dagster's storage on disk."""
    (tmp_path / "home").mkdir()
    run = run_job(
        tmp_path,
        s3.source,
        "**parts(os.environ['STORE'])",
        s3.dagster(10),
        count // 2,
        env={"STORE": s3.proxy.url},
        home=tmp_path / "home",
    )
    check(run, count // 2)
