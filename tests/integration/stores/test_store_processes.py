"""Kills, children and printed output of jobs whose messages go to an object store."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from support.launching import Launch
from support.stores import S3, methods, texts

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

SETUP = (
    S3.source
    + """
import multiprocessing, os, signal, subprocess, sys, threading, time
import dagsterpipes
from dagsterpipes import open_dagster_pipes

STORE = os.environ["STORE"]
"""
)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


def run(
    launch: Launch, store: S3, script: str, *, stdio: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    launch.env = store.env(stdio=stdio) | {"TMPDIR": str(launch.folder)}
    return launch.run(SETUP + script, **options)


def recovered(launch: Launch) -> list[dict[str, Any]]:
    """What the recovery files have."""
    return [
        json.loads(line)
        for path in sorted(launch.folder.glob("dagsterpipes-recovery-*"))
        for line in path.read_text().splitlines()
    ]


def test_a_kill_loses_only_the_logs_of_the_interval(launch: Launch, s3: S3) -> None:
    """A report is stored at once, with what was logged before it."""
    result = run(
        launch,
        s3,
        """
with open_dagster_pipes(**parts(STORE)) as pipes:
    pipes.log.info("before")
    pipes.report_asset_materialization({"rows": 1})
    time.sleep(1)
    pipes.log.info("behind")
    os.kill(os.getpid(), 9)
""",
    )
    assert result.returncode == -signal.SIGKILL
    assert methods(s3.messages()) == ["opened", "log", "report_asset_materialization"]
    assert texts(s3.messages()) == ["before"]


def test_a_forked_child_is_refused_loudly(launch: Launch, s3: S3) -> None:
    """Its messages are in a recovery file; the parent's objects are as they would be without it."""
    result = run(
        launch,
        s3,
        """
def work():
    with open_dagster_pipes(**parts(STORE)) as pipes:
        pipes.log.info("child")

with open_dagster_pipes(**parts(STORE)) as pipes:
    pipes.log.info("before")
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    pipes.log.info(f"ended with {child.exitcode}")
""",
    )
    assert result.returncode == 0, result.stderr
    assert "only the process that opened the session can send messages to s3://" in result.stderr
    assert texts(s3.messages()) == ["before", "ended with 1"]
    assert methods(s3.messages())[::3] == ["opened", "closed"]
    assert texts(recovered(launch)) == ["child"]


@pytest.mark.parametrize("how", ["spawn", "subprocess"])
def test_another_child_cannot_open(how: str, launch: Launch, s3: S3) -> None:
    """It would overwrite its parent's objects."""
    result = run(
        launch,
        s3,
        f"""
def work():
    with open_dagster_pipes(**parts(STORE)) as pipes:
        pipes.log.info("child")

if __name__ == "__main__":
    if len(sys.argv) > 1:
        work()
        sys.exit()
    with open_dagster_pipes(**parts(STORE)) as pipes:
        pipes.log.info("before")
        if {how!r} == "spawn":
            child = multiprocessing.get_context("spawn").Process(target=work)
            child.start()
            child.join()
            code = child.exitcode
        else:
            code = subprocess.call([sys.executable, __file__, "child"])
        pipes.log.info(f"ended with {{code}}")
""",
    )
    assert result.returncode == 0, result.stderr
    assert "ChannelError: the process that Dagster launched has the session open" in result.stderr
    assert texts(s3.messages()) == ["before", "ended with 1"]


@pytest.mark.parametrize("how", ["fork server", "spawn"])
def test_a_child_that_does_not_know_of_the_session(how: str, launch: Launch, s3: S3) -> None:
    """A fork server that is older than the session; values on the command line, which `spawn` passes on.

    The child finds its parent's first object, and changes nothing.
    """
    script = f"""
from dagsterpipes import PipesCliArgsParamsLoader

def by_arguments():
    return {{"params_loader": PipesCliArgsParamsLoader()}} if {how == "spawn"} else {{}}

def nothing():
    pass

def work():
    with open_dagster_pipes(**parts(STORE), **by_arguments()) as pipes:
        pipes.log.info("child")

if __name__ == "__main__":
    context = multiprocessing.get_context({how.replace(" ", "")!r})
    first = context.Process(target=nothing)
    first.start()
    first.join()
    with open_dagster_pipes(**parts(STORE), **by_arguments()) as pipes:
        pipes.log.info("before")
        child = context.Process(target=work)
        child.start()
        child.join()
        pipes.log.info(f"ended with {{child.exitcode}}")
"""
    launch.env = s3.env()
    arguments = []
    if how == "spawn":
        for name in ("context", "messages"):
            value = launch.env.pop(f"DAGSTER_PIPES_{name.upper()}")
            arguments += [f"--dagster-pipes-{name}", value]
    result = launch.run(SETUP + script, *arguments)
    assert result.returncode == 0, result.stderr
    assert "1.json is there already: another process sends messages" in result.stderr
    assert texts(s3.messages()) == ["before", "ended with 1"]
    assert methods(s3.messages())[::3] == ["opened", "closed"]


def test_what_is_printed_is_sent(launch: Launch, s3: S3) -> None:
    """By the process and by its children, before `closed`; the session closes without a wait."""
    result = run(
        launch,
        s3,
        """
with open_dagster_pipes(**parts(STORE)) as pipes:
    print("by print", flush=True)
    subprocess.run([sys.executable, "-c", "print('by a child')"])
    begin = time.monotonic()
    pipes.close()
    sys.exit(3 if time.monotonic() - begin > 1.5 else 0)
""",
        stdio=True,
    )
    assert result.returncode == 0, result.stderr
    messages = s3.messages()
    printed = "".join(
        one["params"]["text"] for one in messages if one["method"] == "log_external_stream"
    )
    assert printed == "by print\nby a child\n"
    assert methods(messages)[0] == "opened"
    assert methods(messages)[-1] == "closed"


def test_an_exit_without_close(launch: Launch, s3: S3) -> None:
    """The session is closed then, with everything stored, and the exception that ended the job."""
    result = run(
        launch,
        s3,
        """
pipes = open_dagster_pipes(**parts(STORE))
pipes.log.info("one")
raise ValueError("broken")
""",
    )
    assert result.returncode == 1
    assert texts(s3.messages()) == ["one"]
    assert s3.messages()[-1]["params"]["exception"]["message"] == "broken"


def test_ctrl_c_while_opening(launch: Launch, s3: S3) -> None:
    """While `opened` is on its way, the store is slow and the user does not want to wait."""
    s3.fail(1, delay=2.0)
    result = run(
        launch,
        s3,
        """
import signal, threading
threading.Timer(1.0, lambda: signal.raise_signal(signal.SIGINT)).start()
pipes = open_dagster_pipes(**parts(STORE))
""",
    )
    assert "KeyboardInterrupt" in result.stderr
    messages = s3.messages()
    assert methods(messages) == ["opened", "closed"]
    assert messages[-1]["params"]["exception"]["name"] == "KeyboardInterrupt"


def test_memory_while_the_store_hangs(launch: Launch, s3: S3) -> None:
    """It stays within `buffer_size` and a constant, however much is logged."""
    s3.env()
    result = run(
        launch,
        s3,
        """
import threading, urllib.request
pipes = open_dagster_pipes(**parts(STORE), on_full="drop_logs", close_timeout=1, buffer_size=8 << 20)
pipes.log.info("x" * 100)
pipes.flush()
print(flush=True)
def peak():
    # Not getrusage(): its peak begins with that of the process that started this one.
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) >> 10
before = peak()
urllib.request.urlopen(os.environ["STORE"] + "/__hang__").read()
for number in range(600_000):
    pipes.log.info(f"{number} " + "x" * 100)
after = peak()
print(f"grew by {after - before} MB", file=sys.stderr)
try:
    pipes.close()
except dagsterpipes.MessagesLostError as error:
    os._exit(0 if after - before < 8 + 32 else 4)
os._exit(5)
""",
    )
    assert result.returncode == 0, (result.returncode, result.stderr)
