"""Channels that take one message at a time, as a mapping: those of ``dagster_pipes`` and of users."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class MessageChannel:
    """Hands each line to a function, as the mapping that it is.

    Where the function raises, that message and those behind it are tried again by the next call: so
    a function that raises should not have sent anything.

    Args:
        write_message: Takes one message.
    """

    def __init__(self, write_message: Callable[[Any], Any]) -> None:
        self._write_message = write_message
        # Whole lines, and the start of the first one that was not handed on. One tuple, for other
        # threads.
        self._state = (b"", 0)

    def write(self, lines: bytes, /) -> None:
        """Hand on the lines, behind those that an earlier call had to leave; blocks.

        Raises:
            OSError: The function raised it, or raised something else, which is the cause then.
        """
        self._take(lines)
        while self._has_next():
            try:
                result = self._write_message(self._next())
            except OSError:
                raise
            except Exception as error:
                raise self._failure(error) from error
            if hasattr(result, "__await__"):
                result.close()
                raise self._failure(TypeError("it returned a coroutine, but is not an `async def`"))
            self._settle()

    def unwritten(self) -> bytes:
        """The lines that were taken and not handed on, in order."""
        lines, start = self._state
        return lines[start:]

    def close(self) -> None:
        """Do nothing: whoever opened the channel closes it."""

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's lines; the function has to work there as it is."""
        self._state = (b"", 0)

    def _take(self, lines: bytes) -> None:
        self._state = (self.unwritten() + lines, 0)

    def _has_next(self) -> bool:
        lines, start = self._state
        return start < len(lines)

    def _next(self) -> object:
        lines, start = self._state
        return json.loads(lines[start : lines.index(b"\n", start)])

    def _settle(self) -> None:
        lines, start = self._state
        self._state = (lines, lines.index(b"\n", start) + 1)

    def _failure(self, error: Exception) -> OSError:
        owner = getattr(self._write_message, "__self__", None)
        name = "write_message" if owner is None else f"{type(owner).__name__}.write_message"
        return OSError(f"{name}() raised {type(error).__name__}: {error}")


class AsyncMessageChannel(MessageChannel):
    """Awaits a coroutine function for each line.

    If `awrite` is cancelled, the message that was being sent counts as not sent.

    Args:
        write_message: A coroutine function that takes one message.
    """

    def __init__(self, write_message: Callable[[Any], Coroutine[Any, Any, Any]]) -> None:
        super().__init__(write_message)

    async def awrite(self, lines: bytes) -> None:
        """Hand on the lines, behind those that an earlier call had to leave.

        Raises:
            OSError: The function raised it, or raised something else, which is the cause then.
        """
        self._take(lines)
        while self._has_next():
            try:
                await self._write_message(self._next())
            except OSError:
                raise
            except Exception as error:
                raise self._failure(error) from error
            self._settle()

    def write(self, lines: bytes, /) -> None:
        """Do the same in an event loop of its own, for threads that have none; blocks."""
        import asyncio  # noqa: PLC0415 because plain sessions must not pay for it

        asyncio.run(self.awrite(lines))
