"""A loader and a writer that block until they are released, and the ways to cancel a call."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from dagsterpipes.loaders import PipesContextLoader, PipesDefaultContextLoader
from dagsterpipes.writers import (
    PipesDefaultMessageWriter,
    PipesMessageWriter,
    PipesMessageWriterChannel,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Gate:
    """Blocks threads until it is open."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        # A thread waits at it.
        self.reached = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        self.is_open.wait()

    def open_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self.is_open.set)
        timer.daemon = True
        timer.start()


class BlockingLoader(PipesContextLoader):
    """Loads the context as usual, once the gate is open."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @contextmanager
    def load_context(self, params: Any) -> Iterator[Any]:
        self.gate.wait()
        with PipesDefaultContextLoader().load_context(params) as data:
            yield data


class BlockingWriter(PipesMessageWriter["BlockingChannel"]):
    """Writes messages as usual, each once the gate is open."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @contextmanager
    def open(self, params: Any) -> Iterator[BlockingChannel]:
        with PipesDefaultMessageWriter().open(params) as file:
            yield BlockingChannel(self.gate, file)


class BlockingChannel(PipesMessageWriterChannel):
    def __init__(self, gate: Gate, file: PipesMessageWriterChannel) -> None:
        self.gate = gate
        self.file = file

    def write_message(self, message: Any) -> None:
        self.gate.wait()
        self.file.write_message(message)


CANCELLATIONS = {
    "asyncio": ["Task.cancel", "Task.cancel twice", "wait_for", "timeout", "scope"],
    "trio": ["scope"],
}
"""How a call can be cancelled under each loop."""


async def call_and_cancel(way: str, call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call and cancel it 0.1 s later; whether that came out of it."""
    if way.startswith("Task.cancel"):
        task = asyncio.ensure_future(call())
        for _ in way.split():  # one word, one cancel
            await asyncio.sleep(0.1)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False
    if way == "scope":
        with anyio.move_on_after(0.1) as scope:
            await call()
            await anyio.lowlevel.checkpoint()
        return scope.cancelled_caught
    try:
        if way == "wait_for" or sys.version_info < (3, 11):
            await asyncio.wait_for(call(), 0.1)
        else:
            async with asyncio.timeout(0.1):
                await call()
    except (TimeoutError, asyncio.TimeoutError):
        return True
    return False
