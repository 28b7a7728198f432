"""The shapes of the wire, with the names that ``dagster_pipes`` gives them, and our own aliases.

Source of the shapes: ``dagster_pipes`` 1.13 and the handlers in Dagster's
``dagster._core.pipes.context``. Nothing in this module does anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypedDict,
    Union,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from datetime import timedelta
    from decimal import Decimal
    from enum import Enum
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
    from os import PathLike
    from uuid import UUID

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
    "PipesMetadataLike",
    "PipesMetadataRawValue",
    "PipesMetadataType",
    "PipesMetadataValue",
    "PipesOpenedData",
    "PipesParams",
    "PipesPartitionKeyRange",
    "PipesStatistics",
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


class _HasIsoformat(Protocol):
    def isoformat(self) -> str: ...


class _HasTolist(Protocol):
    def tolist(self) -> Any: ...


class _HasToList(Protocol):
    def to_list(self) -> Any: ...


class _HasToPylist(Protocol):
    def to_pylist(self) -> Any: ...


class _HasAsPy(Protocol):
    def as_py(self) -> Any: ...


class _IsFrame(Protocol):
    @property
    def columns(self) -> Any: ...


class _IsRemotePath(Protocol):
    def as_uri(self) -> str: ...
    def joinpath(self, *parts: Any) -> Any: ...


class _IsSecret(Protocol):
    def get_secret_value(self) -> Any: ...


class _IsDataClass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _IsAttrsClass(Protocol):
    __attrs_attrs__: ClassVar[Any]


class _IsStruct(Protocol):
    __struct_fields__: ClassVar[Any]


class _IsModel(Protocol):
    def model_dump(self) -> Any: ...


class _HasKeys(Protocol):
    def keys(self) -> Iterable[Any]: ...
    def __getitem__(self, key: Any, /) -> Any: ...


class _IsPeriod(Protocol):
    @property
    def ordinal(self) -> int: ...


class _IsInterval(Protocol):
    @property
    def closed_left(self) -> bool: ...


class _IsDagsterValue(Protocol):
    @property
    def value(self) -> Any: ...


class _IsDagsterAssetKey(Protocol):
    def to_user_string(self) -> str: ...


class _IsDagsterLineage(Protocol):
    @property
    def deps_by_column(self) -> Mapping[str, Any]: ...


PipesMetadataLike: TypeAlias = Union[
    PipesMetadataRawValue,
    PipesMetadataValue,
    Collection[Any],
    "Enum",
    "timedelta",
    "Decimal",
    "UUID",
    "IPv4Address",
    "IPv6Address",
    "IPv4Network",
    "IPv6Network",
    "PathLike[Any]",
    _HasIsoformat,
    _HasTolist,
    _HasToList,
    _HasToPylist,
    _HasAsPy,
    _IsFrame,
    _IsRemotePath,
    _IsSecret,
    _IsDataClass,
    _IsAttrsClass,
    _IsStruct,
    _IsModel,
    _HasKeys,
    _IsPeriod,
    _IsInterval,
    _IsDagsterValue,
    _IsDagsterAssetKey,
    _IsDagsterLineage,
]
"""What a report takes as a metadata value, as far as a type checker can tell: typed or raw values, and
what has a JSON form (dates, paths, numbers of numpy, data frames, data classes, models and more)."""


class PipesStatistics(NamedTuple):
    """What a session has done so far, see `PipesContext.statistics`."""

    accepted: int
    """Messages accepted: log lines and reports, ``opened`` and ``closed`` among them."""
    delivered: int
    """How many of these are with the channel (in the file, for a file)."""
    dropped: int
    """Log messages dropped because the buffer was full (``on_full="drop_logs"``)."""
    buffered: int
    """Bytes of messages that wait in memory."""
    batches: int
    """Writes that succeeded; each delivers the messages of a batch."""
    last_error: Exception | None
    """Why a write failed last; it is retried. None if none has."""


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
    trace_ids: bool | None
    show_reports: bool | None
