"""Draws the picture at the top of the README: `python tools/terminal_picture.py`.

Runs the console commands of the README in a terminal, with the job of the README, and writes what the
last one shows, with its colours, to `docs/_static/run.svg`.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "_static" / "run.svg"
COLUMNS = 78
THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (201, 209, 217),
    ],
    [(110, 118, 129)] * 8,
)


def main() -> None:
    """Run, draw, write."""
    with tempfile.TemporaryDirectory() as folder:
        command, output = last_output(ROOT / "README.md", Path(folder))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "dim"), (command, "bold")))
    console.print(Text.from_ansi(output), end="")
    svg = console.export_svg(title="", theme=THEME, unique_id="run")
    # A page that shows a picture loads no fonts for it: the reader's own do.
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)
    svg = svg.replace(
        "Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
    )
    PICTURE.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    print(PICTURE)


def last_output(page: Path, folder: Path) -> tuple[str, str]:
    """The last command of the page's console block, and what it shows on a terminal."""
    text = page.read_text()
    job = re.search(r"```python\n# (load_orders\.py)\n.*?```", text, re.DOTALL)
    block = re.search(r"```console\n(.*?)```", text, re.DOTALL)
    if job is None or block is None:
        sys.exit(f"{page} has no job, or no block of commands")
    (folder / job[1]).write_text(job[0].removeprefix("```python\n").removesuffix("```"))
    *before, last = re.findall(r"^\$ (.*)$", block[1], re.MULTILINE)
    env = {
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
    }
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in before:
        subprocess.run(command, shell=True, cwd=folder, env=env, check=True)
    shown, terminal = pty.openpty()
    with subprocess.Popen(last, shell=True, cwd=folder, env=env, stdout=terminal, stderr=terminal):
        os.close(terminal)
        output = b"".join(iter(lambda: read(shown), b""))
    os.close(shown)
    return last, without_status(output.decode())


def without_status(output: str) -> str:
    """What stays on the terminal: not the line that is written again and again, and erased at the end."""
    output = output.replace("\r\n", "\n")
    output = re.sub(r".*\n.*\x1b\[1A\x1b\[2K", "", output)
    return re.sub(r"\x1b\[\?25[lh]|\x1b\[2K|.*\r", "", output)


def read(descriptor: int) -> bytes:
    """What the terminal shows next; nothing when the program has ended."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


if __name__ == "__main__":
    main()
