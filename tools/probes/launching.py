"""How a session is launched and opened, and what it knows."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from library import OP_STEP, LibraryUnderTest, Section

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

STARTING = Section("Starting")
CONTEXT = Section("Context")
NO = "\N{EN DASH}"


@STARTING.row("bootstrap values from environment variables", r="yes")
def _(library: LibraryUnderTest) -> str:
    library.close()
    os.environ.update(library.new_launch().env)
    try:
        with library.lib.open_dagster_pipes() as pipes:
            return library.answers(pipes.run_id == "run")
    finally:
        for name in library.launch.env:
            del os.environ[name]
        library.close()


@STARTING.row("… from a mapping (AWS Lambda)", r=NO)
def _(library: LibraryUnderTest) -> str:
    return library.answers(library.open().run_id == "run")


def by_command_line(library: LibraryUnderTest, *words: str) -> str:
    library.close()
    before, sys.argv = sys.argv, ["job.py", *words]
    try:
        loader = library.lib.PipesCliArgsParamsLoader()
        if not loader.is_dagster_pipes_process():
            return "not seen: runs as if outside Dagster"
        with contextlib.redirect_stdout(io.StringIO()):
            problem = library.error(
                lambda: library.lib.open_dagster_pipes(params_loader=loader).close()
            )
        return problem or "yes"
    finally:
        sys.argv = before
        library.close()


def options(library: LibraryUnderTest, joint: str) -> list[str]:
    env = library.new_launch().env
    pairs = [(f"--{name.lower().replace('_', '-')}", value) for name, value in env.items()]
    return (
        joint.join(" ".join(pair) for pair in pairs).split()
        if joint == " "
        else [joint.join(pair) for pair in pairs]
    )


@STARTING.row("… from the command line, `--key value`", r=NO)
def _(library: LibraryUnderTest) -> str:
    return by_command_line(library, *options(library, " "))


@STARTING.row("… from the command line, `--key=value`", r=NO)
def _(library: LibraryUnderTest) -> str:
    return by_command_line(library, *options(library, "="))


@STARTING.row("`--help` for the job itself, with these arguments", r=NO)
def _(library: LibraryUnderTest) -> str:
    outcome = by_command_line(library, "--help", *options(library, " "))
    return "left to the job" if outcome == "yes" else f"prints its own help, {outcome}"


class Widgets:
    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str:
        if name not in self._values:
            raise RuntimeError("InputWidgetNotDefined")
        return self._values[name]


@STARTING.row("… from widgets of a Databricks notebook", r=NO)
def _(library: LibraryUnderTest) -> str:
    widgets = Widgets(library.new_launch().env)
    loader = library.lib.PipesDatabricksNotebookWidgetsParamsLoader(widgets)
    return library.answers(
        loader.load_messages_params()["path"] == str(library.launch.messages_path)
    )


@STARTING.row("such a notebook, run by hand", r=NO)
def _(library: LibraryUnderTest) -> str:
    loader = library.lib.PipesDatabricksNotebookWidgetsParamsLoader(Widgets({}))
    return library.error(loader.is_dagster_pipes_process) or "quiet"


@STARTING.row("a custom params loader", r=NO)
def _(library: LibraryUnderTest) -> str:
    launch = library.new_launch()

    class Own(library.lib.PipesParamsLoader):  # type: ignore[name-defined,misc] # because it is either library's
        def is_dagster_pipes_process(self) -> bool:
            return True

        def load_context_params(self) -> Any:
            return library.lib.decode_param(launch.env["DAGSTER_PIPES_CONTEXT"])

        def load_messages_params(self) -> Any:
            return library.lib.decode_param(launch.env["DAGSTER_PIPES_MESSAGES"])

    return library.answers(library.open({"params_loader": Own()}).run_id == "run")


class AnyLoader:
    """A context loader, for either base class."""

    @contextmanager
    def load_context(self, params: Any) -> Iterator[Any]:
        import json
        from pathlib import Path

        yield json.loads(Path(params["path"]).read_text(encoding="utf-8"))


class AnyChannel:
    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    def write_message(self, message: Any) -> None:
        self._messages.append(message)


def own_writer(library: LibraryUnderTest, messages: list[Any], extras: dict[str, Any]) -> Any:
    channel = type("OwnChannel", (AnyChannel, library.lib.PipesMessageWriterChannel), {})

    class Own(library.lib.PipesMessageWriter):  # type: ignore[name-defined,misc] # because it is either library's
        @contextmanager
        def open(self, params: Any) -> Iterator[Any]:
            del params
            yield channel(messages)

        def get_opened_extras(self) -> dict[str, Any]:
            return extras

    return Own()


@STARTING.row("a custom context loader and message writer", r=NO)
def _(library: LibraryUnderTest) -> str:
    messages: list[Any] = []
    loader = type("OwnLoader", (AnyLoader, library.lib.PipesContextLoader), {})()
    library.open({"context_loader": loader, "message_writer": own_writer(library, messages, {})})
    library.close()
    return library.answers([one["method"] for one in messages] == ["opened", "closed"])


@STARTING.row("… that are async", r=NO)
def _(library: LibraryUnderTest) -> str:
    class Own(library.lib.PipesContextLoader):  # type: ignore[name-defined,misc] # because it is either library's
        @asynccontextmanager
        async def load_context(self, params: Any) -> AsyncIterator[Any]:
            await asyncio.sleep(0)
            with AnyLoader().load_context(params) as data:
                yield data

    return library.error(lambda: library.open({"context_loader": Own()})) or "yes"


@STARTING.row("facts for Dagster in `opened` (`get_opened_extras`)", r=NO)
def _(library: LibraryUnderTest) -> str:
    messages: list[Any] = []
    library.open({"message_writer": own_writer(library, messages, {"pid": 5})})
    library.close()
    return library.answers(messages[0]["params"] == {"extras": {"pid": 5}})


def with_values(library: LibraryUnderTest, **values: str | None) -> str:
    library.close()
    env = {**library.new_launch().env, **values}
    loader = library.lib.PipesMappingParamsLoader({k: v for k, v in env.items() if v is not None})
    if not loader.is_dagster_pipes_process():
        return "no"
    outcome = library.error(lambda: library.lib.open_dagster_pipes(params_loader=loader).close())
    library.close()
    return outcome or "yes"


@STARTING.row("launched, if only `DAGSTER_PIPES_CONTEXT` is set", r="no: both are needed")
def _(library: LibraryUnderTest) -> str:
    outcome = with_values(library, DAGSTER_PIPES_MESSAGES=None)
    return f"yes, and stops with {outcome}"


@STARTING.row("a value that is not what Dagster set", r="a raw R error")
def _(library: LibraryUnderTest) -> str:
    return with_values(library, DAGSTER_PIPES_CONTEXT="aGVsbG8=")


@STARTING.row("a context file that is not there", r="a raw R error")
def _(library: LibraryUnderTest) -> str:
    return with_values(
        library, DAGSTER_PIPES_CONTEXT=library.lib.encode_param({"path": "/no/such"})
    )


@STARTING.row("a context without `run_id`", r="")
def _(library: LibraryUnderTest) -> str:
    data = library.lib.encode_param({"data": {"asset_keys": None}})
    outcome = with_values(library, DAGSTER_PIPES_CONTEXT=data)
    return "not seen, until the key is asked for" if outcome == "yes" else outcome


@STARTING.row("context inline, as launchers in clouds send it", r="**stops**")
def _(library: LibraryUnderTest) -> str:
    from support.launching import CONTEXT as DATA

    return with_values(library, DAGSTER_PIPES_CONTEXT=library.lib.encode_param({"data": DATA}))


@STARTING.row("fields in the context that it does not know", r="ignored")
def _(library: LibraryUnderTest) -> str:
    return "ignored" if library.open(new_field=[1]).run_id == "run" else "no"


# -- facts ---------------------------------------------------------------------------------------


@CONTEXT.row("`is_asset_step` of an asset-check step (no keys)", r="`FALSE`")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(asset_keys=[]).is_asset_step)


@CONTEXT.row("`asset_key` of an op", r="error")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(**OP_STEP).asset_key)


@CONTEXT.row("`asset_key` of a step with two", r="error")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(asset_keys=["a", "b"]).asset_key)


@CONTEXT.row("`asset_keys` of an op", r="`NULL`")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(**OP_STEP).asset_keys)


@CONTEXT.row("`code_version`, if the asset's is `v1`", r="the versions of all assets")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(code_version_by_asset_key={"a": "v1"}).code_version)


@CONTEXT.row("`provenance`, if there is none", r="that of all assets")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open().provenance)


@CONTEXT.row("`provenance_by_asset_key`, `code_version_by_asset_key`", r=NO)
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    found = (pipes.provenance_by_asset_key, pipes.code_version_by_asset_key)
    return library.answers(found == ({"a": None}, {"a": None}))


RANGE = {"partition_key_range": {"start": "1", "end": "3"}}
STATIC = {"partition_key": "eu", "partition_key_range": {"start": "eu", "end": "eu"}}


@CONTEXT.row("`is_partition_step` of a range", r="`FALSE`")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(**RANGE).is_partition_step)


@CONTEXT.row("`partition_key` of a range, or without partitions", r="`NULL`")
def _(library: LibraryUnderTest) -> str:
    text = library.value(lambda: library.open(**RANGE).partition_key)
    assert text == library.value(lambda: library.open().partition_key)
    return text


@CONTEXT.row("`partition_key_range` without partitions", r="`NULL`")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open().partition_key_range)


@CONTEXT.row("`partition_time_window` of a static partition", r="`NULL`")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(**STATIC).partition_time_window)


@CONTEXT.row("`job_name` of a run without a job", r="`NULL`")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(job_name=None).job_name)


@CONTEXT.row("`get_extra` of a key that is not there", r="error")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open().get_extra("k"))


@CONTEXT.row("… with a default", r=NO)
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open().get_extra("k", 10))


@CONTEXT.row("… if the extras are null", r="")
def _(library: LibraryUnderTest) -> str:
    return library.value(lambda: library.open(extras=None).get_extra("k"))
