"""Channels of lines for what message writers open: ours, those of ``dagster_pipes``, users' own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dagsterpipes._delivery.channels.callback import AsyncMessageChannel, MessageChannel
from dagsterpipes.writers import (
    PipesBufferedStreamMessageWriterChannel,
    PipesDefaultMessageWriter,
    PipesFileMessageWriterChannel,
    PipesStreamMessageWriterChannel,
)

if TYPE_CHECKING:
    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes.typing import PipesExtras, PipesParams

_OWN_CHANNELS = (
    PipesFileMessageWriterChannel,
    PipesStreamMessageWriterChannel,
    PipesBufferedStreamMessageWriterChannel,
)


def line_channel(channel: Any, params: PipesParams) -> Channel:
    """Return a channel of lines for what a message writer opened.

    Ours take lines as they are; all others, subclasses of ours too, get message by message. For the
    file channel of ``dagster_pipes``, which message writers that are derived from its default one
    open, ours is taken: readers would see half lines of it.

    Args:
        channel: The channel that the writer gave.
        params: What the writer was given.

    Raises:
        ChannelError: The place cannot be opened for writing.
    """
    kind = type(channel)
    if (kind.__module__, kind.__qualname__) == ("dagster_pipes", "PipesFileMessageWriterChannel"):
        has_fillers = PipesDefaultMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY in params
        channel = PipesFileMessageWriterChannel(channel._path, fillers=has_fillers)  # noqa: SLF001 because there is no other way to it
    if type(channel) in _OWN_CHANNELS:
        lines: Channel = channel.open_lines()
        return lines
    import inspect  # noqa: PLC0415 because the usual channels must not pay for it

    if inspect.iscoroutinefunction(channel.write_message):
        return AsyncMessageChannel(channel.write_message)
    return MessageChannel(channel.write_message)


class _StandIn(PipesDefaultMessageWriter):
    """Opens as ours does, for a writer of ``dagster_pipes``; what that says at the opening is its own."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def get_opened_extras(self) -> PipesExtras:
        extras: PipesExtras = self._theirs.get_opened_extras()
        return extras


def own_writer(writer: Any) -> Any:
    """Return one of ours where a writer opens as the default one of ``dagster_pipes``; else itself.

    They do the same, but the file of theirs is seen with half lines in it, and its capture of the
    standard streams takes seconds to stop.
    """
    reference = sys.modules.get("dagster_pipes")
    default = getattr(reference, "PipesDefaultMessageWriter", None)
    if default is not None and getattr(type(writer), "open", None) is default.open:
        return _StandIn(writer)
    return writer
