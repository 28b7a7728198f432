"""The test kit: what it plays, what it shows, and that it works in sync and async tests."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import PipesContext, open_dagster_pipes
from dagsterpipes.exceptions import ContextError, DagsterPipesError
from dagsterpipes.testing import (
    Check,
    CustomMessage,
    Log,
    Materialization,
    Output,
    launched,
    read_messages,
    run_job,
    run_script,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dagsterpipes.testing import PipesLaunch


def say_everything(pipes: PipesContext) -> None:
    pipes.log.info("limit %s", pipes.get_extra("limit"))
    pipes.report_asset_materialization(
        metadata={"rows": 3, "doc": {"type": "md", "raw_value": "# x"}}, data_version="1"
    )
    pipes.report_asset_check("good", True, metadata={"n": 1})
    pipes.report_asset_check("bad", False, severity="WARN")
    pipes.report_custom_message({"a": [1]})
    pipes.log_external_stream("stderr", "text")


EVERYTHING = [
    Log("INFO", "limit 5"),
    Materialization(
        "orders", {"rows": 3, "doc": {"type": "md", "raw_value": "# x"}}, data_version="1"
    ),
    Check("orders", "good", passed=True, metadata={"n": 1}),
    Check("orders", "bad", passed=False, severity="WARN"),
    CustomMessage({"a": [1]}),
    Output("stderr", "text"),
]


def main() -> None:
    """A job that opens its own session, as most do."""
    with open_dagster_pipes() as pipes:
        say_everything(pipes)


def test_a_job_that_opens_its_own_session(pipes_launch: PipesLaunch) -> None:
    """Everything it says is there, typed and in order."""
    reported = pipes_launch(asset_keys=["orders"], extras={"limit": 5})
    main()
    assert reported.reports == EVERYTHING
    assert reported.logs == EVERYTHING[:1]
    assert reported.materializations == EVERYTHING[1:2]
    assert reported.checks == EVERYTHING[2:4]
    assert reported.custom_messages == [{"a": [1]}]
    assert reported.output("stderr") == "text"
    assert reported.output() == ""
    assert reported.is_closed
    assert reported.exception is None


async def test_an_async_job(pipes_launch: PipesLaunch) -> None:
    """The same in a coroutine; what is reported can be looked at while the session is open."""
    reported = pipes_launch(asset_keys=["orders"], extras={"limit": 5})
    async with open_dagster_pipes() as pipes:
        say_everything(pipes)
        await pipes.aflush()
        assert reported.reports == EVERYTHING
        assert not reported.is_closed
    assert reported.is_closed


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_under_anyio(pipes_launch: PipesLaunch, backend: str) -> None:
    """Either backend."""
    import anyio

    reported = pipes_launch(asset_keys=["orders"], extras={"limit": 5})

    async def job() -> None:
        async with open_dagster_pipes() as pipes:
            say_everything(pipes)

    anyio.run(job, backend=backend)
    assert reported.reports == EVERYTHING


def test_a_function_of_one_argument() -> None:
    """`run_job` opens and closes around it."""
    reported = run_job(say_everything, asset_keys=["orders"], extras={"limit": 5})
    assert reported.reports == EVERYTHING
    assert reported.is_closed


async def say_everything_async(pipes: PipesContext, *, pause: float = 0) -> None:
    await asyncio.sleep(pause)
    say_everything(pipes)


def test_a_coroutine_function_in_a_plain_test() -> None:
    """It is run to its end."""
    job = partial(say_everything_async, pause=0)
    assert run_job(job, asset_keys=["orders"], extras={"limit": 5}).reports == EVERYTHING


async def test_a_coroutine_function_in_an_async_test() -> None:
    """The result is awaited."""
    reported = await run_job(say_everything_async, asset_keys=["orders"], extras={"limit": 5})
    assert reported.reports == EVERYTHING


def test_facts_are_as_dagster_gives_them() -> None:
    """Every argument arrives at its property."""
    seen: dict[str, Any] = {}

    def job(pipes: PipesContext) -> None:
        for name in [
            "asset_keys",
            "code_version_by_asset_key",
            "provenance_by_asset_key",
            "partition_key",
            "partition_key_range",
            "partition_time_window",
            "run_id",
            "job_name",
            "retry_number",
            "extras",
        ]:
            seen[name] = getattr(pipes, name)

    run_job(
        job,
        asset_keys=["a", "b"],
        code_versions={"a": "1"},
        partition_key="2026-01-01",
        partition_time_window=("2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        run_id="r",
        job_name=None,
        retry_number=2,
        extras={"x": [1]},
    )
    assert seen == {
        "asset_keys": ["a", "b"],
        "code_version_by_asset_key": {"a": "1", "b": None},
        "provenance_by_asset_key": {"a": None, "b": None},
        "partition_key": "2026-01-01",
        "partition_key_range": {"start": "2026-01-01", "end": "2026-01-01"},
        "partition_time_window": {"start": "2026-01-01T00:00:00", "end": "2026-01-02T00:00:00"},
        "run_id": "r",
        "job_name": None,
        "retry_number": 2,
        "extras": {"x": [1]},
    }


def test_a_launch_that_dagster_could_not_make() -> None:
    """The context is built and checked as for a real launch."""
    with launched(asset_keys=["b", "a"]), open_dagster_pipes() as pipes:
        assert pipes.asset_keys == ["a", "b"]
    with (
        pytest.raises(ContextError, match="Give a partition or a range"),
        launched(partition_key="a", partition_key_range=("a", "b")),
    ):
        pass


def test_an_op_has_no_assets() -> None:
    """`asset_keys=None`."""
    reported = run_job(
        lambda pipes: pipes.report_custom_message(pipes.is_asset_step), asset_keys=None
    )
    assert reported.custom_messages == [False]


def test_an_exception_is_raised_and_reported() -> None:
    """As under Dagster: forwarded, then raised."""

    def fail(pipes: PipesContext) -> None:
        pipes.log.info("before")
        raise ValueError("bad")

    with launched() as reported:
        with pytest.raises(ValueError, match="bad"), open_dagster_pipes() as pipes:
            fail(pipes)
        assert reported.exception is not None
        assert (reported.exception["name"], reported.exception["message"]) == ("ValueError", "bad")
        assert repr(reported) == (
            "<Reported (closed with ValueError: bad) [\n"
            "    Log(level='INFO', message='before'),\n]>"
        )


def test_a_session_left_open_is_closed_at_the_end() -> None:
    """The next test begins without one."""
    with launched() as reported:
        open_dagster_pipes().log.info("open")
    assert reported.is_closed
    assert not PipesContext.is_initialized()


def test_two_launches_do_not_mix(pipes_launch: PipesLaunch) -> None:
    """A second call of the fixture ends the first launch."""
    first = pipes_launch(asset_keys=["orders"], extras={"limit": 5})
    main()
    second = pipes_launch(asset_keys=["orders"], extras={"limit": 6})
    main()
    assert first.logs == [Log("INFO", "limit 5")]
    assert second.logs == [Log("INFO", "limit 6")]


def test_a_launch_beside_an_open_session_is_an_error() -> None:
    """Its reports would go to the other one."""
    with launched():
        open_dagster_pipes()
        with pytest.raises(DagsterPipesError, match="is open already"), launched():
            pass


SCRIPT = """
import sys
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("limit %s", pipes.get_extra("limit"))
    pipes.report_asset_materialization(metadata={"args": sys.argv[1:]})
    print("printed")
    sys.exit(int(sys.argv[1]))
"""


def test_a_script_in_a_process_of_its_own(tmp_path: Path) -> None:
    """With its exit status, its output and the same typed reports."""
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    run = run_script(path, "3", asset_keys=["orders"], extras={"limit": 5})
    assert (run.returncode, run.stdout, run.stderr) == (3, "printed\n", "")
    assert run.reported.reports == [
        Log("INFO", "limit 5"),
        Materialization("orders", {"args": ["3"]}),
    ]
    assert run.reported.exception is not None
    assert run.reported.exception["name"] == "SystemExit"


def test_output_that_is_not_utf8_is_shown_escaped(tmp_path: Path) -> None:
    """It is the script's business what it prints."""
    path = tmp_path / "job.py"
    path.write_text("import sys\nsys.stdout.buffer.write(b'caf\\xe9')")
    assert run_script(path).stdout == "caf\\xe9"


def test_one_asset_may_be_a_text() -> None:
    """Not one asset for each of its letters."""
    with launched(asset_keys="orders"):
        assert open_dagster_pipes().asset_keys == ["orders"]


def test_an_option_that_does_not_exist(pipes_launch: PipesLaunch) -> None:
    """The error names the right one."""
    with pytest.raises(TypeError, match="no option 'asset_key'; did you mean 'asset_keys'"):
        pipes_launch(asset_key="orders")  # type: ignore[call-arg] # because it is the point


def test_one_materialization_and_one_check_by_name() -> None:
    """Most tests want just that."""
    with launched(asset_keys="orders", extras={"limit": 5}) as reported:
        main()
    assert reported.materialization() == reported.materialization("orders")
    assert reported.materialization("orders").data_version == "1"
    assert not reported.check("bad").passed
    assert reported.check("good", "orders").passed


def test_what_is_missing_is_answered_by_what_is_there() -> None:
    """So that nobody has to print it."""
    with launched(asset_keys=["a", "b"]) as reported:
        with pytest.raises(
            LookupError, match="materialization: there is none; reported was: nothing"
        ):
            reported.materialization()
        with open_dagster_pipes() as pipes:
            pipes.report_asset_materialization(asset_key="a")
            pipes.report_asset_materialization(asset_key="b")
            pipes.report_asset_check("full", True, asset_key="a")
            with pytest.raises(
                LookupError, match=r"there are 2 of it; reported was: a, b\. The session"
            ):
                reported.materialization()
    with pytest.raises(
        LookupError, match="materialization of 'c': there is none; reported was: a, b"
    ):
        reported.materialization("c")
    with pytest.raises(LookupError, match="check 'empty': there is none; reported was: full of a"):
        reported.check("empty")


def report_from_a_worker(number: int) -> None:
    """As the how-to on process pools says."""
    with open_dagster_pipes() as pipes:
        pipes.report_custom_message(number)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_pool_workers_report_arrives(method: str, pipes_launch: PipesLaunch) -> None:
    """However they are started."""
    reported = pipes_launch()
    context = multiprocessing.get_context(method)
    with open_dagster_pipes(), ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(report_from_a_worker, range(4)))
    assert sorted(reported.custom_messages) == [0, 1, 2, 3]
    assert reported.is_closed


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has set itself is there again."""
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", "mine")
    with launched():
        assert os.environ["DAGSTER_PIPES_CONTEXT"] != "mine"
    assert os.environ["DAGSTER_PIPES_CONTEXT"] == "mine"
    assert "DAGSTER_PIPES_MESSAGES" not in os.environ


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"method": "log"', "does not end in a newline"),
        (b"\n", "Expecting value"),
        (b'{"method": "log"}\n[1]\n', "line 2: not a message"),
    ],
)
def test_a_broken_messages_file_is_an_error(content: bytes, complaint: str, tmp_path: Path) -> None:
    """What stops Dagster's reader does not pass here."""
    path = tmp_path / "messages"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_messages(path)
