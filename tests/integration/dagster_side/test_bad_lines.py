"""A bad line costs its message and a warning; whatever else was sent arrives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from dagsterpipes.dagster import PipesFileMessageReader, PipesTempFileMessageReader
from support.dagster_side import RAW, instance, materialize, script, warnings_of

if TYPE_CHECKING:
    from pathlib import Path

BAD = {
    "text": ('b"Traceback (most recent call last):\\n"', "json"),
    "blank": ('b"\\n"', "blank-line"),
    "not UTF-8": ('b"\\xff\\xfe\\n"', "utf-8"),
    "byte order mark": ('b"\\xef\\xbb\\xbf" + line("log", message="x")', "byte-order-mark"),
    "carriage return": ('b"{\\r}\\n"', "carriage-return"),
    "a number": ('b"42\\n"', "envelope"),
    "a list": ('b"[]\\n"', "envelope"),
    "zeros": ('b"\\0" * 5000 + b"\\n"', "json"),
    "no method": ("b'{\"params\": {}}\\n'", "envelope"),
    "unknown method": ('line("report_weather", sun=True)', "method"),
    "unknown level": ('line("log", message="x", level="TRACE")', "log-level"),
    "no text": ('line("log", message=None)', "text"),
    "foreign key": ('line("log", message="x", colour="red")', "params"),
    "metadata": (
        'line("report_asset_materialization", asset_key="the_asset", data_version=None, metadata=[])',
        "metadata",
    ),
    "severity": (
        'line("report_asset_check", asset_key="a", check_name="c", passed=True, severity="w", metadata={})',
        "severity",
    ),
    "nested": ('b"[" * 100_000 + b"\\n"', "nesting"),
    "half a message": ('line("log", message="x")[:30] + b"\\n"', "json"),
    "two in one": ('line("log", message="x")[:-1] + line("log", message="y")', "json"),
}

JOB = (
    RAW
    + """
send("opened", extras={})
for number, bad in enumerate([%s]):
    file.write(bad)
    log(f"good {number}")
materialize(rows=3)
whole = line("log", message="torn")
file.write(whole[:20]); time.sleep(0.3); file.write(whole[20:])
send("closed")
"""
)


def client_run(context: Any, command: list[str], reader: Any) -> Any:
    return (
        dg.PipesSubprocessClient(message_reader=reader)
        .run(context=context, command=command)
        .get_results()
    )


@pytest.mark.filterwarnings("ignore:::dagster")
def test_every_good_message_arrives_between_bad_ones(tmp_path: Path, home: Path) -> None:
    """A warning for each bad line names the rule; a torn line is waited for; the report is there."""
    command = script(tmp_path, JOB % ", ".join(bad for bad, _ in BAD.values()))
    with instance(home) as dagster:
        run = materialize(
            dagster, lambda context: client_run(context, command, PipesTempFileMessageReader())
        )
    assert run.success
    texts = [text for _, text in run.user_logs()]
    assert texts == [f"good {number}" for number in range(len(BAD))] + ["torn"]
    assert run.materialization().metadata["rows"].value == 3
    found = warnings_of(run)
    assert len(found) == len(BAD)
    for (name, (_, rule)), warning in zip(BAD.items(), found, strict=True):
        assert f"({rule}): " in warning, (name, warning)
    assert found[0] == (
        "[pipes] line 2 breaks the rule that a line is one JSON value (json): Expecting value: line 1"
        " column 1 (char 0); the line starts with 'Traceback (most recent call last):'"
    )


@pytest.mark.filterwarnings("ignore:::dagster")
def test_warnings_are_bounded(tmp_path: Path, home: Path) -> None:
    """Twenty of them, and one with the count; a flood of garbage is no flood of warnings."""
    command = script(
        tmp_path,
        RAW
        + """
        send("opened", extras={})
        for _ in range(300):
            file.write(b"garbage\\n" * 9 + b"\\n")
        log("good")
        send("closed")
        """.replace("\n        ", "\n"),
    )
    with instance(home) as dagster:
        run = materialize(
            dagster, lambda context: client_run(context, command, PipesTempFileMessageReader())
        )
    assert run.success
    found = warnings_of(run)
    assert len(found) == 21
    assert found[-1] == "[pipes] 2980 more messages break rules; in all json: 2700, blank-line: 300"
    assert [text for _, text in run.user_logs()] == ["good"]


STRICT = {
    "broken": ('send("opened", extras={})\nfile.write(b"x\\n")\nsend("closed")', "json: 1"),
    "never closed": ('send("opened", extras={})', "`opened` came and `closed` never did"),
    "closed with an exception": (
        """
send("opened", extras={})
send("closed", exception=dict(message="m", stack=[], name="ValueError", cause=None, context=None))
""",
        "it was closed with 'ValueError'",
    ),
    "a torn end": (
        'send("opened", extras={})\nsend("closed")\nfile.write(b"{")',
        "json: 1",
    ),
}


@pytest.mark.filterwarnings("ignore:::dagster")
@pytest.mark.parametrize("case", STRICT)
def test_strict_fails_what_is_silently_green_otherwise(
    case: str, tmp_path: Path, home: Path
) -> None:
    """The process succeeds; only the strict reader fails the step, and says why."""
    body, reason = STRICT[case]
    command = script(tmp_path, RAW + body)
    with instance(home) as dagster:
        for strict in (False, True):
            reader = PipesTempFileMessageReader(strict=strict)
            run = materialize(dagster, partial(client_run, command=command, reader=reader))
            assert run.success is not strict
            assert (reason in run.pipes_errors()) is strict, run.pipes_errors()


@pytest.mark.filterwarnings("ignore:::dagster")
def test_strict_is_silent_for_a_good_session_and_for_a_failed_process(
    tmp_path: Path, home: Path
) -> None:
    """The exit code of a process that failed is what Dagster shows, not the reader's findings."""
    good = script(
        tmp_path, RAW + 'send("opened", extras={})\nmaterialize()\nsend("closed")', "a.py"
    )
    failed = script(tmp_path, RAW + 'send("opened", extras={})\nsys.exit(3)', "b.py")
    reader = PipesTempFileMessageReader(strict=True)
    with instance(home) as dagster:
        run = materialize(dagster, lambda context: client_run(context, good, reader))
        assert run.success
        assert warnings_of(run) == []
        run = materialize(dagster, lambda context: client_run(context, failed, reader))
        assert not run.success
        assert "failed with code 3" in run.pipes_errors()
        assert "reader is strict" not in run.pipes_errors()


@pytest.mark.filterwarnings("ignore:::dagster")
def test_a_reader_of_a_given_file(tmp_path: Path, home: Path) -> None:
    """Under `open_pipes_session`; the file is removed at the end, unless it is to be kept."""
    import subprocess

    command = script(tmp_path, RAW + 'send("opened", extras={})\nlog("hello")\nsend("closed")')
    for cleanup in (True, False):
        path = tmp_path / "messages"

        def body(context: Any, path: Path = path, cleanup: bool = cleanup) -> Any:
            with dg.open_pipes_session(
                context,
                dg.PipesEnvContextInjector(),
                PipesFileMessageReader(str(path), cleanup_file=cleanup),
            ) as session:
                subprocess.run(command, env=session.get_bootstrap_env_vars(), check=True)
            return session.get_results()

        with instance(home) as dagster:
            run = materialize(dagster, body)
        assert run.success
        assert run.user_logs() == [("INFO", "hello")]
        assert path.exists() is not cleanup


@pytest.mark.filterwarnings("ignore:::dagster")
def test_what_fails_the_step_in_dagster_fails_it_here_and_is_explained(
    tmp_path: Path, home: Path
) -> None:
    """A second materialization of an asset is no matter of the reader, but it can say what it saw."""
    command = script(
        tmp_path,
        RAW + 'send("opened", extras={})\nmaterialize()\nmaterialize()\nsend("closed")',
    )
    with instance(home) as dagster:
        run = materialize(
            dagster, lambda context: client_run(context, command, PipesTempFileMessageReader())
        )
    assert not run.success
    assert "an asset is materialized once (second-materialization)" in warnings_of(run)[0]
