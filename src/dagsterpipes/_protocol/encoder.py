"""Values to plain JSON values, and messages to lines.

The lines hold what ``json.loads(json.dumps(value))`` would give, for every value that `json` takes:
NaN and infinities as `json` writes them, lone surrogates escaped, integers of any size that a reader
takes. Values that `json` does not take but that people have are converted first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from operator import is_
from typing import Any

from dagsterpipes._protocol.argument import Argument, unreadable
from dagsterpipes._protocol.dataframes import Unsupported
from dagsterpipes._protocol.envelope import message_head
from dagsterpipes._protocol.jsonable import to_jsonable
from dagsterpipes.exceptions import shorten

MAX_NESTING = 200
"""How many containers may stand inside one another.

`json.loads` in Dagster's reader gives up near 990. Before that, a step with metadata of 500 levels
fails in Dagster 1.13 while its result is stored; 400 passed. Half of that leaves room for the
envelope and for deeper stacks around Dagster's code.
"""

# Python's own limit on digits when a text becomes an int (sys.set_int_max_str_digits): past it,
# json.loads raises in the reader, whatever this process allows itself.
_MAX_DIGITS = 4300
_SAFE_INT = 1 << 14_280  # has 4,299 digits

_SCALARS = frozenset({str, int, float, bool, type(None)})
_CONTAINERS = frozenset({dict, list, tuple})
_PLAIN = _SCALARS | _CONTAINERS
_TEXT = frozenset({str})

_encode = json.JSONEncoder(check_circular=False).encode


def encode_message(method: str, params: Mapping[str, Any]) -> bytes:
    """One message as one line of ASCII, with its newline.

    Args:
        method: One of the methods of the protocol.
        params: All of its params, each as `to_json` gives it.

    Raises:
        InvalidReportError: A value was changed, by another thread, into one that cannot be sent.
    """
    try:
        text = _encode(params)
    except (TypeError, ValueError, RuntimeError):
        # Only a copy of our own stays as it was checked.
        text = _encode(
            {k: _checked_copy(v, Argument(method, k), named=False) for k, v in params.items()}
        )
    return f"{message_head(method)}{text}}}\n".encode("ascii")


def to_json(value: Any, argument: Argument, *, named: bool = False) -> Any:
    """The value as `json` can write it: itself if it is plain already, else a converted copy.

    What `json.dumps` takes keeps the meaning that `json.dumps` gives it.

    Args:
        value: Anything.
        argument: Where the value stands, for the error.
        named: Whether a tuple with named fields becomes a mapping of them, not a list.

    Raises:
        InvalidReportError: The value or a part of it has no JSON form, contains itself, is nested
            deeper than `MAX_NESTING`, has two keys with one text, has an integer too long for a
            reader, or raised an error while it was read.
    """
    try:
        if is_plain(value):
            return value
    except (RuntimeError, ValueError):
        pass  # too deep a stack, or changed by another thread meanwhile: the copy tells
    return _checked_copy(value, argument, named)


def is_plain(value: Any, room: int = MAX_NESTING) -> bool:
    """Whether `json.dumps` takes the value as it is and a reader takes the outcome.

    True only for exact built-in types; written so that almost all of it runs in C.
    """
    kind = type(value)
    children: Collection[Any]
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        children = value.values()
    elif kind is list or kind is tuple:
        children = value
    else:
        return kind in _SCALARS and (kind is not int or -_SAFE_INT < value < _SAFE_INT)
    if room <= 0:
        return False
    kinds = set(map(type, children))
    if not kinds <= _PLAIN:
        return False
    if int in kinds:
        for child in children:
            if type(child) is int and not -_SAFE_INT < child < _SAFE_INT:
                return False
    if not kinds.isdisjoint(_CONTAINERS):
        for child in children:
            if type(child) in _CONTAINERS and not is_plain(child, room - 1):
                return False
    return True


def without_nan(value: Any) -> Any:
    """A plain value in which NaN is ``None`` and an infinity its name; itself if it has neither.

    Dagster's storage takes them, but its web interface then gets text that is not JSON.
    """
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None if math.isnan(value) else _encode(value)
    if kind is dict:
        items = {key: without_nan(child) for key, child in value.items()}
        return value if all(map(is_, items.values(), value.values())) else items
    if kind is list or kind is tuple:
        children = list(map(without_nan, value))
        return value if all(map(is_, children, value)) else children
    return value


class _Refused(Exception):  # noqa: N818 because it is not an error yet: the argument is not known yet
    """A part of a value that cannot be sent; collects its path while it goes up."""

    def __init__(self, problem: str, got: object) -> None:
        super().__init__(problem)
        self.problem = problem
        self.got = got
        self.keys: list[object] = []


def _checked_copy(value: Any, argument: Argument, named: bool) -> Any:
    with argument.wrap_errors(value):
        try:
            return _copy(value, MAX_NESTING, named)
        except _Refused as refused:
            part = argument.at(*refused.keys[::-1])
            raise part.error(refused.problem, refused.got) from refused.__cause__


def _copy(value: Any, room: int, named: bool) -> Any:
    """A plain copy; one frame per level, so that `MAX_NESTING` fits into any stack."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or value is True or value is False:
        return value
    # The methods of the built-in types, as in `json`: a subclass may print itself otherwise.
    if isinstance(value, int):
        return _checked_int(int.__int__(value))
    if isinstance(value, float):
        return float.__float__(value)
    is_mapping = isinstance(value, Mapping)
    if named and isinstance(value, tuple) and hasattr(type(value), "_fields"):
        return _copy_foreign(value, room, named)
    if not is_mapping and not isinstance(value, (list, tuple)):
        return _copy_foreign(value, room, named)
    if room <= 0:
        raise _Refused(f"is nested more than {MAX_NESTING} deep, too deep for Dagster", value)
    key: object = None
    try:
        if is_mapping:
            pairs: dict[str, Any] = {}
            for key, child in value.items():
                pairs[_new_key(key, pairs)] = _copy(child, room - 1, named)
            return pairs
        items: list[Any] = []
        # Not the iterator of a subclass: `json` does not ask for it either.
        for child in list.__iter__(value) if isinstance(value, list) else tuple.__iter__(value):
            key = len(items)
            items.append(_copy(child, room - 1, named))
        return items
    except _Refused as refused:
        if refused.got is value:
            # It was met again below: the path that leads round and round is of no use.
            refused.problem = "contains itself"
            refused.keys.clear()
        else:
            refused.keys.append(key)
        raise
    except Exception as error:
        raise _Refused(unreadable(error), value) from error


def _copy_foreign(value: Any, room: int, named: bool) -> Any:
    simple = _to_jsonable(value)
    return simple if is_plain(simple, room - 1) else _copy(simple, room - 1, named)


def _to_jsonable(value: Any) -> Any:
    try:
        return to_jsonable(value)
    except Unsupported as unsupported:
        raise _Refused(str(unsupported), value) from None
    except Exception as error:
        raise _Refused(unreadable(error), value) from error


def _key_text(key: object) -> str:
    """The key as `json` writes it."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return int.__repr__(_checked_int(int.__int__(key)))
    if isinstance(key, float):
        return _encode(float.__float__(key))
    if not isinstance(key, (tuple, frozenset)):
        simple = _to_jsonable(key)
        if not isinstance(simple, (Mapping, list, tuple)):
            return _key_text(simple)
    raise _Refused("is a key that has no form in JSON; make it a str", key)


def _new_key(key: object, pairs: dict[str, Any]) -> str:
    text = _key_text(key)
    if text in pairs:
        raise _Refused(f"is the second key that reads {shorten(text, 40)} in JSON", key)
    return text


def _checked_int(value: int) -> int:
    if value.bit_length() < 2_000:  # 603 digits; no process can be told to allow less than 640
        return value
    if -_SAFE_INT < value < _SAFE_INT or abs(value) < 10**_MAX_DIGITS:
        try:
            int.__repr__(value)
        except ValueError:  # this process allows less than its reader
            pass
        else:
            return value
    raise _Refused(f"has too many digits ({_MAX_DIGITS:,} can be read at most); send a str", value)
