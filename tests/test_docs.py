"""Every block of Python and of the console in the docs and in the README runs."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import stores
from support.databricks import served_workspace
from support.doc_pages import Page
from support.prefect_server import prefect_server

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [path for path in PAGES if "_build" not in path.parts]
BLOCK = re.compile(r"^ *```\{?(?:code-block\} )?(?:python|console)$", re.MULTILINE)


@pytest.fixture
def s3_environment() -> Iterator[dict[str, str]]:
    """An emulated S3, with a bucket."""
    for port in stores.emulator(stores.S3):
        store = next(stores.opened(stores.S3, port))
        store.plain.create_bucket(Bucket="my-bucket")
        yield stores.s3_environment(port)


@pytest.fixture
def gcs_environment() -> Iterator[dict[str, str]]:
    """An emulated Google Cloud Storage, with a bucket."""
    for port in stores.emulator(stores.GCS):
        store = next(stores.opened(stores.GCS, port))
        store.plain.create_bucket("my-bucket")
        yield stores.gcs_environment(port)


@pytest.fixture
def azure_environment() -> Iterator[dict[str, str]]:
    """An emulated Azure Blob Storage, with a container."""
    if "DAGSTERPIPES_AZURITE" not in os.environ:
        pytest.skip("make test-stores installs the emulator")
    for port in stores.emulator(stores.Azure):
        store = next(stores.opened(stores.Azure, port))
        store.plain.create_container("my-container")
        yield stores.azure_environment(port)


@pytest.fixture
def databricks_environment(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A workspace whose files are those of the page, and whose jobs run here."""
    (tmp_path / "Volumes/main/default/pipes").mkdir(parents=True)
    with served_workspace(tmp_path, tmp_path_factory.mktemp("cluster")) as env:
        yield env


@pytest.fixture
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server."""
    yield from prefect_server(tmp_path_factory.mktemp("prefect"))


# What a page imports, the library of Dagster's that it needs, and what must run.
SERVICES = {
    "boto3": ("dagster_aws", "s3_environment"),
    "google.cloud": ("dagster_gcp", "gcs_environment"),
    "azure.storage": ("dagster_azure", "azure_environment"),
    "databricks.sdk": ("dagster_databricks", "databricks_environment"),
    "prefect": ("dagster_prefect", "prefect_environment"),
}


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
    monkeypatch.syspath_prepend(tmp_path)
    for used, (library, environment) in SERVICES.items():
        if f"\nimport {used}" in (text := path.read_text()) or f"\nfrom {used}" in text:
            # Of Dagster's own libraries, and of those that they import.
            warnings.simplefilter("ignore")  # until the test ends
            pytest.importorskip(library, reason="needs the extra test-stores")
            for name, value in request.getfixturevalue(environment).items():
                monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    assert Page(path, tmp_path).run() == len(BLOCK.findall(path.read_text()))
