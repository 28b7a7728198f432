"""Names of parametrised cases that say what the value is."""

from __future__ import annotations

from typing import Any

from dagsterpipes.exceptions import shorten


def pytest_make_parametrize_id(val: Any) -> str:
    """A value as one would write it, cut short; its name or type where that holds an address."""
    if isinstance(val, str):
        return val[:40].encode("unicode_escape").decode()
    text = shorten(val, 1_000)
    if " at 0x" in text or "failing repr" in text or isinstance(val, (set, frozenset)):
        return getattr(val, "__name__", type(val).__name__)
    return text[:40].encode("unicode_escape").decode()
