"""Materialize `orders` with Dagster and show what arrived. No server, nothing left behind.

Exits with 1 when anything that the job said is missing on Dagster's side.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
EXPECTED_METADATA = {
    "orders": "IntMetadataValue",
    "mean_amount": "FloatMetadataValue",
    "summary": "MarkdownMetadataValue",
    "by_region": "TableMetadataValue",
    "source": "UrlMetadataValue",
    "started": "TimestampMetadataValue",
    "settings": "JsonMetadataValue",
}


def main() -> int:
    """Run the demo; 0 when everything arrived."""
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        os.environ["DAGSTER_HOME"] = home
        return run()


def run() -> int:
    """Materialize, print, compare with what has to be there."""
    warnings.filterwarnings("ignore", module="dagster")  # of Dagster's previews, to Dagster
    import dagster as dg  # noqa: PLC0415 because DAGSTER_HOME has to be set before

    sys.path.insert(0, str(Path(__file__).parent))
    from defs import orders  # noqa: PLC0415 because it imports dagster

    print("Dagster launches `python examples/demo/ingest.py`, an asyncio job ...")
    started = time.perf_counter()
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [orders],
            resources={"pipes_client": dg.PipesSubprocessClient()},
            instance=instance,
            run_config=QUIET,
            raise_on_error=False,
        )
        entries = instance.all_logs(result.run_id)
    print(f"... and this is what it received, {time.perf_counter() - started:.1f} s later.")

    missing = [] if result.success else ["the success of the run"]
    missing += show_logs([e for e in entries if not e.is_dagster_event])
    missing += show_materialization(result.get_asset_materialization_events())
    missing += show_checks(result.get_asset_check_evaluations())
    complaints = [
        entry.user_message
        for entry in entries
        if "[pipes]" in entry.user_message and "successfully opened" not in entry.user_message
    ]
    print()
    if missing or complaints:
        print(*(f"MISSING: {text}" for text in missing), sep="\n")
        print(*(f"DAGSTER COMPLAINS: {text}" for text in complaints), sep="\n")
        return 1
    print("Everything that the job sent arrived.")
    return 0


def show_logs(entries: list[Any]) -> list[str]:
    """The log lines, and the custom message, which the asset logs."""
    import logging  # noqa: PLC0415 because only names are needed

    title("Logs and the custom message")
    for entry in entries:
        print(f"  {logging.getLevelName(entry.level):8} {entry.user_message}")
    texts = "\n".join(entry.user_message for entry in entries)
    expected = [
        *(f"fetching the orders of {region}" for region in ("north", "south", "west")),
        "south sent 2 orders",
        "1 of 8 orders is below 10",
        'custom message: {"regions": ["north", "south", "west"], "seconds": 0.05}',
    ]
    return [f"the log line {text!r}" for text in expected if text not in texts]


def show_materialization(events: list[dg.DagsterEvent]) -> list[str]:
    """The one materialization and its typed metadata."""
    import dagster as dg  # noqa: PLC0415 because DAGSTER_HOME has to be set before

    title("Materialization")
    if len(events) != 1:
        return [f"one materialization (there are {len(events)})"]
    materialization = events[0].materialization
    print(f"  asset {materialization.asset_key.to_user_string()}")
    for name, value in (materialization.tags or {}).items():
        if name == "dagster/data_version":
            print(f"  data version {value}")
    for name in [n for n in EXPECTED_METADATA if n in materialization.metadata]:
        value = materialization.metadata[name]
        text = str(value.value)
        if isinstance(value, dg.TableMetadataValue):
            text = "\n".join(
                " ".join(f"{cell!s:8}" for cell in r.data.values()) for r in value.records
            )
        for number, line in enumerate(text.splitlines()):
            head = "" if number else f"{name:12} {type(value).__name__}"
            print(f"  {head:40}{line}")
    return [
        f"metadata {name} as {kind}"
        for name, kind in EXPECTED_METADATA.items()
        if type(materialization.metadata.get(name)).__name__ != kind
    ]


def show_checks(checks: list[dg.AssetCheckEvaluation]) -> list[str]:
    """The checks: one passed, one failed."""
    title("Asset checks")
    for check in checks:
        verdict = "passed" if check.passed else f"FAILED ({check.severity.value})"
        facts = {name: value.value for name, value in check.metadata.items()}
        print(f"  {check.check_name:16} {verdict:15} {facts}")
    found = {check.check_name: check.passed for check in checks}
    expected = {"has_orders": True, "no_small_orders": False}
    return [
        f"the check {name}" for name, passed in expected.items() if found.get(name) is not passed
    ]


def title(text: str) -> None:
    """A heading."""
    print(f"\n{text}\n{'-' * len(text)}")


if __name__ == "__main__":
    sys.exit(main())
