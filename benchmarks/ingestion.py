"""What Dagster needs for messages, with our reader and with its own.

"5,000 lines" is a whole materialization with a real instance (SQLite, in a folder of its own) in a
process that has made two others before: one to warm up, and the bare run, which logs nothing.
The job is the same for both readers and sends each line by itself; afterwards every text must be in
Dagster's log, an entry of its own, in order. "Memory growth" is the peak of the same process over a
million lines, minus its memory before. "20 jobs" is the processor time of a whole run, including
the jobs: as one asynchronous step with our client, and as 20 steps of Dagster's multiprocess
executor with its own client.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import OURS, Result, Row, Scale, alternate, memory, plain_environment, report, run

MEMORY = "/dev/shm"
STOCK = "dagster's reader"
MULTIPROCESS = "multiprocess executor"
BOUND = "bound"
CHILD = """
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes(coalesce_logs=0) as pipes:
    for i in range({count}):
        pipes.log.info("processed row %d of the input table", i)
"""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
JOBS = int(os.environ.get("BENCHMARK_JOBS", "0"))


def asset_with(reader: Any, count: int) -> Any:
    """An asset whose process logs so many lines."""
    import dagster as dg

    code = CHILD.format(count=count)

    @dg.asset
    def the_asset(context):  # noqa: ANN001, ANN202 because Dagster reads annotations
        client = dg.PipesSubprocessClient(message_reader=reader)
        return client.run(context=context, command=[sys.executable, "-c", code]).get_results()

    return the_asset


def materialize(who: str, count: int) -> None:
    """In the measured process."""
    import dagster as dg

    from dagsterpipes.dagster import PipesTempFileMessageReader

    reader = PipesTempFileMessageReader() if who == OURS else dg.PipesTempFileMessageReader()
    with dg.DagsterInstance.get() as instance:

        def run_with(lines: int) -> tuple[float, float, str]:
            asset = asset_with(reader, lines)
            start, cpu = time.perf_counter(), time.process_time()
            run_id = dg.materialize([asset], instance=instance, run_config=QUIET).run_id
            return time.perf_counter() - start, time.process_time() - cpu, run_id

        run_with(0)  # the first run of a process is slower
        bare, bare_cpu, _ = run_with(0)
        before = memory()
        took, cpu, run_id = run_with(count)
        growth = memory("VmHWM") - before
        expected, cursor = 0, None
        while True:
            page = instance.get_records_for_run(run_id, cursor=cursor, limit=1_000)
            for record in page.records:
                entry = record.event_log_entry
                if entry.dagster_event is None and "processed row" in entry.user_message:
                    if entry.user_message != f"processed row {expected} of the input table":
                        raise RuntimeError(f"{entry.user_message!r} instead of row {expected}")
                    expected += 1
            if not page.has_more:
                break
            cursor = page.cursor
    if expected != count:
        raise RuntimeError(f"{expected} lines in Dagster's log, not {count}")
    report(
        seconds=took,
        bare=bare,
        above=max(0.001, took - bare),
        cpu_above=max(0.001, cpu - bare_cpu),
        growth_mb=growth / 1e6,
    )


def definitions() -> tuple[Any, Any]:
    """A job of one asynchronous step, and a job of many steps, with the same work."""
    import dagster as dg

    from dagsterpipes.dagster import AsyncPipesSubprocessClient

    command = [sys.executable, "-c", CHILD.format(count=100)]

    @dg.op
    async def all_at_once(context):  # noqa: ANN001, ANN202 because Dagster reads annotations
        client = AsyncPipesSubprocessClient()
        await asyncio.gather(*[client.run(context=context, command=command) for _ in range(JOBS)])

    def step(number: int) -> Any:
        @dg.op(name=f"step_{number}")
        def one(context):  # noqa: ANN001, ANN202 because Dagster reads annotations
            dg.PipesSubprocessClient().run(context=context, command=command)

        return one

    steps = [step(number) for number in range(JOBS)]

    @dg.job(executor_def=dg.in_process_executor)
    def one_step() -> None:
        all_at_once()

    @dg.job(executor_def=dg.multiprocess_executor)
    def many_steps() -> None:
        for one in steps:
            one()

    return one_step, many_steps


def one_step() -> Any:
    return definitions()[0]


def many_steps() -> Any:
    return definitions()[1]


def run_jobs(who: str) -> None:
    """In the measured process."""
    import dagster as dg

    job = one_step if who == OURS else many_steps
    started = time.perf_counter()
    with dg.DagsterInstance.get() as instance:
        result = dg.execute_job(
            dg.reconstructable(job),
            instance=instance,
            run_config=QUIET,
        )
    if not result.success:
        raise RuntimeError("the run failed")
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    report(
        seconds=time.perf_counter() - started,
        cpu=sum(one.ru_utime + one.ru_stime for one in used),
    )


def process(*args: object, parent: str | None, jobs: int = 0) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as home:
        (Path(home) / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        env = plain_environment() | {"DAGSTER_HOME": home, "BENCHMARK_JOBS": str(jobs)}
        return run("ingestion.py", *args, env=env | {"PYTHONWARNINGS": "ignore"})


def measure(scale: Scale) -> Result:
    count, many, jobs = (
        scale.pick(5_000, 1_000),
        scale.pick(1_000_000, 20_000),
        scale.pick(20, 4),
    )
    # In the short form neither the disk's mood nor other processes must matter.
    parent = MEMORY if scale.short and Path(MEMORY).is_dir() else None
    key = "cpu_above" if scale.short else "above"
    lines = alternate(
        {
            OURS: partial(process, "lines", OURS, count, parent=parent),
            STOCK: partial(process, "lines", STOCK, count, parent=parent),
        },
        scale.pick(5, 2),
    )
    flood = alternate(
        {OURS: partial(process, "lines", OURS, many, parent=parent)}, scale.pick(2, 1)
    )
    steps = alternate(
        {
            OURS: partial(process, "jobs", OURS, parent=parent, jobs=jobs),
            MULTIPROCESS: partial(process, "jobs", MULTIPROCESS, parent=parent, jobs=jobs),
        },
        scale.pick(3, 1),
    )
    rows = [
        Row(
            "ingestion",
            f"Dagster's run of an asset with {count:,} single log lines, above its bare run",
            "s",
            {who: found[key] for who, found in lines.items()},
            against=STOCK,
            short="Dagster's time with our reader",
            goal=30,
            goal_text="a 30th",
        ),
        Row(
            "ingestion_memory",
            f"memory growth of Dagster's process over {many:,} lines",
            "MB",
            {OURS: flood[OURS]["growth_mb"], BOUND: [50.0]},
            against=BOUND,
            goal=1,
            goal_text="under 50 MB",
        ),
        Row(
            "ingestion_jobs",
            f"CPU of a run with {jobs} jobs",
            "s",
            {who: found["cpu"] for who, found in steps.items()},
            against=MULTIPROCESS,
            short=f"CPU of {jobs} jobs in one step",
            goal=4,
            goal_text="a quarter",
        ),
    ]
    return Result(rows, {"lines": lines, "flood": flood, "jobs": steps})


if __name__ == "__main__":
    if sys.argv[1] == "lines":
        materialize(sys.argv[2], int(sys.argv[3]))
    else:
        run_jobs(sys.argv[2])
