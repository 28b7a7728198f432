"""Values of options that are more than a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dagsterpipes.cli.commands import parse_extras, parse_timestamp, read_json_object
from dagsterpipes.exceptions import ContextError

if TYPE_CHECKING:
    from pathlib import Path


def test_parse_timestamp() -> None:
    """ISO timestamps are written as Dagster writes them."""
    assert parse_timestamp("2024-01-01T00:00:00Z") == "2024-01-01T00:00:00+00:00"
    assert parse_timestamp("2024-01-02 00:00:00+01:00") == "2024-01-02T00:00:00+01:00"
    assert parse_timestamp("2024-01-02") == "2024-01-02T00:00:00+00:00"
    assert parse_timestamp("2024-01-02T03:00") == "2024-01-02T03:00:00+00:00"


@pytest.mark.parametrize("text", ["x", "2024-13-01", "1"])
def test_parse_timestamp_errors(text: str) -> None:
    """What is no moment is refused in words, with what would be one."""
    with pytest.raises(ContextError) as error:
        parse_timestamp(text)
    assert str(error.value) == (
        "A time window needs ISO 8601 dates or timestamps, such as 2026-01-31 or"
        f" 2026-01-31T12:00:00+01:00; got '{text}'."
    )


def test_parse_extras() -> None:
    """After = comes text as it is, after := JSON; the last one of a key counts."""
    assert parse_extras(["a=1", "b:=1.5", "c=x=y", "d:={}", "e=", "a=2", "f:=null"]) == {
        "a": "2",
        "b": 1.5,
        "c": "x=y",
        "d": {},
        "e": "",
        "f": None,
    }


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("a", "An extra is given as key=text or key:=json; got 'a'."),
        ("=a", "An extra is given as key=text or key:=json; got '=a'."),
        (":=1", "An extra is given as key=text or key:=json; got ':=1'."),
        ("a:=x", "The extra a is not JSON: Expecting value: line 1 column 1 (char 0)."),
    ],
)
def test_parse_extras_errors(assignment: str, problem: str) -> None:
    """An assignment that cannot be read is refused in words."""
    with pytest.raises(ContextError) as error:
        parse_extras([assignment])
    assert str(error.value) == problem


def test_read_json_object(tmp_path: Path) -> None:
    """A file with a JSON object is read, whether an editor put a byte order mark there or not."""
    file = tmp_path / "extras.json"
    file.write_text('\ufeff{"a": "é"}', encoding="utf-8")
    assert read_json_object(file) == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]", "must hold a JSON object; got []."),
        (b"{", "is not JSON: "),
        (b"\xff", "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (None, "cannot be read: No such file or directory."),
    ],
)
def test_read_json_object_errors(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """A file that cannot be read as an object is refused with its name."""
    file = tmp_path / "extras.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ContextError) as error:
        read_json_object(file)
    assert str(error.value).startswith(f"{file} {problem}")
