"""The drain's decisions, with a clock that only the test moves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from dagsterpipes._delivery.drain import FIRST_RETRY, LAST_RETRY, OVER, Drain
from dagsterpipes._delivery.outbox import Outbox

if TYPE_CHECKING:
    from dagsterpipes._delivery.outbox import Item

INTERVAL = 0.5


class ListChannel:
    """Keeps what it is given; fails as often as it is told, keeping that as unwritten."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.failures = 0
        self.kept = b""

    def write(self, lines: bytes) -> None:
        self.kept += lines
        if self.failures:
            self.failures -= 1
            raise OSError("no space")
        self.written.append(self.kept)
        self.kept = b""

    def unwritten(self) -> bytes:
        return self.kept

    def close(self) -> None:
        raise AssertionError("the drain does not close channels")

    def after_fork_in_child(self) -> None:
        raise AssertionError("nor open them")


class JoinRenderer:
    """One line a message; holds back lines that begin with 'hold' until its time."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.held = b""

    def render(self, items: list[Item], now: float, *, everything: bool) -> bytes:
        for item in items:
            self.held += (item if isinstance(item, bytes) else str(item).encode()) + b"\n"
        if not everything and items and str(items[-1]).startswith("hold"):
            self.due = self.due or now + 10
        if everything or (self.due is not None and now >= self.due):
            self.due = None
        if self.due is not None:
            return b""
        lines, self.held = self.held, b""
        return lines


class Stage:
    """A drain with its surroundings, and the runner's loop without its waiting."""

    def __init__(self) -> None:
        self.now = 100.0
        self.channel = ListChannel()
        self.outbox = Outbox(list, buffer_size=1 << 20, on_full="wait", wake=lambda: None)
        self.drain = Drain(self.outbox, self.channel, JoinRenderer(), flush_interval=INTERVAL)

    def say(self, text: str) -> None:
        self.outbox.items.append(text)
        if len(self.outbox.items) > self.outbox.fast_path_limit:
            self.outbox.after_append(text)

    def run(self) -> float | None:
        """Write until there is something to wait for; return for how long."""
        while (delay := self.drain.delay(self.now)) != OVER:
            if delay != 0:
                return delay
            try:
                lines = self.drain.next_lines(self.now)
                assert lines is not None
                self.channel.write(lines)
            except OSError as error:
                self.drain.failed(error, self.now)
            else:
                self.drain.written()
        return 0.0


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_writes_the_first_line_at_once_and_then_waits_to_be_woken(stage: Stage) -> None:
    """An idle session has no latency but the wake-up; it is idle after an interval of silence."""
    stage.say("a")
    assert stage.run() == pytest.approx(INTERVAL)
    assert stage.channel.written == [b"a\n"]
    stage.now += INTERVAL
    assert stage.run() is None
    assert stage.channel.written == [b"a\n"]


def test_gathers_lines_for_an_interval(stage: Stage) -> None:
    """Lines within an interval after a write go out together, at its end."""
    stage.say("a")
    stage.run()
    stage.say("b")
    stage.now += 0.1
    assert stage.run() == pytest.approx(INTERVAL - 0.1)
    stage.say("c")
    stage.now += INTERVAL - 0.1
    assert stage.run() == pytest.approx(INTERVAL)
    assert stage.channel.written == [b"a\n", b"b\nc\n"]


def test_makes_up_for_a_turn_that_came_late(stage: Stage) -> None:
    """Busy threads that hold the drain up do not make lines older and older; silence does not count."""
    stage.say("a")
    stage.run()
    stage.say("b")
    stage.now += INTERVAL + 0.2
    assert stage.run() == pytest.approx(INTERVAL - 0.2)
    stage.say("c")
    stage.now += 3 * INTERVAL
    assert stage.run() is None
    stage.now += 3 * INTERVAL
    stage.say("d")
    assert stage.run() == pytest.approx(INTERVAL)
    assert stage.channel.written == [b"a\n", b"b\n", b"c\n", b"d\n"]


def test_does_not_wait_with_a_report(stage: Stage) -> None:
    """An urgent message takes along what was said before it."""
    stage.say("a")
    stage.run()
    stage.say("b")
    stage.outbox.put(b"report")
    assert stage.run() == pytest.approx(INTERVAL)
    assert stage.channel.written == [b"a\n", b"b\nreport\n"]


def test_a_flush_is_done_when_the_batch_is_written(stage: Stage) -> None:
    """Not when it was taken: it waits for a failed write."""
    stage.say("a")
    goal = stage.outbox.request_flush()
    assert goal is not None
    stage.channel.failures = 1
    stage.run()
    assert not stage.outbox.is_flushed(goal)
    stage.now += FIRST_RETRY
    stage.run()
    assert stage.outbox.is_flushed(goal)


def test_a_flush_waits_for_what_is_held_back_already(stage: Stage) -> None:
    """Text that waits in the renderer to be joined is not with the channel, though it was taken."""
    stage.say("hold 1")
    stage.run()
    assert stage.channel.written == [b""]
    goal = stage.outbox.request_flush()
    assert goal is not None
    assert not stage.outbox.is_flushed(goal)
    stage.run()
    assert stage.outbox.is_flushed(goal)
    assert b"".join(stage.channel.written) == b"hold 1\n"


def test_retries_a_failed_write_with_a_growing_delay(stage: Stage) -> None:
    """The channel keeps what it could not write; nothing new is given to it until that is written."""
    stage.channel.failures = 8
    stage.say("a")
    delays = []
    while stage.channel.failures:
        delay = stage.run()
        assert delay is not None
        delays.append(delay)
        stage.say("more")
        stage.now += delay
    assert delays == pytest.approx(
        [min(FIRST_RETRY * 2**i, LAST_RETRY) for i in range(len(delays))]
    )
    assert stage.channel.kept == b"a\n"
    stage.run()
    stage.now += INTERVAL
    stage.run()
    assert stage.channel.written == [b"a\n", b"more\n" * len(delays)]
    stage.channel.failures = 1
    stage.now += INTERVAL
    stage.say("b")
    assert stage.run() == pytest.approx(FIRST_RETRY)


def test_writes_what_was_held_back_when_it_is_due(stage: Stage) -> None:
    """A renderer that joins lines is asked again at its time, even if nobody says anything."""
    stage.say("hold 1")
    stage.run()
    stage.now += INTERVAL
    assert stage.run() == pytest.approx(10 - INTERVAL)
    assert not b"".join(stage.channel.written)
    stage.now += 10 - INTERVAL
    stage.run()
    assert b"".join(stage.channel.written) == b"hold 1\n"


def test_holds_nothing_back_from_a_flush_or_the_end(stage: Stage) -> None:
    """Both ask for everything."""
    stage.say("hold 1")
    goal = stage.outbox.request_flush()
    stage.run()
    assert goal is not None
    assert stage.outbox.is_flushed(goal)
    assert b"".join(stage.channel.written) == b"hold 1\n"
    stage.say("hold 2")
    stage.outbox.seal(lambda _: [b"closed"])
    stage.run()
    assert stage.drain.is_finished()
    assert b"".join(stage.channel.written) == b"hold 1\nhold 2\nclosed\n"


def test_is_finished_only_when_the_last_line_is_written(stage: Stage) -> None:
    """Sealed and taken is not enough."""
    stage.channel.failures = 1
    stage.outbox.seal(lambda _: [b"closed"])
    stage.run()
    assert not stage.drain.is_finished()
    stage.now += FIRST_RETRY
    stage.run()
    assert stage.drain.is_finished()


def test_abandoned_it_gives_back_every_line_that_is_not_written(stage: Stage) -> None:
    """What the channel kept, then what was waiting, in order; nobody waits for a flush."""
    stage.channel.failures = 1
    stage.say("a")
    stage.run()
    stage.say("b")
    goal = stage.outbox.request_flush()
    stage.outbox.seal(lambda _: [b"closed"])
    assert stage.drain.abandon() == b"a\nb\nclosed\n"
    assert goal is not None
    assert stage.outbox.wait_flushed(goal, None)
    assert not stage.outbox.is_flushed(goal)
    assert stage.drain.is_finished()
    assert stage.outbox.take(1).items == []


def test_abandoned_before_the_channel_looked_it_gives_back_the_batch(stage: Stage) -> None:
    """A batch between the drain and the channel is in nobody's hands: it is not lost."""
    stage.say("a")
    stage.drain.next_lines(stage.now)
    assert stage.drain.abandon() == b"a\n"


def test_a_write_that_is_going_on_gets_a_moment_to_end_when_the_rest_is_given_up(
    stage: Stage,
) -> None:
    """Then what it wrote is not given back, and nothing more is handed to the channel."""
    stage.say("a")
    stage.drain.next_lines(stage.now)
    stage.say("b")
    given_back: list[bytes] = []
    closer = threading.Thread(target=lambda: given_back.append(stage.drain.abandon()))
    closer.start()
    while not stage.drain.is_abandoned:
        pass
    stage.drain.written()
    closer.join(10)
    assert given_back == [b"b\n"]
    assert stage.drain.next_lines(stage.now) is None


def test_begins_anew_with_the_delays_when_a_write_got_on(stage: Stage) -> None:
    """A channel that takes a line now and then is not one that takes nothing."""
    stage.channel.failures = 3
    stage.say("a")
    assert stage.run() == pytest.approx(FIRST_RETRY)
    stage.now += FIRST_RETRY
    assert stage.run() == pytest.approx(2 * FIRST_RETRY)
    stage.channel.kept = stage.channel.kept[1:]
    stage.now += 2 * FIRST_RETRY
    assert stage.run() == pytest.approx(FIRST_RETRY)
    stage.now += FIRST_RETRY
    stage.run()
    assert stage.drain.error is None


def test_tries_again_at_once_when_it_is_asked_to(stage: Stage) -> None:
    """As at the close, which may be all the time that is left."""
    stage.channel.failures = 3
    stage.say("a")
    stage.run()
    stage.now += FIRST_RETRY
    assert stage.run() == pytest.approx(2 * FIRST_RETRY)
    stage.drain.retry_soon()
    assert stage.drain.delay(stage.now) == 0
    assert stage.run() == pytest.approx(FIRST_RETRY)


def test_gives_back_the_room_of_what_is_written(stage: Stage) -> None:
    """A batch counts as buffered until the channel has it."""
    stage.channel.failures = 1
    stage.outbox.put(b"x" * 1000)
    stage.run()
    assert stage.outbox._buffered > 1000
    stage.now += FIRST_RETRY
    stage.run()
    assert stage.outbox._buffered == 0
