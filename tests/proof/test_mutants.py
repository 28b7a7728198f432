"""The proof finds deliberate mistakes; each library is a copy, so they all run at once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dagsterpipes
from proof.histories import HISTORIES, Library, explore
from proof.mutants import BY_CALLS, BY_SCHEDULES, Mutant

pytestmark = pytest.mark.timeout(900)

SHORT = 3
"""So many of each kind in the short form; with `make prove`, all."""

MAY_TAKE = 60.0
"""Seconds of processor time."""


@pytest.mark.parametrize(
    "position", range(len(BY_SCHEDULES)), ids=lambda one: BY_SCHEDULES[one].name
)
def test_schedules_find_it(length: float, position: int) -> None:
    """Within a minute of processor time."""
    if not length and position >= SHORT:
        pytest.skip("make prove")
    mutant = BY_SCHEDULES[position]
    library = Library([(mutant.module, mutant.old, mutant.new)])
    began = time.process_time()
    for runs, found in enumerate(explore(library, HISTORIES, itertools.count()), start=1):
        seconds = time.process_time() - began
        if found is not None:
            print(f"{mutant.name}: {runs} schedules, {seconds:.1f} s")
            return
        assert seconds < MAY_TAKE, f"not found in {runs} schedules: {mutant.name}"


@pytest.mark.parametrize("position", range(len(BY_CALLS)), ids=lambda one: BY_CALLS[one][0].name)
def test_failing_calls_find_it(tmp_path: Path, length: float, position: int) -> None:
    """In a copy of the library with the mistake in it."""
    if not length and position >= SHORT:
        pytest.skip("make prove")
    mutant, session = BY_CALLS[position]
    result = _prove_copy(tmp_path, mutant, session)
    outcome = json.loads(result.stdout.splitlines()[-1]) if result.returncode == 0 else None
    assert outcome is None or outcome["faults"], f"not found: {mutant.name}"


def _prove_copy(folder: Path, mutant: Mutant, session: str) -> subprocess.CompletedProcess[str]:
    shutil.copytree(Path(dagsterpipes.__file__).parent, folder / "dagsterpipes")
    path = folder / "dagsterpipes" / mutant.file
    source = path.read_text("utf-8")
    assert source.count(mutant.old) == 1, (
        f"{mutant.file} has {source.count(mutant.old)} times: {mutant.old}"
    )
    path.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    tests = Path(__file__).parents[1]
    script = tests / "proof" / "small_sessions.py"
    work = folder / "work"
    work.mkdir()
    return subprocess.run(
        [sys.executable, str(script), session, "errors", "1", "0", str(work)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(tests), *sys.path])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
