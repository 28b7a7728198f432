"""A session on a terminal, or in the log of a build."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from rich.cells import cell_len
from rich.console import COLOR_SYSTEMS, Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from dagsterpipes._reader.rules import EFFECTS
from dagsterpipes.cli.events import (
    Event,
    LineRefused,
    MessageSeen,
    Notice,
    OutputSeen,
    PromptSeen,
    Summary,
)
from dagsterpipes.cli.rendering import render_metadata, render_summary
from dagsterpipes.cli.sanitize import clean_line, excerpt
from dagsterpipes.cli.session_report import level_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.color import ColorSystem
    from rich.console import ConsoleOptions
    from rich.status import Status


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
    # Where the stack ends with the exception itself, as ours does, it is not repeated. There it may
    # have its module before its name.
    first = title.split("\n")[0]
    if not any(entry == first or entry.endswith(f".{first}") for entry in entries):
        yield from title.split("\n")


LEVEL_STYLES = {
    "DEBUG": "dim",
    "INFO": "green",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
}

IMPORTANT_LEVELS = frozenset({"WARNING", "ERROR", "CRITICAL"})

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


class _Lines(NamedTuple):
    """Lines that are ready for the terminal: rich is slow where there are many."""

    text: str

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> Iterator[Segment]:
        yield Segment(self.text)


@cache
def _style(name: str) -> Style:
    return Style.parse(name)


BLOCK = 1 << 16
"""Characters that are written at once, at most."""


class LiveView:
    """Shows events as they come, line by line, with the state of the session below on a terminal.

    Everything that comes from the process is cleaned and shortened first. Lines are written at the
    next tick, or when there are many.

    Args:
        console: Where to show them.
        clock: Gives seconds.
        rate: Lines a second to show, 0 for all; as many again of what matters more (warnings,
            errors, reports, refused lines). What is over it is counted.
        quiet: Show the summary only.
        status_console: Where the state is shown, if that is another terminal.
    """

    def __init__(
        self,
        console: Console,
        clock: Callable[[], float],
        *,
        rate: int,
        quiet: bool = False,
        status_console: Console | None = None,
    ) -> None:
        self._console = console
        self._clock = clock
        self._quiet = quiet
        self._routine = RateLimiter(rate)
        self._important = RateLimiter(rate)
        self._colors: ColorSystem | None = (
            COLOR_SYSTEMS.get(console.color_system or "") if not console.legacy_windows else None
        )
        self._is_terminal = console.is_terminal  # which rich asks the environment each time
        self._has_limit = rate > 0
        self._pending: list[str] = []  # lines that are not written yet
        self._pending_size = 0
        self._status: Status | None = None  # the line below, on a terminal
        self._has_status = False  # it is shown
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
        self._prompt = ("", "")  # the stream and the text of the line that is shown unfinished
        self._stderr: list[str] = []  # its last lines
        self._repeated = _Repeated(())
        self._has_told_effect = False
        terminal = status_console or console
        if terminal.is_terminal:
            self._status = terminal.status("starting", spinner_style="dim")
            self._show_status()

    def show(self, event: Event) -> None:
        """Show an event, or count it as skipped."""
        if self._quiet:
            return
        if isinstance(event, OutputSeen):
            self._progress = event.text if event.progress else ""
            if event.progress:
                return
            if event.stream == "stderr" and self._is_repeated(event):
                return
            rest = self._without_prompt(event)
            if rest is None:
                return
            event = rest
        if self._has_limit:
            limiter = self._important if _is_important(event) else self._routine
            if not limiter.take(self._clock()):
                return
            self._show_skipped()
        self._show(event)

    def tick(self, state: str, at: float) -> None:
        """Write what is there, and bring the line below up to date."""
        self._flush()
        if self._status is not None:
            text = Text(f"{at:.0f} s  {state}", "dim")
            if self._progress:
                text.append("  " + clean_line(self._progress[:200]))
            self._status.update(text)

    def finish(self, summary: Summary) -> None:
        """Show the summary."""
        for event in self._repeated.give_back():
            self._show(event)
        self._show_skipped()
        if self._progress:
            self._line(None, ("", ""), self._progress, "dim")
        self._flush()
        self._hide_status()
        # Where there is no terminal a line stays one line, so that it can be searched for.
        soft_wrap = not self._is_terminal
        for renderable in render_summary(summary, brief=self._quiet):
            self._console.print(renderable, soft_wrap=soft_wrap and isinstance(renderable, Text))

    def _show_status(self) -> None:
        if self._status is not None and not self._has_status:
            self._status.start()
            self._has_status = True

    def _hide_status(self) -> None:
        if self._status is not None and self._has_status:
            self._status.stop()
            self._has_status = False

    def _flush(self) -> None:
        if self._pending:
            lines = _Lines("".join(self._pending))
            self._pending.clear()
            self._pending_size = 0
            self._console.print(lines, soft_wrap=True, end="")

    def _show_skipped(self) -> None:
        skipped = self._routine.take_skipped() + self._important.take_skipped()
        if skipped:
            self._line(None, ("", ""), f"… {skipped:,} skipped, more than can be shown", "dim")

    def _show_prompt(self, event: PromptSeen) -> None:
        """Show the unfinished line without a spinner below, which would write over the answer."""
        self._flush()
        stream, before = self._prompt
        if stream == event.stream and event.text.startswith(before):
            text = clean_line(event.text[len(before) :])
        else:
            self._end_prompt()
            text = f"{_when(event)}{event.stream:<12} {clean_line(event.text)}"
        self._hide_status()
        self._prompt = (event.stream, event.text)
        self._console.print(_Lines(text), soft_wrap=True, end="")

    def _end_prompt(self, *, has_answer: bool = False) -> None:
        if self._prompt[1]:
            self._prompt = ("", "")
            # On a terminal, who answered has ended the line.
            if not (has_answer and self._is_terminal):
                self._console.print(_Lines("\n"), soft_wrap=True, end="")
            self._show_status()

    def _without_prompt(self, event: OutputSeen) -> OutputSeen | None:
        """What is left to show of a line whose beginning is shown; None for nothing."""
        stream, before = self._prompt
        if not before or stream != event.stream or not event.text.startswith(before):
            return event
        rest = event.text[len(before) :]
        self._end_prompt(has_answer=bool(rest))
        return event._replace(text=rest) if rest else None

    def _is_repeated(self, event: OutputSeen) -> bool:
        """Whether the line is part of the traceback that ``closed`` has just shown."""
        self._stderr.append(event.text)
        del self._stderr[:-STDERR_LINES]
        is_repeated, others = self._repeated.take(event)
        for other in others:
            self._show(other)
        return is_repeated

    def _show(self, event: Event) -> None:
        if isinstance(event, MessageSeen):
            self._shown[event.message["method"]](event, event.message["params"])
            if event.note:
                self._line(None, ("note", "yellow"), event.note, "yellow")
        elif isinstance(event, LineRefused):
            rule, detail = event.refused
            label = ("REFUSED", "bold red")
            self._line(event, label, f"line {event.line}, rule {rule}: {detail}", "red")
            effect = event.refused.effect
            # The reader stops once.
            if effect != "reader-stops" or not self._has_told_effect:
                self._line(None, ("", ""), f"{EFFECTS[effect]}.", "red")
            self._has_told_effect |= effect == "reader-stops"
        elif isinstance(event, OutputSeen):
            self._line(event, (event.stream, "dim"), event.text, "dim")
        elif isinstance(event, PromptSeen):
            self._show_prompt(event)
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
        lines = "\n".join(traceback_lines(exception)).split("\n")
        if _ends_with(self._stderr, lines):
            text = f"The session is closed with an exception, see above: {lines[-1]}"
            self._line(event, ("closed", "bold red"), text)
            return
        self._line(event, ("closed", "bold red"), "The session is closed with an exception:")
        self._line(None, ("", ""), "\n".join(lines), "red", lines=200)
        if event.at is not None:
            self._repeated = _Repeated(lines)

    def _log(self, event: MessageSeen, params: Mapping[str, Any]) -> None:
        name = level_name(params.get("level", "INFO"))
        style = LEVEL_STYLES.get(name, "cyan")
        body_style = style if name in IMPORTANT_LEVELS else ""
        self._line(event, (name, style), params["message"], body_style)

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
            self._flush()
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
        self._end_prompt()
        name, label_style = label
        body = excerpt(text, characters=10_000, lines=lines)
        if self._is_terminal:
            body = _wrap(body, self._console.width - MARGIN)
        if "\n" in body:
            body = body.replace("\n", "\n" + " " * MARGIN)
        head = _when(event)
        tag = f"{name if name in LEVEL_STYLES else clean_line(name)[:12]:<12} "
        if self._colors is not None:
            head = _style("dim").render(head, color_system=self._colors)
            tag = _style(label_style).render(tag, color_system=self._colors)
            body = _style(style).render(body, color_system=self._colors)
        self._pending.append(f"{head}{tag}{body}\n")
        self._pending_size += len(body) + MARGIN
        if self._pending_size >= BLOCK:
            self._flush()


STDERR_LINES = 1_000
"""Lines of stderr that a traceback is looked for in."""


class _Repeated:
    """Finds the traceback that a process prints after it has sent it.

    Args:
        lines: The traceback.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._held: list[OutputSeen] = []  # what has matched so far

    def take(self, event: OutputSeen) -> tuple[bool, list[OutputSeen]]:
        """Whether the line is to be held back, and what is to be shown after all."""
        if not self._lines:
            return False, []
        if event.text == self._lines[len(self._held)]:
            self._held.append(event)
            if len(self._held) == len(self._lines):
                self._lines, self._held = (), []
            return True, []
        held, self._held = self._held, []
        if held and event.text == self._lines[0]:
            self._held.append(event)
            return True, held
        return False, held

    def give_back(self) -> list[OutputSeen]:
        """What was held back and turned out to be something else."""
        held, self._held = self._held, []
        return held


def _ends_with(lines: list[str], end: list[str]) -> bool:
    """Whether these lines are there, one after the other; what follows them may be anything."""
    last = len(lines) - len(end)
    return any(lines[start : start + len(end)] == end for start in range(last, -1, -1))


def _wrap(text: str, width: int) -> str:
    """Break lines between words, as far as words fit."""
    if width < 20 or (len(text) <= width and text.isascii()):
        return text
    return "\n".join(part for line in text.split("\n") for part in _wrapped(line, width))


def _wrapped(line: str, width: int) -> Iterator[str]:
    while cell_len(line) > width:
        # No character is less than one cell wide, but those that combine with others.
        cut = line.rfind(" ", 0, width + 1)
        while cut > 0 and cell_len(line[:cut]) > width:
            cut = line.rfind(" ", 0, cut)
        if cut <= 0 or not line[:cut].strip():
            break  # the terminal breaks the word
        yield line[:cut]
        line = line[cut + 1 :]
    yield line


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
            return level_name(params.get("level", "INFO")) in IMPORTANT_LEVELS
        return bool(method != "log_external_stream")
    return isinstance(event, (LineRefused, Notice, PromptSeen))
