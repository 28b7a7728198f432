"""Where jobs that run elsewhere find their context and send their messages: object stores and the like.

The names and parameters are those of ``dagster_pipes``. Clients are made by you, with your credentials
and options: ``boto3.client("s3")``, ``google.cloud.storage.Client()``,
``azure.storage.blob.BlobServiceClient(...)``, or any store of ``obstore``. They are used in the session's
own thread, one request at a time.

What all message writers here guarantee: see `PipesBlobStoreMessageWriter`.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from abc import abstractmethod
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any, Literal

from dagsterpipes._delivery.channels.object_store import status_of
from dagsterpipes.exceptions import (
    ContextError,
    DagsterPipesWarning,
    LaunchParamsError,
    describe,
    shorten,
)
from dagsterpipes.loaders import PipesContextLoader, parse_context
from dagsterpipes.writers import (
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    T_BlobStoreMessageWriterChannel,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagsterpipes.typing import PipesContextData, PipesExtras, PipesMessage, PipesParams

__all__ = [
    "PipesAzureBlobStorageContextLoader",
    "PipesAzureBlobStorageMessageWriter",
    "PipesAzureBlobStorageMessageWriterChannel",
    "PipesBufferedFilesystemMessageWriterChannel",
    "PipesDbfsContextLoader",
    "PipesDbfsMessageWriter",
    "PipesGCSContextLoader",
    "PipesGCSMessageWriter",
    "PipesGCSMessageWriterChannel",
    "PipesObjectStoreContextLoader",
    "PipesObjectStoreMessageWriter",
    "PipesObjectStoreMessageWriterChannel",
    "PipesPrefectLogsMessageWriter",
    "PipesPrefectLogsMessageWriterChannel",
    "PipesS3ContextLoader",
    "PipesS3MessageWriter",
    "PipesS3MessageWriterChannel",
    "PipesUnityCatalogVolumesContextLoader",
    "PipesUnityCatalogVolumesMessageWriter",
]

DBFS_ROOT = "/dbfs"
"""Where Databricks mounts DBFS."""

DBFS_READ_SIZE = 500_000
"""Bytes of a file on DBFS that Dagster reads: its API gives half a megabyte at once."""


# -- params ---------------------------------------------------------------------------------------


def _text_param(params: PipesParams, key: str, part: object, variable: str) -> str:
    value = params.get(key)
    if isinstance(value, str) and value:
        return value
    got = f"{describe(value)} under it" if key in params else "no such key"
    raise LaunchParamsError(
        f"Invalid params for {type(part).__name__}: expected text under the key `{key}` of {variable};"
        f" got {got}, and the keys {shorten(sorted(map(str, params)), 200)}. The"
        f" {'context injector' if variable == _CONTEXT else 'message reader'} on the Dagster side must"
        " be the one for this store."
    )


_CONTEXT = "DAGSTER_PIPES_CONTEXT"
_MESSAGES = "DAGSTER_PIPES_MESSAGES"


# -- what all have in common ----------------------------------------------------------------------


class _StoreContextLoader(PipesContextLoader):
    """Reads the context from an object."""

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
        """Read and check the context; nothing stays open.

        Args:
            params: What the context injector on the Dagster side gave.

        Raises:
            LaunchParamsError: The params do not name an object.
            ContextError: The object cannot be read, or is not what Dagster writes.
        """
        place, read = self._locate(params)
        try:
            content = read()
        except Exception as error:
            raise ContextError(
                f"The context {place} cannot be read: {type(error).__name__}: {error}. {_CONTEXT} names"
                " it: check that this process has credentials for it that allow to read it, and that the"
                " Dagster run is still going on."
            ) from error
        yield parse_context(content, f"The context {place}")  # type: ignore[misc] # because the session checks it

    @abstractmethod
    def _locate(self, params: PipesParams) -> tuple[str, Callable[[], bytes]]:
        """Where the context is, for errors, and a function that reads it."""


class _BucketContextLoader(_StoreContextLoader):
    """Reads the context from an object in a bucket."""

    SCHEME = ""

    def __init__(self, client: Any) -> None:
        self._client = client

    def _locate(self, params: PipesParams) -> tuple[str, Callable[[], bytes]]:
        bucket = _text_param(params, "bucket", self, _CONTEXT)
        key = _text_param(params, "key", self, _CONTEXT)
        return f"{self.SCHEME}{bucket}/{key}", lambda: self._read(bucket, key)

    @abstractmethod
    def _read(self, bucket: str, key: str) -> bytes:
        """Read an object."""


class _ObjectChannel(PipesBlobStoreMessageWriterChannel):
    """A channel to objects with a common prefix."""

    SCHEME = ""

    def __init__(
        self, client: Any, bucket: str, key_prefix: str | None, *, interval: float = 10
    ) -> None:
        super().__init__(interval=interval)
        self._client = client
        self._bucket = bucket
        self._key_prefix = key_prefix

    @property
    def place(self) -> str:
        """Where the objects go, for errors."""
        return f"{self.SCHEME}://{self._bucket}" + (
            f"/{self._key_prefix}" if self._key_prefix else ""
        )

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        """Store one object.

        Raises:
            FileExistsError: It is the first one, and there is one already that another process has
                stored. Where a store or its client cannot tell, it is overwritten.
        """
        key = f"{self._key_prefix}/{index}.json" if self._key_prefix else f"{index}.json"
        data = _to_bytes(payload)
        if self._must_be_new:
            try:
                self._upload(key, data, must_be_new=True)
            except Exception as error:
                if _is_conflict(error) and not _was_repeated(error):
                    raise FileExistsError(f"{self.place} has {index}.json") from error
                if not (_is_conflict(error) or _is_unsupported(error)):
                    raise
            else:
                return
        self._upload(key, data, must_be_new=False)

    @abstractmethod
    def _upload(self, key: str, data: bytes, *, must_be_new: bool) -> None:
        """Store an object, over one that is there or only if there is none."""


def _is_conflict(error: Exception) -> bool:
    """Whether the object was there already."""
    names = ("ResourceExistsError", "AlreadyExistsError")  # of Azure, of obstore
    return status_of(error) == HTTPStatus.PRECONDITION_FAILED or type(error).__name__ in names


def _was_repeated(error: Exception) -> bool:
    """Whether boto3 tried more than once: then it may have found what its first try stored."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return bool(metadata.get("RetryAttempts"))


def _is_unsupported(error: Exception) -> bool:
    """Whether the store, or a client that is old or somebody's own, may not know the condition."""
    names = ("ParamValidationError", "NotSupportedError", "NotImplementedError", "TypeError")
    statuses = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED)
    return type(error).__name__ in names or status_of(error) in statuses


class _BucketMessageWriter(PipesBlobStoreMessageWriter[T_BlobStoreMessageWriterChannel]):
    """Writes messages as objects in a bucket."""

    def __init__(self, client: Any, *, interval: float = 10) -> None:
        super().__init__(interval=interval)
        self._client = client

    def make_channel(self, params: PipesParams) -> T_BlobStoreMessageWriterChannel:
        """Return the channel to where the params say.

        Raises:
            LaunchParamsError: They name no bucket.
        """
        bucket = _text_param(params, "bucket", self, _MESSAGES)
        prefix = params.get("key_prefix")
        if prefix is not None:
            prefix = _text_param(params, "key_prefix", self, _MESSAGES)
        return self._channel(bucket, prefix)

    @abstractmethod
    def _channel(self, bucket: str, key_prefix: str | None) -> T_BlobStoreMessageWriterChannel:
        """Return the channel to this bucket."""


def _to_bytes(payload: IO[Any]) -> bytes:
    data: str | bytes = getattr(payload, "buffer", payload).read()
    return data.encode() if isinstance(data, str) else data


# -- S3 -------------------------------------------------------------------------------------------


class PipesS3ContextLoader(_BucketContextLoader):
    """Reads the context from S3 (params ``bucket`` and ``key``).

    Args:
        client: A ``boto3.client("s3")``, or anything with its ``get_object``.
    """

    SCHEME = "s3://"

    def _read(self, bucket: str, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


class PipesS3MessageWriterChannel(_ObjectChannel):
    """Writes objects to S3.

    Args:
        client: A ``boto3.client("s3")``, or anything with its ``put_object``.
        bucket: The bucket.
        key_prefix: What the keys begin with, without a slash at its end.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    SCHEME = "s3"

    def _upload(self, key: str, data: bytes, *, must_be_new: bool) -> None:
        condition = {"IfNoneMatch": "*"} if must_be_new else {}
        self._client.put_object(Body=data, Bucket=self._bucket, Key=key, **condition)


class PipesS3MessageWriter(_BucketMessageWriter[PipesS3MessageWriterChannel]):
    """Writes messages to S3 (params ``bucket`` and ``key_prefix``).

    Args:
        client: A ``boto3.client("s3")``, or anything with its ``put_object``.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def _channel(self, bucket: str, key_prefix: str | None) -> PipesS3MessageWriterChannel:
        return PipesS3MessageWriterChannel(self._client, bucket, key_prefix, interval=self.interval)


# -- Google Cloud Storage -------------------------------------------------------------------------


class PipesGCSContextLoader(_BucketContextLoader):
    """Reads the context from Google Cloud Storage (params ``bucket`` and ``key``).

    Args:
        client: A ``google.cloud.storage.Client``. It needs no permission but to read the object.
    """

    SCHEME = "gs://"

    def _read(self, bucket: str, key: str) -> bytes:
        content: bytes = self._client.bucket(bucket).blob(key).download_as_bytes()
        return content


class PipesGCSMessageWriterChannel(_ObjectChannel):
    """Writes objects to Google Cloud Storage.

    Args:
        client: A ``google.cloud.storage.Client``.
        bucket: The bucket.
        key_prefix: What the names begin with, without a slash at its end.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    SCHEME = "gs"

    def _upload(self, key: str, data: bytes, *, must_be_new: bool) -> None:
        blob = self._client.bucket(self._bucket).blob(key)
        condition = {"if_generation_match": 0} if must_be_new else {}
        # Without the client's own retries, which take two minutes: the session retries, and knows why.
        blob.upload_from_string(data, retry=None, **condition)


class PipesGCSMessageWriter(_BucketMessageWriter[PipesGCSMessageWriterChannel]):
    """Writes messages to Google Cloud Storage (params ``bucket`` and ``key_prefix``).

    Args:
        client: A ``google.cloud.storage.Client``. It must be allowed to create and to overwrite objects.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def _channel(self, bucket: str, key_prefix: str | None) -> PipesGCSMessageWriterChannel:
        return PipesGCSMessageWriterChannel(
            self._client, bucket, key_prefix, interval=self.interval
        )


# -- Azure Blob Storage ---------------------------------------------------------------------------


class PipesAzureBlobStorageContextLoader(_BucketContextLoader):
    """Reads the context from Azure Blob Storage (params ``bucket``, the container, and ``key``).

    Args:
        client: An ``azure.storage.blob.BlobServiceClient``.
    """

    SCHEME = "azure://"

    def _read(self, bucket: str, key: str) -> bytes:
        with self._client.get_blob_client(bucket, key) as blob:
            content: bytes = blob.download_blob().readall()
        return content


class PipesAzureBlobStorageMessageWriterChannel(_ObjectChannel):
    """Writes blobs to Azure Blob Storage.

    Args:
        client: An ``azure.storage.blob.BlobServiceClient``.
        bucket: The container.
        key_prefix: What the names begin with, without a slash at its end.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    SCHEME = "azure"

    def _upload(self, key: str, data: bytes, *, must_be_new: bool) -> None:
        # A retry of the client's own could find what its first try stored.
        options = {"retry_total": 0} if must_be_new else {}
        with self._client.get_blob_client(self._bucket, key) as blob:
            blob.upload_blob(data, overwrite=not must_be_new, **options)


class PipesAzureBlobStorageMessageWriter(
    _BucketMessageWriter[PipesAzureBlobStorageMessageWriterChannel]
):
    """Writes messages to Azure Blob Storage (params ``bucket``, the container, and ``key_prefix``).

    Args:
        client: An ``azure.storage.blob.BlobServiceClient``.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def _channel(
        self, bucket: str, key_prefix: str | None
    ) -> PipesAzureBlobStorageMessageWriterChannel:
        return PipesAzureBlobStorageMessageWriterChannel(
            self._client, bucket, key_prefix, interval=self.interval
        )


# -- any store of obstore -------------------------------------------------------------------------


class PipesObjectStoreContextLoader(_BucketContextLoader):
    """Reads the context from any store of ``obstore`` (params ``bucket`` and ``key``).

    Args:
        store: For the bucket that the context injector uses, without a prefix.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)

    def _locate(self, params: PipesParams) -> tuple[str, Callable[[], bytes]]:
        located = super()._locate(params)
        _check_store(self._client, params["bucket"], self, _CONTEXT)
        return located

    def _read(self, bucket: str, key: str) -> bytes:
        del bucket  # it is the store's
        return bytes(self._client.get(key).bytes())


class PipesObjectStoreMessageWriterChannel(_ObjectChannel):
    """Writes objects to any store of ``obstore``.

    Args:
        client: The store, for the bucket, without a prefix.
        bucket: The bucket or container.
        key_prefix: What the keys begin with, without a slash at its end.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    @property
    def place(self) -> str:
        """Where the objects go, for errors."""
        return super().place.removeprefix("://")

    def _upload(self, key: str, data: bytes, *, must_be_new: bool) -> None:
        condition = {"mode": "create"} if must_be_new else {}
        self._client.put(key, data, **condition)


class PipesObjectStoreMessageWriter(_BucketMessageWriter[PipesObjectStoreMessageWriterChannel]):
    """Writes messages to any store of ``obstore`` (params ``bucket`` and ``key_prefix``).

    Args:
        store: For the bucket that the message reader uses, without a prefix: ``S3Store("bucket")``.
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def __init__(self, store: Any, *, interval: float = 10) -> None:
        super().__init__(store, interval=interval)

    def _channel(self, bucket: str, key_prefix: str | None) -> PipesObjectStoreMessageWriterChannel:
        _check_store(self._client, bucket, self, _MESSAGES)
        return PipesObjectStoreMessageWriterChannel(
            self._client, bucket, key_prefix, interval=self.interval
        )


def _check_store(store: Any, bucket: str, part: object, variable: str) -> None:
    """Compare a store of ``obstore``, which belongs to one bucket, with what Dagster says.

    Raises:
        LaunchParamsError: They do not fit: what is written would not be found.
    """
    config = getattr(store, "config", None) or {}
    names = [config.get(key) for key in ("bucket", "container_name", "container")]
    own = next((name for name in names if name is not None), bucket)
    prefix = getattr(store, "prefix", None)
    if own == bucket and not prefix:
        return
    raise LaunchParamsError(
        f"The store of {type(part).__name__} must be for the bucket {bucket!r} that {variable} names,"
        f" without a prefix; got one for {own!r} with the prefix {prefix!r}."
    )


# -- Databricks -----------------------------------------------------------------------------------


class _FileContextLoader(_StoreContextLoader):
    """Reads the context from a path that Databricks mounts (params ``path``)."""

    def _locate(self, params: PipesParams) -> tuple[str, Callable[[], bytes]]:
        path = self._path(_text_param(params, "path", self, _CONTEXT))

        def read() -> bytes:
            with open(path, "rb") as file:  # noqa: PTH123 because pathlib is not worth its import
                return file.read()

        return f"file {path!r}", read

    def _path(self, path: str) -> str:
        return path


class PipesDbfsContextLoader(_FileContextLoader):
    """Reads the context from DBFS (params ``path``)."""

    def _path(self, path: str) -> str:
        return _dbfs_path(path)


class PipesUnityCatalogVolumesContextLoader(_FileContextLoader):
    """Reads the context from a Unity Catalog volume (params ``path``)."""


class PipesBufferedFilesystemMessageWriterChannel(PipesBlobStoreMessageWriterChannel):
    """Writes files with numbers as names to a folder, each at once as a whole.

    Args:
        path: The folder; it must exist.
        interval: As of `PipesBlobStoreMessageWriter`.
        max_size: Most bytes of a file that the reader reads to its end; None if it reads all.
    """

    def __init__(self, path: str, *, interval: float = 10, max_size: int | None = None) -> None:
        super().__init__(interval=interval)
        self._path = path
        if max_size is not None:
            self.MAX_SIZE = max_size

    @property
    def place(self) -> str:
        """Where the files go, for errors."""
        return self._path

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        """Write one file: beside its place, then renamed, so that no reader sees a part of it.

        Raises:
            FileExistsError: It is the first one, and there is one already that another process has
                written.
        """
        data = _to_bytes(payload)
        path = os.path.join(self._path, f"{index}.json")  # noqa: PTH118 because pathlib is not worth its import
        beside = f"{path}.{os.getpid()}.tmp"
        try:
            _write_file(beside, data)
            try:
                (os.link if self._must_be_new else os.replace)(beside, path)
            except FileExistsError:
                raise
            except OSError:  # not every mount can link or rename
                _write_file(path, data, "xb" if self._must_be_new else "wb")
        finally:
            with suppress(OSError):
                os.unlink(beside)  # noqa: PTH108 because pathlib is not worth its import


def _write_file(path: str, data: bytes, mode: Literal["wb", "xb"] = "wb") -> None:
    with open(path, mode, buffering=0) as file:  # noqa: PTH123 because pathlib is not worth its import
        written = file.write(data)
        if written != len(data):
            raise OSError(f"only {written:,} of {len(data):,} bytes were written to {path}")


def _dbfs_path(path: str) -> str:
    return os.path.join(DBFS_ROOT, path.removeprefix("dbfs:").lstrip("/"))  # noqa: PTH118 because pathlib is not worth its import


class PipesDbfsMessageWriter(
    PipesBlobStoreMessageWriter[PipesBufferedFilesystemMessageWriterChannel]
):
    """Writes messages to a folder on DBFS (params ``path``).

    Dagster reads half a megabyte of each file, and one file in ``interval + 1`` seconds. For many logs a
    Unity Catalog volume is better.

    Args:
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def make_channel(self, params: PipesParams) -> PipesBufferedFilesystemMessageWriterChannel:
        """Return the channel to where the params say.

        Raises:
            LaunchParamsError: They name no path.
        """
        path = _dbfs_path(_text_param(params, "path", self, _MESSAGES))
        return PipesBufferedFilesystemMessageWriterChannel(
            path, interval=self.interval, max_size=DBFS_READ_SIZE
        )

    def get_opened_extras(self) -> PipesExtras:
        """Return where the logs of the cluster are, if Spark is there and knows it."""
        try:
            from pyspark.sql import SparkSession  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415 because only clusters have it
        except ImportError:
            return {}
        try:
            session = SparkSession.getActiveSession()
            if session is None:
                return {}
            conf = session.conf
            if not conf.get(f"{_TAGS}.clusterLogDeliveryEnabled"):
                return {}
            root = conf.get(f"{_TAGS}.clusterLogDestination")
            cluster = conf.get(f"{_TAGS}.clusterId")
        except Exception as error:  # noqa: BLE001 because py4j raises its own
            warnings.warn(
                "Spark does not tell where the logs of the cluster are, so Dagster will not show them:"
                f" {type(error).__name__}: {shorten(str(error), 200)}",
                DagsterPipesWarning,
                stacklevel=2,
            )
            return {}
        return {"cluster_driver_log_root": f"{root}/{cluster}/driver"}


_TAGS = "spark.databricks.clusterUsageTags"


class PipesUnityCatalogVolumesMessageWriter(
    PipesBlobStoreMessageWriter[PipesBufferedFilesystemMessageWriterChannel]
):
    """Writes messages to a folder on a Unity Catalog volume (params ``path``).

    Args:
        interval: As of `PipesBlobStoreMessageWriter`.
    """

    def make_channel(self, params: PipesParams) -> PipesBufferedFilesystemMessageWriterChannel:
        """Return the channel to where the params say.

        Raises:
            LaunchParamsError: They name no path.
        """
        path = _text_param(params, "path", self, _MESSAGES)
        return PipesBufferedFilesystemMessageWriterChannel(path, interval=self.interval)


# -- Prefect --------------------------------------------------------------------------------------


class PipesPrefectLogsMessageWriterChannel(PipesMessageWriterChannel):
    """Writes each message as an INFO record of a logger.

    Prefect cuts long logs, and half a message is lost. So a message that would be too long is replaced
    by an error that says so; `closed` then closes with that error.

    Args:
        logger: The logger, whose handler sends to Prefect's API.
        max_message_bytes: Most bytes of a message.
    """

    def __init__(self, logger: logging.Logger, max_message_bytes: int) -> None:
        self._logger = logger
        self._max_message_bytes = max_message_bytes

    def write_message(self, message: PipesMessage) -> None:
        """Log a message."""
        line = json.dumps(message)
        if len(line) > self._max_message_bytes:
            line = json.dumps(self._replacement(message, len(line)))
        self._logger.info("%s", line)

    def _replacement(self, message: PipesMessage, size: int) -> dict[str, Any]:
        text = (
            f"A `{message['method']}` message of {size:,} bytes was not sent: Prefect takes"
            f" {self._max_message_bytes:,}. Use a message writer for an object store for large messages."
        )
        params: dict[str, Any] = {"message": text, "level": "ERROR"}
        method = "log"
        if message["method"] == "closed":
            method = "closed"
            error = (message["params"] or {}).get("exception") or {}
            params = {
                "exception": {
                    "message": text,
                    "stack": [],
                    "name": error.get("name"),
                    "cause": None,
                    "context": None,
                }
            }
        return {**message, "method": method, "params": params}


class PipesPrefectLogsMessageWriter(PipesMessageWriter[PipesPrefectLogsMessageWriterChannel]):
    """Writes messages as logs of the current Prefect flow or task run (params ``prefect_logs``).

    Open the session inside a run: Prefect finds the run in the context variables of whoever opens it.
    """

    PREFECT_LOGS_KEY = "prefect_logs"
    MAX_MESSAGE_BYTES_KEY = "max_message_bytes"
    LOGGER_NAME = "prefect.flow_runs.dagster_pipes"
    DEFAULT_MAX_MESSAGE_BYTES = 900_000

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[PipesPrefectLogsMessageWriterChannel]:
        """Open the channel.

        Raises:
            LaunchParamsError: The params are not those of a reader of Prefect's logs.
        """
        size = params.get(self.MAX_MESSAGE_BYTES_KEY) or self.DEFAULT_MAX_MESSAGE_BYTES
        if not isinstance(params.get(self.PREFECT_LOGS_KEY), bool) or not isinstance(size, int):
            raise LaunchParamsError(
                f"Invalid params for {type(self).__name__}: expected true under the key"
                f" `{self.PREFECT_LOGS_KEY}` of {_MESSAGES}, and a number under"
                f" `{self.MAX_MESSAGE_BYTES_KEY}` if it is there; got the keys"
                f" {shorten(sorted(map(str, params)), 200)}. The message reader on the Dagster side must be"
                " the one for Prefect's logs."
            )
        yield PipesPrefectLogsMessageWriterChannel(logging.getLogger(self.LOGGER_NAME), size)
