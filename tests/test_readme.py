"""The README agrees with the project: its picture, its links, its claims about versions."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCS = PROJECT["urls"]["Documentation"]
SOURCE = PROJECT["urls"]["Source"] + "/blob/main/"
TIME = re.compile(r"^ +\d+\.\d\d |\d+\.\d\d s$")


def lines(text: str) -> list[str]:
    """What was shown, without times and without spaces, which a picture has none of."""
    found = ["".join(TIME.sub("", line.rstrip()).split()) for line in text.splitlines()]
    return [line for line in found if line]


def picture_lines() -> list[str]:
    picture = (ROOT / "docs" / "_static" / "run.svg").read_text()
    rows: dict[float, str] = {}
    for y, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]*)</text>', picture):
        rows[float(y)] = rows.get(float(y), "") + html.unescape(text).replace("\xa0", " ")
    return lines("\n".join(rows[y] for y in sorted(rows)))


def test_the_picture_shows_what_the_commands_show(tmp_path: Path) -> None:
    """Otherwise: `python tools/terminal_picture.py`."""
    code = (
        "import sys, pathlib, terminal_picture as t; from rich.text import Text;"
        "command, output = t.last_output(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]));"
        "print('$', command); print(Text.from_ansi(output).plain)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "README.md"), str(tmp_path)],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
        check=True,
    )
    assert picture_lines() == lines(done.stdout)


def test_links_are_absolute_and_lead_to_pages_that_there_are() -> None:
    """The README is shown on a package index too, where relative links lead nowhere."""
    targets = re.findall(r"\]\(([^)]*)\)", README)
    assert len(targets) > 10
    for target in targets:
        page = target.partition("#")[0]
        if page.startswith(DOCS):
            name = page.removeprefix(DOCS)
            source = ROOT / "docs" / (name.removesuffix(".html") + ".md" * name.endswith(".html"))
            assert source.is_file(), target
        elif page.startswith(SOURCE):
            assert (ROOT / page.removeprefix(SOURCE)).is_file(), target
        else:
            assert re.match(r"https://(docs\.)?dagster\.io\b", target), target


def test_the_versions_of_python_are_those_of_the_package() -> None:
    """The classifiers and the README name the same ones."""
    minors = [
        int(found[1])
        for text in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", text))
    ]
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert f"CPython 3.{minors[0]} to 3.{minors[-1]}" in README
