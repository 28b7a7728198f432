"""Closing under fire: what was accepted is delivered before ``closed``, what comes later is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

# Each producer keeps the number of the last call that returned.
THREADS = """
import json, threading, time
from dagsterpipes import SessionClosedError, open_dagster_pipes

pipes = open_dagster_pipes(flush_interval={interval})
accepted = [0] * 8
refused = [0] * 8

def produce(number):
    count = 0
    while True:
        try:
            if count % 50 == 0:
                pipes.report_custom_message([f"thread {{number}}", count])
            else:
                pipes.log.info(f"thread {{number}} {{count}}")
        except SessionClosedError:
            break
        count += 1
        accepted[number] = count
    for _ in range(3):
        try:
            pipes.log.error("too late")
        except SessionClosedError:
            refused[number] += 1

threads = [threading.Thread(target=produce, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
time.sleep({seconds})
pipes.close()
for thread in threads:
    thread.join()
print(json.dumps([accepted, refused]))
"""

TASKS = """
import asyncio, json
from dagsterpipes import SessionClosedError, open_dagster_pipes

accepted = [0] * 100
refused = [0] * 100

async def produce(pipes, number):
    count = 0
    while True:
        try:
            for _ in range(5):
                pipes.log.info(f"task {number} {count}")
                count += 1
                accepted[number] = count
            await pipes.drain()
            await asyncio.sleep(0)
        except SessionClosedError:
            break
    try:
        pipes.report_custom_message("too late")
    except SessionClosedError:
        refused[number] = 3

async def main():
    async with open_dagster_pipes() as pipes:
        tasks = [asyncio.create_task(produce(pipes, number)) for number in range(100)]
        await asyncio.sleep(0.2)
    await asyncio.gather(*tasks)

asyncio.run(main())
print(json.dumps([accepted, refused]))
"""


def check_producers(launch: Launch, kind: str, output: str) -> None:
    """Everything that was accepted of each producer is there, in order, before ``closed``."""
    accepted, refused = json.loads(output)
    assert min(accepted) > 0
    assert set(refused) == {3}
    sent = launch.sent()
    assert [method for method, _ in sent].count("opened") == 1
    assert sent[0] == ("opened", {"extras": {}})
    assert sent[-1] == ("closed", {})
    arrived: dict[str, list[int]] = {f"{kind} {number}": [] for number in range(len(accepted))}
    for method, params in sent[1:-1]:
        if method == "log":
            name, _, count = params["message"].rpartition(" ")
        else:
            name, count = params["payload"]
        arrived[name].append(int(count))
    for counts, expected in zip(arrived.values(), accepted, strict=True):
        assert counts == list(range(expected))


@pytest.mark.parametrize("seconds", [0.02, 0.15])
@pytest.mark.parametrize("interval", [0, 0.02])
def test_threads_that_log_while_it_closes(tmp_path: Path, seconds: float, interval: float) -> None:
    """Of eight threads, every accepted message arrives in order and nothing else does."""
    launch = Launch(tmp_path)
    done = launch.run(THREADS.format(seconds=seconds, interval=interval))
    assert done.returncode == 0, done.stderr
    check_producers(launch, "thread", done.stdout)


def test_tasks_that_log_while_it_closes(tmp_path: Path) -> None:
    """Of a hundred tasks, every accepted message arrives in order and nothing else does."""
    launch = Launch(tmp_path)
    done = launch.run(TASKS)
    assert done.returncode == 0, done.stderr
    check_producers(launch, "task", done.stdout)


def test_close_from_another_thread(tmp_path: Path) -> None:
    """A thread closes while the one that opened it logs: `with` then ends without a word."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import threading
        from dagsterpipes import SessionClosedError, open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.log.info("before")
            closer = threading.Thread(target=pipes.close)
            closer.start()
            try:
                while True:
                    pipes.log.info("while")
            except SessionClosedError as error:
                print(error)
            closer.join()
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "log.info(): the Dagster Pipes session is closed, nothing can be sent any more\n"
    )
    assert [launch.sent()[0][0], launch.sent()[-1]] == ["opened", ("closed", {})]
    assert launch.logs()[0] == "before"


def test_close_many_times_at_once(tmp_path: Path) -> None:
    """Whoever closes returns only when it is done, and ``closed`` is sent once."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import os, threading
        from dagsterpipes import open_dagster_pipes
        path = os.environ["MESSAGES"]
        pipes = open_dagster_pipes()
        for number in range(20_000):
            pipes.log.info("message %d", number)
        start = threading.Barrier(6)
        complete = []
        def close():
            start.wait()
            pipes.close()
            complete.append(b'"closed"' in open(path, "rb").read()[-100:])
        closers = [threading.Thread(target=close) for _ in range(6)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        pipes.close()
        print(complete)
        """,
        env={"MESSAGES": str(launch.messages_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[True] * 6}\n"
    assert [method for method, _ in launch.sent()].count("closed") == 1
    assert len(launch.logs()) == 20_000


def test_close_in_a_coroutine(tmp_path: Path) -> None:
    """A plain close() called in the event loop blocks it and is done when it returns."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import asyncio
        from dagsterpipes import open_dagster_pipes
        async def main():
            async with open_dagster_pipes() as pipes:
                for number in range(1000):
                    pipes.log.info("message %d", number)
                pipes.close(ValueError("by hand"))
                await pipes.aclose()
        asyncio.run(main())
        """
    )
    assert done.returncode == 0, done.stderr
    assert len(launch.logs()) == 1000
    assert launch.sent()[-1][1]["exception"]["message"] == "by hand"


def test_opening_again_while_it_closes(tmp_path: Path) -> None:
    """The next session begins behind ``closed`` of the one that another thread is closing."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import threading
        from dagsterpipes import open_dagster_pipes
        first = open_dagster_pipes()
        for number in range(50_000):
            first.log.info("first %d", number)
        closer = threading.Thread(target=first.close)
        closer.start()
        while not first.is_closed:
            pass
        with open_dagster_pipes() as second:
            assert second is not first
            second.log.info("second")
        closer.join()
        """
    )
    assert done.returncode == 0, done.stderr
    methods = [method for method, _ in launch.sent()]
    assert methods == ["opened", *["log"] * 50_000, "closed", "opened", "log", "closed"]


# A channel on which each message takes a while, so that a close can be interrupted.
SLOW_CLOSE = """
import os, signal, sys, threading, time
from contextlib import contextmanager
from dagsterpipes import open_dagster_pipes
from dagsterpipes.writers import (
    PipesDefaultMessageWriter, PipesMessageWriter, PipesMessageWriterChannel
)

class Slow(PipesMessageWriterChannel):
    def __init__(self, file):
        self.file = file
    def write_message(self, message):
        time.sleep(0.005)
        self.file.write_message(message)

class Writer(PipesMessageWriter):
    @contextmanager
    def open(self, params):
        with PipesDefaultMessageWriter().open(params) as file:
            yield Slow(file)

pipes = open_dagster_pipes(message_writer=Writer())
for number in range(100):
    pipes.log.info("message %d", number)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


@pytest.mark.parametrize("then", ["pipes.close()", "sys.exit(0)", "raise", "pass"])
def test_close_interrupted_and(tmp_path: Path, then: str) -> None:
    """Ctrl-C while it closes: closing again, or the exit, waits for the rest; all is delivered."""
    launch = Launch(tmp_path)
    done = launch.run(
        SLOW_CLOSE
        + f"""
try:
    pipes.close()
    print("not interrupted")
except KeyboardInterrupt:
    {then}
"""
    )
    assert done.stdout == ""
    assert done.returncode == (-2 if then == "raise" else 0)
    assert launch.logs() == [f"message {number}" for number in range(100)]
    assert launch.sent()[-1] == ("closed", {})


def test_close_in_a_signal_handler(tmp_path: Path) -> None:
    """A handler that closes the session while it is being closed waits for the same end."""
    launch = Launch(tmp_path)
    done = launch.run(
        SLOW_CLOSE
        + """
def handler(signum, frame):
    pipes.close()
    print("closed", open(os.environ["MESSAGES"], "rb").read().count(b"closed"))

signal.signal(signal.SIGINT, handler)
pipes.close()
""",
        env={"MESSAGES": str(launch.messages_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed 1\n", "")
    assert launch.logs() == [f"message {number}" for number in range(100)]
    assert launch.sent()[-1] == ("closed", {})


def test_close_after_interrupts_of_log_calls(tmp_path: Path) -> None:
    """Ctrl-C at any moment of a flood of log calls loses nothing that was accepted before."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import os, signal, sys, threading, time
        from dagsterpipes import open_dagster_pipes
        sys.setswitchinterval(0.0002)
        pipes = open_dagster_pipes(flush_interval=0)
        count = interrupts = 0
        is_armed = False
        def on_sigint(signum, frame):
            global is_armed
            if is_armed:
                is_armed = False
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, on_sigint)
        stop = threading.Event()
        def interrupt():
            while not stop.wait(0.0005):
                os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=interrupt)
        thread.start()
        while count < 40_000:
            try:
                is_armed = True
                for _ in range(100):
                    pipes.log.warning("message %d", count)
                    count += 1
                is_armed = False
            except KeyboardInterrupt:
                interrupts += 1
                count += 1  # it is not known whether this one was accepted
        stop.set()
        thread.join()
        start = time.monotonic()
        pipes.close()
        print(count, interrupts, time.monotonic() - start)
        """
    )
    assert done.returncode == 0, done.stderr
    count, interrupts, seconds = map(float, done.stdout.split())
    sent = launch.sent()
    assert sent.pop() == ("closed", {})
    numbers = [int(params["message"].removeprefix("message ")) for _, params in sent[1:]]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= count - interrupts
    assert interrupts > 20
    assert seconds < 10


def test_a_close_without_time_while_the_queue_is_busy(tmp_path: Path) -> None:
    """It waits a moment for whoever is in the queue, and does not leave the session open."""
    script = """
        import threading, time
        from dagsterpipes import DagsterPipesError, open_dagster_pipes

        pipes = open_dagster_pipes(close_timeout=0)
        pipes.log.info("text")
        outbox = pipes._session.delivery.outbox
        inside = threading.Event()

        def be_busy():
            with outbox._lock:
                inside.set()
                time.sleep(0.1)

        threading.Thread(target=be_busy).start()
        inside.wait()
        try:
            pipes.close()
        except DagsterPipesError:  # not everything was delivered in no time
            pass
        assert pipes.is_closed
    """
    ended = Launch(tmp_path).run(script)
    assert (ended.returncode, ended.stderr) == (0, "")
