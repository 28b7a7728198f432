"""Channels that take one message at a time, and raise what they like."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._delivery.channels.callback import AsyncMessageChannel, MessageChannel

if TYPE_CHECKING:
    from dagsterpipes._delivery.channels import Channel


def lines(*numbers: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % number for number in numbers)


class Recorder:
    """A user's channel that fails at some messages."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.failures: dict[int, BaseException] = {}

    def write_message(self, message: Any) -> None:
        failure = self.failures.pop(message["n"], None)
        if failure is not None:
            raise failure
        self.taken.append(message["n"])

    async def write_message_later(self, message: Any) -> None:
        await asyncio.sleep(0)  # lets others run, as a real one would
        self.write_message(message)


def test_they_are_channels() -> None:
    """A type checker takes them for some; closing does nothing."""
    recorder = Recorder()
    channel: Channel = MessageChannel(recorder.write_message)
    channel.close()
    later: Channel = AsyncMessageChannel(recorder.write_message_later)
    later.close()


def test_messages_arrive_as_what_they_were() -> None:
    """Equal to what was encoded, each one an object of its own."""
    taken: list[Any] = []
    channel = MessageChannel(taken.append)
    text = 'a "quoted" \n line, \ud800, ä\u2028'
    messages = [{"text": text}, {"number": 10**30, "not a number": float("-inf")}, {"text": text}]
    channel.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    assert taken == messages
    assert taken[0] is not taken[2]


@pytest.mark.parametrize("failure", [ConnectionError("gone"), KeyboardInterrupt()])
def test_what_a_user_may_raise_is_raised(failure: BaseException) -> None:
    """What was taken is not tried again, the rest is, in order."""
    recorder = Recorder()
    recorder.failures[2] = failure
    channel = MessageChannel(recorder.write_message)
    with pytest.raises(type(failure)) as caught:
        channel.write(lines(0, 1, 2, 3))
    assert caught.value is failure
    assert recorder.taken == [0, 1]
    assert channel.unwritten() == lines(2, 3)
    channel.write(lines(4))
    assert recorder.taken == [0, 1, 2, 3, 4]
    assert channel.unwritten() == b""


def test_other_errors_are_causes() -> None:
    """So that the drain knows one kind; the text says whose it was."""
    recorder = Recorder()
    recorder.failures[1] = failure = KeyError("token")
    channel = MessageChannel(recorder.write_message)
    with pytest.raises(OSError, match=r"^Recorder.write_message\(\) raised KeyError: 'token'$") as (
        caught
    ):
        channel.write(lines(0, 1))
    assert caught.value.__cause__ is failure
    assert channel.unwritten() == lines(1)


def test_a_plain_function_has_no_name_of_a_class() -> None:
    """The text says what is known."""

    def fail(_: Any) -> None:
        raise ValueError("no")

    with pytest.raises(OSError, match=r"^write_message\(\) raised ValueError: no$"):
        MessageChannel(fail).write(lines(0))


def test_a_coroutine_that_nobody_awaits_is_an_error() -> None:
    """A message is never taken for sent by mistake."""
    recorder = Recorder()
    channel = MessageChannel(recorder.write_message_later)
    with pytest.raises(OSError, match="it returned a coroutine, but is not an `async def`"):
        channel.write(lines(0))
    assert channel.unwritten() == lines(0)


def test_a_forked_child_forgets() -> None:
    """The lines are its parent's."""
    recorder = Recorder()
    recorder.failures[0] = OSError()
    channel = MessageChannel(recorder.write_message)
    with pytest.raises(OSError):
        channel.write(lines(0))
    channel.after_fork_in_child()
    channel.write(lines(1))
    assert recorder.taken == [1]


class TestAsync:
    """The same, awaited."""

    async def test_messages_arrive_in_order(self) -> None:
        """One after the other."""
        recorder = Recorder()
        channel = AsyncMessageChannel(recorder.write_message_later)
        await channel.awrite(lines(0, 1))
        await channel.awrite(lines(2))
        assert recorder.taken == [0, 1, 2]
        assert channel.unwritten() == b""

    @pytest.mark.parametrize("failure", [ConnectionError("gone"), KeyError("token")])
    async def test_what_fails_is_tried_again(self, failure: Exception) -> None:
        """From the message that failed on."""
        recorder = Recorder()
        recorder.failures[1] = failure
        channel = AsyncMessageChannel(recorder.write_message_later)
        with pytest.raises(OSError) as caught:
            await channel.awrite(lines(0, 1, 2))
        assert failure in (caught.value, caught.value.__cause__)
        assert channel.unwritten() == lines(1, 2)
        await channel.awrite(b"")
        assert recorder.taken == [0, 1, 2]

    async def test_cancelled_while_sending(self) -> None:
        """End state: the message being sent and those behind it are unwritten."""
        recorder = Recorder()
        entered = asyncio.Event()

        async def hang(message: Any) -> None:
            if message["n"] == 1:
                entered.set()
                await asyncio.Event().wait()
            recorder.write_message(message)

        channel = AsyncMessageChannel(hang)
        task = asyncio.create_task(channel.awrite(lines(0, 1, 2)))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert recorder.taken == [0]
        assert channel.unwritten() == lines(1, 2)

    def test_without_a_loop(self) -> None:
        """A thread that has none, as in a forked child, gets one for the time."""
        recorder = Recorder()
        AsyncMessageChannel(recorder.write_message_later).write(lines(0, 1))
        assert recorder.taken == [0, 1]
