"""Where a process finds what Dagster tells it: params loaders and context loaders.

A *params loader* finds the two bootstrap values, a *context loader* reads the context from where
the first of them says. The names are those of ``dagster_pipes``; its own loaders can be used in
their place, and so can anything with the same methods.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.launch_params import (
    DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT,
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_CONTEXT_WIDGET_KEY,
    DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_WIDGET_KEY,
    decode_params,
    find_cli_argument,
    fitting_parts,
    has_cli_argument,
    select_param,
)
from dagsterpipes.exceptions import ContextError, LaunchParamsError, describe, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from dagsterpipes.typing import PipesContextData, PipesParams

__all__ = [
    "PipesCliArgsParamsLoader",
    "PipesContextLoader",
    "PipesDatabricksNotebookWidgetsParamsLoader",
    "PipesDefaultContextLoader",
    "PipesEnvVarParamsLoader",
    "PipesMappingParamsLoader",
    "PipesParamsLoader",
]


class PipesParamsLoader(ABC):
    """Finds the bootstrap values with which Dagster launched the process.

    Base class for your own; all three methods are called once, at the opening, by the thread that
    opens the session.
    """

    @abstractmethod
    def is_dagster_pipes_process(self) -> bool:
        """Whether Dagster launched this process.

        Looks only for whether the values are there. Values that are there and cannot be used are
        the business of the two other methods, which raise: a process that Dagster launched must
        never go on without it unnoticed.
        """

    @abstractmethod
    def load_context_params(self) -> PipesParams:
        """Return what the context loader needs to find the context."""

    @abstractmethod
    def load_messages_params(self) -> PipesParams:
        """Return what the message writer needs to find the messages' place."""


class PipesMappingParamsLoader(PipesParamsLoader):
    """Takes the bootstrap values from a mapping, for example the event of an AWS Lambda function.

    Args:
        mapping: Holds the two values under ``DAGSTER_PIPES_CONTEXT`` and
            ``DAGSTER_PIPES_MESSAGES``. It is read when a method is called.
    """

    _place = "Key {} of the params mapping"

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._mapping = mapping

    def is_dagster_pipes_process(self) -> bool:
        """Whether the mapping has the key ``DAGSTER_PIPES_CONTEXT``."""
        return DAGSTER_PIPES_CONTEXT_ENV_VAR in self._mapping

    def load_context_params(self) -> PipesParams:
        """Decode ``DAGSTER_PIPES_CONTEXT``.

        Raises:
            LaunchParamsError: It is missing, empty, not encoded as Dagster does, or no object.
        """
        return self._load(DAGSTER_PIPES_CONTEXT_ENV_VAR)

    def load_messages_params(self) -> PipesParams:
        """Decode ``DAGSTER_PIPES_MESSAGES``.

        Raises:
            LaunchParamsError: It is missing, empty, not encoded as Dagster does, or no object.
        """
        return self._load(DAGSTER_PIPES_MESSAGES_ENV_VAR)

    def _load(self, key: str) -> PipesParams:
        return select_param(self._mapping, key, source=self._place.format(key))


class PipesEnvVarParamsLoader(PipesMappingParamsLoader):
    """Takes the bootstrap values from the environment. The default."""

    _place = "Environment variable {}"

    def __init__(self) -> None:
        super().__init__(os.environ)


class PipesCliArgsParamsLoader(PipesParamsLoader):
    """Takes the bootstrap values from the command line.

    Both ``--dagster-pipes-context V`` and ``--dagster-pipes-context=V`` are understood. The command
    line is only read: the job's own parser sees all of it, ``--help`` included (with ``argparse``,
    use ``parse_known_args``).

    Args:
        argv: The command line, the program's name first; ``sys.argv`` when not given.
    """

    def __init__(self, argv: Sequence[str] | None = None) -> None:
        self._argv = argv

    def is_dagster_pipes_process(self) -> bool:
        """Whether ``--dagster-pipes-context`` is given."""
        return has_cli_argument(self._words(), DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT)

    def load_context_params(self) -> PipesParams:
        """Decode the value of ``--dagster-pipes-context``.

        Raises:
            LaunchParamsError: It is missing, empty, not encoded as Dagster does, or no object.
        """
        return self._load(DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT)

    def load_messages_params(self) -> PipesParams:
        """Decode the value of ``--dagster-pipes-messages``.

        Raises:
            LaunchParamsError: It is missing, empty, not encoded as Dagster does, or no object.
        """
        return self._load(DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT)

    def _words(self) -> Sequence[str]:
        # An embedded interpreter may have no argv at all.
        return getattr(sys, "argv", ()) if self._argv is None else self._argv

    def _load(self, option: str) -> PipesParams:
        value = find_cli_argument(self._words(), option)
        return decode_params(value, source=f"Command line argument {option}")


class PipesDatabricksNotebookWidgetsParamsLoader(PipesParamsLoader):
    """Takes the bootstrap values from the widgets (base parameters) of a Databricks notebook.

    Quiet outside Dagster: a widget that is not there, or that is empty as widgets are by default,
    means that Dagster did not launch the notebook.

    Args:
        widgets: ``dbutils.widgets``, or anything with its ``get(name)``.
    """

    def __init__(self, widgets: Any) -> None:
        self.widgets = widgets

    def is_dagster_pipes_process(self) -> bool:
        """Whether the widget ``DAGSTER_PIPES_CONTEXT`` has a value."""
        try:
            return bool(self.widgets.get(DAGSTER_PIPES_CONTEXT_WIDGET_KEY))
        except Exception:  # noqa: BLE001 because the error for "no such widget" differs by runtime
            return False

    def load_context_params(self) -> PipesParams:
        """Decode the widget ``DAGSTER_PIPES_CONTEXT``.

        Raises:
            LaunchParamsError: It is missing, empty, not encoded as Dagster does, or no object.
        """
        return self._load(DAGSTER_PIPES_CONTEXT_WIDGET_KEY)

    def load_messages_params(self) -> PipesParams:
        """Decode the widget ``DAGSTER_PIPES_MESSAGES``.

        Raises:
            LaunchParamsError: It is missing, empty, not encoded as Dagster does, or no object.
        """
        return self._load(DAGSTER_PIPES_MESSAGES_WIDGET_KEY)

    def _load(self, key: str) -> PipesParams:
        source = f"Notebook widget {key}"
        try:
            value = self.widgets.get(key)
        except Exception as error:
            raise LaunchParamsError(
                f"{source} cannot be read: {type(error).__name__}: {error}. Dagster passes both"
                " DAGSTER_PIPES_CONTEXT and DAGSTER_PIPES_MESSAGES as base parameters of the"
                " notebook: check that the job passes both on."
            ) from error
        return decode_params(value, source=source)


class PipesContextLoader(ABC):
    """Reads the context from where the params say.

    Base class for your own, sync or async.
    """

    @abstractmethod
    def load_context(
        self, params: PipesParams
    ) -> AbstractContextManager[PipesContextData] | AbstractAsyncContextManager[PipesContextData]:
        """Open the context for the time of the session.

        Write it with ``@contextmanager`` or, when reading must await something, with
        ``@asynccontextmanager``, and yield the parsed context. It is left when the session closes.

        Args:
            params: What the context injector on the Dagster side gave.
        """


class PipesDefaultContextLoader(PipesContextLoader):
    """Reads the context from a file (params ``path``) or takes it from the params (``data``)."""

    FILE_PATH_KEY = "path"
    DIRECT_KEY = "data"

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
        """Read and check the context; nothing stays open.

        Args:
            params: Has a key ``path`` or a key ``data``; ``path`` wins.

        Raises:
            LaunchParamsError: The params have neither key, or its value is of the wrong type.
            ContextError: The file cannot be read or is not UTF-8 or JSON, or the context is not
                what Dagster sends.
        """
        if self.FILE_PATH_KEY in params:
            path = params[self.FILE_PATH_KEY]
            if not isinstance(path, str):
                raise self._unfit_param(self.FILE_PATH_KEY, "text", path)
            source = f"The context file {path!r}"
            yield check_context_data(_read_json(path, source), source)
        elif self.DIRECT_KEY in params:
            data = params[self.DIRECT_KEY]
            if not isinstance(data, Mapping):
                raise self._unfit_param(self.DIRECT_KEY, "an object", data)
            source = f"The context under the key `{self.DIRECT_KEY}` of DAGSTER_PIPES_CONTEXT"
            yield check_context_data(data, source)
        else:
            raise LaunchParamsError(
                f"Invalid params for {type(self).__name__}: expected the key"
                f" `{self.FILE_PATH_KEY}` or `{self.DIRECT_KEY}` in DAGSTER_PIPES_CONTEXT; got the"
                f" keys {shorten(sorted(map(str, params)), 200)}."
                + (
                    fitting_parts(params, "ContextLoader")
                    or " The context injector on the Dagster side may expect another context loader:"
                    " pass it as `context_loader` to `open_dagster_pipes`."
                )
            )

    def _unfit_param(self, key: str, expected: str, value: object) -> LaunchParamsError:
        return LaunchParamsError(
            f"Invalid params for {type(self).__name__}: expected {expected} under the key `{key}`"
            f" of DAGSTER_PIPES_CONTEXT; got {describe(value)}."
            " Check the context injector on the Dagster side."
        )


def _read_json(path: str, source: str) -> object:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 because pathlib is not worth its import
            content = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ContextError(
            f"{source} cannot be read: {reason}. DAGSTER_PIPES_CONTEXT names it: check that this"
            " process sees the file system of the one that launched it, with the right to read it,"
            " and that the Dagster run is still going on."
            + (fitting_parts({"path": path}, "ContextLoader") if _is_on_databricks(path) else "")
        ) from error
    return parse_context(content, source)


def _is_on_databricks(path: str) -> bool:
    return path.startswith("/Volumes/") or os.path.isdir("/dbfs")  # noqa: PTH112 because pathlib is not worth its import


def parse_context(content: bytes, source: str) -> object:
    """Decode a context that was read as bytes.

    Raises:
        ContextError: It is not UTF-8 or not JSON.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ContextError(
            f"{source} is not UTF-8 ({error.reason} at byte {error.start:,}); got"
            f" {len(content):,} bytes. {_REWRITTEN}"
        ) from error
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ContextError(
            f"{source} is not JSON ({error}); got {len(content):,} bytes. {_REWRITTEN}"
        ) from error


_REWRITTEN = "Dagster writes it before it launches the process: check what else writes there."
