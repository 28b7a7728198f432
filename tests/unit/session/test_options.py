"""Options: arguments win over the environment, and what cannot be used is named."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import DagsterPipesError, LaunchParamsError, NullPipesContext, open_dagster_pipes
from dagsterpipes._session.options import (
    COALESCE_LOGS_ENV_VAR,
    LOG_LEVEL_ENV_VAR,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("argument", "variable", "wanted"),
    [
        (None, None, None),
        (None, "", None),
        (None, " 0.25 ", 0.25),
        (None, "0", 0.0),
        (None, "2", 2.0),
        (0.5, "2", 0.5),
        (0, "2", 0.0),
        (0.5, "nonsense", 0.5),
    ],
)
def test_coalescing_window(
    argument: float | None, variable: str | None, wanted: float | None
) -> None:
    """The argument, 0 included, else the variable, else none."""
    environment = {} if variable is None else {COALESCE_LOGS_ENV_VAR: variable}
    assert Settings.from_options(environment, coalesce_logs=argument).coalesce_logs == wanted


@pytest.mark.parametrize(
    ("argument", "variable", "wanted"),
    [
        (None, None, None),
        (None, "", None),
        (None, "info", 20),
        (None, " WARN ", 30),
        (None, "15", 15),
        ("error", "info", 40),
        (0, "info", 0),
        (5, "nonsense", 5),
    ],
)
def test_level_threshold(
    argument: int | str | None, variable: str | None, wanted: int | None
) -> None:
    """The argument, else the variable, as a number; names in any case."""
    environment = {} if variable is None else {LOG_LEVEL_ENV_VAR: variable}
    assert Settings.from_options(environment, log_level=argument).log_level == wanted


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1e300", "0,5"])
def test_a_bad_window_in_the_environment_is_named(text: str) -> None:
    """The variable, what it must be, what it is, what to do."""
    with pytest.raises(LaunchParamsError) as raised:
        Settings.from_options({COALESCE_LOGS_ENV_VAR: text})
    assert str(raised.value) == (
        "Environment variable DAGSTERPIPES_COALESCE_LOGS must be seconds, a finite number of at"
        f" least 0; got {text!r}. Correct it or leave it out."
    )


@pytest.mark.parametrize("text", ["LOUD", "-5", "1.5", "Level 7"])
def test_a_bad_level_in_the_environment_is_named(text: str) -> None:
    """The variable, what it must be, what it is, what to do."""
    with pytest.raises(LaunchParamsError) as raised:
        Settings.from_options({LOG_LEVEL_ENV_VAR: text})
    assert str(raised.value) == (
        "Environment variable DAGSTERPIPES_LOG_LEVEL must be a number or one of DEBUG, INFO,"
        f" WARNING, ERROR, CRITICAL; got {text!r}. Correct it or leave it out."
    )


@pytest.mark.parametrize(
    "options",
    [
        {"coalesce_logs": -1},
        {"coalesce_logs": math.inf},
        {"coalesce_logs": True},
        {"flush_interval": math.nan},
        {"flush_interval": "1"},
        {"buffer_size": 1000},
        {"close_timeout": math.inf},
        {"on_full": "explode"},
        {"log_level": "LOUD"},
        {"log_level": 1.5},
        {"log_level": True},
    ],
    ids=str,
)
def test_arguments_out_of_bounds_are_named(options: dict[str, Any]) -> None:
    """Each bad argument is a ValueError that names it, and no session is opened."""
    [name] = options
    with pytest.raises(ValueError, match=name):
        open_dagster_pipes(**options)


@pytest.fixture
def null_session(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NullPipesContext]:
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)

    def opened(**options: Any) -> NullPipesContext:
        session = open_dagster_pipes(**options)
        assert isinstance(session, NullPipesContext)
        return session

    return opened


def test_the_environment_sets_the_level_outside_dagster_too(
    null_session: Callable[..., NullPipesContext],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line below the level is not shown, one at it is."""
    monkeypatch.setenv(LOG_LEVEL_ENV_VAR, "warning")
    with null_session() as pipes:
        pipes.log.info("quiet")
        pipes.log.warning("loud")
    err = capsys.readouterr().err
    assert "loud" in err
    assert "quiet" not in err


@pytest.mark.parametrize("variable", [COALESCE_LOGS_ENV_VAR, LOG_LEVEL_ENV_VAR])
def test_a_bad_variable_stops_the_opening(
    variable: str, null_session: Callable[..., NullPipesContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error of the library, raised where the session is opened."""
    monkeypatch.setenv(variable, "nonsense")
    with pytest.raises(DagsterPipesError, match=variable):
        null_session()
