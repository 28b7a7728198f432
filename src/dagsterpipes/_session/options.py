"""The options of a session: checked, and some of them also set by an operator in the environment."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dagsterpipes._protocol.envelope import LEVELS
from dagsterpipes.exceptions import LaunchParamsError, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

COALESCE_LOGS_ENV_VAR = "DAGSTERPIPES_COALESCE_LOGS"
"""Seconds; as ``coalesce_logs``, for scripts that do not give it."""

LOG_LEVEL_ENV_VAR = "DAGSTERPIPES_LOG_LEVEL"
"""A name or a number; as ``log_level``, for scripts that do not give it."""

TRACE_IDS_ENV_VAR = "DAGSTERPIPES_TRACE_IDS"
"""1 or 0; as ``trace_ids``, for scripts that do not give it."""

# More seconds than this cannot be waited for: 292 years on the usual platforms.
_LONGEST = threading.TIMEOUT_MAX


class Settings(NamedTuple):
    """What `open_dagster_pipes` was told, checked; units, bounds and meanings are documented there."""

    flush_interval: float = 0.02
    buffer_size: int = 8 << 20
    on_full: Literal["wait", "drop_logs"] = "wait"
    coalesce_logs: float | None = None
    close_timeout: float = 30.0
    log_level: int | None = None
    handle_sigterm: bool = True
    capture_stdio: bool | None = None
    capture_logging: int | str | None = None
    trace_ids: bool = False

    @classmethod
    def from_options(
        cls,
        environment: Mapping[str, str],
        *,
        coalesce_logs: float | None = None,
        log_level: int | str | None = None,
        capture_logging: bool | int | str = False,
        trace_ids: bool | None = None,
        **others: Any,
    ) -> Settings:
        """Check the options, and look into the environment for those that an operator may set.

        Raises:
            ValueError: An option is out of its bounds.
            LaunchParamsError: A variable of the environment is.
        """
        settings = cls(
            coalesce_logs=_coalescing_window(coalesce_logs, environment),
            log_level=_level_threshold(log_level, environment),
            trace_ids=_is_on(environment, TRACE_IDS_ENV_VAR)
            if trace_ids is None
            else bool(trace_ids),
            capture_logging="INFO" if capture_logging is True else capture_logging or None,
            **others,
        )
        return settings._replace(
            flush_interval=_at_least(0, settings.flush_interval, "flush_interval"),
            buffer_size=int(_at_least(64 << 10, settings.buffer_size, "buffer_size")),
            on_full=_one_of(("wait", "drop_logs"), settings.on_full, "on_full"),
            close_timeout=_at_least(0, settings.close_timeout, "close_timeout"),
        )


def _at_least(bound: float, value: object, name: str) -> float:
    """The value of an option that is a number, finite and not below the bound."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not bound <= value <= _LONGEST
    ):
        raise ValueError(
            f"open_dagster_pipes(): {name} must be a finite number >= {bound}, got {value!r}"
        )
    return value


def _one_of(values: tuple[Any, ...], value: Any, name: str) -> Any:
    """The value of an option that is one of a few."""
    if value not in values:
        raise ValueError(f"open_dagster_pipes(): {name} must be one of {values}, got {value!r}")
    return value


def _coalescing_window(value: float | None, environment: Mapping[str, str]) -> float | None:
    """Seconds for which log lines are joined, 0 for not at all, None for as the reader needs it.

    The argument wins, if there is one.

    Raises:
        ValueError: The argument is no finite number of at least 0.
        LaunchParamsError: The variable is not one.
    """
    if value is not None:
        return _at_least(0, value, "coalesce_logs")
    text = environment.get(COALESCE_LOGS_ENV_VAR, "").strip()
    try:
        return _at_least(0, float(text), "coalesce_logs") if text else None
    except ValueError:
        raise _unusable(
            COALESCE_LOGS_ENV_VAR, "seconds, a finite number of at least 0", text
        ) from None


def _level_threshold(value: int | str | None, environment: Mapping[str, str]) -> int | None:
    """The level below which log lines are not sent; the argument wins, if there is one.

    Raises:
        ValueError: The argument is no level.
        LaunchParamsError: The variable is not one.
    """
    if value is not None:
        level = _level_number(value)
        if level is None:
            raise ValueError(
                "open_dagster_pipes(): log_level must be a number or the name of a level,"
                f" got {value!r}"
            )
        return level
    text = environment.get(LOG_LEVEL_ENV_VAR, "").strip()
    if not text:
        return None
    level = _level_number(int(text) if text.isdecimal() else text)
    if level is None:
        raise _unusable(LOG_LEVEL_ENV_VAR, f"a number or one of {', '.join(LEVELS)}", text)
    return level


def _is_on(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable, "").strip()
    if text not in {"", "0", "1"}:
        raise _unusable(variable, "1 or 0", text)
    return text == "1"


def _level_number(level: object) -> int | None:
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    # For a name that it does not know, logging gives back a text.
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else None
    return number if isinstance(number, int) else None


def _unusable(variable: str, wanted: str, text: str) -> LaunchParamsError:
    return LaunchParamsError(
        f"Environment variable {variable} must be {wanted}; got {shorten(text)}. "
        "Correct it or leave it out."
    )
