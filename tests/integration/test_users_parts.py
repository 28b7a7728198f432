"""Loaders and writers of the user's: in which thread and context they run, and that they may log."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import dagster_pipes
import pytest

from dagsterpipes import (
    ChannelError,
    DagsterPipesError,
    FlushTimeoutError,
    PipesContext,
    PipesContextLoader,
    PipesLogHandler,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    open_dagster_pipes,
)
from support.launching import CONTEXT, Launch

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="nobody")
SENT: list[Any] = []
SEEN: dict[str, tuple[str, threading.Thread]] = {}


@pytest.fixture(autouse=True)
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """This process, launched by Dagster; what the parts notice is empty."""
    launch = Launch(tmp_path)
    for name, value in launch.env.items():
        monkeypatch.setenv(name, value)
    SENT.clear()
    SEEN.clear()
    yield launch
    if PipesContext.is_initialized():
        PipesContext.get().close()


def see(where: str) -> None:
    SEEN.setdefault(where, (request_id.get(), threading.current_thread()))


class Channel(PipesMessageWriterChannel):
    def write_message(self, message: Any) -> None:
        see("write_message")
        SENT.append(message)


class Writer(PipesMessageWriter[Channel]):
    @contextmanager
    def open(self, params: Any) -> Iterator[Channel]:
        see("open")
        yield Channel()
        see("leave")

    def get_opened_extras(self) -> dict[str, Any]:
        see("get_opened_extras")
        return {}


class Loader(PipesContextLoader):
    @contextmanager
    def load_context(self, params: Any) -> Iterator[Any]:
        see("load_context")
        yield CONTEXT


class AsyncLoader:
    @asynccontextmanager
    async def load_context(self, params: Any) -> AsyncIterator[Any]:
        see("load_context")
        await asyncio.sleep(0)
        yield CONTEXT


class DbfsLikeChannel(dagster_pipes.PipesBlobStoreMessageWriterChannel):  # type: ignore[misc]
    def upload_messages_chunk(self, payload: Any, index: int) -> None:
        see("upload")
        SENT.extend(payload.read().splitlines())


class DbfsLike(dagster_pipes.PipesBlobStoreMessageWriter):  # type: ignore[misc]
    """As `PipesDbfsMessageWriter`: Spark's active session belongs to the thread that opens."""

    def __init__(self) -> None:
        super().__init__(interval=0.05)
        self.spark_thread = threading.get_ident()

    def get_opened_extras(self) -> dict[str, Any]:
        if threading.get_ident() != self.spark_thread:
            raise RuntimeError("there is no active Spark session")
        see("get_opened_extras")
        return {"tmp": "/dbfs"}

    def make_channel(self, params: Any) -> DbfsLikeChannel:
        see("make_channel")
        return DbfsLikeChannel(interval=0.05)


def test_a_sync_part_runs_in_the_openers_thread_and_context() -> None:
    """Opening in the thread itself, writing in a thread that has the context."""
    request_id.set("seven")
    with open_dagster_pipes(context_loader=Loader(), message_writer=Writer()) as pipes:
        pipes.log.info("x")
    main = threading.current_thread()
    for where in ("load_context", "open", "get_opened_extras"):
        assert SEEN[where] == ("seven", main), where
    assert SEEN["write_message"][0] == "seven"
    assert SEEN["leave"][0] == "seven"
    assert [message["method"] for message in SENT] == ["opened", "log", "closed"]


@pytest.mark.parametrize("loader", [Loader, AsyncLoader])
async def test_under_an_event_loop_a_part_runs_in_the_openers_context(loader: Any) -> None:
    """Sync or async, written by the writer's thread of a session with a loop."""
    request_id.set("eight")
    async with open_dagster_pipes(context_loader=loader(), message_writer=Writer()) as pipes:
        pipes.log.info("x")
    assert {who for who, _ in SEEN.values()} == {"eight"}
    assert {"load_context", "open", "get_opened_extras", "write_message"} <= set(SEEN)
    assert threading.current_thread() not in {thread for _, thread in SEEN.values()}


def test_an_async_part_in_a_plain_script_leaves_the_context_to_the_sync_ones() -> None:
    """The session has a loop of its own then."""
    request_id.set("nine")
    with open_dagster_pipes(context_loader=AsyncLoader(), message_writer=Writer()) as pipes:
        pipes.log.info("x")
    assert {who for who, _ in SEEN.values()} == {"nine"}


def test_a_writer_that_needs_the_openers_thread_opens() -> None:
    """The reference's blob writer, as for DBFS."""
    request_id.set("ten")
    with open_dagster_pipes(message_writer=DbfsLike()) as pipes:
        pipes.log.info("x")
    assert SEEN["get_opened_extras"][0] == "ten"
    assert len(SENT) == 3


async def test_a_variable_that_changes_after_the_opening_changes_only_the_caller() -> None:
    """The parts keep what the opener had."""
    request_id.set("before")
    async with open_dagster_pipes(message_writer=Writer()) as pipes:
        request_id.set("after")
        pipes.log.info("x")
        await pipes.aflush()
    assert SEEN["write_message"][0] == "before"


# -- parts that log while the session opens --------------------------------------------------------


def _log_here(log: logging.Logger) -> None:
    log.warning("connecting")


def _log_in_a_pool(log: logging.Logger) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(log.warning, "connecting").result(timeout=10)


def _log_in_many_threads(log: logging.Logger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: log.warning("connecting"), range(200)))


def _use_the_context(log: logging.Logger) -> None:
    PipesContext.get().log.info("connecting")


def _use_the_context_in_a_pool(log: logging.Logger) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: PipesContext.get().log.info("connecting")).result(timeout=10)


LOGGING = [
    _log_here,
    _log_in_a_pool,
    _log_in_many_threads,
    _use_the_context,
    _use_the_context_in_a_pool,
]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, with our handler."""
    import logging

    root, handler = logging.getLogger(), PipesLogHandler()
    root.addHandler(handler)
    yield root
    root.removeHandler(handler)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("log", LOGGING)
@pytest.mark.parametrize("part", ["load_context", "open"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_part_that_logs_while_the_session_opens_does_not_wait_for_it(
    root_logger: logging.Logger, part: str, log: Callable[[Any], None], is_async: bool
) -> None:
    """As an HTTP client's lines do. They are sent behind `opened`, in order."""

    class Logging(Loader):
        @contextmanager
        def load_context(self, params: Any) -> Iterator[Any]:
            if part == "load_context":
                log(root_logger)
            yield CONTEXT

    class LoggingWriter(Writer):
        @contextmanager
        def open(self, params: Any) -> Iterator[Channel]:
            if part == "open":
                log(root_logger)
            yield Channel()

    options: Any = {"context_loader": Logging(), "message_writer": LoggingWriter()}
    if is_async:

        async def main() -> None:
            async with open_dagster_pipes(**options) as pipes:
                pipes.log.info("open")

        asyncio.run(main())
    else:
        with open_dagster_pipes(**options) as pipes:
            pipes.log.info("open")
    assert SENT[0]["method"] == "opened"
    assert SENT[-1]["method"] == "closed"
    texts = [message["params"]["message"] for message in SENT[1:-1]]
    assert texts[-1] == "open"
    # Under a loop the session's own thread opens, and what that logs is left out.
    is_own = is_async and log is _log_here
    expected = 0 if is_own else 200 if log is _log_in_many_threads else 1
    assert texts[:-1] == ["connecting"] * expected


@pytest.mark.timeout(30)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "ask",
    [
        lambda: PipesContext.get().run_id,
        lambda: PipesContext.get().report_custom_message(1),
        lambda: PipesContext.get().flush(),
        lambda: open_dagster_pipes().asset_key,
    ],
)
def test_a_part_that_asks_for_the_session_that_it_opens_gets_an_error(
    ask: Callable[[], object], is_async: bool
) -> None:
    """It would wait for itself."""
    errors: list[BaseException] = []

    class Asking(Loader):
        @contextmanager
        def load_context(self, params: Any) -> Iterator[Any]:
            try:
                ask()
            except DagsterPipesError as error:
                errors.append(error)
            yield CONTEXT

    options: Any = {"context_loader": Asking(), "message_writer": Writer()}
    if is_async:

        async def main() -> None:
            async with open_dagster_pipes(**options):
                pass

        asyncio.run(main())
    else:
        with open_dagster_pipes(**options):
            pass
    assert [type(error) for error in errors] == [DagsterPipesError]
    assert "this thread is still opening the session" in str(errors[0])
    assert [message["method"] for message in SENT] == ["opened", "closed"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        pytest.param(lambda: PipesContext.get().run_id, ChannelError, id="fact"),
        pytest.param(
            lambda: PipesContext.get().report_custom_message(1), ChannelError, id="report"
        ),
        pytest.param(lambda: PipesContext.get().flush(), FlushTimeoutError, id="flush"),
        pytest.param(
            lambda: PipesContext.get().flush(timeout=0.1), FlushTimeoutError, id="flush-timeout"
        ),
        pytest.param(lambda: open_dagster_pipes().asset_key, ChannelError, id="nested"),
    ],
)
def test_a_thread_that_the_loader_waits_for_gets_an_error_too(
    ask: Callable[[], object], expected: type[DagsterPipesError]
) -> None:
    """As an HTTP client's pool does: each would wait for the other."""
    errors: list[BaseException | None] = []

    class Asking(Loader):
        @contextmanager
        def load_context(self, params: Any) -> Iterator[Any]:
            with ThreadPoolExecutor(1) as pool:
                errors.append(pool.submit(ask).exception())
            yield CONTEXT

    with open_dagster_pipes(
        context_loader=Asking(), message_writer=Writer(), close_timeout=0.3
    ) as pipes:
        pipes.log.info("open")
    assert [type(error) for error in errors] == [expected]
    assert "the session was still opening after" in str(errors[0])
    assert [message["method"] for message in SENT] == ["opened", "log", "closed"]


ENDING = """
import sys
from contextlib import contextmanager
import dagsterpipes
from dagsterpipes import open_dagster_pipes

class Channel(dagsterpipes.PipesMessageWriterChannel):
    taken = 0
    def write_message(self, message):
        self.taken += 1
        if self.taken > 2:
            raise SystemExit("the client's own idea of an error")

class Writer(dagsterpipes.PipesMessageWriter):
    @contextmanager
    def open(self, params):
        yield Channel()

pipes = open_dagster_pipes(message_writer=Writer())
pipes.report_custom_message(1)
for call in (pipes.flush, lambda: [pipes.log.info("x" * 50_000) for _ in range(1000)], pipes.close):
    pipes.report_custom_message(2) if call == pipes.flush else None
    try:
        call()
    except dagsterpipes.DagsterPipesError as error:
        print(type(error).__name__, getattr(error, "count", ""))
"""


def test_a_channel_that_ends_its_thread_leaves_nobody_waiting(tmp_path: Path) -> None:
    """A client that calls sys.exit(): flush and close say so, a full buffer too, and the rest is kept."""
    launch = Launch(tmp_path)
    done = launch.run(ENDING, env={"TMPDIR": str(tmp_path)}, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["SessionClosedError ", "SessionClosedError "]
    assert done.stdout.splitlines()[2].startswith("MessagesLostError")
    [recovery] = tmp_path.glob("dagsterpipes-recovery-*")
    assert b"report_custom_message" in recovery.read_bytes()


def test_anyio_is_imported_by_the_thread_that_opens(tmp_path: Path) -> None:
    """Its modules import each other in a circle, which two threads would not survive."""
    launch = Launch(tmp_path)
    done = launch.run(
        """
        import asyncio, sys, threading
        from contextlib import contextmanager
        import dagsterpipes
        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name == "anyio":
                    print(threading.current_thread().name)
        sys.meta_path.insert(0, Watch())
        class Channel(dagsterpipes.PipesMessageWriterChannel):
            async def write_message(self, message):
                pass
        class Writer(dagsterpipes.PipesMessageWriter):
            @contextmanager
            def open(self, params):
                yield Channel()
        async def main():
            async with dagsterpipes.open_dagster_pipes(message_writer=Writer()) as pipes:
                pipes.log.info("x")
        asyncio.run(main())
        """
    )
    assert (done.returncode, done.stdout) == (0, "MainThread\n"), done.stderr
