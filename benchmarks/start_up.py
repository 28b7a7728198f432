"""Time of whole processes: importing, a script outside Dagster, a launched one with one message.

Wall time from the start of the process to its end, including the start of the interpreter ("python -c
pass" is the interpreter alone). Many short processes, the libraries in turn; the files are in the page cache.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import (
    OURS,
    REFERENCE,
    Launch,
    Result,
    Row,
    Scale,
    alternate,
    column,
    plain_environment,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = """
from {library} import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("hello")
"""
ASYNC = """
import asyncio
from {library} import open_dagster_pipes
async def main():
    {asynchronous}with open_dagster_pipes() as pipes:
        pipes.log.info("hello")
asyncio.run(main())
"""
INTERPRETER = "python -c pass"


def timed(code: str, env: Mapping[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return (time.perf_counter() - start) * 1e3


def process(code: str, *, launched: bool) -> dict[str, Any]:
    if not launched:
        return {"ms": timed(code, plain_environment())}
    with Launch() as launch:
        took = timed(code, launch.env)
        if launch.lines_with(b'"hello"') != 1:
            raise RuntimeError(f"the message is not in the file: {code}")
    return {"ms": took}


def measure(scale: Scale) -> Result:
    rows, series = [], {}
    kinds: list[tuple[str, str, str, bool, float | None, str]] = [
        ("import", "import, whole process", "import {library}", False, 1, "no slower"),
        ("unlaunched", "script outside Dagster, whole process", SCRIPT, False, 1, "no slower"),
        ("launched", "launched script, one message", SCRIPT, True, 1 / 1.5, "at most 1.5 times"),
        (
            "launched_async",
            "launched asyncio script, one message",
            ASYNC,
            True,
            1 / 1.2,
            "at most 1.2 times",
        ),
    ]
    for name, what, code, launched, goal, goal_text in kinds:
        cases = {
            who: partial(
                process,
                code.format(library=who, asynchronous="async " if who == OURS else ""),
                launched=launched,
            )
            for who in (OURS, REFERENCE)
        }
        cases[INTERPRETER] = partial(process, "pass", launched=False)
        found = alternate(cases, scale.pick(25, 5), warm_up=True)
        rows.append(Row(name, what, "ms", column(found, "ms"), goal=goal, goal_text=goal_text))
        series[name] = found
    return Result(rows, series)
