"""From captured bytes to pieces of text that each fit one message of one page.

Pure: bytes in, text out. The reading and the clock are in ``reader``.
"""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING

from dagsterpipes._protocol.messages import external_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PAGE", "TEXT_LIMIT", "LineChunker", "chunks", "escaped_length"]

PAGE = 4096
"""A reader of the message file may see it end at any multiple of this, in bytes."""

TEXT_LIMIT = PAGE - len(external_stream("stdout", "", None))
"""What a page leaves for the text of one message, in bytes after JSON escaping."""

_LONGEST_ESCAPE = 12  # a character beyond U+FFFF is written as two \uXXXX


def escaped_length(text: str) -> int:
    """How long ``text`` is inside a JSON string, in bytes, when everything is ASCII."""
    return len(json.dumps(text)) - len('""')


def chunks(text: str, limit: int = TEXT_LIMIT) -> Iterator[str]:
    """Cut ``text`` into pieces whose escaped length is at most ``limit``.

    The pieces joined are ``text``. A cut is made after a newline wherever one is in reach: a line
    is divided only when it does not fit into a piece of its own.

    Args:
        text: Any text.
        limit: In bytes after JSON escaping; at least 12, which one character may need.

    Raises:
        ValueError: ``limit`` is under 12.
    """
    if limit < _LONGEST_ESCAPE:
        raise ValueError(f"limit must be at least {_LONGEST_ESCAPE}, got {limit}")
    start, size = 0, len(text)
    reach = limit  # how many characters are likely to fit; escaping never makes text shorter
    while start < size:
        end = min(start + reach, size)
        while (length := escaped_length(text[start:end])) > limit:
            end = start + max(1, (end - start) * limit // length)
        reach = min(limit, (end - start) * limit // length)
        if end < size:
            end = _line_break(text, start, end, limit)
        yield text[start:end]
        start = end


def _line_break(text: str, start: int, end: int, limit: int) -> int:
    """Where to cut when ``text[start:end]`` fits and is not all: after a line if possible."""
    if before := text.rfind("\n", start, end) + 1:
        return before
    # `end` was guessed from the average expansion, so the line may fit although it ends later.
    after = text.find("\n", end, start + limit) + 1 or len(text)
    if after - start <= limit and escaped_length(text[start:after]) <= limit:
        return after
    return end


class LineChunker:
    r"""Turns the bytes of one stream into pieces of whole lines, each within ``limit``.

    Nothing is lost: a character that is cut in two by a read waits for its second half, and bytes
    that are not UTF-8 come out as ``\xff``, four plain characters. (Dagster prints captured text
    to its own stdout; surrogates, the other lossless way, would raise in its reader thread and
    stop it.)

    The unfinished last line is held back until its newline comes, until it fills a piece, or until
    `release` or `finish`.

    Args:
        limit: As for `chunks`.
    """

    def __init__(self, limit: int = TEXT_LIMIT) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.held = ""  # the unfinished last line; always fits one piece

    def feed(self, data: bytes) -> list[str]:
        """Add what was read; returns the pieces that are complete now."""
        return self._take(self._decoder.decode(data))

    def release(self) -> list[str]:
        """Hand out the unfinished line as it is; half a character stays."""
        held, self.held = self.held, ""
        return [held] if held else []

    def finish(self) -> list[str]:
        """Hand out everything: no more bytes will come. The chunker can be used again."""
        return [*self._take(self._decoder.decode(b"", final=True)), *self.release()]

    def _take(self, new: str) -> list[str]:
        text = self.held + new
        whole = text.rfind("\n") + 1
        pieces = list(chunks(text[:whole], self._limit))
        rest = list(chunks(text[whole:], self._limit))
        self.held = rest.pop() if rest else ""
        return pieces + rest
