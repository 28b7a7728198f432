r"""Asset keys as texts: parts joined by ``/``, with ``\`` before a ``\`` or ``/`` within a part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagsterpipes._protocol.argument import Place


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
        if character == "\\":
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


def asset_key_parts(key: Any, place: Place) -> list[str]:
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
        raise place.error("has to be an asset key: a str, or a list of its parts", key)
    for index, part in enumerate(parts):
        if not isinstance(part, str):
            raise place.at(index).error("has to be a str", part)
    if not parts:
        raise place.error("has no parts", key)
    return [str.__str__(part) for part in parts]


def asset_reference(key: Any, place: Place) -> str:
    """An asset key as metadata of type ``asset`` has it: parts joined by ``/``, nothing escaped.

    Raises:
        InvalidReportError: It is no asset key, or a part has a ``/``, which Dagster would split.
    """
    parts = asset_key_parts(key, place)
    if any("/" in part for part in parts):
        raise place.error("has a part with a '/', which Dagster cannot refer to in metadata", key)
    return "/".join(parts)
