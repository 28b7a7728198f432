"""A long mix of random writers and faults; each episode is checked by a reader of its own.

    make soak                             ten minutes
    make soak ARGS="--seconds 60"
    make soak ARGS="--seed 7 --episodes 1"

An episode is a launched job of threads, tasks and child processes that log and report texts of all
sizes, while something happens to it: nothing, a close under fire, SIGINT, SIGTERM, SIGKILL, a full
file. Every message carries its producer's name and number. Afterwards:

- each line of the messages file is a whole JSON object, and the file ends in a newline;
- no message is there twice, and each producer's are in order;
- every message whose call had returned is in the file, or in the recovery file that the error names.
  After a SIGKILL, every one that was sent 50 ms before, not counting the time in which the disk took
  nothing from another process either. Calm jobs, with few producers and no lines of more than a page,
  are counted apart;
- ``opened`` is first, and ``closed`` is last, except after a SIGKILL or where it is in the recovery file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from support.launching import Launch  # noqa: E402 because the path is set above
from support.sent_log import SentLog  # noqa: E402 because the path is set above
from support.stall_monitor import StallMonitor  # noqa: E402 because the path is set above

FAULTS = ("nothing", "close under fire", "SIGINT", "SIGTERM", "SIGKILL", "full file")
CAPACITY = 20_000
PATIENCE = 0.05

JOB = """
import asyncio, multiprocessing, os, random, resource, sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.sent_log import SentLog
import dagsterpipes
from dagsterpipes import open_dagster_pipes, PipesContext

seed, fault, threads, tasks, forks, spawns, seconds, long = {plan!r}
producers = threads + tasks + forks + spawns
sent_log = SentLog(Path({sent_log!r}), producers, {capacity})
stop = threading.Event()

def text_of(rng, producer, number):
    size = rng.choice([0, 10, 40, 40, 120, 400, 400, 1500] + ([9_000, 60_000] if long and number % 50 == 7 else []))
    return "#%d.%d#" % (producer, number) + rng.choice(["x", "é", "\\\\", '"', "\\x01"]) * size

def say(pipes, rng, producer, number):
    text = text_of(rng, producer, number)
    kind = rng.random()
    if kind < 0.8:
        pipes.log.info(text)
    elif kind < 0.85:
        pipes.log.warning("%s", text)
    elif kind < 0.95:
        pipes.report_custom_message({{"text": text}})
    else:
        pipes.log_external_stream("stdout", text)
    sent_log.record(producer, number)

def produce(pipes, producer, until):
    rng = random.Random(seed * 1000 + producer)
    number = 0
    try:
        while number < {capacity} and time.monotonic() < until and not stop.is_set():
            for _ in range(rng.choice([1, 5, 50])):
                if number < {capacity}:
                    say(pipes, rng, producer, number)
                    number += 1
            time.sleep(rng.choice([0, 0, 0.001, 0.01]))
    except dagsterpipes.SessionClosedError:
        pass

async def produce_async(pipes, producer, until):
    rng = random.Random(seed * 1000 + producer)
    number = 0
    while number < {capacity} and time.monotonic() < until:
        say(pipes, rng, producer, number)
        number += 1
        await asyncio.sleep(rng.choice([0, 0, 0.001]))
        if number % 100 == 0:
            await pipes.drain()

def spawned(producer, until):
    with open_dagster_pipes() as pipes:
        produce(pipes, producer, until)

async def main(until):
    # Nobody waits for room in a file that stays full: everything must go to the recovery file.
    options = dict(close_timeout=1, buffer_size=1 << 30) if fault == "full file" else dict(close_timeout=20)
    async with open_dagster_pipes(**options) as pipes:
        (Path({sent_log!r}).parent / "open").touch()
        await work(pipes, until)

async def fill(until):
    # Late, so that what is left is shorter than the file: the limit is for the recovery file too.
    if fault == "full file":
        await asyncio.sleep(seconds * 0.75)
        size = os.stat(sys.argv[1]).st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, resource.RLIM_INFINITY))

async def work(pipes, until):
    first = 0
    workers = [threading.Thread(target=produce, args=(pipes, first + i, until), daemon=True) for i in range(threads)]
    first += threads
    children = [multiprocessing.get_context("fork").Process(target=produce, args=(pipes, first + tasks + i, until)) for i in range(forks)]
    children += [multiprocessing.get_context("spawn").Process(target=spawned, args=(first + tasks + forks + i, until)) for i in range(spawns)]
    for one in children + workers:
        one.start()
    await asyncio.gather(
        *(produce_async(pipes, first + i, until) for i in range(tasks)), fill(until)
    )
    if fault != "close under fire":
        for one in workers:
            await asyncio.to_thread(one.join)
    for one in children:
        await asyncio.to_thread(one.join)

if __name__ == "__main__":
    try:
        asyncio.run(main(time.monotonic() + seconds))
    except dagsterpipes.MessagesLostError as error:
        print("recovered", error.count, error.recovery_file, flush=True)
    stop.set()
"""


class Failure(AssertionError):
    """A guarantee did not hold."""


def numbers_in(messages: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Producer and number of each message that has them."""
    found = []
    for one in messages:
        params = one["params"]
        text = (
            params.get("message")
            or params.get("text")
            or (params.get("payload") or {}).get("text", "")
        )
        if text.startswith("#"):
            producer, number = text[1:].partition("#")[0].split(".")
            found.append((int(producer), int(number)))
    return found


def read(path: Path, *, may_end_torn: bool = False) -> list[dict[str, Any]]:
    """The messages of a file, each line judged."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        if not may_end_torn:
            raise Failure(f"{path} ends in the middle of a line: {data[-80:]!r}")
        data = data[: data.rfind(b"\n") + 1]
    messages = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            message = json.loads(line)
        except ValueError as error:
            raise Failure(f"line {number} cannot be read: {error}: {line[:80]!r}") from error
        if not isinstance(message, dict):
            raise Failure(f"line {number} is no object")
        messages.append(message)
    return messages


def episode(seed: int, totals: Counter[str]) -> None:
    """One job and one fault."""
    rng = random.Random(seed)
    fault = FAULTS[seed % len(FAULTS)]
    threads, tasks, forks, spawns = (
        rng.randint(0, 3),
        rng.randint(1, 3),
        rng.randint(0, 2),
        rng.randint(0, 1),
    )
    if fault in {"full file", "SIGINT", "SIGTERM"}:
        forks = spawns = 0  # what children make of it is another matter
    is_calm = fault == "SIGKILL" and rng.random() < 0.5
    if is_calm:
        threads, tasks, forks, spawns = 1, 1, 0, 0
    seconds = rng.uniform(0.3, 1.5)
    producers = threads + tasks + forks + spawns
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launch = Launch(folder)
        plan = (seed, fault, threads, tasks, forks, spawns, seconds, not is_calm)
        script = JOB.format(
            tests=str(TESTS), plan=plan, sent_log=str(folder / "sent_log"), capacity=CAPACITY
        )
        sent_log = SentLog(folder / "sent_log", producers, CAPACITY)
        process = launch.start(
            script,
            str(launch.messages_path),
            env={"TMPDIR": name, "DAGSTERPIPES_COALESCE_LOGS": "0"},
            start_new_session=True,
        )
        died, stalled = time.monotonic(), 0.0
        if fault.startswith("SIG"):
            while not (folder / "open").exists() and process.poll() is None:
                time.sleep(0.005)
            monitor = StallMonitor(folder, direct=not is_calm)
            monitor.sleep(rng.uniform(0, seconds))
            died = time.monotonic()
            number = getattr(signal, fault)
            if fault == "SIGKILL":
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            stalled = monitor.stalled()
            monitor.close()
        try:
            out, err = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failure("the job hangs") from None
        sent_before = died - stalled - PATIENCE
        check(
            launch,
            sent_log,
            fault,
            out,
            err,
            sent_before if fault == "SIGKILL" else float("inf"),
            totals,
        )
        totals[f"episodes: {fault}{', calm' * is_calm}"] += 1


def check(
    launch: Launch,
    sent_log: SentLog,
    fault: str,
    out: str,
    err: str,
    sent_before: float,
    totals: Counter[str],
) -> None:
    """Compare what was sent with what is there."""
    messages = read(launch.messages_path, may_end_torn=fault == "SIGKILL")
    recovered: list[dict[str, Any]] = []
    for line in out.splitlines():
        _, count, path = line.split(" ", 2)
        if path == "None":
            raise Failure(
                f"{count} lines were not kept, the file has {launch.messages_path.stat().st_size} bytes"
            )
        recovered = read(Path(path))
        if len(recovered) != int(count):
            raise Failure(f"the error says {count}, the recovery file has {len(recovered)}")
    everything = messages + recovered
    found = numbers_in(everything)
    twice = [one for one, count in Counter(found).items() if count > 1]
    if twice:
        raise Failure(f"twice: {twice[:5]}")
    for producer in range(sent_log.producers):
        mine = [number for one, number in found if one == producer]
        if mine != sorted(mine):
            raise Failure(f"producer {producer} is out of order")
        if mine != list(range(len(mine))):
            raise Failure(f"producer {producer} has gaps")
        sent = sum(when < sent_before for when in sent_log.times(producer))
        totals["messages"] += len(mine)
        if sent > len(mine):
            totals["lost"] += sent - len(mine)
            early = (sent_before - sent_log.times(producer)[len(mine)]) * 1e3
            raise Failure(
                f"producer {producer} sent {sent}, {len(mine)} are there; the first missing one was"
                f" sent {early:.0f} ms too early to be missing\n{err[-2000:]}"
            )
    if not everything:
        return
    if everything[0]["method"] != "opened":
        raise Failure(f"the first message is not `opened`: {everything[0]}")
    ends = [index for index, one in enumerate(everything) if one["method"] == "closed"]
    if fault == "SIGKILL":
        if ends and ends != [len(everything) - 1]:
            raise Failure("something follows `closed`")
    elif ends != [len(everything) - 1]:
        raise Failure(f"`closed` is at {ends} of {len(everything)}\n{err[-2000:]}")
    totals["lines"] += len(messages)
    totals["recovered"] += len(recovered)


def main() -> int:
    """Run episodes until the time is over; say what was run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--episodes", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    totals: Counter[str] = Counter()
    failures = []
    begin = time.monotonic()
    seed = options.seed
    while time.monotonic() - begin < options.seconds and seed - options.seed < options.episodes:
        try:
            episode(seed, totals)
        except Failure as error:
            failures.append(seed)
            print(f"seed {seed} ({FAULTS[seed % len(FAULTS)]}): {error}", flush=True)
        seed += 1
    print(f"{time.monotonic() - begin:.0f} s, seeds {options.seed} to {seed - 1}")
    for name, count in sorted(totals.items()):
        print(f"  {name:28} {count:12,}")
    print(f"  {'lost':28} {totals['lost']:12,}" if not totals["lost"] else "")
    print("every guarantee held" if not failures else f"FAILED: seeds {failures}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
