"""One session at a time: what a second opening, a close, and a failure of either leave behind."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dagsterpipes
from dagsterpipes import (
    ChannelError,
    DagsterPipesError,
    DagsterPipesWarning,
    NullPipesContext,
    PipesContext,
    PipesDefaultMessageWriter,
    PipesEnvVarParamsLoader,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    SessionClosedError,
    open_dagster_pipes,
    with_dagster_pipes,
)
from support.launching import Launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """This process, launched by Dagster."""
    launch = Launch(tmp_path)
    for name, value in launch.env.items():
        monkeypatch.setenv(name, value)
    yield launch
    close_all()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, not launched by Dagster."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    yield
    close_all()


def close_all() -> None:
    if PipesContext.is_initialized():
        PipesContext.get().close()


def methods(launch: Launch) -> list[str]:
    return [method for method, _ in launch.sent()]


# -- opening twice -------------------------------------------------------------------------------


def test_a_second_opening_gives_the_open_session(launch: Launch) -> None:
    """Also from another thread; its options mean nothing then, and there is one `opened`."""
    first = open_dagster_pipes()
    assert open_dagster_pipes(flush_interval=5, params_loader=PipesEnvVarParamsLoader()) is first
    seen: list[PipesContext] = []
    thread = threading.Thread(target=lambda: seen.append(open_dagster_pipes()))
    thread.start()
    thread.join()
    assert seen == [first]
    assert PipesContext.get() is first
    with first as entered:
        assert entered is first
    assert methods(launch) == ["opened", "closed"]


def test_many_threads_that_open_at_once_get_one_session(launch: Launch) -> None:
    """Whoever is first, everybody can use it."""
    seen: list[PipesContext] = []
    start = threading.Barrier(8)

    def opener() -> None:
        start.wait()
        pipes = open_dagster_pipes()
        pipes.log.info("here")
        seen.append(pipes)

    threads = [threading.Thread(target=opener) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, seen))) == 1
    seen[0].close()
    assert methods(launch) == ["opened", *["log"] * 8, "closed"]


def test_a_second_opening_in_a_coroutine_gives_the_open_session(launch: Launch) -> None:
    """Whether the first one is open already, or still being opened."""

    async def main() -> None:
        first = open_dagster_pipes()
        assert open_dagster_pipes() is first
        async with first as entered:
            assert entered is first is open_dagster_pipes() is PipesContext.get()

    asyncio.run(main())
    assert methods(launch) == ["opened", "closed"]


@pytest.mark.usefixtures("nobody")
def test_outside_dagster_it_is_the_same() -> None:
    """The same context while it is open, a new one after that."""
    first = open_dagster_pipes()
    assert isinstance(first, NullPipesContext)
    assert open_dagster_pipes() is first is PipesContext.get()
    first.close()
    first.close()
    assert not PipesContext.is_initialized()
    second = open_dagster_pipes()
    assert second is not first


# -- closing, and opening again ------------------------------------------------------------------


def reopen_sync() -> None:
    for _ in range(3):
        with open_dagster_pipes() as pipes:
            pipes.report_asset_materialization()


def reopen_by_hand() -> None:
    for _ in range(3):
        pipes = open_dagster_pipes()
        pipes.report_asset_materialization()
        pipes.close()


def reopen_async() -> None:
    async def main() -> None:
        for _ in range(3):
            async with open_dagster_pipes() as pipes:
                pipes.report_asset_materialization()

    asyncio.run(main())


def reopen_in_new_loops() -> None:
    async def main(pipes: PipesContext) -> None:
        pipes.report_asset_materialization()

    for _ in range(3):
        with_dagster_pipes(main)


@pytest.mark.parametrize("reopen", [reopen_sync, reopen_by_hand, reopen_async, reopen_in_new_loops])
def test_after_a_close_a_new_session_can_be_opened(
    reopen: Callable[[], None], launch: Launch
) -> None:
    """Cells of a notebook, warm starts of a Lambda function: each session knows nothing of the last."""
    reopen()
    assert methods(launch) == ["opened", "report_asset_materialization", "closed"] * 3


def test_whoever_opens_during_a_close_waits_for_its_end(launch: Launch) -> None:
    """The messages of two sessions never mix."""
    writing = threading.Event()
    go_on = threading.Event()

    class Slow(PipesDefaultMessageWriter):
        @contextmanager
        def open(self, params: Any) -> Iterator[Any]:
            with super().open(params) as channel:
                yield channel
                writing.set()
                assert go_on.wait(30)

    first = open_dagster_pipes(message_writer=Slow())
    closer = threading.Thread(target=first.close)
    closer.start()
    assert writing.wait(30)
    assert first.is_closed
    opened: list[PipesContext] = []
    opener = threading.Thread(target=lambda: opened.append(open_dagster_pipes()))
    opener.start()
    opener.join(0.05)
    assert opened == []
    go_on.set()
    opener.join()
    closer.join()
    assert opened[0] is not first
    opened[0].close()
    assert methods(launch) == ["opened", "closed"] * 2


def test_close_is_idempotent(launch: Launch) -> None:
    """By any way, any number of times, with an exception or without: the first one counts."""
    with open_dagster_pipes() as pipes:
        pipes.close(ValueError("first"))
        pipes.close()
        pipes.close(KeyError("second"))
        asyncio.run(pipes.aclose())
    pipes.close()
    assert methods(launch) == ["opened", "closed"]
    assert launch.sent()[-1][1]["exception"]["message"] == "first"


AFTER: dict[str, Callable[[PipesContext], object]] = {
    "log.debug": lambda pipes: pipes.log.debug("x"),
    "log.info": lambda pipes: pipes.log.info("x"),
    "log.info with arguments": lambda pipes: pipes.log.info("%d", 1),
    "log.exception": lambda pipes: pipes.log.exception("x"),
    "log.log": lambda pipes: pipes.log.log(20, "x"),
    "log of a child": lambda pipes: pipes.log.getChild("c").warning("x"),
    "log called": lambda pipes: pipes.log("x"),
    "materialization": lambda pipes: pipes.report_asset_materialization(),
    "check": lambda pipes: pipes.report_asset_check("c", passed=True),
    "custom message": lambda pipes: pipes.report_custom_message(1),
    "external stream": lambda pipes: pipes.log_external_stream("stdout", "x"),
    "flush": lambda pipes: pipes.flush(),
    "aflush": lambda pipes: asyncio.run(pipes.aflush()),
}


@pytest.mark.parametrize("call", AFTER)
def test_calls_after_the_close_raise(call: str, launch: Launch) -> None:
    """Nothing is lost quietly: whoever says something to a closed session hears of it."""
    with open_dagster_pipes() as pipes:
        pipes.log.info("in time")
    with pytest.raises(SessionClosedError, match="session is closed"):
        AFTER[call](pipes)
    assert methods(launch) == ["opened", "log", "closed"]


def test_progress_after_the_close_warns_and_goes_on(launch: Launch) -> None:
    """Progress never stops a job."""
    with open_dagster_pipes() as pipes:
        pass
    with pytest.warns(DagsterPipesWarning, match="SessionClosedError"):
        assert list(pipes.track([1])) == [1]
    assert methods(launch) == ["opened", "closed"]


def test_a_closed_session_still_answers(launch: Launch) -> None:
    """Facts, and whether it is closed; its logger hears of a new session nothing."""
    pipes = open_dagster_pipes()
    assert not pipes.is_closed
    pipes.close()
    assert pipes.is_closed
    assert (pipes.asset_key, pipes.run_id, pipes.extras) == ("a", "run", {})
    with open_dagster_pipes(), pytest.raises(SessionClosedError):
        pipes.log.info("to the old one")
    assert methods(launch) == ["opened", "closed"] * 2


# -- the singleton -------------------------------------------------------------------------------


def test_get_and_is_initialized(launch: Launch) -> None:
    """They know of a session from its opening to its close."""
    del launch
    for _ in range(2):
        assert not PipesContext.is_initialized()
        assert not PipesContext.is_initialized()
        with pytest.raises(DagsterPipesError, match="You must call `open_dagster_pipes\\(\\)`"):
            PipesContext.get()
        with open_dagster_pipes() as pipes:
            assert PipesContext.is_initialized()
            assert PipesContext.get() is pipes


def test_set(launch: Launch) -> None:
    """A test of a job puts in what it likes, and takes it out again."""
    del launch
    mine = NullPipesContext()
    PipesContext.set(mine)
    assert PipesContext.get() is open_dagster_pipes() is mine
    PipesContext.set(None)
    assert not PipesContext.is_initialized()
    pipes = open_dagster_pipes()
    assert pipes is not mine
    pipes.close()


# -- failing -------------------------------------------------------------------------------------


class Broken(PipesMessageWriter[Any]):
    """Fails to open."""

    @contextmanager
    def open(self, params: Any) -> Iterator[Any]:
        raise ConnectionError("no route to host")
        yield


class BrokenLater(PipesDefaultMessageWriter):
    """Fails when everything is open but the first message."""

    def get_opened_extras(self) -> Any:
        raise ZeroDivisionError


def fail_sync(**options: Any) -> None:
    with pytest.raises(ChannelError):
        open_dagster_pipes(**options)


def fail_async(**options: Any) -> None:
    async def main() -> None:
        with pytest.raises(ChannelError):
            async with open_dagster_pipes(**options):
                raise AssertionError("entered")

    asyncio.run(main())


def fail_unawaited(**options: Any) -> None:
    async def main() -> None:
        pipes = open_dagster_pipes(**options)
        with pytest.raises(ChannelError):
            _ = pipes.asset_key
        with pytest.raises(ChannelError):
            pipes.log.info("x")
        with pytest.raises(ChannelError):
            pipes.flush()
        assert pipes.is_closed
        pipes.close()

    asyncio.run(main())


def open_files() -> list[str]:
    """What this process has open; the descriptor that lists them is gone by then."""
    links = list(Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").exists() else []
    return [str(link.resolve()) for link in links]


@pytest.mark.parametrize("fail", [fail_sync, fail_async, fail_unawaited])
@pytest.mark.parametrize("writer", [Broken, BrokenLater])
def test_a_failed_opening_leaves_nothing_behind(
    writer: type[Any], fail: Callable[..., None], launch: Launch
) -> None:
    """No session, message, thread, file, handler or signal handler; and opening again needs no wait."""
    import signal

    handlers = list(logging.getLogger().handlers)
    threads = set(threading.enumerate())
    before = time.monotonic()
    for _ in range(2):
        fail(message_writer=writer(), capture_logging=True)
        assert not PipesContext.is_initialized()
    assert launch.messages() == []
    assert logging.getLogger().handlers == handlers
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "DAGSTERPIPES_SESSION" not in os.environ
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
    assert str(launch.messages_path) not in open_files()
    with open_dagster_pipes() as pipes:
        pipes.log.info("works")
    assert time.monotonic() < before + 15
    assert methods(launch) == ["opened", "log", "closed"]


def test_a_capture_that_cannot_start_leaves_nothing_behind(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler of the root logger is gone again."""
    from dagsterpipes._session.stdio import capture

    def no_pipe() -> None:
        raise OSError(24, "Too many open files")

    handlers = list(logging.getLogger().handlers)
    with monkeypatch.context() as patch:
        patch.setattr(capture, "open_pipe", no_pipe)
        fail_sync(capture_stdio=True, capture_logging=True)
    assert logging.getLogger().handlers == handlers
    assert launch.messages() == []
    with open_dagster_pipes():
        pass
    assert methods(launch) == ["opened", "closed"]


@pytest.mark.parametrize(
    "options",
    [
        {"flush_interval": -1},
        {"buffer_size": 10},
        {"on_full": "explode"},
        {"close_timeout": float("nan")},
        {"log_level": "LOUD"},
        {"coalesce_logs": "soon"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_wrong_option_opens_nothing(options: Any, launch: Launch) -> None:
    """The error names the option; the next opening is not touched by it."""
    with pytest.raises(ValueError, match=rf"open_dagster_pipes\(\): {next(iter(options))} must be"):
        open_dagster_pipes(**options)
    assert not PipesContext.is_initialized()
    with open_dagster_pipes():
        pass
    assert methods(launch) == ["opened", "closed"]


@pytest.mark.parametrize("name", ["DAGSTERPIPES_COALESCE_LOGS", "DAGSTERPIPES_LOG_LEVEL"])
def test_a_wrong_variable_of_ours_opens_nothing(
    name: str, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable."""
    monkeypatch.setenv(name, "soon")
    with pytest.raises(
        DagsterPipesError, match=f"Environment variable {name} must be .* got 'soon'"
    ):
        open_dagster_pipes()
    assert not PipesContext.is_initialized()
    assert launch.messages() == []


def test_a_close_that_fails_ends_the_session_too(launch: Launch) -> None:
    """What the writer raises while it is left is an error of ours; a new session can be opened."""

    class Leaving(PipesDefaultMessageWriter):
        @contextmanager
        def open(self, params: Any) -> Iterator[Any]:
            with super().open(params) as channel:
                yield channel
            raise ConnectionError("the other end hung up")

    pipes = open_dagster_pipes(message_writer=Leaving())
    with pytest.raises(ChannelError, match="failed to close: the other end hung up"):
        pipes.close()
    pipes.close()
    assert not PipesContext.is_initialized()
    with open_dagster_pipes():
        pass
    assert methods(launch) == ["opened", "closed"] * 2


def test_wrong_exception_closes_nothing(launch: Launch) -> None:
    """`close` with something that describes no exception raises; the session goes on."""
    with open_dagster_pipes() as pipes:
        with pytest.raises(DagsterPipesError, match="close"):
            pipes.close({"no": "message"})
        assert not pipes.is_closed
        pipes.log.info("goes on")
    assert methods(launch) == ["opened", "log", "closed"]


def test_a_context_tells_what_it_is(launch: Launch) -> None:
    """In a debugger and in a log."""
    pipes = open_dagster_pipes()
    assert repr(pipes) == f"<PipesContext of asset 'a', run {pipes.run_id!r}, open>"
    pipes.close()
    assert repr(pipes).endswith(", closed>")
    assert repr(PipesContext.__new__(PipesContext)) == "<PipesContext>"


def test_a_context_outside_dagster_tells_it(nobody: None) -> None:
    """The same, where nothing is known."""
    pipes = open_dagster_pipes()
    assert repr(pipes) == "<NullPipesContext outside Dagster, open>"
    assert pipes.statistics().accepted == 0


def test_the_statistics_of_a_session(launch: Launch) -> None:
    """Each message is counted once, and everything is delivered after a flush."""
    with open_dagster_pipes() as pipes:
        for number in range(10_000):
            pipes.log.info("%d", number)
        pipes.report_custom_message(1)
        assert pipes.statistics().accepted == 10_002  # with `opened`
        pipes.flush()
        now = pipes.statistics()
        assert (now.accepted, now.delivered, now.dropped, now.buffered) == (10_002, 10_002, 0, 0)
        assert 1 <= now.batches < 10_002
        assert now.last_error is None
    end = pipes.statistics()
    assert (end.accepted, end.delivered) == (10_003, 10_003)
    assert len(launch.sent()) == 10_003


def test_the_statistics_of_what_is_dropped_and_of_errors(launch: Launch) -> None:
    """For a dashboard that warns."""
    stalled = threading.Event()

    class Channel(PipesMessageWriterChannel):
        def write_message(self, message: Any) -> None:
            if not stalled.wait(30):
                raise OSError("stalled")
            if not failed:
                failed.append(True)
                raise OSError("the disk is full")

    class Writer(PipesMessageWriter[Channel]):
        @contextmanager
        def open(self, params: Any) -> Iterator[Channel]:
            yield Channel()

    failed: list[bool] = []
    with (
        pytest.warns(DagsterPipesWarning, match="were dropped"),
        open_dagster_pipes(
            message_writer=Writer(), buffer_size=1 << 16, on_full="drop_logs"
        ) as pipes,
    ):
        for _ in range(2_000):
            pipes.log.info("x" * 100)
        before = pipes.statistics()
        assert before.accepted + before.dropped == 2_001
        assert before.dropped > 100
        assert before.delivered < before.accepted
        assert before.buffered > 1 << 15
        stalled.set()
        pipes.flush()
        after = pipes.statistics()
    assert after.accepted == after.delivered == before.accepted
    assert str(after.last_error) == "the disk is full"


def test_with_in_a_coroutine_is_warned_of(launch: Launch) -> None:
    """It works, and blocks the loop; the warning names the line."""

    async def main() -> None:
        with (
            pytest.warns(DagsterPipesWarning, match="write `async with`") as warned,
            open_dagster_pipes() as pipes,
        ):
            pipes.log.info("in")
        assert warned[0].filename == __file__

    asyncio.run(main())
    assert methods(launch) == ["opened", "log", "closed"]


def test_plain_code_below_a_coroutine_is_not_warned_of(launch: Launch) -> None:
    """A notebook's cell, or a library that knows no asyncio."""

    def work() -> None:
        with open_dagster_pipes() as pipes:
            pipes.log.info("in")

    async def main() -> None:
        work()

    asyncio.run(main())
    assert methods(launch) == ["opened", "log", "closed"]


def test_awaiting_a_context_is_an_error_that_leads_on(launch: Launch) -> None:
    """The session is open meanwhile, and can be used."""

    async def main() -> None:
        pipes = open_dagster_pipes()
        with pytest.raises(TypeError, match="async with open_dagster_pipes"):
            await pipes  # type: ignore[misc] # because it is the point
        async with pipes:
            pipes.log.info("in")

    asyncio.run(main())
    assert methods(launch) == ["opened", "log", "closed"]


def test_the_version() -> None:
    """As of the installed package."""
    assert dagsterpipes.__version__ == version("dagsterpipes")
