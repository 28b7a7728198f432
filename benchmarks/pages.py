"""Writes the pages of docs/benchmarks from the results, and the numbers that other pages quote.

Another page has such numbers between ``<!-- numbers: NAME; ... -->`` and ``<!-- end of numbers -->``.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plots
from calls import PERCENTILES
from harness import OURS, REFERENCE, Published, middle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "benchmarks"
BOUND = "bound"
NOTE = "<!-- Written by benchmarks/run.py; change that, not this. -->"

INTRODUCTION = """\
Each row compares the medians of several rounds. The libraries took turns, and each round ran in a process of its own, so
a slow phase of the machine affects all of them. "Better" is a factor: 2 means half the time, or twice the rate; the
lowest and the highest round are in brackets. A row without a comparison has an absolute goal. `make bench` repeats all of
this on your machine; [results.json](results.json) has medians and ranges.
"""

SLOWER = """\
All values here in which `dagsterpipes` is more than 2% worse than `dagster_pipes`:
"""

SCALING = """\
The cost of a message should not depend on the number of messages before it, nor on the number of threads. This page
shows where that holds and where it ends; [the benchmarks](index.md) compare with other libraries.
"""

MORE_MESSAGES = """\
An empty cell was not measured: it would take `dagster_pipes` minutes. The first ten thousand messages of a process cost
more than later ones, since its memory is touched for the first time.
After that, neither the cost nor the memory grows. The queue is bounded by `buffer_size` (8 MiB here),
and callers wait when it is full.
"""

LONGER_MESSAGES = """\
The cost of short messages is that of the call; the cost of long ones is that of their bytes. On file systems without direct
writes, a line longer than a page of 4,096 bytes needs fillers before it: 256 kB for each batch with such lines
([why](../explanation/torn-lines.md)). That explains the step above 2,000 characters.
"""

MORE_THREADS = """\
The interpreter runs one thread at a time, so more threads do not increase throughput. They do not slow each other down
either: a call takes no lock as long as the buffer has room.
"""

COSTS = {"time": "time, µs", "cpu": "CPU, µs"}
GROWTH = {"growth_mb": "memory growth, MB"}


def write(saved: dict[str, Any]) -> None:
    """Write all pages and pictures, from the topics that there are."""
    plots.overview(PAGES, goals_of(saved))
    for topic, found in saved.items():
        plots.draw(PAGES, topic, found["series"])
    for path, text in texts(saved).items():
        path.write_text(text)


def texts(saved: dict[str, Any]) -> dict[Path, str]:
    """Every page that has numbers of the results, as it must be."""
    parts = ["# Benchmarks", NOTE, summary(saved), INTRODUCTION, "## Where it is slower", SLOWER]
    parts += [slower(saved), where(saved)]
    for topic, found in saved.items():
        if topic != "growth":
            parts += section(topic, found)
    found = {}
    if "growth" in saved:
        parts += ["## As the work grows", "[A page of its own](scaling.md)."]
        found[PAGES / "scaling.md"] = scaling(saved["growth"])
    found[PAGES / "index.md"] = "\n\n".join(part.strip() for part in parts) + "\n"
    return found | {path: with_numbers(path.read_text(), saved) for path in QUOTING}


# -- what other pages quote -----------------------------------------------------------------------

QUOTING = (
    ROOT / "README.md",
    ROOT / "docs" / "index.md",
    ROOT / "docs" / "explanation" / "comparison.md",
)
QUOTED = re.compile(r"(<!-- numbers: (\w+);.*?-->\n).*?(<!-- end of numbers -->)", re.DOTALL)


def with_numbers(text: str, saved: dict[str, Any]) -> str:
    """The text of a page with the numbers of today."""
    return QUOTED.sub(
        lambda block: f"{block[1]}{QUOTES[block[2]](saved).strip()}\n{block[3]}", text
    )


def highlights(saved: dict[str, Any]) -> str:
    """Three numbers for somebody who has thirty seconds."""
    rows = {row.name: row for row in rows_of(saved)}
    rates = {who: quantity(rows["calls"].values[who].median, "") for who in (OURS, REFERENCE)}
    torn = {who: torn_short(saved["torn_reads"]["series"]["torn"], who) for who in rates}
    cost = saved["dagster_cost"]["series"]
    seconds = {
        who: quantity(middle(cost["dagster"][case]["above"]), "s")
        for who, case in ((OURS, "by default"), (REFERENCE, REFERENCE))
    }
    return f"""\
- **{rates[OURS]} log calls a second**; `dagster-pipes`: {rates[REFERENCE]}.
- **{torn[OURS]} log lines were torn**, that is, seen in part by a reader that never sleeps; `dagster-pipes`:
  {torn[REFERENCE]}. At the first torn line Dagster's reader stops for good, and the asset is still green.
- **{seconds[OURS]} of Dagster's time for {cost["count"]:,} log lines**; `dagster-pipes`: {seconds[REFERENCE]}.
"""


def torn_short(series: dict[str, dict[str, int]], who: str) -> str:
    """How many of the lines of 150 bytes were torn."""
    cases = [found for case, found in series.items() if json.loads(case)[:3:2] == [who, "150 B"]]
    torn, lines = (sum(found[key] for found in cases) for key in ("torn", "lines"))
    return f"{torn:,} of {quantity(lines, '')}"


def slower(saved: dict[str, Any]) -> str:
    """What another library does better, by how much, and why."""
    found = [
        (row.name, row.what, row.unit, row.values[OURS].median, row.values[REFERENCE].median)
        for row in rows_of(saved)
        if row.against == REFERENCE and row.better.median < SAME
    ]
    measured: list[tuple[str, str, str, dict[str, Any], str]] = []
    if "growth" in saved:
        cases = saved["growth"]["series"]["by_count"]
        both = {who: cases[f"{who} 100000"] for who in (OURS, REFERENCE)}
        measured.append(("memory", "memory growth of 100,000 messages", "MB", both, "growth_mb"))
    if "calls" in saved:
        single = saved["calls"]["series"]["single"]
        for p in PERCENTILES:
            text = f"{p}th percentile" if p < 100 else "worst of all"
            measured.append(("tail", f"a call, {text}", "µs", single, f"p{p}"))
    if "latency" in saved:
        for how, both in saved["latency"]["series"].items():
            measured += [
                (how, f"from the call to the reader, {how}: {key}", "ms", both, key)
                for key in ("median", "worst")
            ]
    for name, what, unit, both, key in measured:
        ours, theirs = (middle(both[who][key]) for who in (OURS, REFERENCE))
        if ours * SAME > theirs:
            found.append((name, what, unit, ours, theirs))
    return table(
        ("", "`dagsterpipes`", "`dagster_pipes`", "why"),
        (
            (what, quantity(ours, unit), quantity(theirs, unit), WHY.get(name, "not known"))
            for name, what, unit, ours, theirs in found
        ),
    )


SAME = 0.98
"""From this part of the other's value on, a difference is not called one."""

WHY = {
    "launched_async": "more modules are imported",
    "memory": "the queue, which is bounded by `buffer_size`",
    "tail": "the interpreter switches to the session's thread, which writes a batch",
    "idle": "the session's thread must be woken",
    "warning": "the session's thread must be woken",
    "trickle": "lines wait for others, for up to `flush_interval` (20 ms)",
    "launched": "more of the standard library is imported",
    "store_lag": "within the same interval",
    "store_puts": "`opened` is stored at once, in an object of its own",
}

QUOTES: dict[str, Callable[[dict[str, Any]], str]] = {"highlights": highlights, "slower": slower}


# -- the table at the top -------------------------------------------------------------------------


def summary(saved: dict[str, Any]) -> str:
    goals = goals_of(saved)
    met = sum(part_of_goal(row) >= 1 for row in goals)
    how_many = f"All {met}" if met == len(goals) else f"{met} of {len(goals)}"
    lines = [
        f"{how_many} performance goals, set before development, are met.",
        "",
        "![How many times better dagsterpipes is, and the goals](overview.svg)",
        "",
        "| | `dagsterpipes` | compared with | better | goal | met |",
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


def rows_of(saved: dict[str, Any]) -> list[Published]:
    return [Published.from_json(row) for found in saved.values() for row in found["rows"]]


def goals_of(saved: dict[str, Any]) -> list[Published]:
    return [row for row in rows_of(saved) if row.goal is not None]


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


def section(topic: str, found: dict[str, Any]) -> Iterator[str]:
    title, _, how = (importlib.import_module(topic).__doc__ or "").partition("\n\n")
    # What is indented is how to run the script alone.
    text = "\n\n".join(part for part in how.split("\n\n") if not part.startswith("    "))
    title = title.strip().rstrip(".")
    yield f"## {title}"
    yield f"{text.strip()} ([the script](../../benchmarks/{topic}.py))"
    for name in plots.file_names(topic):
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


def scaling(found: dict[str, Any]) -> str:
    import growth

    series = found["series"]
    pictures = plots.file_names("growth")
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
