"""Frames through the connections that Dask's workers have to its scheduler."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed import SchedulerPlugin, get_worker
from distributed.utils import sync

from dagsterpipes._relay.links.mailbox import Fetcher, Mailbox
from dagsterpipes.exceptions import SessionClosedError

if TYPE_CHECKING:
    from distributed import Client

    from dagsterpipes._relay.driver import Hub

PUT_TIMEOUT = 60.0
"""Seconds after which a frame that the scheduler has no room for is sent again."""


class MailboxPlugin(SchedulerPlugin):  # type: ignore[misc]  # because distributed has no types
    """A mailbox in the scheduler.

    Dask's own queues lose what was acknowledged when their last client lets go of them; here putting,
    taking and closing are one step each of the scheduler's event loop.
    """

    def __init__(self, name: str, client: str) -> None:
        self.name = name
        self._client = client

    async def start(self, scheduler: Any) -> None:
        """Offer the mailbox under names of its own."""
        self._mailbox = Mailbox()
        for method in ("put", "take", "close"):
            scheduler.handlers[f"{self.name}-{method}"] = getattr(self, f"_{method}")

    async def _put(self, worker: bytes, seq: int, lines: bytes) -> bool:
        return await self._mailbox.put(worker, seq, lines)

    async def _take(self, first: int) -> Any:
        return await self._mailbox.take(first)

    async def _close(self) -> None:
        await self._mailbox.close()

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Let no worker wait for a driver that is gone."""
        del scheduler
        if client == self._client:
            self._closing = asyncio.ensure_future(self._mailbox.clear())


class DaskAddress(NamedTuple):
    """The name of the mailbox; the way to the scheduler is the worker's own."""

    name: str

    @property
    def flush_interval(self) -> float:
        """A frame costs the scheduler half a millisecond."""
        return 0.05

    @property
    def needs_function(self) -> bool:
        """Anything callable will do."""
        return False

    def connect(self, worker: bytes) -> DaskLink:
        """The link of this worker."""
        return DaskLink(self.name, worker, get_worker())

    def worker_name(self) -> str:
        """Its name in the cluster."""
        return str(get_worker().name)


class DaskLink:
    """A worker's end: requests to the scheduler, from the session's own thread."""

    def __init__(self, name: str, worker: bytes, dask_worker: Any) -> None:
        self._name = name
        self._worker = worker
        self._dask_worker = dask_worker

    def send(self, seq: int, lines: bytes) -> None:
        """See `Link`."""
        try:
            taken = sync(
                self._dask_worker.loop, self._send, seq, lines, callback_timeout=PUT_TIMEOUT
            )
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if taken is None:
            raise OSError(
                "the scheduler has no such relay: it was started again, or the relay is over"
            )
        if not taken:
            raise SessionClosedError("the driver has closed the relay")

    async def _send(self, seq: int, lines: bytes) -> Any:
        call = getattr(self._dask_worker.scheduler, f"{self._name}-put")
        return await call(worker=self._worker, seq=seq, lines=lines)

    def close(self) -> None:
        """Do nothing: the connection is the worker's."""


class DaskStation:
    """The driver's end: a plugin of the scheduler, and a thread that fetches from it.

    Args:
        client: Connected to the scheduler, which must have this library too.
        hub: Takes the frames.
    """

    def __init__(self, client: Client, hub: Hub) -> None:
        name = f"dagsterpipes-{secrets.token_hex(8)}"
        self._client = client
        self.address = DaskAddress(name)
        client.register_plugin(MailboxPlugin(name, client.id), name=name)

        def call(method: str, **arguments: Any) -> Any:
            async def request() -> Any:
                return await getattr(client.scheduler, f"{name}-{method}")(**arguments)

            return client.sync(request)

        self._fetcher = Fetcher(
            hub,
            lambda first: call("take", first=first),
            lambda: call("close"),
        )

    def close(self, timeout: float) -> None:
        """Fetch what is there; what comes later is refused."""
        self._fetcher.close(timeout)
