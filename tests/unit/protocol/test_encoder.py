"""Encoding: what `json` takes arrives as it would from `json`; what a reader cannot take is refused."""

from __future__ import annotations

import collections
import enum
import json
import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagsterpipes._protocol.argument import Argument
from dagsterpipes._protocol.encoder import MAX_NESTING, encode_message, is_plain, to_json
from dagsterpipes.exceptions import InvalidReportError
from support.doubles import (
    EndlessMapping,
    LyingClass,
    PrintedFloat,
    PrintedInt,
    PrintedText,
    Raising,
    RaisingMapping,
    TwinText,
    cycle,
    nested,
)

if TYPE_CHECKING:
    from types import FrameType

ARGUMENT = Argument("report_custom_message", "payload")


class Level(enum.IntEnum):
    LOW = 10


class Flags(enum.IntFlag):
    ONE = 1
    TWO = 2


class Point(NamedTuple):
    x: int
    y: Any


def sent(value: object) -> Any:
    """The value as a reader has it."""
    line = encode_message("report_custom_message", {"payload": to_json(value, ARGUMENT)})
    assert line.isascii()
    assert line.count(b"\n") == 1
    message = json.loads(line)
    assert message.keys() == {"__dagster_pipes_version", "method", "params"}
    return message["params"]["payload"]


def refusal(value: object) -> str:
    """The text of the error that a value gives."""
    with pytest.raises(InvalidReportError) as caught:
        to_json(value, ARGUMENT)
    return str(caught.value)


def same(one: object, other: object) -> bool:
    """Equal in types, in order of keys and in NaN too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return one == other


texts = st.one_of(
    st.text(max_size=6),
    st.text(st.characters(categories=["Cs", "Lu", "Cc"]), max_size=4),
    st.sampled_from(["\0", "\u2028", "\ud800", "\ud83d\ude00", '"\\', "é", "🙂"]),
    st.text(max_size=3).map(PrintedText),
    st.text(max_size=3).map(np.str_),
)
integers = st.one_of(
    st.integers(),
    st.sampled_from([2**63, -(2**64), 10**400, 10**4300 - 1, 1 - 10**4300]),
    st.integers(-9, 9).map(PrintedInt),
    st.sampled_from([Level.LOW, Flags.ONE | Flags.TWO]),
)
floats = st.one_of(st.floats(), st.floats().map(PrintedFloat), st.floats().map(np.float64))
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(children, max_size=3)
    dicts = st.dictionaries(scalars, children, max_size=3)
    return st.one_of(
        lists,
        lists.map(tuple),
        st.dictionaries(st.text(max_size=3), children, max_size=3),
        dicts,
        dicts.map(collections.OrderedDict),
        dicts.map(lambda pairs: collections.defaultdict(list, pairs)),
        st.builds(Point, st.integers(), children),
    )


# In layers, which hypothesis makes faster than st.recursive().
flat = containers(scalars)
json_values = st.one_of(scalars, flat, containers(st.one_of(scalars, flat)))


@pytest.mark.timeout(600)
def test_like_json_dumps_as_json_loads_sees_it() -> None:
    """Over 20,000 random values a reader gets what it would get from json.dumps, or a refusal where keys would collide."""
    compared = 0

    @settings(
        max_examples=1_050, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(json_values, min_size=20, max_size=20))
    def compare(values: list[Any]) -> None:
        nonlocal compared
        for value in values:
            compared += 1
            from_json = json.dumps(value)
            try:
                ours = sent(value)
            except InvalidReportError as error:
                assert "second key" in error.problem
                assert has_repeated_keys(from_json)
            else:
                assert not has_repeated_keys(from_json)
                assert same(json.loads(from_json), ours), value

    compare()
    assert compared >= 20_000


def has_repeated_keys(text: str) -> bool:
    repeated = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        repeated = repeated or len(pairs) != len({key for key, _ in pairs})

    json.loads(text, object_pairs_hook=look)
    return repeated


def test_a_line_is_the_message_of_the_reference() -> None:
    """The bytes of a line are those that dagster_pipes would write."""
    line = encode_message("log", {"message": "é", "level": "INFO"})
    expected = (
        b'{"__dagster_pipes_version": "0.1", "method": "log",'
        b' "params": {"message": "\\u00e9", "level": "INFO"}}\n'
    )
    assert expected == line


def test_a_plain_value_is_not_copied() -> None:
    """What json takes as it is costs no copy."""
    value = {"a": [1, 2.5, None, True, {"b": ("x",)}]}
    assert is_plain(value)
    assert to_json(value, ARGUMENT) is value


@pytest.mark.parametrize(
    "value",
    [
        PrintedText("a"),
        [PrintedInt(1)],
        {"a": PrintedFloat(1.0)},
        {1: 1},
        {PrintedText("k"): 1},
        10**4300,
        [10**4300],
        {"a": -(10**4300)},
        [object()],
        [[{"a": {1, 2}}]],
    ],
)
def test_what_is_not_plain(value: object) -> None:
    """Subclasses, other keys, huge integers and anything else take the careful way."""
    assert not is_plain(value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (Level.LOW, "10"),
        (1.5, "1.5"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (PrintedFloat(2.0), "2.0"),
        (np.int64(3), "3"),
        (np.bool_(1), "true"),
    ],
)
def test_keys(key: object, text: str) -> None:
    """Keys read as json writes them; numpy's as Python's."""
    assert {text: 1} == sent({key: 1})


@pytest.mark.parametrize("key", [(1, 2), frozenset({1}), b"k", object(), Point(1, 2), range(2)])
def test_keys_without_a_form(key: object) -> None:
    """A key that has no JSON form is refused, with its place."""
    problem = refusal({"rows": [{key: 1}]})
    assert problem.startswith("report_custom_message(): payload['rows'][0][")
    assert (
        "is a key that has no form in JSON" in problem
        or "is bytes" in problem
        or "no JSON form" in problem
    )


@pytest.mark.parametrize(
    "value",
    [
        {1: "a", "1": "b"},
        {"1": "a", 1: "b"},
        {None: 1, "null": 2},
        {1.0: 1, "1.0": 2},
        {True: 1, "true": 2},
        {"twin": 1, TwinText("twin"): 2},
    ],
)
def test_two_keys_that_read_the_same(value: object) -> None:
    """A reader would silently keep one of them."""
    assert "is the second key that reads" in refusal([value])


def test_the_error_names_everything() -> None:
    """Method, parameter, path, what is wrong and what was got."""
    expected = (
        "report_custom_message(): payload['rows'][3] has no JSON form: convert it, or send a part"
        " of it; got <class 'int'> of type type"
    )
    assert expected == refusal({"rows": [1, 2, 3, int]})


def test_the_path_starts_where_the_place_is() -> None:
    """A value inside a parameter has a path already."""
    with pytest.raises(InvalidReportError) as caught:
        to_json([int], ARGUMENT.at("k"))
    assert caught.value.path == "['k'][0]"


def test_long_paths_are_cut_in_the_middle() -> None:
    """A path of twenty keys still fits a line."""
    value: Any = int
    for _ in range(20):
        value = [value]
    assert "payload[0][0][0][0][0][0][0][0][…][0][0] has no JSON form" in refusal(value)


@pytest.mark.parametrize(
    "deepest", [nested(MAX_NESTING), [np.int64(1), nested(MAX_NESTING - 1)]], ids=["plain", "numpy"]
)
def test_nesting_at_the_limit(deepest: list[Any]) -> None:
    """The deepest value that is taken arrives whole, and one more level is refused."""
    assert deepest == sent(deepest)
    assert "is nested more than 200 deep" in refusal([deepest])


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 1_000, 100_000])
def test_nesting_beyond_the_limit(depth: int) -> None:
    """However deep a value is, the error is ours and says so."""
    assert "is nested more than 200 deep, too deep for Dagster" in refusal(nested(depth))


def test_cycles() -> None:
    """A value that contains itself is refused, with the place of it."""
    loop: dict[str, Any] = {}
    loop["inner"] = [loop]
    problem = refusal({"top": [loop]})
    assert "payload['top'][0] contains itself" in problem
    assert "contains itself" in refusal(cycle())


def test_the_stack_may_be_deep_already() -> None:
    """Where even a flat value does not fit the stack any more, the error is ours."""

    def call(depth: int) -> Any:
        return (
            to_json([[[[[[[[[[[[np.int64(1)]]]]]]]]]]]], ARGUMENT) if not depth else call(depth - 1)
        )

    room = sys.getrecursionlimit()
    outcomes: set[str] = set()
    frame: FrameType | None = sys._getframe()
    used = 0
    while frame is not None:
        frame, used = frame.f_back, used + 1
    for depth in range(room - used - 30, room - used - 3):
        try:
            call(depth)
        except InvalidReportError:  # noqa: PERF203 because each depth has its own outcome
            outcomes.add("refused")
        except RecursionError as error:
            # Not even our function could be entered, or our error be made.
            assert "recursion" in str(error)
        else:
            outcomes.add("taken")
    assert outcomes == {"refused", "taken"}


@pytest.mark.parametrize(
    "value",
    [10**4300, -(10**4300), 10**5000, PrintedInt(10**4300)],
    ids=["first", "negative", "longer", "subclass"],
)
def test_integers_that_a_reader_cannot_take(value: int) -> None:
    """Python refuses to read more than 4,300 digits, so Dagster's reader would stop."""
    problem = refusal({"n": value})
    assert "payload['n'] has too many digits (4,300 can be read at most); send a str" in problem
    assert "has too many digits" in refusal({value: 1})


@pytest.mark.parametrize("limit", [0, 100_000])
def test_integers_where_this_process_allows_more(limit: int) -> None:
    """What counts is the limit of the reader."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        assert "has too many digits" in refusal([10**4300])
        assert sent([10**4300 - 1]) == [10**4300 - 1]
    finally:
        sys.set_int_max_str_digits(before)


def test_integers_where_this_process_allows_less() -> None:
    """What this process cannot write is refused as well, in any way of writing it."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert "has too many digits" in refusal([np.int64(1), 10**700])
        with pytest.raises(InvalidReportError, match=r"payload\[0\] has too many digits"):
            sent([10**700])
    finally:
        sys.set_int_max_str_digits(before)


def test_scalars_inside_values_that_are_not_plain() -> None:
    """What is plain stays as it is beside what is not."""
    value = [np.int64(1), 1.5, None, True, "a", 2, PrintedFloat(0.5), {"b": False}]
    assert same([1, 1.5, None, True, "a", 2, 0.5, {"b": False}], sent(value))


def test_values_changed_after_the_check() -> None:
    """Params that are not plain any more when they are written are checked again."""
    line = encode_message("report_custom_message", {"payload": np.int64(3)})
    assert json.loads(line)["params"] == {"payload": 3}
    with pytest.raises(InvalidReportError, match=r"m\(\): p\['a'\] has no JSON form"):
        encode_message("m", {"p": {"a": object()}})


@pytest.mark.parametrize("hostile", [Raising, LyingClass, RaisingMapping, EndlessMapping])
@pytest.mark.parametrize(
    "wrap",
    [lambda value: value, lambda value: [value], lambda value: {"a": (value,)}],
    ids=["alone", "in a list", "in a mapping"],
)
def test_values_that_raise_or_never_end(hostile: Any, wrap: Any) -> None:
    """Whatever a value does when it is read, the error is ours."""
    problem = refusal(wrap(hostile()))
    assert problem.startswith("report_custom_message(): payload")
    assert "raised" in problem or "JSON" in problem or "nested" in problem


def test_a_key_that_raises() -> None:
    """Keys are values, too."""
    assert "raised ZeroDivisionError" in refusal({Raising(): 1})


def test_the_cause_of_a_failure_is_kept() -> None:
    """What the value raised is there for whoever debugs it."""
    with pytest.raises(InvalidReportError) as caught:
        to_json({"a": [RaisingMapping(b=1)]}, ARGUMENT)
    assert caught.value.path == "['a'][0]"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "raised ZeroDivisionError (ZeroDivisionError('asked for'))" in str(caught.value)


def test_interrupts_are_not_swallowed() -> None:
    """KeyboardInterrupt is not the value's fault."""

    class Interrupting(dict[str, Any]):
        def items(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_json(Interrupting(a=1), ARGUMENT)
