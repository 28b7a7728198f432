"""How messages are written, and how sessions begin and end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from library import Section, Stage, without_launch

WRITING = Section("Writing")
LIFECYCLE = Section("Errors and lifecycle")
NO = "\N{EN DASH}"

_opened: list[str] = []


def _note(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(args[0], str):
        _opened.append(args[0])


sys.addaudithook(_note)


@WRITING.row("opens the file for 100 messages", r="100 times, with two writes each")
def _(stage: Stage) -> str:
    pipes = stage.open()
    _opened.clear()
    for i in range(100):
        pipes.report_custom_message(i)
    count = _opened.count(str(stage.launch.messages_path))
    stage.said()
    return f"{count} times"


@WRITING.row(
    "of 500 messages of 500 bytes, cross a page, where a reader may see half of them",
    r="the newline is in a second write",
)
def _(stage: Stage) -> str:
    pipes = stage.open()
    for _ in range(500):
        pipes.report_custom_message("x" * 425)
    stage.said()
    crossing, start = 0, 0
    for line in stage.launch.messages_path.read_bytes().splitlines(keepends=True):
        end = start + len(line)
        crossing += start // 4096 != (end - 1) // 4096
        start = end
    return f"{crossing}"


@WRITING.row("`stdio`: messages are there, if the process then dies", r="no `stdio`")
def _(stage: Stage) -> str:
    stage.new_launch()
    stage.launch.env["DAGSTER_PIPES_MESSAGES"] = stage.lib.encode_param({"stdio": "stdout"})
    done = stage.run(
        """
        import os, time
        from LIBRARY import open_dagster_pipes
        pipes = open_dagster_pipes()
        pipes.log.info("text")
        time.sleep(0.3)
        os._exit(0)
        """,
        env={"PYTHONUNBUFFERED": ""},
    )
    return stage.answers(done.stdout.count('"method"') == 2)


@WRITING.row("`buffered_stdio` (AWS Lambda)", r="no `buffered_stdio`")
def _(stage: Stage) -> str:
    stage.new_launch()
    stage.launch.env["DAGSTER_PIPES_MESSAGES"] = stage.lib.encode_param(
        {"buffered_stdio": "stderr"}
    )
    done = stage.run(
        """
        from LIBRARY import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.log.info("text")
        """
    )
    return stage.answers(done.stderr.count('"method"') == 3)


@WRITING.row("`include_stdio_in_messages`: what was printed last", r="ignored")
def _(stage: Stage) -> str:
    stage.new_launch()
    stage.launch.env["DAGSTER_PIPES_MESSAGES"] = stage.lib.encode_param(
        {"path": str(stage.launch.messages_path), "include_stdio_in_messages": True}
    )
    begin = time.monotonic()
    stage.run(
        """
        from LIBRARY import open_dagster_pipes
        with open_dagster_pipes():
            print("printed last", flush=True)
        """
    )
    took = "; closing takes seconds" if time.monotonic() - begin > 4 else ""
    methods = [method for method, _ in stage.launch.said()]
    is_last = methods[-1] == "closed"
    return f"arrives {'before' if is_last else '**after**'} `closed`{took}"


@WRITING.row("two processes with one environment", r="a second `opened` and `closed`")
def _(stage: Stage) -> str:
    stage.new_launch()
    stage.run(
        """
        import subprocess, sys
        from LIBRARY import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            if sys.argv[1] == "parent":
                subprocess.run([sys.executable, __file__, "child"], check=True)
        """,
        "parent",
    )
    ends = [method for method, _ in stage.launch.said()]
    return "one session" if ends == ["opened", "closed"] else "a second `opened` and `closed`"


# -- lifecycle -----------------------------------------------------------------------------------


@LIFECYCLE.row("scope of a session", r="`with_dagster_pipes(fn)`")
def _(stage: Stage) -> str:
    forms = ["`with`"]
    if hasattr(stage.lib.PipesContext, "__aenter__"):
        forms.append("`async with`")
    if hasattr(stage.lib, "with_dagster_pipes"):
        forms.append("`with_dagster_pipes(fn)`")
    return ", ".join(forms)


@LIFECYCLE.row("in asyncio: what waits can be awaited", r=NO)
def _(stage: Stage) -> str:
    async def main() -> bool:
        if not hasattr(stage.lib.PipesContext, "aclose"):
            return False
        loader = stage.lib.PipesMappingParamsLoader(stage.new_launch().env)
        async with stage.lib.open_dagster_pipes(params_loader=loader) as pipes:
            await pipes.drain()
            await pipes.aflush()
        return bool(pipes.is_closed)

    stage.close()
    return stage.answers(asyncio.run(main()), NO)


@LIFECYCLE.row("opening twice", r="a second session")
def _(stage: Stage) -> str:
    return "the open session" if stage.open() is stage.lib.open_dagster_pipes() else "another one"


@LIFECYCLE.row("opening after a close", r="a new session")
def _(stage: Stage) -> str:
    first = stage.open()
    first.close()
    loader = stage.lib.PipesMappingParamsLoader(stage.new_launch().env)
    second = stage.lib.open_dagster_pipes(params_loader=loader)
    outcome = "**the closed one**" if second is first else "a new session"
    second.close()
    return outcome


@LIFECYCLE.row("`get()`, `is_initialized()`", r=NO)
def _(stage: Stage) -> str:
    return stage.answers(
        stage.open() is stage.lib.PipesContext.get() and stage.lib.PipesContext.is_initialized()
    )


@LIFECYCLE.row("`close` twice", r="one `closed`")
def _(stage: Stage) -> str:
    pipes = stage.open()
    pipes.close()
    pipes.close()
    return "one `closed`" if len(stage.said()) == 1 else "two"


@LIFECYCLE.row("calls after `close`", r="**written**")
def _(stage: Stage) -> str:
    pipes = stage.open()
    pipes.close()
    outcomes = {
        stage.error(lambda: pipes.log.info("x")),
        stage.error(lambda: pipes.report_custom_message(1)),
    }
    return "raise" if None not in outcomes else "written"


@LIFECYCLE.row("`is_closed`", r=NO)
def _(stage: Stage) -> str:
    return stage.answers(not stage.open().is_closed)


FAILING = """
import sys
from LIBRARY import open_dagster_pipes
with open_dagster_pipes():
    try:
        raise KeyError("first")
    except KeyError as error:
        {end}
"""


def end_of(stage: Stage, end: str, status: int) -> dict[str, Any]:
    stage.new_launch()
    done = stage.run(FAILING.format(end=end))
    assert done.returncode == status, done.stderr
    method, params = stage.launch.said()[-1]
    assert method == "closed"
    exception: dict[str, Any] = params.get("exception") or {}
    return exception


@LIFECYCLE.row("an exception is sent, and the exit status is not 0", r="yes")
def _(stage: Stage) -> str:
    return stage.answers(end_of(stage, 'raise ValueError("text") from error', 1))


@LIFECYCLE.row("… as `message`", r='`"text"`')
def _(stage: Stage) -> str:
    message = end_of(stage, 'raise ValueError("text") from error', 1)["message"]
    return f"`{json.dumps(message)}`"


@LIFECYCLE.row("… its cause and context", r="no")
def _(stage: Stage) -> str:
    return stage.answers(
        end_of(stage, 'raise ValueError("text") from error', 1)["cause"]["name"] == "KeyError"
    )


@LIFECYCLE.row("… the members of an exception group", r=NO)
def _(stage: Stage) -> str:
    sent = end_of(stage, 'raise ExceptionGroup("text", [OSError("one " + "of them")])', 1)
    return stage.answers("one of them" in str(sent))


@LIFECYCLE.row("`sys.exit(0)` in the block", r=NO)
def _(stage: Stage) -> str:
    return "an exception" if end_of(stage, "sys.exit(0)", 0) else "a clean close"


UNCLOSED = """
import signal, os, sys, time
from LIBRARY import open_dagster_pipes
pipes = open_dagster_pipes()
pipes.log.info("text")
{end}
"""


def last_of(stage: Stage, end: str) -> str:
    stage.new_launch()
    stage.run(UNCLOSED.format(end=end))
    said = stage.launch.said()
    if said[-1][0] != "closed":
        return "no `closed`"
    exception = (said[-1][1] or {}).get("exception") or {}
    return "`closed`" + (f", with `{exception['name']}`" if exception else "")


@LIFECYCLE.row("the interpreter exits without `close`", r="no `closed`")
def _(stage: Stage) -> str:
    return last_of(stage, "")


@LIFECYCLE.row("… by an exception that nobody caught", r="no `closed`")
def _(stage: Stage) -> str:
    return last_of(stage, "raise ValueError('text')")


@LIFECYCLE.row("SIGTERM", r="no `closed`")
def _(stage: Stage) -> str:
    return last_of(stage, f"os.kill(os.getpid(), {int(signal.SIGTERM)}); time.sleep(5)")


@LIFECYCLE.row("messages that cannot be written: the disk is full", r="")
def _(stage: Stage) -> str:
    stage.new_launch()
    options = "close_timeout=0.5" if stage.library == "dagsterpipes" else ""
    done = stage.run(
        f"""
        import os, resource, signal
        from LIBRARY import open_dagster_pipes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        pipes = open_dagster_pipes({options})
        pipes.report_custom_message("x" * 1_000_000)
        if hasattr(pipes, "flush"):
            pipes.flush()
        size = os.stat({str(stage.launch.messages_path)!r}).st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            pipes.report_custom_message("x" * 5000)
            pipes.close()
        except Exception as error:
            print(type(error).__name__, getattr(error, "recovery_file", None) or "nowhere")
        """
    )
    name, _, file = done.stdout.strip().partition(" ")
    if file == "nowhere":
        return f"`{name}`; they are gone"
    kept = Path(file)
    lines = kept.read_text().count("\n")
    kept.unlink()
    return f"`{name}`; they are kept in a file" if lines == 2 else "?"


OUTSIDE = """
from LIBRARY import open_dagster_pipes
with open_dagster_pipes() as pipes:
    {body}
"""


def outside(stage: Stage, body: str) -> Any:
    stage.new_launch()
    stage.launch.env.clear()
    return stage.run(OUTSIDE.format(body=body), env=without_launch({}))


@LIFECYCLE.row("outside Dagster", r="a `NullPipesContext`")
def _(stage: Stage) -> str:
    name = outside(stage, "print(type(pipes).__name__)").stdout.strip()
    return f"a `{name}`"


@LIFECYCLE.row("… what is logged", r="is shown")
def _(stage: Stage) -> str:
    return (
        "is shown"
        if "a log line" in outside(stage, 'pipes.log.info("a log line")').stderr
        else "vanishes"
    )


@LIFECYCLE.row("… a method whose name is misspelt", r="")
def _(stage: Stage) -> str:
    return "an error" if outside(stage, "pipes.repot_custom_message(1)").returncode else "accepted"


@LIFECYCLE.row("the inverse of `to_asset_key_path`", r=NO)
def _(stage: Stage) -> str:
    return "`from_asset_key_path`" if hasattr(stage.lib, "from_asset_key_path") else NO


@LIFECYCLE.row("a test kit for jobs", r=NO)
def _(stage: Stage) -> str:
    found = importlib.util.find_spec(f"{stage.library}.testing")
    return f"`{stage.library}.testing`" if found is not None else NO


@LIFECYCLE.row("type hints (`py.typed`)", r=NO)
def _(stage: Stage) -> str:
    return stage.answers(Path(stage.lib.__file__).with_name("py.typed").exists())
