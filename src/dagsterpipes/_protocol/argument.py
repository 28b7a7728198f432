"""An argument of a call, for the error that names it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from dagsterpipes.exceptions import DagsterPipesError, InvalidReportError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator


class Argument(NamedTuple):
    """A method, one of its parameters, and the keys that lead to a part of the value."""

    method: str
    parameter: str
    keys: tuple[object, ...] = ()

    def at(self, *keys: object) -> Argument:
        """A part of the value."""
        return Argument(self.method, self.parameter, self.keys + keys)

    def error(self, problem: str, got: object) -> InvalidReportError:
        """The error that says what is wrong with this value."""
        path = [f"[{shorten(key, 40)}]" for key in self.keys]
        if len(path) > 12:
            path[8:-2] = ["[…]"]
        return InvalidReportError(
            problem, method=self.method, parameter=self.parameter, path="".join(path), got=got
        )

    def text(self, value: object) -> str:
        """The value, which must be a str, without what a subclass makes of it.

        Raises:
            InvalidReportError: It is none.
        """
        if not isinstance(value, str):
            raise self.error("must be a str", value)
        return str.__str__(value)

    @contextmanager
    def wrap_errors(self, value: object) -> Iterator[None]:
        """Re-raise what reading the value raises as `InvalidReportError`.

        Users' objects may raise anything from any method, and so may libraries'.
        """
        try:
            yield
        except DagsterPipesError:
            raise
        except Exception as error:
            raise self.error(unreadable(error), value) from error


def unreadable(error: Exception) -> str:
    """What is wrong with a value that raised this while it was read."""
    return f"raised {type(error).__name__} ({shorten(error)}) while it was read"
