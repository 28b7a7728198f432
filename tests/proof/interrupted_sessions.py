"""Small sessions with a KeyboardInterrupt after each bytecode at which Python looks for signals; also a script.

Usage: interrupted_sessions.py SESSION STRIDE OFFSET FOLDER

These are calls, jumps back and beginnings of functions, of the main thread in the library, from the opening
to the close. After any other instruction a signal waits for the next of these: ``with`` relies on it. The
job goes on after the interrupt, and closes its session, for a second time if it interrupted the close.
"""

from __future__ import annotations

import dis
import faulthandler
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagsterpipes
from dagsterpipes import open_dagster_pipes
from proof.calls import Calls
from proof.referee import Fault, Run, Sent, judge, text_of
from proof.small_sessions import HANG, Place, Session, descriptors, judge_remains, log

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

LIBRARY = str(Path(dagsterpipes.__file__).parent)


LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")
"""What the names of the instructions begin with after which Python looks for signals."""


class Interrupter:
    """Raises after the n-th of these instructions of the library, once.

    Args:
        at: Which one; 0 for none.
    """

    def __init__(self, at: int) -> None:
        self.count = 0
        self.place = ""
        self._at = at
        self._codes: dict[CodeType, bytes] = {}
        # The frame of the last instruction, and whether Python looks for signals behind it.
        self._last: tuple[FrameType | None, bool] = (None, False)

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode" and self._is_behind_look(frame):
            self.count += 1
            if self.count == self._at:
                sys.settrace(None)
                code = frame.f_code
                self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
                raise KeyboardInterrupt
        return self

    def _is_behind_look(self, frame: FrameType) -> bool:
        code = self._codes.get(frame.f_code)
        if code is None:
            code = self._codes[frame.f_code] = frame.f_code.co_code
        last, looks = self._last
        self._last = frame, dis.opname[code[frame.f_lasti]].startswith(LOOKS)
        return looks and last is frame


class Job:
    """A session whose calls are traced."""

    def __init__(self, place: Place, interrupter: Interrupter) -> None:
        self.sent = Sent()
        self.interrupts = 0
        self._interrupter = interrupter
        self._place = place
        self._number = 0

    def run(self, calls: list[str]) -> BaseException | None:
        """Open, make these calls, close; return what the close raised."""
        pipes = self._traced(
            lambda: open_dagster_pipes(handle_sigterm=False, **self._place.options)
        )
        if pipes is None:
            return None
        for call in calls:
            getattr(self, f"_{call}")(pipes)
        for _ in range(2):
            before = self.interrupts
            try:
                self._traced(pipes.close)
            except Exception as error:
                return error
            if self.interrupts == before:
                break
        return None

    def _traced(self, call: Callable[[], Any]) -> Any:
        if self.interrupts:
            return call()
        try:
            sys.settrace(self._interrupter)
            try:
                return call()
            finally:
                sys.settrace(None)
        except KeyboardInterrupt:
            self.interrupts += 1
            return None

    def _sending(self, call: Callable[[str], object]) -> None:
        text = text_of(0, self._number)
        self._number += 1
        before = self.interrupts
        self._traced(lambda: call(text))
        if self.interrupts == before:
            self.sent.accepted.append(text)
        else:
            self.sent.unknown.add(text)

    def _log(self, pipes: Any) -> None:
        self._sending(pipes.log.info)

    def _warn(self, pipes: Any) -> None:
        self._sending(lambda text: pipes.log.warning("%s", text))

    def _report(self, pipes: Any) -> None:
        self._sending(pipes.report_custom_message)

    def _materialize(self, pipes: Any) -> None:
        self._sending(lambda text: pipes.report_asset_materialization(metadata={"text": text}))

    def _check(self, pipes: Any) -> None:
        self._sending(lambda text: pipes.report_asset_check("c", passed=True, metadata={"t": text}))

    def _flush(self, pipes: Any) -> None:
        before = self.interrupts
        self._traced(lambda: pipes.flush(5))
        if self.interrupts == before:
            there = self._place.delivered().decode()
            for text in self.sent.accepted:
                if text not in there:
                    raise Fault(f"flush() returned and {text} is not delivered")


SESSIONS: dict[str, tuple[Session, list[str]]] = {
    "log": (Session(log), ["log", "warn", "log"]),
    "report": (Session(log), ["report", "materialize", "check", "log"]),
    "flush": (Session(log), ["log", "flush", "report", "flush"]),
    "store": (Session(log, "store"), ["log", "report"]),
}


def attempt(name: str, interrupter: Interrupter, folder: Path) -> None:
    """Run a session once; judge it.

    Raises:
        Fault: Something did not hold.
    """
    session, calls = SESSIONS[name]
    place = Place(session, Calls(), folder)
    tempfile.tempdir = str(folder)
    before = descriptors()
    job = Job(place, interrupter)
    error = job.run(calls)
    end = time.monotonic() + 2  # an opening that was interrupted is closed in a thread of its own
    while b'"opened"' in place.delivered() and b'"closed"' not in place.delivered():
        if time.monotonic() > end:
            break
        time.sleep(0.001)
    if dagsterpipes.PipesContext.is_initialized():
        raise Fault("the session is still open")
    run = Run(delivered=place.delivered(), sent=[job.sent], close_error=error, may_be_unopened=True)
    judge(run)
    judge_remains(before, patience=1 if interrupter.place else 0)
    if os.environ.get("DAGSTERPIPES_SESSION"):
        raise Fault("the environment still names the session")


def main() -> None:
    name, stride, offset, top = sys.argv[1:]
    for _ in range(2):  # the first one imports
        counted = Interrupter(0)
        with tempfile.TemporaryDirectory(dir=top) as folder:
            attempt(name, counted, Path(folder))
    faults: list[str] = []
    places: Counter[str] = Counter()
    began = time.monotonic()
    numbers = range(1 + int(offset), counted.count + 1, int(stride))
    for number in numbers:
        interrupter = Interrupter(number)
        print(f"{name}: instruction {number}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(HANG, exit=True)
        with tempfile.TemporaryDirectory(dir=top) as folder:
            try:
                attempt(name, interrupter, Path(folder))
            except Fault as fault:
                faults.append(f"{name}: instruction {number}, {interrupter.place}: {fault}")
        faulthandler.cancel_dump_traceback_later()
        places[interrupter.place.partition(":")[0]] += 1
    result = {"calls": counted.count, "runs": len(numbers), "faults": faults}
    print(json.dumps(result | {"seconds": time.monotonic() - began, "kinds": dict(places)}))


if __name__ == "__main__":
    main()
