"""Where in a call a value stands, for the error that names it."""

from __future__ import annotations

from typing import NamedTuple

from dagsterpipes.exceptions import InvalidReportError, shorten


class Place(NamedTuple):
    """A method, one of its parameters, and a path into that, for example ``['rows'][3]``."""

    method: str
    parameter: str
    path: str = ""

    def at(self, key: object) -> Place:
        """The place of an item of the value that stands here."""
        return self._replace(path=f"{self.path}[{shorten(key, 40)}]")

    def error(self, problem: str, got: object) -> InvalidReportError:
        """The error that says what is wrong with the value that stands here."""
        return InvalidReportError(
            problem, method=self.method, parameter=self.parameter, path=self.path, got=got
        )

    def failure(self, error: Exception, got: object) -> InvalidReportError:
        """The error that says that the value raised one of its own while it was read."""
        return self.error(
            f"raised {type(error).__name__} ({shorten(error)}) while it was read", got
        )
