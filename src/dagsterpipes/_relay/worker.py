"""A worker's end of a relay: sessions whose channel sends numbered frames to the driver."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import traceback
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes._delivery import recovery
from dagsterpipes._delivery.delivery import Delivery
from dagsterpipes._delivery.outbox import LogLine
from dagsterpipes._protocol import messages
from dagsterpipes._protocol.assets import ReportScope
from dagsterpipes._protocol.log_lines import (
    AdaptiveLogRenderer,
    CoalescingLogRenderer,
    LogRenderer,
    level_tag,
    log_item,
    pack,
    prefix_texts,
)
from dagsterpipes._relay.frames import ID_SIZE, MOST, cut
from dagsterpipes._session import process
from dagsterpipes._session.logger import SessionLogger, add_trace_ids
from dagsterpipes.exceptions import (
    ChannelError,
    DagsterPipesError,
    InvalidReportError,
    MessagesLostError,
    SessionClosedError,
    closed_error,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Callable

    from dagsterpipes._delivery.outbox import Item
    from dagsterpipes._protocol.log_lines import AnyLogRenderer
    from dagsterpipes._relay.links import Address, Link
    from dagsterpipes._session.options import Settings
    from dagsterpipes.typing import PipesContextData, PipesStatistics

PATIENCE = 10.0
"""Seconds for which a worker tries to reach the driver before it gives it up."""

MOST_IDLE = 8
"""Sessions that a process keeps for the next task of their relay; each has a thread and a connection."""

HELD = {"report_asset_materialization", "report_asset_check"}
"""What leaves a worker only when its block ends well: attempts that fail report nothing."""


class Invitation(NamedTuple):
    """What a worker needs to report through the driver's session; it travels by pickle."""

    relay: str
    address: Address
    data: PipesContextData
    settings: Settings
    default_asset: str | None


class RelayChannel:
    """Sends lines as frames; see `Channel`.

    A frame that may not have arrived is sent again with its number, which the driver takes once.

    Args:
        connect: Makes the link of a worker, given its id.
        patience: Seconds of failures in a row after which the driver counts as gone.
    """

    def __init__(self, connect: Callable[[bytes], Link], patience: float = PATIENCE) -> None:
        self._connect = connect
        self._patience = patience
        self._begin()

    def _begin(self) -> None:
        self._link = self._connect(os.urandom(ID_SIZE))
        self._frames: list[bytes] = []
        self._seq = 1
        self._failing_since: float | None = None

    def write(self, lines: bytes, /) -> None:
        """Send the lines behind those that are left; blocks until the driver has them.

        Raises:
            OSError: It could not be reached.
            SessionClosedError: It is done, or could not be reached for too long.
        """
        self._frames += cut(lines)
        while self._frames:
            self._send(self._frames[0])
            self._failing_since = None
            self._seq += 1
            del self._frames[0]

    def _send(self, frame: bytes) -> None:
        if len(frame) > MOST:  # a text that nobody could check at the call
            text = (
                f"a log line of {len(frame):,} bytes was left out: a relay takes {MOST:,} at most"
            )
            frame = self._frames[0] = messages.log(text, "WARNING")
        try:
            self._link.send(self._seq, frame)
        except OSError as error:
            now = time.monotonic()
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < self._patience:
                raise
            raise SessionClosedError(
                f"the driver could not be reached for {self._patience:.3g} s:"
                f" {type(error).__name__}: {error}"
            ) from error

    def unwritten(self) -> bytes:
        """The lines that the driver is not known to have."""
        return b"".join(self._frames)

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def after_fork_in_child(self) -> None:
        """In a forked child: be a worker of its own."""
        with suppress(OSError):
            self._link.close()
        self._begin()


class PrefixingRenderer:
    """Puts the worker's name before each log text."""

    def __init__(self, renderer: AnyLogRenderer, prefix: str) -> None:
        self._renderer = renderer
        self._prefix = prefix
        self.due: float | None = None

    def render(self, items: list[Item], now: float, *, everything: bool) -> bytes:
        """See `Renderer`."""
        named = prefix_texts(items, self._prefix)
        lines = self._renderer.render(named, now, everything=everything)
        self.due = self._renderer.due
        return lines


class WorkerSession:
    """The session of one relay in one worker process, shared by its tasks.

    It sends neither ``opened`` nor ``closed``, watches no signals, and lives as long as the process.

    Args:
        invitation: What the driver sent.
        name: How the worker is called in the logs.
    """

    def __init__(self, invitation: Invitation, name: str) -> None:
        settings = invitation.settings
        self.invitation = invitation
        self.name = name
        # Blocks that are open; `_lock` guards it.
        self.blocks = 0
        self.delivery = Delivery(
            self._opening,
            pack,
            self._new_renderer,
            flush_interval=max(settings.flush_interval, invitation.address.flush_interval),
            buffer_size=settings.buffer_size,
            on_full=settings.on_full,
            in_loop=False,
            may_need_loop=False,
            open_here=True,
            after_first_message_in_child=self._deliver_at_exit,
        )
        self.log = SessionLogger(
            self.delivery.outbox,
            self._why_refused,
            add=add_trace_ids if settings.trace_ids else None,
        )
        if settings.log_level is not None:
            self.log.setLevel(settings.log_level)
        self.delivery.start()
        self.log.session_opened()
        process.add_inheritable(self)

    @asynccontextmanager
    async def _opening(self, only_to_close: bool) -> AsyncIterator[RelayChannel]:
        del only_to_close
        channel = RelayChannel(self.invitation.address.connect)
        try:
            yield channel
        finally:
            channel.close()

    def _new_renderer(self, is_paced: bool) -> PrefixingRenderer:
        del is_paced
        window = self.invitation.settings.coalesce_logs
        renderer: AnyLogRenderer
        if window is None:
            renderer = AdaptiveLogRenderer()
        else:
            renderer = CoalescingLogRenderer(window) if window else LogRenderer()
        return PrefixingRenderer(renderer, f"[{self.name}] ")

    def _why_refused(self, method: str) -> BaseException:
        return closed_error(method)

    @property
    def is_closed(self) -> bool:
        """Whether the driver is done, or was given up."""
        return self.delivery.outbox.sealed

    def flush(self, timeout: float | None) -> None:
        """Wait until everything sent so far is with the driver.

        Raises:
            FlushTimeoutError: It is not, after ``timeout`` seconds.
            MessagesLostError: The driver is done; what it did not take is in a file on this machine.
            SessionClosedError: The driver is done; it has everything that was accepted.
        """
        try:
            self.delivery.flush(timeout)
        except SessionClosedError:
            self.finish()
            raise

    def finish(self) -> None:
        """Say once what was accepted and is not with the driver."""
        with suppress(ChannelError):
            self.delivery.finish(1.0)

    def retire(self) -> None:
        """End the session, which no block uses."""
        self.delivery.outbox.seal(lambda _: [])
        with suppress(DagsterPipesError):
            self.delivery.finish(self.invitation.settings.close_timeout)

    # -- fork -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Do nothing: a child is a worker of its own."""

    def after_fork_in_child(self) -> None:
        """In a forked child: deliver what the child sends, as a worker of its own."""
        self.delivery.after_fork_in_child()

    def _deliver_at_exit(self) -> None:
        util = sys.modules.get("multiprocessing.util")
        if process.is_worker() and util is not None:
            util.Finalize(None, self._deliver_in_child, exitpriority=-1000)
        else:
            atexit.register(self._deliver_in_child)

    def _deliver_in_child(self) -> None:
        self.delivery.flush_child(self.invitation.settings.close_timeout)


class Block:
    """What one ``with`` block of a worker sends: the part of a session behind its `PipesContext`.

    Its materializations and checks leave when it ends well.
    """

    def __init__(self, worker: WorkerSession) -> None:
        self._worker = worker
        self.delivery = worker.delivery
        self.log = worker.log
        self.data = worker.invitation.data
        self.is_closed = False
        self._scope = ReportScope(self.data["asset_keys"])
        self._held: list[bytes] = []
        self._ending = threading.Lock()
        self._failure: Exception | None = None
        self._process = os.getpid()

    def wait_opened(self) -> None:
        """Do nothing: it is open."""

    wait_for_opener = wait_opened

    def statistics(self) -> PipesStatistics:
        """Those of this process's session, which its blocks share."""
        return self.delivery.statistics()

    def describe(self) -> str:
        """Whose worker it is, and its state."""
        state = "closed" if self.is_closed else "open"
        return f" of worker {self._worker.name!r}, run {self.data['run_id']!r}, {state}"

    def is_inherited(self) -> bool:
        """Whether this is a forked child and the block is its parent's."""
        return os.getpid() != self._process

    def open_scope(self, method: str) -> Any:
        """What this block may report; the driver decides between the blocks."""
        if self.is_closed or self._worker.is_closed:
            raise closed_error(method)
        return self

    def resolve(self, asset_key: str | None, method: str) -> str:
        """See `ReportScope.resolve`."""
        return self._scope.resolve(
            self._worker.invitation.default_asset if asset_key in (None, "") else asset_key, method
        )

    def register_materialization(self, asset_key: str) -> None:
        """See `ReportScope.register_materialization`."""
        self._scope.register_materialization(asset_key)

    def register_check(self, asset_key: str, check_name: str) -> None:
        """See `ReportScope.register_check`."""
        self._scope.register_check(asset_key, check_name)

    def put(self, method: str, line: bytes) -> None:
        """Accept a line: now, or when the block ends well.

        Raises:
            InvalidReportError: It is too long for a relay.
            SessionClosedError: The block has ended, or the driver is done.
        """
        if len(line) > MOST:
            raise InvalidReportError(
                f"is too long to be relayed: {len(line):,} bytes as JSON, at most {MOST:,}",
                method=method,
                parameter="the message",
                got=line[:80],
            )
        if method not in HELD:
            self._put(method, line)
            return
        with self._ending:
            if self.is_closed:
                raise closed_error(method)
            self._held.append(line)

    def put_log_line(self, method: str, line: bytes) -> None:
        """Accept a line that may wait for others, and be dropped as log lines may."""
        if not self.delivery.outbox.put(LogLine(line), urgent=False):
            raise closed_error(method)

    def _put(self, method: str, line: bytes) -> None:
        if not self.delivery.outbox.put(line):
            raise closed_error(method)

    def forward(self, record: logging.LogRecord, text: str) -> bool:
        """Take a record that was not logged here; return False if the driver is done."""
        outbox = self.delivery.outbox
        if threading.get_ident() in outbox.exempt_threads:
            return True
        if self._worker.invitation.settings.trace_ids:
            text = add_trace_ids(text)
        return outbox.put(log_item(level_tag(record.levelno), text), urgent=record.levelno >= 30)

    def flush(self, timeout: float | None) -> None:
        """Wait until what was logged is with the driver; what is held stays held."""
        self._worker.flush(timeout)

    def deliver(self) -> None:
        """`flush`, as long as a close would wait."""
        self.flush(self._worker.invitation.settings.close_timeout)

    # -- the end --------------------------------------------------------------------------------

    def close(self, exc: Any) -> None:
        """End the block; see `close_in_thread`."""
        self.close_in_thread(exc)
        self.finish_close()

    def close_in_thread(self, exc: Any) -> None:
        """End the block: with its reports, or with an ERROR log of what ended it. Idempotent."""
        with self._ending:
            if self.is_closed:
                return
            self.is_closed = True
            held, self._held = self._held, []
        with _lock:
            self._worker.blocks -= 1
        try:
            if exc is None or (isinstance(exc, SystemExit) and exc.code in (None, 0)):
                self._send(held)
            else:
                self._log_end(exc, len(held))
            self.deliver()
        except Exception as error:  # noqa: BLE001 because finish_close() raises it
            self._failure = error

    def finish_close(self) -> None:
        """Raise how the end failed."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _send(self, held: list[bytes]) -> None:
        outbox = self.delivery.outbox
        refused = b"".join([line for line in held if not outbox.put(line)])
        if refused:
            self._worker.finish()
            raise MessagesLostError(
                refused.count(b"\n"), recovery.keep(refused), "the driver has closed the relay"
            )

    def _log_end(self, exc: Any, held: int) -> None:
        if isinstance(exc, BaseException):
            text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__)).rstrip()
        else:
            text = str(exc)
        if held:
            reports = "1 report" if held == 1 else f"{held:,} reports"
            text += f"\n({reports} of this block not sent, because it failed)"
        self.delivery.outbox.put(log_item(level_tag(40), text))


# The sessions of this process by relay and name, the least recently used first.
_sessions: dict[tuple[str, str], WorkerSession] = {}
_lock = threading.Lock()


def open_block(invitation: Invitation, name: str | None) -> Block:
    """Begin a block in this process's session of the relay."""
    if name is None:
        name = invitation.address.worker_name()
    key = invitation.relay, name
    with _lock:
        worker = _sessions.pop(key, None)
        if worker is None:
            worker = WorkerSession(invitation, name)
        _sessions[key] = worker
        worker.blocks += 1
        idle = [key for key, one in _sessions.items() if one.blocks == 0]
        retired = (
            [_sessions.pop(key) for key in idle[: len(idle) - MOST_IDLE]]
            if len(idle) > MOST_IDLE
            else []
        )
    for one in retired:
        one.retire()
    if worker.is_closed:
        with _lock:
            worker.blocks -= 1
        raise SessionClosedError(
            "the driver's Dagster Pipes relay is closed: keep it open until the last task is done"
        )
    return Block(worker)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


process.add_fork_hooks(process.ForkHooks(lambda: None, lambda: None, _after_fork_in_child))
