"""A test kit for jobs: play a launch by Dagster in memory, and look at what the job reported.

::

    def test_job():
        with launched(asset_keys=["orders"], extras={"limit": 3}) as reported:
            main()                                    # opens its own session
        assert reported.materializations == [Materialization("orders", {"rows": 3})]

With pytest, the fixture ``pipes_launch`` does the same without the ``with``; it comes with the
package. `run_job` is for a function of one argument, `run_script` for a file in a process of its own.
Nothing is mocked: the session is the real one, only its messages stay in memory.
"""

from __future__ import annotations

from dagsterpipes.testing.launches import ScriptRun, launched, run_job, run_script
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
    "Log",
    "Materialization",
    "Output",
    "Reported",
    "ScriptRun",
    "launched",
    "read_messages",
    "run_job",
    "run_script",
]
