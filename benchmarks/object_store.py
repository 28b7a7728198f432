"""Messages through an object store: S3, emulated by moto in a process of its own, with boto3.

A job logs as many lines as fast as it can, and closes; the CPU and the memory are those of its process,
from the open session to the end of the close. "opened" is stored when the first object is in the
store, and read when the loop that Dagster's readers for object stores have in common, with its
interval of 10 s and begun 2 s before the job, has handled the message. One job of a few lines with captured output closes; one stays open
and logs ten lines a second: how many puts that makes, and how long a line takes into the store.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import (
    CONTEXT,
    OURS,
    REFERENCE,
    Result,
    Row,
    Scale,
    alternate,
    column,
    memory,
    open_session,
    plain_environment,
    report,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE = "processed row %d of the input table"


def client(port: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


# -- inside of a measured process -----------------------------------------------------------------


class Job:
    """A session whose messages go to the store, and what was put."""

    def __init__(self, who: str, port: str, interval: str) -> None:
        import importlib

        self.puts: list[tuple[float, bytes]] = []
        s3 = client(port)
        put = s3.put_object

        def counting(**options: Any) -> Any:
            done = put(**options)
            body = options["Body"]
            data = body.encode() if isinstance(body, str) else body
            self.puts.append((time.monotonic(), data if len(data) < 100_000 else b""))
            return done

        s3.put_object = counting
        library = importlib.import_module(who)
        self.begin = time.monotonic()
        self.session = open_session(
            who, message_writer=library.PipesS3MessageWriter(s3, interval=float(interval))
        )

    def close(self) -> float:
        begin = time.monotonic()
        self.session.close()
        return time.monotonic() - begin


def flood(who: str, port: str, count: str) -> None:
    """Log as fast as it goes."""
    job = Job(who, port, "10")
    job.session.log.info("first")
    cpu, before = time.process_time(), memory()
    for number in range(int(count)):
        job.session.log.info(LINE, number)
    job.close()
    report(cpu_ms=(time.process_time() - cpu) * 1e3, growth_mb=(memory("VmHWM") - before) / 1e6)


def short(who: str, port: str) -> None:
    """A few lines, and output that is captured."""
    job = Job(who, port, "10")
    for number in range(50):
        job.session.log.info(LINE, number)
    print("printed", flush=True)
    report(close_s=job.close())


def steady(who: str, port: str, seconds: str) -> None:
    """Ten lines a second, for a while."""
    job = Job(who, port, "2")
    sent: dict[int, float] = {}
    for number in range(int(seconds) * 10):
        sent[number] = time.monotonic()
        job.session.log.info("line %d.", number)
        time.sleep(0.1)
    job.close()
    lags = []
    for number, at in sent.items():
        word = b"line %d." % number
        lags.append(next(when for when, data in job.puts if word in data) - at)
    report(
        opened_s=job.puts[0][0] - job.begin,
        lag_s=sum(lags) / len(lags),
        puts=len(job.puts),
    )


def seen(who: str, port: str) -> None:
    """Open, and wait until Dagster has read `opened`."""
    import threading

    import dagster as dg

    s3 = client(port)
    place = messages_params()

    class Reader(dg.PipesBlobStoreMessageReader):
        """Dagster's own loop."""

        @contextmanager
        def get_params(self) -> Iterator[Any]:
            yield {}

        def messages_are_readable(self, params: Any) -> bool:
            return True

        def no_messages_debug_text(self) -> str:
            return ""

        def download_messages_chunk(self, index: int, params: Any) -> str | None:
            key = f"{place['key_prefix']}/{index}.json"
            try:
                found = s3.get_object(Bucket=place["bucket"], Key=key)
            except s3.exceptions.NoSuchKey:
                return None
            text: str = found["Body"].read().decode()
            return text

    class Handler:
        """What the loop needs of Dagster's."""

        received_closed_message = False
        opened = threading.Event()

        def handle_message(self, message: Any) -> None:
            if message["method"] == "opened":
                self.opened.set()
            self.received_closed_message |= message["method"] == "closed"

        def report_pipes_framework_exception(self, *what: Any) -> None:
            raise RuntimeError(what)

    handler: Any = Handler()
    with Reader(interval=10).read_messages(handler):
        time.sleep(
            2
        )  # as a process needs to start; at 0 the reference sometimes just makes the first read
        job = Job(who, port, "10")
        if not handler.opened.wait(60):
            raise RuntimeError("opened did not arrive")
        seen_s = time.monotonic() - job.begin
        job.close()
    report(seen_s=seen_s)


def messages_params() -> dict[str, Any]:
    """Where Dagster wants the messages of this process."""
    import dagster_pipes

    params: dict[str, Any] = dagster_pipes.decode_param(os.environ["DAGSTER_PIPES_MESSAGES"])
    return params


# -- the topic ------------------------------------------------------------------------------------


def answers(port: str) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", int(port))) == 0


@contextmanager
def store() -> Iterator[str]:
    """Run moto, with a bucket; give its port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
        stdout=quiet,
        stderr=quiet,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not answers(port):
            time.sleep(0.2)
        client(port).create_bucket(Bucket="bench")
        yield port
    finally:
        server.kill()
        server.wait()


def launch(kind: str, who: str, port: str, *args: object) -> dict[str, Any]:
    """Run a job that is launched as Dagster does with S3; check that all of it is there."""
    import dagster_pipes

    prefix = uuid.uuid4().hex
    messages = {
        "bucket": "bench",
        "key_prefix": prefix,
        "include_stdio_in_messages": kind == "short",
    }
    env = plain_environment() | {
        "DAGSTERPIPES_COALESCE_LOGS": "",  # as users have it, who set nothing
        "DAGSTER_PIPES_CONTEXT": dagster_pipes.encode_param({"data": CONTEXT}),
        "DAGSTER_PIPES_MESSAGES": dagster_pipes.encode_param(messages),
    }
    printed = run("object_store.py", kind, who, port, *args, env=env)
    s3 = client(port)
    listed = s3.list_objects_v2(Bucket="bench", Prefix=f"{prefix}/").get("Contents", [])
    number = len(listed)
    last = s3.get_object(Bucket="bench", Key=f"{prefix}/{number}.json")["Body"].read()
    # The reference sends "Stopped ..." of its own capture behind it.
    if b'"method": "closed"' not in last:
        raise RuntimeError(f"{kind} {who}: the last of {number} objects has no closed")
    return printed


def measure(scale: Scale) -> Result:
    count = scale.pick(200_000, 50_000)
    seconds = scale.pick(60, 12)
    rounds = scale.pick(3, 1)

    with store() as port:

        def found(kind: str, *args: object) -> dict[str, dict[str, list[Any]]]:
            cases = {who: partial(launch, kind, who, port, *args) for who in (OURS, REFERENCE)}
            return alternate(cases, rounds)

        flooded, closed, paced = found("flood", count), found("short"), found("steady", seconds)
        read = found("seen")
    return Result(
        [
            Row(
                "store_close",
                "object store: close, 50 lines and captured output",
                "s",
                column(closed, "close_s"),
                short="store: close",
                goal=4,
                goal_text="a quarter",
            ),
            Row(
                "store_cpu",
                f"object store: CPU of {count:,} log lines to the closed session",
                "ms",
                column(flooded, "cpu_ms"),
                short="store: CPU of a flood",
                goal=8,
                goal_text="an 8th",
            ),
            Row(
                "store_memory",
                f"object store: memory growth of {count:,} log lines",
                "MB",
                column(flooded, "growth_mb"),
                short="store: memory of a flood",
                goal=3,
                goal_text="a third",
            ),
            Row(
                "store_opened",
                "object store: until `opened` is stored",
                "s",
                column(paced, "opened_s"),
            ),
            Row(
                "store_seen",
                "object store: until Dagster has read `opened`, interval 10 s",
                "s",
                column(read, "seen_s"),
                short="store: opened",
                goal=1 / 0.7,
                goal_text="at most 0.7",
            ),
            Row(
                "store_lag",
                "object store: a log line into the store, mean, interval 2 s",
                "s",
                column(paced, "lag_s"),
                short="store: lag of a line",
                goal=1 / 1.25,
                goal_text="at most 1.25 times",
            ),
            Row(
                "store_puts",
                f"object store: puts of {seconds} s of log lines, interval 2 s",
                "puts",
                column(paced, "puts"),
                short="store: puts",
                goal=1 / (1.2 + 5 / max(1, seconds / 3)),
                goal_text="at most 1.2 times and 5",
            ),
        ],
        {
            "store": {
                who: {**flooded[who], **closed[who], **paced[who], **read[who]}
                for who in (OURS, REFERENCE)
            }
        },
    )


if __name__ == "__main__":
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    globals()[sys.argv[1]](*sys.argv[2:])
