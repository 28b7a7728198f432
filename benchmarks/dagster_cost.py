"""What Dagster itself needs for an asset that logs 5,000 lines, and what `coalesce_logs` saves.

Dagster materializes an asset with a real instance (SQLite, in a folder of its own); the asset's
process is launched by `PipesSubprocessClient`. Measured is the whole materialization, in a process
of its own that has imported Dagster before. The bare run logs nothing. Afterwards every one of the
5,000 texts must be in Dagster's log, in order.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import OURS, REFERENCE, Result, Row, Scale, alternate, plain_environment, report, run

WINDOW = "0.2"
BARE = "no log lines"
LINE_BY_LINE = "line by line"
COALESCED = f"coalesce_logs={WINDOW}"
CHILD = """
from {library} import open_dagster_pipes
with open_dagster_pipes() as pipes:
    for i in range({count}):
        pipes.log.info("processed row %d of the input table", i)
"""


def materialize(library: str, count: int) -> None:
    """In the measured process."""
    import dagster as dg

    @dg.asset
    def the_asset(context):  # noqa: ANN001, ANN202 because Dagster reads annotations
        code = CHILD.format(library=library, count=count)
        client = dg.PipesSubprocessClient()
        return client.run(context=context, command=[sys.executable, "-c", code]).get_results()

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        start = time.perf_counter()
        result = dg.materialize([the_asset], instance=instance, run_config=quiet)
        took = time.perf_counter() - start
        messages = [
            str(entry.user_message)
            for entry in instance.all_logs(result.run_id)
            if entry.dagster_event is None and "processed row" in str(entry.user_message)
        ]
    lines = [line for message in messages for line in message.split("\n")]
    if lines != [f"processed row {i} of the input table" for i in range(count)]:
        raise RuntimeError(f"{len(lines)} lines in Dagster's log, not {count} in order")
    report(seconds=took, messages=len(messages))


def process(library: str, count: int, window: str = "") -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        (Path(home) / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        env = plain_environment() | {"DAGSTER_HOME": home, "DAGSTERPIPES_COALESCE_LOGS": window}
        return run("dagster_cost.py", library, count, env=env)


def measure(scale: Scale) -> Result:
    count = scale.pick(5_000, 1_000)
    cases = {
        BARE: partial(process, OURS, 0),
        COALESCED: partial(process, OURS, count, WINDOW),
        LINE_BY_LINE: partial(process, OURS, count),
    }
    if not scale.short:
        cases[REFERENCE] = partial(process, REFERENCE, count)
    found = alternate(cases, scale.pick(5, 2))
    bare = min(found[BARE]["seconds"])  # the least favourable for us
    row = Row(
        "dagster_cost",
        f"Dagster's run of an asset with {count:,} log lines, above its bare run",
        "s",
        {
            OURS: [seconds - bare for seconds in found[COALESCED]["seconds"]],
            LINE_BY_LINE: [seconds - bare for seconds in found[LINE_BY_LINE]["seconds"]],
        },
        against=LINE_BY_LINE,
        goal=30,
        goal_text="a 30th",
    )
    return Result([row], {"dagster": found, "count": count, "window": WINDOW})


if __name__ == "__main__":
    materialize(sys.argv[1], int(sys.argv[2]))
