"""The two clients with real processes: results, live messages, output, interruption, cancellation."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagsterpipes.dagster import (
    AsyncPipesSubprocessClient,
    PipesSubprocessClient,
    PipesTempFileMessageReader,
)
from support.dagster_runs import DagsterRun
from support.dagster_side import QUIET, RAW, instance, materialize, script

pytestmark = pytest.mark.filterwarnings("ignore:::dagster")

OURS = "from dagsterpipes import open_dagster_pipes\n"
REPORTS = (
    OURS
    + """
with open_dagster_pipes() as pipes:
    pipes.log.info("hello %s", pipes.get_extra("who"))
    pipes.report_custom_message({"n": 1})
    pipes.report_asset_materialization(metadata={"rows": 3})
    pipes.report_asset_check("good", True)
"""
)
LIVE = (
    OURS
    + """
import os, sys, time
with open_dagster_pipes() as pipes:
    for n in range(3):
        pipes.report_custom_message(n)
        pipes.flush()
        give_up = time.monotonic() + 20
        while not os.path.exists(f"seen-{n}"):
            if time.monotonic() > give_up:
                sys.exit(9)
            time.sleep(0.01)
    pipes.report_custom_message("last")
"""
)


def materialize_async(
    where: dg.DagsterInstance, body: Callable[[Any], Any], **options: Any
) -> DagsterRun:
    """As `materialize`, with a coroutine function."""

    @dg.asset(
        check_specs=[dg.AssetCheckSpec(n, asset="the_asset") for n in options.pop("checks", ())]
    )
    async def the_asset(context: dg.AssetExecutionContext) -> Any:
        return await body(context)

    result = dg.materialize(
        [the_asset], instance=where, raise_on_error=False, run_config=QUIET, **options
    )
    return DagsterRun(result, where)


def test_it_takes_the_place_of_dagsters_client(tmp_path: Path, home: Path) -> None:
    """Constructor, results, `isinstance`, use as a resource: as with Dagster's."""
    assert issubclass(PipesSubprocessClient, dg.PipesSubprocessClient)
    assert issubclass(PipesTempFileMessageReader, dg.PipesTempFileMessageReader)
    command = script(tmp_path, REPORTS)

    @dg.asset(check_specs=[dg.AssetCheckSpec("good", asset="the_asset")])
    def the_asset(
        context: dg.AssetExecutionContext, client: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult:
        completed = client.run(context=context, command=command, extras={"who": "you"})
        assert completed.get_custom_messages() == ({"n": 1},)
        return completed.get_materialize_result()

    with instance(home) as opened:
        result = dg.materialize(
            [the_asset],
            instance=opened,
            resources={"client": PipesSubprocessClient(env={"X": "1"}, cwd=str(tmp_path))},
        )
        run = DagsterRun(result, opened)
    assert run.success
    assert run.user_logs() == [("INFO", "hello you")]
    assert run.materialization().metadata["rows"].value == 3
    assert run.checks()["good"].passed


def test_custom_messages_come_while_the_job_runs(tmp_path: Path, home: Path) -> None:
    """The job waits until each was seen, so it fails unless they come at once."""
    got: list[Any] = []

    def seen(payload: Any) -> None:
        got.append(payload)
        (tmp_path / f"seen-{payload}").touch()

    client = PipesSubprocessClient(cwd=str(tmp_path))
    with instance(home) as opened:
        run = materialize(
            opened,
            lambda c: client.run(
                context=c, command=script(tmp_path, LIVE), on_custom_message=seen
            ).get_results(),
        )
    assert run.success
    assert got == [0, 1, 2, "last"]


def test_custom_messages_come_with_a_reader_of_dagsters(tmp_path: Path, home: Path) -> None:
    """Whoever reads; also those that came before the process failed."""
    got: list[Any] = []
    client = PipesSubprocessClient(message_reader=dg.PipesTempFileMessageReader())
    command = script(
        tmp_path,
        RAW + 'send("opened", extras={})\nsend("report_custom_message", payload=1)\nsys.exit(3)',
    )
    with instance(home) as opened:
        run = materialize(
            opened,
            lambda c: client.run(context=c, command=command, on_custom_message=got.append),
        )
    assert not run.success
    assert "failed with code 3" in run.pipes_errors()
    assert got == [1]


def test_a_callback_that_raises_ends_the_process(tmp_path: Path, home: Path) -> None:
    """The step fails with its error, not with the process's."""

    def refuse(payload: Any) -> None:
        raise ValueError(f"cannot use {payload}")

    command = script(
        tmp_path,
        RAW
        + f"""
import pathlib
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
send("opened", extras={{}})
send("report_custom_message", payload="that")
time.sleep(60)
""",
    )
    started = time.monotonic()
    with instance(home) as opened:
        run = materialize(
            opened,
            lambda c: PipesSubprocessClient().run(
                context=c, command=command, on_custom_message=refuse
            ),
        )
    assert "cannot use that" in run.pipes_errors()
    assert time.monotonic() - started < 30
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_output_that_is_not_forwarded_does_not_hang(tmp_path: Path, home: Path) -> None:
    """Far more than a pipe holds."""
    command = script(
        tmp_path, RAW + 'print("x" * 1_000_000, flush=True)\nsend("opened", extras={})'
    )
    with instance(home) as opened:
        run = materialize(
            opened,
            lambda c: (
                PipesSubprocessClient(forward_stdio=False)
                .run(context=c, command=command)
                .get_results()
            ),
        )
    assert run.success


def test_coroutines_run_many_jobs_in_one_step(tmp_path: Path, home: Path) -> None:
    """At once; each with its own messages."""
    command = script(
        tmp_path,
        OURS
        + """
import time
with open_dagster_pipes() as pipes:
    pipes.log.info("job %d", pipes.get_extra("n"))
    pipes.report_custom_message(pipes.get_extra("n"))
    time.sleep(1)
""",
    )
    took: list[float] = []

    async def body(context: Any) -> None:
        client = AsyncPipesSubprocessClient()
        started = time.monotonic()
        done = await asyncio.gather(
            *[client.run(context=context, command=command, extras={"n": n}) for n in range(6)]
        )
        took.append(time.monotonic() - started)
        assert [one.get_custom_messages() for one in done] == [(n,) for n in range(6)]

    @dg.op
    async def the_op(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 because Dagster reads annotations
        await body(context)

    @dg.job
    def the_job() -> None:
        the_op()

    with instance(home) as opened:
        run = DagsterRun(the_job.execute_in_process(instance=opened, run_config=QUIET), opened)
    assert run.success
    assert sorted(t for _, t in run.user_logs() if t.startswith("job")) == [
        f"job {n}" for n in range(6)
    ]
    assert took[0] < 5


def test_a_coroutine_iterates_over_custom_messages(tmp_path: Path, home: Path) -> None:
    """While the job runs; the results are there afterwards."""
    got: list[Any] = []

    async def body(context: Any) -> Any:
        client = AsyncPipesSubprocessClient(cwd=str(tmp_path))
        async with client.launch(context=context, command=script(tmp_path, LIVE)) as invocation:
            async for payload in invocation.custom_messages():
                got.append(payload)
                (tmp_path / f"seen-{payload}").touch()
        return invocation.get_results()

    with instance(home) as opened:
        run = materialize_async(opened, body)
    assert run.success, run.pipes_errors()
    assert got == [0, 1, 2, "last"]


def test_a_failed_job_fails_its_coroutine(tmp_path: Path, home: Path) -> None:
    """After its last message."""
    got: list[Any] = []
    command = script(
        tmp_path,
        RAW + 'send("opened", extras={})\nsend("report_custom_message", payload=1)\nsys.exit(3)',
    )

    async def body(context: Any) -> Any:
        async with AsyncPipesSubprocessClient().launch(
            context=context, command=command
        ) as invocation:
            async for payload in invocation.custom_messages():
                got.append(payload)  # noqa: PERF401 because it must be kept when the next one raises

    with instance(home) as opened:
        run = materialize_async(opened, body)
    assert "failed with code 3" in run.pipes_errors()
    assert got == [1]


STUBBORN = """
import pathlib, signal
send("opened", extras={})
def note(number, frame):
    log(signal.Signals(number).name)
    if sys.argv[1] == signal.Signals(number).name:
        send("closed")
        sys.exit(1)
signal.signal(signal.SIGINT, note)
signal.signal(signal.SIGTERM, note)
pathlib.Path(sys.argv[2]).write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


def stubborn(folder: Path, ends_at: str, pid: Path) -> list[str]:
    """A job that goes on until this signal."""
    return [*script(folder, RAW + STUBBORN), ends_at, str(pid)]


@pytest.mark.parametrize("ends_at", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_cancellation_ends_the_job(
    ends_at: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted, then terminated, then killed; what it logs on its way is in the run's log."""
    monkeypatch.setattr("dagsterpipes.dagster.processes.TERMINATE_GRACE", 0.3)
    pid = tmp_path / "pid"
    command = stubborn(tmp_path, ends_at, pid)
    cancelled: list[bool] = []

    async def body(context: Any) -> None:
        client = AsyncPipesSubprocessClient(termination_timeout_seconds=0.3)
        task = asyncio.create_task(client.run(context=context, command=command))
        while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110 because another process writes it
            await asyncio.sleep(0.02)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled.append(True)
        raise dg.Failure("cancelled, as it should be")

    with instance(home) as opened:
        run = materialize_async(opened, body)
    assert cancelled == [True]
    assert is_gone(int(pid.read_text()))
    sent = ["SIGINT"] if ends_at == "SIGINT" else ["SIGINT", "SIGTERM"]
    assert [text for _, text in run.user_logs() if text.startswith("SIG")] == sent


WORKER = """
import sys, asyncio
import dagster as dg
from dagsterpipes.dagster import AsyncPipesSubprocessClient, PipesSubprocessClient
COMMAND = {command!r}

@dg.op
async def asynchronous(context):
    client = AsyncPipesSubprocessClient(termination_timeout_seconds=5)
    await asyncio.gather(client.run(context=context, command=COMMAND))

@dg.op
def plain(context):
    PipesSubprocessClient(termination_timeout_seconds=5).run(context=context, command=COMMAND)

@dg.job(executor_def=dg.in_process_executor)
def the_job():
    {op}()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(the_job), instance=instance)
"""


@pytest.mark.parametrize("after", [0, 1.5], ids=["at-once", "later"])
@pytest.mark.parametrize("op", ["plain", "asynchronous"])
def test_an_interrupted_run_worker_ends_its_job(
    op: str, after: float, tmp_path: Path, home: Path
) -> None:
    """Dagster leaves the event loop at once then; the job gets its SIGINT, and the worker ends."""
    pid = tmp_path / "pid"
    command = stubborn(tmp_path, "SIGINT", pid)
    (tmp_path / "worker.py").write_text(WORKER.format(command=command, op=op))
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "worker.py"],
        cwd=tmp_path,
        env={**os.environ, "DAGSTER_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()):
            assert worker.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        time.sleep(after)
        worker.send_signal(signal.SIGINT)
        worker.wait(timeout=30)
    finally:
        worker.kill()
        worker.wait()
    assert is_gone(int(pid.read_text()))
    with instance(home) as opened:
        [run] = opened.get_runs()
        assert "SIGINT" in [entry.user_message for entry in opened.all_logs(run.run_id)]


def test_a_coroutine_that_is_closed_ends_its_job(tmp_path: Path, home: Path) -> None:
    """As Python does with coroutines of a loop that was left: nothing can be awaited any more."""
    pid = tmp_path / "pid"
    command = stubborn(tmp_path, "SIGINT", pid)

    def body(context: Any) -> None:
        client = AsyncPipesSubprocessClient(termination_timeout_seconds=20)
        loop = asyncio.new_event_loop()
        launched = client.launch(context=context, command=command)
        loop.run_until_complete(launched.__aenter__())
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.02)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        assert is_gone(int(pid.read_text()))
        raise dg.Failure("left, as it should be")

    with instance(home) as opened:
        run = materialize(opened, body)
    assert "left, as it should be" in run.pipes_errors()
    assert [text for _, text in run.user_logs() if text.startswith("SIG")] == ["SIGINT"]


def is_gone(pid: int) -> bool:
    """Within a second: the process may be about to end."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


def test_nothing_is_left_of_a_job_that_cannot_be_started(tmp_path: Path, home: Path) -> None:
    """The session is closed, and the error says which program it was."""

    async def body(context: Any) -> None:
        await AsyncPipesSubprocessClient().run(context=context, command=["/no/such/program"])

    with instance(home) as opened:
        run = materialize_async(opened, body)
        assert "/no/such/program" in run.pipes_errors()
        run = materialize(
            opened, lambda c: PipesSubprocessClient().run(context=c, command=["/no/such/program"])
        )
        assert "/no/such/program" in run.pipes_errors()
