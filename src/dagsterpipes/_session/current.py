"""Which context is the current one of this process, and who may change that."""

from __future__ import annotations

import threading
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


def set_context(new: Any, new_forward: Forward | None) -> None:
    """Make this the current context."""
    global context, forward
    context, forward = new, new_forward


def open_context() -> Any:
    """The current context, or None if there is none or it is closed."""
    current = context
    return None if current is None or current.is_closed else current


def after_fork_in_child() -> None:
    """In a forked child: a thread that is not here may have held the lock."""
    global opening
    opening = threading.RLock()
