"""The context that the local runner hands to a command, as Dagster would."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.assets import to_asset_key_path
from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes.exceptions import ContextError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dagsterpipes.typing import PipesContextData

__all__ = ["build_context", "parse_extras", "read_json_object"]


def build_context(
    base: Mapping[str, Any],
    *,
    run_id: str | None = None,
    asset_keys: Sequence[str] = (),
    partition: str | None = None,
    partition_range: tuple[str, str] | None = None,
    time_window: tuple[str, str] | None = None,
    extras: Mapping[str, Any] | None = None,
    job_name: str | None = None,
    retry_number: int | None = None,
) -> PipesContextData:
    """Build a context with all ten keys.

    Args:
        base: A context, whole or in part; the other arguments override it key by key, but extras
            are merged.
        run_id: The id of the run; a new one unless it is given.
        asset_keys: Escaped as on the wire. Without any, the step is an op.
        partition: The key of the only partition.
        partition_range: The first and the last key.
        time_window: Two ISO 8601 timestamps with an offset, the end excluded. Dagster sends it for
            partitions of time; it cannot be told from a key.
        extras: User-defined values.
        job_name: The name of the job.
        retry_number: How often the step has been tried before.

    Raises:
        ContextError: A value cannot be one that Dagster sends.
    """
    defaults: dict[str, Any] = {
        "asset_keys": None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": str(uuid.uuid4()),
        "job_name": None,
        "retry_number": 0,
        "extras": {},
    }
    context: dict[str, Any] = dict(check_context_data({**defaults, **base}, "The context"))
    given = {"run_id": run_id, "job_name": job_name, "retry_number": retry_number}
    context |= {key: value for key, value in given.items() if value is not None}
    context["extras"] = {**context["extras"], **(extras or {})}
    if asset_keys:
        context |= _asset_facts(asset_keys, context)
    if partition is not None and partition_range is not None:
        raise ContextError("Give a partition or a range of partitions, not both.")
    if partition is not None:
        partition_range = (partition, partition)
    if partition_range is not None:
        first, last = partition_range
        context["partition_key"] = first if first == last else None
        context["partition_key_range"] = {"start": first, "end": last}
        context["partition_time_window"] = None
    if time_window is not None:
        start, end = map(_check_timestamp, time_window)
        context["partition_time_window"] = {"start": start, "end": end}
    return cast("PipesContextData", context)


def _asset_facts(asset_keys: Sequence[str], base: Mapping[str, Any]) -> dict[str, Any]:
    parts = {key: to_asset_key_path(key) for key in asset_keys}
    for key, path in parts.items():
        if not path:
            raise ContextError(f"An asset key must name an asset; got {shorten(key)}.")
    keys = sorted(parts, key=parts.__getitem__)  # Dagster sorts by parts, not by their text
    versions = base["code_version_by_asset_key"] or {}
    provenance = base["provenance_by_asset_key"] or {}
    return {
        "asset_keys": keys,
        "code_version_by_asset_key": {key: versions.get(key) for key in keys},
        "provenance_by_asset_key": {key: provenance.get(key) for key in keys},
    }


def _check_timestamp(text: str) -> str:
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
