"""The options of the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from dagsterpipes._protocol.launch_params import DAGSTER_PIPES_MESSAGES_ENV_VAR, decode_params
from dagsterpipes._reader.job_folder import default_folder
from dagsterpipes._reader.launch import bootstrap_env, build_context
from dagsterpipes.cli.doctor import run_doctor
from dagsterpipes.cli.events import (
    MEANINGS,
    MEANINGS_OF_FILE,
    ExitStatus,
    JsonView,
    OutputGuard,
)
from dagsterpipes.cli.jobs import run_jobs
from dagsterpipes.cli.replay import replay
from dagsterpipes.cli.running import follow_file, run_command
from dagsterpipes.cli.session_report import SessionReport
from dagsterpipes.cli.wrap import parse_level, wrap
from dagsterpipes.exceptions import ContextError, DagsterPipesError, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dagsterpipes.cli.events import Summary


def parse_timestamp(text: str) -> str:
    """Parse an end of a time window, and write it as Dagster does; without an offset it is UTC.

    Raises:
        ContextError: It is no ISO 8601 date or timestamp.
    """
    try:
        parsed = datetime.fromisoformat(text.removesuffix("Z") + "+00:00" * text.endswith("Z"))
    except ValueError:
        raise ContextError(
            "A time window needs ISO 8601 dates or timestamps, such as 2026-01-31 or"
            f" 2026-01-31T12:00:00+01:00; got {shorten(text)}."
        ) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).isoformat()


def parse_extras(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``key=text`` and ``key:=json``.

    Raises:
        ContextError: An assignment has no ``=``, no key, or no JSON after ``:=``.
    """
    extras: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        is_json = key.endswith(":")
        key = key.removesuffix(":")
        if not equals or not key:
            raise ContextError(
                f"An extra is given as key=text or key:=json; got {shorten(assignment)}."
            )
        try:
            extras[key] = json.loads(text) if is_json else text
        except ValueError as error:
            raise ContextError(f"The extra {key} is not JSON: {error}.") from None
    return extras


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ContextError: The file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ContextError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ContextError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ContextError(f"{path} must hold a JSON object; got {shorten(value)}.")
    return value


LINES_A_SECOND = 200

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

DEFAULT_ASSET = "asset"
"""The asset of a step for which none is named, as in the test kit."""


def _statuses(meanings: Mapping[ExitStatus, str]) -> str:
    rows = [f"  {status.value:>3}  {meaning}" for status, meaning in meanings.items()]
    return "\n".join(("\b", "Exit status:", *rows))


def one_of_two(text: str) -> str:
    """A value of an option that takes two, which a ``--`` never is."""
    if text == "--":
        raise click.BadParameter("it takes two values; got one before `--`.")
    return text


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


@cli.command(epilog=_statuses(MEANINGS), context_settings={"allow_interspersed_args": False})
@_view_options
@click.option("--partition", metavar="K", help="The key of the partition.")
@click.option(
    "--partition-range", nargs=2, type=one_of_two, metavar="A B", help="The first and the last key."
)
@click.option(
    "--time-window",
    nargs=2,
    type=one_of_two,
    metavar="START END",
    help="The span of the partition: ISO 8601 dates or timestamps, in UTC unless they have an offset.",
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
@click.option("--op", "is_op", is_flag=True, help="The step is an op: it has no assets.")
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
    is_op: bool,
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
    if is_op and asset_keys:
        raise click.UsageError("An op has no assets: give --op or --asset, not both.")
    _check_command(command)
    try:
        base = read_json_object(context_file) if context_file else {}
        is_default = not (asset_keys or is_op or "asset_keys" in base)
        context = build_context(
            base,
            asset_keys=(DEFAULT_ASSET,) if is_default else asset_keys or None,
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
    try:
        temporary = tempfile.TemporaryDirectory(prefix="dagsterpipes-", ignore_cleanup_errors=True)
    except OSError as error:
        raise click.UsageError(
            f"No folder for the context and the messages can be made: {error}. Set TMPDIR to a folder"
            " that exists and can be written to."
        ) from None
    with temporary:
        folder = Path(temporary.name)
        messages = messages_file or folder / "messages"
        try:
            env = bootstrap_env(context, folder, messages, include_stdio=include_stdio)
        except OSError as error:
            raise click.UsageError(f"{messages} cannot be written: {error.strerror}.") from None
        view = _open_view(as_json=as_json, quiet=quiet, rate=max_lines_per_second)
        report = SessionReport(
            # Which asset it is was nobody's choice, so any will do.
            None if is_default else context["asset_keys"],
            expected_checks,
            default_asset=DEFAULT_ASSET if is_default else None,
        )
        summary = run_command(command, env, messages, report, view)
    return _finish(view, summary)


def _check_command(command: Sequence[str]) -> None:
    """Refuse what can only be meant otherwise.

    Raises:
        click.UsageError: The program cannot be there by this name.
    """
    program = command[0]
    if program == "--":
        raise click.UsageError("Missing argument 'COMMAND...' after `--`.")
    if shutil.which(program) is not None:
        return
    path = Path(program)
    if len(command) == 1 and " " in program and not path.exists():
        raise click.UsageError(
            f"There is no program {shorten(program)}. Pass the program and its arguments separately:"
            f" dagsterpipes run -- {program}"
        )
    if path.suffix == ".py" and path.is_file():
        raise click.UsageError(
            f"{program} is not an executable program. Run it with Python:"
            f" dagsterpipes run -- python {shlex.join(command)}"
        )


def _finish(view: OutputGuard, summary: Summary) -> int:
    """Show the summary; the exit status."""
    view.finish(summary)
    if view.error is not None:
        reason = view.error.strerror or view.error
        click.echo(f"dagsterpipes: the output cannot be written: {reason}", err=True)
        return int(summary.status or ExitStatus.NOT_SHOWN)
    return int(summary.status)


@cli.command(epilog=_statuses(MEANINGS_OF_FILE))
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
    view = _open_view(as_json=as_json, quiet=quiet, rate=0, shows_progress=True)
    try:
        summary = follow_file(file, SessionReport(asset_keys, expected_checks), view)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}.") from None
    return _finish(view, summary)


@cli.command("wrap", context_settings={"allow_interspersed_args": False})
@click.option(
    "--asset",
    "asset_keys",
    multiple=True,
    metavar="KEY",
    help="An asset that the program makes, such as `raw/orders`. Repeatable."
    "  [default: those of the step]",
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    metavar="LEVEL=REGEX",
    help="Lines in which REGEX is found have this level: `ERROR=^E `. The first that is found counts, and"
    " after them the usual places. Repeatable.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def wrap_program(
    command: tuple[str, ...], *, asset_keys: tuple[str, ...], levels: tuple[str, ...]
) -> int:
    """Run COMMAND, a program that knows nothing of Dagster, in a session of its own.

    Its output is shown, and sent as log lines; their levels are those that it writes at the usual places:
    `ERROR: text`, `[warn] text`, `2026-01-31 12:00:00 DEBUG text`, `level=info`. When it succeeds, the assets
    are materialized with its exit code, duration and peak memory as metadata.

    Signals are passed on. The exit status is that of the program, 128 and the number of a signal if one
    ended it, 127 if it is not there and 126 if it cannot be started; outside Dagster too, where nothing is sent.
    """
    try:
        rules = [parse_level(text) for text in levels]
    except DagsterPipesError as error:
        raise click.UsageError(str(error)) from None
    try:
        return wrap(command, levels=rules, asset_keys=asset_keys)
    except DagsterPipesError as error:
        click.echo(f"dagsterpipes: {error}", err=True)
        return 1


@cli.command(
    "replay",
    epilog="Exit status: 0 if the messages are delivered, now or by an earlier call; 1 if they are not.",
)
@click.option(
    "--to",
    "target",
    metavar="TARGET",
    help="A messages file, - for stdout, or the folder or URL of a store."
    "  [default: where DAGSTER_PIPES_MESSAGES says]",
)
@click.option("--again", is_flag=True, help="Deliver what was delivered before, too.")
@click.argument("file", type=FILE)
def replay_file(file: Path, *, target: str | None, again: bool) -> int:
    """Deliver the messages of the recovery file FILE.

    A session leaves such a file, and names it in a MessagesLostError, when it cannot deliver its messages.
    They are delivered once: FILE.replayed records where they went, and a call that was cut short is
    continued by the same call. If `closed` stands at the end of the target, it stays last.
    """
    try:
        click.echo(replay(file, target or _target_of_session(), again=again), err=True)
    except (DagsterPipesError, OSError) as error:
        click.echo(f"dagsterpipes: {error}", err=True)
        return 1
    return 0


def _target_of_session() -> str:
    variable = os.environ.get(DAGSTER_PIPES_MESSAGES_ENV_VAR)
    params = decode_params(variable, source=DAGSTER_PIPES_MESSAGES_ENV_VAR) if variable else {}
    path = params.get("path")
    if isinstance(path, str):
        return path
    if params.get("stdio") == "stdout":
        return "-"
    raise click.UsageError(
        "Say where the messages go: --to with a messages file, - for stdout, or the folder or URL of a store."
    )


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


def _open_view(
    *, as_json: bool, quiet: bool, rate: int, shows_progress: bool = False
) -> OutputGuard:
    # Whatever the locale is: a character that it lacks must not end the runner.
    stdout = cast("TextIO", sys.stdout)
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(errors="backslashreplace")
    if as_json:
        return OutputGuard(JsonView(stdout, only_summary=quiet), _forget_stdout)
    from dagsterpipes.cli.live_view import LiveView, open_console  # noqa: PLC0415 because rich may be missing

    no_color = bool(os.environ.get("NO_COLOR"))
    status = open_console(sys.stderr, no_color=no_color) if shows_progress else None
    view = LiveView(
        open_console(stdout, no_color=no_color),
        time.monotonic,
        rate=rate,
        quiet=quiet,
        # One terminal has one line below.
        status_console=status if status is not None and not stdout.isatty() else None,
    )
    return OutputGuard(view, _forget_stdout)


def _forget_stdout() -> None:
    # Otherwise the interpreter fails to flush it at its end.
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
