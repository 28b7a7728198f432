"""`PipesRelay`: what a driver hands to its workers."""

from __future__ import annotations

import secrets
import sys
from functools import partial, update_wrapper, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from dagsterpipes._relay.driver import Hub
from dagsterpipes._relay.worker import Invitation, open_block
from dagsterpipes._session import current
from dagsterpipes._threads import in_thread_shielded
from dagsterpipes.exceptions import describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from dagsterpipes._relay.driver import DriverSession
    from dagsterpipes._relay.links import Station

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

CLOSE_PATIENCE = 2.0
"""Seconds that the close of a relay gives to frames that have begun to arrive."""


class PipesRelay(Generic[C]):
    """Lets workers in other processes, on other machines too, report through this session.

    Get one from `PipesContext.relay`, in the process that Dagster launched (the driver). It goes to the
    workers by pickle: `wrap` a function that is sent to them, or `open` the relay in their code. There
    `PipesContext.get` returns a context that logs and reports through the driver's session, each log
    line behind the worker's name.

    A ``with`` (or ``async with``) block of the relay closes it; so does the end of the session. What a
    worker's `flush` or the end of its block has waited for is with the driver, or with the scheduler or
    actor that holds it for the driver; it is in the driver's file a moment later. After the close,
    workers get `SessionClosedError`, and what the driver did not take is kept in a file of the worker's.

    Threads: any.
    """

    def __init__(
        self, invitation: Invitation, kind: type[C], hub: Hub | None, station: Station | None
    ) -> None:
        self._invitation = invitation
        self._kind = kind
        # The driver's alone.
        self._hub = hub
        self._station = station

    def __reduce__(self) -> tuple[Any, ...]:
        return PipesRelay, (self._invitation, self._kind, None, None)

    def open(self, name: str | None = None) -> RelayBlock[C]:
        """A block of a worker that reports: ``with relay.open() as pipes``, or ``async with``.

        Materializations and checks leave when the block ends well. An exception is logged at ERROR, with
        its traceback, and goes on. The end of a block waits until the driver has what it sent.

        Args:
            name: Stands before each log line of the worker; the engine's name of it when None.

        Raises:
            SessionClosedError: When entered, or from a log call: the driver has closed the relay, or was
                out of reach for 10 s.
            MessagesLostError: At the end of the block: the same, with accepted messages that are kept
                in a file on this machine.
        """
        return RelayBlock(self._invitation, self._kind, name)

    def wrap(self, fn: Callable[P, R], name: str | None = None) -> Callable[P, R]:
        """The function, or coroutine function, run in a block of `open`.

        Args:
            fn: What the workers run.
            name: As of `open`.
        """
        run: Callable[..., Any] = _run_async if iscoroutinefunction(fn) else _run
        if not self._invitation.address.needs_function:
            # By plain pickle too.
            return update_wrapper(partial(run, self, name, fn), fn)
        relay = self

        @wraps(fn)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
            return run(relay, name, fn, *args, **kwargs)

        return wrapped

    def close(self, timeout: float = CLOSE_PATIENCE) -> None:
        """Take what has arrived, and refuse what comes later. Idempotent.

        Does nothing in a worker: the relay is the driver's.

        Args:
            timeout: Seconds that frames get which have begun to arrive.
        """
        station, self._station = self._station, None
        if station is not None:
            station.close(timeout)

    async def aclose(self) -> None:
        """`close` for coroutines.

        If cancelled: the relay is closed all the same.
        """
        await in_thread_shielded(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class RelayBlock(Generic[C]):
    """A ``with`` block in a worker; see `PipesRelay.open`. For one use."""

    def __init__(self, invitation: Invitation, kind: type[C], name: str | None) -> None:
        self._invitation = invitation
        self._kind = kind
        self._name = name
        self._context: Any = None
        self._token: Token[Any] | None = None

    def _begin(self, frame: FrameType) -> C:
        context: Any = self._kind._of(open_block(self._invitation, self._name))  # type: ignore[attr-defined]  # noqa: SLF001 because only sessions make contexts
        # Whoever opens the block ends it, also where it asks for the open session in between.
        context._opener = (id(frame), frame.f_code)  # noqa: SLF001 because see above
        self._context = context
        self._token = current.relayed.set(context)
        return context  # type: ignore[no-any-return]  # because the kind makes one of its own

    def _leave(self) -> None:
        assert self._token is not None
        current.relayed.reset(self._token)

    def __enter__(self) -> C:
        return self._begin(sys._getframe(1))  # noqa: SLF001 because inspect is slow to import

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._leave()
        self._context.__exit__(exc_type, exc, tb)

    async def __aenter__(self) -> C:
        return self._begin(sys._getframe(1))  # noqa: SLF001 because inspect is slow to import

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._leave()
        await self._context.__aexit__(exc_type, exc, tb)


def _run(
    relay: PipesRelay[Any], name: str | None, fn: Callable[..., R], /, *args: Any, **kwargs: Any
) -> R:
    with relay.open(name):
        return fn(*args, **kwargs)


async def _run_async(
    relay: PipesRelay[Any], name: str | None, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    async with relay.open(name):
        return await fn(*args, **kwargs)


def open_relay(
    workers: object, session: DriverSession, kind: type[C], default_asset: str | None
) -> PipesRelay[C]:
    """Make a relay; see `PipesContext.relay`.

    Args:
        workers: Who they are.
        session: The driver's.
        kind: What `PipesContext` is: that module stands above this one.
        default_asset: The asset of a report that names none; None for the only one in scope.
    """
    hub = Hub(session)
    station = _station(workers, hub)
    data, settings = session.for_workers()
    invitation = Invitation(secrets.token_hex(8), station.address, data, settings, default_asset)
    relay = PipesRelay(invitation, kind, hub, station)
    session.close_first(relay)
    return relay


def _station(workers: Any, hub: Hub) -> Station:
    if isinstance(workers, str) and workers.startswith("tcp:"):
        from dagsterpipes._relay.links.tcp import TcpStation  # noqa: PLC0415 because each job uses one link

        return TcpStation(workers, hub)
    if workers == "ray":
        from dagsterpipes._relay.links.ray import RayStation  # noqa: PLC0415 because each job uses one link

        return RayStation(hub)
    distributed = sys.modules.get("distributed")
    if distributed is not None and isinstance(workers, distributed.Client):
        from dagsterpipes._relay.links.dask import DaskStation  # noqa: PLC0415 because each job uses one link

        return DaskStation(workers, hub)
    raise ValueError(
        "relay(): must be a distributed.Client, 'ray', or 'tcp://HOST[:PORT]', got"
        f" {workers if isinstance(workers, str) else describe(workers)!r}"
    )
