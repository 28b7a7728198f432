"""A test kit for jobs: simulates a launch by Dagster and collects what the job reports.

::

    def test_job():
        with launched(asset_keys="orders", extras={"limit": 3}) as reported:
            main()                                    # opens its own session
        assert reported.materialization("orders").metadata == {"rows": 3}

With pytest, the fixture ``pipes_launch`` does the same without the ``with``; it comes with the
package. `run_job` runs a function that takes the context, `run_script` a file in a process of its own.
Nothing is mocked: the session is a real one, with a messages file in a temporary folder.
"""

from __future__ import annotations

from dagsterpipes.testing.launches import (
    LaunchOptions,
    PipesLaunch,
    ScriptRun,
    launched,
    run_job,
    run_script,
)
from dagsterpipes.testing.reports import (
    Check,
    CustomMessage,
    Log,
    Materialization,
    Output,
    Reported,
    read_messages,
)

__all__ = [
    "Check",
    "CustomMessage",
    "LaunchOptions",
    "Log",
    "Materialization",
    "Output",
    "PipesLaunch",
    "Reported",
    "ScriptRun",
    "launched",
    "read_messages",
    "run_job",
    "run_script",
]
