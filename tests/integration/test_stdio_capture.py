"""The stdio capture in real processes, looked at from outside and from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

import dagsterpipes
from dagsterpipes._session.stdio import StdioCapture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs poll() on pipes")

PRELUDE = """
import json, os, signal, subprocess, sys, threading, time
from dagsterpipes._session.stdio import StdioCapture

record = open(sys.argv[1], "a", encoding="utf-8")

def emit(stream, text):
    record.write(json.dumps([stream, text]) + "\\n")
    record.flush()

def say(**facts):
    record.write(json.dumps(facts) + "\\n")
    record.flush()

def descriptors():
    return [(int(fd), os.readlink("/proc/self/fd/" + fd)) for fd in os.listdir("/proc/self/fd")
            if os.path.exists("/proc/self/fd/" + fd)]

def wait_until(condition):
    while not condition():
        time.sleep(0.005)

capture = StdioCapture(emit)
"""


class Outcome(NamedTuple):
    """What a script did: its output, and what it recorded."""

    returncode: int
    stdout: str
    stderr: str
    emitted: list[tuple[str, str]]
    facts: dict[str, Any]

    def text(self, stream: str) -> str:
        """All that was emitted for ``stream``."""
        return "".join(text for name, text in self.emitted if name == stream)


class Run(Protocol):
    """Runs a script after the prelude."""

    def __call__(self, script: str, *, returncode: int | None = 0, **options: Any) -> Outcome:
        """Run it; ``options`` are those of `subprocess.run`."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run scripts in processes of their own, and hand back what came out of each."""

    def run_script(script: str, *, returncode: int | None = 0, **options: Any) -> Outcome:
        path, record = tmp_path / "script.py", tmp_path / "record"
        path.write_text(PRELUDE + textwrap.dedent(script), "utf-8")
        record.write_text("")
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "",  # whoever runs the tests may have set it
            "PYTHONPATH": str(Path(dagsterpipes.__file__).parents[1]),
            **options.pop("env", {}),
        }
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        done: Any = subprocess.run(
            [sys.executable, str(path), str(record)],
            env=environment,
            timeout=60,
            check=False,
            **streams,
        )
        lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
        outcome = Outcome(
            done.returncode,
            (done.stdout or b"").decode("utf-8", "backslashreplace"),
            (done.stderr or b"").decode("utf-8", "backslashreplace"),
            [(line[0], line[1]) for line in lines if isinstance(line, list)],
            {key: fact for line in lines if isinstance(line, dict) for key, fact in line.items()},
        )
        assert returncode in (None, outcome.returncode), outcome
        return outcome

    return run_script


def test_python_c_code_and_children_are_captured_and_shown(run: Run) -> None:
    """Whoever writes to the descriptors is emitted in order and seen; before and after is not."""
    outcome = run("""
        import ctypes
        libc = ctypes.CDLL(None)
        print("before")
        libc.puts(b"before, in C's buffer")
        capture.start()
        print("print", flush=True)
        os.write(1, b"os.write\\n")
        libc.puts(b"puts")
        libc.fflush(None)
        subprocess.run(["echo", "child"], check=True)
        subprocess.run("echo shell; echo complaint >&2", shell=True, check=True)
        print("error", file=sys.stderr)
        print("last, in Python's buffer")
        libc.puts(b"last, in C's buffer")
        assert capture.stop(5)
        print("after")
        print("after", file=sys.stderr)
    """)
    out = "print\nos.write\nputs\nchild\nshell\nlast, in Python's buffer\nlast, in C's buffer\n"
    assert outcome.text("stdout") == out
    assert outcome.text("stderr") == "complaint\nerror\n"
    assert outcome.stdout == f"before\nbefore, in C's buffer\n{out}after\n"
    assert outcome.stderr == "complaint\nerror\nafter\n"


def test_cut_characters_and_bytes_that_are_not_utf8_arrive(run: Run) -> None:
    """A character read in two halves is whole, a stray byte is legible, the real bytes are kept."""
    outcome = run("""
        capture.start()
        for byte in "x\\u00e9\\u20ac\\U0001f600y\\n".encode():
            os.write(1, bytes([byte]))
            time.sleep(0.01)
        os.write(2, b"caf\\xe9 \\xff\\n\\xe2\\x82")
        assert capture.stop(5)
    """)
    assert outcome.text("stdout") == outcome.stdout == "xé€😀y\n"
    assert outcome.text("stderr") == outcome.stderr == "caf\\xe9 \\xff\n\\xe2\\x82"


def test_the_beginning_of_a_line_waits_for_its_end(run: Run) -> None:
    """A line that comes in two writes is one piece, and the last line needs no newline."""
    outcome = run("""
        capture = StdioCapture(emit, hold=30)
        capture.start()
        os.write(1, b"half a ")
        time.sleep(0.05)
        os.write(1, b"line\\nunfinished")
        assert capture.stop(5)
    """)
    assert [text for _, text in outcome.emitted] == ["half a line\n", "unfinished"]


def test_a_prompt_without_newline_arrives(run: Run) -> None:
    """The beginning of a line does not wait longer than ``hold``."""
    outcome = run("""
        prompted = threading.Event()
        def emit_and_tell(stream, text):
            emit(stream, text)
            prompted.set()
        capture = StdioCapture(emit_and_tell, hold=0.05)
        capture.start()
        os.write(1, b"Name: ")
        assert prompted.wait(30)
        os.write(1, b"Ada\\n")
        assert capture.stop(5)
    """)
    assert [text for _, text in outcome.emitted] == ["Name: ", "Ada\n"]


def test_100_mb_arrive_whole_with_bounded_memory(run: Run, tmp_path: Path) -> None:
    """100 MB printed in one go by a child process arrive, in order, and memory hardly grows."""
    with (tmp_path / "shown").open("wb") as shown:
        outcome = run(
            """
            import hashlib, resource
            emitted, longest = hashlib.sha256(), 0
            def digest(stream, text):
                global longest
                emitted.update(text.encode())
                longest = max(longest, len(json.dumps(text)))
            capture = StdioCapture(digest)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            capture.start()
            source = "import sys; sys.stdout.write(''.join(f'line {i:>90}\\\\n' for i in range(1_000_000)))"
            subprocess.run([sys.executable, "-c", source], check=True)
            assert capture.stop(30)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            expected = hashlib.sha256("".join(f"line {i:>90}\\n" for i in range(1_000_000)).encode())
            say(whole=emitted.digest() == expected.digest(), longest=longest, grown=grown)
            """,
            stdout=shown,
        )
    assert outcome.facts["whole"]
    assert outcome.facts["longest"] <= 4096
    assert outcome.facts["grown"] < 32 * 1024  # KiB
    assert (tmp_path / "shown").stat().st_size == 96_000_000


def test_writers_wait_for_a_slow_emit(run: Run) -> None:
    """While ``emit`` does not take more, printing stops; afterwards everything arrives."""
    outcome = run("""
        go_on, printed, taken = threading.Event(), threading.Event(), 0
        def take(stream, text):
            global taken
            go_on.wait()
            taken += len(text)
        capture = StdioCapture(take)
        capture.start()
        def write():
            sys.stdout.buffer.write(b"x" * 8_000_000)
            printed.set()
        writer = threading.Thread(target=write)
        writer.start()
        say(printed_early=printed.wait(0.5))
        go_on.set()
        writer.join()
        assert capture.stop(10)
        say(taken=taken)
    """)
    assert outcome.facts == {"printed_early": False, "taken": 8_000_000}
    assert len(outcome.stdout) == 8_000_000


def test_stop_keeps_its_timeout_when_emit_is_stuck(run: Run) -> None:
    """With an ``emit`` that never returns the streams are restored in time, and stop says so."""
    outcome = run("""
        stuck = threading.Event()
        def never_return(stream, text):
            stuck.set()
            threading.Event().wait()
        capture = StdioCapture(never_return)
        capture.start()
        os.write(1, b"text\\n")
        assert stuck.wait(30)
        print("in Python's buffer")
        begin = time.monotonic()
        stopped = capture.stop(0.3)
        say(stopped=stopped, seconds=time.monotonic() - begin)
        print("after")
    """)
    assert outcome.facts["stopped"] is False
    assert 0.3 <= outcome.facts["seconds"] < 1
    assert outcome.stdout == "text\nin Python's buffer\nafter\n"


def test_an_emit_that_raises_loses_nothing_on_the_real_stream(run: Run) -> None:
    """The first error and the number of refused pieces are kept, later pieces are still offered."""
    outcome = run("""
        offered = threading.Event()
        def fail_twice(stream, text):
            offered.set()
            if text in ("1\\n", "2\\n"):
                raise RuntimeError("no " + text.strip())
            emit(stream, text)
        capture = StdioCapture(fail_twice)
        capture.start()
        for i in range(5):
            offered.clear()
            print(i, flush=True)
            assert offered.wait(30)
        assert capture.stop(5)
        say(error=repr(capture.error), lost=capture.lost)
    """)
    assert outcome.facts == {"error": "RuntimeError('no 1')", "lost": 2}
    assert outcome.text("stdout") == "0\n3\n4\n"
    assert outcome.stdout == "0\n1\n2\n3\n4\n"


def test_a_closed_stdout_is_left_out(run: Run) -> None:
    """A file that got the number 1 is left alone, and stderr is captured as ever."""
    outcome = run(
        """
        say(record=record.fileno(), stdout=repr(sys.stdout))
        before = os.fstat(1)
        capture.start()
        assert os.fstat(1).st_ino == before.st_ino
        assert not [fd for fd, _ in descriptors() if fd < 3 and fd not in (0, 1, 2)]
        print("nowhere")
        os.write(2, b"error\\n")
        assert capture.stop(5)
        os.fstat(1)
        """,
        stdout=None,
        preexec_fn=lambda: os.close(1),
    )
    assert outcome.facts == {"record": 1, "stdout": "None"}
    assert outcome.emitted == [("stderr", "error\n")]
    assert outcome.stderr == "error\n"


def test_no_pipe_lands_on_a_closed_standard_descriptor(run: Run) -> None:
    """With stdin and stdout closed the numbers stay free: a child must not inherit our pipes."""
    outcome = run(
        """
        os.dup2(record.fileno(), 50)
        record = open(50, "a")
        os.closerange(0, 2)
        capture.start()
        say(low=sorted(fd for fd, _ in descriptors() if fd < 3))
        os.write(2, b"error\\n")
        assert capture.stop(5)
        """,
        stdout=None,
        stdin=None,
        preexec_fn=lambda: os.closerange(0, 2),
    )
    assert outcome.facts == {"low": [2]}
    assert outcome.emitted == [("stderr", "error\n")]


def test_a_replaced_stdout_is_captured_where_python_writes(run: Run) -> None:
    """A stream without a descriptor gets its text as before, and is put back unless replaced."""
    outcome = run("""
        import io
        sys.stdout = mine = io.StringIO()
        sys.stderr = io.StringIO()
        capture.start()
        print("printed")
        print("complaint \\ud800", file=sys.stderr)
        os.write(1, b"C code\\n")
        kept = sys.stdout
        sys.stderr = later = io.StringIO()
        assert capture.stop(5)
        say(restored=sys.stdout is mine, left=sys.stderr is later, got=mine.getvalue())
        print("after", file=kept)
        say(after=mine.getvalue())
    """)
    assert sorted(outcome.emitted) == [
        ("stderr", "complaint \\ud800\n"),
        ("stdout", "C code\n"),
        ("stdout", "printed\n"),
    ]
    assert outcome.facts == {
        "restored": True,
        "left": True,
        "got": "printed\n",
        "after": "printed\nafter\n",
    }
    assert outcome.stdout == "C code\n"


def test_an_emit_that_prints_to_a_replaced_stdout_does_not_loop(run: Run) -> None:
    """What the capture's own thread prints there is shown only."""
    outcome = run("""
        import io
        sys.stdout = io.StringIO()
        def talkative(stream, text):
            print("emitting")
            emit(stream, text)
        capture = StdioCapture(talkative)
        capture.start()
        print("one")
        assert capture.stop(5)
        say(shown=sys.stdout.getvalue())
    """)
    assert outcome.emitted == [("stdout", "one\n")]
    assert outcome.facts == {"shown": "one\nemitting\n"}


def test_a_home_made_tee_is_captured_once(run: Run) -> None:
    """An object that writes on to the real stdout is not taken off a second time."""
    outcome = run("""
        class Tee:
            def __init__(self, *files):
                self.files = files
            def write(self, text):
                for file in self.files:
                    file.write(text)
            def flush(self):
                for file in self.files:
                    file.flush()
        sys.stdout = Tee(sys.stdout, open(os.devnull, "w"))
        sys.stderr = sys.stdout
        capture.start()
        print("once")
        print("error once", file=sys.stderr)
        assert capture.stop(5)
    """)
    assert outcome.emitted == [("stdout", "once\nerror once\n")]
    assert outcome.stdout == "once\nerror once\n"


def test_children_that_live_on_neither_delay_stop_nor_die(run: Run, tmp_path: Path) -> None:
    """A silent, a chatty and a late child hold the pipe: stop is prompt, they go on and are shown."""
    outcome = run(
        """
        shown = os.open("shown", os.O_CREAT | os.O_RDWR | os.O_APPEND)
        os.dup2(shown, 1)
        capture.start()
        silent = subprocess.Popen(["sleep", "30"])
        chatty = subprocess.Popen(["yes"], stdout=2, stderr=subprocess.DEVNULL)
        late = subprocess.Popen(["sh", "-c", "echo early; read x; echo late; exit 7"],
                                stdin=subprocess.PIPE)
        os.write(1, b"mine\\n")
        wait_until(lambda: b"early" in os.pread(shown, 99, 0))
        begin = time.monotonic()
        stopped = capture.stop(10)
        seconds = time.monotonic() - begin
        chatty.kill()
        chatty.wait()
        size = os.path.getsize(sys.argv[1])
        late.communicate(b"\\n")
        wait_until(lambda: b"late" in os.pread(shown, 99, 0))
        say(stopped=stopped, seconds=seconds, late=late.returncode, silent=silent.poll(),
            grown=os.path.getsize(sys.argv[1]) - size)
        silent.kill()
        """,
        cwd=tmp_path,
    )
    assert outcome.facts["stopped"]
    assert outcome.facts["seconds"] < 2
    assert (outcome.facts["late"], outcome.facts["silent"]) == (7, None)
    assert outcome.facts["grown"] == 0
    assert sorted(outcome.text("stdout").splitlines()) == ["early", "mine"]
    assert (tmp_path / "shown").read_text().endswith("late\n")


def test_closing_costs_less_than_50_ms(run: Run) -> None:
    """Stop is quick: with text to bring in, with a child that holds the pipe, and with nothing."""
    outcome = run("""
        def seconds_to_stop():
            begin = time.monotonic()
            assert capture.stop(5)
            return time.monotonic() - begin
        idle, busy, held = [], [], []
        for _ in range(10):
            for times in (idle, busy, held):
                capture = StdioCapture(emit)
                capture.start()
                if times is busy:
                    print("x" * 10_000)
                if times is held:
                    child = subprocess.Popen(["sleep", "30"])
                times.append(seconds_to_stop())
                if times is held:
                    child.kill()
        say(idle=sorted(idle)[5], busy=sorted(busy)[5], held=sorted(held)[5])
    """)
    assert max(outcome.facts.values()) < 0.05, outcome.facts


def test_a_thousand_sessions_leak_no_descriptor_and_no_thread(run: Run) -> None:
    """After 1,000 captures the process has the same open files and threads as after the first."""
    outcome = run("""
        def session():
            capture = StdioCapture(emit)
            capture.start()
            print("text")
            assert capture.stop(5)
        session()
        before = descriptors()
        for _ in range(1_000):
            session()
        say(same=descriptors() == before, threads=threading.active_count())
    """)
    assert outcome.facts == {"same": True, "threads": 1}
    assert outcome.text("stdout") == outcome.stdout == "text\n" * 1001


def test_a_forgotten_capture_ends_at_exit(run: Run) -> None:
    """Without stop, and after an exception, everything is emitted and the traceback is shown."""
    outcome = run(
        """
        capture.start()
        print("never flushed")
        raise SystemError("unhandled")
        """,
        returncode=1,
    )
    assert outcome.text("stdout") == outcome.stdout == "never flushed\n"
    assert outcome.text("stderr") == outcome.stderr
    assert outcome.stderr.endswith("SystemError: unhandled\n")


def test_an_interrupt_anywhere_leaves_the_streams_as_they_were(run: Run) -> None:
    """KeyboardInterrupt at every line of start and stop in turn: restored, and nothing leaks."""
    outcome = run("""
        import io
        import dagsterpipes._session.stdio.capture as module
        package = os.path.dirname(module.__file__)
        LEAKY = {"close_all", "open_pipe", "_above_standard", "<genexpr>", "__init__", "identity", "is_ours", "check"}
        assert capture.start() is None and capture.stop(5)  # imports ctypes

        def interrupt_at(wanted):
            seen = 0
            def trace(frame, event, argument):
                nonlocal seen
                if not frame.f_code.co_filename.startswith(package):
                    return None
                if event == "line":
                    seen += 1
                    if seen == wanted:
                        sys.settrace(None)
                        raise KeyboardInterrupt(frame.f_code.co_name, frame.f_lineno)
                return trace
            return trace

        def state():
            return os.fstat(1), os.fstat(2), sys.stdout, sys.stderr

        def attempt(wanted):
            "Interrupt the line with this number; whether it was in start, in stop or in neither."
            capture = StdioCapture(lambda stream, text: None)
            where, place = "start", None
            sys.settrace(interrupt_at(wanted))
            try:
                capture.start()
                where = "stop"
                capture.stop(5)
                where = ""
            except KeyboardInterrupt as interrupt:
                sys.settrace(None)
                place = where, *interrupt.args
                if where == "start":
                    assert state()[:2] == before[:2], place
                    assert state()[2:] == before[2:], place
                else:
                    assert capture.stop(5), place  # as atexit does
            finally:
                sys.settrace(None)
            assert state() == before, place
            assert not module._active, place
            # Between a system call and the note of it a descriptor may be left open, not more.
            assert place and place[1] in LEAKY or descriptors() == open_files, place
            return where

        for sys.stdout in (sys.stdout, io.StringIO()):
            before = state()
            where, wanted, counts = "start", 0, dict(start=0, stop=0)
            while where:
                wanted, open_files = wanted + 1, descriptors()
                where = attempt(wanted)
                if where:
                    counts[where] += 1
            say(**{type(sys.stdout).__name__: counts})
    """)
    for counts in outcome.facts.values():
        assert counts["start"] > 60
        assert counts["stop"] > 30


def test_a_start_without_descriptors_to_be_had_changes_nothing(run: Run) -> None:
    """With the limit on open files reached at any point, start raises our error and undoes all."""
    outcome = run("""
        import resource
        from dagsterpipes.exceptions import ChannelError
        def state():
            return os.fstat(1), os.fstat(2), descriptors()
        before, errors = state(), []
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        highest = max(fd for fd, _ in before[2])
        for more in range(1, 12):
            capture = StdioCapture(emit)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, hard))
            try:
                capture.start()
            except ChannelError as error:
                errors.append(str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            capture.stop(5)
            assert state() == before
        say(errors=errors)
    """)
    assert len(outcome.facts["errors"]) > 3
    assert set(outcome.facts["errors"]) == {
        "stdout and stderr cannot be captured: [Errno 24] Too many open files"
    }


def test_forked_children_are_captured_by_their_parent(run: Run) -> None:
    """A child prints, stops the capture it inherited, leaves by any exit; the parent gets it all."""
    outcome = run("""
        capture.start()
        def fork(action):
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                action()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        def leave():
            os.write(1, b"os._exit\\n")
        def stop():
            print("buffered in the child")
            begin = time.monotonic()
            assert capture.stop(5)
            assert time.monotonic() - begin < 1
            assert not [name for fd, name in descriptors() if fd in (1, 2) and name == pipe]
            os.write(1, b"only shown\\n")
        def session():
            own = StdioCapture(lambda stream, text: os.write(3 + 40, text.upper().encode()))
            os.dup2(1, 43)
            own.start()
            print("a capture in the child")
            assert own.stop(5)
        def exit_():
            print("sys.exit", flush=True)
            sys.exit(0)
        pipe = os.readlink("/proc/self/fd/1")
        fork(leave)
        fork(stop)
        fork(session)
        print("parent")
        child = os.fork() if not sys.stdout.flush() else None
        if child == 0:
            exit_()
        os.waitpid(child, 0)
        assert capture.stop(5)
        say(error=repr(capture.error))
    """)
    assert outcome.text("stdout").splitlines() == [
        "os._exit",
        "buffered in the child",
        "a capture in the child",
        "A CAPTURE IN THE CHILD",
        "parent",
        "sys.exit",
    ]
    assert "only shown\n" in outcome.stdout
    assert outcome.facts == {"error": "None"}


def test_a_forked_child_that_leaves_its_streams_leaves_the_capture(run: Run) -> None:
    """A daemon forked meanwhile, with its output elsewhere, does not keep the thread alive."""
    outcome = run("""
        read, write = os.pipe()
        capture.start()
        daemon = os.fork()
        if daemon == 0:
            for fd in (1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), fd)
            os.write(write, b"!")
            signal.pause()
        os.read(read, 1)
        assert capture.stop(5)
        say(threads=threading.active_count())
        os.kill(daemon, signal.SIGKILL)
    """)
    assert outcome.facts == {"threads": 1}


def test_a_forked_child_outlives_its_parent_without_hanging(run: Run, tmp_path: Path) -> None:
    """When the parent has gone, a child that prints gets an error at worst; it never blocks."""
    done = tmp_path / "done"
    os.mkfifo(done)
    with (tmp_path / "shown").open("wb") as shown:
        run(
            f"""
            import io
            sys.stderr = io.StringIO()
            capture.start()
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent:
                    time.sleep(0.01)
                sys.stderr.write("y" * 3_000_000)
                try:
                    os.write(1, b"x" * 3_000_000)
                except BrokenPipeError:
                    pass
                open({str(done)!r}, "w").write("done")
                os._exit(0)
            os._exit(0)
            """,
            stdout=shown,
            stderr=shown,
        )
        assert done.read_text() == "done"


def test_captures_nest_and_end_in_any_order(run: Run, tmp_path: Path) -> None:
    """Two captures at once both get the text; the outer may stop before the inner."""
    outcome = run(
        """
        shown = os.open("shown", os.O_CREAT | os.O_RDWR | os.O_APPEND)
        os.dup2(shown, 1)
        def wait_for(text):
            wait_until(lambda: os.pread(shown, 999, 0).decode().endswith(text))
        for outer_first in (False, True):
            outer = StdioCapture(lambda stream, text: emit("outer", text))
            inner = StdioCapture(lambda stream, text: emit("inner", text))
            outer.start()
            inner.start()
            print("both", flush=True)
            wait_for("both\\n")
            first, second = (outer, inner) if outer_first else (inner, outer)
            assert first.stop(5)
            print("one", flush=True)
            assert second.stop(5)
            print("none", flush=True)
            wait_for("none\\n")
        """,
        cwd=tmp_path,
    )
    assert outcome.text("outer") == "both\none\n" + "both\n"
    assert outcome.text("inner") == "both\n" + "both\none\n"
    assert (tmp_path / "shown").read_text() == "both\none\nnone\n" * 2


def test_a_stream_that_was_redirected_meanwhile_is_left_alone(run: Run, tmp_path: Path) -> None:
    """When something else stands on descriptor 1 at the end, it stays there."""
    log = tmp_path / "log"
    outcome = run(f"""
        capture.start()
        os.write(1, b"captured\\n")
        os.dup2(os.open({str(log)!r}, os.O_CREAT | os.O_WRONLY), 1)
        os.write(1, b"redirected\\n")
        assert capture.stop(5)
        os.write(1, b"still redirected\\n")
    """)
    assert outcome.text("stdout") == outcome.stdout == "captured\n"
    assert log.read_text() == "redirected\nstill redirected\n"


def test_both_streams_may_be_one_file(run: Run) -> None:
    """With stderr sent to stdout, each text is emitted under its own name and shown once."""
    outcome = run(
        """
        capture.start()
        os.write(1, b"out\\n")
        os.write(2, b"err\\n")
        assert capture.stop(5)
        """,
        stderr=subprocess.STDOUT,
    )
    assert sorted(outcome.emitted) == [("stderr", "err\n"), ("stdout", "out\n")]
    assert sorted(outcome.stdout.splitlines()) == ["err", "out"]


def test_a_real_stream_without_reader_does_not_stop_the_job(run: Run) -> None:
    """When nobody reads the real stdout any more, the text is emitted all the same."""
    outcome = run("""
        read, write = os.pipe()
        os.dup2(write, 1)
        os.close(write)
        capture.start()
        os.close(read)
        print("x" * 200_000, flush=True)
        assert capture.stop(5)
        say(error=repr(capture.error))
    """)
    assert outcome.facts == {"error": "None"}
    assert len(outcome.text("stdout")) == 200_001


def test_a_real_stream_that_does_not_block_gets_everything(run: Run) -> None:
    """A descriptor that somebody made non-blocking is waited for."""
    outcome = run("""
        os.set_blocking(1, False)
        capture.start()
        os.write(1, b"x" * 3_000_000)
        assert capture.stop(10)
    """)
    assert len(outcome.stdout) == len(outcome.text("stdout")) == 3_000_000


@pytest.mark.parametrize("enabled", ["by the environment", "before", "at another place"])
def test_a_crash_leaves_its_traceback(run: Run, tmp_path: Path, enabled: str) -> None:
    """``faulthandler`` writes past the capture, which has no time left, and as before after it."""
    log = tmp_path / "crash"
    enable = {
        "by the environment": "pass",
        "before": "faulthandler.enable()",
        "at another place": f"log = open({str(log)!r}, 'w'); faulthandler.enable(log)",
    }[enabled]
    for when in ("during", "after"):
        outcome = run(
            f"""
            import faulthandler
            {enable}
            capture.start()
            if {when!r} == "after":
                capture.stop(5)
            faulthandler._sigabrt()
            """,
            returncode=-6,
            env={"PYTHONFAULTHANDLER": "1"} if enabled == "by the environment" else {},
        )
        report = log.read_text() if enabled == "at another place" else outcome.stderr
        assert report.startswith("Fatal Python error: Aborted\n")


def test_faulthandler_writes_into_the_capture_when_asked_to_dump(run: Run) -> None:
    """A traceback that is asked for, not forced by a crash, is captured like other text."""
    outcome = run("""
        import faulthandler
        capture.start()
        faulthandler.dump_traceback()
        assert capture.stop(5)
    """)
    assert "most recent call first" in outcome.text("stderr")
    assert outcome.text("stderr") == outcome.stderr


def test_a_job_that_closes_every_descriptor_can_be_stopped(run: Run) -> None:
    """A job that becomes a daemon meanwhile gets an end at once, and an account of it."""
    outcome = run("""
        os.dup2(record.fileno(), 100)
        record = open(100, "a")
        threading.excepthook = lambda arguments: say(raised=repr(arguments.exc_value))
        capture.start()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        os.closerange(3, 100)
        begin = time.monotonic()
        capture.stop(30)
        say(quick=time.monotonic() - begin < 10, error=repr(capture.error))
    """)
    assert outcome.facts == {"quick": True, "error": "OSError(9, 'Bad file descriptor')"}


def test_files_that_get_the_numbers_of_the_capture_are_left_alone(run: Run) -> None:
    """After closerange() they are the user's: nothing is read from them, written to them or closed."""
    outcome = run("""
        os.dup2(record.fileno(), 100)
        record = open(100, "a")
        path = sys.argv[1] + ".csv"
        with open(path, "w") as file:
            file.write("a,b\\n" * 1000)
        capture.start()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        os.closerange(3, 100)
        files = [open(path, "r+b", buffering=0) for _ in range(40)]
        capture.stop(5)
        time.sleep(0.2)
        say(positions=[os.lseek(file.fileno(), 0, os.SEEK_CUR) for file in files])
        say(content=open(path).read() == "a,b\\n" * 1000)
    """)
    assert outcome.facts == {"positions": [0] * 40, "content": True}


def test_where_there_is_no_fcntl_the_import_works_and_start_explains() -> None:
    """On Windows and WebAssembly the module loads, and only a capture is refused."""
    script = """
import sys
sys.modules["fcntl"] = None
import dagsterpipes.log_writers
from dagsterpipes._session.stdio import StdioCapture
try:
    StdioCapture(print).start()
except dagsterpipes.log_writers.ChannelError as error:
    print(error)
"""
    path = str(Path(dagsterpipes.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("stdout and stderr cannot be captured on")


def test_capture_works_under_pytest_as_it_runs_here() -> None:
    """In this process `sys.stdout` is pytest's: print, C code and children are all captured."""
    emitted: dict[str, str] = {"stdout": "", "stderr": ""}

    def emit(stream: str, text: str) -> None:
        emitted[stream] += text

    before = sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino
    capture = StdioCapture(emit)
    capture.start()
    try:
        print("printed")
        print("complaint", file=sys.stderr)
        os.write(1, b"C code\n")
        subprocess.run(["echo", "child"], check=True)
    finally:
        assert capture.stop(5)
    assert sorted(emitted["stdout"].splitlines()) == ["C code", "child", "printed"]
    assert emitted["stderr"] == "complaint\n"
    assert before == (sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino)
    assert (capture.error, capture.lost) == (None, 0)


def test_a_capture_serves_once() -> None:
    """A second start is refused rather than half done; a second stop does nothing."""
    capture = StdioCapture(lambda _stream, _text: None, streams=["stderr"])
    capture.start()
    try:
        with pytest.raises(RuntimeError, match=r"^a StdioCapture can be started only once$"):
            capture.start()
    finally:
        assert capture.stop(5)
    assert capture.stop(5)
