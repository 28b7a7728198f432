"""What stands at the end of a file: perhaps a line that somebody else began."""

from __future__ import annotations

import json
import os

_STEP = 4096


def read_line(descriptor: int, end: int) -> bytes:
    """The part of a line that ends at this offset, from the line's start."""
    line = b""
    start = end
    step = _STEP
    while start > 0 and b"\n" not in line:
        step = min(start, step)
        start -= step
        line = os.pread(descriptor, step, start) + line
        step *= 4
    return line[line.rfind(b"\n") + 1 :]


def is_message(text: bytes) -> bool:
    """Whether it is whole, but for its newline."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
