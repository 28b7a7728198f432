"""Message readers for files: as Dagster's, but nothing stops them, and floods are cheap."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagsterpipes._protocol.envelope import READER_KEY
from dagsterpipes._reader.tail import LineTail
from dagsterpipes.dagster.ingest import Ingest
from dagsterpipes.dagster.private import DagsterPipesExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagsterpipes._reader.tail import TailedLine

__all__ = [
    "PipesFileMessageReader",
    "PipesTempFileMessageReader",
    "message_params",
    "reading",
]

POLL = 0.02
"""Seconds between two looks at a file that has not grown."""


class PipesFileMessageReader(dg.PipesFileMessageReader):
    """Reads messages from a file at a given path; stands in for ``dagster.PipesFileMessageReader``.

    Every good message arrives, whatever stands between: a line that is torn is waited for, one that
    breaks a rule costs that message and a warning in the run's log (after 20, a count). Log lines
    are stored up to 1,000, or those of 0.2 s, in one transaction, in SQLite and Postgres; each is
    an entry of its own. With any other storage, or a Dagster whose inner names are not those that
    are known, they are stored one by one.

    Args:
        path: Where the messages will be written. The file is made, or emptied, at first.
        include_stdio_in_messages: Whether the process is asked to send its output as messages.
        cleanup_file: Whether to delete the file at the end.
        strict: Whether a process that succeeded fails the step all the same if a message broke a
            rule, if `opened` came and `closed` never did, or if it was closed with an exception.

    Raises:
        DagsterPipesExecutionError: At the end of the session: ``strict`` found something.

    Threads: a session reads in a thread of its own; a reader may serve many sessions at once, each
    of which needs a path of its own.
    """

    def __init__(
        self,
        path: str,
        include_stdio_in_messages: bool = False,
        cleanup_file: bool = True,
        *,
        strict: bool = False,
    ) -> None:
        super().__init__(path)  # the oldest Dagster takes no more
        self._messages = Path(path)
        self._stdio = include_stdio_in_messages
        self._keep = not cleanup_file
        self._strict = strict

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, Any]]:
        """Read until the block ends, and then to the end of the file.

        Args:
            handler: Dagster's handler of the session's messages.
        """
        self._messages.write_bytes(b"")
        try:
            with reading(self._messages, Ingest(handler, time.monotonic), strict=self._strict):
                yield message_params(self._messages, include_stdio=self._stdio)
        finally:
            if not self._keep:
                self._messages.unlink(missing_ok=True)


class PipesTempFileMessageReader(dg.PipesTempFileMessageReader):
    """As ``PipesFileMessageReader``, with a temporary file for each session.

    Stands in for ``dagster.PipesTempFileMessageReader``.

    Args:
        include_stdio_in_messages: Whether the process is asked to send its output as messages.
        strict: As for ``PipesFileMessageReader``.
    """

    def __init__(self, include_stdio_in_messages: bool = False, *, strict: bool = False) -> None:
        super().__init__()  # the oldest Dagster takes no more
        self._stdio = include_stdio_in_messages
        self._strict = strict

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, Any]]:
        """Read until the block ends, and then to the end of the file.

        Args:
            handler: Dagster's handler of the session's messages.
        """
        # Whoever the process has left behind may still write, which must not fail the step.
        with tempfile.TemporaryDirectory(
            prefix="dagsterpipes-", ignore_cleanup_errors=True
        ) as folder:
            reader = PipesFileMessageReader(
                os.path.join(folder, "messages"),  # noqa: PTH118 because Dagster's reader takes a string
                self._stdio,
                strict=self._strict,
            )
            with reader.read_messages(handler) as params:
                yield params


def message_params(path: Path, *, include_stdio: bool) -> dict[str, Any]:
    """What tells the process where to write, and who will read."""
    return {"path": str(path), "include_stdio_in_messages": include_stdio, READER_KEY: 1}


@contextmanager
def reading(
    path: Path,
    ingest: Ingest,
    *,
    strict: bool,
    take: Callable[[TailedLine], None] | None = None,
) -> Iterator[None]:
    """Read a file in a thread while the block runs, and to its end when it is left.

    Args:
        path: The messages file, which exists.
        ingest: Takes the lines.
        strict: Whether to raise for what ``ingest`` found, if the block did not raise.
        take: What to call with each line; ``ingest.take`` unless given.

    Raises:
        DagsterPipesExecutionError: ``strict`` found something, or the reading itself failed.
    """
    thread = _Reader(path, ingest, take or ingest.take)
    thread.start()
    try:
        yield
    finally:
        thread.stop()
    if thread.failure is not None:
        raise DagsterPipesExecutionError(
            f"The messages in {path} could not be read to their end"
        ) from thread.failure
    failures = ingest.failures() if strict else ()
    if failures:
        raise DagsterPipesExecutionError(
            "The process succeeded, but its Pipes session did not: "
            + "; ".join(failures)
            + ". The warnings in the run's log name the lines. (The message reader is strict.)"
        )


class _Reader(threading.Thread):
    def __init__(self, path: Path, ingest: Ingest, take: Callable[[TailedLine], None]) -> None:
        super().__init__(name="dagsterpipes-reader", daemon=True)
        self._path = path
        self._ingest = ingest
        self._take = take
        self._ended = threading.Event()  # nothing more will be written
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Read to the end of the file, and return then."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        try:
            with self._path.open("rb", buffering=0) as file:
                self._follow(LineTail(file, time.monotonic))
            self._ingest.finish()
        except BaseException as failure:  # noqa: BLE001 because a thread that ends in silence loses messages
            self.failure = failure
            sys.stderr.write(f"[pipes] the reader of {self._path} failed: {failure!r}\n")

    def _follow(self, tail: LineTail) -> None:
        while True:
            # Asked before reading: what was written before the end is then read below.
            ended = self._ended.is_set()
            for line in tail.lines():
                self._take(line)
            self._ingest.flush_if_due()
            if tail.at_end:
                if ended:
                    break
                self._ended.wait(POLL)
        rest = tail.rest()
        if rest is not None:
            self._take(rest)
