"""CPU of a process that logs 10,000 messages a second.

10 messages every millisecond. The number is the processor time of all threads of the process,
from the first message to the closed file, for each second of the run. "pacing alone" does the same
without logging; both other numbers include it.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from harness import (
    OURS,
    REFERENCE,
    Result,
    Row,
    Scale,
    alternate,
    column,
    open_session,
    report,
    run_launched,
)

NOTHING = "pacing alone"
AT_ONCE, EVERY = 10, 0.001


def paced(who: str, seconds: float) -> None:
    session = None if who == NOTHING else open_session(who)
    steps = round(seconds / EVERY)
    cpu = time.process_time()
    due = time.monotonic()
    for step in range(steps):
        if session is not None:
            for i in range(AT_ONCE):
                session.log.info("processed row %d of the input table", step * AT_ONCE + i)
        due += EVERY
        time.sleep(max(0.0, due - time.monotonic()))
    if session is not None:
        session.close()
    report(cpu_ms_per_s=(time.process_time() - cpu) * 1e3 / seconds)


def measure(scale: Scale) -> Result:
    seconds = 0.5 if scale.short else 3.0
    count = round(seconds / EVERY) * AT_ONCE
    found = alternate(
        {
            who: partial(
                run_launched, "paced_cpu.py", who, seconds, count=0 if who == NOTHING else count
            )
            for who in (OURS, REFERENCE, NOTHING)
        },
        scale.pick(5, 2),
    )
    row = Row(
        "paced_cpu",
        "CPU at a paced 10,000 messages a second",
        "ms/s",
        column(found, "cpu_ms_per_s"),
        short="CPU at 10,000 messages/s",
        goal=6,
        goal_text="a 6th",
    )
    return Result([row], {"cpu": found})


if __name__ == "__main__":
    paced(sys.argv[1], float(sys.argv[2]))
