"""The loaders and writers of `dagster_pipes`, classes derived from them, and users' own: taken as they are."""
# mypy: disable-error-code="misc"
# because it does not follow the imports of dagster_pipes

from __future__ import annotations

import asyncio
import json
import logging
import sys
import zlib
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import dagster_pipes
import pytest

import dagsterpipes
from dagsterpipes import (
    ChannelError,
    ContextError,
    DagsterPipesError,
    LaunchParamsError,
    PipesContext,
    encode_param,
    open_dagster_pipes,
)
from support.launching import CONTEXT, Launch, is_filler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

METHODS = ["opened", "log", "report_asset_materialization", "closed"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    yield Launch(tmp_path)
    if PipesContext.is_initialized():
        PipesContext.get().close()


def work(pipes: PipesContext) -> None:
    """What every job here does."""
    assert pipes is PipesContext.get()
    assert pipes.asset_key == "a"
    pipes.log.info("hello")
    pipes.report_asset_materialization({"rows": 3})


def run_sync(**parts: Any) -> None:
    with open_dagster_pipes(**parts) as pipes:
        work(pipes)


def run_async(**parts: Any) -> None:
    async def main() -> None:
        async with open_dagster_pipes(**parts) as pipes:
            work(pipes)

    asyncio.run(main())


in_both = pytest.mark.parametrize("run", [run_sync, run_async], ids=["with", "async with"])


def event(context: dict[str, Any], messages: dict[str, Any]) -> dict[str, str]:
    """What a launcher passes in a mapping, such as the event of a Lambda function."""
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param(context),
        "DAGSTER_PIPES_MESSAGES": encode_param(messages),
        "else": "where",
    }


def parsed(lines: str) -> list[dict[str, Any]]:
    """The messages among lines of output."""
    messages = [json.loads(line) for line in lines.split("\n") if line.startswith("{")]
    return [one for one in messages if not is_filler(one)]


def methods(messages: list[dict[str, Any]]) -> list[str]:
    return [one["method"] for one in messages]


# -- params loaders ------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [dagster_pipes, dagsterpipes], ids=["theirs", "ours"])
@in_both
def test_a_lambda_event(
    module: Any, run: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    """The event is the mapping, the context is in it, and messages go to stderr at the close."""
    loader = module.PipesMappingParamsLoader(event({"data": CONTEXT}, {"buffered_stdio": "stderr"}))
    for _ in range(2):  # a warm start
        run(params_loader=loader)
        assert methods(parsed(capfd.readouterr().err)) == METHODS


@pytest.mark.parametrize("form", ["--dagster-pipes-{}={}", "--dagster-pipes-{} {}"])
@in_both
def test_the_command_line(
    form: str, run: Callable[..., None], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their loader for it is understood in both spellings and leaves --help to the job."""
    words = [
        word
        for name in ("context", "messages")
        for word in form.format(name, launch.env[f"DAGSTER_PIPES_{name.upper()}"]).split()
    ]
    monkeypatch.setattr(sys, "argv", ["job.py", "--help", *words])
    run(params_loader=dagster_pipes.PipesCliArgsParamsLoader())
    assert methods(launch.messages()) == METHODS


@in_both
def test_the_environment_by_name(
    run: Callable[..., None], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their environment loader, with their default context loader and writer: as without them."""
    for name, value in launch.env.items():
        monkeypatch.setenv(name, value)
    run(
        params_loader=dagster_pipes.PipesEnvVarParamsLoader(),
        context_loader=dagster_pipes.PipesDefaultContextLoader(),
        message_writer=dagster_pipes.PipesDefaultMessageWriter(),
    )
    assert methods(launch.messages()) == METHODS


@pytest.mark.parametrize("module", ["dagster_pipes", "dagsterpipes"])
def test_a_child_of_a_session_that_was_opened_by_name_adds_to_it(
    module: str, launch: Launch
) -> None:
    """The environment loader given by hand is known as what it is: one `opened`, one `closed`."""
    result = launch.run(
        f"""
        import subprocess, sys
        from {module} import PipesEnvVarParamsLoader
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes(params_loader=PipesEnvVarParamsLoader()) as pipes:
            pipes.log.info(sys.argv[1])
            if sys.argv[1] == "parent":
                subprocess.run([sys.executable, __file__, "child"], check=True)
        """,
        "parent",
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert methods(launch.messages()) == ["opened", "log", "log", "closed"]
    assert launch.logs() == ["parent", "child"]


class Widgets:
    """`dbutils.widgets`: raises for a widget that is not there."""

    def __init__(self, **values: str) -> None:
        self._values = values

    def get(self, name: str) -> str:
        if name not in self._values:
            raise RuntimeError(f"InputWidgetNotDefined: no input widget named {name}")
        return self._values[name]


def test_a_notebook(launch: Launch) -> None:
    """Their loader for widgets; quiet in a notebook that Dagster did not launch."""
    launched = dagster_pipes.PipesDatabricksNotebookWidgetsParamsLoader(Widgets(**launch.env))
    run_sync(params_loader=launched)
    assert methods(launch.messages()) == METHODS
    by_hand = dagster_pipes.PipesDatabricksNotebookWidgetsParamsLoader(Widgets())
    with open_dagster_pipes(params_loader=by_hand) as pipes:
        assert isinstance(pipes, dagsterpipes.NullPipesContext)


# -- message writers -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("key", ["stdio", "buffered_stdio"])
def test_their_default_writer_and_standard_streams(
    key: str, stream: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each message is a line of its own there."""
    loader = dagster_pipes.PipesMappingParamsLoader(event({"data": CONTEXT}, {key: stream}))
    with open_dagster_pipes(
        params_loader=loader, message_writer=dagster_pipes.PipesDefaultMessageWriter()
    ) as pipes:
        print("no newline", end="", file=getattr(sys, stream))
        work(pipes)
    assert methods(parsed(getattr(capfd.readouterr(), stream[3:]))) == METHODS


class S3:
    """The two calls of an S3 client that are made, in memory."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def put_object(self, *, Body: Any, Bucket: str, Key: str) -> None:
        self.objects[Bucket, Key] = Body.encode() if isinstance(Body, str) else Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        import io

        return {"Body": io.BytesIO(self.objects[Bucket, Key])}


@in_both
def test_s3(run: Callable[..., None]) -> None:
    """Context and messages in a bucket, by their loader and writer."""
    s3 = S3()
    s3.put_object(Body=json.dumps(CONTEXT), Bucket="b", Key="context.json")
    place = event({"bucket": "b", "key": "context.json"}, {"bucket": "b", "key_prefix": "m"})
    run(
        params_loader=dagster_pipes.PipesMappingParamsLoader(place),
        context_loader=dagster_pipes.PipesS3ContextLoader(s3),
        message_writer=dagster_pipes.PipesS3MessageWriter(s3, interval=60),
    )
    chunks = [data.decode() for (_, key), data in s3.objects.items() if key.startswith("m/")]
    assert methods(parsed("\n".join(chunks))) == METHODS
    assert ("b", f"m/{len(chunks)}.json") in s3.objects


class Derived(dagster_pipes.PipesBlobStoreMessageWriter):
    """A user's, for a store that fails twice."""

    def __init__(self, channel: Any) -> None:
        super().__init__(interval=60)
        self.channel = channel

    def make_channel(self, params: Any) -> Any:
        return self.channel

    def get_opened_extras(self) -> dict[str, Any]:
        return {"by": "me"}


class DerivedChannel(dagster_pipes.PipesBlobStoreMessageWriterChannel):
    def __init__(self) -> None:
        super().__init__(interval=60)
        self.failures = 2
        self.chunks: dict[int, str] = {}

    def upload_messages_chunk(self, payload: Any, index: int) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no route to host")
        self.chunks[index] = payload.read()


class OwnWay(DerivedChannel):
    """One that collects messages in a way of its own."""

    def write_message(self, message: Any) -> None:
        super().write_message({**message, "by": "me"})


@in_both
def test_a_writer_that_is_derived_from_theirs_for_stores(run: Callable[..., None]) -> None:
    """Its channel stores the chunks, and what it fails to store is stored again."""
    channel = DerivedChannel()
    run(params_loader=mapping(), message_writer=Derived(channel))
    messages = parsed("\n".join(channel.chunks[n] for n in sorted(channel.chunks)))
    assert methods(messages) == METHODS
    assert messages[0]["params"]["extras"] == {"by": "me"}
    assert sorted(channel.chunks) == list(range(1, len(channel.chunks) + 1))


def test_a_channel_that_collects_in_a_way_of_its_own() -> None:
    """It is given every message, and uploads as it always did."""
    channel = OwnWay()
    channel.failures = 0
    run_sync(params_loader=mapping(), message_writer=Derived(channel))
    messages = parsed("\n".join(channel.chunks.values()))
    assert methods(messages) == METHODS
    assert all(one["by"] == "me" for one in messages)


def test_a_mounted_file_system(tmp_path: Path) -> None:
    """Chunks in a folder, as on volumes of Databricks, by their loader and writer."""
    (tmp_path / "context.json").write_text(json.dumps(CONTEXT))
    place = event({"path": str(tmp_path / "context.json")}, {"path": str(tmp_path)})
    run_sync(
        params_loader=dagster_pipes.PipesMappingParamsLoader(place),
        context_loader=dagster_pipes.PipesUnityCatalogVolumesContextLoader(),
        message_writer=dagster_pipes.PipesUnityCatalogVolumesMessageWriter(),
    )
    names = sorted(path.name for path in tmp_path.glob("*") if path.name != "context.json")
    assert names == [f"{number}.json" for number in range(1, len(names) + 1)]
    assert methods(parsed("\n".join((tmp_path / name).read_text() for name in names))) == METHODS


def test_prefect_logs(caplog: pytest.LogCaptureFixture) -> None:
    """One record of their logger for each message."""
    name = dagster_pipes.PipesPrefectLogsMessageWriter.LOGGER_NAME
    with caplog.at_level(logging.INFO, name):
        run_sync(
            params_loader=dagster_pipes.PipesMappingParamsLoader(
                event({"data": CONTEXT}, {"prefect_logs": True})
            ),
            message_writer=dagster_pipes.PipesPrefectLogsMessageWriter(),
        )
    texts = [record.getMessage() for record in caplog.records if record.name == name]
    assert methods(parsed("\n".join(texts))) == METHODS


class WithExtras(dagster_pipes.PipesDefaultMessageWriter):
    def get_opened_extras(self) -> dict[str, Any]:
        return {"pid": 5}


class Prefixing(dagster_pipes.PipesMessageWriterChannel):
    """Passes messages on, each with something more in it."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def write_message(self, message: Any) -> None:
        self._channel.write_message({**message, "by": "me"})


class WithChannel(dagster_pipes.PipesDefaultMessageWriter):
    @contextmanager
    def open(self, params: Any) -> Iterator[Any]:
        with super().open(params) as channel:
            yield Prefixing(channel)


class WithSuper(dagster_pipes.PipesDefaultMessageWriter):
    @contextmanager
    def open(self, params: Any) -> Iterator[Any]:
        with super().open({"path": params["path"]}) as channel:
            yield channel


class OurWithExtras(dagsterpipes.PipesDefaultMessageWriter):
    def get_opened_extras(self) -> dict[str, Any]:
        return {"pid": 5}


@in_both
@pytest.mark.parametrize("writer", [WithExtras, WithChannel, WithSuper, OurWithExtras])
def test_derived_from_a_default_writer(
    writer: Any, run: Callable[..., None], launch: Launch
) -> None:
    """What a subclass overrides is in effect."""
    run(params_loader=dagsterpipes.PipesMappingParamsLoader(launch.env), message_writer=writer())
    sent = launch.messages()
    assert methods(sent) == METHODS
    assert sent[0]["params"]["extras"] == ({"pid": 5} if "Extras" in writer.__name__ else {})
    assert all(one.get("by") == "me" for one in sent) is (writer is WithChannel)


@pytest.mark.parametrize("writer", [WithExtras, WithSuper])
def test_the_file_of_a_derived_writer_has_no_line_across_a_page(
    writer: Any, launch: Launch
) -> None:
    """Readers see none of it half written, as with our own writer."""
    loader = dagsterpipes.PipesMappingParamsLoader(launch.env)
    with open_dagster_pipes(params_loader=loader, message_writer=writer()) as pipes:
        for i in range(400):
            pipes.log.info("%d %s", i, "x" * (i % 90))
    start = 0
    for line in launch.messages_path.read_bytes().splitlines(keepends=True):
        end = start + len(line)
        assert start // 4096 == (end - 1) // 4096
        start = end
    assert len(launch.logs()) == 400


@pytest.mark.parametrize("writer", [WithExtras, OurWithExtras])
def test_derived_writers_and_captured_output(writer: Any, tmp_path: Path) -> None:
    """What Dagster wants of stdout is sent with these writers too, before `closed`."""
    launch = Launch(tmp_path)
    launch.env["DAGSTER_PIPES_MESSAGES"] = encode_param(
        {"path": str(launch.messages_path), "include_stdio_in_messages": True}
    )
    result = launch.run(
        f"""
        import {writer.__mro__[1].__module__.partition(".")[0]} as module
        from dagsterpipes import open_dagster_pipes
        class Writer(module.PipesDefaultMessageWriter):
            def get_opened_extras(self):
                return {{"pid": 5}}
        with open_dagster_pipes(message_writer=Writer()):
            print("printed")
        """
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "printed\n", "")
    assert launch.sent() == [
        ("opened", {"extras": {"pid": 5}}),
        ("log_external_stream", {"stream": "stdout", "text": "printed\n", "extras": {}}),
        ("closed", {}),
    ]


# -- users' own, async ---------------------------------------------------------------------------


class AsyncLoader(dagster_pipes.PipesContextLoader):
    def __init__(self) -> None:
        self.is_left = False

    @asynccontextmanager
    async def load_context(self, params: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield params["data"]
        await asyncio.sleep(0)
        self.is_left = True


class AsyncChannel(dagsterpipes.PipesMessageWriterChannel):
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.is_closed = False

    async def write_message(self, message: Any) -> None:
        assert not self.is_closed
        await asyncio.sleep(0)
        self.messages.append(message)


class AsyncWriter(dagsterpipes.PipesMessageWriter[AsyncChannel]):
    def __init__(self) -> None:
        self.channel = AsyncChannel()

    @asynccontextmanager
    async def open(self, params: Any) -> AsyncIterator[AsyncChannel]:
        assert params == {"mine": True}
        await asyncio.sleep(0)
        yield self.channel
        await asyncio.sleep(0)
        self.channel.is_closed = True


@in_both
def test_async_loader_and_writer(run: Callable[..., None]) -> None:
    """They work in sessions of plain code too, and are left once everything is written."""
    loader, writer = AsyncLoader(), AsyncWriter()
    run(
        params_loader=dagster_pipes.PipesMappingParamsLoader(
            event({"data": CONTEXT}, {"mine": True})
        ),
        context_loader=loader,
        message_writer=writer,
    )
    assert methods(writer.channel.messages) == METHODS
    assert writer.channel.is_closed
    assert loader.is_left


# -- errors --------------------------------------------------------------------------------------

GOOD = event({"data": CONTEXT}, {"path": "/dev/null"})


class Exiting(dagster_pipes.PipesParamsLoader):
    """Made with argparse, which ends the process."""

    def is_dagster_pipes_process(self) -> bool:
        return True

    def load_context_params(self) -> Any:
        sys.exit(0)

    def load_messages_params(self) -> Any:
        raise NotImplementedError


class Asking(Exiting):
    def is_dagster_pipes_process(self) -> bool:
        raise LookupError("no such widget")


class Reading(dagster_pipes.PipesContextLoader):
    """A user's context loader whose body is given."""

    def __init__(self, body: Callable[[Any], Any]) -> None:
        self._body = body

    @contextmanager
    def load_context(self, params: Any) -> Iterator[Any]:
        yield self._body(params)


class Failing(dagster_pipes.PipesMessageWriter[Any]):
    """A user's message writer that fails in one of several ways."""

    def __init__(self, *, extras: bool = False, channel: object = None) -> None:
        self._extras = extras
        self._channel = channel

    @contextmanager
    def open(self, params: Any) -> Iterator[Any]:
        if self._extras or self._channel is not None:
            yield self._channel or AsyncChannel()
        else:
            raise ConnectionError("no route to host")

    def get_opened_extras(self) -> Any:
        raise ZeroDivisionError("division by zero")


class NotAManager(dagster_pipes.PipesMessageWriter[Any]):
    def open(self, params: Any) -> Any:
        yield AsyncChannel()


def mapping(**changes: str) -> Any:
    """Their loader for a mapping; a value of "" is left out."""
    values = {key: value for key, value in {**GOOD, **changes}.items() if value}
    return dagster_pipes.PipesMappingParamsLoader(values)


class OnDatabricks(dagster_pipes.PipesDbfsMessageWriter):
    pass


class FromDbfs(dagster_pipes.PipesDbfsContextLoader):
    pass


# Parts; the error; its cause; words of its text.
FAILURES: dict[str, tuple[dict[str, Any], type[Exception], type[BaseException], list[str]]] = {
    "no messages": (
        {"params_loader": mapping(DAGSTER_PIPES_MESSAGES="")},
        LaunchParamsError,
        KeyError,
        [
            "dagster_pipes.PipesMappingParamsLoader.load_messages_params() raised KeyError: 'DAGST",
            "It looks for DAGSTER_PIPES_MESSAGES",
            "check that it is passed on unchanged",
        ],
    ),
    "not zlib": (
        {"params_loader": mapping(DAGSTER_PIPES_CONTEXT="aGVsbG8=")},
        LaunchParamsError,
        zlib.error,
        ["load_context_params() raised error: Error -3", "It looks for DAGSTER_PIPES_CONTEXT"],
    ),
    "not base64": (
        {"params_loader": mapping(DAGSTER_PIPES_CONTEXT="x")},
        LaunchParamsError,
        ValueError,
        ["load_context_params() raised Error: Invalid base64"],
    ),
    "not an object": (
        {"params_loader": mapping(DAGSTER_PIPES_MESSAGES=encode_param([1]))},
        LaunchParamsError,
        type(None),  # type: ignore[dict-item]  # because there is no cause
        [
            "dagster_pipes.PipesMappingParamsLoader.load_messages_params() must return a mapping,",
            "the decoded value of DAGSTER_PIPES_MESSAGES; got a value of type list, length 1.",
        ],
    ),
    "exits": (
        {"params_loader": Exiting()},
        LaunchParamsError,
        SystemExit,
        ["Exiting.load_context_params() raised SystemExit: 0. It looks for DAGSTER_PIPES_CONTEXT"],
    ),
    "asks": (
        {"params_loader": Asking()},
        LaunchParamsError,
        LookupError,
        ["Asking.is_dagster_pipes_process() raised LookupError: no such widget."],
    ),
    "no context": (
        {
            "params_loader": mapping(DAGSTER_PIPES_CONTEXT=encode_param({"path": "/no/such"})),
            "context_loader": dagster_pipes.PipesDefaultContextLoader(),
        },
        ContextError,
        FileNotFoundError,
        [
            "dagster_pipes.PipesDefaultContextLoader.load_context() raised FileNotFoundError",
            "It was given the value of DAGSTER_PIPES_CONTEXT, with the keys ['path']",
            "check that what they name is within reach of this process",
            "expects this context loader",
        ],
    ),
    "their own error": (
        {"context_loader": FromDbfs()},
        ContextError,
        dagster_pipes.DagsterPipesError,
        ["Invalid type for parameter `path` passed", "with the keys ['data']"],
    ),
    "a user's loader": (
        {"context_loader": Reading(lambda params: params["bucket"])},
        ContextError,
        KeyError,
        ["Reading.load_context() raised KeyError: 'bucket'."],
    ),
    "a context of a wrong shape": (
        {"context_loader": Reading(lambda params: {"run_id": "r"})},
        ContextError,
        type(None),  # type: ignore[dict-item]  # because there is no cause
        ["Reading lacks the required key `asset_keys`; ", "got a value of type dict, length 1."],
    ),
    "a user's writer": (
        {"message_writer": Failing()},
        ChannelError,
        ConnectionError,
        [
            "Failing.open() raised ConnectionError: no route to host.",
            "It was given the value of DAGSTER_PIPES_MESSAGES, with the keys ['path']",
            "expects this message writer",
        ],
    ),
    "no channel": (
        {"message_writer": Failing(channel="text")},
        ChannelError,
        AttributeError,
        ["Failing.open() raised AttributeError: 'str' object has no attribute 'write_message'"],
    ),
    "no context manager": (
        {"message_writer": NotAManager()},
        ChannelError,
        Exception,
        ["NotAManager.open() raised "],
    ),
    "the first message": (
        {"message_writer": Failing(extras=True)},
        ChannelError,
        ZeroDivisionError,
        ["Failing.get_opened_payload() raised ZeroDivisionError: division by zero."],
    ),
    "no Spark": (
        {"message_writer": OnDatabricks()},
        ChannelError,
        dagster_pipes.DagsterPipesError,
        ["OnDatabricks.get_opened_payload() raised DagsterPipesError: `PipesDbfsMessageWriter`"],
    ),
}


@pytest.mark.parametrize("case", FAILURES)
@in_both
def test_what_the_parts_raise_is_an_error_of_ours(case: str, run: Callable[..., None]) -> None:
    """It names the part, the variable and what to do, and has the other error as its cause."""
    parts, kind, cause, words = FAILURES[case]
    with pytest.raises(DagsterPipesError) as caught:
        run(**{"params_loader": mapping(), **parts})
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, cause)
    for part in words:
        assert part in str(caught.value)
    assert not PipesContext.is_initialized()


class Leaving(dagster_pipes.PipesContextLoader):
    """A context loader that does something about exceptions: its own business, but not its to hide."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.saw: BaseException | None = None

    @contextmanager
    def load_context(self, params: Any) -> Iterator[Any]:
        try:
            yield params["data"]
        except Exception as error:
            self.saw = error
            if self._what == "raises":
                raise RuntimeError("while leaving") from error


@pytest.mark.parametrize("what", ["swallows", "raises"])
@in_both
def test_a_loader_cannot_hide_why_the_opening_failed(what: str, run: Callable[..., None]) -> None:
    """It is left with the error, and whatever it does about it, that is raised."""
    loader = Leaving(what)
    with pytest.raises(ChannelError, match="no route to host") as caught:
        run(params_loader=mapping(), context_loader=loader, message_writer=Failing())
    assert loader.saw is caught.value
    # And a session can be opened right after it.
    run(params_loader=mapping(), context_loader=Leaving(what))
