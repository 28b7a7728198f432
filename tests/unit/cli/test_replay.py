"""Recovery files, delivered to files, streams and stores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._delivery.channels.file import FileChannel
from dagsterpipes._protocol.launch_params import encode_param
from dagsterpipes.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence


def line(method: str, **params: Any) -> bytes:
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def log(text: str) -> bytes:
    return line("log", message=text, level="INFO")


OPENED, CLOSED = line("opened", extras={}), line("closed")

LOST = [log("lost 1"), log("lost 2"), log("x" * 9_000)]


@pytest.fixture
def recovered(tmp_path: Path) -> Path:
    """A recovery file of the end of a session."""
    return recovery_file(tmp_path, *LOST, CLOSED)


def recovery_file(folder: Path, *lines: bytes) -> Path:
    file = folder / "dagsterpipes-recovery-1-a.jsonl"
    file.write_bytes(b"".join(lines))
    return file


def messages_in(data: bytes) -> list[bytes]:
    """The lines of a messages file without those that only fill pages."""
    assert b"\n\n" not in data
    lines = [each.strip() + b"\n" for each in data.splitlines()]
    return [each for each in lines if b'"log_external_stream"' not in each]


def test_to_a_file(recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The messages are behind what is there; a second replay delivers nothing and says so."""
    target = tmp_path / "messages"
    target.write_bytes(OPENED + log("first"))
    assert main(["replay", str(recovered), "--to", str(target)]) == 0
    assert f"Delivered 4 messages to {target}." in capsys.readouterr().err
    assert messages_in(target.read_bytes()) == [OPENED, log("first"), *LOST, CLOSED]
    assert main(["read", "-q", str(target)]) == 0
    for same in (target, tmp_path / "." / "messages"):
        assert main(["replay", str(recovered), "--to", str(same)]) == 0
        assert "were delivered to" in capsys.readouterr().err
    assert messages_in(target.read_bytes()) == [OPENED, log("first"), *LOST, CLOSED]


def test_to_a_new_file(recovered: Path, tmp_path: Path) -> None:
    """A file that is not there is made."""
    target = tmp_path / "new"
    assert main(["replay", str(recovered), "--to", str(target)]) == 0
    assert messages_in(target.read_bytes()) == [*LOST, CLOSED]


def test_elsewhere_the_second_time(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another target is refused, unless somebody insists."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["replay", str(recovered), "--to", str(first)]) == 0
    assert main(["replay", str(recovered), "--to", str(second)]) == 1
    assert f"was delivered to {first}" in capsys.readouterr().err
    assert not second.exists()
    assert main(["replay", "--again", str(recovered), "--to", str(second)]) == 0
    assert messages_in(second.read_bytes()) == [*LOST, CLOSED]


def test_a_copy_is_known_by_its_messages(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing is recorded, a target that holds the messages is refused."""
    target = tmp_path / "messages"
    assert main(["replay", str(recovered), "--to", str(target)]) == 0
    copy = Path(shutil.copy(recovered, tmp_path / "copy"))
    before = target.read_bytes()
    assert main(["replay", str(copy), "--to", str(target)]) == 1
    assert "holds the 4 messages already, one after the other" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_closed_stays_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages of a child process go before the `closed` of a session that has ended."""
    recovered, target = recovery_file(tmp_path, *LOST), tmp_path / "messages"
    target.write_bytes(OPENED + CLOSED)
    target.chmod(0o640)
    assert main(["replay", str(recovered), "--to", str(target)]) == 0
    assert messages_in(target.read_bytes()) == [OPENED, *LOST, CLOSED]
    assert target.stat().st_mode & 0o777 == 0o640
    assert "before `closed`: a Dagster that has read the file does not" in capsys.readouterr().err
    assert main(["read", "-q", str(target)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        recovered.name,
        f"{recovered.name}.replayed",
        "messages",
    ]


def test_a_session_is_closed_once(
    recovered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of one session is not added to another one that has ended."""
    target = tmp_path / "messages"
    target.write_bytes(OPENED + CLOSED)
    assert main(["replay", str(recovered), "--to", str(target)]) == 1
    assert "the messages close one too" in capsys.readouterr().err
    assert target.read_bytes() == OPENED + CLOSED


@pytest.mark.parametrize("whole", [0, 1, 3])
def test_what_was_cut_short_is_continued(
    whole: int, recovered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write that failed half way, the same call delivers the rest, between what others append."""
    target = tmp_path / "messages"
    target.write_bytes(OPENED + LOST[0])  # which stands there before, and is another one
    write = FileChannel.write

    def fail_after(channel: FileChannel, lines: bytes) -> int:
        write(channel, b"".join(lines.splitlines(keepends=True)[:whole]))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FileChannel, "write", fail_after)
        assert main(["replay", str(recovered), "--to", str(target)]) == 1
    with target.open("ab") as other:
        other.write(log("of another process"))
    assert main(["replay", str(recovered), "--to", str(target)]) == 0
    lines = messages_in(target.read_bytes())
    lines.remove(log("of another process"))
    assert lines == [OPENED, LOST[0], *LOST, CLOSED]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty or does not end in a whole line"),
        (log("m")[:-1], "is empty or does not end in a whole line"),
        (log("m") + b"garbage\n", "Line 2 of"),
    ],
)
def test_what_is_no_recovery_file(
    content: bytes, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that would stop Dagster's reader is delivered."""
    file, target = recovery_file(tmp_path, content), tmp_path / "messages"
    assert main(["replay", str(file), "--to", str(target)]) == 1
    assert problem in capsys.readouterr().err
    assert not target.exists()


def run_replay(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command: Sequence[str] = [sys.executable, "-m", "dagsterpipes", "replay", *arguments]
    return subprocess.run(command, timeout=60, check=False, **more)


def test_to_stdout(recovered: Path, tmp_path: Path) -> None:
    """A pipe gets each line on a line of its own, a file gets no blank line."""
    done = run_replay(str(recovered), "--to", "-", capture_output=True)
    assert done.returncode == 0
    assert [each for each in done.stdout.splitlines(keepends=True) if each != b"\n"] == [
        *LOST,
        CLOSED,
    ]
    again = run_replay(str(recovered), "--to", "-", capture_output=True)
    assert (again.returncode, again.stdout) == (0, b"")
    with (tmp_path / "messages").open("wb") as file:
        assert run_replay("--again", str(recovered), "--to", "-", stdout=file).returncode == 0
    assert (tmp_path / "messages").read_bytes() == b"".join([*LOST, CLOSED])


def test_where_the_session_of_the_process_sends(recovered: Path, tmp_path: Path) -> None:
    """Without a target, the messages go where the environment says."""
    target = tmp_path / "messages"
    env = {**os.environ, "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(target)})}
    assert run_replay(str(recovered), env=env).returncode == 0
    assert messages_in(target.read_bytes()) == [*LOST, CLOSED]
    env.pop("DAGSTER_PIPES_MESSAGES")
    done = run_replay(str(recovered), env=env, capture_output=True)
    assert done.returncode == 2
    assert b"Say where the messages go: --to with a messages file" in done.stderr


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("is_closed", [False, True])
def test_to_a_store(
    scheme: str, is_closed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The messages follow in the next object, or in the last one if that ends in `closed`."""
    if scheme:
        pytest.importorskip("obstore")
    store = tmp_path / "store"
    store.mkdir()
    (store / "1.json").write_bytes((OPENED + log("first"))[:-1])
    lost = LOST
    if is_closed:
        (store / "2.json").write_bytes((log("second") + CLOSED)[:-1])
    else:
        lost = [*LOST, CLOSED]
    recovered = recovery_file(tmp_path, *lost)
    command = ["replay", str(recovered), "--to", f"{scheme}{store}"]
    for _ in range(2):
        assert main(command) == 0, capsys.readouterr().err
        (tmp_path / f"{recovered.name}.replayed").write_text(
            (tmp_path / f"{recovered.name}.replayed").read_text().replace("true", "false")
        )
    names = sorted(path.name for path in store.iterdir())
    assert names == ["1.json", "2.json"]
    found = (store / "2.json").read_bytes()
    expected = [log("second"), *LOST, CLOSED] if is_closed else [*LOST, CLOSED]
    assert found + b"\n" == b"".join(expected)


def test_no_record_can_be_kept(recovered: Path, tmp_path: Path) -> None:
    """Without a record nothing is delivered: nobody would know it the next time."""
    (tmp_path / f"{recovered.name}.replayed").mkdir()
    assert main(["replay", str(recovered), "--to", str(tmp_path / "messages")]) == 1
    assert not (tmp_path / "messages").exists()
