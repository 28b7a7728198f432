"""SIGINT and SIGTERM while a session is open: the job ends, and Dagster is told by what.

Python lets only the main thread set signal handlers, and runs them there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dagsterpipes.exceptions import DagsterPipesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Told what ends the job; None while no session is open.
_report: Callable[[KeyboardInterrupt], None] | None = None
# The handler of SIGINT that ours stands before.
_on_sigint_before: Any = None
# When the first SIGTERM came, on the monotonic clock.
_terminated_at: float | None = None

SAME_SIGTERM = 0.25
"""Seconds in which another SIGTERM counts as the same: GNU ``timeout`` sends two in a row."""


class Terminated(KeyboardInterrupt):
    """The process was asked to terminate (SIGTERM)."""


def check_interpreter() -> None:
    """Raise in a sub-interpreter, where no signal can be watched and threads outlive their modules."""
    if not _can_set_handlers():
        return
    try:
        signal.signal(signal.SIGINT, None)
    except TypeError:  # the handler is looked at second
        pass
    except ValueError:
        raise DagsterPipesError(
            "a Dagster Pipes session cannot be opened in a sub-interpreter: open it in the main"
            " interpreter of the process, and pass it what the others have to report"
        ) from None


def watch(report: Callable[[KeyboardInterrupt], None], *, sigterm: bool, in_loop: bool) -> None:
    """Report what ends the job, from now on until `unwatch`.

    Does nothing outside of the main thread.

    Args:
        report: Called in a signal handler, before the job hears of it.
        sigterm: Treat SIGTERM as SIGINT, unless the application has a handler for it.
        in_loop: Under an event loop, which makes a cancellation of SIGINT: take note of it.
    """
    global _report, _on_sigint_before
    if not _can_set_handlers():
        return
    _report = report
    if sigterm and _handler_of("SIGTERM") is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)
    on_sigint = signal.getsignal(signal.SIGINT)
    # Event loops look whether Python's own handler is there, and then put in theirs. Before
    # Python 3.11, asyncio has none of its own and cancels what the interrupt leaves behind.
    is_loops = on_sigint is not signal.default_int_handler or sys.version_info < (3, 11)
    if in_loop and is_loops and callable(on_sigint) and on_sigint is not _on_sigint:
        _on_sigint_before = on_sigint
        signal.signal(signal.SIGINT, _on_sigint)


def unwatch() -> None:
    """Stop reporting; put the handlers back as they were, as far as this thread may do that."""
    global _report
    _report = None
    if not _can_set_handlers():
        return
    if _handler_of("SIGTERM") is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _on_sigint:
        signal.signal(signal.SIGINT, _on_sigint_before)


def after_fork_in_child() -> None:
    """In a forked child: end by SIGTERM as it would without us, so that others can end it."""
    global _terminated_at
    _terminated_at = None
    unwatch()


def die_if_terminated() -> None:
    """At the end of the process: if it got a SIGTERM, end by it, so that its status says so."""
    if _terminated_at is not None:
        flush_everything()
        _die_of_sigterm()


def flush_everything() -> None:
    """Write what logging and the streams hold, before the process ends without its usual care."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _can_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handler_of(name: str) -> Any:
    return signal.getsignal(getattr(signal, name)) if hasattr(signal, name) else None


def _on_sigint(signum: int, frame: FrameType | None) -> None:
    if _report is not None:
        _report(KeyboardInterrupt())
    _on_sigint_before(signum, frame)


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    """End the job as Ctrl-C would: asyncio and trio have their own, safe way of doing that."""
    del signum, frame
    global _terminated_at
    now = time.monotonic()
    if _terminated_at is not None and now - _terminated_at < SAME_SIGTERM:
        return
    if _terminated_at is not None or _report is None:  # asked again; or there is no session
        _die_of_sigterm()
    _terminated_at = now
    reason = Terminated("terminated by SIGTERM")
    if _report is not None:
        _report(reason)
    if not callable(signal.getsignal(signal.SIGINT)):  # ignored, as in background jobs of a shell
        raise reason
    # A real one, as loops may learn of it in other ways than by the handler.
    signal.raise_signal(signal.SIGINT)


def _die_of_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    if os.getpid() == 1:  # the first process of a container: signals do nothing to it by default
        os._exit(128 + signal.SIGTERM)
