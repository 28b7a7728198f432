"""Events as JSON, one object a line: for machines, so nothing is skipped or shortened."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TextIO

from dagsterpipes.cli.events import Event, LineRefused, MessageSeen, OutputSeen, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JsonView"]


class JsonView:
    """Writes each event as a line of ASCII: no control character goes through raw.

    Numbers that JSON does not know become text: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.

    Args:
        out: Where to write.
        only_summary: Leave the events out.
    """

    def __init__(self, out: TextIO, *, only_summary: bool = False) -> None:
        self._out = out
        self._only_summary = only_summary

    def show(self, event: Event) -> None:
        """Write an event."""
        if self._only_summary:
            return
        at = None if event.at is None else round(event.at, 3)
        if isinstance(event, MessageSeen):
            method, params = event.message["method"], event.message["params"]
            body = {"line": event.line, "method": method, "params": params}
            self._write({"event": "message", "at": at, **body, "note": event.note or None})
        elif isinstance(event, LineRefused):
            rule, detail = event.refused
            body = {"line": event.line, "rule": rule, "detail": detail}
            effect = event.refused.effect
            self._write(
                {"event": "refused", "at": at, **body, "effect": effect, "start": event.start}
            )
        elif isinstance(event, OutputSeen):
            body = {"stream": event.stream, "text": event.text, "progress": event.progress}
            self._write({"event": "output", "at": at, **body})
        else:
            self._write({"event": "notice", "at": at, "text": event.text})

    def tick(self, _state: str, _at: float) -> None:
        """Flush what was written, for a reader of the pipe."""
        self._out.flush()

    def finish(self, summary: Summary) -> None:
        """Write the summary, with ``"event": "summary"``."""
        fields = summary._asdict()
        fields["status"] = int(summary.status)
        fields["outcome"] = summary.status.name.lower().replace("_", "-")
        fields["problems"] = [
            {**problem._asdict(), "status": int(problem.status)} for problem in summary.problems
        ]
        fields["checks"] = [
            dict(zip(("asset_key", "check_name", "severity", "passed"), check, strict=True))
            for check in summary.checks
        ]
        self._write({"event": "summary", **fields})
        self._out.flush()

    def _write(self, body: Mapping[str, Any]) -> None:
        try:
            line = json.dumps(body, allow_nan=False)
        except ValueError:
            line = json.dumps(_finite(body), allow_nan=False)
        self._out.write(line + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
