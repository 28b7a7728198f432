"""Where a platform lacks what POSIX has, the library imports and works with what is there.

The lack is played: names are taken away in a child process before anything else is imported.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dagsterpipes import encode_param
from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

LACKS = {
    "nothing": "",
    "fork": """
for name in ("fork", "forkpty", "register_at_fork"):
    delattr(os, name)
""",
    "fcntl": "sys.modules['fcntl'] = None",
    "resource": "sys.modules['resource'] = None",
    "O_DIRECT": """
del os.O_DIRECT
""",
    "mmap": "sys.modules['mmap'] = None",
    "SIGTERM": """
import signal
del signal.SIGTERM
""",
    "poll": """
import select
del select.poll, select.epoll
""",
    "reading at an offset": """
for name in ("pread", "preadv", "pwrite", "pwritev", "readv", "writev"):
    delattr(os, name)
""",
    # As Windows has it, as far as the rest of Linux still works then.
    "all of it": """
import select, signal
for module in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"):
    sys.modules[module] = None
for name in '''
    fork forkpty register_at_fork pread preadv pwrite pwritev readv writev sendfile statvfs fstatvfs
    getuid geteuid getgid getegid getppid getpgid killpg setsid nice mkfifo sysconf uname lockf sync
    fdatasync posix_fallocate posix_fadvise fchmod fchown major minor makedev
    O_DIRECT O_DSYNC O_SYNC O_RSYNC O_NOFOLLOW O_DIRECTORY O_NONBLOCK O_NOCTTY O_CLOEXEC
'''.split():
    if hasattr(os, name):
        delattr(os, name)
for name in dir(signal):
    if name.startswith("SIG") and name not in {"SIGINT", "SIG_DFL", "SIG_IGN", "SIGABRT"}:
        delattr(signal, name)
for name in ("pthread_sigmask", "pthread_kill", "sigwait", "sigpending", "alarm", "setitimer"):
    delattr(signal, name)
del select.poll, select.epoll
""",
}

WORK = """
def work(pipes):
    assert pipes.asset_key == "a"
    for i in range(300):
        pipes.log.info("line %d", i)
    pipes.log.warning("careful")
    pipes.report_custom_message("x" * 300_000)
    pipes.report_asset_materialization({"rows": 3})
    pipes.flush()
"""
JOBS = {
    "with": """
from dagsterpipes import open_dagster_pipes
for _ in range(2):
    with open_dagster_pipes() as pipes:
        work(pipes)
""",
    "async with": """
import asyncio
from dagsterpipes import open_dagster_pipes
async def main():
    for _ in range(2):
        async with open_dagster_pipes() as pipes:
            work(pipes)
            await pipes.drain()
            await pipes.aflush()
asyncio.run(main())
""",
    "forgotten": """
import warnings
from dagsterpipes import open_dagster_pipes
warnings.simplefilter("ignore", ResourceWarning)
with open_dagster_pipes() as pipes:
    work(pipes)
pipes = open_dagster_pipes()
work(pipes)
""",
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("lack", LACKS)
def test_a_session_works_without(lack: str, job: str, tmp_path: Path) -> None:
    """Two sessions into a file: every line, whole, in order, `closed` last, none across a page."""
    launch = Launch(tmp_path)
    result = launch.run(f"import os, sys\n{LACKS[lack]}\n{WORK}\n{JOBS[job]}")
    assert (result.returncode, result.stderr) == (0, "")
    one = [
        "opened",
        *["log"] * 301,
        "report_custom_message",
        "report_asset_materialization",
        "closed",
    ]
    assert [method for method, _ in launch.sent()] == one * 2
    assert launch.logs() == [*(f"line {i}" for i in range(300)), "careful"] * 2
    start = 0
    for line in launch.messages_path.read_bytes().splitlines(keepends=True):
        end = start + len(line)
        assert len(line) > 4096 or start // 4096 == (end - 1) // 4096
        start = end


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("lack", ["nothing", "all of it"])
def test_standard_streams_without(lack: str, stream: str, tmp_path: Path) -> None:
    """Messages among the output, each on a line of its own."""
    launch = Launch(tmp_path)
    launch.env["DAGSTER_PIPES_MESSAGES"] = encode_param({"stdio": stream})
    result = launch.run(
        f"""
import os, sys
{LACKS[lack]}
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    print("no newline", end="", file=sys.{stream})
    pipes.log.info("hello")
"""
    )
    assert result.returncode == 0
    lines = getattr(result, stream).splitlines()
    sent = [json.loads(line)["method"] for line in lines if line.startswith("{")]
    assert sent == ["opened", "log", "closed"]
    assert "no newline" in lines


@pytest.mark.parametrize(
    "lack", [lack for lack in LACKS if lack not in {"poll", "fcntl", "all of it"}]
)
def test_captured_output_without(lack: str, tmp_path: Path) -> None:
    """What is printed arrives."""
    launch = Launch(tmp_path)
    result = launch.run(
        f"""
import os, sys
{LACKS[lack]}
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes(capture_stdio=True) as pipes:
    print("printed")
"""
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "printed\n", "")
    assert launch.sent()[1] == (
        "log_external_stream",
        {"stream": "stdout", "text": "printed\n", "extras": {}},
    )


@pytest.mark.parametrize("lack", ["poll", "fcntl", "all of it"])
def test_capture_that_cannot_be_had_says_so(lack: str, tmp_path: Path) -> None:
    """An error that names what is missing and what to switch off; nothing is left behind."""
    launch = Launch(tmp_path)
    result = launch.run(
        f"""
import os, sys
{LACKS[lack]}
from dagsterpipes import ChannelError, open_dagster_pipes
try:
    open_dagster_pipes(capture_stdio=True)
except ChannelError as error:
    print(error)
with open_dagster_pipes(capture_stdio=False):
    print("works")
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    sent, works = result.stdout.splitlines()
    assert sent.startswith("stdout and stderr cannot be captured on linux, which has no ")
    assert sent.endswith("switch the capture off (include_stdio_in_messages, capture_stdio)")
    assert works == "works"
    assert [method for method, _ in launch.sent()] == ["opened", "closed"]


@pytest.mark.parametrize("lack", ["nothing", "all of it"])
def test_outside_dagster_without(lack: str, tmp_path: Path) -> None:
    """The stand-in works too."""
    launch = Launch(tmp_path)
    launch.env.clear()
    result = launch.run(
        f"""
import os, sys
{LACKS[lack]}
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("hello")
    pipes.report_asset_materialization()
"""
    )
    assert result.returncode == 0
    assert result.stderr.endswith("INFO     hello\n")
