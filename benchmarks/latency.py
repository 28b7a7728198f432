"""Latency of a log line from the call to the reader.

A launched process logs lines that contain the time of the call; a reader polls the file every half
millisecond and compares. "idle": nothing was logged in the 0.2 s before. "trickle": a line every 7 ms, so
that lines wait for each other, for up to `flush_interval` (0.02 s). "warning": the same trickle of
warnings, which do not wait.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from typing import Any

from harness import (
    HERE,
    OURS,
    REFERENCE,
    Launch,
    Result,
    Row,
    Scale,
    alternate,
    column,
    open_session,
)

FLUSH_INTERVAL = 0.02
BOUND = "bound"
PAUSE = {"idle": 0.2, "trickle": 0.007, "warning": 0.007}


def speak(who: str, how: str, count: int) -> None:
    options: dict[str, Any] = {"flush_interval": FLUSH_INTERVAL} if who == OURS else {}
    with open_session(who, **options) as session:
        say = session.log.warning if how == "warning" else session.log.info
        for _ in range(count):
            time.sleep(PAUSE[how])
            say(str(time.monotonic_ns()))


def listen(who: str, how: str, count: int) -> dict[str, Any]:
    took: list[float] = []
    with Launch() as launch, launch.messages.open("rb") as file:
        speaker = subprocess.Popen(
            [sys.executable, str(HERE / "latency.py"), who, how, str(count)], env=launch.env
        )
        rest = b""
        while len(took) < count:
            seen = file.read()
            now = time.monotonic_ns()
            if not seen:
                if speaker.poll() is not None and not file.read(1):
                    raise RuntimeError(f"{who} ended after {len(took)} lines")
                time.sleep(0.0005)
                continue
            *lines, rest = (rest + seen).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["method"] == "log":
                    took.append((now - int(message["params"]["message"])) / 1e6)
        speaker.wait()
    took.sort()
    return {"worst": took[-1], "median": took[len(took) // 2]}


def measure(scale: Scale) -> Result:
    rounds = scale.pick(5, 2)
    series = {}
    for how in ("idle",) if scale.short else PAUSE:
        count = scale.pick(30, 8) if how == "idle" else 300
        everybody = (OURS,) if scale.short else (OURS, REFERENCE)
        cases = {who: partial(listen, who, how, count) for who in everybody}
        series[how] = alternate(cases, rounds)
    bound = FLUSH_INTERVAL * 1e3 + 5
    row = Row(
        "latency",
        "call to polling reader, idle session, worst line",
        "ms",
        column(series["idle"], "worst") | {BOUND: [bound]},
        against=BOUND,
        goal=1,
        goal_text=f"within {bound:.0f} ms",
    )
    return Result([row], series)


if __name__ == "__main__":
    speak(sys.argv[1], sys.argv[2], int(sys.argv[3]))
