"""Launches processes as Dagster does: by two environment variables and two files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.launch_params import encode_param

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT: dict[str, Any] = {
    "asset_keys": ["a"],
    "code_version_by_asset_key": {"a": None},
    "provenance_by_asset_key": {"a": None},
    "partition_key": None,
    "partition_key_range": None,
    "partition_time_window": None,
    "run_id": "run",
    "job_name": "job",
    "retry_number": 0,
    "extras": {},
}

OP_STEP: dict[str, Any] = {
    "asset_keys": None,
    "code_version_by_asset_key": None,
    "provenance_by_asset_key": None,
}
"""What a context has instead in a step without assets."""


class Launch:
    """A context file and a messages file, and the environment that points to them."""

    def __init__(self, folder: Path, **context: Any) -> None:
        self.folder = folder
        self.messages_path = folder / "messages"
        self.messages_path.touch()
        context_path = folder / "context"
        context_path.write_text(json.dumps(CONTEXT | context))
        self.env = {
            "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(context_path)}),
            "DAGSTER_PIPES_MESSAGES": encode_param(
                {"path": str(self.messages_path), "include_stdio_in_messages": False}
            ),
        }

    def start(self, script: str, *args: str, **options: Any) -> subprocess.Popen[str]:
        """Start a Python script in a launched process of its own."""
        path = self.folder / "job.py"
        path.write_text(textwrap.dedent(script))
        env = {**os.environ, **self.env, **options.pop("env", {})}
        return subprocess.Popen(
            [sys.executable, *options.pop("flags", []), str(path), *args],
            env=env,
            text=True,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            **options,
        )

    def run(
        self, script: str, *args: str, timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python script to its end."""
        with self.start(script, *args, **options) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"still running after {timeout} s\n{out}\n{err}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def messages(self, *, fillers: bool = False) -> list[dict[str, Any]]:
        """The messages file, each line parsed; what only fills pages is left out."""
        data = self.messages_path.read_bytes()
        assert data.endswith(b"\n") or not data
        parsed = [json.loads(line) for line in data.splitlines()]
        return parsed if fillers else [one for one in parsed if not is_filler(one)]

    def sent(self) -> list[tuple[str, Any]]:
        """Method and params of each message."""
        return [(one["method"], one["params"]) for one in self.messages()]

    def logs(self) -> list[str]:
        """The texts of the log messages."""
        return [params["message"] for method, params in self.sent() if method == "log"]


def is_filler(message: dict[str, Any]) -> bool:
    return bool(message["method"] == "log_external_stream" and message["params"]["text"] == "")
