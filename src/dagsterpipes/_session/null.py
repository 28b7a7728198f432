"""The session of a process that Dagster did not launch: typed, silent, without storage."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.context_data import MISSING
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.logger import StderrLogger
from dagsterpipes.exceptions import ContextError, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

    def __init__(
        self,
        log_level: int | None = None,
        *,
        capture_logging: int | str | None = None,
        show_reports: bool | None = None,
    ) -> None:
        self.log: StderrLogger = StderrLogger()
        if log_level is not None:
            self.log.setLevel(log_level)
        self._is_closed = False
        self._shows_reports = _is_terminal() if show_reports is None else show_reports
        self._unbridge: Callable[[], None] = lambda: None
        # Applications that show their logs themselves need no help.
        if capture_logging is not None and not logging.getLogger().handlers:
            from dagsterpipes._session.log_handler import bridge_root_logger  # noqa: PLC0415 because few need it

            self._unbridge = bridge_root_logger(capture_logging)

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
        """Show it, if reports are shown."""
        self._show(
            f"materialization{_of(asset_key)}",
            {"data version": data_version} if data_version is not None else {},
            metadata,
        )

    def report_asset_check(
        self,
        check_name: str,
        passed: bool,
        severity: str = "ERROR",
        metadata: Mapping[str, Any] | None = None,
        asset_key: str | None = None,
    ) -> None:
        """Show it, if reports are shown."""
        result = "passed" if passed else f"FAILED ({severity})"
        self._show(f"check {check_name}{_of(asset_key)}: {result}", metadata)

    def report_custom_message(self, payload: Any) -> None:
        """Show it, if reports are shown."""
        self._show(f"custom message: {shorten(payload, 200)}")

    def _show(self, what: str, *values: Mapping[str, Any] | None) -> None:
        if self._shows_reports:
            lines = [f"reported {what}"]
            for mapping in values:
                lines += [f"  {name}: {_brief(value)}" for name, value in (mapping or {}).items()]
            print("\n".join(lines), file=sys.stderr)  # noqa: T201 because it is asked for

    def forward(self, record: logging.LogRecord, text: str) -> None:
        """Show the record on stderr."""
        del text
        self.log.emit(record)

    def track(self, iterable: Any, description: str = "Working", total: float | None = None) -> Any:
        """As for a session; on a terminal a progress bar, if `rich` is installed."""
        if _is_terminal() and hasattr(iterable, "__iter__"):
            try:
                from rich import progress  # noqa: PLC0415 because it is optional
            except ImportError:
                pass
            else:
                return progress.track(iterable, description, total=total)
        return super().track(iterable, description, total)

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
        self._unbridge()
        self._is_closed = True

    async def aclose(self, exc: object = None) -> None:
        """As `close`."""
        self.close(exc)


def _is_terminal() -> bool:
    try:
        return bool(sys.stderr is not None and sys.stderr.isatty())
    except ValueError:  # closed
        return False


def _of(asset_key: str | None) -> str:
    return "" if asset_key is None else f" of {asset_key}"


def _brief(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"type", "raw_value"}:
        return f"{shorten(value['raw_value'], 200)} ({value['type']})"
    return shorten(value, 200)
