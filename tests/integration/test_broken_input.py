"""Dagster asked for a session and it cannot be opened: an error that says why, and a non-zero exit."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dagsterpipes import encode_param
from dagsterpipes.exceptions import PAGE, describe
from support.launching import CONTEXT, Launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOBS = {
    "with": """
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    print("the job ran")
""",
    "async with": """
import asyncio
from dagsterpipes import open_dagster_pipes
async def main():
    async with open_dagster_pipes() as pipes:
        print("the job ran")
asyncio.run(main())
""",
    "with_dagster_pipes": """
from dagsterpipes import with_dagster_pipes
with_dagster_pipes(lambda pipes: print("the job ran"))
""",
}

HAND_ON = (
    "Dagster sets it when it launches the process: pass it on unchanged, or unset both"
    " DAGSTER_PIPES_CONTEXT and DAGSTER_PIPES_MESSAGES to run without Dagster."
)
REACH = (
    "check that this process sees the file system of the one that launched it, with the right to"
)
REWRITTEN = "Dagster writes it before it launches the process: check what else writes there."
INJECTOR = "It comes from the context injector on the Dagster side: check that both sides agree"
CONTEXT_SIDE = "Check the context injector on the Dagster side."
MESSAGES_SIDE = "Check the message reader on the Dagster side."


class Case(NamedTuple):
    """How the launch is broken, the class of the error, and what its text says."""

    breaks: Callable[[Launch], Any]
    kind: str
    says: tuple[str, ...]


def error_line(stderr: str) -> str:
    """The line of the error; below it, a traceback names the page of errors, from Python 3.11 on."""
    *_, line, below = stderr.splitlines()
    if sys.version_info < (3, 11):
        return below
    assert below == f"What to do: {PAGE}"
    return line


def encoded(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


def context(value: str) -> Callable[[Launch], Any]:
    return lambda launch: launch.env.update(DAGSTER_PIPES_CONTEXT=value)


def messages(value: str) -> Callable[[Launch], Any]:
    return lambda launch: launch.env.update(DAGSTER_PIPES_MESSAGES=value)


def messages_params(make: Callable[[Path], dict[str, Any]]) -> Callable[[Launch], Any]:
    return lambda launch: launch.env.update(
        DAGSTER_PIPES_MESSAGES=encode_param(make(launch.folder))
    )


def context_file(content: bytes) -> Callable[[Launch], Any]:
    return lambda launch: (launch.folder / "context").write_bytes(content)


def read_only(launch: Launch) -> None:
    launch.messages_path.chmod(0o400)


def unreadable(launch: Launch) -> None:
    (launch.folder / "context").chmod(0)


IN_CONTEXT = "Environment variable DAGSTER_PIPES_CONTEXT "
IN_MESSAGES = "Environment variable DAGSTER_PIPES_MESSAGES "
PARAMS, CONTEXT_KIND, CHANNEL = "LaunchParamsError", "ContextError", "ChannelError"


def undecodable(variable: str, put: Callable[[str], Callable[[Launch], Any]]) -> dict[str, Case]:
    """What may be wrong with a bootstrap value, whichever of the two it is."""
    return {
        f"{variable}: {name}": Case(put(value), PARAMS, (variable, says, got, HAND_ON))
        for name, value, says, got in [
            ("not base64", "x", " is not base64 (", "got 1 characters"),
            (
                "not zlib",
                "aGVsbG8=",
                " is not zlib inside its base64 (Error -3 ",
                "got 8 characters.",
            ),
            (
                "cut off",
                encode_param(CONTEXT)[:40],
                " is not zlib inside its base64 (",
                "got 40 characters.",
            ),
            (
                "not UTF-8",
                encoded(b"\xff{}"),
                " is not UTF-8 once decompressed (",
                " characters. ",
            ),
            (
                "not JSON",
                encoded(b"{'a': 1}"),
                " is not JSON once decompressed (",
                "got 8 characters.",
            ),
            (
                "not an object",
                encode_param([1]),
                " must hold a JSON object",
                "got a value of type list, length 1.",
            ),
            ("empty", "", " is empty.", ""),
        ]
    }


CASES: dict[str, Case] = {
    **undecodable("DAGSTER_PIPES_CONTEXT", context),
    **undecodable("DAGSTER_PIPES_MESSAGES", messages),
    "no messages": Case(
        lambda launch: launch.env.pop("DAGSTER_PIPES_MESSAGES"),
        PARAMS,
        (IN_MESSAGES + "is missing. ", HAND_ON),
    ),
    "context: unknown keys": Case(
        context(encode_param({"bucket": "b", "key": "k"})),
        PARAMS,
        (
            (
                "expected the key `path` or `data` in DAGSTER_PIPES_CONTEXT; got the keys"
                " ['bucket', 'key']."
            ),
            "use PipesS3ContextLoader, PipesGCSContextLoader or PipesAzureBlobStorageContextLoader",
        ),
    ),
    "context: a number for a path": Case(
        context(encode_param({"path": 5})),
        PARAMS,
        (
            "expected text under the key `path` of DAGSTER_PIPES_CONTEXT; got a value of type int.",
            CONTEXT_SIDE,
        ),
    ),
    "context: no object for data": Case(
        context(encode_param({"data": "text"})),
        PARAMS,
        (
            (
                "expected an object under the key `data` of DAGSTER_PIPES_CONTEXT; got a value of type"
                " str, length 4."
            ),
            CONTEXT_SIDE,
        ),
    ),
    "context: data that lacks keys": Case(
        context(encode_param({"data": {"run_id": "r"}})),
        CONTEXT_KIND,
        (
            (
                "The context under the key `data` of DAGSTER_PIPES_CONTEXT lacks the required key"
                " `asset_keys`;"
            ),
            "got a value of type dict, length 1.",
            INJECTOR,
        ),
    ),
    "context: no such file": Case(
        context(encode_param({"path": "/no/such/file"})),
        CONTEXT_KIND,
        (
            (
                "The context file '/no/such/file' cannot be read: No such file or directory."
                " DAGSTER_PIPES_CONTEXT names it:"
            ),
            REACH,
        ),
    ),
    "context: a folder": Case(
        context(encode_param({"path": "/"})),
        CONTEXT_KIND,
        ("The context file '/' cannot be read: Is a directory. DAGSTER_PIPES_CONTEXT names", REACH),
    ),
    "context: NUL in a path": Case(
        context(encode_param({"path": "a\0b"})),
        CONTEXT_KIND,
        (r"The context file 'a\x00b' cannot be read: ", "null byte", REACH),
    ),
    "context: an unreadable file": Case(
        unreadable,
        CONTEXT_KIND,
        ("context' cannot be read: Permission denied. DAGSTER_PIPES_CONTEXT names it", REACH),
    ),
    "context: an empty file": Case(
        context_file(b""),
        CONTEXT_KIND,
        ("context' is not JSON (", "got 0 bytes.", REWRITTEN),
    ),
    "context: a file that is not JSON": Case(
        context_file(b"{'a'"),
        CONTEXT_KIND,
        ("context' is not JSON (", "got 4 bytes.", REWRITTEN),
    ),
    "context: a file that is not UTF-8": Case(
        context_file(b"\xff\xfe{}"),
        CONTEXT_KIND,
        ("context' is not UTF-8 (invalid start byte at byte 0)", "got 4 bytes.", REWRITTEN),
    ),
    "context: a file without an object": Case(
        context_file(b"[1, 2]"),
        CONTEXT_KIND,
        ("context' must hold a JSON object; got a value of type list, length 2.", INJECTOR),
    ),
    "context: a file that lacks keys": Case(
        context_file(json.dumps({k: v for k, v in CONTEXT.items() if k != "run_id"}).encode()),
        CONTEXT_KIND,
        ("context' lacks the required key `run_id`; got a value of type dict, ", INJECTOR),
    ),
    "context: a value of a wrong type": Case(
        context_file(json.dumps({**CONTEXT, "retry_number": "0"}).encode()),
        CONTEXT_KIND,
        (
            (
                "context' has a wrong value under the key `retry_number`: expected an integer; got a"
                " value of type str, length 1."
            ),
            INJECTOR,
        ),
    ),
    "messages: unknown keys": Case(
        messages_params(lambda _: {"prefect_logs": True}),
        PARAMS,
        (
            (
                "expected the key `path`, `stdio` or `buffered_stdio` in DAGSTER_PIPES_MESSAGES; got the"
                " keys ['prefect_logs']."
            ),
            "Use `open_dagster_pipes(message_writer=PipesPrefectLogsMessageWriter())`.",
        ),
    ),
    "messages: a number for a path": Case(
        messages_params(lambda _: {"path": 5}),
        PARAMS,
        (
            "expected a path under the key `path` of DAGSTER_PIPES_MESSAGES; got a value of type int.",
            MESSAGES_SIDE,
        ),
    ),
    "messages: no such folder": Case(
        messages_params(lambda folder: {"path": str(folder / "no" / "messages")}),
        CHANNEL,
        (
            (
                "no/messages' cannot be opened for appending: No such file or directory. The key `path`"
                " of DAGSTER_PIPES_MESSAGES names it:"
            ),
            REACH,
        ),
    ),
    "messages: a folder": Case(
        messages_params(lambda folder: {"path": str(folder)}),
        CHANNEL,
        ("cannot be opened for appending: Is a directory. The key `path` of DAGSTER_PIPES_", REACH),
    ),
    "messages: below a file": Case(
        messages_params(lambda folder: {"path": str(folder / "context" / "messages")}),
        CHANNEL,
        ("cannot be opened for appending: Not a directory. The key `path` of DAGSTER_PI", REACH),
    ),
    "messages: not writable": Case(
        read_only,
        CHANNEL,
        ("messages' cannot be opened for appending: Permission denied. The key `path` ", REACH),
    ),
    **{
        f"messages: {key}, {value!r}": Case(
            messages_params(lambda _, key=key, value=value: {key: value}),  # type: ignore[misc] # because mypy sees no default there
            PARAMS,
            (
                (
                    f'expected "stdout" or "stderr" under the key `{key}` of DAGSTER_PIPES_MESSAGES; got'
                    f" {describe(value)}."
                ),
                MESSAGES_SIDE,
            ),
        )
        for key in ("stdio", "buffered_stdio")
        for value in ("stdin", 1, None)
    },
}
NOT_FOR_ROOT = {"context: an unreadable file", "messages: not writable"}


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, str], subprocess.CompletedProcess[str]]:
    """What became of every case and every job; several processes at once."""

    def run(case: str, job: str) -> subprocess.CompletedProcess[str]:
        launch = Launch(tmp_path_factory.mktemp("launch"))
        CASES[case].breaks(launch)
        done = launch.run(JOBS[job])
        done.stdout += launch.messages_path.read_text()
        return done

    with ThreadPoolExecutor(4) as pool:
        futures = {
            (case, job): pool.submit(run, case, job)
            for case in CASES
            for job in (JOBS if case.endswith(("not zlib", "a folder")) else ["with", "async with"])
        }
    return {key: future.result() for key, future in futures.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_launch_is_an_error_that_says_what_to_do(
    case: str, outcomes: dict[tuple[str, str], subprocess.CompletedProcess[str]]
) -> None:
    """The class, the variable, the key, what was got and the advice; the job has not run."""
    if case in NOT_FOR_ROOT and os.geteuid() == 0:
        pytest.skip("root may read and write everything")
    _, kind, says = CASES[case]
    for (name, job), done in outcomes.items():
        if name == case:
            assert done.returncode == 1, job
            assert done.stdout == ""
            last = error_line(done.stderr)
            assert last.startswith(f"dagsterpipes.exceptions.{kind}: ")
            for part in says:
                assert part in last
            assert "DAGSTER_PIPES_" in last or "context file" in last


def test_there_are_more_than_two_dozen_cases() -> None:
    """None of them is lost when this file is edited."""
    assert len(CASES) >= 24


@pytest.mark.parametrize("job", JOBS)
def test_a_stream_that_is_not_there(job: str, tmp_path: Path) -> None:
    """A process without stdout that should write its messages there."""
    launch = Launch(tmp_path)
    launch.env["DAGSTER_PIPES_MESSAGES"] = encode_param({"stdio": "stdout"})
    script = tmp_path / "job.py"
    script.write_text(JOBS[job])
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" "$1" >&-', sys.executable, str(script)],
        env={**os.environ, **launch.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = error_line(done.stderr)
    assert "ChannelError: Dagster asked for messages on stdout (DAGSTER_PIPES_MESSAGES)" in last
    assert "Start it with one, or use a message reader" in last


def test_without_the_context_variable_it_is_a_run_without_dagster(tmp_path: Path) -> None:
    """That alone decides; the other variable means nothing then."""
    launch = Launch(tmp_path)
    del launch.env["DAGSTER_PIPES_CONTEXT"]
    done = launch.run(JOBS["with"])
    assert (done.returncode, done.stdout) == (0, "the job ran\n")
    assert "DagsterPipesWarning: Dagster did not launch this process" in done.stderr
    assert launch.messages() == []
