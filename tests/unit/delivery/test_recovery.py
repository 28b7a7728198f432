"""Where lines go that could not be delivered."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
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


@pytest.mark.parametrize("chosen", [None, b"/bytes"])
def test_in_the_folder_that_the_environment_names(
    current: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bytes | None
) -> None:
    """The first that takes the file; relative to the current one if it says so."""
    monkeypatch.setattr(tempfile, "tempdir", chosen)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setenv("TEMP", "mine")
    (current / "mine").mkdir()
    path = recovery.keep(LINES)
    assert path is not None
    assert Path(path).parent == current / "mine"


def test_nowhere_when_there_is_no_folder_at_all(temporary: Path, current: Path) -> None:
    """The current one may be gone too."""
    temporary.rmdir()
    current.rmdir()
    assert recovery.keep(LINES) is None


def test_somebody_closes_all_descriptors_meanwhile(
    temporary: Path, current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that has the number by then is left alone."""
    table = current / "table.csv"
    write = os.write
    numbers: list[int] = []

    def write_and_lose(number: int, data: bytes) -> int:
        count = write(number, data[:3])
        if not numbers:
            os.close(number)
            numbers.append(os.open(table, os.O_RDWR | os.O_CREAT))
            assert numbers == [number]
        return count

    monkeypatch.setattr(os, "write", write_and_lose)
    path = recovery.keep(LINES)
    assert path is not None
    assert Path(path).read_bytes() == LINES
    assert table.read_bytes() == b""
    os.close(numbers[0])
    assert not list(temporary.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_a_child_that_was_forked_at_a_bad_moment(tmp_path: Path) -> None:
    """While another thread of the parent looked for a name in the folder for temporary files."""
    script = """
import os, sys, tempfile
from dagsterpipes._delivery import recovery
tempfile._once_lock.acquire()
pid = os.fork()
if pid == 0:
    os._exit(0 if recovery.keep(b"{}") else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TMPDIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=20)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"{}"]


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
