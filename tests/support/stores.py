"""Emulated object stores, each in a process of its own, behind a proxy that breaks requests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

from dagsterpipes import encode_param
from dagsterpipes.stores import PipesS3ContextLoader, PipesS3MessageWriter
from support.fault_proxy import FaultProxy
from support.launching import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "pipes"


def serve(*command: str, port: int) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers on the port."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{' '.join(command)} does not answer")
        time.sleep(0.05)
    return process


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class S3:
    """Moto's S3 behind the proxy, with the parts that a job passes to `open_dagster_pipes`."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.prefix = uuid.uuid4().hex
        self.plain = self.client(proxy.upstream)

    def client(self, port: int | None = None, **config: Any) -> Any:
        """A client of the proxy, which tries once and does not wait for long."""
        import boto3
        from botocore.config import Config

        config = {"retries": {"total_max_attempts": 1}, "read_timeout": 60} | config
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port or self.proxy.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(**config),
        )

    def parts(self, *, interval: float = 10, **config: Any) -> dict[str, Any]:
        """Context loader and message writer."""
        client = self.client(**config)
        return {
            "context_loader": PipesS3ContextLoader(client),
            "message_writer": PipesS3MessageWriter(client, interval=interval),
        }

    def env(self, *, stdio: bool = False, bucket: str = BUCKET) -> dict[str, str]:
        """The environment of a launched process."""
        key = f"{self.prefix}/context.json"
        self.plain.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(CONTEXT).encode())
        return {
            "DAGSTER_PIPES_CONTEXT": encode_param({"bucket": BUCKET, "key": key}),
            "DAGSTER_PIPES_MESSAGES": encode_param(
                {
                    "bucket": bucket,
                    "key_prefix": f"{self.prefix}/messages",
                    "include_stdio_in_messages": stdio,
                }
            ),
        }

    def chunks(self) -> list[bytes]:
        """The objects with messages, in order; none must be missing."""
        prefix = f"{self.prefix}/messages/"
        listed = self.plain.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        names = sorted(one["Key"].removeprefix(prefix) for one in listed)
        count = len(names)
        assert names == sorted(f"{number}.json" for number in range(1, count + 1))
        return [
            self.plain.get_object(Bucket=BUCKET, Key=f"{prefix}{number}.json")["Body"].read()
            for number in range(1, count + 1)
        ]

    def messages(self) -> list[dict[str, Any]]:
        """The messages as Dagster reads them: every chunk has whole lines and is not empty."""
        return messages_of(self.chunks())


def messages_of(chunks: list[bytes]) -> list[dict[str, Any]]:
    messages = []
    for chunk in chunks:
        assert chunk.strip()
        messages += [json.loads(line) for line in chunk.split(b"\n") if line]
    return messages


def methods(messages: list[dict[str, Any]]) -> list[str]:
    return [one["method"] for one in messages]


def texts(messages: list[dict[str, Any]]) -> list[str]:
    """Log texts, those that were joined apart again."""
    return [
        text
        for one in messages
        if one["method"] == "log"
        for text in one["params"]["message"].split("\n")
    ]


def moto() -> Iterator[int]:
    """Run moto; give its port."""
    port = free_port()
    process = serve(
        sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), port=port
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def s3(upstream: int) -> Iterator[S3]:
    """An empty prefix in a bucket that is there."""
    proxy = FaultProxy(upstream)
    try:
        store = S3(proxy)
        store.plain.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        proxy.close()
