"""Random sessions of a library, the same for each, read by Dagster's handler."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster_pipes

import dagsterpipes
from dagsterpipes._protocol.envelope import FILLER
from support.dagster_handler import in_dagster
from support.launching import OP_STEP, Launch
from support.random_calls import SessionCall, SessionCallMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagster._core.pipes.context import PipesMessageHandler

SEED = 2026


class Figures(NamedTuple):
    """What became of the calls of one library."""

    sessions: int
    calls: int
    refused: int
    """Calls that raised the library's own error."""
    foreign: collections.Counter[str]
    """Calls that raised something else, by its class."""
    messages: int
    fatal: collections.Counter[str]
    """Messages that raised in Dagster's handler, where its reader ends for good, by what it raised."""
    dead: int
    """Sessions with such a message."""
    unread: int
    """Messages behind such a message in their session: never read."""


class RandomSessions:
    """Random sessions on an op.

    Args:
        folder: Where to write; a folder for each session.
        sessions: How many.
        calls: How many calls each, the close besides.
    """

    def __init__(self, folder: Path, *, sessions: int, calls: int) -> None:
        self._folder = folder
        self._sessions = sessions
        self._calls = calls
        self._tried = 0
        self._refused = 0
        self._foreign: collections.Counter[str] = collections.Counter()

    def ours(self) -> Figures:
        """Of this library: some sessions in an event loop, some with logs joined."""
        sent = []
        for number, launch, calls, ending in self._plan():
            options: dict[str, Any] = {
                "params_loader": dagsterpipes.PipesMappingParamsLoader(launch.env),
                "coalesce_logs": 0.05 if number % 3 == 0 else 0,
            }
            error = dagsterpipes.DagsterPipesError
            if number % 4 == 0:
                asyncio.run(self._in_loop(options, calls, ending))
            else:
                pipes = dagsterpipes.open_dagster_pipes(**options)
                for call in calls:
                    self._attempt(call, pipes, error)
                if not self._attempt(ending, pipes, error):
                    pipes.close()
            assert not dagsterpipes.PipesContext.is_initialized()
            sent.append(launch.messages_path.read_bytes())
        return self._figures(sent)

    async def _in_loop(
        self, options: Any, calls: Iterator[SessionCall], ending: SessionCall
    ) -> None:
        error = dagsterpipes.DagsterPipesError
        async with dagsterpipes.open_dagster_pipes(**options) as pipes:
            for call in calls:
                self._attempt(call, pipes, error)
            self._tried += 1
            try:
                if ending.name == "close":
                    await pipes.aclose(*ending.args)
                else:
                    await pipes.__aexit__(*ending.args)
            except error:
                self._refused += 1

    def theirs(self) -> Figures:
        """Of `dagster_pipes`, whose logger cannot be called."""
        sent = []
        for _, launch, calls, ending in self._plan():
            loader = dagster_pipes.PipesMappingParamsLoader(launch.env)
            pipes = dagster_pipes.open_dagster_pipes(params_loader=loader)
            error = dagster_pipes.DagsterPipesError
            for call in calls:
                if call.name != "log":
                    self._attempt(call, pipes, error)
            if not self._attempt(ending, pipes, error):
                pipes.close()
            dagster_pipes.PipesContext._instance = None
            sent.append(launch.messages_path.read_bytes())
        return self._figures(sent)

    def _plan(self) -> Iterator[tuple[int, Launch, Iterator[SessionCall], SessionCall]]:
        self._tried = self._refused = 0
        self._foreign.clear()
        maker = SessionCallMaker(SEED)
        with Path(os.devnull).open("w", errors="backslashreplace") as nowhere:
            for number in range(self._sessions):
                folder = self._folder / str(number)
                folder.mkdir(parents=True)
                launch = Launch(folder, **OP_STEP)
                calls = list(maker.session(self._calls))
                # `logging` shows there what it cannot format.
                with contextlib.redirect_stderr(nowhere):
                    yield number, launch, iter(calls), maker.ending()

    def _attempt(self, call: SessionCall, pipes: Any, own: type[Exception]) -> bool:
        self._tried += 1
        try:
            call.to(pipes)
        except own as error:
            assert str(error)
            self._refused += 1
        except Exception as error:
            self._foreign[f"{call.name}: {type(error).__name__}"] += 1
        else:
            return True
        return False

    def _figures(self, sent: list[bytes]) -> Figures:
        fatal: collections.Counter[str] = collections.Counter()
        messages, dead, unread = 0, 0, 0

        def body(new_handler: Callable[[], PipesMessageHandler]) -> None:
            nonlocal messages, dead, unread
            for lines in sent:
                handler, is_dead = new_handler(), False
                for line in lines.removesuffix(b"\n").split(b"\n"):
                    if line.rstrip() == FILLER:
                        continue
                    messages += 1
                    unread += is_dead
                    try:
                        handler.handle_message(json.loads(line))
                    except Exception as error:
                        method = json.loads(line)["method"]
                        fatal[f"{method}: {type(error).__name__}"] += 1
                        handler, is_dead = new_handler(), True
                dead += is_dead

        in_dagster(body)
        return Figures(
            len(sent), self._tried, self._refused, self._foreign, messages, fatal, dead, unread
        )
