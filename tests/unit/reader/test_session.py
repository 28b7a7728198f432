"""Judging messages in their order; the agreement with Dagster is shown in the integration tests."""

from __future__ import annotations

from typing import Any

import pytest

from dagsterpipes._reader.rules import Refused
from dagsterpipes._reader.session import StreamRules

OPENED = {"method": "opened", "params": {"extras": {}}}
CLOSED = {"method": "closed", "params": {}}


def materialization(key: str) -> dict[str, Any]:
    return {"method": "report_asset_materialization", "params": {"asset_key": key}}


def check(key: str, name: str = "c") -> dict[str, Any]:
    return {"method": "report_asset_check", "params": {"asset_key": key, "check_name": name}}


def broken_by(rules: StreamRules, *messages: dict[str, Any]) -> list[Refused]:
    return [refused for message in messages for refused in rules.take(message)]


def test_a_good_session() -> None:
    """A session in order breaks nothing and is known to be opened and closed."""
    rules = StreamRules(["a", "b/c"])
    assert not rules.opened
    log = {"method": "log", "params": {"message": "m"}}
    messages = [OPENED, log, materialization("a"), materialization("b/c")]
    assert broken_by(rules, *messages, check("a"), check("a", "d")) == []
    assert rules.opened
    assert not rules.closed
    assert broken_by(rules, CLOSED) == []
    assert rules.closed
    assert rules.exception is None


def test_the_exception_of_the_first_closed_counts() -> None:
    """The exception is kept as it came, and a second `closed` does not replace it."""
    rules = StreamRules()
    exception = {"message": "m"}
    rules.take({"method": "closed", "params": {"exception": exception}})
    rules.take(CLOSED)
    assert rules.exception == exception


def test_closed_without_an_object() -> None:
    """A `closed` whose params are no object closes without an exception."""
    rules = StreamRules()
    assert rules.take({"method": "closed", "params": None}) == []
    assert rules.closed
    assert rules.exception is None


def test_after_closed() -> None:
    """Whatever follows `closed` breaks a rule, another `closed` too."""
    rules = StreamRules()
    assert broken_by(rules, CLOSED, CLOSED, OPENED) == [
        Refused("after-closed", "closed came after it"),
        Refused("after-closed", "opened came after it"),
    ]
    assert rules.take(OPENED)[0].effect == "may-be-lost"


@pytest.mark.parametrize("again", ["a/b", "a\\/b", "\\a/b", "a/b/"])
def test_second_materialization(again: str) -> None:
    """An asset may be materialized once, however its key is spelt."""
    rules = StreamRules()
    refused = broken_by(rules, materialization("a/b"), materialization(again))
    same = again != "a\\/b"
    assert [one.rule for one in refused] == ["second-materialization"] * same
    assert all(one.effect == "step-fails" for one in refused)


def test_second_check() -> None:
    """A check of an asset has one result; other checks and other assets have theirs."""
    rules = StreamRules()
    refused = broken_by(rules, check("a"), check("b"), check("a", "d"), check("a"))
    assert refused == [Refused("second-check", "'c' of 'a' was reported before")]


@pytest.mark.parametrize("report", [materialization, check])
def test_unknown_key(report: Any) -> None:
    """A key outside the step is refused, naming those of the step; spelling does not matter."""
    rules = StreamRules(["a", "b/c"])
    assert broken_by(rules, report("\\a"), report("b\\/c")) == [
        Refused("asset-key", "'b\\\\/c' is none of 'a, b/c'")
    ]


@pytest.mark.parametrize("keys", [None, []])
@pytest.mark.parametrize("report", [materialization, check])
def test_a_step_without_assets(keys: list[str] | None, report: Any) -> None:
    """Where the step has no keys of its own any key is good, but for an empty one."""
    rules = StreamRules(keys)
    assert broken_by(rules, report("x")) == []
    assert broken_by(rules, report("")) == [Refused("asset-key", "'' names no asset")]
