"""What a launched process can find out about itself."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._protocol.launch_params import encode_param
from dagsterpipes._reader.launch import build_context
from dagsterpipes.cli import doctor
from dagsterpipes.cli.doctor import Finding, examine, run_doctor

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = build_context(
    {}, run_id="run-1", asset_keys=["a/b"], extras={"password": "hunter2", "n": [1, 2]}
)

CONTEXT_FINDINGS = [
    (True, "The context has all its keys."),
    (None, "  asset_keys: ['a/b']"),
    (None, "  code_version_by_asset_key: dict, 13 bytes"),
    (None, "  provenance_by_asset_key: dict, 13 bytes"),
    (None, "  partition_key: None"),
    (None, "  partition_key_range: None"),
    (None, "  partition_time_window: None"),
    (None, "  run_id: 'run-1'"),
    (None, "  job_name: None"),
    (None, "  retry_number: 0"),
    (None, "  extras: password (str, 9 bytes), n (list, 6 bytes)"),
]


def env(context: object, messages: object) -> dict[str, str]:
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param(context),
        "DAGSTER_PIPES_MESSAGES": encode_param(messages),
    }


def about_messages(messages: object) -> list[Finding]:
    findings = list(examine(env({"bucket": "b"}, messages)))
    return findings[3:]


def test_a_launch_by_files(tmp_path: Path) -> None:
    """Context and messages of a good launch are described, extras by name and size only."""
    context, messages = tmp_path / "context", tmp_path / "messages"
    context.write_text(json.dumps(CONTEXT))
    messages.write_text("before\n")
    params = {"path": str(messages), "include_stdio_in_messages": True}
    variables = env({"path": str(context)}, params)
    findings = list(examine(variables))
    sizes = [len(json.dumps(str(path))) for path in (context, messages)]
    lengths = [len(value) for value in variables.values()]
    assert findings == [
        (True, f"DAGSTER_PIPES_CONTEXT is set, {lengths[0]} characters: path (str, {sizes[0]} bytes)."),
        (True, f"The context is in the file {str(context)!r}."),
        *CONTEXT_FINDINGS,
        (
            True,
            f"DAGSTER_PIPES_MESSAGES is set, {lengths[1]} characters: path (str, {sizes[1]} bytes), include_stdio_in_messages (true or false).",
        ),
        (True, f"Messages go to the file {str(messages)!r}, which can be opened."),
        (None, "Dagster asks for stdout and stderr as messages."),
    ]  # fmt: skip
    assert messages.read_text() == "before\n"


def test_a_launch_by_variables_alone() -> None:
    """A context inside the variable is looked at like one in a file."""
    findings = list(examine(env({"data": CONTEXT}, {"stdio": "stderr"})))
    assert findings[1:-2] == [(True, "The context is in the variable itself."), *CONTEXT_FINDINGS]
    assert findings[-1] == (True, "Messages go to 'stderr', which can be written to.")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Neither a good context nor a broken one lets the value of an extra out."""
    broken = json.dumps({**CONTEXT, "extras": "hunter2"})
    (tmp_path / "broken").write_text(broken)
    (tmp_path / "torn").write_text(broken[:-2])
    messages = {"stdio": "stdout"}
    variables = [
        env({"data": CONTEXT}, messages),
        env({"data": json.loads(broken)}, messages),
        env({"data": "hunter2"}, messages),
        env({"path": str(tmp_path / "broken")}, messages),
        env({"path": str(tmp_path / "torn")}, messages),
        env("hunter2", messages),
        {"DAGSTER_PIPES_CONTEXT": "hunter2", "DAGSTER_PIPES_MESSAGES": "hunter2"},
    ]
    for one in variables:
        assert "hunter2" not in str(list(examine(one)))


def test_not_launched() -> None:
    """Without both variables the process was not launched by Dagster, and that is not good."""
    assert list(examine({})) == [
        (
            False,
            "Neither DAGSTER_PIPES_CONTEXT nor DAGSTER_PIPES_MESSAGES is set: Dagster has not launched this process, or its environment was not handed on.",
        )
    ]


def test_one_variable_is_missing() -> None:
    """Each variable is looked at by itself."""
    findings = list(examine({"DAGSTER_PIPES_MESSAGES": encode_param({"stdio": "stdout"})}))
    assert findings[0] == (False, "DAGSTER_PIPES_CONTEXT is not set.")
    assert findings[-1].good


def test_a_variable_that_cannot_be_decoded() -> None:
    """A damaged variable is named, with what is wrong and without its value."""
    findings = list(examine({"DAGSTER_PIPES_CONTEXT": "abc", "DAGSTER_PIPES_MESSAGES": ""}))
    assert [finding.good for finding in findings] == [False, False]
    assert findings[0].text.startswith("DAGSTER_PIPES_CONTEXT is not base64 (")


@pytest.mark.parametrize(
    ("params", "good", "text"),
    [
        pytest.param({"path": "/no/such/file"}, False, "The context file '/no/such/file' cannot be read: No such file or directory.", id="no such file"),
        pytest.param({"path": None}, False, "The context file None cannot be read: TypeError.", id="a path of null"),
        pytest.param({"data": []}, False, "The context must hold a JSON object.", id="not an object"),
        pytest.param({"data": {"asset_keys": 1}}, False, "The context lacks the required key", id="keys missing"),
        pytest.param({"bucket": "b", "key": "k"}, None, "The context is elsewhere, which is not looked at: bucket (str, 3 bytes), key (str, 3 bytes).", id="elsewhere"),
        pytest.param({}, None, "The context is elsewhere, which is not looked at: none.", id="no params"),
    ],
)  # fmt: skip
def test_contexts(params: object, good: bool | None, text: str) -> None:
    """A context that cannot be loaded is not good, one that is elsewhere is a mere fact."""
    findings = list(examine(env(params, {"stdio": "stdout"})))[1:-2]
    assert findings[-1].good is good
    assert findings[-1].text.startswith(text)


def test_a_context_file_that_is_not_json(tmp_path: Path) -> None:
    """What is wrong with a file is told in the words of the parser, with the whole of its path."""
    folder = tmp_path / ("a long name " * 10)
    folder.mkdir()
    file = folder / "context"
    file.write_text("{")
    (finding,) = list(examine(env({"path": str(file)}, {"stdio": "stdout"})))[1:-2]
    assert finding.text == (
        f"The context file {str(file)!r} cannot be read: Expecting property name enclosed in double"
        " quotes."
    )


@pytest.mark.parametrize(
    ("params", "good", "text"),
    [
        pytest.param({"path": None}, False, "The path of the messages is not text: None.", id="a path of null"),
        pytest.param({"path": "/no/such/file"}, False, "The messages file '/no/such/file' does not exist. Dagster makes it", id="no such file"),
        pytest.param({"path": "a\x00b"}, False, "The messages file 'a\\x00b' cannot be opened: ValueError.", id="a path with NUL"),
        pytest.param({"path": os.devnull}, True, f"Messages go to the file {os.devnull!r}, which can be opened.", id="a file"),
        pytest.param({"stdio": "stdout"}, True, "Messages go to 'stdout', which can be written to.", id="stdout"),
        pytest.param({"buffered_stdio": "stderr"}, True, "Messages go to 'stderr', which can be written to.", id="buffered stderr"),
        pytest.param({"stdio": "other"}, False, "Messages go to 'other', which cannot be used.", id="an unknown stream"),
        pytest.param({"stdio": ["x"]}, False, "Messages go to ['x'], which cannot be used.", id="a stream that is a list"),
        pytest.param({"bucket": "b"}, None, "Messages go elsewhere, which is not tried: bucket (str, 3 bytes).", id="elsewhere"),
        pytest.param({"x": None}, False, "No message writer of Dagster uses such params: x (null).", id="unknown params"),
        pytest.param({}, False, "No message writer of Dagster uses such params: none.", id="no params"),
    ],
)  # fmt: skip
def test_messages(params: object, good: bool | None, text: str) -> None:
    """For every kind of channel the finding is whether this process could open it."""
    (finding,) = about_messages(params)
    assert finding.good is good
    assert finding.text.startswith(text)


def test_a_folder_for_messages(tmp_path: Path) -> None:
    """A folder, as some clients use it for chunks, is good when it can be written to."""
    (finding,) = about_messages({"path": str(tmp_path)})
    assert finding == (
        True,
        f"Messages go to the folder {str(tmp_path)!r}, which can be written to.",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_for_messages(tmp_path: Path) -> None:
    """A named pipe that nobody reads is no good, and does not block."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (finding,) = about_messages({"path": str(pipe)})
    assert not finding.good
    assert "cannot be opened" in finding.text


@pytest.mark.parametrize(
    ("value", "size"),
    [
        pytest.param(None, "null", id="null"),
        pytest.param(True, "true or false", id="a bool"),
        pytest.param("abc", "str, 5 bytes", id="text"),
        pytest.param({"a": 1}, "dict, 8 bytes", id="an object"),
        pytest.param(object(), "object", id="no JSON"),
    ],
)
def test_sizes(value: Any, size: str) -> None:
    """A value is told by its type and its size as JSON."""
    assert doctor._size(value) == size


def test_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The findings are printed one a line, safe to show, and any bad one gives status 1."""
    for name, value in env({"data": CONTEXT}, {"path": "\x1b[2J\u202e"}).items():
        monkeypatch.setenv(name, value)
    assert run_doctor(as_json=False) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "ok  The context is in the variable itself."
    assert printed[3] == "      asset_keys: ['a/b']"
    assert printed[-1].startswith("BAD The messages file '\\x1b[2J\\u202e' does not exist.")

    messages = tmp_path / "messages"
    messages.touch()
    monkeypatch.setenv("DAGSTER_PIPES_MESSAGES", encode_param({"path": str(messages)}))
    assert run_doctor(as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert report["findings"][1] == {"good": True, "text": "The context is in the variable itself."}
