"""The pictures of the benchmark pages, as SVG."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from calls import PERCENTILES
from harness import OURS, REFERENCE, middle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness import Published
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

OUR_COLOUR, OTHER_COLOUR, THIRD_COLOUR, MISSED_COLOUR = "#1f6feb", "#8c959f", "#c9d1d9", "#bf8700"
INK = "#24292f"
AT_NIGHT = {INK: "#d0d7de", OUR_COLOUR: "#539bf5", OTHER_COLOUR: "#768390", THIRD_COLOUR: "#444c56"}
"""What the colours become on a dark page; a browser picks them by the page's colour scheme."""

STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "svg.hashsalt": "dagsterpipes",  # so that the same numbers give the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def colour(who: str) -> str:
    return OUR_COLOUR if who.startswith((OURS, "coalesce_logs", "by default")) else OTHER_COLOUR


def bars(axes: Axes, values: dict[str, float], unit: str, *, log: bool = False) -> None:
    """Horizontal bars, the first on top, each with its number."""
    drawn = axes.barh(list(values), list(values.values()), color=[colour(name) for name in values])
    axes.bar_label(drawn, [shown(value) for value in values.values()], padding=4)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    if log:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(tick)
    axes.margins(x=0.15)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def tick(value: float, _: int) -> str:
    """All numbers at axes are written in this way: 1,000 and 0.5."""
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:g}"


def plain_ticks(axis: Axis) -> None:
    from matplotlib.ticker import NullFormatter

    axis.set_major_formatter(tick)
    axis.set_minor_formatter(NullFormatter())


def legend(axes: Axes) -> None:
    """Above the axes, where no value is."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def medians(found: dict[str, Any], key: str) -> dict[str, float]:
    return {who: middle(numbers[key]) for who, numbers in found.items() if key in numbers}


# -- one function a picture -----------------------------------------------------------------------


def calls(axes: Axes, series: dict[str, Any]) -> None:
    rates = medians(series["speed"], "calls_per_s")
    in_order = dict(sorted(rates.items(), key=lambda one: -one[1]))
    bars(axes, in_order, "log calls a second (logarithmic)", log=True)


def single_calls(axes: Axes, series: dict[str, Any]) -> None:
    labels = [f"{p}%" if p < 100 else "worst" for p in PERCENTILES]
    for who in (REFERENCE, OURS):
        values = [middle(series["single"][who][f"p{p}"]) for p in PERCENTILES]
        axes.plot(labels, values, "o-", color=colour(who), label=who)
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_xlabel("percentile of the calls")
    axes.set_ylabel("µs a call (logarithmic)")
    legend(axes)


def loop_lag(axes: Axes, series: dict[str, Any]) -> None:
    bars(axes, medians(series["lag"], "worst"), "worst event-loop lag, ms")


def paced_cpu(axes: Axes, series: dict[str, Any]) -> None:
    bars(
        axes, medians(series["cpu"], "cpu_ms_per_s"), "ms of CPU a second, 10,000 messages a second"
    )


def start_up(axes: Axes, series: dict[str, Any]) -> None:
    kinds = {"import": "import", "unlaunched": "outside\nDagster", "launched": "launched"}
    kinds["launched_async"] = "launched,\nasyncio"
    everybody = list(series["import"])
    for number, who in enumerate(everybody):
        places = [index + 0.27 * number for index in range(len(kinds))]
        heights = [middle(series[kind][who]["ms"]) for kind in kinds]
        fill = THIRD_COLOUR if who not in (OURS, REFERENCE) else colour(who)
        drawn = axes.bar(places, heights, width=0.25, color=fill, label=who)
        axes.bar_label(drawn, fmt="%.0f", padding=2)
    axes.set_xticks([index + 0.27 for index in range(len(kinds))], list(kinds.values()))
    axes.set_ylabel("ms, whole process")
    axes.margins(y=0.12)
    plain_ticks(axes.yaxis)
    legend(axes)


def dagster_cost(axes: Axes, series: dict[str, Any]) -> None:
    bare = middle(series["dagster"][REFERENCE]["bare"])
    seconds = {"no log lines": bare} | medians(series["dagster"], "seconds")
    bars(axes, seconds, f"seconds of Dagster's run, {series['count']:,} log lines")


def by_number(
    key: str, x: str, y: str, series_name: str, unit: float = 1
) -> Callable[[Axes, dict[str, Any]], None]:
    def draw_it(axes: Axes, series: dict[str, Any]) -> None:
        for who in (REFERENCE, OURS):
            points = {
                int(name.split()[1]): middle(found[key]) / unit
                for name, found in series[series_name].items()
                if name.startswith(f"{who} ")
            }
            numbers = sorted(points)
            axes.plot(numbers, [points[n] for n in numbers], "o-", color=colour(who), label=who)
        axes.set_yscale("log")
        if series_name == "by_threads":
            axes.set_xticks(numbers)
        else:
            axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.set_xlabel(x)
        axes.set_ylabel(f"{y} (logarithmic)")
        legend(axes)

    return draw_it


def overview(folder: Path, rows: list[Published]) -> None:
    """Times better than others, a bar a goal, and the goals as marks."""
    rows = [row for row in rows if row.against != "bound" and row.name != "growth_time"]
    names = [row.short or row.what for row in rows]
    with picture(folder / "overview.svg", height=0.6 + 0.27 * len(rows)) as axes:
        ratios = [row.better.median for row in rows]
        goals = [row.goal or 1 for row in rows]
        met = [ratio >= goal for ratio, goal in zip(ratios, goals, strict=True)]
        axes.barh(
            names,
            [ratio - 1 for ratio in ratios],
            left=1,
            color=[OUR_COLOUR if good else MISSED_COLOUR for good in met],
            height=0.6,
        )
        axes.plot(goals, names, "|", color=INK, markersize=13, markeredgewidth=2, label="goal")
        for name, ratio, goal in zip(names, ratios, goals, strict=True):
            axes.text(1.25 * max(ratio, goal, 1), name, shown(ratio), va="center")
        axes.axvline(1, color=OTHER_COLOUR, linewidth=0.8)
        axes.invert_yaxis()
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set_xlabel("times better than the other (logarithmic)")
        axes.margins(x=0.14)
        legend(axes)


@contextmanager
def picture(path: Path, height: float) -> Iterator[Axes]:
    """Axes to draw on; what was drawn becomes an SVG without a background."""
    import matplotlib.pyplot as plt

    plt.switch_backend("svg")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, height))
        yield axes
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None}, transparent=True)
        plt.close(figure)
    path.write_text(for_both_schemes(path.read_text()))


def for_both_schemes(svg: str) -> str:
    """The picture with colours that follow the light or dark scheme of the page around it."""
    names = {day: f"var(--c{day[1:]})" for day in AT_NIGHT}
    svg = re.sub("|".join(AT_NIGHT), lambda found: names[found[0]], svg)
    day = "".join(f"--c{colour[1:]}:{colour};" for colour in AT_NIGHT)
    night = "".join(f"--c{colour[1:]}:{dark};" for colour, dark in AT_NIGHT.items())
    style = f":root{{{day}}}@media (prefers-color-scheme:dark){{:root{{{night}}}}}"
    return svg.replace("<defs>", f"<defs>\n  <style>{style}</style>", 1)


PICTURES: dict[str, dict[str, Callable[[Axes, dict[str, Any]], None]]] = {
    "calls": {"calls": calls, "single-calls": single_calls},
    "loop_lag": {"loop-lag": loop_lag},
    "paced_cpu": {"paced-cpu": paced_cpu},
    "start_up": {"start-up": start_up},
    "dagster_cost": {"dagster-cost": dagster_cost},
    "growth": {
        "by-count": by_number("time", "messages", "µs a message", "by_count"),
        "by-length": by_number(
            "bytes_per_s", "characters a message", "MB a second", "by_length", unit=1e6
        ),
        "by-threads": by_number("time", "threads", "µs a message", "by_threads"),
    },
}
SMALL = {"loop-lag", "paced-cpu", "dagster-cost"}


def draw(folder: Path, topic: str, series: dict[str, Any]) -> None:
    """Draw a topic's pictures."""
    for name, draw_on in PICTURES.get(topic, {}).items():
        with picture(folder / f"{name}.svg", height=1.9 if name in SMALL else 3.4) as axes:
            draw_on(axes, series)


def file_names(topic: str) -> list[str]:
    """The file names of a topic's pictures."""
    return [f"{name}.svg" for name in PICTURES.get(topic, {})]
