"""Scripts in the forms that Dagster documents for its services run with either library, and send the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dagsterpipes import encode_param
from support.cluster import cluster_environment
from support.launching import CONTEXT, Launch, is_filler
from support.stores import messages_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.stores import Store

# What most of the documented jobs do, on Spark.
ON_SPARK = """
        spark = SparkSession.builder.appName("average").getOrCreate()
        people = spark.createDataFrame([(1, "Ada", 36), (2, "Grace", 54)], ["id", "name", "age"])
        average = float(people.agg({{"age": "avg"}}).collect()[0][0])
        pipes.report_asset_materialization(
            metadata={{"average": {{"raw_value": average, "type": "float"}}}}, data_version="alpha"
        )
        spark.stop()

if __name__ == "__main__":
    main()
"""

EMR = (
    """
import boto3
from {library} import PipesS3MessageWriter, open_dagster_pipes
from pyspark.sql import SparkSession

def main():
    with open_dagster_pipes(
        message_writer=PipesS3MessageWriter(client=boto3.client("s3"))
    ) as pipes:
        pipes.log.info("hello")
"""
    + ON_SPARK
)

EMR_CONTAINERS = (
    """
import sys
import boto3
from {library} import PipesS3ContextLoader, PipesS3MessageWriter, open_dagster_pipes
from pyspark.sql import SparkSession

def main():
    s3_client = boto3.client("s3")
    with open_dagster_pipes(
        message_writer=PipesS3MessageWriter(client=s3_client),
        context_loader=PipesS3ContextLoader(client=s3_client),
    ) as pipes:
        pipes.log.info("hello")
        print("to stderr", file=sys.stderr)
"""
    + ON_SPARK
)

PYSPARK = (
    """
import boto3
from {library} import (
    PipesCliArgsParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)
from pyspark.sql import SparkSession

def main():
    with open_dagster_pipes(
        message_writer=PipesS3MessageWriter(client=boto3.client("s3")),
        context_loader=PipesS3ContextLoader(client=boto3.client("s3")),
        params_loader=PipesCliArgsParamsLoader(),
    ) as pipes:
        print("to stdout")
        pipes.log.info("hello")
"""
    + ON_SPARK
)

DATAPROC = (
    """
from {library} import (
    PipesCliArgsParamsLoader,
    PipesGCSContextLoader,
    PipesGCSMessageWriter,
    open_dagster_pipes,
)
from google.cloud.storage import Client as GCSClient
from pyspark.sql import SparkSession

def main():
    gcs_client = GCSClient()
    with open_dagster_pipes(
        context_loader=PipesGCSContextLoader(client=gcs_client),
        message_writer=PipesGCSMessageWriter(client=gcs_client),
        params_loader=PipesCliArgsParamsLoader(),
    ) as pipes:
        pipes.log.info("hello")
        print("to stdout")
"""
    + ON_SPARK
)

# The context is in S3, messages go to the output.
GLUE = """
import boto3
from {library} import PipesCliArgsParamsLoader, PipesS3ContextLoader, open_dagster_pipes

client = boto3.client("s3")
context_loader = PipesS3ContextLoader(client)
params_loader = PipesCliArgsParamsLoader()

def main():
    with open_dagster_pipes(context_loader=context_loader, params_loader=params_loader) as pipes:
        pipes.log.info("hello")
        pipes.report_asset_materialization(
            metadata={{"average": {{"raw_value": 45.0, "type": "float"}}}}, data_version="alpha"
        )

if __name__ == "__main__":
    main()
"""

# With a key where Azure has DefaultAzureCredential(): the emulator has no identities.
AZURE_ML = """
import os
from azure.storage.blob import BlobServiceClient
from {library} import (
    PipesAzureBlobStorageContextLoader,
    PipesAzureBlobStorageMessageWriter,
    open_dagster_pipes,
)

blob_client = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
context_loader = PipesAzureBlobStorageContextLoader(client=blob_client)
message_writer = PipesAzureBlobStorageMessageWriter(client=blob_client)

with open_dagster_pipes(context_loader=context_loader, message_writer=message_writer) as context:
    context.log.info("hello")
    context.report_asset_materialization(
        metadata={{"average": {{"raw_value": 45.0, "type": "float"}}}}, data_version="alpha"
    )
"""

DATABRICKS = """
from {library} import PipesDbfsContextLoader, PipesDbfsMessageWriter, open_dagster_pipes

with open_dagster_pipes(
    context_loader=PipesDbfsContextLoader(),
    message_writer=PipesDbfsMessageWriter(),
) as pipes:
    parameter = pipes.get_extra("some_parameter")
    pipes.log.info("hello")
    pipes.report_asset_materialization(
        metadata={{"average": {{"raw_value": parameter + 1.0, "type": "float"}}}},
        data_version="alpha",
    )
"""

# A service of one's own.
CUSTOM = """
from typing import IO
import boto3
from {library} import (
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesParams,
    PipesS3ContextLoader,
    open_dagster_pipes,
)

class CustomMessageWriter(PipesBlobStoreMessageWriter):
    def make_channel(self, params: PipesParams) -> "CustomChannel":
        return CustomChannel(key_prefix=params["key_prefix"])

class CustomChannel(PipesBlobStoreMessageWriterChannel):
    def __init__(self, key_prefix: str):
        super().__init__()
        self.key_prefix = key_prefix

    def upload_messages_chunk(self, payload: IO, index: int) -> None:
        key = f"{{self.key_prefix}}/{{index}}.json"
        boto3.client("s3").put_object(Bucket="pipes", Key=key, Body=payload.read().encode())

with open_dagster_pipes(
    context_loader=PipesS3ContextLoader(boto3.client("s3")), message_writer=CustomMessageWriter()
) as pipes:
    pipes.log.info("hello")
    pipes.report_asset_materialization(
        metadata={{"average": {{"raw_value": 45.0, "type": "float"}}}}, data_version="alpha"
    )
"""


class Form(NamedTuple):
    """A script, and how its service launches it."""

    script: str
    store: str = "s3"
    # Values on the command line, not in the environment.
    by_arguments: bool = False
    # The context in the value itself.
    has_context_inline: bool = False
    # Messages on stdout.
    is_printed: bool = False


FORMS = {
    "EMR": Form(EMR, has_context_inline=True),
    "EMR containers": Form(EMR_CONTAINERS),
    "PySpark": Form(PYSPARK, by_arguments=True),
    "Glue": Form(GLUE, by_arguments=True, is_printed=True),
    "Dataproc": Form(DATAPROC, "gcs", by_arguments=True),
    "Azure ML": Form(AZURE_ML, "azure"),
    "custom writer": Form(CUSTOM),
}

LIBRARIES = pytest.mark.parametrize("library", ["dagster_pipes", "dagsterpipes"])


def check(messages: list[dict[str, Any]], extras: dict[str, Any]) -> None:
    """Everything that the script sent, once, in order."""
    metadata = {"average": {"raw_value": 45.0, "type": "float"}}
    materialization = {"asset_key": "a", "data_version": "alpha", "metadata": metadata}
    assert [(one["method"], one["params"] or {}) for one in messages if not is_filler(one)] == [
        ("opened", {"extras": extras}),
        ("log", {"message": "hello", "level": "INFO"}),
        ("report_asset_materialization", materialization),
        ("closed", {}),
    ]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Iterator[tuple[Form, Store]]:
    """A form, with the store that it uses."""
    found = FORMS[request.param]
    yield found, request.getfixturevalue(found.store)


@LIBRARIES
def test_a_documented_form(form: tuple[Form, Store], library: str, tmp_path: Path) -> None:
    """Context and messages as with the reference, which runs here too."""
    (script, _, by_arguments, has_context_inline, is_printed), store = form
    launch = Launch(tmp_path)
    values = store.env()
    if has_context_inline:
        values["DAGSTER_PIPES_CONTEXT"] = encode_param({"data": CONTEXT})
    if is_printed:
        values["DAGSTER_PIPES_MESSAGES"] = encode_param({"stdio": "stdout"})
    arguments = []
    if by_arguments:
        for name in ("context", "messages"):
            value = values.pop(f"DAGSTER_PIPES_{name.upper()}")
            arguments += [f"--dagster-pipes-{name}", value]
    launch.env = (
        values | store.client_environment() | cluster_environment(tmp_path / "cluster", tmp_path)
    )
    result = launch.run(script.format(library=library), *arguments)
    assert result.returncode == 0, result.stderr
    printed = [line.encode() for line in result.stdout.splitlines() if line.startswith("{")]
    check(messages_of(printed) if is_printed else store.messages(), {})


@LIBRARIES
def test_a_documented_form_on_databricks(library: str, tmp_path: Path) -> None:
    """By the mount of DBFS; `opened` says where the logs of the cluster are."""
    launch = Launch(tmp_path)
    (tmp_path / "job").mkdir()
    context = CONTEXT | {"extras": {"some_parameter": 44}}
    (tmp_path / "job/context.json").write_text(json.dumps(context))
    launch.env = cluster_environment(tmp_path / "cluster", tmp_path) | {
        "DAGSTER_PIPES_CONTEXT": encode_param({"path": "/job/context.json"}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": "/job"}),
    }
    result = launch.run(DATABRICKS.format(library=library))
    assert result.returncode == 0, result.stderr
    numbers = sorted(int(path.stem) for path in tmp_path.glob("job/[0-9]*.json"))
    chunks = [(tmp_path / f"job/{number}.json").read_bytes() for number in numbers]
    check(messages_of(chunks), {"cluster_driver_log_root": "dbfs:/logs/c1/driver"})
