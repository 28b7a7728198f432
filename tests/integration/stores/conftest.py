"""Emulated stores for the tests of this folder.

`store` is each of them in turn; those whose emulator is not installed, which `make test-stores` does, are
left out.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

from dagsterpipes import PipesContext
from support import stores

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: dict[str, type[stores.Store]] = {"s3": stores.S3, "obstore": stores.ObstoreS3}
if importlib.util.find_spec("gcp_storage_emulator") is not None:
    KINDS["gcs"] = stores.GCS
if "DAGSTERPIPES_AZURITE" in os.environ:
    KINDS["azure"] = stores.Azure


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    yield from stores.emulator(stores.S3)


@pytest.fixture(scope="session")
def gcs_port() -> Iterator[int]:
    yield from stores.emulator(stores.GCS)


@pytest.fixture(scope="session")
def azurite_port() -> Iterator[int]:
    yield from stores.emulator(stores.Azure)


PORTS = {"s3": "moto_port", "obstore": "moto_port", "gcs": "gcs_port", "azure": "azurite_port"}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[stores.Store]:
    port: int = request.getfixturevalue(PORTS[request.param])
    yield from stores.opened(KINDS[request.param], port)
    _close_session()


@pytest.fixture
def s3(moto_port: int) -> Iterator[stores.Store]:
    yield from stores.opened(stores.S3, moto_port)
    _close_session()


@pytest.fixture
def gcs(request: pytest.FixtureRequest) -> Iterator[stores.Store]:
    yield from _opened("gcs", request)


@pytest.fixture
def azure(request: pytest.FixtureRequest) -> Iterator[stores.Store]:
    yield from _opened("azure", request)


def _opened(kind: str, request: pytest.FixtureRequest) -> Iterator[stores.Store]:
    if kind not in KINDS:
        pytest.skip("make test-stores installs the emulator")
    yield from stores.opened(KINDS[kind], request.getfixturevalue(PORTS[kind]))


def _close_session() -> None:
    if PipesContext.is_initialized():
        PipesContext.get().close()


@pytest.fixture(autouse=True)
def _default_coalescing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it, who set nothing."""
    monkeypatch.delenv("DAGSTERPIPES_COALESCE_LOGS")
