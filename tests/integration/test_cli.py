"""The command line with real commands: what is shown, and which exit status comes of what."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dagsterpipes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("dagster_pipes")

SOURCE = str(Path(dagsterpipes.__file__).parents[1])

CLI = [sys.executable, "-m", "dagsterpipes"]

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")


def environment(**changes: str) -> dict[str, str]:
    foreign = ("DAGSTER_PIPES_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**env, "PYTHONPATH": SOURCE, "TERM": "xterm-256color", **changes}


def dagsterpipes_cli(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments],
        env=environment(**env),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def events_of(*arguments: str) -> tuple[int, list[Any]]:
    done = dagsterpipes_cli("run", "--json", *arguments)
    assert done.stderr == ""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def payloads(events: list[Any]) -> list[Any]:
    custom = [event for event in events if event.get("method") == "report_custom_message"]
    return [event["params"]["payload"] for event in custom]


class Script:
    """Makes commands out of Python code, some with the reference client, some writing raw."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _command(self, code: str) -> list[str]:
        file = self._folder / "script.py"
        file.write_text(code, encoding="utf-8")
        return ["--", sys.executable, str(file)]

    def with_client(self, body: str) -> list[str]:
        """Code inside an open session of dagster_pipes, called `pipes`."""
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        head = "import os, sys, time\nfrom dagster_pipes import open_dagster_pipes\n"
        return self._command(f"{head}with open_dagster_pipes() as pipes:\n{lines}")

    def raw(self, body: str) -> list[str]:
        """Code that writes bytes with `write`, and whole messages with `send`."""
        return self._command(RAW_HEAD + body)


RAW_HEAD = """\
import base64, json, os, sys, time, zlib
variable = os.environ["DAGSTER_PIPES_MESSAGES"]
path = json.loads(zlib.decompress(base64.b64decode(variable)))["path"]
file = open(path, "ab", buffering=0)
write = file.write
def send(method, params):
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params}
    write(json.dumps(message).encode() + b"\\n")
opened = lambda: send("opened", {"extras": {}})
closed = lambda: send("closed", {})
log = lambda text, level="INFO": send("log", {"message": text, "level": level})
"""


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


NEVER_CLOSED = "opened()"
GOOD = "opened()\nlog('hello')\nclosed()"
GARBAGE = "opened()\nwrite(b'garbage\\n')\nclosed()"
CHECK = (
    "send('report_asset_check', {'asset_key': 'a', 'check_name': 'c', 'passed': False,"
    " 'severity': 'ERROR', 'metadata': None})"
)
FAILED_CHECK = f"opened()\n{CHECK}\nclosed()"


@pytest.mark.parametrize(
    ("body", "options", "status", "shown"),
    [
        (GOOD, [], 0, "✓ The command succeeded and closed its session."),
        (GOOD + "\nsys.exit(7)", [], 3, "✗ The command failed with exit status 7"),
        ("sys.exit(7)", [], 3, "✗ The command failed with exit status 7"),
        ("os.kill(os.getpid(), 9)", [], 3, "✗ The command failed with signal 9"),
        ("", [], 4, "✗ The session was never opened"),
        (NEVER_CLOSED, [], 4, "✗ The session was never closed"),
        (FAILED_CHECK, [], 5, "✗ line 2: The check c of a failed"),
        (FAILED_CHECK.replace("ERROR", "WARN"), ["--expect-check", "c"], 0, "✓ The command"),
        (GOOD, ["--expect-check", "c"], 5, "✗ The check c was not reported"),
        (GARBAGE, [], 6, "✗ line 2: Expecting value"),
        (GOOD + "\nlog('late')", [], 6, "(rule after-closed: nothing comes after `closed`)"),
        ("opened()\nlog('m', 'TRACE')\nclosed()", [], 6, "(rule log-level: "),
        ("opened()\nwrite(b'{\"half')", [], 6, "✗ line 2: Unterminated string"),
    ],
)
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_exit_statuses(
    script: Script, body: str, options: list[str], status: int, shown: str, quiet: list[str]
) -> None:
    """Each way in which a session ends has its status and its reason, quiet or not."""
    done = dagsterpipes_cli("run", *options, *quiet, *script.raw(body))
    assert done.returncode == status
    assert shown in done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"(exit status {status})")
    assert done.stderr == ""
    if quiet:
        assert {line[0] for line in done.stdout.splitlines()} <= {"✓", "✗"}


def test_a_command_that_cannot_be_started() -> None:
    """A command that does not exist has failed, with the system's reason."""
    done = dagsterpipes_cli("run", "--", "no-such-command")
    assert done.returncode == 3
    assert "The command cannot be started: [Errno 2]" in done.stdout


def test_a_shell_script(tmp_path: Path) -> None:
    """A script in any language will do, and a line that Dagster refuses is named with its number."""
    messages = tmp_path / "messages"
    lines = [
        '{"__dagster_pipes_version": "0.1", "method": "opened", "params": {"extras": {}}}',
        '{"__dagster_pipes_version": "0.1", "method": "log", "params": {"message": "from sh"}}',
        '{"__dagster_pipes_version": "0.1", "method": "shout", "params": {}}',
    ]
    to = shlex.quote(str(messages))
    code = "".join(f"printf '%s\\n' {shlex.quote(line)} >> {to}\n" for line in lines)
    done = dagsterpipes_cli("run", "--messages-file", str(messages), "--", "sh", "-c", code)
    assert done.returncode == 6
    assert "INFO         from sh" in done.stdout
    assert "line 3, rule method: the method 'shout' is unknown" in done.stdout
    assert messages.read_text().splitlines() == lines


def test_read_says_the_same(script: Script, tmp_path: Path) -> None:
    """A kept messages file gives the same outcome when it is read."""
    messages = str(tmp_path / "messages")
    for body in (GOOD, NEVER_CLOSED, FAILED_CHECK, GARBAGE):
        ran = dagsterpipes_cli("run", "--messages-file", messages, "--quiet", *script.raw(body))
        read = dagsterpipes_cli("read", "--quiet", messages)
        assert read.returncode == ran.returncode
        same = ran.stdout.replace(
            "The command succeeded and closed its session.",
            "The session is closed, and Dagster takes all of it.",
        )
        assert read.stdout == same


def test_an_exception_is_a_readable_traceback(script: Script) -> None:
    """The exception of a session is shown with its cause above it, as Python prints it."""
    body = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('bad') from error"
    done = dagsterpipes_cli("run", *script.with_client(body))
    assert done.returncode == 4
    shown = [line[20:] for line in done.stdout.splitlines()]
    assert shown.count("ValueError: bad") == 1, "it is shown once, whether from stderr or not"
    start = shown.index("Traceback (most recent call last):")
    traceback = [
        line for line in shown[start:] if not line.lstrip().startswith(("~", "^", "1 / 0"))
    ]
    assert "ZeroDivisionError: division by zero" in traceback
    joint = "The above exception was the direct cause of the following exception:"
    assert traceback.index("ZeroDivisionError: division by zero") < traceback.index(joint)
    assert traceback.index(joint) < traceback.index("ValueError: bad")
    assert "✗ The session was closed with ValueError: bad" in done.stdout
    quiet = dagsterpipes_cli("run", "-q", *script.with_client(body))
    assert quiet.stdout.startswith("✗ The session was closed with ValueError: bad\n")


def test_a_step_has_an_asset_unless_told_otherwise(script: Script) -> None:
    """A job that names none reports the default one, and one that names another is told how."""
    default = dagsterpipes_cli("run", *script.with_client("pipes.report_asset_materialization()"))
    assert default.returncode == 0
    assert "materialized asset\n" in default.stdout
    other = script.with_client("pipes.report_asset_materialization(asset_key='orders')")
    refused = dagsterpipes_cli("run", "-q", *other)
    assert refused.returncode == 4
    assert "it has one, asset: pass --asset KEY for each that the command reports" in refused.stdout
    for option in (["--asset", "orders"], ["--op"]):
        assert dagsterpipes_cli("run", "-q", *option, *other).returncode == 0


def test_dates_as_a_time_window(script: Script) -> None:
    """Dates are moments in UTC."""
    body = "pipes.log.info(str(pipes.partition_time_window))"
    window = ["--time-window", "2026-01-01", "2026-01-02"]
    command = ["run", "--partition", "p", *window, *script.with_client(body)]
    done = dagsterpipes_cli(*command)
    assert "2026-01-01T00:00:00+00:00" in done.stdout
    assert "2026-01-02T00:00:00+00:00" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("options", [[], ["--json"], ["-q"]])
def test_output_that_cannot_be_written_is_a_failure(script: Script, options: list[str]) -> None:
    """A full disk is said on stderr and gives a status of its own, unless there is a worse one."""
    for body, status in ((GOOD, 8), (GARBAGE, 6)):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*CLI, "run", *options, *script.raw(body)],
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert done.returncode == status
        assert b"the output cannot be written: No space left on device" in done.stderr


@posix_only
def test_a_prompt_is_shown_before_its_answer() -> None:
    """A question without a newline is there while the command waits."""
    ask = "print('Hi', input('Name? '))"
    with subprocess.Popen(
        [*CLI, "run", "--", sys.executable, "-c", ask],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        while b"Name? " not in shown:
            assert select.select([process.stdout], [], [], 30)[0], shown
            shown += os.read(process.stdout.fileno(), 1000)
        process.stdin.write(b"Bob\n")
        process.stdin.close()
        assert b"stdout       Hi Bob" in process.stdout.read()


SHOW_CONTEXT = """\
pipes.report_custom_message({
    "asset_keys": pipes.asset_keys,
    "provenance": pipes.provenance_by_asset_key,
    "code_version": pipes.code_version_by_asset_key,
    "partition_key": pipes.partition_key,
    "range": pipes.partition_key_range,
    "window": pipes.partition_time_window,
    "run_id": pipes.run_id,
    "job_name": pipes.job_name,
    "retry_number": pipes.retry_number,
    "extras": pipes.extras,
})
"""


def test_the_context(script: Script, tmp_path: Path) -> None:
    """The reference client finds everything in the context that the options have set."""
    extras_file, context_file = tmp_path / "extras.json", tmp_path / "context.json"
    extras_file.write_text('{"from_file": true, "both": 1}')
    context_file.write_text('{"job_name": "j", "retry_number": 2, "extras": {"from_context": 0}}')
    window = ("2024-01-01T00:00:00+00:00", "2024-01-02T00:00:00+00:00")
    status, events = events_of(
        *("--asset", "b", "--asset", "a/x", "--partition", "2024-01-01"),
        *("--time-window", *window, "--run-id", "r", "--extra", "both=2", "--extra", "n:=[1]"),
        *("--extras-file", str(extras_file), "--context-file", str(context_file)),
        *script.with_client(SHOW_CONTEXT),
    )
    assert status == 0
    (payload,) = payloads(events)
    assert payload == {
        "asset_keys": ["a/x", "b"],
        "provenance": {"a/x": None, "b": None},
        "code_version": {"a/x": None, "b": None},
        "partition_key": "2024-01-01",
        "range": {"start": "2024-01-01", "end": "2024-01-01"},
        "window": {"start": window[0], "end": window[1]},
        "run_id": "r",
        "job_name": "j",
        "retry_number": 2,
        "extras": {"from_context": 0, "from_file": True, "both": "2", "n": [1]},
    }


SHOW_ENVIRONMENT = """\
def decoded(name):
    return json.loads(zlib.decompress(base64.b64decode(os.environ[name])))
names = sorted(name for name in os.environ if name.startswith("DAGSTER_PIPES"))
context = json.load(open(decoded("DAGSTER_PIPES_CONTEXT")["path"]))
opened()
send("report_custom_message", {"payload": [
    {name: {k: type(v).__name__ for k, v in decoded(name).items()} for name in names},
    {key: type(value).__name__ for key, value in context.items()},
    decoded("DAGSTER_PIPES_MESSAGES")["include_stdio_in_messages"],
]})
closed()
"""


@pytest.mark.filterwarnings("ignore:.*is currently in preview")
@pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id is deprecated")
def test_the_launch_is_that_of_dagster(script: Script) -> None:
    """A command finds the same variables, params and context keys as under Dagster's own client."""
    dagster = pytest.importorskip("dagster")
    command = script.raw(SHOW_ENVIRONMENT)
    under_dagster: list[Any] = []

    def subject(context: Any) -> Any:
        client = dagster.PipesSubprocessClient(env=environment())
        invocation = client.run(context=context, command=command[1:], extras={"a": 1})
        under_dagster.extend(invocation.get_custom_messages())
        return invocation.get_materialize_result()

    subject.__annotations__ = {"context": dagster.AssetExecutionContext}
    assert dagster.materialize([dagster.asset(subject)]).success
    status, events = events_of("--asset", "subject", "--job-name", "j", "--extra", "a:=1", *command)
    assert status == 0
    assert payloads(events) == under_dagster

    status, events = events_of("--include-stdio", *command)
    assert payloads(events)[0][2] is True


METADATA = """\
print("to stdout"); print("to stderr", file=sys.stderr)
pipes.log.warning("careful")
pipes.report_asset_materialization(asset_key="a/b", data_version="v1", metadata={
    "rows": 12,
    "link": {"raw_value": "https://example.com/x", "type": "url"},
    "notes": {"raw_value": "# Title\\n\\n- one", "type": "md"},
    "sample": {"raw_value": {"records": [{"a": 1, "b": "x"}],
        "schema": [{"name": "a", "type": "int"}, {"name": "b", "type": "string"}]}, "type": "table"},
})
pipes.report_asset_check(check_name="not_null", passed=True, asset_key="a/b")
"""


def test_what_is_shown(script: Script) -> None:
    """Logs, output, reports and their metadata are shown in words, and nothing in colour."""
    done = dagsterpipes_cli("run", "--asset", "a/b", *script.with_client(METADATA))
    assert done.returncode == 0
    for part in (
        "stdout       to stdout\n",
        "stderr       to stderr\n",
        "WARNING      careful\n",
        "materialized a/b  data version v1\n",
        "https://example.com/x",
        " • one",
        "│ 1   │ x      │",
        "passed       check not_null of a/b (ERROR)\n",
        "Messages    1 log, 1 materialization, 1 check\n",
    ):
        assert part in done.stdout, part
    assert "\x1b" not in done.stdout


def test_an_encoding_that_lacks_characters(script: Script) -> None:
    """A locale that cannot show a character gets an escape for it, and the run goes on."""
    done = dagsterpipes_cli("run", *script.raw(GOOD), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "\\u2713 The command succeeded" in done.stdout


HOSTILE = """\
opened()
log("x" * 10_000_000)
write(b"garbage\\n\\n\\xff\\xfe\\n\\x00\\n" + b"[" * 100_000 + b"\\n")
evil = "\\x1b[2J\\x1b]0;t\\x07\\x9b31m\\u202e\\ud800\\r\\x00"
log(evil)
send("log_external_stream", {"stream": "stderr", "text": evil})
send("report_asset_materialization", {"asset_key": evil, "data_version": evil,
    "metadata": {evil: {"raw_value": evil, "type": "md"}}})
send("closed", {"exception": {"message": evil, "name": evil, "stack": [evil],
    "cause": None, "context": None}})
sys.stdout.buffer.write(b"\\x1b[2J\\xff\\x07\\n" + b"y" * 3_000_000)
"""


def test_hostile_output(script: Script) -> None:
    """Whatever is written, every line is judged and no control character is passed through."""
    done = dagsterpipes_cli("run", *script.raw(HOSTILE))
    assert done.returncode == 6
    for rule in ("json", "blank-line", "utf-8", "nesting"):
        assert f"rule {rule}: " in done.stdout
    assert "x … (9,990,000 more characters)" in done.stdout
    assert "\\e[2J\\e]0;t\\a\\x9b31m\\u202e\\ud800\\r\\0" in done.stdout
    assert not set(done.stdout) & set("\x1b\x07\x9b\u202e\r\x00")
    assert len(done.stdout) < 200_000


def test_hostile_output_as_json(script: Script) -> None:
    """As JSON nothing of it is lost, and each line is plain ASCII."""
    done = dagsterpipes_cli("run", "--json", *script.raw(HOSTILE))
    assert done.returncode == 6
    assert done.stdout.isascii()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    logs = [event["params"]["message"] for event in events if event.get("method") == "log"]
    assert [len(text) for text in logs] == [10_000_000, 18]
    assert "\x1b[2J" in logs[1]
    refused = [(event["line"], event["rule"]) for event in events if event["event"] == "refused"]
    assert refused == [(3, "json"), (4, "blank-line"), (5, "utf-8"), (6, "json"), (7, "nesting")]
    output = "".join(event["text"] for event in events if event["event"] == "output")
    assert output.count("y") == 3_000_000


def test_a_torn_line_is_awaited(script: Script) -> None:
    """A line written in two pieces is shown whole, and refused if Dagster would have seen a half."""
    body = """\
opened()
line = b'{"__dagster_pipes_version": "0.1", "method": "log", "params": {"message": "whole"}}\\n'
write(line[:30])
time.sleep(1.5)
write(line[30:])
closed()
"""
    status, events = events_of(*script.raw(body))
    assert status == 6
    assert events[1]["params"]["message"] == "whole"
    assert (events[2]["event"], events[2]["rule"], events[2]["line"]) == ("refused", "torn-line", 2)
    assert events[-1]["torn"] == 1
    assert events[-1]["lost"] == 1


def test_a_last_line_without_newline(script: Script) -> None:
    """A last line that lacks only its newline is taken, as Dagster takes it."""
    status, events = events_of(*script.raw("opened()\nclosed()\nfile.truncate(file.tell() - 1)"))
    assert status == 0
    assert events[-2]["method"] == "closed"


FLOOD = "opened()\nfor i in range(20_000): log(f'number {i}')\nlog('careful', 'ERROR')\nclosed()"


def test_a_flood(script: Script) -> None:
    """The live view shows so many lines a second, and counts the others."""
    done = dagsterpipes_cli("run", "--max-lines-per-second", "20", *script.raw(FLOOD))
    assert done.returncode == 0
    shown = done.stdout.count("INFO         number")
    skipped = [
        int(line.split()[1].replace(",", ""))
        for line in done.stdout.splitlines()
        if line.strip().startswith("… ")
    ]
    assert 20 <= shown < 2_000
    assert shown + sum(skipped) == 20_000
    assert "ERROR        careful" in done.stdout
    assert "20,001 logs" in done.stdout


def test_a_flood_as_json(script: Script) -> None:
    """As JSON nothing is skipped, and the order is kept."""
    status, events = events_of(*script.raw(FLOOD))
    assert status == 0
    logs = [event["params"]["message"] for event in events if event.get("method") == "log"]
    assert logs == [*(f"number {i}" for i in range(20_000)), "careful"]


def test_quiet_json(script: Script) -> None:
    """Quiet JSON is the summary alone."""
    done = dagsterpipes_cli("run", "--json", "--quiet", *script.raw(GOOD))
    (summary,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert summary["event"] == "summary"
    assert summary["outcome"] == "done"
    assert summary["status"] == 0
    assert summary["levels"] == {"INFO": 1}


def test_doctor_inside_a_run() -> None:
    """Inside a launched process the doctor finds everything in order, and writes no message."""
    done = dagsterpipes_cli(
        "run", "--asset", "a", "--extra", "password=hunter2", "--", *CLI, "doctor"
    )
    assert done.returncode == 4
    assert "ok  The context has all its keys." in done.stdout
    assert "extras: password (str, 9 bytes)" in done.stdout
    assert "which can be opened." in done.stdout
    assert "BAD" not in done.stdout
    assert "hunter2" not in done.stdout
    assert "Messages  none" in done.stdout


@posix_only
def test_a_reader_that_goes_away(script: Script, tmp_path: Path) -> None:
    """When nobody reads the output any more, the command still runs to its end."""
    marker = tmp_path / "marker"
    body = f"opened()\nfor i in range(20_000): log('x' * 100)\nclosed()\nopen({str(marker)!r}, 'w')"
    for options in ([], ["--json"]):
        marker.unlink(missing_ok=True)
        command = shlex.join(
            [*CLI, "run", *options, "--max-lines-per-second", "0", *script.raw(body)]
        )
        pipeline = f"{{ {command}; echo status $? >&2; }} | head -1"
        done = subprocess.run(
            ["sh", "-c", pipeline],
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
        assert done.stderr == "status 0\n"
        assert len(done.stdout.splitlines()) == 1
        assert marker.exists()


@posix_only
def test_a_process_left_behind(script: Script) -> None:
    """A process that outlives the command and holds its output does not hold the runner."""
    started = time.monotonic()
    body = GOOD + "\nimport subprocess\nsubprocess.Popen(['sleep', '30'])"
    status, events = events_of(*script.raw(body))
    assert status == 0
    assert events[-2]["text"] == "The command has left a process behind that keeps its output open"
    assert time.monotonic() - started < 15


class Running:
    """A run in progress, whose JSON events are read as they come."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*CLI, "run", "--json", *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.events: list[Any] = []

    def until(self, text: str) -> None:
        """Read until an event has this in it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))
            if text in line:
                return
        raise AssertionError(f"no {text!r} in {self.events}")

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self) -> int:
        assert self._process.stdout is not None
        self.events += map(json.loads, self._process.stdout)
        return self._process.wait(30)

    def abandon(self) -> None:
        """Leave nothing behind, whatever the test has come to."""
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGINT):
            if self._process.poll() is None:
                self.send(number)
                time.sleep(0.1)  # two signals at the same moment would be seen as one
        with self._process:
            self._process.kill()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Running]:
    run = Running(*arguments)
    try:
        yield run
    finally:
        run.abandon()


WAITING = "pipes.log.info('ready')\ntime.sleep(60)"


@posix_only
@pytest.mark.parametrize(
    ("number", "status", "exception"),
    [(signal.SIGINT, 130, "KeyboardInterrupt"), (signal.SIGTERM, 143, "Stopped")],
)
def test_a_signal_is_forwarded(script: Script, number: int, status: int, exception: str) -> None:
    """A signal reaches the command once, its session ends cleanly, and the status says so."""
    handler = (
        "import signal\nclass Stopped(Exception): pass\n"
        "def stop(*_): raise Stopped\nsignal.signal(signal.SIGTERM, stop)\n"
    )
    with running(*script.with_client(handler + WAITING)) as run:
        run.until("ready")
        run.send(number)
        assert run.finish() == status
        (closed,) = [event for event in run.events if event.get("method") == "closed"]
        assert closed["params"]["exception"]["name"] == exception
        summary = run.events[-1]
        assert summary["closed"] is True
        assert summary["status"] == status
        notices = [event["text"] for event in run.events if event["event"] == "notice"]
        assert len(notices) == 1
        assert notices[0].startswith(f"Forwarded {signal.Signals(number).name} to the command")


@posix_only
def test_a_signal_reaches_what_a_shell_has_started(script: Script) -> None:
    """Ctrl-C reaches the process that holds the session, also through a shell."""
    command = shlex.join(script.with_client(WAITING)[1:])
    with running("--", "sh", "-c", f"{command}; exit 0") as run:
        run.until("ready")
        run.send(signal.SIGINT)
        assert run.finish() == 130
        assert run.events[-1]["closed"] is True


@posix_only
def test_a_command_that_does_not_stop(script: Script) -> None:
    """The second signal terminates a command that ignores the first one, the third kills it."""
    body = (
        "import signal\n"
        "signal.signal(signal.SIGINT, lambda *_: log('no'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: log('never'))\n"
        "opened()\nlog('ready')\nwhile True: time.sleep(60)"
    )
    with running(*script.raw(body)) as run:
        for text in ("ready", '"no"', '"never"'):
            run.until(text)
            run.send(signal.SIGINT)
        assert run.finish() == 130
        assert run.events[-1]["exit_code"] == -signal.SIGKILL
        assert run.events[-1]["closed"] is False
        notices = [event["text"] for event in run.events if event["event"] == "notice"]
        assert notices[1:] == ["Sent SIGTERM to the command", "Sent SIGKILL to the command"]


def in_a_terminal(
    arguments: list[str], *, typed: tuple[bytes, bytes] | None = None, **env: str
) -> tuple[int, str]:
    """Run the command line in a terminal of its own; type something once a text has been shown."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(CLI[0], [*CLI, *arguments], environment(**env))
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
        if typed is not None and typed[0] in shown:
            os.write(terminal, typed[1])
            typed = None
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@posix_only
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_in_a_terminal(script: Script) -> None:
    """In a terminal there are colours, the state of the session below, and Ctrl-C is forwarded."""
    command = script.with_client("pipes.log.error('careful')\n" + WAITING)
    status, shown = in_a_terminal(["run", *command], typed=(b"ready", b"\x03"))
    assert status == 130
    assert "\x1b[31mcareful" in shown
    assert " messages" in shown
    assert "The session was closed with KeyboardInterrupt" in shown


@posix_only
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_no_color_in_a_terminal(script: Script) -> None:
    """With NO_COLOR there is no colour and no other style in a terminal either."""
    command = script.raw(GOOD.replace("log('hello')", "log('hello', 'ERROR')"))
    status, shown = in_a_terminal(["run", *command], NO_COLOR="1")
    assert status == 0
    assert "hello" in shown
    endings = {part.lstrip("0123456789;?")[:1] for part in shown.split("\x1b[")[1:]}
    assert "m" not in endings
