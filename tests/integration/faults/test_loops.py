"""One session under every event loop, under a loop that is blocked, and beyond the life of one."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """
import asyncio, json, os, sys, threading, time
from pathlib import Path
import anyio
from dagsterpipes import PipesContext, SessionClosedError, open_dagster_pipes

def run_uvloop(main):
    import uvloop
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()

def run_trio(main):
    import trio
    return trio.run(main)

def run_debug(main):
    async def patient():
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        loop.slow_callback_duration = 30  # the machine may be slow
        return await main()
    return asyncio.run(patient(), debug=True)

def run_eager(main):
    async def eager():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await asyncio.create_task(main())
    return asyncio.run(eager())

RUN = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": run_uvloop,
    "trio": run_trio,
    "debug": run_debug,
    "eager": run_eager,
}
"""
needs_eager_tasks = pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
MODES = ["asyncio", "uvloop", "trio", "debug", pytest.param("eager", marks=needs_eager_tasks)]
LOOPS = ["asyncio", "uvloop", "trio"]

WORK = """
async def produce(pipes, task):
    for count in range(100):
        pipes.log.info("%d %d", task, count)
        if count % 30 == 0:
            await pipes.drain()
            await anyio.sleep(0)
        if count == 50:
            pipes.report_custom_message([task, count])
            await pipes.aflush()

async def main():
    async with open_dagster_pipes(flush_interval=60) as pipes:
        assert PipesContext.get() is pipes
        async with anyio.create_task_group() as tasks:
            for task in range(20):
                tasks.start_soon(produce, pipes, task)
        await pipes.aflush()
        print(Path(os.environ["MESSAGES"]).read_bytes().count(b'"method": "log"'))
    try:
        pipes.log.info("too late")
    except SessionClosedError:
        print("refused")
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_session_under(tmp_path: Path, mode: str) -> None:
    """Twenty tasks say the same and find it delivered, and the loop has no complaint."""
    launch = Launch(tmp_path)
    done = launch.run(
        PRELUDE + WORK + f"RUN[{mode!r}](main)\n", env={"MESSAGES": str(launch.messages_path)}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2000\nrefused\n", "")
    sent = launch.sent()
    assert (sent[0][0], sent[-1]) == ("opened", ("closed", {}))
    arrived: dict[int, list[int]] = {task: [] for task in range(20)}
    for method, params in sent[1:-1]:
        if method == "log":
            task, count = map(int, params["message"].split())
        else:
            task, count = params["payload"]
            assert arrived[task][-1] == count  # behind the line that was sent just before
            continue
        arrived[task].append(count)
    assert list(arrived.values()) == [list(range(100))] * 20


@pytest.mark.parametrize("mode", MODES)
def test_an_error_in_a_task_under(tmp_path: Path, mode: str) -> None:
    """What ends the job goes on its way through the loop, and is what ``closed`` carries."""
    launch = Launch(tmp_path)
    done = launch.run(
        PRELUDE
        + f"""
async def main():
    async with open_dagster_pipes() as pipes:
        pipes.log.info("before")
        await anyio.sleep(0)
        raise LookupError("no rows")
RUN[{mode!r}](main)
"""
    )
    assert done.returncode == 1
    assert done.stderr.endswith("\nLookupError: no rows\n")
    assert [method for method, _ in launch.sent()] == ["opened", "log", "closed"]
    exception = launch.sent()[-1][1]["exception"]
    assert (exception["name"], exception["message"]) == ("LookupError", "no rows")


BLOCKED = """
done = Path(os.environ["DONE"])

async def tick(pipes):
    while not done.exists():
        pipes.log.info("tick")
        await anyio.sleep(0.01)

async def main():
    async with open_dagster_pipes() as pipes:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick, pipes)
            await anyio.sleep(0.1)
            end = time.monotonic() + 2
            count = 0
            while time.monotonic() < end:
                pipes.log.info("busy %d", count)
                count += 1
                sum(range(200_000))
            pipes.log.info("free")
            done.touch()
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_lines_arrive_while_the_loop_is_blocked(tmp_path: Path, loop: str) -> None:
    """CPU work in the job's own loop for two seconds: what it says meanwhile is in the file."""
    launch = Launch(tmp_path)
    done = tmp_path / "done"
    seen: list[int] = []
    with launch.start(
        PRELUDE + BLOCKED + f"RUN[{loop!r}](main)\n", env={"DONE": str(done)}
    ) as process:
        while not done.exists() and process.poll() is None:
            count = launch.messages_path.read_bytes().count(b'"busy ')
            if not done.exists():  # it is still blocked
                seen.append(count)
            time.sleep(0.02)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    # A new batch every 50 ms, on a machine that may be slow.
    assert len(set(seen)) >= 8, seen
    logs = launch.logs()
    first, last = logs.index("busy 0"), logs.index("free")
    assert logs[first:last] == [f"busy {count}" for count in range(last - first)]
    # The last look was at most some batches behind the end.
    assert max(seen) > (last - first) / 2
    assert "tick" in logs[:first]
    assert launch.sent()[-1] == ("closed", {})


ENDS = {
    "close": "pipes.close()",
    "aclose in asyncio": "asyncio.run(pipes.aclose())",
    "aclose in uvloop": "run_uvloop(pipes.aclose)",
    "aclose in trio": "run_trio(pipes.aclose)",
    "async with": """
async def again():
    async with open_dagster_pipes() as same:
        assert same is pipes
asyncio.run(again())
""",
    "exit": "",
}


@pytest.mark.parametrize(
    ("first", "end"),
    [*[("asyncio", end) for end in ENDS], ("uvloop", "close"), ("trio", "aclose in asyncio")],
)
def test_session_outlives_its_loop(tmp_path: Path, first: str, end: str) -> None:
    """Opened in one loop, used and closed from plain code and from others, all is delivered."""
    launch = Launch(tmp_path)
    done = launch.run(
        PRELUDE
        + f"""
async def open_it():
    pipes = open_dagster_pipes()
    pipes.log.info("in the first loop")
    await pipes.aflush()
    return pipes

async def use_it():
    pipes = open_dagster_pipes()
    pipes.log.info("in the second loop")
    pipes.report_custom_message("in the second loop")
    await pipes.aflush()
    await pipes.drain()
    return pipes

pipes = RUN[{first!r}](open_it)
pipes.log.info("between the loops")
pipes.flush()
assert asyncio.run(use_it()) is pipes
pipes.log.info("after the loops")
{ENDS[end]}
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert launch.logs() == [
        "in the first loop",
        "between the loops",
        "in the second loop",
        "after the loops",
    ]
    sent = launch.sent()
    assert [method for method, _ in sent if method != "log"] == [
        "opened",
        "report_custom_message",
        "closed",
    ]
    assert sent[-1] == ("closed", {})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_loop_closed_while_tasks_wait_for_the_session(tmp_path: Path, loop: str) -> None:
    """What nobody waits for any more still happens, and says nothing to the closed loop."""
    launch = Launch(tmp_path)
    done = launch.run(
        PRELUDE
        + f"""
import {loop}
from contextlib import contextmanager
from dagsterpipes.writers import (
    PipesDefaultMessageWriter, PipesMessageWriter, PipesMessageWriterChannel
)

go_on = threading.Event()

class Waiting(PipesMessageWriterChannel):
    def __init__(self, file):
        self.file = file
    def write_message(self, message):
        if message["method"] != "opened":
            go_on.wait()
        self.file.write_message(message)

class Writer(PipesMessageWriter):
    @contextmanager
    def open(self, params):
        with PipesDefaultMessageWriter().open(params) as file:
            yield Waiting(file)

async def open_it():
    pipes = open_dagster_pipes(message_writer=Writer())
    pipes.log.info("before")
    flushing.append(asyncio.create_task(pipes.aflush()))
    while not any(one.name == "dagsterpipes-call" for one in threading.enumerate()):
        await asyncio.sleep(0.01)
    return pipes

flushing = []
loop = {loop}.new_event_loop()
pipes = loop.run_until_complete(open_it())
caller = next(one for one in threading.enumerate() if one.name == "dagsterpipes-call")
loop.close()
go_on.set()
caller.join(10)
print(json.dumps([caller.is_alive(), flushing[0].done()]))
pipes.log.info("after")
pipes.close()
"""
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, False]
    # That the task was never finished is for the loop to say, once.
    assert "Exception in thread" not in done.stderr
    assert launch.logs() == ["before", "after"]
    assert launch.sent()[-1] == ("closed", {})
