"""Progress lines: when they come and what they say, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import time
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import NullPipesContext
from dagsterpipes._session import null
from dagsterpipes._session import progress as module
from dagsterpipes._session.progress import PipesProgress, track
from dagsterpipes.exceptions import DagsterPipesWarning, SessionClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator


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
) -> Callable[[float | None], PipesProgress]:
    return lambda total: PipesProgress(said.append, name, total, clock=clock)


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
    progress = PipesProgress(said.append, "files", 100, clock=clock)
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
            ("tracked", track(range(20_000), lambda total: PipesProgress(len, "x", total), None)),
        ):
            begin = time.perf_counter()
            for _ in items:
                pass
            costs[name].append(time.perf_counter() - begin)
    assert min(costs["tracked"]) < 10 * min(costs["bare"])


# -- nothing about progress may stop a job -------------------------------------------------------


class Streamed:
    """As a data loader that streams: it has a length, and does not know it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        raise self.error

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __format__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize("error", [TypeError("no length"), NotImplementedError(), OSError("gone")])
def test_an_iterable_whose_length_raises_is_tracked(error: Exception) -> None:
    lines: list[str] = []
    tracked = track(Streamed(error), lambda total: PipesProgress(lines.append, "rows", total), None)
    assert list(tracked) == [0, 1, 2]
    assert lines[0].startswith("rows: 3 done, in")


def test_an_async_iterable_whose_length_raises_is_tracked() -> None:
    class Source(Streamed):
        def __aiter__(self) -> AsyncIterator[int]:
            async def items() -> AsyncIterator[int]:
                yield 1

            return items()

    async def main() -> list[int]:
        source: AsyncIterable[int] = Source(ValueError())
        tracked = track(source, lambda total: PipesProgress(print, "rows", total), None)
        return [item async for item in tracked]

    assert asyncio.run(main()) == [1]


@pytest.mark.parametrize(
    "total",
    ["many", float("nan"), float("inf"), -1, 0, None, [], object(), Decimal(3), "3", 10**400],
)
@pytest.mark.parametrize("description", [None, 5, b"rows", Unspeakable(), "{x} %s"])
def test_any_description_and_total(total: Any, description: Any) -> None:
    """What cannot be counted up to is no total; what has no text is named by its type."""
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        progress = PipesProgress(lines.append, description, total, interval=0)
        for item in track([1, 2, 3], lambda _: progress, total):
            progress(item)
    assert len(lines) >= 2


@pytest.mark.parametrize("done", [None, "3", object(), float("nan"), float("inf"), 1 + 2j])
def test_a_number_that_is_none_ends_the_progress_and_not_the_job(done: Any) -> None:
    """With one warning, however often it is called."""
    lines: list[str] = []
    progress = PipesProgress(lines.append, "rows", 10, interval=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            progress(done)
            progress(5)
        progress.finish(10, completely=True)
    assert len(caught) <= 1
    assert all(one.category is DagsterPipesWarning for one in caught)


def test_a_line_that_cannot_be_sent_ends_the_progress_and_not_the_job() -> None:
    """As after the session was closed; also where warnings are errors."""

    def say(line: str) -> None:
        raise SessionClosedError("closed")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracked = track(range(3), lambda total: PipesProgress(say, "rows", total, interval=0), None)
        assert list(tracked) == [0, 1, 2]
    progress = PipesProgress(say, "rows", 3, interval=0)
    with pytest.warns(DagsterPipesWarning, match="'rows' is not shown any more: SessionClosed"):
        progress(2)


def test_the_jobs_own_error_is_not_hidden_by_the_last_line() -> None:
    """It fails to be sent while the error is on its way."""

    def say(line: str) -> None:
        raise SessionClosedError("closed")

    def rows() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ZeroDivisionError) as caught:
            list(track(rows(), lambda total: PipesProgress(say, "rows", total), None))
    assert caught.value.__context__ is None


def test_a_bar_of_rich_for_an_iterable_whose_length_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside Dagster, on a terminal."""
    monkeypatch.setattr(null, "_is_terminal", lambda: True)
    assert list(NullPipesContext().track(Streamed(OSError("gone")))) == [0, 1, 2]
    assert capsys.readouterr().out
