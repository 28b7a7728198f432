"""What is logged when the session is over: shown on stderr with one warning, by whatever set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

STRUCTLOG = """
import structlog
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=lambda *args: pipes.log,
        {extra}
    )
    log = structlog.get_logger()
    log.warning("inside", order=1)
for number in range(3):
    {call}
print("done")
"""


@pytest.mark.parametrize("extra", ["", "cache_logger_on_first_use=True"])
@pytest.mark.parametrize(
    "call",
    [
        'log.info("outside", number=number)',
        'log.warning("outside", number=number)',
        'structlog.get_logger("other").bind(x=1).error("outside", number=number)',
        'log.log(20, "outside", number=number)',
    ],
)
def test_structlog_after_the_session_shows_its_lines_and_does_not_end_the_job(
    tmp_path: Path, extra: str, call: str
) -> None:
    """Set up as the how-to says."""
    launch = Launch(tmp_path)
    result = launch.run(STRUCTLOG.format(extra=extra, call=call))
    assert result.returncode == 0, result.stderr
    assert "done" in result.stdout
    for number in range(3):
        assert f"number={number}" in result.stderr
    assert result.stderr.count("DagsterPipesWarning") == 1
    assert launch.logs() == ["event='inside' order=1"]
    assert launch.sent()[-1] == ("closed", {})


def test_structlog_after_the_session_where_warnings_are_errors(tmp_path: Path) -> None:
    """A log call raises in no case."""
    launch = Launch(tmp_path)
    script = STRUCTLOG.format(extra="", call='log.info("outside", number=number)')
    result = launch.run(script, flags=["-W", "error"])
    assert result.returncode == 0, result.stderr
    assert "number=2" in result.stderr


def test_the_next_session_takes_what_structlog_logs_through_it(tmp_path: Path) -> None:
    """Configured again for it."""
    launch = Launch(tmp_path)
    script = STRUCTLOG.format(extra="", call="pass")
    result = launch.run(script + script.replace("inside", "again"))
    assert result.returncode == 0, result.stderr
    assert launch.logs() == ["event='inside' order=1", "event='again' order=1"]


QUEUE = """
import logging, logging.handlers, queue
from dagsterpipes import PipesLogHandler, open_dagster_pipes

waiting = queue.SimpleQueue()
listener = logging.handlers.QueueListener(waiting, PipesLogHandler())
logging.basicConfig(level="INFO", handlers=[logging.handlers.QueueHandler(waiting)])
with open_dagster_pipes() as pipes:
    {before}
    for number in range(2000):
        logging.info("item %d", number)
    {inside}
{after}
"""


def _lines(text: str) -> set[int]:
    import re

    return {int(number) for number in re.findall(r"item (\d+)", text)}


def test_a_queue_listener_that_is_stopped_after_the_session_shows_the_rest(tmp_path: Path) -> None:
    """Each line is in Dagster or on stderr, never nowhere."""
    launch = Launch(tmp_path)
    result = launch.run(
        QUEUE.format(before="", inside="", after="listener.start(); listener.stop()")
    )
    assert result.returncode == 0, result.stderr
    assert not launch.logs()
    assert _lines(result.stderr) == set(range(2000))
    assert result.stderr.count("DagsterPipesWarning") == 1


def test_a_queue_listener_that_still_works_while_the_session_closes_loses_nothing(
    tmp_path: Path,
) -> None:
    """Some lines arrive in time, the others are shown."""
    launch = Launch(tmp_path)
    result = launch.run(QUEUE.format(before="listener.start()", inside="", after="listener.stop()"))
    assert result.returncode == 0, result.stderr
    sent, shown = _lines(" ".join(launch.logs())), _lines(result.stderr)
    assert sent | shown == set(range(2000))
    assert not sent & shown
    assert launch.sent()[-1] == ("closed", {})


def test_a_queue_listener_that_is_stopped_inside_the_session_sends_everything(
    tmp_path: Path,
) -> None:
    """The order that the how-to shows."""
    launch = Launch(tmp_path)
    result = launch.run(QUEUE.format(before="listener.start()", inside="listener.stop()", after=""))
    assert result.returncode == 0, result.stderr
    assert launch.logs() == [f"INFO:root:item {number}" for number in range(2000)]
    assert not result.stderr


@pytest.mark.parametrize("inside", [True, False])
def test_a_memory_handler_flushed_inside_sends_and_flushed_later_shows(
    tmp_path: Path, inside: bool
) -> None:
    """`MemoryHandler` keeps what is below its flush level until it is full or closed."""
    launch = Launch(tmp_path)
    result = launch.run(
        f"""
        import logging, logging.handlers
        from dagsterpipes import PipesLogHandler, open_dagster_pipes

        memory = logging.handlers.MemoryHandler(1000, target=PipesLogHandler())
        logging.basicConfig(level="INFO", handlers=[memory])
        with open_dagster_pipes():
            for number in range(50):
                logging.info("item %d", number)
            if {inside}:
                memory.close()
        """
    )
    assert result.returncode == 0, result.stderr
    assert _lines(" ".join(launch.logs())) == (set(range(50)) if inside else set())
    assert _lines(result.stderr) == (set() if inside else set(range(50)))


@pytest.mark.parametrize(
    "setup",
    [
        "handler = PipesLogHandler(); logging.getLogger().addHandler(handler)",
        (
            "handler = PipesLogHandler(); handler.setFormatter(logging.Formatter('%(name)s: %(message)s'))\n"
            "logging.getLogger().addHandler(handler)"
        ),
    ],
)
def test_the_handler_after_the_session_shows_its_lines(tmp_path: Path, setup: str) -> None:
    """With a formatter and without; with the traceback."""
    launch = Launch(tmp_path)
    script = f"""
import logging
from dagsterpipes import PipesLogHandler, open_dagster_pipes
logging.getLogger().setLevel("INFO")
{setup}
logging.info("before the first session")
with open_dagster_pipes():
    logging.info("inside")
logging.info("item 1")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("item 2")
with open_dagster_pipes():
    logging.info("inside the next")
"""
    result = launch.run(script)
    assert result.returncode == 0, result.stderr
    assert "before the first" not in result.stderr
    assert _lines(result.stderr) == {1, 2}
    assert "ZeroDivisionError" in result.stderr
    assert result.stderr.count("DagsterPipesWarning") == 1
    assert [text.split(": ")[-1] for text in launch.logs()] == ["inside", "inside the next"]


def test_loguru_after_the_session_shows_its_lines(tmp_path: Path) -> None:
    """Its sink is the handler; its queue may still hold lines."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        from loguru import logger
        from dagsterpipes import PipesLogHandler, open_dagster_pipes
        logger.remove()
        logger.add(PipesLogHandler(), format="{message}", enqueue=True)
        with open_dagster_pipes():
            for number in range(500):
                logger.info("item {}", number)
        logger.complete()
        """
    )
    assert result.returncode == 0, result.stderr
    sent, shown = _lines(" ".join(launch.logs())), _lines(result.stderr)
    assert sent | shown == set(range(500))
    assert not sent & shown


def test_the_job_itself_hears_that_its_session_is_closed(tmp_path: Path) -> None:
    """A direct call to the session's logger is an error of the job's."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pass
        pipes.log.info("late")
        """
    )
    assert result.returncode == 1
    assert "SessionClosedError" in result.stderr


def test_no_later_thread_is_taken_for_one_of_a_session_that_is_over(tmp_path: Path) -> None:
    """Threads get idents of threads that ended; the lines of such a listener were left out."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import asyncio, threading, time
        from dagsterpipes import PipesDefaultContextLoader, open_dagster_pipes
        from contextlib import asynccontextmanager

        class AsyncLoader:
            @asynccontextmanager
            async def load_context(self, params):
                with PipesDefaultContextLoader().load_context(params) as context:
                    yield context

        def threads_left(pipes):
            outbox = pipes._session.delivery.outbox
            assert outbox.exempt_threads, "there was one"
            pipes.close()
            end = time.monotonic() + 5
            while outbox.exempt_threads and time.monotonic() < end:
                time.sleep(0.01)
            return outbox.exempt_threads

        for options in ({}, {"context_loader": AsyncLoader()}):
            pipes = open_dagster_pipes(**options)
            pipes.log.info("x")
            pipes.flush()
            print(threads_left(pipes))
        """
    )
    assert result.stdout.split("\n") == ["set()", "set()", ""], result
