"""The shapes of the wire, with the names that ``dagster_pipes`` gives them, and our own aliases.

Source of the shapes: ``dagster_pipes`` 1.13 and the handlers in Dagster's
``dagster._core.pipes.context``. Nothing in this module does anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

__all__ = [
    "AnyContextLoader",
    "AnyMessageWriter",
    "AnyParamsLoader",
    "Method",
    "PipesAssetCheckSeverity",
    "PipesContextData",
    "PipesDataProvenance",
    "PipesException",
    "PipesExtras",
    "PipesMessage",
    "PipesMetadataRawValue",
    "PipesMetadataType",
    "PipesMetadataValue",
    "PipesOpenedData",
    "PipesParams",
    "PipesPartitionKeyRange",
    "PipesTimeWindow",
    "SessionOptions",
]

PipesExtras = Mapping[str, Any]
"""User-defined values from the Dagster side."""

PipesParams = Mapping[str, Any]
"""What a loader or writer needs to find the context or the messages' place."""

Method = Literal[
    "opened",
    "closed",
    "log",
    "report_asset_materialization",
    "report_asset_check",
    "report_custom_message",
    "log_external_stream",
]
"""The methods that Dagster's handler knows; any other one stops its reader."""

PipesAssetCheckSeverity = Literal["WARN", "ERROR"]
"""How bad a failed asset check is."""

PipesMetadataRawValue = int | float | str | Mapping[str, Any] | Sequence[Any] | bool | None
"""A metadata value as JSON holds it."""

PipesMetadataType = Literal[
    "__infer__",
    "text",
    "url",
    "path",
    "notebook",
    "json",
    "md",
    "float",
    "int",
    "bool",
    "dagster_run",
    "asset",
    "null",
    "table",
    "table_schema",
    "table_column_lineage",
    "timestamp",
]
"""The metadata types that Dagster's handler converts; any other one stops its reader."""


class PipesOpenedData(TypedDict):
    """Params of ``opened``: facts about the process, from the message writer."""

    extras: Mapping[str, Any]


class PipesMessage(TypedDict):
    """One message, which is one line."""

    __dagster_pipes_version: str
    method: str
    params: Mapping[str, Any] | None


class PipesPartitionKeyRange(TypedDict):
    """A range of partition keys, both ends included."""

    start: str
    end: str


class PipesTimeWindow(TypedDict):
    """A span of time: ISO 8601 timestamps with an offset, the end excluded."""

    start: str
    end: str


class PipesDataProvenance(TypedDict):
    """What an asset's last materialization was made from."""

    code_version: str
    input_data_versions: Mapping[str, str]
    is_user_provided: bool


class PipesContextData(TypedDict):
    """What Dagster tells the process."""

    asset_keys: Sequence[str] | None
    code_version_by_asset_key: Mapping[str, str | None] | None
    provenance_by_asset_key: Mapping[str, PipesDataProvenance | None] | None
    partition_key: str | None
    partition_key_range: PipesPartitionKeyRange | None
    partition_time_window: PipesTimeWindow | None
    run_id: str
    job_name: str | None
    retry_number: int
    extras: Mapping[str, Any]


class PipesMetadataValue(TypedDict):
    """A metadata value with its Dagster type."""

    type: PipesMetadataType
    raw_value: PipesMetadataRawValue


class PipesException(TypedDict):
    """An exception as Dagster takes it: all five keys, also in ``cause`` and ``context``."""

    message: str
    stack: Sequence[str]
    name: str | None
    cause: PipesException | None
    context: PipesException | None


class AnyParamsLoader(Protocol):
    """A params loader of ours, of ``dagster_pipes``, or yours: see `PipesParamsLoader`."""

    def is_dagster_pipes_process(self) -> bool:
        """Whether Dagster launched this process."""

    def load_context_params(self) -> PipesParams:
        """What the context loader needs."""

    def load_messages_params(self) -> PipesParams:
        """What the message writer needs."""


class AnyContextLoader(Protocol):
    """A context loader of ours, of ``dagster_pipes``, or yours: see `PipesContextLoader`."""

    def load_context(
        self, params: PipesParams, /
    ) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """Open the context."""


class AnyMessageWriter(Protocol):
    """A message writer of ours, of ``dagster_pipes``, or yours: see `PipesMessageWriter`."""

    def open(
        self, params: PipesParams, /
    ) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """Open the channel."""

    def get_opened_payload(self) -> Any:
        """The params of the first message, ``opened``: ``{"extras": {...}}``."""


class SessionOptions(TypedDict, total=False):
    """The options of `open_dagster_pipes`, for functions that hand them on."""

    context_loader: AnyContextLoader | None
    message_writer: AnyMessageWriter | None
    params_loader: AnyParamsLoader | None
    flush_interval: float
    buffer_size: int
    on_full: Literal["wait", "drop_logs"]
    coalesce_logs: float | None
    close_timeout: float
    log_level: int | str | None
    handle_sigterm: bool
    capture_stdio: bool | None
    capture_logging: bool | int | str
    show_reports: bool | None
