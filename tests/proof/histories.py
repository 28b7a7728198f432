"""Short sessions on the scheduler: the real outbox, drain, delivery and session, and a model of the disk.

A *history* says what each thread does. Random plans and exhaustive ones run it; the referee judges every
run. A plan that fails is made smaller, until each of its switches is needed.
"""

from __future__ import annotations

import itertools
import random
import types
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import dagsterpipes._threads
from dagsterpipes._delivery import delivery, drain, outbox, runner
from dagsterpipes._protocol import messages
from dagsterpipes._session import logger, session
from dagsterpipes._session.options import Settings
from dagsterpipes.exceptions import FlushTimeoutError, MessagesLostError, SessionClosedError
from proof.referee import Fault, Run, Sent, judge, numbers_in, read, text_of
from proof.scheduler import Hang, Mutation, Scheduler, Switch, Threading, load_with_points
from support.launching import CONTEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence


class History(NamedTuple):
    """What each thread does; the first one opens the session.

    Operations: ``log``, ``warn``, ``report``, ``long`` (a text that is never fast), ``flush``, ``room``
    (waits for room), ``arrive`` (waits until all is delivered, which nobody asks for), ``close``,
    ``fork``, ``more`` (one more thread that flushes). If it follows the child, the child does the rest.
    """

    name: str
    threads: tuple[str, ...]
    # Bytes; small ones are full at once.
    buffer_size: int = 1 << 20
    on_full: Any = "wait"
    coalesce: float = 0.0
    # Writes of the disk that fail, and after how many lines; ``...`` for all from there on.
    failures: tuple[tuple[int, int], ...] = ()
    fails_for_good: bool = False
    # The write that ends only when the close has waited for its whole time.
    stall: int = 0
    # Whether time may pass while somebody could run.
    can_pass_time: bool = True
    # Whether the session opens in a thread of its own, as under an event loop.
    opens_aside: bool = False
    follows_child: bool = False
    close_timeout: float = 30.0


HISTORIES = [
    History("two producers", ("log log close", "log report log")),
    History("flush", ("log flush log close", "log log flush")),
    History("two closers", ("log close", "report close", "log")),
    History("idle", ("log flush log flush close", "log")),
    History("opens aside", ("log report close", "log flush log"), opens_aside=True),
    History("full", ("log log report close", "log log log"), buffer_size=160),
    History(
        "full, drops", ("log report log close", "log log"), buffer_size=160, on_full="drop_logs"
    ),
    History("room", ("log log room log close", "log"), buffer_size=160),
    History(
        "failures", ("log report flush log close", "log log"), failures=((1, 0), (2, 1), (4, 0))
    ),
    History(
        "fails for good",
        ("log report log close", "log flush"),
        failures=((2, 1),),
        fails_for_good=True,
    ),
    History("stalls", ("log flush log close", "log report"), stall=2),
    History(
        "stalls, then ends", ("log flush log log close", "report log"), stall=2, can_pass_time=False
    ),
    History("delivered unasked", ("log arrive log arrive close", "log arrive")),
    History("coalesced", ("log log flush warn log close", "log report"), coalesce=0.05),
    History("fork", ("log fork log report close", "log log"), follows_child=True),
    History("fork, parent", ("log fork log close", "log report")),
    History(
        "fork while it opens", ("fork log flush close", "log"), opens_aside=True, follows_child=True
    ),
    History(
        "fork, threads", ("fork more log flush close", "log"), opens_aside=True, follows_child=True
    ),
    History("no time", ("log report close", "log log flush"), close_timeout=0.0),
    History("long", ("long log close", "log long"), buffer_size=1 << 14),
]

TINY = [
    History("log against close", ("close", "log")),
    History("report against close", ("close", "report")),
    History("flush against close", ("log close", "flush")),
    History("close against close", ("log close", "close")),
    History("wake", ("log flush log close",)),
    History("fork, tiny", ("log fork log close", "log"), follows_child=True),
    History("failure, tiny", ("log flush close",), failures=((1, 0), (2, 0))),
]


LATE = 3.0
"""Seconds after which what nobody waits for must be delivered too, when nothing fails."""


class Disk:
    """The file of a model channel: whole lines, of whichever process."""

    def __init__(self, history: History) -> None:
        self.lines: list[bytes] = []
        self.writes = 0
        self._failures = dict(history.failures)
        self._fails_for_good = history.fails_for_good
        self.stall = history.stall
        self.is_stall_over: Callable[[], bool] = lambda: True

    def lines_before_failure(self) -> int | None:
        """Begin a write: after how many lines it fails; None if it does not."""
        self.writes += 1
        if self._fails_for_good and self.writes > max(self._failures):
            return 0
        return self._failures.get(self.writes)


class ModelChannel:
    """What a file channel promises, line by line."""

    def __init__(self, disk: Disk, scheduler: Scheduler) -> None:
        self._disk = disk
        self._scheduler = scheduler
        self._backlog = b""
        self._is_guest = False
        self._is_closed = False
        self._is_writing = False

    def write(self, lines: bytes) -> None:
        if self._is_closed or self._is_writing:
            raise Fault("a write after the close, or two writes at once")
        self._is_writing = True
        try:
            self._write(lines)
        finally:
            self._is_writing = False

    def _write(self, lines: bytes) -> None:
        self._backlog += lines
        left = self._disk.lines_before_failure()
        while self._backlog:
            self._scheduler.point()
            if self._disk.writes == self._disk.stall:
                self._scheduler.wait_until(self._disk.is_stall_over)
            if self._is_guest and b'"closed"' in self._disk.lines[-1:][0]:
                raise SessionClosedError("closed before")
            if left == 0:
                raise OSError("the disk is full")
            line, newline, rest = self._backlog.partition(b"\n")
            self._disk.lines.append(line + newline)
            self._scheduler.point()
            self._backlog = rest
            if left is not None:
                left -= 1

    def unwritten(self) -> bytes:
        return self._backlog

    def close(self) -> None:
        self._is_closed = True

    def after_fork_in_child(self) -> None:
        self._is_guest = True
        self._is_writing = False
        self._backlog = b""


class Library:
    """The modules under test, with points, perhaps with mistakes put in."""

    def __init__(self, mutations: Iterable[Mutation] = ()) -> None:
        self.scheduler = Scheduler(())
        mutations = tuple(mutations)
        load = partial(load_with_points, mutations=mutations)
        self.outbox, self.drain, self.runner = load(outbox), load(drain), load(runner)
        self.delivery, self.session, self.logger = load(delivery), load(session), load(logger)
        self.threads = load(dagsterpipes._threads)
        mutated = {name for name, _, _ in mutations}
        known = {one.__name__.rpartition(".")[2] for one in self._modules()}
        assert mutated <= known, mutated - known
        self.delivery.__dict__.update(
            Drain=self.drain.Drain,
            Outbox=self.outbox.Outbox,
            ThreadRunner=self.runner.ThreadRunner,
            _keep_freed_memory=lambda: None,
            recovery=types.SimpleNamespace(keep=self._keep),
            os=types.SimpleNamespace(getpid=lambda: self.scheduler.pid),
        )
        self.session.__dict__.update(
            Delivery=self.delivery.Delivery,
            PipesLogger=self.logger.PipesLogger,
            LogLine=self.outbox.LogLine,
            run_uninterruptible=self.threads.run_uninterruptible,
            warnings=types.SimpleNamespace(warn=lambda *_, **__: None),
            exception_info=types.SimpleNamespace(prepare=lambda: None),
            process=types.SimpleNamespace(
                session_started=lambda *_, **__: None,
                session_closed=lambda _: None,
                belongs_to_other_process=lambda _: False,
                finish_at_worker_exit=lambda: None,
            ),
        )
        self.kept: list[bytes] = []

    def _modules(self) -> list[Any]:
        own = (self.outbox, self.drain, self.runner, self.delivery, self.session)
        return [*own, self.logger, self.threads]

    def _keep(self, lines: bytes) -> str:
        self.kept.append(lines)
        return "kept"

    def set_scheduler(self, scheduler: Scheduler, *, opens_aside: bool) -> None:
        """Use another scheduler from now on, for what is made from now on."""
        self.scheduler = scheduler
        self.kept = []
        model = Threading(scheduler)
        time = types.SimpleNamespace(monotonic=lambda: scheduler.now)
        for module in self._modules():
            names = module.__dict__
            names["_point"] = scheduler.point
            if "threading" in names:
                names["threading"] = model
            if "time" in names:
                names["time"] = time
        self.session.__dict__["in_coroutine"] = lambda: opens_aside


class _Endpoints:
    """The ends of a session: a channel to a model of the disk."""

    needs_loop = may_need_loop = is_joined = False

    def __init__(self, channel: ModelChannel) -> None:
        self._channel = channel

    @asynccontextmanager
    async def open(self, *, without_context: bool = False) -> AsyncIterator[Any]:
        data = None if without_context else CONTEXT
        try:
            yield types.SimpleNamespace(
                channel=self._channel,
                data=data,
                extras={},
                wants_stdio=False,
                reader_is_fast=False,
                is_joined=self.is_joined,
            )
        finally:
            self._channel.close()


OPENING_PATIENCE = ("FlushTimeoutError", "ChannelError")


class Play:
    """One run of a history by a plan."""

    def __init__(self, library: Library, history: History, plan: Sequence[Switch]) -> None:
        self.history = history
        self.scheduler = Scheduler(plan, can_pass_time=history.can_pass_time)
        self._library = library
        library.set_scheduler(self.scheduler, opens_aside=history.opens_aside)
        self.disk = Disk(history)
        channel = ModelChannel(self.disk, self.scheduler)
        library.session.__dict__["Endpoints"] = lambda *_, **__: _Endpoints(channel)
        settings = Settings(
            buffer_size=history.buffer_size,
            on_full=history.on_full,
            coalesce_logs=history.coalesce,
            handle_sigterm=False,
            close_timeout=history.close_timeout,
        )
        self.session = library.session.Session(LOADER, None, None, settings)
        self.disk.is_stall_over = lambda: bool(self.session.delivery.is_over)
        self.sent = [Sent() for _ in history.threads]
        self.close_errors: list[BaseException] = []
        self.is_child = False
        self._lines_at_fork = 0
        self._sent_before_fork: set[str] = set()

    def judge(self) -> None:
        """Run it.

        Raises:
            Fault: Something did not hold.
            Hang: It never ends.
        """
        for number, operations in enumerate(self.history.threads):
            work = partial(self._thread, number, operations.split())
            self.scheduler.spawn(work, f"thread {number}")
        self.scheduler.run()
        if not self.is_child and self.scheduler.left():
            raise Fault(f"threads are left: {self.scheduler.left()}")
        for name, error in self.scheduler.errors:
            raise Fault(f"{name} ended with {error!r}") from error
        if self.is_child:
            self._judge_child()
        else:
            self._judge()

    def _judge(self) -> None:
        errors = [one for one in self.close_errors if not isinstance(one, SessionClosedError)]
        if len(errors) > 1:
            raise Fault(f"more than one close failed: {errors}")
        judge(
            Run(
                delivered=b"".join(self.disk.lines),
                sent=self.sent,
                close_error=errors[0] if errors else None,
                recovered=b"".join(self._library.kept) if self._library.kept else None,
                dropped=self.session.delivery.outbox.dropped,
                excuses=self._excuses(),
                may_be_twice=self._may_be_twice(),
            )
        )

    def _excuses(self) -> tuple[str, ...]:
        is_lost = (
            self.history.fails_for_good or self.history.stall or not self.history.close_timeout
        )
        return ("MessagesLostError", "ChannelError") if is_lost else ()

    def _may_be_twice(self) -> bool:
        """Whether a close may give up while a write goes on."""
        gives_up = bool(self.history.stall) or not self.history.close_timeout
        return gives_up and self.history.can_pass_time

    def _judge_child(self) -> None:
        """Of what the child's one thread sent; the parent's messages are the parent's."""
        own = numbers_in(read(b"".join(self.disk.lines[self._lines_at_fork :])))
        kept = numbers_in(read(b"".join(self._library.kept)))
        sent = set(self.sent[0].accepted) - self._sent_before_fork
        if set(own) - sent or len(set(own)) < len(own):
            raise Fault(f"the child delivered {own}, of which it sent {sorted(sent)}")
        if sent - set(own) - set(kept):
            raise Fault(f"the child lost {sorted(sent - set(own) - set(kept))}")
        if not self.close_errors and sent - set(own):
            raise Fault("the child kept messages, and no error says so")
        if any(b'"closed"' in line for line in self.disk.lines[self._lines_at_fork :]):
            raise Fault("the child sent closed")

    # -- operations ------------------------------------------------------------------------------

    def _thread(self, number: int, operations: list[str]) -> None:
        if number == 0:
            self.session.start()
        for position, operation in enumerate(operations):
            getattr(self, f"_{operation}")(number, position)

    def _attempt(self, number: int, text: str, call: Callable[[], object]) -> None:
        sent = self.sent[number]
        try:
            call()
        except SessionClosedError:
            sent.refused.add(text)
        else:
            sent.accepted.append(text)

    def _log(self, number: int, position: int) -> None:
        text = text_of(number, position)
        self._attempt(number, text, lambda: self.session.log.info(text))

    def _warn(self, number: int, position: int) -> None:
        text = text_of(number, position)
        self._attempt(number, text, lambda: self.session.log.warning(text))

    def _long(self, number: int, position: int) -> None:
        text = text_of(number, position)
        padded = text + "x" * 6000
        self._attempt(number, text, lambda: self.session.log.info(padded))

    def _report(self, number: int, position: int) -> None:
        text = text_of(number, position)
        line = messages.custom_message(text)
        self._attempt(number, text, lambda: self.session.put("report_custom_message", line))

    def _room(self, number: int, position: int) -> None:
        self.session.delivery.outbox.wait_below_high_water(5.0)

    def _flush(self, number: int, position: int) -> None:
        before = set(self.sent[0].accepted) if self.is_child else self._all_accepted()
        before -= self._sent_before_fork
        try:
            self.session.flush(5.0)
        except FlushTimeoutError:
            if self.scheduler.now < 5.0:
                raise Fault("flush() gave up before its time") from None
        except SessionClosedError:
            pass
        else:
            missing = before - set(numbers_in(read(b"".join(self.disk.lines))))
            if len(missing) > self.session.delivery.outbox.dropped:
                raise Fault(f"flush() returned and these are not delivered: {sorted(missing)}")

    def _arrive(self, number: int, position: int) -> None:
        sent = set(self.sent[number].accepted)

        def is_there() -> bool:
            return sent <= set(numbers_in(read(b"".join(self.disk.lines))))

        if not self.scheduler.wait_until(is_there, LATE):
            raise Fault(f"not delivered after {LATE} s: {sorted(sent)}")

    def _more(self, number: int, position: int) -> None:
        self.scheduler.spawn(partial(self._flush, number, position), "one more")

    def _close(self, number: int, position: int) -> None:
        try:
            self.session.close(None)
            has_closed = any(b'"closed"' in line for line in self.disk.lines[-1:])
            if not (has_closed or self.is_child or self._library.kept):
                raise Fault("close() returned and closed is not delivered")
        except Exception as error:
            self.close_errors.append(error)
            if isinstance(error, MessagesLostError):
                return
            if type(error).__name__ not in ("ChannelError", "SessionClosedError"):
                raise

    def _fork(self, number: int, position: int) -> None:
        self.session.before_fork()
        if not self.history.follows_child:
            return
        self.scheduler.leave_only_current()
        self.is_child = True
        self._lines_at_fork = len(self.disk.lines)
        self._sent_before_fork = self._all_accepted()
        self.session.after_fork_in_child()

    def _all_accepted(self) -> set[str]:
        return {text for sent in self.sent for text in sent.accepted}


class _Loader:
    """Params loader; nobody asks it."""


LOADER: Any = _Loader()


# -- exploring ---------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A run that failed."""

    history: History
    seed: int | None
    plan: tuple[Switch, ...]
    fault: str
    switches: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"    {one}" for one in self.switches) or "    none"
        plan = [tuple(one) for one in self.plan]
        return (
            f"{self.history.name}, seed {self.seed}: {self.fault}\n  threads: {self.history.threads}"
            f"\n  switches:\n{steps}\n  again: explain({self.history.name!r}, {plan})"
        )


def attempt(library: Library, history: History, plan: Sequence[Switch]) -> tuple[str | None, Play]:
    """Run once; return what failed."""
    play = Play(library, history, plan)
    try:
        play.judge()
    except (Fault, Hang) as error:
        return str(error), play
    return None, play


def minimal(library: Library, history: History, plan: Sequence[Switch], seed: int | None) -> Found:
    """Leave out every switch that the failure does not need."""
    kept = list(plan)
    index = 0
    while index < len(kept):
        fewer = kept[:index] + kept[index + 1 :]
        if attempt(library, history, fewer)[0] is not None:
            kept = fewer
        else:
            index += 1
    fault, play = attempt(library, history, kept)
    return Found(history, seed, tuple(kept), fault or "?", tuple(play.scheduler.switches))


def random_plan(seed: int, steps: int) -> list[Switch]:
    """A plan of a few switches, some of them close to each other."""
    source = random.Random(seed)
    plan = []
    for _ in range(source.choice((1, 2, 3, 4, 6, 10))):
        step = source.randrange(1, steps)
        plan.append(Switch(step, source.randrange(12)))
        if source.random() < 0.4:
            plan.append(Switch(step + source.randrange(1, 40), source.randrange(12)))
    return plan


def explore(
    library: Library, histories: Sequence[History], seeds: Iterable[int]
) -> Iterator[Found | None]:
    """Run each history with each seed, in turn; yield what was found, or None, for each run."""
    steps = [attempt(library, history, ())[1].scheduler.step for history in histories]
    for seed in seeds:
        history = histories[seed % len(histories)]
        plan = random_plan(seed, steps[seed % len(histories)])
        fault, _ = attempt(library, history, plan)
        yield None if fault is None else minimal(library, history, plan, seed)


def exhaust(library: Library, history: History, switches: int) -> Iterator[Found | None]:
    """Run a history with every plan of so many switches at points up to its end."""
    steps = attempt(library, history, ())[1].scheduler.step
    fibers = 2 + len(history.threads)
    for places in itertools.combinations(range(1, steps + 1), switches):
        for choices in itertools.product(range(fibers), repeat=switches):
            plan = [Switch(*pair) for pair in zip(places, choices, strict=True)]
            fault, _ = attempt(library, history, plan)
            yield None if fault is None else minimal(library, history, plan, None)


def explain(name: str, plan: Sequence[tuple[int, int]]) -> str:
    """Run one plan again; say what failed."""
    history = next(one for one in HISTORIES + TINY if one.name == name)
    return str(minimal(Library(), history, [Switch(*one) for one in plan], None))
