"""Cost of a log call, and of a message up to the closed file.

A process logs `log.info("processed row %d of the input table", i)` in a loop. "Calls a second" is the
rate of the loop alone; "messages a second to the closed file" includes the close. The duration of single
calls is measured in separate processes, which read the clock before and after each call. Afterwards
every line is counted in the file. The other loggers write to a file too: structlog renders with orjson
and writes to an unbuffered file, the standard library's `QueueHandler` hands over to a
`QueueListener` with a `FileHandler`, loguru uses `enqueue=True`. The bare loop does the least that
such a call could do in Python: %-format, JSON-encode into a template, append to a deque.
"""

from __future__ import annotations

import sys
import time
from array import array
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import (
    OURS,
    REFERENCE,
    Result,
    Row,
    Scale,
    alternate,
    column,
    open_session,
    report,
    run_launched,
)

if TYPE_CHECKING:
    from collections.abc import Callable

STRUCTLOG, QUEUE, LOGURU = "structlog + orjson", "QueueHandler", "loguru enqueue"
BARE = "bare loop"
TEXT = "processed row %d of the input table"
PERCENTILES = (50, 90, 99, 99.9, 99.99, 100)

Opened = tuple["Callable[..., Any]", "Callable[[], Any]"]


# -- the measured processes -------------------------------------------------------------------


def opened(who: str, path: str) -> Opened:
    """The function that logs, and the one that closes."""
    if who in (OURS, REFERENCE):
        session = open_session(who)
        return session.log.info, session.close
    return {STRUCTLOG: with_structlog, QUEUE: with_queue, LOGURU: with_loguru, BARE: bare}[who](
        path
    )


def with_structlog(path: str) -> Opened:
    import logging

    import orjson
    import structlog

    file = Path(path).open("ab", buffering=0)  # noqa: SIM115 because it is closed at the end
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=file),
    )
    return structlog.get_logger().bind().info, file.close


def with_queue(path: str) -> Opened:
    import logging
    import logging.handlers
    import queue

    logger = logging.getLogger("benchmark")
    logger.setLevel(logging.INFO)
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, logging.FileHandler(path))
    listener.start()
    return logger.info, listener.stop


def with_loguru(path: str) -> Opened:
    from loguru import logger

    logger.remove()
    logger.add(path, enqueue=True, format="{message}", level="INFO")
    return lambda text, i: logger.info("processed row {} of the input table", i), logger.remove


def bare(path: str) -> Opened:
    from collections import deque
    from json.encoder import encode_basestring_ascii

    del path
    lines: deque[str] = deque()
    head = '{"__dagster_pipes_version": "0.1", "method": "log", "params": {"level": "INFO", "message": '

    def info(
        text: str,
        *args: object,
        append: Callable[[str], None] = lines.append,
        encode: Callable[[str], str] = encode_basestring_ascii,
    ) -> None:
        append(head + encode(text % args) + "}}\n")

    return info, lambda: None


def throughput(who: str, count: int, path: str) -> None:
    info, close = opened(who, path)
    clock = time.perf_counter
    start = clock()
    for i in range(count):
        info(TEXT, i)
    looped = clock()
    close()
    closed = clock()
    report(calls_per_s=count / (looped - start), to_file_per_s=count / (closed - start))


def single_calls(who: str, count: int, path: str) -> None:
    info, close = opened(who, path)
    clock = time.perf_counter_ns
    took = array("q", bytes(8 * count))
    for i in range(count):
        start = clock()
        info(TEXT, i)
        took[i] = clock() - start
    close()
    in_order = sorted(took)
    at = {p: in_order[min(count - 1, int(count * p / 100))] / 1000 for p in PERCENTILES}
    report(**{f"p{p}": value for p, value in at.items()})


# -- the comparison -----------------------------------------------------------------------------


def measure(scale: Scale) -> Result:
    count = scale.pick(200_000, 20_000)
    counts = dict.fromkeys((OURS, REFERENCE, STRUCTLOG, QUEUE, LOGURU, BARE), count)
    counts[LOGURU] = scale.pick(50_000, 4_000)

    def case(who: str, what: str) -> dict[str, Any]:
        expected = None if who == BARE else counts[who]
        return run_launched("calls.py", what, who, counts[who], count=expected)

    rounds = scale.pick(7, 2)
    speed = alternate({who: partial(case, who, "throughput") for who in counts}, rounds)
    single = alternate({who: partial(case, who, "single") for who in (OURS, REFERENCE)}, rounds)
    calls = column(speed, "calls_per_s")
    call = partial(Row, unit="calls/s", values=calls, more_is_better=True)
    length = partial(Row, unit="µs")
    rows = [
        call("calls", "log calls a second", short="calls a second", goal=35, goal_text="35 times"),
        Row(
            "to_file",
            "messages a second to the closed file",
            "messages/s",
            short="messages to the closed file",
            values=column(speed, "to_file_per_s", (OURS, REFERENCE)),
            goal=30,
            goal_text="30 times",
            more_is_better=True,
        ),
        length("p50", "a call, median", values=column(single, "p50"), goal=40, goal_text="a 40th"),
        length(
            "p99.9",
            "a call, 99.9th percentile",
            values=column(single, "p99.9"),
            goal=6,
            goal_text="a 6th",
        ),
        call(
            "calls_structlog",
            "log calls a second",
            against=STRUCTLOG,
            short="calls: structlog to a raw file",
            goal=4,
            goal_text="4 times",
        ),
        call(
            "calls_queue",
            "log calls a second",
            against=QUEUE,
            short="calls: QueueHandler",
            goal=10,
            goal_text="10 times",
        ),
        call(
            "calls_loguru",
            "log calls a second",
            against=LOGURU,
            short="calls: loguru enqueue",
            goal=100,
            goal_text="100 times",
        ),
        call(
            "calls_bare",
            "log calls a second",
            against=BARE,
            short="calls: the bare loop",
            goal=0.75,
            goal_text="75%",
        ),
    ]
    return Result(rows, {"speed": speed, "single": single, "counts": counts})


if __name__ == "__main__":
    import os

    what, who, count = sys.argv[1:]
    {"throughput": throughput, "single": single_calls}[what](
        who, int(count), os.environ["BENCHMARK_FILE"]
    )
