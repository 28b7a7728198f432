"""What a job prints is shown and sent whatever becomes of the job, and Dagster reads how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from dagsterpipes._protocol.launch_params import encode_param
from support.dagster_runs import run_under_dagster
from support.launching import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs poll() on pipes")

HEAD = """
import ctypes, os, signal, subprocess, sys, threading, time
from dagsterpipes import open_dagster_pipes
"""

OPEN = """
pipes = open_dagster_pipes(capture_stdio=True)
libc = ctypes.CDLL(None)
"""

BUSY = """
def burn():
    while True:
        pass
for _ in range(3):
    threading.Thread(target=burn, daemon=True).start()
time.sleep(0.05)
"""

CRASHES: dict[str, tuple[str, int, str]] = {
    "C code prints, then abort()": (
        "libc.printf(b'last words\\n'); libc.fflush(None); libc.abort()",
        -signal.SIGABRT,
        "SIGABRT",
    ),
    "segmentation fault": (
        "print('last words', flush=True); ctypes.string_at(0)",
        -signal.SIGSEGV,
        "SIGSEGV",
    ),
    "SIGKILL": (
        "print('last words', flush=True); os.kill(os.getpid(), 9)",
        -signal.SIGKILL,
        "SIGKILL",
    ),
    "os._exit": ("print('last words', flush=True); os._exit(3)", 3, "exit status 3"),
    "os._exit beside busy threads": (
        BUSY + "print('last words', flush=True)\nos._exit(3)",
        3,
        "exit status 3",
    ),
    "a line without its end": (
        "os.write(1, b'last words'); os.kill(os.getpid(), 9)",
        -signal.SIGKILL,
        "SIGKILL",
    ),
    "an unhandled signal": (
        "print('last words', flush=True); os.kill(os.getpid(), signal.SIGUSR2)",
        -signal.SIGUSR2,
        "SIGUSR2",
    ),
    "killed by its child": (
        "subprocess.run(['sh', '-c', 'echo last words; kill -9 $PPID'])",
        -signal.SIGKILL,
        "SIGKILL",
    ),
}

TRIES = 10


def streams(launch: Launch) -> dict[str, str]:
    """What was sent of each stream."""
    sent = {"stdout": "", "stderr": ""}
    for method, params in launch.sent():
        if method == "log_external_stream":
            sent[params["stream"]] += params["text"]
    return sent


def closing(launch: Launch) -> dict[str, Any]:
    """The exception of the last message, which is the only `closed`."""
    methods = [method for method, _ in launch.sent()]
    assert methods.count("opened") == methods.count("closed") == 1, methods
    assert methods[0] == "opened"
    assert methods[-1] == "closed"
    exception: dict[str, Any] = launch.sent()[-1][1].get("exception", {})
    return exception


def wait_closed(launch: Launch) -> None:
    """Wait until the file is complete: a runner that only waits for the job is too early."""
    deadline = time.monotonic() + 10
    while b'"closed"' not in launch.messages_path.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_shows_and_sends_the_last_words(tmp_path: Path, name: str) -> None:
    """Ten of ten: on the real stream, in the messages, and with how the process ended."""
    action, status, expected = CRASHES[name]
    for i in range(TRIES):
        folder = tmp_path / str(i)
        folder.mkdir()
        launch = Launch(folder)
        result = launch.run(HEAD + OPEN + action)
        assert result.returncode == status
        assert result.stdout.rstrip("\n") == "last words"
        wait_closed(launch)
        assert streams(launch)["stdout"].rstrip("\n") == "last words"
        assert expected in closing(launch)["message"]


def test_faulthandler_reaches_the_messages(tmp_path: Path) -> None:
    """Enabled after the opening, it writes to the captured stderr."""
    launch = Launch(tmp_path)
    result = launch.run(
        HEAD + OPEN + "import faulthandler; faulthandler.enable(); ctypes.string_at(0)"
    )
    wait_closed(launch)
    assert result.stderr.startswith("Fatal Python error: Segmentation fault")
    assert streams(launch)["stderr"] == result.stderr
    assert "SIGSEGV" in closing(launch)["message"]


@pytest.mark.timing
@pytest.mark.parametrize("name", ["SIGKILL", "segmentation fault", "os._exit beside busy threads"])
def test_dagster_logs_how_a_job_crashed(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Under Dagster's own client and reader: always shown, and nearly always sent in time.

    Dagster's reader stops at the end of the file, up to 10 ms after the process has ended.
    """
    action, _, expected = CRASHES[name]
    in_time = 0
    for i in range(TRIES):
        folder = tmp_path / str(i)
        folder.mkdir()
        run = run_under_dagster(
            folder,
            HEAD + "pipes = open_dagster_pipes()\nlibc = ctypes.CDLL(None)\n" + action,
            message_reader=dg.PipesTempFileMessageReader(include_stdio_in_messages=True),
        )
        assert not run.success
        # Once from the process itself, once from Dagster, which shows the messages on its own streams.
        shown = capfd.readouterr().out.count("last words")
        assert shown >= 1
        in_time += shown == 2 and expected in run.pipes_errors() and not run.pipes_warnings()
    assert in_time >= TRIES // 2


NONBLOCKING: dict[str, str] = {
    "a child leaves it so": """
        subprocess.run([sys.executable, "-c", "import os; os.set_blocking(1, False)"])
        for i in range(100_000):
            print(f"line {i:06d} " + "x" * 40)
    """,
    "a child does so after a line": """
        subprocess.run([sys.executable, "-c",
                        "import os; os.set_blocking(1, False); os.write(1, b'child\\\\n')"])
        for i in range(100_000):
            print(f"line {i:06d} " + "x" * 40)
    """,
    "a child does so while others print": """
        child = subprocess.Popen([sys.executable, "-c",
            "import os, time\\nfor _ in range(50):\\n os.set_blocking(1, False); time.sleep(0.01)"])
        for i in range(100_000):
            print(f"line {i:06d} " + "x" * 40)
            if i % 1000 == 0:
                time.sleep(0.005)
        child.wait()
    """,
}


@pytest.mark.parametrize("name", NONBLOCKING)
def test_a_child_that_makes_the_stream_nonblocking_costs_no_line(tmp_path: Path, name: str) -> None:
    """Ten of ten: 100,000 lines are shown and sent, in order."""
    for i in range(TRIES):
        folder = tmp_path / str(i)
        folder.mkdir()
        launch = Launch(folder)
        result = launch.run(HEAD + OPEN + "\n" + _dedent(NONBLOCKING[name]) + "\npipes.close()\n")
        assert result.returncode == 0, result.stderr
        shown = [line for line in result.stdout.splitlines() if line != "child"]
        assert len(shown) == 100_000
        assert [int(line[5:11]) for line in shown] == list(range(100_000))
        assert streams(launch)["stdout"] == result.stdout


def _dedent(text: str) -> str:
    return "\n".join(line[8:] for line in text.splitlines())


@pytest.fixture
def pidfile(tmp_path: Path) -> Iterator[Path]:
    """Where a background process says who it is; it is ended with the test."""
    path = tmp_path / "pid"
    yield path
    if path.exists():
        for pid in map(int, path.read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


SERVER = """
import os, pathlib, sys, time
pathlib.Path({pidfile!r}).write_text(str(os.getpid()))
sys.stdin.close()
for i in range(30):
    print("serving", i, flush=True)
    time.sleep(0.05)
pathlib.Path({pidfile!r} + ".done").touch()
"""


@pytest.mark.parametrize("end", ["pipes.close()", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_server_left_in_the_background_lives_and_is_shown(
    tmp_path: Path, pidfile: Path, end: str
) -> None:
    """It prints after the end of the job, however that ended, and is not killed by SIGPIPE."""
    launch = Launch(tmp_path)
    server = tmp_path / "server.py"
    server.write_text(SERVER.format(pidfile=str(pidfile)))
    shown = tmp_path / "shown"
    with shown.open("wb") as file:
        launch.run(
            HEAD
            + OPEN
            + f"subprocess.Popen([sys.executable, {str(server)!r}], start_new_session=True)\n"
            + "time.sleep(0.3)\n"
            + end,
            stdout=file,
        )
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid.done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    assert shown.read_text() == "".join(f"serving {i}\n" for i in range(30))
    wait_closed(launch)
    assert streams(launch)["stdout"].startswith("serving 0\n")
    assert launch.sent()[-1][0] == "closed"


CHILD = """
import sys
from dagsterpipes import open_dagster_pipes
def work(i=0):
    with open_dagster_pipes() as pipes:
        print("from the child", flush=True)
        print("complaint of the child", file=sys.stderr, flush=True)
        pipes.log.info("logged by the child")
if __name__ == "__main__":
    work()
"""

OPENERS = {
    "subprocess": "subprocess.run([sys.executable, 'child.py'], check=True)",
    "spawn": "run_in('spawn')",
    "forkserver": "run_in('forkserver')",
    "fork": "run_in('fork')",
}


@pytest.mark.parametrize("name", OPENERS)
def test_a_child_that_opens_the_session_is_sent_and_shown_once(tmp_path: Path, name: str) -> None:
    """Under Dagster's wish it prints into the pipes of the process that has the session open."""
    (tmp_path / "child.py").write_text(CHILD)
    launch = Launch(tmp_path)
    launch.env["DAGSTER_PIPES_MESSAGES"] = encode_param(
        {"path": str(launch.messages_path), "include_stdio_in_messages": True}
    )
    result = launch.run(
        HEAD
        + "import multiprocessing, child\n"
        + "def run_in(method):\n"
        + "    process = multiprocessing.get_context(method).Process(target=child.work)\n"
        + "    process.start()\n"
        + "    process.join()\n"
        + "    assert process.exitcode == 0\n"
        + "if __name__ == '__main__':\n"
        + "    with open_dagster_pipes():\n"
        + f"        {OPENERS[name]}\n",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "from the child\n"
    assert result.stderr == "complaint of the child\n"
    assert streams(launch) == {"stdout": result.stdout, "stderr": result.stderr}
    assert launch.logs() == ["logged by the child"]
    assert closing(launch) == {}


def test_exec_goes_on_with_the_session(tmp_path: Path) -> None:
    """Both programs are shown and sent, and there is one `opened` and one `closed`."""
    second = tmp_path / "second.py"
    second.write_text(HEAD + OPEN + "print('second'); pipes.log.info('logged'); pipes.close()")
    launch = Launch(tmp_path)
    result = launch.run(
        HEAD
        + OPEN
        + "print('first', flush=True)\n"
        + f"os.execv(sys.executable, [sys.executable, {str(second)!r}])"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "first\nsecond\n"
    assert streams(launch)["stdout"] == "first\nsecond\n"
    assert launch.logs() == ["logged"]
    assert closing(launch) == {}


def test_exec_of_a_program_without_session_is_sent_too(tmp_path: Path) -> None:
    """What it prints, and how it ended."""
    launch = Launch(tmp_path)
    result = launch.run(
        HEAD + OPEN + "print('first', flush=True)\n"
        "os.execvp('sh', ['sh', '-c', 'echo second; exit 4'])"
    )
    assert result.returncode == 4
    assert result.stdout == "first\nsecond\n"
    wait_closed(launch)
    assert streams(launch)["stdout"] == "first\nsecond\n"
    assert "exit status 4" in closing(launch)["message"]


def test_a_daemon_is_shown_after_its_parents_have_ended(tmp_path: Path, pidfile: Path) -> None:
    """It forks twice and closes every descriptor but the standard ones."""
    launch = Launch(tmp_path)
    shown = tmp_path / "shown"
    with shown.open("wb") as file:
        launch.run(
            HEAD
            + OPEN
            + f"""
print("before", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(3, 256)
open({str(pidfile)!r}, "w").write(str(os.getpid()))
time.sleep(0.5)
os.write(1, b"daemon\\n")
os._exit(0)
""",
            stdout=file,
        )
    deadline = time.monotonic() + 10
    while shown.read_text() != "before\ndaemon\n":
        assert time.monotonic() < deadline, shown.read_text()
        time.sleep(0.05)
    wait_closed(launch)
    assert streams(launch)["stdout"] == "before\n"
    assert "exit status 0" in closing(launch)["message"]


def test_a_killed_job_in_dagsterpipes_run(tmp_path: Path) -> None:
    """The command line shows the last words and how the job ended."""
    job = tmp_path / "job.py"
    job.write_text(HEAD + OPEN + CRASHES["SIGKILL"][0])
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, "-m", "dagsterpipes", "run", "--", sys.executable, str(job)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        text = done.stdout + done.stderr
        assert text.count("last words") == 2, text  # shown, and sent
        assert "ended by SIGKILL" in text


def test_gevent_with_everything_patched(tmp_path: Path) -> None:
    """3 MB are printed while no other greenlet can run."""
    pytest.importorskip("gevent")
    launch = Launch(tmp_path)
    result = launch.run(
        "from gevent import monkey; monkey.patch_all()\n"
        + HEAD
        + OPEN
        + "print('x' * 3_000_000, flush=True)\npipes.close()"
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) == 3_000_001
    assert streams(launch)["stdout"] == result.stdout
    assert closing(launch) == {}


def test_a_kill_while_closing_is_reported_once(tmp_path: Path) -> None:
    """The capture has ended before, but `closed` was not sent: so the other process sends it."""
    launch = Launch(tmp_path)
    launch.run(
        HEAD
        + OPEN
        + "import dagsterpipes._delivery.delivery as delivery\n"
        + "delivery.Delivery.finish = lambda *_: os.kill(os.getpid(), 9)\n"
        + "pipes._session.delivery.outbox.seal = lambda *_: None\n"
        + "print('printed')\npipes.close()"
    )
    wait_closed(launch)
    assert streams(launch)["stdout"] == "printed\n"
    assert "SIGKILL" in closing(launch)["message"]


def test_a_stopped_process_group_does_not_end_the_output(tmp_path: Path) -> None:
    """Ctrl-C and a kill of the group end the job, not what shows its last words."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        folder = tmp_path / number.name
        folder.mkdir()
        launch = Launch(folder)
        launch.run(
            HEAD
            + OPEN
            + "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
            + "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
            + f"print('last words', flush=True); os.killpg(0, {int(number)})",
            start_new_session=True,
        )
        wait_closed(launch)
        assert streams(launch)["stdout"] == "last words\n"
        assert number.name in closing(launch)["message"]


def test_out_of_memory_is_told_from_a_kill(tmp_path: Path) -> None:
    """Where the system's counter has grown meanwhile, the message says so."""
    counter = tmp_path / "memory.events"
    counter.write_text("oom 0\noom_kill 3\n")
    script = f"""
import os, signal, sys
from dagsterpipes._session.stdio import copier
copier._oom_counters = lambda: [os.open({str(counter)!r}, os.O_RDONLY)]
job = copier.Job(os.getppid())
job._code = signal.SIGKILL
print(job.closed_line().decode())
open({str(counter)!r}, "w").write("oom 1\\noom_kill 4\\n")
print(job.closed_line().decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    by_hand, by_system = done.stdout.split("\n\n")[:2]
    assert "ended no process for lack of memory" in by_hand
    assert ": out of memory" in by_system
