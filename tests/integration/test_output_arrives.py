"""What a job prints arrives under Dagster: before `closed`, quickly, and still on the real streams."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import dagster as dg

from support.dagster_runs import run_under_dagster
from support.launching import Launch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PRINTING = """
import os, subprocess, sys, time
from dagsterpipes import open_dagster_pipes
with open_dagster_pipes({options}) as pipes:
    print("printed", flush=True)
    pipes.log.info("logged")
    os.write(1, b"written by C code\\n")
    subprocess.run(["echo", "from a child"])
    print("to stderr", file=sys.stderr)
    print("no line end", end="")
    before = time.perf_counter()
took = time.perf_counter() - before
open({took!r}, "w").write(str(took))
"""


def test_output_reaches_dagster(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`PipesTempFileMessageReader(include_stdio_in_messages=True)`: all of it, and no warning."""
    run = run_under_dagster(
        tmp_path,
        PRINTING.format(options="", took=str(tmp_path / "took")),
        message_reader=dg.PipesTempFileMessageReader(include_stdio_in_messages=True),
    )
    assert run.success
    assert run.pipes_warnings() == []
    out, err = capfd.readouterr()
    # Once from the process itself, once from Dagster, which shows the messages on its own streams.
    for text in ("printed", "written by C code", "from a child", "no line end"):
        assert out.count(text) == 2
    assert err.count("to stderr\n") == 2
    assert float((tmp_path / "took").read_text()) < 0.5


def test_output_comes_before_closed_and_closing_is_quick(tmp_path: Path) -> None:
    """Asked for by the job itself; the last of it is there before `closed`."""
    launch = Launch(tmp_path)
    took = tmp_path / "took"
    result = launch.run(PRINTING.format(options="capture_stdio=True", took=str(took)))
    assert result.returncode == 0
    assert result.stdout == "printed\nwritten by C code\nfrom a child\nno line end"
    assert result.stderr == "to stderr\n"
    sent = launch.sent()
    assert sent[0][0] == "opened"
    assert sent[-1] == ("closed", {})
    output = [params for method, params in sent if method == "log_external_stream"]
    assert "".join(one["text"] for one in output if one["stream"] == "stdout") == result.stdout
    assert "".join(one["text"] for one in output if one["stream"] == "stderr") == result.stderr
    assert launch.logs() == ["logged"]
    assert float(took.read_text()) < 0.5


def test_nothing_is_captured_unless_asked(tmp_path: Path) -> None:
    """Without the wish of Dagster or the job, the streams are left alone."""
    launch = Launch(tmp_path)
    launch.run(PRINTING.format(options="", took=str(tmp_path / "took")))
    assert [method for method, _ in launch.sent()] == ["opened", "log", "closed"]


def test_closing_costs_under_50_ms_more_than_without(tmp_path: Path) -> None:
    """The least of several sessions each; `dagster_pipes` needs 6 s."""
    took = {}
    for name, options in (("with", "capture_stdio=True"), ("without", "")):
        folder = tmp_path / name
        folder.mkdir()
        times = []
        for i in range(3):
            launch = Launch(folder)
            path = folder / f"took{i}"
            launch.run(PRINTING.format(options=options, took=str(path)))
            times.append(float(path.read_text()))
        took[name] = min(times)
    assert took["with"] - took["without"] < 0.05


def test_much_output_arrives_whole(tmp_path: Path) -> None:
    """20 MB at once: every line, in order, in messages of at most a page."""
    launch = Launch(tmp_path)
    begin = time.monotonic()
    result = launch.run(
        """
        import sys
        from dagsterpipes import open_dagster_pipes
        with open_dagster_pipes(capture_stdio=True):
            for i in range(200_000):
                sys.stdout.write(f"{i:08d} " + "x" * 90 + "\\n")
        """,
        stdout=-3,
    )
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - begin < 30
    output = "".join(
        params["text"] for method, params in launch.sent() if method == "log_external_stream"
    )
    assert [int(line[:8]) for line in output.splitlines()] == list(range(200_000))
    assert max(map(len, launch.messages_path.read_bytes().splitlines())) < 4096
