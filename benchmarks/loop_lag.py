"""Event-loop lag caused by logging.

100 tasks log 40,000 lines on one asyncio loop: each logs 50 lines, waits 10 ms, and so on, 8 times.
Meanwhile another task sleeps for one millisecond at a time. Its worst delay is what any other task of
the application may see.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from functools import partial
from typing import Any

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

TASKS, BURSTS, LINES = 100, 8, 50
TICK = 0.001


async def job(log: Any, name: int) -> None:
    for burst in range(BURSTS):
        for line in range(LINES):
            log.info("processed row %d of the input table", (name * BURSTS + burst) * LINES + line)
        await asyncio.sleep(0.01)


async def watch(delays: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(TICK)
        delays.append(time.perf_counter() - start - TICK)


async def main(who: str) -> None:
    delays: list[float] = []
    session = open_session(who)
    async with contextlib.AsyncExitStack() as stack:
        if who == OURS:
            await stack.enter_async_context(session)
        else:
            stack.enter_context(session)
        watcher = asyncio.create_task(watch(delays))
        await asyncio.sleep(0.05)
        delays.clear()
        start = time.perf_counter()
        await asyncio.gather(*(job(session.log, name) for name in range(TASKS)))
        took = time.perf_counter() - start
        watcher.cancel()
    delays.sort()
    report(
        worst=delays[-1] * 1e3,
        p99=delays[int(len(delays) * 0.99)] * 1e3,
        median=delays[len(delays) // 2] * 1e3,
        took=took * 1e3,
    )


def measure(scale: Scale) -> Result:
    count = TASKS * BURSTS * LINES
    found = alternate(
        {who: partial(run_launched, "loop_lag.py", who, count=count) for who in (OURS, REFERENCE)},
        scale.pick(9, 2),
    )
    row = Row(
        "loop_lag",
        "worst event-loop lag, 100 tasks log 40,000 lines",
        "ms",
        column(found, "worst"),
        short="worst event-loop lag",
        goal=15,
        goal_text="a 15th",
    )
    return Result([row], {"lag": found})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
