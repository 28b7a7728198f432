"""How a session opens: from the loaders and the writer to a context and a channel."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._session import lifecycle
from dagsterpipes.writers import PipesDefaultMessageWriter, line_channel, own_writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dagsterpipes._delivery.channels import Channel
    from dagsterpipes._session.session import Session
    from dagsterpipes.loaders import PipesContextLoader, PipesParamsLoader
    from dagsterpipes.typing import PipesParams
    from dagsterpipes.writers import PipesMessageWriter

_OWN_PACKAGES = {"dagsterpipes", "dagster_pipes"}


class Settings(NamedTuple):
    """What `open_dagster_pipes` was told, with units and bounds as there."""

    flush_interval: float
    buffer_size: int
    on_full: Literal["wait", "drop_logs"]
    coalesce_logs: float | None
    close_timeout: float
    log_level: int | str | None
    handle_sigterm: bool
    capture_stdio: bool | None
    capture_logging: int | str | None


class Launch:
    """The three parts that open a session, and what is known about the process before that.

    Args:
        params_loader: Finds the bootstrap values.
        context_loader: Loads the context from where they say.
        message_writer: Opens the channel to where they say.
        in_coroutine: Opened under a running event loop.
        messages_value: The raw ``DAGSTER_PIPES_MESSAGES`` of the environment, if that is where the
            params come from.
        is_joined: Another process has the session open, this one only adds to it.
    """

    def __init__(
        self,
        params_loader: PipesParamsLoader,
        context_loader: PipesContextLoader,
        message_writer: PipesMessageWriter[Any],
        *,
        in_coroutine: bool,
        messages_value: str | None,
        is_joined: bool,
    ) -> None:
        self.params_loader = params_loader
        self.context_loader = context_loader
        self.message_writer = own_writer(message_writer)
        self.in_coroutine = in_coroutine
        self.messages_value = messages_value
        self.is_joined = is_joined
        # Loaders and writers of others may be async; ours and the reference's are not.
        self.needs_loop = in_coroutine or any(
            type(part).__module__.partition(".")[0] not in _OWN_PACKAGES
            for part in (context_loader, self.message_writer)
        )

    @asynccontextmanager
    async def opening(self, session: Session) -> AsyncIterator[Channel]:
        """Load the context into the session, open the channel, say ``opened``."""
        context_params = self.params_loader.load_context_params()
        messages_params = self.params_loader.load_messages_params()
        async with AsyncExitStack() as stack:
            data = await _enter(stack, self.context_loader.load_context(context_params))
            session.take_context(data, "The context")
            written = await _enter(stack, self.message_writer.open(messages_params))
            channel = line_channel(written)
            stack.callback(channel.close)
            self._join(channel)
            extras = self.message_writer.get_opened_payload()["extras"]
            session.begin(extras, capture_stdio=self._asks_for_output(messages_params))
            yield channel

    def _join(self, channel: Channel) -> None:
        """Find out whether the session is another process's."""
        if not isinstance(channel, FileChannel):
            return
        if self.is_joined:
            channel.be_guest()
        elif lifecycle.is_worker():
            # Its environment may be older than the session, as that of a fork server is.
            self.is_joined = channel.has_begun()

    def _asks_for_output(self, messages_params: PipesParams) -> bool:
        """Whether Dagster wants stdout and stderr as messages, and the writer leaves that to us."""
        return type(self.message_writer) is PipesDefaultMessageWriter and bool(
            messages_params.get(PipesDefaultMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY)
        )


async def _enter(stack: AsyncExitStack, manager: Any) -> Any:
    if hasattr(manager, "__aenter__"):
        return await stack.enter_async_context(manager)
    return stack.enter_context(manager)
