"""Runs scripts under Dagster itself: an asset, `PipesSubprocessClient`, an instance of Dagster's."""

import logging
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import dagster as dg


class DagsterRun:
    """What Dagster made of a script that it launched."""

    def __init__(self, result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> None:
        self.result = result
        self.custom_messages: list[Any] = []
        self._logs = instance.all_logs(result.run_id)

    @property
    def success(self) -> bool:
        return bool(self.result.success)

    def user_logs(self) -> list[tuple[str, str]]:
        """Level and text of what the script logged."""
        return [
            (logging.getLevelName(entry.level), str(entry.user_message))
            for entry in self._logs
            if entry.dagster_event is None and "[pipes]" not in str(entry.user_message)
        ]

    def pipes_events(self) -> list[str]:
        """Dagster's own words about the Pipes session."""
        return [str(entry.message) for entry in self._logs if "[pipes]" in str(entry.message)]

    def pipes_warnings(self) -> list[str]:
        """Everything that Dagster found wrong with the session, or that killed its reader."""
        complaints = ("did not receive", "framework exception", "unexpected", "not readable")
        return [
            str(entry.user_message)
            for entry in self._logs
            if "[pipes]" in str(entry.user_message)
            and (entry.level >= 30 or any(word in str(entry.message) for word in complaints))
        ]

    def pipes_errors(self) -> str:
        """Texts of the errors that Dagster shows for the session."""
        texts = []
        for entry in self._logs:
            event = entry.dagster_event
            data = getattr(event, "event_specific_data", None)
            error = getattr(data, "error", None)
            if error is not None:
                texts.append(error.to_string())
        return "\n".join(texts)

    def materialization(self, key: str = "the_asset") -> dg.AssetMaterialization:
        [event] = self.result.asset_materializations_for_node(key)
        assert isinstance(event, dg.AssetMaterialization)
        return event

    def checks(self) -> dict[str, Any]:
        return {one.check_name: one for one in self.result.get_asset_check_evaluations()}


def run_under_dagster(
    folder: Path,
    script: str,
    *,
    checks: tuple[str, ...] = (),
    extras: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    message_reader: Any = None,
    context_injector: Any = None,
    partition_key: str | None = None,
    partitions: Any = None,
    launched_by: str = sys.executable,
    home: Path | None = None,
) -> DagsterRun:
    """Materialize an asset whose work is the script; Dagster's storage is SQLite in ``home``, if given."""
    path = folder / "job.py"
    path.write_text(textwrap.dedent(script))
    received: list[Any] = []

    @dg.asset(
        check_specs=[dg.AssetCheckSpec(name, asset="the_asset") for name in checks],
        partitions_def=partitions,
    )
    def the_asset(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # noqa: ANN202 because Dagster reads return annotations
        client = dg.PipesSubprocessClient(
            message_reader=message_reader, context_injector=context_injector
        )
        invocation = client.run(
            context=context,
            command=[launched_by, str(path)],
            extras=extras,
            env=env,
        )
        received.extend(invocation.get_custom_messages())
        return invocation.get_results()

    opened = dg.DagsterInstance.local_temp(str(home)) if home else dg.DagsterInstance.ephemeral()
    with warnings.catch_warnings(), opened as instance:
        warnings.simplefilter("ignore")  # Dagster's own deprecations are not what is tested
        result = dg.materialize(
            [the_asset], instance=instance, raise_on_error=False, partition_key=partition_key
        )
        run = DagsterRun(result, instance)
        run.custom_messages = received
        return run
