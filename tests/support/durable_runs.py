"""Run workers that can be killed: processes that execute a run whose job is durable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import dagster as dg

from support.dagster_side import instance

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

JOB = """
import os, sys, time
from pathlib import Path
here = Path(__file__).parent
with (here / "starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")
start = len((here / "starts").read_text().split())
from dagsterpipes import open_dagster_pipes
count = int((here / "count").read_text())
pause = float((here / "pause").read_text())
with open_dagster_pipes() as pipes:
    for row in range(count):
        pipes.log.info("start %d row %d", start, row)
        if row % 20 == 0:
            time.sleep(pause)
    while (here / "hold").exists():
        time.sleep(0.01)
    pipes.report_custom_message({"rows": count})
    pipes.report_asset_materialization(metadata={"rows": count})
print(f"printed by start {start}")
"""

WORKER = """
import os, sys, traceback
import dagster as dg
from dagsterpipes.dagster import DurablePipesSubprocessClient
COMMAND = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "job.py")]

@dg.asset
def the_asset(context: dg.AssetExecutionContext):
    client = DurablePipesSubprocessClient(termination_timeout_seconds=5)
    return client.run(context=context, command=COMMAND).get_results()

defs = dg.Definitions(
    assets=[the_asset],
    jobs=[dg.define_asset_job("the_job", executor_def=dg.in_process_executor)],
)

def the_job():
    return defs.get_job_def("the_job")

def work(parent):
    options = dg.ReexecutionOptions(parent_run_id=parent) if parent else None
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        result = dg.execute_job(
            dg.reconstructable(the_job),
            instance=instance,
            run_config=quiet,
            reexecution_options=options,
        )
    return 0 if result.success else 1

if __name__ == "__main__":
    for line in sys.stdin:  # one child for each, so that Dagster is imported once
        pid = os.fork()
        if pid == 0:
            try:
                code = work(line.strip())
            except BaseException:
                traceback.print_exc()
                code = 2
            finally:
                sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Workers:
    """Starts one worker after the other, each of which executes the last run again.

    Args:
        folder: For scripts and what they leave.
        home: Dagster's.
        count: Lines that the job logs.
        pause: Seconds of sleep for each 20 of them.
        storage: As for `instance`.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        *,
        count: int = 400,
        pause: float = 0.05,
        storage: str = "",
    ) -> None:
        self._storage = storage
        self.folder = folder
        self.home = home
        self.jobs = home / "dagsterpipes" / "jobs"
        (folder / "job.py").write_text(JOB)
        (folder / "worker.py").write_text(WORKER)
        (folder / "count").write_text(str(count))
        (folder / "pause").write_text(str(pause))
        self.count = count
        self.last_run = ""
        self.pid = 0

    def __enter__(self) -> Self:
        self.log = (self.folder / "worker.log").open("ab")
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(self.folder / "worker.py")],
            env={**os.environ, "DAGSTER_HOME": str(self.home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        try:
            self._server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self.log.close()

    def start(self) -> None:
        """Start a worker for a new run, or for an execution of the last one again."""
        assert self._server.stdin is not None
        self._server.stdin.write(self.last_run + "\n")
        self._server.stdin.flush()
        self.pid = int(self._read())

    def wait(self) -> int:
        """The exit code of the worker: 0 if its run succeeded."""
        code = int(self._read())
        with instance(self.home, self._storage) as opened:
            newest = opened.get_runs(limit=1)
            if newest:
                self.last_run = newest[0].run_id
                if not newest[0].is_finished:
                    opened.report_run_failed(newest[0], "the worker was killed")
        return code

    def kill(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def _read(self) -> str:
        # A forked child has this pipe too, so what it prints comes in between.
        assert self._server.stdout is not None
        while True:
            line = self._server.stdout.readline()
            assert line, (self.folder / "worker.log").read_text()
            if line.strip().lstrip("-").isdigit():
                return line

    def starts(self) -> list[int]:
        """The process ids of all jobs that were started."""
        path = self.folder / "starts"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def wait_for_rows(self, rows: int) -> None:
        """Until the running job has logged so many."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = list(self.jobs.glob("*/*/messages"))
            if found and found[0].read_bytes().count(b" row ") >= rows:
                return
            time.sleep(0.01)
        raise AssertionError((self.folder / "worker.log").read_text())

    def wait_for_stored(self, rows: int) -> None:
        """Until so many lines of jobs are in Dagster's log."""
        until = time.monotonic() + 60
        while len(self.rows()) < rows:
            assert time.monotonic() < until, (self.folder / "worker.log").read_text()
            time.sleep(0.02)

    def entries(self) -> list[Any]:
        """Everything in the logs of all runs, the oldest first."""
        with instance(self.home, self._storage) as opened:
            runs = reversed(opened.get_runs(dg.RunsFilter(job_name="the_job")))
            return [entry for run in runs for entry in opened.all_logs(run.run_id)]

    def rows(self) -> list[str]:
        """The lines that jobs logged, as they are stored."""
        texts = [str(e.user_message) for e in self.entries() if e.dagster_event is None]
        return [text for text in texts if text.startswith("start ")]

    def warnings(self) -> list[str]:
        return [
            str(e.user_message)
            for e in self.entries()
            if e.dagster_event is None and e.level == 30 and "did not receive" not in e.user_message
        ]

    def materializations(self) -> list[Any]:
        return [
            e.dagster_event
            for e in self.entries()
            if e.dagster_event is not None
            and e.dagster_event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION
        ]

    def expected(self, start: int = 1) -> list[str]:
        """The lines of a job from its first to its last."""
        return [f"start {start} row {row}" for row in range(self.count)]
