"""Measures us beside others, and writes the pages of docs/benchmarks.

make bench                                  # everything; about 20 minutes on two cores
make bench ARGS="--only calls latency"      # some topics; the others keep their numbers
make bench ARGS="--render"                  # only write the pages again
make bench ARGS="--check"                   # only compare the pages with the results
make bench ARGS="--short --gate 0.6"        # what CI runs: fails below 60% of a goal
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import os
import sys
from typing import Any

import facts
import pages
from harness import Result, Scale, without_rounds

TOPICS = (
    "calls",
    "loop_lag",
    "paced_cpu",
    "growth",
    "start_up",
    "standalone",
    "latency",
    "torn_reads",
    "dagster_cost",
    "ingestion",
    "object_store",
    "relay",
)
RESULTS = pages.PAGES / "results.json"


RETRIES = 3
"""How often a topic below the gate is measured again: the machine may be busy with something else."""


def measure(topic: str, scale: Scale, gate: float | None) -> tuple[Result, list[str]]:
    """Measure a topic, again if it falls below the gate. The result, and what still does."""
    module: Any = importlib.import_module(topic)
    result: Result = module.measure(scale)
    for _ in range(RETRIES):
        if gate is None or not below(result, gate):
            return result, []
        print(f"{topic}: below the gate, measured again", file=sys.stderr)
        again: Result = module.measure(scale)
        for row, other in zip(result.rows, again.rows, strict=True):
            for who, values in other.values.items():
                row.values[who] += values
    return result, [] if gate is None else below(result, gate)


UNSTEADY = {"structlog + orjson", "QueueHandler", "loguru enqueue", "bare loop"}
"""Beside these the ratios move by three times with what else the machine does: shown, not gated."""


def below(result: Result, gate: float) -> list[str]:
    """What does not reach this part of its goal, by the best rounds."""
    return [
        f"{row.name}: {row.times_best():.2f} times {row.against}, the goal is {row.goal:.2f}"
        for row in result.rows
        if row.goal is not None
        and row.against not in UNSTEADY
        and row.times_best() < gate * row.goal
    ]


LONGEST_LINE = 600
"""Characters of a line of ``results.json``; what is longer is broken into its parts."""


def to_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each row of the table and each case of a series."""
    line = json.dumps(value)
    if len(line) <= LONGEST_LINE or not isinstance(value, (dict, list)):
        return line
    within = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {to_json(inner, within)}" for key, inner in value.items()]
    else:
        parts = [to_json(inner, within) for inner in value]
    start, end = line[0], line[-1]
    return f"{start}\n{within}" + f",\n{within}".join(parts) + f"\n{indent}{end}"


def show(result: Result) -> None:
    for row in result.rows:
        goal = f"goal {row.goal_text}" if row.goal is not None else ""
        print(f"  {row.what:60} {row.times_better():10.2f} x {row.against:20} {goal}", flush=True)


def in_order(saved: dict[str, Any]) -> dict[str, Any]:
    return {topic: saved[topic] for topic in TOPICS if topic in saved}


def check(saved: dict[str, Any]) -> int:
    """Whether every page has the numbers of the results."""
    old = [path for path, text in pages.texts(saved).items() if path.read_text() != text]
    for path in old:
        print(f'{path}: out of date; run `make bench ARGS="--render"`', file=sys.stderr)
    return 1 if old else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="less of everything; writes no pages")
    parser.add_argument("--only", nargs="+", choices=TOPICS, default=TOPICS, metavar="TOPIC")
    parser.add_argument("--gate", type=float, help="fail below this part of a goal")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the pages")
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date")
    options = parser.parse_args()
    saved: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.check:
        return check(in_order(saved))
    missed: list[str] = []
    for topic in () if options.render else options.only:
        print(topic, flush=True)
        load = os.getloadavg()[0]
        result, low = measure(topic, Scale(options.short), options.gate)
        missed += low
        show(result)
        saved[topic] = {
            "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"),
            "load_before": round(load, 1),
            "facts": facts.collect(),
            "rows": [row.published().as_json() for row in result.rows],
            "series": without_rounds(result.series),
        }
        if not options.short:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(to_json(saved) + "\n")
    if not options.short:
        pages.write(in_order(saved))
    for line in missed:
        print(f"below {options.gate:.0%} of the goal: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
