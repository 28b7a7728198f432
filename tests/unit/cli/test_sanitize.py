"""Text from elsewhere, made safe to show."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes.cli.sanitize import clean, clean_line, excerpt


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 😀 \u0939\u093f", "plain é 😀 \u0939\u093f"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("dos\r\nline", "dos\nline"),
        ("\x1b[31mred\x1b[0m and \x1b[1;38;2;1;2;3mtrue\x1b[m", "red and true"),
        ("\x1b[2J", "\\e[2J"),
        ("\x1b]0;title\x07", "\\e]0;title\\a"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x00\x08\x7f", "a\\rb\\0\\b\\x7f"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\u200b\u2028\ufeff\ud800\U000e0041", "\\u200b\\u2028\\ufeff\\ud800\\ue0041"),
        ("\x1b[3\x1b[31m1m", "\\e[31m"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    """Colours are dropped, and whatever else steers a terminal or hides is shown as an escape."""
    assert clean(text) == shown


def test_clean_line() -> None:
    """Where text must stay on a line, newline and tab are escapes too."""
    assert clean_line("a\nb\tc\r\nd") == "a\\nb\\tc\\nd"


@given(st.text())
def test_nothing_unsafe_is_left(text: str) -> None:
    """No text leaves a control, format or surrogate character but tab, newline and joiners."""
    shown = clean(text)
    shown.encode("utf-8")
    for char in set(shown) - set("\t\n"):
        assert unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"}
        assert unicodedata.bidirectional(char) not in {
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        }


def test_every_control_character_is_escaped() -> None:
    """There is no character of category Cc, Cs, Zl or Zp that passes, but tab and newline."""
    categories = {"Cc", "Cs", "Zl", "Zp"}
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) in categories and char not in "\t\n":
            assert clean(char) != char


def test_excerpt() -> None:
    """Long text is cut by characters and by lines, and says how much is left out."""
    assert excerpt("short\ntext", characters=100, lines=2) == "short\ntext"
    assert excerpt("short\n", characters=100, lines=1) == "short"
    assert excerpt("x" * 1500, characters=10, lines=5) == "x" * 10 + " … (1,490 more characters)"
    assert excerpt("a\nb\nc\nd", characters=100, lines=2) == "a\nb … (4 more characters)"
    assert excerpt("\x1b[2Jabc", characters=4, lines=1) == "\\e[2J … (3 more characters)"


def test_excerpt_of_a_cut_escape_sequence() -> None:
    """Cutting an escape sequence in two does not let its first half through."""
    assert excerpt("\x1b[31mred", characters=3, lines=1) == "\\e[3 … (5 more characters)"
