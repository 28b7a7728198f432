"""What the readers of many Dagster versions do with each kind of message that the library sends.

To measure again, in the project's environment, with a folder for the environments of the versions::

    .venv/bin/python tests/support/dagster_versions.py /tmp/dagsters

It writes `docs/explanation/dagster-versions.json` and prints the table of `what-the-reader-takes.md`.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from dagsterpipes._protocol import messages
from dagsterpipes._protocol.exception_info import exception_payload
from dagsterpipes._protocol.metadata import MetadataValue

RESULTS = Path(__file__).parents[2] / "docs/explanation/dagster-versions.json"
"""What each version did with each message, written by `main`."""

FLOOR = (1, 9, 10)
"""The first version of Dagster that takes every message."""

VERSIONS = (
    *("1.8.0", "1.8.13", "1.9.0", "1.9.3", "1.9.4", "1.9.5", "1.9.6", "1.9.9", "1.9.10", "1.9.11"),
    *("1.10.0", "1.10.21", "1.11.0", "1.12.0", "1.13.0", "1.13.29"),
)
# What these versions ran with when they were new; later releases of these break the old ones.
PINS = ("setuptools<81", "click<8.2", "sqlalchemy<2.1", "pydantic<2.12", "six", "python-dateutil")

READER = r"""
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster._core.pipes.utils import PipesTempFileMessageReader
from dagster._serdes import serialize_value

lines, taken = json.load(sys.stdin), {}

@dg.asset
def step(context):
    for name, text in lines.items():
        handler = PipesMessageHandler(context, PipesTempFileMessageReader())
        try:
            for line in text.splitlines():
                handler.handle_message(json.loads(line))
            for result in handler.get_reported_results():
                serialize_value(dg.AssetMaterialization("step", metadata=result.metadata))
        except Exception as error:
            taken[name] = False
            print(name, type(error).__name__, str(error)[:100], file=sys.stderr)
        else:
            taken[name] = True

stdout, sys.stdout = sys.stdout, sys.stderr  # Dagster prints what was captured
dg.materialize([step], instance=dg.DagsterInstance.ephemeral())
assert set(taken) == set(lines)
json.dump(taken, stdout)
"""

MOMENT = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
FRAME = pd.DataFrame({"n": [1, 2], "f": [0.5, None]})  # dtypes that are the same in all pandas
COLUMN = {
    "name": "n",
    "type": "int",
    "description": "d",
    "tags": {"k": "v"},
    "constraints": {"nullable": False, "unique": True, "other": ["> 0"]},
}

METADATA: dict[str, Any] = {
    "inferred text, number, bool, null, JSON": {"t": "x", "i": 1, "f": 0.5, "b": True, "j": [None]},
    "`text`, `url`, `path`, `notebook`, `md`": {
        "t": MetadataValue.text("x"),
        "u": MetadataValue.url("https://x"),
        "p": MetadataValue.path("/x"),
        "n": MetadataValue.notebook("x.ipynb"),
        "m": MetadataValue.md("**x**"),
    },
    "`int`, `float`, `bool`": {
        "i": MetadataValue.int(1),
        "f": MetadataValue.float(1),
        "b": MetadataValue.bool(True),
    },
    "`json`": {"j": MetadataValue.json({"a": [1]}), "t": MetadataValue.json("x")},
    "`null`": {"n": MetadataValue.null()},
    "`dagster_run`": {"r": MetadataValue.dagster_run("x")},
    "`asset`": {"a": MetadataValue.asset(["a", "b"])},
    "`timestamp`, a `datetime`": {"t": MOMENT},
    "`table`, a data frame": {"t": FRAME, "s": MetadataValue.table([{"n": 1}], [COLUMN])},
    "`table_schema`": {"s": MetadataValue.table_schema([COLUMN])},
    "`table_column_lineage`": {
        "l": MetadataValue.column_lineage({"c": [{"asset_key": "a/b", "column_name": "d"}]})
    },
}


def materialization(metadata: Any) -> bytes:
    return messages.asset_materialization(asset_key="step", data_version="v", metadata=metadata)


def check(severity: str) -> bytes:
    return messages.asset_check(
        asset_key="step", check_name="c", passed=False, severity=severity, metadata={"n": 1}
    )


def exceptions() -> dict[str, Any]:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        error.__traceback__ = None  # no paths and line numbers of this machine
        assert error.__cause__ is not None
        error.__cause__.__traceback__ = None
        return dict(exception_payload(error))


def lines() -> dict[str, bytes]:
    """A line of each kind, by its name in the table."""
    return {
        "`opened`": messages.opened({"k": "v"}),
        "`log`, every level": b"".join(
            messages.log("text", level) for level in ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")
        ),
        "materialization without metadata": materialization(None),
        "asset check": check("WARN") + check("ERROR"),
        "custom message": messages.custom_message({"k": [1, None]}),
        "stdout and stderr": messages.external_stream("stdout", "text", None)
        + messages.external_stream("stderr", "text", None),
        "`closed`": messages.closed(None),
        "`closed` with an exception": messages.closed(exceptions()),
        **{f"metadata: {name}": materialization(value) for name, value in METADATA.items()},
    }


def version_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def recorded() -> dict[str, Any]:
    """What was measured."""
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown; neighbouring versions that do the same share a column."""
    versions = sorted(results["versions"], key=version_of)
    taken = results["versions"]
    groups: list[list[str]] = []
    for version in versions:
        if groups and taken[groups[-1][0]] == taken[version]:
            groups[-1].append(version)
        else:
            groups.append([version])
    titles = [g[0] if len(g) == 1 else f"{g[0]} to {g[-1]}" for g in groups]
    rows = [f"| | {' | '.join(titles)} |", f"|---|{':---:|' * len(groups)}"]
    for name in results["messages"]:
        cells = ["yes" if taken[group[0]][name] else "**stops**" for group in groups]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def interpreter(folder: Path, version: str) -> Path:
    """The interpreter of an environment with this version of Dagster."""
    python = folder / version / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / version)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", f"dagster=={version}", *PINS]
        subprocess.run(install, check=True)
    return python


def main() -> None:
    """Run all versions, write the results and print the table."""
    folder = Path(sys.argv[1])
    sent = {name: line.decode() for name, line in lines().items()}
    taken = {}
    for version in VERSIONS:
        command = [str(interpreter(folder, version)), "-c", READER]
        done = subprocess.run(command, input=json.dumps(sent).encode(), stdout=-1, check=True)
        taken[version] = json.loads(done.stdout)
    results = {"messages": sent, "versions": taken}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
