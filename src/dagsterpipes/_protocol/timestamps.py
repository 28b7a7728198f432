"""Moments as seconds since the epoch."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.encoder import to_json
from dagsterpipes._protocol.jsonable import is_a, is_missing

if TYPE_CHECKING:
    from dagsterpipes._protocol.argument import Place


def is_moment(value: object) -> bool:
    """Whether the value is a date with a time, of the standard library, pandas or numpy."""
    return not is_missing(value) and (
        is_a(value, "datetime", "datetime") or is_a(value, "numpy", "datetime64")
    )


def to_timestamp(value: Any, place: Place) -> float:
    """Seconds since the epoch.

    A naive `datetime.datetime` is local time, as its own ``timestamp()`` takes it and as
    ``datetime.now()`` makes it; so is the midnight that a `datetime.date` stands for. A naive value
    of pandas or numpy is UTC, as those libraries take it.

    Args:
        value: A datetime of any kind, a date, an ISO 8601 text, or a finite number of seconds.
        place: Where the value stands, for the error.

    Raises:
        InvalidReportError: It is none of these, or too far away for a timestamp.
    """
    moment = value
    if is_a(value, "numpy", "datetime64"):
        # Microseconds, since item() gives a datetime for them; pandas takes a naive value as UTC.
        moment = value.astype("datetime64[us]").item()
        if isinstance(moment, int):
            raise place.error("is too far away for a timestamp", value)
        if moment is not None:
            moment = moment.replace(tzinfo=sys.modules["datetime"].timezone.utc)
    elif isinstance(value, str):
        moment = _parse(value, place)
    elif is_a(value, "datetime", "date") and not is_a(value, "datetime", "datetime"):
        moment = sys.modules["datetime"].datetime(value.year, value.month, value.day)
    if is_moment(moment):
        try:
            return float(moment.timestamp())
        except (OverflowError, ValueError, OSError):
            raise place.error("is too far away for a timestamp", value) from None
    seconds = to_json(moment, place)
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
        try:
            seconds = float(seconds)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    raise place.error("has to be a datetime, an ISO 8601 text or a finite number of seconds", value)


def _parse(text: str, place: Place) -> Any:
    from datetime import datetime  # noqa: PLC0415 because few processes need it

    # Python before 3.11 does not know the letter.
    iso = text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text
    try:
        return datetime.fromisoformat(iso)
    except ValueError:
        raise place.error("is not an ISO 8601 date and time", text) from None
