"""A deterministic scheduler: threads that are switched only where a plan says, and a clock that only waits move.

The code under test is loaded from its own source, with a *point* before each statement and before each
look at what threads share, and with this module's locks and threads in the place of `threading`'s. A
thread is a greenlet. A schedule is a plan: at which points to switch, and to which thread, or that time
passes. Where a thread must wait, the next one that can run goes on. So a plan always gives the same run.
"""

from __future__ import annotations

import ast
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TIMEOUT_MAX = 1e9

MOST_STEPS = 50_000
"""Points after which a run counts as endless; the longest takes some 3,000."""

LONGEST_PAUSE = 0.4
"""Seconds that may pass while somebody could run."""


class Hang(AssertionError):
    """Nobody can run, and nobody waits for a time."""


class Switch(NamedTuple):
    """One entry of a plan: at the point with this number, switch to one of those that could run."""

    step: int
    choice: int


class Fiber:
    """A thread."""

    def __init__(
        self,
        number: int,
        name: str,
        work: Callable[[], object],
        parent: greenlet,
        *,
        is_daemon: bool,
    ) -> None:
        self.number = number
        self.name = name
        self.is_daemon = is_daemon
        self.greenlet = greenlet(work, parent)
        self.is_done = False
        # What it waits for, until when, and whether the time came first.
        self.is_ready: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.timed_out = False

    def can_run(self) -> bool:
        return not self.is_done and (self.timed_out or self.is_ready is None or self.is_ready())


class Scheduler:
    """Runs fibers by a plan.

    Args:
        plan: The switches, in any order.
        can_pass_time: Whether one of them may be that time passes while somebody could run.
    """

    def __init__(self, plan: Iterable[Switch], *, can_pass_time: bool = True) -> None:
        self.step = 0
        self.now = 0.0
        self.pid = 1
        self.fibers: list[Fiber] = []
        self.current: Fiber | None = None
        self.switches: list[str] = []
        self.errors: list[tuple[str, BaseException]] = []
        self._plan = sorted(plan, reverse=True)
        self._next = self._plan[-1].step if self._plan else MOST_STEPS
        self._can_pass_time = can_pass_time
        self._main = getcurrent()

    def spawn(self, work: Callable[[], object], name: str, *, is_daemon: bool = False) -> Fiber:
        """A new thread; it begins when it is its turn."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                if fiber in self.fibers:
                    self.errors.append((name, error))
            fiber.is_done = True

        fiber = Fiber(len(self.fibers), name, run, self._main, is_daemon=is_daemon)
        self.fibers.append(fiber)
        return fiber

    def run(self) -> None:
        """Run all fibers to their ends; daemons until they wait for what nobody will do.

        Raises:
            Hang: Some that are no daemons never end.
        """
        while any(not fiber.is_done for fiber in self.fibers):
            fiber = self._next_fiber()
            if fiber is None:
                break
            self._go(fiber)
        self.current = None
        left = [fiber.name for fiber in self.fibers if not fiber.is_done and not fiber.is_daemon]
        if left:
            raise Hang(f"these wait for ever: {', '.join(left)}")

    def left(self) -> list[str]:
        """The threads that have not ended."""
        return [fiber.name for fiber in self.fibers if not fiber.is_done]

    def point(self) -> None:
        """A switch may be here."""
        if self.current is not None:
            self.step += 1
            if self.step >= self._next:
                self._preempt()

    def wait_until(self, is_ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let others run until this holds; return whether it does, before the time is over."""
        self.point()
        fiber = self.current
        if is_ready():
            return True
        if fiber is None or (timeout is not None and timeout <= 0):
            return False
        fiber.is_ready = is_ready
        fiber.deadline = None if timeout is None else self.now + timeout
        fiber.timed_out = False
        following = self._next_fiber()
        if following is None:
            self._main.switch()
        elif following is not fiber:
            self._go(following)
        fiber.is_ready = fiber.deadline = None
        timed_out, fiber.timed_out = fiber.timed_out, False
        return not timed_out or is_ready()

    def leave_only_current(self) -> None:
        """What a fork does in the child: all other threads are gone, in whatever they were doing."""
        assert self.current is not None
        # Kept where nobody looks: to collect a greenlet would run its `finally` blocks.
        self._gone = [fiber for fiber in self.fibers if fiber is not self.current]
        self.fibers = [self.current]
        self.pid += 1

    def _go(self, fiber: Fiber) -> None:
        self.current = fiber
        fiber.greenlet.switch()

    def _next_fiber(self) -> Fiber | None:
        """The next one after the current one that can run; if none can, time passes."""
        fibers = self.fibers
        start = 0 if self.current not in fibers else fibers.index(self.current) + 1
        for fiber in fibers[start:] + fibers[:start]:
            if fiber.can_run():
                return fiber
        return self._pass_time()

    def _pass_time(self, longest: float = TIMEOUT_MAX) -> Fiber | None:
        """Let time pass until the first that waits for a time can run."""
        waiting = [
            (fiber.deadline, fiber.number, fiber)
            for fiber in self.fibers
            if fiber.deadline is not None and not fiber.timed_out
        ]
        if not waiting:
            return None
        deadline, _, first = min(waiting)
        if deadline > self.now + longest:
            return None
        self.now = max(self.now, deadline)
        first.timed_out = True
        return first

    def _preempt(self) -> None:
        if self.step >= MOST_STEPS:
            self._main.throw(Hang("this goes on for ever"))
        choice = self._plan.pop().choice
        while self._plan and self._plan[-1].step <= self.step:
            self._plan.pop()
        self._next = self._plan[-1].step if self._plan else MOST_STEPS
        others = [one for one in self.fibers if one is not self.current and one.can_run()]
        choice %= len(others) + self._can_pass_time or 1
        # The last choice is that time passes; never so much that a close gives up.
        fiber = self.current
        if choice < len(others):
            fiber = others[choice]
        elif self._can_pass_time:
            fiber = self._pass_time(LONGEST_PAUSE)
        if fiber is not None and fiber is not self.current:
            assert self.current is not None
            self.switches.append(f"step {self.step}: {self.current.name} -> {fiber.name}")
            self._go(fiber)


class Threading:
    """What the library uses of `threading`, on a scheduler."""

    TIMEOUT_MAX = TIMEOUT_MAX

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def get_ident(self) -> int:
        fiber = self._scheduler.current
        return 0 if fiber is None else fiber.number + 100

    def Lock(self) -> ModelLock:
        return ModelLock(self._scheduler)

    def RLock(self) -> ModelLock:
        return ModelRLock(self._scheduler)

    def NoLock(self) -> ModelLock:
        """A lock that locks nobody out: for mutations."""
        return NoLock(self._scheduler)

    def Condition(self, lock: ModelLock) -> ModelCondition:
        return ModelCondition(self._scheduler, lock)

    def Event(self) -> ModelEvent:
        return ModelEvent(self._scheduler)

    def Thread(self, *, target: Callable[[], object], name: str, daemon: bool) -> ModelThread:
        return ModelThread(self._scheduler, target, name)


class ModelThread:
    def __init__(self, scheduler: Scheduler, target: Callable[[], object], name: str) -> None:
        self.start = lambda: scheduler.spawn(target, name, is_daemon=True)


class ModelLock:
    """As `threading.Lock`; whoever may release it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.owner: Fiber | None = None
        self.count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        limit = (None if timeout < 0 else timeout) if blocking else 0
        if not self._scheduler.wait_until(self._is_free, limit):
            return False
        self.owner = self._scheduler.current
        self.count += 1
        return True

    def release(self) -> None:
        if not self.count:
            raise RuntimeError("release unlocked lock")
        self.count -= 1
        if not self.count:
            self.owner = None
        self._scheduler.point()

    def _is_free(self) -> bool:
        return not self.count

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class ModelRLock(ModelLock):
    """As `threading.RLock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._scheduler.current
        if self.count and self.owner is me:
            self.count += 1
            return True
        return super().acquire(blocking, timeout)


class NoLock(ModelLock):
    """Locks nobody out."""

    def _is_free(self) -> bool:
        return True

    def release(self) -> None:
        self.count = max(0, self.count - 1)


class ModelCondition:
    """As `threading.Condition`."""

    def __init__(self, scheduler: Scheduler, lock: ModelLock) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._generation = 0

    def wait(self, timeout: float | None = None) -> bool:
        lock, seen = self._lock, self._generation
        count, lock.count, lock.owner = lock.count, 0, None
        scheduler = self._scheduler
        try:
            return scheduler.wait_until(lambda: self._generation != seen, timeout)
        finally:
            me = scheduler.current
            if not isinstance(lock, NoLock):
                scheduler.wait_until(lambda: not lock.count)
            lock.owner, lock.count = me, count

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        end = None if timeout is None else self._scheduler.now + timeout
        while not predicate():
            left = None if end is None else end - self._scheduler.now
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True

    def notify_all(self) -> None:
        self._generation += 1


class ModelEvent:
    """As `threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._scheduler.point()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._scheduler.wait_until(self.is_set, timeout)


# -- loading -----------------------------------------------------------------------------------------

SHARED = frozenset(
    {"fast_path_limit", "sealed", "is_abandoned", "error", "_drain", "_flushed", "items", "is_over"}
)
"""Attributes that threads look at without a lock, or that are looked at in the middle of a statement."""


class _AddPoints(ast.NodeTransformer):
    """Puts a point before each statement of each function, and before each load of what is shared."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = self._with_points(node.body)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.body = self._with_points(node.body)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr in SHARED and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.BoolOp(ast.Or(), [_call_of_point(), node]), node)
        return node

    def _with_points(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        for statement in body:
            # The blocks inside have points of their own.
            blocks: list[tuple[Any, str, list[ast.stmt]]] = []
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for owner in (statement, *getattr(statement, "handlers", ())):
                    for name in ("body", "orelse", "finalbody"):
                        if getattr(owner, name, None):
                            blocks.append((owner, name, getattr(owner, name)))
                            setattr(owner, name, [])
            inner = self.visit(statement)
            for owner, name, block in blocks:
                setattr(owner, name, self._with_points(block))
            if not isinstance(
                inner, (ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.Pass)
            ):
                result.append(ast.copy_location(ast.Expr(_call_of_point()), inner))
            result.append(inner)
        return result


def _call_of_point() -> ast.Call:
    return ast.Call(ast.Name("_point", ast.Load()), [], [])


Mutation = tuple[str, str, str]
"""A module's name, a text in its source, and what to put in its place."""


def load_with_points(module: Any, mutations: Iterable[Mutation] = ()) -> types.ModuleType:
    """A second copy of a module, with points; it must be given `_point`, and its models."""
    path = module.__file__
    source = Path(path).read_text("utf-8")
    for name, old, new in mutations:
        if name == module.__name__.rpartition(".")[2]:
            assert source.count(old) == 1, f"{name} has {source.count(old)} times: {old}"
            source = source.replace(old, new)
    tree = ast.fix_missing_locations(_AddPoints().visit(ast.parse(source)))
    copy = types.ModuleType(module.__name__)
    copy.__file__ = path
    copy.__dict__["_point"] = lambda: None
    exec(compile(tree, path, "exec"), copy.__dict__)
    return copy
