"""Scripts in the forms that Dagster documents for its services run with either library, and send the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import encode_param
from support.launching import Launch, is_filler
from support.stores import Store, messages_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORK = """
    pipes.log.info("hello")
    pipes.report_asset_materialization(
        metadata={"average": {"raw_value": 45.0, "type": "float"}}, data_version="alpha"
    )
"""

SENT = [
    ("opened", {"extras": {}}),
    ("log", {"message": "hello", "level": "INFO"}),
    (
        "report_asset_materialization",
        {
            "asset_key": "a",
            "data_version": "alpha",
            "metadata": {"average": {"raw_value": 45.0, "type": "float"}},
        },
    ),
    ("closed", {}),
]

# EMR with a bootstrap action, EMR on EKS: values in the environment, S3 for messages.
EMR = """
import boto3
from {library} import PipesS3ContextLoader, PipesS3MessageWriter, open_dagster_pipes

with open_dagster_pipes(
    context_loader=PipesS3ContextLoader(client=boto3.client("s3")),
    message_writer=PipesS3MessageWriter(client=boto3.client("s3")),
) as pipes:
"""

# spark-submit: values on the command line.
SPARK = """
import boto3
from {library} import (
    PipesCliArgsParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

with open_dagster_pipes(
    message_writer=PipesS3MessageWriter(client=boto3.client("s3")),
    context_loader=PipesS3ContextLoader(client=boto3.client("s3")),
    params_loader=PipesCliArgsParamsLoader(),
) as pipes:
"""

# Glue: values on the command line, the context in S3, messages by the output.
GLUE = """
import boto3
from {library} import PipesCliArgsParamsLoader, PipesS3ContextLoader, open_dagster_pipes

with open_dagster_pipes(
    context_loader=PipesS3ContextLoader(boto3.client("s3")),
    params_loader=PipesCliArgsParamsLoader(),
) as pipes:
"""

# A service of one's own.
CUSTOM = """
import json, os
from typing import IO
import boto3
from {library} import (
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesParams,
    PipesS3ContextLoader,
    open_dagster_pipes,
)

class Writer(PipesBlobStoreMessageWriter):
    def make_channel(self, params: PipesParams) -> "Channel":
        return Channel(key_prefix=params["key_prefix"])

class Channel(PipesBlobStoreMessageWriterChannel):
    def __init__(self, key_prefix: str):
        super().__init__()
        self.key_prefix = key_prefix

    def upload_messages_chunk(self, payload: IO, index: int) -> None:
        boto3.client("s3").put_object(
            Bucket="pipes", Key=f"{{self.key_prefix}}/{{index}}.json", Body=payload.read().encode()
        )

with open_dagster_pipes(
    context_loader=PipesS3ContextLoader(boto3.client("s3")), message_writer=Writer()
) as pipes:
"""


def in_store(store: Store, out: str) -> list[dict[str, Any]]:
    return store.messages()


def on_stdout(store: Store, out: str) -> list[dict[str, Any]]:
    return messages_of([line.encode() for line in out.splitlines() if line])


FORMS: dict[str, tuple[str, bool, Callable[[Store, str], list[dict[str, Any]]]]] = {
    "EMR": (EMR, False, in_store),
    "Spark": (SPARK, True, in_store),
    "Glue": (GLUE, True, on_stdout),
    "custom": (CUSTOM, False, in_store),
}


@pytest.mark.parametrize("library", ["dagster_pipes", "dagsterpipes"])
@pytest.mark.parametrize("form", FORMS)
def test_a_documented_form(form: str, library: str, s3: Store, tmp_path: Path) -> None:
    """Context and messages as with the reference, which runs here too."""
    script, by_arguments, read = FORMS[form]
    launch = Launch(tmp_path)
    values = s3.env()
    if read is on_stdout:
        values["DAGSTER_PIPES_MESSAGES"] = encode_param({"stdio": "stdout"})
    arguments = []
    if by_arguments:
        for name in ("context", "messages"):
            value = values.pop(f"DAGSTER_PIPES_{name.upper()}")
            arguments += [f"--dagster-pipes-{name}", value]
    launch.env = values | {
        "AWS_ENDPOINT_URL": s3.proxy.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    result = launch.run(script.format(library=library) + WORK, *arguments)
    assert result.returncode == 0, result.stderr
    messages = [one for one in read(s3, result.stdout) if not is_filler(one)]
    assert [(one["method"], one["params"] or {}) for one in messages] == SENT
