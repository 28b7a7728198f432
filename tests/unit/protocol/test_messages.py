"""The seven messages: complete, in the reference's words, and refused where Dagster could not take them."""

from __future__ import annotations

import enum
import json
from typing import Any

import dagster_pipes
import numpy as np
import pytest

from dagsterpipes._protocol import messages
from dagsterpipes._protocol.exception_info import exception_payload
from dagsterpipes.exceptions import InvalidReportError
from support.doubles import LyingClass, PrintedText, Raising


class Severity(enum.Enum):
    WARN = "WARN"
    OTHER = "OTHER"


def params(line: bytes, method: str) -> Any:
    """The params of a line, which must be a whole message."""
    assert line.endswith(b"}\n")
    message = json.loads(line)
    assert {"__dagster_pipes_version", "method", "params"} == message.keys()
    assert method == message["method"]
    return message["params"]


def materialization(**arguments: Any) -> Any:
    defaults = {"asset_key": "a", "data_version": None, "metadata": None}
    line = messages.asset_materialization(**{**defaults, **arguments})
    return params(line, "report_asset_materialization")


def check(**arguments: Any) -> Any:
    defaults = {
        "asset_key": "a",
        "check_name": "c",
        "passed": True,
        "severity": "WARN",
        "metadata": None,
    }
    return params(messages.asset_check(**{**defaults, **arguments}), "report_asset_check")


def test_opened() -> None:
    """The extras of the writer, always there."""
    assert params(messages.opened({}), "opened") == {"extras": {}}
    assert params(messages.opened({"a": (1,)}), "opened") == {"extras": {"a": [1]}}


def test_closed() -> None:
    """No exception is no key; an exception has all its keys."""
    assert params(messages.closed(None), "closed") == {}
    expected: Any = {"message": "m", "stack": [], "name": None, "cause": None, "context": None}
    assert {"exception": expected} == params(messages.closed({"message": "m"}), "closed")
    error = ValueError("x")
    assert {"exception": exception_payload(error)} == params(messages.closed(error), "closed")
    assert params(messages.closed(SystemExit(0)), "closed") == {}


def test_log() -> None:
    """The text as it is, at a level of Dagster's."""
    assert params(messages.log("%s é", 20), "log") == {"message": "%s é", "level": "INFO"}
    assert params(messages.log("", 15), "log") == {"message": "", "level": "DEBUG"}
    assert params(messages.log(PrintedText("a"), "info"), "log") == {
        "message": "a",
        "level": "INFO",
    }


def test_materialization() -> None:
    """All three keys are there; the asset key goes out as it was given."""
    expected: Any = {"asset_key": r"a\/b", "data_version": None, "metadata": None}
    assert expected == materialization(asset_key=r"a\/b")
    expected = {
        "asset_key": "a",
        "data_version": "v",
        "metadata": {"n": {"raw_value": 1, "type": "__infer__"}},
    }
    assert expected == materialization(data_version=np.str_("v"), metadata={"n": 1})


def test_check() -> None:
    """All five keys are there."""
    expected = {
        "asset_key": "a",
        "check_name": "c",
        "passed": True,
        "severity": "WARN",
        "metadata": None,
    }
    assert expected == check()
    assert check(passed=np.bool_(0))["passed"] is False
    assert check(severity=Severity.WARN)["severity"] == "WARN"
    assert check(severity="ERROR")["severity"] == "ERROR"
    assert check(metadata={"u": {"type": "url", "raw_value": "x"}})["metadata"] == {
        "u": {"raw_value": "x", "type": "url"}
    }


def test_custom_message() -> None:
    """Any payload, nothing included."""
    assert params(messages.custom_message(None), "report_custom_message") == {"payload": None}
    expected = {"payload": {"1": [1.5]}}
    assert expected == params(
        messages.custom_message({1: np.array([1.5])}), "report_custom_message"
    )


def test_external_stream() -> None:
    """The text, and extras that are always there."""
    method = "log_external_stream"
    expected: Any = {"stream": "stdout", "text": "a\n", "extras": {}}
    assert expected == params(messages.external_stream("stdout", "a\n", None), method)
    expected = {"stream": "stderr", "text": "", "extras": {"pid": 1}}
    assert expected == params(messages.external_stream("stderr", "", {"pid": 1}), method)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\udc80b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("\udc00\ud800", "\ufffd\ufffd"),
        ("\ud83d\ude42", "🙂"),
        ("é🙂\0\ufffd", "é🙂\0\ufffd"),
    ],
)
def test_text_that_dagsters_stream_cannot_encode(text: str, shown: str) -> None:
    """Dagster writes stream text to its own stdout, where a lone surrogate would end its reader."""
    line = messages.external_stream("stdout", text, None)
    assert shown == params(line, "log_external_stream")["text"]


@pytest.mark.parametrize("version", ["", "1", "é\0", "\ud83d\ude42", "\ufffd"])
def test_data_versions(version: str) -> None:
    """Any text that a storage can hold."""
    sent = materialization(data_version=version)["data_version"]
    assert sent.encode() == version.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def test_a_mutable_payload_is_captured() -> None:
    """What is changed after the call was not said."""
    payload = {"a": [1]}
    line = messages.custom_message(payload)
    payload["a"].append(2)
    assert params(line, "report_custom_message") == {"payload": {"a": [1]}}


anyhow: Any = messages  # whatever the types say

CHECK = "report_asset_check(): "
MATERIALIZATION = "report_asset_materialization(): "


REFUSED = [
    (
        lambda: anyhow.opened(None),
        "opened(): extras must be a mapping; got None of type NoneType",
    ),
    (
        lambda: anyhow.closed("boom"),
        "close(): exc must be a mapping with the keys of PipesException; got 'boom' of type str",
    ),
    (lambda: anyhow.log(5, 20), "log(): message must be a str; got 5 of type int"),
    (
        lambda: anyhow.log("a", "x"),
        "log(): level must be a level number or one of DEBUG, INFO, WARNING, ERROR, CRITICAL; got 'x' of type str",
    ),
    (
        lambda: materialization(asset_key=""),
        MATERIALIZATION + "asset_key is empty; got '' of type str",
    ),
    (
        lambda: materialization(asset_key=None),
        MATERIALIZATION + "asset_key must be a str; got None of type NoneType",
    ),
    (
        lambda: materialization(data_version=1),
        MATERIALIZATION + "data_version must be a str; got 1 of type int",
    ),
    (
        lambda: materialization(data_version="\udc80"),
        MATERIALIZATION
        + "data_version has lone surrogates, which Dagster's storage cannot hold; got '\\udc80' of type str",
    ),
    (
        lambda: materialization(metadata=[]),
        MATERIALIZATION + "metadata must be a mapping of names to values; got [] of type list",
    ),
    (
        lambda: check(check_name=None),
        CHECK + "check_name must be a str; got None of type NoneType",
    ),
    (
        lambda: check(passed=1),
        CHECK + "passed must be a bool; convert with bool(...); got 1 of type int",
    ),
    (
        lambda: check(severity="warn"),
        CHECK + "severity must be 'WARN' or 'ERROR'; got 'warn' of type str",
    ),
    (
        lambda: check(severity=None),
        CHECK + "severity must be 'WARN' or 'ERROR'; got None of type NoneType",
    ),
    (
        lambda: check(severity=Severity.OTHER),
        CHECK
        + "severity must be 'WARN' or 'ERROR'; got <Severity.OTHER: 'OTHER'> of type Severity",
    ),
    (
        lambda: anyhow.custom_message([b""]),
        "report_custom_message(): payload[0] is bytes: decode it, or encode it as text, for example in base64; got b'' of type bytes",
    ),
    (
        lambda: anyhow.external_stream("stdin", "", None),
        "log_external_stream(): stream must be 'stdout' or 'stderr'; got 'stdin' of type str",
    ),
    (
        lambda: anyhow.external_stream(None, "", None),
        "log_external_stream(): stream must be a str; got None of type NoneType",
    ),
    (
        lambda: anyhow.external_stream("stdout", b"", None),
        "log_external_stream(): text must be a str; got b'' of type bytes",
    ),
    (
        lambda: anyhow.external_stream("stdout", "", [1]),
        "log_external_stream(): extras must be a mapping; got [1] of type list",
    ),
]


@pytest.mark.parametrize(
    ("call", "error"), REFUSED, ids=[error.partition("; got")[0] for _, error in REFUSED]
)
def test_what_is_refused(call: Any, error: str) -> None:
    """The error names method, parameter, what is wrong and what was got."""
    with pytest.raises(InvalidReportError) as caught:
        call()
    assert error == str(caught.value)


CALLS = {
    "opened": messages.opened,
    "closed": messages.closed,
    "closed, cause": lambda value: messages.closed({"message": "m", "cause": value}),
    "log, message": lambda value: messages.log(value, "INFO"),
    "log, level": lambda value: messages.log("a", value),
    "materialization, asset_key": lambda value: materialization(asset_key=value),
    "materialization, data_version": lambda value: materialization(data_version=value),
    "materialization, metadata": lambda value: materialization(metadata=value),
    "materialization, a value": lambda value: materialization(metadata={"a": value}),
    "materialization, a name": lambda value: materialization(metadata={value: 1}),
    "check, check_name": lambda value: check(check_name=value),
    "check, passed": lambda value: check(passed=value),
    "check, severity": lambda value: check(severity=value),
    "custom message": messages.custom_message,
    "stream": lambda value: messages.external_stream(value, "", None),
    "stream, text": lambda value: messages.external_stream("stdout", value, None),
    "stream, extras": lambda value: messages.external_stream("stdout", "", value),
}


@pytest.mark.parametrize("hostile", [Raising, LyingClass])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_arguments_that_raise(call: Any, hostile: Any) -> None:
    """Whatever an argument does when it is looked at, the error is ours and can be printed."""
    with pytest.raises(InvalidReportError) as caught:
        call(hostile())
    assert str(caught.value)


def test_lines_are_those_of_the_reference() -> None:
    """For what dagster_pipes takes and Dagster takes too, the messages are the same."""
    written: list[Any] = []

    class Channel(dagster_pipes.PipesMessageWriterChannel):  # type: ignore[misc]  # because mypy does not follow into dagster_pipes
        def write_message(self, message: Any) -> None:
            written.append(message)

    context = object.__new__(dagster_pipes.PipesContext)
    context._data = {"asset_keys": ["a"]}
    context._message_channel = Channel()
    context._materialized_assets = set()
    context._closed = False
    metadata = {"n": 1, "l": [1], "u": {"type": "url", "raw_value": "x"}, "none": None}
    context.report_asset_check("c", True, "WARN", metadata)
    context.report_asset_materialization(metadata, "v")
    context.report_custom_message({"a": 1})
    context.log_external_stream("stdout", "text")
    ours = [
        messages.asset_check(
            asset_key="a", check_name="c", passed=True, severity="WARN", metadata=metadata
        ),
        messages.asset_materialization(asset_key="a", data_version="v", metadata=metadata),
        messages.custom_message({"a": 1}),
        messages.external_stream("stdout", "text", None),
    ]
    assert written == [json.loads(line) for line in ours]
