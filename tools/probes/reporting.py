"""What becomes of reports and logs."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from library import OP_STEP, LibraryUnderTest, Section, Sent

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS = Section("Reports")
METADATA = Section("Metadata")
LOGS = Section("Logs")
NO = "\N{EN DASH}"
STOPS = "sent, and **stops Dagster's reader**"


@REPORTS.row("an asset key may be left out if there is one", r="yes")
def _(library: LibraryUnderTest) -> str:
    library.open().report_asset_materialization()
    return library.answers(library.sent()[0]["params"]["asset_key"] == "a")


@REPORTS.row("a materialization without metadata", r=STOPS)
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open()
    return library.attempt(lambda: pipes.report_asset_materialization(data_version="v1"))


@REPORTS.row("a key that is not in scope", r="refused")
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open()
    return library.attempt(lambda: pipes.report_asset_materialization(asset_key="other"))


@REPORTS.row("any key, in an op", r="sent")
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open(**OP_STEP)
    return library.attempt(lambda: pipes.report_asset_materialization(asset_key="other"))


@REPORTS.row("any key, in an asset-check step", r="sent")
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open(asset_keys=[])
    return library.attempt(lambda: pipes.report_asset_check("c", passed=True, asset_key="other"))


@REPORTS.row("a second materialization of an asset", r="refused")
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open()
    pipes.report_asset_materialization()
    return library.attempt(pipes.report_asset_materialization)


@REPORTS.row("a second result of a check", r="sent, and fails the step")
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open()
    pipes.report_asset_check("c", passed=True)
    outcome = library.attempt(lambda: pipes.report_asset_check("c", passed=True))
    return "sent, and fails the step" if isinstance(outcome, Sent) else outcome


def check(**changes: Any) -> Callable[[LibraryUnderTest], Any]:
    def probe(library: LibraryUnderTest) -> Any:
        pipes = library.open()
        arguments: dict[str, Any] = {"check_name": "c", "passed": True, **changes}
        return library.attempt(lambda: pipes.report_asset_check(**arguments))

    return probe


REPORTS.row('a severity of `"warn"`', r="refused")(check(severity="warn"))
REPORTS.row("`passed` as numpy has it (`numpy.bool_`)", r=NO)(check(passed=np.bool_(1)))
REPORTS.row("`passed` that is not a bool (`1`)", r=STOPS)(check(passed=1))


@REPORTS.row("a `data_version` that is a number", r=STOPS)
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open()
    return library.attempt(lambda: pipes.report_asset_materialization(data_version=3))


def custom(payload: Any) -> Callable[[LibraryUnderTest], Any]:
    def probe(library: LibraryUnderTest) -> Any:
        pipes = library.open()
        return library.attempt(lambda: pipes.report_custom_message(payload))

    return probe


REPORTS.row("a custom message", r="sent")(custom({"a": [1, None]}))
REPORTS.row("… of a set, a `date`, a numpy number", r=NO)(
    custom([{1}, dt.date(2026, 1, 1), np.int64(3)])
)


def stream(name: str, text: str) -> Callable[[LibraryUnderTest], Any]:
    def probe(library: LibraryUnderTest) -> Any:
        pipes = library.open()
        return library.attempt(lambda: pipes.log_external_stream(name, text))

    return probe


REPORTS.row("text of an external stream", r="sent")(stream("stdout", "text"))
REPORTS.row("… of another stream than stdout and stderr", r=STOPS)(stream("stdin", "text"))


# -- metadata ------------------------------------------------------------------------------------


def metadata(
    value: Any, show: Callable[[Any], str] | None = None
) -> Callable[[LibraryUnderTest], Any]:
    def probe(library: LibraryUnderTest) -> Any:
        pipes = library.open()

        def words(messages: list[Any]) -> str:
            sent = messages[0]["params"]["metadata"]["key"]
            return (show or inferred)(sent)

        return library.attempt(
            lambda: pipes.report_asset_materialization({"key": value}),
            words if library.library == "dagsterpipes" else None,
        )

    return probe


def typed(kind: str, raw: Any) -> dict[str, Any]:
    return {"type": kind, "raw_value": raw}


def raw(sent: Any) -> str:
    return f"as `{sent['raw_value']!r}`"


def inferred(sent: Any) -> str:
    return "for Dagster to infer" if sent["type"] == "__infer__" else f"as `{sent['type']}`"


METADATA.row("raw text, number, bool, null, list", r="sent")(metadata([1, "x"]))
METADATA.row("a raw dict", r="sent")(metadata({"a": 1}))
METADATA.row("a type that Dagster does not know", r=STOPS)(metadata(typed("job", "x")))
METADATA.row("`1` for a float", r=STOPS)(metadata(typed("float", 1), raw))
METADATA.row("`1.0` for an int", r=f"sent as `1`; `1e15` {STOPS.removeprefix('sent, and ')}")(
    metadata(typed("int", 1.0), raw)
)
METADATA.row("a number for json", r="")(metadata(typed("json", 5)))
METADATA.row("a table without a schema", r=STOPS)(metadata(typed("table", {"records": [{"a": 1}]})))
METADATA.row("a schema that is not a list of columns", r=STOPS)(
    metadata(typed("table_schema", {"fields": []}))
)
METADATA.row("NaN and infinities", r="sent as text")(metadata(math.nan, raw))
METADATA.row("a `datetime`", r=NO)(metadata(dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)))
METADATA.row("a `Path`", r=NO)(metadata(Path("/data")))
METADATA.row("a `Decimal`, a `UUID`", r=NO)(metadata([decimal.Decimal("1.5"), uuid.UUID(int=7)]))
METADATA.row("a numpy number", r=NO)(metadata(np.float32(1.5), raw))
METADATA.row("a data frame", r=NO)(metadata(pd.DataFrame({"a": [1]})))


@METADATA.row("typed helpers for every type", r="one, unchecked")
def _(library: LibraryUnderTest) -> str:
    return (
        "`MetadataValue`, `pipes_metadata_value`" if hasattr(library.lib, "MetadataValue") else NO
    )


# -- logs ----------------------------------------------------------------------------------------


@LOGS.row("the logger", r="a function")
def _(library: LibraryUnderTest) -> str:
    import logging

    log = library.open().log
    assert isinstance(log, logging.Logger)
    can_be_called = ", can be called too" if callable(log) else ""
    return f"a `logging.Logger`{can_be_called}"


@LOGS.row("a custom level (25)", r="refused")
def _(library: LibraryUnderTest) -> Any:
    pipes = library.open()
    return library.attempt(
        lambda: pipes.log.log(25, "text"), lambda sent: f"as `{sent[0]['params']['level']}`"
    )


@LOGS.row("arguments that do not fit the format string", r=NO)
def _(library: LibraryUnderTest) -> Any:
    import contextlib
    import io

    pipes = library.open()
    with contextlib.redirect_stderr(io.StringIO()):
        return library.attempt(lambda: pipes.log.info("%d rows", "no"), lambda _: "as it is")


@LOGS.row("the traceback of `log.exception(...)`", r=NO)
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    try:
        {}["key"]
    except KeyError:
        pipes.log.exception("failed")
    return "sent" if "Traceback" in library.sent()[0]["params"]["message"] else "dropped"


@LOGS.row("a child logger (`log.getChild`)", r=NO)
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    pipes.log.getChild("part").info("text")
    return "sent" if library.sent() else "lost"


@LOGS.row("what the application logs with `logging`", r=NO)
def _(library: LibraryUnderTest) -> str:
    import inspect

    options = inspect.signature(library.lib.open_dagster_pipes).parameters
    return "sent, with `capture_logging=True`" if "capture_logging" in options else NO
