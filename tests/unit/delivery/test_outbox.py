"""The outbox: order, bounds, wake-ups, and the one point at which it is sealed."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Any, Literal

import pytest

from dagsterpipes._delivery.outbox import FAST_PATH_LIMIT, Batch, Item, LogLine, Outbox

LIMIT = 1 << 30


class Wakes:
    """Counts how often the drain was woken."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def make(
    buffer_size: int = 1 << 20, on_full: Literal["wait", "drop_logs"] = "wait"
) -> tuple[Outbox, Wakes]:
    wakes = Wakes()
    return Outbox(list, buffer_size=buffer_size, on_full=on_full, wake=wakes), wakes


def say(outbox: Outbox, text: str) -> bool:
    """What a logger does."""
    outbox.items.append(text)
    if len(outbox.items) + 4 * len(text) > outbox.fast_path_limit:
        return outbox.after_append(text)
    return True


def last(dropped: int) -> list[bytes]:
    return [b"closed"]


def test_keeps_the_order_of_texts_and_lines() -> None:
    """Whichever way they were put, messages come out as they came in."""
    outbox, _ = make()
    say(outbox, "a")
    outbox.put(b"b")
    say(outbox, "c")
    outbox.put("d", urgent=False)
    assert outbox.take(LIMIT).items == ["a", b"b", "c", "d"]
    assert outbox.take(LIMIT).items == []


def test_wakes_an_idle_drain_once() -> None:
    """Only the first message after idling costs a wake-up."""
    outbox, wakes = make()
    say(outbox, "a")
    assert wakes.count == 1
    assert outbox.ready() == "some"
    for _ in range(100):
        say(outbox, "more")
    assert wakes.count == 1
    outbox.take(LIMIT)
    assert outbox.ready() == "idle"
    say(outbox, "again")
    assert wakes.count == 2


def test_a_report_does_not_wait_for_the_interval() -> None:
    """An urgent message makes the drain ready at once, and wakes it once."""
    outbox, wakes = make()
    say(outbox, "a")
    outbox.ready()
    outbox.put(b"report")
    outbox.put(b"report")
    assert wakes.count == 2
    assert outbox.ready() == "pressing"
    outbox.take(LIMIT)
    assert outbox.ready() == "idle"


def test_a_flood_does_not_wait_for_the_interval() -> None:
    """As many bytes as are worth a write make the drain ready at once."""
    outbox, _ = make(buffer_size=1 << 30)
    for _ in range(2 * FAST_PATH_LIMIT + 10):
        say(outbox, "x")
    assert outbox.ready() == "flood"


def test_takes_about_as_much_as_asked() -> None:
    """A batch ends with the message that reaches the limit; the rest follows, urgently."""
    outbox, _ = make(buffer_size=1 << 30)
    said = [f"{i}" for i in range(5 * FAST_PATH_LIMIT)]
    for text in said:
        say(outbox, text)
    first = outbox.take(200_000)
    assert 150_000 < first.size < 300_000
    assert FAST_PATH_LIMIT < len(first.items) < 3 * FAST_PATH_LIMIT
    assert outbox.ready() == "urgent"
    assert first.items + outbox.take(LIMIT).items == said


def test_a_flush_waits_for_what_was_sent_before_it() -> None:
    """It is done when that is released, not earlier, and does not wait for what comes later."""
    outbox, _ = make()
    say(outbox, "a")
    first = outbox.request_flush()
    say(outbox, "b")
    second = outbox.request_flush()
    assert first is not None
    assert second is not None
    assert outbox.ready() == "pressing"
    batch = outbox.take(1)
    assert (batch.items, outbox.is_flushed(first), batch.must_flush) == (["a"], False, True)
    outbox.release(batch.size, batch.end)
    assert (outbox.is_flushed(first), outbox.is_flushed(second)) == (True, False)
    assert not outbox.wait_flushed(second, 0.01)
    batch = outbox.take(1)
    outbox.release(batch.size)  # it is held back to be joined with later ones
    assert not outbox.is_flushed(second)
    outbox.release(0, outbox.take(1).end)
    assert outbox.wait_flushed(second, None)
    assert not outbox.take(1).must_flush


def test_a_flush_of_nothing_new_is_done_and_wakes_nobody() -> None:
    """What is delivered already costs no round trip."""
    outbox, wakes = make()
    say(outbox, "a")
    batch = outbox.take(LIMIT)
    outbox.release(batch.size, batch.end)
    outbox.ready()
    goal = outbox.request_flush()
    assert goal is not None
    assert outbox.is_flushed(goal)
    assert wakes.count == 1


def test_a_line_put_first_comes_before_what_was_sent_already() -> None:
    """``opened`` comes first, also if somebody logged while the session opened."""
    outbox, _ = make()
    say(outbox, "early")
    outbox.items.append("not yet counted")
    outbox.put_first(b"opened")
    assert outbox.take(LIMIT).items == [b"opened", "early", "not yet counted"]
    outbox.release(outbox._buffered)
    assert outbox._buffered == 0


def test_sealed_puts_the_last_line_last_and_refuses_what_follows() -> None:
    """After seal() nothing gets in, by any way, and what was refused is gone."""
    outbox, _ = make()
    say(outbox, "a")
    assert outbox.seal(last)
    assert not say(outbox, "b")
    assert not outbox.put(b"c")
    assert outbox.request_flush() is None
    assert not outbox.seal(last)
    assert not outbox.is_finished()
    assert outbox.take(LIMIT).items == ["a", b"closed"]
    assert outbox.is_finished()
    assert not outbox.items


def test_nothing_comes_behind_the_last_line() -> None:
    """What is appended after the seal is its producer's, who is refused, also if the drain is first."""
    outbox, _ = make()
    assert outbox.seal(last)
    outbox.items.append("late")
    assert outbox.is_above_high_water() is False
    assert outbox.take(LIMIT).items == [b"closed"]
    assert outbox.abandon() == []
    assert outbox.after_append("late") is False
    assert not outbox.items


def test_an_error_in_the_last_lines_leaves_it_open() -> None:
    """A seal that fails has not happened."""
    outbox, _ = make()

    def fail(dropped: int) -> list[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outbox.seal(fail)
    assert say(outbox, "a")


def big(letter: str) -> str:
    return letter * 30_000


def test_drops_logs_only_and_counts_them() -> None:
    """A full buffer that drops takes reports all the same, in order."""
    outbox, _ = make(buffer_size=100_000, on_full="drop_logs")
    for letter in "abcdef":
        outbox.put(big(letter), urgent=False)
        outbox.put(letter.encode())
    kept = [item for item in outbox.take(LIMIT).items if isinstance(item, str)]
    assert [text[0] for text in kept] == ["a", "b", "c", "d"]
    assert outbox.dropped == 2
    outbox.seal(lambda dropped: [b"dropped %d" % dropped])
    assert outbox.take(LIMIT).items == [b"dropped 2"]


def test_drops_lines_that_are_logs() -> None:
    """What was printed counts as logs, though it travels as lines."""
    outbox, _ = make(buffer_size=100_000, on_full="drop_logs")
    for letter in "abcdef":
        outbox.put(LogLine(big(letter).encode()), urgent=False)
        outbox.put(letter.encode())
    assert outbox.dropped == 2
    assert [item[:1] for item in outbox.take(LIMIT).items] == [b"%c" % one for one in b"aabbccddef"]


def test_dropping_is_no_licence_to_report_without_bounds() -> None:
    """Reports may take as much again as the buffer; then whoever reports waits, who logs does not."""
    outbox, _ = make(buffer_size=100_000, on_full="drop_logs")
    said: list[str] = []

    def report() -> None:
        for letter in "abcdefgh":
            outbox.put(big(letter).encode())
            said.append(letter)

    thread = threading.Thread(target=report)
    thread.start()
    while not outbox._progress._waiters:  # type: ignore[attr-defined] # because typeshed hides it
        pass
    assert said == list("abcdef")
    assert outbox.put(big("x"))
    assert outbox.dropped == 1
    outbox.release(outbox.take(LIMIT).size)
    thread.join(10)
    assert said == list("abcdefgh")


def test_a_full_buffer_does_not_wait_for_the_interval() -> None:
    """A drain that could make room is not idle."""
    outbox, _ = make(buffer_size=50_000)
    outbox.exempt_threads.add(threading.get_ident())
    outbox.put(big("x"), urgent=False)
    assert outbox.ready() == "some"
    outbox.put(big("y"), urgent=False)
    assert outbox.ready() == "pressing"


def test_a_batch_of_long_texts_is_split() -> None:
    """However many were counted at once: about as many bytes as asked, in order; room is exact."""
    outbox, _ = make(buffer_size=1 << 30)
    texts = [str(number % 10) * (number % 700) + str(number) for number in range(2000)]
    outbox.items.extend(texts[:-1])
    outbox.put(texts[-1])
    taken: list[Batch] = []
    while outbox.ready() == "urgent":
        taken.append(outbox.take(100_000))
        assert sum(map(sys.getsizeof, taken[-1].items)) < 250_000
    assert [text for one in taken for text in one.items] == texts
    assert len(taken) > 5
    outbox.release(sum(one.size for one in taken))
    assert outbox._buffered == 0


def test_a_message_larger_than_a_batch_is_taken_alone() -> None:
    """One at least, or nothing would ever be taken."""
    outbox, _ = make(buffer_size=1 << 30)
    for letter in "abc":
        outbox.put(big(letter))
    assert outbox.take(1).items == [big("a")]
    assert outbox.take(1).items == [big("b")]


def test_messages_that_were_not_counted_count_for_the_high_water_mark() -> None:
    """Whoever asks before each message is told in time, however short the messages are."""
    outbox, _ = make(buffer_size=1 << 18)
    outbox.fast_path_limit = FAST_PATH_LIMIT
    for _ in range(FAST_PATH_LIMIT):
        outbox.items.append("x" * 200)
        if outbox.is_above_high_water():
            break
    assert len(outbox.take(LIMIT).items) * 250 == pytest.approx(1 << 17, rel=0.1)


def test_a_full_buffer_makes_the_caller_wait_for_room() -> None:
    """The call that fills the buffer returns when half of it is free again."""
    outbox, _ = make(buffer_size=100_000)
    returned = threading.Event()

    def fill() -> None:
        for _ in range(4):
            outbox.put(big("x"), urgent=False)
        returned.set()

    thread = threading.Thread(target=fill)
    thread.start()
    items = 0
    while items < 4:
        items += len(outbox.take(LIMIT).items)
    assert not returned.wait(0.05)
    assert outbox.is_above_high_water()
    outbox.release(outbox._buffered)
    assert returned.wait(10)
    thread.join()
    assert not outbox.is_above_high_water()


def test_whoever_waits_for_room_is_let_go_at_the_seal() -> None:
    """Closing while a caller waits: its message was accepted, and it returns."""
    outbox, _ = make(buffer_size=100_000)
    results: list[bool] = []
    thread = threading.Thread(
        target=lambda: results.extend(outbox.put(big(letter)) for letter in "abcd")
    )
    thread.start()
    while not outbox._progress._waiters:  # type: ignore[attr-defined] # because typeshed hides it
        pass
    outbox.seal(last)
    thread.join(10)
    assert results == [True] * 4
    assert len(outbox.take(LIMIT).items) == 5


def test_the_threads_that_make_room_never_wait_for_it() -> None:
    """The delivery's own thread may log into a full buffer."""
    outbox, _ = make(buffer_size=100_000)
    outbox.exempt_threads.add(threading.get_ident())
    for letter in "abcdef":
        assert outbox.put(big(letter))
    assert len(outbox.take(LIMIT).items) == 6


def test_waiting_below_high_water_ends_when_half_is_free() -> None:
    """Room is announced to whoever waits for it."""
    outbox, _ = make(buffer_size=100_000)
    outbox.put(big("x"))
    outbox.put(big("y"))
    assert not outbox.wait_below_high_water(0.01)
    outbox.release(outbox.take(LIMIT).size)
    assert outbox.wait_below_high_water(0.01)


def test_a_message_said_in_the_middle_of_settling_is_kept() -> None:
    """A signal handler or finalizer that logs while its thread is inside the outbox."""
    outbox, _ = make()

    class Intruder:
        said = False

        def __call__(self) -> None:
            if not self.said:
                self.said = True
                say(outbox, "from the handler")

    outbox.wake_by(Intruder())
    say(outbox, "a")
    say(outbox, "b")
    assert outbox.take(LIMIT).items == ["a", "from the handler", "b"]


def test_an_interrupted_wake_is_done_again() -> None:
    """Ctrl-C while the drain is being woken does not leave it asleep for ever."""
    wakes = Wakes()

    def wake() -> None:
        wakes()
        if wakes.count == 1:
            raise KeyboardInterrupt

    outbox = Outbox(list, buffer_size=1 << 20, on_full="wait", wake=wake)
    assert outbox.ready() == "idle"
    with pytest.raises(KeyboardInterrupt):
        say(outbox, "interrupted")
    say(outbox, "next")
    assert wakes.count == 2
    assert outbox.take(LIMIT).items == ["interrupted", "next"]


def test_an_interrupted_packing_loses_nothing() -> None:
    """Ctrl-C while messages are packed: they are delivered as they were said, in their place."""
    calls: list[int] = []

    def pack(items: list[Item]) -> list[Item]:
        calls.append(len(items))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return items

    outbox = Outbox(pack, buffer_size=1 << 20, on_full="wait", wake=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        say(outbox, "interrupted")
    say(outbox, "next")
    assert outbox.take(LIMIT).items == ["interrupted", "next"]
    assert calls == [1, 2]


def test_forgets_the_parents_messages_in_a_child() -> None:
    """After a fork nothing of the parent's is delivered, also if its lock was held."""
    outbox, _ = make()
    say(outbox, "parent")
    thread = threading.Thread(target=outbox._lock.acquire)
    thread.start()
    thread.join()
    wakes = Wakes()
    outbox.after_fork_in_child(wakes)
    say(outbox, "child")
    assert wakes.count == 1
    assert outbox.take(LIMIT).items == ["child"]


@pytest.mark.parametrize("run", range(10))
def test_closing_under_fire(run: int) -> None:
    """Eight producers log as fast as they can while it is sealed: accepted means delivered, once."""
    outbox, _ = make(buffer_size=1 << 30)
    accepted: list[list[str]] = [[] for _ in range(8)]
    refused: Counter[int] = Counter()
    start = threading.Barrier(9)

    def produce(producer: int) -> None:
        mine = accepted[producer]
        start.wait()
        for i in range(1_000_000):
            text = f"{producer}:{i}"
            if not say(outbox, text):
                refused[producer] += 1
                return
            mine.append(text)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=produce, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        start.wait()
        delivered: list[Any] = []
        while len(delivered) < 2000 * (run + 1):
            delivered += outbox.take(1 << 16).items
            outbox.ready()
        outbox.seal(last)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    while not outbox.is_finished():
        delivered += outbox.take(1 << 16).items
    assert delivered[-1] == b"closed"
    assert sum(refused.values()) == 8
    assert not outbox.items
    for producer in range(8):
        mine = [text for text in delivered[:-1] if text.startswith(f"{producer}:")]
        assert mine == accepted[producer]


def test_the_seal_does_not_wait_for_ever() -> None:
    """Its caller may be what the owner of the lock waits for: a handler that closes."""
    outbox, _ = make()
    with outbox._lock:
        errors: list[BaseException] = []

        def seal() -> None:
            try:
                outbox.seal(last, 0.01)
            except TimeoutError as error:
                errors.append(error)

        thread = threading.Thread(target=seal)
        thread.start()
        thread.join(10)
        assert len(errors) == 1
    assert outbox.seal(last, 0.01)


def test_who_waits_for_room_presses() -> None:
    """A drain with a pace of its own must not let them wait for that."""
    outbox, _ = make(buffer_size=50_000)
    outbox.put(big("x"), urgent=False)
    assert outbox.ready() == "some"
    assert not outbox.wait_below_high_water(timeout=0)
    assert outbox.ready() == "pressing"


def test_messages_are_counted_as_delivered_in_few_steps() -> None:
    """Exact after a flush, and without a note for each message meanwhile."""
    outbox, _ = make()
    for number in range(1000):
        outbox.put(b"line %d" % number)
    assert outbox.statistics()[:3] == (1000, 0, 0)
    assert len(outbox._counts) <= 8
    half = outbox.take(30_000)
    outbox.release(half.size, half.end)
    delivered = outbox.statistics()[1]
    assert len(half.items) - 400 < delivered <= len(half.items)
    rest = outbox.take(LIMIT)
    outbox.release(rest.size, rest.end)
    assert outbox.statistics() == (1000, 1000, 0, 0)
