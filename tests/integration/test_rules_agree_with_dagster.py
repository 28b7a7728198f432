"""The rules say about every line what Dagster's own reader and handler do with it."""

from __future__ import annotations

import contextlib
import io
import json
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagsterpipes._reader.line import Ignored, judge_line
from dagsterpipes._reader.rules import Refused
from dagsterpipes._reader.session import StreamRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

dagster = pytest.importorskip("dagster")

from dagster._core.pipes.context import PipesMessageHandler  # noqa: E402
from dagster._core.pipes.utils import PipesFileMessageReader  # noqa: E402

# Dagster's own code uses what Dagster calls a preview, or deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is currently in preview", "ignore:AssetExecutionContext.run_id is deprecated"
)


def outcome(job: Callable[[Any], Any], context: Any) -> tuple[Any, BaseException | None]:
    try:
        return job(context), None
    except BaseException as error:
        return None, error


class RunningStep:
    """A step of a real Dagster run, kept going in a thread; what is handed in runs inside it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "messages"
        self._jobs: queue.Queue[Callable[[Any], Any] | None] = queue.Queue()
        self._results: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        def body(context: Any) -> None:
            for job in iter(self._jobs.get, None):
                self._results.put(outcome(job, context))

        body.__annotations__ = {"context": dagster.AssetExecutionContext}
        dagster.materialize([dagster.asset(name="subject")(body)])

    def call(self, job: Callable[[Any], Any]) -> Any:
        self._jobs.put(job)
        result, error = self._results.get(timeout=60)
        if error is not None:
            raise error
        return result

    def refusal(self, content: bytes) -> BaseException | None:
        """What stops Dagster's file reader in a messages file with this content."""

        def read(context: Any) -> BaseException | None:
            self._file.write_bytes(content)
            reader = PipesFileMessageReader(str(self._file))
            session_closed = threading.Event()
            session_closed.set()
            # As strict about encoding as the sys.stdout of a run worker, which pytest's is not.
            stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            try:
                with contextlib.redirect_stdout(stdout):
                    reader._reader_thread(PipesMessageHandler(context, reader), session_closed)
            except BaseException as error:
                return error
            return None

        refusal: BaseException | None = self.call(read)
        return refusal

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStep]:
    running = RunningStep(tmp_path_factory.mktemp("step"))
    yield running
    running.stop()


def message(method: str, params: object) -> dict[str, Any]:
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


def error(**changes: object) -> dict[str, Any]:
    return {"message": "m", "stack": ["s"], "name": "N", "cause": None, "context": None, **changes}


def materialization(**metadata: object) -> dict[str, Any]:
    return message(
        "report_asset_materialization",
        {"asset_key": "subject", "data_version": None, "metadata": metadata},
    )


def typed(raw_value: object, declared: object) -> dict[str, Any]:
    return materialization(k={"raw_value": raw_value, "type": declared})


def column(**changes: object) -> dict[str, Any]:
    return {"name": "a", "type": "int", **changes}


def dep(**changes: object) -> dict[str, Any]:
    return {"asset_key": ["up"], "column_name": "c", **changes}


def each(*values: Any) -> tuple[Any, ...]:
    return values


CHECK: dict[str, Any] = {
    "asset_key": "a",
    "check_name": "c",
    "passed": True,
    "severity": "WARN",
    "metadata": None,
}

VALID = [
    message("opened", {"extras": {}}),
    message("closed", {}),
    message("closed", {"exception": error(cause=error(), context=error(cause=error()))}),
    message("log", {"message": "hello", "level": "INFO"}),
    message("log", {"message": "hello"}),
    message("report_asset_check", CHECK),
    message("report_custom_message", {"payload": {"any": ["thing", None, 1.5]}}),
    message("log_external_stream", {"stream": "stdout", "text": "x\n", "extras": {}}),
    message("log_external_stream", {"stream": "stderr", "text": ""}),
    typed("text", "text"),
    typed({"records": [{"a": 1, "b": None}], "schema": [column(constraints={})]}, "table"),
    typed(
        {
            "columns": [
                column(
                    description="d",
                    tags={"t": ""},
                    constraints={"nullable": False, "unique": True, "other": ["> 1"]},
                )
            ]
        },
        "table_schema",
    ),
    typed({"deps_by_column": {"c": [dep(), dep(asset_key="x")]}}, "table_column_lineage"),
    materialization(
        a={"raw_value": 1.5, "type": "float"},
        b={"raw_value": 1, "type": "int"},
        c={"raw_value": True, "type": "bool"},
        d={"raw_value": 1700000000, "type": "timestamp"},
        e={"raw_value": {}, "type": "json"},
        f={"raw_value": "a/b", "type": "asset"},
        g={"raw_value": "id", "type": "dagster_run"},
        h={"raw_value": None, "type": "null"},
        i={"raw_value": "/x", "type": "path"},
        j={"raw_value": [1], "type": "__infer__"},
    ),
]

LINE = json.dumps(VALID[3]).encode()

RAW_LINES = [
    LINE,
    LINE + b"\r\n",
    LINE + b"\r",
    b"  \t" + LINE + b"   \n",
    b"\n",
    b"\r\n",
    b"  \t \n",
    b"\x0b\n",
    b"\r" + LINE + b"\n",
    LINE.replace(b": ", b":\r", 1) + b"\n",
    LINE + b"\r\r\n",
    b"\xef\xbb\xbf" + LINE + b"\n",
    b"\xff" + LINE + b"\n",
    LINE.replace(b"hello", b"\xc3") + b"\n",
    LINE.replace(b"hello", "h\u2028\u0085\x7fé😀".encode()) + b"\n",
    LINE.replace(b"hello", b"a\tb") + b"\n",
    LINE.replace(b"hello", b"\\ud800\\u0000") + b"\n",
    LINE.replace(b'"hello"', b"NaN") + b"\n",
    LINE[:40] + b"\n",
    LINE[:40],
    LINE + LINE + b"\n",
    b"\x00" * 20 + b"\n",
    LINE + b"\x00\n",
    b"42\n",
    b"null\n",
    b"[]\n",
    b'"opened"\n',
    b"hello world\n",
    b"{}\n",
    b'{"method": "opened"}\n',
    b'{"params": {}}\n',
    b'{"method": ["log"], "params": {}}\n',
    b'{"method": "opened", "params": null, "method": "nope"}\n',
    b'{"method": "report_custom_message", "params": {"payload": ' + b"9" * 5000 + b"}}\n",
    b'{"method": "report_custom_message", "params": {"payload": '
    + b"[" * 800
    + b"]" * 800
    + b"}}\n",
    b'{"method": "report_custom_message", "params": {"payload": '
    + b"[" * 200_000
    + b"]" * 200_000
    + b"}}\n",
    b'{"method": "report_custom_message", "params": {"payload": "' + b"x" * 10_000_000 + b'"}}\n',
]

MESSAGES = [
    *VALID,
    *[message("opened", params) for params in each(None, {}, [], 5, {"other": 1})],
    *[
        message("closed", params)
        for params in each(None, [], 0, "", "x", ["x"], 5, True, 1.5, "exception", ["exception"])
    ],
    *[
        message("closed", {"exception": value})
        for value in each(None, {}, [], "text", 0, [error()])
    ],
    message("closed", {"exception": error(), "other": 1}),
    *[
        message("closed", {"exception": error(**changes)})
        for changes in each(
            {"message": None},
            {"message": 5},
            {"stack": None},
            {"stack": []},
            {"stack": [1]},
            {"stack": 0},
            {"name": None},
            {"name": 5},
            {"cause": []},
            {"cause": ""},
            {"cause": 5},
            {"context": {"message": "m"}},
            {"cause": error(stack=None)},
            {"context": error(message=None)},
            {"other": 1},
        )
    ],
    *[
        message("log", {"message": "m", "level": level})
        for level in each(
            *("info", "Warn", "WARNING", "fatal", "CRITICAL", "debug", "error"),
            *(20, 15, 5, 1, 0, -5, True, False, 10**30),
            *("NOTSET", "TRACE", "SUCCESS", "Level 15", "", "20", " info", None, 20.0, [], {}),
        )
    ],
    *[message("log", {"message": text}) for text in each(None, 5, "", "%s", "\ud800\x00")],
    *[message("log", params) for params in each(None, {}, [], "m", {"message": "m", "extra": 1})],
    *[
        message("log_external_stream", {"stream": stream, "text": text})
        for stream in each("stdout", "stderr", "STDOUT", "", None, 1)
        for text in each("x", "", None, 5, "\ud800", "\x1b[31m")
    ],
    message("log_external_stream", {"stream": "stdout", "text": "x", "extras": 5}),
    message("log_external_stream", {"stream": "stdout"}),
    message("report_custom_message", {"payload": None}),
    message("report_custom_message", {}),
    message("report_custom_message", {"payload": 1, "more": 1}),
    message("report_custom_message", {"self": 1}),
    *[
        message("report_asset_materialization", params)
        for params in each(
            {"asset_key": "a", "data_version": None, "metadata": None},
            {"asset_key": "", "data_version": "", "metadata": {}},
            {"asset_key": "a/b\\/c", "data_version": "v", "metadata": {}},
            {"asset_key": None, "data_version": None, "metadata": None},
            {"asset_key": "a", "data_version": 5, "metadata": None},
            {"asset_key": "a", "data_version": None, "metadata": []},
            {"asset_key": "a", "data_version": None, "metadata": "x"},
            {"asset_key": "a", "data_version": None},
            {"asset_key": "a", "metadata": None},
            {"asset_key": "a", "data_version": None, "metadata": None, "partition": "p"},
        )
    ],
    *[
        message("report_asset_check", {**CHECK, **changes})
        for changes in each(
            {"severity": "ERROR"},
            *[{"severity": s} for s in each("warn", "WARNING", "INFO", None, 1, [])],
            *[{"passed": p} for p in each(1, 0, None, "true")],
            {"metadata": []},
            {"check_name": None},
            {"check_name": ""},
            {"asset_key": 5},
            {"description": "d"},
        )
    ],
    *[
        message("report_asset_check", {k: v for k, v in CHECK.items() if k != left_out})
        for left_out in CHECK
    ],
    *[
        materialization(k=value)
        for value in each(1, None, "x", [], {}, {"type": "text"}, {"raw_value": 1})
    ],
    materialization(k={"raw_value": "x", "type": "text", "other": 1}),
    *[
        typed(value, declared)
        for declared in each(
            *("__infer__", "text", "url", "path", "notebook", "json", "md", "float", "int"),
            *("bool", "dagster_run", "asset", "null", "table", "table_schema"),
            *("table_column_lineage", "timestamp", "job", "pool", "TEXT", "", None, 5, []),
        )
        for value in ("x", 1, 1.0, True, None, [], {}, [1], {"a": 1}, float("nan"), float("inf"))
    ],
    *[typed(value, "timestamp") for value in each(10**400, -1, 1e300)],
    *[typed(2**70, declared) for declared in each("int", "__infer__", "timestamp", "json")],
    *[
        typed({"records": records, "schema": []}, "table")
        for records in each(
            *([], {}, "", None, 5, "ab", {"a": 1}, [1], [[]], [{}], [{}, {}]),
            *([{"a": 1}, {"b": 1}], [{"a": 1}, {"a": None}], [{"a": []}], [{"a": {}}]),
            *([{"a": 1.5, "b": True, "c": "x", "d": None}], [{"a": 1, "b": 2}, {"b": 1, "a": 2}]),
        )
    ],
    typed({"records": []}, "table"),
    typed({"schema": []}, "table"),
    typed({"records": [], "schema": [], "more": 1}, "table"),
    typed({"records": [], "schema": {"columns": [column()]}}, "table"),
    *[
        typed({"columns": columns}, "table_schema")
        for columns in each(
            *(None, 5, "", {}, "ab", {"a": 1}, [1], [{}], [{"name": "a"}], [{"type": "a"}]),
            *([column(name=1)], [column(type=None)], [column(other=1)]),
            *([column(description=value)] for value in each(None, "", 1, [])),
            *([column(tags=value)] for value in each(None, {}, {"a": "b"}, {"a": 1}, [], "x", 0)),
            *([column(constraints=value)] for value in each(None, {}, [], 0, "", 1, "x", [1])),
            *(
                [column(constraints=value)]
                for value in each(
                    {"nullable": None},
                    {"nullable": 1},
                    {"unique": True},
                    {"unique": "x"},
                    {"other": None},
                    {"other": []},
                    {"other": "abc"},
                    {"other": [1]},
                    {"other": {}},
                    {"strange": True},
                )
            ),
        )
    ],
    *[
        typed({"deps_by_column": deps}, "table_column_lineage")
        for deps in each(
            *(None, [], 5, {}, {"c": None}, {"c": {}}, {"c": ""}, {"c": []}, {"c": [1]}),
            *(
                {"c": [dep(asset_key=key)]}
                for key in each("a/b", "", [], ["a", "b"], [1], None, {})
            ),
            *({"c": [dep(column_name=name)]} for name in each("", "x", [], {})),
            *({"c": [dep(more=1)]}, {"c": [{"asset_key": "a"}]}, {"c": [{"column_name": "a"}]}),
            *({"c": [dep(), dep()]}, {"c": [dep(), dep(asset_key="up")]}),
            *({"c": [dep(column_name="z"), dep(column_name="a")]}, {"c": [dep()], "d": [dep()]}),
        )
    ],
]


def is_stricter_on_purpose(verdict: Refused) -> bool:
    """Whether the rule is one of the few that refuse what the handler takes by chance."""
    return verdict.rule in {"exception", "nesting"} or "column_name" in verdict.detail


def assert_agreement(step: RunningStep, line: bytes) -> None:
    verdict = judge_line(line)
    refusal = step.refusal(line)
    if refusal is not None:
        assert isinstance(verdict, Refused), f"Dagster refuses {line[:300]!r}: {refusal!r}"
        assert verdict.effect == "reader-stops"
    elif isinstance(verdict, Refused):
        assert is_stricter_on_purpose(verdict), f"Dagster takes {line[:300]!r}: {verdict}"


@pytest.mark.parametrize("line", RAW_LINES, ids=lambda line: repr(line[:30]))
def test_lines(step: RunningStep, line: bytes) -> None:
    """Bytes of all sorts stop Dagster's file reader exactly when the rules refuse them."""
    assert_agreement(step, line)


def test_messages(step: RunningStep) -> None:
    """Each message of the table is taken or refused alike by Dagster's handler and the rules."""
    for sample in MESSAGES:
        assert_agreement(step, json.dumps(sample).encode() + b"\n")


def test_valid_messages_are_valid(step: RunningStep) -> None:
    """The messages from which the mutations start are taken by both."""
    for sample in VALID:
        line = json.dumps(sample).encode() + b"\n"
        assert not isinstance(judge_line(line), Refused)
        assert step.refusal(line) is None


def test_a_dropped_log_level_leaves_no_record(step: RunningStep) -> None:
    """A log message that the rules call ignored reaches no handler of Dagster, others do."""

    def levels_logged(context: Any) -> list[int]:
        seen: list[int] = []
        handler = PipesMessageHandler(context, PipesFileMessageReader("unused"))
        original = context.log._log
        context.log._log = lambda level, *args, **kwargs: seen.append(level)
        try:
            for level in each(-1, 0, 1, 20):
                handler.handle_message(message("log", {"message": "m", "level": level}))
        finally:
            context.log._log = original
        return seen

    assert step.call(levels_logged) == [1, 20]
    for level, kind in ((-1, True), (0, True), (1, False)):
        line = json.dumps(message("log", {"message": "m", "level": level})).encode()
        assert isinstance(judge_line(line), Ignored) is kind


ODD_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "x", "WARN", "INFO", "text", "table", "stdout", "a/b", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["raw_value", "type", "name", "records", "schema", "columns", "exception"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict):
        own: list[tuple[Any, Any]] = [(value, key) for key in value]
        return own + [place for inner in value.values() for place in places(inner)]
    if isinstance(value, list):
        own = [(value, index) for index in range(len(value))]
        return own + [place for inner in value for place in places(inner)]
    return []


@st.composite
def mutated_messages(draw: st.DrawFn) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(VALID))))
    for _ in range(draw(st.integers(1, 2))):
        container, key = draw(st.sampled_from(places(sample)))
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if change == "replace":
            container[key] = draw(ODD_VALUES)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.sampled_from(["extra", "level", "extras", "type"]))] = draw(
                ODD_VALUES
            )
        else:
            container.append(draw(ODD_VALUES))
        if not places(sample):
            break
    return sample


@pytest.mark.timeout(600)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sample=mutated_messages())
def test_mutated_messages(step: RunningStep, sample: dict[str, Any]) -> None:
    """Valid messages with something replaced, removed or added get the same verdict from both."""
    assert_agreement(step, json.dumps(sample).encode() + b"\n")


@pytest.mark.timeout(600)
@settings(max_examples=100, deadline=None)
@given(
    cut=st.integers(0, len(LINE)), junk=st.binary(max_size=4), rest=st.sampled_from([b"", b"\n"])
)
def test_damaged_lines(step: RunningStep, cut: int, junk: bytes, rest: bytes) -> None:
    """A valid line with foreign bytes in it gets the same verdict from both."""
    line = LINE[:cut] + junk.replace(b"\n", b"") + LINE[cut:] + rest
    assert_agreement(step, line)


def key_of(method: str, key: str, **more: object) -> dict[str, Any]:
    if method == "mat":
        return message(
            "report_asset_materialization",
            {"asset_key": key, "data_version": None, "metadata": None},
        )
    return message("report_asset_check", {**CHECK, "asset_key": key, **more})


OPENED, CLOSED = VALID[0], VALID[1]

STREAMS: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "in order": (
        [OPENED, key_of("mat", "a"), key_of("mat", "p/b"), key_of("check", "a"), CLOSED],
        set(),
    ),
    "check first": ([OPENED, key_of("check", "a"), key_of("mat", "a"), CLOSED], set()),
    "twice": ([OPENED, key_of("mat", "a"), key_of("mat", "a")], {"second-materialization"}),
    "twice, spelt differently": (
        [key_of("mat", "a"), key_of("mat", "\\a/")],
        {"second-materialization"},
    ),
    "unknown key": ([OPENED, key_of("mat", "p\\/b"), CLOSED], {"asset-key"}),
    "empty key": ([OPENED, key_of("mat", ""), CLOSED], {"asset-key"}),
    "check twice": ([key_of("check", "a"), key_of("check", "a")], {"second-check"}),
    "check of an unknown key": ([key_of("check", "zz"), key_of("check", "a")], {"asset-key"}),
    "after closed": ([OPENED, CLOSED, key_of("mat", "a")], {"after-closed"}),
    "closed twice": ([OPENED, CLOSED, CLOSED], {"after-closed"}),
    "opened twice": ([OPENED, OPENED, CLOSED], set()),
    "never opened": ([key_of("mat", "a"), CLOSED], set()),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A run of Dagster fails, or warns, exactly when the rules of the stream are broken."""
    messages, expected = STREAMS[name]
    keys = [dagster.AssetKey("a"), dagster.AssetKey(["p", "b"])]

    def body(context: Any) -> Any:
        with dagster.open_pipes_session(
            context, dagster.PipesTempFileContextInjector(), dagster.PipesTempFileMessageReader()
        ) as session:
            known.extend(session.context_data["asset_keys"])
            with Path(session.message_reader_params["path"]).open("a") as file:
                file.writelines(json.dumps(message) + "\n" for message in messages)
            # Dagster's reader misses what is written between its last look and the end of the session,
            # which no process that has to exit first is quick enough for.
            time.sleep(0.1)
        return session.get_results()

    known: list[str] = []
    body.__annotations__ = {"context": dagster.AssetExecutionContext}
    # An undeclared check fails the step too; that rule is the runner's --expect-check.
    reports_check = any(sample["method"] == "report_asset_check" for sample in messages)
    specs = [dagster.AssetCheckSpec("c", asset=keys[0])] if reports_check else []
    assets = dagster.multi_asset(specs=list(map(dagster.AssetSpec, keys)), check_specs=specs)(body)
    succeeded = dagster.materialize([assets], raise_on_error=False).success
    warned = "unexpected message received after closed" in capfd.readouterr().err

    rules = StreamRules(known)
    broken = [refused for sample in messages for refused in rules.take(sample)]
    assert {refused.rule for refused in broken} == expected
    assert succeeded is not any(refused.effect == "step-fails" for refused in broken)
    assert warned is any(refused.effect == "may-be-lost" for refused in broken)
