"""The command line: run and understand a job without a Dagster deployment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

NEEDED = frozenset({"click", "rich"})

RECURSION = 3_000
"""Levels of calls: writing out a message may take some for each level of its JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    ``doctor`` works without the ``cli`` extra, since the image of a job may not have it.

    Args:
        argv: The arguments; those of the process unless given.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION))
    try:
        from dagsterpipes.cli.commands import run_click  # noqa: PLC0415 because click may be missing

        return run_click(arguments)
    except ModuleNotFoundError as error:
        problem = _missing_extra(error)
        if arguments[:1] == ["doctor"]:
            from dagsterpipes.cli.doctor import run_doctor  # noqa: PLC0415 because only it needs it

            return run_doctor(as_json="--json" in arguments)
        sys.stderr.write(f"dagsterpipes: {problem}\n")
        return 2


def _missing_extra(error: ModuleNotFoundError) -> str:
    """The advice for a missing package of the ``cli`` extra; other errors are raised again."""
    package = (error.name or "").partition(".")[0]
    if package not in NEEDED:
        raise error
    otherwise = " (or use --json)" if package == "rich" else ""
    return (
        f"the command line needs {package}, which is not installed. Install it with:"
        f' pip install "dagsterpipes[cli]"{otherwise}'
    )
