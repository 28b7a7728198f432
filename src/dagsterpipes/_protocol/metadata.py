"""Metadata values: what Dagster's reader converts, from what users pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagsterpipes._protocol.encoder import to_json
from dagsterpipes._protocol.place import Place
from dagsterpipes.exceptions import InvalidReportError


def normalize_metadata(metadata: Mapping[str, Any] | None, *, method: str) -> dict[str, Any]:
    """Metadata as the wire has it (first version; being written)."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidReportError(
            "has to be a mapping", method=method, parameter="metadata", got=metadata
        )
    return {
        key: {"raw_value": to_json(value, Place(method, "metadata")), "type": "__infer__"}
        for key, value in metadata.items()
    }
