"""What the benchmarks share: processes that are launched as Dagster does it, rounds, and rows.

Each topic is a module of this folder with two halves: `measure`, which starts processes and collects
what they print, and what such a process does, when the module is run as a script. A process prints
one JSON object on the last line of its output.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

OURS = "dagsterpipes"
REFERENCE = "dagster_pipes"
HERE = Path(__file__).parent

CONTEXT: dict[str, Any] = {
    "asset_keys": ["a"],
    "code_version_by_asset_key": {"a": None},
    "provenance_by_asset_key": {"a": None},
    "partition_key": None,
    "partition_key_range": None,
    "partition_time_window": None,
    "run_id": "run",
    "job_name": "job",
    "retry_number": 0,
    "extras": {},
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured: for the published page, or the short form for CI."""

    short: bool

    def pick(self, full: int, short: int) -> int:
        """One of the two numbers."""
        return short if self.short else full


@dataclasses.dataclass
class Row:
    """One line of the table: what was measured, for whom, and what the goal is.

    Args:
        name: Key in ``results.json``.
        what: The measured thing, in words.
        unit: Of the values.
        values: By who was measured, one number for each round.
        against: Whom we are compared with: a key of ``values``.
        goal: How many times better than that we want to be; below 1 for "nearly as good".
        goal_text: The same in words.
        more_is_better: Whether a larger value is the better one.
        short: A name for a picture.
    """

    name: str
    what: str
    unit: str
    values: dict[str, list[float]]
    against: str = REFERENCE
    goal: float | None = None
    goal_text: str = ""
    more_is_better: bool = False
    short: str = ""

    def times_better(self) -> float:
        """How many times better we are, by the medians."""
        return self._times(median(self.values[OURS]), median(self.values[self.against]))

    def times_best(self) -> float:
        """The same by the best rounds of both: what a busy machine disturbs least."""
        best = max if self.more_is_better else min
        return self._times(best(self.values[OURS]), best(self.values[self.against]))

    def times_by_round(self) -> list[float]:
        """How many times better we are, in each round."""
        both = zip(self.values[OURS], self.values[self.against], strict=False)
        return [self._times(ours, theirs) for ours, theirs in both]

    def _times(self, ours: float, theirs: float) -> float:
        if not self.more_is_better:
            ours, theirs = theirs, ours
        if ours == theirs:  # also 0 of 0
            return 1.0
        return ours / theirs if theirs else 1e9

    def published(self) -> Published:
        """The row without its rounds."""
        return Published(
            name=self.name,
            what=self.what,
            unit=self.unit,
            values={who: spread(values) for who, values in self.values.items()},
            against=self.against,
            better=spread(self.times_by_round(), centre=self.times_better()),
            goal=self.goal,
            goal_text=self.goal_text,
            short=self.short,
        )


class Spread(NamedTuple):
    """What ``results.json`` keeps of the rounds of one measurement."""

    median: float
    lowest: float
    highest: float


def spread(rounds: Sequence[float], *, centre: float | None = None) -> Spread:
    """Median and range of some rounds, to eight digits.

    Args:
        rounds: One number for each.
        centre: What to keep in place of their median.
    """
    centre = median(rounds) if centre is None else centre
    return Spread(*(float(f"{value:.8g}") for value in (centre, min(rounds), max(rounds))))


def middle(kept: Sequence[float]) -> float:
    """The median of a `Spread` that was read from ``results.json``."""
    return Spread(*kept).median


def without_rounds(series: Any) -> Any:
    """The series of a topic, with a `Spread` for each list of rounds."""
    if isinstance(series, dict):
        return {name: without_rounds(inner) for name, inner in series.items()}
    return spread(series) if isinstance(series, list) else series


@dataclasses.dataclass(frozen=True)
class Published:
    """A `Row` as ``results.json`` keeps it and the pages show it.

    Args:
        better: How many times better we are: by the medians, in the worst and in the best round.
    """

    name: str
    what: str
    unit: str
    values: dict[str, Spread]
    against: str
    better: Spread
    goal: float | None
    goal_text: str
    short: str

    def as_json(self) -> dict[str, Any]:
        """What `from_json` makes a row of."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Published:
        """The row that `as_json` made this of."""
        values = {who: Spread(*kept) for who, kept in saved["values"].items()}
        return cls(**{**saved, "values": values, "better": Spread(*saved["better"])})


@dataclasses.dataclass
class Result:
    """What a topic found: rows of the table, and numbers for its plots and its own tables."""

    rows: list[Row]
    series: dict[str, Any] = dataclasses.field(default_factory=dict)


# -- processes --------------------------------------------------------------------------------


# Bytecode of all libraries, as an ordinary installation has it, wherever they are installed.
_bytecode = tempfile.TemporaryDirectory(prefix="bench-bytecode-")


def plain_environment() -> dict[str, str]:
    """The environment without anything of Dagster's, and with bytecode."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env | {"PYTHONPYCACHEPREFIX": _bytecode.name}


class Launch:
    """A folder with a context and a messages file, and the environment that points to them."""

    def __enter__(self) -> Self:
        import dagster_pipes

        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        folder = Path(self._folder.name)
        self.messages = folder / "messages"
        self.messages.touch()
        context = folder / "context"
        context.write_text(json.dumps(CONTEXT))
        self.env = plain_environment() | {
            "DAGSTER_PIPES_CONTEXT": dagster_pipes.encode_param({"path": str(context)}),
            "DAGSTER_PIPES_MESSAGES": dagster_pipes.encode_param(
                {"path": str(self.messages), "include_stdio_in_messages": False}
            ),
            # For those who are no Pipes libraries: the same file.
            "BENCHMARK_FILE": str(self.messages),
        }
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def lines_with(self, part: bytes) -> int:
        """How many lines of the messages file have this in them."""
        count = 0
        with self.messages.open("rb") as file:
            for line in file:
                count += part in line
        return count


def run(script: str, *args: object, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a script of this folder to its end; return what it printed."""
    command = [sys.executable, str(HERE / script), *map(str, args)]
    done = subprocess.run(
        command,
        env=env or plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed\n{done.stdout}{done.stderr}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def run_launched(
    script: str, *args: object, sent: bytes = b"processed row", count: int | None = None
) -> dict[str, Any]:
    """`run` in a launched process; afterwards the file must hold ``count`` lines that were sent."""
    with Launch() as launch:
        printed = run(script, *args, env=launch.env)
        if count is not None and launch.lines_with(sent) != count:
            raise RuntimeError(f"{script} {args}: {launch.lines_with(sent)} lines, not {count}")
    return printed


def alternate(
    cases: Mapping[str, Callable[[], dict[str, Any]]], rounds: int, *, warm_up: bool = False
) -> dict[str, dict[str, list[Any]]]:
    """Run each case once a round, in turn; every second round backwards.

    Args:
        cases: What to run, by name.
        rounds: How often.
        warm_up: Run each once before, and forget that.

    Returns:
        For each case, what it printed: lists by key, with an element a round.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for name in cases if warm_up else ():
        cases[name]()
    for number in range(rounds):
        for name in list(cases) if number % 2 == 0 else reversed(list(cases)):
            found[name].append(cases[name]())
    return {
        name: {key: [one[key] for one in outcomes] for key in outcomes[0]}
        for name, outcomes in found.items()
    }


def column(
    found: Mapping[str, Mapping[str, list[Any]]], key: str, names: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """One key of what `alternate` found, by case."""
    return {name: list(found[name][key]) for name in names or found if key in found[name]}


# -- inside of a measured process -----------------------------------------------------------------


def open_session(who: str, **options: Any) -> Any:
    """The session of one of the two Pipes libraries."""
    if who == OURS:
        from dagsterpipes import open_dagster_pipes
    else:
        from dagster_pipes import open_dagster_pipes  # type: ignore[assignment] # because it is the other one
    return open_dagster_pipes(**options)


def memory(what: str = "VmRSS") -> int:
    """Bytes of memory that this process has now; or had at its peak, as ``VmHWM``."""
    # Not getrusage(): its peak begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024


def report(**numbers: Any) -> None:
    """Print what was measured, for `run`."""
    print(json.dumps(numbers))
