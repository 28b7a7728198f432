"""From lines of a messages file to what Dagster knows of the run, whatever the lines are."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from dagsterpipes._reader.line import Accepted, Ignored, judge_line
from dagsterpipes._reader.rules import RULES, Refused
from dagsterpipes._reader.session import StreamRules
from dagsterpipes.dagster.event_batches import open_batched_log
from dagsterpipes.dagster.private import context_of, logs_as_dagster_does
from dagsterpipes.exceptions import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagsterpipes._reader.tail import TailedLine
    from dagsterpipes.dagster.event_batches import BatchedLog, Bookmark

__all__ = ["MAX_WARNINGS", "Ingest"]

MAX_WARNINGS = 20
"""Problems of a session that get a warning each; the others are counted."""

LOGGING = frozenset({"log", "log_external_stream"})
"""Methods whose messages Dagster stores or prints at once; it keeps others in memory."""

LINE_RULES = frozenset(
    {"utf-8", "byte-order-mark", "blank-line", "carriage-return", "json", "nesting", "envelope"}
)
"""Rules of the line itself, on which no two versions of Dagster can differ."""


class Ingest:
    """Hands the messages of one session to Dagster's handler, and goes on whatever they are.

    Log lines are stored in batches, and before any report that came after them. A line that breaks
    a rule costs that message and a warning that names the rule.

    Args:
        handler: Dagster's handler of the session's messages.
        clock: Gives seconds.
        bookmark: Takes part in each transaction of log lines.

    Threads: one at a time.
    """

    def __init__(
        self, handler: Any, clock: Callable[[], float], bookmark: Bookmark | None = None
    ) -> None:
        self._handler = handler
        context = context_of(handler)
        self._log = logging.getLogger("dagster") if context is None else context.log
        self._batched: BatchedLog | None = None
        if context is not None and logs_as_dagster_does(handler):
            self._batched = open_batched_log(context, clock, bookmark)
        self._rules = StreamRules(_asset_keys(context))
        self._broken: Counter[str] = Counter()

    @property
    def is_batched(self) -> bool:
        """Whether log lines are stored in batches, not one by one."""
        return self._batched is not None

    def take(self, line: TailedLine, *, log: bool = True) -> None:
        """Take the next line; never raises for what is in it.

        Args:
            line: With its newline; without one, the file ends with it.
            log: False for a line that an earlier reader of the file took: what is kept in the
                event log is not repeated; reports, which are kept in memory, are.
        """
        verdict = judge_line(line.data)
        try:
            if isinstance(verdict, Refused):
                self._try_refused(line, verdict, log=log)
                return
            message = verdict.message
            method = message["method"]
            if not log and method in LOGGING:
                return
            if isinstance(verdict, Ignored) and method == "log_external_stream":
                return  # it only fills a page of the file
            broken = self._rules.take(message)
            batched = self._batched if method == "log" else None
            if batched is not None:
                params = message["params"]
                batched.log(params.get("level", "info"), params["message"])
            for rule, detail in broken:
                self._warn(line, rule, detail)
            if batched is not None:
                return
            if method != "log_external_stream":
                self.flush()
            self._handler.handle_message(message)
        except Exception as error:  # noqa: BLE001 because Dagster raises what it likes
            # Dagster's version, or a logger of the user's, does not take what the rules allow.
            method = verdict.message["method"] if isinstance(verdict, Accepted) else "message"
            self._warn(line, "params", f"Dagster refused this {method}: {_in_words(error)}")

    def _try_refused(self, line: TailedLine, refused: Refused, *, log: bool) -> None:
        """The rules of messages are those of one version of Dagster; another may know more."""
        if refused.rule in LINE_RULES:
            self._warn(line, refused.rule, refused.detail)
            return
        try:
            message = json.loads(line.data)
            if log or message["method"] not in LOGGING:
                self.flush()
                self._handler.handle_message(message)
                self._rules.take(message)
        except Exception:  # noqa: BLE001 because the message may be anything
            self._warn(line, refused.rule, refused.detail)

    def flush_if_due(self) -> None:
        """Store what has waited long enough."""
        if self._batched is not None:
            self._batched.flush_if_due()

    def flush(self, *, always: bool = False) -> None:
        """Store all log lines so far."""
        if self._batched is not None:
            self._batched.flush(always=always)

    def finish(self) -> None:
        """Store the rest, and say how many more problems there were than warnings."""
        self.flush(always=True)
        more = self._broken.total() - MAX_WARNINGS
        if more > 0:
            self._say(f"{more} more messages break rules; in all {self._counts()}")
        if self._batched is not None and self._batched.lost:
            self._say(f"{self._batched.lost} log lines could not be stored")

    def failures(self) -> Sequence[str]:
        """Why a strict reader fails the step, for a process that has succeeded; empty if for nothing."""
        found = []
        if self._broken:
            found.append(f"messages broke rules ({self._counts()})")
        if self._batched is not None and self._batched.lost:
            found.append(f"{self._batched.lost} log lines could not be stored")
        if self._rules.opened and not self._rules.closed:
            found.append("`opened` came and `closed` never did")
        if self._rules.exception is not None:
            found.append(f"it was closed with {shorten(self._rules.exception.get('name'))}")
        return found

    def _counts(self) -> str:
        return ", ".join(f"{rule}: {count}" for rule, count in self._broken.most_common())

    def _warn(self, line: TailedLine, rule: str, detail: str) -> None:
        self._broken[rule] += 1
        if self._broken.total() <= MAX_WARNINGS:
            self._say(
                f"line {line.number} breaks the rule that {RULES[rule][0]} ({rule}): {detail}"
            )

    def _say(self, text: str) -> None:
        try:
            self.flush()
            self._log.warning(f"[pipes] {text}")
        except Exception as error:  # noqa: BLE001 because the database may be gone
            sys.stderr.write(f"[pipes] {text}\n[pipes] and that cannot be logged: {error}\n")


def _in_words(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 200)


def _asset_keys(context: Any | None) -> list[str] | None:
    if context is None or not getattr(context, "has_assets_def", False):
        return None
    # The oldest Dagster does not escape them.
    return [
        getattr(key, "to_escaped_user_string", key.to_user_string)()
        for key in context.selected_asset_keys
    ]
