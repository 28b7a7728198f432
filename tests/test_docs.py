"""Every block of Python and of the console in the docs and in the README runs."""

import os
import re
import sys
from pathlib import Path

import pytest

from support.doc_pages import Page

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [path for path in PAGES if "_build" not in path.parts]
BLOCK = re.compile(r"^ *```\{?(?:code-block\} )?(?:python|console)$", re.MULTILINE)


# Dagster warns of parts of its own.
@pytest.mark.filterwarnings("ignore:::dagster")
@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if BLOCK.search(path.read_text())],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_blocks_of_a_page_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs under Dagster, which finds nothing wrong with their sessions; tests under pytest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    assert Page(path, tmp_path).run() == len(BLOCK.findall(path.read_text()))
