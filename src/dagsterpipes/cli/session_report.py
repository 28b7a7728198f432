"""Judges a session line by line, and sums it up at its end."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.envelope import LEVEL_ALIASES, LEVELS
from dagsterpipes._reader.line import Accepted, Ignored, judge_line
from dagsterpipes._reader.rules import EFFECTS, RULES, Refused
from dagsterpipes._reader.session import StreamRules
from dagsterpipes.cli.events import ExitStatus, LineRefused, MessageSeen, Problem, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagsterpipes._reader.tail import TailedLine
    from dagsterpipes.cli.events import Event

__all__ = ["SessionReport", "level_name"]

TORN = 0.25
"""Seconds for which a line may be seen unfinished before it counts as torn.

Dagster's reader looks every 10 ms. What is seen for a moment only may have been our luck.
"""

PROBLEMS = 50
"""Problems that a summary lists; hostile output may have millions."""

BY_SEVERITY = (
    ExitStatus.REFUSED,
    ExitStatus.UNDELIVERED,
    ExitStatus.NOT_CLOSED,
    ExitStatus.COMMAND_FAILED,
    ExitStatus.CHECK_FAILED,
)
"""Which kind of problem gives the exit status, if there are several."""

_NAMES = {number: name for name, number in LEVELS.items()}


@lru_cache(256, typed=True)
def level_name(level: str | int) -> str:
    """The name under which Dagster shows a log level, which no sender of ours need have written."""
    if isinstance(level, str):
        return LEVEL_ALIASES.get(level.upper(), level.upper())
    return _NAMES.get(level, f"LEVEL {level}")


class SessionReport:
    """Counts and problems of a session so far.

    Args:
        asset_keys: The keys of the step; ``None`` or none at all when any key is accepted.
        expected_checks: Names of checks that must be reported.
        default_asset: The key of the step's asset, if nobody has chosen it.
    """

    def __init__(
        self,
        asset_keys: Sequence[str] | None = None,
        expected_checks: Sequence[str] = (),
        *,
        default_asset: str | None = None,
    ) -> None:
        self._default_asset = default_asset
        self._rules = StreamRules(asset_keys)
        self._expected_checks = expected_checks
        self._problems: list[Problem] = []
        self._kinds: set[ExitStatus] = set()
        self._problems_left_out = 0
        self._lines = 0
        self._methods: Counter[str] = Counter()
        self._levels: Counter[str] = Counter()
        self._fillers = 0
        self._materialized: list[str] = []
        self._checks: list[tuple[str, str, str, bool]] = []
        self._reader_stopped = False  # Dagster's reader would read no more
        self._lost = 0
        self._torn = 0

    @property
    def state(self) -> str:
        """The present state of the session, in a few words."""
        counts = [f"{self._methods.total():,} messages"]
        if self._materialized:
            counts.append(f"{len(self._materialized)} materialized")
        if self._checks:
            counts.append(f"{len(self._checks)} checked")
        if self._problems:
            counts.append(f"{len(self._problems) + self._problems_left_out} problems")
        return ", ".join(counts)

    @property
    def has_messages(self) -> bool:
        """Whether Dagster would have accepted any line."""
        return bool(self._methods)

    def take(self, line: TailedLine, at: float | None) -> Iterator[Event]:
        """Judge the next line of the messages file.

        Args:
            line: The line.
            at: Seconds since the session began; ``None`` when a file is read.
        """
        self._lines += 1
        verdict = judge_line(line.data)
        if (
            type(verdict) is Accepted
            and not line.torn_for
            and verdict.message["method"] == "log"
            and not self._rules.closed
        ):
            # The usual case, and a message that no rule about several concerns.
            self._lost += self._reader_stopped
            yield self._count(MessageSeen(at, line.number, verdict.message, verdict.note))
            return
        filler = isinstance(verdict, Ignored) and verdict.message["method"] != "log"
        self._lost += self._reader_stopped and not filler
        broken: list[Refused] = []
        if line.torn_for:
            self._torn += 1
            if line.torn_for >= TORN:
                broken.append(
                    Refused("torn-line", f"it was seen unfinished for {line.torn_for:.2f} s")
                )
        if isinstance(verdict, Refused):
            broken.append(verdict)
        else:
            broken += self._rules.take(verdict.message)
            self._fillers += filler
            if not filler:
                note = verdict.reason if isinstance(verdict, Ignored) else verdict.note
                yield self._count(MessageSeen(at, line.number, verdict.message, note))
        start = line.data[:200].decode("utf-8", "replace")
        for refused in broken:
            self._refuse(line.number, refused)
            yield LineRefused(at, line.number, refused, start)

    def _count(self, event: MessageSeen) -> MessageSeen:
        method, params = event.message["method"], event.message["params"]
        self._methods[method] += 1
        if method == "log":
            self._levels[level_name(params.get("level", "INFO"))] += 1
        elif method == "report_asset_materialization":
            self._materialized.append(params["asset_key"])
        elif method == "report_asset_check":
            self._count_check(event.line, params)
        return event

    def _count_check(self, line: int, params: Mapping[str, Any]) -> None:
        key, name, severity = params["asset_key"], params["check_name"], params["severity"]
        self._checks.append((key, name, severity, params["passed"]))
        if not params["passed"] and severity == "ERROR":
            self._add(
                Problem(ExitStatus.CHECK_FAILED, f"The check {name} of {key} failed", line=line)
            )

    def _refuse(self, line: int, refused: Refused) -> None:
        asked = RULES[refused.rule][0]
        text = f"{refused.detail} (rule {refused.rule}: {asked})."
        stops = refused.effect == "reader-stops"
        if not (stops and self._reader_stopped):  # which it does once
            text += f" {EFFECTS[refused.effect]}."
        self._add(Problem(ExitStatus.REFUSED, text, line=line, rule=refused.rule))
        self._reader_stopped |= stops

    def _add(self, problem: Problem) -> None:
        self._kinds.add(problem.status)
        if len(self._problems) < PROBLEMS:
            self._problems.append(problem)
        else:
            self._problems_left_out += 1

    def finish(
        self,
        *,
        exit_code: int | None = None,
        seconds: float | None = None,
        stopped_by: ExitStatus | None = None,
        not_started: str = "",
        recovery_file: bool = False,
    ) -> Summary:
        """Sum up, once every line has been judged.

        Args:
            exit_code: Of the command; negative for a signal, ``None`` when there was none.
            seconds: How long it took; ``None`` when a file is read.
            stopped_by: The status of the signal that the runner got, if it got one.
            not_started: Why the command could not be started, if it could not.
            recovery_file: The lines are those that a session kept because it could not deliver them.
        """
        if not_started:
            self._add(Problem(ExitStatus.COMMAND_FAILED, not_started))
        else:
            self._judge_end(exit_code, recovery_file=recovery_file)
        status = next((kind for kind in BY_SEVERITY if kind in self._kinds), ExitStatus.DONE)
        return Summary(
            status=stopped_by or status,
            problems=self._problems,
            problems_left_out=self._problems_left_out,
            lines=self._lines,
            methods=self._methods,
            fillers=self._fillers,
            levels=self._levels,
            materialized=self._materialized,
            checks=self._checks,
            opened=self._rules.opened,
            closed=self._rules.closed,
            recovery_file=recovery_file,
            exception=self._rules.exception,
            lost=self._lost,
            torn=self._torn,
            exit_code=exit_code,
            seconds=seconds,
        )

    def _judge_end(self, exit_code: int | None, *, recovery_file: bool) -> None:
        if self._rules.exception is not None:
            what = _describe_exception(self._rules.exception)
            self._add(Problem(ExitStatus.NOT_CLOSED, f"The session was closed with {what}"))
            if self._default_asset is not None and "Invalid asset key" in what:
                hint = (
                    f"Nobody has named the assets of the step, so it has one, {self._default_asset}:"
                    " pass --asset KEY for each that the command reports"
                )
                self._add(Problem(ExitStatus.NOT_CLOSED, hint))
        if exit_code:
            how = f"exit status {exit_code}" if exit_code > 0 else f"signal {-exit_code}"
            self._add(Problem(ExitStatus.COMMAND_FAILED, f"The command failed with {how}"))
        if recovery_file:
            count = self._methods.total()
            kept = f"{count:,} message{'s' * (count != 1)} of a session that never reached Dagster"
            self._add(Problem(ExitStatus.UNDELIVERED, kept))
        elif not self._rules.opened or not self._rules.closed:
            missing = "closed" if self._rules.opened else "opened"
            if exit_code is None and self._methods and not self._rules.opened:
                missing += ", or this is a recovery file that was renamed: its messages never reached Dagster"
            # A failing command is the reason, and asks for the exit status.
            status = ExitStatus.COMMAND_FAILED if exit_code else ExitStatus.NOT_CLOSED
            self._add(Problem(status, f"The session was never {missing}"))
        reported = {name for _, name, _, _ in self._checks}
        for name in self._expected_checks:
            if name not in reported:
                self._add(Problem(ExitStatus.CHECK_FAILED, f"The check {name} was not reported"))


def _describe_exception(exception: Mapping[str, Any]) -> str:
    name, message = exception.get("name") or "an exception", exception.get("message") or ""
    # dagster_pipes puts the name into the message, others do not.
    first = message.strip().partition("\n")[0].removeprefix(f"{name}: ")
    return f"{name}: {first[:300]}" if first and first != name else name
