"""Emulated stores for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dagsterpipes import PipesContext
from support import stores

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("moto", reason="needs the extra test-stores")


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    yield from stores.moto()


@pytest.fixture
def s3(moto_port: int) -> Iterator[stores.S3]:
    yield from stores.s3(moto_port)
    if PipesContext.is_initialized():
        PipesContext.get().close()
