"""Programs that know nothing of Dagster, as jobs with a session of their own."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagsterpipes._reader.launch import bootstrap_env, build_context
from support.dagster_runs import DagsterRun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells and signals")

WRAP = [sys.executable, "-m", "dagsterpipes", "wrap"]


class Launched:
    """A wrapped shell script, launched as Dagster does."""

    def __init__(self, folder: Path, code: str, *options: str, **context: Any) -> None:
        self._messages = folder / "messages"
        context = {"asset_keys": ["table"], **context}
        env = bootstrap_env(build_context(**context), folder, self._messages, include_stdio=True)
        self.process = subprocess.Popen(
            [*WRAP, *options, "--", "sh", "-c", code],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finish(self) -> tuple[int, bytes, bytes]:
        """Exit status, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stdout, stderr

    def messages(self) -> list[Any]:
        lines = self._messages.read_bytes().splitlines()
        messages = [json.loads(line) for line in lines]
        return [each for each in messages if each["method"] != "log_external_stream"]

    def logs(self) -> list[tuple[str, str]]:
        """Level and text of each line, however they were joined."""
        return [
            (each["params"]["level"], text)
            for each in self.messages()
            if each["method"] == "log"
            for text in each["params"]["message"].split("\n")
        ]

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 30
        while not any(text == told for _, told in self.logs_so_far()):
            assert time.monotonic() < until, self._messages.read_bytes()
            time.sleep(0.02)

    def logs_so_far(self) -> list[tuple[str, str]]:
        try:
            return self.logs()
        except ValueError:
            return []


def test_a_program_that_succeeds(tmp_path: Path) -> None:
    """Its output is shown as it is and sent as logs, and its asset has the facts as metadata."""
    launched = Launched(tmp_path, "echo out; echo 'ERROR: err' >&2; printf 'no end'")
    assert launched.finish() == (0, b"out\nno end", b"ERROR: err\n")
    messages = launched.messages()
    assert [each["method"] for each in messages if each["method"] != "log"] == [
        "opened",
        "report_asset_materialization",
        "closed",
    ]
    assert sorted(launched.logs()) == [("ERROR", "ERROR: err"), ("INFO", "no end"), ("INFO", "out")]
    params = next(each["params"] for each in messages if "materialization" in each["method"])
    assert params["asset_key"] == "table"
    metadata = {key: value["raw_value"] for key, value in params["metadata"].items()}
    assert metadata["exit_code"] == 0
    assert 0 <= metadata["duration_seconds"] < 30


def test_what_it_takes_is_measured(tmp_path: Path) -> None:
    """Duration and peak memory are those of the program, not of the wrapper."""
    code = (
        f"{shlex.quote(sys.executable)} -c 'import time; x = bytearray(300 << 20); time.sleep(0.5)'"
    )
    launched = Launched(tmp_path, code)
    assert launched.finish()[0] == 0
    [report] = [each for each in launched.messages() if "materialization" in each["method"]]
    metadata = {key: value["raw_value"] for key, value in report["params"]["metadata"].items()}
    assert 0.5 <= metadata["duration_seconds"] < 30
    assert 300 << 20 <= metadata["peak_memory_bytes"] < 600 << 20


@pytest.mark.parametrize(
    ("code", "status", "how"),
    [
        ("exit 7", 7, "sh failed with exit status 7"),
        ("kill -9 $$", 137, "sh failed with SIGKILL"),
        ("kill -TERM $$", 143, "sh failed with SIGTERM"),
    ],
)
def test_a_program_that_fails(tmp_path: Path, code: str, status: int, how: str) -> None:
    """The exit status is that of shells; the session is closed with it, and nothing is materialized."""
    launched = Launched(tmp_path, f"echo before; {code}")
    assert launched.finish()[0] == status
    messages = launched.messages()
    assert messages[-1]["params"]["exception"]["message"] == how
    assert not any("materialization" in each["method"] for each in messages)
    (_, before), (level, told) = launched.logs()
    assert (before, level) == ("before", "ERROR")
    assert told.startswith(f"sh failed: exit_code {status}, duration_seconds ")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """It gives the status of shells, and the session says why."""
    env = bootstrap_env(build_context(), tmp_path, tmp_path / "messages", include_stdio=False)
    for program, status in (("no-such-program", 127), (str(tmp_path), 126)):
        done = subprocess.run(
            [*WRAP, program],
            env={**os.environ, **env},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status
        assert b"cannot be started: " in done.stderr


def test_assets_and_levels_of_the_user(tmp_path: Path) -> None:
    """Assets can be named, and the user's patterns go before the usual places."""
    options = [
        "--level",
        "DEBUG=^ERROR: harmless",
        "--level",
        "CRITICAL=(?i)boom",
        "--asset",
        "b/c",
    ]
    code = "echo 'ERROR: harmless'; echo 'Boom'; echo 'ERROR: real'"
    launched = Launched(tmp_path, code, *options, asset_keys=["a", "b/c"])
    assert launched.finish()[0] == 0
    assert launched.logs() == [
        ("DEBUG", "ERROR: harmless"),
        ("CRITICAL", "Boom"),
        ("ERROR", "ERROR: real"),
    ]
    keys = [
        each["params"]["asset_key"] for each in launched.messages() if "asset" in each["method"]
    ]
    assert keys == ["b/c"]


@pytest.mark.parametrize("level", ["LOUD=x", "ERROR", "ERROR=("])
def test_a_level_that_is_none(level: str) -> None:
    """A wrong pattern is refused before anything runs."""
    command = [*WRAP, "--level", level, "--", "echo", "ran"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_flood_is_sent_whole(tmp_path: Path) -> None:
    """No line of a program that prints as fast as it can is lost, up to its last moment."""
    launched = Launched(tmp_path, "seq 300000; seq 300001 300100 >&2")
    status, stdout, stderr = launched.finish()
    assert status == 0
    assert stdout == b"".join(b"%d\n" % number for number in range(1, 300_001))
    assert len(stderr.splitlines()) == 100
    assert sorted(int(text) for _, text in launched.logs()) == list(range(1, 300_101))


def test_binary_output(tmp_path: Path) -> None:
    """It is shown as it is, and what is no text in it is replaced in the log."""
    launched = Launched(
        tmp_path, r"printf 'a\377\000\033[2Jb\n\200\n'; head -c 200000 /dev/urandom"
    )
    status, stdout, _ = launched.finish()
    assert status == 0
    assert stdout.startswith(b"a\xff\x00\x1b[2Jb\n\x80\n")
    assert len(stdout) == 200_000 + 11
    assert launched.logs()[:2] == [("INFO", "a\ufffd\x00\x1b[2Jb"), ("INFO", "\ufffd")]


def test_progress_bars(tmp_path: Path) -> None:
    """Of what is overwritten only the last state is logged."""
    launched = Launched(tmp_path, r"printf '1%%\r50%%\r99%%\rdone\n' >&2; printf '10%%\r20%%\r'")
    assert launched.finish()[2] == b"1%\r50%\r99%\rdone\n"
    assert sorted(text for _, text in launched.logs()) == ["20%", "done"]


def test_a_process_that_is_left_behind(tmp_path: Path) -> None:
    """It keeps the output open, and the job ends all the same and says so."""
    launched = Launched(tmp_path, "sleep 120 & echo $!; echo done")
    until = time.monotonic() + 30
    assert launched.process.wait(timeout=30) == 0
    assert time.monotonic() < until
    (_, left), (_, done), (level, told) = launched.logs()
    os.kill(int(left), signal.SIGKILL)
    assert done == "done"
    assert (level, told) == ("WARNING", "sh has left a process behind that keeps its output open")
    launched.finish()


def test_a_process_that_goes_on_printing(tmp_path: Path) -> None:
    """A process that is left behind and prints without a pause cannot keep the job either."""
    pid = tmp_path / "pid"
    launched = Launched(tmp_path, f"yes {'left ' * 20} & echo $! > {pid}; echo done")
    try:
        with launched.process.stdout as stdout:  # type: ignore[union-attr] # because it is a pipe
            while launched.process.poll() is None:
                stdout.read(1 << 16)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
        launched.process.stderr.close()  # type: ignore[union-attr] # because it is a pipe
    assert launched.process.returncode == 0
    assert ("INFO", "done") in launched.logs()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    """The program decides what a signal means, and the session is closed after it."""
    name = number.name.removeprefix("SIG")
    code = f"trap 'echo caught {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    launched = Launched(tmp_path, code)
    launched.wait_for("ready")
    launched.process.send_signal(number)
    assert launched.finish()[0] == 5
    assert ("INFO", f"caught {name}") in launched.logs()
    assert launched.messages()[-1]["method"] == "closed"


def test_a_signal_that_ends_it(tmp_path: Path) -> None:
    """The exit status tells of it, as with a shell."""
    launched = Launched(tmp_path, "echo ready; sleep 60")
    launched.wait_for("ready")
    launched.process.terminate()
    assert launched.finish()[0] == 143
    assert launched.messages()[-1]["params"]["exception"]["message"] == "sh failed with SIGTERM"


def test_outside_dagster() -> None:
    """It is run and shown, and nothing else is printed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("DAGSTER_PIPES")}
    done = subprocess.run(
        [*WRAP, "--", "sh", "-c", "cat; echo err >&2; exit 0"],
        env=env,
        input=b"in\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"in\n", b"err\n")


def test_nobody_reads_its_output(tmp_path: Path) -> None:
    """The program runs to its end, and everything is sent."""
    launched = Launched(tmp_path, "seq 100000")
    launched.process.stdout.close()  # type: ignore[union-attr] # because it is a pipe
    launched.process.stderr.close()  # type: ignore[union-attr] # because it is a pipe
    assert launched.process.wait(timeout=60) == 0
    assert len(launched.logs()) == 100_000


def test_under_the_runner() -> None:
    """`dagsterpipes run` takes all that it sends, and the program finds no session."""
    code = "echo hello; env | grep -c DAGSTER_PIPES_; true"
    command = ["dagsterpipes", "run", "--json", "--", *WRAP, "--", "sh", "-c", code]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["params"]["message"] for each in events if each.get("method") == "log"] in (
        ["hello\n0"],
        ["hello", "0"],
    )
    assert events[-1]["materialized"] == ["asset"]


@pytest.mark.filterwarnings("ignore:::dagster")
@pytest.mark.parametrize("status", [0, 3])
def test_in_a_dagster_run(status: int) -> None:
    """Dagster itself launches it: logs with their levels, a materialization, or a failed step."""
    code = f"echo '2026-01-31 12:00:00,5 loader WARNING few rows'; echo fine; exit {status}"

    @dg.asset
    def table(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # noqa: ANN202 because Dagster reads return annotations
        client = dg.PipesSubprocessClient()
        return client.run(context=context, command=[*WRAP, "--", "sh", "-c", code]).get_results()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([table], instance=instance, raise_on_error=False)
        run = DagsterRun(result, instance)
    assert run.success is (status == 0)
    assert not run.pipes_warnings()
    logs = [(level, text) for level, told in run.user_logs() for text in told.split("\n")]
    assert ("WARNING", "2026-01-31 12:00:00,5 loader WARNING few rows") in logs
    assert ("INFO", "fine") in logs
    if status == 0:
        metadata = run.materialization("table").metadata
        assert metadata["exit_code"].value == 0
        assert metadata["duration_seconds"].value >= 0
    else:
        assert "sh failed with exit status 3" in run.pipes_errors()
