"""The files and the environment of a session; whole runs are among the integration tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dagsterpipes._protocol.launch_params import decode_params
from dagsterpipes.cli.events import Event, LineRefused, MessageSeen, Summary
from dagsterpipes.cli.exit_status import ExitStatus
from dagsterpipes.cli.running import bootstrap_env, follow_file
from dagsterpipes.cli.session_context import build_context
from dagsterpipes.cli.session_report import SessionReport

if TYPE_CHECKING:
    from pathlib import Path


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event) -> None:
        self.events.append(event)

    def tick(self, state: str, at: float, /) -> None:
        """Nothing to keep."""

    def finish(self, summary: Summary) -> None:
        """Nothing to keep."""


@pytest.mark.parametrize("include_stdio", [True, False])
def test_bootstrap_env(tmp_path: Path, include_stdio: bool) -> None:
    """The variables lead to the context, whole, and to an empty messages file."""
    context = build_context({}, asset_keys=["a"], extras={"é": [1]})
    messages = tmp_path / "messages"
    messages.write_text("old")
    env = bootstrap_env(context, tmp_path, messages, include_stdio=include_stdio)
    assert sorted(env) == ["DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"]
    params = {name: decode_params(value, source=name) for name, value in env.items()}
    assert params["DAGSTER_PIPES_MESSAGES"] == {
        "path": str(messages),
        "include_stdio_in_messages": include_stdio,
    }
    assert messages.read_text() == ""
    written = tmp_path / "context"
    assert params["DAGSTER_PIPES_CONTEXT"] == {"path": str(written)}
    assert json.loads(written.read_text(encoding="utf-8")) == context


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that changes its folder still finds its files."""
    monkeypatch.chdir(tmp_path)
    here = type(tmp_path)()
    env = bootstrap_env(build_context({}), here, here / "messages", include_stdio=False)
    for name, value in env.items():
        assert decode_params(value, source=name)["path"].startswith(str(tmp_path))


OPENED = b'{"__dagster_pipes_version": "0.1", "method": "opened", "params": {"extras": {}}}\n'
CLOSED = b'{"__dagster_pipes_version": "0.1", "method": "closed", "params": {}}'


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_follow_file(tmp_path: Path, end: bytes) -> None:
    """A file is judged to its end, whether its last line has a newline or not."""
    file = tmp_path / "messages"
    file.write_bytes(OPENED + CLOSED + end)
    view = Recorder()
    summary = follow_file(file, SessionReport(), view)
    assert summary.status is ExitStatus.DONE
    assert summary.seconds is None
    assert [(event.at, type(event)) for event in view.events] == [(None, MessageSeen)] * 2


def test_follow_an_unfinished_file(tmp_path: Path) -> None:
    """What a process left unfinished is refused with its line number."""
    file = tmp_path / "messages"
    file.write_bytes(OPENED + b"x" * 20_000_000 + b"\n" + CLOSED[:20])
    view = Recorder()
    summary = follow_file(file, SessionReport(), view)
    assert summary.status is ExitStatus.REFUSED
    refused = [event for event in view.events if isinstance(event, LineRefused)]
    assert [(event.line, event.refused.rule) for event in refused] == [(2, "json"), (3, "json")]


def test_follow_an_empty_file(tmp_path: Path) -> None:
    """An empty file is a session that was never opened."""
    file = tmp_path / "messages"
    file.touch()
    assert follow_file(file, SessionReport(), Recorder()).status is ExitStatus.NOT_CLOSED
