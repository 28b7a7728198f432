"""Child processes add to the session: nothing twice, nothing torn, one ``opened``, one ``closed``."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.launching import Launch

METHODS = ["fork", "spawn", "forkserver"]


def check_ends(launch: Launch) -> list[tuple[str, Any]]:
    """There is one ``opened``, first, and one ``closed``, last; give back what is in between."""
    sent = launch.sent()
    methods = Counter(method for method, _ in sent)
    assert (methods["opened"], methods["closed"]) == (1, 1)
    assert (sent[0][0], sent[-1][0]) == ("opened", "closed")
    return sent[1:-1]


def run(launch: Launch, script: str) -> str:
    # Python 3.12 and later warn of forks beside threads.
    done = launch.run(script, flags=["-W", "ignore::DeprecationWarning"])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("method", METHODS)
def test_processes_that_log_and_report(tmp_path: Path, method: str) -> None:
    """What four workers say between the parent's words arrives once and whole, in their order."""
    launch = Launch(tmp_path)
    run(
        launch,
        f"""
        import multiprocessing
        from dagsterpipes import PipesContext, open_dagster_pipes

        def work(number):
            pipes = open_dagster_pipes() if {method!r} != "fork" else PipesContext.get()
            assert pipes.run_id == "run"
            for count in range(200):
                pipes.log.info(f"child {{number}} {{count}}")
                if count % 50 == 0:
                    pipes.report_custom_message([f"child {{number}} report", count])
            pipes.report_asset_check(f"check {{number}}", passed=True)

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with open_dagster_pipes() as pipes:
                pipes.log.info("before")  # still in the buffer when the children are forked
                children = [context.Process(target=work, args=(n,)) for n in range(4)]
                for child in children:
                    child.start()
                for count in range(200):
                    pipes.log.info(f"parent 0 {{count}}")
                for child in children:
                    child.join()
                    assert child.exitcode == 0
                pipes.log.info("after")
        """,
    )
    sent = check_ends(launch)
    logs = [params["message"] for method, params in sent if method == "log"]
    assert logs.pop() == "after"
    logs.remove("before")
    order: dict[str, list[int]] = {}
    for text in logs:
        name, _, count = text.rpartition(" ")
        order.setdefault(name, []).append(int(count))
    for method_name, params in sent:
        if method_name == "report_custom_message":
            name, number = params["payload"]
            order.setdefault(name, []).append(number)
    assert sorted(order) == sorted(
        ["parent 0", *(f"child {n}{kind}" for n in range(4) for kind in ("", " report"))]
    )
    for name, counts in order.items():
        assert counts == list(range(0, 200, 50 if "report" in name else 1)), name
    checks = [params["check_name"] for method, params in sent if method == "report_asset_check"]
    assert sorted(checks) == [f"check {n}" for n in range(4)]


ENDINGS = {
    "function returns": "",
    "exception": "raise ValueError('of the child')",
    "sys.exit": "sys.exit(3)",
    "flush and os._exit": "pipes.flush(); os._exit(4)",
    "with and exception": "with pipes: raise ValueError('in the block')",
    "a thread that goes on": "threading.Thread(target=late).start()",
    "a finalizer that logs": "util.Finalize(None, pipes.log.info, ('late',), exitpriority=0)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_has_delivered_everything_when_it_ends(tmp_path: Path, ending: str) -> None:
    """However it ends by itself, and whichever way it was started."""
    launch = Launch(tmp_path)
    done = launch.run(
        f"""
        import multiprocessing, os, sys, threading, time
        from multiprocessing import util
        from dagsterpipes import open_dagster_pipes

        def late():
            time.sleep(0.1)
            open_dagster_pipes().log.info("late")

        def work(method):
            pipes = open_dagster_pipes()
            for count in range(1000):
                pipes.log.info(f"{{method}} {{count}}")
            {ENDINGS[ending]}

        if __name__ == "__main__":
            with open_dagster_pipes() as pipes:
                for method in {METHODS}:
                    child = multiprocessing.get_context(method).Process(target=work, args=(method,))
                    child.start()
                    child.join()
                    print(child.exitcode)
        """
    )
    assert done.returncode == 0, done.stderr
    status = {"exception": 1, "with and exception": 1, "sys.exit": 3, "flush and os._exit": 4}
    assert done.stdout == f"{status.get(ending, 0)}\n" * 3, done.stderr
    texts = [params["message"] for _, params in check_ends(launch)]
    assert [text for text in texts if text != "late"] == [
        f"{method} {count}" for method in METHODS for count in range(1000)
    ]
    if "finalizer" in ending:
        assert texts.count("late") == 3


FORK = """
import os, sys, threading, time
from dagsterpipes import PipesContext, open_dagster_pipes

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('of the child')", 1),
        ("pipes.close(ValueError('of the child')); pipes.log.info('late'); sys.exit(0)", 0),
        ("pipes.flush(); os._exit(4)", 4),
        ("import atexit; atexit.register(pipes.log.info, 'late'); sys.exit(0)", 0),
    ],
)
def test_a_forked_child_that_leaves_the_parents_block(
    tmp_path: Path, ending: str, status: int
) -> None:
    """By an exception, or by sys.exit: its words arrive, and the session goes on for the parent."""
    launch = Launch(tmp_path)
    done = launch.run(
        FORK
        + f"""
with open_dagster_pipes() as pipes:
    pipes.log.info("before")
    pipes.flush()  # or the child's words may be the first
    if (pid := os.fork()) == 0:
        PipesContext.get().log.info("child")
        {ending}
    print(wait(pid))
    pipes.log.info("after")
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(status)
    texts = [params["message"] for _, params in check_ends(launch)]
    assert texts == ["before", "child", *["late"] * ("late" in ending), "after"]


def test_the_first_word_of_a_child_in_an_atexit_handler(tmp_path: Path) -> None:
    """When no thread can be started any more, whoever waits delivers."""
    launch = Launch(tmp_path)
    run(
        launch,
        FORK
        + """
import atexit
with open_dagster_pipes() as pipes:
    if (pid := os.fork()) == 0:
        def handler():
            for count in range(3):
                pipes.log.info(f"late {count}")
                pipes.flush()
        atexit.register(handler)
        sys.exit(0)
    assert wait(pid) == 0
""",
    )
    assert [params["message"] for _, params in check_ends(launch)] == [
        f"late {n}" for n in range(3)
    ]


def test_a_silent_child_changes_nothing(tmp_path: Path) -> None:
    """A child that says nothing neither writes nor waits."""
    launch = Launch(tmp_path)
    run(
        launch,
        FORK
        + """
with open_dagster_pipes() as pipes:
    for ending in ("sys.exit(0)", "os._exit(0)", "pipes.close()", "pipes.flush(); sys.exit(0)"):
        if (pid := os.fork()) == 0:
            exec(ending)
            os._exit(0)
        assert wait(pid) == 0
    pipes.log.info("parent")
""",
    )
    assert [params["message"] for _, params in check_ends(launch)] == ["parent"]


def test_forks_while_other_threads_log(tmp_path: Path) -> None:
    """Whatever locks the other threads hold at that moment, each child says its word, once."""
    launch = Launch(tmp_path)
    run(
        launch,
        FORK
        + """
sys.setswitchinterval(1e-5)
stop = threading.Event()

def produce(number):
    count = 0
    while not stop.is_set():
        pipes.log.info(f"parent {number} {count}")
        count += 1
        if count % 10 == 0:
            pipes.log.warning(f"parent {number} {count}")
            count += 1
        time.sleep(0.0005)

with open_dagster_pipes(flush_interval=0) as pipes:
    threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for fork in range(60):
        if (pid := os.fork()) == 0:
            pipes.log.info(f"child {fork} 0")
            pipes.log.warning(f"child {fork} 1")
            pipes.flush(20)
            os._exit(0)
        assert wait(pid) == 0
    stop.set()
    for thread in threads:
        thread.join()
""",
    )
    order: dict[str, list[int]] = {}
    for _, params in check_ends(launch):
        name, _, count = params["message"].rpartition(" ")
        order.setdefault(name, []).append(int(count))
    assert len(order) == 64
    for name, counts in order.items():
        assert counts == list(range(2 if "child" in name else len(counts))), name


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_forks_in_an_async_job(tmp_path: Path, loop: str) -> None:
    """In the loop's thread and in a worker thread, while the session runs a loop of its own."""
    launch = Launch(tmp_path)
    run(
        launch,
        FORK
        + f"""
import anyio, anyio.to_thread

def fork(name):
    if (pid := os.fork()) == 0:
        PipesContext.get().log.info(f"child of {{name}}")
        PipesContext.get().close()
        os._exit(0)
    assert wait(pid) == 0

async def main():
    async with open_dagster_pipes() as pipes:
        pipes.log.info("before")
        await pipes.aflush()
        fork("the loop")
        await anyio.to_thread.run_sync(fork, "a thread")
        pipes.log.info("after")

anyio.run(main, backend={loop!r})
""",
    )
    texts = [params["message"] for _, params in check_ends(launch)]
    assert texts == ["before", "child of the loop", "child of a thread", "after"]


def test_forks_while_the_session_opens(tmp_path: Path) -> None:
    """The thread that opens is not in the child, which opens for itself, and adds to the session."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
        import multiprocessing, threading
        from contextlib import contextmanager
        from dagsterpipes import PipesContext, open_dagster_pipes
        from dagsterpipes.loaders import PipesContextLoader, PipesDefaultContextLoader

        is_loading, may_load = threading.Event(), threading.Event()

        class Loader(PipesContextLoader):
            @contextmanager
            def load_context(self, params):
                is_loading.set()
                may_load.wait()
                with PipesDefaultContextLoader().load_context(params) as data:
                    yield data

        def fork():
            is_loading.wait()
            context = multiprocessing.get_context("fork")
            for target in (speak, report, be_silent):
                child = context.Process(target=target)
                child.start()
                children.append(child)
            may_load.set()

        def speak():
            may_load.set()
            PipesContext.get().log.info("child")

        def report():
            may_load.set()
            with open_dagster_pipes() as pipes:
                pipes.report_custom_message(pipes.asset_key)

        def be_silent():
            PipesContext.get()  # it must not open only to have been there

        children = []
        thread = threading.Thread(target=fork)
        thread.start()
        with open_dagster_pipes(context_loader=Loader()) as pipes:
            thread.join()
            for child in children:
                child.join()
                assert child.exitcode == 0
            pipes.log.info("parent")
        """,
    )
    sent = launch.sent()
    methods = Counter(method for method, _ in sent)
    assert (methods["opened"], methods["closed"], sent[-1][0]) == (1, 1, "closed")
    assert launch.logs() == ["child", "parent"]
    assert ("report_custom_message", {"payload": "a"}) in sent


@pytest.mark.parametrize("tasks", ["", ", max_tasks_per_child=1"])
@pytest.mark.parametrize("method", METHODS)
def test_process_pools(tmp_path: Path, method: str, tasks: str) -> None:
    """Each task of a pool opens and leaves the session; workers that are replaced lose nothing."""
    if tasks and (method == "fork" or sys.version_info < (3, 11)):
        pytest.skip("such pools came with Python 3.11, and do not fork")
    launch = Launch(tmp_path)
    run(
        launch,
        f"""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from dagsterpipes import open_dagster_pipes

        def work(number):
            with open_dagster_pipes() as pipes:
                pipes.log.info(f"in {{number}}")
            open_dagster_pipes().log.info(f"and {{number}}")
            return number

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with open_dagster_pipes() as pipes:
                with ProcessPoolExecutor(2, mp_context=context{tasks}) as pool:
                    assert list(pool.map(work, range(8))) == list(range(8))
                pipes.log.info("done")
        """,
    )
    texts = [params["message"] for _, params in check_ends(launch)]
    assert texts[-1] == "done"
    assert sorted(texts[:-1]) == sorted(f"{word} {n}" for word in ("in", "and") for n in range(8))


def test_a_fork_server_that_is_older_than_the_session(tmp_path: Path) -> None:
    """Its children do not have the session's environment, and add to the session all the same."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
        import multiprocessing
        from dagsterpipes import open_dagster_pipes

        def nothing():
            pass

        def work(number):
            with open_dagster_pipes() as pipes:
                pipes.log.info(f"child {number}")

        if __name__ == "__main__":
            context = multiprocessing.get_context("forkserver")
            first = context.Process(target=nothing)
            first.start()
            first.join()
            with open_dagster_pipes() as pipes:
                children = [context.Process(target=work, args=(n,)) for n in range(3)]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
        """,
    )
    texts = [params["message"] for _, params in check_ends(launch)]
    assert sorted(texts) == [f"child {n}" for n in range(3)]


def test_a_child_process_of_another_program(tmp_path: Path) -> None:
    """A script started by `subprocess` opens the session from the environment that it inherits."""
    launch = Launch(tmp_path)
    (tmp_path / "child.py").write_text(
        "from dagsterpipes import open_dagster_pipes\n"
        "for number in range(2):\n"
        "    with open_dagster_pipes() as pipes:\n"
        "        pipes.log.info('child %d', number)\n"
    )
    run(
        launch,
        f"""
        import subprocess, sys
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            subprocess.run([sys.executable, {str(tmp_path / "child.py")!r}], check=True)
            pipes.log.info("parent")
        """,
    )
    texts = [params["message"] for _, params in check_ends(launch)]
    assert texts == ["child 0", "child 1", "parent"]


def test_one_program_after_the_other(tmp_path: Path) -> None:
    """Programs that Dagster's command starts one by one each have a session of their own."""
    launch = Launch(tmp_path)
    script = "from dagsterpipes import *\nwith open_dagster_pipes() as p: p.log.info('x')\n"
    for _ in range(2):
        assert launch.run(script).returncode == 0
    assert [method for method, _ in launch.sent()] == ["opened", "log", "closed"] * 2


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_outlives_the_session(tmp_path: Path, method: str) -> None:
    """Nothing follows ``closed``: the child is refused, told so, and its words are kept."""
    launch = Launch(tmp_path)
    done = launch.run(
        f"""
        import multiprocessing, time
        from dagsterpipes import DagsterPipesError, MessagesLostError, open_dagster_pipes

        def work(has_closed):
            pipes = open_dagster_pipes()
            pipes.log.info("in time")
            pipes.flush()
            has_said.set()
            has_closed.wait()
            pipes.log.info("too late")
            pipes.report_custom_message("too late as well")
            try:
                pipes.close()
            except MessagesLostError as error:
                print("close:", error)
            try:
                pipes.log.info("after that")
            except DagsterPipesError as error:
                print("log:", error)

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with open_dagster_pipes() as pipes:
                pipes.log.info("parent")
                has_said, has_closed = context.Event(), context.Event()
                child = context.Process(target=work, args=(has_closed, has_said))
                child.start()
                has_said.wait()
            has_closed.set()
            child.join()
            assert child.exitcode == 0
        """.replace("def work(has_closed)", "def work(has_closed, has_said)")
    )
    assert done.returncode == 0, done.stderr
    close, log = done.stdout.splitlines()
    found = re.fullmatch(
        r"close: 2 messages were not delivered to Dagster \(the process that Dagster launched has"
        r" already closed the session\); they are kept in (.*), which can be delivered with:"
        r" dagsterpipes replay \1 --to TARGET",
        close,
    )
    assert found is not None, close
    kept = Path(found[1])
    assert [json.loads(line)["method"] for line in kept.read_text().splitlines()] == [
        "log",
        "report_custom_message",
    ]
    kept.unlink()
    assert log == (
        "log: log.info(): the Dagster Pipes session is closed, nothing can be sent any more"
    )
    texts = [params["message"] for _, params in check_ends(launch)]
    assert sorted(texts) == ["in time", "parent"]


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_is_stopped_in_the_middle_of_a_write(tmp_path: Path, method: str) -> None:
    """Nobody writes without a turn: the parent's close ends in time, and says why and where all is."""
    launch = Launch(tmp_path)
    done = launch.run(
        f"""
        import fcntl, json, multiprocessing, os, signal, time
        from dagsterpipes import MessagesLostError, open_dagster_pipes

        def work(ready):
            pipes = open_dagster_pipes()
            pipes.log.info("child")
            pipes.flush()
            fcntl.flock(os.open({str(launch.messages_path)!r}, os.O_RDWR), fcntl.LOCK_EX)
            ready.set()
            os.kill(os.getpid(), signal.SIGSTOP)

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            ready = context.Event()
            try:
                with open_dagster_pipes(close_timeout=1) as pipes:
                    child = context.Process(target=work, args=(ready,))
                    child.start()
                    ready.wait()
                    pipes.log.info("parent")
                    start = time.monotonic()
            except MessagesLostError as error:
                seconds = time.monotonic() - start
                print(json.dumps([seconds, str(error), error.recovery_file]))
            child.kill()
        """
    )
    assert done.returncode == 0, done.stderr
    seconds, text, recovery_file = json.loads(done.stdout)
    assert seconds < 5
    assert "another process holds the lock of the file" in text
    kept = [json.loads(line) for line in Path(recovery_file).read_bytes().splitlines()]
    Path(recovery_file).unlink()
    assert [message["method"] for message in kept] == ["log", "closed"]
    there = [json.loads(line) for line in launch.messages_path.read_bytes().splitlines()]
    assert [message["method"] for message in there if message["params"].get("message")] == ["log"]


@pytest.mark.parametrize("method", METHODS)
def test_children_can_be_terminated(tmp_path: Path, method: str) -> None:
    """A worker ends by SIGTERM as it would without a session, with what it sent 50 ms before."""
    launch = Launch(tmp_path)
    output = run(
        launch,
        f"""
        import multiprocessing, time
        from dagsterpipes import open_dagster_pipes

        def work(ready):
            pipes = open_dagster_pipes({"handle_sigterm=False" if method != "fork" else ""})
            pipes.log.info("child")
            time.sleep(0.2)
            ready.set()
            time.sleep(30)

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with open_dagster_pipes() as pipes:
                ready = context.Event()
                child = context.Process(target=work, args=(ready,))
                child.start()
                ready.wait()
                child.terminate()
                child.join()
                print(child.exitcode)
        """,
    )
    assert output == "-15\n"
    assert [params["message"] for _, params in check_ends(launch)] == ["child"]


def test_reports_of_two_processes_are_not_compared(tmp_path: Path) -> None:
    """Each process knows its own: a second materialization is only noticed where the first was."""
    launch = Launch(tmp_path)
    run(
        launch,
        FORK
        + """
from dagsterpipes import DagsterPipesError
with open_dagster_pipes() as pipes:
    if (pid := os.fork()) == 0:
        pipes.report_asset_materialization()
        try:
            pipes.report_asset_materialization()
        except DagsterPipesError:
            sys.exit(7)
    assert wait(pid) == 7
    pipes.report_asset_materialization()
""",
    )
    methods = [method for method, _ in check_ends(launch)]
    assert methods == ["report_asset_materialization"] * 2


def test_opened_comes_before_what_a_child_says_at_once(tmp_path: Path) -> None:
    """A fork waits until ``opened`` is in the file: here another process has the file just then."""
    launch = Launch(tmp_path)
    run(
        launch,
        f"""
        import fcntl, os, threading
        from dagsterpipes import open_dagster_pipes

        file = open({str(launch.messages_path)!r}, "rb")
        fcntl.flock(file, fcntl.LOCK_EX)
        threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        pipes = open_dagster_pipes()
        children = []
        for number in range(8):
            child = os.fork()
            if not child:
                os.close(file.fileno())
                pipes.log.info(f"child {{number}}")
                pipes.flush()
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        pipes.close()
        """,
    )
    sent = check_ends(launch)
    assert sorted(params["message"] for _, params in sent) == [f"child {n}" for n in range(8)]


def test_a_fork_does_not_wait_long_for_a_disk_that_stalls(tmp_path: Path) -> None:
    """Half a second; what is sent arrives all the same."""
    launch = Launch(tmp_path)
    out = run(
        launch,
        f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from dagsterpipes import open_dagster_pipes
        from support.blocking import Gate, BlockingWriter

        gate = Gate()
        pipes = open_dagster_pipes(message_writer=BlockingWriter(gate))
        before = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(0)
        print(time.monotonic() - before)
        os.waitpid(child, 0)
        gate.is_open.set()
        pipes.close()
        """,
    )
    assert 0.4 < float(out) < 2
    assert check_ends(launch) == []
