"""A session on a terminal, or in the log of a build."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TextIO

from rich.console import Console
from rich.text import Text

from dagsterpipes._reader.rules import EFFECTS
from dagsterpipes.cli.events import Event, LineRefused, MessageSeen, Notice, OutputSeen, Summary
from dagsterpipes.cli.metadata_view import render_metadata
from dagsterpipes.cli.sanitize import clean_line, excerpt
from dagsterpipes.cli.session_report import level_name
from dagsterpipes.cli.summary_view import render_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.status import Status

    from dagsterpipes.cli.events import Event, Summary


class RateLimiter:
    """Lets so many lines pass in each second, and counts the others.

    Args:
        rate: Lines a second; 0 lets everything pass.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = float("-inf")  # when the present second began
        self._passed = 0  # in this second
        self._skipped = 0  # since they were last asked for

    def take(self, now: float) -> bool:
        """Whether one more line may pass; it is counted as skipped when not.

        Args:
            now: The time, in seconds.
        """
        if now - self._second >= 1:
            self._second, self._passed = now, 0
        if self._rate and self._passed >= self._rate:
            self._skipped += 1
            return False
        self._passed += 1
        return True

    def take_skipped(self) -> int:
        """How many lines were skipped since the last call."""
        skipped, self._skipped = self._skipped, 0
        return skipped


LINKS = 20
"""Exceptions of a chain that are shown."""

CAUSED = "The above exception was the direct cause of the following exception:"

DURING = "During handling of the above exception, another exception occurred:"


def traceback_lines(exception: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines of a traceback as Python prints it: the first cause first.

    Whatever the process was written in: an exception needs no ``stack`` for it.

    Args:
        exception: What ``closed`` carried, with all five keys in every link.
    """
    chain: list[tuple[Mapping[str, Any], str]] = []
    link, joint = exception, ""
    while link:
        chain.append((link, joint))
        joint = CAUSED if link["cause"] else DURING
        link = link["cause"] or link["context"]
    if len(chain) > LINKS:
        yield f"({len(chain) - LINKS:,} earlier exceptions are not shown)"
    for link, joint in reversed(chain[:LINKS]):
        yield from _link_lines(link)
        if joint:
            yield from ("", joint, "")


def _link_lines(link: Mapping[str, Any]) -> Iterator[str]:
    message, name = link["message"].strip(), link["name"] or ""
    # dagster_pipes puts the name into the message, others do not.
    title = message if not name or message.startswith(name) else f"{name}: {message}".rstrip(": ")
    entries = [line for entry in link["stack"] for line in entry.rstrip("\n").split("\n")]
    if entries and not entries[0].startswith("Traceback"):
        yield "Traceback (most recent call last):"
    yield from entries
    # Where the stack ends with the exception itself, as ours does, it is not repeated.
    if title.split("\n")[0] not in entries:
        yield from title.split("\n")


LEVEL_STYLES = {
    "DEBUG": "dim",
    "INFO": "green",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
}

WIDTH = 120
"""Columns where there is no terminal to ask."""

MARGIN = 20
"""Columns before the text: the time and the label."""


def open_console(out: TextIO, *, no_color: bool) -> Console:
    """Make a console that sends escape sequences to a terminal only.

    Args:
        out: Where to write.
        no_color: Without colours, and without bold and dim either.
    """
    color_system: Literal["auto"] | None = None if no_color else "auto"
    console = _Console(
        file=out, color_system=color_system, highlight=False, markup=False, emoji=False
    )
    if not console.is_terminal:
        console.width = WIDTH
    return console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the end of a pipe to the caller; rich would end the process."""
        raise BrokenPipeError


class LiveView:
    """Shows events as they come, line by line, with the state of the session below on a terminal.

    Everything that comes from the process is cleaned and shortened first.

    Args:
        console: Where to show them.
        clock: Gives seconds.
        rate: Lines a second to show, 0 for all; as many again of what matters more (warnings,
            errors, reports, refused lines). What is over it is counted.
        quiet: Show the summary only.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float], *, rate: int, quiet: bool = False
    ) -> None:
        self._console = console
        self._clock = clock
        self._quiet = quiet
        self._routine = RateLimiter(rate)
        self._important = RateLimiter(rate)
        self._status: Status | None = None  # the line below, on a terminal
        self._shown: Mapping[str, Callable[[MessageSeen, Any], None]] = {
            "opened": self._opened,
            "closed": self._closed,
            "log": self._log,
            "log_external_stream": self._external_stream,
            "report_custom_message": self._custom,
            "report_asset_materialization": self._materialization,
            "report_asset_check": self._check,
        }
        self._progress = ""  # what the command last wrote to be overwritten
        if console.is_terminal and not quiet:
            self._status = console.status("starting", spinner_style="dim")
            self._status.start()

    def show(self, event: Event) -> None:
        """Show an event, or count it as skipped."""
        if self._quiet:
            return
        if isinstance(event, OutputSeen):
            self._progress = event.text if event.progress else ""
            if event.progress:
                return
        limiter = self._important if _is_important(event) else self._routine
        if limiter.take(self._clock()):
            self._show_skipped()
            self._show(event)

    def tick(self, state: str, at: float) -> None:
        """Bring the line below up to date."""
        if self._status is not None:
            text = Text(f"{at:.0f} s  {state}", "dim")
            if self._progress:
                text.append("  " + clean_line(self._progress[:200]))
            self._status.update(text)

    def finish(self, summary: Summary) -> None:
        """Show the summary."""
        if self._status is not None:
            self._status.stop()
        self._show_skipped()
        if self._progress:
            self._line(None, ("", ""), self._progress, "dim")
        for renderable in render_summary(summary, brief=self._quiet):
            self._console.print(renderable, soft_wrap=isinstance(renderable, Text))

    def _show_skipped(self) -> None:
        skipped = self._routine.take_skipped() + self._important.take_skipped()
        if skipped:
            self._line(None, ("", ""), f"… {skipped:,} skipped, more than can be shown", "dim")

    def _show(self, event: Event) -> None:
        if isinstance(event, MessageSeen):
            self._shown[event.message["method"]](event, event.message["params"])
            if event.note:
                self._line(None, ("note", "yellow"), event.note, "yellow")
        elif isinstance(event, LineRefused):
            rule, detail = event.refused
            label = ("REFUSED", "bold red")
            self._line(event, label, f"line {event.line}, rule {rule}: {detail}", "red")
            self._line(None, ("", ""), f"{EFFECTS[event.refused.effect]}.", "red")
        elif isinstance(event, OutputSeen):
            self._line(event, (event.stream, "dim"), event.text, "dim")
        else:
            self._line(event, ("", ""), event.text, "bold")

    def _opened(self, event: MessageSeen, params: Any) -> None:
        self._line(event, ("opened", "bold"), "The session is open.")
        extras = params.get("extras") if isinstance(params, dict) else None
        if extras:
            self._line(None, ("", ""), json.dumps(extras), "dim")

    def _closed(self, event: MessageSeen, params: Any) -> None:
        exception = params.get("exception") if isinstance(params, dict) else None
        if not exception:
            self._line(event, ("closed", "bold"), "The session is closed.")
            return
        self._line(event, ("closed", "bold red"), "The session is closed with an exception:")
        self._line(None, ("", ""), "\n".join(traceback_lines(exception)), "red", lines=200)

    def _log(self, event: MessageSeen, params: Mapping[str, Any]) -> None:
        name = level_name(params.get("level", "INFO"))
        style = LEVEL_STYLES.get(name, "cyan")
        self._line(event, (name, style), params["message"], style if _is_important(event) else "")

    def _external_stream(self, event: MessageSeen, params: Mapping[str, Any]) -> None:
        self._line(event, (params["stream"], "dim"), params["text"].removesuffix("\n"), "dim")

    def _custom(self, event: MessageSeen, params: Mapping[str, Any]) -> None:
        payload = json.dumps(params["payload"], ensure_ascii=False)
        self._line(event, ("custom", "magenta"), payload)

    def _materialization(self, event: MessageSeen, params: Mapping[str, Any]) -> None:
        version = params["data_version"]
        about = "" if version is None else f"  data version {version}"
        self._line(event, ("materialized", "bold green"), f"{params['asset_key']}{about}")
        self._metadata(params["metadata"])

    def _check(self, event: MessageSeen, params: Mapping[str, Any]) -> None:
        severity = params["severity"]
        failed = ("failed", "bold red" if severity == "ERROR" else "bold yellow")
        label = ("passed", "bold green") if params["passed"] else failed
        self._line(
            event, label, f"check {params['check_name']} of {params['asset_key']} ({severity})"
        )
        self._metadata(params["metadata"])

    def _metadata(self, metadata: Mapping[str, Any] | None) -> None:
        if metadata:
            self._console.print(render_metadata(metadata))

    def _line(
        self,
        event: Event | None,
        label: tuple[str, str],
        text: str,
        style: str = "",
        *,
        lines: int = 50,
    ) -> None:
        name, label_style = label
        body = excerpt(text, characters=10_000, lines=lines).replace("\n", "\n" + " " * MARGIN)
        shown = Text()
        shown.append(_when(event), "dim")
        shown.append(f"{clean_line(name)[:12]:<12} ", label_style)
        shown.append(body, style)
        self._console.print(shown, soft_wrap=True)


def _when(event: Event | None) -> str:
    if event is None:
        return " " * 7
    if event.at is not None:
        return f"{event.at:6.2f} "
    return f"{event.line:6} " if isinstance(event, (MessageSeen, LineRefused)) else " " * 7


def _is_important(event: Event) -> bool:
    if isinstance(event, MessageSeen):
        method, params = event.message["method"], event.message["params"]
        if method == "log":
            return level_name(params.get("level", "INFO")) in {"WARNING", "ERROR", "CRITICAL"}
        return bool(method != "log_external_stream")
    return isinstance(event, (LineRefused, Notice))
