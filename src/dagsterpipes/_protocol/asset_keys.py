r"""Asset keys as texts: parts joined by ``/``, with ``\`` before a ``\`` or ``/`` within a part."""

from __future__ import annotations

from collections.abc import Iterable


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
        parts: None of them empty at the end, since such a key has no text.
    """
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") for part in parts)
