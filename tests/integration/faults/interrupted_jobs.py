"""Forks jobs and sends each a signal at one line of its own code; a script of test_interruption.

Every line that the main thread runs between two points of the job is a moment. A job ends as the
interpreter does, so what it forgot to close is closed at its exit.

Usage: interrupted_jobs.py FOLDER KIND SIGNAL TRIES
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.launching import Launch

if TYPE_CHECKING:
    from types import FrameType

BOUND = 10.0
"""Seconds in which a job must have ended."""


class Interrupter:
    """Sends the signal to this process at the n-th line of the main thread."""

    def __init__(self, number: int, at: int) -> None:
        self.number = number
        self.lines = 0
        self._at = at

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self._at:
                sys.settrace(None)
                os.kill(os.getpid(), self.number)
        return self


def plain(interrupter: Interrupter) -> None:
    from dagsterpipes import open_dagster_pipes

    sys.settrace(interrupter)
    with open_dagster_pipes() as pipes:
        pipes.log.info("open")
        sys.settrace(None)


def in_loop(interrupter: Interrupter) -> None:
    from dagsterpipes import open_dagster_pipes

    async def main() -> None:
        sys.settrace(interrupter)
        async with open_dagster_pipes() as pipes:
            pipes.log.info("open")
            sys.settrace(None)

    asyncio.run(main())


def importing(interrupter: Interrupter) -> None:
    """The interrupt hits imports of the job, in which the session is then closed."""
    from dagsterpipes import open_dagster_pipes

    for name in [name for name in sys.modules if name.partition(".")[0] in HEAVY]:
        del sys.modules[name]
    with open_dagster_pipes() as pipes:
        pipes.log.info("importing")
        pipes.flush()
        sys.settrace(interrupter)
        for name in HEAVY:
            __import__(name)
        sys.settrace(None)


def warm(interrupter: Interrupter) -> None:
    """With everything imported: most lines are the opening's own."""
    __import__("dagsterpipes._session.session")
    plain(interrupter)


HEAVY = (
    "email",
    "logging.config",
    "traceback",
    "tempfile",
    "json",
    "random",
    "inspect",
    "linecache",
)
KINDS = {"plain": plain, "warm": warm, "loop": in_loop, "importing": importing}


def run(launch: Launch, kind: str, number: int, at: int, told: int) -> None:
    """The job: a process of its own."""
    os.environ.update(launch.env)
    faulthandler.dump_traceback_later(BOUND - 2)
    began = time.monotonic()
    interrupter = Interrupter(number, at)

    def tell() -> None:
        sys.settrace(None)
        threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
        end = time.monotonic() + 2
        while threads and time.monotonic() < end:
            time.sleep(0.01)
            threads = [
                one.name for one in threading.enumerate() if one is not threading.main_thread()
            ]
        report = {"lines": interrupter.lines, "threads": threads}
        os.write(told, json.dumps(report | {"took": time.monotonic() - began}).encode())

    # Before the library is imported, so after its own handler.
    atexit.register(tell)
    with suppress(KeyboardInterrupt):
        KINDS[kind](interrupter)


def main() -> None:
    folder, kind, name, tries = sys.argv[1:]
    # What all of them import; the library only by the job, for its exit handler.
    import logging  # noqa: F401
    import random  # noqa: F401

    lines = 0
    for turn in range(int(tries) + 1):
        # The first one is not interrupted: it counts the lines.
        at = sys.maxsize if turn == 0 else turn * lines // int(tries)
        place = Path(folder) / f"{kind}-{name}-{at}"
        place.mkdir()
        launch = Launch(place)
        hears, told = os.pipe()
        job = os.fork()
        if job == 0:
            os.close(hears)
            try:
                run(launch, kind, getattr(signal, name), at, told)
            except BaseException:
                traceback.print_exc()
                sys.exit(3)
            sys.exit(0)
        os.close(told)
        end = time.monotonic() + BOUND
        status = None
        while status is None and time.monotonic() < end:
            ended, code = os.waitpid(job, os.WNOHANG)
            if ended:
                status = code
            else:
                time.sleep(0.002)
        if status is None:
            os.kill(job, signal.SIGKILL)
            os.waitpid(job, 0)
        report = json.loads(os.read(hears, 1 << 16) or b"{}")
        os.close(hears)
        methods = [method for method, _ in launch.sent()]
        print(json.dumps({"at": at, "status": status, "methods": methods} | report), flush=True)
        lines = lines or report["lines"]


if __name__ == "__main__":
    main()
    os._exit(0)
