"""A session on a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dagsterpipes._protocol.exception_info import exception_payload
from dagsterpipes._reader.rules import Refused
from dagsterpipes.cli.events import (
    Event,
    LineRefused,
    MessageSeen,
    Notice,
    OutputGuard,
    OutputSeen,
    PromptSeen,
    Summary,
)
from dagsterpipes.cli.live_view import (
    LiveView,
    RateLimiter,
    open_console,
    traceback_lines,
)
from dagsterpipes.cli.session_report import SessionReport


def test_so_many_lines_pass_in_a_second() -> None:
    """The lines over the rate are counted until somebody asks, and the next second is fresh."""
    limiter = RateLimiter(3)
    assert [limiter.take(10.0 + i / 10) for i in range(5)] == [True, True, True, False, False]
    assert limiter.take_skipped() == 2
    assert limiter.take_skipped() == 0
    assert not limiter.take(10.9)
    assert limiter.take(11.0)
    assert limiter.take_skipped() == 1


def test_no_bound() -> None:
    """A rate of 0 lets everything pass."""
    limiter = RateLimiter(0)
    assert all(limiter.take(0.0) for _ in range(1000))
    assert limiter.take_skipped() == 0


class BreakingView:
    """A view that cannot write after so many calls."""

    def __init__(self, good_calls: int) -> None:
        self._left = good_calls
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if not self._left:
            raise BrokenPipeError
        self._left -= 1

    def show(self, event: Event) -> None:
        self._call("show")

    def tick(self, state: str, at: float, /) -> None:
        self._call("tick")

    def finish(self, summary: Summary) -> None:
        self._call("finish")


@pytest.mark.parametrize(
    "good_calls",
    [
        pytest.param(0, id="show breaks"),
        pytest.param(1, id="tick breaks"),
        pytest.param(2, id="finish breaks"),
        pytest.param(3, id="a late tick breaks"),
    ],
)
def test_a_view_that_breaks_is_used_no_more(good_calls: int) -> None:
    """The call that fails is the last one, is announced once, and raises nothing."""
    broken: list[bool] = []
    view = BreakingView(good_calls)
    guard = OutputGuard(view, lambda: broken.append(True))
    guard.show(Notice(None, "words"))
    guard.tick("state", 1.0)
    guard.finish(SessionReport().finish())
    guard.tick("state", 1.0)
    guard.finish(SessionReport().finish())
    guard.show(Notice(None, "words"))
    expected = ["show", "tick", "finish", "tick"]
    assert view.calls == expected[: good_calls + 1]
    assert broken == [True]


def test_a_full_disk_is_an_error() -> None:
    """Unlike a reader that is gone, it is kept for the exit status."""

    class Full(BreakingView):
        def tick(self, state: str, at: float, /) -> None:
            raise OSError(28, "No space left on device")

    full, gone = OutputGuard(Full(9), lambda: None), OutputGuard(BreakingView(0), lambda: None)
    for guard in (full, gone):
        guard.tick("state", 1.0)
    assert full.error is not None
    assert gone.error is None


def link(message: str, name: str | None = "E", **more: Any) -> dict[str, Any]:
    return {"message": message, "stack": [], "name": name, "cause": None, "context": None, **more}


FRAME = '  File "x.py", line 1, in f\n    boom()\n'


def test_with_a_stack() -> None:
    """Frames come under Python's heading, the exception itself below them."""
    assert list(traceback_lines(link("bad", stack=[FRAME]))) == [
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in f',
        "    boom()",
        "E: bad",
    ]


def test_without_a_stack() -> None:
    """An exception of a language without frames is its name and message."""
    assert list(traceback_lines(link("bad\nworse", None))) == ["bad", "worse"]
    assert list(traceback_lines(link(""))) == ["E"]


def test_the_name_is_shown_once() -> None:
    """A message that holds the name already, as dagster_pipes sends it, stays as it is."""
    assert list(traceback_lines(link("E: bad\n"))) == ["E: bad"]


def test_the_cause_comes_first() -> None:
    """As in Python: the cause, or else what was being handled, stands above."""
    chain = link("c", cause=link("b", context=link("a"), cause=None), context=link("unused"))
    assert list(traceback_lines(chain)) == [
        "E: a",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "E: b",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "E: c",
    ]


def test_a_long_chain_is_cut() -> None:
    """Of a very long chain the latest links are shown."""
    chain = link("0")
    for number in range(1, 300):
        chain = link(str(number), cause=chain)
    lines = list(traceback_lines(chain))
    assert lines[:2] == ["(280 earlier exceptions are not shown)", "E: 280"]
    assert lines[-1] == "E: 299"


def test_our_own_payload() -> None:
    """What this library sends reads as Python's own traceback, ending once with the exception."""
    try:
        raise ValueError("bad")
    except ValueError as error:
        lines = list(traceback_lines({**exception_payload(error)}))
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: bad"
    assert lines.count("ValueError: bad") == 1


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides about colours or width."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def seen(method: str, params: Any, *, at: float | None = 1.5, note: str = "") -> MessageSeen:
    return MessageSeen(at, 7, {"method": method, "params": params}, note)


def log(text: str, level: str | int = "INFO") -> MessageSeen:
    return seen("log", {"message": text, "level": level})


def shown(*events: Event, rate: int = 0, quiet: bool = False) -> list[str]:
    out = io.StringIO()
    view = LiveView(open_console(out, no_color=False), Clock(), rate=rate, quiet=quiet)
    for event in events:
        view.show(event)
    view.tick("state", 2.0)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        pytest.param(log("hello"), ["  1.50 INFO         hello"], id="a text"),
        pytest.param(log("two\nlines", "warn"), ["  1.50 WARNING      two", " " * 20 + "lines"], id="several lines"),
        pytest.param(log("odd", 15), ["  1.50 LEVEL 15     odd"], id="a level of its own"),
        pytest.param(log("[bold]not markup[/bold] :smile:"), ["  1.50 INFO         [bold]not markup[/bold] :smile:"], id="no markup"),
        pytest.param(seen("log", {"message": "m"}, at=None), ["     7 INFO         m"], id="a log without a level"),
        pytest.param(seen("opened", {"extras": {}}), ["  1.50 opened       The session is open."], id="opened"),
        pytest.param(seen("opened", None), ["  1.50 opened       The session is open."], id="opened without params"),
        pytest.param(seen("opened", {"extras": {"a": 1}}, note="odd"),
            ["  1.50 opened       The session is open.", " " * 20 + '{"a": 1}', "       note         odd"], id="opened with extras and a note"),
        pytest.param(seen("closed", {}), ["  1.50 closed       The session is closed."], id="closed"),
        pytest.param(seen("closed", None), ["  1.50 closed       The session is closed."], id="closed without params"),
        pytest.param(seen("closed", {"exception": {"message": "m", "name": "E", "stack": [], "cause": None, "context": None}}),
            ["  1.50 closed       The session is closed with an exception:", " " * 20 + "E: m"], id="closed with an exception"),
        pytest.param(seen("log_external_stream", {"stream": "stdout", "text": "a\nb\n"}), ["  1.50 stdout       a", " " * 20 + "b"], id="external stream"),
        pytest.param(seen("report_custom_message", {"payload": {"é": 1}}), ['  1.50 custom       {"é": 1}'], id="custom message"),
        pytest.param(seen("report_asset_materialization", {"asset_key": "a/b", "data_version": "v", "metadata": None}),
            ["  1.50 materialized a/b  data version v"], id="materialization with a data version"),
        pytest.param(seen("report_asset_materialization", {"asset_key": "a", "data_version": None, "metadata": {"k": {"raw_value": 1, "type": "int"}}}),
            ["  1.50 materialized a", " " * 20 + "k  1"], id="materialization with metadata"),
        pytest.param(seen("report_asset_check", {"asset_key": "a", "check_name": "c", "passed": True, "severity": "WARN", "metadata": {}}),
            ["  1.50 passed       check c of a (WARN)"], id="passed check"),
        pytest.param(seen("report_asset_check", {"asset_key": "a", "check_name": "c", "passed": False, "severity": "ERROR", "metadata": {"k": {"raw_value": 1, "type": "int"}}}),
            ["  1.50 failed       check c of a (ERROR)", " " * 20 + "k  1"], id="failed check with metadata"),
        pytest.param(LineRefused(1.5, 9, Refused("json", "why"), "start"),
            ["  1.50 REFUSED      line 9, rule json: why", " " * 20 + "Dagster's reader stops here and loses every later message."], id="refused line"),
        pytest.param(OutputSeen(1.5, "stderr", "text", False), ["  1.50 stderr       text"], id="output"),
        pytest.param(Notice(1.5, "words"), ["  1.50              words"], id="notice"),
        pytest.param(Notice(None, "words"), [" " * 20 + "words"], id="notice without a time"),
    ],
)  # fmt: skip
def test_lines(event: Event, lines: list[str]) -> None:
    """Each event is a line with its time or number, its kind, and what it says."""
    assert shown(event) == lines


def test_long_lines_are_not_wrapped() -> None:
    """Where there is no terminal a line stays one line, so that it can be searched for."""
    assert shown(log("x " * 400)) == ["  1.50 INFO         " + ("x " * 400).rstrip()]


def test_long_messages_are_cut() -> None:
    """A message of megabytes takes a few lines at most, and says what is missing."""
    (line,) = shown(log("x" * 10_000_000))
    assert line.endswith("x … (9,990,000 more characters)")
    lines = shown(log("x\n" * 10_000))
    assert len(lines) == 50


HOSTILE = "\x1b[2J\x9b2J\x1b]0;t\x07\u202e\r\x00\ud800"

HOSTILE_EXCEPTION = {
    "message": HOSTILE,
    "name": HOSTILE,
    "stack": [HOSTILE],
    "cause": None,
    "context": None,
}


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(log(HOSTILE), id="log text"),
        pytest.param(log("m", HOSTILE), id="log level"),
        pytest.param(seen("opened", {"extras": {HOSTILE: HOSTILE}}), id="opened"),
        pytest.param(seen("closed", {"exception": HOSTILE_EXCEPTION}), id="closed"),
        pytest.param(seen("log_external_stream", {"stream": "stdout", "text": HOSTILE}), id="external stream"),
        pytest.param(seen("report_custom_message", {"payload": HOSTILE}), id="custom message"),
        pytest.param(seen("report_asset_materialization", {"asset_key": HOSTILE, "data_version": HOSTILE, "metadata": None}), id="materialization"),
        pytest.param(seen("report_asset_check", {"asset_key": HOSTILE, "check_name": HOSTILE, "passed": True, "severity": "WARN", "metadata": None}), id="check"),
        pytest.param(LineRefused(1.5, 9, Refused("json", HOSTILE), HOSTILE), id="refused line"),
        pytest.param(OutputSeen(1.5, "stdout", HOSTILE, False), id="output"),
        pytest.param(Notice(1.5, HOSTILE), id="notice"),
    ],
)  # fmt: skip
def test_hostile_events(event: Event) -> None:
    """No event gets a control character to the terminal, whichever field it stands in."""
    text = "\n".join(shown(event))
    assert not set(text) & set("\x1b\x9b\x07\u202e\r\x00\ud800")
    text.encode("utf-8")


def test_a_flood_is_counted() -> None:
    """Over the rate only what matters more is shown, with a bound of its own; the rest is counted."""
    out, clock = io.StringIO(), Clock()
    view = LiveView(open_console(out, no_color=False), clock, rate=3)
    for number in range(10):
        view.show(log(f"routine {number}"))
        view.show(OutputSeen(1.5, "stdout", f"output {number}", False))
    view.show(log("careful", "ERROR"))
    clock.now = 1.0
    view.show(log("next second"))
    for number in range(10):
        view.show(LineRefused(1.5, number, Refused("json", f"why {number}"), ""))
    view.finish(SessionReport().finish())
    printed = [line[20:].rstrip() for line in out.getvalue().splitlines()]
    assert printed[: printed.index("next second") + 1] == [
        "routine 0",
        "output 0",
        "routine 1",
        "… 17 skipped, more than can be shown",
        "careful",
        "next second",
    ]
    assert "line 2, rule json: why 2" in printed
    assert "line 3, rule json: why 3" not in printed
    assert "… 7 skipped, more than can be shown" in printed


def test_progress() -> None:
    """Output to be overwritten is not a line of its own; its last state is shown in the end."""
    out = io.StringIO()
    view = LiveView(open_console(out, no_color=False), Clock(), rate=0)
    for text in ("10%", "20%", "30%"):
        view.show(OutputSeen(1.5, "stderr", text, True))
    view.tick("state", 2.0)
    assert out.getvalue() == ""
    view.finish(SessionReport().finish())
    assert out.getvalue().splitlines()[0].strip() == "30%"


TRACEBACK = [
    "Traceback (most recent call last):",
    FRAME.rstrip().split("\n")[0],
    "    boom()",
    "E: bad",
]


def failed_with_a_stack() -> MessageSeen:
    return seen("closed", {"exception": link("bad", stack=[FRAME])})


def stderr(*lines: str) -> list[Event]:
    return [OutputSeen(1.5, "stderr", line, False) for line in lines]


@pytest.mark.parametrize("noise", [[], ["noise"], [TRACEBACK[0], "noise"]])
def test_one_traceback_is_shown_once(noise: list[str]) -> None:
    """Whether a process prints its traceback before or after it is read from the messages."""
    before = shown(*stderr(*noise, *TRACEBACK), failed_with_a_stack())
    after = shown(failed_with_a_stack(), *stderr(*noise, *TRACEBACK))
    for lines in (before, after):
        assert [line[20:] for line in lines].count("E: bad") == 1
        assert "noise" not in noise or "noise" in [line[20:] for line in lines]
    assert before[-1].endswith("The session is closed with an exception, see above: E: bad")


def test_another_traceback_is_shown_too() -> None:
    """What only begins like the traceback of the session is shown, at the end at the latest."""
    out = io.StringIO()
    view = LiveView(open_console(out, no_color=False), Clock(), rate=0)
    other = [*TRACEBACK[:3], "E: another"]
    for event in (failed_with_a_stack(), *stderr(*other, *TRACEBACK[:2])):
        view.show(event)
    view.finish(SessionReport().finish())
    lines = [line[20:].rstrip() for line in out.getvalue().splitlines()]
    assert lines[5:11] == [*other, *TRACEBACK[:2]]


def test_that_the_reader_stops_is_shown_once() -> None:
    """It stops at the first line that it cannot take; the others are lost anyway."""
    refused = LineRefused(1.5, 9, Refused("json", "why"), "start")
    lines = shown(refused, refused)
    assert sum("stops here" in line for line in lines) == 1


def test_a_prompt() -> None:
    """An unfinished line is shown at once, grows, and is not shown again when it ends."""
    lines = shown(
        PromptSeen(1.0, "stdout", "Na"),
        PromptSeen(1.2, "stdout", "Name? "),
        OutputSeen(1.5, "stdout", "Name? Hi Bob", False),
        PromptSeen(1.6, "stdout", ".\x1b[2J"),
        log("between"),
        OutputSeen(1.7, "stdout", ".\x1b[2J.", False),
        PromptSeen(1.8, "stdout", "done"),
        OutputSeen(1.9, "stdout", "done", False),
    )
    assert lines == [
        "  1.00 stdout       Name?",
        "  1.50 stdout       Hi Bob",
        "  1.60 stdout       .\\e[2J",
        "  1.50 INFO         between",
        "  1.70 stdout       .\\e[2J.",
        "  1.80 stdout       done",
    ]


def test_words_stay_whole_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long lines are broken between words; wide characters count as two."""
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    view = LiveView(open_console(out, no_color=True), Clock(), rate=0)
    view.show(log("word " * 20 + "x" * 100))
    view.show(log("日本 " * 12))
    view.tick("state", 1.0)
    view.finish(SessionReport().finish())
    lines = [line for line in out.getvalue().split("\n") if "word" in line or "日本" in line]
    assert [line.count("word") for line in lines] == [8, 8, 4, 0, 0]
    assert [line.count("日本") for line in lines] == [0, 0, 0, 8, 4]


def test_quiet() -> None:
    """When asked to be quiet, only the outcome and the problems are shown."""
    out = io.StringIO()
    view = LiveView(open_console(out, no_color=False), Clock(), rate=0, quiet=True)
    view.show(log("m", "ERROR"))
    view.tick("state", 2.0)
    assert out.getvalue() == ""
    view.finish(SessionReport().finish())
    assert out.getvalue().splitlines()[0] == "✗ The session was never opened"


def test_a_terminal() -> None:
    """On a terminal there are colours, and the state of the session stands below."""
    out = Terminal()
    view = LiveView(open_console(out, no_color=False), Clock(), rate=0)
    view.show(log("careful", "ERROR"))
    view.tick("11 messages", 1.0)
    view.show(OutputSeen(1.5, "stderr", "40%\x1b[2J", True))
    view.tick("12 messages", 2.4)
    view.finish(SessionReport().finish())
    text = out.getvalue()
    assert "\x1b[31mcareful" in text
    assert "2 s  12 messages  40%\\e[2J" in text


def test_no_color_on_a_terminal() -> None:
    """Without colours there is no style at all, not even bold."""
    out = Terminal()
    console = open_console(out, no_color=True)
    view = LiveView(console, Clock(), rate=0)
    view.show(log("careful", "ERROR"))
    view.finish(SessionReport().finish())
    assert "careful" in out.getvalue()
    assert "m" not in {part[-1:] for part in out.getvalue().split("\x1b[")[1:]}
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b[1m" not in out.getvalue()


def test_no_escape_sequence_without_a_terminal() -> None:
    """What goes into a file or a pipe has no escape sequence in it."""
    text = "\n".join(shown(log("careful", "ERROR"), Notice(1.0, "words")))
    assert "\x1b" not in text


class Closed(io.StringIO):
    """A pipe whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_broken_pipe() -> None:
    """That nobody reads any more is left to the caller, and does not end the process."""
    view = LiveView(open_console(Closed(), no_color=False), Clock(), rate=0)
    view.show(log("m"))
    with pytest.raises(BrokenPipeError):
        view.tick("state", 1.0)
