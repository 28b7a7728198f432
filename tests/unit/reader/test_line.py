"""Which lines Dagster takes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from dagsterpipes._reader.line import (
    MAX_NESTING,
    Accepted,
    Ignored,
    check_metadata,
    judge_line,
)
from dagsterpipes._reader.rules import Refused, RuleBroken


def column(**changes: object) -> dict[str, Any]:
    return {"name": "a", "type": "int", **changes}


def dep(**changes: object) -> dict[str, Any]:
    return {"asset_key": ["up"], "column_name": "c", **changes}


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("__infer__", ["x", 1, 1.5, True, None, [], {}]),
        ("null", [None, 5]),
        *[(declared, ["x", None]) for declared in ("text", "url", "path", "notebook", "md")],
        ("dagster_run", ["x"]),
        ("asset", ["a/b"]),
        ("json", [{}, [], "x", None]),
        ("int", [1, True, None, 2**70]),
        ("float", [1.0, float("nan"), None]),
        ("bool", [True, None]),
        ("timestamp", [1, 1.5, True]),
        (
            "table",
            [
                {"records": [], "schema": []},
                {"records": "", "schema": {}},
                {"records": [{"a": 1, "b": "x"}, {"b": 2.5, "a": None}], "schema": [column()]},
            ],
        ),
        (
            "table_schema",
            [
                {"columns": []},
                {"columns": [column(description=None, tags=None, constraints=None)]},
                {"columns": [column(description="d", tags={"a": "b"}, constraints=[])]},
                {"columns": [column(constraints={"nullable": False, "unique": True})]},
                {"columns": [column(constraints={"other": ["> 1"]}, more=1)]},
                {"columns": [column(constraints={"other": None})]},
            ],
        ),
        (
            "table_column_lineage",
            [
                {"deps_by_column": {}},
                {"deps_by_column": {"c": [dep(), dep(asset_key="x"), dep(column_name="d")]}},
                {"deps_by_column": {"c": ""}, "more": 1},
            ],
        ),
    ],
)
def test_taken(declared: str, values: list[object]) -> None:
    """Every value that Dagster converts to the type is taken."""
    for value in values:
        check_metadata({"k": {"raw_value": value, "type": declared, "more": 1}}, "metadata")


@pytest.mark.parametrize("metadata", [None, {}])
def test_no_metadata(metadata: object) -> None:
    """Metadata may be null or empty."""
    check_metadata(metadata, "metadata")


RECORD = "metadata['k'] of type table, record"
COLUMN = "metadata['k'] of type table_schema, columns, column 0,"
LINEAGE = "metadata['k'] of type table_column_lineage"


@pytest.mark.parametrize(
    ("value", "rule", "detail"),
    [
        (5, "metadata", "metadata must be an object or null; got 5"),
        ({"k": 5}, "metadata", "metadata['k'] must be an object with `raw_value` and `type`; got 5"),
        ({"k": {"type": "int"}}, "metadata", "metadata['k'] must be an object with `raw_value` and `type`; got {'type': 'int'}"),
        ({"k": {"raw_value": 1}}, "metadata", "metadata['k'] must be an object with `raw_value` and `type`; got {'raw_value': 1}"),
        ({"k": {"raw_value": 1, "type": "job"}}, "metadata-type", "metadata['k'] has the unknown type 'job'"),
        ({"k": {"raw_value": 1, "type": []}}, "metadata-type", "metadata['k'] has the unknown type []"),
    ],
)  # fmt: skip
def test_shape(value: object, rule: str, detail: str) -> None:
    """Metadata of the wrong shape are refused, with the key and what was got."""
    with pytest.raises(RuleBroken) as broken:
        check_metadata(value, "metadata")
    assert broken.value.refused == (rule, detail)


@pytest.mark.parametrize(
    ("declared", "value", "detail"),
    [
        ("text", 5, "metadata['k'] of type text must be text or null; got 5"),
        ("asset", None, "metadata['k'] of type asset must be text; got None"),
        ("json", 5, "metadata['k'] of type json must be an object, a list, text or null; got 5"),
        ("int", 1.0, "metadata['k'] of type int must be an integer without a decimal point, or null; got 1.0"),
        ("float", 1, "metadata['k'] of type float must be a number with a decimal point (1.0, not 1), or null; got 1"),
        ("bool", 1, "metadata['k'] of type bool must be true, false or null; got 1"),
        ("timestamp", "x", "metadata['k'] of type timestamp must be a number of seconds since 1970 that a float can hold; got 'x'"),
        ("timestamp", 10**400, "metadata['k'] of type timestamp must be a number of seconds since 1970 that a float can hold; got 1000000000000000000000000000000000000000000000000000000000000000000000000000000…"),
        ("table", [], "metadata['k'] of type table must be an object with `records` and `schema`; got []"),
        ("table", {"records": 5, "schema": []}, "metadata['k'] of type table, records, must be a list; got 5"),
        ("table", {"records": [5], "schema": []}, f"{RECORD} 0, must be an object; got 5"),
        ("table", {"records": [{"a": []}], "schema": []}, f"{RECORD} 0, column 'a', must be a scalar or null; got []"),
        ("table", {"records": [{"a": 1}, {"b": 1}], "schema": []}, f"{RECORD} 1, must be an object with the columns of the first record; got {{'b': 1}}"),
        ("table", {"records": [], "schema": 5}, "metadata['k'] of type table, schema, must be a list; got 5"),
        ("table_schema", {}, "metadata['k'] of type table_schema must be an object with `columns`; got {}"),
        ("table_schema", {"columns": [5]}, f"{COLUMN} must be an object; got 5"),
        ("table_schema", {"columns": [{"name": "a"}]}, f"{COLUMN} must be an object with text under `name` and `type`; got {{'name': 'a'}}"),
        ("table_schema", {"columns": [column(description=5)]}, f"{COLUMN} description, must be text or null; got 5"),
        ("table_schema", {"columns": [column(tags={"a": 5})]}, f"{COLUMN} tags, must be an object of text, or null; got {{'a': 5}}"),
        ("table_schema", {"columns": [column(constraints=[1])]}, f"{COLUMN} constraints, must be an object with no keys but `nullable`, `unique`, `other`; got [1]"),
        ("table_schema", {"columns": [column(constraints={"x": 1})]}, f"{COLUMN} constraints, must be an object with no keys but `nullable`, `unique`, `other`; got {{'x': 1}}"),
        ("table_schema", {"columns": [column(constraints={"unique": 1})]}, f"{COLUMN} constraints, must be an object with true or false under `unique`; got {{'unique': 1}}"),
        ("table_schema", {"columns": [column(constraints={"other": "x"})]}, f"{COLUMN} constraints, must be an object with a list of text under `other`; got {{'other': 'x'}}"),
        ("table_column_lineage", {"deps_by_column": []}, f"{LINEAGE} must be an object with an object under `deps_by_column`; got {{'deps_by_column': []}}"),
        ("table_column_lineage", {"deps_by_column": {"c": 5}}, f"{LINEAGE}, column 'c', must be a list; got 5"),
        ("table_column_lineage", {"deps_by_column": {"c": [{}]}}, f"{LINEAGE}, column 'c', must be a list of objects with `asset_key`, `column_name`; got {{}}"),
        ("table_column_lineage", {"deps_by_column": {"c": [dep(asset_key=[5])]}}, f"{LINEAGE}, column 'c', asset_key, must be text or a list of text; got [5]"),
        ("table_column_lineage", {"deps_by_column": {"c": [dep(column_name=5)]}}, f"{LINEAGE}, column 'c', column_name, must be text; got 5"),
        ("table_column_lineage", {"deps_by_column": {"c": [dep(), dep(asset_key="up")]}}, f"{LINEAGE}, column 'c', must be a list without duplicates; got {{'asset_key': 'up', 'column_name': 'c'}}"),
    ],
)  # fmt: skip
def test_values(declared: str, value: object, detail: str) -> None:
    """A value that does not fit its type is refused, with the place and what was got."""
    with pytest.raises(RuleBroken) as broken:
        check_metadata({"k": {"raw_value": value, "type": declared}}, "metadata")
    assert broken.value.refused == ("metadata-value", detail)


def line(method: object, params: object, **more: object) -> bytes:
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params, **more}
    return json.dumps(message).encode() + b"\n"


def error(**changes: object) -> dict[str, Any]:
    return {"message": "m", "stack": ["s"], "name": "N", "cause": None, "context": None, **changes}


def materialization(**changes: object) -> bytes:
    params = {"asset_key": "a", "data_version": None, "metadata": None, **changes}
    return line("report_asset_materialization", params)


def check(**changes: object) -> bytes:
    params = {
        "asset_key": "a",
        "check_name": "c",
        "passed": True,
        "severity": "WARN",
        "metadata": None,
        **changes,
    }
    return line("report_asset_check", params)


def stream(**params: object) -> bytes:
    return line("log_external_stream", params)


LOG = line("log", {"message": "m", "level": "INFO"})


@pytest.mark.parametrize(
    "good",
    [
        line("opened", {"extras": {}}),
        line("closed", {}),
        line("closed", None),
        line("closed", {"exception": error()}),
        line("closed", {"exception": error(name=None, cause=error(), context=[])}),
        LOG,
        LOG.rstrip(),
        b" \t" + LOG.rstrip() + b" \r\n",
        line("log", {"message": "m"}),
        line("log", {"message": "m", "level": "fatal"}),
        line("log", {"message": "m", "level": 15}),
        line("log", {"message": "\ud800\x00\u2028", "level": "Warn"}),
        materialization(),
        materialization(data_version="v", metadata={"k": {"raw_value": 1, "type": "int"}}),
        check(),
        check(passed=False, severity="ERROR", metadata={}),
        line("report_custom_message", {"payload": None}),
        stream(stream="stdout", text="x"),
        stream(stream="stderr", text="\ud800", extras={}),
    ],
)
def test_accepted(good: bytes) -> None:
    """A message in the form that Dagster asks for is accepted, parsed and without a note."""
    assert judge_line(good) == Accepted(json.loads(good))


def test_usual_logs_are_judged_as_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a shorter way for them; no line, however damaged, has another verdict on it."""
    random = Random(1)
    texts = ["plain", "", 'a \\ "quote"', "日本 \ud800 \t\n\r", "{[" * 5]
    lines = [line("log", {"message": text, "level": "INFO"}) + b"\n" for text in texts]
    lines += [line("log", {"message": "é", "level": level}) + b"\n" for level in ("warn", "FATAL")]
    lines += [
        json.dumps(json.loads(good), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        for good in lines
    ]
    lines += [good[:-1] for good in lines] + [good[:-1] + b"\r\n" for good in lines]
    for _ in range(20_000):
        damaged = bytearray(random.choice(lines))
        at = random.randrange(len(damaged))
        damaged[at : at + random.randrange(2)] = random.choice(
            (b"", b'"', b"\\", b"\r", b"\xff", b" ")
        )
        lines.append(bytes(damaged))
    short = [judge_line(each) for each in lines]
    assert sum(isinstance(verdict, Accepted) for verdict in short) > 100
    assert sum(isinstance(verdict, Refused) for verdict in short) > 10_000
    monkeypatch.setattr("dagsterpipes._reader.line.LOG_HEAD", b"none begins so")
    assert [judge_line(each) for each in lines] == short


@pytest.mark.parametrize(
    ("odd", "note"),
    [
        (line("opened", {}), "`extras` is missing"),
        (line("opened", None), "`extras` is missing"),
        (line("closed", {"message": "m"}), "belongs under `exception`"),
        (line("closed", ["x"]), "belongs under `exception`"),
        (materialization(data_version=""), "null means none"),
        (b'{"method": "closed", "params": {}}\n', "only a file reader takes it"),
    ],
)
def test_noted(odd: bytes, note: str) -> None:
    """What Dagster takes although it is not what the sender meant gets a note."""
    verdict = judge_line(odd)
    assert isinstance(verdict, Accepted)
    assert note in verdict.note


@pytest.mark.parametrize(
    ("empty", "reason"),
    [
        (stream(stream="stdout", text=""), "an empty text prints nothing"),
        (line("log", {"message": "m", "level": 0}), "a log message of level 0 is dropped"),
        (line("log", {"message": "m", "level": -5}), "a log message of level -5 is dropped"),
    ],
)
def test_ignored(empty: bytes, reason: str) -> None:
    """A message from which nothing comes is ignored, with the reason."""
    assert judge_line(empty) == Ignored(json.loads(empty), reason)


@pytest.mark.parametrize(
    ("bad", "rule", "detail"),
    [
        (b"\xff\n", "utf-8", "byte 0 is not UTF-8: invalid start byte"),
        (b"\n", "blank-line", "the line is blank"),
        (b" \t \r\n", "blank-line", "the line is blank"),
        (b"", "blank-line", "the line is blank"),
        (LOG.replace(b": ", b":\r", 1), "carriage-return", "character 27 is one"),
        (b"\xef\xbb\xbf" + LOG, "byte-order-mark", "the line starts with one"),
        (
            b"garbage\n",
            "json",
            "Expecting value: line 1 column 1 (char 0); the line starts with 'garbage'",
        ),
        (b"\x00\n", "json", "Expecting value: line 1 column 1 (char 0); the line starts with '\\x00'"),
        (b"[]\n", "envelope", "the line is no JSON object; got []"),
        (b'{"params": {}}\n', "envelope", "the key `method` is missing; got ['params']"),
        (b'{"method": "log"}\n', "envelope", "the key `params` is missing; got ['method']"),
        (line("logs", {}), "method", "the method 'logs' is unknown"),
        (line(["log"], {}), "method", "the method ['log'] is unknown"),
        (line("log", ["m"]), "params", "log must have an object; got ['m']"),
        (line("log", {}), "params", "log lacks message"),
        (line("log", {"message": "m", "lvl": 1}), "params", "log knows no 'lvl'"),
        (line("report_asset_materialization", {}), "params", "report_asset_materialization lacks asset_key, data_version, metadata"),
        (line("closed", 5), "params", "closed must have an object; got 5"),
        (line("closed", "exception"), "params", "closed must have an object; got 'exception'"),
        (line("log", {"message": 5}), "text", "message must be text; got 5"),
        (materialization(asset_key=None), "text", "asset_key must be text; got None"),
        (materialization(data_version=5), "text", "data_version must be text or null; got 5"),
        (check(check_name=5), "text", "check_name must be text; got 5"),
        (stream(stream="stdout", text=None), "text", "text must be text; got None"),
        (
            line("log", {"message": "m", "level": "TRACE"}),
            "log-level",
            "log has the unknown level 'TRACE'; use an integer, DEBUG, INFO, WARNING, ERROR or CRITICAL",
        ),
        (stream(stream="stdin", text=""), "stream", "got 'stdin'"),
        (stream(stream="stdout", text="a\ud800"), "surrogate", "character 1 is one"),
        (check(passed=1), "passed", "got 1"),
        (check(severity="warn"), "severity", "got 'warn'"),
        (check(metadata=[]), "metadata", "metadata must be an object or null; got []"),
        (materialization(metadata=[]), "metadata", "metadata must be an object or null; got []"),
        (line("closed", {"exception": None}), "exception", "exception must be an object; got None"),
        (line("closed", {"exception": {"message": "m"}}), "exception", "exception lacks stack, name, cause, context"),
        (line("closed", {"exception": error(message=None)}), "exception", "exception.message must be text; got None"),
        (line("closed", {"exception": error(name=5)}), "exception", "exception.name must be text; got 5"),
        (line("closed", {"exception": error(stack=None)}), "exception", "exception.stack must be a list of text; got None"),
        (line("closed", {"exception": error(stack=[5])}), "exception", "exception.stack must be a list of text; got [5]"),
        (line("closed", {"exception": error(cause=error(context=5))}), "exception", "exception.cause.context must be an object; got 5"),
    ],
)  # fmt: skip
def test_refused(bad: bytes, rule: str, detail: str) -> None:
    """What stops Dagster's reader is refused by name, with the place and what was got."""
    verdict = judge_line(bad)
    assert verdict == Refused(rule, detail)
    assert isinstance(verdict, Refused)
    assert verdict.effect == "reader-stops"


def nested(levels: int) -> bytes:
    payload = b"[" * (levels - 2) + b"]" * (levels - 2)
    return b'{"method": "report_custom_message", "params": {"payload": ' + payload + b"}}"


def test_nesting() -> None:
    """JSON may be as deep as the bound, wide as it likes, and no deeper."""
    assert isinstance(judge_line(nested(MAX_NESTING)), Accepted)
    assert judge_line(nested(MAX_NESTING + 1)) == Refused("nesting", "more than 900 levels")
    assert judge_line(nested(200_000)) == Refused("nesting", "the interpreter cannot parse it")
    assert isinstance(judge_line(line("report_custom_message", {"payload": [{}] * 5000})), Accepted)


def test_a_deep_chain_of_causes() -> None:
    """A chain of exceptions is followed to its end without recursion."""
    chain = error(stack=None)
    for _ in range(400):
        chain = error(cause=chain)
    verdict = judge_line(line("closed", {"exception": chain}))
    assert isinstance(verdict, Refused)
    assert verdict.detail.endswith(".cause.stack must be a list of text; got None")
    assert len(verdict.detail) < 200


def test_a_number_too_long_for_the_interpreter() -> None:
    """An integer that the interpreter refuses to parse breaks the rule of JSON."""
    verdict = judge_line(b'{"method": "opened", "params": ' + b"9" * 5000 + b"}")
    assert isinstance(verdict, Refused)
    assert verdict.rule == "json"
