"""A launch as Dagster makes it: the context, and the files and variables that lead a process to it."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, cast

from dagsterpipes._protocol.assets import to_asset_key_path
from dagsterpipes._protocol.context_data import check_context_data
from dagsterpipes._protocol.envelope import READER_KEY
from dagsterpipes._protocol.launch_params import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    encode_param,
)
from dagsterpipes.exceptions import ContextError, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dagsterpipes.typing import PipesContextData

__all__ = ["bootstrap_env", "build_context"]


def build_context(
    base: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    asset_keys: Sequence[str] | None = None,
    partition: str | None = None,
    partition_range: tuple[str, str] | None = None,
    time_window: tuple[str, str] | None = None,
    extras: Mapping[str, Any] | None = None,
    job_name: str | None = None,
    retry_number: int | None = None,
) -> PipesContextData:
    """Build a context with all ten keys.

    Args:
        base: A context, whole or in part. The other arguments override its keys; extras are
            merged.
        run_id: The id of the run; a new one unless it is given.
        asset_keys: The assets of the step, escaped as on the wire. None of them makes a step of
            asset checks only. Without the argument those of the base count; without these too,
            the step is an op.
        partition: The key of the only partition.
        partition_range: The first and the last key.
        time_window: The start and the end of the partition, as timestamps with an offset. Dagster
            sends it for partitions of time; it cannot be told from a key.
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
    context: dict[str, Any] = dict(check_context_data({**defaults, **(base or {})}, "The context"))
    given = {"run_id": run_id, "job_name": job_name, "retry_number": retry_number}
    context |= {key: value for key, value in given.items() if value is not None}
    context["extras"] = {**context["extras"], **(extras or {})}
    if asset_keys is not None:
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
        start, end = time_window
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


def bootstrap_env(
    context: PipesContextData,
    folder: Path,
    messages: Path,
    *,
    include_stdio: bool,
    keeps_lines_single: bool = False,
) -> dict[str, str]:
    """Make the files of a session, and the two variables that lead a process to them.

    Args:
        context: What the process will load.
        folder: Where the context file goes.
        messages: The messages file; it is made empty, as Dagster does.
        include_stdio: Whether the process is asked to send its stdout and stderr as messages.
        keeps_lines_single: Whether floods of log lines are not joined, as they are for Dagster's reader.
    """
    context_file = folder / "context"
    context_file.write_text(json.dumps(context), encoding="utf-8")
    messages.write_bytes(b"")
    params = {
        "path": str(messages.absolute()),
        "include_stdio_in_messages": include_stdio,
        **({READER_KEY: 1} if keeps_lines_single else {}),
    }
    return {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"path": str(context_file.absolute())}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(params),
    }
