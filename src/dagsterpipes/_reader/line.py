"""Whether Dagster takes a line of a messages file, judged as its reader and handler do.

The verdicts agree with ``PipesFileMessageReader`` and ``PipesMessageHandler`` of Dagster 1.13, but
are stricter where those take by chance what no page could show: an exception whose ``message``,
``name`` or ``stack`` is not text, a lineage whose column name is not text, and JSON nested between
900 levels and what the interpreter bears, which depends on its version.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes._reader.metadata_rules import check_metadata
from dagsterpipes._reader.rules import Refused, RuleBroken
from dagsterpipes.exceptions import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["MAX_NESTING", "Accepted", "Ignored", "Refused", "Verdict", "judge_line"]

MAX_NESTING = 900
"""Levels of JSON objects and lists in one line."""

LOG_LEVELS = frozenset({"debug", "info", "warning", "warn", "error", "critical", "fatal"})

SPACE = " \t\r\n"
"""What JSON takes as space."""


class Accepted(NamedTuple):
    """Dagster takes the message.

    Args:
        message: The parsed line.
        note: What is odd about it all the same, or nothing.
    """

    message: dict[str, Any]
    note: str = ""


class Ignored(NamedTuple):
    """Dagster takes the message and nothing comes of it.

    Args:
        message: The parsed line.
        reason: Why nothing comes of it.
    """

    message: dict[str, Any]
    reason: str


Verdict = Accepted | Ignored | Refused


def judge_line(line: bytes) -> Verdict:
    """Judge one line by itself; ``StreamRules`` judges what lines mean together.

    Never raises, whatever the bytes are.

    Args:
        line: The line with its newline. Without one it is the last line of a file.
    """
    try:
        message = _envelope(_parse(line))
        return _CHECKS[message["method"]](message)
    except RuleBroken as broken:
        return broken.refused


def _parse(line: bytes) -> object:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RuleBroken("utf-8", f"byte {error.start} is not UTF-8: {error.reason}") from None
    # The reader opens the file as text: a carriage return ends a line for it, as a newline does.
    body = text.removesuffix("\n").removesuffix("\r")
    if not body.strip(SPACE):
        raise RuleBroken("blank-line", "the line is blank")
    if "\r" in body:
        raise RuleBroken("carriage-return", f"character {body.index(chr(13))} is one")
    if body.startswith("\ufeff"):
        raise RuleBroken("byte-order-mark", "the line starts with one")
    try:
        message = json.loads(body)
    except RecursionError:
        raise RuleBroken("nesting", "the interpreter cannot parse it") from None
    except ValueError as error:
        raise RuleBroken("json", f"{error}; the line starts with {shorten(body[:80])}") from None
    if body.count("{") + body.count("[") > MAX_NESTING and _nesting(message) > MAX_NESTING:
        raise RuleBroken("nesting", f"more than {MAX_NESTING} levels")
    return message


def _nesting(value: object) -> int:
    levels, row = 0, _containers([value])
    while row:
        levels += 1
        row = [
            inner
            for item in row
            for inner in _containers(item.values() if isinstance(item, dict) else item)
        ]
    return levels


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def _envelope(message: object) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RuleBroken("envelope", f"the line is no JSON object; got {shorten(message)}")
    for key in ("method", "params"):
        if key not in message:
            raise RuleBroken(
                "envelope", f"the key `{key}` is missing; got {shorten(list(message))}"
            )
    method = message["method"]
    if not isinstance(method, str) or method not in _CHECKS:
        raise RuleBroken("method", f"the method {shorten(method)} is unknown")
    return message


def _opened(message: dict[str, Any]) -> Verdict:
    params = message["params"]
    if not isinstance(params, dict) or "extras" not in params:
        return Accepted(message, "`extras` is missing, which some readers of Databricks logs need")
    return _accepted(message)


def _closed(message: dict[str, Any]) -> Verdict:
    params = message["params"]
    if not params:
        return _accepted(message)
    if isinstance(params, (dict, list, str)) and "exception" not in params:
        return Accepted(message, "its params are not used: an exception belongs under `exception`")
    if not isinstance(params, dict):
        raise RuleBroken("params", f"closed must have an object; got {shorten(params)}")
    links = [("exception", params["exception"])]
    while links:
        where, link = links.pop()
        if not isinstance(link, dict):
            raise RuleBroken("exception", f"{where} must be an object; got {shorten(link)}")
        _check_exception(link, where)
        # The handler looks at a cause or context only when it is true: [] and "" pass.
        links += [(f"{where}.{key}"[-80:], link[key]) for key in ("cause", "context") if link[key]]
    return _accepted(message)


def _check_exception(link: Mapping[str, Any], where: str) -> None:
    missing = [k for k in ("message", "stack", "name", "cause", "context") if k not in link]
    if missing:
        raise RuleBroken("exception", f"{where} lacks {', '.join(missing)}")
    stack = link["stack"]
    if not isinstance(link["message"], str):
        raise RuleBroken(
            "exception", f"{where}.message must be text; got {shorten(link['message'])}"
        )
    if not isinstance(link["name"], (str, type(None))):
        raise RuleBroken("exception", f"{where}.name must be text; got {shorten(link['name'])}")
    if not isinstance(stack, list) or not all(isinstance(entry, str) for entry in stack):
        raise RuleBroken("exception", f"{where}.stack must be a list of text; got {shorten(stack)}")


def _log(message: dict[str, Any]) -> Verdict:
    params = _params(message, required=("message",), optional=("level",))
    _check_text(params, "message")
    level = params.get("level", "info")
    if isinstance(level, int):
        if level <= 0:
            return Ignored(message, f"a log message of level {level} is dropped")
    elif not isinstance(level, str) or level.lower() not in LOG_LEVELS:
        raise RuleBroken(
            "log-level",
            f"log has the unknown level {shorten(level)}; use an integer, DEBUG, INFO, WARNING,"
            " ERROR or CRITICAL",
        )
    return _accepted(message)


def _materialization(message: dict[str, Any]) -> Verdict:
    params = _params(message, required=("asset_key", "data_version", "metadata"))
    _check_text(params, "asset_key")
    version = params["data_version"]
    if version is not None and not isinstance(version, str):
        raise RuleBroken("text", f"data_version must be text or null; got {shorten(version)}")
    check_metadata(params["metadata"], "metadata")
    if version == "":
        return Accepted(message, 'the data version "" is kept as a version; null means none')
    return _accepted(message)


def _asset_check(message: dict[str, Any]) -> Verdict:
    params = _params(
        message, required=("asset_key", "check_name", "passed", "severity", "metadata")
    )
    _check_text(params, "asset_key")
    _check_text(params, "check_name")
    if not isinstance(params["passed"], bool):
        raise RuleBroken("passed", f"got {shorten(params['passed'])}")
    if params["severity"] not in ("WARN", "ERROR"):
        raise RuleBroken("severity", f"got {shorten(params['severity'])}")
    check_metadata(params["metadata"], "metadata")
    return _accepted(message)


def _custom(message: dict[str, Any]) -> Verdict:
    _params(message, required=("payload",))
    return _accepted(message)


def _external_stream(message: dict[str, Any]) -> Verdict:
    params = _params(message, required=("stream", "text"), optional=("extras",))
    if params["stream"] not in ("stdout", "stderr"):
        raise RuleBroken("stream", f"got {shorten(params['stream'])}")
    _check_text(params, "text")
    if not params["text"]:
        return Ignored(message, "an empty text prints nothing")
    if params["stream"] == "stdout":
        _check_printable(params["text"])
    return _accepted(message)


def _check_printable(text: str) -> None:
    # Dagster writes it to its own sys.stdout, which is strict about encoding; stderr is not.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RuleBroken("surrogate", f"character {error.start} is one") from None


def _params(
    message: Mapping[str, Any], *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    method, params = message["method"], message["params"]
    if not isinstance(params, dict):
        raise RuleBroken("params", f"{method} must have an object; got {shorten(params)}")
    missing = [key for key in required if key not in params]
    if missing:
        raise RuleBroken("params", f"{method} lacks {', '.join(missing)}")
    foreign = [key for key in params if key not in required and key not in optional]
    if foreign:
        raise RuleBroken("params", f"{method} knows no {shorten(foreign[0])}")
    return params


def _check_text(params: Mapping[str, Any], key: str) -> None:
    if not isinstance(params[key], str):
        raise RuleBroken("text", f"{key} must be text; got {shorten(params[key])}")


def _accepted(message: dict[str, Any]) -> Accepted:
    if "__dagster_pipes_version" not in message:
        return Accepted(message, "without `__dagster_pipes_version` only a file reader takes it")
    return Accepted(message)


_CHECKS: Mapping[str, Callable[[dict[str, Any]], Verdict]] = {
    "opened": _opened,
    "closed": _closed,
    "log": _log,
    "report_asset_materialization": _materialization,
    "report_asset_check": _asset_check,
    "report_custom_message": _custom,
    "log_external_stream": _external_stream,
}
