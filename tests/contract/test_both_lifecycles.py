"""One list of cases, run by `with`, `async with`, hand-closed and by `dagster_pipes`: same messages."""

from __future__ import annotations

import json
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from support.launching import OP_STEP, Launch

if TYPE_CHECKING:
    from pathlib import Path

# Statements of a job that has a `pipes`; whether `dagster_pipes` can do the same.
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "nothing": ("pass", {}, True),
    "logs": (
        """
        pipes.log.debug("d")
        pipes.log.info("i %s %d", "x", 1)
        pipes.log.warning("w")
        pipes.log.error('"quoted" \\\\ \\u00e4 \\U0001f600 \\x00')
        pipes.log.critical("c")
        pipes.log.log(20, "by number")
        """,
        {},
        True,
    ),
    "log of a custom level": ("pipes.log.log(25, 'between')", {}, False),
    "log called": ("pipes.log('text', level='warning')", {}, False),
    "log with traceback": (
        """
        try:
            1 / 0
        except ZeroDivisionError:
            pipes.log.exception("oh")
        """,
        {},
        False,
    ),
    "materialization": (
        """
        pipes.report_asset_materialization(
            metadata={"n": 1, "f": {"type": "float", "raw_value": 1.5}, "t": "text"},
            data_version="v1",
        )
        """,
        {},
        True,
    ),
    "materialization without arguments": ("pipes.report_asset_materialization()", {}, True),
    "materialization of two assets": (
        """
        pipes.report_asset_materialization(asset_key="a")
        pipes.report_asset_materialization(asset_key="b/c")
        """,
        {"asset_keys": ["a", "b/c"]},
        True,
    ),
    "checks": (
        """
        pipes.report_asset_check("good", True)
        pipes.report_asset_check("bad", passed=False, severity="WARN", metadata={"rows": 3})
        """,
        {},
        True,
    ),
    "op step with a key": (
        "pipes.report_asset_materialization(asset_key='any/key')",
        OP_STEP,
        True,
    ),
    "custom messages": (
        """
        pipes.report_custom_message({"a": [1, 2.5, None, True]})
        pipes.report_custom_message(None)
        pipes.report_custom_message("text")
        """,
        {},
        True,
    ),
    "external stream": (
        """
        pipes.log_external_stream("stdout", "some\\noutput\\n")
        pipes.log_external_stream("stderr", "more", {"pid": 1})
        """,
        {},
        True,
    ),
    "order of everything": (
        """
        for i in range(300):
            pipes.log.info("%d", i)
            if i % 50 == 0:
                pipes.report_custom_message(i)
            if i % 70 == 0:
                pipes.log.warning("%d", i)
        """,
        {},
        True,
    ),
    "facts": (
        """
        facts = {}
        for name in (
            "is_asset_step asset_key asset_keys provenance provenance_by_asset_key code_version "
            "code_version_by_asset_key is_partition_step partition_key partition_key_range "
            "partition_time_window run_id job_name retry_number extras is_closed"
        ).split():
            try:
                facts[name] = getattr(pipes, name)
            except Exception as error:
                facts[name] = str(error)
        for key in ("x", "missing"):
            try:
                facts[key] = pipes.get_extra(key)
            except Exception as error:
                facts[key] = str(error).partition(" There are:")[0]  # ours goes on
        pipes.report_custom_message(facts)
        """,
        {"extras": {"x": [1]}},
        True,
    ),
    "errors of reports": (
        """
        texts = []
        def attempt(call):
            try:
                call()
            except Exception as error:
                texts.append(str(error))
        attempt(lambda: pipes.report_asset_materialization())
        attempt(lambda: pipes.report_asset_materialization(asset_key="other"))
        attempt(lambda: pipes.report_asset_materialization(asset_key="a"))
        attempt(lambda: pipes.report_asset_materialization(asset_key="a"))
        attempt(lambda: pipes.report_asset_check("c", True))
        pipes.report_custom_message(texts)
        """,
        {"asset_keys": ["a", "b"]},
        True,
    ),
}

SYNC = """
{imports}
with open_dagster_pipes() as pipes:
{body}
"""
ASYNC = """
import asyncio
{imports}
async def main():
    async with open_dagster_pipes() as pipes:
    {body4}
asyncio.run(main())
"""
BY_HAND = """
{imports}
pipes = open_dagster_pipes()
{body0}
pipes.close()
"""
ASYNC_BY_HAND = """
import asyncio
{imports}
async def main():
    pipes = open_dagster_pipes()
{body}
    await pipes.aflush()
    await pipes.aclose()
asyncio.run(main())
"""
FUNCTION = """
{imports}
def main(pipes):
{body}
    return 5
assert with_dagster_pipes(main) == 5
"""
COROUTINE_FUNCTION = """
{imports}
async def main(pipes):
{body}
    return 5
assert with_dagster_pipes(main) == 5
"""
TRIO = """
import trio
{imports}
async def main():
    async with open_dagster_pipes() as pipes:
    {body4}
trio.run(main)
"""
LIFECYCLES = {
    "with": SYNC,
    "async with": ASYNC,
    "by hand": BY_HAND,
    "async by hand": ASYNC_BY_HAND,
    "with_dagster_pipes": FUNCTION,
    "with_dagster_pipes, coroutine": COROUTINE_FUNCTION,
    "async with, trio": TRIO,
}


def script(lifecycle: str, body: str, module: str) -> str:
    body = textwrap.dedent(body).strip("\n")
    names = "*" if module == "dagsterpipes" else "open_dagster_pipes"
    return lifecycle.format(
        imports=f"from {module} import {names}",
        body=textwrap.indent(body, "    "),
        body4=textwrap.indent(body, "        ").lstrip("\n")[4:],
        body0=body,
    )


# Runs many jobs one after the other; each is launched as if it were alone in the process.
DRIVER = """
import json, os, sys
for env, code in json.load(open(sys.argv[1])):
    os.environ.update(env)
    exec(compile(code, "job.py", "exec"), {"__name__": "__main__"})
    if "dagster_pipes" in sys.modules:
        sys.modules["dagster_pipes"].PipesContext._instance = None  # it cannot reopen by itself
"""

Messages = dict[str, list[dict[str, Any]]]


def run_all(folder: Path, lifecycle: str, module: str, cases: list[str]) -> Messages:
    """The messages of each case, all run in one process."""
    launches = {}
    for index, case in enumerate(cases):
        place = folder / str(index)
        place.mkdir(parents=True)
        launches[case] = Launch(place, **CASES[case][1])
    jobs = [(launches[case].env, script(lifecycle, CASES[case][0], module)) for case in cases]
    plan = folder / "plan.json"
    plan.write_text(json.dumps(jobs))
    result = Launch(folder).run(DRIVER, str(plan))
    assert (result.returncode, result.stderr) == (0, "")
    return {case: launches[case].messages() for case in cases}


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Messages]:
    """What each lifecycle sent in each case; and what `dagster_pipes` sent where it can."""
    folder = tmp_path_factory.mktemp("contract")
    with ThreadPoolExecutor(2) as pool:
        runs = {
            name: pool.submit(run_all, folder / str(index), lifecycle, "dagsterpipes", list(CASES))
            for index, (name, lifecycle) in enumerate(LIFECYCLES.items())
        }
        able = [case for case, (_, _, in_reference) in CASES.items() if in_reference]
        runs["dagster_pipes"] = pool.submit(
            run_all, folder / "reference", SYNC, "dagster_pipes", able
        )
    return {name: run.result() for name, run in runs.items()}


@pytest.mark.parametrize("case", CASES)
def test_every_lifecycle_says_the_same(case: str, sent: dict[str, Messages]) -> None:
    """Whichever way the session is opened and closed, and as `dagster_pipes` where it can."""
    first = sent["with"][case]
    assert first[0]["method"] == "opened"
    assert first[-1]["method"] == "closed"
    assert len(first) > 2 or case == "nothing"
    for name in LIFECYCLES:
        assert without_places(sent[name][case]) == without_places(first), name
    if CASES[case][2]:
        assert first == sent["dagster_pipes"][case]


def without_places(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tracebacks name functions and lines of the script, which differ from lifecycle to lifecycle."""
    for one in messages:
        text = one["params"].get("message", "")
        if "Traceback" in text:
            one["params"]["message"] = text.partition("\n")[0] + text.rpartition("\n")[2]
    return messages
