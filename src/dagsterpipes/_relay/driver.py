"""The driver's end of a relay: takes each frame once, and decides about what several workers report."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Protocol

from dagsterpipes._protocol import messages
from dagsterpipes.exceptions import DagsterPipesError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagsterpipes._session.options import Settings
    from dagsterpipes.typing import PipesContextData

# Unescaped quotes are no part of a text: only a report, or a payload of the same shape, has this.
_REPORT = b'"method": "report_asset_'


class DriverSession(Protocol):
    """What a relay needs of the session that it belongs to."""

    def take_lines(self, lines: bytes, /) -> bool:
        """Put whole lines into the session, waiting for room; False once it is closed."""

    def open_scope(self, method: str, /) -> Any:
        """What may be reported."""

    def for_workers(self) -> tuple[PipesContextData, Settings]:
        """The context and the options with which workers open."""

    def close_first(self, relay: Any, /) -> None:
        """Call the relay's ``close`` before the session refuses messages."""


class Hub:
    """Takes the frames of all workers.

    A frame counts once, however often a worker has to send it; frames of one worker come in order.
    While the session has no room, `accept` waits, and so does the worker.

    Threads: any.

    Args:
        session: Where the lines go.
    """

    def __init__(self, session: DriverSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        # For each worker, a lock that is held while a frame of it is taken, and the last one's number.
        self._workers: dict[bytes, tuple[threading.Lock, list[int]]] = {}
        # The first report of each asset and check.
        self._reports: dict[tuple[str, ...], bytes] = {}
        self._is_closed = False

    def accept(self, worker: bytes, seq: int, lines: bytes) -> bool:
        """Take a frame, unless it was taken before; False if it was not and will not be.

        When it is True, the lines are in the session's queue: delivered, or in its recovery file.
        """
        with self._lock:
            lock, last = self._workers.setdefault(worker, (threading.Lock(), [0]))
        with lock:
            if seq <= last[0]:
                return True
            if self._is_closed:
                return False
            if _REPORT in lines:
                lines = b"".join(self._without_repeats(lines))
            if lines and not self._session.take_lines(lines):
                return False
            last[0] = seq
            return True

    def close(self) -> None:
        """Refuse every new frame from now on."""
        self._is_closed = True

    def _without_repeats(self, lines: bytes) -> Iterator[bytes]:
        for line in lines.splitlines(keepends=True):
            key = _report_key(line) if _REPORT in line else None
            if key is None:
                yield line
                continue
            with self._lock:
                first = self._reports.setdefault(key, line)
                is_first = first is line and self._register(key)
            if not is_first and first != line:
                yield _ignored(key, "a worker reported something else before", line)
            elif not is_first and first is line:
                yield _ignored(key, "the driver reported it before", line)
            elif is_first:
                yield line

    def _register(self, key: tuple[str, ...]) -> bool:
        scope = self._session.open_scope("relay")
        try:
            if len(key) == 1:
                scope.register_materialization(*key)
            else:
                scope.register_check(*key)
        except DagsterPipesError:  # the driver did
            return False
        return True


def _report_key(line: bytes) -> tuple[str, ...] | None:
    """The asset, or the asset and the check, that a line reports; None if it does not."""
    message = json.loads(line)
    params = message["params"]
    if message["method"] == "report_asset_materialization":
        return (params["asset_key"],)
    if message["method"] == "report_asset_check":
        return (params["asset_key"], params["check_name"])
    return None


def _ignored(key: tuple[str, ...], why: str, line: bytes) -> bytes:
    what = f"asset {key[0]!r}" if len(key) == 1 else f"check {key[1]!r} of asset {key[0]!r}"
    return messages.log(
        f"a worker's report of {what} was ignored, since {why}, and Dagster takes one for each: let"
        f" workers return their results, and report once. It was {shorten(line.decode(), 500)}",
        "WARNING",
    )
