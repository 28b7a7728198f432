"""Starts jobs and kills each at a random moment; prints when, as JSON lines. A script of test_kill.

The jobs are forked from here, so that starting one costs milliseconds.

Usage: killed_jobs.py FOLDER KIND SEED COUNT
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dagsterpipes
from support.launching import Launch
from support.message_file import stamp
from support.sent_log import SentLog
from support.stall_monitor import STEP, StallMonitor

PRODUCERS = 3
CAPACITY = {"short": 20_000, "long": 20_000, "flood": 500_000}


def say(pipes: Any, rng: random.Random, mark: str, size: int, *, quiet: bool) -> None:
    """One message of a random kind and about this size; if ``quiet``, none that may not wait."""
    text = mark + "x" * size
    kind = rng.randrange(4) if quiet else rng.randrange(8)
    if kind < 4:
        pipes.log.info(text)
    elif kind == 4:
        pipes.log.error("%s", text)
    elif kind == 5:
        pipes.report_custom_message({"text": text, "values": [1, None, 2.5]})
    elif kind == 6:
        pipes.log_external_stream("stderr", text)
    else:
        pipes.log(text, level="debug")


class Producer:
    """Says messages for ever, at a random pace."""

    def __init__(self, pipes: Any, sent_log: SentLog, kind: str, name: int, seed: int) -> None:
        self.pipes = pipes
        self.sent_log = sent_log
        self.kind = kind
        self.name = name
        # For the whole job: one message that may not wait takes all others along.
        self.quiet = seed % 2 == 0
        self.rng = random.Random(f"{seed} {name}")
        self.burst = self.rng.choice([1, 1, 10, 100])
        self.count = 0

    def say_burst(self) -> float:
        """Say some messages; return how long to pause then."""
        rng = self.rng
        for _ in range(rng.randint(1, self.burst)):
            size = rng.choice([5, 80, 80, 300, 3000])
            if self.kind == "long" and rng.random() < 0.01:
                size = 200_000
            say(self.pipes, rng, stamp(self.name, self.count), size, quiet=self.quiet)
            self.sent_log.record(self.name, self.count)
            self.count += 1
        return rng.random() * 0.01

    def wants_flush(self) -> bool:
        return self.rng.random() < (0.01 if self.quiet else 0.05)

    def flush(self) -> None:
        count = self.count
        self.pipes.flush()
        self.sent_log.record_flushed(self.name, count)

    def run(self) -> None:
        while True:
            time.sleep(self.say_burst())
            if self.wants_flush():
                self.flush()

    async def run_in_loop(self) -> None:
        while True:
            await asyncio.sleep(self.say_burst())
            if self.wants_flush():
                count = self.count
                await self.pipes.aflush()
                self.sent_log.record_flushed(self.name, count)

    def flood(self) -> None:
        """As fast as one thread can."""
        text = (
            " is one of very many messages, each of about a hundred bytes, of which none may wait"
        )
        for number in range(self.sent_log.capacity):
            self.pipes.log.info(stamp(self.name, number) + text)  # noqa: G003 because it is not what is measured
            self.sent_log.record(self.name, number)


def work(sent_log: SentLog, kind: str, seed: int) -> None:
    """The job; never ends."""

    def producers(pipes: Any) -> list[Producer]:
        return [Producer(pipes, sent_log, kind, name, seed) for name in range(PRODUCERS)]

    async def in_loop() -> None:
        async with dagsterpipes.open_dagster_pipes() as pipes:
            await asyncio.gather(*[one.run_in_loop() for one in producers(pipes)])

    if kind == "flood":
        with dagsterpipes.open_dagster_pipes() as pipes:
            producers(pipes)[0].flood()
    elif seed // 2 % 3 == 0:
        asyncio.run(in_loop())
    else:
        with dagsterpipes.open_dagster_pipes() as pipes:
            first, *others = producers(pipes)
            for other in others if seed // 2 % 3 == 1 else []:
                threading.Thread(target=other.run, daemon=True).start()
            first.run()


def main(base: Path, kind: str, seed: int, count: int) -> None:
    rng = random.Random(f"{kind} {seed}")
    for number in range(count):
        folder = base / f"{seed}-{number}"
        folder.mkdir()
        launch = Launch(folder)
        sent_log = SentLog(folder / "sent_log", PRODUCERS, CAPACITY[kind])
        job_seed = rng.randrange(1 << 30)
        pid = os.fork()
        if not pid:
            os.environ.update(launch.env)
            try:
                work(sent_log, kind, job_seed)
            finally:
                os._exit(70)
        while not sent_log.has_begun(0):
            time.sleep(STEP)
        monitor = StallMonitor(folder, direct=kind == "long")
        monitor.sleep(rng.random() * 0.3)
        moment = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        facts = {"folder": str(folder), "moment": moment, "stalled": monitor.stalled()}
        facts["slower"] = monitor.slower()
        monitor.close()
        os.waitpid(pid, 0)
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
