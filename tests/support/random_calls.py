"""Random calls of a session: those of `random_reports`, logging in all its forms, closes.

A call names what is called as a user writes it after the dot, so the same one can be made of a
context of `dagster_pipes`.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from support.doubles import PrintedText, Raising
from support.random_reports import TEXTS, ReportCallMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SessionCall(NamedTuple):
    """One call: what is called, such as ``log.info`` or ``child.info``, and with what."""

    name: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012 because nobody changes it

    def to(self, pipes: Any) -> None:
        """Make the call."""
        target, name = pipes, self.name
        if name.startswith("child."):
            target, name = pipes.log.getChild("part"), name.removeprefix("child.")
        operator.attrgetter(name)(target)(*self.args, **self.options)


FORMATS = [*TEXTS, "%s", "%d", "%s is %s", "%(name)s", "100%", "%f %%", "%5.1f|%-9r"]
LEVEL_NUMBERS = [10, 20, 15, 5, 0, -3, 25, 49, 50, 60, 10**30, True]
LEVEL_METHODS = ["debug", "info", "warning", "error", "critical"]


class RaisingText(Exception):
    """An exception that raises when it is looked at."""

    __str__ = __repr__ = Raising.__str__


class Printed(Exception):
    """One that prints a str subclass."""

    def __str__(self) -> str:
        return PrintedText("text")


class SessionCallMaker(ReportCallMaker):
    """Makes random calls of a session on an op, which may report on any asset.

    Args:
        seed: The same seed makes the same calls.
    """

    def __init__(self, seed: int) -> None:
        keys = [f"table/{i}" for i in range(300)] + ["a", r"a\/b", "/", "\\"]
        super().__init__(seed, [*keys, None, "", 5, object()])

    def session(self, count: int) -> Iterator[SessionCall]:
        """As many calls of every method but the close."""
        makers: list[Callable[[], SessionCall]] = (
            [self.report] * 6 + [self.logged] * 4 + [self.free_log]
        )
        for _ in range(count):
            yield self._random.choice(makers)()

    def report(self) -> SessionCall:
        """A report, a custom message or an external stream."""
        reports = [self.materialization, self.check] * 3 + [self.custom_message, self.stream]
        call = self._random.choice(reports)()
        return SessionCall(call.method, (), call.arguments)

    def free_log(self) -> SessionCall:
        """The logger itself, called; `dagster_pipes` has no such thing."""
        return SessionCall("log", (), self.log().arguments)

    def logged(self) -> SessionCall:
        """A method of the logger, as `logging` has them."""
        message: Any = self._either(lambda: self._random.choice(FORMATS), self.value)
        args = tuple(self.value() for _ in range(self._random.choice([0, 0, 0, 1, 1, 2])))
        options: dict[str, Any] = {}
        if self._random.random() < 0.2:
            options["exc_info"] = self.raised()
        if self._random.random() < 0.1:
            options["stack_info"] = True
        if self._random.random() < 0.1:
            options["extra"] = {"user": self.value()}
        logger = self._random.choice(["log"] * 5 + ["child"])
        if self._random.random() < 0.3:
            number = self._random.choice(LEVEL_NUMBERS)
            return SessionCall(f"{logger}.log", (number, message, *args), options)
        method = self._random.choice(LEVEL_METHODS)
        return SessionCall(f"{logger}.{method}", (message, *args), options)

    # -- the end -----------------------------------------------------------------------------------

    def ending(self) -> SessionCall:
        """How a session ends: well, by an exception, or with a mapping that describes one."""
        kind = self._random.random()
        if kind < 0.2:
            return SessionCall("close")
        if kind < 0.5:
            return SessionCall("close", (self.exception(3),))
        error = self.raised()
        return SessionCall("__exit__", (type(error), error, error.__traceback__))

    def raised(self, depth: int = 2) -> BaseException:
        """An exception that was raised, perhaps from another one."""
        makers: list[Callable[[], BaseException]] = [
            lambda: ValueError(self.text()),
            lambda: KeyError(self.value()),
            lambda: OSError(2, self.text(), self.text()),
            lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            RaisingText,
            Printed,
            lambda: SystemExit(self._random.choice([0, None, 1, "text"])),
            KeyboardInterrupt,
            lambda: RuntimeError(np.float64(1.5), self.foreign()),
        ]
        error = self._random.choice(makers)()
        cause = self.raised(depth - 1) if depth and self._random.random() < 0.5 else None
        try:
            if cause is not None and self._random.random() < 0.5:
                try:
                    raise cause
                except BaseException:
                    raise error  # noqa: B904 because the context is what is wanted
            raise error from cause
        except BaseException as caught:
            return caught
