"""Every block of Python and of the console in the docs and in the README runs."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import stores
from support.doc_pages import Page

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [path for path in PAGES if "_build" not in path.parts]
BLOCK = re.compile(r"^ *```\{?(?:code-block\} )?(?:python|console)$", re.MULTILINE)


@pytest.fixture
def s3_environment() -> Iterator[dict[str, str]]:
    """What boto3 needs to find an emulated S3, with a bucket."""
    import boto3

    for port in stores.emulator(stores.S3):
        env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        ).create_bucket(Bucket="my-bucket")
        yield env


# Dagster warns of parts of its own.
@pytest.mark.filterwarnings("ignore:::dagster")
@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if BLOCK.search(path.read_text())],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_blocks_of_a_page_run(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Programs under Dagster, which finds nothing wrong with their sessions; tests under pytest."""
    monkeypatch.chdir(tmp_path)
    if "boto3" in path.read_text():
        pytest.importorskip("dagster_aws", reason="needs the extra test-stores")
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    assert Page(path, tmp_path).run() == len(BLOCK.findall(path.read_text()))
