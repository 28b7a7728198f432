"""Cancelled or interrupted while it waits: never half a session."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.launching import Launch

TESTS = Path(__file__).parents[2]
# Scripts find `support.blocking`.
HELPERS = {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
LOOPS = ["asyncio", "trio"]
PRELUDE = """
import os, signal, sys, threading, time, warnings
import anyio
from dagsterpipes import PipesContext, open_dagster_pipes
from support.blocking import CANCELLATIONS, Gate, BlockingLoader, BlockingWriter, call_and_cancel

warnings.simplefilter("ignore")
"""


def run(launch: Launch, script: str, loop: str = "asyncio", **options: Any) -> Any:
    """Run a script; for a script with a ``job(way)``, once for each way of cancelling."""
    if "def job" in script:
        script += (
            f"\nfor way in CANCELLATIONS[{loop!r}]:\n    anyio.run(job, way, backend={loop!r})\n"
        )
    done = launch.run(PRELUDE + script, env=HELPERS, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sessions(launch: Launch) -> list[list[tuple[str, Any]]]:
    """What each session sent, from ``opened`` to ``closed``."""
    found: list[list[tuple[str, Any]]] = []
    for method, params in launch.sent():
        if method == "opened":
            found.append([])
        found[-1].append((method, params))
    assert all(one[-1][0] == "closed" for one in found)
    return found


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_while_it_opens(tmp_path: Path, loop: str) -> None:
    """End state: closed, with the cancellation as the exception; no session is left."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
async def job(way):
    gate = Gate()
    gate.open_in(0.3)
    pipes = open_dagster_pipes(context_loader=BlockingLoader(gate))
    assert await call_and_cancel(way, pipes.__aenter__)
    assert gate.is_open.is_set()
    assert pipes.is_closed
    assert not PipesContext.is_initialized()
    assert "DAGSTERPIPES_SESSION" not in os.environ
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    async with open_dagster_pipes() as pipes:
        pipes.log.info("the next one works")
""",
        loop,
    )
    found = sessions(launch)
    assert len(found) > 1
    for cancelled_one, next_one in zip(found[::2], found[1::2], strict=True):
        assert [method for method, _ in cancelled_one] == ["opened", "closed"]
        assert cancelled_one[-1][1]["exception"]["name"] in ("CancelledError", "Cancelled")
        assert [method for method, _ in next_one] == ["opened", "log", "closed"]
        assert next_one[-1] == ("closed", {})


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_while_it_opens_for_ever(tmp_path: Path, loop: str) -> None:
    """End state: given up after close_timeout; nothing is written, and the next session works."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
async def job(way):
    gate = Gate()
    pipes = open_dagster_pipes(context_loader=BlockingLoader(gate), close_timeout=0.2)
    start = time.monotonic()
    assert await call_and_cancel(way, pipes.__aenter__)
    assert time.monotonic() - start < 5
    assert pipes.is_closed
    assert not PipesContext.is_initialized()
    async with open_dagster_pipes() as pipes:
        pipes.log.info("the next one works")
        gate.is_open.set()  # now it can open, but must not any more
""",
        loop,
    )
    for one in sessions(launch):
        assert [method for method, _ in one] == ["opened", "log", "closed"]


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_in_aflush(tmp_path: Path, loop: str) -> None:
    """End state: the waiting ended at once; the session is open and delivers everything."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
async def job(way):
    gate = Gate()
    gate.is_open.set()
    async with open_dagster_pipes(message_writer=BlockingWriter(gate)) as pipes:
        gate.is_open.clear()
        pipes.log.info("before")
        assert await call_and_cancel(way, pipes.aflush)
        assert not gate.is_open.is_set()
        pipes.log.info("after")
        gate.is_open.set()
        await pipes.aflush()
""",
        loop,
    )
    for one in sessions(launch):
        assert [params.get("message") for _, params in one] == [None, "before", "after", None]
        assert one[-1] == ("closed", {})


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_in_drain(tmp_path: Path, loop: str) -> None:
    """End state: the waiting ended at once; the session is open and delivers everything."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
async def job(way):
    gate = Gate()
    gate.is_open.set()
    async with open_dagster_pipes(message_writer=BlockingWriter(gate), buffer_size=1 << 16) as pipes:
        gate.is_open.clear()
        pipes.log.info("x" * 50_000)
        assert await call_and_cancel(way, pipes.drain)
        assert not gate.is_open.is_set()
        pipes.log.info("after")
        gate.is_open.set()
        await pipes.drain()
""",
        loop,
    )
    for one in sessions(launch):
        assert [len(params.get("message", "")) for _, params in one] == [0, 50_000, 5, 0]
        assert one[-1] == ("closed", {})


@pytest.mark.parametrize("call", ["pipes.aclose", "lambda: pipes.__aexit__(None, None, None)"])
@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_while_it_closes(tmp_path: Path, loop: str, call: str) -> None:
    """End state: closed, and everything delivered before the cancellation was raised."""
    launch = Launch(tmp_path)
    run(
        launch,
        f"""
async def job(way):
    gate = Gate()
    gate.is_open.set()
    async with open_dagster_pipes(message_writer=BlockingWriter(gate)) as pipes:
        gate.is_open.clear()
        pipes.log.info("before")
        gate.open_in(0.4)
        assert await call_and_cancel(way, {call})
        assert gate.is_open.is_set()
        assert pipes.is_closed
        assert b"closed" in open({str(launch.messages_path)!r}, "rb").read()[-100:]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
""",
        loop,
    )
    for one in sessions(launch):
        assert [method for method, _ in one] == ["opened", "log", "closed"]
        assert one[-1] == ("closed", {})


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_while_it_cannot_close(tmp_path: Path, loop: str) -> None:
    """End state: given up after close_timeout, with a recovery file; the cancellation is raised."""
    launch = Launch(tmp_path)
    output = run(
        launch,
        """
async def job(way):
    gate = Gate()
    gate.is_open.set()
    pipes = open_dagster_pipes(message_writer=BlockingWriter(gate), close_timeout=0.3)
    await pipes.__aenter__()
    await pipes.aflush()
    gate.is_open.clear()
    pipes.log.info(way)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            assert await call_and_cancel(way, pipes.aclose)
        except Exception as error:  # a scope has nothing to raise before
            assert way == "scope", way
            text = str(error)
        else:
            [text] = [str(one.message) for one in caught if "not delivered" in str(one.message)]
    print(text.rpartition("kept in ")[2].partition(",")[0])
    assert not PipesContext.is_initialized()
""",
        loop,
    )
    for path in output.splitlines():
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
        Path(path).unlink()
        assert [line["method"] for line in lines] == ["log", "closed"]


def test_exit_after_a_cancelled_aflush(tmp_path: Path) -> None:
    """End state: nobody waits for the abandoned call, the exit closes within close_timeout."""
    launch = Launch(tmp_path)
    done = launch.run(
        PRELUDE
        + """
async def main():
    gate = Gate()
    gate.is_open.set()
    pipes = open_dagster_pipes(message_writer=BlockingWriter(gate), close_timeout=0.3)
    await pipes.__aenter__()
    await pipes.aflush()
    gate.is_open.clear()
    pipes.log.info("stuck")
    assert await call_and_cancel("scope", pipes.aflush)

anyio.run(main)
""",
        env=HELPERS,
        timeout=20,
    )
    assert "MessagesLostError: 2 messages were not delivered" in done.stderr
    Path(done.stderr.rpartition("kept in ")[2].partition(",")[0]).unlink()


@pytest.mark.parametrize("how", ["plain", "asyncio", "trio"])
def test_a_failed_opening_leaves_nothing(tmp_path: Path, how: str) -> None:
    """No thread, handler, variable, diverted stream or message; and the next opening works."""
    launch = Launch(tmp_path)
    run(
        launch,
        f"""
import logging
from contextlib import contextmanager
from dagsterpipes import ChannelError, ContextError
from dagsterpipes.writers import PipesDefaultMessageWriter

class FailingLoader(BlockingLoader):
    @contextmanager
    def load_context(self, params):
        raise ContextError("no context")
        yield

class FailingWriter(BlockingWriter):
    @contextmanager
    def open(self, params):
        raise OSError("no channel")
        yield

class LateFailingWriter(PipesDefaultMessageWriter):
    def get_opened_extras(self):
        raise ValueError("no extras")

def state():
    files = [os.fstat(fd).st_ino for fd in (1, 2)]
    names = sorted(thread.name for thread in threading.enumerate() if thread.is_alive())
    return [
        files, names, dict(os.environ), signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT), logging.getLogger().handlers[:], logging.getLogger().level,
        PipesContext.is_initialized(), len(os.listdir("/proc/self/fd")),
    ]

FAILURES = [
    ("no context", dict(context_loader=FailingLoader(Gate()))),
    ("no channel", dict(message_writer=FailingWriter(Gate()))),
    ("no extras", dict(message_writer=LateFailingWriter())),
]

async def try_async():
    if {how!r} == "asyncio":
        import asyncio
        await asyncio.to_thread(int)  # so that its thread is there before
    for text, options in FAILURES:
        before = state()
        try:
            async with open_dagster_pipes(capture_stdio=True, capture_logging=True, **options):
                raise AssertionError
        except (ContextError, ChannelError) as error:
            assert text in str(error), error
        for _ in range(100):
            if state() == before:
                break
            await anyio.sleep(0.01)  # for threads to end
        assert state() == before, (state(), before)
    async with open_dagster_pipes() as pipes:
        pipes.log.info("works")

def try_plain():
    for text, options in FAILURES:
        before = state()
        try:
            with open_dagster_pipes(capture_stdio=True, capture_logging=True, **options):
                raise AssertionError
        except (ContextError, ChannelError) as error:
            assert text in str(error), error
        time.sleep(0.05)  # for threads to end
        assert state() == before, (state(), before)
    with open_dagster_pipes() as pipes:
        pipes.log.info("works")

if {how!r} == "plain":
    try_plain()
else:
    anyio.run(try_async, backend={how!r})
""",
    )
    assert [method for method, _ in launch.sent()] == ["opened", "log", "closed"]


@pytest.mark.parametrize(
    "opening", ["with open_dagster_pipes(**options): pass", "open_dagster_pipes(**options)"]
)
def test_interrupted_while_it_opens(tmp_path: Path, opening: str) -> None:
    """Ctrl-C in plain code: closed, with the interrupt as the exception; no session is left."""
    launch = Launch(tmp_path)
    run(
        launch,
        f"""
gate = Gate()
options = dict(context_loader=BlockingLoader(gate))

def interrupt():
    gate.reached.wait()
    time.sleep(0.2)  # until it waits: CPython overlooks a signal in the moment before
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    {opening}
except KeyboardInterrupt:
    print("interrupted")
assert not gate.is_open.is_set()  # the loader was interrupted, not waited for
assert not PipesContext.is_initialized()
assert "DAGSTERPIPES_SESSION" not in os.environ
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
with open_dagster_pipes() as pipes:
    pipes.log.info("the next one works")
""",
    )
    interrupted, next_one = sessions(launch)
    assert [method for method, _ in interrupted] == ["opened", "closed"]
    assert interrupted[-1][1]["exception"]["name"] == "KeyboardInterrupt"
    assert [method for method, _ in next_one] == ["opened", "log", "closed"]


def test_interrupted_while_it_opens_for_ever(tmp_path: Path) -> None:
    """Ctrl-C when the opening never ends: given up at once, and Dagster is told."""
    launch = Launch(tmp_path)
    run(
        launch,
        """
gate = Gate()

def interrupt():
    gate.reached.wait()
    time.sleep(0.2)  # until it waits: CPython overlooks a signal in the moment before
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    open_dagster_pipes(context_loader=BlockingLoader(gate), close_timeout=0.2)
except KeyboardInterrupt:
    gate.is_open.set()
with open_dagster_pipes() as pipes:
    pipes.log.info("the next one works")
""",
    )
    interrupted, next_one = sessions(launch)
    assert [method for method, _ in interrupted] == ["opened", "closed"]
    assert interrupted[-1][1]["exception"]["name"] == "KeyboardInterrupt"
    assert [method for method, _ in next_one] == ["opened", "log", "closed"]
