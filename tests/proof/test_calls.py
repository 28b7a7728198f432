"""Every call of the delivery to the operating system fails in turn, with every outcome; kills too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proof.calls import OUTCOMES
from proof.small_sessions import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at descriptors in /proc"),
    pytest.mark.timeout(3_600),
]

STRIDE = 9
"""In the short form every so many-th run; which one changes from session to session."""


@pytest.mark.parametrize("name", SESSIONS)
def test_every_call_fails(prove: Callable[..., dict[str, Any]], length: float, name: str) -> None:
    """With each error, short, and for good: nothing is lost, torn, twice, late or left."""
    stride = 1 if length else STRIDE
    offset = list(SESSIONS).index(name) % stride
    outcome = prove("small_sessions.py", name, "errors", str(stride), str(offset))
    assert outcome["runs"] >= outcome["calls"] // stride
    # The calls that were chosen did fail.
    assert outcome["kinds"].get("", 0) <= outcome["runs"] // 2
    assert set(outcome["kinds"]) <= {*OUTCOMES, ""}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_kill_at_every_call(
    prove: Callable[..., dict[str, Any]], length: float, name: str
) -> None:
    """Before it and after it: what was flushed is there, every line is whole."""
    stride = 1 if length else STRIDE
    offset = list(SESSIONS).index(name) % stride
    outcome = prove("small_sessions.py", name, "kills", str(stride), str(offset))
    assert outcome["runs"] >= outcome["calls"] // stride
