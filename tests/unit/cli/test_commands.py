"""The options of the command line, and what happens without the packages that it needs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes.cli import commands, main

if TYPE_CHECKING:
    from pathlib import Path

OPENED = '{"__dagster_pipes_version": "0.1", "method": "opened", "params": {"extras": {}}}\n'
CLOSED = '{"__dagster_pipes_version": "0.1", "method": "closed", "params": {}}\n'


@pytest.fixture
def good_file(tmp_path: Path) -> Path:
    file = tmp_path / "messages"
    file.write_text(OPENED + CLOSED)
    return file


def test_read(good_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good messages file is shown and gives status 0."""
    assert main(["read", str(good_file)]) == 0
    assert "The session is open." in capsys.readouterr().out


def test_read_as_json(good_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, each message and the summary are a line."""
    assert main(["read", "--json", str(good_file)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["message", "message", "summary"]


def test_read_with_expectations(good_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Expected checks and asset keys are judged in a file too."""
    params = {"asset_key": "b", "data_version": None, "metadata": None}
    message = {"method": "report_asset_materialization", "params": params}
    good_file.write_text(OPENED + json.dumps(message) + "\n" + CLOSED)
    assert main(["read", "-q", str(good_file)]) == 0
    assert main(["read", "-q", "--expect-check", "c", str(good_file)]) == 5
    assert main(["read", "-q", "--asset", "a", "--asset", "d", str(good_file)]) == 6
    assert "'b' is none of 'a, d'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run"], "Missing argument 'COMMAND...'"),
        (["run", "--partition-range", "a"], "requires 2 arguments"),
        (["run", "--extra", "x", "--", "true"], "An extra is given as key=text or key:=json; got 'x'."),
        (["run", "--partition", "a", "--partition-range", "a", "b", "--", "true"], "Give a partition or a range of partitions, not both."),
        (["run", "--extras-file", "/no/such/file", "--", "true"], "does not exist"),
        (["run", "--messages-file", "/no/such/folder/file", "--", "true"], "/no/such/folder/file cannot be written: No such file or directory."),
        (["run", "--partition-range", "a", "--", "true"], "Invalid value for '--partition-range': it takes two values; got one before `--`."),
        (["run", "--time-window", "a", "--", "true"], "it takes two values"),
        (["run", "--op", "--asset", "a", "--", "true"], "An op has no assets: give --op or --asset, not both."),
        (["run", "python job.py"], "There is no program 'python job.py'. Pass the program and its arguments separately: dagsterpipes run -- python job.py"),
        (["run", __file__, "a b"], f"{__file__} is not an executable program. Run it with Python: dagsterpipes run -- python {__file__} 'a b'"),
        (["read", "/no/such/file"], "does not exist"),
        (["read", "/"], "/ cannot be read: Is a directory."),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)  # fmt: skip
def test_wrong_usage(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is explained on stderr, runs nothing, and gives status 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert problem in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("installed", [True, False])
def test_version(
    installed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The version is that of the installed package, if it is installed."""

    def version(name: str) -> str:
        if not installed:
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    assert main(["--version"]) == 0
    shown = "1.2.3" if installed else "(run from its source, not installed)"
    assert capsys.readouterr().out == f"dagsterpipes {shown}\n"


@pytest.mark.parametrize(
    ("command", "done"), [("run", "The command succeeded"), ("read", "The session is closed")]
)
def test_help_documents_the_exit_statuses(
    command: str, done: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of a command lists what each exit status means."""
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    for line in (
        f"  0  {done}",
        "  6  Dagster would have refused",
        "130  Interrupted",
    ):
        assert line in out


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Outside a launched process the doctor says so and gives status 1."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    monkeypatch.delenv("DAGSTER_PIPES_MESSAGES", raising=False)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith("BAD Neither DAGSTER_PIPES_CONTEXT nor")


def test_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command is run with the options' context, and its messages can be kept."""
    messages = tmp_path / "messages"
    code = f"import sys; open(sys.argv[1], 'a').write({OPENED + CLOSED!r})"
    command = ["--", sys.executable, "-c", code, str(messages)]
    assert main(["run", "--messages-file", str(messages), "--asset", "a", *command]) == 0
    assert "The session is closed." in capsys.readouterr().out
    assert messages.read_text() == OPENED + CLOSED


def test_no_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine without a folder for temporary files gets an error that says what to do."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert main(["run", "--", sys.executable, "-c", ""]) == 2
    error = capsys.readouterr().err
    assert "No such file or directory: '/no/such/folder/dagsterpipes-" in error
    assert "Set TMPDIR to a folder that exists" in error


def test_read_is_interrupted(
    good_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while a file is read ends it with the usual status."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "follow_file", interrupted)
    assert main(["read", str(good_file)]) == 130


def test_stdout_that_is_no_file(good_file: Path) -> None:
    """The command line can be called with any text stream as its stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["read", "-q", str(good_file)]) == 0
    assert out.getvalue().startswith("✓")


def test_nobody_reads(good_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stdout that cannot be written to is put aside, and the status is still given."""

    class Broken(io.TextIOWrapper):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    target = tmp_path / "target"
    with Broken(target.open("wb"), encoding="utf-8") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        assert main(["read", "--json", str(good_file)]) == 0
        os.write(broken.fileno(), b"after")
    assert target.read_bytes() == b""


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a package look as if it were not installed."""

    def hide(package: str) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] == package or name.startswith("dagsterpipes.cli."):
                monkeypatch.delitem(sys.modules, name)
        # What `import` finds here, it reports as a module that is not there.
        monkeypatch.setitem(sys.modules, package, None)

    return hide


def test_without_click(without: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Without click, the error names what to install."""
    without("click")
    assert main(["read", "x"]) == 2
    assert capsys.readouterr().err == (
        "dagsterpipes: the command line needs click, which is not installed. Install it with:"
        ' pip install "dagsterpipes[cli]"\n'
    )


def test_doctor_without_click(
    without: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The doctor works where only the library is installed."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    monkeypatch.delenv("DAGSTER_PIPES_MESSAGES", raising=False)
    without("click")
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["healthy"] is False


def test_without_rich(without: Any, good_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without rich there is still --json, and the error names it."""
    without("rich")
    assert main(["read", "--json", str(good_file)]) == 0
    assert main(["read", str(good_file)]) == 2
    assert capsys.readouterr().err.endswith(
        "dagsterpipes: the command line needs rich, which is not installed. Install it with:"
        ' pip install "dagsterpipes[cli]" (or use --json)\n'
    )


def test_a_module_of_ours_that_is_missing(without: Any) -> None:
    """An import that fails for another reason is no missing extra."""
    without("dagsterpipes.cli.running")
    with pytest.raises(ModuleNotFoundError, match="running"):
        main(["doctor"])
