"""Dagster's own handler of messages, inside a real step, without a process and without files."""

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster._core.pipes.utils import PipesTempFileMessageReader
from dagster._serdes import serialize_value


class StrictStream(io.StringIO):
    """A stream of Dagster's process that encodes what it gets, as a real one does."""

    def write(self, text: str) -> int:
        text.encode("utf-8")
        return len(text)


def in_dagster(body: Callable[[Callable[[], PipesMessageHandler]], None]) -> None:
    """Run a function inside a real step, with a way to make handlers for that step."""

    @dg.asset
    def step(context: dg.AssetExecutionContext) -> None:
        body(lambda: PipesMessageHandler(context, PipesTempFileMessageReader()))

    stream = StrictStream()
    with (
        dg.DagsterInstance.ephemeral() as instance,
        quiet(),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        dg.materialize([step], instance=instance)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Dagster logs every message that it gets."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def read(handler: PipesMessageHandler, line: bytes) -> None:
    """What Dagster's reader does with a line, and what Dagster does with the results then."""
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    handler.handle_message(json.loads(line.decode()))
    for result in handler.get_reported_results():
        event = dg.AssetMaterialization("step", metadata=result.metadata)
        serialize_value(event)
