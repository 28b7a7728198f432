"""`make demo` fails when something that the job sent did not arrive."""

import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "examples" / "demo"


def run_demo(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(folder / "run.py")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_demo_works() -> None:
    """Logs, typed metadata, both checks and the custom message arrive."""
    done = run_demo(DEMO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("Everything that the job sent arrived.\n")
    assert "TableMetadataValue" in done.stdout


def test_the_demo_fails_when_something_is_missing(tmp_path: Path) -> None:
    """A job that says less ends the demo with 1, and a line about each thing that is missing."""
    folder = tmp_path / "demo"
    shutil.copytree(DEMO, folder)
    job = folder / "ingest.py"
    text = job.read_text()
    for sent, instead in (
        ("passed=not too_small", "passed=True"),
        ("MetadataValue.table(rows)", "rows"),
        ("pipes.report_custom_message(", "print("),
    ):
        assert sent in text
        text = text.replace(sent, instead)
    job.write_text(text)
    done = run_demo(folder)
    assert done.returncode == 1
    assert "MISSING: the check no_small_orders" in done.stdout
    assert "MISSING: metadata by_region as TableMetadataValue" in done.stdout
    assert "MISSING: the log line 'custom message" in done.stdout
    assert done.stdout.count("MISSING") == 3
