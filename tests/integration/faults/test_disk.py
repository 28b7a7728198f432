"""Writes that fail: the session goes on, nothing is lost, or the error names what was lost and where it is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import encode_param
from support.interactive_job import INTERACTIVE, Job
from support.launching import Launch
from support.message_file import MessageFile, stamps

if TYPE_CHECKING:
    from collections.abc import Iterator

resource = pytest.importorskip("resource", reason="needs limits of file sizes")

# What every job here begins with.
JOB = """
import os, resource, sys, tempfile, threading, time
import dagsterpipes
from dagsterpipes import open_dagster_pipes

def limit_files(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def say(pipes, start, stop):
    for number in range(start, stop):
        text = f"#0.{number}#" + "x" * (20_000 if number % 97 == 96 else number % 500)
        if number % 10 == 9:
            pipes.report_custom_message(text)
        else:
            pipes.log.info(text)

def try_to_close(pipes):
    begin = time.monotonic()
    try:
        pipes.close()
    except dagsterpipes.MessagesLostError as error:
        tell(
            seconds=time.monotonic() - begin,
            count=error.count,
            file=error.recovery_file,
            text=str(error),
        )
        sys.exit(3)
"""

COUNT = 4_000
"""Messages of most jobs here: about 2 MB."""


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def check_complete(path: Path, count: int = COUNT) -> None:
    """Every message is there once, in order, and the file is closed."""
    found = MessageFile(path)
    assert found.stamps() == {0: list(range(count))}
    assert found.methods()[0] == "opened"
    assert found.is_closed()


def check_recovered(path: Path, lost: dict[str, Any], count: int = COUNT) -> None:
    """What is not in the messages file is in the recovery file, in order, and it was counted."""
    found = MessageFile(path)
    recovered = Path(lost["file"]).read_bytes().splitlines()
    Path(lost["file"]).unlink()
    there = found.stamps().get(0, [])
    kept = stamps(recovered).get(0, [])
    assert there + kept == list(range(count))
    assert len(recovered) == lost["count"] == count + len(["opened", "closed"]) - len(found.lines)
    assert [json.loads(line)["method"] for line in recovered][-1] == "closed"


class TestSpaceReturns:
    """Every line is there in the end, once and in order."""

    def test_on_a_full_disk(self, small_disk: Path) -> None:
        """While it is full, the file holds whole lines, and calls do not wait."""
        launch = Launch(small_disk)
        ballast = small_disk / "ballast"
        with Job(
            launch,
            JOB
            + f"""
pipes = open_dagster_pipes()
wait_for_resume()
begin = time.monotonic()
say(pipes, 0, {COUNT})
tell(seconds=time.monotonic() - begin)
wait_for_resume()
pipes.close()
""",
        ) as job:
            ballast.write_bytes(b"b" * 500_000)
            job.resume()
            assert job.listen()["seconds"] < 1
            wait_until(lambda: len(MessageFile(launch.messages_path, may_end_torn=True).lines) > 50)
            time.sleep(0.1)
            there = MessageFile(launch.messages_path).stamps()[0]
            assert there == list(range(len(there)))
            assert 50 < len(there) < COUNT / 2
            # The first megabyte is still too small for all: that takes a larger disk.
            ballast.unlink()
            subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
            job.resume()
            assert job.end() == (0, "")
            check_complete(launch.messages_path)

    @pytest.mark.parametrize("opening", ["with", "async with"])
    def test_under_a_limit_of_the_file_size(self, launch: Launch, opening: str) -> None:
        """The job lifts it again: that is noticed within seconds, without anybody's doing."""
        body = f"""
limit_files(300_000)
say(pipes, 0, {COUNT})
try:
    pipes.flush(0.3)
except dagsterpipes.FlushTimeoutError as error:
    tell(error=str(error), size=os.stat(sys.argv[1]).st_size)
limit_files(resource.RLIM_INFINITY)
pipes.flush(5)
tell(size=os.stat(sys.argv[1]).st_size)
"""
        indented = "\n".join("    " + line for line in body.splitlines())
        script = {
            "with": f"with open_dagster_pipes() as pipes:\n{indented}",
            "async with": "import asyncio\nasync def main():\n  async with open_dagster_pipes() as pipes:"
            f"\n{indented}\nasyncio.run(main())",
        }[opening]
        done = launch.run(INTERACTIVE + JOB + script, str(launch.messages_path))
        assert (done.returncode, done.stderr) == (0, "")
        full, free = map(json.loads, done.stdout.splitlines())
        assert "File too large" in full["error"]
        assert 250_000 < full["size"] <= 300_000
        assert free["size"] > 1_000_000
        check_complete(launch.messages_path)

    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_in_a_writer_of_ones_own(self, launch: Launch, kind: str) -> None:
        """EIO, now and then and for a while: each message is taken once; retries are rare."""
        script = f"""
import contextlib, errno, random
taken, attempts = [], []

class Channel(dagsterpipes.PipesMessageWriterChannel):
    failures = 0
    {kind} write_message(self, message):
        if self.failures:
            self.failures -= 1
            attempts.append(time.monotonic())
            raise OSError(errno.EIO, "Input/output error")
        if len(taken) % 100 == 50 and random.random() < 0.8:
            self.failures = 1
        if len(taken) == 1500:
            self.failures = 6
        taken.append(message)

class Writer(dagsterpipes.PipesMessageWriter):
    @contextlib.contextmanager
    def open(self, params):
        yield Channel()

with open_dagster_pipes(message_writer=Writer()) as pipes:
    say(pipes, 0, 2000)
tell(sent=[one["params"].get("message") or one["params"].get("payload") for one in taken], attempts=attempts)
"""
        done = launch.run(INTERACTIVE + JOB + script)
        assert (done.returncode, done.stderr) == (0, "")
        facts = json.loads(done.stdout)
        lines = [str(text).encode() for text in facts["sent"]]
        assert stamps(lines) == {0: list(range(2000))}
        assert len(lines) == 2000 + len(["opened", "closed"])
        longest = max(b - a for a, b in zip(facts["attempts"], facts["attempts"][1:], strict=False))
        # After six failures in a row the delay has grown from 20 to 640 ms.
        assert 0.3 < longest < 5


class TestSpaceDoesNotReturn:
    """`close` says so in time, and keeps what is left."""

    def test_on_a_full_disk(self, small_disk: Path, tmp_path: Path) -> None:
        """The recovery file holds each undelivered line, once."""
        launch = Launch(small_disk)
        with Job(
            launch,
            JOB
            + f"pipes = open_dagster_pipes(close_timeout=0.5)\nsay(pipes, 0, {COUNT})\ntry_to_close(pipes)",
            env={"TMPDIR": str(tmp_path)},
        ) as job:
            lost = job.listen()
            assert job.end() == (3, "")
            assert 0.5 <= lost["seconds"] < 1.5
            assert lost["count"] > COUNT / 4
            assert Path(lost["file"]).parent == tmp_path
            assert "No space left on device" in lost["text"]
            assert f"{lost['count']:,} messages were not delivered" in lost["text"]
            check_recovered(launch.messages_path, lost)

    def test_under_a_limit_of_the_file_size(self, launch: Launch, tmp_path: Path) -> None:
        """The same, in a coroutine."""
        script = f"""
import asyncio

async def main():
    async with open_dagster_pipes(close_timeout=0.5) as pipes:
        limit_files(400_000)
        for number in range({COUNT // 2}):
            pipes.log.info(f"#0.{{number}}#" + "x" * 200)

begin = time.monotonic()
try:
    asyncio.run(main())
except dagsterpipes.MessagesLostError as error:
    tell(seconds=time.monotonic() - begin, count=error.count, file=error.recovery_file)
"""
        done = launch.run(INTERACTIVE + JOB + script, env={"TMPDIR": str(tmp_path)})
        assert (done.returncode, done.stderr) == (0, "")
        lost = json.loads(done.stdout)
        assert 0.5 <= lost["seconds"] < 2.5
        check_recovered(launch.messages_path, lost, COUNT // 2)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
    def test_on_a_device_that_takes_nothing(self, launch: Launch, tmp_path: Path) -> None:
        """Everything is in the recovery file, from `opened` to `closed`."""
        launch.messages_path.unlink()
        launch.messages_path.symlink_to("/dev/full")
        with Job(
            launch,
            JOB
            + "pipes = open_dagster_pipes(close_timeout=0.3)\nsay(pipes, 0, 100)\ntry_to_close(pipes)",
            env={"TMPDIR": str(tmp_path)},
        ) as job:
            lost = job.listen()
            assert job.end() == (3, "")
            assert lost["count"] == 102
            recovered = Path(lost["file"])
            assert MessageFile(recovered).methods()[0] == "opened"
            check_complete(recovered, 100)

    def test_in_a_forked_child(self, launch: Launch, tmp_path: Path) -> None:
        """Its messages are in a recovery file of its own; the parent's session goes on."""
        script = """
pipes = open_dagster_pipes(close_timeout=0.3)
for _ in range(100):
    pipes.log.info("by the parent" + "x" * 500)
pipes.flush()
if not os.fork():
    limit_files(os.stat(sys.argv[1]).st_size)
    say(pipes, 0, 50)
    try:
        pipes.close()
    except dagsterpipes.MessagesLostError as error:
        try:
            pipes.log.info("more")
        except dagsterpipes.SessionClosedError as closed:
            tell(count=error.count, file=error.recovery_file, closed=str(closed))
    os._exit(0)
os.wait()
pipes.close()
"""
        done = launch.run(
            INTERACTIVE + JOB + script, str(launch.messages_path), env={"TMPDIR": str(tmp_path)}
        )
        assert (done.returncode, done.stderr) == (0, "")
        lost = json.loads(done.stdout)
        recovered = Path(lost["file"]).read_bytes().splitlines()
        assert stamps(recovered) == {0: list(range(50))}
        assert lost["count"] == len(recovered) == 50
        assert "session is closed" in lost["closed"]
        assert MessageFile(launch.messages_path).methods() == ["opened", *100 * ["log"], "closed"]

    def test_and_the_last_attempt_is_made_at_the_close(self, launch: Launch) -> None:
        """Space that returned a moment before is used, however long the delay has grown."""
        script = """
pipes = open_dagster_pipes(close_timeout=0.3)
limit_files(0)
say(pipes, 0, 10)
time.sleep(1.4)  # by now the next attempt is about a second away
limit_files(resource.RLIM_INFINITY)
pipes.close()
"""
        done = launch.run(INTERACTIVE + JOB + script)
        assert (done.returncode, done.stderr) == (0, "")
        check_complete(launch.messages_path, 10)


class TestHowTheJobEnds:
    """A job that lost messages never looks like one that did not."""

    LOSE = "pipes.flush()\n    limit_files(0)\n    say(pipes, 0, 10)\n    "

    def run(self, launch: Launch, end: str, *flags: str) -> subprocess.CompletedProcess[str]:
        script = f"with open_dagster_pipes(close_timeout=0.1) as pipes:\n    {self.LOSE}{end}"
        return launch.run(INTERACTIVE + JOB + script, flags=list(flags))

    @pytest.mark.parametrize("end", ["pass", "sys.exit()", "sys.exit(0)"])
    def test_success_becomes_an_error(self, launch: Launch, end: str) -> None:
        """The process ends with a status that is not 0."""
        done = self.run(launch, end)
        assert done.returncode == 1
        assert "MessagesLostError: 11 messages were not delivered to Dagster" in done.stderr

    @pytest.mark.parametrize("flags", [(), ("-W", "error")])
    def test_the_jobs_own_exception_stays(self, launch: Launch, flags: tuple[str, ...]) -> None:
        """It is what is raised; the lost messages are a warning beside it."""
        done = self.run(launch, "raise ValueError('of the job')", *flags)
        assert done.returncode == 1
        last = [line for line in done.stderr.splitlines() if line.startswith("ValueError")]
        assert last == ["ValueError: of the job"]
        assert "11 messages were not delivered to Dagster" in done.stderr
        if sys.version_info >= (3, 11):
            assert "\nAnd closing the Dagster Pipes session failed: " in done.stderr

    def test_the_jobs_own_status_stays(self, launch: Launch) -> None:
        """As `sys.exit` says it."""
        done = self.run(launch, "sys.exit(7)")
        assert done.returncode == 7
        assert "11 messages were not delivered to Dagster" in done.stderr

    def test_a_session_that_is_closed_at_exit_too(self, launch: Launch) -> None:
        """Nobody is there to raise to: the status says it, and what was printed is not lost."""
        script = """
import atexit
pipes = open_dagster_pipes(close_timeout=0.1)
pipes.flush()
limit_files(0)
say(pipes, 0, 10)
print("printed", end="")
"""
        done = launch.run(INTERACTIVE + JOB + script)
        assert done.returncode == 1
        assert done.stdout == "printed"
        assert "MessagesLostError: 11 messages were not delivered to Dagster" in done.stderr


class TestRecoveryFile:
    """Where it goes."""

    def test_to_the_current_folder_when_the_temporary_one_is_full(
        self, launch: Launch, small_disk: Path, tmp_path: Path
    ) -> None:
        """It holds everything, and nothing is left where it had no room."""
        (small_disk / "ballast").write_bytes(b"b" * (1 << 20))
        work = tmp_path / "work"
        work.mkdir()
        with Job(
            launch,
            JOB + "pipes = open_dagster_pipes(close_timeout=0.2)\nlimit_files(900_000)\n"
            "tempfile.tempdir = sys.argv[1]\nsay(pipes, 0, 2000)\ntry_to_close(pipes)",
            str(small_disk),
            cwd=work,
        ) as job:
            lost = job.listen()
            assert job.end() == (3, "")
            assert Path(lost["file"]).parent == work
            assert [path.name for path in small_disk.iterdir()] == ["ballast"]
            check_recovered(launch.messages_path, lost, 2000)

    def test_nowhere_when_nothing_can_be_written(self, launch: Launch, tmp_path: Path) -> None:
        """The error says that the messages are gone."""
        with Job(
            launch,
            JOB + "pipes = open_dagster_pipes(close_timeout=0.2)\npipes.flush()\nlimit_files(0)\n"
            "say(pipes, 0, 10)\ntry_to_close(pipes)",
            cwd=tmp_path,
            env={"TMPDIR": str(tmp_path)},
        ) as job:
            lost = job.listen()
            assert job.end() == (3, "")
            assert (lost["count"], lost["file"]) == (11, None)
            assert "no recovery file could be written, they are gone" in lost["text"]
            assert not list(tmp_path.glob("dagsterpipes-recovery-*"))


class TestSignals:
    """Interrupted system calls."""

    STORM = f"""
import signal
handled = 0

def handle(signum, frame):
    global handled
    handled += 1
    if handled % 10 == 0:
        pipes.log.debug("from the handler")

def interrupt_threads():
    while not pipes.is_closed:
        for thread in threading.enumerate():
            if thread.name.startswith("dagsterpipes"):
                if thread.ident is not None:  # it is running already
                    signal.pthread_kill(thread.ident, signal.SIGUSR1)
        time.sleep(0.0005)

signal.signal(signal.SIGALRM, handle)
signal.signal(signal.SIGUSR1, handle)
with open_dagster_pipes(buffer_size=200_000) as pipes:
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    threading.Thread(target=interrupt_threads).start()
    say(pipes, 0, {COUNT})
    signal.setitimer(signal.ITIMER_REAL, 0)
tell(handled=handled)
"""

    def test_while_writing_to_a_file(self, launch: Launch) -> None:
        """A signal every millisecond, whose handler logs too."""
        done = launch.run(INTERACTIVE + JOB + self.STORM)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["handled"] > 10
        check_complete(launch.messages_path)

    def test_while_writing_to_a_pipe(self, launch: Launch, tmp_path: Path) -> None:
        """Its reader is slow, so writes block and are interrupted in their middle."""
        fifo, copy = tmp_path / "fifo", tmp_path / "copy"
        os.mkfifo(fifo)
        launch.messages_path.unlink()
        launch.messages_path.symlink_to(fifo)

        def read_slowly() -> None:
            with fifo.open("rb", buffering=0) as source, copy.open("wb", buffering=0) as target:
                while data := source.read(3000):
                    target.write(data)
                    time.sleep(0.0005)

        reader = threading.Thread(target=read_slowly)
        reader.start()
        done = launch.run(INTERACTIVE + JOB + self.STORM)
        reader.join()
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["handled"] > 100
        check_complete(copy)


def wait_until(is_so: Any, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_that_becomes_a_daemon(launch: Launch, tmp_path: Path) -> None:
    """It closes all descriptors: its next files get no messages, and Dagster gets all of them."""
    done = launch.run(
        f"""
        import os
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.log.info("before")
            pipes.flush()
            os.closerange(3, 256)
            tables = [open(f"{tmp_path}/{{number}}.csv", "w", buffering=1) for number in range(8)]
            pipes.log.info("after")
            pipes.flush()
            for table in tables:
                table.write("a,b\\n")
        for table in tables:
            table.write("1,2\\n")
            table.close()
        """
    )
    assert done.returncode == 0, done.stderr
    tables = [path.read_text() for path in tmp_path.glob("*.csv")]
    assert tables == ["a,b\n1,2\n"] * 8
    messages = [json.loads(line) for line in launch.messages_path.read_bytes().splitlines()]
    texts = [message["params"].get("message") for message in messages]
    assert [text for text in texts if text] == ["before", "after"]
    assert messages[-1]["method"] == "closed"


def test_a_stream_that_takes_nothing_at_the_close(launch: Launch) -> None:
    """Where messages are kept for the close, as on AWS Lambda, and that fails: a recovery file has them."""
    launch.env["DAGSTER_PIPES_MESSAGES"] = encode_param({"buffered_stdio": "stderr"})
    with Path("/dev/full").open("w") as full:
        result = launch.run(
            """
            import sys
            import dagsterpipes
            pipes = dagsterpipes.open_dagster_pipes()
            pipes.log.info("kept")
            try:
                pipes.close()
            except dagsterpipes.MessagesLostError as error:
                print(error.count, error.recovery_file, error.reason)
            """,
            stderr=full,
        )
    count, name, reason = result.stdout.split(maxsplit=2)
    path = Path(name)
    lines = path.read_bytes().splitlines()
    path.unlink()
    assert [json.loads(line)["method"] for line in lines] == ["opened", "log", "closed"]
    assert count == "3"
    assert reason.startswith("closing the channel failed: OSError: ")
