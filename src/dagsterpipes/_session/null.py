"""The session of a process that Dagster did not launch: reports are checked as under Dagster, and nothing is sent."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.context_data import MISSING, check_context_data
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.logger import StderrLogger
from dagsterpipes.exceptions import ContextError, closed_error, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from dagsterpipes._session.options import Settings
    from dagsterpipes.typing import (
        PipesContextData,
        PipesDataProvenance,
        PipesPartitionKeyRange,
        PipesStatistics,
        PipesTimeWindow,
    )


THE_ASSET = "__the_asset__"
"""The key of a report without ``asset_key``: under Dagster the asset in scope would be used."""


class _FreeScope:
    """Every asset may be reported, each once; see `ReportScope`."""

    def __init__(self) -> None:
        from dagsterpipes._protocol.assets import ReportScope  # noqa: PLC0415 because of processes that report nothing

        self._scope = ReportScope(None)
        self.register_materialization = self._scope.register_materialization
        self.register_check = self._scope.register_check

    def resolve(self, asset_key: str | None, method: str) -> str:
        return self._scope.resolve(THE_ASSET if asset_key in (None, "") else asset_key, method)


class NullSession:
    """Takes what a session takes, and shows it on stderr, if at all.

    Args:
        log_level: Log lines below it are not shown.
        capture_logging: Show what the application logs, where it has no handlers of its own.
        show_reports: Show what is reported; if stderr is a terminal when None.
    """

    def __init__(
        self, log_level: int | None, capture_logging: int | str | None, show_reports: bool | None
    ) -> None:
        self.log = StderrLogger(check=self._check_open)
        if log_level is not None:
            self.log.setLevel(log_level)
        self.is_closed = False
        self._shows_reports = _is_terminal() if show_reports is None else show_reports
        self._scope: _FreeScope | None = None
        self._unbridge: Callable[[], None] = lambda: None
        self._relays: list[Any] = []
        if capture_logging is not None:
            from dagsterpipes._session.log_handler import bridge_loggers  # noqa: PLC0415 because few need it

            self._unbridge = bridge_loggers(capture_logging, self._show_unhandled)

    def _check_open(self, method: str) -> None:
        if self.is_closed:
            raise closed_error(method)

    def open_scope(self, method: str) -> _FreeScope:
        """What may be reported; raises if the session is closed."""
        self._check_open(method)
        if self._scope is None:
            self._scope = _FreeScope()
        return self._scope

    def put(self, method: str, line: bytes) -> None:
        """Show a report, if reports are shown."""
        if self._shows_reports:
            import json  # noqa: PLC0415 because of processes that report nothing

            print(_described(method, json.loads(line)["params"]), file=sys.stderr)  # noqa: T201 because it is asked for

    def put_log_line(self, method: str, line: bytes) -> None:
        """Do nothing: what a process printed is shown already."""

    def forward(self, record: logging.LogRecord, text: str) -> bool:
        """Show a record on stderr; return False if the session is closed."""
        del text
        if not self.is_closed:
            self.log._emit(record)  # noqa: SLF001 because nothing else calls it
        return not self.is_closed

    def _show_unhandled(self, record: logging.LogRecord, text: str) -> None:
        """Show a record that has no handler: applications that show their logs need no help."""
        if not logging.getLogger(record.name).hasHandlers():
            self.forward(record, text)

    def wait_opened(self) -> None:
        """Do nothing: it is open."""

    wait_for_opener = wait_opened

    def is_inherited(self) -> bool:
        """False: nobody else has it."""
        return False

    def flush(self, timeout: float | None = None) -> None:
        """Nothing waits; raises if the session is closed."""
        del timeout
        self._check_open("flush")

    def deliver(self) -> None:
        """Do nothing."""

    def statistics(self) -> PipesStatistics:
        """All 0: nothing is sent."""
        from dagsterpipes.typing import PipesStatistics  # noqa: PLC0415 because few jobs need it

        return PipesStatistics(0, 0, 0, 0, 0, None)

    def describe(self) -> str:
        """Where it is, and its state."""
        return f" outside Dagster, {'closed' if self.is_closed else 'open'}"

    def close(self, exc: object) -> None:
        """End the session; a new one can be opened."""
        if exc is not None and not isinstance(exc, BaseException):
            from dagsterpipes._protocol import messages  # noqa: PLC0415 because it is almost never needed

            messages.closed(exc)  # type: ignore[arg-type]  # because it is what checks it
        for relay in self._relays:
            relay.close()
        self._unbridge()
        self.is_closed = True

    # -- workers --------------------------------------------------------------------------------

    def take_lines(self, lines: bytes) -> bool:
        """Show what a worker sent; return False if the session is closed."""
        import json  # noqa: PLC0415 because of processes without workers

        if self.is_closed:
            return False
        for line in lines.splitlines():
            message = json.loads(line)
            if message["method"] == "log":
                self.log(message["params"]["message"], message["params"]["level"])
            elif message["method"] != "log_external_stream":
                self.put(message["method"], line)
        return True

    def for_workers(self) -> tuple[PipesContextData, Settings]:
        """No asset is in scope, nothing is known of the run; the options are the defaults."""
        from dagsterpipes._session.options import Settings  # noqa: PLC0415 because of processes without workers

        data = check_context_data({"run_id": "", "asset_keys": None}, "The context")
        return data, Settings(coalesce_logs=0)

    def close_first(self, relay: Any) -> None:
        """Close the relay before the session."""
        self._relays.append(relay)


class NullPipesContext(PipesContext):
    """Stands in for a session when the process was not launched by Dagster.

    Logs go to stderr, reports are checked as under Dagster and go nowhere, facts have empty values. It
    keeps nothing but which assets and checks were reported.
    """

    _default_asset = THE_ASSET
    _session: NullSession  # type: ignore[assignment]  # because it takes what a session takes

    def __init__(
        self,
        log_level: int | None = None,
        *,
        capture_logging: int | str | None = None,
        show_reports: bool | None = None,
    ) -> None:
        session: Any = NullSession(log_level, capture_logging, show_reports)
        self._attach(session)

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
        """Raises `ContextError`: outside Dagster there is no asset."""
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
        self.log.info("extra %r is not available outside Dagster; using %r", key, value)
        return value

    # -- the rest -------------------------------------------------------------------------------

    def track(self, iterable: Any, description: str = "Working", total: float | None = None) -> Any:
        """As for a session; on a terminal a progress bar, if `rich` is installed."""
        if _is_terminal() and hasattr(iterable, "__iter__"):
            from dagsterpipes._session.progress import bar  # noqa: PLC0415 because few jobs need it

            with suppress(ImportError):  # rich is optional
                return bar(iterable, description, total)
        return super().track(iterable, description, total)

    async def aflush(self) -> None:
        """As `flush`."""
        self.flush()

    async def drain(self) -> None:
        """Do nothing."""

    async def aclose(self, exc: Any = None) -> None:
        """As `close`."""
        self.close(exc)

    async def __aenter__(self) -> Self:
        return self


def _is_terminal() -> bool:
    try:
        return bool(sys.stderr is not None and sys.stderr.isatty())
    except ValueError:  # closed
        return False


def _described(method: str, params: Mapping[str, Any]) -> str:
    """A report as a few lines of text."""
    key = params.get("asset_key", THE_ASSET)
    asset = "" if key == THE_ASSET else f" of {key}"
    values = dict(params.get("metadata") or {})
    if method == "report_custom_message":
        what = f"custom message: {shorten(params['payload'], 200)}"
    elif method == "report_asset_check":
        result = "passed" if params["passed"] else f"FAILED ({params['severity']})"
        what = f"check {params['check_name']}{asset}: {result}"
    else:
        what = f"materialization{asset}"
        if params["data_version"] is not None:
            values = {"data version": params["data_version"], **values}
    return "\n".join(
        [f"reported {what}", *(f"  {name}: {_brief(value)}" for name, value in values.items())]
    )


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        kind = "" if value["type"] == "__infer__" else f" ({value['type']})"
        return shorten(value["raw_value"], 200) + kind
    return shorten(value, 200)
