"""Exceptions as the ``closed`` message carries them, readable on Dagster's page."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from dagsterpipes._protocol.argument import Argument
    from dagsterpipes.typing import PipesException

_Relation = Literal["cause", "context"]

_BRIDGES: dict[_Relation, str] = {
    "cause": "\nThe above exception was the direct cause of the following exception:\n\n",
    "context": "\nDuring handling of the above exception, another exception occurred:\n\n",
}
_CLOSING_RULE = "+------------------------------------\n"


class ExceptionLimits(NamedTuple):
    """How much of an exception is sent; a note stands where something is left out.

    Args:
        chain: Exceptions linked by cause and context. Dagster walks them by recursion.
        frames: Formatted frames of one exception, repeated ones already joined.
        text: Characters of one message, or of one entry of the stack.
        members: Members of exception groups, in the whole payload.
        depth: Exception groups inside one another.
        total: Characters of the whole payload as JSON; the other limits shrink until it fits. Of
            more than 500,000, Dagster drops all that is behind the fifth link.
    """

    chain: int = 100
    frames: int = 200
    text: int = 16_384
    members: int = 100
    depth: int = 10
    total: int = 400_000


_DEFAULT_LIMITS = ExceptionLimits()


def exception_payload(
    exc: BaseException, *, limits: ExceptionLimits = _DEFAULT_LIMITS
) -> PipesException:
    """Describe an exception in the way that Dagster's handler takes.

    ``message`` is the plain text, ``name`` the class, ``stack`` the formatted frames and Python's
    own last lines, then, for an exception group, its members in Python's layout (Dagster has no
    field for them). ``cause`` and ``context`` follow what Python would print. Whatever the
    exception does when it is looked at, the result is complete: all five keys at every level, each
    of its type.

    Args:
        exc: The exception, with the traceback that it carries.
        limits: How much to send.
    """
    while True:
        payload = _Renderer(limits).payload(exc)
        if limits.text <= 64 or len(json.dumps(payload)) <= limits.total:
            return payload
        limits = limits._replace(
            frames=max(limits.frames // 4, 4),
            text=limits.text // 4,
            members=max(limits.members // 2, 4),
        )


def closing_exception(exc: BaseException | None) -> BaseException | None:
    """Give back the exception that Dagster should see, or ``None`` for a clean end.

    A process that ends by ``sys.exit()`` or ``sys.exit(0)`` has succeeded, and a generator whose
    consumer stopped early has not failed. Everything else, cancellation and ``KeyboardInterrupt``
    included, is forwarded as what it is.
    """
    if isinstance(exc, SystemExit):
        code = exc.code
        return None if code is None or (isinstance(code, int) and code == 0) else exc
    return None if isinstance(exc, GeneratorExit) else exc


class _Link(NamedTuple):
    """One exception of a chain, newest first."""

    exc: BaseException | None  # None stands for links that were left out
    relation: _Relation  # what it is to the link before it; no meaning for the first
    lines: Sequence[str]  # frames and last lines, or the note about what was left out
    has_frames: bool = False


class _Renderer:
    """Turns one exception into its payload, within the limits."""

    def __init__(self, limits: ExceptionLimits) -> None:
        self._limits = limits
        self._members_left = limits.members

    def payload(self, exc: BaseException) -> PipesException:
        entries: list[PipesException] = []
        for link in self._chain(exc, set()):
            entry = self._entry(link)
            if entries:
                entries[-1][link.relation] = entry
            entries.append(entry)
        return entries[0]

    def _entry(self, link: _Link) -> PipesException:
        if link.exc is None:
            message, stack, name = link.lines[0].rstrip("\n"), [], None
        else:
            message = _bounded(_text(link.exc), self._limits.text)
            members = self._members(link.exc, 1, frozenset((id(link.exc),)))
            stack, name = [*link.lines, *members], type(link.exc).__name__
        return {"message": message, "stack": stack, "name": name, "cause": None, "context": None}

    def _chain(self, exc: BaseException, seen: set[int]) -> list[_Link]:
        """Follow cause and context as Python prints them; cut cycles and the middle of long ones."""
        chain: list[tuple[BaseException, _Relation, traceback.TracebackException | None]] = []
        relation: _Relation = "cause"
        following: BaseException | None = exc
        # One summary describes the whole chain behind it; asking each exception for its own would
        # take quadratic time.
        summary = _summary(exc)
        while following is not None:
            seen.add(id(following))
            chain.append((following, relation, summary))
            relation, following = _next(following, seen)
            if following is not None and summary is not None:
                # Python ends the chain at an exception that is false; Dagster should see the rest.
                behind = summary.__cause__ if relation == "cause" else summary.__context__
                summary = behind or _summary(following)

        most = self._limits.chain
        if len(chain) <= most:
            return [self._link(*link) for link in chain]
        newest, oldest = most - most // 4, most // 4
        left_out = len(chain) - newest - oldest
        words = f"[{left_out} exceptions of this chain are left out]\n"
        return [
            *(self._link(*link) for link in chain[:newest]),
            _Link(None, chain[newest][1], [words]),
            *(self._link(*link) for link in chain[len(chain) - oldest :]),
        ]

    def _link(
        self,
        exc: BaseException,
        relation: _Relation,
        summary: traceback.TracebackException | None,
    ) -> _Link:
        frames, last_lines = _lines(exc, summary)
        most = self._limits.frames
        if len(frames) > most:
            first, last = most // 4, most - most // 4
            words = f"  [{len(frames) - most} frames are left out]\n"
            frames = [*frames[:first], words, *frames[len(frames) - last :]]
        lines = [_bounded(line, self._limits.text) for line in (*frames, *last_lines)]
        return _Link(exc, relation, lines, has_frames=bool(frames))

    def _members(self, group: BaseException, depth: int, path: frozenset[int]) -> list[str]:
        """Lay out the members of a group as Python does, ``depth`` being 1 for the outermost."""
        members = _members_of(group)
        margin = "  " * depth
        lines: list[str] = []
        if members and depth > self._limits.depth:
            return [f"{margin}... groups nested deeper than {self._limits.depth} are left out\n"]
        for number, member in enumerate(members, 1):
            corner = "+-" if number == 1 else "  "
            title = str(number) if self._members_left > 0 else "..."
            lines.append(f"{margin}{corner}+---------------- {title} ----------------\n")
            if self._members_left <= 0:
                remaining = len(members) - number + 1
                plural = "s" if remaining > 1 else ""
                lines.append(f"{margin}  | and {remaining} more exception{plural}\n")
                break
            self._members_left -= 1
            lines.extend(self._format_member(member, depth + 1, path))
        if lines and not lines[-1].endswith(_CLOSING_RULE):
            lines.append(f"{margin}  {_CLOSING_RULE}")
        return lines

    def _format_member(self, member: BaseException, depth: int, path: frozenset[int]) -> list[str]:
        """Format a member with its causes, oldest first, indented to its depth."""
        if id(member) in path:
            return [_indented("[a group that holds itself]\n", depth)]
        lines: list[str] = []
        bridge = ""
        for link in reversed(self._chain(member, set(path))):
            group = "Exception Group " if _members_of(link.exc) else ""
            header = f"{group}Traceback (most recent call last):\n" if link.has_frames else ""
            words = (line for line in (bridge, header, *link.lines) if line)
            lines += [_indented(line, depth) for line in words]
            if link.exc is not None:
                lines += self._members(link.exc, depth, path | {id(link.exc)})
            bridge = _BRIDGES[link.relation]
        return lines


def prepare() -> None:
    """Import what formatting a traceback imports, so that the end of a job needs no import."""
    if sys.version_info >= (3, 11):
        __import__("ast")  # finds the part of a line to underline
    if sys.version_info >= (3, 13):
        __import__("tokenize")  # reads the lines of the source


def _summary(exc: BaseException) -> traceback.TracebackException | None:
    try:
        return traceback.TracebackException(type(exc), exc, exc.__traceback__, compact=True)
    except Exception:  # noqa: BLE001 because whatever an exception does when looked at, it is sent
        return None


def _next(exc: BaseException, seen: set[int]) -> tuple[_Relation, BaseException | None]:
    """Find what Python would print before ``exc``, unless it was seen."""
    if exc.__cause__ is not None:
        return "cause", None if id(exc.__cause__) in seen else exc.__cause__
    if exc.__suppress_context__ or id(exc.__context__) in seen:
        return "context", None
    return "context", exc.__context__


def _lines(
    exc: BaseException, summary: traceback.TracebackException | None
) -> tuple[list[str], list[str]]:
    """Format the frames and the last lines, by hand where Python's own way fails."""
    frames: list[str] | None = None
    last_lines: list[str] | None = None
    try:
        if summary is not None:
            frames = summary.stack.format()
            last_lines = list(summary.format_exception_only())
    except Exception:  # noqa: BLE001, S110 because the ways below remain
        pass
    if frames is None:
        frames = _plain_frames(exc)
    return frames, last_lines or [_plain_last_line(exc)]


def _plain_frames(exc: BaseException) -> list[str]:
    return [
        f'  File "{frame.f_code.co_filename}", line {number}, in {frame.f_code.co_name}\n'
        for frame, number in traceback.walk_tb(exc.__traceback__)
    ]


def _plain_last_line(exc: BaseException) -> str:
    kind = type(exc)
    module = kind.__module__
    name = (
        kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
    )
    text = _text(exc)
    return f"{name}: {text}\n" if text else f"{name}\n"


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 because a broken __str__ must not hide the exception itself
        return f"<unprintable {type(exc).__name__} object>"


def _members_of(exc: BaseException | None) -> Sequence[BaseException]:
    """Find the members of a group: Python's, the backport's for 3.10, or any other's."""
    try:
        members = getattr(exc, "exceptions", ())
        if isinstance(members, (list, tuple)) and all(
            isinstance(member, BaseException) for member in members
        ):
            return members
    except Exception:  # noqa: BLE001, S110 because a property may do anything
        pass
    return ()


def _bounded(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head, tail = most - most // 4, most // 4
    words = f" … [{len(text) - head - tail:,} characters are left out] … "
    return f"{text[:head]}{words}{text[len(text) - tail :]}"


def _indented(text: str, depth: int) -> str:
    margin = "  " * depth + "| "
    return "".join(margin + line for line in text.splitlines(keepends=True))


MAX_EXCEPTIONS = 200
"""Most exceptions in one message, causes and contexts counted; 400 in a chain are taken."""


def complete_exception(value: object, argument: Argument) -> PipesException:
    """The exception with all five keys, in causes and contexts too; other keys are left out.

    Only ``message`` must be there. The text of ``stack`` may be a list of str or nothing. Beyond
    `MAX_EXCEPTIONS` a note stands for the rest, so that a session can close with any chain, even
    with one that runs in a circle.

    Args:
        value: A mapping in the shape of `PipesException`.
        argument: Where it stands, for the error.

    Raises:
        InvalidReportError: It does not have that shape.
    """
    return _complete(value, argument, iter(range(MAX_EXCEPTIONS)))


def _complete(value: object, argument: Argument, budget: Iterator[int]) -> PipesException:
    if not isinstance(value, Mapping):
        raise argument.error("must be a mapping with the keys of PipesException", value)
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
        "message": argument.at("message").text(value.get("message")),
        "stack": _stack(value.get("stack"), argument.at("stack")),
        "name": None if name is None else argument.at("name").text(name),
        # An empty one counts as none in Dagster.
        "cause": _complete(cause, argument.at("cause"), budget) if cause else None,
        "context": _complete(context, argument.at("context"), budget) if context else None,
    }


def _stack(value: object, argument: Argument) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise argument.error("must be a list of str", value)
    return [argument.at(index).text(line) for index, line in enumerate(value)]
