"""Make text from elsewhere safe to show: it can neither steer a terminal nor disguise itself."""

from __future__ import annotations

import re

__all__ = ["clean", "clean_line", "excerpt"]

COLOR = re.compile(r"\x1b\[[0-9;:]*m")
"""The escape sequences that only set colours; they are dropped, every other one is shown."""

UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls, but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of text
    "\u200b\u2028\u2029\u2060-\u2064\ufeff\ufff9-\ufffb"  # are invisible, or break lines
    "\ud800-\udfff\U000e0000-\U000e007f"  # cannot be encoded; are invisible tags
    "]"
)

NAMES = {"\x1b": "\\e", "\r": "\\r", "\x00": "\\0", "\x07": "\\a", "\x08": "\\b"}


def clean(text: str) -> str:
    r"""Show unsafe characters as escapes such as ``\e`` and ``\u202e``; keep tab and newline."""
    return UNSAFE.sub(_escape, COLOR.sub("", text).replace("\r\n", "\n"))


def clean_line(text: str) -> str:
    """Like ``clean``, for text that must stay on one line: newline and tab are escapes too."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def excerpt(text: str, *, characters: int, lines: int) -> str:
    """``clean(text)``, cut to at most so many characters and lines, with a note of how much is left out.

    Takes time for what it shows, not for what it leaves out.
    """
    if len(text) <= characters and text.isascii() and text.isprintable():
        return text  # one line, and the usual case
    shown = text[:characters]
    if shown.count("\n") >= lines:
        shown = "\n".join(shown.split("\n", lines)[:lines])
    left_out = len(text) - len(shown)
    # A newline at the very end is no loss.
    note = f" … ({left_out:,} more characters)" if left_out > 1 else ""
    return clean(shown) + note


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in NAMES:
        return NAMES[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
