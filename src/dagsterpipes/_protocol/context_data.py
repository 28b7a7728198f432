"""What Dagster tells the process: its check, and the facts that a job asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dagsterpipes.exceptions import ContextError, describe

if TYPE_CHECKING:
    from dagsterpipes.typing import (
        PipesContextData,
        PipesDataProvenance,
        PipesPartitionKeyRange,
        PipesTimeWindow,
    )

ADVICE = (
    "It comes from the context injector on the Dagster side: check that both sides agree on where"
    " the context is, and that nothing changes it on the way."
)
"""What to do about an unusable context."""

_SHOWN_EXTRAS = 10


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""Stands for a default that was not given, since ``None`` is a good default."""

_T = TypeVar("_T")


def check_context_data(data: object, source: str) -> PipesContextData:
    """Make sure that ``data`` is what Dagster sends as a context, and return it as a new dict.

    Afterwards every key of ``PipesContextData`` is there with a value of its type, so that no
    property of a context can fail with a bare ``KeyError`` or ``TypeError``. Only ``run_id`` and
    ``asset_keys`` are required; other missing keys count as null (``retry_number`` as 0). Keys that
    this version does not know stay in; extras that are null become ``{}``.

    Args:
        data: The parsed context.
        source: Where it was read, as the first words of an error.

    Raises:
        ContextError: ``data`` is not a mapping, lacks a required key, or has a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ContextError(f"{source} must hold a JSON object; got {describe(data)}. {ADVICE}")
    missing = [key for key in _REQUIRED if key not in data]
    if missing:
        raise ContextError(
            f"{source} lacks the required {'key' if len(missing) == 1 else 'keys'}"
            f" {', '.join(f'`{key}`' for key in missing)}; got {describe(data)}. {ADVICE}"
        )
    checked = _DEFAULTS | dict(data)
    for key, (fits, expected) in _CHECKS.items():
        value = checked[key]
        if not fits(value):
            raise ContextError(
                f"{source} has a wrong value under the key `{key}`: expected {expected}; got"
                f" {describe(value)}. {ADVICE}"
            )
    if checked["extras"] is None:
        checked["extras"] = {}
    return cast("PipesContextData", checked)


class ContextFacts:
    """The read-only properties of a context, with the reference's names, values and error texts.

    Args:
        data: What ``check_context_data`` returned.

    Threads: safe, nothing is changed after construction.
    """

    __slots__ = ("_data",)

    def __init__(self, data: PipesContextData) -> None:
        self._data = data

    @property
    def is_asset_step(self) -> bool:
        """Whether the step targets assets; also ``True`` for a step of asset checks only."""
        return self._data["asset_keys"] is not None

    @property
    def asset_keys(self) -> Sequence[str]:
        """The keys of the assets in scope; empty for a step of asset checks only.

        Raises:
            ContextError: The step does not target assets.
        """
        return _of_assets(self._data["asset_keys"], "asset_keys")

    @property
    def asset_key(self) -> str:
        """The key of the only asset in scope.

        Raises:
            ContextError: The step targets no asset, or not exactly one.
        """
        return self._single_asset("asset_key")

    @property
    def provenance(self) -> PipesDataProvenance | None:
        """What the only asset in scope was last made from, if that is known.

        Raises:
            ContextError: The step targets no asset, or not exactly one.
        """
        key = self._single_asset("provenance")
        return _of_assets(self._data["provenance_by_asset_key"], "provenance").get(key)

    @property
    def provenance_by_asset_key(self) -> Mapping[str, PipesDataProvenance | None]:
        """What each asset in scope was last made from, as far as that is known.

        Raises:
            ContextError: The step does not target assets.
        """
        return _of_assets(self._data["provenance_by_asset_key"], "provenance_by_asset_key")

    @property
    def code_version(self) -> str | None:
        """The code version of the only asset in scope, if it has one.

        Raises:
            ContextError: The step targets no asset, or not exactly one.
        """
        key = self._single_asset("code_version")
        return _of_assets(self._data["code_version_by_asset_key"], "code_version").get(key)

    @property
    def code_version_by_asset_key(self) -> Mapping[str, str | None]:
        """The code version of each asset in scope.

        Raises:
            ContextError: The step does not target assets.
        """
        return _of_assets(self._data["code_version_by_asset_key"], "code_version_by_asset_key")

    @property
    def is_partition_step(self) -> bool:
        """Whether the step targets one or more partitions."""
        return self._data["partition_key_range"] is not None

    @property
    def partition_key(self) -> str:
        """The key of the only partition in scope.

        Raises:
            ContextError: The step targets no partition, or several.
        """
        return _of_partitions(self._data["partition_key"], "partition_key")

    @property
    def partition_key_range(self) -> PipesPartitionKeyRange:
        """The first and the last key of the partitions in scope.

        Raises:
            ContextError: The step does not target partitions.
        """
        return _of_partitions(self._data["partition_key_range"], "partition_key_range")

    @property
    def partition_time_window(self) -> PipesTimeWindow | None:
        """The span of time of the partitions in scope; ``None`` when they are not temporal.

        Raises:
            ContextError: The step does not target partitions.
        """
        _of_partitions(self._data["partition_key_range"], "partition_time_window")
        return self._data["partition_time_window"]

    @property
    def run_id(self) -> str:
        """The id of the Dagster run."""
        return self._data["run_id"]

    @property
    def job_name(self) -> str | None:
        """The name of the Dagster job; ``None`` when the run is not derived from one."""
        return self._data["job_name"]

    @property
    def retry_number(self) -> int:
        """How often the step was tried before, from 0."""
        return self._data["retry_number"]

    @property
    def extras(self) -> Mapping[str, Any]:
        """All values that the user gave on the Dagster side."""
        return self._data["extras"]

    def get_extra(self, key: str, default: Any = MISSING) -> Any:
        """Look up a value that the user gave on the Dagster side.

        Args:
            key: Its key.
            default: What to return when there is no such key, instead of raising.

        Raises:
            ContextError: There is no such key and no default.
        """
        value = self._data["extras"].get(key, default)
        if value is MISSING:
            raise _no_extra(key, self._data["extras"])
        return value

    def _single_asset(self, name: str) -> str:
        keys = _of_assets(self._data["asset_keys"], name)
        if len(keys) != 1:
            raise ContextError(f"`{name}` is undefined. Current step targets multiple assets.")
        return keys[0]


def _no_extra(key: str, extras: Mapping[str, Any]) -> ContextError:
    import difflib  # noqa: PLC0415 because it is only needed for an error

    there = ", ".join(f"`{name}`" for name in sorted(extras)[:_SHOWN_EXTRAS]) or "none"
    if len(extras) > _SHOWN_EXTRAS:
        there += f" and {len(extras) - _SHOWN_EXTRAS:,} more"
    near = difflib.get_close_matches(str(key), extras, 1, 0.6)
    return ContextError(
        f"Extra `{key}` is undefined. Extras must be provided by user. There are: {there}."
        + (f" Did you mean `{near[0]}`?" if near else "")
        + f" get_extra({str(key)!r}, default) returns the default instead."
    )


def _of_assets(value: _T | None, name: str) -> _T:
    return _defined(value, f"`{name}` is undefined. Current step does not target an asset.")


def _of_partitions(value: _T | None, name: str) -> _T:
    return _defined(value, f"`{name}` is undefined. Current step does not target any partitions.")


def _defined(value: _T | None, words: str) -> _T:
    if value is None:
        raise ContextError(f"Missing required property: {words}")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_optional_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_optional_mapping(value: object) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_optional_keys(value: object) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and all(map(_is_text, value)))


def _is_optional_versions(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping) and all(map(_is_optional_text, value.values()))
    )


def _is_optional_provenances(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping) and all(map(_is_optional_mapping, value.values()))
    )


def _is_optional_span(value: object) -> bool:
    return value is None or (
        isinstance(value, Mapping) and _is_text(value.get("start")) and _is_text(value.get("end"))
    )


_SPAN = "null or an object with text under `start` and `end`"

_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "asset_keys": (_is_optional_keys, "null or a list of text"),
    "code_version_by_asset_key": (_is_optional_versions, "null or an object of text or null"),
    "provenance_by_asset_key": (_is_optional_provenances, "null or an object of objects or null"),
    "partition_key": (_is_optional_text, "null or text"),
    "partition_key_range": (_is_optional_span, _SPAN),
    "partition_time_window": (_is_optional_span, _SPAN),
    "run_id": (_is_text, "text"),
    "job_name": (_is_optional_text, "null or text"),
    "retry_number": (_is_count, "an integer"),
    "extras": (_is_optional_mapping, "an object"),
}

_REQUIRED = ("asset_keys", "run_id")
_DEFAULTS = {**dict.fromkeys(_CHECKS), "retry_number": 0}
"""What counts where an injector leaves a key out."""
