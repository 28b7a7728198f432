"""The rules that a stream of messages must keep, each with what Dagster does when it is broken.

Measured on Dagster 1.13 with its file reader, the one of ``PipesSubprocessClient``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EFFECTS", "RULES", "Effect", "Refused", "RuleBroken"]

Effect = Literal["reader-stops", "step-fails", "may-be-lost"]
"""What a broken rule does to a run."""

EFFECTS: Mapping[Effect, str] = {
    "reader-stops": "Dagster's reader stops here and loses every later message",
    "step-fails": "Dagster fails the step",
    "may-be-lost": "Dagster warns about it, and readers of an object store lose it",
}
"""Each effect in words."""

RULES: Mapping[str, tuple[str, Effect]] = {
    "utf-8": ("a line is valid UTF-8", "reader-stops"),
    "byte-order-mark": ("a line has no byte order mark", "reader-stops"),
    "blank-line": ("no line is blank", "reader-stops"),
    "carriage-return": ("a carriage return stands only right before a newline", "reader-stops"),
    "torn-line": ("a line is written in one piece, with its newline", "reader-stops"),
    "json": ("a line is one JSON value", "reader-stops"),
    "nesting": ("JSON is not nested too deeply", "reader-stops"),
    "envelope": ("a message is an object with `method` and `params`", "reader-stops"),
    "method": ("the method is one that Dagster knows", "reader-stops"),
    "params": ("params have every key of the method and no other", "reader-stops"),
    "text": ("what must be text is text", "reader-stops"),
    "log-level": ("a log level is an integer or a name that Dagster knows", "reader-stops"),
    "stream": ("an external stream is stdout or stderr", "reader-stops"),
    "surrogate": ("text for stdout has no lone surrogate", "reader-stops"),
    "exception": ("an exception has all five keys, also its causes", "reader-stops"),
    "severity": ("a severity is WARN or ERROR", "reader-stops"),
    "passed": ("`passed` is true or false", "reader-stops"),
    "metadata": ("metadata are objects of raw_value and type", "reader-stops"),
    "metadata-type": ("a metadata type is one that Dagster knows", "reader-stops"),
    "metadata-value": ("a metadata value fits its type", "reader-stops"),
    "asset-key": ("an asset key is among the keys of the step", "step-fails"),
    "second-materialization": ("an asset is materialized once", "step-fails"),
    "second-check": ("a check has one result", "step-fails"),
    "after-closed": ("nothing comes after `closed`", "may-be-lost"),
}
"""Each rule by its name: what it asks for, and what breaking it does."""


class Refused(NamedTuple):
    """A rule is broken.

    Args:
        rule: Its name, a key of ``RULES``.
        detail: What is wrong, where, and what was got.
    """

    rule: str
    detail: str

    @property
    def effect(self) -> Effect:
        """What Dagster does about it."""
        return RULES[self.rule][1]


class RuleBroken(Exception):  # noqa: N818 because it is how a check ends, and no error of ours
    """Raised inside the checks, with the arguments of ``Refused``; never leaves this storey."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(rule, detail)
        self.refused = Refused(rule, detail)
