"""Loaders: they find what Dagster gave, keep quiet without it, and explain what they cannot use."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import dagster_pipes
import pytest

from dagsterpipes import loaders
from dagsterpipes._protocol import context_data, launch_params
from dagsterpipes._protocol.launch_params import encode_param
from dagsterpipes.exceptions import ContextError, DagsterPipesError, LaunchParamsError
from dagsterpipes.loaders import (
    PipesCliArgsParamsLoader,
    PipesContextLoader,
    PipesDatabricksNotebookWidgetsParamsLoader,
    PipesDefaultContextLoader,
    PipesEnvVarParamsLoader,
    PipesMappingParamsLoader,
    PipesParamsLoader,
)
from support.launching import CONTEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from dagsterpipes.typing import PipesContextData, PipesParams

DATA = CONTEXT | {"job_name": None, "extras": {"ключ": "é"}}
PARAMS = {"DAGSTER_PIPES_CONTEXT": {"path": "/c"}, "DAGSTER_PIPES_MESSAGES": {"path": "/m"}}
GIVEN = {key: encode_param(value) for key, value in PARAMS.items()}
ADVICE = f" {launch_params.ADVICE}"


class Widgets:
    """Widgets as in a notebook: asking for one that is not there raises."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str:
        if name not in self._values:
            raise RuntimeError(f"InputWidgetNotDefined: No input widget named {name} is defined")
        return self._values[name]


def from_env(values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> PipesParamsLoader:
    for key in PARAMS:
        monkeypatch.delenv(key, raising=False)
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    return PipesEnvVarParamsLoader()


def from_mapping(values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> PipesParamsLoader:
    return PipesMappingParamsLoader(values)


def from_cli(values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> PipesParamsLoader:
    argv = ["job.py", "--help"]
    for key, value in values.items():
        argv += [OPTIONS[key], value]
    monkeypatch.setattr(sys, "argv", argv)
    return PipesCliArgsParamsLoader()


def from_cli_joined(values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> PipesParamsLoader:
    argv = ["job.py", *(f"{OPTIONS[key]}={value}" for key, value in values.items()), "--help"]
    return PipesCliArgsParamsLoader(argv)


def from_widgets(values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> PipesParamsLoader:
    return PipesDatabricksNotebookWidgetsParamsLoader(Widgets(values))


OPTIONS = {
    "DAGSTER_PIPES_CONTEXT": "--dagster-pipes-context",
    "DAGSTER_PIPES_MESSAGES": "--dagster-pipes-messages",
}
SOURCES = {
    from_env: "Environment variable {}",
    from_mapping: "Key {} of the params mapping",
    from_cli: "Command line argument {}",
    from_cli_joined: "Command line argument {}",
    from_widgets: "Notebook widget {}",
}


def source_of(make: Any, key: str) -> str:
    """The first words of an error of the loader that ``make`` makes."""
    return SOURCES[make].format(OPTIONS[key] if make in (from_cli, from_cli_joined) else key)


every_loader = pytest.mark.parametrize("make", list(SOURCES))


# Params loaders


@every_loader
def test_both_values_are_found(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Dagster gave is decoded, each value by its own method."""
    loader = make(GIVEN, monkeypatch)
    assert loader.is_dagster_pipes_process() is True
    assert loader.load_context_params() == {"path": "/c"}
    assert loader.load_messages_params() == {"path": "/m"}


@every_loader
@pytest.mark.parametrize("given", [{}, {"DAGSTER_PIPES_MESSAGES": GIVEN["DAGSTER_PIPES_MESSAGES"]}])
def test_without_the_context_dagster_did_not_launch(
    make: Any, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context's place alone decides, as in the reference; asking does not raise."""
    assert make(given, monkeypatch).is_dagster_pipes_process() is False


@every_loader
def test_a_missing_messages_place_is_an_error(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster was there, so its other value must be: no silent run without Dagster."""
    loader = make({"DAGSTER_PIPES_CONTEXT": GIVEN["DAGSTER_PIPES_CONTEXT"]}, monkeypatch)
    assert loader.is_dagster_pipes_process()
    with pytest.raises(LaunchParamsError) as caught:
        loader.load_messages_params()
    place = source_of(make, "DAGSTER_PIPES_MESSAGES")
    if make is from_widgets:
        assert str(caught.value) == (
            f"{place} cannot be read: RuntimeError: InputWidgetNotDefined: No input widget named"
            " DAGSTER_PIPES_MESSAGES is defined. Dagster passes both DAGSTER_PIPES_CONTEXT and"
            " DAGSTER_PIPES_MESSAGES as base parameters of the notebook: check that the job passes both"
            " on."
        )
    else:
        assert str(caught.value) == f"{place} is missing." + ADVICE


BROKEN = {
    "empty": ("", "is empty."),
    "not base64": ("not base64!", "is not base64 ("),
    "not zlib": ("bm90IHpsaWI=", "is not zlib inside its base64 ("),
    "not UTF-8": ("eJxT+q8EAAKJAUQ=", "is not UTF-8 once decompressed ("),
    "not JSON": ("eJxLVEgCAAHIAOQ=", "is not JSON once decompressed ("),
    "not an object": (
        encode_param([1, 2]),
        "must hold a JSON object; got a value of type list, length 2.",
    ),
}


@every_loader
@pytest.mark.parametrize("key", list(PARAMS))
@pytest.mark.parametrize(("value", "words"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_value_names_its_place(
    make: Any, key: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each loader says in its own terms which of the two values it cannot use, and what to do."""
    loader = make(GIVEN | {key: value}, monkeypatch)
    load = loader.load_context_params if "CONTEXT" in key else loader.load_messages_params
    if make is not from_widgets:
        assert loader.is_dagster_pipes_process()
    with pytest.raises(LaunchParamsError) as caught:
        load()
    assert str(caught.value).startswith(f"{source_of(make, key)} {words}")
    assert str(caught.value).endswith(ADVICE)


@pytest.mark.parametrize("words", [["--dagster-pipes-context"], ["--dagster-pipes-context", "-x"]])
def test_an_option_without_value_is_an_error_of_ours(words: list[str]) -> None:
    """Not a usage message and an exit, as a parser of its own would make it."""
    loader = PipesCliArgsParamsLoader(["job.py", *words])
    assert loader.is_dagster_pipes_process()
    with pytest.raises(LaunchParamsError, match="--dagster-pipes-context has no value"):
        loader.load_context_params()


def test_the_jobs_own_parser_sees_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--help`` shows the job's help, and no argument is taken away."""
    loader = from_cli(GIVEN, monkeypatch)
    before = list(sys.argv)
    loader.is_dagster_pipes_process()
    loader.load_context_params()
    assert sys.argv == before
    assert capsys.readouterr() == ("", "")
    parser = argparse.ArgumentParser(prog="job", description="The job's own help.")
    with pytest.raises(SystemExit):
        parser.parse_known_args()
    assert "The job's own help." in capsys.readouterr().out


def test_an_interpreter_without_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter may have none; then Dagster did not launch by the command line."""
    monkeypatch.delattr(sys, "argv")
    assert not PipesCliArgsParamsLoader().is_dagster_pipes_process()


def test_the_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader made before the variables were set sees them."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    loader = PipesEnvVarParamsLoader()
    assert not loader.is_dagster_pipes_process()
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", GIVEN["DAGSTER_PIPES_CONTEXT"])
    assert loader.load_context_params() == {"path": "/c"}


@pytest.mark.parametrize(
    "widgets",
    [None, Widgets({}), Widgets({"DAGSTER_PIPES_CONTEXT": ""}), {}],
    ids=["none at all", "not defined", "empty", "get gives None"],
)
def test_widgets_are_quiet_outside_dagster(widgets: Any) -> None:
    """A notebook run by hand has no such widget, or an empty one; that is no error."""
    loader = PipesDatabricksNotebookWidgetsParamsLoader(widgets)
    assert loader.is_dagster_pipes_process() is False
    assert loader.widgets is widgets


def test_a_mapping_with_other_values_than_text() -> None:
    """An event that carries the params undecoded is explained."""
    loader = PipesMappingParamsLoader({"DAGSTER_PIPES_CONTEXT": {"path": "/c"}})  # type: ignore[dict-item] # because that is what is tried
    with pytest.raises(LaunchParamsError) as caught:
        loader.load_context_params()
    assert str(caught.value) == (
        "Key DAGSTER_PIPES_CONTEXT of the params mapping must be text; got a value of type"
        " dict, length 1." + ADVICE
    )


# The default context loader


def loaded(params: PipesParams) -> PipesContextData:
    with PipesDefaultContextLoader().load_context(params) as data:
        return data


def test_a_file(tmp_path: Path) -> None:
    """The context is read from the file that ``path`` names, as the reference reads it."""
    path = tmp_path / "context"
    path.write_text(json.dumps(DATA, ensure_ascii=False), encoding="utf-8")
    with dagster_pipes.PipesDefaultContextLoader().load_context({"path": str(path)}) as theirs:
        assert loaded({"path": str(path)}) == theirs == DATA


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Some tools on Windows put one before UTF-8."""
    path = tmp_path / "context"
    path.write_text(json.dumps(DATA), encoding="utf-8-sig")
    assert loaded({"path": str(path)}) == DATA


def test_data_in_the_params() -> None:
    """The context may stand in the params themselves."""
    assert loaded({"data": DATA}) == DATA
    assert loaded({"data": DATA | {"extras": None}})["extras"] == {}


def test_the_path_wins(tmp_path: Path) -> None:
    """With both keys the file is read, as in the reference."""
    path = tmp_path / "context"
    path.write_text(json.dumps(DATA | {"run_id": "of the file"}))
    assert loaded({"path": str(path), "data": DATA})["run_id"] == "of the file"


def test_nothing_stays_open(tmp_path: Path) -> None:
    """The file can be removed while the context is in use."""
    path = tmp_path / "context"
    path.write_text(json.dumps(DATA))
    with PipesDefaultContextLoader().load_context({"path": str(path)}) as data:
        path.unlink()
        assert data["run_id"] == "run"


def test_an_error_of_the_job_passes_through() -> None:
    """The context manager hides nothing that is raised inside it."""
    loader = PipesDefaultContextLoader()
    with pytest.raises(KeyError, match="of the job"), loader.load_context({"data": DATA}):
        raise KeyError("of the job")


UNFIT = [
    (
        {"path": 7},
        (
            "Invalid params for PipesDefaultContextLoader: expected text under the key `path` of"
            " DAGSTER_PIPES_CONTEXT; got a value of type int. Check the context injector on the Dagster side."
        ),
    ),
    (
        {"path": None},
        (
            "Invalid params for PipesDefaultContextLoader: expected text under the key `path` of"
            " DAGSTER_PIPES_CONTEXT; got a value of type NoneType. Check the context injector on the"
            " Dagster side."
        ),
    ),
    (
        {"data": "{}"},
        (
            "Invalid params for PipesDefaultContextLoader: expected an object under the key `data` of"
            " DAGSTER_PIPES_CONTEXT; got a value of type str, length 2. Check the context injector on the Dagster"
            " side."
        ),
    ),
    (
        {"bucket": "b", "key": "k"},
        (
            "Invalid params for PipesDefaultContextLoader: expected the key `path` or `data` in"
            " DAGSTER_PIPES_CONTEXT; got the keys ['bucket', 'key']. The key `bucket` is that of an object"
            " store: use PipesS3ContextLoader, PipesGCSContextLoader or PipesAzureBlobStorageContextLoader,"
            " whichever the Dagster side uses, for example `open_dagster_pipes("
            'context_loader=PipesS3ContextLoader(boto3.client("s3")))`.'
        ),
    ),
    (
        {},
        (
            "Invalid params for PipesDefaultContextLoader: expected the key `path` or `data` in"
            " DAGSTER_PIPES_CONTEXT; got the keys []. The context injector on the Dagster side may"
            " expect another context loader: pass it as `context_loader` to `open_dagster_pipes`."
        ),
    ),
]


@pytest.mark.parametrize(("params", "message"), UNFIT)
def test_unfit_params_are_explained(params: dict[str, Any], message: str) -> None:
    """Params of another loader, or of wrong types, give an error that says which to use."""
    with pytest.raises(LaunchParamsError) as caught:
        loaded(params)
    assert str(caught.value) == message


READ_ADVICE = (
    " DAGSTER_PIPES_CONTEXT names it: check that this process sees the file system of the one that"
    " launched it, with the right to read it, and that the Dagster run is still going on."
)
WRITE_ADVICE = " Dagster writes it before it launches the process: check what else writes there."
DATA_ADVICE = f" {context_data.ADVICE}"
CONTENTS = {
    "empty": (
        b"",
        "is not JSON (Expecting value: line 1 column 1 (char 0)); got 0 bytes." + WRITE_ADVICE,
    ),
    "half written": (
        b'{"asset_keys": [',
        "is not JSON (Expecting value: line 1 column 17 (char 16)); got 16 bytes." + WRITE_ADVICE,
    ),
    "not UTF-8": (
        b'{"run_id": "\xe9"}',
        "is not UTF-8 (invalid continuation byte at byte 12); got 15 bytes." + WRITE_ADVICE,
    ),
    "not an object": (
        b"[1]",
        "must hold a JSON object; got a value of type list, length 1." + DATA_ADVICE,
    ),
    "null": (b"null", "must hold a JSON object; got a value of type NoneType." + DATA_ADVICE),
    "lacking keys": (
        b'{"run_id": "run"}',
        "lacks the required key `asset_keys`; got a value of type dict, length 1." + DATA_ADVICE,
    ),
    "wrong types": (
        json.dumps(DATA | {"retry_number": "0"}).encode(),
        "has a wrong value under the key `retry_number`: expected an integer; got a value of type str, length 1."
        + DATA_ADVICE,
    ),
}


@pytest.mark.parametrize(("content", "words"), CONTENTS.values(), ids=CONTENTS)
def test_an_unusable_file_is_explained(content: bytes, words: str, tmp_path: Path) -> None:
    """The error names the file, what is wrong with it, what was got and what to do."""
    path = tmp_path / "context"
    path.write_bytes(content)
    with pytest.raises(ContextError) as caught:
        loaded({"path": str(path)})
    assert str(caught.value) == f"The context file {str(path)!r} {words}"


def test_a_deeply_nested_file_is_explained(tmp_path: Path) -> None:
    """Nesting beyond Python's own limit is an error of ours."""
    path = tmp_path / "context"
    path.write_text("[" * 100_000)
    with pytest.raises(ContextError, match="is not JSON"):
        loaded({"path": str(path)})


def test_a_file_that_is_missing_or_a_folder_is_explained(tmp_path: Path) -> None:
    """The error names the path and what the system said."""
    for path, reason in (
        (str(tmp_path / "none"), "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        ("", "No such file or directory"),
        ("a\0b", "embedded null byte"),
        ("x" * 5000, "File name too long"),
    ):
        with pytest.raises(ContextError) as caught:
            loaded({"path": path})
        assert str(caught.value) == (
            f"The context file {path!r} cannot be read: {reason}." + READ_ADVICE
        )
        assert caught.value.__cause__ is not None


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_without_the_right_to_read_is_explained(tmp_path: Path) -> None:
    """Permission is named as the reason."""
    path = tmp_path / "context"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(ContextError, match="cannot be read: Permission denied"):
        loaded({"path": str(path)})


def test_broken_data_in_the_params_is_explained() -> None:
    """For a context in the params, the error names that place."""
    with pytest.raises(ContextError) as caught:
        loaded({"data": DATA | {"run_id": 7}})
    assert str(caught.value) == (
        "The context under the key `data` of DAGSTER_PIPES_CONTEXT has a wrong value under the key"
        " `run_id`: expected text; got a value of type int." + DATA_ADVICE
    )


# Loaders of the user's own


async def test_base_classes_are_for_sync_and_async_loaders() -> None:
    """A loader written with either kind of context manager is a ``PipesContextLoader``."""

    class Sync(PipesContextLoader):
        @contextmanager
        def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
            yield params["d"]

    class Async(PipesContextLoader):
        @asynccontextmanager
        async def load_context(self, params: PipesParams) -> AsyncIterator[PipesContextData]:
            yield params["d"]

    with Sync().load_context({"d": DATA}) as data:
        assert data == DATA
    async with Async().load_context({"d": DATA}) as data:
        assert data == DATA


@pytest.mark.parametrize("base", [PipesParamsLoader, PipesContextLoader])
def test_base_classes_want_their_methods(base: type) -> None:
    """Forgetting one is noticed when the loader is made."""
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_names_and_methods_are_those_of_the_reference() -> None:
    """Every loader here exists there, with the same methods and constants."""
    for name in loaders.__all__:
        ours, theirs = getattr(loaders, name), getattr(dagster_pipes, name)
        public = {key for key in vars(theirs) if not key.startswith("_")}
        assert public <= set(dir(ours)), name
        for key in public:
            if isinstance(getattr(theirs, key), str):
                assert getattr(ours, key) == getattr(theirs, key)


def test_errors_are_of_one_family() -> None:
    """Whoever catches ``DagsterPipesError`` catches all of them."""
    assert issubclass(LaunchParamsError, DagsterPipesError)
    assert issubclass(ContextError, DagsterPipesError)
