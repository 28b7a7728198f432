"""The context: what Dagster sends is taken, what it cannot have sent is explained."""

import json
import pydoc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import dagster_pipes
import pytest
from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetExecutionContext,
    DagsterInstance,
    GraphDefinition,
    OpExecutionContext,
    StaticPartitionsDefinition,
    asset,
    asset_check,
    materialize,
    op,
)
from dagster._core.pipes.context import build_external_execution_context_data

from dagsterpipes import PipesContext
from dagsterpipes._protocol.context_data import ContextFacts, check_context_data
from dagsterpipes.exceptions import ContextError, describe
from support.launching import CONTEXT

PROVENANCE = {"code_version": "c", "input_data_versions": {"up": "1"}, "is_user_provided": False}
SINGLE = CONTEXT | {
    "asset_keys": ["a/b"],
    "code_version_by_asset_key": {"a/b": "v1"},
    "provenance_by_asset_key": {"a/b": PROVENANCE},
    "partition_key": "2024-01-01",
    "partition_key_range": {"start": "2024-01-01", "end": "2024-01-01"},
    "partition_time_window": {
        "start": "2024-01-01T00:00:00+00:00",
        "end": "2024-01-02T00:00:00+00:00",
    },
    "job_name": "__ASSET_JOB",
    "retry_number": 2,
    "extras": {"threshold": 0.5, "nothing": None},
}
SEVERAL = SINGLE | {
    "asset_keys": ["a", "b"],
    "code_version_by_asset_key": {"b": None, "a": "v1"},
    "provenance_by_asset_key": {"b": PROVENANCE, "a": None},
}
OP = SINGLE | {
    "asset_keys": None,
    "code_version_by_asset_key": None,
    "provenance_by_asset_key": None,
    "partition_key": None,
    "partition_key_range": None,
    "partition_time_window": None,
    "job_name": None,
    "extras": {},
}
CHECKS_ONLY = OP | {
    "asset_keys": [],
    "code_version_by_asset_key": {},
    "provenance_by_asset_key": {},
}
RANGE = SINGLE | {
    "partition_key": None,
    "partition_key_range": {"start": "a", "end": "c"},
    "partition_time_window": None,
}
UNVERSIONED = SINGLE | {
    "code_version_by_asset_key": {"a/b": None},
    "provenance_by_asset_key": {"a/b": None},
}
CONTEXTS = {
    "single asset, partitioned": SINGLE,
    "several assets": SEVERAL,
    "op": OP,
    "asset checks only": CHECKS_ONLY,
    "range of static partitions": RANGE,
    "no versions yet": UNVERSIONED,
    "empty partition key": SINGLE | {"partition_key": ""},
}
PROPERTIES = [
    "asset_key",
    "asset_keys",
    "code_version",
    "code_version_by_asset_key",
    "extras",
    "is_asset_step",
    "is_partition_step",
    "job_name",
    "partition_key",
    "partition_key_range",
    "partition_time_window",
    "provenance",
    "provenance_by_asset_key",
    "retry_number",
    "run_id",
]
MISSING = "Missing required property: "
ADVICE = (
    " It comes from the context injector on the Dagster side: check that both sides agree on where"
    " the context is, and that nothing changes it on the way."
)


def reference(data: Mapping[str, Any]) -> dagster_pipes.PipesContext:
    """The reference's context over the same data, without its machinery for messages."""
    context = object.__new__(dagster_pipes.PipesContext)
    context._data = data
    return context


def facts(data: Mapping[str, Any]) -> ContextFacts:
    return ContextFacts(check_context_data(data, "The context"))


def outcome(context: object, name: str) -> object:
    """A property's value with its type, or the text of its error."""
    try:
        value = getattr(context, name)
    except (ContextError, dagster_pipes.DagsterPipesError) as error:
        return str(error)
    return type(value), value


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("data", CONTEXTS.values(), ids=CONTEXTS)
def test_properties_equal_those_of_the_reference(data: dict[str, Any], name: str) -> None:
    """Value, type and error text of each property are the reference's, for each kind of step."""
    assert outcome(facts(data), name) == outcome(reference(data), name)


def test_facts_have_every_property_of_the_reference() -> None:
    """No public property of the reference's context is missing here, closing aside."""
    theirs = {
        name
        for name, value in vars(dagster_pipes.PipesContext).items()
        if isinstance(value, property)
    }
    assert theirs - {"is_closed", "log"} == set(PROPERTIES)


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (
            OP,
            "asset_key",
            f"{MISSING}`asset_key` is undefined. Current step does not target an asset.",
        ),
        (
            OP,
            "asset_keys",
            f"{MISSING}`asset_keys` is undefined. Current step does not target an asset.",
        ),
        (
            OP,
            "provenance",
            f"{MISSING}`provenance` is undefined. Current step does not target an asset.",
        ),
        (SEVERAL, "asset_key", "`asset_key` is undefined. Current step targets multiple assets."),
        (
            CHECKS_ONLY,
            "asset_key",
            "`asset_key` is undefined. Current step targets multiple assets.",
        ),
        (
            SEVERAL,
            "code_version",
            "`code_version` is undefined. Current step targets multiple assets.",
        ),
        (
            OP,
            "partition_key",
            f"{MISSING}`partition_key` is undefined. Current step does not target any partitions.",
        ),
        (
            OP,
            "partition_time_window",
            f"{MISSING}`partition_time_window` is undefined. Current step does not target any partitions.",
        ),
    ],
)
def test_error_texts(data: dict[str, Any], name: str, message: str) -> None:
    """The words that people search for are the reference's."""
    with pytest.raises(ContextError) as caught:
        getattr(facts(data), name)
    assert str(caught.value) == message


def test_versions_are_looked_up_by_key() -> None:
    """The version is that of the asset in scope, wherever it stands in the mapping."""
    data = SINGLE | {
        "code_version_by_asset_key": {"other": "v0", "a/b": "v1"},
        "provenance_by_asset_key": {"other": None, "a/b": PROVENANCE},
    }
    assert facts(data).code_version == "v1"
    assert facts(data).provenance == PROVENANCE


def test_maps_that_are_null_or_empty_beside_an_asset() -> None:
    """What Dagster never sends, but another launcher might, gives an answer or our own error."""
    assert facts(SINGLE | {"code_version_by_asset_key": {}}).code_version is None
    with pytest.raises(ContextError) as caught:
        facts(SINGLE | {"provenance_by_asset_key": None}).provenance  # noqa: B018 because it raises
    assert str(caught.value) == (
        f"{MISSING}`provenance` is undefined. Current step does not target an asset."
    )


def test_get_extra() -> None:
    """A value that is there is given, ``None`` and all; a default stands in for one that is not."""
    context = facts(SINGLE)
    assert context.get_extra("threshold") == 0.5
    assert context.get_extra("nothing") is None
    assert context.get_extra("nothing", 1) is None
    assert context.get_extra("missing", None) is None
    assert context.get_extra("missing", [1]) == [1]
    assert context.get_extra("missing", default=3) == 3


def test_get_extra_that_is_missing() -> None:
    """Without a default the error begins as the reference's, and leads on."""
    with pytest.raises(ContextError) as ours:
        facts(SINGLE).get_extra("missing")
    with pytest.raises(dagster_pipes.DagsterPipesError) as theirs:
        reference(SINGLE).get_extra("missing")
    assert str(ours.value).startswith(str(theirs.value) + " There are: ")
    assert str(ours.value).endswith(" get_extra('missing', default) returns the default instead.")


@pytest.mark.parametrize(
    ("extras", "told"),
    [
        ({}, "There are: none."),
        ({"limit": "secret", "region": 1}, "There are: `limit`, `region`. Did you mean `limit`?"),
        ({f"e{i:02}": 1 for i in range(30)}, "`e08`, `e09` and 20 more."),
    ],
)
def test_a_misspelt_extra(extras: dict[str, Any], told: str) -> None:
    """The names are in the error, and no value is."""
    with pytest.raises(ContextError) as error:
        facts({**SINGLE, "extras": extras}).get_extra("limt")
    assert told in str(error.value)
    assert "secret" not in str(error.value)


def test_help_has_no_address() -> None:
    """As the default of an argument it would be the same for nobody."""
    assert "object at 0x" not in pydoc.render_doc(PipesContext)


def test_unknown_keys_stay() -> None:
    """A key of a later Dagster is no error, and is not lost either."""
    assert check_context_data(SINGLE | {"new": 1}, "C") == SINGLE | {"new": 1}


def test_null_extras_become_empty() -> None:
    """Some launchers send null for no extras; the data that was given is left as it was."""
    given = SINGLE | {"extras": None}
    context = facts(given)
    assert context.extras == {}
    assert context.get_extra("k", 1) == 1
    assert given["extras"] is None


def test_any_mapping_is_taken() -> None:
    """A loader of the user's own may yield a mapping that is no dict, with tuples for lists."""
    data = MappingProxyType(SINGLE | {"asset_keys": ("a/b",)})
    assert facts(data).asset_key == "a/b"


NOT_OBJECTS = {
    "a list": ([1], "C must hold a JSON object; got a value of type list, length 1." + ADVICE),
    "null": (None, "C must hold a JSON object; got a value of type NoneType." + ADVICE),
    "text": ("{}", "C must hold a JSON object; got a value of type str, length 2." + ADVICE),
}


@pytest.mark.parametrize(("data", "message"), NOT_OBJECTS.values(), ids=NOT_OBJECTS)
def test_what_is_no_object_is_explained(data: object, message: str) -> None:
    """The error says where it was read, what was got and what to do."""
    with pytest.raises(ContextError) as caught:
        check_context_data(data, "C")
    assert str(caught.value) == message


@pytest.mark.parametrize("key", ["asset_keys", "run_id"])
def test_a_missing_key_is_named(key: str) -> None:
    """What no context is without is required."""
    data = {name: value for name, value in SINGLE.items() if name != key}
    with pytest.raises(ContextError) as caught:
        check_context_data(data, "The context file '/c'")
    assert str(caught.value) == (
        f"The context file '/c' lacks the required key `{key}`; got a value of type dict, length 9."
        + ADVICE
    )


def test_several_missing_keys_are_named_together() -> None:
    """One error tells all that is missing."""
    with pytest.raises(ContextError, match="lacks the required keys `asset_keys`, `run_id`; got "):
        check_context_data({}, "C")


def test_a_context_of_an_injector_that_leaves_keys_out_is_taken() -> None:
    """What is missing counts as null, so every property has a value or an error of ours."""
    context = facts({"asset_keys": ["a"], "run_id": "r"})
    assert (context.asset_key, context.run_id, context.job_name) == ("a", "r", None)
    assert (context.retry_number, context.extras, context.is_partition_step) == (0, {}, False)
    for name in PROPERTIES:
        assert "KeyError" not in str(outcome(context, name))


SPAN = "null or an object with text under `start` and `end`"
WRONG = [
    ("asset_keys", "a", "null or a list of text"),
    ("asset_keys", [1], "null or a list of text"),
    ("asset_keys", {"a": 1}, "null or a list of text"),
    ("code_version_by_asset_key", [], "null or an object of text or null"),
    ("code_version_by_asset_key", {"a": 1}, "null or an object of text or null"),
    ("provenance_by_asset_key", {"a": "x"}, "null or an object of objects or null"),
    ("provenance_by_asset_key", 0, "null or an object of objects or null"),
    ("partition_key", 20240101, "null or text"),
    ("partition_key_range", ["a", "b"], SPAN),
    ("partition_key_range", {"start": "a"}, SPAN),
    ("partition_time_window", {"start": 1, "end": 2}, SPAN),
    ("run_id", None, "text"),
    ("run_id", 7, "text"),
    ("job_name", False, "null or text"),
    ("retry_number", "0", "an integer"),
    ("retry_number", True, "an integer"),
    ("retry_number", None, "an integer"),
    ("extras", [], "an object"),
    ("extras", "", "an object"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_type_is_explained(key: str, value: object, expected: str) -> None:
    """The error names file, key, what was expected, the shape of what was got, and what to do."""
    with pytest.raises(ContextError) as caught:
        check_context_data(SINGLE | {key: value}, "The context file '/c'")
    assert str(caught.value) == (
        f"The context file '/c' has a wrong value under the key `{key}`: expected {expected};"
        f" got {describe(value)}." + ADVICE
    )


@pytest.mark.parametrize(
    "data",
    ["hunter2", ["hunter2"], {"hunter2": 1}, SINGLE | {"extras": ["hunter2"]}],
    ids=["a text", "a list", "unknown keys", "extras that are a list"],
)
def test_a_secret_is_not_shown(data: Any) -> None:
    """Of a context that cannot be used, nothing is in the error but its shape."""
    with pytest.raises(ContextError) as caught:
        check_context_data(data, "C")
    assert "hunter2" not in str(caught.value)


def test_whatever_dagster_builds_is_taken() -> None:
    """Contexts as Dagster itself builds them, for each kind of step, pass and read as in the reference."""
    built: dict[str, dict[str, Any]] = {}

    def keep(kind: str, context: OpExecutionContext) -> None:
        data = build_external_execution_context_data(context, {"kind": kind})
        built[kind] = json.loads(json.dumps(data))

    def run_up(context: AssetExecutionContext) -> None:
        keep("asset", context.op_execution_context)

    def run_parted(context: AssetExecutionContext) -> None:
        keep("partition", context.op_execution_context)

    def run_check(context: AssetCheckExecutionContext) -> AssetCheckResult:
        keep("check", context.op_execution_context)
        return AssetCheckResult(passed=True)

    def run_op(context: OpExecutionContext) -> None:
        keep("op", context)

    up = asset(name="up", code_version="v1")(run_up)
    days = StaticPartitionsDefinition(["x", "y"])
    parted = asset(name="parted", partitions_def=days, deps=[up])(run_parted)
    fine = asset_check(asset=up, name="fine")(run_check)
    plain_op = op(name="plain")(run_op)
    plain_job = GraphDefinition(name="plain_graph", node_defs=[plain_op]).to_job()

    with DagsterInstance.ephemeral() as instance:
        assert materialize([up, fine], instance=instance).success
        assert materialize([up, parted], instance=instance, partition_key="x").success
        assert plain_job.execute_in_process(instance=instance).success
    assert set(built) == {"asset", "partition", "check", "op"}
    for kind, data in built.items():
        checked = facts(data)
        assert checked.get_extra("kind") == kind
        for name in PROPERTIES:
            assert outcome(checked, name) == outcome(reference(data), name)
