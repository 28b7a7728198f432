"""What ends a process while a session is open: exit, signals, fork - and how the session survives it.

Everything is set up when a session opens and taken back when it closes.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from dagsterpipes.exceptions import DagsterPipesError

if TYPE_CHECKING:
    from types import FrameType

    from dagsterpipes._session.session import Session

SESSION_ENV_VAR = "DAGSTERPIPES_SESSION"
"""Tells child processes that inherit the environment that a session is open: pid and messages."""

# The session of this process, or the inherited one in a forked child.
_session: Session | None = None
_got_sigterm = False


class Terminated(KeyboardInterrupt):
    """The process was asked to terminate (SIGTERM)."""


def session_opened(session: Session, *, messages: str | None, handle_sigterm: bool) -> None:
    """Look after the session until it closes.

    Args:
        session: The session.
        messages: The raw ``DAGSTER_PIPES_MESSAGES`` by which it was opened, if it was by that.
        handle_sigterm: Treat SIGTERM as SIGINT, if nobody else handles it and this is the main
            thread.
    """
    global _session
    _session = session
    if messages is not None:
        os.environ[SESSION_ENV_VAR] = f"{os.getpid()} {messages}"
    if (
        handle_sigterm
        and hasattr(signal, "SIGTERM")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _on_sigterm)


def session_closed(session: Session) -> None:
    """Stop looking after the session."""
    global _session
    if _session is not session:
        return
    _session = None
    os.environ.pop(SESSION_ENV_VAR, None)
    if (
        not _got_sigterm
        and hasattr(signal, "SIGTERM")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is _on_sigterm
    ):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def belongs_to_other_process(messages: str | None) -> bool:
    """Whether the process that gave this one its environment has the session open itself.

    Its ``opened`` and ``closed`` are the only ones then.
    """
    owner, _, its_messages = os.environ.get(SESSION_ENV_VAR, "").partition(" ")
    return bool(owner) and owner != str(os.getpid()) and its_messages == messages


# -- signals --------------------------------------------------------------------------------------


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    """End the job as Ctrl-C would: asyncio and trio have their own, safe way of doing that."""
    global _got_sigterm
    if _got_sigterm:  # asked twice: at once
        _die_of_sigterm()
    _got_sigterm = True
    if _session is not None:
        _session.ended_by(Terminated(f"terminated by {signal.Signals(signum).name}"))
    on_sigint = signal.getsignal(signal.SIGINT)
    if callable(on_sigint):
        on_sigint(signal.SIGINT, frame)
    else:
        raise Terminated(f"terminated by {signal.Signals(signum).name}")


def _die_of_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


# -- exit -----------------------------------------------------------------------------------------


def _at_exit() -> None:
    session = _session
    try:
        if session is not None:
            _close_at_exit(session)
    except DagsterPipesError:
        # Python would show the error and end with the status of success.
        sys.excepthook(*sys.exc_info())
        if not _got_sigterm:
            _flush_all()
            os._exit(1)
    finally:
        if _got_sigterm:
            _flush_all()
            _die_of_sigterm()


def _flush_all() -> None:
    """Write what logging and the streams hold: nobody else does it after this."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _close_at_exit(session: Session) -> None:
    if session.is_inherited():
        session.close(None)
        return
    uncaught: Any = None
    if not hasattr(sys, "ps1"):  # in an interactive interpreter it is any earlier error
        uncaught = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if not session.is_closed:
        warnings.warn(
            "a Dagster Pipes session was not closed; it is closed now, at exit. "
            "Use `with open_dagster_pipes()`, or call close()",
            ResourceWarning,
            stacklevel=1,
            source=session,
        )
    session.close(uncaught)


# Registered on import, so that it runs after the handlers of the job, which may still log.
atexit.register(_at_exit)


# -- fork -----------------------------------------------------------------------------------------


def _after_fork_in_child() -> None:
    global _got_sigterm
    _got_sigterm = False
    if _session is not None:
        _session.continue_after_fork()


def finish_at_worker_exit(session: Session) -> None:
    """Deliver what a forked worker said when it ends: `multiprocessing` skips `atexit` there."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, session.close, args=(None,), exitpriority=0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
