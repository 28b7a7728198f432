"""The table of rules."""

from __future__ import annotations

import pickle

import pytest

from dagsterpipes._reader.rules import EFFECTS, RULES, Refused, RuleBroken


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_says_what_breaking_it_does(rule: str) -> None:
    """Each rule asks for something in words and has an effect that is explained."""
    asked, effect = RULES[rule]
    assert asked
    assert Refused(rule, "detail").effect == effect
    assert EFFECTS[effect].startswith("Dagster")


def test_a_broken_rule_carries_its_refusal() -> None:
    """The exception inside the checks holds what is handed out, and can be copied."""
    broken = RuleBroken("json", "detail")
    assert broken.refused == Refused("json", "detail")
    assert pickle.loads(pickle.dumps(broken)).refused == broken.refused
