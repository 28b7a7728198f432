"""Progress of long work, as a log line now and then."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dagsterpipes.exceptions import DagsterPipesWarning

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator

T = TypeVar("T")

INTERVAL = 10.0
"""Seconds after which progress is reported, if there was any."""

STEPS = 10
"""How many reports the work is cut into, when its total is known."""


class PipesProgress:
    """Counts what is done, and says it at a bounded rate: every ``interval`` seconds and every tenth.

    Call it with the number that is done so far, as often as you like; it suits the callbacks of
    libraries that have their own bars. It never raises: where a line cannot be made or sent, there is
    one warning and no more progress.

    Threads: one at a time.

    Args:
        say: Takes the line.
        description: What is being done.
        total: How much there is to do, or None if that is not known.
        interval: Seconds between two lines, at most.
        clock: Seconds, from any beginning.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        description: str,
        total: float | None,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._say = say
        self._description = _text(description)
        self._total = _positive(total)
        self._interval = interval
        self._clock = clock
        self._began = clock()
        # When and at which number the next line is due.
        self.next_time = self._began + interval
        self.next_done = self._total / STEPS if self._total else float("inf")
        self._has_failed = False

    def __call__(self, done: float) -> None:
        """Report that ``done`` is done by now, if it is time for that."""
        try:
            now = self._clock()
            if now >= self.next_time or done >= self.next_done:
                self._report(float(done), now)
        except Exception as error:  # noqa: BLE001 because progress must not end the job
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.next_time = self.next_done = float("inf")
        if not self._has_failed:
            self._has_failed = True
            with suppress(DagsterPipesWarning):  # warnings are errors
                warnings.warn(
                    f"the progress of {self._description!r} is not shown any more:"
                    f" {type(error).__name__}: {_text(error)}",
                    DagsterPipesWarning,
                    stacklevel=4,
                )

    def _report(self, done: float, now: float) -> None:
        """Say a line, and set when the next one is due."""
        self.next_time = now + self._interval
        if self._total:
            tenths = int(done * STEPS / self._total) + 1
            # The last one belongs to finish().
            self.next_done = tenths * self._total / STEPS if tenths < STEPS else float("inf")
        rate = done / max(now - self._began, 1e-9)
        line = f"{self._description}: {_number(done)}"
        if self._total:
            left = max(self._total - done, 0) / rate if rate else float("inf")
            line += f" of {_number(self._total)} ({done / self._total:.0%}), {_rate(rate)}"
            line += f", {_duration(left)} left" if left != float("inf") else ""
        else:
            line += f" done, {_rate(rate)}"
        self._say(line)

    def finish(self, done: float, *, completely: bool) -> None:
        """Say the last line."""
        if self._has_failed:
            return
        took = self._clock() - self._began
        how = "done" if completely else "done when it stopped"
        try:
            self._say(
                f"{self._description}: {_number(done)} {how}, in {_duration(took)}"
                f" ({_rate(done / max(took, 1e-9))})"
            )
        except Exception as error:  # noqa: BLE001 because progress must not end the job
            self._give_up(error)


def bar(iterable: Iterable[T], description: str, total: float | None) -> Iterator[T]:
    """Yield what ``iterable`` yields, and show a bar of `rich` on the terminal.

    Raises:
        ImportError: `rich` is not installed.
    """
    from rich import progress  # noqa: PLC0415 because it is optional

    known = _positive(_length(iterable) if total is None else total)
    # An iterator, as rich would ask for the length again.
    return iter(progress.track(iter(iterable), _text(description), total=known))


def _length(iterable: object) -> int | None:
    """``len(iterable)``, or None where that does not work, as for a loader of streamed data."""
    try:
        return len(iterable)  # type: ignore[arg-type]  # because the error is the answer
    except Exception:  # noqa: BLE001 because a class may raise anything
        return None


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 because a class may raise anything
        return f"<{type(value).__name__} with a failing str()>"


def _positive(value: Any) -> float | None:
    """The total as a number, or None if it is not one to count up to."""
    try:
        total = float(value)
    except Exception:  # noqa: BLE001 because a class may raise anything
        return None
    return total if 0 < total < math.inf else None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@overload
def track(
    iterable: Iterable[T], start: Callable[[float | None], PipesProgress], total: float | None
) -> Iterator[T]: ...
@overload
def track(
    iterable: AsyncIterable[T], start: Callable[[float | None], PipesProgress], total: float | None
) -> AsyncIterator[T]: ...
def track(
    iterable: Any, start: Callable[[float | None], PipesProgress], total: float | None
) -> Any:
    """Yield what ``iterable`` yields, and report how far it got."""
    if total is None:
        total = _length(iterable)
    if hasattr(iterable, "__aiter__"):
        return _track_async(iterable, start(total))
    return _track(iterable, start(total))


def _track(iterable: Iterable[T], progress: PipesProgress) -> Iterator[T]:
    clock = monotonic
    done = 0
    completely = False
    try:
        for item in iterable:
            yield item
            done += 1
            if clock() >= progress.next_time or done >= progress.next_done:
                progress(done)
        completely = True
    finally:
        progress.finish(done, completely=completely)


async def _track_async(iterable: AsyncIterable[T], progress: PipesProgress) -> AsyncIterator[T]:
    clock = monotonic
    done = 0
    completely = False
    try:
        async for item in iterable:
            yield item
            done += 1
            if clock() >= progress.next_time or done >= progress.next_done:
                progress(done)
        completely = True
    finally:
        progress.finish(done, completely=completely)
