"""The options of the command line."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from dagsterpipes._reader.job_folder import default_folder
from dagsterpipes._reader.launch import bootstrap_env, build_context
from dagsterpipes.cli.doctor import run_doctor
from dagsterpipes.cli.events import MEANINGS, BrokenPipeGuard
from dagsterpipes.cli.jobs import run_jobs
from dagsterpipes.cli.json_view import JsonView
from dagsterpipes.cli.option_values import parse_extras, parse_timestamp, read_json_object
from dagsterpipes.cli.running import follow_file, run_command
from dagsterpipes.cli.session_report import SessionReport
from dagsterpipes.exceptions import ContextError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagsterpipes.cli.events import View

__all__ = ["run_click"]

LINES_A_SECOND = 200

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

STATUSES = "\b\nExit status:\n" + "\n".join(
    f"  {status.value:>3}  {meaning}" for status, meaning in MEANINGS.items()
)


def run_click(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status; usage errors give 2."""
    try:
        status = cli.main(list(arguments), prog_name="dagsterpipes", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            version = metadata.version("dagsterpipes")
        except metadata.PackageNotFoundError:
            version = "(run from its source, not installed)"
        click.echo(f"dagsterpipes {version}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Run and understand jobs that use Dagster Pipes, without a Dagster deployment."""


def _view_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--json", "as_json", is_flag=True, help="One JSON object a line, nothing left out."
        ),
        click.option("--quiet", "-q", is_flag=True, help="Only the outcome and the problems."),
        click.option(
            "--expect-check",
            "expected_checks",
            multiple=True,
            metavar="NAME",
            help="A check that must be reported. Repeatable.",
        ),
        click.option(
            "--asset",
            "asset_keys",
            multiple=True,
            metavar="KEY",
            help="An asset of the step, such as `raw/orders`. Repeatable.",
        ),
    ):
        command = option(command)
    return command


@cli.command(epilog=STATUSES, context_settings={"allow_interspersed_args": False})
@_view_options
@click.option("--partition", metavar="K", help="The key of the partition.")
@click.option("--partition-range", nargs=2, metavar="A B", help="The first and the last key.")
@click.option(
    "--time-window",
    nargs=2,
    metavar="START END",
    help="The span of the partition, as timestamps with an offset.",
)
@click.option(
    "--extra",
    "extra_assignments",
    multiple=True,
    metavar="K=V",
    help="An extra: key=text, or key:=json. Repeatable.",
)
@click.option("--extras-file", type=FILE, help="A JSON object with extras.")
@click.option("--context-file", type=FILE, help="A JSON object with keys of the context.")
@click.option("--job-name", help="The name of the job.")
@click.option("--run-id", help="The id of the run; a new one unless given.")
@click.option("--retry-number", type=click.IntRange(min=0), help="How often it was tried before.")
@click.option(
    "--include-stdio", is_flag=True, help="Ask the command to send its output as messages."
)
@click.option(
    "--messages-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the messages in this file, for `dagsterpipes read`. It is emptied first.",
)
@click.option(
    "--max-lines-per-second",
    type=click.IntRange(min=0),
    default=LINES_A_SECOND,
    show_default=True,
    help="What the live view shows of a flood; 0 shows all.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...],
    *,
    as_json: bool,
    quiet: bool,
    expected_checks: tuple[str, ...],
    asset_keys: tuple[str, ...],
    time_window: tuple[str, str] | None,
    extra_assignments: tuple[str, ...],
    extras_file: Path | None,
    context_file: Path | None,
    run_id: str | None,
    include_stdio: bool,
    messages_file: Path | None,
    max_lines_per_second: int,
    **rest: Any,
) -> int:
    """Run COMMAND in a Dagster Pipes session, and show what it reports.

    The command can be a script in any language. It gets its context and its messages file as
    Dagster's subprocess client hands them out, and what arrives is shown live. Put `--` before the
    command if it starts with a dash.
    """
    try:
        context = build_context(
            read_json_object(context_file) if context_file else {},
            asset_keys=asset_keys or None,
            time_window=time_window
            and (parse_timestamp(time_window[0]), parse_timestamp(time_window[1])),
            extras={
                **(read_json_object(extras_file) if extras_file else {}),
                **parse_extras(extra_assignments),
            },
            run_id=run_id,
            **rest,
        )
    except ContextError as error:
        raise click.UsageError(str(error)) from None
    with tempfile.TemporaryDirectory(
        prefix="dagsterpipes-", ignore_cleanup_errors=True
    ) as temporary:
        folder = Path(temporary)
        messages = messages_file or folder / "messages"
        try:
            env = bootstrap_env(context, folder, messages, include_stdio=include_stdio)
        except OSError as error:
            raise click.UsageError(f"{messages} cannot be written: {error.strerror}.") from None
        view = _open_view(as_json=as_json, quiet=quiet, rate=max_lines_per_second)
        report = SessionReport(context["asset_keys"], expected_checks)
        summary = run_command(command, env, messages, report, view)
    view.finish(summary)
    return int(summary.status)


@cli.command(epilog=STATUSES)
@_view_options
@click.argument("file", type=click.Path(exists=True, path_type=Path))
def read(
    file: Path,
    *,
    as_json: bool,
    quiet: bool,
    expected_checks: tuple[str, ...],
    asset_keys: tuple[str, ...],
) -> int:
    """Show the session of the messages file FILE, and judge it as `run` does.

    A recovery file, which a session leaves when it cannot deliver its messages, is known by its
    name and gets an exit status of its own.
    """
    view = _open_view(as_json=as_json, quiet=quiet, rate=0)
    try:
        summary = follow_file(file, SessionReport(asset_keys, expected_checks), view)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from None
    view.finish(summary)
    return int(summary.status)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(*, as_json: bool) -> int:
    """Show what a launched process has been given, and whether it can reach Dagster.

    Shows no secrets: of extras, names and sizes only. Writes nothing to the channel. Exit status:
    0 if the process was launched by Dagster and could open its session, 1 if not.
    """
    return run_doctor(as_json=as_json)


@cli.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of all jobs. [default: $DAGSTER_HOME/dagsterpipes/jobs]",
)
@click.option("--clear", is_flag=True, help="Remove what is left of jobs that do not run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def jobs(folder: Path | None, *, clear: bool, as_json: bool) -> int:
    """List the durable jobs that run, and what is left of others.

    `DurablePipesSubprocessClient` keeps a folder for each job until its step has ended. A job that
    runs is never removed: end its run first.
    """
    folder = folder or default_folder()
    if folder is None:
        raise click.UsageError("DAGSTER_HOME is not set, so --folder must say where the jobs are.")
    return run_jobs(folder, sys.stdout, clear=clear, as_json=as_json)


def _open_view(*, as_json: bool, quiet: bool, rate: int) -> View:
    # Whatever the locale is: a character that it lacks must not end the runner.
    stdout = cast("TextIO", sys.stdout)
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(errors="backslashreplace")
    if as_json:
        return BrokenPipeGuard(JsonView(stdout, only_summary=quiet), _forget_stdout)
    from dagsterpipes.cli.live_view import LiveView, open_console  # noqa: PLC0415 because rich may be missing

    console = open_console(stdout, no_color=bool(os.environ.get("NO_COLOR")))
    return BrokenPipeGuard(
        LiveView(console, time.monotonic, rate=rate, quiet=quiet), _forget_stdout
    )


def _forget_stdout() -> None:
    # Otherwise the interpreter fails to flush it at its end.
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
