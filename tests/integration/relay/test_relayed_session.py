"""What a worker's block is: a session like any other, whose lines come through the driver's."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import (
    DagsterPipesError,
    NullPipesContext,
    PipesContext,
    PipesLogHandler,
    SessionClosedError,
    open_dagster_pipes,
)
from dagsterpipes._relay.relay import open_relay
from support.launching import Launch
from support.relaying import DATA, KeepingSession, finish, start_worker

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_reports_through_the_drivers_session(tmp_path: Path) -> None:
    """One `opened`, one `closed`, at the end; the worker's lines behind its name; its report."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import multiprocessing
        from dagsterpipes import PipesContext, open_dagster_pipes

        def task(n):
            pipes = PipesContext.get()
            for i in pipes.track(range(n), "items"):
                pipes.log.info("line %d", i)
            pipes.report_asset_materialization({"rows": n})
            return pipes.run_id, pipes.asset_key

        if __name__ == "__main__":
            with open_dagster_pipes() as pipes:
                with pipes.relay("tcp://") as relay:
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        print(pool.apply(relay.wrap(task, "w"), (3,)))
                pipes.log.info("the end")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "('run', 'a')\n"
    methods = [method for method, _ in launch.sent()]
    assert methods[0] == "opened"
    assert methods[-2:] == ["log", "closed"]
    assert methods.count("opened") == methods.count("closed") == 1
    assert methods.count("report_asset_materialization") == 1
    assert [text for text in launch.logs() if "line" in text] == [f"[w] line {i}" for i in range(3)]
    assert any(text.startswith("[w] items: 3 done") for text in launch.logs())


def test_the_sessions_close_closes_the_relay(tmp_path: Path) -> None:
    """A worker that goes on is refused; `closed` is last."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        from dagsterpipes import DagsterPipesError, open_dagster_pipes
        with open_dagster_pipes() as pipes:
            relay = pipes.relay("tcp://127.0.0.1")
            block = relay.open("w")
            inner = block.__enter__()
            inner.log.info("early")
            inner.flush()
        try:
            for _ in range(1000):
                inner.log.info("late")
                inner.flush()
        except DagsterPipesError as error:
            print(type(error).__name__)
        """
    )
    assert done.stdout.strip() in ("MessagesLostError", "SessionClosedError"), done.stderr
    assert launch.logs() == ["[w] early"]
    assert launch.sent()[-1][0] == "closed"


def test_an_exception_is_logged_and_raised(relay: Any, session: KeepingSession) -> None:
    """With its traceback; the reports of the block are not sent, and the log says so."""

    def task() -> None:
        PipesContext.get().report_asset_materialization(asset_key="a")
        raise ValueError("no such table")

    with pytest.raises(ValueError, match="no such table"):
        relay.wrap(task, "w")()
    (message,) = session.messages()
    assert message["params"]["level"] == "ERROR"
    text = message["params"]["message"]
    assert text.startswith("[w] Traceback (most recent call last):")
    assert "ValueError: no such table\n(1 report of this block not sent, because it failed)" in text
    # Another attempt may report it.
    with relay.open("w") as pipes:
        pipes.report_asset_materialization(asset_key="a")
    assert session.messages()[-1]["method"] == "report_asset_materialization"


def test_leaving_by_success(relay: Any, session: KeepingSession) -> None:
    """`sys.exit(0)` is no failure."""
    with pytest.raises(SystemExit), relay.open("w") as pipes:
        pipes.report_asset_materialization(asset_key="a")
        sys.exit(0)
    assert [one["method"] for one in session.messages()] == ["report_asset_materialization"]


def test_a_block_keeps_the_rules_of_a_session(relay: Any) -> None:
    """What Dagster could not take is refused at the call, in the worker."""
    with relay.open("w") as pipes:
        with pytest.raises(DagsterPipesError, match="Invalid asset key"):
            pipes.report_asset_materialization(asset_key="x")
        pipes.report_asset_materialization(asset_key="a")
        with pytest.raises(DagsterPipesError, match="already been materialized"):
            pipes.report_asset_materialization(asset_key="a")
    with pytest.raises(SessionClosedError):
        pipes.report_asset_materialization(asset_key="b")


def test_reports_wait_for_the_end_and_flush_does_not(relay: Any, session: KeepingSession) -> None:
    with relay.open("w") as pipes:
        pipes.report_asset_materialization(asset_key="a")
        pipes.report_custom_message({"k": 1})
        pipes.log.warning("now")
        pipes.flush()
        assert [one["method"] for one in session.messages()] == ["report_custom_message", "log"]
    assert len(session.messages()) == 3


async def test_coroutines(relay: Any, session: KeepingSession) -> None:
    """`async with`, and a wrapped coroutine function; tasks side by side have a context each."""

    async def task(number: int) -> str:
        await asyncio.sleep(0)
        PipesContext.get().log.info("task %d", number)
        return PipesContext.get().run_id

    wrapped = relay.wrap(task, "w")
    assert asyncio.iscoroutinefunction(wrapped)
    assert await asyncio.gather(*(wrapped(number) for number in range(5))) == ["run"] * 5
    async with relay.open("v") as pipes:
        pipes.log.info("task 5")
    assert not PipesContext.is_initialized()
    assert sorted(session.logs()) == [*["[v] task 5"], *[f"[w] task {n}" for n in range(5)]]


def test_helpers_do_not_know_where_they_run(relay: Any, session: KeepingSession) -> None:
    """One that opens the session itself gets the block, and does not end it."""

    def helper() -> None:
        with open_dagster_pipes() as pipes:
            pipes.log.info("helper")

    with relay.open("w") as pipes:
        helper()
        assert open_dagster_pipes() is pipes
        logger = logging.Logger("application")
        logger.addHandler(PipesLogHandler())
        logger.info("from a handler")
        pipes.report_asset_materialization(asset_key="a")
    assert session.logs() == ["[w] helper", "[w] from a handler"]
    assert session.messages()[-1]["method"] == "report_asset_materialization"


def test_a_relay_travels_by_pickle(relay: Any) -> None:
    """Without what belongs to the driver: its close in a worker is not the driver's."""
    copy = pickle.loads(pickle.dumps(relay))
    copy.close()
    with copy.open("w") as pipes:
        pipes.log.info("still open")
        assert pipes.asset_keys == DATA["asset_keys"]


def test_a_name_with_odd_characters(relay: Any, session: KeepingSession) -> None:
    """It is text, whatever it holds; and stands before every line of every level."""
    name = 'a "b" \1\n%s é \\'
    with relay.open(name) as pipes:
        pipes.log.info("info")
        pipes.log.error("error %s", "\2é")
    assert session.logs() == [f"[{name}] info", f"[{name}] error \2é"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_that_forks(relay: Any, session: KeepingSession) -> None:
    """The child is a worker of its own: nothing twice, nothing lost."""
    worker = start_worker(
        relay,
        """
        import multiprocessing
        from dagsterpipes import PipesContext
        def child(n):
            for i in range(100):
                PipesContext.get().log.info("child %d line %d", n, i)
        with relay.open("w") as pipes:
            for i in range(100):
                pipes.log.info("parent line %d", i)
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=child, args=(n,)) for n in range(2)]
            for one in children: one.start()
            for i in range(100, 200):
                pipes.log.info("parent line %d", i)
            for one in children: one.join()
        """,
    )
    finish(worker)
    texts = session.logs()
    assert [text for text in texts if "parent" in text] == [
        f"[w] parent line {i}" for i in range(200)
    ]
    for n in range(2):
        assert [t for t in texts if f"child {n}" in t] == [
            f"[w] child {n} line {i}" for i in range(100)
        ]


def test_outside_dagster(capsys: pytest.CaptureFixture[str]) -> None:
    """The same code runs on a laptop: what workers log is shown, their reports are checked."""
    with open_dagster_pipes(show_reports=True) as pipes:
        assert isinstance(pipes, NullPipesContext)
        with pipes.relay("tcp://") as relay, relay.open("w") as inner:
            inner.log.info("hello")
            inner.report_asset_materialization({"rows": 1})
    shown = capsys.readouterr().err
    assert "INFO     [w] hello" in shown
    assert "rows" in shown


@pytest.mark.parametrize("where", ["http://x", "tcp://0.0.0.0", "tcp://h:99999", 3, None])
def test_bad_places_are_refused(where: Any) -> None:
    with open_dagster_pipes() as pipes, pytest.raises(ValueError, match=r"^relay\(\): "):
        pipes.relay(where)


def test_the_log_level_and_the_joining_of_lines_are_the_drivers() -> None:
    """Workers take the options of the session."""
    session = KeepingSession(log_level=30, coalesce_logs=10.0)
    with open_relay("tcp://", session, PipesContext, None) as relay, relay.open("w") as pipes:
        pipes.log.info("left out")
        pipes.log.warning("one")
        pipes.log.warning("two")
    assert "\n".join(session.logs()) == "[w] one\n[w] two"
    assert json.dumps(session.messages()).count("left out") == 0


def test_threads_of_a_task_use_its_context(relay: Any, session: KeepingSession) -> None:
    """Where they are given the pipes, or a copy of the context, as `asyncio.to_thread` makes it."""
    with relay.open("w") as pipes:
        thread = threading.Thread(target=pipes.log.info, args=("by hand",))
        thread.start()
        thread.join()
        asyncio.run(asyncio.to_thread(lambda: PipesContext.get().log.info("by copy")))
    assert session.logs() == ["[w] by hand", "[w] by copy"]


def test_a_failing_task_with_the_driver_gone(relay: Any) -> None:
    """The task's own error is the one that is raised."""
    relay.close()
    with warnings.catch_warnings(), pytest.raises(ValueError, match="mine"):
        warnings.simplefilter("ignore")
        with relay.open("w"):
            raise ValueError("mine")
