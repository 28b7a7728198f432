"""The output of a command, cut into lines."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes.cli.child import LONGEST, Child, OutputLine, OutputLines


def lines_of(*pieces: bytes) -> list[OutputLine]:
    lines = OutputLines("stdout")
    given = [line for piece in pieces for line in lines.feed(piece)]
    return [*given, *lines.feed(b"", final=True)]


def line(text: str, *, progress: bool = False) -> OutputLine:
    return OutputLine("stdout", text, progress)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"a\n\nb\n"], [line("a"), line(""), line("b")]),
        ([b"a\r\nb\r", b"\nc"], [line("a"), line("b"), line("c")]),
        ([b"10%\r20%\r", b"done\n"], [line("10%", progress=True), line("20%", progress=True), line("done")]),
        ([b"\r10%", b"\r20%"], [line("10%", progress=True), line("20%")]),
        ([b"50%\r"], [line("50%", progress=True)]),
        (["é".encode()[:1], "é".encode()[1:] + b"\n"], [line("é")]),
        ([b"\xffa\n"], [line("\ufffda")]),
        ([b"\xc3"], [line("\ufffd")]),
        ([], []),
    ],
)  # fmt: skip
def test_lines(pieces: list[bytes], expected: list[OutputLine]) -> None:
    """Output is split at newlines and carriage returns, whichever way its bytes arrive."""
    assert lines_of(*pieces) == expected


def test_a_line_without_end() -> None:
    """Output that never ends its line is given in parts, so that it needs bounded memory."""
    lines = OutputLines("stdout")
    parts = [part for _ in range(40) for part in lines.feed(b"x" * (LONGEST // 10))]
    assert 3 <= len(parts) <= 4
    assert all(len(part.text) > LONGEST for part in parts)


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\xc3\xa9", b"\xff"]), max_size=12),
    st.integers(0, 20),
)
def test_cutting_changes_nothing(tokens: list[bytes], cut: int) -> None:
    """The lines are the same however the bytes are cut, but for progress that grows."""
    whole = b"".join(tokens)
    assert lines_of(whole[:cut], whole[cut:]) == lines_of(whole)


def drain(child: Child) -> list[OutputLine]:
    given: list[OutputLine] = []
    deadline = time.monotonic() + 30
    while not child.output_ended or child.exit_code is None:
        given += child.output()
        assert time.monotonic() < deadline
    return [*given, *child.output()]


def test_a_command_that_writes_to_both_streams() -> None:
    """Both streams are read to their ends, and the exit code is known."""
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    child = Child([sys.executable, "-c", script], os.environ)
    given = drain(child)
    assert sorted(given) == [OutputLine("stderr", "err", False), OutputLine("stdout", "out", False)]
    assert child.exit_code == 7


def test_more_output_than_a_pipe_holds() -> None:
    """A command that writes much is neither blocked for good nor cut."""
    script = "import sys; sys.stdout.write('x' * 99 + '\\n'); sys.stdout.write(('y' * 99 + '\\n') * 50_000)"
    given = drain(Child([sys.executable, "-c", script], os.environ))
    assert len(given) == 50_001
    assert given[0].text == "x" * 99


def test_output_comes_in_portions() -> None:
    """One call gives no more than what may wait, so that a flood does not hold the caller."""
    child = Child([sys.executable, "-c", "print('x' * 40_000_000)"], os.environ)
    deadline = time.monotonic() + 30
    while not child._chunks.full():
        assert time.monotonic() < deadline
    portion = sum(len(line.text) for line in child.output())
    assert 0 < portion < 40_000_000
    assert portion + sum(len(line.text) for line in drain(child)) == 40_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_reaches_the_whole_group() -> None:
    """What the command has started gets the signal too, and afterwards a signal does nothing."""
    child = Child(["sh", "-c", "sleep 60; echo never"], os.environ)
    child.signal(signal.SIGTERM)
    drain(child)
    assert child.exit_code == -signal.SIGTERM
    child.signal(signal.SIGTERM)


def test_a_command_that_does_not_exist() -> None:
    """What cannot be started is an error of the system."""
    with pytest.raises(OSError, match="no-such-command"):
        Child(["no-such-command"], os.environ)
