"""The session of a process that Dagster did not launch: typed, silent, without storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.context_data import MISSING
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.logger import StderrLogger
from dagsterpipes.exceptions import ContextError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from dagsterpipes.typing import (
        PipesDataProvenance,
        PipesExtras,
        PipesPartitionKeyRange,
        PipesTimeWindow,
    )


class NullPipesContext(PipesContext):
    """Stands in for a session when the process was not launched by Dagster.

    Logs go to stderr, reports do nothing, facts have empty values. It keeps nothing, whatever is said.
    """

    def __init__(self, log_level: int | None = None) -> None:
        self.log = StderrLogger()
        if log_level is not None:
            self.log.setLevel(log_level)
        self._is_closed = False

    # -- facts ----------------------------------------------------------------------------------

    @property
    def is_asset_step(self) -> bool:
        """False: no step runs."""
        return False

    @property
    def asset_keys(self) -> Sequence[str]:
        """Empty: no asset is in scope."""
        return []

    @property
    def asset_key(self) -> str:
        """An error: there is no asset, and no key that would be right."""
        raise ContextError(
            "`asset_key` is undefined. This process was not launched by Dagster. "
            "Launch it from an asset, or with `dagsterpipes run --asset KEY -- COMMAND`."
        )

    @property
    def provenance(self) -> PipesDataProvenance | None:
        """None."""
        return None

    @property
    def provenance_by_asset_key(self) -> Mapping[str, PipesDataProvenance | None]:
        """Empty."""
        return {}

    @property
    def code_version(self) -> str | None:
        """None."""
        return None

    @property
    def code_version_by_asset_key(self) -> Mapping[str, str | None]:
        """Empty."""
        return {}

    @property
    def is_partition_step(self) -> bool:
        """False."""
        return False

    @property
    def partition_key(self) -> str:
        """The empty string."""
        return ""

    @property
    def partition_key_range(self) -> PipesPartitionKeyRange:
        """From the empty string to the empty string."""
        return {"start": "", "end": ""}

    @property
    def partition_time_window(self) -> PipesTimeWindow | None:
        """None."""
        return None

    @property
    def run_id(self) -> str:
        """The empty string."""
        return ""

    @property
    def job_name(self) -> str | None:
        """None."""
        return None

    @property
    def retry_number(self) -> int:
        """0."""
        return 0

    @property
    def extras(self) -> Mapping[str, Any]:
        """Empty."""
        return {}

    def get_extra(self, key: str, default: Any = MISSING) -> Any:
        """The default, or None, with a notice on stderr."""
        value = None if default is MISSING else default
        self.log.info("extra %r is not there outside Dagster, using %r", key, value)
        return value

    # -- reports --------------------------------------------------------------------------------

    def report_asset_materialization(
        self,
        metadata: Mapping[str, Any] | None = None,
        data_version: str | None = None,
        asset_key: str | None = None,
    ) -> None:
        """Do nothing."""

    def report_asset_check(
        self,
        check_name: str,
        passed: bool,
        severity: str = "ERROR",
        metadata: Mapping[str, Any] | None = None,
        asset_key: str | None = None,
    ) -> None:
        """Do nothing."""

    def report_custom_message(self, payload: Any) -> None:
        """Do nothing."""

    def log_external_stream(
        self, stream: str, text: str, extras: PipesExtras | None = None
    ) -> None:
        """Do nothing."""

    # -- lifecycle ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def flush(self, timeout: float | None = None) -> None:
        """Do nothing."""

    async def aflush(self) -> None:
        """Do nothing."""

    async def drain(self) -> None:
        """Do nothing."""

    def close(self, exc: object = None) -> None:
        """End the session; a new one can be opened."""
        del exc
        self._is_closed = True

    async def aclose(self, exc: object = None) -> None:
        """As `close`."""
        self.close(exc)
