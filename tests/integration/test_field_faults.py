"""What people met in the field, each test named after what they saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
