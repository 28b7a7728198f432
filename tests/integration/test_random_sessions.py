"""Random sessions through the public API, read by Dagster's own handler of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.random_sessions import RandomSessions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning")


def test_no_call_puts_a_message_on_the_wire_that_dagster_cannot_take(tmp_path: Path) -> None:
    """Of 5,740 random calls none kills the reader, and none raises an error that is not ours."""
    figures = RandomSessions(tmp_path, sessions=140, calls=40).ours()
    assert figures.calls == 140 * 41
    assert not figures.fatal
    assert not figures.foreign
    # Both ways are gone often enough to mean something.
    assert figures.refused > 1_000
    assert figures.messages > 3_000


def test_the_trial_finds_what_kills_the_reader(tmp_path: Path) -> None:
    """The same calls of `dagster_pipes`: so many would not do that the test above can fail."""
    figures = RandomSessions(tmp_path, sessions=20, calls=40).theirs()
    assert figures.fatal.total() > 20
    assert figures.foreign.total() > 50
    assert figures.dead > 10
    assert figures.unread > 50
