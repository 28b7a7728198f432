"""What capture costs and what it loses, beside `dagster_pipes`: writes the table of the docs.

python benchmarks/printed_output.py
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs/explanation/printed-output.results.md"
TRIES = 10
CONTEXT = {
    "asset_keys": ["a"],
    "code_version_by_asset_key": {"a": None},
    "provenance_by_asset_key": {"a": None},
    "partition_key": None,
    "partition_key_range": None,
    "partition_time_window": None,
    "run_id": "run",
    "job_name": "job",
    "retry_number": 0,
    "extras": {},
}
HEAD = """
import ctypes, os, subprocess, sys, threading, time
from {library} import open_dagster_pipes
begin = time.perf_counter()
session = open_dagster_pipes()
opening = time.perf_counter() - begin
"""
BUSY = """
def burn():
    while True: pass
for _ in range(3): threading.Thread(target=burn, daemon=True).start()
"""
CRASHES = {
    "C code prints, then `abort()`": "libc = ctypes.CDLL(None); libc.puts(b'last words');"
    " libc.fflush(None); libc.abort()",
    "`print(flush=True)`, then `os._exit` beside busy threads": BUSY
    + "print('last words', flush=True); os._exit(3)",
    "`print(flush=True)`, then SIGKILL": "print('last words', flush=True); os.kill(os.getpid(), 9)",
}
NONBLOCKING = """
subprocess.run([sys.executable, "-c", "import os; os.set_blocking(1, False)"])
for i in range(100_000): print(f"line {i:06d} " + "x" * 40)
session.close()
"""
TIMED = """
time.sleep(0.1)
begin = time.perf_counter()
session.close()
open(os.environ["TIMES"], "w").write(f"{opening} {time.perf_counter() - begin}")
"""


def encode(value: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


def run(library: str, script: str, *, stdio: bool = True) -> tuple[str, str, list[float], bool]:
    """What was shown, what was sent, the times, and whether `closed` came with a reason in 10 ms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "messages").touch()
        (folder / "context").write_text(json.dumps(CONTEXT))
        (folder / "job.py").write_text(HEAD.format(library=library) + script)
        env = os.environ | {
            "DAGSTER_PIPES_CONTEXT": encode({"path": str(folder / "context")}),
            "DAGSTER_PIPES_MESSAGES": encode(
                {"path": str(folder / "messages"), "include_stdio_in_messages": stdio}
            ),
            "TIMES": str(folder / "times"),
        }
        with (folder / "shown").open("wb") as shown:
            subprocess.run(
                [sys.executable, folder / "job.py"],
                env=env,
                stdout=shown,
                stderr=subprocess.DEVNULL,
                timeout=120,
                check=False,
            )
        time.sleep(0.01)
        early = (folder / "messages").read_bytes()
        time.sleep(0.3)
        lines = (folder / "messages").read_text().splitlines()
        sent = "".join(
            message["params"]["text"]
            for message in map(json.loads, lines)
            if message["method"] == "log_external_stream"
            and message["params"]["stream"] == "stdout"
        )
        times = folder / "times"
        seconds = [float(part) for part in times.read_text().split()] if times.exists() else []
        return (folder / "shown").read_text(), sent, seconds, b'"exception"' in early


def main() -> None:
    """Measure both, and write the table."""
    rows: list[tuple[str, list[str]]] = []
    libraries = ("dagsterpipes", "dagster_pipes")
    costs = []
    for library in libraries:
        with_, without = (
            [run(library, TIMED, stdio=stdio)[2] for _ in range(TRIES)] for stdio in (True, False)
        )
        costs.append(
            [
                statistics.median(t[i] for t in with_) - statistics.median(t[i] for t in without)
                for i in (0, 1)
            ]
        )
    for i, what in enumerate(("opening", "closing")):
        rows.append(
            (f"{what}: more than without capture", [f"{cost[i] * 1000:,.0f} ms" for cost in costs])
        )
    for name, script in CRASHES.items():
        cells = []
        for library in libraries:
            runs = [run(library, script) for _ in range(TRIES)]
            shown = sum("last words" in one[0] for one in runs)
            sent = sum("last words" in one[1] for one in runs)
            told = sum(one[3] for one in runs)
            cells.append(f"shown {shown}, sent {sent}, reason there within 10 ms {told}")
        rows.append((f"{name}, of {TRIES}", cells))
    cells = []
    for library in libraries:
        shown_text, sent_text, _, _ = run(library, NONBLOCKING)
        cells.append(f"shown {shown_text.count('line'):,}, sent {sent_text.count('line'):,}")
    rows.append(("a child makes the stream non-blocking, of 100,000 lines", cells))
    table = ["| | ours | `dagster_pipes` |", "|---|---|---|"]
    table += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    head = "<!-- Written by benchmarks/printed_output.py. -->\n\n"
    RESULTS.write_text(head + "\n".join(table) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
