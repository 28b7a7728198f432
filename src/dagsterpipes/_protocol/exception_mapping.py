"""The exception of a ``closed`` message, from a mapping that a user gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagsterpipes._protocol.argument import Place
    from dagsterpipes.typing import PipesException

MAX_EXCEPTIONS = 200
"""Most exceptions in one message, causes and contexts counted; 400 in a chain are taken."""


def complete_exception(value: object, place: Place) -> PipesException:
    """The exception with all five keys, in causes and contexts too; other keys are left out.

    Only ``message`` has to be there. The text of ``stack`` may be a list of str or nothing. Beyond
    `MAX_EXCEPTIONS` a note stands for the rest, so that a session can close with any chain, even
    with one that runs in a circle.

    Args:
        value: A mapping in the shape of `PipesException`.
        place: Where it stands, for the error.

    Raises:
        InvalidReportError: It does not have that shape.
    """
    return _complete(value, place, iter(range(MAX_EXCEPTIONS)))


def _complete(value: object, place: Place, budget: Iterator[int]) -> PipesException:
    if not isinstance(value, Mapping):
        raise place.error("has to be a mapping with the keys of PipesException", value)
    if next(budget, None) is None:
        return {
            "message": f"(more than {MAX_EXCEPTIONS} exceptions; the rest is left out)",
            "stack": [],
            "name": None,
            "cause": None,
            "context": None,
        }
    cause, context = value.get("cause"), value.get("context")
    name = value.get("name")
    return {
        "message": place.at("message").text(value.get("message")),
        "stack": _stack(value.get("stack"), place.at("stack")),
        "name": None if name is None else place.at("name").text(name),
        # An empty one counts as none in Dagster.
        "cause": _complete(cause, place.at("cause"), budget) if cause else None,
        "context": _complete(context, place.at("context"), budget) if context else None,
    }


def _stack(value: object, place: Place) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise place.error("has to be a list of str", value)
    return [place.at(index).text(line) for index, line in enumerate(value)]
