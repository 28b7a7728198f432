"""Where lines go that could not be delivered."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dagsterpipes._delivery import recovery

LINES = b'{"a": 1}\n{"b": 2}\n'


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_in_the_folder_for_temporary_files(temporary: Path) -> None:
    """In a file of its own, that nobody else can read; its path is absolute."""
    first, second = recovery.keep(LINES), recovery.keep(b"{}\n")
    assert first is not None
    assert second is not None
    path = Path(first)
    assert path.is_absolute()
    assert path.parent == temporary
    assert path.name.startswith(f"dagsterpipes-recovery-{os.getpid()}-")
    assert path.read_bytes() == LINES
    assert Path(second).read_bytes() == b"{}\n"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_in_the_current_folder_when_there_is_no_temporary_one(
    temporary: Path, current: Path
) -> None:
    """A folder that is gone is no reason to lose anything."""
    temporary.rmdir()
    path = recovery.keep(LINES)
    assert path is not None
    assert Path(path).parent == current
    assert Path(path).read_bytes() == LINES


def test_in_the_current_folder_when_no_temporary_one_can_be_found(
    current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine whose disks are full."""

    def fail() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    path = recovery.keep(LINES)
    assert path is not None
    assert Path(path).parent == current


def test_nowhere_when_no_folder_takes_it(
    temporary: Path, current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not hold everything does not stay."""

    def fail(_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    assert recovery.keep(LINES) is None
    assert not list(temporary.iterdir())
    assert not list(current.iterdir())
