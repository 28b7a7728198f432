"""Dagster Pipes for async and log-heavy Python jobs.

::

    async with open_dagster_pipes() as pipes:      # in a coroutine
        pipes.log.info("starting")

    with open_dagster_pipes() as pipes:            # in plain code
        pipes.report_asset_materialization(metadata={"rows": 3})

Every name of ``dagster_pipes`` that means something here is there too, so that a script needs to
change its import only. What few jobs use is imported when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dagsterpipes._protocol.envelope import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PIPES_PROTOCOL_VERSION,
    PIPES_PROTOCOL_VERSION_FIELD,
)
from dagsterpipes._session.context import PipesContext
from dagsterpipes._session.null import NullPipesContext
from dagsterpipes._session.opening import open_dagster_pipes, with_dagster_pipes
from dagsterpipes.exceptions import (
    ChannelError,
    ContextError,
    DagsterPipesError,
    DagsterPipesWarning,
    FlushTimeoutError,
    InvalidReportError,
    LaunchParamsError,
    MessagesLostError,
    SessionClosedError,
)

if TYPE_CHECKING:
    from types import FrameType

    from dagsterpipes._protocol.assets import (
        ESCAPE_CHARACTER,
        from_asset_key_path,
        to_asset_key_path,
    )
    from dagsterpipes._protocol.launch_params import (
        DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT,
        DAGSTER_PIPES_CONTEXT_WIDGET_KEY,
        DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT,
        DAGSTER_PIPES_MESSAGES_WIDGET_KEY,
        decode_env_var,
        decode_param,
        encode_env_var,
        encode_param,
    )
    from dagsterpipes._protocol.metadata import (
        PIPES_METADATA_TYPE_INFER,
        MetadataValue,
        pipes_metadata_value,
    )
    from dagsterpipes._relay.relay import PipesRelay
    from dagsterpipes._session.log_handler import PipesLogHandler
    from dagsterpipes._session.logger import PipesLogger
    from dagsterpipes._session.progress import PipesProgress
    from dagsterpipes.loaders import (
        PipesCliArgsParamsLoader,
        PipesContextLoader,
        PipesDatabricksNotebookWidgetsParamsLoader,
        PipesDefaultContextLoader,
        PipesEnvVarParamsLoader,
        PipesMappingParamsLoader,
        PipesParamsLoader,
    )
    from dagsterpipes.log_writers import (
        PipesDefaultLogWriter,
        PipesDefaultLogWriterChannel,
        PipesLogWriter,
        PipesLogWriterChannel,
        PipesLogWriterOpenedData,
        PipesStdioFileLogWriter,
        PipesStdioFileLogWriterChannel,
        PipesStdioLogWriter,
        PipesStdioLogWriterChannel,
        T_LogChannel,
    )
    from dagsterpipes.stores import (
        PipesAzureBlobStorageContextLoader,
        PipesAzureBlobStorageMessageWriter,
        PipesAzureBlobStorageMessageWriterChannel,
        PipesBufferedFilesystemMessageWriterChannel,
        PipesDbfsContextLoader,
        PipesDbfsMessageWriter,
        PipesGCSContextLoader,
        PipesGCSMessageWriter,
        PipesGCSMessageWriterChannel,
        PipesObjectStoreContextLoader,
        PipesObjectStoreMessageWriter,
        PipesObjectStoreMessageWriterChannel,
        PipesPrefectLogsMessageWriter,
        PipesPrefectLogsMessageWriterChannel,
        PipesS3ContextLoader,
        PipesS3MessageWriter,
        PipesS3MessageWriterChannel,
        PipesUnityCatalogVolumesContextLoader,
        PipesUnityCatalogVolumesMessageWriter,
    )
    from dagsterpipes.typing import (
        Method,
        PipesAssetCheckSeverity,
        PipesContextData,
        PipesDataProvenance,
        PipesException,
        PipesExtras,
        PipesMessage,
        PipesMetadataLike,
        PipesMetadataRawValue,
        PipesMetadataType,
        PipesMetadataValue,
        PipesOpenedData,
        PipesParams,
        PipesPartitionKeyRange,
        PipesStatistics,
        PipesTimeWindow,
    )
    from dagsterpipes.writers import (
        PipesBlobStoreMessageWriter,
        PipesBlobStoreMessageWriterChannel,
        PipesBufferedStreamMessageWriterChannel,
        PipesDefaultMessageWriter,
        PipesFileMessageWriterChannel,
        PipesMessageWriter,
        PipesMessageWriterChannel,
        PipesStreamMessageWriterChannel,
        T_BlobStoreMessageWriterChannel,
        T_MessageChannel,
    )

__all__ = [
    "DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT",
    "DAGSTER_PIPES_CONTEXT_ENV_VAR",
    "DAGSTER_PIPES_CONTEXT_WIDGET_KEY",
    "DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT",
    "DAGSTER_PIPES_MESSAGES_ENV_VAR",
    "DAGSTER_PIPES_MESSAGES_WIDGET_KEY",
    "ESCAPE_CHARACTER",
    "PIPES_METADATA_TYPE_INFER",
    "PIPES_PROTOCOL_VERSION",
    "PIPES_PROTOCOL_VERSION_FIELD",
    "ChannelError",
    "ContextError",
    "DagsterPipesError",
    "DagsterPipesWarning",
    "FlushTimeoutError",
    "InvalidReportError",
    "LaunchParamsError",
    "MessagesLostError",
    "MetadataValue",
    "Method",
    "NullPipesContext",
    "PipesAssetCheckSeverity",
    "PipesAzureBlobStorageContextLoader",
    "PipesAzureBlobStorageMessageWriter",
    "PipesAzureBlobStorageMessageWriterChannel",
    "PipesBlobStoreMessageWriter",
    "PipesBlobStoreMessageWriterChannel",
    "PipesBufferedFilesystemMessageWriterChannel",
    "PipesBufferedStreamMessageWriterChannel",
    "PipesCliArgsParamsLoader",
    "PipesContext",
    "PipesContextData",
    "PipesContextLoader",
    "PipesDataProvenance",
    "PipesDatabricksNotebookWidgetsParamsLoader",
    "PipesDbfsContextLoader",
    "PipesDbfsMessageWriter",
    "PipesDefaultContextLoader",
    "PipesDefaultLogWriter",
    "PipesDefaultLogWriterChannel",
    "PipesDefaultMessageWriter",
    "PipesEnvVarParamsLoader",
    "PipesException",
    "PipesExtras",
    "PipesFileMessageWriterChannel",
    "PipesGCSContextLoader",
    "PipesGCSMessageWriter",
    "PipesGCSMessageWriterChannel",
    "PipesLogHandler",
    "PipesLogWriter",
    "PipesLogWriterChannel",
    "PipesLogWriterOpenedData",
    "PipesLogger",
    "PipesMappingParamsLoader",
    "PipesMessage",
    "PipesMessageWriter",
    "PipesMessageWriterChannel",
    "PipesMetadataLike",
    "PipesMetadataRawValue",
    "PipesMetadataType",
    "PipesMetadataValue",
    "PipesObjectStoreContextLoader",
    "PipesObjectStoreMessageWriter",
    "PipesObjectStoreMessageWriterChannel",
    "PipesOpenedData",
    "PipesParams",
    "PipesParamsLoader",
    "PipesPartitionKeyRange",
    "PipesPrefectLogsMessageWriter",
    "PipesPrefectLogsMessageWriterChannel",
    "PipesProgress",
    "PipesRelay",
    "PipesS3ContextLoader",
    "PipesS3MessageWriter",
    "PipesS3MessageWriterChannel",
    "PipesStatistics",
    "PipesStdioFileLogWriter",
    "PipesStdioFileLogWriterChannel",
    "PipesStdioLogWriter",
    "PipesStdioLogWriterChannel",
    "PipesStreamMessageWriterChannel",
    "PipesTimeWindow",
    "PipesUnityCatalogVolumesContextLoader",
    "PipesUnityCatalogVolumesMessageWriter",
    "SessionClosedError",
    "T_BlobStoreMessageWriterChannel",
    "T_LogChannel",
    "T_MessageChannel",
    "decode_env_var",
    "decode_param",
    "encode_env_var",
    "encode_param",
    "from_asset_key_path",
    "open_dagster_pipes",
    "pipes_metadata_value",
    "to_asset_key_path",
    "with_dagster_pipes",
]

_LATE = {
    "dagsterpipes._protocol.assets": (
        "ESCAPE_CHARACTER",
        "from_asset_key_path",
        "to_asset_key_path",
    ),
    "dagsterpipes._protocol.launch_params": (
        "DAGSTER_PIPES_CONTEXT_CLI_ARGUMENT",
        "DAGSTER_PIPES_CONTEXT_WIDGET_KEY",
        "DAGSTER_PIPES_MESSAGES_CLI_ARGUMENT",
        "DAGSTER_PIPES_MESSAGES_WIDGET_KEY",
        "decode_env_var",
        "decode_param",
        "encode_env_var",
        "encode_param",
    ),
    "dagsterpipes._protocol.metadata": (
        "PIPES_METADATA_TYPE_INFER",
        "MetadataValue",
        "pipes_metadata_value",
    ),
    "dagsterpipes._relay.relay": ("PipesRelay",),
    "dagsterpipes._session.log_handler": ("PipesLogHandler",),
    "dagsterpipes._session.logger": ("PipesLogger",),
    "dagsterpipes._session.progress": ("PipesProgress",),
    "dagsterpipes.loaders": (
        "PipesCliArgsParamsLoader",
        "PipesContextLoader",
        "PipesDatabricksNotebookWidgetsParamsLoader",
        "PipesDefaultContextLoader",
        "PipesEnvVarParamsLoader",
        "PipesMappingParamsLoader",
        "PipesParamsLoader",
    ),
    "dagsterpipes.log_writers": (
        "PipesDefaultLogWriter",
        "PipesDefaultLogWriterChannel",
        "PipesLogWriter",
        "PipesLogWriterChannel",
        "PipesLogWriterOpenedData",
        "PipesStdioFileLogWriter",
        "PipesStdioFileLogWriterChannel",
        "PipesStdioLogWriter",
        "PipesStdioLogWriterChannel",
        "T_LogChannel",
    ),
    "dagsterpipes.stores": (
        "PipesAzureBlobStorageContextLoader",
        "PipesAzureBlobStorageMessageWriter",
        "PipesAzureBlobStorageMessageWriterChannel",
        "PipesBufferedFilesystemMessageWriterChannel",
        "PipesDbfsContextLoader",
        "PipesDbfsMessageWriter",
        "PipesGCSContextLoader",
        "PipesGCSMessageWriter",
        "PipesGCSMessageWriterChannel",
        "PipesObjectStoreContextLoader",
        "PipesObjectStoreMessageWriter",
        "PipesObjectStoreMessageWriterChannel",
        "PipesPrefectLogsMessageWriter",
        "PipesPrefectLogsMessageWriterChannel",
        "PipesS3ContextLoader",
        "PipesS3MessageWriter",
        "PipesS3MessageWriterChannel",
        "PipesUnityCatalogVolumesContextLoader",
        "PipesUnityCatalogVolumesMessageWriter",
    ),
    "dagsterpipes.typing": (
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
    ),
    "dagsterpipes.writers": (
        "PipesBlobStoreMessageWriter",
        "PipesBlobStoreMessageWriterChannel",
        "PipesBufferedStreamMessageWriterChannel",
        "PipesDefaultMessageWriter",
        "PipesFileMessageWriterChannel",
        "PipesMessageWriter",
        "PipesMessageWriterChannel",
        "PipesStreamMessageWriterChannel",
        "T_BlobStoreMessageWriterChannel",
        "T_MessageChannel",
    ),
}
_MODULE_OF = {name: module for module, names in _LATE.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is not None:
        import importlib  # noqa: PLC0415 because most jobs need none of these names

        value = globals()[name] = getattr(importlib.import_module(module), name)
        return value
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 because few jobs ask for it

        return version("dagsterpipes")
    if name.startswith("Pipes") and name.endswith(("Loader", "Writer", "Channel")):
        hint = (
            f"dagsterpipes has no {name}. If dagster_pipes has it, pass an instance of that one to "
            "open_dagster_pipes(), as context_loader, message_writer or params_loader."
        )
        # `from dagsterpipes import X` replaces an AttributeError by one of its own, without the hint.
        raise (ImportError if _is_import(sys._getframe(1)) else AttributeError)(hint)  # noqa: SLF001 because inspect is slow to import
    raise AttributeError(f"module 'dagsterpipes' has no attribute {name!r}")


def _is_import(frame: FrameType) -> bool:
    """Whether the frame is at a ``from ... import``."""
    import opcode  # noqa: PLC0415 because it is only needed for an error

    return frame.f_code.co_code[frame.f_lasti] == opcode.opmap["IMPORT_FROM"]


def __dir__() -> list[str]:
    return __all__
