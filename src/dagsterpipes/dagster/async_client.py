"""A client for coroutines: many processes in one step, each cancelled with its task."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import dagster as dg

from dagsterpipes._threads import in_thread, in_thread_shielded
from dagsterpipes.dagster.clients import PipesSubprocessClient
from dagsterpipes.dagster.private import (
    DagsterPipesExecutionError,
    PipesClientCompletedInvocation,
    TreatAsResourceParam,
)
from dagsterpipes.dagster.processes import (
    POLL,
    CustomMessages,
    check_exit_code,
    end_process,
    has_ended,
    start_process,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

__all__ = ["AsyncPipesInvocation", "AsyncPipesSubprocessClient"]


class AsyncPipesInvocation(PipesClientCompletedInvocation):
    """A process that runs in a Pipes session; its results are complete when it is finished."""

    def __init__(self, session: Any, process: subprocess.Popen[bytes], stack: ExitStack) -> None:
        super().__init__(session)
        self._process = process
        self._stack = stack
        self._messages = CustomMessages(session)
        self._is_finished = False

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def custom_messages(self) -> AsyncIterator[Any]:
        """Give the payload of each custom message while the process runs, until it has ended.

        If cancelled: nothing is lost; a later call gives the rest.

        Raises:
            DagsterPipesExecutionError: As ``finish``, after the last message.
        """
        while self._process.poll() is None:
            for payload in self._messages.take():
                yield payload
            await anyio.sleep(POLL)
        failure: Exception | None = None
        try:
            await self.finish()
        except DagsterPipesExecutionError as error:
            failure = error
        for payload in self._messages.take():
            yield payload
        if failure is not None:
            raise failure

    async def finish(self) -> None:
        """Wait until the process has ended and all of its messages are read.

        If cancelled: the process goes on; leaving the ``async with`` block ends it.

        Raises:
            DagsterPipesExecutionError: The process failed, or the reader is strict and found something.
        """
        await in_thread(self._process.wait)
        if self._is_finished:
            return
        self._is_finished = True
        try:
            check_exit_code(self._process.returncode)
        except DagsterPipesExecutionError as error:
            await self._close(error)
            raise
        await self._close(None)

    async def _abort(self, cause: BaseException, end: Callable[[], None] | None) -> None:
        self._is_finished = True
        await self._close(cause, end)

    async def _close(
        self, cause: BaseException | None, end: Callable[[], None] | None = None
    ) -> None:
        def close() -> None:
            if end is not None:
                end()
            _leave(self._stack, cause)

        await in_thread_shielded(close)


class AsyncPipesSubprocessClient(TreatAsResourceParam):
    """Runs processes in Pipes sessions from a coroutine, as many at once as you like.

    Args: those of ``PipesSubprocessClient``, with the same meaning. A cancelled task, too, ends
    its process if ``forward_termination`` is true.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        context_injector: Any | None = None,
        message_reader: Any | None = None,
        forward_termination: bool = True,
        forward_stdio: bool = True,
        termination_timeout_seconds: float = 20,
    ) -> None:
        self._options = PipesSubprocessClient(
            env=env,
            cwd=cwd,
            context_injector=context_injector,
            message_reader=message_reader,
            forward_termination=forward_termination,
            forward_stdio=forward_stdio,
            termination_timeout_seconds=termination_timeout_seconds,
        )

    async def run(
        self,
        *,
        context: Any,
        extras: Mapping[str, Any] | None = None,
        command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AsyncPipesInvocation:
        """Run a command and wait for its end.

        If cancelled: the process gets SIGINT, after ``termination_timeout_seconds`` SIGTERM, and
        5 s later SIGKILL; what it reported until then is read before the cancellation goes on.

        Args:
            context: The context of the op or asset.
            extras: Parameters for the process, as its `extras`.
            command: The program and its arguments, for ``subprocess.Popen``.
            env: What to add to the environment of this process.
            cwd: Where to start it.

        Raises:
            DagsterPipesExecutionError: The process failed, or the reader is strict and found something.
        """
        async with self.launch(
            context=context, extras=extras, command=command, env=env, cwd=cwd
        ) as invocation:
            await invocation.finish()
        return invocation

    @asynccontextmanager
    async def launch(
        self,
        *,
        context: Any,
        extras: Mapping[str, Any] | None = None,
        command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AsyncIterator[AsyncPipesInvocation]:
        """Start a command; leaving the block waits for its end, or ends it after an error.

        If cancelled: as ``run``.

        Args: as for ``run``.

        Raises:
            DagsterPipesExecutionError: The process failed, or the reader is strict and found something.
        """
        options = self._options
        stack = ExitStack()
        session = stack.enter_context(
            dg.open_pipes_session(
                context=context,
                context_injector=options.context_injector,
                message_reader=options.message_reader,
                extras=extras,
            )
        )
        try:
            process = start_process(
                command,
                env=(options.env, env, session.get_bootstrap_env_vars()),
                cwd=cwd or options.cwd,
                forward_stdio=options.forward_stdio,
            )
        except BaseException as error:
            _leave(stack, error)
            raise
        invocation = AsyncPipesInvocation(session, process, stack)

        def end() -> None:
            end_process(
                process.send_signal,
                partial(has_ended, process),
                options.termination_timeout_seconds,
            )

        try:
            yield invocation
            await invocation.finish()
        except GeneratorExit as error:
            # Dagster was interrupted and has left its loop: nothing can be awaited any more.
            if options.forward_termination:
                end()
            _leave(stack, error)
            raise
        except Exception as error:
            await invocation._abort(error, end)  # noqa: SLF001 because it is the other half of that class
            raise
        except BaseException as error:  # the task was cancelled
            await invocation._abort(error, end if options.forward_termination else None)  # noqa: SLF001 because it is the other half of that class
            raise


def _leave(stack: ExitStack, cause: BaseException | None) -> None:
    """Leave the session as a ``with`` block does that ended so; its own errors are raised."""
    if cause is None:
        stack.close()
        return
    # Dagster's context managers are for errors, not for what ends a coroutine.
    error = cause if isinstance(cause, Exception) else Interrupted()
    stack.__exit__(type(error), error, error.__traceback__)


class Interrupted(Exception):  # noqa: N818 because it is no error
    """The session was left before its process had ended."""
