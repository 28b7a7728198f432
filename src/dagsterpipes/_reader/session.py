"""What Dagster makes of messages together: order, repetition, and keys of the step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.assets import to_asset_key_path
from dagsterpipes._reader.rules import Refused
from dagsterpipes.exceptions import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["StreamRules"]


class StreamRules:
    """Judges the messages of one session in their order, each of which ``judge_line`` passed.

    Args:
        asset_keys: The keys of the step, escaped as on the wire. ``None`` or none at all (an op, an
            asset check) means that any key is good.

    Threads: one at a time.
    """

    def __init__(self, asset_keys: Sequence[str] | None = None) -> None:
        self._known = {_parts(key): key for key in asset_keys or ()}
        self._materialized: set[tuple[str, ...]] = set()
        self._checked: set[tuple[tuple[str, ...], str]] = set()
        self.opened = False  # an ``opened`` came
        self.closed = False  # a ``closed`` came
        self.exception: Mapping[str, Any] | None = None  # what the first ``closed`` carried

    def take(self, message: Mapping[str, Any]) -> list[Refused]:
        """Judge the next message: the rules that it breaks, usually none."""
        method, params = message["method"], message["params"]
        broken = [Refused("after-closed", f"{method} came after it")] if self.closed else []
        if method == "opened":
            self.opened = True
        elif method == "closed":
            if not self.closed and isinstance(params, dict):
                self.exception = params.get("exception")
            self.closed = True
        elif method == "report_asset_materialization":
            broken += self._take_materialization(params)
        elif method == "report_asset_check":
            broken += self._take_check(params)
        return broken

    def _take_materialization(self, params: Mapping[str, Any]) -> list[Refused]:
        key = _parts(params["asset_key"])
        broken = self._check_key(key, params["asset_key"])
        if key in self._materialized:
            broken.append(
                Refused(
                    "second-materialization",
                    f"{shorten(params['asset_key'])} was materialized before",
                )
            )
        self._materialized.add(key)
        return broken

    def _take_check(self, params: Mapping[str, Any]) -> list[Refused]:
        key, name = _parts(params["asset_key"]), params["check_name"]
        broken = self._check_key(key, params["asset_key"])
        if (key, name) in self._checked:
            broken.append(
                Refused(
                    "second-check",
                    f"{shorten(name)} of {shorten(params['asset_key'])} was reported before",
                )
            )
        self._checked.add((key, name))
        return broken

    def _check_key(self, key: tuple[str, ...], written: str) -> list[Refused]:
        if not key:
            return [Refused("asset-key", f"{shorten(written)} names no asset")]
        if self._known and key not in self._known:
            known = ", ".join(sorted(self._known.values()))
            return [Refused("asset-key", f"{shorten(written)} is none of {shorten(known, 200)}")]
        return []


def _parts(key: str) -> tuple[str, ...]:
    return tuple(to_asset_key_path(key))
