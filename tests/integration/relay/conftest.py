"""A relay over TCP whose driver's session only keeps the lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dagsterpipes import PipesContext
from dagsterpipes._relay import worker
from dagsterpipes._relay.relay import PipesRelay, open_relay
from support.relaying import KeepingSession

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    """End the sessions that this process, as a worker, keeps for the next task: other tests count threads."""
    yield
    while worker._sessions:
        worker._sessions.popitem()[1].retire()


@pytest.fixture
def session() -> Iterator[KeepingSession]:
    session = KeepingSession()
    yield session
    session.flowing.set()  # a test may leave a frame waiting


@pytest.fixture
def relay(session: KeepingSession) -> Iterator[PipesRelay[PipesContext]]:
    with open_relay("tcp://", session, PipesContext, None) as relay:
        yield relay
