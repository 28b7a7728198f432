"""The logger does what `logging.Logger` does, whichever way a call takes inside."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._delivery.outbox import Outbox
from dagsterpipes._protocol.log_lines import LEVEL_TAGS, level_tag
from dagsterpipes._session.logger import SessionLogger, StderrLogger
from dagsterpipes.exceptions import InvalidReportError, SessionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEVEL_OF_TAG = {tag: name for name, tag in LEVEL_TAGS.items()}


def refusal(method: str) -> SessionClosedError:
    return SessionClosedError(f"{method}(): the session is closed")


def new_outbox() -> Outbox:
    return Outbox(list, buffer_size=1 << 20, on_full="wait", wake=lambda: None)


def sent(outbox: Outbox) -> list[tuple[str, str]]:
    found = []
    for item in outbox.take(1 << 30).items:
        assert not isinstance(item, bytes)
        tag, text = (LEVEL_TAGS["INFO"], item) if isinstance(item, str) else item
        assert type(text) is str
        found.append((LEVEL_OF_TAG[tag], text))
    return found


@pytest.fixture
def outbox() -> Outbox:
    return new_outbox()


@pytest.fixture
def log(outbox: Outbox) -> SessionLogger:
    logger = SessionLogger(outbox, refusal)
    logger.session_opened()
    return logger


class ListHandler(logging.Handler):
    """Keeps what a handler sees of a record."""

    def __init__(self, level: int = 0) -> None:
        super().__init__(level)
        self.seen: list[tuple[object, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            text = "cannot be formatted"
        self.seen.append(
            (
                record.name,
                record.levelno,
                record.levelname,
                text,
                record.funcName,
                record.lineno,
                record.pathname,
                record.exc_info and record.exc_info[0],
                record.stack_info,
                record.__dict__.get("extra_key"),
            )
        )


class Hostile:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


def raising(log: logging.Logger) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("with traceback %d", 1)


def nested(log: logging.Logger, stacklevel: int) -> None:
    log.info("from below", stacklevel=stacklevel)


CALLS: list[Callable[[logging.Logger], object]] = [
    lambda log: log.debug("plain"),
    lambda log: log.info("fmt %s %d", "a", 1),
    lambda log: log.info("%(a)s and %(b)r", {"a": 1, "b": "x"}),
    lambda log: log.info("no format", {"a": 1}),
    lambda log: log.info("%s", {"a": 1}),
    lambda log: log.info("%s", {}),
    lambda log: log.info("100%"),
    lambda log: log.info("100%% %s", "sure"),
    lambda log: log.info("too few %s %s", 1),
    lambda log: log.info("too many", 1),
    lambda log: log.info("%d", "not a number"),
    lambda log: log.info("%s", Hostile()),
    lambda log: log.info(12),
    lambda log: log.info(None),
    lambda log: log.info(["list %s"]),
    lambda log: log.info(""),
    lambda log: log.warning("warn"),
    lambda log: log.error("err %s", "x", exc_info=ValueError("given")),
    lambda log: log.error("no exception", exc_info=True),
    lambda log: log.critical("crit", stack_info=True),
    lambda log: log.fatal("fatal"),
    lambda log: log.log(15, "custom %d", 15),
    lambda log: log.log(logging.INFO, "by number"),
    lambda log: log.log(1, "very low"),
    lambda log: log.log(99, "very high"),
    lambda log: log.log(1 << 20, "enormous"),
    lambda log: log.info("extra", extra={"extra_key": "v"}),
    lambda log: nested(log, 1),
    lambda log: nested(log, 2),
    # Beyond the stack, Python 3.10 names the call itself; we, as later versions, its outermost frame.
    *([lambda log: nested(log, 99)] if sys.version_info >= (3, 11) else []),
    raising,
    lambda log: log.info("text\nof lines\x00 \ud800"),
    lambda log: log.handle(log.makeRecord("n", 20, "f", 1, "made", (), None)),
    lambda log: [log.log(5, "enabled") for _ in "x" if log.isEnabledFor(5)],  # type: ignore[func-returns-value]  # because only the call counts
]


class Twin(logging.Logger):
    """`logging.Logger` with a handler that stands for Dagster."""

    def __init__(self) -> None:
        super().__init__("dagster-pipes")
        self.sent: list[tuple[str, str]] = []
        owner = self

        class Sender(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                try:
                    text = self.format(record)
                except Exception:
                    self.handleError(record)
                else:
                    owner.sent.append((LEVEL_OF_TAG[level_tag(record.levelno)], text))

        self.addHandler(Sender())


def plain(log: logging.Logger) -> None:
    """Configure nothing: the short way."""


def with_handler(log: logging.Logger) -> None:
    log.addHandler(ListHandler())


def with_high_handler(log: logging.Logger) -> None:
    log.addHandler(ListHandler(logging.WARNING))


def with_handler_in_the_list(log: logging.Logger) -> None:
    log.handlers.append(ListHandler())


def with_handlers_assigned(log: logging.Logger) -> None:
    log.handlers = [*log.handlers, ListHandler()]


def with_filter_in_the_list(log: logging.Logger) -> None:
    log.filters += [lambda record: "o" in str(record.msg)]


def with_handler_come_and_gone(log: logging.Logger) -> None:
    handler = ListHandler()
    log.addHandler(handler)
    log.removeHandler(handler)


def with_level_assigned(log: logging.Logger) -> None:
    log.level = logging.ERROR


def with_level(log: logging.Logger) -> None:
    log.setLevel(logging.WARNING)


def with_filter(log: logging.Logger) -> None:
    log.addFilter(lambda record: "o" in str(record.msg))


def with_changing_filter(log: logging.Logger) -> None:
    def change(record: logging.LogRecord) -> bool:
        record.msg = f"changed {record.msg}"
        return True

    log.addFilter(change)


def disabled(log: logging.Logger) -> None:
    log.disabled = True


def disabled_for_all(log: logging.Logger) -> None:
    logging.disable(logging.INFO)


class OwnRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return f"own {super().getMessage()}"


def with_record_factory(log: logging.Logger) -> None:
    logging.setLogRecordFactory(OwnRecord)


SETUPS = [
    plain,
    with_handler,
    with_high_handler,
    with_handler_in_the_list,
    with_handlers_assigned,
    with_filter_in_the_list,
    with_handler_come_and_gone,
    with_level_assigned,
    with_level,
    with_filter,
    with_changing_filter,
    disabled,
    disabled_for_all,
    with_record_factory,
]


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)
    logging.setLogRecordFactory(logging.LogRecord)


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_behaves_like_logging(
    setup: Callable[[logging.Logger], None],
    call: Callable[[logging.Logger], object],
    log: SessionLogger,
    outbox: Outbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is sent, and what handlers see, is what `logging` would make of the same call."""
    twin = Twin()
    for logger in (log, twin):
        setup(logger)
        call(logger)
    errors = capsys.readouterr().err
    formatting_failed = "--- Logging error ---" in errors
    if formatting_failed:
        # `logging` drops such a message; here it is sent with its arguments behind it.
        assert len(twin.sent) == 0
        assert len(sent(outbox)) == 1
        return
    ours = sent(outbox)
    # The line of the call differs: both loops are in this function.
    assert [(level, without_stack(text)) for level, text in ours] == [
        (level, without_stack(text)) for level, text in twin.sent
    ]
    seen = [h.seen for h in log.handlers if isinstance(h, ListHandler)]
    wanted = [h.seen for h in twin.handlers if isinstance(h, ListHandler)]
    assert seen == wanted


def without_stack(text: str) -> str:
    return text.partition("Stack (most recent call last)")[0]


@pytest.mark.parametrize("call", [CALLS[1], CALLS[8], CALLS[11]])
def test_a_message_that_cannot_be_formatted_is_sent_as_it_is(
    call: Callable[[logging.Logger], object],
    log: SessionLogger,
    outbox: Outbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bad arguments are reported on stderr, never raised, and the message is not lost."""
    call(log)
    [(level, text)] = sent(outbox)
    assert level == "INFO"
    assert text in {
        "fmt a 1",
        "too few %s %s (1,)",
        "(a log message that cannot be formatted)",
    }
    assert ("--- Logging error ---" in capsys.readouterr().err) == (text != "fmt a 1")


class Lying:
    """Raises even when ``isinstance`` looks at it."""

    def _raise(self, *_: object) -> Any:
        raise ZeroDivisionError("asked for")

    __class__: Any = property(_raise)
    __str__ = __repr__ = _raise


class Deep:
    """Is printed as if by endless recursion."""

    def __repr__(self) -> str:
        raise RecursionError

    __str__ = __repr__


@pytest.mark.parametrize("kind", [Lying, Deep])
@pytest.mark.parametrize("format", ["%s", "%d", ""])
@pytest.mark.parametrize("has_handler", [False, True])
def test_arguments_that_raise_whatever_is_done_with_them(
    kind: type[Any],
    format: str,  # noqa: A002 because it is one
    has_handler: bool,
    log: SessionLogger,
    outbox: Outbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A log call is no reason for a job to fail: something is sent in their place."""
    if has_handler:
        log.addHandler(ListHandler())
    log.info(format, kind())
    log.info(kind())
    unformattable = ("INFO", "(a log message that cannot be formatted)")
    assert sent(outbox) == [unformattable, unformattable]
    del capsys  # what logging shows of it is its own business


def test_a_record_that_cannot_be_made_raises_as_in_logging(log: SessionLogger) -> None:
    """`extra` must not overwrite what a record has: that is a mistake in the call."""
    with pytest.raises(KeyError, match="overwrite"):
        log.info("x", extra={"message": 1})  # noqa: G101 because it is what is tested


@pytest.mark.parametrize("kind", [int, bytes, list, Lying])
def test_called_with_something_that_is_no_text(kind: Any, log: SessionLogger) -> None:
    """Refused, as a report is."""
    with pytest.raises(InvalidReportError, match=r"log\(\): message must be a str; got "):
        log(kind())


def test_levels_go_out_as_the_nearest_one_below_that_dagster_knows() -> None:
    """Any number, also outside of the range of the names."""
    wanted = {-5: "DEBUG", 0: "DEBUG", 5: "DEBUG", 10: "DEBUG", 19: "DEBUG", 20: "INFO"}
    wanted |= {
        25: "INFO",
        30: "WARNING",
        35: "WARNING",
        40: "ERROR",
        50: "CRITICAL",
        99: "CRITICAL",
    }
    assert {number: LEVEL_OF_TAG[level_tag(number)] for number in wanted} == wanted


def test_can_be_called_with_a_text_and_a_level(log: SessionLogger, outbox: Outbox) -> None:
    """As in R: the text as it is, the level by any of its names."""
    log("100% as it is")
    log("low", level="debug")
    log("numbered", 45)
    log("alias", level="WARN")
    assert sent(outbox) == [
        ("INFO", "100% as it is"),
        ("DEBUG", "low"),
        ("ERROR", "numbered"),
        ("WARNING", "alias"),
    ]
    with pytest.raises(InvalidReportError):
        log("x", level="LOUD")


def test_a_call_respects_the_level(log: SessionLogger, outbox: Outbox) -> None:
    """`pipes.log(...)` is not a way around setLevel."""
    log.setLevel(logging.ERROR)
    log("quiet")
    log("loud", level="ERROR")
    assert sent(outbox) == [("ERROR", "loud")]


def test_setlevel_takes_effect_after_calls(log: SessionLogger, outbox: Outbox) -> None:
    """`logging` caches levels only for loggers of its hierarchy; this one has none to go stale."""
    log.info("before")
    assert log.isEnabledFor(logging.INFO)
    log.setLevel(logging.ERROR)
    log.info("after")
    assert not log.isEnabledFor(logging.INFO)
    assert sent(outbox) == [("INFO", "before")]


def test_children_send_too_and_reach_their_parents_handlers(
    log: SessionLogger, outbox: Outbox
) -> None:
    """A child logger keeps its name, and its records go where its parent's go."""
    handler = ListHandler()
    log.addHandler(handler)
    child = log.getChild("step")
    child.info("hello")
    assert child.name == "dagster-pipes.step"
    assert sent(outbox) == [("INFO", "hello")]
    assert [row[0] for row in handler.seen] == ["dagster-pipes.step"]
    child.propagate = False
    child.info("alone")
    assert len(handler.seen) == 1
    log.setLevel(logging.ERROR)
    child.info("below the parent's level")
    assert sent(outbox) == [("INFO", "alone")]


def test_a_subclass_sees_every_record(outbox: Outbox) -> None:
    """Overridden methods are called: the short way is for the class itself only."""

    class Shouting(SessionLogger):
        def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
            record = super().makeRecord(*args, **kwargs)
            record.msg = str(record.msg).upper()
            return record

    log = Shouting(outbox, refusal)
    log.session_opened()
    log.info("hello")
    log.getChild("x").warning("child")
    assert sent(outbox) == [("INFO", "HELLO"), ("WARNING", "CHILD")]


def test_every_call_raises_once_the_session_is_closed(log: SessionLogger, outbox: Outbox) -> None:
    """Nothing is said into the void."""
    outbox.seal(lambda _: [])
    for call in (log.info, log.warning, log.exception, log):
        with pytest.raises(SessionClosedError, match="session is closed"):
            call("late")
    log.addHandler(ListHandler())
    with pytest.raises(SessionClosedError, match=r"log\.info\(\)"):
        log.info("late")


def test_what_is_logged_before_the_opening_is_queued(outbox: Outbox) -> None:
    """Nobody waits for a session that may wait for him."""
    log = SessionLogger(outbox, refusal)
    log.info("early")
    log.session_opened()
    log.info("later")
    assert sent(outbox) == [("INFO", "early"), ("INFO", "later")]


def test_outside_dagster_logs_are_readable_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Level and text, on the stderr of the moment."""
    log = StderrLogger()
    log.getChild("x").warning("look %d", 1)
    log.debug("detail")
    err = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[2] for line in err] == ["WARNING  look 1", "DEBUG    detail"]


def test_outside_dagster_a_record_names_its_caller() -> None:
    """The methods that look at the level first are not taken for the caller."""
    log = StderrLogger()
    handler = ListHandler()
    log.addHandler(handler)
    log.info("x", stacklevel=1)
    log.setLevel(logging.WARNING)
    log.info("too low")
    assert [row[4] for row in handler.seen] == ["test_outside_dagster_a_record_names_its_caller"]


@contextmanager
def records_made(log: SessionLogger) -> Iterator[list[str]]:
    """Messages of which a record was made: the long way."""
    seen: list[str] = []

    def note(record: logging.LogRecord) -> None:
        seen.append(record.getMessage())

    log._emit = note  # type: ignore[method-assign]
    yield seen
    del log._emit


def test_the_short_way_comes_back(log: SessionLogger, outbox: Outbox) -> None:
    """What ended it can be taken back; each of these decides, also for methods kept elsewhere."""
    info = log.info
    handler = ListHandler()
    steps: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: log.addHandler(handler), lambda: log.removeHandler(handler)),
        (lambda: log.addFilter(lambda _: True), lambda: log.filters.clear()),  # noqa: PLW0108 because Python 3.14 replaces the list
        (lambda: log.handlers.insert(0, handler), lambda: log.handlers.clear()),  # noqa: PLW0108 because see above
        (lambda: log.handlers.extend([handler]), lambda: log.handlers.pop()),  # noqa: PLW0108 because see above
    ]
    with records_made(log) as seen:
        for number, (change, back) in enumerate(steps):
            change()
            info("long %d", number)
            assert seen == [f"long {number}"]
            back()
            info("short %d", number)
            assert seen.pop() == f"long {number}"
    assert sent(outbox) == [("INFO", f"short {number}") for number in range(len(steps))]


def test_a_method_kept_elsewhere_follows_the_level(log: SessionLogger, outbox: Outbox) -> None:
    """And whether the logger is disabled."""
    info, error = log.info, log.error
    log.setLevel(logging.ERROR)
    info("too low")
    error("high enough")
    log.disabled = True
    error("disabled")
    log.disabled = False
    log.setLevel(logging.NOTSET)
    info("again")
    assert sent(outbox) == [("ERROR", "high enough"), ("INFO", "again")]


def test_levels_beyond_all_bounds(log: SessionLogger, outbox: Outbox) -> None:
    """Numbers that Python cannot even print."""
    log("up", level=10**5000)
    log("down", level=-(10**5000))
    log.log(10**5000, "up")
    assert sent(outbox) == [("CRITICAL", "up"), ("CRITICAL", "up")]
