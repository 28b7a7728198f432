"""The application's own logging arrives: by handler, by one argument, with warnings and without loops."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path


def levels(launch: Launch) -> list[tuple[str, str]]:
    return [(one["level"], one["message"]) for method, one in launch.sent() if method == "log"]


def test_one_argument_bridges_the_root_logger(tmp_path: Path) -> None:
    """From INFO, with tracebacks and warnings; afterwards logging is as it was."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import logging, warnings
        from dagsterpipes import open_dagster_pipes
        app = logging.getLogger("app.module")
        with open_dagster_pipes(capture_logging=True) as pipes:
            app.debug("too low")
            app.info("hello %s", "there")
            app.log(25, "between")
            try:
                1 / 0
            except ZeroDivisionError:
                app.exception("failed")
            logging.captureWarnings(True)
            warnings.warn("careful", UserWarning)
            pipes.log.info("own")
        assert logging.getLogger().handlers == []
        assert logging.getLogger().level == logging.WARNING
        app.info("after")
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
    logs = levels(launch)
    assert logs[:2] == [("INFO", "hello there"), ("INFO", "between")]
    assert logs[2][0] == "ERROR"
    assert logs[2][1].startswith("failed\nTraceback (most recent call last):")
    assert logs[2][1].endswith("ZeroDivisionError: division by zero")
    assert logs[3][0] == "WARNING"
    assert "UserWarning: careful" in logs[3][1]
    assert logs[4] == ("INFO", "own")
    assert len(logs) == 5


def test_a_level_can_be_given(tmp_path: Path) -> None:
    """Only from there on."""
    launch = Launch(tmp_path)
    launch.run(
        """
        import logging
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes(capture_logging="ERROR"):
            logging.warning("too low")
            logging.error("high enough")
        """
    )
    assert levels(launch) == [("ERROR", "high enough")]


def test_the_handler_works_from_dictconfig_before_the_session(tmp_path: Path) -> None:
    """Configured first, it sends while a session is open, formatted; later it shows on stderr."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "formatters": {"short": {"format": "%(name)s: %(message)s"}},
            "handlers": {
                "dagster": {"class": "dagsterpipes.PipesLogHandler", "level": "INFO", "formatter": "short"}
            },
            "root": {"level": "DEBUG", "handlers": ["dagster"]},
        })
        log = logging.getLogger("app")
        log.info("before")
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes():
            log.debug("low")
            log.info("first session")
        log.info("between")
        with open_dagster_pipes():
            log.info("second session")
        log.info("after")
        """
    )
    assert result.returncode == 0
    assert launch.logs() == ["app: first session", "app: second session"]
    shown = result.stderr.splitlines()
    assert [line.split(" ", 2)[2] for line in shown if line[:2] == "20"] == [
        "INFO     app: between",
        "INFO     app: after",
    ]
    assert result.stderr.count("DagsterPipesWarning: the Dagster Pipes session is closed") == 1
    assert "app: before" not in result.stderr


def test_records_of_the_sessions_own_threads_do_not_loop(tmp_path: Path) -> None:
    """A message writer that logs each message, and asyncio's debug records, end nowhere."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import asyncio, logging, sys
        from contextlib import contextmanager
        from dagsterpipes import open_dagster_pipes
        from dagsterpipes.writers import PipesMessageWriter, PipesMessageWriterChannel
        sent = []
        class Channel(PipesMessageWriterChannel):
            def write_message(self, message):
                logging.getLogger("writer").info("sending %s", message["method"])
                sent.append(message)
        class Writer(PipesMessageWriter):
            @contextmanager
            def open(self, params):
                logging.getLogger().info("opening")
                yield Channel()
                logging.getLogger().info("closing")
        async def main():
            async with open_dagster_pipes(message_writer=Writer(), capture_logging="DEBUG"):
                logging.getLogger().info("hello")
                await asyncio.sleep(0.2)
        asyncio.run(main(), debug=True)
        texts = [m["params"]["message"] for m in sent if m["method"] == "log"]
        assert "hello" in texts, texts
        assert not any("sending" in text for text in texts), texts
        assert len(sent) < 10, sent
        """
    )
    assert result.returncode == 0, result.stderr


def test_the_handler_never_raises_into_the_job(tmp_path: Path) -> None:
    """Bad arguments are reported on stderr, as logging does; the job goes on."""
    launch = Launch(tmp_path)
    result = launch.run(
        """
        import logging
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes(capture_logging=True) as pipes:
            logging.info("%d", "x")
            pipes.close()
            logging.info("after the close")
        """
    )
    assert result.returncode == 0
    assert "--- Logging error ---" in result.stderr
    assert launch.logs() == ["%d ('x',)"]


OUTSIDE = """
import logging
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes({options}) as pipes:
    logging.getLogger("app").info("application")
    pipes.log.info("hello %d", 1)
    pipes.report_asset_materialization(
        metadata={{"rows": 3, "doc": {{"type": "md", "raw_value": "# x"}}}}, data_version="1"
    )
    pipes.report_asset_check("good", True)
    pipes.report_asset_check("bad", False, severity="WARN", asset_key="a")
    pipes.report_custom_message([1])
    assert list(pipes.track(range(3), "counting")) == [0, 1, 2]
"""


def outside(options: str) -> list[str]:
    env = {key: value for key, value in os.environ.items() if "DAGSTER" not in key}
    env["PYTHONWARNINGS"] = "ignore:Dagster did not launch"
    result = subprocess.run(
        [sys.executable, "-c", OUTSIDE.format(options=options)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_outside_dagster_logs_are_shown_and_reports_are_not() -> None:
    """Without a terminal, stderr has the logs and nothing else."""
    texts = [line.split(" ", 2)[2] for line in outside("")]
    assert texts[0] == "INFO     hello 1"
    assert all("counting" in text for text in texts[1:])


def test_outside_dagster_reports_can_be_shown() -> None:
    """Briefly: what, and its metadata with the types that were given."""
    lines = outside("show_reports=True, capture_logging=True")
    assert "application" in lines[0]
    shown = [line for line in lines if not line[:1].isdigit()]
    assert shown == [
        "reported materialization",
        "  data version: '1'",
        "  rows: 3",
        "  doc: '# x' (md)",
        "reported check good: passed",
        "reported check bad of a: FAILED (WARN)",
        "reported custom message: [1]",
    ]


TRACED = """
import logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from dagsterpipes import open_dagster_pipes
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("job")
with open_dagster_pipes({options}) as pipes:
    pipes.log.info("before %d", 1)
    with tracer.start_as_current_span("work") as span:
        ids = span.get_span_context()
        pipes.report_custom_message([f"{{ids.trace_id:032x}}", f"{{ids.span_id:016x}}"])
        pipes.log.info("first\\nsecond")
        pipes.log("called", "WARNING")
        pipes.log.getChild("child").info("child")
        logging.getLogger("app").info("bridged")
"""
PARENT = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"]


def traced(folder: Path, options: str, **env: str) -> tuple[list[str], list[str]]:
    launch = Launch(folder)
    parent = {"TRACEPARENT": f"00-{PARENT[0]}-{PARENT[1]}-01"}
    result = launch.run(TRACED.format(options=options), env=parent | env)
    assert (result.returncode, result.stderr) == (0, "")
    [ids] = [one["payload"] for method, one in launch.sent() if method == "report_custom_message"]
    return [text for _, text in levels(launch)], ids


def test_trace_ids_are_added_if_asked_for(tmp_path: Path) -> None:
    """Of the current span; of the launching process where there is none."""
    texts, (trace, span) = traced(tmp_path, "trace_ids=True, capture_logging=True")
    inside = f"[trace_id={trace} span_id={span}]"
    assert texts == [
        f"before 1 [trace_id={PARENT[0]} span_id={PARENT[1]}]",
        f"first {inside}\nsecond",
        f"called {inside}",
        f"child {inside}",
        f"bridged {inside}",
    ]


def test_trace_ids_are_added_if_the_operator_asks_for_them(tmp_path: Path) -> None:
    """On the Dagster side, without touching the script; nothing is made of a wrong parent."""
    texts, _ = traced(tmp_path, "", DAGSTERPIPES_TRACE_IDS="1", TRACEPARENT="nonsense")
    assert texts[0] == "before 1"
    assert "[trace_id=" in texts[1]


def test_no_trace_ids_unless_asked_for(tmp_path: Path) -> None:
    """As they lengthen each line."""
    texts, _ = traced(tmp_path, "")
    assert texts == ["before 1", "first\nsecond", "called", "child"]
