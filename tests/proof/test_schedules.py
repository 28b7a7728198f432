"""Schedules of threads, forks and a failing disk, from seeds and exhaustively."""

from __future__ import annotations

import pytest

from proof.histories import HISTORIES, TINY, History, Library, exhaust, explore

pytestmark = pytest.mark.timeout(3_600)

SCHEDULES = 100_000
"""Random ones of the short form; ten times as many with `make prove`."""

PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_random_schedules(length: float, part: int) -> None:
    """Whatever order the threads run in, whichever write fails: the referee finds nothing."""
    library = Library()
    schedules = int(SCHEDULES * (10 * length or 1))
    seeds = range(part, schedules, PARTS)
    runs = 0
    for found in explore(library, HISTORIES, seeds):
        assert found is None, str(found)
        runs += 1
    assert runs >= schedules // PARTS


@pytest.mark.parametrize("history", TINY, ids=lambda one: one.name)
def test_all_schedules_of_short_histories(length: float, history: History) -> None:
    """Every plan of one switch; with `make prove`, of two."""
    runs = 0
    for found in exhaust(Library(), history, 2 if length else 1):
        assert found is None, str(found)
        runs += 1
    assert runs > 1_000
