"""SIGINT and SIGTERM: the session is closed, Dagster hears why, the process ends by the signal."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = """
import os, signal, sys, threading, time
from dagsterpipes import open_dagster_pipes

stop = threading.Event()
{before}
try:
    with open_dagster_pipes({options}) as pipes:
        pipes.log.info("working")
        {after}
        print("ready", flush=True)
        {work}
finally:
    print("finally", flush=True)
{end}
"""

ASYNC = """
import os, signal, sys, time
{imports}
from dagsterpipes import open_dagster_pipes

async def main():
    {before}
    try:
        async with open_dagster_pipes({options}) as pipes:
            pipes.log.info("working")
            {after}
            print("ready", flush=True)
            {work}
    finally:
        print("finally", flush=True)
{end}
{run}
"""

PLAIN_WORK = {
    "sleep": "time.sleep(30)",
    "busy": "while True: pass",
    "lock": "threading.Event().wait()",
    "join": "t = threading.Thread(target=time.sleep, args=(30,), daemon=True); t.start(); t.join()",
}
# asyncio hears of a signal when it gets control again.
ASYNC_WORK = {
    "idle": "await anyio.sleep(30)",
    "sleep": "time.sleep(0.5); await anyio.sleep(30)",
    "busy": "while True: await anyio.sleep(0)",
}
LOOPS = {
    "asyncio": ("import asyncio, anyio", "asyncio.run(main())"),
    "uvloop": ("import asyncio, anyio, uvloop", "uvloop.install()\nasyncio.run(main())"),
    # All of it now: an interrupt in the middle of a class's creation becomes a RuntimeError.
    "trio": ("import anyio, trio, anyio._backends._trio", "trio.run(main)"),
}


class Ended(NamedTuple):
    """How a job ended after the signal."""

    status: int
    out: str
    err: str
    seconds: float


def plain(work: str = "time.sleep(30)", **parts: str) -> str:
    return PLAIN.format(
        **{"before": "", "options": "", "after": "", "end": "", "work": work} | parts
    )


def in_loop(loop: str, work: str = "await anyio.sleep(30)", **parts: str) -> str:
    imports, run = LOOPS[loop]
    if sys.version_info >= (3, 12):
        run = run.replace("uvloop.install()\nasyncio.run(main())", "uvloop.run(main())")
    defaults = {"before": "", "options": "", "after": "", "end": "", "work": work}
    return ASYNC.format(imports=imports, run=run, **defaults | parts)


def send(launch: Launch, script: str, *signals: int, apart: float = 0.4, **options: Any) -> Ended:
    """Start a job, send it the signals once it is ready, wait for its end."""
    with launch.start(script, **options) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            assert line == "True\n", (line, process.communicate())
        time.sleep(0.1)  # until it waits where the case wants it to
        start = time.monotonic()
        for position, number in enumerate(signals):
            time.sleep(apart if position else 0)
            process.send_signal(number)
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(process.communicate()) from None
    return Ended(process.returncode, out, err, time.monotonic() - start)


def check_closed(launch: Launch, name: str | None) -> dict[str, Any] | None:
    """Everything was delivered, and ``closed`` names this exception."""
    sent = launch.sent()
    assert [method for method, _ in sent] == ["opened", "log", "closed"]
    exception: dict[str, Any] | None = sent[-1][1].get("exception")
    assert (exception and exception["name"]) == name
    return exception


CASES = [
    *[pytest.param(plain(work), id=f"plain-{name}") for name, work in PLAIN_WORK.items()],
    *[
        pytest.param(in_loop(loop, work), id=f"{loop}-{name}")
        for loop in LOOPS
        for name, work in ASYNC_WORK.items()
    ],
]


@pytest.mark.parametrize("script", CASES)
def test_sigterm(tmp_path: Path, script: str) -> None:
    """Wherever the job is: `finally` runs, Dagster is told, the status is that of a terminated one."""
    launch = Launch(tmp_path)
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "finally\n"), ended.err
    exception = check_closed(launch, "Terminated")
    assert exception is not None
    assert exception["message"] == "terminated by SIGTERM"


@pytest.mark.parametrize("script", CASES)
def test_sigint(tmp_path: Path, script: str) -> None:
    """Dagster is told of the interrupt, also where the loop makes a cancellation of it."""
    launch = Launch(tmp_path)
    ended = send(launch, script, signal.SIGINT)
    assert (ended.status, ended.out) == (-signal.SIGINT, "finally\n"), ended.err
    check_closed(launch, "KeyboardInterrupt")


FLOODS = {
    "plain": plain(
        "for count in range(10**9): pipes.log.info(str(count)); pipes.flush()",
        after="sys.stdin.readline()",
    ),
    **{
        loop: in_loop(
            loop,
            "for count in range(10**9): pipes.log.info(str(count)); await pipes.aflush()",
            after="sys.stdin.readline()",
        )
        for loop in LOOPS
    },
}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_signal_at_any_moment(tmp_path: Path, flood: str, name: str) -> None:
    """Wherever it comes in a flood of logs and flushes: closed, and everything before is there."""
    number = getattr(signal, name)
    jobs = []
    for job in range(3):
        folder = tmp_path / str(job)
        folder.mkdir()
        launch = Launch(folder)
        jobs.append((launch, launch.start(flood, stdin=subprocess.PIPE)))
    for launch, process in jobs:
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0, 0.1))
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (-number, "finally\n"), err
        assert launch.sent()[-1][1]["exception"]["name"] in ("Terminated", "KeyboardInterrupt"), err
        texts = launch.logs()
        assert texts == ["working", *map(str, range(len(texts) - 1))]


@pytest.mark.parametrize("loop", ["plain", *LOOPS])
def test_a_second_sigterm_ends_it_at_once(tmp_path: Path, loop: str) -> None:
    """A job that goes on cleaning up is not asked again."""
    launch = Launch(tmp_path)
    if loop == "plain":
        script = plain("try: time.sleep(30)\n        finally: time.sleep(20)")
    else:
        script = in_loop(loop, "try: await anyio.sleep(30)\n            finally: time.sleep(20)")
    ended = send(launch, script, signal.SIGTERM, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "")
    assert ended.seconds < 10
    assert launch.logs() == ["working"]


def test_two_sigterms_in_a_row_are_one(tmp_path: Path) -> None:
    """GNU timeout sends one to the process and one to its group."""
    launch = Launch(tmp_path)
    script = plain("try: time.sleep(30)\n        finally: time.sleep(0.1)")
    ended = send(launch, script, signal.SIGTERM, signal.SIGTERM, apart=0.02)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "finally\n"), ended.err
    check_closed(launch, "Terminated")


def test_sigterm_can_be_opted_out_of(tmp_path: Path) -> None:
    """With handle_sigterm=False it ends the process at once, as ever."""
    launch = Launch(tmp_path)
    ended = send(launch, plain(options="handle_sigterm=False"), signal.SIGTERM)
    assert (ended.status, ended.out, ended.err) == (-signal.SIGTERM, "", "")
    assert "closed" not in [method for method, _ in launch.sent()]


OWN_HANDLERS = {
    "plain-before": plain(
        before="signal.signal(signal.SIGTERM, lambda *_: (print('mine'), stop.set()))",
        work="stop.wait(); print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)",
    ),
    "plain-after": plain(
        after="signal.signal(signal.SIGTERM, lambda *_: (print('mine'), stop.set()))",
        work="stop.wait(); print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)",
    ),
    **{
        f"{loop}-{place}": in_loop(
            loop,
            "await stop.wait(); print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)",
            before="stop = asyncio.Event(); add = asyncio.get_running_loop().add_signal_handler"
            + ("; add(signal.SIGTERM, lambda: (print('mine'), stop.set()))" * (place == "before")),
            after="add(signal.SIGTERM, lambda: (print('mine'), stop.set()))"
            if place == "after"
            else "",
        )
        for loop in ["asyncio", "uvloop"]
        for place in ["before", "after"]
    },
}


@pytest.mark.parametrize("script", OWN_HANDLERS.values(), ids=OWN_HANDLERS.keys())
def test_the_applications_own_sigterm_handler_stays(tmp_path: Path, script: str) -> None:
    """Whether it was there before or came later, it alone is called, and stays after the close."""
    launch = Launch(tmp_path)
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (0, "mine\nFalse\nfinally\n"), ended.err
    check_closed(launch, None)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sigterm_where_the_application_handles_sigint(tmp_path: Path, loop: str) -> None:
    """It is treated as the SIGINT that the application knows how to handle."""
    launch = Launch(tmp_path)
    script = in_loop(
        loop,
        "await stop.wait(); print('stopped')",
        before="stop = asyncio.Event(); "
        "asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)",
    )
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "stopped\nfinally\n"), ended.err
    check_closed(launch, "Terminated")


def test_sigint_that_the_application_handles_is_no_failure(tmp_path: Path) -> None:
    """A job that ends well after a SIGINT has succeeded."""
    launch = Launch(tmp_path)
    script = in_loop(
        "asyncio",
        "await stop.wait()",
        before="stop = asyncio.Event(); "
        "asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)",
    )
    ended = send(launch, script, signal.SIGINT)
    assert (ended.status, ended.out) == (0, "finally\n"), ended.err
    check_closed(launch, None)


def test_sigterm_where_sigint_is_ignored(tmp_path: Path) -> None:
    """As in background jobs of a shell: it ends the job all the same."""
    launch = Launch(tmp_path)
    script = plain(before="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "finally\n"), ended.err
    check_closed(launch, "Terminated")


def test_sigterm_that_the_job_catches(tmp_path: Path) -> None:
    """Whatever it does then, Dagster is told, and the status says so."""
    launch = Launch(tmp_path)
    script = plain(
        "try: time.sleep(30)\n        except KeyboardInterrupt: print('caught')",
        end="print('end'); sys.exit(3)",
    )
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "caught\nfinally\nend\n"), ended.err
    check_closed(launch, "Terminated")


def test_sigterm_and_an_error_while_cleaning_up(tmp_path: Path) -> None:
    """Dagster is told of both."""
    launch = Launch(tmp_path)
    script = plain("try: time.sleep(30)\n        finally: raise ValueError('cleaning up')")
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "finally\n"), ended.err
    exception = check_closed(launch, "Terminated")
    assert exception is not None
    assert exception["context"]["message"] == "cleaning up"


LOOK = """print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL); print("ready", flush=True)"""
CLOSED = {
    "plain": f"""
import signal, time
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("working")
{LOOK}
time.sleep(30)
""",
    **{
        loop: f"""
import signal
{imports}
from dagsterpipes import open_dagster_pipes
async def main():
    async with open_dagster_pipes() as pipes:
        pipes.log.info("working")
    {LOOK}
    await anyio.sleep(30)
{run}
"""
        for loop, (imports, run) in LOOPS.items()
    },
}


@pytest.mark.parametrize("script", CLOSED.values(), ids=CLOSED.keys())
def test_sigterm_after_the_close(tmp_path: Path, script: str) -> None:
    """It ends the process at once again: the handler was taken back, in coroutines too."""
    launch = Launch(tmp_path)
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out, ended.err) == (-signal.SIGTERM, "", "")
    check_closed(launch, None)


def test_sigterm_after_a_close_in_another_thread(tmp_path: Path) -> None:
    """The handler could not be taken back there; it does what would be done without it."""
    launch = Launch(tmp_path)
    script = plain(
        after="t = threading.Thread(target=pipes.close); t.start(); t.join()",
    )
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out, ended.err) == (-signal.SIGTERM, "", "")


def test_sigterm_when_opened_in_a_thread(tmp_path: Path) -> None:
    """Python handles signals in the main thread only: nothing is changed."""
    launch = Launch(tmp_path)
    script = plain()
    ended = send(
        launch,
        "import threading, time\ndef job():\n"
        + "".join(f"    {line}\n" for line in script.splitlines())
        + "thread = threading.Thread(target=job)\nthread.start()\nthread.join()\n",
        signal.SIGTERM,
    )
    assert (ended.status, ended.out) == (-signal.SIGTERM, "")
    assert launch.logs() in ([], ["working"])


def test_sigterm_while_it_opens(tmp_path: Path) -> None:
    """The opening is given up; Dagster is told by what."""
    launch = Launch(tmp_path)
    script = """
        import os, signal, threading, time
        from contextlib import contextmanager
        from dagsterpipes import open_dagster_pipes
        from dagsterpipes.loaders import PipesContextLoader, PipesDefaultContextLoader
        class Slow(PipesContextLoader):
            @contextmanager
            def load_context(self, params):
                print("ready", flush=True)
                time.sleep(0.5)
                with PipesDefaultContextLoader().load_context(params) as data:
                    yield data
        try:
            with open_dagster_pipes(context_loader=Slow()):
                time.sleep(30)
        finally:
            print("finally")
        """
    ended = send(launch, script, signal.SIGTERM)
    assert (ended.status, ended.out) == (-signal.SIGTERM, "finally\n"), ended.err
    methods = [method for method, _ in launch.sent()]
    assert methods == ["opened", "closed"]
    assert launch.sent()[-1][1]["exception"]["name"] == "Terminated"


def test_signals_of_a_session_in_a_session(tmp_path: Path) -> None:
    """One session after the other: each takes the handler, and gives it back."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import asyncio, signal
        from dagsterpipes import open_dagster_pipes
        def show():
            print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
                  signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        async def main():
            for _ in range(2):
                before = signal.getsignal(signal.SIGINT)
                async with open_dagster_pipes():
                    show()
                print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
                      signal.getsignal(signal.SIGINT) is before)
        for _ in range(2):
            with open_dagster_pipes():
                show()
            show()
        asyncio.run(main())
        show()
        """
    )
    assert done.returncode == 0, done.stderr
    plain_session = "False True\nTrue True\n"
    async_session = "False False\nTrue True\n"
    assert done.stdout == plain_session * 2 + async_session * 2 + "True True\n"


# -- the first process of a container ----------------------------------------------------------


CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _can_be_first_process() -> bool:
    try:
        return (
            subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


needs_namespace = pytest.mark.skipif(not _can_be_first_process(), reason="needs a PID namespace")

FIRST_PROCESS = """
import os, signal, sys, threading, time
from dagsterpipes import open_dagster_pipes

assert os.getpid() == 1

def terminate(times):
    for _ in range(times):
        time.sleep(0.4)
        os.kill(1, signal.SIGTERM)

with open_dagster_pipes() as pipes:
    pipes.log.info("working")
    threading.Thread(target=terminate, args=(int(sys.argv[1]),), daemon=True).start()
    while True:
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            if sys.argv[1] == "1":
                raise
            # A job that does not end when it is asked to.
"""


@needs_namespace
@pytest.mark.parametrize("times", [1, 2])
def test_sigterm_ends_the_first_process_of_a_container(tmp_path: Path, times: int) -> None:
    """Signals do nothing to it by default: it ends by the status that shells give to SIGTERM."""
    launch = Launch(tmp_path)
    script = tmp_path / "first.py"
    script.write_text(FIRST_PROCESS)
    result = subprocess.run(
        [*CONTAINER, sys.executable, str(script), str(times)],
        env={**os.environ, **launch.env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 143, result
    sent = launch.sent()
    assert sent[1][1]["message"] == "working"
    if times == 1:
        assert sent[-1][1]["exception"]["name"] == "Terminated"
