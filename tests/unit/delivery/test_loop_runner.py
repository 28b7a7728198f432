"""The runner in an event loop."""

from __future__ import annotations

import threading

import pytest

from dagsterpipes._delivery.loop_runner import WriterThread


def nothing() -> None:
    pass


def test_makes_the_calls_in_order_in_one_daemon_thread() -> None:
    """Results and errors come by the futures; the initializer was called there before."""
    seen: list[threading.Thread] = []
    with WriterThread(lambda: seen.append(threading.current_thread()), nothing) as writer:
        numbers = [writer.submit(lambda number=number: number) for number in range(3)]
        failed = writer.submit(int, "x")
        thread = writer.submit(threading.current_thread).result()
        assert [number.result() for number in numbers] == [0, 1, 2]
        with pytest.raises(ValueError, match="'x'"):
            failed.result()
    assert seen == [thread]
    assert thread.daemon
    thread.join(10)
    assert not thread.is_alive()


def test_leaves_out_what_was_cancelled_before_its_turn() -> None:
    """A cancelled future's call is never made."""
    go_on = threading.Event()
    with WriterThread(nothing, nothing) as writer:
        first = writer.submit(go_on.wait)
        second = writer.submit(pytest.fail, "was called")
        assert second.cancel()
        go_on.set()
        assert first.result()
        assert writer.submit(lambda: 3).result() == 3


def test_shut_down_it_does_not_wait_for_a_call_that_is_stuck() -> None:
    """The call is left behind, and the thread ends whenever it does."""
    go_on = threading.Event()
    with WriterThread(nothing, nothing) as writer:
        stuck = writer.submit(go_on.wait)
    assert not stuck.done()
    go_on.set()
    assert stuck.result(10)
