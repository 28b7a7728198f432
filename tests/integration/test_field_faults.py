"""What people met in the field, each test named after what they saw."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, create_autospec

import pytest

from dagsterpipes import (
    ChannelError,
    ContextError,
    PipesContext,
    PipesContextLoader,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    PipesEnvVarParamsLoader,
    PipesMappingParamsLoader,
    PipesMessageWriter,
    encode_param,
    open_dagster_pipes,
)
from support.launching import CONTEXT, Launch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """This process, launched by Dagster."""
    launch = Launch(tmp_path)
    for name, value in launch.env.items():
        monkeypatch.setenv(name, value)
    yield launch
    if PipesContext.is_initialized():
        PipesContext.get().close()


def params_of(context: Any, messages: Any) -> PipesMappingParamsLoader:
    return PipesMappingParamsLoader(
        {
            "DAGSTER_PIPES_CONTEXT": encode_param(context),
            "DAGSTER_PIPES_MESSAGES": encode_param(messages),
        }
    )


# -- secrets in errors ---------------------------------------------------------------------------

SECRET = "S3CR3T-T0KEN"


def test_a_token_in_the_params_is_not_in_the_error_of_a_writer_that_quotes_it() -> None:
    """What it was given is left out of its text; its type and the rest stay."""

    class Quoting(PipesMessageWriter[Any]):
        def open(self, params: Any) -> Any:
            raise ValueError(f"cannot connect with {params} to {params['nested'][0]['token']}")

    params = params_of({"data": CONTEXT}, {"nested": [{"token": SECRET}]})
    with pytest.raises(
        ChannelError, match=r"Quoting.open\(\) raised ValueError: cannot connect"
    ) as e:
        open_dagster_pipes(params_loader=params, message_writer=Quoting())
    assert SECRET not in str(e.value)


def test_a_token_in_the_context_is_not_in_the_error_of_a_loader_that_quotes_it() -> None:
    """The context may be part of the params; an error of thousands of characters is cut."""

    class Quoting(PipesContextLoader):
        def load_context(self, params: Any) -> Any:
            raise LookupError(f"{params['data']['extras']} has no bucket" + "!" * 100_000)

    context = CONTEXT | {"extras": {"password": SECRET}}
    params = params_of({"data": context}, {"path": "/x"})
    with pytest.raises(ContextError, match="has no bucket!") as caught:
        open_dagster_pipes(params_loader=params, context_loader=Quoting())
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["path", "stdio", "buffered_stdio"])
def test_a_value_of_the_wrong_shape_is_described_and_not_quoted(key: str) -> None:
    """By its type and its length."""
    params = params_of({"data": CONTEXT}, {key: [SECRET]})
    with pytest.raises(Exception, match="got a value of type list, length 1") as caught:
        open_dagster_pipes(params_loader=params)
    assert SECRET not in str(caught.value)


# -- sub-interpreters ----------------------------------------------------------------------------


def test_a_sub_interpreter_gets_a_clear_error_and_the_process_lives_on(tmp_path: Path) -> None:
    """It was a raw `ValueError`, a wait of 30 seconds, and the end of the whole process."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import sys
        if sys.version_info < (3, 13):
            import _xxsubinterpreters as interpreters
            other = interpreters.create(isolated=False)
        else:
            import _interpreters as interpreters
            other = interpreters.create("legacy")
        interpreters.run_string(other, '''if True:
            from dagsterpipes import DagsterPipesError, PipesContext, open_dagster_pipes
            try:
                open_dagster_pipes()
            except DagsterPipesError as error:
                print(error)
            print(PipesContext.is_initialized())
        ''')
        interpreters.destroy(other)
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.log.info("from the main one")
        """,
        timeout=20,
    )
    assert result.returncode == 0, result
    assert "cannot be opened in a sub-interpreter" in result.stdout
    assert "False" in result.stdout
    assert launch.logs() == ["from the main one"]


# -- the constructor of the reference ------------------------------------------------------------


def test_the_constructor_of_the_reference_opens_a_session(launch: Launch) -> None:
    """As people who write clients that run in the same process use it."""
    pipes = PipesContext(
        PipesEnvVarParamsLoader(), PipesDefaultContextLoader(), PipesDefaultMessageWriter()
    )
    assert pipes.asset_key == "a"
    pipes.report_asset_materialization({"rows": 1})
    pipes.close()
    assert [method for method, _ in launch.sent()] == [
        "opened",
        "report_asset_materialization",
        "closed",
    ]
    with pytest.raises(TypeError):
        PipesContext()  # type: ignore[call-arg]


def test_an_error_in_the_constructor_leaves_nothing_behind(launch: Launch) -> None:
    """No thread, and the next session opens."""
    import threading

    before = threading.active_count()
    loader = params_of({"path": "/nowhere"}, {"path": "/x"})
    with pytest.raises(ContextError):
        PipesContext(loader, PipesDefaultContextLoader(), PipesDefaultMessageWriter())
    assert threading.active_count() == before
    assert not PipesContext.is_initialized()
    with open_dagster_pipes() as pipes:
        pipes.log.info("next")
    assert launch.logs() == ["next"]


async def test_the_constructor_under_an_event_loop_opens_by_itself(launch: Launch) -> None:
    """The first use waits for it."""
    pipes = PipesContext(
        PipesEnvVarParamsLoader(), PipesDefaultContextLoader(), PipesDefaultMessageWriter()
    )
    pipes.log.info("in a loop")
    await pipes.aclose()
    assert launch.logs() == ["in a loop"]


# -- mocks of users' unit tests --------------------------------------------------------------------


def test_a_mock_of_the_context_has_its_logger() -> None:
    """`MagicMock(spec=PipesContext)` and `create_autospec`, as users' unit tests make them."""
    mock: Any
    for mock in (
        MagicMock(spec=PipesContext),
        MagicMock(spec_set=PipesContext),
        create_autospec(PipesContext, instance=True),
    ):
        mock.log.info("x %d", 1)
        mock.log.info.assert_called_once_with("x %d", 1)
        mock.log("x", level="INFO")
        mock.report_asset_materialization(metadata={"rows": 1})
        mock.report_asset_materialization.assert_called_once_with(metadata={"rows": 1})
        with pytest.raises(AttributeError):
            mock.report_asset_materialisation()
    with pytest.raises(TypeError):
        create_autospec(PipesContext, instance=True).report_asset_materialization(rows=1)


def test_every_public_attribute_is_there_on_the_class(launch: Launch) -> None:
    """What an open session has, a mock of its class has."""
    with open_dagster_pipes() as pipes:
        names = {name for name in dir(pipes) if not name.startswith("_")}
    assert names <= set(dir(PipesContext))
    assert names >= {"log", "asset_key", "extras", "run_id", "track"}


# -- outside Dagster ------------------------------------------------------------------------------

STANDALONE = """
import logging, warnings
{before}
from dagsterpipes import open_dagster_pipes
for _ in range(2):
    with open_dagster_pipes() as pipes:
        pipes.log.info("working")
"""


@pytest.mark.parametrize(
    ("before", "flags", "count"),
    [
        ("", [], 1),
        ("warnings.simplefilter('always')", [], 1),
        ("warnings.filterwarnings('ignore', 'Dagster did not launch')", [], 0),
        ("", ["-W", "ignore"], 0),
    ],
)
def test_a_job_whose_environment_was_stripped_says_so_once(
    tmp_path: Path, before: str, flags: list[str], count: int
) -> None:
    """One notice on stderr, that can be silenced as every warning."""
    launch = Launch(tmp_path)
    launch.env.clear()
    result = launch.run(STANDALONE.format(before=before), flags=flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Dagster did not launch this process") == count
    assert result.stderr.count("working") == 2


def test_a_launched_job_hears_nothing_of_it(tmp_path: Path) -> None:
    """Stderr stays as it is."""
    launch = Launch(tmp_path)
    assert launch.run(STANDALONE.format(before="")).stderr == ""


# -- a fork while threads are refused --------------------------------------------------------------

CLOSED_AND_FORKED = """
import os, sys, threading, time, warnings
from dagsterpipes import SessionClosedError, open_dagster_pipes

warnings.simplefilter("ignore")
with open_dagster_pipes({options}) as pipes:
    pipes.log.info("inside")
{second}

def refused():
    while True:
        try:
            pipes.log.warning("late")
        except SessionClosedError:
            pass

for _ in range(4):
    threading.Thread(target=refused, daemon=True).start()
progress = pipes.progress("rows", 10)
for _ in range(20):
    child = os.fork()
    if child == 0:
        try:
            pipes.log.warning("from the child")
        except SessionClosedError:
            pass
        progress(5)
        os._exit(0)
    end = time.monotonic() + 10
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            sys.exit("the child hangs")
        time.sleep(0.001)
{last}
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("options", "second", "last"),
    [
        ("", "", ""),
        ("capture_stdio=True", "", ""),
        ("", "other = open_dagster_pipes(); other.log.info('second')", "other.close()"),
    ],
    ids=["closed", "captured", "second session"],
)
def test_a_forked_child_that_logs_to_a_closed_session_does_not_hang(
    tmp_path: Path, options: str, second: str, last: str
) -> None:
    """Threads of its parent held the lock of the outbox at the fork."""
    launch = Launch(tmp_path)
    script = CLOSED_AND_FORKED.format(options=options, second=second, last=last)
    result = launch.run(script, timeout=60)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
    methods = [method for method, _ in launch.sent()]
    assert methods.count("opened") == methods.count("closed") == (2 if second else 1)


# -- nothing is imported on the way out ------------------------------------------------------------

IMPORTS = """
import sys
from dagsterpipes import open_dagster_pipes
{lifecycle}
"""
LIFECYCLES = {
    "with": """
known = set()
try:
    with open_dagster_pipes({options}) as pipes:
        pipes.log.info("x")
        pipes.flush()
        known |= set(sys.modules)
        raise ValueError("the job")
except ValueError:
    print(sorted(set(sys.modules) - known))
""",
    "by hand": """
pipes = open_dagster_pipes({options})
pipes.log.info("x")
pipes.flush()
known = set(sys.modules)
pipes.close(ValueError("the job"))
print(sorted(set(sys.modules) - known))
""",
    "async with": """
import asyncio
known = set()
async def main():
    async with open_dagster_pipes({options}) as pipes:
        pipes.log.info("x")
        await pipes.aflush()
        known.update(sys.modules)
        raise ValueError("the job")
try:
    asyncio.run(main())
except ValueError:
    print(sorted(set(sys.modules) - known))
""",
    "trio": """
import trio
known = set()
async def main():
    async with open_dagster_pipes({options}) as pipes:
        pipes.log.info("x")
        await pipes.aflush()
        known.update(sys.modules)
        raise ValueError("the job")
try:
    trio.run(main)
except ValueError:
    print(sorted(set(sys.modules) - known))
""",
    "exit": """
import atexit
pipes = open_dagster_pipes({options})
pipes.log.info("x")
pipes.flush()
known = set(sys.modules)
from dagsterpipes._session import process
close = process._close_at_exit
def traced(session):
    close(session)
    print(sorted(set(sys.modules) - known - {{"traceback", "linecache", "tokenize"}}))
process._close_at_exit = traced
raise ValueError("the job")
""",
}


@pytest.mark.parametrize("options", ["", "capture_stdio=True", "capture_logging=True"])
@pytest.mark.parametrize("lifecycle", LIFECYCLES)
def test_nothing_is_imported_between_the_opening_and_the_end(
    tmp_path: Path, lifecycle: str, options: str
) -> None:
    """The lock of an import that a signal left half done cannot stop a close that imports nothing."""
    launch = Launch(tmp_path)
    script = IMPORTS.format(lifecycle=LIFECYCLES[lifecycle].format(options=options))
    result = launch.run(script)
    assert result.stdout == "[]\n", result
    assert launch.sent()[-1][1]["exception"]["name"] == "ValueError"
