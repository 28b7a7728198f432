"""A channel that takes nothing for a while: what calls cost, who waits, what is dropped, memory."""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.interactive_job import INTERACTIVE, Job
from support.launching import Launch
from support.message_file import MessageFile, stamps

if TYPE_CHECKING:
    from collections.abc import Iterator

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)

# What every job here begins with.
JOB = """
import asyncio, contextlib, os, statistics, sys, threading, time, warnings
import dagsterpipes
from dagsterpipes import open_dagster_pipes

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
"""


class Pipe:
    """The messages of a job go into this; nobody reads them until told to."""

    def __init__(self, launch: Launch) -> None:
        path = launch.folder / "fifo"
        os.mkfifo(path)
        launch.messages_path.unlink()
        launch.messages_path.symlink_to(path)
        # Without waiting for the writer.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
        self._copy = launch.folder / "copy"
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        with self._copy.open("wb") as copy, open(self._descriptor, "rb", buffering=0) as source:  # noqa: PTH123 because it is a descriptor
            while data := source.read(1 << 20):
                copy.write(data)

    def read_on(self) -> None:
        """Read in the background, to the end."""
        self._reader.start()

    def join(self) -> None:
        """Read to the end, once the job has ended."""
        if self._reader.ident is None:
            self.read_on()
        self._reader.join()

    def messages(self) -> MessageFile:
        """Everything that came, once the job has ended."""
        self.join()
        return MessageFile(self._copy)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


@pytest.fixture
def pipe(launch: Launch) -> Iterator[Pipe]:
    pipe = Pipe(launch)
    yield pipe
    pipe.join()


def test_calls_keep_their_cost_until_the_buffer_is_full_and_then_wait(
    launch: Launch, pipe: Pipe
) -> None:
    """They go on when the channel does; everything arrives, in order."""
    with Job(
        launch,
        JOB
        + """
pipes = open_dagster_pipes(buffer_size=4 << 20)
pipes.flush()
costs, count = [], 0

def log():
    global count
    clock = time.perf_counter
    while count < 100_000:
        begin = clock()
        pipes.log.info("#0.%d# and some text behind it, as it is usual in logs, to make it longer", count)
        costs.append(clock() - begin)
        count += 1

thread = threading.Thread(target=log)
thread.start()
last = -1
while last != count or not count:
    last = count
    time.sleep(0.5)
blocked_at = count
tell(blocked_at=count, alive=thread.is_alive(), median=statistics.median(costs), longest=max(costs))
wait_for_resume()
thread.join()
stalled, costs[:] = statistics.median(costs[:blocked_at]), []
pipes.flush()
count = 0
blocked_at = 20_000
def other(): pass
for number in range(20_000):
    begin = time.perf_counter()
    pipes.log.info("and some text behind it, as it is usual in logs, to make it longer %d", count)
    costs.append(time.perf_counter() - begin)
tell(stalled=stalled, healthy=statistics.median(costs))
pipes.close()
""",
    ) as job:
        stalled = job.listen()
        assert stalled["alive"]
        # A text of 80 characters takes hardly more bytes.
        assert 0.9 < stalled["blocked_at"] * 82 / (4 << 20) < 1.3
        pipe.read_on()
        job.resume()
        costs = job.listen()
        assert job.end() == (0, "")
        assert costs["stalled"] < 3 * costs["healthy"]
        assert pipe.messages().stamps() == {0: list(range(100_000))}
        assert pipe.messages().is_closed()


def test_a_coroutine_waits_without_its_loop(launch: Launch, pipe: Pipe) -> None:
    """`await drain()` holds back who says too much; a heartbeat beside it goes on."""
    with Job(
        launch,
        JOB
        + """
async def main():
    gaps, count, is_done = [], 0, False

    async def beat():
        last = time.monotonic()
        while not is_done:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async def talk():
        nonlocal count
        while count < 3_000:
            pipes.log.info(f"#0.{count}#" + "x" * SIZE)
            count += 1
            await pipes.drain()

    async with open_dagster_pipes(buffer_size=BUFFER) as pipes:
        heart = asyncio.create_task(beat())
        talking = asyncio.create_task(talk())
        while True:
            before = count
            await asyncio.sleep(0.4)
            if before == count:
                break
        tell(blocked_at=count, done=talking.done())
        await asyncio.to_thread(wait_for_resume)
        await talking
        is_done = True
        await heart
    tell(longest=max(gaps), beats=len(gaps))

SIZE, BUFFER = map(int, sys.argv[1:])
asyncio.run(main())
""",
        "900",  # short enough to be appended without being counted
        str(1 << 20),
    ) as job:
        stalled = job.listen()
        assert not stalled["done"]
        assert 0.4 < stalled["blocked_at"] * 960 / (1 << 20) < 0.8
        pipe.read_on()
        job.resume()
        heart = job.listen()
        assert job.end() == (0, "")
        assert heart["longest"] < 0.3
        assert pipe.messages().stamps() == {0: list(range(3_000))}


def test_logs_are_dropped_and_reports_are_not(launch: Launch, pipe: Pipe) -> None:
    """No call waits; the number of dropped lines is in a last message, and in a warning."""
    with Job(
        launch,
        JOB
        + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pipes = open_dagster_pipes(buffer_size=1 << 20, on_full="drop_logs", close_timeout=20)
    begin = time.monotonic()
    for number in range(20_000):
        pipes.log.info(f"#0.{number}# text" + "x" * 200)
        if number % 100 == 0:
            pipes.report_custom_message(f"#1.{number // 100}#")
        elif number % 100 == 50:
            pipes.log_external_stream("stdout", f"#2.{number // 100}#" + "x" * 200)
    tell(seconds=time.monotonic() - begin)
    wait_for_resume()
    pipes.close()
tell(warnings=[str(one.message) for one in caught])
""",
    ) as job:
        seconds = job.listen()["seconds"]
        assert seconds < 5
        pipe.read_on()
        job.resume()
        (warning,) = job.listen()["warnings"]
        assert job.end() == (0, "")
        found = pipe.messages()
        there = found.stamps()
        assert there[1] == list(range(200))
        assert there[0] == sorted(set(there[0]))
        assert there[2] == sorted(set(there[2]))
        dropped = 20_000 - len(there[0]) + 200 - len(there[2])
        assert 10_000 < dropped < 18_000
        assert len(there[2]) < 150
        text = f"{dropped:,} log messages were dropped because the buffer was full"
        assert warning == text
        *_, notice, closed = found.messages
        assert notice["params"] == {"level": "WARNING", "message": text}
        assert closed["method"] == "closed"


def test_a_forked_child_says_how_many_it_dropped(launch: Launch, pipe: Pipe) -> None:
    """At its own close, and once."""
    script = """
pipes = open_dagster_pipes(buffer_size=1 << 16, on_full="drop_logs", close_timeout=20)
pipes.flush()
if not os.fork():
    for number in range(8000):
        pipes.log.info(f"#0.{number}#" + "x" * 100)
    tell()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipes.close()
        pipes.close()
    tell(warnings=[str(one.message) for one in caught])
    os._exit(0)
os.wait()
pipes.close()
"""
    with Job(launch, JOB + script) as job:
        job.listen()
        pipe.read_on()
        (warning,) = job.listen()["warnings"]
        assert job.end() == (0, "")
    found = pipe.messages()
    dropped = 8000 - len(found.stamps()[0])
    assert 0 < dropped < 8000
    text = f"{dropped:,} log messages were dropped because the buffer was full"
    assert warning == text
    assert [one["params"] for one in found.messages].count(
        {"level": "WARNING", "message": text}
    ) == 1


def test_a_drop_is_an_error_where_warnings_are_and_the_session_is_closed(
    launch: Launch, pipe: Pipe
) -> None:
    """The warning comes when all is delivered."""
    with Job(
        launch,
        JOB
        + """
with open_dagster_pipes(buffer_size=1 << 16, on_full="drop_logs") as pipes:
    for number in range(4000):
        pipes.log.info("x" * 500)
    tell()
    wait_for_resume()
""",
        flags=["-W", "error"],
    ) as job:
        job.listen()
        pipe.read_on()
        job.resume()
        status, err = job.end()
        assert status == 1
        assert re.search(r"DagsterPipesWarning: [\d,]+ log messages were dropped", err)
        assert pipe.messages().is_closed()


WRITERS = {
    "with a pipe": ("with", "None"),
    "async with a pipe": ("async with", "None"),
    "with a writer that sleeps": ("with", "Writer(Channel())"),
    "async with a writer that sleeps": ("async with", "Writer(Channel())"),
    "async with an async writer that sleeps": ("async with", "Writer(AsyncChannel())"),
}


@pytest.mark.parametrize("how", WRITERS)
def test_a_write_that_does_not_end_holds_up_neither_the_close_nor_the_exit(
    launch: Launch, pipe: Pipe, how: str
) -> None:
    """What is in nobody's hands then is in the recovery file."""
    opening, writer = WRITERS[how]
    begin = time.monotonic()
    done = launch.run(
        INTERACTIVE
        + JOB
        + f"""
class Channel(dagsterpipes.PipesMessageWriterChannel):
    def write_message(self, message):
        time.sleep(30)

class AsyncChannel(dagsterpipes.PipesMessageWriterChannel):
    async def write_message(self, message):
        await asyncio.sleep(30)

class Writer(dagsterpipes.PipesMessageWriter):
    def __init__(self, channel):
        self.channel = channel

    @contextlib.contextmanager
    def open(self, params):
        yield self.channel

async def main():
    {opening} open_dagster_pipes(message_writer={writer}, close_timeout=0.5) as pipes:
        for number in range(2000):
            pipes.log.info(f"#0.{{number}}#" + "x" * 100)

try:
    asyncio.run(main())
except dagsterpipes.MessagesLostError as error:
    tell(count=error.count, file=error.recovery_file, text=str(error))
""",
        env={
            "TMPDIR": str(launch.folder),
            "PYTHONWARNINGS": "ignore:`with open_dagster_pipes()` in a coroutine",
        },
        timeout=20,
    )
    assert time.monotonic() - begin < 10
    assert (done.returncode, done.stderr) == (0, "")
    lost = json.loads(done.stdout)
    assert "still writing after 0." in lost["text"]
    recovered = Path(lost["file"]).read_bytes().splitlines()
    arrived = pipe.messages()
    assert arrived.stamps().get(0, []) + stamps(recovered)[0] == list(range(2000))
    assert lost["count"] == len(recovered) == 2002 - len(arrived.lines)


A_LITTLE = 12 << 20
"""Bytes: a batch on its way, in which a character of one byte has become six, in several copies."""

ALPHABETS = {"ASCII": "x", "Latin": "\u00e9", "Greek": "\u03b1", "emoji": "\U0001f600"}

MEMORY_JOB = """
GIGABYTE = 1 << 30
buffer_size = 8 << 20

def offer(pipes, text, offered):
    forget_peak()
    before = peak()
    begin = time.monotonic()
    for number in range(offered // sys.getsizeof(text)):
        # A new string each time, of the same size.
        pipes.log.info(text + str(number % 10))
    seconds = time.monotonic() - begin
    tell(over=peak() - before - buffer_size, seconds=seconds, offered=offered)

letter, length, offered, on_full = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
pipes = open_dagster_pipes(buffer_size=buffer_size, on_full=on_full, close_timeout=0.1)
pipes.log.info("once" + letter)
pipes.flush()
tell()
offer(pipes, letter * length, offered)
os._exit(0)
"""


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize(
    ("on_full", "offered"),
    [
        pytest.param("drop_logs", 1 << 30, id="stalled, a gigabyte is dropped"),
        pytest.param("wait", 50 << 20, id="slow, 50 megabytes wait"),
    ],
)
def test_memory_is_bounded(
    launch: Launch, pipe: Pipe, alphabet: str, on_full: str, offered: int
) -> None:
    """The buffer and a little more, however many bytes a character takes."""
    with Job(launch, JOB + MEMORY_JOB, ALPHABETS[alphabet], "1000", str(offered), on_full) as job:
        job.listen()
        if on_full == "wait":
            pipe.read_on()
        facts = job.listen()
        assert job.end() == (0, "")
    print(f"{on_full} {alphabet}: {facts['over'] / (1 << 20):.1f} MiB above the buffer")
    assert facts["over"] < A_LITTLE
