"""The object-store channel: numbered objects of whole lines, which a reader takes one after the other."""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from typing import TYPE_CHECKING

from dagsterpipes.exceptions import ChannelError, DagsterPipesWarning, SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagsterpipes._delivery.outbox import Readiness

HANDLING = 0.0035
"""Seconds that Dagster spends on a message, about."""

MOST_UNREAD = 4
"""Objects that may wait for the reader: after the end of the process it takes about one a second, for
11 seconds."""

MOST_UNREAD_AT_END = 9
"""The same for the objects of the close."""

MOST_HANDLING = 5.0
"""Seconds of handling that may wait for the reader in objects before the next: the reader's 11 seconds
pass while it handles them."""


class ReaderPace:
    """Estimates how far the reader is, to write no faster than it can follow.

    Dagster's readers take one object in ``interval + 1`` seconds. So logs are written at this pace, and
    what presses is written at once unless too much is unread.

    Args:
        interval: Seconds, of the reader; the writer has the same by default.
        batch_size: Bytes of packed messages that are written at once, at most.
    """

    first_retry = 0.25
    last_retry = 10.0

    def __init__(self, interval: float, batch_size: int = sys.maxsize) -> None:
        self.batch_size = batch_size
        self._interval = interval
        # Readers compare whole seconds: more than the interval.
        self._period = int(interval) + 1.0
        # For each object that was not read yet: when the reader begins with it, and for how many
        # seconds that keeps it.
        self._unread: deque[tuple[float, float]] = deque()
        # When the reader has time for the next one.
        self._free_at = 0.0
        self._next_write = 0.0

    def delay(self, ready: Readiness, now: float) -> float:
        """Seconds until the next write."""
        unread = self._unread
        while unread and unread[0][0] <= now:
            unread.popleft()
        is_last = ready == "sealed"
        earliest = now if is_last or ready == "pressing" else self._next_write
        over = len(unread) - (MOST_UNREAD_AT_END if is_last else MOST_UNREAD)
        if over >= 0:
            earliest = max(earliest, unread[over][0])
        handling = sum(seconds for _, seconds in unread)
        for begin, seconds in unread:
            if handling <= MOST_HANDLING:
                break
            earliest = max(earliest, begin)
            handling -= seconds
        return max(0.0, earliest - now)

    def stored(self, messages: int, now: float) -> None:
        """Take note of an object with so many messages."""
        begin = max(now + self._period, self._free_at)
        handling = messages * HANDLING
        self._unread.append((begin, handling))
        self._free_at = begin + max(self._period, handling)
        self._next_write = now + self._period

    def restarted(self) -> ReaderPace:
        """A new one, for which nothing was written."""
        return ReaderPace(self._interval, self.batch_size)


class ObjectStoreChannel:
    """Puts lines into objects with the numbers 1, 2, 3 and so on.

    No object is empty, none is left out, and none ends within a line. The next one is begun when the
    last one is stored. A put that failed may have stored the object, and the reader may have read it:
    the same number is put again with the same bytes, and later lines go into later objects.

    Args:
        put: Stores an object, given its number and its lines; must be safe to repeat. Called in one
            thread at a time.
        create: Stores the first object, given its lines, unless there is one: then it raises
            `FileExistsError`. None where the store cannot do that.
        place: Where the objects go, for errors.
        interval: Seconds, see `ReaderPace`.
        max_size: Most bytes of an object; a line that is longer has one of its own.
        clock: Seconds, as the drain counts them.
    """

    def __init__(
        self,
        put: Callable[[int, bytes], object],
        *,
        create: Callable[[bytes], object] | None = None,
        place: str,
        interval: float,
        max_size: int = sys.maxsize,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pace = ReaderPace(interval, max_size - max_size // 5)  # rendered, it may be longer
        self._put = put
        self._create = create
        self._place = place
        self._max_size = max_size
        self._has_warned = False
        self._clock = clock
        # How many objects are stored.
        self._count = 0
        # The next object, once a put of it was tried, and the lines behind it. One tuple, for other
        # threads.
        self._state = (b"", b"")
        # Whether this is a forked child.
        self._is_inherited = False

    def write(self, lines: bytes, /) -> None:
        """Store the lines, behind those that an earlier call had to leave; blocks.

        Raises:
            OSError: Not everything could be stored; the rest goes first at the next call.
            ChannelError: Nothing was stored yet, and trying again would not help.
            SessionClosedError: This is a forked child.
        """
        chunk, rest = self._state
        rest += lines
        self._state = (chunk, rest)
        if self._is_inherited and rest:
            raise SessionClosedError(
                f"only the process that opened the session can send messages to {self._place}, since"
                " two writers would overwrite each other's objects: let child processes return what"
                " is to be sent, or print it if Dagster includes stdout in the messages"
            )
        while chunk or rest:
            if not chunk:
                chunk, rest = self._split(rest)
                self._state = (chunk, rest)
            try:
                self._store(chunk)
            except Exception as error:
                raise self._failure(error) from error
            self._count += 1
            self.pace.stored(chunk.count(b"\n"), self._clock())
            chunk = b""
            self._state = (chunk, rest)

    def unwritten(self) -> bytes:
        """The lines that were taken and are not known to be stored, in order."""
        chunk, rest = self._state
        return chunk + rest

    def close(self) -> None:
        """Do nothing: there is nothing open."""

    def after_fork_in_child(self) -> None:
        """In a forked child: forget the parent's lines, refuse those of the child."""
        self._is_inherited = True
        self._state = (b"", b"")
        self.pace = self.pace.restarted()

    def _store(self, chunk: bytes) -> None:
        if self._create is None:
            self._put(self._count + 1, chunk)
            return
        try:
            self._create(chunk)
        except Exception as error:
            status = status_of(error)
            if not isinstance(error, FileExistsError) and (status is None or status >= 500):
                # What is found at the next try may be ours.
                self._create = None
            raise
        self._create = None

    def _split(self, lines: bytes) -> tuple[bytes, bytes]:
        if len(lines) <= self._max_size:
            return lines, b""
        end = lines.rfind(b"\n", 0, self._max_size) + 1
        if not end:
            end = lines.index(b"\n") + 1
            self._warn_of_long_line(end)
        return lines[:end], lines[end:]

    def _warn_of_long_line(self, length: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"a message of {length:,} bytes goes to {self._place}, where Dagster reads only the first"
                f" {self._max_size:,} bytes of an object: it will be lost. Report less at once.",
                DagsterPipesWarning,
                stacklevel=2,
            )

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, FileExistsError):
            return ChannelError(
                f"{self._place}/{self._count + 1}.json is there already: another process sends messages to"
                " this place, or has sent some, and two writers would overwrite each other's objects. Only"
                " the process that Dagster launched can send: let its child processes return what is to"
                " be sent, or print it if Dagster includes stdout in the messages. If this process was"
                " started again with the same params, let Dagster launch it anew instead, with a retry"
                " policy of the asset."
            )
        what = f"{self._place}/{self._count + 1}.json could not be written:"
        status = status_of(error)
        what += f" {type(error).__name__}" + ("" if status is None else f" (HTTP {status})")
        what += f": {' '.join(str(error).split())}"
        if self._count == 0 and is_permanent(error):
            return ChannelError(
                f"{what}. DAGSTER_PIPES_MESSAGES names this place: check that it exists, that this"
                " process has credentials for it, and that they allow to write there and to overwrite."
            )
        return OSError(what)


_PERMANENT_STATUS = (400, 401, 403, 404, 405)
_PERMANENT_NAMES = (
    # of botocore, google.auth, obstore, azure.core
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "RefreshError",
    "NotFoundError",
    "PermissionDeniedError",
    "UnauthenticatedError",
    "ParamValidationError",
)


def is_permanent(error: BaseException) -> bool:
    """Whether there is no point in asking a store again; knows the errors of the usual clients."""
    if status_of(error) in _PERMANENT_STATUS:
        return True
    return type(error).__name__ in _PERMANENT_NAMES or isinstance(
        error,
        (
            TypeError,
            AttributeError,
            NotImplementedError,
            PermissionError,
            FileNotFoundError,
            NotADirectoryError,
        ),
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that the error is about, if it is about one."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    for status in (
        getattr(error, "status_code", None),  # azure
        getattr(error, "code", None),  # google
        metadata.get("HTTPStatusCode"),  # botocore
    ):
        if isinstance(status, int):
            return int(status)
    return None
