"""Progress lines: when they come and what they say, with a clock that the test moves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from dagsterpipes._session import progress as module
from dagsterpipes._session.progress import Progress, track

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def starting(
    said: list[str], clock: Clock, name: str = "rows"
) -> Callable[[float | None], Progress]:
    return lambda total: Progress(said.append, name, total, clock=clock)


def test_says_a_line_every_tenth_of_a_known_total(clock: Clock) -> None:
    """Nine lines on the way and one at the end, whatever the number of items."""
    said: list[str] = []
    for _ in track(range(2000), starting(said, clock), None):
        clock.now += 0.001
    assert len(said) == 10
    assert said[0] == "rows: 200 of 2,000 (10%), 1,000/s, 1.8 s left"
    assert said[8] == "rows: 1,800 of 2,000 (90%), 1,000/s, 0.2 s left"
    assert said[9] == "rows: 2,000 done, in 2.0 s (1,000/s)"


def test_says_a_line_every_interval_when_it_is_slow(clock: Clock) -> None:
    """Long work with an unknown end is heard of every ten seconds."""
    said: list[str] = []
    for _ in track(iter(range(25)), starting(said, clock), None):
        clock.now += 1.0
    assert said == [
        "rows: 10 done, 1/s",
        "rows: 20 done, 1/s",
        "rows: 25 done, in 25 s (1/s)",
    ]


def test_says_how_far_it_got_when_it_stops(clock: Clock) -> None:
    """A break, or an exception, still gives a last line."""
    said: list[str] = []
    with pytest.raises(ZeroDivisionError):
        for item in track([1, 2, 3], starting(said, clock), None):
            if item == 3:
                1 / 0  # noqa: B018
    assert said[-1].startswith("rows: 2 done when it stopped")


async def test_takes_async_iterables(clock: Clock) -> None:
    """As for sync ones, with the total given."""

    async def items() -> AsyncIterator[int]:
        for i in range(4):
            clock.now += 6
            yield i

    said: list[str] = []
    got = [item async for item in track(items(), starting(said, clock), 4)]
    assert got == [0, 1, 2, 3]
    assert said[0] == "rows: 1 of 4 (25%), 0.17/s, 18 s left"
    assert said[-1] == "rows: 4 done, in 24 s (0.17/s)"


def test_long_times_are_readable(clock: Clock) -> None:
    """Hours and minutes rather than seconds."""
    said: list[str] = []
    progress = Progress(said.append, "files", 100, clock=clock)
    clock.now += 3600
    progress(10)
    clock.now += 61
    progress.finish(20.5, completely=False)
    assert said == [
        "files: 10 of 100 (10%), 0.0028/s, 9 h 0 min left",
        "files: 20.50 done when it stopped, in 1 h 1 min (0.0056/s)",
    ]


def test_an_empty_iterable_is_done_at_once(clock: Clock) -> None:
    """No division by nothing."""
    said: list[str] = []
    assert list(track([], starting(said, clock), None)) == []
    assert said == ["rows: 0 done, in 0.0 s (0/s)"]


@pytest.mark.timing
def test_costs_a_few_times_as_much_as_a_bare_generator() -> None:
    """Least of alternating rounds; a bare generator needs about 0.03 us an item, this 0.15."""

    def bare(items: range) -> Iterator[int]:
        yield from (item for item in items)

    costs: dict[str, list[float]] = {"bare": [], "tracked": []}
    for _ in range(9):
        for name, items in (
            ("bare", bare(range(20_000))),
            ("tracked", track(range(20_000), lambda total: Progress(len, "x", total), None)),
        ):
            begin = time.perf_counter()
            for _ in items:
                pass
            costs[name].append(time.perf_counter() - begin)
    assert min(costs["tracked"]) < 10 * min(costs["bare"])
