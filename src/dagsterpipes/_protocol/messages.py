"""The seven messages: each function checks its arguments and returns one finished line.

What these functions return, Dagster's handler takes; what it could not take is refused here with
`InvalidReportError`, at the call. Every key of a message is always present.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import Enum
from functools import wraps
from typing import Any, ParamSpec

from dagsterpipes._protocol.argument import Argument, unreadable
from dagsterpipes._protocol.encoder import encode_message, to_json
from dagsterpipes._protocol.envelope import level_name
from dagsterpipes._protocol.exception_info import (
    closing_exception,
    complete_exception,
    exception_payload,
)
from dagsterpipes._protocol.metadata import normalize_metadata
from dagsterpipes.exceptions import DagsterPipesError

_Args = ParamSpec("_Args")


def _refusing(method: str) -> Callable[[Callable[_Args, bytes]], Callable[_Args, bytes]]:
    """Turn what a function's arguments raise while they are read into `InvalidReportError`."""

    def decorate(build: Callable[_Args, bytes]) -> Callable[_Args, bytes]:
        @wraps(build)
        def guarded(*args: _Args.args, **kwargs: _Args.kwargs) -> bytes:
            try:  # not the context manager, which costs a third of a short message
                return build(*args, **kwargs)
            except DagsterPipesError:
                raise
            except Exception as error:
                argument = Argument(method, "an argument")
                raise argument.error(unreadable(error), args or kwargs) from error

        return guarded

    return decorate


@_refusing("opened")
def opened(extras: Mapping[str, Any]) -> bytes:
    """The first message: the session is open.

    Args:
        extras: Facts about the process, from the message writer.

    Raises:
        InvalidReportError: The extras are no mapping, or hold what cannot be sent.
    """
    return encode_message("opened", {"extras": _extras(extras, "opened")})


@_refusing("close")
def closed(exc: BaseException | Mapping[str, Any] | None) -> bytes:
    """The last message: nothing will follow.

    Args:
        exc: What the job ended with: an exception (see `closing_exception` for those that are no
            failure), ``None``, or a mapping in the shape of `PipesException`. Missing keys of that
            other than ``message`` are filled in, also in causes and contexts. Of very many
            exceptions (or of a chain that runs in a circle) the rest is left out.

    Raises:
        InvalidReportError: The mapping does not have that shape.
    """
    if isinstance(exc, BaseException):
        exc = closing_exception(exc)
    if exc is None:
        return encode_message("closed", {})
    if isinstance(exc, BaseException):
        return encode_message("closed", {"exception": exception_payload(exc)})
    argument = Argument("close", "exc")
    return encode_message("closed", {"exception": complete_exception(exc, argument)})


@_refusing("log")
def log(message: str, level: int | str) -> bytes:
    """A log message.

    Args:
        message: The text; ``%`` means nothing in it.
        level: A name in any case or a number; see `level_name`.

    Raises:
        InvalidReportError: The message is no string, or the level is unknown.
    """
    text = Argument("log", "message").text(message)
    return encode_message("log", {"message": text, "level": level_name(level)})


@_refusing("report_asset_materialization")
def asset_materialization(
    *, asset_key: str, data_version: str | None, metadata: Mapping[str, Any] | None
) -> bytes:
    r"""An asset was materialized.

    Args:
        asset_key: The key as Dagster writes it, ``\`` and ``/`` within a part escaped by ``\``.
        data_version: The version of the data, or ``None`` for none.
        metadata: See `normalize_metadata`.

    Raises:
        InvalidReportError: An argument is not what Dagster takes.
    """
    method = "report_asset_materialization"
    version = None if data_version is None else Argument(method, "data_version").text(data_version)
    if version is not None and _has_lone_surrogates(version):
        raise Argument(method, "data_version").error(
            "has lone surrogates, which Dagster's storage cannot hold", data_version
        )
    return encode_message(
        method,
        {
            "asset_key": _asset_key(asset_key, method),
            "data_version": version,
            "metadata": normalize_metadata(metadata, method=method),
        },
    )


@_refusing("report_asset_check")
def asset_check(
    *,
    asset_key: str,
    check_name: str,
    passed: bool,
    severity: str,
    metadata: Mapping[str, Any] | None,
) -> bytes:
    """An asset check was made.

    Args:
        asset_key: As in `asset_materialization`.
        check_name: The name of the check in its spec.
        passed: A bool; also numpy's.
        severity: ``"WARN"`` or ``"ERROR"``, or a member of an enum with that value.
        metadata: See `normalize_metadata`.

    Raises:
        InvalidReportError: An argument is not what Dagster takes.
    """
    method = "report_asset_check"
    return encode_message(
        method,
        {
            "asset_key": _asset_key(asset_key, method),
            "check_name": Argument(method, "check_name").text(check_name),
            "passed": _passed(passed, method),
            "severity": _severity(severity, method),
            "metadata": normalize_metadata(metadata, method=method),
        },
    )


@_refusing("report_custom_message")
def custom_message(payload: Any) -> bytes:
    """A message that only the user's own code in Dagster reads.

    Args:
        payload: Anything that has a JSON form; see `to_json`.

    Raises:
        InvalidReportError: It has none, or one that Dagster's reader cannot take.
    """
    method = "report_custom_message"
    return encode_message(method, {"payload": to_json(payload, Argument(method, "payload"))})


@_refusing("log_external_stream")
def external_stream(stream: object, text: str, extras: Mapping[str, Any] | None) -> bytes:
    """Text that was written to stdout or stderr.

    Args:
        stream: ``"stdout"`` or ``"stderr"``.
        text: What was written. Lone surrogates become ``U+FFFD``: Dagster writes the text to its
            own stream, whose encoder would raise, and its reader would stop.
        extras: More about it, or nothing; Dagster ignores them.

    Raises:
        InvalidReportError: An argument is not what Dagster takes.
    """
    method = "log_external_stream"
    name = Argument(method, "stream").text(stream)
    if name not in ("stdout", "stderr"):
        raise Argument(method, "stream").error("must be 'stdout' or 'stderr'", stream)
    return encode_message(
        method,
        {
            "stream": name,
            "text": _well_formed(Argument(method, "text").text(text)),
            "extras": _extras({} if extras is None else extras, method),
        },
    )


def _has_lone_surrogates(text: str) -> bool:
    return _well_formed(text).count("\ufffd") > text.count("\ufffd")


def _well_formed(text: str) -> str:
    """The text with ``U+FFFD`` for lone surrogates; a pair is the character it stands for."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _asset_key(value: object, method: str) -> str:
    key = Argument(method, "asset_key").text(value)
    if not key:
        raise Argument(method, "asset_key").error("is empty", value)
    return key


def _passed(value: object, method: str) -> bool:
    if isinstance(value, bool):
        return value
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.bool_):
        return bool(value)
    raise Argument(method, "passed").error("must be a bool; convert with bool(...)", value)


def _severity(value: object, method: str) -> str:
    name = value.value if isinstance(value, Enum) else value
    if isinstance(name, str) and str.__str__(name) in ("WARN", "ERROR"):
        return str.__str__(name)
    raise Argument(method, "severity").error("must be 'WARN' or 'ERROR'", value)


def _extras(value: object, method: str) -> Any:
    if not isinstance(value, Mapping):
        raise Argument(method, "extras").error("must be a mapping", value)
    return to_json(value, Argument(method, "extras"))
