"""Count the ways through the library: calls, source files, and changes of file.

    python tools/ways.py                 # a table
    python tools/ways.py --json          # the same as JSON
    python tools/ways.py --calls fork    # every call of one way, in order

Each way is taken by real calls, in a process of its own with a session on a real messages file, and
traced by `sys.setprofile` in every thread. *Calls* are calls of functions in files of dagsterpipes.
*Changes of file* are the calls whose function is in another file than the call before, in the same
thread; *with returns* counts the way back to a caller in another file too. What happens only the
first time (late imports, caches) is left out: each way is taken before it is counted.

To count another version, put its `src` first: `PYTHONPATH=.../src python tools/ways.py`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagsterpipes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PACKAGE = str(Path(dagsterpipes.__file__).parent) + os.sep

QUIET = 0.4
"""Seconds without a call after which the other threads are taken to be done."""

ASSETS = ["first", "second", "third"]

CONTEXT: dict[str, Any] = {
    "asset_keys": ASSETS,
    "code_version_by_asset_key": dict.fromkeys(ASSETS),
    "provenance_by_asset_key": dict.fromkeys(ASSETS),
    "partition_key": None,
    "partition_key_range": None,
    "partition_time_window": None,
    "run_id": "run",
    "job_name": "job",
    "retry_number": 0,
    "extras": {},
}


class Step(NamedTuple):
    """A call in one thread, or the return to a caller."""

    thread: str
    file: str
    function: str
    is_call: bool


class Recorder:
    """Collects the calls of the library's functions.

    Threads: those started after `__init__` are traced always, the present one while `recording`.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        threading.setprofile(self.event)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Forget what was recorded, record the block, and wait until the other threads are done."""
        self.wait()
        self.steps.clear()
        sys.setprofile(self.event)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.wait()

    def wait(self) -> None:
        """Wait until no thread has called anything for a while."""
        seen = -1
        while seen != len(self.steps):
            seen = len(self.steps)
            time.sleep(QUIET)

    def event(self, frame: FrameType, event: str, _argument: object) -> None:
        """What `sys.setprofile` calls."""
        here: FrameType | None = frame
        if event not in {"call", "return"} or not is_ours(frame):
            return
        if event == "return":
            here = frame.f_back
            while here is not None and not is_ours(here):
                here = here.f_back
        if here is not None:
            file, function = here.f_code.co_filename[len(PACKAGE) :], here.f_code.co_name
            thread = threading.current_thread().name
            self.steps.append(Step(thread, file, function, event == "call"))


def is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


# -- the ways -------------------------------------------------------------------------------------


def session(*, capture: bool = False) -> Any:
    """Open a session as a process does that Dagster launched."""
    folder = Path(tempfile.mkdtemp())
    messages, context = folder / "messages", folder / "context"
    messages.touch()
    context.write_text(json.dumps(CONTEXT))
    params = {
        "DAGSTER_PIPES_CONTEXT": {"path": str(context)},
        "DAGSTER_PIPES_MESSAGES": {"path": str(messages), "include_stdio_in_messages": capture},
    }
    loader = dagsterpipes.PipesMappingParamsLoader(
        {name: encoded(value) for name, value in params.items()}
    )
    return dagsterpipes.open_dagster_pipes(params_loader=loader)


def encoded(value: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def count_third(recorder: Recorder, act: Callable[[], object]) -> list[Step]:
    """Take a way twice, then once more and record it."""
    for _ in range(2):
        act()
        recorder.wait()
    with recorder.recording():
        act()
    return list(recorder.steps)


def fast_log(recorder: Recorder) -> list[Step]:
    with session() as pipes:
        pipes.flush()
        recorder.wait()
        for row in range(
            3
        ):  # the first one after a pause is not on the fast path: it wakes the thread
            pipes.log.info("row %d", row)
        recorder.steps.clear()
        sys.setprofile(recorder.event)
        pipes.log.info("row %d", 3)
        sys.setprofile(None)
        return [step for step in recorder.steps if step.thread == "MainThread"]


def log_line(recorder: Recorder) -> list[Step]:
    with session() as pipes:
        pipes.flush()
        return count_third(recorder, lambda: pipes.log.info("row %d", 7))


def materialization(recorder: Recorder) -> list[Step]:
    left = iter(ASSETS)

    def report() -> None:
        pipes.report_asset_materialization(asset_key=next(left), metadata={"rows": 7})

    with session() as pipes:
        pipes.flush()
        return count_third(recorder, report)


def close_with_exception(recorder: Recorder) -> list[Step]:
    for _ in range(2):
        session().close(ValueError("the input is empty"))
    pipes = session()
    pipes.log.info("before")
    pipes.flush()
    with recorder.recording():
        pipes.close(ValueError("the input is empty"))
    return list(recorder.steps)


def fork(recorder: Recorder) -> list[Step]:
    with session() as pipes:
        pipes.log.info("before")
        pipes.flush()
        fork_and_log(recorder, pipes)
        return fork_and_log(recorder, pipes)


def fork_and_log(recorder: Recorder, pipes: Any) -> list[Step]:
    """Log and flush in a forked child; give the steps of both processes."""
    reading, writing = os.pipe()
    with recorder.recording():
        child = os.fork()
        if child == 0:
            os.close(reading)
            pipes.log.info("from the child")
            pipes.flush()
            sys.setprofile(None)
            recorder.wait()
            with os.fdopen(writing, "w") as pipe:
                json.dump(recorder.steps, pipe)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        of_child = [Step(*step) for step in json.load(pipe)]
    os.waitpid(child, 0)
    # The child began with the steps that the parent had made in preparing the fork.
    shared = 0
    for ours, theirs in zip(recorder.steps, of_child, strict=False):
        if ours != theirs:
            break
        shared += 1
    return [
        *(step._replace(thread=f"parent: {step.thread}") for step in recorder.steps),
        *(step._replace(thread=f"child: {step.thread}") for step in of_child[shared:]),
    ]


def captured_print(recorder: Recorder) -> list[Step]:
    with session(capture=True) as pipes:
        pipes.flush()
        return count_third(recorder, lambda: print("a line of output", flush=True))


WAYS: dict[str, Callable[[Recorder], list[Step]]] = {
    "log.info, fast path": fast_log,
    "log.info, first after a pause": log_line,
    "report_asset_materialization": materialization,
    "close(exc)": close_with_exception,
    "fork, child logs": fork,
    "captured print": captured_print,
}


# -- the table ------------------------------------------------------------------------------------


RUNS = 5
"""How often a way is taken: how threads meet is chance, so the run with the fewest calls counts."""


def steps_of(way: str) -> list[Step]:
    """Take a way in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ways-") as folder:
        result = Path(folder) / "steps"
        subprocess.run(
            [sys.executable, __file__, "--take", way, str(result)],
            env=os.environ | {"TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return [Step(*step) for step in json.loads(result.read_text())]


def counts(steps: list[Step]) -> dict[str, Any]:
    """What the table shows of the steps of one thread."""
    called = [step.file for step in steps if step.is_call]
    return {
        "calls": len(called),
        "files": sorted(set(called)),
        "changes": changes(called),
        "with_returns": changes([step.file for step in steps]),
    }


def changes(files: list[str]) -> int:
    return sum(before != after for before, after in itertools.pairwise(files))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--calls", metavar="WAY", help="every call of the ways whose name has this")
    parser.add_argument("--take", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take:
        way, result = options.take
        Path(result).write_text(json.dumps(WAYS[way](Recorder())))
        return
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        if options.calls and options.calls not in way:
            continue
        by_thread: dict[str, list[Step]] = {}
        for step in min((steps_of(way) for _ in range(RUNS)), key=len):
            by_thread.setdefault(step.thread, []).append(step)
        found[way] = {thread: counts(steps) for thread, steps in by_thread.items()}
        for thread, steps in by_thread.items() if options.calls else ():
            print(f"\n{way}, {thread}")
            print("\n".join(f"  {step.file:40} {step.function}" for step in steps if step.is_call))
    if options.json:
        print(json.dumps(found, indent=1))
    elif not options.calls:
        print(f"{PACKAGE}, Python {sys.version.split()[0]}\n")
        print("| way | thread | calls | files | changes of file | with returns |")
        print("|---|---|---:|---:|---:|---:|")
        for way, threads in found.items():
            for thread, row in threads.items():
                numbers = (row["calls"], len(row["files"]), row["changes"], row["with_returns"])
                print(f"| {way} | {thread} | " + " | ".join(map(str, numbers)) + " |")


if __name__ == "__main__":
    main()
