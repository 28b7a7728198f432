"""Emulated object stores, each in a process of its own, behind a proxy that breaks requests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagsterpipes import encode_param
from support.fault_proxy import FaultProxy
from support.launching import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "pipes"

AZURITE_ACCOUNT = "devstoreaccount1"
# Azurite's own, which it publishes.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


class Store(ABC):
    """An emulator behind the proxy, with what a job and Dagster need to use it.

    Args:
        proxy: Where the clients of jobs go.
    """

    scheme: str
    # What an upload is.
    method = "PUT"
    # A client of the emulator, past the proxy.
    plain: Any
    # Defines `parts()` in a job, which finds the proxy's address in the environment.
    source: str

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.prefix = uuid.uuid4().hex
        self._parts: Any = self._load_parts()

    def _load_parts(self) -> Any:
        namespace: dict[str, Any] = {}
        exec(self.source, namespace)
        return namespace["parts"]

    def parts(self, **options: Any) -> dict[str, Any]:
        """Context loader and message writer, through the proxy."""
        return dict(self._parts(self.proxy.url, **options))

    def fail(self, times: int, **fault: Any) -> None:
        """Break the next uploads."""
        self.proxy.fail(times, self.method, **fault)

    @abstractmethod
    def client_environment(self) -> dict[str, str]:
        """What the store's own client needs to find it when it is given nothing, through the proxy."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store an object, past the proxy."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read an object, past the proxy."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """The keys that begin with this."""

    @abstractmethod
    def dagster(self, interval: float) -> tuple[Any, Any]:
        """Dagster's own context injector and message reader, past the proxy."""

    def env(self, *, stdio: bool = False, bucket: str = BUCKET) -> dict[str, str]:
        """The environment of a launched process."""
        key = f"{self.prefix}/context.json"
        self.put(key, json.dumps(CONTEXT).encode())
        return {
            "STORE": self.proxy.url,
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
        names = sorted(self.names(prefix))
        wanted = [f"{prefix}{number}.json" for number in range(1, len(names) + 1)]
        assert names == sorted(wanted)
        return [self.get(name) for name in wanted]

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


class S3(Store):
    """Moto's S3 and boto3, which tries once."""

    scheme = "s3"
    source = """
import boto3
from botocore.config import Config
from dagsterpipes import PipesS3ContextLoader, PipesS3MessageWriter

def client(url):
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )

def parts(url, bucket="pipes", **options):
    s3 = client(url)
    return {
        "context_loader": PipesS3ContextLoader(s3),
        "message_writer": PipesS3MessageWriter(s3, **options),
    }
"""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(proxy)
        self.plain = self._parts.__globals__["client"](f"http://127.0.0.1:{proxy.upstream}")
        self.plain.create_bucket(Bucket=BUCKET)

    def client_environment(self) -> dict[str, str]:
        return s3_environment(self.proxy.port)

    def put(self, key: str, data: bytes) -> None:
        self.plain.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.plain.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def names(self, prefix: str) -> list[str]:
        listed = self.plain.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for one in listed.get("Contents", [])]

    def dagster(self, interval: float) -> tuple[Any, Any]:
        from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

        return (
            PipesS3ContextInjector(bucket=BUCKET, client=self.plain),
            PipesS3MessageReader(bucket=BUCKET, client=self.plain, interval=interval),
        )


class ObstoreS3(S3):
    """The same by obstore."""

    scheme = ""
    source = (
        S3.source
        + """
from obstore.store import S3Store
from dagsterpipes import PipesObjectStoreContextLoader, PipesObjectStoreMessageWriter

def store(url, bucket):
    return S3Store(
        bucket, endpoint=url, region="us-east-1",
        access_key_id="test", secret_access_key="test",
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )

def parts(url, bucket="pipes", **options):
    return {
        "context_loader": PipesObjectStoreContextLoader(store(url, "pipes")),
        "message_writer": PipesObjectStoreMessageWriter(store(url, bucket), **options),
    }
"""
    )


class GCS(Store):
    """The emulator of Google Cloud Storage and Google's own client."""

    scheme = "gs"
    method = "POST"
    source = """
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from dagsterpipes import PipesGCSContextLoader, PipesGCSMessageWriter

def client(url):
    return storage.Client(
        project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )

def parts(url, bucket="pipes", **options):
    gcs = client(url)
    return {
        "context_loader": PipesGCSContextLoader(gcs),
        "message_writer": PipesGCSMessageWriter(gcs, **options),
    }
"""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(proxy)
        self.plain = self._parts.__globals__["client"](f"http://127.0.0.1:{proxy.upstream}")

    def client_environment(self) -> dict[str, str]:
        return gcs_environment(self.proxy.port)

    def put(self, key: str, data: bytes) -> None:
        self.plain.bucket(BUCKET).blob(key).upload_from_string(data)

    def get(self, key: str) -> bytes:
        data: bytes = self.plain.bucket(BUCKET).blob(key).download_as_bytes()
        return data

    def names(self, prefix: str) -> list[str]:
        return [blob.name for blob in self.plain.list_blobs(BUCKET, prefix=prefix)]

    def dagster(self, interval: float) -> tuple[Any, Any]:
        from dagster_gcp.pipes import PipesGCSContextInjector, PipesGCSMessageReader

        return (
            PipesGCSContextInjector(bucket=BUCKET, client=self.plain),
            PipesGCSMessageReader(bucket=BUCKET, client=self.plain, interval=interval),
        )


class Azure(Store):
    """Azurite and Microsoft's own client, which tries once."""

    scheme = "azure"
    source = f"""
from azure.storage.blob import BlobServiceClient
from dagsterpipes import PipesAzureBlobStorageContextLoader, PipesAzureBlobStorageMessageWriter

def client(url):
    key = dict(account_name={AZURITE_ACCOUNT!r}, account_key={AZURITE_KEY!r})
    return BlobServiceClient(f"{{url}}/{AZURITE_ACCOUNT}", credential=key, retry_total=0)

def parts(url, bucket="pipes", **options):
    azure = client(url)
    return {{
        "context_loader": PipesAzureBlobStorageContextLoader(azure),
        "message_writer": PipesAzureBlobStorageMessageWriter(azure, **options),
    }}
"""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(proxy)
        self.plain = self._parts.__globals__["client"](f"http://127.0.0.1:{proxy.upstream}")
        container = self.plain.get_container_client(BUCKET)
        if not container.exists():
            container.create_container()

    def client_environment(self) -> dict[str, str]:
        return azure_environment(self.proxy.port)

    def put(self, key: str, data: bytes) -> None:
        self.plain.get_blob_client(BUCKET, key).upload_blob(data, overwrite=True)

    def get(self, key: str) -> bytes:
        data: bytes = self.plain.get_blob_client(BUCKET, key).download_blob().readall()
        return data

    def names(self, prefix: str) -> list[str]:
        container = self.plain.get_container_client(BUCKET)
        return list(container.list_blob_names(name_starts_with=prefix))

    def dagster(self, interval: float) -> tuple[Any, Any]:
        from dagster_azure.pipes import (
            PipesAzureBlobStorageContextInjector,
            PipesAzureBlobStorageMessageReader,
        )

        return (
            PipesAzureBlobStorageContextInjector(container=BUCKET, client=self.plain),
            PipesAzureBlobStorageMessageReader(
                container=BUCKET, client=self.plain, interval=interval
            ),
        )


def s3_environment(port: int) -> dict[str, str]:
    """What boto3 needs."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",  # for obstore
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def gcs_environment(port: int) -> dict[str, str]:
    """What Google's client needs."""
    return {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "GOOGLE_CLOUD_PROJECT": "p",
    }


def azure_environment(port: int) -> dict[str, str]:
    """What Microsoft's client reads, and what its users give it."""
    url = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"
    return {
        "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=http;"
        f"AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint={url};"
    }


def emulator(kind: type[Store]) -> Iterator[int]:
    """Run the emulator of a store; give its port."""
    port = free_port()
    with served(*_command(kind, port), port=port):
        yield port


def _command(kind: type[Store], port: int) -> list[str]:
    if issubclass(kind, S3):
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if issubclass(kind, GCS):
        code = (
            "import sys; from gcp_storage_emulator.server import create_server;"
            "create_server('127.0.0.1', int(sys.argv[1]), in_memory=True, default_bucket='pipes').run()"
        )
        return [sys.executable, "-c", code, str(port)]
    return [
        "node",
        os.environ["DAGSTERPIPES_AZURITE"],
        *("--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"),
    ]


def opened(kind: type[Store], port: int) -> Iterator[Store]:
    """An empty prefix in a bucket that is there."""
    proxy = FaultProxy(port)
    try:
        yield kind(proxy)
    finally:
        proxy.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def served(*command: str, port: int, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server; it answers on the port."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not answer")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
