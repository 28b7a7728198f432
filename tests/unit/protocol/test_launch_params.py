"""Bootstrap values: what Dagster encodes is read back, and everything else is explained."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import dagster_pipes
import pytest

from dagsterpipes._protocol import launch_params
from dagsterpipes._protocol.launch_params import (
    decode_env_var,
    decode_param,
    decode_params,
    encode_env_var,
    encode_param,
    find_cli_argument,
    has_cli_argument,
    select_param,
)
from dagsterpipes.exceptions import DagsterPipesError, LaunchParamsError

CONTEXT = "--dagster-pipes-context"
ADVICE = (
    " Dagster sets it when it launches the process: pass it on unchanged, or unset both"
    " DAGSTER_PIPES_CONTEXT and DAGSTER_PIPES_MESSAGES to run without Dagster."
)


def wrapped(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


VALUES: list[Any] = [
    {"path": "/tmp/context"},
    {"data": {"extras": {"é": "\ud800", "n": 2**70, "x": 1.5}}},
    [],
    None,
    "text",
]


@pytest.mark.parametrize("value", VALUES)
def test_both_libraries_read_what_either_wrote(value: Any) -> None:
    """A value survives the way from one library to the other, in both directions."""
    assert decode_param(dagster_pipes.encode_param(value)) == value
    assert dagster_pipes.decode_param(encode_param(value)) == value


def test_constants_and_old_names_are_those_of_the_reference() -> None:
    """The variables, the options and the deprecated names are the ones that Dagster uses."""
    for name in (
        "DAGSTER_PIPES_CONTEXT_ENV_VAR",
        "DAGSTER_PIPES_MESSAGES_ENV_VAR",
        "DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT",
        "DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT",
    ):
        assert getattr(launch_params, name) == getattr(dagster_pipes, name)
    assert encode_env_var is encode_param
    assert decode_env_var is decode_param


@pytest.mark.parametrize("wrap", ["{}\n", " {} ", '"{}"', "'{}'"])
def test_what_a_shell_adds_is_skipped(wrap: str) -> None:
    """Quotes and newlines around the value do no harm, as in the reference."""
    value = wrap.format(encode_param({"path": "/x"}))
    assert decode_param(value) == dagster_pipes.decode_param(value) == {"path": "/x"}


NOT_UTF_8 = wrapped(b'{"path": "\xff"}')
BROKEN = {
    "empty": ("", "V is empty." + ADVICE),
    "blank": ("  \n", "V is empty." + ADVICE),
    "not base64, cut short": (
        "broken",
        "V is not base64 (Incorrect padding); got 6 characters." + ADVICE,
    ),
    "not base64, but decodable once foreign characters are skipped": (
        "{path: /tmp/context_file}",
        "V is not base64 (it has other characters); got 25 characters." + ADVICE,
    ),
    "not base64, beyond ASCII": (
        "Grüße",
        "V is not base64 (string argument should contain only ASCII characters); got"
        " 5 characters." + ADVICE,
    ),
    "not zlib": (
        base64.b64encode(b'{"path": "/tmp/x"}').decode(),
        "V is not zlib inside its base64 (Error -3 while decompressing data: incorrect header"
        " check); got 24 characters." + ADVICE,
    ),
    "not UTF-8": (
        NOT_UTF_8,
        "V is not UTF-8 once decompressed ('utf-8' codec can't decode byte 0xff in position 10:"
        f" invalid start byte); got {len(NOT_UTF_8)} characters." + ADVICE,
    ),
    "not JSON": (
        wrapped(b"path=/tmp/x"),
        "V is not JSON once decompressed (Expecting value: line 1 column 1 (char 0)); got"
        " 11 characters." + ADVICE,
    ),
    "not an object": (
        encode_param(["/tmp/x"]),
        "V must hold a JSON object; got a value of type list, length 1." + ADVICE,
    ),
    "null": (
        encode_param(None),
        "V must hold a JSON object; got a value of type NoneType." + ADVICE,
    ),
    "no text": (12, "V must be text; got a value of type int." + ADVICE),
}


@pytest.mark.parametrize(("value", "message"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_value_is_explained(value: Any, message: str) -> None:
    """The error says which value, what is wrong with it, what was got and what to do."""
    with pytest.raises(LaunchParamsError) as caught:
        decode_params(value, source="V")
    assert str(caught.value) == message


@pytest.mark.parametrize("content", [b"[" * 100_000, b"1" * 5000], ids=["deep", "long integer"])
def test_json_that_python_gives_up_on_is_explained(content: bytes) -> None:
    """Nesting and integers beyond Python's own limits are errors of ours, not Python's."""
    with pytest.raises(LaunchParamsError, match="V is not JSON once decompressed"):
        decode_params(wrapped(content), source="V")


def test_a_truncated_value_is_explained_wherever_it_was_cut() -> None:
    """No cut of a good value, as by a limit on the length of the environment, raises anything else."""
    good = encode_param({"data": {"extras": {"password": "hunter2" * 5}}})
    for end in range(len(good)):
        with pytest.raises(LaunchParamsError):
            decode_params(good[:end], source="V")


@pytest.mark.parametrize(
    "value",
    [
        "hunter2",
        base64.b64encode(b"hunter2").decode(),
        wrapped(b"hunter2"),
        wrapped(b"\xffhunter2"),
        encode_param(["hunter2"]),
    ],
    ids=["not base64", "not zlib", "not JSON", "not UTF-8", "not an object"],
)
def test_a_secret_is_not_shown(value: str) -> None:
    """Nothing of a value is in the error, decoded or not, whatever was wrong."""
    with pytest.raises(LaunchParamsError) as caught:
        decode_params(value, source="V")
    assert "hunter2" not in str(caught.value)
    assert value not in str(caught.value)
    assert len(str(caught.value)) < 400


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize("value", [object(), {1, 2}, circle()], ids=["object", "set", "circle"])
def test_what_json_cannot_hold_is_refused_when_encoding(value: Any) -> None:
    """The refusal starts with the reference's text and is of our own class."""
    with pytest.raises(DagsterPipesError) as caught:
        encode_param(value)
    assert str(caught.value).startswith(
        "Invalid type for parameter `value` of `encode_param`. Expected a JSON-serializable type,"
        f" got `{type(value)}`"
    )


def test_a_missing_key_is_explained() -> None:
    """A mapping without the key gives an error that names it, not a KeyError."""
    with pytest.raises(LaunchParamsError) as caught:
        select_param({}, "DAGSTER_PIPES_MESSAGES", source="Variable M")
    assert str(caught.value) == "Variable M is missing." + ADVICE


def test_a_key_is_decoded() -> None:
    """The value of the key asked for is decoded."""
    mapping = {"a": encode_param({"n": 1}), "b": encode_param({"n": 2})}
    assert select_param(mapping, "b", source="B") == {"n": 2}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([CONTEXT, "V"], "V"),
        ([f"{CONTEXT}=V"], "V"),
        (["run", "--help", CONTEXT, "V", "-x"], "V"),
        ([f"{CONTEXT}=V", "--help"], "V"),
        ([CONTEXT, "old", f"{CONTEXT}=V="], "V="),
        ([f"{CONTEXT}="], ""),
        (["--dagster-pipes-messages", "M", CONTEXT, "V", "--", CONTEXT, "other"], "V"),
    ],
)
def test_an_option_is_found_in_both_spellings(words: list[str], found: str) -> None:
    """Both spellings work among any other arguments; the last one counts; argv stays as it was."""
    argv = ["script.py", *words]
    before = list(argv)
    assert has_cli_argument(argv, CONTEXT)
    assert find_cli_argument(argv, CONTEXT) == found
    assert argv == before


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["script.py"],
        [CONTEXT, "V"],
        ["script.py", "--help"],
        ["script.py", "--", CONTEXT, "V"],
        ["script.py", f"{CONTEXT}-other", "V"],
        ["script.py", "--dagster-pipes-con", "V"],
    ],
)
def test_what_only_looks_like_the_option_is_not_it(argv: list[str]) -> None:
    """The program's name, words after ``--``, longer names and abbreviations do not count."""
    assert not has_cli_argument(argv, CONTEXT)
    with pytest.raises(LaunchParamsError) as caught:
        find_cli_argument(argv, CONTEXT)
    assert str(caught.value) == f"Command line argument {CONTEXT} is missing." + ADVICE


@pytest.mark.parametrize(
    ("words", "got"),
    [
        ([CONTEXT], "the end of the line"),
        ([CONTEXT, "--dagster-pipes-messages", "M"], "another option"),
        ([CONTEXT, "--"], "the end of the line"),
    ],
)
def test_an_option_without_its_value_is_an_error(words: list[str], got: str) -> None:
    """The option is there, so Dagster was meant; without its value nothing can be opened."""
    argv = ["script.py", *words]
    assert has_cli_argument(argv, CONTEXT)
    with pytest.raises(LaunchParamsError) as caught:
        find_cli_argument(argv, CONTEXT)
    assert str(caught.value) == (
        f"Command line argument {CONTEXT} has no value; got {got} where its value should be."
        + ADVICE
    )


def test_the_decoded_value_is_what_json_says() -> None:
    """Nothing but JSON stands between the text and the value."""
    assert decode_param(wrapped(json.dumps({"a": [1.0, 1]}).encode())) == {"a": [1.0, 1]}
