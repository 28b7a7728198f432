"""How many lines a reader can take."""

from __future__ import annotations

from dagsterpipes.cli.line_budget import LineBudget


def test_so_many_lines_pass_in_a_second() -> None:
    """The lines over the rate are counted until somebody asks, and the next second is fresh."""
    budget = LineBudget(3)
    assert [budget.take(10.0 + i / 10) for i in range(5)] == [True, True, True, False, False]
    assert budget.take_skipped() == 2
    assert budget.take_skipped() == 0
    assert not budget.take(10.9)
    assert budget.take(11.0)
    assert budget.take_skipped() == 1


def test_no_bound() -> None:
    """A rate of 0 lets everything pass."""
    budget = LineBudget(0)
    assert all(budget.take(0.0) for _ in range(1000))
    assert budget.take_skipped() == 0
