"""The exception with which a session was closed, as a traceback to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["traceback_lines"]

LINKS = 20
"""Exceptions of a chain that are shown."""

CAUSED = "The above exception was the direct cause of the following exception:"

DURING = "During handling of the above exception, another exception occurred:"


def traceback_lines(exception: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines of a traceback as Python prints it: the first cause first.

    Whatever the process was written in: an exception needs no ``stack`` for it.

    Args:
        exception: What ``closed`` carried, with all five keys in every link.
    """
    chain: list[tuple[Mapping[str, Any], str]] = []
    link, joint = exception, ""
    while link:
        chain.append((link, joint))
        joint = CAUSED if link["cause"] else DURING
        link = link["cause"] or link["context"]
    if len(chain) > LINKS:
        yield f"({len(chain) - LINKS:,} earlier exceptions are not shown)"
    for link, joint in reversed(chain[:LINKS]):
        yield from _link_lines(link)
        if joint:
            yield from ("", joint, "")


def _link_lines(link: Mapping[str, Any]) -> Iterator[str]:
    message, name = link["message"].strip(), link["name"] or ""
    # dagster_pipes puts the name into the message, others do not.
    title = message if not name or message.startswith(name) else f"{name}: {message}".rstrip(": ")
    entries = [line for entry in link["stack"] for line in entry.rstrip("\n").split("\n")]
    if entries and not entries[0].startswith("Traceback"):
        yield "Traceback (most recent call last):"
    yield from entries
    # Where the stack ends with the exception itself, as ours does, that is not said twice.
    if title.split("\n")[0] not in entries:
        yield from title.split("\n")
