"""Print the figures of `what-the-reader-takes.md`: random calls of ours and of dagster_pipes.

Run it in the project's environment: ``.venv/bin/python tools/probes/reader.py``.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.random_sessions import RandomSessions  # noqa: E402 because tests are no package

if TYPE_CHECKING:
    from collections import Counter

    from support.random_sessions import Figures


def main() -> None:
    """Measure both libraries and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=140)
    parser.add_argument("--calls", type=int, default=40, help="in each session")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        trial = {"sessions": options.sessions, "calls": options.calls}
        ours = RandomSessions(Path(folder, "ours"), **trial).ours()
        theirs = RandomSessions(Path(folder, "theirs"), **trial).theirs()
    print(
        f"dagster {version('dagster')}, dagster-pipes {version('dagster-pipes')},"
        f" Python {platform.python_version()}\n"
    )
    print("| | `dagsterpipes` | `dagster_pipes` |\n|---|---:|---:|")
    for label, value in ROWS.items():
        print(f"| {label} | {value(ours):,} | {value(theirs):,} |")
    for title, counter in (
        ("What a message of `dagster_pipes` stopped the reader with", theirs.fatal),
        ("What else `dagster_pipes` raised at the call", by_error(theirs)),
    ):
        print(f"\n{title}:\n\n| | |\n|---|---:|")
        for what, count in counter.most_common():
            print(f"| `{what}` | {count:,} |")


ROWS = {
    "sessions": lambda figures: figures.sessions,
    "calls": lambda figures: figures.calls,
    "… refused with the library's own error": lambda figures: figures.refused,
    "… that raised anything else": lambda figures: figures.foreign.total(),
    "messages written": lambda figures: figures.messages,
    "… **that stop Dagster's reader**": lambda figures: figures.fatal.total(),
    "… behind one of these, never read": lambda figures: figures.unread,
    "sessions in which the reader stopped": lambda figures: figures.dead,
}


def by_error(figures: Figures) -> Counter[str]:
    """Calls that raised something else, by what they raised."""
    counter = type(figures.foreign)()
    for what, count in figures.foreign.items():
        counter[what.partition(": ")[2]] += count
    return counter


if __name__ == "__main__":
    main()
