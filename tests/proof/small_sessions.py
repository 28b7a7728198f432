"""Small sessions in which every call to the operating system fails in turn; also a script.

Usage: small_sessions.py SESSION errors|kills STRIDE OFFSET FOLDER

Runs the session once to count its calls, then once for each call and each outcome (every STRIDE-th, from
OFFSET), and prints what the referee found and how many runs there were.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagsterpipes
from dagsterpipes import PipesMappingParamsLoader, open_dagster_pipes
from dagsterpipes._protocol.launch_params import encode_param
from proof.calls import KILLS, OUTCOMES, PART_THEN_ERROR, Calls, Outcome, impatient, through
from proof.referee import Fault, Run, Sent, judge, text_of
from support.launching import Launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HANG = 20.0
"""Seconds after which a run counts as hanging."""


class Sending:
    """What a session does with its context; each call is noted when it has returned.

    Args:
        pipes: The context.
        producer: Its number.
        note: Called with each message whose call returned, and with those that were flushed.
    """

    def __init__(
        self, pipes: Any, producer: int, sent: Sent, note: Callable[[str, str], object]
    ) -> None:
        self.pipes = pipes
        self._producer = producer
        self._sent = sent
        self._note = note

    def _text(self, padding: str) -> str:
        return text_of(self._producer, len(self._sent.accepted), padding)

    def _accepted(self, text: str) -> None:
        name = text[: text.index("#", 1) + 1]
        self._sent.accepted.append(name)
        self._note("accepted", name)

    def log(self, padding: str = "") -> None:
        text = self._text(padding)
        self.pipes.log.info(text)
        self._accepted(text)

    def report(self, padding: str = "") -> None:
        text = self._text(padding)
        self.pipes.report_custom_message(text)
        self._accepted(text)

    def flush(self) -> None:
        with suppress(dagsterpipes.FlushTimeoutError):
            self.pipes.flush(0.3)
            for name in self._sent.accepted:
                self._note("flushed", name)


def log(send: Sending, place: Place) -> None:
    send.log()
    send.log("é" * 20)
    send.flush()
    send.log()


def report(send: Sending, place: Place) -> None:
    send.report()
    send.log()
    send.report("x" * 300)


def long(send: Sending, place: Place) -> None:
    send.log("x" * 5_000)
    send.flush()
    send.report("y" * 20_000)
    send.log()
    send.flush()
    send.log("z" * 4_200)


def flush(send: Sending, place: Place) -> None:
    for _ in range(3):
        send.log()
        send.flush()


def company(send: Sending, place: Place) -> None:
    """Others append, and one of them is killed in the middle of a line."""
    send.log()
    send.flush()
    place.append(HALF)
    send.report()
    send.flush()
    send.log()


HALF = b'{"__dagster_pipes_version": "0.1", "method": "log_external_stream"'


def fork(send: Sending, place: Place) -> None:
    send.log()
    place.in_child(send.pipes)
    send.log()


def capture(send: Sending, place: Place) -> None:
    print("printed")
    send.log()
    os.write(2, b"printed too\n")
    send.report()


class Session(NamedTuple):
    """One of them: what it does, and where its messages go."""

    work: Callable[[Sending, Place], None]
    kind: str = "file"
    folder: str = ""
    options: dict[str, Any] = {}  # noqa: RUF012 because nobody changes it


# tmpfs cannot be written to directly: long lines follow a runway there.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else ""

SESSIONS = {
    "log": Session(log),
    "report": Session(report),
    "flush": Session(flush),
    "long": Session(long),
    "long, runway": Session(long, folder=MEMORY),
    "company": Session(company),
    "fork": Session(fork),
    "capture": Session(capture, options={"capture_stdio": True}),
    "stream": Session(log, "stdio"),
    "stream, long": Session(long, "stdio"),
    "buffered stream": Session(report, "buffered_stdio"),
    "store": Session(flush, "store"),
}


class Place:
    """Where the messages of one run go, and what came of it."""

    def __init__(self, session: Session, calls: Calls, folder: Path) -> None:
        self.session = session
        self.launch = Launch(folder)
        self.path = self.launch.messages_path
        self._calls = calls
        self._child: dict[str, Any] = {}
        env = dict(self.launch.env)
        if session.kind in ("stdio", "buffered_stdio"):
            env["DAGSTER_PIPES_MESSAGES"] = encode_param({session.kind: "stdout"})
        self.options: dict[str, Any] = {"params_loader": PipesMappingParamsLoader(env)}
        if session.kind == "store":
            self.options["message_writer"] = _writer(self)
        self.options |= session.options

    def put(self, number: int, lines: bytes) -> None:
        self._calls("put", self._object(number).write_bytes, lines)

    def _object(self, number: int) -> Path:
        return self.launch.folder / f"{number}.json"

    def append(self, data: bytes) -> None:
        with self.path.open("ab") as others:
            others.write(data)

    def in_child(self, pipes: Any) -> None:
        """Send from a forked child."""
        told, tells = os.pipe()
        child = os.fork()
        if child == 0:
            told_by_child: dict[str, Any] = {"accepted": []}
            try:
                sent = Sent()
                sending = Sending(pipes, 1, sent, lambda *_: None)
                with suppress(dagsterpipes.SessionClosedError):
                    sending.log()
                    sending.report()
                told_by_child["accepted"] = sent.accepted
                try:
                    pipes.close()
                except dagsterpipes.MessagesLostError as error:
                    told_by_child["kept"] = Path(error.recovery_file or "").read_text("utf-8")
                except dagsterpipes.ChannelError as error:
                    told_by_child["unopened"] = str(error)
            except BaseException:
                told_by_child["fault"] = traceback.format_exc()
            os.write(tells, json.dumps(told_by_child).encode())
            os._exit(0)
        os.close(tells)
        answer = b""
        while part := os.read(told, 1 << 16):
            answer += part
        os.close(told)
        os.waitpid(child, 0)
        self._child = json.loads(answer) if answer else {}

    def add_child(self, run: Run) -> None:
        """Add what a child said."""
        if "fault" in self._child:
            raise Fault(f"in the child: {self._child['fault']}")
        kept = self._child.get("kept", "").encode()
        # As if it was delivered: only that it is kept once, and in order, matters.
        own = [one for one in self._child.get("accepted", ()) if one.encode() not in kept]
        run.sent.append(Sent(accepted=own))

    def delivered(self) -> bytes:
        if self.session.kind == "store":
            objects = [self._object(number) for number in range(1, 100)]
            return b"".join(one.read_bytes() for one in objects if one.exists())
        data = self.path.read_bytes()
        if self.session.kind != "file":  # blank lines are what readers of logs skip
            data = b"".join(line + b"\n" for line in data.split(b"\n") if line)
        return data


def _writer(place: Place) -> Any:
    class Channel(dagsterpipes.PipesBlobStoreMessageWriterChannel):
        def upload_messages_chunk(self, payload: Any, index: int) -> None:
            place.put(index, payload.read().rstrip("\n").encode() + b"\n")

    class Writer(dagsterpipes.PipesBlobStoreMessageWriter[Any]):
        def make_channel(self, params: Any) -> Any:
            return Channel(interval=0.5)

    return Writer(interval=0.5)


@contextmanager
def stdout_to(path: Path, kind: str) -> Iterator[None]:
    """Where the messages go to stdout, let that be the file."""
    if kind not in ("stdio", "buffered_stdio"):
        yield
        return
    sys.stdout.flush()
    before = os.dup(1)
    own = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(own, 1)
    os.close(own)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


def without_half_line(data: bytes) -> bytes:
    """Without somebody's half line at the end, and what covers it: the next write ends that."""
    end = data.rfind(b"\n") + 1
    return data[:end] if data[end:].removeprefix(HALF).strip(b" ") == b"" else data


EXCUSES = ("MessagesLostError", "ChannelError")


def descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def attempt(name: str, calls: Calls, folder: Path, *, for_good: bool = False) -> None:
    """Run a session once; judge it.

    Raises:
        Fault: Something did not hold.
    """
    session = SESSIONS[name]
    place = Place(session, calls, folder)
    calls._path = str(place.path)
    tempfile.tempdir = str(folder)
    run = Run(sent=[Sent()])
    before = descriptors()
    kept: bytes | None = None
    with stdout_to(place.path, session.kind), impatient(), through(calls):
        pipes = None
        try:
            pipes = open_dagster_pipes(
                close_timeout=0.3 if for_good else 5.0, handle_sigterm=False, **place.options
            )
        except dagsterpipes.ChannelError:
            run.may_be_unopened = True
        except Exception as error:
            raise Fault(f"open_dagster_pipes() raised {error!r}") from error
        if pipes is not None:
            try:
                session.work(Sending(pipes, 0, run.sent[0], lambda *_: None), place)
            except Exception as error:
                raise Fault(f"a call raised {error!r}") from error
            finally:
                try:
                    pipes.close()
                except Exception as error:
                    run.close_error = error
                    path = getattr(error, "recovery_file", None)
                    if path is not None:
                        kept = Path(path).read_bytes()
    run.recovered = kept
    run.delivered = place.delivered()
    if for_good:
        run.delivered = without_half_line(run.delivered)
    if calls.hit == "no O_APPEND":  # a file that can only be appended to keeps it, ended
        run.delivered = run.delivered.replace(HALF + b"\n", b"")
    place.add_child(run)
    if calls.hit:
        run.excuses = EXCUSES if for_good else EXCUSES[1:]
        run.may_be_twice = calls.hit == "put" or session.kind == "buffered_stdio"
        if session.kind == "buffered_stdio":  # what cannot be written at the close is kept
            run.excuses = EXCUSES
    judge(run)
    judge_remains(before)


def judge_remains(before: set[str], patience: int = 0) -> None:
    """Judge what is left in the process.

    Args:
        before: The descriptors that were open before.
        patience: How many may be left: an interrupt between a call and the note of it.

    Raises:
        Fault: A thread or a descriptor.
    """
    end = time.monotonic() + 2
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.001)
    if threading.active_count() > 1:
        raise Fault(f"threads are left: {threading.enumerate()}")
    left = descriptors() - before
    if len(left) > patience:
        gc.collect()
        left = descriptors() - before
    if len(left) > patience:
        raise Fault(f"{len(left)} descriptors are left")


def attempt_killed(name: str, calls: Calls, folder: Path) -> None:
    """Run a session in a child that is killed; judge what it leaves."""
    session = SESSIONS[name]
    place = Place(session, calls, folder)
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(told)

            def note(what: str, message: str) -> None:
                os.write(tells, f"{what} {message}\n".encode())

            with stdout_to(place.path, session.kind), impatient(), through(calls):
                with open_dagster_pipes(handle_sigterm=False, **place.options) as pipes:
                    session.work(Sending(pipes, 0, Sent(), note), place)
                os.write(tells, b"closed -\n")
        finally:
            os._exit(0)
    os.close(tells)
    notes = b""
    while part := os.read(told, 1 << 16):
        notes += part
    os.close(told)
    status = os.waitpid(child, 0)[1]
    lines = [line.split() for line in notes.decode().splitlines()]
    of = {
        what: [message for one, message in lines if one == what] for what in ("accepted", "flushed")
    }
    run = Run(
        delivered=without_half_line(place.delivered()),
        sent=[Sent(accepted=of["accepted"])],
        was_killed=status == 9,
        flushed=set(of["flushed"]),
    )
    # A child of the child may still write; what it sends is not judged here.
    judge(run)


def main() -> None:
    name, mode, stride, offset, top = sys.argv[1:]
    counted = Calls()
    base = Path(SESSIONS[name].folder or top)
    runs, faults = 0, []
    hits: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=base) as folder:
        attempt(name, counted, Path(folder))
    # A few more: how the messages fall into writes depends on time.
    plans: list[tuple[int, Outcome, bool]] = []
    for number, kind in enumerate(counted.kinds, start=1):
        if mode == "kills":
            plans += [(number, outcome, False) for outcome in KILLS]
        else:
            plans += [(number, outcome, False) for outcome in OUTCOMES.get(kind, ())]
            lasting = [one for one in OUTCOMES.get(kind, ()) if one.error and one.name != "EINTR"]
            plans += [(number, outcome, True) for outcome in lasting[1:3] if not outcome.is_made]
            if kind == "FileIO.write":
                plans.append((number, PART_THEN_ERROR, True))
    for number, outcome, for_good in plans[int(offset) :: int(stride)]:
        calls = Calls(number, outcome, for_good=for_good)
        runs += 1
        print(f"{name}: call {number}, {outcome.name}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(HANG, exit=True)
        with tempfile.TemporaryDirectory(dir=base) as folder:
            try:
                if mode == "kills":
                    attempt_killed(name, calls, Path(folder))
                else:
                    attempt(name, calls, Path(folder), for_good=for_good)
            except Fault as fault:
                kind = calls.hit or counted.kinds[number - 1]
                what = "for good" if for_good else "once"
                faults.append(f"{name}: call {number}, {kind}, {outcome.name}, {what}: {fault}")
        hits[calls.hit] += 1
        faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - began
    result = {"calls": len(counted.kinds), "runs": runs, "faults": faults, "seconds": seconds}
    print(json.dumps(result | {"kinds": dict(hits)}))


if __name__ == "__main__":
    main()
