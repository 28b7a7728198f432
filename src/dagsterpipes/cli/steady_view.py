"""Showing a session must not end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dagsterpipes.cli.events import Event, Summary, View

__all__ = ["SteadyView"]


class SteadyView:
    """Passes everything on to a view until nobody reads it any more; then says nothing.

    Whoever pipes the runner into ``head`` still gets the command run to its end.

    Args:
        view: The view.
        on_broken: Called once, when the view cannot write.
    """

    def __init__(self, view: View, on_broken: Callable[[], None]) -> None:
        self._view: View | None = view
        self._on_broken = on_broken

    def show(self, event: Event) -> None:
        """Show an event."""
        if self._view is not None:
            try:
                self._view.show(event)
            except OSError:
                self._break()

    def tick(self, state: str, at: float, /) -> None:
        """Bring the state up to date."""
        if self._view is not None:
            try:
                self._view.tick(state, at)
            except OSError:
                self._break()

    def finish(self, summary: Summary) -> None:
        """Show what came of it."""
        if self._view is not None:
            try:
                self._view.finish(summary)
            except OSError:
                self._break()

    def _break(self) -> None:
        self._view = None
        self._on_broken()
