"""The bootstrap values with which Dagster tells a process where its context and messages are."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.envelope import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
)
from dagsterpipes.exceptions import LaunchParamsError, describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT",
    "DAGSTER_PIPES_CONTEXT_ENV_VAR",
    "DAGSTER_PIPES_CONTEXT_WIDGET_KEY",
    "DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT",
    "DAGSTER_PIPES_MESSAGES_ENV_VAR",
    "DAGSTER_PIPES_MESSAGES_WIDGET_KEY",
    "decode_env_var",
    "decode_param",
    "decode_params",
    "encode_env_var",
    "encode_param",
    "find_cli_argument",
    "fitting_parts",
    "has_cli_argument",
]

DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT = "--dagster-pipes-context"
DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT = "--dagster-pipes-messages"
DAGSTER_PIPES_CONTEXT_WIDGET_KEY = DAGSTER_PIPES_CONTEXT_ENV_VAR
DAGSTER_PIPES_MESSAGES_WIDGET_KEY = DAGSTER_PIPES_MESSAGES_ENV_VAR

ADVICE = (
    "Dagster sets it when it launches the process: pass it on unchanged, or unset both"
    " DAGSTER_PIPES_CONTEXT and DAGSTER_PIPES_MESSAGES to run without Dagster."
)
"""What to do about an unusable bootstrap value."""


def encode_param(value: Any) -> str:
    """Give a JSON-serializable value the form that Dagster uses for bootstrap values.

    The result is base64 of zlib of JSON, plain ASCII; ``decode_param`` is the inverse.

    Args:
        value: Anything that ``json.dumps`` takes.

    Raises:
        LaunchParamsError: ``value`` cannot be written as JSON.
    """
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise LaunchParamsError(
            "Invalid type for parameter `value` of `encode_param`. Expected a JSON-serializable"
            f" type, got `{type(value)}`: {error}."
        ) from error
    return base64.b64encode(zlib.compress(text.encode("utf-8"))).decode("ascii")


def decode_param(value: str, *, source: str = "The value") -> Any:
    """Read back what ``encode_param``, or Dagster, encoded.

    As tolerant as the reference: characters outside the base64 alphabet, such as the quotes or the
    newline that a shell may add, are skipped.

    Args:
        value: The encoded value.
        source: What the value is, as the first words of an error, for example the name of the
            environment variable.

    Raises:
        LaunchParamsError: ``value`` is no text, empty, not base64, not zlib, not UTF-8 or not JSON.
            Nothing of it is shown, as extras in it may be secrets.
    """
    if not isinstance(value, str):
        raise LaunchParamsError(f"{source} must be text; got {describe(value)}. {ADVICE}")
    if not value.strip():
        raise LaunchParamsError(f"{source} is empty. {ADVICE}")
    try:
        compressed = base64.b64decode(value)
    except ValueError as error:  # binascii.Error is one
        raise _undecodable(source, "is not base64", value, error) from error
    try:
        encoded = zlib.decompress(compressed)
    except zlib.error as error:
        if not _is_strict_base64(value):  # the decoder above skipped the foreign characters
            raise _undecodable(source, "is not base64", value, "it has other characters") from error
        raise _undecodable(source, "is not zlib inside its base64", value, error) from error
    try:
        text = encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _undecodable(source, "is not UTF-8 once decompressed", value, error) from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _undecodable(source, "is not JSON once decompressed", text, error) from error


def decode_params(value: str, *, source: str) -> dict[str, Any]:
    """Decode a bootstrap value, which must be a JSON object.

    Args:
        value: The encoded value.
        source: As for ``decode_param``.

    Raises:
        LaunchParamsError: As for ``decode_param``, or the decoded value is not an object.
    """
    params = decode_param(value, source=source)
    if not isinstance(params, dict):
        raise LaunchParamsError(
            f"{source} must hold a JSON object; got {describe(params)}. {ADVICE}"
        )
    return params


encode_env_var = encode_param
decode_env_var = decode_param


def select_param(mapping: Mapping[str, Any], key: str, *, source: str) -> dict[str, Any]:
    """Decode the bootstrap value that a mapping, such as the environment, holds under ``key``.

    Args:
        mapping: The environment, or a mapping like it.
        key: Its key, one of the two variables.
        source: What ``mapping[key]`` is, as the first words of an error.

    Raises:
        LaunchParamsError: The key is missing, or its value is not what ``decode_params`` takes.
    """
    try:
        value = mapping[key]
    except KeyError:
        raise LaunchParamsError(f"{source} is missing. {ADVICE}") from None
    return decode_params(value, source=source)


def fitting_parts(params: Mapping[str, Any], kind: str) -> str:
    """What to pass to `open_dagster_pipes` for params that the default part does not know.

    Args:
        params: Decoded ``DAGSTER_PIPES_CONTEXT`` or ``DAGSTER_PIPES_MESSAGES``.
        kind: ``"ContextLoader"`` or ``"MessageWriter"``.

    Returns:
        Sentences that name the parts that fit, with a line of code; "" if it is not known.
    """
    argument = "context_loader" if kind == "ContextLoader" else "message_writer"
    if "bucket" in params:
        names = [f"Pipes{store}{kind}" for store in ("S3", "GCS", "AzureBlobStorage")]
        return (
            f" The key `bucket` is that of an object store: use {names[0]}, {names[1]} or {names[2]},"
            " whichever the Dagster side uses, for example"
            f' `open_dagster_pipes({argument}={names[0]}(boto3.client("s3")))`.'
        )
    if "prefect_logs" in params:
        return f" Use `open_dagster_pipes({argument}=PipesPrefectLogs{kind}())`."
    if "path" in params:
        names = [f"Pipes{place}{kind}()" for place in ("Dbfs", "UnityCatalogVolumes")]
        return (
            f" On Databricks use `open_dagster_pipes({argument}={names[0]})` for DBFS or"
            f" `{names[1]}` for a Unity Catalog volume."
        )
    return ""


def has_cli_argument(argv: Sequence[str], option: str) -> bool:
    """Whether ``option`` is given, as ``--option value`` or ``--option=value``.

    Args:
        argv: The command line, the program's name first.
        option: The option with its dashes.
    """
    return any(word == option or word.startswith(f"{option}=") for word in _options(argv))


def find_cli_argument(argv: Sequence[str], option: str) -> str:
    """Look up the value of ``option``, given as ``--option value`` or ``--option=value``.

    Only looks: nothing is taken out of ``argv`` and no other argument, such as ``--help``, means
    anything here. When given more than once, the last one counts. Words after ``--`` are not
    options.

    Args:
        argv: The command line, the program's name first.
        option: The option with its dashes.

    Raises:
        LaunchParamsError: The option is not given, or is the last word or followed by another
            option.
    """
    words = _options(argv)
    found: str | None = None
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            found = word[len(option) + 1 :]
        elif word == option:
            following = words[index + 1] if index + 1 < len(words) else None
            if following is None or following.startswith("-"):
                raise LaunchParamsError(
                    f"Command line argument {option} has no value; got"
                    f" {'the end of the line' if following is None else 'another option'}"
                    f" where its value should be. {ADVICE}"
                )
            found = following
    if found is None:
        raise LaunchParamsError(f"Command line argument {option} is missing. {ADVICE}")
    return found


def _options(argv: Sequence[str]) -> list[str]:
    words = list(argv[1:])
    return words[: words.index("--")] if "--" in words else words


def _undecodable(source: str, broken: str, text: str, reason: Exception | str) -> LaunchParamsError:
    return LaunchParamsError(
        f"{source} {broken} ({reason}); got {len(text):,} characters. {ADVICE}"
    )


def _is_strict_base64(value: str) -> bool:
    try:
        base64.b64decode(value.strip(), validate=True)
    except ValueError:
        return False
    return True
