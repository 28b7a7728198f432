"""What ends a process while a session is open: exit, signals, fork - and how the session survives it.

Everything is set up when a session starts to open and taken back when it is closed.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dagsterpipes._session import current, signals
from dagsterpipes.exceptions import DagsterPipesError

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION_ENV_VAR = "DAGSTERPIPES_SESSION"
"""Tells child processes that inherit the environment that a session is open: pid and messages."""


class ProcessHooks(Protocol):
    """What the end or the fork of a process asks of a session."""

    @property
    def is_closed(self) -> bool: ...

    def ended_by(self, signal: KeyboardInterrupt) -> None: ...

    def close(self, exc: BaseException | None) -> None: ...

    def is_inherited(self) -> bool: ...

    def before_fork(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


class InheritableSession(Protocol):
    """What the fork of a process asks of a session that is not the process's own."""

    def after_fork_in_child(self) -> None: ...


class ForkHooks(NamedTuple):
    """What a module does at a fork of the process."""

    before: Callable[[], object]
    after_in_parent: Callable[[], object]
    after_in_child: Callable[[], object]


# The open session of this process, or the inherited one in a forked child.
_session: ProcessHooks | None = None
# All that are in memory: a child may use a closed one too, and must find its locks free.
_sessions: weakref.WeakSet[ProcessHooks | InheritableSession] = weakref.WeakSet()
_fork_hooks: list[ForkHooks] = []
# The process in which `multiprocessing` was told to finish the session.
_finishing_worker = 0


def session_started(
    session: ProcessHooks, *, messages: str | None, handle_sigterm: bool, in_coroutine: bool
) -> None:
    """Look after the session until it is closed; called in the thread that opens it.

    Args:
        session: The session.
        messages: The raw ``DAGSTER_PIPES_MESSAGES`` by which it is opened, if it is by that, and if
            it is not that of another process.
        handle_sigterm: Treat SIGTERM as SIGINT.
        in_coroutine: Under an event loop.
    """
    global _session
    _session = session
    _sessions.add(session)
    if messages is not None:
        os.environ[SESSION_ENV_VAR] = f"{os.getpid()} {messages}"
    signals.watch(session.ended_by, sigterm=handle_sigterm, in_loop=in_coroutine)
    if is_worker():
        finish_at_worker_exit()


def session_closed(session: ProcessHooks) -> None:
    """Stop looking after the session; may be called again, and in more than one thread."""
    global _session
    if _session is session:
        _session = None
        if os.environ.get(SESSION_ENV_VAR, "").startswith(f"{os.getpid()} "):
            del os.environ[SESSION_ENV_VAR]
    if _session is None:
        signals.unwatch()


def belongs_to_other_process(messages: str | None) -> bool:
    """Whether the process that gave this one its environment has the session open itself.

    Its ``opened`` and ``closed`` are the only ones then.
    """
    owner, _, its_messages = os.environ.get(SESSION_ENV_VAR, "").partition(" ")
    return bool(owner) and owner != str(os.getpid()) and its_messages == messages


def is_worker() -> bool:
    """Whether `multiprocessing` made this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def add_inheritable(session: ProcessHooks | InheritableSession) -> None:
    """Tell the session of forks, for as long as it lives; no more."""
    _sessions.add(session)


# -- exit -----------------------------------------------------------------------------------------


def _at_exit() -> None:
    try:
        if _session is not None and not _is_left_to_worker_exit():
            _close_at_exit(_session)
    except DagsterPipesError:
        # Python would show the error and end with the status of success.
        sys.excepthook(*sys.exc_info())
        signals.die_if_terminated()
        signals.flush_everything()
        os._exit(1)
    finally:
        signals.die_if_terminated()


def _close_at_exit(session: ProcessHooks) -> None:
    if session.is_inherited():
        session.close(None)
        return
    was_forgotten = not session.is_closed
    session.close(_uncaught())
    if was_forgotten:  # last, as it may be an error
        warnings.warn(
            "a Dagster Pipes session was not closed; it has been closed at exit. "
            "Use `with open_dagster_pipes()`, or call close()",
            ResourceWarning,
            stacklevel=1,
            source=session,
        )


def _uncaught() -> Any:
    """The exception that ended the job, if one did."""
    if not hasattr(sys, "ps1"):
        return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    # An interactive interpreter keeps any earlier error; IPython also tells how the last cell ended.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    last_cell = getattr(shell, "last_execution_result", None)
    return getattr(last_cell, "error_before_exec", None) or getattr(
        last_cell, "error_in_exec", None
    )


# Registered on import, so that it runs after the handlers of the job, which may still log.
atexit.register(_at_exit)


# -- fork -----------------------------------------------------------------------------------------


def add_fork_hooks(hooks: ForkHooks) -> None:
    """Call these at each fork from now on, with those of the session."""
    _fork_hooks.append(hooks)


def _before_fork() -> None:
    if _session is not None:
        _session.before_fork()
    for hooks in _fork_hooks:
        hooks.before()


def _after_fork_in_parent() -> None:
    for hooks in _fork_hooks:
        hooks.after_in_parent()


def _after_fork_in_child() -> None:
    for hooks in _fork_hooks:
        hooks.after_in_child()
    signals.after_fork_in_child()
    current.after_fork_in_child()
    for session in list(_sessions):
        session.after_fork_in_child()


def finish_at_worker_exit() -> None:
    """Deliver what a worker sent when it ends: `multiprocessing` skips `atexit` in most workers."""
    global _finishing_worker
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _finishing_worker != os.getpid():
        _finishing_worker = os.getpid()
        # After the finalizers of the job, which may still log.
        util.Finalize(None, _at_worker_exit, exitpriority=-1000)


def _is_left_to_worker_exit() -> bool:
    """Whether the finalizers of `multiprocessing` come later: since Python 3.13 they do, in workers."""
    util = sys.modules.get("multiprocessing.util")
    return (
        is_worker()
        and util is not None
        and _finishing_worker == os.getpid()
        and not util.is_exiting()
    )


def _at_worker_exit() -> None:
    if _session is not None:
        _session.close(sys.exc_info()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
