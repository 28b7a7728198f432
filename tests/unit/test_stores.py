"""Loaders and writers for stores: params that do not fit, files on Databricks, Prefect's logs."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dagsterpipes import (
    ChannelError,
    ContextError,
    DagsterPipesWarning,
    LaunchParamsError,
    PipesAzureBlobStorageContextLoader,
    PipesAzureBlobStorageMessageWriter,
    PipesBufferedFilesystemMessageWriterChannel,
    PipesDbfsContextLoader,
    PipesDbfsMessageWriter,
    PipesGCSContextLoader,
    PipesGCSMessageWriter,
    PipesMappingParamsLoader,
    PipesObjectStoreContextLoader,
    PipesObjectStoreMessageWriter,
    PipesPrefectLogsMessageWriter,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    PipesUnityCatalogVolumesContextLoader,
    PipesUnityCatalogVolumesMessageWriter,
    encode_param,
    open_dagster_pipes,
    stores,
)
from support.launching import CONTEXT

LOADERS: list[Any] = [
    PipesS3ContextLoader(None),
    PipesGCSContextLoader(None),
    PipesAzureBlobStorageContextLoader(None),
    PipesObjectStoreContextLoader(None),
]
WRITERS: list[Any] = [
    PipesS3MessageWriter(None),
    PipesGCSMessageWriter(None),
    PipesAzureBlobStorageMessageWriter(None),
    PipesObjectStoreMessageWriter(None),
]


def name_of(part: object) -> str:
    return type(part).__name__


@pytest.mark.parametrize("loader", LOADERS, ids=name_of)
@pytest.mark.parametrize(
    ("params", "got"),
    [
        ({"path": "p"}, "under the key `bucket` of DAGSTER_PIPES_CONTEXT; got no such key"),
        ({"bucket": "b"}, "under the key `key` of DAGSTER_PIPES_CONTEXT; got no such key"),
        ({"bucket": 5}, "got a value of type int under it"),
    ],
)
def test_a_context_that_is_not_in_a_bucket(loader: Any, params: dict[str, Any], got: str) -> None:
    """The error names the loader, the variable, the key, and the keys that there are."""
    with pytest.raises(LaunchParamsError) as caught, loader.load_context(params):
        pass
    assert str(caught.value).startswith(
        f"Invalid params for {name_of(loader)}: expected text under"
    )
    assert got in str(caught.value)
    assert f"the keys {sorted(params)}" in str(caught.value)


@pytest.mark.parametrize("writer", WRITERS, ids=name_of)
@pytest.mark.parametrize(
    ("params", "got"),
    [
        ({"path": "p"}, "expected text under the key `bucket` of DAGSTER_PIPES_MESSAGES"),
        ({"bucket": "b", "key_prefix": 5}, "expected text under the key `key_prefix` of"),
    ],
)
def test_messages_that_do_not_go_to_a_bucket(writer: Any, params: dict[str, Any], got: str) -> None:
    """The error says which reader would fit."""
    with pytest.raises(LaunchParamsError, match=r"message reader .* must be the one for") as caught:
        writer.make_channel(params)
    assert got in str(caught.value)


def test_a_store_of_another_bucket() -> None:
    """What is written there would not be found."""
    obstore = pytest.importorskip("obstore.store")
    params = {"bucket": "b", "key_prefix": "p", "key": "k"}
    for store, words in (
        (obstore.S3Store("other", region="x"), "got one for 'other' with the prefix None"),
        (obstore.S3Store("b", prefix="in", region="x"), "got one for 'b' with the prefix 'in'"),
    ):
        with pytest.raises(LaunchParamsError, match="must be for the bucket 'b'") as caught:
            PipesObjectStoreMessageWriter(store).make_channel(params)
        assert words in str(caught.value)
        with (
            pytest.raises(LaunchParamsError),
            PipesObjectStoreContextLoader(store).load_context(params),
        ):
            pass
    PipesObjectStoreMessageWriter(obstore.S3Store("b", region="x")).make_channel(params)
    PipesObjectStoreMessageWriter(obstore.MemoryStore()).make_channel(params)


def test_a_context_that_cannot_be_read() -> None:
    """What was tried, what happened, what to check."""

    class Client:
        def get_object(self, **_: Any) -> Any:
            raise PermissionError("denied")

    loader = PipesS3ContextLoader(Client())
    wanted = "The context s3://b/k cannot be read: PermissionError: denied.*credentials"
    with (
        pytest.raises(ContextError, match=wanted),
        loader.load_context({"bucket": "b", "key": "k"}),
    ):
        pass


def test_a_writer_that_was_given_no_client() -> None:
    """A wrong client is an error when the session is opened, not a job that retries for ever."""
    params = PipesMappingParamsLoader(
        {
            "DAGSTER_PIPES_CONTEXT": encode_param({"data": CONTEXT}),
            "DAGSTER_PIPES_MESSAGES": encode_param({"bucket": "b"}),
        }
    )
    with pytest.raises(ChannelError, match=r"s3://b/1.json could not be written: AttributeError"):
        open_dagster_pipes(params_loader=params, message_writer=PipesS3MessageWriter("client"))


class S3Client:
    """Keeps what is put; a client that is older, or for a store that knows no conditions, refuses them."""

    def __init__(self, refusal: Exception | None) -> None:
        self.refusal = refusal
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Body: bytes, Bucket: str, Key: str, **condition: str) -> None:
        del Bucket
        if condition and self.refusal is not None:
            raise self.refusal
        self.objects[Key] = Body


class ParamValidationError(Exception):
    """As botocore's, by its name."""


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, status: int, attempts: int = 0) -> None:
        super().__init__(f"answered with {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": attempts}}


@pytest.mark.parametrize(
    "refusal",
    [None, TypeError("IfNoneMatch"), ParamValidationError(), ClientError(501), ClientError(400)],
    ids=repr,
)
def test_a_client_that_knows_no_condition(refusal: Exception | None) -> None:
    """The first object is stored without it."""
    client = S3Client(refusal)
    lines = (
        PipesS3MessageWriter(client).make_channel({"bucket": "b", "key_prefix": "p"}).open_lines()
    )
    lines.write(b"{}\n")
    assert client.objects == {"p/1.json": b"{}"}


@pytest.mark.parametrize("attempts", [0, 1])
def test_what_a_retry_of_the_client_finds(attempts: int) -> None:
    """It may be what the client's first try stored; otherwise it is another process's."""
    client = S3Client(ClientError(412, attempts))
    lines = PipesS3MessageWriter(client).make_channel({"bucket": "b"}).open_lines()
    if attempts:
        lines.write(b"{}\n")
        assert client.objects == {"1.json": b"{}"}
        return
    with pytest.raises(ChannelError, match=r"s3://b/1.json is there already"):
        lines.write(b"{}\n")
    assert client.objects == {}


class TestFiles:
    """Folders that are mounted, as Databricks does."""

    def test_a_file_appears_as_a_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is renamed to its name when it is complete, and nothing else stays."""
        seen: list[bytes] = []
        replace = os.replace

        def looking(source: str, target: str) -> None:
            assert not Path(target).exists()
            seen.append(Path(source).read_bytes())
            replace(source, target)

        monkeypatch.setattr(os, "replace", looking)
        channel = PipesBufferedFilesystemMessageWriterChannel(str(tmp_path))
        channel.upload_messages_chunk(io.StringIO("{}\n"), 1)
        assert seen == [b"{}\n"]
        assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("1.json", b"{}\n")]

    def test_a_mount_that_cannot_rename(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is written at its place."""

        def fail(*_: Any) -> None:
            raise OSError("not supported")

        monkeypatch.setattr(os, "replace", fail)
        channel = PipesBufferedFilesystemMessageWriterChannel(str(tmp_path))
        channel.upload_messages_chunk(io.StringIO("{}\n"), 1)
        assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("1.json", b"{}\n")]

    @pytest.mark.parametrize("can_link", [True, False])
    def test_a_first_file_of_another_process(
        self, can_link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not overwritten when the session opens, whatever the mount can do."""

        def fail(*_: Any) -> None:
            raise OSError("not supported")

        if not can_link:
            monkeypatch.setattr(os, "link", fail)
        params = PipesMappingParamsLoader(
            {
                "DAGSTER_PIPES_CONTEXT": encode_param({"data": CONTEXT}),
                "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path)}),
            }
        )
        writer = PipesUnityCatalogVolumesMessageWriter()
        with open_dagster_pipes(params_loader=params, message_writer=writer) as pipes:
            pipes.log.info("of the first")
        first = (tmp_path / "1.json").read_text()
        assert [one.name for one in tmp_path.iterdir()] != []
        with pytest.raises(ChannelError, match=r"1.json is there already: another process"):
            open_dagster_pipes(params_loader=params, message_writer=writer)
        assert (tmp_path / "1.json").read_text() == first
        assert {one.suffix for one in tmp_path.iterdir()} == {".json"}

    def test_a_full_disk_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No part of a file is ever seen under its name."""
        monkeypatch.setattr(stores, "open", lambda path, *_, **__: _Full(path, "wb"), raising=False)
        channel = PipesBufferedFilesystemMessageWriterChannel(str(tmp_path))
        with pytest.raises(OSError, match="only 1 of 3 bytes were written"):
            channel.upload_messages_chunk(io.StringIO("{}\n"), 1)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("loader", "writer", "named"),
        [
            (PipesDbfsContextLoader(), PipesDbfsMessageWriter(), "dbfs:/job/messages"),
            (PipesDbfsContextLoader(), PipesDbfsMessageWriter(), "/job/messages"),
            (
                PipesUnityCatalogVolumesContextLoader(),
                PipesUnityCatalogVolumesMessageWriter(),
                "{root}/job/messages",
            ),
        ],
        ids=["dbfs:", "dbfs", "volumes"],
    )
    def test_where_they_are(
        self, loader: Any, writer: Any, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """DBFS below its mount, volumes at their path."""
        monkeypatch.setattr(stores, "DBFS_ROOT", str(tmp_path))
        folder = tmp_path / "job/messages"
        folder.mkdir(parents=True)
        (folder / "context").write_text(json.dumps(CONTEXT))
        path = named.format(root=tmp_path)
        with loader.load_context({"path": f"{path}/context"}) as context:
            assert context == CONTEXT
        writer.make_channel({"path": path}).upload_messages_chunk(io.StringIO("{}"), 1)
        assert (folder / "1.json").read_text() == "{}"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        """It is an error when the session is opened."""
        params = PipesMappingParamsLoader(
            {
                "DAGSTER_PIPES_CONTEXT": encode_param({"data": CONTEXT}),
                "DAGSTER_PIPES_MESSAGES": encode_param({"path": f"{tmp_path}/none"}),
            }
        )
        with pytest.raises(ChannelError, match=r"none/1.json could not be written: FileNotFound"):
            open_dagster_pipes(
                params_loader=params, message_writer=PipesUnityCatalogVolumesMessageWriter()
            )


class _Full(io.FileIO):
    """A file on a disk that has room for one byte."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data)[:1])


class TestSpark:
    """Where the logs of a cluster are."""

    def install(self, monkeypatch: pytest.MonkeyPatch, session: Any) -> None:
        class SparkSession:
            @staticmethod
            def getActiveSession() -> Any:
                return session

        module = types.ModuleType("pyspark.sql")
        module.SparkSession = SparkSession  # type: ignore[attr-defined] # because it is made here
        monkeypatch.setitem(sys.modules, "pyspark", types.ModuleType("pyspark"))
        monkeypatch.setitem(sys.modules, "pyspark.sql", module)

    def extras(self) -> Any:
        return PipesDbfsMessageWriter().get_opened_extras()

    def test_without_spark(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is known, and nothing wrong."""
        monkeypatch.setitem(sys.modules, "pyspark", None)
        monkeypatch.setitem(sys.modules, "pyspark.sql", None)
        assert self.extras() == {}
        self.install(monkeypatch, None)
        assert self.extras() == {}

    def test_with_log_delivery(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The folder of the driver's logs."""
        tags = {
            "clusterLogDeliveryEnabled": "true",
            "clusterLogDestination": "dbfs:/logs",
            "clusterId": "c1",
        }
        conf = {f"spark.databricks.clusterUsageTags.{key}": value for key, value in tags.items()}
        self.install(monkeypatch, types.SimpleNamespace(conf=conf))
        assert self.extras() == {"cluster_driver_log_root": "dbfs:/logs/c1/driver"}
        conf["spark.databricks.clusterUsageTags.clusterLogDeliveryEnabled"] = ""
        assert self.extras() == {}

    def test_a_spark_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The job goes on, with a warning."""
        self.install(monkeypatch, types.SimpleNamespace())
        with pytest.warns(DagsterPipesWarning, match="Spark does not tell where the logs"):
            assert self.extras() == {}


class TestPrefect:
    """One record of Prefect's logger for each message."""

    def write(self, message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
        name = PipesPrefectLogsMessageWriter.LOGGER_NAME
        params = {"prefect_logs": True, "max_message_bytes": 300}
        writer: Any = PipesPrefectLogsMessageWriter()
        with caplog.at_level(logging.INFO, name), writer.open(params) as channel:
            channel.write_message({"__dagster_pipes_version": "0.1", **message})
        [record] = [one for one in caplog.records if one.name == name]
        assert len(record.getMessage()) <= 300
        written: dict[str, Any] = json.loads(record.getMessage())
        assert written["__dagster_pipes_version"] == "0.1"
        return written

    def test_a_message(self, caplog: pytest.LogCaptureFixture) -> None:
        """As it is, percent signs too."""
        params = {"message": "100% %s", "level": "INFO"}
        assert self.write({"method": "log", "params": params}, caplog)["params"] == params

    def test_one_that_is_too_long(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error in its place."""
        written = self.write(
            {"method": "report_custom_message", "params": {"p": "x" * 300}}, caplog
        )
        assert written["method"] == "log"
        assert written["params"]["level"] == "ERROR"
        assert "A `report_custom_message` message of " in written["params"]["message"]

    def test_a_close_that_is_too_long(self, caplog: pytest.LogCaptureFixture) -> None:
        """It closes, with an error of the same name."""
        error = {"name": "ValueError", "message": "x" * 300, "stack": []}
        written = self.write({"method": "closed", "params": {"exception": error}}, caplog)
        assert written["method"] == "closed"
        assert written["params"]["exception"]["name"] == "ValueError"

    def test_params_of_another_reader(self) -> None:
        """Say what was expected."""
        writer = PipesPrefectLogsMessageWriter()
        for params in ({"path": "p"}, {"prefect_logs": "yes"}):
            with (
                pytest.raises(
                    LaunchParamsError, match="expected true under the key `prefect_logs`"
                ),
                writer.open(params),
            ):
                pass
