"""Dagster's own time for an asset that logs 5,000 lines, with and without `coalesce_logs`.

Dagster materializes an asset with a real instance (SQLite, in a folder of its own); the asset's
process is launched by `PipesSubprocessClient`. The whole materialization is measured, in a process
that has made two others before: one to warm up, and the bare run, which logs nothing. Afterwards
every one of the 5,000 texts must be in Dagster's log, in order.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import OURS, REFERENCE, Result, Row, Scale, alternate, plain_environment, report, run

WINDOW = "0.2"
MEMORY = "/dev/shm"
LINE_BY_LINE = "line by line"
COALESCED = f"coalesce_logs={WINDOW}"
DEFAULT = "by default"
CHILD = """
from {library} import open_dagster_pipes
with open_dagster_pipes() as pipes:
    for i in range({count}):
        pipes.log.info("processed row %d of the input table", i)
"""


def asset_with(library: str, count: int) -> Any:
    """An asset whose process logs so many lines."""
    import dagster as dg

    code = CHILD.format(library=library, count=count)

    @dg.asset
    def the_asset(context):  # noqa: ANN001, ANN202 because Dagster reads annotations
        client = dg.PipesSubprocessClient()
        return client.run(context=context, command=[sys.executable, "-c", code]).get_results()

    return the_asset


def materialize(library: str, count: int) -> None:
    """In the measured process."""
    import dagster as dg

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:

        def run_with(lines: int) -> tuple[float, float, str]:
            asset = asset_with(library, lines)
            start, cpu = time.perf_counter(), time.process_time()
            run_id = dg.materialize([asset], instance=instance, run_config=quiet).run_id
            return time.perf_counter() - start, time.process_time() - cpu, run_id

        run_with(0)  # the first run of a process is slower
        bare, bare_cpu, _ = run_with(0)
        took, cpu, run_id = run_with(count)
        messages = [
            str(entry.user_message)
            for entry in instance.all_logs(run_id)
            if entry.dagster_event is None and "processed row" in str(entry.user_message)
        ]
    lines = [line for message in messages for line in message.split("\n")]
    if lines != [f"processed row {i} of the input table" for i in range(count)]:
        raise RuntimeError(f"{len(lines)} lines in Dagster's log, not {count} in order")
    report(
        seconds=took,
        bare=bare,
        above=max(0.001, took - bare),
        cpu_above=max(0.001, cpu - bare_cpu),
        messages=len(messages),
    )


def process(library: str, count: int, window: str, parent: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as home:
        (Path(home) / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        env = plain_environment() | {"DAGSTER_HOME": home, "DAGSTERPIPES_COALESCE_LOGS": window}
        return run("dagster_cost.py", library, count, env=env)


def measure(scale: Scale) -> Result:
    count = scale.pick(5_000, 1_000)
    # In the short form neither the disk's mood nor other processes must matter.
    parent = MEMORY if scale.short and Path(MEMORY).is_dir() else None
    key = "cpu_above" if scale.short else "above"
    cases = {
        COALESCED: partial(process, OURS, count, WINDOW, parent),
        DEFAULT: partial(process, OURS, count, "", parent),
        LINE_BY_LINE: partial(process, OURS, count, "0", parent),
    }
    if not scale.short:
        cases[REFERENCE] = partial(process, REFERENCE, count, "", parent)
    found = alternate(cases, scale.pick(5, 1))
    row = Row(
        "dagster_cost",
        f"Dagster's run of an asset with {count:,} log lines, above its bare run",
        "s",
        {OURS: found[COALESCED][key], LINE_BY_LINE: found[LINE_BY_LINE][key]},
        against=LINE_BY_LINE,
        short="Dagster's time, coalesced",
        goal=30,
        goal_text="a 30th",
    )
    default = Row(
        "dagster_cost_default",
        f"Dagster's run of an asset with {count:,} log lines, nothing set, above its bare run",
        "s",
        {OURS: found[DEFAULT][key], LINE_BY_LINE: found[LINE_BY_LINE][key]},
        against=LINE_BY_LINE,
        short="Dagster's time, by default",
        # Of 1,000 lines the 200 that are sent one by one are a fifth.
        goal=scale.pick(10, 3),
        goal_text="a third" if scale.short else "a 10th",
    )
    return Result([row, default], {"dagster": found, "count": count})


if __name__ == "__main__":
    materialize(sys.argv[1], int(sys.argv[2]))
