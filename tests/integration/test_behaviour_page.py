"""The page that compares behaviour is what its script finds out now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "probes" / "behaviour.py"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a probe is of exception groups")
@pytest.mark.skipif(sys.platform == "win32", reason="a probe is of SIGTERM")
def test_the_page_is_up_to_date() -> None:
    """Else `tools/probes/behaviour.py` writes it anew, and the difference is to be looked at."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
