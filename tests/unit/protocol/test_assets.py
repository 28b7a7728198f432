"""Asset keys as texts and as parts."""

from __future__ import annotations

from typing import Any

import dagster_pipes
import pytest
from dagster import AssetKey
from hypothesis import given
from hypothesis import strategies as st

from dagsterpipes._protocol.argument import Place
from dagsterpipes._protocol.assets import (
    asset_key_parts,
    asset_reference,
    from_asset_key_path,
    to_asset_key_path,
)
from dagsterpipes.exceptions import InvalidReportError

PLACE = Place("m", "p")
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
    assert parts == asset_key_parts(key, PLACE)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (5, "m(): p has to be an asset key: a str, or a list of its parts; got 5 of type int"),
        (
            None,
            "m(): p has to be an asset key: a str, or a list of its parts; got None of type NoneType",
        ),
        (["a", 1], "m(): p[1] has to be a str; got 1 of type int"),
        ("", "m(): p has no parts; got '' of type str"),
        ([], "m(): p has no parts; got [] of type list"),
    ],
)
def test_what_is_no_key(key: Any, error: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidReportError) as caught:
        asset_key_parts(key, PLACE)
    assert error == str(caught.value)


@pytest.mark.parametrize("key", ["up/stream", ["up", "stream"], AssetKey(["up", "stream"])])
def test_references(key: Any) -> None:
    """Dagster finds the same key in the reference, splitting it at every slash."""
    assert AssetKey(["up", "stream"]) == AssetKey.from_user_string(asset_reference(key, PLACE))


def test_references_that_dagster_would_split() -> None:
    """A part with a slash cannot be referred to, so it is not turned into another key."""
    with pytest.raises(InvalidReportError, match="has a part with a '/', which Dagster cannot"):
        asset_reference(r"up\/stream", PLACE)
