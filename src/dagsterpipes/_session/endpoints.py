"""Both ends of a session: from the loaders and the writer to a context and a channel.

They may be anybody's. What they raise becomes an error of ours here, with theirs as its cause.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes._delivery.channels.callback import AsyncMessageChannel, MessageChannel
from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.envelope import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    READER_KEY,
)
from dagsterpipes._session import process
from dagsterpipes.exceptions import (
    ChannelError,
    ContextError,
    DagsterPipesError,
    LaunchParamsError,
    describe,
    shorten,
)
from dagsterpipes.loaders import (
    PipesCliArgsParamsLoader,
    PipesDatabricksNotebookWidgetsParamsLoader,
    PipesEnvVarParamsLoader,
)
from dagsterpipes.writers import (
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesBufferedStreamMessageWriterChannel,
    PipesDefaultMessageWriter,
    PipesFileMessageWriterChannel,
    PipesStreamMessageWriterChannel,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractContextManager

    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes.typing import (
        AnyContextLoader,
        AnyMessageWriter,
        AnyParamsLoader,
        PipesContextData,
        PipesExtras,
        PipesParams,
    )


class Opened(NamedTuple):
    """What the endpoints opened: where the lines go, and what Dagster sent and asks for."""

    channel: Channel
    data: PipesContextData | None
    extras: PipesExtras
    wants_stdio: bool
    reader_is_fast: bool
    is_joined: bool


class Endpoints:
    """Both ends of a session: where the context comes from, and where the messages go.

    Args:
        params_loader: Finds the bootstrap values; asked for them here, in the caller's thread.
        context_loader: Loads the context from where they say.
        message_writer: Opens the channel to where they say.
        is_joined: Another process has the session open, this one only adds to it.

    Raises:
        LaunchParamsError: The bootstrap values are missing or cannot be decoded.
        ContextError: The context loader raised something.
        ChannelError: The message writer raised something.
    """

    def __init__(
        self,
        params_loader: AnyParamsLoader,
        context_loader: AnyContextLoader,
        message_writer: AnyMessageWriter,
        *,
        is_joined: bool,
    ) -> None:
        self._context_params = _load(params_loader, "load_context_params", _CONTEXT)
        self._messages_params = _load(params_loader, "load_messages_params", _MESSAGES)
        self._context_loader = own_store_part(context_loader)
        self._given_writer = message_writer
        self._message_writer = own_writer(message_writer)
        self.is_joined = is_joined
        # Made in the caller's thread, entered once.
        self._managers: tuple[Any, Any] | None = self._make_managers()
        # Whether one of them has to be awaited.
        self.needs_loop = any(hasattr(manager, "__aenter__") for manager in self._managers)
        # Whether its channel may be async: ours and the reference's are not.
        package = type(self._message_writer).__module__.partition(".")[0]
        self.may_need_loop = package not in {"dagsterpipes", "dagster_pipes"}

    def _make_managers(self) -> tuple[Any, Any]:
        loader, writer = self._context_loader, self._message_writer
        with self._wrap_loader_errors():
            context = loader.load_context(self._context_params)
        with self._wrap_writer_errors("open"):
            return context, writer.open(self._messages_params)

    def _wrap_loader_errors(self) -> AbstractContextManager[None]:
        return _wrap_errors(
            ContextError, self._context_loader, "load_context", self._context_params, _CONTEXT
        )

    def _wrap_writer_errors(self, method: str) -> AbstractContextManager[None]:
        return _wrap_errors(
            ChannelError, self._given_writer, method, self._messages_params, _MESSAGES
        )

    @asynccontextmanager
    async def open(self, *, without_context: bool = False) -> AsyncIterator[Opened]:
        """Load the context and open the channel; suspends only if `needs_loop`."""
        stack = AsyncExitStack()
        try:
            opened = await self._open(stack, without_context=without_context)
        except BaseException as error:
            # A part that is left may raise or swallow what it likes: this is what prevented it.
            with suppress(Exception):
                await stack.__aexit__(type(error), error, error.__traceback__)
            raise
        async with stack:
            yield opened

    async def _open(self, stack: AsyncExitStack, *, without_context: bool) -> Opened:
        managers, self._managers = self._managers or self._make_managers(), None
        data = None
        if not without_context:
            with self._wrap_loader_errors():
                context = await _enter(stack, managers[0])
            data = check_context_data(context, f"The context of {_name(self._context_loader)}")
        params = self._messages_params
        with self._wrap_writer_errors("open"):
            channel = line_channel(await _enter(stack, managers[1]), params)
        stack.callback(channel.close)
        is_joined = self._attach(channel)
        with self._wrap_writer_errors("get_opened_payload"):
            extras = self._message_writer.get_opened_payload()["extras"]
        return Opened(channel, data, extras, self._wants_stdio(), READER_KEY in params, is_joined)

    def _attach(self, channel: Channel) -> bool:
        """Find out whether the session is another process's."""
        if self.is_joined and hasattr(channel, "pace"):
            raise ChannelError(
                "the process that Dagster launched has the session open, and only that one can send"
                " messages to an object store, since two writers would overwrite each other's objects:"
                " let child processes return what is to be sent, or print it if Dagster includes"
                " stdout in the messages"
            )
        if not isinstance(channel, FileChannel):
            return self.is_joined
        if self.is_joined:
            channel.attach_to_existing()
            return True
        # Its environment may be older than the session, as that of a fork server is.
        return process.is_worker() and channel.has_begun()

    def _wants_stdio(self) -> bool:
        """Whether Dagster wants stdout and stderr as messages, and the writer leaves that to us."""
        kinds = (PipesDefaultMessageWriter, PipesBlobStoreMessageWriter)
        return isinstance(self._message_writer, kinds) and bool(
            self._messages_params.get(PipesDefaultMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY)
        )


_CONTEXT = DAGSTER_PIPES_CONTEXT_ENV_VAR
_MESSAGES = DAGSTER_PIPES_MESSAGES_ENV_VAR


async def _enter(stack: AsyncExitStack, manager: Any) -> Any:
    if hasattr(manager, "__aenter__"):
        return await stack.enter_async_context(manager)
    return stack.enter_context(manager)


def own_params_loader(loader: AnyParamsLoader) -> AnyParamsLoader:
    """Return our params loader for some of ``dagster_pipes``; any other one as it is.

    They find the same values. But theirs print their own help when the job is asked for its, end the
    process where a value is missing, or raise in a notebook that Dagster did not launch.
    """
    kind: Any = type(loader)
    theirs: Any = loader
    if kind.__module__ != "dagster_pipes":
        return loader
    if kind.__qualname__ == "PipesEnvVarParamsLoader":
        return PipesEnvVarParamsLoader()
    if kind.__qualname__ == "PipesCliArgsParamsLoader":
        return PipesCliArgsParamsLoader()
    if kind.__qualname__ == "PipesDatabricksNotebookWidgetsParamsLoader":
        return PipesDatabricksNotebookWidgetsParamsLoader(theirs.widgets)
    return loader


def is_launched(params_loader: AnyParamsLoader) -> bool:
    """Whether Dagster launched this process, by this loader.

    Raises:
        LaunchParamsError: The loader raised something.
    """
    return bool(_call_loader(params_loader, "is_dagster_pipes_process", _CONTEXT))


def _load(params_loader: AnyParamsLoader, method: str, key: str) -> PipesParams:
    params: PipesParams = _call_loader(params_loader, method, key)
    if not isinstance(params, Mapping):
        raise LaunchParamsError(
            f"{_name(params_loader)}.{method}() must return a mapping, the decoded value of {key};"
            f" got {describe(params)}."
        )
    return params


def _call_loader(params_loader: AnyParamsLoader, method: str, key: str) -> Any:
    """Call a params loader; its errors become ours."""
    try:
        return getattr(params_loader, method)()
    except DagsterPipesError:
        raise
    # SystemExit is what argparse raises where a value is missing; or, with status 0, when it has
    # printed its help: the job would end as if it had succeeded.
    except (Exception, SystemExit) as error:
        raise LaunchParamsError(
            f"{_name(params_loader)}.{method}() raised {_described(error)}. It looks for {key},"
            " which Dagster sets when it launches the process: check that it is passed on unchanged,"
            " and that this params loader matches the way the process was launched."
        ) from error


@contextmanager
def _wrap_errors(
    kind: type[DagsterPipesError], part: object, method: str, params: PipesParams, key: str
) -> Iterator[None]:
    """Errors of a context loader or of a message writer become ours."""
    try:
        yield
    except DagsterPipesError:
        raise
    except Exception as error:
        raise kind(
            f"{_name(part)}.{method}() raised {_described(error, params)}. It was given the value of {key},"
            f" with the keys {shorten(sorted(map(str, params)), 200)}: check that what they name is"
            " within reach of this process, and that the other side expects this"
            f" {'context loader' if key == _CONTEXT else 'message writer'}."
        ) from error


def _name(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__name__}"


def _described(error: BaseException, params: PipesParams | None = None) -> str:
    """Type and text of what a part raised, without the values that it was given: they may be secret."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 because a class of the user's may raise anything
        text = ""
    if not isinstance(error, OSError):  # whose text is the system's, with a path at most
        for value in sorted(_texts(params), key=len, reverse=True):
            text = text.replace(value, "…")
    if len(text) > _MOST_OF_AN_ERROR:
        text = text[:_MOST_OF_AN_ERROR] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_MOST_OF_AN_ERROR = 300


def _texts(value: object) -> Iterator[str]:
    """Each text in a value of JSON's that is long enough to be worth hiding."""
    if isinstance(value, str):
        if len(value) >= 4:
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


_OWN_CHANNELS = (
    PipesFileMessageWriterChannel,
    PipesStreamMessageWriterChannel,
    PipesBufferedStreamMessageWriterChannel,
)


def line_channel(channel: Any, params: PipesParams) -> Channel:
    """Return a channel of lines for what a message writer opened.

    Ours take lines as they are; all others, subclasses of ours too, get message by message. For the
    file channel of ``dagster_pipes``, which message writers that are derived from its default one
    open, ours is taken: readers would see half lines of it.

    Args:
        channel: The channel that the writer gave.
        params: What the writer was given.

    Raises:
        ChannelError: The place cannot be opened for writing.
    """
    kind = type(channel)
    if (kind.__module__, kind.__qualname__) == ("dagster_pipes", "PipesFileMessageWriterChannel"):
        has_fillers = PipesDefaultMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY in params
        channel = PipesFileMessageWriterChannel(channel._path, fillers=has_fillers)  # noqa: SLF001 because there is no other way to it
    if type(channel) in _OWN_CHANNELS or _is_store(channel):
        lines: Channel = channel.open_lines()
        return lines
    import inspect  # noqa: PLC0415 because the usual channels must not pay for it

    if inspect.iscoroutinefunction(channel.write_message):
        return AsyncMessageChannel(channel.write_message)
    return MessageChannel(channel.write_message)


def _is_store(channel: Any) -> bool:
    """Whether it is a channel to an object store, not one that takes messages in a way of its own."""
    own = PipesBlobStoreMessageWriterChannel
    return isinstance(channel, own) and type(channel).write_message is own.write_message


class _StandIn(PipesDefaultMessageWriter):
    """Opens as ours does, for a writer of ``dagster_pipes``; what that says at the opening is its own."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def get_opened_extras(self) -> PipesExtras:
        extras: PipesExtras = self._theirs.get_opened_extras()
        return extras


def own_writer(writer: Any) -> Any:
    """Return one of ours where a writer opens as the default one of ``dagster_pipes``; else itself.

    They do the same, but the file of theirs is seen with half lines in it, and its capture of the
    standard streams takes seconds to stop.
    """
    reference = sys.modules.get("dagster_pipes")
    default = getattr(reference, "PipesDefaultMessageWriter", None)
    if default is not None and getattr(type(writer), "open", None) is default.open:
        return _StandIn(writer)
    return own_store_part(writer)


def own_store_part(part: Any) -> Any:
    """Return ours for a part of ``dagster_pipes`` that belongs to an object store; else itself."""
    # By name, so that only jobs with such parts pay for them.
    if not any(
        base.__module__ == "dagster_pipes" and _STORE_PART.search(base.__name__)
        for base in type(part).__mro__
    ):
        return part
    from dagsterpipes._session import foreign_stores  # noqa: PLC0415 because of the above

    return foreign_stores.own_store_part(part)


_STORE_PART = re.compile("BlobStore|S3|GCS|Azure|Dbfs|UnityCatalog|Prefect")
