"""One list of cases, run by `with`, `async with`, hand-closed and by `dagster_pipes`: same messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.launching import Launch

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
        {
            "asset_keys": None,
            "code_version_by_asset_key": None,
            "provenance_by_asset_key": None,
        },
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
                facts[key] = str(error)
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
    import textwrap

    body = textwrap.dedent(body).strip("\n")
    return lifecycle.format(
        imports=f"from {module} import *"
        if module == "dagsterpipes"
        else f"from {module} import open_dagster_pipes",
        body=textwrap.indent(body, "    "),
        body4=textwrap.indent(body, "        ").lstrip("\n")[4:],
        body0=body,
    )


def run(folder: Path, text: str, context: dict[str, Any]) -> list[dict[str, Any]]:
    folder.mkdir()
    launch = Launch(folder, **context)
    result = launch.run(text)
    assert (result.returncode, result.stderr) == (0, "")
    return launch.messages()


# Each case in one process per lifecycle would take minutes: the reference runs once a case.
_wanted: dict[str, list[dict[str, Any]]] = {}


def normal(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what our messages may add: file and line of this test's own script."""
    return messages


@pytest.mark.parametrize("case", CASES)
def test_every_lifecycle_says_the_same(case: str, tmp_path: Path) -> None:
    """Whichever way the session is opened and closed, and as `dagster_pipes` where it can."""
    body, context, in_reference = CASES[case]
    said = {
        name: run(tmp_path / str(i), script(lifecycle, body, "dagsterpipes"), context)
        for i, (name, lifecycle) in enumerate(LIFECYCLES.items())
    }
    first = said["with"]
    assert first[0]["method"] == "opened"
    assert first[-1]["method"] == "closed"
    assert len(first) > 2 or case == "nothing"
    for name, messages in said.items():
        assert without_places(messages) == without_places(first), name
    if in_reference:
        assert first == run(tmp_path / "ref", script(SYNC, body, "dagster_pipes"), context)


def without_places(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tracebacks name functions and lines of the script, which differ from lifecycle to lifecycle."""
    for one in messages:
        text = one["params"].get("message", "")
        if "Traceback" in text:
            one["params"]["message"] = text.partition("\n")[0] + text.rpartition("\n")[2]
    return messages
