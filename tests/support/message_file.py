"""An independent reader of messages files: shares no code with the library."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

METHODS = {
    "opened",
    "closed",
    "log",
    "log_external_stream",
    "report_asset_materialization",
    "report_asset_check",
    "report_custom_message",
}

_STAMP = re.compile(rb"#(\d+)\.(\d+)#")


class MessageFile:
    """What a messages file holds, once it is made sure that a reader survives it.

    Args:
        path: The file.
        may_end_torn: Whether the last line may be a piece of one, as a kill can leave it.

    Raises:
        AssertionError: A line is torn, blank or no message, or something follows ``closed``.
    """

    def __init__(self, path: Path, *, may_end_torn: bool = False) -> None:
        data = path.read_bytes()
        *lines, self.torn = data.split(b"\n")
        assert may_end_torn or not self.torn, f"{path} ends in a piece: {self.torn[:200]!r}"
        # What only fills pages is left out.
        self.lines: list[bytes] = []
        self.messages: list[dict[str, Any]] = []
        for number, line in enumerate(lines, 1):
            message = _parse(line, f"{path}:{number}")
            if message["method"] == "log_external_stream" and message["params"]["text"] == "":
                continue
            self.lines.append(line)
            self.messages.append(message)
        methods = self.methods()
        assert "closed" not in methods[:-1], f"{path}: something follows `closed`"
        assert "opened" not in methods[1:], f"{path}: something comes before `opened`"

    def methods(self) -> list[str]:
        return [message["method"] for message in self.messages]

    def is_closed(self) -> bool:
        return self.methods()[-1:] == ["closed"]

    def stamps(self) -> dict[int, list[int]]:
        """The numbers of each producer's messages, in the order in which they are here."""
        return stamps(self.lines)


def stamp(producer: int, number: int) -> str:
    """What marks a message; anywhere in its text."""
    return f"#{producer}.{number}#"


def stamps(lines: list[bytes]) -> dict[int, list[int]]:
    """The numbers in the marks of these lines, by producer."""
    found = defaultdict(list)
    for line in lines:
        for producer, number in _STAMP.findall(line):
            found[int(producer)].append(int(number))
    return found


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        message = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise AssertionError(f"{place} is no JSON ({error}): {line[:200]!r}") from error
    assert isinstance(message, dict), f"{place} is no message: {line[:200]!r}"
    assert set(message) == {"__dagster_pipes_version", "method", "params"}, place
    assert message["method"] in METHODS, f"{place}: {message['method']!r}"
    assert isinstance(message["params"], dict), place
    return message
