"""Steps of a real Dagster run, for tests of what happens on Dagster's side."""

import contextlib
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from support.dagster_runs import DagsterRun

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

RAW = """
import base64, json, os, sys, time, zlib
params = json.loads(zlib.decompress(base64.b64decode(os.environ["DAGSTER_PIPES_MESSAGES"])))
file = open(params["path"], "ab", buffering=0)
def line(method, **params):
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    return json.dumps(message).encode() + b"\\n"
def send(method, **params):
    file.write(line(method, **params))
def log(text, level="INFO"):
    send("log", message=text, level=level)
def materialize(key="the_asset", **metadata):
    metadata = {k: {"raw_value": v, "type": "__infer__"} for k, v in metadata.items()}
    send("report_asset_materialization", asset_key=key, data_version=None, metadata=metadata)
"""
"""The beginning of a script that writes its messages without any library."""


@contextlib.contextmanager
def instance(home: Path, storage: str = "") -> Iterator[dg.DagsterInstance]:
    """An instance on disk; SQLite, unless the YAML of a storage is given."""
    home.mkdir(exist_ok=True, parents=True)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n" + storage)
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dagster's own deprecations are not what is tested
            with dg.DagsterInstance.get() as opened:
                yield opened
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before


def materialize(
    where: dg.DagsterInstance, body: Callable[[Any], Any], **options: Any
) -> DagsterRun:
    """Materialize `the_asset`, whose work is this function of the context."""
    specs = [dg.AssetCheckSpec(name, asset="the_asset") for name in options.pop("checks", ())]

    @dg.asset(check_specs=specs)
    def the_asset(context: dg.AssetExecutionContext) -> Any:
        return body(context)

    result = dg.materialize(
        [the_asset],
        instance=where,
        raise_on_error=False,
        run_config=options.pop("run_config", QUIET),
        **options,
    )
    return DagsterRun(result, where)


def script(folder: Path, text: str, name: str = "job.py") -> list[str]:
    """The command of a script with this text."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


def warnings_of(run: DagsterRun) -> list[str]:
    """What the run's log warns of."""
    return [text for level, text in all_logs(run) if level == "WARNING"]


def all_logs(run: DagsterRun) -> list[tuple[str, str]]:
    """Level and text of every entry that is no event."""
    return [
        (logging.getLevelName(entry.level), str(entry.user_message))
        for entry in run._logs
        if entry.dagster_event is None
    ]
