"""Runs where only the package is installed: a session without Dagster, and one as if launched."""

import base64
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any


def encoded(value: object) -> str:
    """A bootstrap value as Dagster encodes it."""
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def main(env: Path) -> None:
    """Open both kinds of session and look at what was written."""
    import dagsterpipes

    assert Path(dagsterpipes.__file__).is_relative_to(env), dagsterpipes.__file__
    with dagsterpipes.open_dagster_pipes() as pipes:
        pipes.log.info("not launched")

    messages = env / "messages"
    messages.touch()
    context: dict[str, Any] = dict.fromkeys(
        ("partition_key", "partition_key_range", "partition_time_window", "job_name")
    )
    context |= {
        "asset_keys": ["a"],
        "code_version_by_asset_key": {"a": None},
        "provenance_by_asset_key": {"a": None},
        "run_id": "1",
        "retry_number": 0,
        "extras": {},
    }
    os.environ["DAGSTER_PIPES_CONTEXT"] = encoded({"data": context})
    os.environ["DAGSTER_PIPES_MESSAGES"] = encoded({"path": str(messages)})
    with dagsterpipes.open_dagster_pipes() as pipes:
        pipes.log.info("launched")
        pipes.report_asset_materialization(metadata={"rows": 1})
    methods = [json.loads(line)["method"] for line in messages.read_text().splitlines()]
    assert [name for name in methods if name != "log_external_stream"] == [
        "opened",
        "log",
        "report_asset_materialization",
        "closed",
    ], methods


if __name__ == "__main__":
    main(Path(sys.argv[1]))
