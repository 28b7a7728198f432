"""A component: a job in a process of its own, with its extras and its environment, from YAML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dagster as dg

from dagsterpipes.dagster.clients import PipesSubprocessClient
from dagsterpipes.dagster.durable import DurablePipesSubprocessClient
from dagsterpipes.dagster.readers import PipesTempFileMessageReader

__all__ = ["PipesJobComponent"]

# Dagster 1.10 has a preview of components that differs.
if tuple(map(int, dg.__version__.split(".")[:2])) < (1, 11):
    raise ImportError(
        f"PipesJobComponent needs Dagster 1.11 or newer, got {dg.__version__}; upgrade dagster"
    )


class PipesJobComponent(dg.Component, dg.Model, dg.Resolvable):
    """Runs a script or a command in a Pipes session, for the assets and checks that it reports.

    Needs Dagster 1.11 or newer.

    .. code-block:: yaml

        type: dagsterpipes.dagster.PipesJobComponent
        attributes:
          script: load_orders.py
          extras:
            region: eu
          assets:
            - key: orders

    Attributes:
        script: A Python script, beside the YAML; this or ``command``.
        command: A program and its arguments, started beside the YAML.
        args: Further arguments.
        extras: Parameters for the process, as its `extras`.
        env: What to add to its environment.
        strict: As for ``PipesTempFileMessageReader``.
        durable: Whether the job outlives the run worker, as with ``DurablePipesSubprocessClient``.
        name: Of the op; that of the script or program unless given.
        assets: What the process materializes.
        checks: The checks that it reports.
    """

    script: str | None = None
    command: list[str] | None = None
    args: list[str] = []  # noqa: RUF012 because each instance gets its own
    extras: dict[str, Any] = {}  # noqa: RUF012 because each instance gets its own
    env: dict[str, str] = {}  # noqa: RUF012 because each instance gets its own
    strict: bool = False
    durable: bool = False
    name: str | None = None
    assets: list[dg.ResolvedAssetSpec]
    checks: list[dg.ResolvedAssetCheckSpec] = []  # noqa: RUF012 because each instance gets its own

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One multi-asset whose work is the process.

        Raises:
            DagsterInvalidDefinitionError: Not exactly one of ``script`` and ``command`` is given.
        """
        folder = Path(context.path)
        command = self._command()

        @dg.multi_asset(
            name=self.name or Path(self.script or command[0]).stem.replace("-", "_"),
            specs=self.assets,
            check_specs=self.checks,
        )
        def job(context):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 because Dagster reads annotations
            return (
                self._client()
                .run(
                    context=context,
                    command=command,
                    extras=self.extras,
                    env=self.env,
                    cwd=str(folder),
                )
                .get_results()
            )

        return dg.Definitions(assets=[job])

    def _command(self) -> list[str]:
        if (self.script is None) is (self.command is None):
            raise dg.DagsterInvalidDefinitionError(
                "PipesJobComponent needs `script` or `command`, and not both; got"
                f" script={self.script!r} and command={self.command!r}"
            )
        start = [sys.executable, self.script] if self.script else self.command or []
        return [*start, *self.args]

    def _client(self) -> Any:
        if self.durable:
            return DurablePipesSubprocessClient(strict=self.strict)
        return PipesSubprocessClient(message_reader=PipesTempFileMessageReader(strict=self.strict))
