"""`PipesJobComponent`, loaded from a YAML file as Dagster does it."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dagsterpipes.dagster
from support.dagster_runs import DagsterRun
from support.dagster_side import QUIET, instance

pytestmark = pytest.mark.filterwarnings("ignore:::dagster")
OLD = tuple(map(int, dg.__version__.split(".")[:2])) < (1, 11)
components = pytest.mark.skipif(OLD, reason="components came with Dagster 1.11")

ROWS = """
import os
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("%s %s", pipes.get_extra("region"), os.environ["COLOUR"])
    pipes.report_asset_materialization(metadata={"rows": 3})
    pipes.report_asset_check("full", True)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a component in a project of its own."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "the_project"\n'
    )
    folder = tmp_path / "the_project" / "defs" / "rows"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "rows.py").write_text(ROWS)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("the_project")]:
        del sys.modules[name]


def load(folder: Path, attributes: str) -> Any:
    (folder / "defs.yaml").write_text(
        "type: dagsterpipes.dagster.PipesJobComponent\nattributes:\n"
        + textwrap.indent(textwrap.dedent(attributes), "  ")
    )
    return dg.load_from_defs_folder(path_within_project=folder)


@components
@pytest.mark.parametrize("durable", ["true", "false"])
def test_a_script_with_extras_and_environment(durable: str, project: Path, home: Path) -> None:
    """It runs beside its YAML, and its asset and its check are there."""
    defs = load(
        project,
        f"""
        script: rows.py
        extras: {{region: eu}}
        env: {{COLOUR: red}}
        strict: true
        durable: {durable}
        assets:
          - key: rows
        checks:
          - name: full
            asset: rows
        """,
    )
    with instance(home) as opened:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=opened, run_config=QUIET)
        run = DagsterRun(result, opened)
    assert run.success
    assert ("INFO", "eu red") in run.user_logs()
    assert run.materialization("rows").metadata["rows"].value == 3
    assert run.checks()["full"].passed


@components
@pytest.mark.parametrize("attributes", ["", "script: rows.py\ncommand: [echo]\n"])
def test_a_script_or_a_command(attributes: str, project: Path) -> None:
    """Neither and both are errors, when the definitions are loaded."""
    with pytest.raises(Exception) as raised:
        load(project, attributes + "assets:\n  - key: rows\n")
    causes: list[BaseException] = [raised.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert "needs `script` or `command`, and not both" in str(causes[-1])


@components
def test_a_command(project: Path, home: Path) -> None:
    """With arguments; it needs no Pipes library to succeed."""
    defs = load(project, f"command: [{sys.executable}, -c]\nargs: [pass]\nassets:\n  - key: rows\n")
    with instance(home) as opened:
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=opened, run_config=QUIET).success


@pytest.mark.skipif(not OLD, reason="this Dagster has components")
def test_a_dagster_before_components() -> None:
    """The import says which Dagster it needs."""
    with pytest.raises(ImportError, match=f"needs Dagster 1.11 or newer, got {dg.__version__}"):
        importlib.import_module("dagsterpipes.dagster.component")
    assert dagsterpipes.dagster.PipesSubprocessClient is not None
