"""Bad calls fail in the context outside Dagster as they do under it: the same errors, word for word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import DagsterPipesError, NullPipesContext, PipesContext, open_dagster_pipes
from support.launching import Launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _twice(call: Callable[[], object]) -> None:
    call()
    call()


def _after_close(call: Callable[[PipesContext], object]) -> Callable[[PipesContext], object]:
    def close_and_call(pipes: PipesContext) -> None:
        pipes.close()
        call(pipes)

    return close_and_call


BAD: dict[str, Callable[[PipesContext], object]] = {
    "metadata of a list": lambda p: p.report_asset_materialization(metadata=[1]),  # type: ignore[arg-type]
    "a metadata key of bytes": lambda p: p.report_asset_materialization(metadata={b"k": 1}),  # type: ignore[dict-item]
    "a metadata value of an object": lambda p: p.report_asset_materialization(
        metadata={"k": object()}  # type: ignore[dict-item]
    ),
    "a typed value of the wrong type": lambda p: p.report_asset_materialization(
        metadata={"k": {"raw_value": "x", "type": "int"}}
    ),
    "an unknown metadata type": lambda p: p.report_asset_materialization(
        metadata={"k": {"raw_value": "x", "type": "nonsense"}}
    ),
    "a misspelled typed value": lambda p: p.report_asset_materialization(
        metadata={"k": {"raw_value": 5, "typ": "int"}}
    ),
    "a data version of a number": lambda p: p.report_asset_materialization(data_version=1),  # type: ignore[arg-type]
    "an asset key of a number": lambda p: p.report_asset_materialization(asset_key=1),  # type: ignore[arg-type]
    "an asset twice": lambda p: _twice(p.report_asset_materialization),
    "a named asset twice": lambda p: _twice(lambda: p.report_asset_materialization(asset_key="a")),
    "a check name of a number": lambda p: p.report_asset_check(1, passed=True),  # type: ignore[arg-type]
    "a check that passed 'yes'": lambda p: p.report_asset_check("c", passed="yes"),  # type: ignore[arg-type]
    "an unknown severity": lambda p: p.report_asset_check("c", passed=True, severity="BAD"),  # type: ignore[arg-type]
    "a check twice": lambda p: _twice(lambda: p.report_asset_check("c", passed=True)),
    "check metadata of a set": lambda p: p.report_asset_check(
        "c",
        passed=True,
        metadata={"k": {1, object()}},
    ),
    "a custom message of an object": lambda p: p.report_custom_message(object()),
    "a custom message of a cycle": lambda p: p.report_custom_message(_cycle()),
    "an unknown stream": lambda p: p.log_external_stream("stdin", "x"),
    "a stream of a number": lambda p: p.log_external_stream("stdout", 1),  # type: ignore[arg-type]
    "stream extras of an object": lambda p: p.log_external_stream("stdout", "x", {"k": object()}),
    "an unknown log level": lambda p: p.log("x", level="LOUD"),
    "a log text of a number": lambda p: p.log(1),  # type: ignore[arg-type]
    "a log level of text": lambda p: p.log.log("INFO", "x"),  # type: ignore[arg-type]
    "a misspelled method": lambda p: p.report_asset_materialisation(),  # type: ignore[attr-defined]
    "an unknown argument": lambda p: p.report_asset_materialization(rows=1),  # type: ignore[call-arg]
    "a log after the close": _after_close(lambda p: p.log.info("x")),
    "a log of a child after the close": _after_close(lambda p: p.log.getChild("c").error("x")),
    "a report after the close": _after_close(lambda p: p.report_custom_message(1)),
    "a flush after the close": _after_close(lambda p: p.flush()),
    "a close with text": lambda p: p.close("failed"),  # type: ignore[arg-type]
    "a close with a number": lambda p: p.close(1),  # type: ignore[arg-type]
}
AFTER: dict[str, Callable[[PipesContext], object]] = {
    "materialization": lambda p: p.report_asset_materialization(),
    "check": lambda p: p.report_asset_check("c", passed=True),
    "custom message": lambda p: p.report_custom_message(1),
    "external stream": lambda p: p.log_external_stream("stdout", "x"),
}


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _error(call: Callable[[PipesContext], object], pipes: PipesContext) -> tuple[str, str]:
    try:
        call(pipes)
    except Exception as error:
        return type(error).__name__, str(error)
    finally:
        pipes.close()
    return "", ""


def _real_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipesContext:
    for name, value in Launch(tmp_path).env.items():
        monkeypatch.setenv(name, value)
    return open_dagster_pipes()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_gives_the_same_error_in_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    under = _error(BAD[name], _real_context(tmp_path, monkeypatch))
    outside = _error(BAD[name], NullPipesContext())
    assert under[0]
    # Outside Dagster the asset has no name, and the class is another one.
    assert _same(outside[1]) == _same(under[1])
    assert outside[0] == under[0]


def _same(text: str) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text.replace("__the_asset__", "a").replace("NullPipesContext", "PipesContext")


@pytest.mark.parametrize("name", AFTER)
def test_a_report_after_the_close_is_an_error_in_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for pipes in (_real_context(tmp_path, monkeypatch), NullPipesContext()):
        pipes.close()
        with pytest.raises(DagsterPipesError, match="session is closed"):
            AFTER[name](pipes)
