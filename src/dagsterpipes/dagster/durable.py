"""A client whose jobs outlive the run worker: a re-execution reattaches to its job."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from dagsterpipes._reader.job_folder import (
    Absent,
    Ended,
    Gone,
    JobFolder,
    Running,
    default_folder,
)
from dagsterpipes.dagster.ingest import Ingest
from dagsterpipes.dagster.private import (
    DagsterPipesExecutionError,
    PipesClientCompletedInvocation,
    TreatAsResourceParam,
    metadata_of,
    note_event,
    step_key_of,
)
from dagsterpipes.dagster.processes import POLL, check_exit_code, end_process
from dagsterpipes.dagster.readers import message_params, reading
from dagsterpipes.exceptions import ContextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagsterpipes._reader.job_folder import JobState
    from dagsterpipes._reader.tail import TailedLine
    from dagsterpipes.dagster.private import EventTable

__all__ = ["DurablePipesSubprocessClient"]

JOB, FOLDER = "dagsterpipes/job", "dagsterpipes/folder"
STORED, DONE = "dagsterpipes/stored", "dagsterpipes/done"
"""Keys of the metadata with which the run's log tells how far the messages of a job are stored."""

STEP_ENDS = frozenset({"STEP_SUCCESS", "STEP_FAILURE", "STEP_UP_FOR_RETRY"})

NOTE_INTERVAL = 1.0
"""Seconds between two notes where lines are stored one by one."""

MAX_ANCESTORS = 64
"""Executions of a run that are looked through."""


class DurablePipesSubprocessClient(TreatAsResourceParam):
    """Runs jobs that go on when the run worker is killed.

    The job is a process session of its own, with its messages and its output in a folder. When the
    run is executed again, from its failure or as a whole, and the job still runs or has succeeded,
    the step reattaches to it and stores the log lines that are not stored yet, each exactly once
    with SQLite and Postgres (elsewhere, those of about the last second may come twice); reports are
    read again, as none of them had been yielded. A job that failed, or of which nothing is left,
    is started again, with a warning that says why. When the step has ended, the folder is removed.

    A job outlives the worker, not its machine, container or pod. POSIX only.

    Args:
        env: What to add to the environment of every job.
        cwd: Where to start them.
        folder: Where the folders of the jobs go; ``$DAGSTER_HOME/dagsterpipes/jobs`` unless given.
            Every worker that may execute the run again must see it.
        strict: As for ``PipesTempFileMessageReader``.
        include_stdio_in_messages: Whether the jobs are asked to send their output as messages.
        forward_termination: Whether to end the job when the step is interrupted, as a terminated
            run is; if not, the job goes on and can be attached to.
        forward_stdio: Whether the output of the job is kept, and goes where Dagster's goes.
        termination_timeout_seconds: Seconds from SIGINT to SIGTERM.

    Threads: a client may run many jobs at once; give each a ``name`` then.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        strict: bool = False,
        include_stdio_in_messages: bool = False,
        forward_termination: bool = True,
        forward_stdio: bool = True,
        termination_timeout_seconds: float = 20,
    ) -> None:
        self._env = dict(env or {})
        self._cwd = cwd
        self._folder = None if folder is None else Path(folder)
        self._strict = strict
        self._include_stdio = include_stdio_in_messages
        self._forward_termination = forward_termination
        self._forward_stdio = forward_stdio
        self._grace = termination_timeout_seconds

    def run(
        self,
        *,
        context: Any,
        extras: Mapping[str, Any] | None = None,
        command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        name: str | None = None,
    ) -> PipesClientCompletedInvocation:
        """Run a command, or reattach to the job that an earlier execution of this step started.

        Args:
            context: The context of the op or asset.
            extras: Parameters for the job, as its `extras`.
            command: The program and its arguments.
            env: What to add to the environment of this job.
            cwd: Where to start it.
            name: Tells several jobs of one step apart; unless given, their order does.

        Returns:
            Dagster's `PipesClientCompletedInvocation`.

        Raises:
            ChannelError: Another process reads this job.
            ContextError: It is not known where to keep the job.
            DagsterPipesExecutionError: The job failed, or ``strict`` found something.
            FileNotFoundError: There is no such program.
        """
        step = step_key_of(context)
        job = JobFolder(self._base() / _place(context, step, name))
        words = [command] if isinstance(command, str) else list(command)
        with job.attached():
            state = job.state()
            if isinstance(state, Gone) or (isinstance(state, Ended) and state.code != 0):
                self._leave_behind(context, step, job, state)
                state = Absent()
            elif isinstance(state, Absent):
                _warn_of_missing(context, step)
            try:
                if isinstance(state, Absent):
                    merged = {**os.environ, **self._env, **(env or {})}
                    session = self._start(context, step, job, extras, words, merged, cwd)
                else:
                    session = self._reattach(context, step, job)
            except DagsterPipesExecutionError:
                job.remove()  # whoever executes the step again wants another try
                raise
            except BaseException:
                # Interrupted, unless it could not be started: a job that runs is left to run.
                if not isinstance(job.state(), Running):
                    job.remove()
                raise
            _remove_when_step_ends(context, step, job)
        return PipesClientCompletedInvocation(session)

    def _base(self) -> Path:
        base = self._folder or default_folder()
        if base is None:
            raise ContextError(
                "DurablePipesSubprocessClient does not know where to keep its jobs: set DAGSTER_HOME,"
                " or pass `folder`, which every worker that may execute the run again can see."
            )
        return base

    def _start(
        self,
        context: Any,
        step: str,
        job: JobFolder,
        extras: Mapping[str, Any] | None,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
    ) -> Any:
        if shutil.which(command[0], path=env.get("PATH")) is None:
            raise FileNotFoundError(f"There is no program {command[0]!r} to run.")
        token = job.prepare(run=context.run.run_id, step=step, command=list(command))
        marks = Marks(context, step, token, job.path)
        context.instance.handle_new_event(marks.event(f"[pipes] starting a job in {job.path}"))
        with self._session(context, job, marks, extras) as session:
            job.start(
                command,
                env={**env, **session.get_bootstrap_env_vars()},
                cwd=cwd or self._cwd,
                output=self._forward_stdio,
            )
            self._wait(context, job, marks)
        return session

    def _reattach(self, context: Any, step: str, job: JobFolder) -> Any:
        marks = Marks(context, step, str((job.record() or {})["token"]), job.path)
        context.log.info("[pipes] reattached to the job in %s at byte %d", job.path, marks.stored)
        with self._session(context, job, marks, None) as session:
            self._wait(context, job, marks)
        return session

    def _leave_behind(self, context: Any, step: str, job: JobFolder, state: JobState) -> None:
        """Store what a job that failed still had to say, and forget it."""
        marks = Marks(context, step, str((job.record() or {})["token"]), job.path)
        marks.done = True
        with self._session(context, job, marks, None, strict=False):
            pass  # the file is read to its end
        why = f"it failed with code {state.code}" if isinstance(state, Ended) else state.why  # type: ignore[union-attr] # because the others do not come here
        context.log.warning(
            "[pipes] cannot reattach to the job that an earlier execution of this step started:"
            " %s. It is started again.",
            why,
        )
        job.clear()

    @contextmanager
    def _session(
        self,
        context: Any,
        job: JobFolder,
        marks: Marks,
        extras: Mapping[str, Any] | None,
        *,
        strict: bool | None = None,
    ) -> Iterator[Any]:
        reader = FolderReader(
            job,
            marks,
            include_stdio=self._include_stdio,
            strict=self._strict if strict is None else strict,
        )
        with dg.open_pipes_session(
            context=context,
            context_injector=FolderInjector(job),
            message_reader=reader,
            extras=dict(extras or {}),
        ) as session:
            yield session

    def _wait(self, context: Any, job: JobFolder, marks: Marks) -> None:
        output = {number: path.open("rb", buffering=0) for number, path in _output_of(job).items()}
        try:
            while True:
                state = job.state()
                for number, file in output.items():
                    while chunk := file.read(1 << 16):
                        os.write(number, chunk)
                if not isinstance(state, Running):
                    break
                time.sleep(POLL)
        except dg.DagsterExecutionInterruptedError:
            if self._forward_termination:
                context.log.info("[pipes] execution interrupted, ending the job.")
                end_process(job.send, job.has_ended, self._grace)
            raise
        finally:
            for file in output.values():
                file.close()
        marks.done = True
        if isinstance(state, Ended):
            check_exit_code(state.code)
        elif isinstance(state, Gone):
            raise DagsterPipesExecutionError(f"The job in {job.path} is gone: {state.why}")


class Marks:
    """How far the messages of a job are stored: a note in the run's log, moved with each batch.

    Args:
        context: The context of the step.
        step: Its key.
        token: Of the job.
        folder: Of the job.

    Threads: one at a time.
    """

    def __init__(self, context: Any, step: str, token: str, folder: Path) -> None:
        self._context = context
        self._step = step
        self._token = token
        self._folder = folder
        self._number: int | None = None  # of the note in the table
        self._new_number: int | None = None  # the same, while it may still be undone
        self._noted_at = time.monotonic()
        self.position = 0  # up to where the messages have been taken
        self.done = False  # nothing more will come
        self.stored = max(
            (m[STORED].value for m in _notes(context, step) if m[JOB].value == token), default=0
        )

    def note(self, table: EventTable, connection: Any) -> None:
        """Write the present position; ``confirm`` follows if it could be committed."""
        row = table.row(self.event(f"[pipes] stored the messages up to byte {self.position}"))
        if self._number is None:
            self._new_number = table.insert_one(connection, row)
        else:
            table.replace(connection, self._number, row)

    def confirm(self) -> None:
        """The transaction of the last ``note`` is committed."""
        self._number = self._new_number or self._number

    def note_singly(self, *, now: bool = False) -> None:
        """Write the present position as an event of its own, once a second."""
        if now or time.monotonic() - self._noted_at >= NOTE_INTERVAL:
            self._noted_at = time.monotonic()
            text = f"[pipes] stored the messages up to byte {self.position}"
            self._context.instance.handle_new_event(self.event(text))

    def event(self, text: str) -> Any:
        """The note as an event of Dagster's."""
        return note_event(
            self._context,
            self._step,
            text,
            {
                JOB: dg.MetadataValue.text(self._token),
                FOLDER: dg.MetadataValue.path(str(self._folder)),
                STORED: dg.MetadataValue.int(self.position),
                DONE: dg.MetadataValue.bool(self.done),
            },
        )


class FolderInjector(dg.PipesContextInjector):
    """Writes the context into the job's folder, unless the job has it already."""

    def __init__(self, job: JobFolder) -> None:
        self._job = job

    @contextmanager
    def inject_context(self, context_data: Any) -> Iterator[dict[str, Any]]:
        """Give the params that lead the job to its context."""
        if not self._job.context.stat().st_size:
            self._job.context.write_text(json.dumps(context_data), encoding="utf-8")
        yield {"path": str(self._job.context)}

    def no_messages_debug_text(self) -> str:
        """Say where the context is."""
        return f"Attempted to inject context via file {self._job.context}"


class FolderReader(dg.PipesMessageReader):
    """Reads the messages of a job from the beginning, and logs what is not stored yet."""

    def __init__(self, job: JobFolder, marks: Marks, *, include_stdio: bool, strict: bool) -> None:
        self._job = job
        self._marks = marks
        self._include_stdio = include_stdio
        self._strict = strict

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, Any]]:
        """Read until the block ends, and then to the end of the file."""
        marks, ingest = self._marks, Ingest(handler, time.monotonic, self._marks)

        def take(line: TailedLine) -> None:
            marks.position += len(line.data)
            ingest.take(line, log=marks.position > marks.stored)
            if not ingest.is_batched:
                marks.note_singly()

        with reading(self._job.messages, ingest, strict=self._strict, take=take):
            yield message_params(self._job.messages, include_stdio=self._include_stdio)
        if not ingest.is_batched:
            marks.note_singly(now=True)

    def no_messages_debug_text(self) -> str:
        """Say where messages were looked for."""
        return f"Attempted to read messages from file {self._job.messages}."


_calls: Counter[tuple[str, str, int]] = Counter()
"""How many jobs without a name each step of this process has asked for."""


def _place(context: Any, step: str, name: str | None) -> Path:
    """Where the job of this step is, below the base; the same whenever the run is executed again."""
    run = context.run
    if name is None:
        key = (run.run_id, step, context.retry_number)
        name = str(_calls[key])
        _calls[key] += 1
    return Path(run.root_run_id or run.run_id, quote(f"{step}.{name}", safe=""))


def _output_of(job: JobFolder) -> dict[int, Path]:
    return {number: path for number, path in job.output.items() if path.exists()}


def _notes(context: Any, step: str) -> Iterator[Mapping[str, Any]]:
    """The notes that this step left in its run and in those that it is an execution again of."""
    run, instance = context.run, context.instance
    for _ in range(MAX_ANCESTORS):
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            metadata = metadata_of(entry)
            if entry.step_key == step and JOB in metadata:
                yield metadata
        run = run.parent_run_id and instance.get_run_by_id(run.parent_run_id)
        if not run:
            return


def _warn_of_missing(context: Any, step: str) -> None:
    jobs: dict[str, bool] = {}
    folders: dict[str, str] = {}
    for note in _notes(context, step):
        token = note[JOB].value
        folders[token] = note[FOLDER].value
        jobs[token] = jobs.get(token, False) or note[DONE].value
    for token, done in jobs.items():
        if not done and JobFolder(Path(folders[token])).record() is None:
            context.log.warning(
                "[pipes] the folder %s of a job that an earlier execution of this step started is"
                " gone, so the job is started again. If the first one still runs, end it.",
                folders[token],
            )


def _remove_when_step_ends(context: Any, step: str, job: JobFolder) -> None:
    """Not before: if the worker is killed until then, the run will be executed again."""

    def listen(entry: Any) -> None:
        event = entry.dagster_event
        if event is not None and entry.step_key == step and event.event_type_value in STEP_ENDS:
            job.remove()

    context.instance.add_event_listener(context.run.run_id, listen)
