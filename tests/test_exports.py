"""The public names: complete, importable, and those of `dagster_pipes` where they mean something."""

from __future__ import annotations

import inspect
import subprocess
import sys

import dagster_pipes
import pytest

import dagsterpipes
import dagsterpipes.typing


def test_every_name_of_the_reference_that_means_something_is_here() -> None:
    """A script needs to change its import only."""
    names = {
        name
        for name, value in vars(dagster_pipes).items()
        if getattr(value, "__module__", "dagster_pipes") == "dagster_pipes"
        and not name.startswith("_")
        and name != "TYPE_CHECKING"
        and (name.isupper() or name.startswith(("Pipes", "T_", "open_", "encode_", "decode_")))
    } | {"Method", "to_asset_key_path", "from_asset_key_path"}
    assert len(names) > 50
    assert names <= set(dagsterpipes.__all__)


def test_every_public_name_can_be_imported() -> None:
    """Also those that are imported late; each is listed once."""
    for name in dagsterpipes.__all__:
        assert getattr(dagsterpipes, name) is not None
    assert len(set(dagsterpipes.__all__)) == len(dagsterpipes.__all__)
    assert dir(dagsterpipes) == sorted(dagsterpipes.__all__)


def test_the_options_have_one_list_of_names() -> None:
    """Functions that hand them on are told of each, with its type."""
    parameters = inspect.signature(dagsterpipes.open_dagster_pipes).parameters
    options = dagsterpipes.typing.SessionOptions.__annotations__
    assert {name: one.annotation for name, one in parameters.items()} == {
        name: getattr(kind, "__forward_arg__", kind) for name, kind in options.items()
    }


def test_a_writer_that_only_the_reference_has_is_pointed_to() -> None:
    """The error says what to do."""
    with pytest.raises(AttributeError, match="pass an instance of that one to open_dagster_pipes"):
        _ = dagsterpipes.PipesFutureMessageWriter
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = dagsterpipes.nonsense
    with pytest.raises(ImportError, match="pass an instance of that one to open_dagster_pipes"):
        from dagsterpipes import PipesFutureMessageWriter  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from dagsterpipes import nonsense  # noqa: F401


def test_importing_takes_only_what_every_script_needs() -> None:
    """No event loop, no optional package, nothing heavy of the standard library."""
    heavy = [
        "asyncio",
        "anyio",
        "aiofiles",
        "trio",
        "rich",
        "click",
        "numpy",
        "pandas",
        "dataclasses",
        "inspect",
        "subprocess",
        "tempfile",
        "concurrent.futures",
        "multiprocessing",
        "argparse",
        "socket",
        "ssl",
        "typing_extensions",
    ]
    code = f"import sys, dagsterpipes; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert loaded.strip() == "[]"
