"""Takes the pictures of Dagster's side: a flood, bad lines, and a run whose worker was killed.

`make screenshots` runs it behind `screenshots.py`. The runs are made here, with the definitions of
`examples/dagster_side`; the worker of the durable job is killed with SIGKILL while the job runs, and
the run is executed again. Then Dagster's web server shows them.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from playwright.sync_api import sync_playwright
from screenshots import CHROMIUM_ARGS, SETTINGS, find_chromium, keep, webserver

if TYPE_CHECKING:
    from playwright.sync_api import Page

DEFINITIONS = Path(__file__).parents[1] / "examples" / "dagster_side" / "defs.py"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main() -> None:
    """Make the runs and photograph them."""
    chromium = find_chromium()
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text(SETTINGS)
        os.environ["DAGSTER_HOME"] = home
        runs = make_runs()
        with webserver(DEFINITIONS, home) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            photograph(page, address, runs)
            browser.close()


def make_runs() -> dict[str, str]:
    """The ids of the finished runs."""
    definitions: dg.Definitions = runpy.run_path(str(DEFINITIONS))["defs"]
    runs = {}
    for asset in definitions.assets or ():
        name = asset.key.to_user_string()  # type: ignore[union-attr] # because these are assets
        if name != "kept":
            with dg.DagsterInstance.get() as instance:
                runs[name] = dg.materialize([asset], instance=instance, run_config=QUIET).run_id
    worker = start_worker(None)
    time.sleep(4)  # the job has logged for a while
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    with dg.DagsterInstance.get() as instance:
        [parent] = instance.get_runs(limit=1)
        instance.report_run_failed(parent, "the run worker was killed")
    os.waitpid(start_worker(parent.run_id), 0)
    with dg.DagsterInstance.get() as instance:
        [run] = instance.get_runs(limit=1)
    return runs | {"kept": run.run_id}


def start_worker(parent: str | None) -> int:
    """A process that executes the durable job, or executes it again."""
    pid = os.fork()
    if pid:
        return pid
    sys.path.insert(0, str(DEFINITIONS.parent))
    import defs

    options = dg.ReexecutionOptions(parent_run_id=parent) if parent else None
    with dg.DagsterInstance.get() as instance:
        job: Any = dg.reconstructable(defs.kept_job)
        dg.execute_job(job, instance=instance, run_config=QUIET, reexecution_options=options)
    os._exit(0)


def photograph(page: Page, address: str, runs: dict[str, str]) -> None:
    """Go from run to run and keep what is seen."""
    for name, looked_for, shown in (
        ("flood", "step:flood", "loaded row 5000 of 5000"),
        ("bad_lines", "step:bad_lines", "breaks the rule"),
        ("kept", "step:kept", "reattached to the job"),
    ):
        page.goto(f"{address}/runs/{runs[name]}")
        page.get_by_text("Finished execution of run").first.wait_for()
        page.get_by_placeholder("Filter…").fill(looked_for)
        page.mouse.move(900, 600)
        if name != "flood":
            page.mouse.wheel(0, -5_000)  # to the first of them
        page.get_by_text(shown).first.wait_for()
        keep(page, f"side-{name.replace('_', '-')}", height=700)


if __name__ == "__main__":
    main()
