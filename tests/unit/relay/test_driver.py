"""The hub: each frame once, and one report for each asset and check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._protocol import messages
from dagsterpipes._relay.driver import Hub
from support.relaying import KeepingSession

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def session() -> KeepingSession:
    return KeepingSession()


@pytest.fixture
def hub(session: KeepingSession) -> Hub:
    return Hub(session)


def materialization(rows: int, key: str = "a") -> bytes:
    return messages.asset_materialization(asset_key=key, data_version=None, metadata={"rows": rows})


def check(passed: bool) -> bytes:
    return messages.asset_check(
        asset_key="a", check_name="c", passed=passed, severity="ERROR", metadata=None
    )


def test_a_frame_that_is_sent_again_counts_once(hub: Hub, session: KeepingSession) -> None:
    """Each worker has numbers of its own."""
    assert hub.accept(b"w", 1, b"one\n")
    assert hub.accept(b"w", 1, b"one\n")
    assert hub.accept(b"v", 1, b"other\n")
    assert hub.accept(b"w", 2, b"two\n")
    assert session.lines == b"one\nother\ntwo\n"


def test_a_closed_hub_refuses_what_is_new(hub: Hub, session: KeepingSession) -> None:
    """A frame whose acknowledgement was lost is acknowledged even then: it is delivered."""
    assert hub.accept(b"w", 1, b"one\n")
    hub.close()
    assert hub.accept(b"w", 1, b"one\n")
    assert not hub.accept(b"w", 2, b"two\n")
    assert session.lines == b"one\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(lambda: materialization(1), lambda: materialization(2), id="materialization"),
        pytest.param(lambda: check(True), lambda: check(False), id="check"),
    ],
)
def test_the_first_report_is_kept(
    hub: Hub, session: KeepingSession, one: Callable[[], bytes], other: Callable[[], bytes]
) -> None:
    """An identical one is ignored; a different one is ignored with a warning; the logs around stay."""
    text = messages.log("between", "INFO")
    assert hub.accept(b"w", 1, one())
    assert hub.accept(b"v", 1, text + one())
    assert session.lines == one() + text
    assert hub.accept(b"u", 1, text + other() + text)
    kept, _, before, warning, after = session.messages()
    assert kept["method"].startswith("report_asset_")
    assert before == after
    assert warning["params"]["level"] == "WARNING"
    assert (
        "was ignored, since a worker reported something else before" in warning["params"]["message"]
    )


def test_what_the_driver_reported_is_kept(hub: Hub, session: KeepingSession) -> None:
    session.scope.register_materialization("a")
    assert hub.accept(b"w", 1, materialization(1) + materialization(2, "b"))
    warning, other = session.messages()
    assert "since the driver reported it before" in warning["params"]["message"]
    assert other["params"]["asset_key"] == "b"


def test_what_a_worker_reported_the_driver_cannot(hub: Hub, session: KeepingSession) -> None:
    assert hub.accept(b"w", 1, materialization(1))
    with pytest.raises(Exception, match="already been materialized"):
        session.scope.register_materialization("a")


def test_a_payload_that_looks_like_a_report_is_none(hub: Hub, session: KeepingSession) -> None:
    """Nor is a text with such a line in it."""
    payload: Any = {"method": "report_asset_check", "params": {}}
    lines = messages.custom_message(payload) + messages.log(check(True).decode(), "INFO")
    assert hub.accept(b"w", 1, lines)
    assert hub.accept(b"w", 2, lines)
    assert session.lines == lines * 2
