"""A function with a `with` of its own, called while its caller has the session open."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import NullPipesContext, PipesContext, open_dagster_pipes, with_dagster_pipes
from support.launching import Launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


def work(item: int) -> int:
    """The worker function of the process-pool how-to."""
    with open_dagster_pipes() as pipes:
        pipes.log.info("item %d", item)
    return item


def work_by_close(item: int) -> int:
    pipes = open_dagster_pipes()
    try:
        pipes.log.info("item %d", item)
    finally:
        pipes.close()
    return item


def work_by_wrapper(item: int) -> int:
    with_dagster_pipes(lambda pipes: pipes.log.info("item %d", item))
    return item


def work_by_stack(item: int) -> int:
    with ExitStack() as stack:
        stack.enter_context(open_dagster_pipes()).log.info("item %d", item)
    return item


def work_by_callback(item: int) -> int:
    with ExitStack() as stack:
        pipes = open_dagster_pipes()
        stack.callback(pipes.close)
        pipes.log.info("item %d", item)
    return item


@contextmanager
def session() -> Iterator[PipesContext]:
    with open_dagster_pipes() as pipes:
        yield pipes


def work_by_helper(item: int) -> int:
    with session() as pipes:
        pipes.log.info("item %d", item)
    return item


class Step:
    """Opens in one method, closes in another."""

    def open(self) -> None:
        self.pipes = open_dagster_pipes()

    def close(self) -> None:
        self.pipes.close()


def _in_threads(function: Callable[[int], int]) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(function, range(4)))


def _in_plain_threads(function: Callable[[int], int]) -> None:
    threads = [threading.Thread(target=function, args=(item,)) for item in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_joblib(function: Callable[[int], int]) -> None:
    import joblib

    joblib.Parallel(n_jobs=1)(joblib.delayed(function)(item) for item in range(4))


RUNNERS: dict[str, Callable[[Callable[[int], int]], Any]] = {
    "map": lambda function: list(map(function, range(4))),
    "joblib": _in_joblib,
    "pool": _in_threads,
    "threads": _in_plain_threads,
}
WORKERS = [
    work,
    work_by_close,
    work_by_wrapper,
    work_by_stack,
    work_by_callback,
    work_by_helper,
]


@pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)
@pytest.mark.parametrize("function", WORKERS)
def test_a_worker_function_run_inline_leaves_its_callers_session_open(
    launch: Launch, function: Callable[[int], int], run: Callable[[Any], Any]
) -> None:
    """In the loop of its caller, in threads, by joblib: one `opened`, one `closed`."""
    with open_dagster_pipes() as pipes:
        run(function)
        assert not pipes.is_closed
        pipes.log.info("the caller goes on")
    assert [method for method, _ in launch.sent()].count("opened") == 1
    assert launch.sent()[-1] == ("closed", {})
    logs = launch.logs()
    assert sorted(logs[:-1]) == [f"item {item}" for item in range(4)]
    assert logs[-1] == "the caller goes on"


def test_the_end_of_an_inner_with_has_delivered_what_was_sent(launch: Launch) -> None:
    """As it would in a worker of its own."""
    with open_dagster_pipes(flush_interval=5) as pipes:
        pipes.flush()
        work(1)
        assert launch.logs() == ["item 1"]


def test_an_inner_with_that_fails_leaves_the_session_open(launch: Launch) -> None:
    """What the caller recovers from is not how the job ended."""

    def failing() -> None:
        with open_dagster_pipes():
            raise ZeroDivisionError

    with open_dagster_pipes() as pipes:
        with pytest.raises(ZeroDivisionError):
            failing()
        pipes.log.info("recovered")
    assert launch.sent()[-1] == ("closed", {})


def test_recursion_leaves_the_outermost_session_open(launch: Launch) -> None:
    """The function that opened calls itself."""

    def descend(depth: int) -> None:
        with open_dagster_pipes() as pipes:
            pipes.log.info("down %d", depth)
            if depth:
                descend(depth - 1)
            pipes.log.info("up %d", depth)

    descend(3)
    assert launch.logs() == [f"down {n}" for n in (3, 2, 1, 0)] + [f"up {n}" for n in range(4)]
    assert [method for method, _ in launch.sent()].count("closed") == 1


def test_a_with_in_a_with_of_one_function(launch: Launch) -> None:
    """The inner one ends first; it is the same function, so it owns both."""
    with open_dagster_pipes() as outer:
        outer.log.info("outer")
        work(1)
        with outer:
            pass
        assert outer.is_closed
    assert [method for method, _ in launch.sent()].count("closed") == 1


def test_the_opener_closes_although_others_have_borrowed(launch: Launch) -> None:
    """Also where the opener hands the context to another function to close."""

    def end(pipes: PipesContext) -> None:
        pipes.close()

    pipes = open_dagster_pipes()
    work(1)
    end(pipes)
    assert pipes.is_closed
    work(2)  # a session of its own
    assert [method for method, _ in launch.sent()].count("closed") == 2


def test_open_in_one_method_and_close_in_another(launch: Launch) -> None:
    """Of an object that did not open the session: it may close what its caller has."""
    step = Step()
    step.open()
    assert PipesContext.get() is step.pipes
    step.close()
    assert step.pipes.is_closed


async def awork(item: int) -> None:
    async with open_dagster_pipes() as pipes:
        pipes.log.info("item %d", item)
        await asyncio.sleep(0)


async def awork_by_close(item: int) -> None:
    pipes = open_dagster_pipes()
    pipes.log.info("item %d", item)
    await asyncio.sleep(0)
    await pipes.aclose()


@pytest.mark.parametrize("function", [awork, awork_by_close])
@pytest.mark.parametrize("how", ["await", "gather", "task", "to_thread"])
async def test_a_coroutine_with_a_with_of_its_own_leaves_its_callers_session_open(
    launch: Launch, function: Callable[[int], Any], how: str
) -> None:
    """Awaited, gathered, as a task, or run in a thread's own event loop."""
    async with open_dagster_pipes() as pipes:
        if how == "await":
            for item in range(4):
                await function(item)
        elif how == "gather":
            await asyncio.gather(*map(function, range(4)))
        elif how == "task":
            await asyncio.wait([asyncio.create_task(function(item)) for item in range(4)])
        else:
            for item in range(4):
                await asyncio.to_thread(asyncio.run, function(item))
        assert not pipes.is_closed
        pipes.log.info("on")
    assert sorted(launch.logs()[:-1]) == [f"item {item}" for item in range(4)]
    assert [method for method, _ in launch.sent()].count("closed") == 1


async def test_a_plain_with_in_a_coroutine_leaves_the_callers_session_open(launch: Launch) -> None:
    """A sync helper called by a coroutine, and one in its thread."""
    async with open_dagster_pipes() as pipes:
        work(1)
        await asyncio.to_thread(work, 2)
        assert not pipes.is_closed
    assert launch.logs() == ["item 1", "item 2"]


def test_workers_of_a_process_pool_and_inline_calls_together(tmp_path: Path) -> None:
    """The same function, in processes and in the loop."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        from concurrent.futures import ProcessPoolExecutor
        from dagsterpipes import open_dagster_pipes

        def work(item):
            with open_dagster_pipes() as pipes:
                pipes.log.info("item %d", item)

        if __name__ == "__main__":
            with open_dagster_pipes() as pipes:
                with ProcessPoolExecutor(2) as pool:
                    list(pool.map(work, range(4)))
                list(map(work, range(4, 8)))
        """
    )
    assert result.returncode == 0, result.stderr
    assert sorted(launch.logs()) == [f"item {item}" for item in range(8)]
    methods = [method for method, _ in launch.sent()]
    assert methods.count("opened") == methods.count("closed") == 1
    assert methods[-1] == "closed"


def test_outside_dagster_an_inner_with_leaves_the_context_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both kinds of context have one rule."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    with open_dagster_pipes() as pipes:
        assert isinstance(pipes, NullPipesContext)
        for run in RUNNERS.values():
            run(work)
        assert not pipes.is_closed
        pipes.report_asset_materialization()
    assert pipes.is_closed


def test_a_script_run_by_a_job_leaves_the_jobs_session_open(tmp_path: Path) -> None:
    """Its `with` is at the top of a module, as runpy or an import runs it."""
    launch = Launch(tmp_path)
    (tmp_path / "step.py").write_text(
        "from dagsterpipes import open_dagster_pipes\n"
        "with open_dagster_pipes() as pipes:\n"
        "    pipes.log.info('step')\n"
    )
    result = launch.run(
        """
        import runpy
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            runpy.run_module("step")
            import step
            pipes.log.info("job")
        """,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert launch.logs() == ["step", "step", "job"]
    assert launch.sent()[-1] == ("closed", {})


def test_scripts_that_open_at_the_top_of_two_modules(tmp_path: Path) -> None:
    """An imported module opens for itself; the end of the process closes."""
    launch = Launch(tmp_path)
    (tmp_path / "helper.py").write_text(
        "from dagsterpipes import open_dagster_pipes\n"
        "pipes = open_dagster_pipes()\n"
        "pipes.log.info('helper')\n"
    )
    result = launch.run(
        """
        from dagsterpipes import open_dagster_pipes
        import helper
        with open_dagster_pipes() as pipes:
            pipes.log.info("script")
        """,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert launch.logs() == ["helper", "script"]
    assert launch.sent()[-1] == ("closed", {})
