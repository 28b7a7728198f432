"""Moments of every kind as seconds since the epoch."""

from __future__ import annotations

import datetime as dt
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from dagsterpipes._protocol.argument import Place
from dagsterpipes._protocol.timestamps import is_moment, to_timestamp
from dagsterpipes.exceptions import InvalidReportError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Place("m", "p")
UTC = dt.timezone.utc
NEW_YEAR = 1704067200.0  # 2024-01-01T00:00:00Z


@pytest.fixture
def five_hours_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that lives five hours behind UTC."""
    monkeypatch.setenv("TZ", "XXX5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("five_hours_behind")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (dt.datetime(2024, 1, 1, tzinfo=UTC), NEW_YEAR),
        (dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), NEW_YEAR),
        (dt.datetime(2024, 1, 1), NEW_YEAR + 5 * 3600),
        (dt.date(2024, 1, 1), NEW_YEAR + 5 * 3600),
        (pd.Timestamp("2024-01-01", tz="Europe/Berlin"), NEW_YEAR - 3600),
        (pd.Timestamp("2024-01-01"), NEW_YEAR),
        (np.datetime64("2024-01-01"), NEW_YEAR),
        (np.datetime64("2024-01-01T00:00:00.5", "ns"), NEW_YEAR + 0.5),
        (np.datetime64("2024"), NEW_YEAR),
        ("2024-01-01T00:00:00Z", NEW_YEAR),
        ("2024-01-01T00:00:00.500z", NEW_YEAR + 0.5),
        ("2024-01-01T02:00:00+02:00", NEW_YEAR),
        ("2024-01-01T00:00:00", NEW_YEAR + 5 * 3600),
        ("2024-01-01", NEW_YEAR + 5 * 3600),
        (np.str_("2024-01-01T00:00:00Z"), NEW_YEAR),
        (1, 1.0),
        (-1.5, -1.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
    ],
)
def test_moments(value: Any, seconds: float) -> None:
    """Naive moments of Python are local time; naive ones of pandas and numpy are UTC."""
    actual = to_timestamp(value, PLACE)
    assert seconds == actual
    assert type(actual) is float


NO_MOMENT = " has to be a datetime, an ISO 8601 text or a finite number of seconds; got "


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, NO_MOMENT + "None of type NoneType"),
        (True, NO_MOMENT + "True of type bool"),
        (pd.NaT, NO_MOMENT + "NaT of type NaTType"),
        (
            np.datetime64("NaT", "ns"),
            NO_MOMENT + f"{np.datetime64('NaT', 'ns')!r} of type datetime64",
        ),
        (math.nan, NO_MOMENT + "nan of type float"),
        (math.inf, NO_MOMENT + "inf of type float"),
        ([1], NO_MOMENT + "[1] of type list"),
        (dt.time(1), NO_MOMENT + "datetime.time(1, 0) of type time"),
        ("yesterday", " is not an ISO 8601 date and time; got 'yesterday' of type str"),
        ("", " is not an ISO 8601 date and time; got '' of type str"),
        (
            np.datetime64("30000-01-01"),
            f" is too far away for a timestamp; got {np.datetime64('30000-01-01')!r} of type datetime64",
        ),
    ],
)
def test_what_is_no_moment(value: Any, error: str) -> None:
    """Anything else is refused, nothing is guessed."""
    with pytest.raises(InvalidReportError) as caught:
        to_timestamp(value, PLACE)
    assert f"m(): p{error}" == str(caught.value)


@pytest.mark.usefixtures("five_hours_behind")
@pytest.mark.parametrize("value", [10**400, dt.datetime.max, dt.datetime.min])
def test_far_away(value: Any) -> None:
    """A moment that no float or no calendar holds is an error of ours, or a number."""
    try:
        assert math.isfinite(to_timestamp(value, PLACE))
    except InvalidReportError as error:
        assert "is too far away" in str(error) or "a finite number" in str(error)


@pytest.mark.parametrize("value", [dt.datetime(2024, 1, 1), pd.Timestamp(0), np.datetime64(1, "s")])
def test_is_a_moment(value: Any) -> None:
    """Dates with a time are moments."""
    assert is_moment(value)


@pytest.mark.parametrize(
    "value", [dt.date(2024, 1, 1), pd.NaT, np.datetime64("NaT", "ns"), "2024", 1]
)
def test_is_no_moment(value: Any) -> None:
    """Dates, texts and numbers are not, nor is what is missing."""
    assert not is_moment(value)
