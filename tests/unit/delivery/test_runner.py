"""How the session's thread runner where there is no event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import pytest

from dagsterpipes._delivery.runner import ThreadRunner


def until_woken(runner: ThreadRunner, delay: float | None) -> float:
    """Seconds that it waited."""
    begin = time.monotonic()
    runner.run(lambda: runner.wait(delay))
    return time.monotonic() - begin


def test_a_wake_ends_one_waiting() -> None:
    """Also the next, if nobody runner; but wakes do not add up."""
    runner = ThreadRunner()
    for _ in range(3):
        runner.wake()
    assert until_woken(runner, None) < 5
    assert until_woken(runner, 0.01) >= 0.009
    waker = threading.Timer(0.01, runner.wake)
    waker.start()
    assert until_woken(runner, 60) < 30


def test_a_wake_in_the_middle_of_a_wake_does_not_hang() -> None:
    """A signal handler that logs may come between any two steps of the call that it interrupts."""
    runner = ThreadRunner()

    def interrupt(frame: Any, event: str, argument: Any) -> None:
        del frame, event, argument
        runner.wake()

    def wake() -> None:
        sys.setprofile(interrupt)
        runner.wake()
        sys.setprofile(None)

    thread = threading.Thread(target=wake, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert until_woken(runner, None) < 5


def test_a_coroutine_that_suspends_is_refused() -> None:
    """There is no loop that would go on with it."""
    with pytest.raises(RuntimeError, match="event loop"):
        ThreadRunner().run(lambda: asyncio.sleep(0))
