"""Exceptions that close a session, as Dagster's own handler stores and shows them."""

import asyncio
import json
import sys
import textwrap
from collections.abc import Callable
from typing import Any, cast

import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    GraphDefinition,
    OpExecutionContext,
    PipesTempFileMessageReader,
    op,
)
from dagster._core.pipes.context import PipesMessageHandler

from dagsterpipes._protocol.exception_info import exception_payload

# Dagster warns of a part of its own handler.
pytestmark = pytest.mark.filterwarnings("ignore:.*is currently in preview")


def shown_by_dagster(exc: BaseException) -> Any:
    """Hand the exception to Dagster's handler in a ``closed`` message; return the error it stored."""
    params = json.dumps({"exception": exception_payload(exc)})

    def handle(context: OpExecutionContext) -> None:
        handler = PipesMessageHandler(context, PipesTempFileMessageReader())
        handler.handle_message(
            {
                "__dagster_pipes_version": "0.1",
                "method": "closed",
                "params": json.loads(params),
            }
        )
        assert handler.received_closed_message

    graph = GraphDefinition(name="job", node_defs=[op(name="handle")(handle)])
    with DagsterInstance.ephemeral() as instance:
        result = graph.execute_in_process(instance=instance)
        records = instance.all_logs(result.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        (event,) = (
            record.dagster_event
            for record in records
            if record.dagster_event
            and record.dagster_event.message
            == "[pipes] external process pipes closed with exception"
        )
        return event.engine_event_data.error


def raised(raise_it: Callable[[], object]) -> BaseException:
    try:
        raise_it()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def running(source: str) -> BaseException:
    code = compile(textwrap.dedent(source), "job.py", "exec")
    return raised(lambda: exec(code, {"__name__": "job"}))


def test_message_class_and_frames() -> None:
    """Dagster holds the plain text, the class, and a stack that ends with Python's last line."""
    error = shown_by_dagster(running("def work():\n    int('x')\nwork()"))
    assert error.message == "invalid literal for int() with base 10: 'x'"
    assert error.cls_name == "ValueError"
    assert 'File "job.py", line 2, in work' in error.to_string()
    assert error.to_string().endswith("\nValueError: invalid literal for int() with base 10: 'x'\n")


def test_cause_and_context() -> None:
    """Dagster follows both kinds of link."""
    error = shown_by_dagster(
        running(
            """
            try:
                try:
                    {}["k"]
                except KeyError as missing:
                    raise ValueError("no k") from missing
            except ValueError:
                raise OSError("gave up")
            """
        )
    )
    assert (error.cls_name, error.message) == ("OSError", "gave up")
    assert (error.context.cls_name, error.context.message) == ("ValueError", "no k")
    assert (error.context.cause.cls_name, error.context.cause.message) == ("KeyError", "'k'")
    assert error.context.cause.cause is None
    assert "occurred during handling of the following exception:\nno k" in error.to_string()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
def test_a_failing_task_group() -> None:
    """What each task failed with is in the text that Dagster shows, nested groups included."""
    error = shown_by_dagster(
        running(
            """
            import asyncio

            async def fail(words):
                raise ValueError(words)

            async def inner():
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail("third"))

            async def main():
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail("first"))
                    group.create_task(fail("second"))
                    group.create_task(inner())

            asyncio.run(main())
            """
        )
    )
    assert error.cls_name == "ExceptionGroup"
    assert error.message == "unhandled errors in a TaskGroup (3 sub-exceptions)"
    shown = error.to_string()
    for words in ("first", "second", "third"):
        assert f"| ValueError: {words}\n" in shown
    assert shown.count('|   File "job.py", line 5, in fail\n') == 3
    assert '|   File "job.py", line 8, in inner\n' in shown


def test_members_of_a_group_by_its_looks() -> None:
    """The same holds for groups of another making, such as the backport for Python 3.10."""

    class SeveralError(Exception):
        exceptions = (ValueError("first"), OSError("second"))

    shown = shown_by_dagster(SeveralError("both")).to_string()
    assert "    | ValueError: first\n" in shown
    assert "    | OSError: second\n" in shown


@pytest.mark.parametrize(
    ("exc", "name"),
    [
        (asyncio.CancelledError(), "CancelledError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit"),
        (ValueError(), "ValueError"),
        (ValueError("\ud800\0\u2028"), "ValueError"),
    ],
    ids=repr,
)
def test_every_kind_is_taken(exc: BaseException, name: str) -> None:
    """Cancellation and interrupts keep their class; empty and strange texts are stored."""
    assert shown_by_dagster(exc).cls_name == name


def test_long_chains_and_huge_texts_are_taken() -> None:
    """The largest payload that leaves us is one that Dagster stores."""
    exc: BaseException = ValueError("root")
    for number in range(400):
        newer = ValueError(f"{number} " + "x" * 20_000)
        newer.__cause__ = exc
        exc = newer
    error = shown_by_dagster(exc)
    depth = 1
    while error.cause is not None:
        error, depth = cast("Any", error.cause), depth + 1
    assert depth == 101
    assert error.message == "root"
