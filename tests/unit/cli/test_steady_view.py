"""A view whose reader goes away."""

from __future__ import annotations

import pytest

from dagsterpipes.cli.events import Event, Notice, Summary
from dagsterpipes.cli.session_report import SessionReport
from dagsterpipes.cli.steady_view import SteadyView


class BreakingView:
    """A view that cannot write after so many calls."""

    def __init__(self, good_calls: int) -> None:
        self._left = good_calls
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if not self._left:
            raise BrokenPipeError
        self._left -= 1

    def show(self, event: Event) -> None:
        self._call("show")

    def tick(self, state: str, at: float, /) -> None:
        self._call("tick")

    def finish(self, summary: Summary) -> None:
        self._call("finish")


@pytest.mark.parametrize("good_calls", range(4))
def test_what_breaks_is_left_alone(good_calls: int) -> None:
    """The call that fails is the last one, says so once, and raises nothing."""
    broken: list[bool] = []
    view = BreakingView(good_calls)
    steady = SteadyView(view, lambda: broken.append(True))
    steady.show(Notice(None, "words"))
    steady.tick("state", 1.0)
    steady.finish(SessionReport().finish())
    steady.tick("state", 1.0)
    steady.finish(SessionReport().finish())
    steady.show(Notice(None, "words"))
    expected = ["show", "tick", "finish", "tick"]
    assert view.calls == expected[: good_calls + 1]
    assert broken == [True]
