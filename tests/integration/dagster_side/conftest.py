"""Folders for Dagster's storage: in memory where there is a place for that, as SQLite syncs a lot."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.dagster_side import instance

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def fast_folder() -> Iterator[Path]:
    """Removed with all of its homes; not by a finalizer, which a forked child would run too."""
    where = str(MEMORY) if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="dagsterpipes-tests-", dir=where))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def made_home(fast_folder: Path) -> Path:
    """A home whose databases exist."""
    with instance(fast_folder / "made"):
        pass
    return fast_folder / "made"


@pytest.fixture
def home(made_home: Path, fast_folder: Path) -> Iterator[Path]:
    """A home of its own for each test."""
    folder = Path(tempfile.mkdtemp(dir=fast_folder))
    shutil.copytree(made_home, folder, dirs_exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
