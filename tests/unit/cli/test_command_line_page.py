"""The reference page of the command line; its console blocks are run with those of the other pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagsterpipes._reader.rules import RULES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "command-line.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not here")


def test_every_rule_is_there() -> None:
    """Each rule has its row with what it asks for."""
    page = PAGE.read_text(encoding="utf-8")
    for rule, (asked, _) in RULES.items():
        assert f"| `{rule}` | {asked} | " in page
