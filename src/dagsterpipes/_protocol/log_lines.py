"""Log records to lines, in bulk.

INFO records travel as bare ``str``, records of other levels as a pair of the level's *tag* and the text;
every other message is a finished line, as ``bytes``. A ``str`` cannot change after the call, so it can
be escaped later, which in bulk costs a tenth of what it costs at the call.

`pack` joins each run of log texts soon: one ``bytes`` of tags and escaped texts. The tags are control
characters, which escaped JSON does not contain. This takes less than half of the memory, which the next
texts reuse while it is in the processor's cache. To render is then little more than to replace each tag
by the end of one line and the head of the next.
"""

from __future__ import annotations

import json
import re
from itertools import groupby, islice
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, cast

from dagsterpipes._protocol.envelope import LEVELS, PAGE_SIZE, message_head, nearest_level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEVEL_TAGS = {name: chr(index) for index, name in enumerate(LEVELS, start=1)}
"""The character before a packed text, for each level."""

LogItem = str | bytes | tuple[str, str]
"""A message: the text of an INFO record, a line, or a level tag and a text."""

_HEAD = message_head("log").encode() + b'{"level": "%s", "message": "'
_TAIL = b'"}}\n'
_HEAD_OF_TAG = {tag.encode(): _HEAD % name.encode() for name, tag in LEVEL_TAGS.items()}
_LEVEL_OF_TAG = {tag.encode(): name for name, tag in LEVEL_TAGS.items()}
_ENVELOPE_LENGTH = max(map(len, _HEAD_OF_TAG.values())) + len(_TAIL)

_INFO = LEVEL_TAGS["INFO"]
_LAST_TAG = len(LEVELS)
_WARNING = LEVEL_TAGS["WARNING"].encode()
_TAGS = "".join(LEVEL_TAGS.values()).encode()
_OTHER_TAG = {
    tag.encode(): re.compile(b"[" + _TAGS.replace(tag.encode(), b"") + b"]")
    for tag in LEVEL_TAGS.values()
}
_PACKED_TEXT = re.compile(rb"([\1-\5])([^\1-\5]*)")

# What JSON takes unescaped; what is left after deleting it must be the tags.
_PLAIN = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
_ESCAPED_TAGS = [(encode_basestring_ascii(tag)[1:-1], tag) for tag in LEVEL_TAGS.values()]
_ESCAPED_AT_ONCE = 1 << 16


def level_tag(levelno: int) -> str:
    """The tag of the nearest level at or below this number."""
    return LEVEL_TAGS[nearest_level(levelno)]


def log_item(tag: str, text: str) -> LogItem:
    """A log record on its way to `pack`."""
    return text if tag == _INFO else (tag, text)


def pack(items: list[LogItem]) -> list[bytes]:
    """Join the log texts of each run; leave lines, and what is packed already, as they are."""
    if not items:
        return []
    try:
        joined = _INFO.join(cast("list[str]", items))
    except TypeError:  # not only texts at INFO, which join() sees at no cost
        packed: list[bytes] = []
        for are_lines, run in groupby(items, lambda item: isinstance(item, bytes)):
            if are_lines:
                packed += cast("Iterator[bytes]", run)
            else:
                packed += _pack_tagged(_tag(run))
        return packed
    if joined.isascii():
        plain = (_INFO + joined).encode()
        if len(plain.translate(None, _PLAIN)) == len(items):  # nothing is odd but the tags
            return [plain]
    return _pack_tagged(_tag(items))


def _tag(items: Iterable[LogItem]) -> list[str]:
    return [
        _INFO + item if type(item) is str else "".join(cast("tuple[str, str]", item))
        for item in items
    ]


def _pack_tagged(texts: list[str]) -> list[bytes]:
    joined = "".join(texts)
    if joined.isascii():
        packed = joined.encode()
        if len(packed.translate(None, _PLAIN)) == len(texts):
            return [packed]
    # A part at a time, as a character may become twelve.
    step = max(1, len(texts) * _ESCAPED_AT_ONCE // len(joined))
    return [_escape(texts[start : start + step]) for start in range(0, len(texts), step)]


def _escape(texts: list[str]) -> bytes:
    escaped = encode_basestring_ascii("".join(texts))[1:-1]
    if sum(escaped.count(escape) for escape, _ in _ESCAPED_TAGS) == len(texts):
        for escape, tag in _ESCAPED_TAGS:
            escaped = escaped.replace(escape, tag)
    else:  # tags of the texts' own
        escaped = "".join([text[0] + encode_basestring_ascii(text[1:])[1:-1] for text in texts])
    return escaped.encode()


def _packed(item: LogItem) -> bytes:
    # Ctrl-C in the middle of counting leaves some texts unpacked.
    return item if isinstance(item, bytes) else _escape(_tag([item]))


def _is_packed(piece: bytes) -> bool:
    return piece[0] <= _LAST_TAG


def texts_of(items: Iterable[LogItem]) -> Iterator[tuple[str, str]]:
    """The log texts among these messages, each behind the name of its level."""
    for item in items:
        piece = _packed(item)
        if _is_packed(piece):
            for tag, text in _PACKED_TEXT.findall(piece):
                yield _LEVEL_OF_TAG[tag], json.loads(b'"%s"' % text)


def prefix_texts(items: Iterable[LogItem], prefix: str) -> list[LogItem]:
    """The same messages, packed, with a prefix before each log text."""
    escaped = encode_basestring_ascii(prefix)[1:-1].encode()
    named: list[LogItem] = []
    for item in items:
        piece = _packed(item)
        if _is_packed(piece):
            for tag in _HEAD_OF_TAG:
                if tag in piece:
                    piece = piece.replace(tag, tag + escaped)
        named.append(piece)
    return named


class LogRenderer:
    """Renders every message at once; holds nothing back."""

    due: float | None = None

    def render(self, items: list[LogItem], now: float, *, everything: bool) -> bytes:
        """The lines of these messages."""
        del now, everything
        # Joining more than a megabyte lets another thread have the interpreter, which keeps it for
        # 5 ms; not if one of the parts might change.
        parts: list[bytes | bytearray | memoryview] = [bytearray()]
        for item in items:
            piece = _packed(item)
            if _is_packed(piece):
                parts += _unpack(piece)
            else:
                parts.append(piece)
        return b"".join(parts)


def _unpack(packed: bytes) -> tuple[memoryview, bytes]:
    lines = packed
    for tag, head in _HEAD_OF_TAG.items():
        if tag in packed:
            lines = lines.replace(tag, _TAIL + head)
    return memoryview(lines)[len(_TAIL) :], _TAIL


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

    def __init__(self, window: float, *, max_lines: int = 500, max_size: int = PAGE_SIZE) -> None:
        self.due: float | None = None
        self._window = window
        self._max_lines = max_lines
        self._max_text = max_size - _ENVELOPE_LENGTH
        self._tag = b""
        self._held: list[bytes] = []
        # Escaped length of what is held, with the escaped line breaks between.
        self._length = 0

    def render(self, items: list[LogItem], now: float, *, everything: bool) -> bytes:
        """Lines of these messages, behind what was held back."""
        lines: list[bytes] = []
        if self.due is not None and now >= self.due:
            self._release(lines)
        for item in items:
            piece = _packed(item)
            if _is_packed(piece):
                for tag, text in _PACKED_TEXT.findall(piece):
                    self._hold(tag, text, lines, now)
            else:
                self._release(lines)
                lines.append(piece)
        if everything or self._tag >= _WARNING:
            self._release(lines)
        return b"".join(lines)

    def _hold(self, tag: bytes, text: bytes, lines: list[bytes], now: float) -> None:
        length = len(text) + 2
        if (
            tag != self._tag
            or self._length + length > self._max_text
            or len(self._held) >= self._max_lines
        ):
            self._release(lines)
            self._tag = tag
            self.due = now + self._window
        self._held.append(text)
        self._length += length

    def _release(self, lines: list[bytes]) -> None:
        if self._held:
            lines += _HEAD_OF_TAG[self._tag], b"\\n".join(self._held), _TAIL
        self._tag = b""
        self._held = []
        self._length = 0
        self.due = None


class AdaptiveLogRenderer:
    """Sends log texts singly for as long as a slow reader keeps up with them, and joins them beyond that.

    A message costs a token; there are ``burst`` of them, and ``rate`` come back each second. While
    there are tokens, each text is a message of its own, as with ``LogRenderer``. Without one, texts
    of one level are joined into messages of up to ``max_size`` bytes, which go out when they are
    full or a token is there: nothing waits longer than ``1 / rate`` seconds. Never across another
    message or a change of level; ``WARNING`` and above are not held back.

    Args:
        burst: Messages that the reader may be given at once.
        rate: Messages that it takes in a second.
        max_lines: Most texts in a message.
        max_size: Most bytes of a joined line, envelope included; see ``CoalescingLogRenderer``.
    """

    def __init__(
        self,
        burst: int = 200,
        rate: float = 100.0,
        *,
        max_lines: int = 500,
        max_size: int = PAGE_SIZE,
    ) -> None:
        self.due: float | None = None
        self._burst = burst
        self._rate = rate
        self._max_lines = max_lines
        # A tag is one byte and becomes the two of an escaped line break.
        self._max_packed = max_size - _ENVELOPE_LENGTH - max_lines
        self._tokens = float(burst)
        self._now: float | None = None  # when the tokens were counted
        self._held = b""  # packed texts of one level

    def render(self, items: list[LogItem], now: float, *, everything: bool) -> bytes:
        """Lines of these messages, behind what was held back."""
        if self._now is None or now > self._now:
            back = 0.0 if self._now is None else (now - self._now) * self._rate
            self._tokens = min(float(self._burst), self._tokens + back)
            self._now = now
        lines: list[bytes | memoryview] = []
        if self._tokens >= 1:
            self._release(lines)
        for item in items:
            piece = _packed(item)
            if _is_packed(piece):
                self._take(piece, lines)
            else:
                self._release(lines)
                lines.append(piece)
        if everything or self._held[:1] >= _WARNING:
            self._release(lines)
        if self._held:
            self.due = (self._now or 0.0) + max(0.0, 1 - self._tokens) / self._rate
        else:
            self.due = None
        return b"".join(lines)

    def _take(self, packed: bytes, lines: list[bytes | memoryview]) -> None:
        if not self._held and self._tokens >= 1:
            count = len(packed) - len(packed.translate(None, _TAGS))
            singles, packed = packed, b""
            if count > self._tokens:
                count = int(self._tokens)
                end = next(islice(_PACKED_TEXT.finditer(singles), count - 1, None)).end()
                singles, packed = singles[:end], singles[end:]
            self._tokens -= count
            lines += _unpack(singles)
        for run in _runs(packed):
            if run[:1] != self._held[:1]:
                self._release(lines)
            self._held += run
            self._cut(lines)

    def _cut(self, lines: list[bytes | memoryview]) -> None:
        """Send what fills a message; hold the rest."""
        held, tag, start = self._held, self._held[:1], 0
        while True:
            end = len(held)
            if end - start > self._max_packed:
                end = held.rfind(tag, start + 1, start + self._max_packed + 1)
                if end < 0:  # a text that is longer by itself
                    end = held.find(tag, start + 1)
                    end = len(held) if end < 0 else end
            if held.count(tag, start, end) > self._max_lines:
                texts = held[start + 1 : end].split(tag, self._max_lines)[: self._max_lines]
                end = start + sum(map(len, texts)) + len(texts)
            if end == len(held) and end - start <= self._max_packed:
                break
            self._send(held[start:end], lines)
            start = end
        self._held = held[start:]

    def _release(self, lines: list[bytes | memoryview]) -> None:
        if self._held:
            self._send(self._held, lines)
            self._held = b""

    def _send(self, run: bytes, lines: list[bytes | memoryview]) -> None:
        self._tokens = max(0.0, self._tokens - 1)
        tag = run[:1]
        lines += _HEAD_OF_TAG[tag], run[1:].replace(tag, b"\\n"), _TAIL


def _runs(packed: bytes) -> Iterator[bytes]:
    """Packed texts, cut where the level changes."""
    # Looking for one byte is far faster than looking for one of several.
    if packed and not any(tag in packed for tag in _HEAD_OF_TAG if tag != packed[:1]):
        yield packed
        return
    start = 0
    while start < len(packed):
        other = _OTHER_TAG[packed[start : start + 1]].search(packed, start)
        end = other.start() if other else len(packed)
        yield packed[start:end]
        start = end


MOST_MESSAGES = 250
"""Log messages in an object that are few enough to be sent one by one. Dagster handles 50 to 300 a
second, and takes one object in 11 seconds."""


class ChunkLogRenderer:
    """Renders everything at once, for a reader that takes it at once; joins log texts if they are many.

    Args:
        max_messages: Log texts that are not joined.
        max_size: Most bytes of a joined line.
    """

    due: float | None = None

    def __init__(self, *, max_messages: int, max_size: int = 16 * PAGE_SIZE) -> None:
        self._max_messages = max_messages
        self._max_size = max_size

    def render(self, items: list[LogItem], now: float, *, everything: bool) -> bytes:
        """The lines of these messages."""
        del everything
        renderer: AnyLogRenderer = LogRenderer()
        if self._count_texts(items) > self._max_messages:
            renderer = CoalescingLogRenderer(0.0, max_size=self._max_size)
        return renderer.render(items, now, everything=True)

    def _count_texts(self, items: list[LogItem]) -> int:
        return sum(
            sum(map(piece.count, _HEAD_OF_TAG))
            for piece in map(_packed, items)
            if _is_packed(piece)
        )


AnyLogRenderer = LogRenderer | CoalescingLogRenderer | AdaptiveLogRenderer | ChunkLogRenderer
"""One of these."""
