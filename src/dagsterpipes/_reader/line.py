"""Whether Dagster takes a line of a messages file, judged as its reader and handler do."""

from __future__ import annotations

import json
from json.decoder import scanstring  # type: ignore[attr-defined] # because typeshed lacks it
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from dagsterpipes._protocol.envelope import (
    LEVEL_ALIASES,
    LEVELS,
    PIPES_PROTOCOL_VERSION_FIELD,
)
from dagsterpipes._reader.rules import Refused, RuleBroken
from dagsterpipes.exceptions import shorten
from dagsterpipes.typing import PipesMetadataType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TYPES = frozenset(get_args(PipesMetadataType))


def check_metadata(metadata: object, where: str) -> None:
    """Make sure that Dagster converts ``metadata``, the value of that parameter of a message.

    Args:
        metadata: The parsed value.
        where: Its place in the message, as the first words of an error.

    Raises:
        RuleBroken: Dagster does not convert it.
    """
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise RuleBroken("metadata", f"{where} must be an object or null; got {shorten(metadata)}")
    for key, value in metadata.items():
        place = f"{where}[{shorten(key)}]"
        if not isinstance(value, dict) or "raw_value" not in value or "type" not in value:
            raise RuleBroken(
                "metadata",
                f"{place} must be an object with `raw_value` and `type`; got {shorten(value)}",
            )
        declared = value["type"]
        if not isinstance(declared, str) or declared not in TYPES:
            raise RuleBroken("metadata-type", f"{place} has the unknown type {shorten(declared)}")
        _VALUE_CHECKS[declared](value["raw_value"], f"{place} of type {declared}")


def _refuse(where: str, expected: str, got: object) -> RuleBroken:
    return RuleBroken("metadata-value", f"{where} must be {expected}; got {shorten(got)}")


def _anything(value: object, where: str) -> None:
    pass


def _text_or_null(value: object, where: str) -> None:
    if value is not None and not isinstance(value, str):
        raise _refuse(where, "text or null", value)


def _metadata_text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise _refuse(where, "text", value)


def _metadata_json(value: object, where: str) -> None:
    if value is not None and not isinstance(value, (dict, list, str)):
        raise _refuse(where, "an object, a list, text or null", value)


def _int(value: object, where: str) -> None:
    if value is not None and not isinstance(value, int):
        raise _refuse(where, "an integer without a decimal point, or null", value)


def _float(value: object, where: str) -> None:
    if value is not None and not isinstance(value, float):
        raise _refuse(where, "a number with a decimal point (1.0, not 1), or null", value)


def _bool(value: object, where: str) -> None:
    if value is not None and not isinstance(value, bool):
        raise _refuse(where, "true, false or null", value)


def _timestamp(value: object, where: str) -> None:
    try:
        if isinstance(value, (int, float)):
            float(value)
            return
    except OverflowError:
        pass
    raise _refuse(where, "a number of seconds since 1970 that a float can hold", value)


def _table(value: object, where: str) -> None:
    if not isinstance(value, dict) or "records" not in value or "schema" not in value:
        raise _refuse(where, "an object with `records` and `schema`", value)
    records = _items(value["records"], f"{where}, records,")
    for number, record in enumerate(records):
        place = f"{where}, record {number},"
        if not isinstance(record, dict):
            raise _refuse(place, "an object", record)
        for column, cell in record.items():
            if cell is not None and not isinstance(cell, (str, int, float)):
                raise _refuse(f"{place} column {shorten(column)},", "a scalar or null", cell)
        if record.keys() != records[0].keys():
            raise _refuse(place, "an object with the columns of the first record", record)
    _columns(value["schema"], f"{where}, schema,")


def _table_schema(value: object, where: str) -> None:
    if not isinstance(value, dict) or "columns" not in value:
        raise _refuse(where, "an object with `columns`", value)
    _columns(value["columns"], f"{where}, columns,")


def _columns(columns: object, where: str) -> None:
    for number, column in enumerate(_items(columns, where)):
        place = f"{where} column {number},"
        if not isinstance(column, dict):
            raise _refuse(place, "an object", column)
        for key in ("name", "type"):
            if not isinstance(column.get(key), str):
                raise _refuse(place, "an object with text under `name` and `type`", column)
        _text_or_null(column.get("description"), f"{place} description,")
        tags = column.get("tags")
        if tags is not None and not (
            isinstance(tags, dict) and all(isinstance(tag, str) for tag in tags.values())
        ):
            raise _refuse(f"{place} tags,", "an object of text, or null", tags)
        # The handler looks at constraints only when they are true: [] and 0 pass.
        if column.get("constraints"):
            _constraints(column["constraints"], f"{place} constraints,")


def _constraints(constraints: object, where: str) -> None:
    if not isinstance(constraints, dict) or constraints.keys() - {"nullable", "unique", "other"}:
        raise _refuse(
            where, "an object with no keys but `nullable`, `unique`, `other`", constraints
        )
    for key in ("nullable", "unique"):
        if not isinstance(constraints.get(key, True), bool):
            raise _refuse(where, f"an object with true or false under `{key}`", constraints)
    other = constraints.get("other")
    if other is not None and not (
        isinstance(other, list) and all(isinstance(text, str) for text in other)
    ):
        raise _refuse(where, "an object with a list of text under `other`", constraints)


def _column_lineage(value: object, where: str) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("deps_by_column"), dict):
        raise _refuse(where, "an object with an object under `deps_by_column`", value)
    for column, deps in value["deps_by_column"].items():
        place = f"{where}, column {shorten(column)},"
        seen = set()
        for dep in _items(deps, place):
            if not isinstance(dep, dict) or dep.keys() != {"asset_key", "column_name"}:
                raise _refuse(place, "a list of objects with `asset_key`, `column_name`", dep)
            key, name = dep["asset_key"], dep["column_name"]
            parts = [key] if isinstance(key, str) else key
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
                raise _refuse(f"{place} asset_key,", "text or a list of text", key)
            _metadata_text(name, f"{place} column_name,")
            if (*parts, name) in seen:
                raise _refuse(place, "a list without duplicates", dep)
            seen.add((*parts, name))


def _items(value: object, where: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if value in ({}, ""):  # what is empty and can be looped over passes
        return []
    raise _refuse(where, "a list", value)


_VALUE_CHECKS: Mapping[str, Callable[[object, str], None]] = {
    "__infer__": _anything,
    "null": _anything,
    "text": _text_or_null,
    "url": _text_or_null,
    "path": _text_or_null,
    "notebook": _text_or_null,
    "md": _text_or_null,
    "dagster_run": _metadata_text,
    "asset": _metadata_text,
    "json": _metadata_json,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "timestamp": _timestamp,
    "table": _table,
    "table_schema": _table_schema,
    "table_column_lineage": _column_lineage,
}


MAX_NESTING = 900
"""Levels of JSON objects and lists in one line."""

LOG_LEVELS = frozenset(name.lower() for name in (*LEVELS, *LEVEL_ALIASES))

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
        if line.startswith(LOG_HEAD):
            log = _usual_log(line)
            if log is not None:
                return log
        message = _envelope(_parse(line))
        return _CHECKS[message["method"]](message)
    except RuleBroken as broken:
        return broken.refused


LOG_HEAD = b'{"__dagster_pipes_version": "0.1", "method": "log", "params": {"message": "'

LOG_TAILS = {f', "level": "{level}"}}}}\n': level for level in (*LEVELS, *LEVEL_ALIASES)}


def _usual_log(line: bytes) -> Accepted | None:
    """A log message as most clients write it, which breaks no rule; None for all other lines.

    Five times as fast as the whole way. It must accept nothing that the whole way does not accept.
    """
    try:
        text = line.decode("utf-8")
        message, end = scanstring(text, len(LOG_HEAD))
    except ValueError:
        return None
    level = LOG_TAILS.get(text[end:])
    if level is None:
        return None
    params = {"message": message, "level": level}
    return Accepted({PIPES_PROTOCOL_VERSION_FIELD: "0.1", "method": "log", "params": params})


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
    if PIPES_PROTOCOL_VERSION_FIELD not in message:
        return Accepted(
            message, f"without `{PIPES_PROTOCOL_VERSION_FIELD}` only a file reader takes it"
        )
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
