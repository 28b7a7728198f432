"""What a job reported, as typed objects."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dagsterpipes._session.context import PipesContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagsterpipes.typing import PipesException, PipesMessage

T = TypeVar("T")


@dataclass(frozen=True)
class Log:
    """A log message."""

    level: str
    message: str


@dataclass(frozen=True)
class Materialization:
    """A reported materialization.

    ``metadata`` has the bare value where the type is left to Dagster (``{"rows": 3}``), and a mapping
    where one was given: ``MetadataValue.md("**ok**")`` is ``{"type": "md", "raw_value": "**ok**"}``.
    """

    asset_key: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data_version: str | None = None


@dataclass(frozen=True)
class Check:
    """A reported result of an asset check; ``metadata`` as in `Materialization`."""

    asset_key: str
    check_name: str
    passed: bool
    severity: str = "ERROR"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CustomMessage:
    """A custom message, after its way through JSON."""

    payload: Any


@dataclass(frozen=True)
class Output:
    """Text of an external stream."""

    stream: str
    text: str


Report = Log | Materialization | Check | CustomMessage | Output


class Reported:
    """What a job reported so far, in order; complete once its session is closed.

    Args:
        read: Gives the messages.
    """

    def __init__(self, read: Callable[[], list[Any]]) -> None:
        self._read = read

    @property
    def messages(self) -> list[PipesMessage]:
        """Every message as it is sent, without the fillers of a file's pages."""
        if PipesContext.is_initialized():
            PipesContext.get().flush()
        return [message for message in self._read() if not _is_filler(message)]

    @property
    def reports(self) -> list[Report]:
        """Every message but `opened` and `closed`, as typed objects."""
        return [
            _TYPED[message["method"]](message["params"])
            for message in self.messages
            if message["method"] in _TYPED
        ]

    def _of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.reports if isinstance(one, kind)]

    @property
    def logs(self) -> list[Log]:
        """The log messages."""
        return self._of(Log)

    @property
    def materializations(self) -> list[Materialization]:
        """The materializations."""
        return self._of(Materialization)

    def materialization(self, asset_key: str | None = None) -> Materialization:
        """The only materialization, or that of an asset.

        Raises:
            LookupError: There is none, or several assets were materialized; the error says which.
        """
        found = self.materializations
        if asset_key is not None:
            found = [one for one in found if one.asset_key == asset_key]
        what = "materialization" + ("" if asset_key is None else f" of {asset_key!r}")
        return self._only(found, what, [one.asset_key for one in self.materializations])

    def check(self, check_name: str, asset_key: str | None = None) -> Check:
        """The result of a check, of the only asset that has one of this name unless it is given.

        Raises:
            LookupError: There is none, or several assets have one; the error says which.
        """
        found = [
            one
            for one in self.checks
            if one.check_name == check_name and asset_key in {None, one.asset_key}
        ]
        what = f"check {check_name!r}" + ("" if asset_key is None else f" of {asset_key!r}")
        there = [f"{one.check_name} of {one.asset_key}" for one in self.checks]
        return self._only(found, what, there)

    def _only(self, found: list[T], what: str, there: list[str]) -> T:
        if len(found) == 1:
            return found[0]
        problem = f"there are {len(found)} of it" if found else "there is none"
        names = ", ".join(there) or "nothing"
        end = "" if self.is_closed else ". The session is not closed yet"
        if self.exception is not None:
            end = f". The session ended with {self.exception['name']}: {self.exception['message']}"
        raise LookupError(f"{what}: {problem}; reported was: {names}{end}")

    @property
    def checks(self) -> list[Check]:
        """The results of asset checks."""
        return self._of(Check)

    @property
    def custom_messages(self) -> list[Any]:
        """The payloads of the custom messages."""
        return [one.payload for one in self._of(CustomMessage)]

    def output(self, stream: str = "stdout") -> str:
        """The text that was sent for a stream."""
        return "".join(one.text for one in self._of(Output) if one.stream == stream)

    @property
    def is_closed(self) -> bool:
        """Whether a session was opened, and the last one closed."""
        return self._ends()[-1:] == ["closed"]

    @property
    def exception(self) -> PipesException | None:
        """The exception with which the last session was closed; None after a clean close."""
        closed = [one["params"] or {} for one in self.messages if one["method"] == "closed"]
        exception: PipesException | None = closed[-1].get("exception") if closed else None
        return exception

    def _ends(self) -> list[str]:
        return [one["method"] for one in self.messages if one["method"] in {"opened", "closed"}]

    def __repr__(self) -> str:
        sent = "".join(f"\n    {one!r}," for one in self.reports)
        end = "closed" if self.is_closed else "not closed"
        if self.exception is not None:
            end += f" with {self.exception['name']}: {self.exception['message']}"
        return f"<Reported ({end}) [{sent}\n]>"


def _is_filler(message: Any) -> bool:
    return message["method"] == "log_external_stream" and not message["params"]["text"]


def _metadata(wire: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        name: value["raw_value"] if value["type"] == "__infer__" else value
        for name, value in (wire or {}).items()
    }


_TYPED: dict[str, Callable[[Any], Report]] = {
    "log": lambda p: Log(p["level"], p["message"]),
    "report_asset_materialization": lambda p: Materialization(
        p["asset_key"], _metadata(p["metadata"]), p["data_version"]
    ),
    "report_asset_check": lambda p: Check(
        p["asset_key"], p["check_name"], p["passed"], p["severity"], _metadata(p["metadata"])
    ),
    "report_custom_message": lambda p: CustomMessage(p["payload"]),
    "log_external_stream": lambda p: Output(p["stream"], p["text"]),
}


def read_messages(path: str | os.PathLike[str]) -> list[Any]:
    """Read a messages file.

    Raises:
        ValueError: Dagster's reader would not accept a line, and would stop there.
    """
    lines = Path(path).read_bytes().split(b"\n")
    if lines.pop():
        raise ValueError(f"{os.fspath(path)} does not end in a newline")
    return _parse(path, lines)


def read_whole_messages(path: Path) -> list[Any]:
    """Read the whole lines of a messages file that is still being written."""
    return _parse(path, path.read_bytes().split(b"\n")[:-1])


def _parse(path: str | os.PathLike[str], lines: list[bytes]) -> list[Any]:
    messages = []
    for number, line in enumerate(lines, start=1):
        message = json.loads(line)  # a ValueError names what is wrong
        if not isinstance(message, dict) or "method" not in message:
            raise ValueError(f"{os.fspath(path)}, line {number}: not a message: {line[:80]!r}")
        messages.append(message)
    return messages
