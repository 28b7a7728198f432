"""Whatever is said, Dagster's own handler takes what comes of it, or it is refused at the call."""

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from dagster._core.pipes.context import PipesMessageHandler
from dagster._core.pipes.utils import PipesTempFileMessageReader
from dagster._serdes import serialize_value

from dagsterpipes._protocol import messages
from dagsterpipes.exceptions import DagsterPipesError
from support.calls import Call, CallMaker

pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning")


def line_of(call: Call) -> bytes:
    """The line of a call, as a session builds it."""
    if call.method == "close":
        return messages.closed(call.arguments["exc"])
    build: dict[str, Callable[..., bytes]] = {
        "log": messages.log,
        "report_asset_materialization": messages.asset_materialization,
        "report_asset_check": messages.asset_check,
        "report_custom_message": messages.custom_message,
        "log_external_stream": messages.external_stream,
        "opened": messages.opened,
    }
    return build[call.method](**call.arguments)


class StrictStream(io.StringIO):
    """A stream of Dagster's process that encodes what it gets, as a real one does."""

    def write(self, text: str) -> int:
        text.encode("utf-8")
        return len(text)


def in_dagster(body: Callable[[Callable[[], PipesMessageHandler]], None]) -> None:
    """Run a function inside a real step, with a way to make handlers for that step."""

    @dg.asset  # type: ignore[untyped-decorator]  # because mypy does not follow into dagster
    def step(context: dg.AssetExecutionContext) -> None:
        body(lambda: PipesMessageHandler(context, PipesTempFileMessageReader()))

    stream = StrictStream()
    with quiet(), contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        dg.materialize([step], instance=dg.DagsterInstance.ephemeral())


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


def random_calls(count: int) -> Iterator[Call]:
    """Calls of every method, and what only a session itself says."""
    maker = CallMaker(seed=2024)
    for index, call in enumerate(maker.calls(count)):
        yield call
        if index % 8 == 0:
            yield maker.close()
            yield maker.opened()


def test_random_calls() -> None:
    """Of 5,000 random calls none puts a message on the wire that Dagster's handler cannot take."""
    tried, refused, taken = 0, 0, 0

    def body(new_handler: Callable[[], PipesMessageHandler]) -> None:
        nonlocal tried, refused, taken
        for call in random_calls(16_000):
            tried += 1
            try:
                line = line_of(call)
            except DagsterPipesError as error:
                assert str(error)
                refused += 1
            else:
                taken += 1
                read(new_handler(), line)

    in_dagster(body)
    assert tried >= 5_000
    # Both ways are gone often enough to mean something.
    assert min(refused, taken) >= 1_000, (tried, refused, taken)
