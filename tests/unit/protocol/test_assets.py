"""Asset keys as texts, and the scope of a step."""

from __future__ import annotations

import threading
from typing import Any, cast

import dagster_pipes
import pytest
from dagster import AssetKey
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes._protocol.argument import Argument
from dagsterpipes._protocol.assets import (
    ReportScope,
    asset_key_parts,
    asset_reference,
    from_asset_key_path,
    to_asset_key_path,
)
from dagsterpipes.exceptions import DagsterPipesError, InvalidReportError

ARGUMENT = Argument("m", "p")
key_texts = st.text(st.one_of(st.sampled_from("ab/\\"), st.characters()), max_size=12)


@given(key_texts)
def test_parts_as_in_the_reference(text: str) -> None:
    """Every text has the parts that dagster_pipes, and so Dagster, finds in it."""
    assert dagster_pipes.to_asset_key_path(text) == to_asset_key_path(text)


@given(st.lists(key_texts, min_size=1, max_size=4).filter(lambda parts: parts[-1] != ""))
def test_there_and_back(parts: list[str]) -> None:
    """The text of any parts is the one that Dagster makes, and leads back to them."""
    text = from_asset_key_path(parts)
    assert AssetKey(parts).to_escaped_user_string() == text
    assert parts == to_asset_key_path(text)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("a", ["a"]),
        ("up/stream", ["up", "stream"]),
        (r"up\/stream", ["up/stream"]),
        (["up", "st/ream"], ["up", "st/ream"]),
        (("a", "b"), ["a", "b"]),
        (AssetKey(["a", "b/c"]), ["a", "b/c"]),
    ],
)
def test_parts_of_keys(key: Any, parts: list[str]) -> None:
    """A key may be a text, its parts, or Dagster's own object."""
    assert parts == asset_key_parts(key, ARGUMENT)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (5, "m(): p must be an asset key: a str, or a list of its parts; got 5 of type int"),
        (
            None,
            "m(): p must be an asset key: a str, or a list of its parts; got None of type NoneType",
        ),
        (["a", 1], "m(): p[1] must be a str; got 1 of type int"),
        ("", "m(): p has no parts; got '' of type str"),
        ([], "m(): p has no parts; got [] of type list"),
    ],
)
def test_what_is_no_key(key: Any, error: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidReportError) as caught:
        asset_key_parts(key, ARGUMENT)
    assert error == str(caught.value)


@pytest.mark.parametrize("key", ["up/stream", ["up", "stream"], AssetKey(["up", "stream"])])
def test_references(key: Any) -> None:
    """Dagster finds the same key in the reference, splitting it at every slash."""
    assert AssetKey(["up", "stream"]) == AssetKey.from_user_string(asset_reference(key, ARGUMENT))


def test_references_that_dagster_would_split() -> None:
    """A part with a slash cannot be referred to, so it is not turned into another key."""
    with pytest.raises(InvalidReportError, match="has a part with a '/', which Dagster cannot"):
        asset_reference(r"up\/stream", ARGUMENT)


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


def test_a_wrong_key_of_a_large_step() -> None:
    """The error shows the nearest few keys and a count, however many keys there are."""
    scope = ReportScope([f"warehouse/orders_{number}" for number in range(20_000)])
    with pytest.raises(DagsterPipesError) as caught:
        scope.resolve("warehouse/ordres_1057", "report_asset_check")
    text = str(caught.value)
    assert text.startswith(
        "Invalid asset key. Expected one of 20,000 keys, the nearest of which are"
    )
    assert "'warehouse/orders_1057'" in text
    assert text.endswith("got `warehouse/ordres_1057`.")
    assert len(text) < 300
    with pytest.raises(DagsterPipesError) as caught:
        scope.resolve("x" * 100_000, "report_asset_check")
    assert len(str(caught.value)) < 500


def test_a_report_costs_the_same_in_a_large_step() -> None:
    """A key is looked up, not searched for: no other key is compared with it."""
    compared = 0

    class Counting(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    keys = [Counting(number) for number in range(1_000)]
    scope = ReportScope(keys)
    compared = 0
    assert scope.resolve("999", "report_asset_check") == "999"
    assert compared < 10


def test_keys_that_are_no_text() -> None:
    """A key must be a str."""
    with pytest.raises(InvalidReportError) as caught:
        ReportScope(["a"]).resolve(cast("Any", 5), "report_asset_check")
    expected = "report_asset_check(): asset_key must be a str or None; got 5 of type int"
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
