"""Convert numpy, pandas, `datetime` and more to JSON types, one level at a time.

numpy, pandas, polars and the like are never imported here: a process that holds one of their
values has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from os import PathLike, fsdecode
from typing import Any

from dagsterpipes._protocol.dagster_objects import unwrap
from dagsterpipes._protocol.dataframes import Unsupported, is_frame, read_frame, read_series


def is_a(value: object, module: str, *names: str) -> bool:
    """Whether the value is an instance of a class of a module, which is not imported for that."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in names))


def is_missing(value: object) -> bool:
    """Whether the value is pandas' or numpy's way to say that there is none."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NaT or value is pandas.NA):
        return True
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and (
        value is numpy.ma.masked
        or (isinstance(value, (numpy.datetime64, numpy.timedelta64)) and bool(numpy.isnat(value)))
    )


def is_path(value: object) -> bool:
    """Whether the value is a path, of this machine or of remote storage."""
    kind = type(value)
    return isinstance(value, PathLike) or (hasattr(kind, "as_uri") and hasattr(kind, "joinpath"))


def to_jsonable(value: Any) -> Any:
    """Convert a value to a JSON type, or to a container whose items are still to be converted.

    Dates and times become ISO 8601 texts, time spans seconds, `decimal.Decimal` and `uuid.UUID`
    their texts, paths their names (of remote storage, their URLs), secrets of pydantic their masks,
    enum members their values, data classes, models and tuples with named fields mappings of these, data frames lists of records, series with meaningful labels mappings, other
    collections lists (sets in order, where their items have one), and what is missing ``None``.

    Raises:
        Unsupported: There is no JSON form that its owner would surely expect.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise Unsupported("is bytes: decode it, or encode it as text, for example in base64")
    if is_missing(value):
        return None
    if is_a(value, "numpy", "generic", "ndarray"):
        return _from_numpy(value)
    if is_a(value, "pandas", "Period", "Interval"):
        return str(value)
    if is_frame(value):
        return read_frame(value).records
    if is_a(value, "pandas", "Series"):
        return read_series(value)
    if is_a(value, "datetime", "datetime", "date", "time"):
        return value.isoformat()
    if is_a(value, "datetime", "timedelta"):
        return value.total_seconds()
    if is_a(value, "decimal", "Decimal") or is_a(value, "uuid", "UUID"):
        return str(value)
    if is_a(value, "ipaddress", "_IPAddressBase"):
        return str(value)
    if is_path(value):
        # A path of remote storage is meant, not the file in a cache that it offers to open().
        text = str(value)
        is_remote = "://" in text and not text.startswith("file:")
        return fsdecode(value) if isinstance(value, PathLike) and not is_remote else text
    if callable(getattr(type(value), "get_secret_value", None)):  # pydantic's, masked
        return str(value)
    unwrapped = unwrap(value)
    if unwrapped is not value:
        return unwrapped
    fields = _fields(value)
    if fields is not None:
        return fields
    # On the class, so that objects that answer to every name are not asked.
    for name in ("tolist", "to_list", "to_pylist", "as_py"):  # arrays and tensors, polars, pyarrow
        if callable(getattr(type(value), name, None)):
            return getattr(value, name)()
    return _from_collection(value)


def _from_numpy(value: Any) -> Any:
    numpy: Any = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray):
        # Times would become bare integers in tolist().
        return list(value) if value.dtype.kind in "mM" and value.ndim else value.tolist()
    if isinstance(value, numpy.datetime64):
        return str(value)
    if isinstance(value, numpy.timedelta64):
        return float(value / numpy.timedelta64(1, "s"))
    if isinstance(value, numpy.floating):
        return float(value)
    if isinstance(value, numpy.complexfloating):
        raise Unsupported("is a complex number: send its parts")
    return value.item()


def _fields(value: Any) -> Mapping[str, Any] | None:
    """The fields of a data class, an attrs class, a pydantic model or a msgspec struct."""
    kind: Any = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        names = [field.name for field in sys.modules["dataclasses"].fields(value)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    elif hasattr(kind, "__struct_fields__"):
        names = list(kind.__struct_fields__)
    elif isinstance(value, tuple):
        names = list(kind._fields)
    elif callable(getattr(kind, "model_dump", None)):
        return _dump(value)
    else:
        return None
    return {name: getattr(value, name) for name in names}


def _dump(model: Any) -> Mapping[str, Any]:
    dumped: Mapping[str, Any]
    try:
        dumped = model.model_dump(mode="json")
    except Exception:  # noqa: BLE001 because a field without a JSON form, an array say, may have one here
        dumped = model.model_dump()
    return dumped


def _from_collection(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:  # not all of one kind
            return list(value)
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):  # as in dict(value)
        return {key: value[key] for key in value.keys()}  # noqa: SIM118 because only keys() is sure
    if isinstance(value, Collection):
        return list(value)
    if isinstance(value, Iterator):
        raise Unsupported("can be read only once: make a list of it")
    if callable(getattr(kind, "collect", None)):
        raise Unsupported("is not computed yet: collect() it")
    raise Unsupported("has no JSON form: convert it, or send a part of it")
