"""The process ends with the session still open: all is delivered, ``closed`` says why, if it can."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

FORGOTTEN = "ResourceWarning: a Dagster Pipes session was not closed; it has been closed at exit."

# An ordinary job that forgets to close. Nothing is written in time without a close.
OPEN = """
import asyncio, atexit, gc, logging, os, sys, threading, time
from dagsterpipes import open_dagster_pipes

def say(pipes):
    for number in range(1000):
        pipes.log.info("%d", number)
    pipes.report_asset_materialization(metadata={"rows": 1000})
    pipes.log.info("last")
"""
LOGS = [*map(str, range(1000)), "last"]


def check_delivered(launch: Launch, *later: str) -> dict[str, Any]:
    """All that `say` sent and these texts are there, once and in order; gives what closed carries."""
    methods = [method for method, _ in launch.sent()]
    assert methods == [
        "opened",
        *["log"] * 1000,
        "report_asset_materialization",
        *["log"] * (1 + len(later)),
        "closed",
    ]
    assert launch.logs() == [*LOGS, *later]
    closed: dict[str, Any] = launch.sent()[-1][1]
    return closed


@pytest.mark.parametrize(
    ("flags", "title"),
    [([], ""), (["-X", "dev"], FORGOTTEN), (["-W", "error"], FORGOTTEN)],
    ids=["quiet", "dev", "error"],
)
def test_exit_without_close(tmp_path: Path, flags: list[str], title: str) -> None:
    """The session is closed behind the exit handlers of the job; who asks for warnings gets one."""
    launch = Launch(tmp_path)
    done = launch.run(
        OPEN
        + """
pipes = open_dagster_pipes(flush_interval=60)
say(pipes)
atexit.register(pipes.log.info, "from an exit handler")
""",
        flags=flags,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("ResourceWarning: a Dagster") == bool(title), done.stderr
    assert title in done.stderr
    assert title or not done.stderr
    assert check_delivered(launch, "from an exit handler") == {}


def test_exit_after_the_close(tmp_path: Path) -> None:
    """A session that was closed by hand is not complained about."""
    launch = Launch(tmp_path)
    done = launch.run(
        OPEN + "pipes = open_dagster_pipes()\nsay(pipes)\npipes.close()\n", flags=["-X", "dev"]
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert check_delivered(launch) == {}


@pytest.mark.parametrize("where", ["plain", "coroutine", "signal"])
def test_exit_at_once_after_a_flush(tmp_path: Path, where: str) -> None:
    """Whatever was flushed is in the file when no exit handler runs, and nothing half of the rest."""
    launch = Launch(tmp_path)
    ends = {
        "plain": "say(pipes)\npipes.flush()\nos._exit(3)\n",
        "signal": "say(pipes)\npipes.flush()\nos.kill(os.getpid(), 9)\n",
        "coroutine": """
async def main():
    say(pipes)
    await pipes.aflush()
    os._exit(3)
asyncio.run(main())
""",
    }
    done = launch.run(OPEN + "pipes = open_dagster_pipes(flush_interval=60)\n" + ends[where])
    assert done.returncode == (-signal.SIGKILL if where == "signal" else 3), done.stderr
    assert launch.logs() == LOGS
    sent = [method for method, _ in launch.sent()]
    assert (sent.count("report_asset_materialization"), sent.count("closed")) == (1, 0)


FAIL = """
def fail():
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("nobody catches this") from error

"""
FAILING = {
    "plain": "pipes = open_dagster_pipes(flush_interval=60)\nsay(pipes)\nfail()\n",
    "coroutine": """
async def main():
    pipes = open_dagster_pipes(flush_interval=60)
    say(pipes)
    await asyncio.sleep(0)
    fail()
asyncio.run(main())
""",
    "own excepthook": """
sys.excepthook = lambda *args: sys.__excepthook__(*args)
pipes = open_dagster_pipes(flush_interval=60)
say(pipes)
fail()
""",
}


@pytest.mark.parametrize("script", FAILING.values(), ids=FAILING.keys())
def test_uncaught_exception(tmp_path: Path, script: str) -> None:
    """What nobody caught ends the job as ever, and is what ``closed`` carries, with its cause."""
    launch = Launch(tmp_path)
    done = launch.run(OPEN + FAIL + script)
    assert done.returncode == 1
    assert done.stderr.endswith("\nValueError: nobody catches this\n")
    assert done.stderr.count("ValueError: nobody") == 1
    exception = check_delivered(launch)["exception"]
    assert (exception["name"], exception["message"]) == ("ValueError", "nobody catches this")
    assert exception["cause"]["name"] == "KeyError"
    assert any("in fail" in frame for frame in exception["stack"])


def test_caught_exception_is_no_failure(tmp_path: Path) -> None:
    """What the job, or one of its threads, dealt with is not reported as what ended it."""
    launch = Launch(tmp_path)
    done = launch.run(
        OPEN
        + FAIL
        + """
pipes = open_dagster_pipes()
say(pipes)
try:
    fail()
except ValueError:
    pass
thread = threading.Thread(target=fail)
thread.start()
thread.join()
"""
    )
    assert done.returncode == 0
    assert check_delivered(launch) == {}


def test_daemon_threads_still_log_at_exit(tmp_path: Path) -> None:
    """What they sent is there in order; then each is refused once, and nothing follows ``closed``."""
    launch = Launch(tmp_path)
    done = launch.run(
        OPEN
        + """
pipes = open_dagster_pipes()
started = threading.Barrier(9)
def produce(thread):
    started.wait()
    for count in range(100_000):
        pipes.log.info("%d %d", thread, count)
for thread in range(8):
    threading.Thread(target=produce, args=(thread,), daemon=True).start()
started.wait()
time.sleep(0.03)
"""
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= done.stderr.count("Traceback (most recent call last)") <= 8
    assert done.stderr.count("SessionClosedError: ") >= 1
    assert "Fatal Python error" not in done.stderr
    sent = launch.sent()
    assert (sent[0][0], sent[-1]) == ("opened", ("closed", {}))
    assert len(sent) > 8
    arrived: dict[str, list[int]] = {}
    for text in launch.logs():
        thread, count = text.split()
        arrived.setdefault(thread, []).append(int(count))
    for counts in arrived.values():
        assert counts == list(range(len(counts)))


def test_daemon_threads_still_log_through_logging_at_exit(tmp_path: Path) -> None:
    """The application's own records are no longer forwarded then, without a word on stderr."""
    launch = Launch(tmp_path)
    done = launch.run(
        OPEN
        + """
pipes = open_dagster_pipes(capture_logging=True)
logging.getLogger().setLevel("INFO")
started = threading.Barrier(5)
def produce(thread):
    started.wait()
    for _ in range(100_000):
        logging.getLogger().info("from %d", thread)
for thread in range(4):
    threading.Thread(target=produce, args=(thread,), daemon=True).start()
started.wait()
time.sleep(0.03)
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    sent = launch.sent()
    assert (sent[0][0], sent[-1]) == ("opened", ("closed", {}))
    assert set(launch.logs()) <= {f"from {thread}" for thread in range(4)}
    assert launch.logs()


EXITING = """
async def leave(pipes, code):
    say(pipes)
    sys.exit(code)

async def alone(code):
    async with open_dagster_pipes(flush_interval=60) as pipes:
        await leave(pipes, code)

async def beside(code):
    async with open_dagster_pipes(flush_interval=60) as pipes:
        task = asyncio.create_task(leave(pipes, code))
        await asyncio.sleep(60)

async def by_hand(code):
    pipes = open_dagster_pipes(flush_interval=60)
    task = asyncio.create_task(leave(pipes, code))
    await asyncio.sleep(60)

asyncio.run({}({}))
"""


@pytest.mark.parametrize(
    ("job", "code", "names"),
    [
        ("alone", 0, []),
        ("alone", 3, ["SystemExit"]),
        # The loop cancels the task in which the session is open.
        ("beside", 3, ["CancelledError", "SystemExit"]),
        # An exit status cannot be seen from an exit handler.
        ("by_hand", 3, []),
    ],
)
def test_sys_exit_in_a_task(tmp_path: Path, job: str, code: int, names: list[str]) -> None:
    """The exit status stays, everything is delivered, ``closed`` says why wherever that is known."""
    launch = Launch(tmp_path)
    done = launch.run(OPEN + EXITING.format(job, code))
    assert done.returncode == code
    # Some Pythons say so when the task goes, others do not come to it.
    assert done.stderr == "" or done.stderr.startswith("Task exception was never retrieved")
    exception = check_delivered(launch).get("exception")
    found = []
    while exception is not None:
        found.append(exception["name"])
        exception = exception["context"]
    assert found == names


LEFT_OPEN = {
    "by hand": """
async def main():
    pipes = open_dagster_pipes(flush_interval=60)
    await pipes.aflush()
    return pipes
pipes = asyncio.run(main())
say(pipes)
""",
    "pending task": """
async def main():
    async with open_dagster_pipes(flush_interval=60) as pipes:
        say(pipes)
        sent.set()
        await asyncio.sleep(60)
sent = asyncio.Event()
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_until_complete(sent.wait())
loop.close()
""",
    "collected task": """
async def main():
    async with open_dagster_pipes(flush_interval=60) as pipes:
        say(pipes)
        sent.set()
        await asyncio.sleep(60)
sent = asyncio.Event()
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_until_complete(sent.wait())
loop.close()
del loop, task
gc.collect()
""",
}


@pytest.mark.parametrize("script", LEFT_OPEN.values(), ids=LEFT_OPEN.keys())
def test_async_session_left_open_by_its_loop(tmp_path: Path, script: str) -> None:
    """It does not need the loop any more: it is closed at exit like any other, without a failure."""
    launch = Launch(tmp_path)
    done = launch.run(OPEN + script)
    assert done.returncode == 0, done.stderr
    assert check_delivered(launch) == {}
    assert "Fatal Python error" not in done.stderr
