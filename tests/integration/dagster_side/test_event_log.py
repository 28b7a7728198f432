"""Log lines in Dagster's event log: single, in order, live, and stored once, in every storage."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from dagsterpipes.dagster import PipesTempFileMessageReader, event_batches, private
from dagsterpipes.dagster.ingest import Ingest
from support.dagster_runs import DagsterRun
from support.dagster_side import QUIET, RAW, all_logs, instance, materialize, script

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore:::dagster")

COUNT = 2_345
JOB = (
    RAW
    + f"""
send("opened", extras={{}})
file.write(b"".join(line("log", message=f"row {{i}}", level=["DEBUG", "info", 30][i % 3]) for i in range({COUNT})))
materialize(rows={COUNT})
log("after the report", "ERROR")
send("closed")
"""
)
EXPECTED = [
    *[(("DEBUG", "INFO", "WARNING")[i % 3], f"row {i}") for i in range(COUNT)],
    ("ERROR", "after the report"),
]

CONSOLIDATED = """
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config:
    base_dir: {home}
"""


def read_with(command: list[str], reader: Any = None) -> Callable[[Any], Any]:
    """The body of an asset: Dagster's client with our reader."""

    def body(context: Any) -> Any:
        client = dg.PipesSubprocessClient(message_reader=reader or PipesTempFileMessageReader())
        return client.run(context=context, command=command).get_results()

    return body


def run_in(home: Path, storage: str, body: Callable[[Any], Any], **options: Any) -> DagsterRun:
    if storage == "ephemeral":
        with dg.DagsterInstance.ephemeral() as opened:
            return materialize(opened, body, **options)
    yaml = CONSOLIDATED.format(home=home) if storage == "consolidated" else ""
    with instance(home, yaml) as opened:
        return materialize(opened, body, **options)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of lines of each transaction."""
    sizes: list[int] = []
    insert = private.EventTable.insert

    def counted(table: Any, connection: Any, rows: Any) -> None:
        sizes.append(len(rows))
        insert(table, connection, rows)

    monkeypatch.setattr(private.EventTable, "insert", counted)
    return sizes


@pytest.mark.parametrize("storage", ["sqlite", "consolidated", "ephemeral"])
def test_every_line_is_an_entry_of_its_own(
    storage: str, tmp_path: Path, home: Path, batches: list[int]
) -> None:
    """In order, with its level and a time that never runs back; batches where the table is known."""
    run = run_in(home, storage, read_with(script(tmp_path, JOB)))
    assert run.success
    assert run.user_logs() == EXPECTED
    assert run.materialization().metadata["rows"].value == COUNT
    times = [entry.timestamp for entry in run._logs if entry.dagster_event is None]
    assert times == sorted(times)
    assert {e.step_key for e in run._logs if e.dagster_event is None} == {"the_asset"}
    if storage == "ephemeral":
        assert batches == []
    else:
        assert sum(batches) == COUNT + 1
        assert max(batches) <= 1_000
        assert len(batches) < 30


def test_lines_are_the_same_as_with_dagsters_reader(tmp_path: Path, home: Path) -> None:
    """Every field of every entry but the time; also who else is told of them."""
    seen: dict[str, list[Any]] = {}
    command = script(tmp_path, JOB.replace(str(COUNT), "30"))
    for name, reader in (
        ("ours", PipesTempFileMessageReader()),
        ("stock", dg.PipesTempFileMessageReader()),
    ):
        told = seen.setdefault(f"{name} told", [])
        with instance(home / name) as opened:

            def body(context: Any, reader: Any = reader, told: list[Any] = told) -> Any:
                context.instance.add_event_listener(context.run_id, told.append)
                return read_with(command, reader)(context)

            run = materialize(opened, body)
        seen[name] = [
            entry._replace(timestamp=0.0, run_id="")
            for entry in run._logs
            if not entry.dagster_event
        ]
        seen[f"{name} told"] = [
            one._replace(timestamp=0.0, run_id="") for one in told if not one.dagster_event
        ]
    assert len(seen["ours"]) > 30
    assert seen["ours"] == seen["stock"]
    assert seen["ours told"] == seen["stock told"]


def test_a_watcher_sees_lines_while_the_job_runs(tmp_path: Path, home: Path) -> None:
    """Within about a second; the job waits for being seen, so it would not end otherwise."""
    seen = tmp_path / "seen"
    command = script(
        tmp_path,
        RAW
        + f"""
send("opened", extras={{}})
log("are you there?")
for _ in range(200):
    if os.path.exists({str(seen)!r}):
        log("yes")
        break
    time.sleep(0.05)
send("closed")
""",
    )
    with instance(home) as opened:

        def body(context: Any) -> Any:
            def watch() -> None:
                with dg.DagsterInstance.get() as other:
                    for _ in range(200):
                        texts = [e.user_message for e in other.all_logs(context.run_id)]
                        if "are you there?" in texts:
                            seen.touch()
                            return
                        time.sleep(0.05)

            watcher = threading.Thread(target=watch)
            watcher.start()
            results = read_with(command)(context)
            watcher.join()
            return results

        run = materialize(opened, body)
    assert run.user_logs() == [("INFO", "are you there?"), ("INFO", "yes")]


def test_consoles_and_python_handlers_get_each_line(tmp_path: Path, home: Path) -> None:
    """Loggers of the run, and handlers of `python_logs` in `dagster.yaml`, by their own levels."""
    printed = tmp_path / "printed"
    yaml = f"""
python_logs:
  python_log_level: INFO
  dagster_handler_config:
    handlers:
      to_file:
        class: logging.FileHandler
        level: WARNING
        filename: {printed}
"""
    got: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            got.append(record.getMessage())

    @dg.logger
    def listening(_context: Any) -> logging.Logger:
        logger = logging.Logger("listening", level=logging.WARNING)
        logger.addHandler(Listener())
        return logger

    command = script(
        tmp_path,
        RAW
        + 'send("opened", extras={})\nlog("one", "DEBUG")\nlog("two")\nlog("three", 30)\nsend("closed")',
    )

    with instance(home, yaml) as opened:

        @dg.op
        def work(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 because Dagster reads annotations
            read_with(command)(context)

        @dg.job(logger_defs={"listening": listening})
        def the_job() -> None:
            work()

        result = the_job.execute_in_process(
            instance=opened, run_config={"loggers": {"listening": {}}}
        )
        run = DagsterRun(result, opened)
    assert run.user_logs() == [("INFO", "two"), ("WARNING", "three")]  # python_log_level is INFO
    assert [text.rpartition(" - ")[2] for text in got if "three" in text or "two" in text] == [
        "three"
    ]
    assert printed.read_text().splitlines()[-1].endswith(" - work - three")


def broken(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Take one of the private names away."""
    import dagster._core.events.log as events
    import dagster._core.log_manager as log_manager
    import dagster._core.pipes.context as pipes
    import dagster._core.storage.event_log.schema as schema
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    homes: dict[str, Any] = {
        "_EventListenerLogHandler": sys.modules[private._event_handler_class().__module__],
        "SqlEventLogStorageTable": schema,
        "DagsterLogHandler": log_manager,
        "DagsterLogManager": log_manager,
        "get_log_record_metadata": log_manager,
        "construct_event_record": events,
        "PipesMessageHandler": pipes,
        "_handle_log": pipes.PipesMessageHandler,
        "_event_to_row": SqlEventLogStorage,
    }
    if target in homes:
        hidden = getattr(homes[target], target)
        monkeypatch.delattr(homes[target], target)
        if target == "_event_to_row":  # Dagster's own code needs it under some name
            monkeypatch.setattr(SqlEventLogStorage, "_row_of_event", hidden, raising=False)
            monkeypatch.setattr(
                SqlEventLogStorage,
                "prepare_insert_event",
                lambda self, event: schema.SqlEventLogStorageTable.insert().values(
                    **self._row_of_event(event)
                ),
            )
        if target == "_handle_log":
            monkeypatch.setattr(
                pipes.PipesMessageHandler,
                "handle_message",
                lambda self, message: (
                    self._context.log.log(
                        message["params"].get("level", "info"), message["params"]["message"]
                    )
                    if message["method"] == "log"
                    else {
                        "opened": self._handle_opened,
                        "closed": self._handle_closed,
                        "report_asset_materialization": lambda p: (
                            self._handle_report_asset_materialization(**p)
                        ),
                    }[message["method"]](message["params"])
                ),
            )


@pytest.mark.parametrize(
    "name",
    [
        "_EventListenerLogHandler",
        "SqlEventLogStorageTable",
        "DagsterLogHandler",
        "get_log_record_metadata",
        "construct_event_record",
        "PipesMessageHandler",
        "_handle_log",
        "_event_to_row",
    ],
)
def test_without_a_private_name_events_are_single(
    name: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    """Slower, and nothing else changes."""
    command = script(tmp_path, JOB.replace(str(COUNT), "30"))

    def body(context: Any) -> Any:
        # The names go when Dagster itself has what it needs of them.
        reader = PipesTempFileMessageReader()
        results: Any = None
        client = dg.PipesSubprocessClient(message_reader=reader)
        injected: list[Any] = []
        original = Ingest.__init__

        def late(self: Any, *args: Any, **kwargs: Any) -> None:
            with pytest.MonkeyPatch.context() as patch:
                broken(patch, name)
                original(self, *args, **kwargs)
            injected.append(self)

        monkeypatch.setattr(Ingest, "__init__", late)
        results = client.run(context=context, command=command).get_results()
        assert [one.is_batched for one in injected] == [False]
        return results

    with instance(home) as opened:
        run = materialize(opened, body)
    assert run.success
    assert batches == []
    assert [text for _, text in run.user_logs()] == [
        *[f"row {i}" for i in range(30)],
        "after the report",
    ]


class Failing:
    """Fails the transactions of a table in one way."""

    def __init__(self, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        insert, transaction = private.EventTable.insert, private.EventTable.transaction

        def failing_insert(table: Any, connection: Any, rows: Any) -> None:
            self.times += 1
            if how == "before":
                raise sqlite3.OperationalError("disk I/O error")
            insert(table, connection, rows)
            if how == "in the middle":
                raise sqlite3.OperationalError("database is locked")

        import contextlib

        @contextlib.contextmanager
        def failing_transaction(table: Any, run_id: str) -> Any:
            before = self.times
            with transaction(table, run_id) as connection:
                yield connection
            if how == "after the commit" and self.times > before:
                raise sqlite3.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(private.EventTable, "insert", failing_insert)
        monkeypatch.setattr(private.EventTable, "transaction", failing_transaction)


@pytest.mark.parametrize("how", ["before", "in the middle", "after the commit"])
def test_a_failing_transaction_stores_every_line_once(
    how: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undone, its lines are stored singly; committed before it failed, they are not stored again."""
    failing = Failing(how, monkeypatch)
    with instance(home) as opened:
        run = materialize(opened, read_with(script(tmp_path, JOB.replace(str(COUNT), "60"))))
    assert failing.times
    assert run.success
    assert [text for _, text in run.user_logs()] == [
        *[f"row {i}" for i in range(60)],
        "after the report",
    ]


def test_lines_that_no_way_can_store_are_counted(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step goes on, the log says how many, and a strict reader fails it."""
    Failing("before", monkeypatch)
    command = script(
        tmp_path,
        RAW
        + 'send("opened", extras={})\nfile.write(b"".join(line("log", message="x") for _ in range(50)))\nsend("closed")',
    )
    with instance(home) as opened:
        handle = type(opened).handle_new_event

        def failing(self: Any, event: Any, **options: Any) -> None:
            if event.user_message == "x":
                raise sqlite3.OperationalError("disk full")
            handle(self, event, **options)

        monkeypatch.setattr(type(opened), "handle_new_event", failing)
        run = materialize(opened, read_with(command))
        assert run.success
        assert ("WARNING", "[pipes] 50 log lines could not be stored") in all_logs(run)
        run = materialize(opened, read_with(command, PipesTempFileMessageReader(strict=True)))
    assert not run.success
    assert "50 log lines could not be stored" in run.pipes_errors()


def test_a_handler_that_treats_log_lines_its_own_way_gets_them(tmp_path: Path, home: Path) -> None:
    """Nothing goes around an override."""
    from dagster._core.pipes.context import PipesMessageHandler

    got: list[str] = []

    class Handler(PipesMessageHandler):  # type: ignore[misc]  # because Dagster has no types here
        def _handle_log(self, message: str, level: str = "info") -> None:
            got.append(message)

    def body(context: Any) -> None:
        reader = PipesTempFileMessageReader()
        handler = Handler(context, reader)
        with handler.handle_messages() as params, Path(params["path"]).open("ab") as file:
            file.write(b'{"method": "log", "params": {"message": "mine"}}\n')

    with instance(home) as opened:
        run = materialize(opened, body)
    assert run.success
    assert got == ["mine"]
    assert not [text for _, text in run.user_logs() if "mine" in text]


def test_lines_before_a_report_are_stored_before_it(home: Path) -> None:
    """When Dagster takes the report, they are in the event log."""
    from dagster._core.pipes.context import PipesMessageHandler

    stored: list[list[str]] = []

    class Handler(PipesMessageHandler):  # type: ignore[misc]  # because Dagster has no types here
        def _handle_report_asset_materialization(self, **params: Any) -> None:
            entries = self._context.instance.all_logs(self._context.run_id)
            stored.append([e.user_message for e in entries if "line" in e.user_message])
            super()._handle_report_asset_materialization(**params)

    def body(context: Any) -> None:
        handler = Handler(context, PipesTempFileMessageReader())
        report = {"asset_key": "the_asset", "metadata": None, "data_version": None}
        with handler.handle_messages() as params, Path(params["path"]).open("a") as file:
            file.writelines(
                json.dumps({"method": method, "params": values}) + "\n"
                for method, values in (
                    ("log", {"message": "line 1"}),
                    ("log", {"message": "line 2"}),
                    ("report_asset_materialization", report),
                    ("log", {"message": "line 3"}),
                )
            )

    with instance(home) as opened:
        assert materialize(opened, body).success
    assert stored == [["line 1", "line 2"]]


def test_several_readers_in_one_session(tmp_path: Path, home: Path) -> None:
    """Under Dagster's composite reader, which hands each of them a handler of its own."""
    composite = getattr(dg, "PipesCompositeMessageReader", None)
    if composite is None:
        pytest.skip("this Dagster has no composite reader")

    def body(context: Any) -> Any:
        reader = composite([PipesTempFileMessageReader(), PipesTempFileMessageReader()])
        with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), reader) as session:
            for number, params in enumerate(session._per_writer_bootstrap_params()):
                lines = [
                    b'{"method": "opened", "params": {"extras": {}}}\n',
                    b'{"method": "log", "params": {"message": "from %d"}}\n' % number,
                    b'{"method": "closed", "params": {}}\n',
                ]
                with Path(params["DAGSTER_PIPES_MESSAGES"]["path"]).open("ab") as file:
                    file.writelines(lines)
        return session.get_results()

    with instance(home) as opened:
        run = materialize(opened, body)
    assert run.success
    assert sorted(text for _, text in run.user_logs()) == ["from 0", "from 1"]
    assert not [text for level, text in all_logs(run) if level == "WARNING"]


def test_the_constants_are_the_promised_ones() -> None:
    """A thousand lines, 0.2 s."""
    assert (event_batches.MAX_EVENTS, event_batches.MAX_AGE) == (1_000, 0.2)
    assert QUIET  # the console is silent in these tests
