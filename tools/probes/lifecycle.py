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

from library import LibraryUnderTest, Section, without_launch

WRITING = Section("Writing")
LIFECYCLE = Section("Errors and lifecycle")
NO = "\N{EN DASH}"

_opened: list[str] = []


def _note(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(args[0], str):
        _opened.append(args[0])


sys.addaudithook(_note)


@WRITING.row("how often the file is opened for 100 messages", r="100 times, with two writes each")
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    _opened.clear()
    for i in range(100):
        pipes.report_custom_message(i)
    count = _opened.count(str(library.launch.messages_path))
    library.sent()
    return f"{count} times"


@WRITING.row(
    "of 500 messages of 500 bytes: how many cross a page border, where a reader may see half of them",
    r="the newline is in a second write",
)
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    for _ in range(500):
        pipes.report_custom_message("x" * 425)
    library.sent()
    crossing, start = 0, 0
    for line in library.launch.messages_path.read_bytes().splitlines(keepends=True):
        end = start + len(line)
        crossing += start // 4096 != (end - 1) // 4096
        start = end
    return f"{crossing}"


@WRITING.row("`stdio`: messages are there if the process dies afterwards", r="no `stdio`")
def _(library: LibraryUnderTest) -> str:
    library.new_launch()
    library.launch.env["DAGSTER_PIPES_MESSAGES"] = library.lib.encode_param({"stdio": "stdout"})
    done = library.run(
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
    return library.answers(done.stdout.count('"method"') == 2)


@WRITING.row("`buffered_stdio` (AWS Lambda)", r="no `buffered_stdio`")
def _(library: LibraryUnderTest) -> str:
    library.new_launch()
    library.launch.env["DAGSTER_PIPES_MESSAGES"] = library.lib.encode_param(
        {"buffered_stdio": "stderr"}
    )
    done = library.run(
        """
        from LIBRARY import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            pipes.log.info("text")
        """
    )
    return library.answers(done.stderr.count('"method"') == 3)


@WRITING.row("`include_stdio_in_messages`: what was printed last", r="ignored")
def _(library: LibraryUnderTest) -> str:
    library.new_launch()
    library.launch.env["DAGSTER_PIPES_MESSAGES"] = library.lib.encode_param(
        {"path": str(library.launch.messages_path), "include_stdio_in_messages": True}
    )
    begin = time.monotonic()
    library.run(
        """
        from LIBRARY import open_dagster_pipes
        with open_dagster_pipes():
            print("printed last", flush=True)
        """
    )
    took = "; closing takes seconds" if time.monotonic() - begin > 4 else ""
    methods = [method for method, _ in library.launch.sent()]
    is_last = methods[-1] == "closed"
    return f"arrives {'before' if is_last else '**after**'} `closed`{took}"


@WRITING.row("two processes with one environment", r="a second `opened` and `closed`")
def _(library: LibraryUnderTest) -> str:
    library.new_launch()
    library.run(
        """
        import subprocess, sys
        from LIBRARY import open_dagster_pipes
        with open_dagster_pipes() as pipes:
            if sys.argv[1] == "parent":
                subprocess.run([sys.executable, __file__, "child"], check=True)
        """,
        "parent",
    )
    ends = [method for method, _ in library.launch.sent()]
    return "one session" if ends == ["opened", "closed"] else "a second `opened` and `closed`"


# -- lifecycle -----------------------------------------------------------------------------------


@LIFECYCLE.row("scope of a session", r="`with_dagster_pipes(fn)`")
def _(library: LibraryUnderTest) -> str:
    forms = ["`with`"]
    if hasattr(library.lib.PipesContext, "__aenter__"):
        forms.append("`async with`")
    if hasattr(library.lib, "with_dagster_pipes"):
        forms.append("`with_dagster_pipes(fn)`")
    return ", ".join(forms)


@LIFECYCLE.row("in asyncio: methods that wait can be awaited", r=NO)
def _(library: LibraryUnderTest) -> str:
    async def main() -> bool:
        if not hasattr(library.lib.PipesContext, "aclose"):
            return False
        loader = library.lib.PipesMappingParamsLoader(library.new_launch().env)
        async with library.lib.open_dagster_pipes(params_loader=loader) as pipes:
            await pipes.drain()
            await pipes.aflush()
        return bool(pipes.is_closed)

    library.close()
    return library.answers(asyncio.run(main()), NO)


@LIFECYCLE.row("opening twice", r="a second session")
def _(library: LibraryUnderTest) -> str:
    return (
        "the open session" if library.open() is library.lib.open_dagster_pipes() else "another one"
    )


@LIFECYCLE.row("opening after a close", r="a new session")
def _(library: LibraryUnderTest) -> str:
    first = library.open()
    first.close()
    loader = library.lib.PipesMappingParamsLoader(library.new_launch().env)
    second = library.lib.open_dagster_pipes(params_loader=loader)
    outcome = "**the closed one**" if second is first else "a new session"
    second.close()
    return outcome


@LIFECYCLE.row("`get()`, `is_initialized()`", r=NO)
def _(library: LibraryUnderTest) -> str:
    return library.answers(
        library.open() is library.lib.PipesContext.get()
        and library.lib.PipesContext.is_initialized()
    )


@LIFECYCLE.row("`close` twice", r="one `closed`")
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    pipes.close()
    pipes.close()
    return "one `closed`" if len(library.sent()) == 1 else "two"


@LIFECYCLE.row("calls after `close`", r="**written**")
def _(library: LibraryUnderTest) -> str:
    pipes = library.open()
    pipes.close()
    outcomes = {
        library.error(lambda: pipes.log.info("x")),
        library.error(lambda: pipes.report_custom_message(1)),
    }
    return "raise" if None not in outcomes else "written"


@LIFECYCLE.row("`is_closed`", r=NO)
def _(library: LibraryUnderTest) -> str:
    return library.answers(not library.open().is_closed)


FAILING = """
import sys
from LIBRARY import open_dagster_pipes
with open_dagster_pipes():
    try:
        raise KeyError("first")
    except KeyError as error:
        {end}
"""


def end_of(library: LibraryUnderTest, end: str, status: int) -> dict[str, Any]:
    library.new_launch()
    done = library.run(FAILING.format(end=end))
    assert done.returncode == status, done.stderr
    method, params = library.launch.sent()[-1]
    assert method == "closed"
    exception: dict[str, Any] = params.get("exception") or {}
    return exception


@LIFECYCLE.row("an exception is sent, and the exit status is not 0", r="yes")
def _(library: LibraryUnderTest) -> str:
    return library.answers(end_of(library, 'raise ValueError("text") from error', 1))


@LIFECYCLE.row("… as `message`", r='`"text"`')
def _(library: LibraryUnderTest) -> str:
    message = end_of(library, 'raise ValueError("text") from error', 1)["message"]
    return f"`{json.dumps(message)}`"


@LIFECYCLE.row("… its cause and context", r="no")
def _(library: LibraryUnderTest) -> str:
    return library.answers(
        end_of(library, 'raise ValueError("text") from error', 1)["cause"]["name"] == "KeyError"
    )


@LIFECYCLE.row("… the members of an exception group", r=NO)
def _(library: LibraryUnderTest) -> str:
    sent = end_of(library, 'raise ExceptionGroup("text", [OSError("one " + "of them")])', 1)
    return library.answers("one of them" in str(sent))


@LIFECYCLE.row("`sys.exit(0)` in the block", r=NO)
def _(library: LibraryUnderTest) -> str:
    return "an exception" if end_of(library, "sys.exit(0)", 0) else "a clean close"


UNCLOSED = """
import signal, os, sys, time
from LIBRARY import open_dagster_pipes
pipes = open_dagster_pipes()
pipes.log.info("text")
{end}
"""


def last_of(library: LibraryUnderTest, end: str) -> str:
    library.new_launch()
    library.run(UNCLOSED.format(end=end))
    sent = library.launch.sent()
    if sent[-1][0] != "closed":
        return "no `closed`"
    exception = (sent[-1][1] or {}).get("exception") or {}
    return "`closed`" + (f", with `{exception['name']}`" if exception else "")


@LIFECYCLE.row("the interpreter exits without `close`", r="no `closed`")
def _(library: LibraryUnderTest) -> str:
    return last_of(library, "")


@LIFECYCLE.row("… by an uncaught exception", r="no `closed`")
def _(library: LibraryUnderTest) -> str:
    return last_of(library, "raise ValueError('text')")


@LIFECYCLE.row("SIGTERM", r="no `closed`")
def _(library: LibraryUnderTest) -> str:
    return last_of(library, f"os.kill(os.getpid(), {int(signal.SIGTERM)}); time.sleep(5)")


@LIFECYCLE.row("messages that cannot be written: the disk is full", r="")
def _(library: LibraryUnderTest) -> str:
    library.new_launch()
    options = "close_timeout=0.5" if library.library == "dagsterpipes" else ""
    done = library.run(
        f"""
        import os, resource, signal
        from LIBRARY import open_dagster_pipes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        pipes = open_dagster_pipes({options})
        pipes.report_custom_message("x" * 1_000_000)
        if hasattr(pipes, "flush"):
            pipes.flush()
        size = os.stat({str(library.launch.messages_path)!r}).st_size
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


def outside(library: LibraryUnderTest, body: str) -> Any:
    library.new_launch()
    library.launch.env.clear()
    return library.run(OUTSIDE.format(body=body), env=without_launch({}))


@LIFECYCLE.row("outside Dagster", r="a `NullPipesContext`")
def _(library: LibraryUnderTest) -> str:
    name = outside(library, "print(type(pipes).__name__)").stdout.strip()
    return f"a `{name}`"


@LIFECYCLE.row("… what is logged", r="is shown")
def _(library: LibraryUnderTest) -> str:
    return (
        "is shown"
        if "a log line" in outside(library, 'pipes.log.info("a log line")').stderr
        else "vanishes"
    )


@LIFECYCLE.row("… a misspelled method name", r="")
def _(library: LibraryUnderTest) -> str:
    return (
        "an error" if outside(library, "pipes.repot_custom_message(1)").returncode else "accepted"
    )


@LIFECYCLE.row("the inverse of `to_asset_key_path`", r=NO)
def _(library: LibraryUnderTest) -> str:
    return "`from_asset_key_path`" if hasattr(library.lib, "from_asset_key_path") else NO


@LIFECYCLE.row("a test kit for jobs", r=NO)
def _(library: LibraryUnderTest) -> str:
    found = importlib.util.find_spec(f"{library.library}.testing")
    return f"`{library.library}.testing`" if found is not None else NO


@LIFECYCLE.row("type hints (`py.typed`)", r=NO)
def _(library: LibraryUnderTest) -> str:
    return library.answers(Path(library.lib.__file__).with_name("py.typed").exists())
