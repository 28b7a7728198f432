"""How the cost of a message behaves as the work grows: more of them, longer ones, more threads.

"time" is wall time from the first message to the closed file, "CPU" the processor time of all
threads over the same span, both divided by the number of messages. "growth" is the process's peak
of resident memory, minus its memory when the session was open. Each number is measured in a process of
its own; small ones are measured more often, because they take so little time.
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from statistics import median
from typing import Any

from harness import (
    OURS,
    REFERENCE,
    Result,
    Row,
    Scale,
    alternate,
    memory,
    open_session,
    report,
    run_launched,
)

BOUND = "bound"
THREADS = (1, 2, 4, 8)
LENGTHS = (20, 200, 2_000, 20_000, 200_000)


def say(session: Any, numbers: range, text: str) -> None:
    info = session.log.info
    for i in numbers:
        info(text, i)


def work(who: str, count: int, length: int, threads: int) -> None:
    session = open_session(who)
    text = "processed row %d of the input table".ljust(length, ".")
    before = memory()
    cpu, start = time.process_time(), time.perf_counter()
    if threads == 1:
        say(session, range(count), text)
    else:
        parts = [range(count)[number::threads] for number in range(threads)]
        workers = [threading.Thread(target=say, args=(session, part, text)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    session.close()
    took, used = time.perf_counter() - start, time.process_time() - cpu
    report(
        time=took / count * 1e6,
        cpu=used / count * 1e6,
        growth_mb=(memory("VmHWM") - before) / 1e6,
        bytes_per_s=count * length / took,
    )


def process(who: str, count: int, length: int = 0, threads: int = 1) -> dict[str, Any]:
    return run_launched("growth.py", who, count, length, threads, count=count)


def by_count(scale: Scale) -> dict[str, Any]:
    """Both libraries at each power of ten; small counts as the median of several processes."""
    rounds = scale.pick(5, 2)
    largest = scale.pick(10_000_000, 1_000_000)
    ours = [10_000, largest] if scale.short else [10**power for power in range(3, 8)]
    theirs = [count for count in ours if count <= scale.pick(100_000, 10_000)]

    def repeated(who: str, count: int) -> dict[str, Any]:
        times = max(1, min(scale.pick(15, 5), largest // 10 // count))
        runs = [process(who, count) for _ in range(times)]
        return {key: median([run[key] for run in runs]) for key in runs[0]}

    cases = {f"{OURS} {count}": partial(repeated, OURS, count) for count in ours}
    cases |= {f"{REFERENCE} {count}": partial(process, REFERENCE, count) for count in theirs}
    return alternate(cases, rounds)


def measure(scale: Scale) -> Result:
    counts = by_count(scale)
    series: dict[str, Any] = {"by_count": counts}
    if not scale.short:
        both = (OURS, REFERENCE)
        series["by_length"] = alternate(
            {
                f"{who} {length}": partial(process, who, min(50_000, 200_000_000 // length), length)
                for who in both
                for length in LENGTHS
            },
            3,
        )
        series["by_threads"] = alternate(
            {
                f"{who} {threads}": partial(process, who, 100_000, 0, threads)
                for who in both
                for threads in THREADS
            },
            3,
        )
    few, many = f"{OURS} 10000", f"{OURS} {scale.pick(10_000_000, 1_000_000)}"
    many_text = "10 million" if not scale.short else "1 million"

    def cost(name: str, what: str) -> Row:
        return Row(
            f"growth_{name}",
            f"{what} a message: {many_text} against 10,000 messages",
            "µs",
            {OURS: counts[many][name], "10,000 messages": counts[few][name]},
            against="10,000 messages",
            short=f"{what} a message, {many_text} / 10,000",
            goal=1 / 1.1,
            goal_text="within 10%",
        )

    memory = Row(
        "growth_memory",
        f"memory growth over {many_text} messages",
        "MB",
        {OURS: counts[many]["growth_mb"], BOUND: [20.0]},
        against=BOUND,
        goal=1,
        goal_text="under 20 MB",
    )
    return Result([cost("time", "time"), cost("cpu", "CPU"), memory], series)


if __name__ == "__main__":
    work(sys.argv[1], *map(int, sys.argv[2:]))
