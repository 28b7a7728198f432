r"""Asset keys, and which of them a step may report on.

As a text, the parts of a key are joined by ``/``, with ``\`` before a ``\`` or ``/`` within a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes.exceptions import DagsterPipesError, InvalidReportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dagsterpipes._protocol.argument import Argument


ESCAPE_CHARACTER = "\\"


def to_asset_key_path(asset_key: str) -> list[str]:
    r"""The parts of an asset key.

    As in ``dagster_pipes``, an empty last part is left out, and so is a backslash at the end.

    Args:
        asset_key: The key as Dagster writes it: ``r"up/with\/slash"`` has the parts ``up`` and
            ``with/slash``.
    """
    parts = []
    part = ""
    characters = iter(asset_key)
    for character in characters:
        if character == ESCAPE_CHARACTER:
            part += next(characters, "")
        elif character == "/":
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part] if part else parts


def from_asset_key_path(parts: Iterable[str]) -> str:
    """The asset key with these parts, as Dagster writes it: the inverse of `to_asset_key_path`.

    Args:
        parts: The last one not empty, since such a key has no text.
    """
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") for part in parts)


def asset_key_parts(key: Any, argument: Argument) -> list[str]:
    """The parts of a key that is a text as Dagster writes it, a list of parts, or Dagster's own.

    Raises:
        InvalidReportError: It is none of these, or has no parts.
    """
    if isinstance(key, str):
        parts = to_asset_key_path(key)
    elif hasattr(type(key), "to_user_string"):  # dagster.AssetKey, a tuple that does not iterate
        parts = list(key.path)
    elif isinstance(key, (list, tuple)):
        parts = list(key)
    else:
        raise argument.error("must be an asset key: a str, or a list of its parts", key)
    for index, part in enumerate(parts):
        if not isinstance(part, str):
            raise argument.at(index).error("must be a str", part)
    if not parts:
        raise argument.error("has no parts", key)
    return [str.__str__(part) for part in parts]


def asset_reference(key: Any, argument: Argument) -> str:
    """An asset key as metadata of type ``asset`` has it: parts joined by ``/``, nothing escaped.

    Raises:
        InvalidReportError: It is no asset key, or a part has a ``/``, which Dagster would split.
    """
    parts = asset_key_parts(key, argument)
    if any("/" in part for part in parts):
        raise argument.error(
            "has a part with a '/', which Dagster cannot refer to in metadata", key
        )
    return "/".join(parts)


class ReportScope:
    """The asset keys of a step, and what was reported for each.

    Dagster fails the step when an asset or a check is reported twice, and when the asset is not
    one of the step's. So neither gets that far.

    Threads: of two reports of the same thing at the same time, exactly one gets through.

    Args:
        asset_keys: The keys that may be reported; any may where there are none (steps of ops and
            of asset checks).
    """

    def __init__(self, asset_keys: Sequence[str] | None) -> None:
        self._asset_keys = asset_keys
        self._known = frozenset(asset_keys or ())  # no call may search the keys of a large step
        # What was reported, and by which call. dict.setdefault() decides who was first; it is
        # atomic, so no lock is needed.
        self._materializations: dict[str, object] = {}
        self._checks: dict[tuple[str, str], object] = {}

    def resolve(self, asset_key: str | None, method: str) -> str:
        """The asset key that a call is about.

        Args:
            asset_key: What the call was given; ``None`` or ``""`` stands for the only asset.
            method: The method that was called, for the error.

        Raises:
            InvalidReportError: The key is no str.
            DagsterPipesError: It is not one of the step's, or there is not exactly one to default to.
        """
        if asset_key is not None and not isinstance(asset_key, str):
            raise InvalidReportError(
                "must be a str or None", method=method, parameter="asset_key", got=asset_key
            )
        key = str.__str__(asset_key) if asset_key is not None else ""
        if not self._asset_keys:
            if key:
                return key
            raise DagsterPipesError(
                f"Calling `{method}` without passing an asset key is undefined. Current step"
                " does not target a specific asset."
            )
        if not key:
            if len(self._asset_keys) != 1:
                raise DagsterPipesError(
                    f"Calling `{method}` without passing an asset key is undefined. Current step"
                    " targets multiple assets."
                )
            return self._asset_keys[0]
        if key not in self._known:
            raise DagsterPipesError(
                f"Invalid asset key. Expected one of {_shown(self._asset_keys, key)}, got"
                f" `{key[:_SHOWN_LENGTH]}{'…' if len(key) > _SHOWN_LENGTH else ''}`."
            )
        return key

    def register_materialization(self, asset_key: str) -> None:
        """Note that an asset is materialized; to be called once the message is complete.

        Raises:
            DagsterPipesError: It was before.
        """
        call = object()
        if self._materializations.setdefault(asset_key, call) is not call:
            raise DagsterPipesError(
                f"Calling `report_asset_materialization` with asset key `{asset_key}` is undefined."
                " Asset has already been materialized, so no additional data can be reported"
                " for it."
            )

    def register_check(self, asset_key: str, check_name: str) -> None:
        """Note that a check is made; to be called once the message is complete.

        Raises:
            DagsterPipesError: It was before.
        """
        call = object()
        if self._checks.setdefault((asset_key, check_name), call) is not call:
            raise DagsterPipesError(
                f"Calling `report_asset_check` with asset key `{asset_key}` and check name"
                f" `{check_name}` is undefined. The check has already been reported, and Dagster"
                " takes one result for each."
            )


_SHOWN_KEYS = 10
_SHOWN_LENGTH = 200  # characters


def _shown(asset_keys: Sequence[str], wrong: str) -> str:
    """The keys in the reference's form; of many, those that look most like the wrong one."""
    if len(asset_keys) <= _SHOWN_KEYS:
        return f"`{list(asset_keys)}`"
    wrong = wrong[:_SHOWN_LENGTH]
    pairs = {wrong[i : i + 2] for i in range(len(wrong))}  # of characters

    def likeness(key: str) -> float:
        return sum(pair in key for pair in pairs) - abs(len(key) - len(wrong)) / 4

    nearest = sorted(asset_keys, key=likeness, reverse=True)[:5]
    return f"{len(asset_keys):,} keys, the nearest of which are `{nearest}`"
