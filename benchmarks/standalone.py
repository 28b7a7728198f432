"""A script outside Dagster: 300,000 log calls below the level.

`log.debug("detail %d", i)` on the logger of a `NullPipesContext` whose level is INFO. `dagster_pipes`
gives such a script a `MagicMock`, which keeps every call. Growth is the process's resident memory
after the calls, minus that after the first thousand.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from functools import partial

from harness import (
    OURS,
    REFERENCE,
    Result,
    Row,
    Scale,
    alternate,
    column,
    memory,
    open_session,
    plain_environment,
    report,
    run,
)

BOUND = "bound"


def calls(who: str, count: int) -> None:
    warnings.simplefilter("ignore")
    log = open_session(who).log
    log.setLevel(logging.INFO)
    for i in range(1000):
        log.debug("detail %d", i)
    before = memory()
    start = time.perf_counter()
    for i in range(count):
        log.debug("detail %d", i)
    took = time.perf_counter() - start
    report(ns=took / count * 1e9, growth_mb=(memory() - before) / 1e6)


def measure(scale: Scale) -> Result:
    count = scale.pick(300_000, 50_000)
    found = alternate(
        {
            who: partial(run, "standalone.py", who, count, env=plain_environment())
            for who in (OURS, REFERENCE)
        },
        scale.pick(7, 2),
    )
    growth = column(found, "growth_mb") | {BOUND: [0.5]}
    return Result(
        [
            Row(
                "null_call",
                "a call below the level, outside Dagster",
                "ns",
                column(found, "ns"),
                short="call below the level, standalone",
                goal=50,
                goal_text="a 50th",
            ),
            Row(
                "null_growth",
                f"memory growth over {count:,} such calls",
                "MB",
                growth,
                against=BOUND,
                goal=1,
                goal_text="none (under 0.5 MB)",
            ),
        ]
    )


if __name__ == "__main__":
    calls(sys.argv[1], int(sys.argv[2]))
