"""What a launched process has been given, and whether it could reach Dagster; without secrets."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.launch_params import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    decode_params,
)
from dagsterpipes.cli.sanitize import clean_line
from dagsterpipes.exceptions import DagsterPipesError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Finding", "examine", "run_doctor"]

STDIO_KEYS = ("stdio", "buffered_stdio")

LONGEST_PATH = 500
"""Characters of a path that are shown, from its end."""

REMOTE_KEYS = ("bucket", "container", "volume", "prefect_logs")
"""What params of channels hold that are not on this machine."""


class Finding(NamedTuple):
    """One examined fact.

    Args:
        good: Whether it is right; ``None`` where there is no right or wrong.
        text: In words.
    """

    good: bool | None
    text: str


def run_doctor(*, as_json: bool) -> int:
    """Examine this process, print the findings, and return 0 if its session could be opened."""
    findings = list(examine(os.environ))
    healthy = all(finding.good is not False for finding in findings)
    if as_json:
        body = {"healthy": healthy, "findings": [finding._asdict() for finding in findings]}
        sys.stdout.write(json.dumps(body) + "\n")
    else:
        for good, text in findings:
            mark = {True: "ok  ", False: "BAD ", None: "    "}[good]
            sys.stdout.write(f"{mark}{_encodable(clean_line(text))}\n")
    return 0 if healthy else 1


def examine(env: Mapping[str, str]) -> Iterator[Finding]:
    """Examine the environment of a process, and the files that it names.

    Reads the context, and opens the messages file without writing to it.

    Args:
        env: The environment.
    """
    names = (DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR)
    if not any(name in env for name in names):
        yield Finding(
            False,
            f"Neither {names[0]} nor {names[1]} is set: Dagster has not launched this process, or"
            " its environment was not handed on.",
        )
        return
    for name, look in zip(names, (_look_at_context, _look_at_messages), strict=True):
        try:
            params = decode_params(env.get(name, ""), source=name)
        except DagsterPipesError as error:
            # The error may quote the value, and the value may hold extras.
            problem = str(error).split("; got")[0] if name in env else f"{name} is not set"
            yield Finding(False, f"{problem}.")
            continue
        yield Finding(True, f"{name} is set, {len(env[name]):,} characters: {_names(params)}.")
        yield from look(params)


def _look_at_context(params: Mapping[str, Any]) -> Iterator[Finding]:
    if "path" in params:
        path = params["path"]
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 because the path may be no text at all
                data = json.load(file)
        except (OSError, TypeError, ValueError, RecursionError) as error:
            yield Finding(
                False,
                f"The context file {shorten(path, LONGEST_PATH)} cannot be read: {_why(error)}.",
            )
            return
        yield Finding(True, f"The context is in the file {shorten(path, LONGEST_PATH)}.")
    elif "data" in params:
        data = params["data"]
        yield Finding(True, "The context is in the variable itself.")
    else:
        yield Finding(None, f"The context is elsewhere, which is not looked at: {_names(params)}.")
        return
    try:
        context = check_context_data(data, "The context")
    except DagsterPipesError as error:
        yield Finding(False, str(error).split("; got")[0] + ".")
        return
    yield Finding(True, "The context has all its keys.")
    for key, value in context.items():
        if key == "extras":
            yield Finding(None, f"  extras: {_names(context['extras'])}")
        elif key in _PUBLIC:
            yield Finding(None, f"  {key}: {shorten(value, 200)}")
        else:
            yield Finding(None, f"  {key}: {_size(value)}")


_PUBLIC = (
    "asset_keys",
    "partition_key",
    "partition_key_range",
    "partition_time_window",
    "run_id",
    "job_name",
    "retry_number",
)
"""Keys of the context whose values are shown."""


def _look_at_messages(params: Mapping[str, Any]) -> Iterator[Finding]:
    stdio = next((params[key] for key in STDIO_KEYS if key in params), None)
    if "path" in params:
        yield _look_at_path(params["path"])
    elif stdio is not None:
        known = stdio in ("stdout", "stderr")
        stream = getattr(sys, f"__{stdio}__", None) if known else None
        usable = stream is not None and not stream.closed
        state = "can be written to" if usable else "cannot be used"
        yield Finding(usable, f"Messages go to {shorten(stdio)}, which {state}.")
    elif any(key in params for key in REMOTE_KEYS):
        yield Finding(None, f"Messages go elsewhere, which is not tried: {_names(params)}.")
    else:
        yield Finding(
            False,
            f"No message writer of Dagster uses such params: {_names(params)}. The job must bring"
            " its own.",
        )
    if params.get("include_stdio_in_messages"):
        yield Finding(None, "Dagster asks for stdout and stderr as messages.")


def _look_at_path(path: Any) -> Finding:
    if not isinstance(path, str):
        return Finding(
            False, f"The path of the messages is not text: {shorten(path, LONGEST_PATH)}."
        )
    if os.path.isdir(path):  # noqa: PTH112 because a path that cannot be one must not raise
        good = os.access(path, os.W_OK)
        state = "can" if good else "cannot"
        return Finding(
            good,
            f"Messages go to the folder {shorten(path, LONGEST_PATH)}, which {state} be written to.",
        )
    try:
        # Not blocking, since a named pipe that nobody reads would hold us for ever.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)))
    except FileNotFoundError:
        return Finding(
            False,
            f"The messages file {shorten(path, LONGEST_PATH)} does not exist. Dagster makes it before the launch:"
            " this process may be on another machine, or in a container without that folder.",
        )
    except (OSError, ValueError) as error:
        return Finding(
            False,
            f"The messages file {shorten(path, LONGEST_PATH)} cannot be opened: {_why(error)}.",
        )
    return Finding(
        True, f"Messages go to the file {shorten(path, LONGEST_PATH)}, which can be opened."
    )


def _names(values: Mapping[str, Any]) -> str:
    named = ", ".join(f"{shorten(key)[1:-1]} ({_size(value)})" for key, value in values.items())
    return named or "none"


def _size(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    try:
        return f"{type(value).__name__}, {len(json.dumps(value)):,} bytes"
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__


def _why(error: Exception) -> str:
    # Words only: the text of a decoding error may quote what it could not decode.
    return getattr(error, "strerror", None) or getattr(error, "msg", None) or type(error).__name__


def _encodable(text: str) -> str:
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
