"""What a relay over TCP costs, beside a session that writes to its file, in the same run.

"relay": a launched driver, and two worker processes that log through it; the time goes from the first call of
either to the end of both blocks, when the driver has everything. "local": one process logs as many
lines to the file. "warning": a warning every 7 ms, from its call in a worker to a reader of the driver's file.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

from harness import HERE, OURS, Launch, Result, Row, Scale, alternate, column, report, run_launched

LOCAL = "local session"
BOUND = "bound"
WORKERS = 2


def log(pipes: Any, count: int) -> float:
    """Log the lines; microseconds of the calling thread for each."""
    began = time.thread_time()
    for number in range(count):
        pipes.log.info("processed row %d of the table that this worker has to load today", number)
    return (time.thread_time() - began) / count * 1e6


def work(relay: str, how: str, count: int) -> None:
    with pickle.loads(bytes.fromhex(relay)).open("worker") as pipes:
        pipes.log.warning("ready")
        pipes.flush()
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        took = 0.0
        if how == "warning":
            for _ in range(count):
                time.sleep(0.007)
                pipes.log.warning("at %d", time.monotonic_ns())
        else:
            took = log(pipes, count)
    print(json.dumps([began, time.monotonic(), took]))


def drive(how: str, count: int) -> None:
    from dagsterpipes import open_dagster_pipes

    with open_dagster_pipes(coalesce_logs=0) as pipes:
        if how == "local":
            began = time.perf_counter()
            cost = log(pipes, count)
            pipes.flush()
            report(rate=count / (time.perf_counter() - began), caller=cost)
            return
        with pipes.relay("tcp://") as relay:
            place = pickle.dumps(relay).hex()
            share = count // WORKERS
            command = [sys.executable, str(HERE / "relay.py"), "worker", place, how, str(share)]
            workers = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(WORKERS)
            ]
            for worker in workers:
                assert worker.stdout is not None
                worker.stdout.readline()
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
            found = [json.loads(worker.communicate()[0]) for worker in workers]
        began, ended, costs = zip(*found, strict=True)
        report(rate=count / (max(ended) - min(began)), caller=sum(costs) / WORKERS)


def flood(how: str, count: int) -> dict[str, Any]:
    return run_launched("relay.py", "drive", how, count, count=count)


def warnings(count: int) -> dict[str, Any]:
    """Median milliseconds from the call in a worker to a reader that looks every half millisecond."""
    took: list[float] = []
    with Launch() as launch, launch.messages.open("rb") as file:
        driver = subprocess.Popen(
            [sys.executable, str(HERE / "relay.py"), "drive", "warning", str(count)],
            env=launch.env,
            stdout=subprocess.DEVNULL,
        )
        ended = threading.Event()
        threading.Thread(target=lambda: (driver.wait(), ended.set())).start()
        rest = b""
        while not (ended.is_set() and len(took) >= count):
            seen = file.read()
            now = time.monotonic_ns()
            if not seen and ended.is_set():
                break
            if not seen:
                time.sleep(0.0005)
                continue
            *lines, rest = (rest + seen).split(b"\n")
            for line in lines:
                text = json.loads(line)["params"].get("message", "")
                if "] at " in text:
                    took.append((now - int(text.split("] at ")[1])) / 1e6)
    if len(took) != count:
        raise RuntimeError(f"{len(took)} of {count} warnings arrived")
    return {"median": sorted(took)[count // 2]}


def measure(scale: Scale) -> Result:
    rounds = scale.pick(5, 2)
    count = scale.pick(600_000, 200_000)
    floods = alternate(
        {OURS: partial(flood, "relay", count), LOCAL: partial(flood, "local", count)}, rounds
    )
    late = alternate({OURS: partial(warnings, scale.pick(600, 200))}, rounds)
    rows = [
        Row(
            "relay rate",
            "two workers over TCP to the driver's file",
            "messages/s",
            column(floods, "rate"),
            against=LOCAL,
            goal=0.7,
            goal_text="0.7 times the local rate",
            more_is_better=True,
        ),
        Row(
            "relay calls",
            "processor time of a log call in a worker",
            "us",
            column(floods, "caller"),
            against=LOCAL,
            goal=0.5,
            goal_text="at most 2 times the local call",
        ),
        Row(
            "relay warnings",
            "a worker's warning to a polling reader, median",
            "ms",
            column(late, "median") | {BOUND: [5.0] * rounds},
            against=BOUND,
            goal=1,
            goal_text="within 5 ms",
        ),
    ]
    return Result(rows, {"flood": floods, "warning": late})


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        drive(sys.argv[2], int(sys.argv[3]))
