"""Values of options that are more than a word: extras, files of JSON, time windows."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dagsterpipes.exceptions import ContextError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["parse_extras", "parse_timestamp", "read_json_object"]


def parse_timestamp(text: str) -> str:
    """Parse an end of a time window, and write it as Dagster does.

    Raises:
        ContextError: It is no ISO 8601 timestamp with an offset.
    """
    try:
        parsed = datetime.fromisoformat(text.removesuffix("Z") + "+00:00" * text.endswith("Z"))
    except ValueError as error:
        raise ContextError(f"A time window needs ISO 8601 timestamps: {error}.") from None
    if parsed.tzinfo is None:
        raise ContextError(
            f"A time window needs timestamps with an offset, such as {text}+00:00; got"
            f" {shorten(text)}."
        )
    return parsed.isoformat()


def parse_extras(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``key=text`` and ``key:=json``.

    Raises:
        ContextError: An assignment has no ``=``, no key, or no JSON after ``:=``.
    """
    extras: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        is_json = key.endswith(":")
        key = key.removesuffix(":")
        if not equals or not key:
            raise ContextError(
                f"An extra is given as key=text or key:=json; got {shorten(assignment)}."
            )
        try:
            extras[key] = json.loads(text) if is_json else text
        except ValueError as error:
            raise ContextError(f"The extra {key} is not JSON: {error}.") from None
    return extras


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ContextError: The file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ContextError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ContextError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ContextError(f"{path} must hold a JSON object; got {shorten(value)}.")
    return value
