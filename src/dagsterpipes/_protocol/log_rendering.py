"""From messages to lines, in bulk: log texts are escaped and wrapped a batch at a time.

A log text travels as ``str`` whose first character is a mark that stands for its level; every other
message is a finished line, as ``bytes``. A string cannot change after it was said, so escaping it
later loses nothing, and in bulk it costs a fifth of what it costs at the call.
"""

from __future__ import annotations

from itertools import groupby
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""The levels of Dagster, in ascending order."""

MARK_OF_LEVEL = {name: chr(index) for index, name in enumerate(LEVEL_NAMES, start=1)}
"""The first character of a log text, for each level."""

_HEAD = '{"__dagster_pipes_version": "0.1", "method": "log", "params": {"level": "%s", "message": "'
_TAIL = '"}}\n'
_HEAD_OF_MARK = {mark: _HEAD % name for name, mark in MARK_OF_LEVEL.items()}
_ENVELOPE_LENGTH = max(map(len, _HEAD_OF_MARK.values())) + len(_TAIL)

# What JSON takes unescaped; what is left after deleting it must be the marks.
_PLAIN = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
_AS_BYTES = [(mark.encode(), (_TAIL + head).encode()) for mark, head in _HEAD_OF_MARK.items()]
_ESCAPED = [
    (encode_basestring_ascii(mark)[1:-1], _TAIL + head) for mark, head in _HEAD_OF_MARK.items()
]
_CHUNK = 2000
_TAIL_BYTES = _TAIL.encode()


class LogRenderer:
    """Renders every message at once; holds nothing back."""

    due: float | None = None

    def render(self, items: list[str | bytes], now: float, *, everything: bool) -> bytes:
        """The lines of these messages."""
        del now, everything
        return b"".join(_lines(items))


def _lines(items: list[str | bytes]) -> Iterator[bytes]:
    # In chunks, so that no single step holds the interpreter for more than half a ms.
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        try:
            yield _log_lines(cast("list[str]", chunk))
        except TypeError:  # not only texts, which join() sees at no cost
            for kind, run in groupby(chunk, type):
                if kind is str:
                    yield _log_lines(list(cast("Iterator[str]", run)))
                else:
                    yield from cast("Iterator[bytes]", run)


def _log_lines(texts: list[str]) -> bytes:
    blob = "".join(texts)
    if blob.isascii():
        raw = blob.encode()
        odd = raw.translate(None, _PLAIN)
        if len(odd) == len(texts):  # nothing to escape: the only odd characters are the marks
            for mark, between in _AS_BYTES:
                if mark in odd:
                    raw = raw.replace(mark, between)
            return raw[len(_TAIL_BYTES) :] + _TAIL_BYTES
    escaped = encode_basestring_ascii(blob)[1:-1]
    if sum(escaped.count(mark) for mark, _ in _ESCAPED) == len(texts):  # no text has a mark's own
        for escape, joint in _ESCAPED:
            escaped = escaped.replace(escape, joint)
        return (escaped[len(_TAIL) :] + _TAIL).encode()
    return "".join([log_line(text[0], text[1:]) for text in texts]).encode()


def log_line(mark: str, text: str) -> str:
    """The line of one log text."""
    return _HEAD_OF_MARK[mark] + encode_basestring_ascii(text)[1:-1] + _TAIL


class CoalescingLogRenderer:
    """Joins consecutive log texts of one level that fall into one window into one message.

    Never across another message or a change of level; ``WARNING`` and above are not held back. A
    joined message stays within ``max_lines`` and within ``max_size`` bytes of line.

    Args:
        window: Seconds for which the first text of a message may be held back.
        max_lines: Most texts in a message.
        max_size: Most bytes of a joined line, envelope included; a page, so that readers that see
            a file grow page by page see it whole.
    """

    def __init__(self, window: float, *, max_lines: int = 500, max_size: int = 4096) -> None:
        self.due: float | None = None
        self._window = window
        self._max_lines = max_lines
        self._max_text = max_size - _ENVELOPE_LENGTH
        self._mark = ""
        self._held: list[str] = []
        # Escaped length of what is held, with the escaped line breaks between.
        self._length = 0

    def render(self, items: list[str | bytes], now: float, *, everything: bool) -> bytes:
        """Lines of these messages, behind what was held back."""
        lines: list[bytes] = []
        if self.due is not None and now >= self.due:
            self._release(lines)
        for item in items:
            if isinstance(item, bytes):
                self._release(lines)
                lines.append(item)
            else:
                self._hold(item[0], encode_basestring_ascii(item[1:])[1:-1], lines, now)
        if everything or self._mark >= MARK_OF_LEVEL["WARNING"]:
            self._release(lines)
        return b"".join(lines)

    def _hold(self, mark: str, text: str, lines: list[bytes], now: float) -> None:
        length = len(text) + 2
        if (
            mark != self._mark
            or self._length + length > self._max_text
            or len(self._held) >= self._max_lines
        ):
            self._release(lines)
            self._mark = mark
            self.due = now + self._window
        self._held.append(text)
        self._length += length

    def _release(self, lines: list[bytes]) -> None:
        if self._held:
            joined = _HEAD_OF_MARK[self._mark] + "\\n".join(self._held) + _TAIL
            lines.append(joined.encode())
        self._mark = ""
        self._held = []
        self._length = 0
        self.due = None


AnyLogRenderer = LogRenderer | CoalescingLogRenderer
"""Either of the two."""
