"""The library that the probes of `behaviour.py` ask, under launches of every kind."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.launching import OP_STEP, Launch  # noqa: E402 because tests are no package

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OP_STEP", "ROOT", "LibraryUnderTest", "Row", "Section", "Sent", "clean_environment"]


class Sent(NamedTuple):
    """The call was taken: these messages of it are to be shown to Dagster's reader."""

    messages: list[Any]
    words: str = "sent"


class Row(NamedTuple):
    """One line of the page: a probe, asked of both libraries, and what is known of R's package."""

    label: str
    probe: Callable[[LibraryUnderTest], str | Sent]
    r: str


class Section:
    """A table of the page."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Row] = []

    def row(self, label: str, *, r: str) -> Callable[[Callable[[LibraryUnderTest], Any]], None]:
        """Add a probe."""
        return lambda probe: self.rows.append(Row(label, probe, r))


class LibraryUnderTest:
    """A library under launches of every kind.

    Args:
        library: ``dagsterpipes`` or ``dagster_pipes``.
        folder: Where to write.
    """

    def __init__(self, library: str, folder: str) -> None:
        self.library = library
        self.lib: Any = importlib.import_module(library)
        self._folder = folder
        self._pipes: Any = None
        self.launch = self.new_launch()

    def new_launch(self, **context: Any) -> Launch:
        """A context file and a messages file of their own."""
        self.launch = Launch(Path(tempfile.mkdtemp(dir=self._folder)), **context)
        return self.launch

    def open(self, parts: dict[str, Any] | None = None, **context: Any) -> Any:
        """Open a session in this process, closing the one before."""
        self.close()
        launch = self.new_launch(**context)
        loader = self.lib.PipesMappingParamsLoader(launch.env)
        self._pipes = self.lib.open_dagster_pipes(**{"params_loader": loader, **(parts or {})})
        return self._pipes

    def close(self) -> None:
        """Close the session, if there is one; in the reference's place forget it."""
        pipes, self._pipes = self._pipes, None
        if pipes is not None:
            pipes.close()
        self.lib.PipesContext._instance = None  # noqa: SLF001 because the reference has no other way

    def sent(self) -> list[Any]:
        """The messages of the session so far, but for `opened`."""
        if self.library == "dagsterpipes" and not self._pipes.is_closed:
            self._pipes.flush()
        return self.launch.messages()[1:]

    def run(self, script: str, *args: str, **options: Any) -> Any:
        """Run a script in a launched process of its own; ``LIBRARY`` is the library's name."""
        script = script.replace("LIBRARY", self.library)
        return self.launch.run(script, *args, **options)

    # -- outcomes in words ------------------------------------------------------------------------

    def attempt(self, call: Callable[[], Any], words: Callable[[Any], str] | None = None) -> Any:
        """What becomes of a call that says something: refused, raises, or sent.

        Args:
            call: The call.
            words: Makes words of the messages that were sent.
        """
        before = len(self.sent())
        problem = self.error(call)
        if problem is not None:
            return problem
        messages = self.sent()[before:]
        return Sent(messages, "sent" + (f" {words(messages)}" if words is not None else ""))

    def error(self, call: Callable[[], Any]) -> str | None:
        """How a call fails, in words; None if it does not."""
        try:
            call()
        except self.lib.DagsterPipesError as error:
            name = type(error).__name__
            return "refused" if name in {"DagsterPipesError", "InvalidReportError"} else f"`{name}`"
        except SystemExit as error:
            return f"exits with status {error.code}"
        except Exception as error:  # noqa: BLE001 because it is what is asked
            return f"`{type(error).__module__}.{type(error).__name__}`".replace("builtins.", "")
        return None

    def value(self, call: Callable[[], Any]) -> str:
        """What a call gives, in words: a value or an error."""
        try:
            return f"`{call()!r}`"
        except self.lib.DagsterPipesError:
            return "error"
        except Exception as error:  # noqa: BLE001 because it is what is asked
            return f"`{type(error).__name__}`"

    def answers(self, is_so: object, otherwise: str = "no") -> str:
        """Yes, or something else."""
        return "yes" if is_so else otherwise


def without_launch(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which Dagster launched nothing."""
    return {name: value for name, value in environment.items() if "DAGSTER" not in name}


def clean_environment() -> None:
    """Take everything of a launch out of this process's environment."""
    for name in set(os.environ) - set(without_launch(dict(os.environ))):
        del os.environ[name]
