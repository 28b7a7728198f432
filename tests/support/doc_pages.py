"""Runs the code blocks of the docs: programs under Dagster, tests under pytest.

What is done with a block of Python follows from what is in it:

- It opens a session: a program. It is written to the file that its first line names (``# job.py``)
  and launched by Dagster.
- It imports Dagster: definitions. All of its assets are materialized; they launch the programs
  before it on the page.
- Its file is ``test_*.py``: pytest runs it.
- It names another file: a module, only written.
- Else it is a piece of a job: it runs with ``pipes`` open, under Dagster; ``await`` may be used.

A script in bash that names its file is written to it, for the definitions after it.

A block of ``console`` is run by the shell, line by line after each ``$ ``, and has to print the lines that
follow, in this order; an ellipsis stands for anything.

Three kinds of blocks are seen only here, as comments ``<!-- invisible-code-block: KIND ... -->``:
``launch`` assigns options (see `Launch`) for the next block, ``given`` runs before the next piece in
the same program, and ``expect`` looks at what became of the last block, as ``run``.
"""

import ast
import dataclasses
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import dagster as dg
from sybil import Document, Example
from sybil.parsers.myst import CodeBlockParser

from support.dagster_runs import DagsterRun

FILE_NAME = re.compile(r"# ([\w./-]+\.py)\n")
SCRIPT_NAME = re.compile(r"#!.*\n# ([\w./-]+\.sh)\n")
OPENS = re.compile(r"\b(open|with)_dagster_pipes\(")
IMPORTS_DAGSTER = re.compile(r"^(import|from) dagster\b", re.MULTILINE)
PIECE = "from dagsterpipes import *\n{given}\nwith open_dagster_pipes() as pipes:\n{code}\n"
ASYNC_PIECE = (
    "import asyncio\nfrom dagsterpipes import *\n{given}\n"
    "async def main():\n"
    "    async with open_dagster_pipes() as pipes:\n{code}\n"
    "asyncio.run(main())\n"
)


@dataclasses.dataclass
class Launch:
    """How the next block is launched."""

    extras: dict[str, Any] = dataclasses.field(default_factory=dict)
    checks: tuple[str, ...] = ()
    assets: tuple[str, ...] = ("the_asset",)
    partition_key: str | None = None
    include_stdio: bool = False
    fails: bool = False
    standalone: bool = False
    written_only: bool = False
    # Runs until the page ends.
    in_background: bool = False
    arguments: tuple[str, ...] = ()
    since: tuple[int, int] = (3, 10)
    needs: tuple[str, ...] = ()


class Page:
    """One page: its folder, what it holds about the next block, and what the last one did."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.folder = folder
        self.options = Launch()
        self.given = ""
        self.namespace: dict[str, Any] = {}
        self.too_old = False
        self.background: list[subprocess.Popen[bytes]] = []
        self.document = Document.parse(
            str(path),
            CodeBlockParser("python", self.run_block),
            CodeBlockParser("console", self.run_console),
            CodeBlockParser("bash", self.write_script),
            CodeBlockParser("launch", self.set_options),
            CodeBlockParser("given", self.set_given),
            CodeBlockParser("expect", self.compare),
        )

    def run(self) -> int:
        """Run every block, in order; return how many were to be seen."""
        try:
            for example in self.document.examples():
                example.evaluate()
        finally:
            for process in self.background:
                process.kill()
                process.wait()
        runs = (self.run_block, self.run_console)
        return sum(1 for _, region in self.document.regions if region.evaluator in runs)

    def set_options(self, example: Example) -> None:
        names: dict[str, Any] = {}
        exec(example.parsed, names)
        del names["__builtins__"]
        self.options = Launch(**names)

    def set_given(self, example: Example) -> None:
        self.given = example.parsed

    def write_script(self, example: Example) -> None:
        named = SCRIPT_NAME.match(example.parsed)
        if named:
            (self.folder / named[1]).write_text(example.parsed)

    def compare(self, example: Example) -> None:
        if not self.too_old:
            code = "\n" * (example.line + example.parsed.line_offset) + example.parsed
            exec(compile(code, example.path, "exec"), self.namespace)

    def run_block(self, example: Example) -> None:
        launch, self.options = self.options, Launch()
        given, self.given = self.given, ""
        self.too_old = sys.version_info < launch.since or not all(map(shutil.which, launch.needs))
        if self.too_old:
            return
        code = example.parsed
        named = FILE_NAME.match(code)
        path = self.folder / (named[1] if named else "job.py")
        try:
            self.namespace["run"] = self.outcome(path, code, given, launch, is_named=bool(named))
        except Exception as error:
            raise AssertionError(f"{example.path}:{example.line}: {error}") from error

    def run_console(self, example: Example) -> None:
        launch, self.options = self.options, Launch()
        for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            done = call(self.folder, command, fails=launch.fails)
            wanted = ".*".join(re.escape(piece.strip()) for piece in expected.split("…"))
            if not re.search(wanted, done.stdout, re.DOTALL):
                raise AssertionError(f"{example.path}:{example.line}: got\n{done.stdout}")

    def outcome(self, path: Path, code: str, given: str, launch: Launch, *, is_named: bool) -> Any:
        if is_named and path.name.startswith("test_"):
            path.write_text(code)
            return python(self.folder, "-m", "pytest", "-q", path.name, fails=launch.fails)
        if IMPORTS_DAGSTER.search(code):
            path = path if is_named else self.folder / "definitions.py"
            path.write_text(code)
            definitions = definitions_of(path)
            return materialized(list(definitions.assets or []), launch, definitions.resources)
        if is_named or OPENS.search(code):
            path.write_text(code)
            if launch.in_background:
                command = [sys.executable, path.name]
                self.background.append(subprocess.Popen(command, cwd=self.folder))
                return None
            if launch.written_only or not OPENS.search(code):
                return None
        else:
            path.write_text(program_of(code, given))
        if launch.standalone:
            return python(self.folder, path.name, *launch.arguments, fails=launch.fails)
        return materialized([asset_of(path, launch)], launch)


def program_of(code: str, given: str) -> str:
    """A program that opens a session and runs this piece of code in it."""
    compiled = compile(code, "piece", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & inspect.CO_COROUTINE:
        return ASYNC_PIECE.format(given=given, code=textwrap.indent(code, " " * 8))
    return PIECE.format(given=given, code=textwrap.indent(code, " " * 4))


def asset_of(path: Path, launch: Launch) -> dg.AssetsDefinition:
    """An asset, or several, whose work is the program."""

    @dg.multi_asset(
        name="the_page",
        specs=[dg.AssetSpec(key.split("/")) for key in launch.assets],
        check_specs=[dg.AssetCheckSpec(name, asset=launch.assets[0]) for name in launch.checks],
        partitions_def=launch.partition_key and dg.DailyPartitionsDefinition("2026-01-01"),
    )
    def the_page(context: dg.AssetExecutionContext) -> Any:
        reader = dg.PipesTempFileMessageReader(include_stdio_in_messages=launch.include_stdio)
        completed = dg.PipesSubprocessClient(message_reader=reader).run(
            context=context,
            command=[sys.executable, path.name, *launch.arguments],
            cwd=str(path.parent),
            extras=launch.extras,
        )
        for message in completed.get_custom_messages():
            context.log.info("custom message: %r", message)
        yield from completed.get_results()

    return the_page


def definitions_of(path: Path) -> dg.Definitions:
    """The definitions of a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(v for v in vars(module).values() if isinstance(v, dg.Definitions))


def materialized(assets: list[Any], launch: Launch, resources: Any = None) -> DagsterRun:
    """Materialize and look at what Dagster says about the session."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            assets,
            instance=instance,
            raise_on_error=False,
            partition_key=launch.partition_key,
            resources={"pipes_client": dg.PipesSubprocessClient(), **(resources or {})},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        run = DagsterRun(result, instance)
    assert run.success is not launch.fails, f"success is {run.success}\n{run.pipes_errors()}"
    assert not run.pipes_warnings(), run.pipes_warnings()
    return run


def python(folder: Path, *arguments: str, fails: bool) -> "subprocess.CompletedProcess[str]":
    """Run Python without Dagster."""
    return call(folder, shlex.join([sys.executable, *arguments]), fails=fails)


def call(folder: Path, command: str, *, fails: bool) -> "subprocess.CompletedProcess[str]":
    """Run a command of the shell, on a terminal of the usual width."""
    environment = {name: value for name, value in os.environ.items() if "DAGSTER" not in name}
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**environment, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert bool(done.returncode) is fails, (
        f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done
