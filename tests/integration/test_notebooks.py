"""A notebook that Dagster launched, in a real kernel: how its cells end is how the session ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

RUN = """
import json, sys
import nbclient, nbformat

book = nbformat.v4.new_notebook()
for source in json.loads(sys.argv[1]):
    book.cells.append(nbformat.v4.new_code_cell(source))
client = nbclient.NotebookClient(book, kernel_name="python3", timeout=60, allow_errors={continues})
try:
    client.execute()
except nbclient.exceptions.CellExecutionError:
    print("failed")
for cell in book.cells:
    for output in cell.outputs:
        print(output.get("text") or output.get("ename"))
"""
OPEN = "from dagsterpipes import open_dagster_pipes\npipes = open_dagster_pipes()"


def run(launch: Launch, *cells: str, continues: bool = False) -> str:
    """Run the cells in a kernel; return what was printed."""
    import json

    script = RUN.format(continues=continues)
    # Its own folder for what Jupyter writes, and no debugger, which waits for ports.
    env = {"JUPYTER_RUNTIME_DIR": str(launch.folder), "IPYTHONDIR": str(launch.folder / "ipython")}
    result = launch.run(script, json.dumps(cells), env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_cell_that_fails_is_what_dagster_hears(tmp_path: Path) -> None:
    """Nobody closes the session: the kernel's exit does, with the exception of the last cell."""
    launch = Launch(tmp_path)
    out = run(launch, OPEN, "pipes.log.info('second')", "1 / 0")
    assert "failed" in out
    method, params = launch.sent()[-1]
    assert method == "closed"
    assert params["exception"]["name"] == "ZeroDivisionError"
    assert launch.logs() == ["second"]


def test_a_cell_that_does_not_compile_is_what_dagster_hears(tmp_path: Path) -> None:
    """It fails before it runs."""
    launch = Launch(tmp_path)
    run(launch, OPEN, "def")
    assert launch.sent()[-1][1]["exception"]["name"] == "SyntaxError"


def test_an_error_that_a_later_cell_recovers_from_is_not_reported(tmp_path: Path) -> None:
    """What counts is how the last cell ended."""
    launch = Launch(tmp_path)
    run(launch, OPEN, "1 / 0", "pipes.log.info('again')", continues=True)
    assert launch.sent()[-1] == ("closed", {})
    assert launch.logs() == ["again"]


@pytest.mark.parametrize("opening", [OPEN, OPEN + "\nawait pipes.__aenter__()"])
def test_running_the_first_cell_again_gives_the_same_session(tmp_path: Path, opening: str) -> None:
    """And the close in a later cell is the close of it, however often the first one ran."""
    launch = Launch(tmp_path)
    out = run(
        launch, opening, "first = pipes", opening, "print(pipes is first)", "await pipes.aclose()"
    )
    assert "True" in out
    assert [method for method, _ in launch.sent()] == ["opened", "closed"]


def test_a_function_that_opens_in_a_notebook_does_not_close_for_its_cells(tmp_path: Path) -> None:
    """The helper of another module that has a `with` of its own, called from a cell."""
    launch = Launch(tmp_path)
    helper = (
        "def step():\n    with open_dagster_pipes() as inner:\n        inner.log.info('in step')\n"
    )
    run(launch, OPEN, helper, "step()", "pipes.log.info('after')", "step()", "pipes.close()")
    assert launch.logs() == ["in step", "after", "in step"]
    assert [method for method, _ in launch.sent()].count("closed") == 1
