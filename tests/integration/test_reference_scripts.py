"""Scripts in the manner of Dagster's own documentation, with both imports: Dagster gets the same of both.

Each script imports from ``LIBRARY``, which is replaced by the name of one library, and of the other.
"""

import contextlib
import json
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

from support.dagster_runs import DagsterRun

LIBRARIES = ("dagster_pipes", "dagsterpipes")

# dagster.PipesSession and the other parts that open one warn that they may change.
pytestmark = pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.PreviewWarning")


def by_subprocess_client(context: Any, path: Path, case: "Case", messages: list[Any]) -> Any:
    """As most people launch: environment variables, context and messages in files."""
    completed = dg.PipesSubprocessClient(message_reader=case.reader(path)).run(
        context=context,
        command=[sys.executable, str(path)],
        extras=case.extras,
        env={"MY_ENV_VAR_IN_SUBPROCESS": "my_value"},
    )
    messages.extend(completed.get_custom_messages())
    return completed.get_results()


@contextlib.contextmanager
def session_of(context: Any, path: Path, case: "Case", messages: list[Any]) -> Iterator[Any]:
    with dg.open_pipes_session(
        context=context,
        context_injector=case.injector(path),
        message_reader=case.reader(path),
        extras=case.extras,
    ) as session:
        yield session
    messages.extend(session.get_custom_messages())


def by_command_line(context: Any, path: Path, case: "Case", messages: list[Any]) -> Any:
    """As on clusters that hand on no environment."""
    with session_of(context, path, case, messages) as session:
        words = [word for item in session.get_bootstrap_cli_arguments().items() for word in item]
        subprocess.run([sys.executable, str(path), "--limit", "3", *words], check=True)
    return session.get_results()


def by_event(context: Any, path: Path, case: "Case", messages: list[Any]) -> Any:
    """As a Lambda function is invoked."""
    with session_of(context, path, case, messages) as session:
        event = json.dumps({"key": "value", **session.get_bootstrap_env_vars()})
        subprocess.run([sys.executable, str(path)], input=event, text=True, check=True)
    return session.get_results()


def temp_file(path: Path) -> Any:
    del path
    return dg.PipesTempFileMessageReader()


class Case(NamedTuple):
    """A script and the asset that launches it."""

    script: str
    specs: tuple[Any, ...] = (dg.AssetSpec("the_asset"),)
    checks: tuple[Any, ...] = ()
    extras: dict[str, Any] | None = None
    partitions: Any = None
    partition_key: str | None = None
    launch: Callable[..., Any] = by_subprocess_client
    reader: Callable[[Path], Any] = temp_file
    injector: Callable[[Path], Any] = lambda _: dg.PipesTempFileContextInjector()
    works_in_the_reference: bool = True
    fails: bool = False


CASES = {
    "quickstart": Case(
        """
        import pandas as pd
        from LIBRARY import PipesContext, open_dagster_pipes

        def main():
            orders_df = pd.DataFrame({"order_id": [1, 2], "item_id": [432, 878]})
            total_orders = len(orders_df)
            context = PipesContext.get()
            context.log.info(f"processing total {total_orders} orders")
            context.report_asset_materialization(metadata={"total_orders": total_orders})

        if __name__ == "__main__":
            with open_dagster_pipes():
                main()
        """
    ),
    "extras and environment": Case(
        """
        import os
        from LIBRARY import DagsterPipesError, open_dagster_pipes

        with open_dagster_pipes() as context:
            print(context.get_extra("foo"))
            print(os.environ["MY_ENV_VAR_IN_SUBPROCESS"])
            context.log.info(context.get_extra("foo") + os.environ["MY_ENV_VAR_IN_SUBPROCESS"])
            context.log.info(str(dict(context.extras)))
            try:
                context.get_extra("bar")
            except DagsterPipesError as error:
                context.log.error(f"{error}")
        """,
        extras={"foo": "bar", "nested": {"a": [1, None]}},
    ),
    "metadata, data version and a check": Case(
        """
        import pandas as pd
        from LIBRARY import PipesContext, open_dagster_pipes

        def main():
            orders_df = pd.DataFrame({"order_id": [1, 2], "item_id": [432, 878]})
            context = PipesContext.get()
            context.report_asset_materialization(
                asset_key="the_asset",
                metadata={"some_metric": {"raw_value": 57, "type": "int"}},
                data_version="alpha",
            )
            context.report_asset_check(
                asset_key="the_asset",
                passed=bool(orders_df[["item_id"]].notnull().all().all()),
                check_name="no_empty_order_check",
                metadata={"rows": len(orders_df)},
            )
            context.report_asset_check("fresh", False, severity="WARN")

        if __name__ == "__main__":
            with open_dagster_pipes() as pipes:
                main()
        """,
        checks=(
            dg.AssetCheckSpec("no_empty_order_check", asset="the_asset"),
            dg.AssetCheckSpec("fresh", asset="the_asset"),
        ),
    ),
    "a check as pandas gives it": Case(
        """
        import pandas as pd
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            frame = pd.DataFrame({"item_id": [432, 878]})
            context.report_asset_check(
                check_name="no_empty_order_check", passed=frame["item_id"].notnull().all()
            )
        """,
        checks=(dg.AssetCheckSpec("no_empty_order_check", asset="the_asset"),),
        works_in_the_reference=False,
    ),
    "two assets": Case(
        """
        from LIBRARY import DagsterPipesError, open_dagster_pipes

        with open_dagster_pipes() as context:
            context.log.info(", ".join(sorted(context.asset_keys)))
            for key in ("orders", "shop/users"):
                context.report_asset_materialization(
                    asset_key=key, metadata={"total": 2}, data_version=key
                )
            try:
                context.report_asset_materialization(asset_key="orders")
            except DagsterPipesError as error:
                context.log.warning(f"{error}")
            try:
                context.asset_key
            except DagsterPipesError as error:
                context.log.warning(f"{error}")
        """,
        specs=(dg.AssetSpec("orders"), dg.AssetSpec(["shop", "users"])),
    ),
    "one partition": Case(
        """
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            assert context.is_partition_step
            context.log.info(context.partition_key)
            context.log.info(str(dict(context.partition_key_range)))
            context.log.info(str(dict(context.partition_time_window)))
            context.report_asset_materialization(metadata={"day": context.partition_key})
        """,
        partitions=dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-02-01"),
        partition_key="2026-01-07",
    ),
    "a static partition": Case(
        """
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            context.log.info(f"{context.partition_key} {context.partition_time_window}")
            context.report_asset_materialization()
        """,
        partitions=dg.StaticPartitionsDefinition(["eu", "us"]),
        partition_key="eu",
    ),
    "no partition": Case(
        """
        from LIBRARY import DagsterPipesError, open_dagster_pipes

        with open_dagster_pipes() as context:
            context.log.info(str(context.is_partition_step))
            for name in ("partition_key", "partition_key_range", "partition_time_window"):
                try:
                    getattr(context, name)
                except DagsterPipesError as error:
                    context.log.info(f"{error}")
        """
    ),
    "metadata of every type": Case(
        """
        from LIBRARY import open_dagster_pipes

        SCHEMA = [
            {"name": "id", "type": "int", "description": "The id", "tags": {"pii": "no"},
             "constraints": {"nullable": False, "unique": True, "other": ["> 0"]}},
            {"name": "title", "type": "string"},
        ]
        with open_dagster_pipes() as context:
            context.report_asset_materialization(
                metadata={
                    "inferred text": "x", "inferred int": 3, "inferred float": 0.5,
                    "inferred bool": True, "inferred null": None, "inferred list": [1, {"a": 2}],
                    "text": {"raw_value": "hello", "type": "text"},
                    "url": {"raw_value": "http://someurl.com", "type": "url"},
                    "path": {"raw_value": "/path/to/data", "type": "path"},
                    "notebook": {"raw_value": "/path/to/notebook.ipynb", "type": "notebook"},
                    "json": {"raw_value": {"foo": "bar", "baz": 1, "qux": [1, 2, 3]}, "type": "json"},
                    "md": {"raw_value": "**bold text**", "type": "md"},
                    "float": {"raw_value": 0.57, "type": "float"},
                    "int": {"raw_value": 57, "type": "int"},
                    "bool": {"raw_value": True, "type": "bool"},
                    "dagster_run": {"raw_value": "db892d7f-0031-4747-973d-22e8b9095d9d",
                                    "type": "dagster_run"},
                    "asset": {"raw_value": "up/stream", "type": "asset"},
                    "null": {"raw_value": None, "type": "null"},
                    "timestamp": {"raw_value": 1767225600.5, "type": "timestamp"},
                    "table": {"raw_value": {"records": [{"id": 1, "title": "a"}], "schema": SCHEMA},
                              "type": "table"},
                    "dagster/column_schema": {"raw_value": {"columns": SCHEMA},
                                              "type": "table_schema"},
                    "dagster/column_lineage": {
                        "raw_value": {"deps_by_column": {
                            "id": [{"asset_key": ["up", "stream"], "column_name": "key"}]}},
                        "type": "table_column_lineage",
                    },
                }
            )
        """
    ),
    "custom messages": Case(
        """
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            context.report_custom_message({"foo": "bar", "rows": [1, 2.5, None]})
            context.report_custom_message("more")
            context.report_custom_message(None)
        """
    ),
    "levels of logs": Case(
        """
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            for level in ("debug", "info", "warning", "error", "critical"):
                getattr(context.log, level)("%s number %d", level, 1)
        """
    ),
    "output of another process": Case(
        """
        import subprocess, sys
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            done = subprocess.run(
                [sys.executable, "-c", "print('from within')"], capture_output=True, text=True
            )
            context.log_external_stream("stdout", done.stdout)
            context.log_external_stream("stderr", done.stdout, extras={"pid": 1})
            context.log.info("done")
        """
    ),
    "opened and closed by hand": Case(
        """
        from LIBRARY import PipesContext, open_dagster_pipes

        assert not PipesContext.is_initialized()
        context = open_dagster_pipes()
        assert PipesContext.is_initialized()
        assert open_dagster_pipes() is context is PipesContext.get()
        context.report_asset_materialization()
        assert not context.is_closed
        context.close()
        assert context.is_closed
        context.close()
        """
    ),
    "an exception": Case(
        """
        from LIBRARY import open_dagster_pipes

        with open_dagster_pipes() as context:
            context.log.info("before")
            raise Exception("oops")
        """,
        fails=True,
    ),
    "command line": Case(
        """
        import argparse
        from LIBRARY import PipesCliArgsParamsLoader, open_dagster_pipes

        parser = argparse.ArgumentParser()
        parser.add_argument("--limit", type=int)
        args, _ = parser.parse_known_args()
        with open_dagster_pipes(params_loader=PipesCliArgsParamsLoader()) as context:
            context.report_asset_materialization(metadata={"limit": args.limit})
        """,
        launch=by_command_line,
    ),
    "lambda": Case(
        """
        import json, sys
        from LIBRARY import PipesMappingParamsLoader, open_dagster_pipes

        def lambda_handler(event, _context):
            with open_dagster_pipes(params_loader=PipesMappingParamsLoader(event)) as context:
                context.report_asset_materialization(metadata={"key": event["key"]})

        lambda_handler(json.load(sys.stdin), None)
        """,
        launch=by_event,
        injector=lambda _: dg.PipesEnvContextInjector(),
    ),
    "every part by name": Case(
        """
        from LIBRARY import (
            PipesDefaultContextLoader,
            PipesDefaultMessageWriter,
            PipesEnvVarParamsLoader,
            open_dagster_pipes,
        )

        with open_dagster_pipes(
            params_loader=PipesEnvVarParamsLoader(),
            context_loader=PipesDefaultContextLoader(),
            message_writer=PipesDefaultMessageWriter(),
        ) as context:
            context.report_asset_materialization(metadata={"run": context.run_id[:0]})
        """,
        reader=lambda path: dg.PipesFileMessageReader(str(path.parent / "messages")),
    ),
    "loader and writer of one's own": Case(
        """
        import json
        from contextlib import contextmanager
        from LIBRARY import (
            PipesContextLoader,
            PipesMessageWriter,
            PipesMessageWriterChannel,
            open_dagster_pipes,
        )

        class CloudContextLoader(PipesContextLoader):
            @contextmanager
            def load_context(self, params):
                with open(params["path"]) as file:
                    yield json.load(file)

        class CloudChannel(PipesMessageWriterChannel):
            def __init__(self, path):
                self._path = path

            def write_message(self, message):
                with open(self._path, "a") as file:
                    file.write(json.dumps(message) + "\\n")

        class CloudMessageWriter(PipesMessageWriter):
            @contextmanager
            def open(self, params):
                yield CloudChannel(params["path"])

            def get_opened_extras(self):
                return {"cluster": "c1"}

        with open_dagster_pipes(
            context_loader=CloudContextLoader(), message_writer=CloudMessageWriter()
        ) as context:
            context.log.info("to the cloud")
            context.report_asset_materialization(metadata={"job": context.job_name})
        """
    ),
    "chunks on a mounted volume": Case(
        """
        from dagster_pipes import (  # these stay where they are
            PipesBlobStoreMessageWriter,
            PipesBufferedFilesystemMessageWriterChannel,
        )
        from LIBRARY import open_dagster_pipes

        class VolumeWriter(PipesBlobStoreMessageWriter):
            def make_channel(self, params):
                return PipesBufferedFilesystemMessageWriterChannel(
                    params["path"], interval=self.interval
                )

        with open_dagster_pipes(message_writer=VolumeWriter(interval=1)) as context:
            context.log.info("to the volume")
            context.report_asset_materialization(metadata={"rows": 3})
        """,
        reader=lambda path: VolumeReader(path.parent / "chunks"),
    ),
}


class VolumeReader(dg.PipesBlobStoreMessageReader):  # type: ignore[misc] # because Dagster is not followed
    """Reads chunks from a folder, as Dagster's readers of object stores do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(interval=0.1)
        folder.mkdir()
        self._folder = folder

    @contextlib.contextmanager
    def get_params(self) -> Iterator[Any]:
        yield {"path": str(self._folder)}

    def messages_are_readable(self, params: Any) -> bool:
        del params
        return True

    def download_messages_chunk(self, index: int, params: Any) -> str | None:
        del params
        path = self._folder / f"{index}.json"
        return path.read_text() if path.exists() else None

    def no_messages_debug_text(self) -> str:
        return "no chunks"


def outcome(case: Case, library: str, folder: Path) -> dict[str, Any]:
    """Everything that Dagster knows of a run of the script."""
    folder.mkdir()
    path = folder / "external_code.py"
    path.write_text(textwrap.dedent(case.script).replace("LIBRARY", library))
    messages: list[Any] = []

    @dg.multi_asset(
        name="step",
        specs=case.specs,
        check_specs=case.checks,
        partitions_def=case.partitions,
    )
    def step(context: dg.AssetExecutionContext) -> Any:
        yield from case.launch(context, path, case, messages)

    with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
        warnings.simplefilter("ignore")
        result = dg.materialize(
            [step], instance=instance, raise_on_error=False, partition_key=case.partition_key
        )
        run = DagsterRun(result, instance)
    assert run.pipes_warnings() == []
    return {
        "success": run.success,
        # Our errors go on where the reference's end.
        "logs": [(level, text.partition(" There are: ")[0]) for level, text in run.user_logs()],
        "custom messages": messages,
        "materializations": sorted(
            (
                (
                    one.asset_key.path,
                    one.partition,
                    dict(one.metadata),
                    # When the script says none, Dagster makes one of the run.
                    "data_version" in case.script and one.tags["dagster/data_version"],
                )
                for one in result.asset_materializations_for_node("step")
            ),
            key=str,
        ),
        "checks": {
            name: (one.passed, one.severity, dict(one.metadata))
            for name, one in run.checks().items()
        },
        "shown": [text for text in ("Exception: oops",) if text in run.pipes_errors()],
    }


@pytest.mark.parametrize("name", CASES)
def test_the_import_is_all_that_changes(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Success, logs, materializations, checks, custom messages and the error that is shown."""
    case = CASES[name]
    ours = outcome(case, "dagsterpipes", tmp_path / "ours")
    assert ours["success"] is not case.fails
    assert ours["shown"] == (["Exception: oops"] if case.fails else [])
    assert ours["logs"] or ours["materializations"] or ours["checks"] or ours["custom messages"]
    printed = capfd.readouterr().out
    theirs = outcome(case, "dagster_pipes", tmp_path / "theirs")
    if case.works_in_the_reference:
        assert ours == theirs
        assert ("from within" in printed) == ("from within" in capfd.readouterr().out)
    else:
        assert not theirs["success"]
