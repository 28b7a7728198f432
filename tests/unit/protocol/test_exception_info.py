"""Exceptions of every kind, and mappings that describe one."""

from __future__ import annotations

import asyncio
import json
import linecache
import sys
import textwrap
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes._protocol.argument import Argument
from dagsterpipes._protocol.exception_info import (
    MAX_EXCEPTIONS,
    ExceptionLimits,
    closing_exception,
    complete_exception,
    exception_payload,
)
from dagsterpipes.exceptions import InvalidReportError
from support.doubles import PrintedText, circular_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dagsterpipes.typing import PipesException

KEYS = {"message", "stack", "name", "cause", "context"}


def raised(raise_it: Callable[[], object]) -> BaseException:
    """The exception of a call, with its traceback, as a ``with`` block would see it."""
    try:
        raise_it()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def running(source: str, **names: Any) -> BaseException:
    """The exception of a piece of source that ``linecache`` knows, as from a real file."""
    source = textwrap.dedent(source)
    filename = f"<job {len(source)} {hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return raised(lambda: exec(compile(source, filename, "exec"), {"__name__": "job", **names}))


def told(exc: BaseException) -> str:
    """What Python itself prints for the exception."""
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def links(payload: PipesException) -> Iterator[PipesException]:
    """Every entry of the chain, each checked for the shape that Dagster's handler needs."""
    entry: PipesException | None = json.loads(json.dumps(payload))
    while entry is not None:
        assert set(entry) == KEYS
        assert isinstance(entry["message"], str)
        assert isinstance(entry["name"], (str, type(None)))
        assert isinstance(entry["stack"], list)
        for line in entry["stack"]:
            assert isinstance(line, str)
            assert line.endswith("\n")
        yield entry
        assert entry["cause"] is None or entry["context"] is None
        entry = entry["cause"] or entry["context"]


def text(payload: PipesException) -> str:
    return "".join(payload["stack"])


class JobError(Exception):
    """An exception of the job's own module."""


# A plain exception


def test_message_name_and_stack() -> None:
    """The message is the plain text, the class is in the name, the stack is what Python prints."""
    exc = raised(lambda: int("x"))
    payload = exception_payload(exc)
    assert payload["message"] == "invalid literal for int() with base 10: 'x'"
    assert payload["name"] == "ValueError"
    assert payload["stack"][-1] == "ValueError: invalid literal for int() with base 10: 'x'\n"
    assert "Traceback (most recent call last):\n" + text(payload) == told(exc)
    assert payload["cause"] is None
    assert payload["context"] is None


@pytest.mark.parametrize(
    ("exc", "message", "name", "last_line"),
    [
        (ValueError(), "", "ValueError", "ValueError\n"),
        (KeyError("k"), "'k'", "KeyError", "KeyError: 'k'\n"),
        (JobError("a", 1), "('a', 1)", "JobError", f"{__name__}.JobError: ('a', 1)\n"),
        (OSError(2, "gone", "/f"), "[Errno 2] gone: '/f'", "FileNotFoundError", None),
        (asyncio.CancelledError(), "", "CancelledError", "asyncio.exceptions.CancelledError\n"),
        (asyncio.CancelledError("stop"), "stop", "CancelledError", None),
        (KeyboardInterrupt(), "", "KeyboardInterrupt", "KeyboardInterrupt\n"),
        (SystemExit(3), "3", "SystemExit", "SystemExit: 3\n"),
        (ValueError("two\nlines"), "two\nlines", "ValueError", "ValueError: two\nlines\n"),
        (ValueError("\ud800\0"), "\ud800\0", "ValueError", "ValueError: \ud800\0\n"),
    ],
)
def test_an_exception_that_was_never_raised(
    exc: BaseException, message: str, name: str, last_line: str | None
) -> None:
    """``close(exc)`` by hand: no frames, so the stack is Python's last line alone."""
    payload = exception_payload(exc)
    assert (payload["message"], payload["name"]) == (message, name)
    assert text(payload) == (last_line or told(exc)) == told(exc)
    assert list(links(payload)) == [payload]


def test_a_syntax_error_keeps_its_lines() -> None:
    """Python's last lines are several here: the place, the source, the mark, the words."""
    exc = raised(lambda: compile("a = = 1", "job.py", "exec"))
    payload = exception_payload(exc)
    assert payload["stack"][-1] == "SyntaxError: invalid syntax\n"
    assert text(payload).endswith("".join(traceback.format_exception_only(exc)))
    assert "a = = 1" in text(payload)
    assert payload["message"] == "invalid syntax (job.py, line 1)"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="add_note came with Python 3.11")
def test_notes_end_the_stack() -> None:
    """Notes follow the last line, as Python prints them."""
    exc = raised(lambda: int("x"))
    exc.add_note("row 7\nof 9")
    payload = exception_payload(exc)
    assert list(payload["stack"][-2:]) == ["row 7\n", "of 9\n"]
    assert "row 7" not in payload["message"]


def test_repeated_frames_are_joined() -> None:
    """A runaway recursion is a few lines and a count, as Python prints it."""
    exc = running("def down():\n    down()\ndown()")
    payload = exception_payload(exc)
    assert len(payload["stack"]) < 12
    assert "[Previous line repeated " in text(payload)
    assert payload["stack"][-1].startswith("RecursionError: maximum recursion depth exceeded")


# Causes and contexts


def test_cause() -> None:
    """``raise ... from`` gives a cause, which is an entry of the same kind."""
    exc = running(
        """
        try:
            {}["k"]
        except KeyError as error:
            raise ValueError("no k") from error
        """
    )
    first, second = links(exception_payload(exc))
    assert (first["name"], first["message"]) == ("ValueError", "no k")
    assert first["cause"] == second
    assert (second["name"], second["message"]) == ("KeyError", "'k'")
    assert second["stack"][-1] == "KeyError: 'k'\n"
    assert '{}["k"]' in text(second)


def test_context() -> None:
    """An error while handling another one has it as its context."""
    exc = running(
        """
        try:
            {}["k"]
        except KeyError:
            raise ValueError("no k")
        """
    )
    first, second = links(exception_payload(exc))
    assert first["context"] == second
    assert first["cause"] is None
    assert second["name"] == "KeyError"


def test_suppressed_context() -> None:
    """``from None`` hides the context, and ``from other`` hides it behind the cause."""
    for clause, names in (("None", ["ValueError"]), ("OSError()", ["ValueError", "OSError"])):
        exc = running(
            f"""
            try:
                {{}}["k"]
            except KeyError:
                raise ValueError("no k") from {clause}
            """
        )
        assert [entry["name"] for entry in links(exception_payload(exc))] == names


def test_falsy_exceptions_are_not_dropped() -> None:
    """An exception class with a length of 0 is sent, and so is what caused it."""

    class EmptyError(Exception):
        def __len__(self) -> int:
            return 0

    exc = EmptyError("outer")
    exc.__cause__ = EmptyError("middle")
    exc.__cause__.__cause__ = running("{}['k']")
    entries = list(links(exception_payload(exc)))
    assert [entry["message"] for entry in entries] == ["outer", "middle", "'k'"]
    assert "    {}['k']\n" in text(entries[2])


def test_cycles_are_cut() -> None:
    """Exceptions that cause each other are told once each."""
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__cause__ = two, one
    assert [entry["message"] for entry in links(exception_payload(one))] == ["1", "2"]
    one.__cause__ = two.__cause__ = None
    one.__suppress_context__ = two.__suppress_context__ = False
    one.__context__, two.__context__ = two, one
    assert [entry["message"] for entry in links(exception_payload(one))] == ["1", "2"]
    alone = ValueError("alone")
    alone.__cause__ = alone
    assert [entry["message"] for entry in links(exception_payload(alone))] == ["alone"]


def chained(length: int) -> BaseException:
    exc: BaseException = ValueError("0")
    for number in range(1, length):
        newer = ValueError(str(number))
        newer.__cause__ = exc
        exc = newer
    return exc


def test_a_chain_of_a_hundred_is_sent_whole() -> None:
    """Up to the limit nothing is left out."""
    messages = [entry["message"] for entry in links(exception_payload(chained(100)))]
    assert messages == [str(number) for number in reversed(range(100))]


def test_a_long_chain_keeps_its_ends() -> None:
    """Of a longer one the newest and the oldest are sent, and between them a count of the rest."""
    payload = exception_payload(chained(20_000))
    messages = [entry["message"] for entry in links(payload)]
    left_out = "[19900 exceptions of this chain are left out]"
    assert messages == [
        *(str(number) for number in range(19_999, 19_924, -1)),
        left_out,
        *(str(number) for number in range(24, -1, -1)),
    ]


# Groups


def failing_jobs() -> str:
    return """
        import asyncio

        async def fail(number):
            try:
                {}[number]
            except KeyError as error:
                raise ValueError(f"job {number}") from error

        async def inner():
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(3))
                group.create_task(fail(4))

        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(1))
                group.create_task(inner())
                group.create_task(fail(2))

        asyncio.run(main())
        """


needs_groups = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="ExceptionGroup came with Python 3.11"
)


def frameless(lines: str) -> list[str]:
    """Python's lines without the margin, which differs for the frames of the outermost group."""
    return [line.lstrip(" |+") for line in lines.splitlines()]


@needs_groups
def test_a_failing_task_group_reads_as_python_prints_it() -> None:
    """Each member has its frames, its last line and its cause, in Python's layout."""
    exc = running(failing_jobs())
    payload = exception_payload(exc)
    assert payload["name"] == "ExceptionGroup"
    assert payload["message"] == "unhandled errors in a TaskGroup (3 sub-exceptions)"
    for number in (1, 2, 3, 4):
        assert text(payload).count(f"ValueError: job {number}\n") == 1
        assert text(payload).count(f"KeyError: {number}\n") == 1
    expected = told(exc).split("  +-+---", 1)
    assert text(payload).split("  +-+---", 1)[1] == expected[1]
    header, *frames = frameless(expected[0])
    assert header == "Exception Group Traceback (most recent call last):"
    assert frameless(text(payload).split("  +-+---", 1)[0]) == frames


@needs_groups
@pytest.mark.parametrize(
    "source",
    [
        "ExceptionGroup('one', [ValueError('a')])",
        "ExceptionGroup('x', [ExceptionGroup('y', [ExceptionGroup('z', [OSError('a')])])])",
        "ExceptionGroup('x', [ExceptionGroup('y', [OSError('a')]), ValueError('b')])",
        "BaseExceptionGroup('x', [KeyboardInterrupt(), SystemExit(1)])",
        "ExceptionGroup('x', [ValueError('two\\nlines'), ValueError()])",
    ],
)
def test_groups_end_as_python_prints_them(source: str) -> None:
    """The members' lines are Python's own, for single, nested and base groups."""
    exc = eval(source)
    marks = "  +-+---"
    assert text(exception_payload(exc)).split(marks, 1)[1] == told(exc).split(marks, 1)[1]


@needs_groups
def test_a_group_as_the_cause_has_its_members_too() -> None:
    """Members are told in the entry of their group, wherever in the chain it stands."""
    exc = running(
        """
        try:
            raise ExceptionGroup("both", [ValueError("a"), OSError("b")])
        except ExceptionGroup as group:
            raise RuntimeError("failed") from group
        """
    )
    first, second = links(exception_payload(exc))
    assert "ValueError: a" not in text(first)
    assert "    | ValueError: a\n" in text(second)
    assert "    | OSError: b\n" in text(second)


@needs_groups
def test_groups_that_hold_each_other_are_cut() -> None:
    """Members whose cause or context is the group itself, or whose members are, end somewhere."""
    group = eval("ExceptionGroup('g', [ValueError('a')])")
    group.exceptions[0].__context__ = group
    assert text(exception_payload(group)).count("ValueError: a") == 1

    holder = DuckError("holder")
    holder.exceptions = [holder, ValueError("b")]
    payload = exception_payload(holder)
    assert "    | [a group that holds itself]\n" in text(payload)
    assert text(payload).count("ValueError: b") == 1


class DuckError(Exception):
    """A group by its looks only, such as the one that Python 3.10 gets from ``exceptiongroup``."""

    exceptions: Any = ()


def test_any_group_is_read_by_its_looks() -> None:
    """A class with a list of exceptions is told like Python's groups, frames included."""
    duck = DuckError("both")
    duck.exceptions = (raised(lambda: int("x")), ValueError("b"))
    payload = exception_payload(duck)
    assert f"{__name__}.DuckError: both\n" in payload["stack"]
    assert "    | Traceback (most recent call last):\n" in text(payload)
    assert "    | ValueError: invalid literal for int() with base 10: 'x'\n" in text(payload)
    assert payload["stack"][-2:] == ["    | ValueError: b\n", f"    +{'-' * 36}\n"]


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="the backport is for Python 3.10")
def test_the_backport_of_groups() -> None:
    """The groups that anyio raises on Python 3.10 are told with their members."""
    backport = pytest.importorskip("exceptiongroup")
    group = backport.ExceptionGroup("both", [ValueError("a"), OSError("b")])
    lines = text(exception_payload(group))
    assert "    | ValueError: a\n" in lines
    assert "    | OSError: b\n" in lines


@pytest.mark.parametrize("looks", ["text", ["text"], 7, [ValueError, 1], {"a": 1}])
def test_what_only_shares_the_name_is_no_group(looks: Any) -> None:
    """An attribute ``exceptions`` of another kind changes nothing."""
    duck = DuckError("alone")
    duck.exceptions = looks
    assert text(exception_payload(duck)) == told(duck)


def test_a_wide_group_is_counted() -> None:
    """Beyond the limit of members the rest is a number."""
    duck = DuckError("many")
    duck.exceptions = [ValueError(f"number {index}") for index in range(250)]
    payload = exception_payload(duck)
    assert text(payload).count("ValueError: number") == 100
    assert payload["stack"][-3:] == [
        "    +---------------- ... ----------------\n",
        "    | and 150 more exceptions\n",
        f"    +{'-' * 36}\n",
    ]


def test_a_long_chain_of_a_member_keeps_its_ends() -> None:
    """The limit on chains holds inside a group too, and what is left out is counted there."""
    duck = DuckError("one")
    duck.exceptions = [chained(500)]
    lines = text(exception_payload(duck))
    assert lines.count("    | ValueError: ") == 100
    assert "    | [400 exceptions of this chain are left out]\n" in lines
    assert lines.index("ValueError: 0\n") < lines.index("ValueError: 499\n")


def test_groups_that_share_members_do_not_explode() -> None:
    """A lattice of groups, exponential when spelled out, stays within the limits."""
    duck = DuckError("bottom")
    for level in range(30):
        above = DuckError(f"level {level}")
        above.exceptions = [duck, duck]
        duck = above
    assert len(text(exception_payload(duck))) < 50_000


def test_deep_groups_are_cut() -> None:
    """Beyond the limit of depth it is said that something is left out."""
    duck = DuckError("bottom")
    for _ in range(2000):
        above = DuckError("above")
        above.exceptions = [duck]
        duck = above
    lines = text(exception_payload(duck))
    assert "... groups nested deeper than 10 are left out\n" in lines
    assert lines.count("DuckError: above") == 11


# Whatever an exception does when it is looked at


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class WrongTextError(Exception):
    def __str__(self) -> Any:
        return 7  # noqa: PLE0307 because that is what is tried


class BrokenNotesError(Exception):
    @property
    def __notes__(self) -> Any:  # type: ignore[override] # because that is what is tried
        raise RuntimeError("no notes")


class BrokenTruthError(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class BrokenMembersError(Exception):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no members")


class UnhashableError(Exception):
    __hash__ = None  # type: ignore[assignment] # because that is what is tried

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


def odd_syntax_error() -> SyntaxError:
    exc = SyntaxError("odd")
    exc.lineno, exc.offset, exc.text, exc.filename = "x", "y", b"z", 7  # type: ignore[assignment] # because that is what is tried
    return exc


ODD: list[tuple[BaseException, str]] = [
    (BrokenError(), "<unprintable BrokenError object>"),
    (WrongTextError(), "<unprintable WrongTextError object>"),
    (BrokenNotesError("m"), "m"),
    (BrokenTruthError("m"), "m"),
    (BrokenMembersError("m"), "m"),
    (UnhashableError("m"), "m"),
]


@pytest.mark.parametrize(("exc", "message"), ODD, ids=[type(exc).__name__ for exc, _ in ODD])
def test_odd_exceptions_are_sent(exc: BaseException, message: str) -> None:
    """A class that breaks when it is looked at loses no more than what is broken."""

    def fail() -> None:
        raise exc from ValueError("root")

    entries = list(links(exception_payload(raised(fail))))
    assert entries[0]["message"] == message
    assert entries[0]["name"] == type(exc).__name__
    assert "in fail\n" in text(entries[0])
    assert any(f"{type(exc).__name__}: " in line for line in entries[0]["stack"])
    assert [entry["message"] for entry in entries[1:]] == ["root"]


def test_an_odd_syntax_error_is_sent() -> None:
    """A syntax error with fields of wrong types, as hand-made ones have, is sent in plain form."""
    (entry,) = links(exception_payload(odd_syntax_error()))
    assert entry["name"] == "SyntaxError"
    assert entry["stack"][-1].startswith("SyntaxError: odd")


def test_unprintable_arguments_are_sent() -> None:
    """The arguments' own fault does not hide the exception."""
    payload = exception_payload(ValueError(BrokenError()))
    assert payload["message"] == "<unprintable ValueError object>"
    assert payload["name"] == "ValueError"


@pytest.mark.parametrize("filename", ["/deleted/job.py", "\ud800.py", "", "a\0b.py"])
def test_a_source_that_is_gone(filename: str) -> None:
    """Frames of files that cannot be read, or cannot even exist, are sent without their source."""
    code = compile("1 / 0", "f.py", "exec").replace(co_filename=filename)
    tracer = sys.gettrace()
    sys.settrace(None)  # coverage's tracer cannot bear such names
    try:
        exc = raised(lambda: exec(code))
    finally:
        sys.settrace(tracer)
    payload = exception_payload(exc)
    assert f'  File "{filename}", line 1, in <module>\n' in text(payload)
    assert payload["stack"][-1] == "ZeroDivisionError: division by zero\n"


def test_a_loader_that_fails_is_no_matter() -> None:
    """The source of a frame is asked of its module's loader, which may raise anything."""

    class Loader:
        def get_source(self, name: str) -> str:
            raise RuntimeError("no source")

    code = compile("1 / 0", "<frozen job>", "exec")
    exc = raised(lambda: exec(code, {"__name__": "job", "__loader__": Loader()}))
    assert exception_payload(exc)["stack"][-1] == "ZeroDivisionError: division by zero\n"


# Sizes


def test_a_huge_message_is_cut_in_the_middle() -> None:
    """Beginning and end of a long text are sent, in the message and in the last line."""
    payload = exception_payload(ValueError("a" * 5_000_000 + "the end"))
    assert len(payload["message"]) < 17_000
    assert payload["message"].startswith("aaa")
    assert payload["message"].endswith("aaathe end")
    assert "[4,983,623 characters are left out]" in payload["message"]
    assert payload["stack"][-1].startswith("ValueError: aaa")
    assert payload["stack"][-1].endswith("aaathe end\n")
    assert len(payload["stack"][-1]) < 17_000


def test_many_frames_are_cut_in_the_middle() -> None:
    """Of a deep stack that does not repeat, the outermost and the innermost frames are sent."""
    exc = running(
        """
        def ping(n):
            return pong(n - 1) if n else 1 / 0

        def pong(n):
            return ping(n)

        ping(200)
        """
    )
    payload = exception_payload(exc, limits=ExceptionLimits(frames=40))
    assert len(payload["stack"]) == 42
    assert payload["stack"][10].startswith("  [3")
    assert payload["stack"][10].endswith(" frames are left out]\n")
    assert "in ping\n" in payload["stack"][-2]
    assert payload["stack"][-1] == "ZeroDivisionError: division by zero\n"


def test_the_whole_is_bounded() -> None:
    """Many large exceptions together shrink until the message is one that Dagster can take."""
    exc: BaseException = ValueError("root")
    for _ in range(90):
        newer = ValueError("\U0001f600" * 100_000)
        newer.__cause__ = exc
        exc = newer
    payload = exception_payload(exc)
    assert len(json.dumps(payload)) < 400_000
    entries = list(links(payload))
    assert len(entries) == 91
    assert entries[-1]["message"] == "root"


# Which exceptions are forwarded


@pytest.mark.parametrize(
    "exc",
    [None, SystemExit(), SystemExit(None), SystemExit(0), SystemExit(False), GeneratorExit()],
    ids=repr,
)
def test_a_clean_end(exc: BaseException | None) -> None:
    """Leaving with status 0, or because the consumer of a generator stopped, is no failure."""
    assert closing_exception(exc) is None


@pytest.mark.parametrize(
    "exc",
    [
        SystemExit(1),
        SystemExit("message"),
        SystemExit(""),
        SystemExit(0.0),
        SystemExit(256),
        ValueError(),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_anything_else_is_forwarded(exc: BaseException) -> None:
    """Every other exception is what Dagster should see, as it is."""
    assert closing_exception(exc) is exc


ARGUMENT = Argument("close", "exc")
NOTHING: dict[str, Any] = {"stack": [], "name": None, "cause": None, "context": None}


def test_a_complete_exception_stays_as_it_is() -> None:
    """All five keys, in causes and contexts too."""
    inner = {"message": "in", "stack": ["a\n"], "name": "E", "cause": None, "context": None}
    outer = {"message": "out", "stack": ["b"], "name": "F", "cause": inner, "context": inner}
    assert outer == complete_exception(outer, ARGUMENT)


def test_missing_keys_are_filled_in() -> None:
    """Only the message must be there; other keys are dropped; empty causes are none."""
    given = {
        "message": "m",
        "odd": 1,
        "cause": {"message": "c", "cause": [], "context": {}},
        "context": [],
    }
    expected = {
        **NOTHING,
        "message": "m",
        "cause": {**NOTHING, "message": "c"},
    }
    assert expected == complete_exception(given, ARGUMENT)


def test_subclasses_of_str() -> None:
    """The characters are sent, not what a subclass prints."""
    given = {"message": PrintedText("m"), "stack": (PrintedText("s"),), "name": PrintedText("n")}
    completed = complete_exception(given, ARGUMENT)
    assert [completed["message"], completed["stack"], completed["name"]] == ["m", ["s"], "n"]
    assert type(completed["message"]) is str


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("boom", "exc must be a mapping with the keys of PipesException; got 'boom' of type str"),
        ({}, "exc['message'] must be a str; got None of type NoneType"),
        ({"message": 5}, "exc['message'] must be a str; got 5 of type int"),
        (
            {"message": "m", "stack": "text"},
            "exc['stack'] must be a list of str; got 'text' of type str",
        ),
        ({"message": "m", "stack": 5}, "exc['stack'] must be a list of str; got 5 of type int"),
        ({"message": "m", "stack": ["a", 5]}, "exc['stack'][1] must be a str; got 5 of type int"),
        ({"message": "m", "name": 5}, "exc['name'] must be a str; got 5 of type int"),
        (
            {"message": "m", "cause": {"message": "c", "context": {"message": None}}},
            "exc['cause']['context']['message'] must be a str; got None of type NoneType",
        ),
        (
            {"message": "m", "cause": "text"},
            "exc['cause'] must be a mapping with the keys of PipesException; got 'text' of type str",
        ),
    ],
)
def test_other_shapes(given: Any, error: str) -> None:
    """What Dagster's handler would raise for is refused, with its place."""
    with pytest.raises(InvalidReportError) as caught:
        complete_exception(given, ARGUMENT)
    assert f"close(): {error}" == str(caught.value)


def depth(exception: Any) -> int:
    count = 0
    while exception is not None:
        exception, count = exception["cause"], count + 1
    return count


@pytest.mark.parametrize(("length", "sent"), [(200, 200), (201, 201), (5_000, 201)])
def test_long_chains(length: int, sent: int) -> None:
    """A chain of two hundred is sent whole; a note stands for the rest of a longer one."""
    exception: dict[str, Any] = {"message": "first"}
    for _ in range(length - 1):
        exception = {"message": "next", "cause": exception}
    completed: Any = complete_exception(exception, ARGUMENT)
    assert sent == depth(completed)
    assert (length > MAX_EXCEPTIONS) == ("more than 200 exceptions" in json.dumps(completed))


def test_circles() -> None:
    """An exception that is its own cause and context ends, and stays small."""
    completed = complete_exception(circular_exception(), ARGUMENT)
    assert len(json.dumps(completed)) < 100_000
