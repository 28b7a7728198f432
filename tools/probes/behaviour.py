"""Write `docs/reference/behaviour.md`: what we, dagster_pipes and R's package do in the same situations.

Ours and dagster_pipes' columns are what the probes beside this file find out; R's is what reading
and running that package taught. Run it in the project's environment:

    .venv/bin/python tools/probes/behaviour.py            # writes the page
    .venv/bin/python tools/probes/behaviour.py --check    # says how it differs
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import tempfile
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from launching import CONTEXT, STARTING
from library import ROOT, LibraryUnderTest, Sent, clean_environment
from lifecycle import LIFECYCLE, WRITING
from reporting import LOGS, METADATA, REPORTS

from support.dagster_handler import in_dagster

if TYPE_CHECKING:
    from collections.abc import Callable


PAGE = ROOT / "docs" / "reference" / "behaviour.md"
SECTIONS = [STARTING, CONTEXT, REPORTS, METADATA, LOGS, WRITING, LIFECYCLE]

HEAD = """\
<!-- Written by tools/probes/behaviour.py; a test fails when it is out of date. -->

# Behaviour

What this library does, compared with `dagster_pipes` {dagster_pipes} and R's `dagsterpipes` 0.1.0, in the same situations.
The first two columns were filled in by a script that runs both libraries and gives their messages to Dagster's own handler. R's
column comes from reading and running that package; an empty cell was not examined. Object stores are left out. See also the
[comparison with other libraries](../explanation/comparison.md), and [random calls instead of chosen
ones](../explanation/what-the-reader-takes.md).

*refused*: raises a `DagsterPipesError` at the call (here mostly an `InvalidReportError`), and sends nothing ·
*sent*: Dagster's reader accepts it · \N{EN DASH}: does not exist
"""


def main() -> int:
    """Ask, and write the page or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say how the page differs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    clean_environment()
    text = page()
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    # It was made with one version, and must be true of those that are installed later.
    before, text = (
        re.sub(r"`dagster_pipes` [\d.]+", "`dagster_pipes`", one)
        for one in (PAGE.read_text(encoding="utf-8"), text)
    )
    difference = difflib.unified_diff(
        before.splitlines(), text.splitlines(), "behaviour.md", "what the probes say", lineterm=""
    )
    print("\n".join(difference), end="")
    return before != text


def page() -> str:
    """The whole page."""
    with tempfile.TemporaryDirectory() as folder:
        ours = answers(LibraryUnderTest("dagsterpipes", folder))
        theirs = answers(LibraryUnderTest("dagster_pipes", folder))
    parts = [HEAD.format(dagster_pipes=version("dagster-pipes"))]
    for section in SECTIONS:
        parts.append(
            f"\n## {section.title}\n\n| | ours | `dagster_pipes` | R |\n|---|---|---|---|\n"
        )
        for row in section.rows:
            key = (section.title, row.label)
            parts.append(f"| {row.label} | {ours[key]} | {theirs[key]} | {row.r} |\n")
    return "".join(parts)


def answers(library: LibraryUnderTest) -> dict[tuple[str, str], str]:
    """What each probe finds out."""
    outcomes: dict[tuple[str, str], Any] = {}
    for section in SECTIONS:
        for row in section.rows:
            assert (section.title, row.label) not in outcomes
            outcomes[section.title, row.label] = row.probe(library)
            library.close()

    def body(new_handler: Callable[[], Any]) -> None:
        for key, outcome in outcomes.items():
            if isinstance(outcome, Sent):
                outcomes[key] = outcome.words
                handler = new_handler()
                try:
                    for message in outcome.messages:
                        handler.handle_message(json.loads(json.dumps(message)))
                except Exception:  # noqa: BLE001 because whatever it raises, the reader ends there
                    outcomes[key] += ", and **stops Dagster's reader**"

    in_dagster(body)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
