"""Ctrl-C wherever Python looks for signals, from the opening to the close."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proof.interrupted_sessions import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at descriptors in /proc"),
    pytest.mark.timeout(3_600),
]


@pytest.mark.parametrize("name", SESSIONS)
def test_an_interrupt_anywhere(prove: Callable[..., dict[str, Any]], name: str) -> None:
    """Nothing accepted is lost, `opened` is never without `closed`, nothing is left, nobody waits."""
    outcome = prove("interrupted_sessions.py", name, "1", "0")
    assert outcome["runs"] >= 300
