"""The mailbox: bounded, and nothing in it is lost before the driver has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dagsterpipes._relay.driver import Hub
from dagsterpipes._relay.links import mailbox as module
from dagsterpipes._relay.links.mailbox import Fetcher, Frame, Mailbox
from support.relaying import KeepingSession

if TYPE_CHECKING:
    import pytest


async def test_what_was_fetched_stays_until_the_driver_has_it() -> None:
    """An answer that was lost is given again."""
    mailbox = Mailbox()
    assert await mailbox.put(b"w", 1, b"one\n")
    assert await mailbox.take(0) == (0, [(b"w", 1, b"one\n")])
    assert await mailbox.put(b"w", 2, b"two\n")
    assert await mailbox.take(0) == (0, [(b"w", 1, b"one\n"), (b"w", 2, b"two\n")])
    assert await mailbox.take(1) == (1, [(b"w", 2, b"two\n")])


async def test_putting_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the driver has taken something."""
    monkeypatch.setattr(module, "CAPACITY", 4)
    mailbox = Mailbox()
    assert await mailbox.put(b"w", 1, b"one\n")
    waiting = asyncio.ensure_future(mailbox.put(b"w", 2, b"two\n"))
    await asyncio.sleep(0)  # lets it begin to wait
    await asyncio.sleep(0)  # and once more, for its lock
    assert not waiting.done()
    assert await mailbox.take(1) in ((1, []), (1, [(b"w", 2, b"two\n")]))
    assert await waiting


async def test_after_the_close_nothing_new_is_held() -> None:
    """What is there can be fetched; who waits is told; an answer that was lost is given again."""
    mailbox = Mailbox()
    assert await mailbox.put(b"w", 1, b"one\n")
    await mailbox.close()
    assert not await mailbox.put(b"w", 2, b"two\n")
    assert await mailbox.put(b"w", 1, b"one\n")
    assert await mailbox.take(0) == (0, [(b"w", 1, b"one\n")])
    assert await mailbox.take(1) == (1, [])


def test_the_fetcher_takes_each_frame_once() -> None:
    """Also where an answer comes twice, or a request fails; the close takes what is left."""
    session = KeepingSession()
    answers: list[tuple[int, list[Frame]] | Exception] = [
        (0, [(b"w", 1, b"1\n")]),
        OSError("cut"),
        (0, [(b"w", 1, b"1\n"), (b"w", 2, b"2\n")]),
    ]
    closed = asyncio.Event()
    last = (2, [(b"w", 3, b"3\n")])

    def take(first: int) -> tuple[int, list[Frame]]:
        if answers:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return last if closed.is_set() and first < 3 else (first, [])

    fetcher = Fetcher(Hub(session), take, closed.set)
    fetcher.close(5)
    assert session.lines == b"1\n2\n3\n"
