"""Values that people have and that JSON does not: one step towards JSON at a time.

numpy, pandas, polars and the like are never imported here: a process that holds one of their
values has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from enum import Enum
from os import PathLike, fsdecode
from typing import Any


class Unsupported(Exception):  # noqa: N818 because it is not an error yet: the place is still missing
    """There is no JSON form that its owner would surely expect; says what to do instead."""


def simpler(value: Any) -> Any:
    """A value that JSON knows, or one that is nearer to it; possibly the insides of a container.

    Raises:
        Unsupported: There is none.
    """
    kind = type(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PathLike):
        return fsdecode(value)
    raise Unsupported("has no JSON form; convert it first")
