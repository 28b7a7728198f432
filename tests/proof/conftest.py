"""How long the proof is: in `make test` a part of it, with `make prove` all of it, or more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = float(os.environ.get("DAGSTERPIPES_PROOF", "0"))
"""0 for the short form; 1 for all of it, 10 for ten times as many random schedules."""

HERE = Path(__file__).parent


@pytest.fixture
def length() -> float:
    return LENGTH


@pytest.fixture
def prove(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run one of the scripts here, in a process of its own; raise what it found."""

    def run(script: str, *args: str) -> dict[str, Any]:
        paths = [str(HERE.parent), *sys.path]
        result = subprocess.run(
            [sys.executable, str(HERE / script), *args, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3_000,
            check=False,
        )
        end = result.stderr.splitlines()[-40:]
        assert result.returncode == 0, "\n".join(end)
        outcome: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        assert not outcome["faults"], "\n".join(outcome["faults"][:20])
        return outcome

    return run
