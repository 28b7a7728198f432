"""Which assets may be reported, and that nothing is reported twice."""

from __future__ import annotations

import threading
from typing import Any, cast

import dagster_pipes
import pytest

from dagsterpipes._protocol.report_scope import ReportScope
from dagsterpipes.exceptions import DagsterPipesError, InvalidReportError


def reference(asset_keys: Any, asset_key: Any) -> str:
    """What dagster_pipes makes of an asset key, or the text of its error."""
    try:
        key: str = dagster_pipes._resolve_optionally_passed_asset_key(
            {"asset_keys": asset_keys}, asset_key, "report_asset_check"
        )
        return key
    except dagster_pipes.DagsterPipesError as error:
        return str(error)


@pytest.mark.parametrize("asset_keys", [None, [], ["a"], ["a", r"b\/c"]])
@pytest.mark.parametrize("asset_key", [None, "", "a", r"b\/c", "b/c", "z"])
def test_keys_as_in_the_reference(asset_keys: Any, asset_key: Any) -> None:
    """Every key of every kind of step has the outcome of dagster_pipes, and its words."""
    try:
        actual = ReportScope(asset_keys).resolve(asset_key, "report_asset_check")
    except DagsterPipesError as error:
        actual = str(error)
    assert reference(asset_keys, asset_key) == actual


def test_keys_that_are_no_text() -> None:
    """A key has to be a str."""
    with pytest.raises(InvalidReportError) as caught:
        ReportScope(["a"]).resolve(cast("Any", 5), "report_asset_check")
    expected = "report_asset_check(): asset_key has to be a str or None; got 5 of type int"
    assert expected == str(caught.value)


def test_subclasses_of_str() -> None:
    """The characters count, whatever a subclass makes of itself."""

    class Odd(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    assert ReportScope(["a"]).resolve(Odd("a"), "report_asset_check") == "a"


def test_an_asset_is_materialized_once() -> None:
    """The second materialization of an asset is refused in the reference's words."""
    scope = ReportScope(None)
    scope.register_materialization("a")
    scope.register_materialization("b")
    with pytest.raises(DagsterPipesError) as caught:
        scope.register_materialization("a")
    expected = (
        "Calling `report_asset_materialization` with asset key `a` is undefined. Asset has already"
        " been materialized, so no additional data can be reported for it."
    )
    assert expected == str(caught.value)


def test_a_check_is_made_once() -> None:
    """The second result of a check is refused; the same name on another asset is another check."""
    scope = ReportScope(None)
    scope.register_check("a", "fresh")
    scope.register_check("a", "complete")
    scope.register_check("b", "fresh")
    with pytest.raises(DagsterPipesError) as caught:
        scope.register_check("a", "fresh")
    expected = (
        "Calling `report_asset_check` with asset key `a` and check name `fresh` is undefined. The"
        " check has already been reported, and Dagster takes one result for each."
    )
    assert expected == str(caught.value)


def test_reports_at_the_same_time() -> None:
    """Of eight threads that report the same hundred assets, each asset gets through once."""
    scope = ReportScope(None)
    through: list[str] = []
    start = threading.Barrier(8)

    def report() -> None:
        start.wait()
        for number in range(100):
            try:
                scope.register_materialization(str(number))
            except DagsterPipesError:
                continue
            through.append(str(number))

    threads = [threading.Thread(target=report) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, range(100))) == sorted(through)
