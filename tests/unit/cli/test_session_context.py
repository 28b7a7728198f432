"""The context of a local run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes.cli.session_context import build_context, parse_extras, read_json_object
from dagsterpipes.exceptions import ContextError

if TYPE_CHECKING:
    from pathlib import Path


def test_an_op() -> None:
    """Without assets every key of Dagster is there, as for an op."""
    context: dict[str, object] = {**build_context({})}
    assert str(UUID(str(context["run_id"]))) == context.pop("run_id")
    assert context == {
        "asset_keys": None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "job_name": None,
        "retry_number": 0,
        "extras": {},
    }


def test_assets() -> None:
    """Assets are sorted by their parts, once each, with their versions where these are known."""
    base = {"code_version_by_asset_key": {"a/b": "v1", "zz": "v2"}}
    context = build_context(base, asset_keys=["a-c", "a/b", "a/b"])
    assert context["asset_keys"] == ["a/b", "a-c"]
    assert context["code_version_by_asset_key"] == {"a/b": "v1", "a-c": None}
    assert context["provenance_by_asset_key"] == {"a/b": None, "a-c": None}


def test_partition() -> None:
    """A partition is its own range, as Dagster sends it."""
    context = build_context({}, partition="2024-01-01")
    assert context["partition_key"] == "2024-01-01"
    assert context["partition_key_range"] == {"start": "2024-01-01", "end": "2024-01-01"}
    assert context["partition_time_window"] is None


def test_partition_range() -> None:
    """Several partitions have no single key; a range of one has."""
    context = build_context({}, partition_range=("a", "c"))
    assert context["partition_key"] is None
    assert context["partition_key_range"] == {"start": "a", "end": "c"}
    assert build_context({}, partition_range=("a", "a"))["partition_key"] == "a"


def test_time_window() -> None:
    """A time window is given as ISO timestamps and written as Dagster writes them."""
    window = ("2024-01-01T00:00:00Z", "2024-01-02 00:00:00+01:00")
    assert build_context({}, time_window=window)["partition_time_window"] == {
        "start": "2024-01-01T00:00:00+00:00",
        "end": "2024-01-02T00:00:00+01:00",
    }


def test_options_override_the_base() -> None:
    """What is given by itself wins over the base, and extras are merged."""
    base = {
        "run_id": "r",
        "job_name": "j",
        "retry_number": 3,
        "asset_keys": ["x"],
        "extras": {"a": 1, "b": 2},
        "partition_key": "p",
        "more": "kept",
    }
    assert {**build_context(base)} == {**build_context({}), **base}
    context = build_context(
        base, run_id="r2", job_name="j2", retry_number=0, asset_keys=["y"], extras={"b": 3}
    )
    assert context["run_id"] == "r2"
    assert context["job_name"] == "j2"
    assert context["retry_number"] == 0
    assert context["asset_keys"] == ["y"]
    assert context["extras"] == {"a": 1, "b": 3}
    assert check_context_data(context, "The context") == context


def test_null_extras_in_the_base() -> None:
    """A base whose extras are null has none."""
    assert build_context({"extras": None})["extras"] == {}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"base": {"extras": [1]}}, "wrong value under the key `extras`"),
        ({"base": {"retry_number": "1"}}, "wrong value under the key `retry_number`"),
        ({"asset_keys": [""]}, "An asset key must name an asset; got ''."),
        (
            {"partition": "a", "partition_range": ("a", "b")},
            "Give a partition or a range of partitions, not both.",
        ),
        ({"time_window": ("x", "y")}, "A time window needs ISO 8601 timestamps: "),
        (
            {"time_window": ("2024-01-01", "2024-01-02")},
            "timestamps with an offset, such as 2024-01-01+00:00; got '2024-01-01'.",
        ),
    ],
)
def test_errors(arguments: dict[str, object], problem: str) -> None:
    """What Dagster could not send is refused in words."""
    with pytest.raises(ContextError) as error:
        build_context(**{"base": {}, **arguments})  # type: ignore[arg-type]  # cases of one shape
    assert problem in str(error.value)


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
