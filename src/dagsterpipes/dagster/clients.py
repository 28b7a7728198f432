"""A client for processes on this machine: as Dagster's, with our reader and live custom messages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagsterpipes.dagster.private import DagsterPipesExecutionError, PipesClientCompletedInvocation
from dagsterpipes.dagster.processes import (
    POLL,
    CustomMessages,
    check_exit_code,
    end_process,
    has_ended,
    start_process,
)
from dagsterpipes.dagster.readers import PipesTempFileMessageReader

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["PipesSubprocessClient"]


class PipesSubprocessClient(dg.PipesSubprocessClient):
    """Runs a process in a Pipes session; stands in for ``dagster.PipesSubprocessClient``.

    Args:
        env: What to add to the environment of every process.
        cwd: Where to start them.
        context_injector: Dagster's for temporary files unless given.
        message_reader: ``PipesTempFileMessageReader`` of this package unless given; any reader of
            Dagster's will do.
        forward_termination: Whether to end the process when the step is interrupted: SIGINT, after
            ``termination_timeout_seconds`` SIGTERM, and 5 s later SIGKILL.
        forward_stdio: Whether the output of the process goes where Dagster's goes, or nowhere.
        termination_timeout_seconds: Seconds from SIGINT to SIGTERM.
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
        super().__init__(
            env=env,
            cwd=cwd,
            context_injector=context_injector,
            message_reader=message_reader or PipesTempFileMessageReader(),
            forward_termination=forward_termination,
        )
        # Arguments, too, in a later Dagster than the oldest.
        self.forward_stdio = forward_stdio
        self.termination_timeout_seconds = termination_timeout_seconds

    def run(
        self,
        *,
        context: Any,
        extras: Mapping[str, Any] | None = None,
        command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_custom_message: Callable[[Any], object] | None = None,
    ) -> PipesClientCompletedInvocation:
        """Run a command and wait for its end.

        Args:
            context: The context of the op or asset.
            extras: Parameters for the process, as its `extras`.
            command: The program and its arguments, for ``subprocess.Popen``.
            env: What to add to the environment of this process.
            cwd: Where to start it.
            on_custom_message: Called in this thread with the payload of each custom message, within
                about 0.1 s while the process runs. What it raises ends the process and fails
                the step.

        Returns:
            Dagster's `PipesClientCompletedInvocation`.

        Raises:
            DagsterPipesExecutionError: The process failed, or the reader is strict and found something.
        """
        messages: CustomMessages | None = None

        def deliver() -> None:
            if on_custom_message is not None and messages is not None:
                for payload in messages.take():
                    on_custom_message(payload)

        try:
            with dg.open_pipes_session(
                context=context,
                context_injector=self.context_injector,
                message_reader=self.message_reader,
                extras=extras,
            ) as session:
                messages = CustomMessages(session)
                process = start_process(
                    command,
                    env=(self.env, env, session.get_bootstrap_env_vars()),
                    cwd=cwd or self.cwd,
                    forward_stdio=self.forward_stdio,
                )
                self._wait(context, process, deliver if on_custom_message is not None else None)
                check_exit_code(process.returncode)
        except DagsterPipesExecutionError:
            deliver()  # what came before the failure
            raise
        deliver()
        return PipesClientCompletedInvocation(session)

    def _wait(
        self, context: Any, process: subprocess.Popen[bytes], deliver: Callable[[], None] | None
    ) -> None:
        def end() -> None:
            end_process(
                process.send_signal, partial(has_ended, process), self.termination_timeout_seconds
            )

        try:
            while not has_ended(process, POLL if deliver else None):
                assert deliver is not None, "without it the wait has no limit"
                deliver()
        except dg.DagsterExecutionInterruptedError:
            if self.forward_termination:
                context.log.info("[pipes] execution interrupted, ending the process.")
                end()
            raise
        except BaseException:
            end()
            raise
