"""Which context is the current one of this process, and who may change that."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    Forward = Callable[[logging.LogRecord, str], object]

# Held while it is decided whether there is a session.
opening = threading.RLock()

# What `PipesContext.get` returns, and what takes records of the application's own loggers.
context: Any = None
forward: Forward | None = None


# In a worker's task: the context of the relay through which it reports.
relayed: ContextVar[Any] = ContextVar("dagsterpipes_relayed", default=None)


def set_context(new: Any, new_forward: Forward | None) -> None:
    """Make this the current context."""
    global context, forward
    context, forward = new, new_forward


def open_context() -> Any:
    """The current context, or None if there is none or it is closed."""
    current = relayed_context() or context
    return None if current is None or current.is_closed else current


def relayed_context() -> Any:
    """The context of the task that runs here, if it reports through a relay."""
    current = relayed.get()
    return None if current is None or current.is_closed else current


def open_forward() -> Forward | None:
    """What takes records of the application's own loggers here."""
    current = relayed_context()
    return forward if current is None else current._session.forward  # noqa: SLF001 because it is what `set_context` is given


def after_fork_in_child() -> None:
    """In a forked child: a thread that is not here may have held the lock."""
    global opening
    opening = threading.RLock()
