"""Writers and loaders of ``dagster_pipes`` for object stores and Prefect: ours in their place.

Theirs notice no failed upload, and say nothing when the session is closed.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from dagsterpipes import stores
from dagsterpipes.writers import PipesBlobStoreMessageWriter, PipesBlobStoreMessageWriterChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagsterpipes.typing import PipesExtras, PipesParams


def own_store_part(part: Any) -> Any:
    """Return ours for a writer or context loader of ``dagster_pipes`` for a store; others as they are.

    A writer that is derived from theirs and opens as theirs does keeps its channel, and we call
    `upload_messages_chunk` of that.
    """
    reference = sys.modules["dagster_pipes"]
    kind = type(part)
    ours = getattr(stores, kind.__qualname__, None)
    if kind.__module__ == "dagster_pipes" and ours is not None:
        arguments = [part._client] if hasattr(part, "_client") else []  # noqa: SLF001 because there is no other way to it
        if hasattr(part, "interval"):
            return ours(*arguments, interval=part.interval)
        return ours(*arguments)
    base = getattr(reference, "PipesBlobStoreMessageWriter", None)
    if base is not None and getattr(kind, "open", None) is base.open:
        return _WriterStandIn(part)
    return part


class _WriterStandIn(PipesBlobStoreMessageWriter[Any]):
    """Opens as ours does, with the channel of a writer that is derived from theirs."""

    def __init__(self, theirs: Any) -> None:
        super().__init__(interval=theirs.interval)
        self._theirs = theirs

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[Any]:
        channel = self._theirs.make_channel(params)
        if _uploads_as_theirs(channel):
            yield _ChannelStandIn(channel)
        else:
            with channel.buffered_upload_loop():
                yield channel

    def make_channel(self, params: PipesParams) -> Any:
        return self._theirs.make_channel(params)

    def get_opened_extras(self) -> PipesExtras:
        extras: PipesExtras = self._theirs.get_opened_extras()
        return extras


def _uploads_as_theirs(channel: Any) -> bool:
    theirs: Any = sys.modules["dagster_pipes"].PipesBlobStoreMessageWriterChannel
    return all(
        getattr(type(channel), name, None) is getattr(theirs, name)
        for name in ("write_message", "flush_messages", "buffered_upload_loop", "_upload_loop")
        if hasattr(theirs, name)
    )


class _ChannelStandIn(PipesBlobStoreMessageWriterChannel):
    """Stores objects by the method of a channel that is derived from theirs."""

    def __init__(self, theirs: Any) -> None:
        super().__init__(interval=getattr(theirs, "_interval", 10))
        self._theirs = theirs

    @property
    def place(self) -> str:
        return f"the place of {type(self._theirs).__name__}"

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        self._theirs.upload_messages_chunk(payload, index)
