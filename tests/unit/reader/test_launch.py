"""A launch: its context, files and variables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.launch_params import decode_params
from dagsterpipes._reader.launch import bootstrap_env, build_context
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
    """The ends of a partition of time are sent as they are given."""
    window = ("2024-01-01T00:00:00+00:00", "2024-01-02T00:00:00+01:00")
    assert build_context(time_window=window)["partition_time_window"] == {
        "start": window[0],
        "end": window[1],
    }


def test_a_step_of_checks_only() -> None:
    """It has assets, but none of them: other than an op."""
    assert build_context(asset_keys=[])["asset_keys"] == []


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
    ],
)
def test_errors(arguments: dict[str, object], problem: str) -> None:
    """What Dagster could not send is refused in words."""
    with pytest.raises(ContextError) as error:
        build_context(**{"base": {}, **arguments})  # type: ignore[arg-type]  # cases of one shape
    assert problem in str(error.value)


@pytest.mark.parametrize("include_stdio", [True, False])
def test_bootstrap_env(tmp_path: Path, include_stdio: bool) -> None:
    """The variables lead to the context, whole, and to an empty messages file."""
    context = build_context({}, asset_keys=["a"], extras={"é": [1]})
    messages = tmp_path / "messages"
    messages.write_text("old")
    env = bootstrap_env(context, tmp_path, messages, include_stdio=include_stdio)
    assert sorted(env) == ["DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"]
    params = {name: decode_params(value, source=name) for name, value in env.items()}
    assert params["DAGSTER_PIPES_MESSAGES"] == {
        "path": str(messages),
        "include_stdio_in_messages": include_stdio,
    }
    assert messages.read_text() == ""
    written = tmp_path / "context"
    assert params["DAGSTER_PIPES_CONTEXT"] == {"path": str(written)}
    assert json.loads(written.read_text(encoding="utf-8")) == context


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that changes its folder still finds its files."""
    monkeypatch.chdir(tmp_path)
    here = type(tmp_path)()
    env = bootstrap_env(build_context({}), here, here / "messages", include_stdio=False)
    for name, value in env.items():
        assert decode_params(value, source=name)["path"].startswith(str(tmp_path))
