"""Frames through an actor of Ray's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ray

from dagsterpipes._relay.links.mailbox import POLL, Fetcher, Mailbox
from dagsterpipes.exceptions import ChannelError, SessionClosedError

if TYPE_CHECKING:
    from dagsterpipes._relay.driver import Hub

PUT_TIMEOUT = 60.0
"""Seconds after which a frame that the actor has no room for is sent again."""


class RayAddress(NamedTuple):
    """The handle of the actor."""

    actor: Any

    @property
    def flush_interval(self) -> float:
        """A frame costs the actor about half a millisecond."""
        return 0.05

    @property
    def needs_function(self) -> bool:
        """`ray.remote` takes functions and classes only."""
        return True

    def connect(self, worker: bytes) -> RayLink:
        """The link of this worker."""
        return RayLink(self.actor, worker)

    def worker_name(self) -> str:
        """The actor that runs here, or the process."""
        context = ray.get_runtime_context()
        return str(context.get_actor_name() or f"worker {context.get_worker_id()[:8]}")


class RayLink:
    """A worker's end: calls of the actor, from the session's own thread."""

    def __init__(self, actor: Any, worker: bytes) -> None:
        self._actor = actor
        self._worker = worker

    def send(self, seq: int, lines: bytes) -> None:
        """See `Link`."""
        try:
            taken = ray.get(self._actor.put.remote(self._worker, seq, lines), timeout=PUT_TIMEOUT)
        except ray.exceptions.RayActorError as error:
            raise SessionClosedError("the relay's actor has ended, with its driver") from error
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if not taken:
            raise SessionClosedError("the driver has closed the relay")

    def close(self) -> None:
        """Do nothing: the connection is Ray's."""


class RayStation:
    """The driver's end: the actor, and a thread that fetches from it.

    Args:
        hub: Takes the frames.

    Raises:
        ChannelError: `ray.init` was not called.
    """

    def __init__(self, hub: Hub) -> None:
        if not ray.is_initialized():
            raise ChannelError("relay('ray'): call ray.init() first")
        actor = ray.remote(Mailbox).options(num_cpus=0, max_concurrency=10_000).remote()
        self.address = RayAddress(actor)
        self._fetcher = Fetcher(
            hub,
            lambda first: ray.get(actor.take.remote(first), timeout=4 * POLL),
            lambda: ray.get(actor.close.remote(), timeout=POLL),
        )

    def close(self, timeout: float) -> None:
        """Fetch what is there; what comes later is refused."""
        self._fetcher.close(timeout)
