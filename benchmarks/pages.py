"""Writes the pages of docs/benchmarks from the results; nothing in them is written by hand."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import plots
from calls import PERCENTILES
from harness import OURS, REFERENCE, Published, middle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BOUND = "bound"
NOTE = "<!-- Written by benchmarks/run.py; change that, not this. -->"

INTRODUCTION = """\
Each line compares medians of rounds. The libraries took turns, each round in its own process, so a machine that is slow
for a while is slow for all of them. "Better" is how many times: 2 is half the time, or twice the rate; in brackets the
lowest and highest round. The goals were set before the library was written. `make bench` measures all of this on
your machine; [results.json](results.json) has medians and ranges.
"""

SCALING = """\
The cost of a message should not depend on the number of messages before it, nor on the number of threads. This page
shows where that holds and where it ends; [the benchmarks](index.md) compare with other libraries.
"""

MORE_MESSAGES = """\
The first ten thousand messages of a process cost more than later ones, since its memory is touched for the first time.
After that, neither the cost nor the memory grows. The queue is bounded by `buffer_size` (8 MiB here),
and callers wait when it is full.
"""

LONGER_MESSAGES = """\
Short messages cost what a call costs; long ones what their bytes cost. A line longer than a page of 4,096 bytes needs
a runway before it ([why](../explanation/torn-lines.md)): 256 kB of fillers for each batch with such lines. That is
the step above 2,000 characters, and the price of a reader that does not stop.
"""

MORE_THREADS = """\
The interpreter runs one thread at a time, so more threads do not send more. They do not slow each other down either:
a call takes no lock as long as the buffer has room.
"""

COSTS = {"time": "time, µs", "cpu": "CPU, µs"}
GROWTH = {"growth_mb": "memory growth, MB"}


def write(folder: Path, saved: dict[str, Any]) -> None:
    """Write both pages and their pictures, from the topics that there are."""
    plots.overview(folder, goals_of(saved))
    parts = ["# Benchmarks", NOTE, summary(saved), INTRODUCTION, where(saved)]
    for topic, found in saved.items():
        if topic != "growth":
            parts += section(folder, topic, found)
    if "growth" in saved:
        parts += ["## As the work grows", "[A page of its own](scaling.md)."]
        (folder / "scaling.md").write_text(scaling(folder, saved["growth"]))
    (folder / "index.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


# -- the table at the top -------------------------------------------------------------------------


def summary(saved: dict[str, Any]) -> str:
    goals = goals_of(saved)
    reached = sum(part_of_goal(row) >= 1 for row in goals)
    lines = [
        f"{reached} of {len(goals)} goals are reached.",
        "",
        "![How many times better dagsterpipes is, and the goals](overview.svg)",
        "",
        "| | `dagsterpipes` | beside it | better | goal | reached |",
        "|---|---|---|---|---|---|",
    ]
    for row in goals:
        ours, theirs = row.values[OURS].median, row.values[row.against].median
        is_bound = row.against == BOUND
        if is_bound:
            beside, better = "", ""
        else:
            name = f"`{row.against}`" if row.against == REFERENCE else row.against
            beside = f"{name}: {quantity(theirs, row.unit)}"
            better = f"**{times(row.better.median)}** {spread(row)}"
        lines.append(
            f"| {row.what} | {quantity(ours, row.unit)} | {beside} | {better} | {row.goal_text} "
            f"| {verdict(row)} |"
        )
    return "\n".join(lines)


def goals_of(saved: dict[str, Any]) -> list[Published]:
    rows = [Published.from_json(row) for found in saved.values() for row in found["rows"]]
    return [row for row in rows if row.goal is not None]


def part_of_goal(row: Published) -> float:
    assert row.goal is not None
    return row.better.median / row.goal


def verdict(row: Published) -> str:
    part = part_of_goal(row)
    return "yes" if part >= 1 else f"**no: {part:.2f} of it**"


def spread(row: Published) -> str:
    _, lowest, highest = row.better
    return f"({times(lowest)} to {times(highest)})" if lowest != highest else ""


def times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 20 else f"{ratio:,.0f}"


def quantity(value: float, unit: str) -> str:
    """A number with three digits that mean something, and its unit."""
    shown = f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"
    if value >= 100_000:
        shown = f"{round(value, -4):,.0f}"
    return f"{shown} {unit}".strip()


# -- sections -------------------------------------------------------------------------------------


def where(saved: dict[str, Any]) -> str:
    """Machine, versions and dates."""
    last: dict[str, str] = next(reversed(saved.values()))["facts"]
    dates = sorted({found["date"] for found in saved.values()})
    load = max(found["load_before"] for found in saved.values())
    lines = ["| measured on | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in last.items()]
    lines += [
        f"| date | {dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'} |",
        f"| other work on the machine | load of up to {load} before a topic began |",
    ]
    return "\n".join(lines)


def section(folder: Path, topic: str, found: dict[str, Any]) -> Iterator[str]:
    title, _, how = (importlib.import_module(topic).__doc__ or "").partition("\n\n")
    # What is indented is how to run the script alone.
    text = "\n\n".join(part for part in how.split("\n\n") if not part.startswith("    "))
    title = title.strip().rstrip(".")
    yield f"## {title}"
    yield f"{text.strip()} ([the script](../../benchmarks/{topic}.py))"
    for name in plots.draw(folder, topic, found["series"]):
        yield f"![{title}]({name})"
    if topic in TABLES:
        yield TABLES[topic](found["series"])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def calls(series: dict[str, Any]) -> str:
    speed = table(
        ("", "calls a second", "µs a call", "messages a second to the closed file"),
        (
            (
                who,
                quantity(rate := middle(found["calls_per_s"]), ""),
                f"{1e6 / rate:.2f}",
                quantity(middle(found["to_file_per_s"]), ""),
            )
            for who, found in series["speed"].items()
        ),
    )
    single = table(
        (
            "µs a call (with reading the clock)",
            *(f"{p}%" if p < 100 else "worst" for p in PERCENTILES),
        ),
        (
            (who, *(quantity(middle(found[f"p{p}"]), "") for p in PERCENTILES))
            for who, found in series["single"].items()
        ),
    )
    return f"{speed}\n\n{single}"


def by_case(series: dict[str, Any], head: dict[str, str]) -> str:
    """A table of medians: a line for each case, a column for each of these keys."""
    return table(
        ("", *head.values()),
        (
            (who, *(quantity(middle(found[key]), "") for key in head if key in found))
            for who, found in series.items()
        ),
    )


def start_up(series: dict[str, Any]) -> str:
    rows = {"import": "import", "unlaunched": "outside Dagster", "launched": "launched"}
    rows["launched_async"] = "launched, asyncio"
    return table(
        ("ms, whole process", *series["import"]),
        (
            (text, *(quantity(middle(found["ms"]), "") for found in series[name].values()))
            for name, text in rows.items()
        ),
    )


def latency(series: dict[str, Any]) -> str:
    return table(
        (
            "ms from call to reader",
            "`dagsterpipes`: median",
            "worst",
            "`dagster_pipes`: median",
            "worst",
        ),
        (
            (
                how,
                *(
                    quantity(middle(found[who][key]), "")
                    for who in (OURS, REFERENCE)
                    for key in ("median", "worst")
                ),
            )
            for how, found in series.items()
        ),
    )


def torn_reads(series: dict[str, Any]) -> str:
    by_place: dict[tuple[str, str, bool], dict[str, dict[str, int]]] = {}
    for name, numbers in series["torn"].items():
        who, place, size, busy = json.loads(name)
        by_place.setdefault((place, size, busy), {})[who] = numbers
    everybody = list(next(iter(by_place.values())))
    return table(
        ("torn reads of lines", *everybody),
        (
            (
                f"{size}, {place}{', busy cores' if busy else ''}",
                *(f"{found[who]['torn']:,} of {found[who]['lines']:,}" for who in everybody),
            )
            for (place, size, busy), found in by_place.items()
        ),
    )


def dagster_cost(series: dict[str, Any]) -> str:
    return by_case(
        series["dagster"],
        {"seconds": "seconds", "bare": "bare run", "messages": "log messages in Dagster"},
    )


TABLES = {
    "calls": calls,
    "loop_lag": lambda series: by_case(
        series["lag"],
        {"median": "lag in ms: median", "p99": "99%", "worst": "worst", "took": "whole run in ms"},
    ),
    "paced_cpu": lambda series: by_case(series["cpu"], {"cpu_ms_per_s": "ms of CPU a second"}),
    "start_up": start_up,
    "latency": latency,
    "torn_reads": torn_reads,
    "dagster_cost": dagster_cost,
    "ingestion": lambda series: "\n\n".join(
        (
            by_case(series["lines"], {"seconds": "seconds", "bare": "bare run"}),
            by_case(series["jobs"], {"seconds": "seconds", "cpu": "seconds of CPU"}),
        )
    ),
}


# -- how it scales --------------------------------------------------------------------------------


def scaling(folder: Path, found: dict[str, Any]) -> str:
    import growth

    series = found["series"]
    pictures = list(plots.draw(folder, "growth", series))
    how = (growth.__doc__ or "").partition("\n\n")[2]
    facts = found["facts"]
    measured = f"{found['date']}, {facts['processor']}, Python {facts['python'].split()[-1]}"
    parts = [
        "# How the cost grows with the work",
        NOTE,
        SCALING,
        f"{how.strip()} ([the script](../../benchmarks/growth.py), {measured})",
        "## More messages",
        f"![Cost of a message by their number]({pictures[0]})",
        by_number(series["by_count"], "messages", COSTS | GROWTH),
        MORE_MESSAGES,
        "## Longer messages",
        f"![Bytes a second by the length of a message]({pictures[1]})",
        by_number(series["by_length"], "characters", COSTS | GROWTH),
        LONGER_MESSAGES,
        "## More threads",
        f"![Cost of a message by the number of threads]({pictures[2]})",
        by_number(series["by_threads"], "threads", COSTS),
        MORE_THREADS,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def by_number(series: dict[str, Any], what: str, columns: dict[str, str]) -> str:
    """Both libraries side by side, a line for each number."""
    numbers = sorted({int(name.split()[1]) for name in series})
    head = [what, *(f"`{who}`: {text}" for who in (OURS, REFERENCE) for text in columns.values())]
    rows = []
    for number in numbers:
        row = [f"{number:,}"]
        for who in (OURS, REFERENCE):
            found = series.get(f"{who} {number}")
            row += [quantity(max(0.0, middle(found[key])), "") if found else "" for key in columns]
        rows.append(row)
    return table(head, rows)
